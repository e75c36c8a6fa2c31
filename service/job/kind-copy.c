/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copy: blockdev-mirror to an image that we open and hand to QEMU as a descriptor. Recipes: QEMU's
 * docs/interop/live-block-operations.rst and qapi/block-core.json. */

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "domain/xml.h"
#include "job/internal.h"
#include "log.h"

/* Sets of descriptors are numbered by the caller, and /dev/fdset/N is parsed as an int; a range of our own keeps out of the
 * way of others, and wraps after 2^28 jobs. */
#define FDSET_BASE INT64_C(0x62000000)
#define DIRECT_ALIGNMENT 4096
#define FDSET_MASK INT64_C(0x0fffffff)

static json_int_t fdset_of(uint64_t id) {
    return (json_int_t) (FDSET_BASE + ((int64_t) id & FDSET_MASK));
}

/* Names in QEMU: tag-f protocol node, -t image, -m mirror filter, -c the job of blockdev-create. */
static char *name_of(const Job *j, char part) {
    return g_strdup_printf("%s-%c", j->tag, part);
}

static json_t *node_arg(const char *node) {
    return json_pack("{s:s}", "node-name", node);
}

/* ── setup ── */

static void setup_failed(Job *j, FailureKind kind, const char *message) {
    j->stage = SETUP_IDLE;
    j->result = RESULT_FAILED;
    job_set_error(j, kind, "%s", message);
    job_look_again(j, LOOK_ALL);
    job_action_done(j);
}

/* A setup's batch is answered: true = go on. Otherwise the job is on its way to where the look will show it. */
static bool setup_answered(Job *j, const QmpBatchResult *result) {
    j->batch = NULL;
    if (result->error == 0 && j->state == JOB_PREPARING)
        return true;
    if (result->error == -EREMOTEIO && !j->copy.aio && strstr(result->text, "native AIO")) {
        /* Our own default, and the host has no AIO contexts left (fs.aio-max-nr). */
        j->copy.aio = g_strdup("threads");
        job_warn(
            j,
            "Native AIO is not to be had, so the target is written with aio=threads. QEMU says: %s",
            result->text);
        j->stage = SETUP_IDLE;
        job_look_again(j, LOOK_LIST);
        job_action_done(j);
        return false;
    }
    if (result->error == -EREMOTEIO) {
        g_autofree char *message = g_strdup_printf(
            "The copy could not be started (%s); nothing was changed. QEMU says: %s",
            result->command, result->text);
        setup_failed(j, FAILURE_QEMU, message);
        return false;
    }
    j->stage = SETUP_IDLE; /* cancelled meanwhile, or no answer: the look tells how far it came */
    job_look_again(j, LOOK_ALL);
    job_action_done(j);
    return false;
}

static void setup_send(Job *j, QmpBatchDone done) {
    if (qmp_batch_send(j->batch, j->event, done, j) < 0) {
        j->batch = NULL;
        j->stage = SETUP_IDLE;
        job_look_again(j, LOOK_ALL);
        job_action_done(j);
    }
}

static bool setup_batch(Job *j) {
    QmpClient *qmp = domain_qmp(j->domain);

    if (!qmp) {
        j->stage = SETUP_IDLE;
        job_look_again(j, LOOK_ALL);
        job_action_done(j);
        return false;
    }
    j->batch = qmp_batch_new(qmp, domain_qmp_timeout(j->domain));
    return true;
}

static void add_fdset_removal(Job *j, QmpBatch *b, uint64_t id) {
    qmp_batch_add(b, true, "remove-fd", json_pack("{s:I}", "fdset-id", fdset_of(id)), -1);
    domain_remove_fdset(j->domain, fdset_of(id));
}

/* Everything of this job that may be in QEMU goes; none of it may be in use. */
static void add_removals(Job *j, QmpBatch *b) {
    g_autofree char *image = name_of(j, 't'), *file = name_of(j, 'f'), *create = name_of(j, 'c');

    qmp_batch_add(b, true, "job-dismiss", json_pack("{s:s}", "id", create), -1);
    qmp_batch_add(b, true, "blockdev-del", node_arg(image), -1);
    qmp_batch_add(b, true, "blockdev-del", node_arg(file), -1);
    add_fdset_removal(j, b, j->id);
}

