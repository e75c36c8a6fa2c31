/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several disks of one domain copied to one point in time: all is checked before anything is made, and all of it is made in
 * one transaction. */

#include <string.h>
#include <sys/stat.h>

#include "manager-internal.h"

/* What is known of one disk when all of them have been checked. */
typedef struct {
    Disk *disk;
    Target *target;
    uint64_t free, needed; /* bytes; needed 0 = nothing new */
    dev_t device;
} Checked;

static void checked_free(void *data) {
    Checked *c = data;

    target_free(c->target);
    g_free(c);
}

Disk *manager_disk(Domain *d, const char *name, Failure *f) {
    GPtrArray *disks = domain_disks(d);

    for (guint i = 0; i < disks->len; i++)
        if (g_str_equal(((Disk *) disks->pdata[i])->name, name))
            return disks->pdata[i];
    failure_set(f, FAILURE_NO_SUCH_DISK, "Domain \"%s\" has no disk \"%s\".", domain_name(d), name);
    return NULL;
}

/* Two of the group must not take the same disk or write the same file. */
static bool check_apart(GPtrArray *copies, guint at, Failure *f) {
    const DiskCopy *c = copies->pdata[at];

    for (guint i = 0; i < at; i++) {
        const DiskCopy *other = copies->pdata[i];
        if (g_str_equal(c->disk, other->disk))
            return failure_set(f, FAILURE_INVALID_ARGS, "It is given twice.");
        if (c->copy.fd < 0 && other->copy.fd < 0 && g_str_equal(c->copy.target, other->copy.target))
            return failure_set(f, FAILURE_TARGET_IN_USE,
                               "The target \"%s\" is that of disk \"%s\", too; give each its own.",
                               c->copy.target, other->disk);
    }
    return true;
}

static void find_device(Checked *c) {
    g_autofree char *folder = g_path_get_dirname(c->target->path);
    struct stat st;

    c->device = stat(folder, &st) == 0 ? st.st_dev : 0;
}

static bool check_one(Manager *m, Domain *d, GPtrArray *copies, guint at, Checked *c, Failure *f) {
    const DiskCopy *copy = copies->pdata[at];

    c->disk = manager_disk(d, copy->disk, f);
    if (!c->disk || !check_apart(copies, at, f) || !copy_options_check(&copy->copy, f) ||
        !manager_check_not_busy(c->disk, f) ||
        (copy->copy.fd < 0 && !manager_check_target_is_free(m, copy->copy.target, f)) ||
        !copy_check(c->disk, &copy->copy, &c->target, &c->free, &c->needed, f))
        return false;
    find_device(c);
    return true;
}

/* Each alone has room; have all of them together? */
static bool check_space(GPtrArray *checked, GPtrArray *copies, Failure *f) {
    for (guint i = 0; i < checked->len; i++) {
        const Checked *c = checked->pdata[i];
        uint64_t needed = 0;
        bool force = false;

        for (guint k = 0; k < checked->len; k++) {
            const Checked *other = checked->pdata[k];
            if (other->needed == 0 || other->device != c->device)
                continue;
            needed += other->needed;
            force |= ((const DiskCopy *) copies->pdata[k])->copy.force;
        }
        if (c->needed == 0 || c->device == 0 || force || needed <= c->free)
            continue;
        g_autofree char *have = format_bytes(c->free), *need = format_bytes(needed);
        return failure_set(
            f, FAILURE_NO_SPACE,
            "The file system of \"%s\" has %s free and the copies to it may need %s; "
            "make room, or give the option \"force\" to go on all the same.",
            c->target->path, have, need);
    }
    return true;
}

static GPtrArray *check_all(Manager *m, Domain *d, GPtrArray *copies, uint32_t uid, Failure *f) {
    g_autoptr(GPtrArray) checked = g_ptr_array_new_with_free_func(checked_free);

    if (!manager_check_limits(m, copies->len + 1, uid, f))
        return NULL;
    for (guint i = 0; i < copies->len; i++) {
        g_auto(Failure) why = {0};
        Checked *c = g_new0(Checked, 1);
        g_ptr_array_add(checked, c);
        if (!check_one(m, d, copies, i, c, &why)) {
            failure_set(f, why.kind, "Disk \"%s\": %s", ((DiskCopy *) copies->pdata[i])->disk,
                        why.message);
            return NULL;
        }
    }
    return check_space(checked, copies, f) ? g_steal_pointer(&checked) : NULL;
}

bool manager_copy_disks(Manager *m, Domain *d, GPtrArray *copies, GroupOptions *o, uint32_t uid,
                        JournalDone done, void *userdata, Job **ret, bool *ret_again, Failure *f) {
    Job *again = manager_job_by_request(m, o->request_id, uid);
    g_autoptr(GPtrArray) members = g_ptr_array_new();

    *ret_again = again != NULL;
    if (again) {
        *ret = again;
        return true;
    }
    g_autoptr(GPtrArray) checked = check_all(m, d, copies, uid, f);
    if (!checked)
        return false;
    uint64_t id = journal_new_id(m->journal); /* before those of its members */
    for (guint i = 0; i < copies->len; i++) {
        Checked *c = checked->pdata[i];
        g_ptr_array_add(members, copy_new(journal_new_id(m->journal), c->disk,
                                          &((DiskCopy *) copies->pdata[i])->copy,
                                          g_steal_pointer(&c->target), uid));
    }
    *ret = group_new(id, members, o);
    journal_cork(m->journal);
    manager_start_job(m, *ret, NULL, NULL, NULL);
    for (guint i = 0; i < members->len; i++) {
        const Checked *c = checked->pdata[i];
        bool last = i + 1 == members->len;
        manager_start_job(m, members->pdata[i], c->disk, last ? done : NULL,
                          last ? userdata : NULL);
    }
    journal_uncork(m->journal);
    return true;
}
