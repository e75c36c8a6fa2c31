/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Everything that a commit or a pull can be refused for before anything happens, and the making of the job when nothing is. */

#include <string.h>
#include <sys/stat.h>

#include "job/internal.h"

#define CHAIN_MAX 200
#define BACKING_NAME_MAX 1023 /* QEMU's docs/interop/qcow2.txt */

void chain_options_init(ChainOptions *o) {
    *o = (ChainOptions){.active = -1, .pause_guest = true, .max_pause = USEC_PER_SEC};
}

void chain_options_clear(ChainOptions *o) {
    g_free(o->base);
    g_free(o->top);
    g_free(o->backing_file);
    g_free(o->on_error);
    g_free(o->request_id);
    chain_options_init(o);
}

struct ChainPlan {
    ChainVerb verb;
    GPtrArray *chain; /* ChainImage*, active layer first */
    guint top, base;  /* base == chain->len: nothing stays below a pull's top */
    guint gone;       /* the images from here up to base are superfluous afterwards */
    bool one_phase;
    char *backing_file;
    GPtrArray *files; /* see chain_plan_files() */
};

ChainPlan *chain_plan_free(ChainPlan *p) {
    if (!p)
        return NULL;
    g_ptr_array_unref(p->chain);
    g_ptr_array_unref(p->files);
    g_free(p->backing_file);
    g_free(p);
    return NULL;
}

char *const *chain_plan_files(const ChainPlan *p) {
    return (char *const *) p->files->pdata;
}

static const ChainImage *image_at(const ChainPlan *p, guint i) {
    return i < p->chain->len ? p->chain->pdata[i] : NULL;
}

/* The image whose backing file changes; NULL if there is none above the top. */
static const ChainImage *layer_of(const ChainPlan *p) {
    return p->verb == CHAIN_PULL ? image_at(p, p->top)
           : p->top > 0          ? image_at(p, p->top - 1)
                                 : NULL;
}

/* The image that takes the data. */
static const ChainImage *taker_of(const ChainPlan *p) {
    return image_at(p, p->verb == CHAIN_PULL ? p->top : p->base);
}

/* ── words only ── */

bool chain_options_check(const ChainOptions *o, ChainVerb verb, Failure *f) {
    if (verb == CHAIN_PULL && o->backing_file && !o->base)
        return failure_set(
            f, FAILURE_INVALID_ARGS,
            "backing-file: without \"base\" everything is pulled and no backing file "
            "is left to be named; give the base, or leave it out.");
    if (o->backing_file && strlen(o->backing_file) > BACKING_NAME_MAX)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "backing-file: an image's header holds at most %d bytes of it.",
                           BACKING_NAME_MAX);
    if (o->speed > INT64_MAX)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "speed: give bytes per second, 0 = no limit; this is too large.");
    return true;
}

/* ── which images are meant ── */

static char *list_images(const ChainPlan *p) {
    GString *s = g_string_new(NULL);

    for (guint i = 0; i < p->chain->len && i < 8; i++)
        g_string_append_printf(s, "%s%u \"%s\"", i ? ", " : "", i, image_at(p, i)->file);
    if (p->chain->len > 8)
        g_string_append(s, ", …");
    return g_string_free(s, FALSE);
}

static bool is_image(const ChainImage *image, const char *word, const ImageId *id) {
    ImageId own;

    if (g_str_equal(image->node, word) || g_str_equal(image->file, word))
        return true;
    return id && image_stat(image->file, &own, NULL, NULL, NULL) == 0 && image_id_equal(id, &own);
}