void copy_drop_image(Domain *d, const char *node) {
    g_autofree char *tag = g_str_has_suffix(node, "-t") ? g_strndup(node, strlen(node) - 2) : NULL;
    g_autofree char *prefix = g_strdup_printf("bj-%s-", domain_journal_identity(d));

    if (!tag || !g_str_has_prefix(tag, prefix))
        return;
    g_autofree char *file = g_strconcat(tag, "-f", NULL);
    uint64_t id = g_ascii_strtoull(tag + strlen(prefix), NULL, 10);
    domain_send(d, NULL, "blockdev-del", node_arg(node), -1, NULL, NULL);
    domain_send(d, NULL, "blockdev-del", node_arg(file), -1, NULL, NULL);
    domain_send(d, NULL, "remove-fd", json_pack("{s:I}", "fdset-id", fdset_of(id)), -1, NULL, NULL);
    domain_remove_fdset(d, fdset_of(id));
    domain_name_node(d, node, NULL, NULL, false);
}

static bool writes_header(const Job *j) {
    return g_str_equal(j->copy.target_format, "qcow2") && j->copy.target_kind == TARGET_NEW;
}

/* QEMU 7.2 and 10.0 write the zeros of a full preallocation from an unaligned buffer, which O_DIRECT refuses. */
static bool uses_direct(const Job *j) {
    bool raw_file = g_str_equal(j->copy.target_format, "raw") && !j->copy.target_block;

    if (raw_file && j->copy.size % DIRECT_ALIGNMENT != 0)
        return false; /* nor can a raw image grow by itself to a whole block */
    return g_strcmp0(j->copy.preallocation, "full") != 0 && j->copy.direct &&
           g_strcmp0(j->copy.cache, "writeback") != 0;
}

/* QEMU 7.2 takes some 3 µs for each byte of a command: what is its default anyway is left out. */
static void set_unless(json_t *o, const char *key, const char *value, const char *by_default) {
    if (!g_str_equal(value, by_default))
        json_object_set_new(o, key, json_string(value));
}

static json_t *cache_options(const Job *j) {
    return json_pack("{s:b}", "direct", uses_direct(j));
}

static json_t *file_node(const Job *j) {
    g_autofree char *file = name_of(j, 'f');
    g_autofree char *path = g_strdup_printf("/dev/fdset/%" JSON_INTEGER_FORMAT, fdset_of(j->id));
    const char *aio = j->copy.aio ? j->copy.aio : uses_direct(j) ? "native" : "threads";

    json_t *o =
        json_pack("{s:s, s:s, s:s, s:o}", "driver", j->copy.target_block ? "host_device" : "file",
                  "node-name", file, "filename", path, "cache", cache_options(j));
    set_unless(o, "aio", aio, "threads");
    set_unless(o, "discard", j->copy.discard, "ignore");
    return o;
}

static json_t *create_options(const Job *j) {
    g_autofree char *file = name_of(j, 'f');
    json_t *o = json_pack("{s:s, s:s, s:I}", "driver", "qcow2", "file", file, "size",
                          (json_int_t) j->copy.size);

    if (j->copy.cluster_size)
        json_object_set_new(o, "cluster-size", json_integer(j->copy.cluster_size));
    if (j->copy.preallocation)
        json_object_set_new(o, "preallocation", json_string(j->copy.preallocation));
    if (j->copy.backing_path) {
        json_object_set_new(o, "backing-file", json_string(j->copy.backing_path));
        json_object_set_new(o, "backing-fmt", json_string(j->copy.backing_format));
    }
    return o;
}

static json_t *image_node(const Job *j) {
    g_autofree char *file = name_of(j, 'f'), *image = name_of(j, 't');
    json_t *o = json_pack("{s:s, s:s, s:s, s:o}", "driver", j->copy.target_format, "node-name",
                          image, "file", file, "cache", cache_options(j));

    set_unless(o, "discard", j->copy.discard, "ignore");
    set_unless(o, "detect-zeroes", j->copy.detect_zeroes, "off");
    if (g_str_equal(j->copy.target_format, "qcow2"))
        json_object_set_new(o, "backing",
                            j->copy.backing_node ? json_string(j->copy.backing_node) : json_null());
    else if (j->copy.target_block) /* a device may be larger than the disk */
        json_object_set_new(o, "size", json_integer((json_int_t) j->copy.size));
    return o;
}

