/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a job's end does to files, in the journal's thread: the definition is prepared before the switch and replaced after
 * it, images that nobody needs any more are deleted. Each can be done twice. */

#include "domain/xml.h"
#include "job/internal.h"
#include "log.h"

typedef struct {
    char *name;
    GPtrArray *images; /* JobImage* */
} FileDisk;

typedef struct {
    char *definition, *tag;
    GPtrArray *disks;  /* FileDisk*, what the definition is to name */
    GPtrArray *doomed; /* JobImage*, to be deleted */
    GPtrArray *keep;   /* JobImage*, what holds the data of those that are doomed */
    bool of_chain, rewrite, discard;
    Failure failure;
    char *warning;
} FileWork;

static void job_image_free(void *data) {
    JobImage *image = data;

    g_free(image->path);
    g_free(image->format);
    g_free(image);
}

void job_image_add(GPtrArray *images, const char *path, const char *format, bool block,
                   const ImageId *id) {
    JobImage *image = g_new0(JobImage, 1);

    image->path = g_strdup(path);
    image->format = g_strdup(format);
    image->block = block;
    if (id)
        image->id = *id;
    g_ptr_array_add(images, image);
}

static void file_disk_free(void *data) {
    FileDisk *disk = data;

    g_free(disk->name);
    g_ptr_array_unref(disk->images);
    g_free(disk);
}

static void file_work_free(void *data) {
    FileWork *w = data;

    g_free(w->definition);
    g_free(w->tag);
    g_ptr_array_unref(w->disks);
    g_ptr_array_unref(w->doomed);
    g_ptr_array_unref(w->keep);
    g_free(w->warning);
    failure_clear(&w->failure);
    g_free(w);
}

static FileWork *file_work_new(const Job *j) {
    FileWork *w = g_new0(FileWork, 1);

    w->definition = g_strdup(j->copy.definition);
    w->tag = g_strdup(j->tag);
    w->of_chain = j->kind->of_chain;
    w->disks = g_ptr_array_new_with_free_func(file_disk_free);
    w->keep = g_ptr_array_new_with_free_func(job_image_free);
    w->doomed = g_ptr_array_new_with_free_func(job_image_free);
    return w;
}

/* The definition is to name the images on which those parts of the job end that have been switched, or (false) may be yet. */
static void add_disks(FileWork *w, const Job *j, bool switched) {
    for (guint i = 0; w->definition && i < j->parts->len; i++) {
        const Job *part = j->parts->pdata[i];
        if (switched ? !job_is_switched(part) : part->result != RESULT_NONE)
            continue;
        FileDisk *disk = g_new0(FileDisk, 1);
        disk->name = g_strdup(part->disk);
        disk->images = g_ptr_array_new_with_free_func(job_image_free);
        part->kind->images_after(part, disk->images);
        g_ptr_array_add(w->disks, disk);
    }
}

/* ── the definition ── */

static bool xml_set_images(FileWork *w, DomainXml *xml, const FileDisk *disk) {
    g_autofree XmlImage *chain = g_new0(XmlImage, disk->images->len);

    for (guint i = 0; i < disk->images->len; i++) {
        const JobImage *image = disk->images->pdata[i];
        chain[i] = (XmlImage){image->path, image->format, image->block};
    }
    /* Where the definition says what lies under the disk's image, that is kept true: it would be believed. */
    bool backing = w->of_chain && domain_xml_has_backing(xml, disk->name);
    return domain_xml_set_disk(xml, disk->name, chain, disk->images->len, chain[0].block, backing,
                               &w->failure);
}

/* The definition with the disks on their new images; NULL with w->failure. changed: it says something else now. */
static char *definition_after(FileWork *w, bool *changed) {
    g_autoptr(DomainXml) xml = NULL;

    if (!domain_xml_load(w->definition, &xml, &w->failure))
        return NULL;
    g_autofree char *before = domain_xml_to_text(xml);
    for (guint i = 0; i < w->disks->len; i++)
        if (!xml_set_images(w, xml, w->disks->pdata[i]))
            return NULL;
    g_autofree char *text = domain_xml_to_text(xml);
    *changed = !g_str_equal(before, text);
    return g_steal_pointer(&text);
}

