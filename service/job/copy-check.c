/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Everything that a copy can be refused for before anything happens, and the making of the job when nothing is. */

#include <string.h>
#include <sys/stat.h>

#include "image/qcow2.h"
#include "job/internal.h"

#define CHAIN_MAX 200
#define GRANULARITY_MIN 512u
#define GRANULARITY_MAX (64u * 1024 * 1024)
#define CLUSTER_MIN 512u
#define CLUSTER_MAX (2u * 1024 * 1024)

void copy_options_init(CopyOptions *o) {
    *o = (CopyOptions){
        .fd = -1,
        .delete_target = true,
        .pause_guest = true,
        .max_pause = USEC_PER_SEC,
    };
}

void copy_options_clear(CopyOptions *o) {
    g_free(o->target);
    g_free(o->format);
    g_free(o->sync);
    g_free(o->backing);
    g_free(o->backing_format);
    g_free(o->copy_mode);
    g_free(o->on_source_error);
    g_free(o->on_target_error);
    g_free(o->preallocation);
    g_free(o->discard);
    g_free(o->detect_zeroes);
    g_free(o->cache);
    g_free(o->aio);
    g_free(o->request_id);
    copy_options_init(o);
}

void copy_clear(Copy *c) {
    g_free(c->source_node);
    g_free(c->source_path);
    g_free(c->source_format);
    g_strfreev(c->old_nodes);
    g_free(c->definition);
    g_free(c->target_format);
    g_free(c->backing_node);
    g_free(c->backing_path);
    g_free(c->backing_format);
    g_free(c->sync);
    g_free(c->on_source_error);
    g_free(c->on_target_error);
    g_free(c->preallocation);
    g_free(c->discard);
    g_free(c->detect_zeroes);
    g_free(c->cache);
    g_free(c->aio);
    target_free(c->target);
    copy_sync_free(c->sync_owed);
}

/* ── words only ── */

static bool is_power_of_two(uint32_t n) {
    return n != 0 && (n & (n - 1)) == 0;
}

static const char *or_default(const char *s, const char *fallback) {
    return s ? s : fallback;
}

static bool is_brought(const CopyOptions *o) {
    return o->existing || o->fd >= 0;
}

static bool check_format(const CopyOptions *o, Failure *f) {
    if (o->format && !g_str_equal(o->format, "qcow2") && !g_str_equal(o->format, "raw"))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "format: \"%s\" is not a format that can be written; use qcow2 or raw.",
                           o->format);
    if (!o->format && is_brought(o))
        return failure_set(
            f, FAILURE_INVALID_ARGS,
            "format: say whether the existing target is qcow2 or raw; formats are never guessed.");
    const char *format = or_default(o->format, "qcow2");
    bool raw = g_str_equal(format, "raw");
    if (raw && g_strcmp0(o->sync, "top") == 0)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "sync: a raw image cannot have a backing file, so \"top\" needs format "
                           "qcow2; or use \"full\".");
    if (raw && o->cluster_size)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "cluster-size: a raw image has no clusters; leave it out.");
    if (raw && o->preallocation && !g_str_equal(o->preallocation, "off") &&
        !g_str_equal(o->preallocation, "falloc"))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "preallocation: a raw image can have \"off\" or \"falloc\".");
    if (is_brought(o) && o->preallocation)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "preallocation: only for a new target; leave it out.");
    if (is_brought(o) && o->cluster_size)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "cluster-size: only for a new target; leave it out.");
    return true;
}

static bool check_backing(const CopyOptions *o, Failure *f) {
    bool top = g_strcmp0(o->sync, "top") == 0;

    if (o->backing && !top)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "backing: only with sync \"top\"; leave it out or set sync.");
    if (o->backing && !is_brought(o))
        return failure_set(
            f, FAILURE_INVALID_ARGS,
            "backing: a new target gets the source's own backing file; leave it out.");
    if (o->backing && !o->backing_format)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "backing-format: say the format of the backing file \"%s\".",
                           o->backing);
    if (!o->backing && o->backing_format)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "backing-format: only together with \"backing\".");
    if (top && is_brought(o) && !o->backing)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "backing: with sync \"top\" name the backing file that the existing "
                           "target's header has.");
    return true;
}