/* QEMU's default buffer is 16 MiB; a large one is faster, but the time to fill its free list counts for a tiny disk. */
static uint64_t buffer_size(const Job *j) {
    uint64_t wanted = j->copy.buf_size ? j->copy.buf_size : 64 * MIB;
    uint64_t whole = MAX(MIB, (j->copy.size + MIB - 1) / MIB * MIB);

    return MIN(wanted, whole);
}

static json_t *mirror_options(const Job *j, const char *root) {
    g_autofree char *image = name_of(j, 't'), *filter = name_of(j, 'm');
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:I}", "job-id", j->qemu_id,
                          "device", root, "target", image, "sync", j->copy.sync, "filter-node-name",
                          filter, "auto-finalize", false, "auto-dismiss", false, "buf-size",
                          (json_int_t) buffer_size(j));

    set_unless(o, "on-source-error", j->copy.on_source_error, "report");
    set_unless(o, "on-target-error", j->copy.on_target_error, "report");
    set_unless(o, "copy-mode", j->copy_mode, "background");
    if (j->speed)
        json_object_set_new(o, "speed", json_integer((json_int_t) j->speed));
    if (j->copy.granularity)
        json_object_set_new(o, "granularity", json_integer(j->copy.granularity));
    if (j->copy.under_filter)
        json_object_set_new(o, "replaces", json_string(j->copy.source_node));
    return o;
}

static void on_started(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    if (!setup_answered(j, result))
        return;
    j->stage = SETUP_IDLE;
    j->copy.target = target_free(j->copy.target); /* QEMU has its own descriptors */
    j->fresh_setup = false;
    job_action_done(j);
}

/* Its node stands on /dev/fdset/N: only we know the path. */
static void copy_name_target(Job *j) {
    g_autofree char *image = name_of(j, 't');

    domain_name_node(j->domain, image, j->target, j->copy.target_format, j->copy.target_block);
}

static int run_sync_folder(void *path) {
    return image_sync_folder(path);
}

static void on_folder_synced(int error, void *userdata) {
    Job *j = userdata;

    j->folder_sync = NULL;
    if (error < 0 && error != -ESHUTDOWN)
        job_warn(j, "The folder of \"%s\" cannot be synced, a power cut may lose the name: %s.",
                 j->target, g_strerror(-error));
}

/* The journal's thread works in order: the name of a new target lasts before any decision can be recorded. */
static void copy_sync_folder(Job *j) {
    if (j->copy.target_kind == TARGET_NEW && !j->folder_sync)
        journal_run(j->journal, run_sync_folder, g_strdup(j->target), g_free, on_folder_synced, j,
                    &j->folder_sync);
}

static void copy_restored(Job *j) {
    copy_name_target(j);
    copy_sync_folder(j);
}

static void setup_start(Job *j, bool created) {
    Disk *disk = domain_disk_by_device(j->domain, j->device);
    g_autofree char *create = name_of(j, 'c');
    QmpClient *qmp = domain_qmp(j->domain);

    if (!setup_batch(j))
        return;
    j->stage = SETUP_STARTING;
    if (created)
        qmp_batch_add(j->batch, false, "job-dismiss", json_pack("{s:s}", "id", create), -1);
    qmp_batch_add(j->batch, false, "blockdev-add", image_node(j), -1);
    qmp_batch_add(j->batch, false, "blockdev-mirror",
                  mirror_options(j, disk && disk->root ? disk->root : j->copy.source_node), -1);
    copy_name_target(j);
    qmp_cork(qmp);
    setup_send(j, on_started);
    if (j->stage == SETUP_STARTING)
        job_look_again(j, LOOK_LIST);
    qmp_uncork(qmp);
}

static void on_created(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    if (!setup_answered(j, result))
        return;
    /* blockdev-create is a job. Its end comes as an event, often before this reply. */
    j->stage = SETUP_WAITING;
    job_look_again(j, LOOK_LIST);
}

/* The blockdev-create of an earlier try holds its node until it is over; only then can anything be removed. */
static bool create_is_running(const Job *j) {
    g_autofree char *create = name_of(j, 'c');
    const QemuJob *q = view_job(domain_view(j->domain), create);

    return q && q->phase != QJOB_CONCLUDED && q->phase != QJOB_FAILED;
}