/* word: an index, a node name or a file. */
static bool find_image(const ChainPlan *p, const char *what, const char *word, guint *ret,
                       Failure *f) {
    ImageId id;
    bool known = word[0] == '/' && image_stat(word, &id, NULL, NULL, NULL) == 0;
    guint64 index;

    if (g_ascii_string_to_unsigned(word, 10, 0, UINT_MAX, &index, NULL)) {
        if (index < p->chain->len) {
            *ret = (guint) index;
            return true;
        }
    } else
        for (guint i = 0; i < p->chain->len; i++)
            if (is_image(image_at(p, i), word, known ? &id : NULL)) {
                *ret = i;
                return true;
            }
    g_autofree char *images = list_images(p);
    return failure_set(f, FAILURE_NOT_IN_CHAIN,
                       "%s: there is no image \"%s\" in the disk's chain; give the index, the node "
                       "name or the file of one of: %s.",
                       what, word, images);
}

static bool find_ends(ChainPlan *p, const Disk *disk, const ChainOptions *o, Failure *f) {
    p->top = 0;
    if (o->top && !find_image(p, "top", o->top, &p->top, f))
        return false;
    if (p->top + 1 >= p->chain->len)
        return failure_set(f, FAILURE_NOT_IN_CHAIN,
                           "The image \"%s\" of disk \"%s\" has no backing file; there is nothing "
                           "to %s.",
                           image_at(p, p->top)->file, disk->name,
                           p->verb == CHAIN_PULL ? "pull from" : "commit to");
    p->base = p->verb == CHAIN_PULL ? p->chain->len : o->shallow ? p->top + 1 : p->chain->len - 1;
    if (o->base && !find_image(p, "base", o->base, &p->base, f))
        return false;
    if (p->base <= p->top)
        return failure_set(f, FAILURE_NOT_IN_CHAIN, "base: \"%s\" is not below the top (\"%s\").",
                           image_at(p, p->base)->file, image_at(p, p->top)->file);
    if (o->shallow && p->base != p->top + 1)
        return failure_set(f, FAILURE_NOT_IN_CHAIN,
                           "shallow: \"%s\" is not directly below \"%s\"; leave out one of "
                           "\"shallow\" and \"base\".",
                           image_at(p, p->base)->file, image_at(p, p->top)->file);
    p->gone = p->verb == CHAIN_PULL ? p->top + 1 : p->top;
    if (p->gone == p->base)
        return failure_set(f, FAILURE_NOT_IN_CHAIN,
                           "base: \"%s\" is directly below \"%s\"; nothing lies between them that "
                           "could be pulled.",
                           image_at(p, p->base)->file, image_at(p, p->top)->file);
    return true;
}

static bool check_phases(ChainPlan *p, const ChainOptions *o, Failure *f) {
    p->one_phase = p->verb == CHAIN_PULL || p->top > 0;
    if (p->verb == CHAIN_PULL)
        return true;
    if (o->active == 0 && !p->one_phase)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "active: the top \"%s\" is the active layer, and only an inner commit "
                           "was asked for; give another top.",
                           image_at(p, 0)->file);
    if (p->one_phase && (o->active == 1 || o->on_ready != ON_READY_WAIT))
        return failure_set(f, FAILURE_NOT_TWO_PHASE,
                           "The top \"%s\" is not the active layer: its commit ends by itself and "
                           "is never ready to be pivoted or finished; leave out \"%s\".",
                           image_at(p, p->top)->file, o->active == 1 ? "active" : "on-ready");
    if (!p->one_phase && o->backing_file)
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "backing-file: no image lies above the active layer whose header would "
                           "name the base; leave it out.");
    return true;
}

/* ── the images themselves ── */

