/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copy: blockdev-mirror to an image that we open and hand to QEMU as a descriptor. Recipes: QEMU's
 * docs/interop/live-block-operations.rst and qapi/block-core.json. */

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "job/internal.h"
#include "log.h"

/* ── setup ── */

#define DIRECT_ALIGNMENT 4096

static void target_failed(Job *j, const char *verb, int error) {
    g_autofree char *message =
        g_strdup_printf("The target \"%s\" cannot be %s: %s.", j->target, verb, g_strerror(-error));
    setup_failed(j, error == -ENOSPC ? FAILURE_NO_SPACE : FAILURE_BAD_TARGET, message);
}

/* As setup_answered(). Our own default, and the host has no AIO contexts left (fs.aio-max-nr): threads will do. */
static bool copy_answered(Job *j, const QmpBatchResult *result) {
    if (result->error != -EREMOTEIO || j->copy.aio || !strstr(result->text, "native AIO"))
        return setup_answered(j, result);
    j->batch = NULL;
    j->copy.aio = g_strdup("threads");
    job_warn(j,
             "Native AIO is not to be had, so the target is written with aio=threads. QEMU says: "
             "%s",
             result->text);
    setup_left(j, LOOK_LIST);
    return false;
}

/* Everything of this job that may be in QEMU goes; none of it may be in use. The protocol node goes with its image, but
 * while QEMU makes the image it is alone. */
static void add_removals(Job *j, QmpBatch *b) {
    g_autofree char *image = job_node_name(j, 't'), *file = job_node_name(j, 'f'),
                    *create = job_node_name(j, 'c');
    bool by_qemu = copy_target_by_qemu(j);

    if (by_qemu)
        qmp_batch_add(b, true, "job-dismiss", json_pack("{s:s}", "id", create), -1);
    qmp_batch_add(b, true, "blockdev-del", node_arg(image), -1);
    if (by_qemu)
        qmp_batch_add(b, true, "blockdev-del", node_arg(file), -1);
    add_fdset_removal(j, b, j->id);
}