static void copy_setup_look(Job *j) {
    g_autofree char *create = name_of(j, 'c');

    if (j->stage == SETUP_LEFTOVER) {
        if (!j->domain || !domain_is_live(j->domain) || !create_is_running(j)) {
            j->stage = SETUP_IDLE;
            j->busy = false; /* the next step is the one that had to wait */
        }
        return;
    }
    if (!j->domain || !domain_is_live(j->domain)) {
        j->stage = SETUP_IDLE;
        job_look_again(j, LOOK_ALL);
        j->busy = false;
        return;
    }
    if (domain_look_number(j->domain) < j->fresh)
        return;
    const QemuJob *q = view_job(domain_view(j->domain), create);
    if (q && q->phase == QJOB_FAILED) {
        g_autofree char *message = g_strdup_printf("The target \"%s\" could not be made into a %s "
                                                   "image; nothing was changed. QEMU says: %s",
                                                   j->target, j->copy.target_format, q->error);
        setup_failed(j, strstr(q->error, "No space left") ? FAILURE_NO_SPACE : FAILURE_QEMU,
                     message);
    } else if (!q || q->phase == QJOB_CONCLUDED) {
        if (j->state == JOB_PREPARING)
            setup_start(j, q != NULL);
        else {
            j->stage = SETUP_IDLE;
            j->busy = false;
        }
    }
}

static void on_file_added(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    if (setup_answered(j, result))
        setup_start(j, false);
}

static void setup_create(Job *j) {
    g_autofree char *create = name_of(j, 'c');
    int writable = target_dup(j->copy.target, O_RDWR),
        readable = target_dup(j->copy.target, O_RDONLY);

    if (writable < 0 || readable < 0) {
        fd_close(writable);
        fd_close(readable);
        g_autofree char *message =
            g_strdup_printf("The target \"%s\" cannot be opened: %s.", j->target,
                            g_strerror(writable < 0 ? -writable : -readable));
        setup_failed(j, FAILURE_BAD_TARGET, message);
        return;
    }
    if (!setup_batch(j)) {
        fd_close(writable);
        fd_close(readable);
        return;
    }
    j->stage = SETUP_CREATING;
    /* QEMU reopens with the access mode that it wants from the set, so one descriptor of each. */
    qmp_batch_add(j->batch, false, "add-fd",
                  json_pack("{s:I, s:s}", "fdset-id", fdset_of(j->id), "opaque", j->tag), writable);
    qmp_batch_add(j->batch, false, "add-fd", json_pack("{s:I}", "fdset-id", fdset_of(j->id)),
                  readable);
    qmp_batch_add(j->batch, false, "blockdev-add", file_node(j), -1);
    if (writes_header(j)) {
        domain_will_create(j->domain);
        qmp_batch_add(j->batch, false, "blockdev-create",
                      json_pack("{s:s, s:o}", "job-id", create, "options", create_options(j)), -1);
    }
    setup_send(j, writes_header(j) ? on_created : on_file_added);
}

static bool open_target(Job *j, Failure *f) {
    const ImageId *id = j->copy.target_known ? &j->copy.target_id : NULL;

    if (j->copy.target)
        return true;
    if (j->copy.target_kind == TARGET_FD)
        return failure_set(f, FAILURE_BAD_TARGET,
                           "The target was given as a descriptor, which did not survive the "
                           "restart of the service; "
                           "start the copy again.");
    if (!target_reopen(j->copy.target_kind, j->target, id, &j->copy.target, f)) {
        if (j->copy.target_kind != TARGET_NEW || f->kind != FAILURE_TARGET_MISSING)
            return false;
        /* Announced in the journal, but it never got its name: it can only be made anew. */
        uid_t owner = (uid_t) -1;
        gid_t group = (gid_t) -1;
        mode_t mode = 0600;
        failure_clear(f);
        image_stat(j->copy.source_path, NULL, &owner, &group, &mode);
        if (!target_open(j->target, false, owner, group, S_ISBLK(mode) ? 0600 : mode & 0777,
                         &j->copy.target, f))
            return false;
        j->copy.target_known = j->copy.target->fd >= 0;
        j->copy.target_id = j->copy.target->id;
    }
    return true;
}

/* In the journal's thread: taking the blocks of a raw image may take a while. */
typedef struct {
    const Target *target; /* the job's, which waits */
    uint64_t size;
} Preallocation;

static int run_preallocate(void *data) {
    const Preallocation *p = data;
    return target_preallocate(p->target, p->size);
}