static bool check_numbers(const CopyOptions *o, Failure *f) {
    if (o->granularity && (!is_power_of_two(o->granularity) || o->granularity < GRANULARITY_MIN ||
                           o->granularity > GRANULARITY_MAX))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "granularity: %" PRIu32
                           " is not a power of two from 512 to 67108864 bytes.",
                           o->granularity);
    if (o->cluster_size && (!is_power_of_two(o->cluster_size) || o->cluster_size < CLUSTER_MIN ||
                            o->cluster_size > CLUSTER_MAX))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "cluster-size: %" PRIu32
                           " is not a power of two from 512 to 2097152 bytes.",
                           o->cluster_size);
    if (o->buf_size > GIB)
        return failure_set(f, FAILURE_INVALID_ARGS, "buf-size: at most 1 GiB.");
    if (o->granularity && o->buf_size && o->buf_size < o->granularity)
        return failure_set(f, FAILURE_INVALID_ARGS, "buf-size: at least the granularity.");
    if (o->speed > INT64_MAX)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "speed: too large; give bytes per second, 0 = no limit.");
    return true;
}

static bool check_combinations(const CopyOptions *o, Failure *f) {
    if (g_strcmp0(o->sync, "none") == 0 && o->on_ready == ON_READY_PIVOT)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "on-ready: with sync \"none\" the target has only new writes, the guest "
                           "cannot be switched to it.");
    if (g_strcmp0(o->aio, "native") == 0 && g_strcmp0(o->cache, "writeback") == 0)
        return failure_set(f, FAILURE_INVALID_ARGS, "aio: \"native\" needs cache \"direct\".");
    if (g_strcmp0(o->detect_zeroes, "unmap") == 0 && g_strcmp0(o->discard, "ignore") == 0)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "detect-zeroes: \"unmap\" needs discard \"unmap\".");
    if (o->existing && o->fd >= 0)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "existing: a descriptor is an existing target anyway; leave it out.");
    return true;
}

bool copy_options_check(const CopyOptions *o, Failure *f) {
    if (o->fd < 0 && !target_check_path(o->target, f))
        return false;
    if (o->fd >= 0 && (!string_is_printable(o->target) || strlen(o->target) > 4096))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "target: the name of the descriptor must be printable text.");
    return check_format(o, f) && check_backing(o, f) && check_numbers(o, f) &&
           check_combinations(o, f);
}

/* ── the disk ── */

bool job_check_disk(const Disk *disk, Failure *f) {
    Domain *d = disk->domain;

    if (!domain_is_live(d)) {
        if (domain_process_gone(d) || domain_state(d) == DOMAIN_DISCONNECTED)
            return failure_set(f, FAILURE_DOMAIN_NOT_RUNNING,
                               "Domain \"%s\" is not running: nothing answers at its QMP socket.",
                               domain_name(d));
        return failure_set(f, FAILURE_DOMAIN_UNRESPONSIVE,
                           "Domain \"%s\" does not answer (%s); try again when it does.",
                           domain_name(d), domain_trouble(d));
    }
    if (!disk->node)
        return failure_set(f, FAILURE_NO_SUCH_DISK,
                           "Disk \"%s\" of domain \"%s\" is an empty drive; insert a medium first.",
                           disk->name, domain_name(d));
    return true;
}

static bool check_kind(const Disk *disk, const CopyOptions *o, Failure *f) {
    Domain *d = disk->domain;

    if (g_strcmp0(o->copy_mode, "write-blocking") == 0 && domain_fears_write_blocking(d))
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "copy-mode: this QEMU (%s) crashes with \"write-blocking\" where "
                           "iothreads are used, as in "
                           "domain \"%s\"; use \"background\".",
                           domain_version(d), domain_name(d));
    if (g_strcmp0(o->format, "raw") != 0 && view_is_shared(domain_view(d), disk->root))
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "Disk \"%s\" is shared with other writers (share-rw=on), which a qcow2 "
                           "image cannot be; use "
                           "format raw.",
                           disk->name);
    return true;
}

