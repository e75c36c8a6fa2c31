/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commits and pulls: what only the owner of all domains and jobs can refuse, and their start. */

#include "manager-internal.h"

static bool same_file(const char *path, const ImageId *id, const char *other) {
    ImageId theirs;

    return g_str_equal(path, other) ||
           (id && image_stat(other, &theirs, NULL, NULL, NULL) == 0 && image_id_equal(id, &theirs));
}

/* The disk, other than ours, that has the file in its chain. */
static const Disk *user_of(Manager *m, const Disk *ours, const char *path) {
    ImageId id;
    bool known = image_stat(path, &id, NULL, NULL, NULL) == 0;
    GHashTableIter iter;
    void *domain;

    g_hash_table_iter_init(&iter, m->domains);
    while (g_hash_table_iter_next(&iter, NULL, &domain)) {
        GPtrArray *disks = domain_disks(domain);
        for (guint i = 0; i < disks->len; i++) {
            const Disk *disk = disks->pdata[i];
            g_autoptr(GPtrArray) chain = disk == ours ? g_ptr_array_new() : disk_chain(disk);
            for (guint n = 0; n < chain->len; n++)
                if (same_file(path, known ? &id : NULL, ((ChainImage *) chain->pdata[n])->file))
                    return disk;
        }
    }
    return NULL;
}

/* Whoever else reads an image that is changed under him, or deleted, reads nonsense. */
static bool check_users(Manager *m, const Disk *ours, char *const *files, Failure *f) {
    for (char *const *file = files; *file; file++) {
        const Disk *disk = user_of(m, ours, *file);
        if (disk)
            return failure_set(f, FAILURE_TARGET_IN_USE,
                               "The image \"%s\" would be changed or deleted, and disk \"%s\" of "
                               "domain \"%s\" uses it, too.",
                               *file, disk->name, domain_name(disk->domain));
        if (!manager_check_target_is_free(m, *file, f))
            return false;
    }
    return true;
}

static bool check_all(Manager *m, Disk *disk, const ChainOptions *o, ChainVerb verb, uint32_t uid,
                      ChainPlan **ret, Failure *f) {
    g_autoptr(ChainPlan) plan = NULL;

    if (!chain_options_check(o, verb, f) || !manager_check_limits(m, 1, uid, f) ||
        !manager_check_not_busy(disk, f) || !chain_check(disk, o, verb, &plan, f) ||
        !check_users(m, disk, chain_plan_files(plan), f))
        return false;
    *ret = g_steal_pointer(&plan);
    return true;
}

bool manager_chain_check(Manager *m, Disk *disk, const ChainOptions *o, ChainVerb verb,
                         uint32_t uid, Failure *f) {
    g_autoptr(ChainPlan) plan = NULL;

    return check_all(m, disk, o, verb, uid, &plan, f);
}

bool manager_chain(Manager *m, Disk *disk, ChainOptions *o, ChainVerb verb, uint32_t uid,
                   JournalDone done, void *userdata, Job **ret, bool *ret_again, Failure *f) {
    g_autoptr(ChainPlan) plan = NULL;

    *ret = manager_job_by_request(m, o->request_id, uid);
    *ret_again = *ret != NULL;
    if (*ret)
        return true;
    if (!check_all(m, disk, o, verb, uid, &plan, f))
        return false;
    *ret = chain_new(journal_new_id(m->journal), disk, o, plan, uid);
    manager_start_job(m, *ret, disk, done, userdata);
    return true;
}