static void on_preallocated(int error, void *userdata) {
    Job *j = userdata;

    j->file_work = NULL;
    if (error == -ESHUTDOWN)
        return;
    if (error < 0) {
        g_autofree char *message = g_strdup_printf(
            "The blocks of \"%s\" cannot be taken in advance: %s.", j->target, g_strerror(-error));
        setup_failed(j, error == -ENOSPC ? FAILURE_NO_SPACE : FAILURE_BAD_TARGET, message);
    } else if (j->state == JOB_PREPARING)
        setup_create(j);
    else
        job_action_done(j);
}

static void setup_blocks(Job *j) {
    if (g_strcmp0(j->copy.preallocation, "falloc") != 0 ||
        !g_str_equal(j->copy.target_format, "raw")) {
        setup_create(j);
        return;
    }
    Preallocation *p = g_new0(Preallocation, 1);
    *p = (Preallocation){j->copy.target, j->copy.size};
    journal_run(j->journal, run_preallocate, p, g_free, on_preallocated, j, &j->file_work);
}

/* Recorded again where the identity is only known now (no O_TMPFILE there, or made anew). */
static void target_published(Job *j) {
    if (j->state == JOB_PREPARING)
        setup_blocks(j);
    else
        job_action_done(j);
}

static void setup_target(Job *j) {
    g_auto(Failure) f = {0};
    ImageId before = j->copy.target_id;
    bool known = j->copy.target_known;

    if (!open_target(j, &f)) {
        setup_failed(j, f.kind, f.message);
        return;
    }
    if (j->copy.target_kind == TARGET_NEW) {
        uint64_t size = g_str_equal(j->copy.target_format, "raw") ? j->copy.size : 0;
        if (!target_publish(j->copy.target, size, &f)) {
            setup_failed(j, f.kind, f.message);
            return;
        }
        j->copy.target_id = j->copy.target->id;
        j->copy.target_known = true;
        if (!known || !image_id_equal(&before, &j->copy.target_id)) {
            job_commit(j, 0, "target created", target_published);
            return;
        }
    }
    setup_blocks(j);
}

static void on_cleared(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    if (setup_answered(j, result))
        setup_target(j);
}

static void copy_setup(Job *j) {
    if (j->fresh_setup) {
        j->fresh_setup = false;
        setup_target(j);
        return;
    }
    if (create_is_running(j)) {
        j->stage = SETUP_LEFTOVER;
        return;
    }
    if (!setup_batch(j))
        return;
    j->stage = SETUP_CLEARING;
    add_removals(j, j->batch);
    setup_send(j, on_cleared);
}

/* ── ends ── */

static void copy_complete(Job *j, QmpBatch *b) {
    if (j->intent == INTENT_PIVOT)
        qmp_batch_add(b, false, "job-complete", json_pack("{s:s}", "id", j->qemu_id), -1);
    else
        qmp_batch_add(b, false, "block-job-cancel",
                      json_pack("{s:s, s:b}", "device", j->qemu_id, "force", false), -1);
}

static bool copy_may_decide(const Job *j, Failure *f) {
    if (j->copy.target_kind == TARGET_FD || j->copy.target_kind == TARGET_BLOCK)
        return true;
    if (image_is_intact(j->target, &j->copy.target_id, f))
        return true;
    g_autofree char *why = g_steal_pointer(&f->message);
    return failure_set(f, FAILURE_BAD_TARGET,
                       "%s The guest stays on its source; cancel this job and copy again.", why);
}

/* ── the definition ── */

typedef struct {
    char *definition, *disk, *tag, *target, *format, *backing_path, *backing_format;
    bool block, commit, discard;
    char *delete_path; /* NULL = nothing */
    ImageId delete_id;
    Failure failure;
    char *warning;
} FileWork;

static void file_work_free(void *data) {
    FileWork *w = data;

    g_free(w->definition);
    g_free(w->disk);
    g_free(w->tag);
    g_free(w->target);
    g_free(w->format);
    g_free(w->backing_path);
    g_free(w->backing_format);
    g_free(w->delete_path);
    g_free(w->warning);
    failure_clear(&w->failure);
    g_free(w);
}

static FileWork *file_work_new(const Job *j) {
    FileWork *w = g_new0(FileWork, 1);

    w->definition = g_strdup(j->copy.definition);
    w->disk = g_strdup(j->disk);
    w->tag = g_strdup(j->tag);
    w->target = g_strdup(j->target);
    w->format = g_strdup(j->copy.target_format);
    w->backing_path = g_strdup(j->copy.backing_path);
    w->backing_format = g_strdup(j->copy.backing_format);
    w->block = j->copy.target_block;
    return w;
}