/* Written beside the old one. */
static bool work_prepare(FileWork *w) {
    bool changed;
    g_autofree char *text = definition_after(w, &changed);

    if (!text)
        return false;
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
    if (j->chain
            .one_phase) { /* hours of work are not given up for that: finishing work tries again, and says it */
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

void files_prepare(Job *j) {
    FileWork *w = file_work_new(j);

    add_disks(w, j, false);
    j->work = w;
    journal_run(j->journal, run_prepare, j->work, file_work_free, on_prepared, j, &j->file_work);
}

static bool definition_is_right(FileWork *w) {
    bool changed = true;
    g_autofree char *text = definition_after(w, &changed);

    failure_clear(&w->failure); /* what is wrong with it is said when it is prepared again */
    return text && !changed;
}

static void work_rewrite(FileWork *w) {
    g_autoptr(GString) now = g_string_new(NULL);
    /* What was prepared is not what has come about: not all members of a group have got there. */
    int r = w->discard ? definition_discard(w->definition, w->tag) : 0;

    if (r == 0)
        r = definition_commit(w->definition, w->tag);
    /* Prepared by nobody (another program's command switched the guest), or the prepared file was lost. */
    if (r == 0 && !definition_is_right(w) && work_prepare(w))
        r = definition_commit(w->definition, w->tag);
    if (r < 0 || w->failure.kind != FAILURE_NONE)
        for (guint i = 0; i < w->disks->len; i++) {
            const FileDisk *disk = w->disks->pdata[i];
            const JobImage *image = disk->images->pdata[0];
            g_string_append_printf(now, "%sdisk %s, change it to \"%s\"", i ? ", and of " : "",
                                   disk->name, image->path);
        }
    if (now->len > 0)
        w->warning = g_strdup_printf("The definition \"%s\" still names the old image of %s: %s",
                                     w->definition, now->str,
                                     w->failure.message ? w->failure.message : g_strerror(-r));
}

/* ── deleting ── */

/* QEMU has put the data into the images that stay, which need not be on the disk yet. */
static void work_sync(FileWork *w) {
    for (guint i = 0; i < w->keep->len && !w->warning; i++) {
        const JobImage *image = w->keep->pdata[i];
        int r = image_sync(image->path);
        if (r < 0)
            w->warning = g_strdup_printf("\"%s\" cannot be synced, so nothing was deleted: %s.",
                                         image->path, g_strerror(-r));
    }
}

/* Deletes only what is still the file that was recorded, and only when no process holds it. */
static void work_delete(FileWork *w, const JobImage *image) {
    g_auto(Failure) f = {0};
    g_autoptr(Target) t = NULL;
    int r = 0;

    if (!target_reopen(TARGET_FILE, image->path, &image->id, &t, &f)) {
        if (f.kind != FAILURE_TARGET_MISSING)
            w->warning = g_strdup_printf("\"%s\" was not deleted: %s", image->path, f.message);
        return;
    }
    if (!target_check_locks(t, &f)) {
        w->warning = g_strdup_printf("\"%s\" was not deleted: %s", image->path, f.message);
        return;
    }
    r = image_delete(image->path, &image->id);
    if (r < 0)
        w->warning = g_strdup_printf("\"%s\" was not deleted: %s.", image->path, g_strerror(-r));
}

/* ── finishing work ── */

static int run_clean(void *data) {
    FileWork *w = data;

    if (w->rewrite)
        work_rewrite(w);
    else if (w->discard)
        definition_discard(w->definition, w->tag);
    if (!w->warning)
        work_sync(w);
    for (guint i = 0; i < w->doomed->len && !w->warning; i++)
        work_delete(w, w->doomed->pdata[i]);
    return 0;
}

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

void files_clean(Job *j) {
    FileWork *w = file_work_new(j);

    add_disks(w, j, true);
    w->rewrite = w->disks->len > 0;
    w->discard = w->definition && (j->intent == INTENT_PIVOT || j->chain.one_phase) &&
                 w->disks->len < j->parts->len;
    if (j->kind->doomed)
        j->kind->doomed(j, w->doomed);
    if (w->of_chain && w->doomed->len > 0)
        j->kind->images_after(j, w->keep);
    if (!w->rewrite && !w->discard && w->doomed->len == 0) {
        file_work_free(w);
        j->clean = true;
        job_action_done(j);
        return;
    }
    j->work = w;
    journal_run(j->journal, run_clean, w, file_work_free, on_cleaned, j, &j->file_work);
}