bool job_check_foreign(const Disk *disk, const char *node, Failure *f) {
    View *view = domain_view(disk->domain);
    GPtrArray *jobs = view_jobs(view);

    for (guint i = 0; i < jobs->len; i++) {
        const QemuJob *q = jobs->pdata[i];
        bool over = q->phase == QJOB_CONCLUDED || q->phase == QJOB_FAILED;
        if (!over && view_job_uses(view, q->id, node))
            return failure_set(f, FAILURE_DISK_BUSY,
                               "Disk \"%s\" is busy: QEMU's job \"%s\" (%s), started by somebody "
                               "else, works on it; "
                               "wait for its end.",
                               disk->name, q->id, q->type);
    }
    return true;
}

/* ── the files ── */

typedef struct {
    Disk *disk;
    const CopyOptions *o;
    const char *format, *sync;
    GPtrArray *chain; /* ChainImage* */
    uint64_t *free, *needed;
} Check;

static bool check_not_in_chain(const Check *c, const ImageId *id, Failure *f) {
    for (guint i = 0; i < c->chain->len; i++) {
        const ChainImage *image = c->chain->pdata[i];
        ImageId other;
        if (image_stat(image->file, &other, NULL, NULL, NULL) == 0 && image_id_equal(id, &other))
            return failure_set(
                f, FAILURE_SAME_IMAGE,
                "The target is %s of disk \"%s\" itself (\"%s\"); give another target.",
                i == 0 ? "the image" : "a backing file", c->disk->name, image->file);
    }
    return true;
}

/* What the copy may take at most that is known now: what the source takes, and some for the target's own tables. */
static uint64_t space_needed(const Check *c) {
    const ChainImage *top = c->chain->pdata[0];
    uint64_t sum = 0;

    for (guint i = 0; i < c->chain->len; i++) {
        const ChainImage *image = c->chain->pdata[i];
        sum += image->allocated;
        if (g_str_equal(c->sync, "top"))
            break;
    }
    if (c->o->preallocation &&
        (g_str_equal(c->o->preallocation, "falloc") || g_str_equal(c->o->preallocation, "full")))
        sum = top->size;
    if (g_str_equal(c->sync, "none"))
        sum = 0;
    return MIN(sum, top->size) + top->size / 4096 + MIB;
}

static bool check_space(const Check *c, const Target *t, Failure *f) {
    uint64_t available = 0, needed = space_needed(c);

    if (target_free_space(t, &available) < 0)
        return true; /* not known: the copy pauses when it is full */
    if (c->free)
        *c->free = available;
    if (c->needed)
        *c->needed = needed;
    if (available >= needed || c->o->force)
        return true;
    g_autofree char *have = format_bytes(available), *need = format_bytes(needed);
    return failure_set(f, FAILURE_NO_SPACE,
                       "The file system of \"%s\" has %s free and the copy may need %s; make room, "
                       "or give the option "
                       "\"force\" to go on all the same.",
                       t->path, have, need);
}

static bool check_size(const Check *c, uint64_t size, bool may_be_larger, Failure *f) {
    g_autofree char *have = format_bytes(size), *need = format_bytes(c->disk->size);

    if (size < c->disk->size)
        return failure_set(f, FAILURE_TARGET_TOO_SMALL,
                           "The target \"%s\" has %" PRIu64
                           " bytes (%s), the disk \"%s\" has %" PRIu64
                           " (%s); make the target as large.",
                           c->o->target, size, have, c->disk->name, c->disk->size, need);
    if (size > c->disk->size && !may_be_larger)
        return failure_set(f, FAILURE_BAD_TARGET,
                           "The target \"%s\" has %" PRIu64
                           " bytes (%s), the disk \"%s\" has %" PRIu64
                           " (%s); an existing image must have the same size.",
                           c->o->target, size, have, c->disk->name, c->disk->size, need);
    return true;
}