static bool check_images(const ChainPlan *p, const Disk *disk, Failure *f) {
    const ChainImage *layer = layer_of(p);

    if (p->chain->len > CHAIN_MAX)
        return failure_set(
            f, FAILURE_NOT_SUPPORTED,
            "Disk \"%s\" has a backing chain of more than %d images, which cannot be "
            "followed to its end.",
            disk->name, CHAIN_MAX);
    for (guint i = 0; i < p->chain->len; i++)
        if (!image_at(p, i)->format[0])
            return failure_set(
                f, FAILURE_NOT_SUPPORTED,
                "What the image \"%s\" of disk \"%s\" is, QEMU has not said yet; try "
                "again when its other jobs are over.",
                image_at(p, i)->node, disk->name);
    if (layer && !g_str_equal(layer->format, "qcow2"))
        return failure_set(
            f, FAILURE_NOT_SUPPORTED,
            "The backing file of \"%s\" would have to be changed, which is only done "
            "in qcow2 images, and this is %s.",
            layer->file, layer->format);
    for (guint i = p->gone; i < p->base; i++)
        if (image_at(p, i)->bitmap)
            return failure_set(f, FAILURE_NOT_SUPPORTED,
                               "The image \"%s\" has the dirty bitmap \"%s\", which QEMU would not "
                               "carry over: remove it (block-dirty-bitmap-remove), or keep the "
                               "image.",
                               image_at(p, i)->file, image_at(p, i)->bitmap);
    for (guint i = 0; i < p->chain->len; i++)
        if (!job_check_foreign(disk, image_at(p, i)->node, f))
            return false;
    return true;
}

static bool is_block(const char *path) {
    mode_t mode = 0;

    return path[0] == '/' && image_stat(path, NULL, NULL, NULL, &mode) == 0 && S_ISBLK(mode);
}

static bool check_size(const ChainPlan *p, Failure *f) {
    const ChainImage *top = image_at(p, p->top), *base = image_at(p, p->base);

    if (p->verb == CHAIN_PULL || base->size >= top->size || !is_block(base->file))
        return true;
    return failure_set(f, FAILURE_TARGET_TOO_SMALL,
                       "The base \"%s\" is a block device of %" PRIu64 " bytes, the top \"%s\" has "
                       "%" PRIu64 "; make the device as large.",
                       base->file, base->size, top->file, top->size);
}

static bool check_deletable(const ChainPlan *p, const ChainOptions *o, Failure *f) {
    for (guint i = p->gone; o->delete_images && i < p->base; i++) {
        const ChainImage *image = image_at(p, i);
        mode_t mode = 0;
        if (image->file[0] != '/' || image_stat(image->file, NULL, NULL, NULL, &mode) < 0 ||
            !S_ISREG(mode))
            return failure_set(f, FAILURE_NOT_SUPPORTED,
                               "delete-image: \"%s\" is not a regular file of this host, and only "
                               "such images are deleted; leave it out.",
                               image->file);
    }
    return true;
}

/* ── the name that the layer's header gets ── */

static bool names(const ChainImage *layer, const char *backing, const ChainImage *base) {
    g_autofree char *path = chain_resolve(layer->file, backing);
    ImageId named, own;

    return image_stat(path, &named, NULL, NULL, NULL) == 0 &&
           image_stat(base->file, &own, NULL, NULL, NULL) == 0 && image_id_equal(&named, &own);
}

static bool is_relative(const char *backing) {
    return backing[0] && backing[0] != '/' && strcspn(backing, "/") <= strcspn(backing, ":");
}

static bool same_folder(const char *a, const char *b) {
    g_autofree char *x = g_path_get_dirname(a), *y = g_path_get_dirname(b);

    return g_str_equal(x, y);
}

/* The file as seen from the folder of another; both absolute. */
static char *relative_name(const char *from, const char *to) {
    g_autofree char *folder = g_path_get_dirname(from);
    g_auto(GStrv) a = g_strsplit(folder, "/", -1), b = g_strsplit(to, "/", -1);
    GString *s = g_string_new(NULL);
    guint same = 0;

    while (a[same] && b[same] && b[same + 1] && g_str_equal(a[same], b[same]))
        same++;
    for (guint i = same; a[i]; i++)
        if (a[i][0])
            g_string_append(s, "../");
    for (guint i = same; b[i]; i++)
        g_string_append_printf(s, "%s%s", b[i], b[i + 1] ? "/" : "");
    return g_string_free(s, FALSE);
}

