/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file of a copy's target, before QEMU has it: opened, or made anew where it never got its name; given the header of
 * an empty image; made to last. */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "image/qcow2.h"
#include "job/internal.h"

bool copy_target_open(Job *j, Failure *f) {
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

static bool needs_header(const Job *j) {
    return g_str_equal(j->copy.target_format, "qcow2") && j->copy.target_kind == TARGET_NEW;
}

static Qcow2New new_image(const Job *j) {
    return (Qcow2New){j->copy.size, j->copy.cluster_size, j->copy.backing_path,
                      j->copy.backing_format};
}

/* That is a job to be waited for, so an image that is only a header is written by us. */
bool copy_target_by_qemu(const Job *j) {
    Qcow2New image = new_image(j);
    bool blocks = j->copy.preallocation && !g_str_equal(j->copy.preallocation, "off");

    return needs_header(j) && (blocks || !qcow2_can_create(&image));
}

int copy_target_write(const Job *j) {
    Qcow2New image = new_image(j);

    return needs_header(j) && !copy_target_by_qemu(j) ? qcow2_create(j->copy.target->fd, &image)
                                                      : 0;
}

struct CopySync {
    char *path;
    int fd; /* owned; -1: the folder alone */
};

CopySync *copy_sync_free(CopySync *s) {
    if (!s)
        return NULL;
    fd_close(s->fd);
    g_free(s->path);
    g_free(s);
    return NULL;
}

static void sync_free(void *data) {
    copy_sync_free(data);
}

static int run_sync(void *data) {
    const CopySync *s = data;

    if (s->fd >= 0 && fdatasync(s->fd) < 0)
        return -errno;
    return -image_sync_folder(s->path); /* a positive errno: only the name is in danger */
}

static void on_synced(int error, void *userdata) {
    Job *j = userdata;

    j->target_sync = NULL;
    if (error == 0 || error == -ESHUTDOWN)
        return;
    j->copy.unsynced = error < 0;
    job_warn(j, "The %s \"%s\" cannot be synced, a power cut may lose it: %s.",
             error < 0 ? "target" : "name of", j->target, g_strerror(abs(error)));
}

void copy_target_sync_now(Job *j) {
    CopySync *s = g_steal_pointer(&j->copy.sync_owed);

    if (!s)
        return;
    journal_slot_cancel(j->target_sync);
    journal_run(j->journal, run_sync, s, sync_free, on_synced, j, &j->target_sync);
}

void copy_target_sync(Job *j, bool content, bool may_wait) {
    if (j->copy.target_kind != TARGET_NEW)
        return;
    CopySync *s = g_new0(CopySync, 1);

    s->path = g_strdup(j->target);
    if (content && j->copy.target)
        s->fd = fcntl(j->copy.target->fd, F_DUPFD_CLOEXEC, 0);
    else if (content) /* where it is closed to us by now, only what QEMU flushes lasts */
        s->fd = open(j->target, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    else
        s->fd = -1;
    copy_sync_free(j->copy.sync_owed);
    j->copy.sync_owed = s;
    j->copy.unsynced = false;
    if (!may_wait || journal_is_idle(j->journal))
        copy_target_sync_now(j);
}