static bool check_header_backing(const Check *c, const Qcow2Header *h, Failure *f) {
    ImageId named, own;

    if (!g_str_equal(c->sync, "top")) {
        if (h->backing_file)
            return failure_set(f, FAILURE_BAD_TARGET,
                               "The target \"%s\" has a backing file (\"%s\"); that is only "
                               "possible with sync \"top\".",
                               c->o->target, h->backing_file);
        return true;
    }
    if (c->chain->len < 2)
        return failure_set(f, FAILURE_NOT_IN_CHAIN,
                           "Disk \"%s\" has no backing file; use sync \"full\".", c->disk->name);
    const ChainImage *backing = c->chain->pdata[1];
    if (!h->backing_file || !g_str_equal(h->backing_file, c->o->backing))
        return failure_set(f, FAILURE_BAD_TARGET,
                           "The target's header names \"%s\" as backing file, not \"%s\"; make it "
                           "with the right one.",
                           h->backing_file ? h->backing_file : "nothing", c->o->backing);
    if (!g_str_equal(c->o->backing_format, backing->format))
        return failure_set(f, FAILURE_NOT_IN_CHAIN, "The disk's backing file \"%s\" is %s, not %s.",
                           backing->file, backing->format, c->o->backing_format);
    if (g_strcmp0(h->backing_format, backing->format) != 0)
        return failure_set(f, FAILURE_BAD_TARGET,
                           "The target's header says that its backing file is %s, but it is %s: "
                           "make the target with "
                           "the right backing format.",
                           h->backing_format ? h->backing_format : "of no known format",
                           backing->format);
    if (image_stat(backing->file, &own, NULL, NULL, NULL) < 0 ||
        image_stat(c->o->backing, &named, NULL, NULL, NULL) < 0 || !image_id_equal(&own, &named))
        return failure_set(f, FAILURE_NOT_IN_CHAIN,
                           "The disk's own backing file is \"%s\", not \"%s\".", backing->file,
                           c->o->backing);
    return true;
}

static bool check_header(const Check *c, const Target *t, Failure *f) {
    g_auto(Qcow2Header) h = {0};

    if (!qcow2_read(t->fd, &h, f))
        return false;
    if (h.external_data)
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "The target \"%s\" keeps its data in another file, which QEMU would open by itself; "
            "such targets are not accepted.",
            c->o->target);
    if (h.encrypted)
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "The target \"%s\" is encrypted; that is not supported.", c->o->target);
    if (h.unknown_incompatible || h.corrupt)
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "The target \"%s\" is %s; check it with \"qemu-img check\", or make a new one.",
            c->o->target, h.corrupt ? "marked corrupt" : "of an unknown newer kind");
    return check_header_backing(c, &h, f) && check_size(c, h.virtual_size, false, f);
}

static bool check_brought(const Check *c, const Target *t, Failure *f) {
    if (!check_not_in_chain(c, &t->id, f) || !target_check_locks(t, f))
        return false;
    if (g_str_equal(c->format, "qcow2"))
        return check_header(c, t, f);
    return check_size(c, t->size,
                      t->kind == TARGET_BLOCK || (t->kind == TARGET_FD && t->id.inode == 0), f);
}

static bool open_target(const Check *c, Target **ret, Failure *f) {
    const ChainImage *top = c->chain->pdata[0];
    uid_t owner = (uid_t) -1;
    gid_t group = (gid_t) -1;
    mode_t mode = 0600;

    if (c->o->fd >= 0)
        return target_from_fd(c->o->fd, c->o->target, ret, f);
    image_stat(top->file, NULL, &owner, &group, &mode);
    return target_open(c->o->target, c->o->existing, owner, group,
                       S_ISBLK(mode) ? 0600 : mode & 0777, ret, f);
}

static bool check_chain(const Check *c, Failure *f) {
    if (c->chain->len == 0)
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "The block graph under disk \"%s\" cannot be read.", c->disk->name);
    if (c->chain->len > CHAIN_MAX)
        return failure_set(
            f, FAILURE_NOT_SUPPORTED,
            "Disk \"%s\" has a backing chain of more than %d images; commit some first.",
            c->disk->name, CHAIN_MAX);
    return true;
}

bool copy_check(Disk *disk, const CopyOptions *o, Target **ret_target, uint64_t *ret_free,
                uint64_t *ret_needed, Failure *f) {
    g_autoptr(Target) t = NULL;

    if (!copy_options_check(o, f) || !job_check_disk(disk, f) || !check_kind(disk, o, f) ||
        !job_check_foreign(disk, disk->node, f))
        return false;
    g_autoptr(GPtrArray) chain = disk_chain(disk);
    Check c = {
        .disk = disk,
        .o = o,
        .format = or_default(o->format, "qcow2"),
        .sync = or_default(o->sync, "full"),
        .chain = chain,
        .free = ret_free,
        .needed = ret_needed,
    };
    if (!check_chain(&c, f) || !open_target(&c, &t, f))
        return false;
    if (t->kind == TARGET_NEW ? !check_space(&c, t, f) : !check_brought(&c, t, f))
        return false;
    *ret_target = g_steal_pointer(&t);
    return true;
}