static bool choose_backing(ChainPlan *p, const ChainOptions *o, Failure *f) {
    const ChainImage *layer = layer_of(p), *base = image_at(p, p->base);
    const ChainImage *above = image_at(p, p->base - 1); /* its header names the base now */

    if (!layer || !base)
        return true;
    if (o->backing_file) {
        if (base->file[0] == '/' && !names(layer, o->backing_file, base))
            return failure_set(f, FAILURE_NOT_IN_CHAIN,
                               "backing-file: \"%s\", seen from \"%s\", is not the base \"%s\".",
                               o->backing_file, layer->file, base->file);
        p->backing_file = g_strdup(o->backing_file);
        return true;
    }
    if (same_folder(layer->file, above->file) && above->backing[0] &&
        names(layer, above->backing, base) &&
        (is_relative(above->backing) || !is_relative(layer->backing)))
        p->backing_file = g_strdup(above->backing);
    else if (is_relative(layer->backing) && base->file[0] == '/' && layer->file[0] == '/')
        p->backing_file = relative_name(layer->file, base->file);
    else
        p->backing_file = g_strdup(base->file);
    if (strlen(p->backing_file) <= BACKING_NAME_MAX &&
        (base->file[0] != '/' || names(layer, p->backing_file, base)))
        return true;
    return failure_set(
        f, FAILURE_NOT_SUPPORTED,
        "The relative name of the backing file of \"%s\" cannot be kept (\"%s\" would "
        "not be \"%s\"); give \"backing-file\".",
        layer->file, p->backing_file, base->file);
}

/* ── all of it ── */

static void note_files(ChainPlan *p, const ChainOptions *o) {
    const ChainImage *layer = layer_of(p), *taker = taker_of(p);

    g_ptr_array_add(p->files, g_strdup(taker->file));
    if (layer && layer != taker)
        g_ptr_array_add(p->files, g_strdup(layer->file));
    for (guint i = p->gone; o->delete_images && i < p->base; i++)
        g_ptr_array_add(p->files, g_strdup(image_at(p, i)->file));
    g_ptr_array_add(p->files, NULL);
}

bool chain_check(Disk *disk, const ChainOptions *o, ChainVerb verb, ChainPlan **ret, Failure *f) {
    if (!chain_options_check(o, verb, f) || !job_check_disk(disk, f))
        return false;
    g_autoptr(ChainPlan) p = g_new0(ChainPlan, 1);
    p->verb = verb;
    p->chain = disk_chain(disk);
    p->files = g_ptr_array_new_with_free_func(g_free);
    if (p->chain->len == 0)
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "The block graph under disk \"%s\" cannot be read.", disk->name);
    if (!find_ends(p, disk, o, f) || !check_phases(p, o, f) || !check_images(p, disk, f) ||
        !check_size(p, f) || !check_deletable(p, o, f) || !choose_backing(p, o, f))
        return false;
    note_files(p, o);
    *ret = g_steal_pointer(&p);
    return true;
}

/* ── the job ── */

static void add_image_after(GPtrArray *after, const ChainImage *image) {
    g_ptr_array_add(after, g_strdup(image->file));
    g_ptr_array_add(after, g_strdup(image->format));
    g_ptr_array_add(after, g_strdup(is_block(image->file) ? "block" : "file"));
}

static void chain_set_images(Job *j, const ChainPlan *p) {
    GPtrArray *after = g_ptr_array_new(), *superfluous = g_ptr_array_new(),
              *old = g_ptr_array_new();

    for (guint i = 0; i < p->chain->len; i++) {
        const ChainImage *image = image_at(p, i);
        ImageId id;
        if (i < p->gone || i >= p->base) {
            add_image_after(after, image);
            continue;
        }
        g_autoptr(GPtrArray) nodes = view_subtree(domain_view(j->domain), image->node, false);
        for (guint n = 0; n < nodes->len; n++)
            g_ptr_array_add(old, g_strdup(nodes->pdata[n]));
        if (!j->chain.delete_images || image_stat(image->file, &id, NULL, NULL, NULL) < 0)
            continue;
        g_ptr_array_add(superfluous, g_strdup(image->file));
        g_ptr_array_add(superfluous, g_strdup_printf("%" PRIu64, id.device));
        g_ptr_array_add(superfluous, g_strdup_printf("%" PRIu64, id.inode));
    }
    g_ptr_array_add(after, NULL);
    g_ptr_array_add(superfluous, NULL);
    g_ptr_array_add(old, NULL);
    j->chain.after = (char **) g_ptr_array_free(after, FALSE);
    j->chain.superfluous = (char **) g_ptr_array_free(superfluous, FALSE);
    j->copy.old_nodes = (char **) g_ptr_array_free(old, FALSE);
}