/* In the journal's thread. The definition with the disk on its target, written beside the old one. */
static bool work_prepare(FileWork *w) {
    g_autoptr(DomainXml) xml = NULL;
    XmlImage chain[] = {{w->target, w->format}, {w->backing_path, w->backing_format}};

    if (!domain_xml_load(w->definition, &xml, &w->failure) ||
        !domain_xml_set_disk(xml, w->disk, chain, w->backing_path ? 2 : 1, w->block, false,
                             &w->failure))
        return false;
    g_autofree char *text = domain_xml_to_text(xml);
    int r = definition_prepare(w->definition, w->tag, text);
    if (r < 0)
        return failure_set(&w->failure, FAILURE_JOURNAL,
                           "The definition \"%s\" cannot be written: %s.", w->definition,
                           g_strerror(-r));
    return true;
}

static int run_prepare(void *data) {
    return work_prepare(data) ? 0 : -EIO;
}

static void on_prepared(int error, void *userdata) {
    Job *j = userdata;
    FileWork *w = g_steal_pointer(&j->work);

    j->file_work = NULL;
    if (error == -ESHUTDOWN)
        return;
    if (error == 0) {
        j->prepared = true;
        job_action_done(j);
        return;
    }
    j->busy = false;
    if (j->intent == INTENT_PIVOT && !j->decided) {
        g_autofree char *message = g_strdup_printf(
            "%s The guest stays on its source; the job is ready as before.", w->failure.message);
        job_back_out(j, w->failure.kind, message);
    } else
        job_advance(j);
}

static void copy_prepare(Job *j) {
    j->work = file_work_new(j);
    journal_run(j->journal, run_prepare, j->work, file_work_free, on_prepared, j, &j->file_work);
}

static bool definition_names_target(const FileWork *w) {
    g_autoptr(DomainXml) xml = NULL;
    g_auto(Failure) f = {0};

    if (!domain_xml_load(w->definition, &xml, &f))
        return false;
    g_autoptr(GPtrArray) disks = domain_xml_disks(xml);
    for (guint i = 0; i < disks->len; i++) {
        const XmlDisk *d = disks->pdata[i];
        if (g_strcmp0(d->target, w->disk) == 0)
            return g_strcmp0(d->source, w->target) == 0;
    }
    return false;
}

/* Deletes only what is still the file that was recorded, and only when no process holds it. */
static void work_delete(FileWork *w) {
    g_auto(Failure) f = {0};
    g_autoptr(Target) t = NULL;
    int r = 0;

    if (!target_reopen(TARGET_FILE, w->delete_path, &w->delete_id, &t, &f)) {
        if (f.kind != FAILURE_TARGET_MISSING)
            w->warning = g_strdup_printf("\"%s\" was not deleted: %s", w->delete_path, f.message);
        return;
    }
    if (!target_check_locks(t, &f)) {
        w->warning = g_strdup_printf("\"%s\" was not deleted: %s", w->delete_path, f.message);
        return;
    }
    r = image_delete(w->delete_path, &w->delete_id);
    if (r < 0)
        w->warning = g_strdup_printf("\"%s\" was not deleted: %s.", w->delete_path, g_strerror(-r));
}

static int run_clean(void *data) {
    FileWork *w = data;

    if (w->commit) {
        int r = definition_commit(w->definition, w->tag);
        /* Prepared by nobody (another program's command switched the guest), or the prepared file was lost. */
        if (r == 0 && !definition_names_target(w) && work_prepare(w))
            r = definition_commit(w->definition, w->tag);
        if (r < 0 || w->failure.kind != FAILURE_NONE)
            w->warning = g_strdup_printf("The definition \"%s\" still names the old image of disk "
                                         "%s, change it to \"%s\": %s",
                                         w->definition, w->disk, w->target,
                                         w->failure.message ? w->failure.message : g_strerror(-r));
    } else if (w->discard)
        definition_discard(w->definition, w->tag);
    if (w->delete_path && !w->warning)
        work_delete(w);
    return 0;
}

/* ── finishing work ── */

static void on_cleaned(int error, void *userdata) {
    Job *j = userdata;
    FileWork *w = g_steal_pointer(&j->work);

    j->file_work = NULL;
    if (error == -ESHUTDOWN)
        return;
    if (w->warning)
        job_warn(j, "%s", w->warning);
    j->clean = true;
    job_action_done(j);
}