/* ── the job ── */

static void take(char **slot, char **from, const char *fallback) {
    g_free(*slot);
    *slot = *from ? g_steal_pointer(from) : g_strdup(fallback);
}

void copy_set_source(Job *j, Disk *disk) {
    Domain *d = disk->domain;
    Copy *c = &j->copy;
    bool full = !g_str_equal(c->sync, "top");
    g_autoptr(GPtrArray) old = view_subtree(domain_view(d), disk->node, full);
    mode_t mode = 0;

    c->source_node = g_strdup(disk->node);
    c->source_path = g_strdup(disk->source);
    c->source_format = g_strdup(disk->format);
    c->source_block = disk->block;
    image_stat(disk->source, &c->source_id, NULL, NULL, &mode);
    c->under_filter = !g_str_equal(disk->node, disk->root);
    c->size = disk->size;
    c->definition = domain_definition(d)[0] ? g_strdup(domain_definition(d)) : NULL;
    c->old_nodes = g_new0(char *, old->len + 1);
    for (guint i = 0; i < old->len; i++)
        c->old_nodes[i] = g_strdup(old->pdata[i]);
}

static void copy_set_backing(Job *j, Disk *disk) {
    Copy *c = &j->copy;

    if (!g_str_equal(c->sync, "top"))
        return;
    g_autoptr(GPtrArray) chain = disk_chain(disk);
    if (chain->len < 2)
        return; /* nothing below: top is all there is */
    const ChainImage *backing = chain->pdata[1];
    c->backing_node = g_strdup(backing->node);
    c->backing_path = g_strdup(backing->file);
    c->backing_format = g_strdup(backing->format);
}

Job *copy_new(uint64_t id, Disk *disk, CopyOptions *o, Target *target, uint32_t owner_uid) {
    Domain *d = disk->domain;
    Job *j = job_alloc(&kind_copy, id, domain_journal_identity(d));
    Copy *c = &j->copy;

    j->domain = d;
    j->domain_name = g_strdup(domain_name(d));
    j->domain_path = g_strdup(domain_path(d));
    j->disk = g_strdup(disk->name);
    j->device = g_strdup(disk->device);
    j->instance = *domain_instance(d);
    j->owner = owner_uid;
    j->created = now_realtime();
    take(&j->target, &o->target, "");
    take(&j->request_id, &o->request_id, "");
    take(&j->copy_mode, &o->copy_mode, "background");
    j->on_ready = o->on_ready;
    j->speed = o->speed;
    j->pause_guest = o->pause_guest;
    j->max_pause = o->max_pause;
    take(&c->target_format, &o->format, "qcow2");
    take(&c->sync, &o->sync, "full");
    take(&c->on_source_error, &o->on_source_error, "stop");
    take(&c->on_target_error, &o->on_target_error, "stop");
    take(&c->preallocation, &o->preallocation, NULL);
    bool keeps =
        g_strcmp0(c->preallocation, "falloc") == 0 || g_strcmp0(c->preallocation, "full") == 0;
    /* Blocks that were taken in advance are not to be given back as holes. */
    take(&c->discard, &o->discard, keeps ? "ignore" : "unmap");
    take(&c->detect_zeroes, &o->detect_zeroes,
         keeps                              ? "off"
         : g_str_equal(c->discard, "unmap") ? "unmap"
                                            : "on");
    take(&c->cache, &o->cache, NULL);
    take(&c->aio, &o->aio, NULL);
    c->buf_size = o->buf_size;
    c->granularity = o->granularity;
    c->cluster_size = o->cluster_size;
    c->delete_source = o->delete_source;
    c->delete_target = o->delete_target;
    c->target_kind = target->kind;
    c->target_known = target->fd >= 0;
    c->target_id = target->id;
    c->target_block =
        target->kind == TARGET_BLOCK || (target->kind == TARGET_FD && target->id.inode == 0);
    c->direct = target->direct;
    c->target = target;
    copy_set_source(j, disk);
    copy_set_backing(j, disk);
    if (c->cache && g_str_equal(c->cache, "direct") && !c->direct)
        job_warn(j, "O_DIRECT is not to be had for \"%s\"; the page cache is used.", j->target);
    return j;
}