static void chain_set_ends(Job *j, const ChainPlan *p) {
    const ChainImage *top = image_at(p, p->top), *base = image_at(p, p->base);
    const ChainImage *layer = layer_of(p), *gone = image_at(p, p->gone);
    Chain *c = &j->chain;

    c->one_phase = p->one_phase;
    c->top_node = g_strdup(top->node);
    c->base_node = base ? g_strdup(base->node) : NULL;
    c->gone_node = g_strdup(gone->node);
    image_stat(gone->file, &c->gone_id, NULL, NULL, NULL);
    if (base)
        image_stat(base->file, &c->base_id, NULL, NULL, NULL);
    if (layer) {
        c->layer_node = g_strdup(layer->node);
        c->layer_path = g_strdup(layer->file);
    }
    c->backing_file = g_strdup(p->backing_file);
}

static void chain_set_disk(Job *j, const Disk *disk, const ChainPlan *p) {
    const ChainImage *taker = taker_of(p);
    Copy *c = &j->copy;

    c->source_node = g_strdup(disk->node);
    c->source_path = g_strdup(disk->source);
    c->source_format = g_strdup(disk->format);
    c->source_block = disk->block;
    image_stat(disk->source, &c->source_id, NULL, NULL, NULL);
    c->under_filter = !g_str_equal(disk->node, disk->root);
    c->size = disk->size;
    c->definition =
        domain_definition(disk->domain)[0] ? g_strdup(domain_definition(disk->domain)) : NULL;
    g_free(c->target_format);
    c->target_format = g_strdup(taker->format);
    c->target_block = is_block(taker->file);
    c->target_kind = c->target_block ? TARGET_BLOCK : TARGET_FILE;
    c->target_known = image_stat(taker->file, &c->target_id, NULL, NULL, NULL) == 0;
}

Job *chain_new(uint64_t id, Disk *disk, ChainOptions *o, const ChainPlan *p, uint32_t owner_uid) {
    Domain *d = disk->domain;
    Job *j = job_alloc(p->verb == CHAIN_PULL ? &kind_pull : &kind_commit, id,
                       domain_journal_identity(d));
    const ChainImage *top = image_at(p, p->top), *base = image_at(p, p->base);

    j->domain = d;
    j->domain_name = g_strdup(domain_name(d));
    j->domain_path = g_strdup(domain_path(d));
    j->disk = g_strdup(disk->name);
    j->device = g_strdup(disk->device);
    j->instance = *domain_instance(d);
    j->owner = owner_uid;
    j->created = now_realtime();
    g_free(j->target);
    j->target = g_strdup(taker_of(p)->file);
    if (o->request_id) {
        g_free(j->request_id);
        j->request_id = g_steal_pointer(&o->request_id);
    }
    j->on_ready = o->on_ready;
    j->speed = o->speed;
    j->pause_guest = o->pause_guest;
    j->max_pause = o->max_pause;
    j->copy.on_source_error = g_strdup(o->on_error ? o->on_error : "stop");
    j->chain.delete_images = o->delete_images;
    chain_set_disk(j, disk, p);
    chain_set_ends(j, p);
    chain_set_images(j, p);
    if (p->verb == CHAIN_COMMIT && base->size < top->size)
        job_warn(j, "The base \"%s\" has %" PRIu64 " bytes and is grown to the top's %" PRIu64 ".",
                 base->file, base->size, top->size);
    return j;
}