void copy_drop_image(Domain *d, const char *node) {
    g_autofree char *tag = g_str_has_suffix(node, "-t") ? g_strndup(node, strlen(node) - 2) : NULL;
    g_autofree char *prefix = g_strdup_printf("bj-%s-", domain_journal_identity(d));

    if (!tag || !g_str_has_prefix(tag, prefix))
        return;
    uint64_t id = g_ascii_strtoull(tag + strlen(prefix), NULL, 10);
    domain_send(d, NULL, "blockdev-del", node_arg(node), -1, NULL, NULL);
    domain_send(d, NULL, "remove-fd", json_pack("{s:I}", "fdset-id", fdset_of(id)), -1, NULL, NULL);
    domain_remove_fdset(d, fdset_of(id));
    domain_name_node(d, node, NULL, NULL, false);
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

/* The protocol node. Inside an image it has the image's cache mode, and passes on what the image discards. */
static json_t *file_node(const Job *j) {
    g_autofree char *file = job_node_name(j, 'f');
    g_autofree char *path = g_strdup_printf("/dev/fdset/%" JSON_INTEGER_FORMAT, fdset_of(j->id));
    const char *aio = j->copy.aio ? j->copy.aio : uses_direct(j) ? "native" : "threads";

    json_t *o =
        json_pack("{s:s, s:s, s:s}", "driver", j->copy.target_block ? "host_device" : "file",
                  "node-name", file, "filename", path);
    set_unless(o, "aio", aio, "threads");
    set_unless(o, "discard", j->copy.discard, "unmap");
    return o;
}

static json_t *create_options(const Job *j) {
    g_autofree char *file = job_node_name(j, 'f');
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
    g_autofree char *image = job_node_name(j, 't');
    json_t *o = json_pack("{s:s, s:s, s:o, s:o}", "driver", j->copy.target_format, "node-name",
                          image, "file", file_node(j), "cache", cache_options(j));

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
    g_autofree char *image = job_node_name(j, 't'), *filter = job_node_name(j, 'm');
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

    if (!copy_answered(j, result))
        return;
    j->stage = SETUP_IDLE;
    j->copy.target = target_free(j->copy.target); /* QEMU has its own descriptors */
    j->fresh_setup = false;
    job_action_done(j);
}

/* Its node stands on /dev/fdset/N: only we know the path. */
static void copy_name_target(Job *j) {
    g_autofree char *image = job_node_name(j, 't');

    domain_name_node(j->domain, image, j->target, j->copy.target_format, j->copy.target_block);
}

static void copy_restored(Job *j) {
    copy_name_target(j);
    /* With the page cache this has been done before it was recorded as running, and could take long now. */
    copy_target_sync(j, j->state == JOB_PREPARING || uses_direct(j),
                     j->state == JOB_RUNNING || j->state == JOB_READY);
}

static void add_start(Job *j) {
    Disk *disk = domain_disk_by_device(j->domain, j->device);

    qmp_batch_add(j->batch, false, "blockdev-add", image_node(j), -1);
    qmp_batch_add(j->batch, false, "blockdev-mirror",
                  mirror_options(j, disk && disk->root ? disk->root : j->copy.source_node), -1);
    copy_name_target(j);
}

/* Sends the batch that ends in blockdev-mirror, and a look right behind it. */
static void start_send(Job *j) {
    QmpClient *qmp = domain_qmp(j->domain);

    j->stage = SETUP_STARTING;
    qmp_cork(qmp);
    setup_send(j, on_started);
    if (j->stage == SETUP_STARTING)
        job_look_again(j, LOOK_LIST);
    qmp_uncork(qmp);
}

static void setup_start(Job *j, bool created) {
    g_autofree char *create = job_node_name(j, 'c'), *file = job_node_name(j, 'f');

    if (!setup_batch(j))
        return;
    if (created)
        qmp_batch_add(j->batch, false, "job-dismiss", json_pack("{s:s}", "id", create), -1);
    qmp_batch_add(j->batch, false, "blockdev-del", node_arg(file), -1);
    add_start(j);
    start_send(j);
}

static void on_created(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    if (!copy_answered(j, result))
        return;
    /* blockdev-create is a job. Its end comes as an event, often before this reply. */
    j->stage = SETUP_WAITING;
    job_look_again(j, LOOK_LIST);
}

/* The blockdev-create of an earlier try holds its node until it is over; only then can anything be removed. */
static bool create_is_running(const Job *j) {
    g_autofree char *create = job_node_name(j, 'c');
    const QemuJob *q = view_job(domain_view(j->domain), create);

    return q && q->phase != QJOB_CONCLUDED && q->phase != QJOB_FAILED;
}

static void copy_setup_look(Job *j) {
    g_autofree char *create = job_node_name(j, 'c');

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

static void add_create(Job *j) {
    g_autofree char *create = job_node_name(j, 'c');
    json_t *file = file_node(j);

    json_object_set_new(file, "cache", cache_options(j));
    set_unless(file, "discard", j->copy.discard, "ignore");
    domain_will_create(j->domain);
    qmp_batch_add(j->batch, false, "blockdev-add", file, -1);
    qmp_batch_add(j->batch, false, "blockdev-create",
                  json_pack("{s:s, s:o}", "job-id", create, "options", create_options(j)), -1);
}

/* QEMU reopens with the access mode that it wants from the set, so one descriptor of each. */
static bool add_descriptors(Job *j) {
    /* From 9.1 on QEMU takes a descriptor of a set only if O_DIRECT is as the node wants it; before, it sets it itself. */
    int direct = uses_direct(j) ? O_DIRECT : 0;
    int writable = target_dup(j->copy.target, O_RDWR | direct);
    int readable = target_dup(j->copy.target, O_RDONLY | direct);

    /* Nothing but a change to read-only needs the second one: a caller's descriptor may be all that there is. */
    if (writable < 0 || (readable < 0 && readable != -EACCES)) {
        fd_close(writable);
        fd_close(readable);
        target_failed(j, "opened", writable < 0 ? writable : readable);
        return false;
    }
    if (!setup_batch(j)) {
        fd_close(writable);
        fd_close(readable);
        return false;
    }
    g_autofree char *witness = copy_witness(j);
    qmp_batch_add(j->batch, false, "add-fd",
                  json_pack("{s:I, s:s}", "fdset-id", fdset_of(j->id), "opaque", witness),
                  writable);
    if (readable >= 0)
        qmp_batch_add(j->batch, false, "add-fd", json_pack("{s:I}", "fdset-id", fdset_of(j->id)),
                      readable);
    return true;
}

static void setup_create(Job *j) {
    int r = copy_target_write(j);

    if (r < 0) {
        target_failed(j, "written", r);
        return;
    }
    if (!add_descriptors(j))
        return;
    copy_target_sync(j, true, uses_direct(j));
    if (copy_target_by_qemu(j)) {
        add_create(j);
        j->stage = SETUP_CREATING;
        setup_send(j, on_created);
    } else {
        add_start(j);
        start_send(j);
    }
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

static void setup_publish(Job *j) {
    g_auto(Failure) f = {0};
    ImageId before = j->copy.target_id;
    bool known = j->copy.target_known;

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

static void target_recorded(Job *j) {
    if (j->state == JOB_PREPARING)
        setup_publish(j);
    else
        job_action_done(j);
}

static void setup_target(Job *j) {
    g_auto(Failure) f = {0};
    ImageId before = j->copy.target_id;
    bool known = j->copy.target_known;

    if (!copy_target_open(j, &f)) {
        setup_failed(j, f.kind, f.message);
        return;
    }
    /* Made anew after a death: as with the first one, whose file it is must be known before it has its name. */
    if (known != j->copy.target_known || !image_id_equal(&before, &j->copy.target_id)) {
        job_commit(j, 0, "target made anew", target_recorded);
        return;
    }
    setup_publish(j);
}

static void on_cleared(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    if (copy_answered(j, result))
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

static bool copy_may_decide(const Job *j, Failure *f) {
    if (j->copy.unsynced)
        return failure_set(f, FAILURE_BAD_TARGET,
                           "The target \"%s\" could not be synced to its storage; the guest stays "
                           "on its source. Cancel this job and copy to a sound storage.",
                           j->target);
    if (j->copy.target_kind == TARGET_FD || j->copy.target_kind == TARGET_BLOCK)
        return true;
    if (image_is_intact(j->target, &j->copy.target_id, f))
        return true;
    g_autofree char *why = g_steal_pointer(&f->message);
    return failure_set(f, FAILURE_BAD_TARGET,
                       "%s The guest stays on its source; cancel this job and copy again.", why);
}

/* ── finishing work ── */

static void copy_images_after(const Job *j, GPtrArray *images) {
    const Copy *c = &j->copy;

    job_image_add(images, j->target, c->target_format, c->target_block, NULL);
    if (c->backing_path)
        job_image_add(images, c->backing_path, c->backing_format, false, NULL);
}

static void copy_doomed(Job *j, GPtrArray *doomed) {
    const Copy *c = &j->copy;
    bool whole = j->result == RESULT_PIVOTED || j->result == RESULT_FINISHED;

    if (j->result == RESULT_PIVOTED && c->delete_source && !c->source_block)
        job_image_add(doomed, c->source_path, NULL, false, &c->source_id);
    else if (!whole && c->delete_target && c->target_known && c->target_kind == TARGET_NEW)
        job_image_add(doomed, j->target, NULL, false, &c->target_id);
    else if (!whole && c->target_known)
        job_warn(j, "The target \"%s\" is not a whole copy.", j->target);
}

/* Sent right behind job-finalize: what is in use, because finalizing failed, QEMU refuses to remove. */
static void copy_finalize(Job *j, QmpBatch *b) {
    if (j->intent == INTENT_PIVOT)
        add_old_images(j, b);
    else
        add_removals(j, b);
}

/* The locks of the old image went with its node: its descriptors need not be gone before the end is told. */
static void copy_dismiss(Job *j, QmpBatch *b) {
    if (j->result == RESULT_PIVOTED)
        add_old_fdsets(j, b);
}

/* Their names are not needed any more. */
static void forget_nodes(Job *j) {
    g_autofree char *image = job_node_name(j, 't');

    if (j->result == RESULT_PIVOTED)
        forget_old_nodes(j);
    else
        domain_name_node(j->domain, image, NULL, NULL, false);
}

/* The graph may show what is gone for a while, but it must have what came: the next job goes by it. */
static void look_at_rest(Job *j) {
    unsigned scope = LOOK_DISKS | (j->copy.under_filter ? LOOK_NODES : 0);

    if (domain_owed_look(j->domain) & LOOK_GRAPH)
        domain_look(j->domain, scope);
    else
        domain_look_later(j->domain, scope);
}

static void copy_clean(Job *j) {
    j->copy.target = target_free(j->copy.target);
    j->copy.sync_owed = copy_sync_free(j->copy.sync_owed);
    if (!job_qemu_is_there(j)) {
        files_clean(j);
        return;
    }
    forget_nodes(j);
    if (j->finalized &&
        j->result == (j->intent == INTENT_PIVOT ? RESULT_PIVOTED : RESULT_FINISHED)) {
        files_clean(j); /* the nodes went with it */
        look_at_rest(j);
        return;
    }
    if (create_is_running(j)) {
        j->stage = SETUP_LEFTOVER;
        return;
    }
    QmpBatch *b = qmp_batch_new(domain_qmp(j->domain), domain_qmp_timeout(j->domain));
    if (j->result == RESULT_PIVOTED)
        add_old_nodes(j, b);
    else
        add_removals(j, b);
    nodes_clean(j, b);
}

static void copy_lost(Job *j) {
    if (!j->decided) {
        job_set_error(j, FAILURE_DOMAIN_NOT_RUNNING,
                      "QEMU went away and the job with it; the guest's disk is still \"%s\", and "
                      "the target \"%s\" is "
                      "not a whole copy.",
                      j->copy.source_path, j->target);
        return;
    }
    j->copy.delete_target = false;
    job_set_error(j, FAILURE_DOMAIN_NOT_RUNNING,
                  "QEMU went away in the middle of the switch and was started on \"%s\" again, "
                  "which is therefore "
                  "right; \"%s\" is the same as of that moment and is left alone.",
                  j->copy.source_path, j->target);
}

const JobKind kind_copy = {
    .name = "copy",
    .done = RESULT_PIVOTED,
    .unchanged = "the guest stays on its source",
    .setup = copy_setup,
    .setup_look = copy_setup_look,
    .finalize = copy_finalize,
    .dismiss = copy_dismiss,
    .images_after = copy_images_after,
    .doomed = copy_doomed,
    .lost = copy_lost,
    .clean = copy_clean,
    .may_decide = copy_may_decide,
    .restored = copy_restored,
};