static void clean_files(Job *j) {
    FileWork *w = file_work_new(j);
    const Copy *c = &j->copy;

    w->commit = w->definition && j->result == RESULT_PIVOTED;
    w->discard = w->definition && j->intent == INTENT_PIVOT && !w->commit;
    if (j->result == RESULT_PIVOTED && c->delete_source && !c->source_block) {
        w->delete_path = g_strdup(c->source_path);
        w->delete_id = c->source_id;
    } else if (j->result != RESULT_PIVOTED && j->result != RESULT_FINISHED && c->delete_target &&
               c->target_known && c->target_kind == TARGET_NEW) {
        w->delete_path = g_strdup(j->target);
        w->delete_id = c->target_id;
    }
    if (j->result != RESULT_PIVOTED && j->result != RESULT_FINISHED && !w->delete_path &&
        c->target_known)
        job_warn(j, "The target \"%s\" is not a whole copy.", j->target);
    j->copy.target = target_free(j->copy.target);
    if (!w->commit && !w->discard && !w->delete_path) {
        file_work_free(w);
        j->clean = true;
        job_action_done(j);
        return;
    }
    j->work = w;
    journal_run(j->journal, run_clean, w, file_work_free, on_cleaned, j, &j->file_work);
}

static void on_nodes_removed(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    j->batch = NULL;
    if (result->error !=
        0) { /* no answer: done again when there is one, or without QEMU when it is gone */
        job_look_again(j, LOOK_ALL);
        job_action_done(j);
        return;
    }
    clean_files(j);
}

/* Nodes that stood under the guest's disk. Those of an earlier job of ours bring their set of descriptors along. */
static void add_old_nodes(Job *j, QmpBatch *b) {
    for (char **node = j->copy.old_nodes; node && *node; node++) {
        qmp_batch_add(b, true, "blockdev-del", node_arg(*node), -1);
        if (g_str_has_prefix(*node, "bj-") && g_str_has_suffix(*node, "-f")) {
            uint64_t id = g_ascii_strtoull(*node + strlen("bj-01234567-"), NULL, 10);
            add_fdset_removal(j, b, id);
        }
    }
}

/* Sent right behind job-finalize: what is in use, because finalizing failed, QEMU refuses to remove. */
static void copy_finalize(Job *j, QmpBatch *b) {
    if (j->intent == INTENT_PIVOT)
        add_old_nodes(j, b);
    else
        add_removals(j, b);
}

/* Their names are not needed any more. */
static void forget_nodes(Job *j) {
    g_autofree char *image = name_of(j, 't');

    if (j->result != RESULT_PIVOTED) {
        domain_name_node(j->domain, image, NULL, NULL, false);
        return;
    }
    for (char **node = j->copy.old_nodes; node && *node; node++)
        domain_name_node(j->domain, *node, NULL, NULL, false);
}

static void copy_clean(Job *j) {
    bool live = j->domain && domain_qmp(j->domain) &&
                instance_equal(domain_instance(j->domain), &j->instance);

    if (!live) {
        clean_files(j);
        return;
    }
    forget_nodes(j);
    if (j->finalized &&
        j->result == (j->intent == INTENT_PIVOT ? RESULT_PIVOTED : RESULT_FINISHED)) {
        clean_files(j); /* the nodes went with it */
        domain_look(j->domain, LOOK_DISKS | (j->copy.under_filter ? LOOK_NODES : 0));
        return;
    }
    if (create_is_running(j)) {
        j->stage = SETUP_LEFTOVER;
        return;
    }
    j->batch = qmp_batch_new(domain_qmp(j->domain), domain_qmp_timeout(j->domain));
    if (j->result == RESULT_PIVOTED)
        add_old_nodes(j, j->batch);
    else
        add_removals(j, j->batch);
    if (qmp_batch_send(j->batch, j->event, on_nodes_removed, j) < 0) {
        j->batch = NULL;
        job_look_again(j, LOOK_ALL);
        job_action_done(j);
        return;
    }
    domain_look(j->domain, LOOK_DISKS | (j->copy.under_filter ? LOOK_NODES : 0));
}

const JobKind kind_copy = {
    .name = "copy",
    .setup = copy_setup,
    .setup_look = copy_setup_look,
    .complete = copy_complete,
    .finalize = copy_finalize,
    .prepare = copy_prepare,
    .clean = copy_clean,
    .may_decide = copy_may_decide,
    .started = copy_sync_folder,
    .restored = copy_restored,
};
