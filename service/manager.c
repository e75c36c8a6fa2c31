/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns everything: journal, domains, jobs; start-up order; what connects a domain's looks with its jobs. */

#include "manager.h"

#include <stdlib.h>
#include <string.h>

#include "fdstore.h"
#include "log.h"
#include "manager-internal.h"

#define POLL_RUNNING (250 * USEC_PER_MSEC)
#define POLL_READY (2 * USEC_PER_SEC)
#define HOUSEKEEPING (10 * 60 * USEC_PER_SEC)
/* The first time soon, when guests have been looked after: who is started again and again must not grow for ever. */
#define FIRST_HOUSEKEEPING (200 * USEC_PER_MSEC)

sd_event *manager_event(Manager *m) {
    return m->event;
}
const Config *manager_config(const Manager *m) {
    return m->config;
}
Journal *manager_journal(Manager *m) {
    return m->journal;
}
GHashTable *manager_domains(Manager *m) {
    return m->domains;
}
GHashTable *manager_jobs(Manager *m) {
    return m->jobs;
}

void manager_set_face(Manager *m, const ManagerFace *face, void *userdata) {
    m->face = face;
    m->face_data = userdata;
}

void manager_set_watch(Manager *m, void (*changed)(void *userdata), void *userdata) {
    m->watch = changed;
    m->watch_data = userdata;
}

unsigned manager_n_attaching(const Manager *m) {
    return m->attaching->len;
}

unsigned manager_reload(Manager *m, const Config *fresh) {
    unsigned changed = config_update(m->config, fresh);
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, m->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        domain_set_timeouts(value, m->config->qmp_timeout, m->config->greeting_timeout,
                            m->config->reconnect_max);
    manager_retire(m);
    return changed;
}

/* ── finding ── */

Domain *manager_domain(Manager *m, const char *name_or_uuid) {
    Domain *d = g_hash_table_lookup(m->domains, name_or_uuid);
    GHashTableIter iter;
    void *value;

    if (d)
        return d;
    g_hash_table_iter_init(&iter, m->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (g_ascii_strcasecmp(domain_uuid(value), name_or_uuid) == 0)
            return value;
    return NULL;
}

char *disk_path(const Disk *disk) {
    g_autofree char *prefix = g_strconcat(domain_path(disk->domain), "/disk", NULL);
    char *path = NULL;

    sd_bus_path_encode(prefix, disk->name, &path);
    char *owned = g_strdup(path);
    free(path);
    return owned;
}

Job *disk_job(const Disk *disk) {
    return disk->job;
}

Job *manager_job(Manager *m, uint64_t id) {
    return g_hash_table_lookup(m->jobs, &id);
}

unsigned manager_n_active(const Manager *m) {
    return m->n_active;
}

/* ── what changes is told ── */

void manager_changed(Manager *m) {
    if (m->watch)
        m->watch(m->watch_data);
}

void manager_counts_changed(Manager *m) {
    if (m->face)
        m->face->counts_changed(m->face_data);
    manager_changed(m);
}

/* How often the domain's progress is read: as often as its liveliest job wants. */
static void update_poll(Domain *d) {
    const GPtrArray *jobs = domain_jobs(d);
    uint64_t interval = 0;

    for (guint i = 0; i < jobs->len; i++) {
        const Job *j = jobs->pdata[i];
        if (!job_is_active(j))
            continue;
        JobState state = job_state(j);
        bool copies = state == JOB_RUNNING || state == JOB_PIVOTING || state == JOB_FINISHING;
        uint64_t wish = copies ? POLL_RUNNING : job_in_sync(j) ? POLL_READY : 0;
        if (wish > 0 && (interval == 0 || wish < interval))
            interval = wish;
    }
    domain_set_poll(d, interval);
}

static Disk *job_disk(const Job *j) {
    Domain *d = job_domain(j);
    return d ? domain_disk_by_device(d, job_device(j)) : NULL;
}

static void tell_disk(Manager *m, Disk *disk, unsigned what) {
    if (m->face && disk)
        m->face->disk_changed(disk, what, m->face_data);
}

static void on_job_changed(Job *j, unsigned what, void *userdata) {
    Manager *m = userdata;

    if (m->face)
        m->face->job_changed(j, what, m->face_data);
    if (what & JOB_CHANGED_STATE) {
        if (job_state(j) == JOB_READY || job_state(j) == JOB_CANCELLING) /* MirrorReady */
            tell_disk(m, job_disk(j), DISK_CHANGED_JOB);
        if (job_domain(j))
            update_poll(job_domain(j));
    }
    if (what & ~(unsigned) JOB_CHANGED_PROGRESS)
        manager_changed(m);
}

static void on_job_finished(Job *j, void *userdata) {
    Manager *m = userdata;
    Disk *disk = job_disk(j);

    m->n_active--;
    if (disk && disk->job == j) {
        disk->job = NULL;
        tell_disk(m, disk, DISK_CHANGED_JOB);
    }
    if (m->face) {
        m->face->job_finished(j, m->face_data);
        if (job_domain(j))
            m->face->domain_changed(job_domain(j), DOMAIN_CHANGED_JOBS, m->face_data);
    }
    manager_counts_changed(m);
    manager_retire(m);
}

/* The last trace of the job is gone from QEMU: an automatic domain that is gone as well may be forgotten. */
static void on_job_released(Job *j, void *userdata) {
    Manager *m = userdata;

    if (job_domain(j))
        update_poll(job_domain(j));
    manager_sweep_domains_later(m);
}

const JobHooks manager_job_hooks = {
    .changed = on_job_changed,
    .finished = on_job_finished,
    .released = on_job_released,
};

/* ── jobs on the bus ── */

/* Nobody will look after the job any more: if QEMU still lists it, QEMU may forget it, for its end is recorded. */
void manager_forget_in_qemu(const Job *j) {
    Domain *d = job_domain(j);

    if (!job_is_active(j) && !job_is_released(j) && d && domain_qmp(d))
        domain_send(d, NULL, "job-dismiss", json_pack("{s:s}", "id", job_qemu_id(j)), -1, NULL,
                    NULL);
}

void manager_remove_job(Manager *m, Job *j) {
    uint64_t id = job_id(j);

    if (m->face)
        m->face->job_removed(j, m->face_data);
    if (job_domain(j))
        g_ptr_array_remove(domain_jobs(job_domain(j)), j);
    g_hash_table_remove(m->jobs, &id);
}

typedef struct {
    Manager *manager;
    uint64_t id;
    JournalDone done;
    void *userdata;
} Dismissing;

static void on_unexported(int error, void *userdata) {
    g_autofree Dismissing *d = userdata;
    Job *j = manager_job(d->manager, d->id);

    if (error == 0 && j) {
        manager_forget_in_qemu(j);
        manager_remove_job(d->manager, j);
    }
    if (d->done)
        d->done(error, d->userdata);
}

/* Off the bus when it is durable that it stays off. */
static void dismiss(Manager *m, Job *j, JournalDone done, void *userdata) {
    Dismissing *d = g_new0(Dismissing, 1);

    *d = (Dismissing){m, job_id(j), done, userdata};
    journal_cork(m->journal);
    for (guint i = 0; i < job_parts(j)->len; i++) { /* the members of a group leave with it */
        Job *part = job_parts(j)->pdata[i];
        if (part == j)
            continue;
        Dismissing *with = g_new0(Dismissing, 1);
        *with = (Dismissing){m, job_id(part), NULL, NULL};
        job_unexport(part, on_unexported, with);
    }
    job_unexport(j, on_unexported, d);
    journal_uncork(m->journal);
}

static int by_end(const void *a, const void *b) {
    uint64_t x = job_info(*(Job *const *) a).finished, y = job_info(*(Job *const *) b).finished;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Finished jobs leave the bus when there are more than so many newer ones and they are older than so much. */
void manager_retire(Manager *m) {
    g_autoptr(GPtrArray) finished = g_ptr_array_new();
    uint64_t now = now_realtime();
    GHashTableIter iter;
    void *value;

    if (g_hash_table_size(m->jobs) - m->n_active <= m->config->keep_finished)
        return;
    g_hash_table_iter_init(&iter, m->jobs);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (!job_is_active(value) && job_group_id(value) == 0)
            g_ptr_array_add(finished, value);
    g_ptr_array_sort(finished, by_end);
    for (guint i = m->config->keep_finished; i < finished->len; i++) {
        Job *j = finished->pdata[i];
        uint64_t finished_at = job_info(j).finished;
        uint64_t age =
            now > finished_at ? now - finished_at : 0; /* the clock may have been set back */
        if (!job_is_released(j) || age < m->config->keep_finished_age)
            continue;
        if (job_is_exported(j))
            dismiss(m, j, NULL, NULL);
    }
}

typedef struct {
    Manager *manager;
    Job *job;
    JournalDone done;
    void *userdata;
} Starting;

static void on_started(int error, void *userdata) {
    g_autofree Starting *s = userdata;
    Manager *m = s->manager;
    Job *j = s->job;

    if (error == 0 && m->face) {
        JobInfo info = job_info(j);
        job_log(j, LOG_INFO, MESSAGE_JOB_CREATED, "%s to \"%s\" ordered by uid %" PRIu32 ".",
                info.kind, info.target, info.owner_uid);
        m->face->job_added(j, m->face_data);
        tell_disk(m, job_disk(j), DISK_CHANGED_JOB);
        if (job_domain(j))
            m->face->domain_changed(job_domain(j), DOMAIN_CHANGED_JOBS, m->face_data);
        manager_counts_changed(m);
    }
    if (s->done)
        s->done(error, s->userdata);
}

static void add_job(Manager *m, Job *j) {
    uint64_t *key = g_new(uint64_t, 1);

    *key = job_id(j);
    g_hash_table_insert(m->jobs, key, j);
    if (job_domain(j))
        g_ptr_array_add(domain_jobs(job_domain(j)), j);
    m->n_active += job_is_active(j);
}

void manager_start_job(Manager *m, Job *j, Disk *disk, JournalDone done, void *userdata) {
    Starting *s = g_new0(Starting, 1);

    add_job(m, j);
    if (disk && !disk->job)
        disk->job = j;
    *s = (Starting){m, j, done, userdata};
    job_start(j, m->journal, m->event, &manager_job_hooks, m, on_started, s);
}

/* ── copies; manager-chain.c has commits and pulls ── */

bool manager_check_limits(Manager *m, unsigned n, uint32_t uid, Failure *f) {
    unsigned own = 0;
    GHashTableIter iter;
    void *value;

    if (journal_state(m->journal) == JOURNAL_FULL || journal_state(m->journal) == JOURNAL_FAILED)
        return failure_set(f, FAILURE_JOURNAL,
                           "The journal in \"%s\" cannot be written (no space, or read-only), so "
                           "no new job is taken; "
                           "make room there. Running jobs go on.",
                           m->config->state_dir);
    g_hash_table_iter_init(&iter, m->jobs);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        own += job_is_active(value) && job_owner(value) == uid;
    if (m->n_active + n > m->config->max_jobs || own + n > m->config->max_jobs_per_uid)
        return failure_set(
            f, FAILURE_LIMIT_REACHED,
            "Too many jobs are active (%u of yours, %u in all); wait until some have ended.", own,
            m->n_active);
    return true;
}

bool manager_check_not_busy(const Disk *disk, Failure *f) {
    const Job *busy = disk_job(disk);

    if (domain_is_forgotten(disk->domain))
        return failure_set(f, FAILURE_NO_SUCH_DOMAIN, "Domain \"%s\" is being detached.",
                           domain_name(disk->domain));
    if (!busy)
        return true;
    JobInfo info = job_info(busy);
    return failure_set(f, FAILURE_DISK_BUSY,
                       "Disk \"%s\" of domain \"%s\" is busy: job %" PRIu64
                       " (%s, %s) works on it; wait for it or cancel it.",
                       disk->name, domain_name(disk->domain), info.id, info.kind, info.state);
}

/* Two jobs must not write the same image, also before the first has locked it in QEMU. */
bool manager_check_target_is_free(Manager *m, const char *target, Failure *f) {
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, m->jobs);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (job_is_active(value) && g_str_equal(job_target_path(value), target))
            return failure_set(f, FAILURE_TARGET_IN_USE,
                               "The target \"%s\" is being written by job %" PRIu64
                               "; give another target.",
                               target, job_id(value));
    return true;
}

Job *manager_job_by_request(Manager *m, const char *request_id, uint32_t uid) {
    GHashTableIter iter;
    void *value;

    if (!request_id || !request_id[0])
        return NULL;
    g_hash_table_iter_init(&iter, m->jobs);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (job_owner(value) == uid && g_str_equal(job_request_id(value), request_id))
            return value;
    return NULL;
}

bool manager_copy_check(Manager *m, Disk *disk, const CopyOptions *o, uint32_t uid,
                        uint64_t *ret_free, uint64_t *ret_needed, Failure *f) {
    g_autoptr(Target) target = NULL;

    return copy_options_check(o, f) && manager_check_limits(m, 1, uid, f) &&
           manager_check_not_busy(disk, f) &&
           (o->fd >= 0 || manager_check_target_is_free(m, o->target, f)) &&
           copy_check(disk, o, &target, ret_free, ret_needed, f);
}

bool manager_copy(Manager *m, Disk *disk, CopyOptions *o, uint32_t uid, JournalDone done,
                  void *userdata, Job **ret, bool *ret_again, Failure *f) {
    Job *again = manager_job_by_request(m, o->request_id, uid);
    Target *target = NULL;

    if (again) {
        *ret = again;
        *ret_again = true;
        return true;
    }
    if (!copy_options_check(o, f) || !manager_check_limits(m, 1, uid, f) ||
        !manager_check_not_busy(disk, f) ||
        (o->fd < 0 && !manager_check_target_is_free(m, o->target, f)) ||
        !copy_check(disk, o, &target, NULL, NULL, f))
        return false;
    Job *j = copy_new(journal_new_id(m->journal), disk, o, target, uid);
    manager_start_job(m, j, disk, done, userdata);
    *ret = j;
    *ret_again = false;
    return true;
}

bool manager_dismiss(Manager *m, Job *j, JournalDone done, void *userdata, Failure *f) {
    if (job_is_active(j))
        return failure_set(f, FAILURE_NOT_READY,
                           "Job %" PRIu64 " is %s; only a concluded job can be dismissed.",
                           job_id(j), job_info(j).state);
    if (job_group_id(j) != 0)
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "Job %" PRIu64
                           " is a member of a group and is dismissed with it: dismiss job %" PRIu64
                           ".",
                           job_id(j), job_group_id(j));
    dismiss(m, j, done, userdata);
    return true;
}

/* ── domains' hooks ── */

static void on_domain_changed(Domain *d, unsigned what, void *userdata) {
    Manager *m = userdata;

    if (m->face && manager_is_attached(m, d))
        m->face->domain_changed(d, what, m->face_data);
    manager_changed(m);
}

static Job *job_of_disk(Manager *m, const Disk *disk) {
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, m->jobs);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (job_is_active(value) && job_domain(value) == disk->domain &&
            g_str_equal(job_device(value), disk->device))
            return value;
    return NULL;
}

static void on_disk_added(Disk *disk, void *userdata) {
    Manager *m = userdata;

    disk->job = job_of_disk(m, disk);
    if (m->face && manager_is_attached(m, disk->domain))
        m->face->disk_added(disk, m->face_data);
}

static void on_disk_changed(Disk *disk, unsigned what, void *userdata) {
    Manager *m = userdata;

    if (manager_is_attached(m, disk->domain))
        tell_disk(m, disk, what);
}

static void on_disk_removed(Disk *disk, void *userdata) {
    Manager *m = userdata;

    if (m->face && manager_is_attached(m, disk->domain))
        m->face->disk_removed(disk, m->face_data);
    if (disk->node && !disk->job && domain_qmp(disk->domain))
        copy_drop_image(disk->domain, disk->node);
}

/* The jobs of d, in an array of their own: advancing one may change the table. */
GPtrArray *manager_jobs_of(const Domain *d) {
    return g_ptr_array_copy(domain_jobs(d), NULL, NULL);
}

/* A job on its way has a transaction that somebody waits for; the domain's record comes with its end, or after it runs. */
static bool may_be_saved(const GPtrArray *jobs) {
    for (guint i = 0; i < jobs->len; i++) {
        JobState state = job_state(jobs->pdata[i]);
        if (state != JOB_RUNNING && state != JOB_READY && state != JOB_CONCLUDED)
            return false;
    }
    return true;
}

static void on_domain_looked(Domain *d, void *userdata) {
    Manager *m = userdata;

    if (!manager_is_attached(m, d)) {
        manager_attach_looked(m, d);
        return;
    }
    manager_adopt_jobs(m, d);
    g_autoptr(GPtrArray) jobs = manager_jobs_of(d);
    for (guint i = 0; i < jobs->len; i++)
        job_advance(jobs->pdata[i]);
    if (domain_needs_saving(d) && may_be_saved(jobs))
        domain_save(d, NULL, NULL, NULL);
    if (m->face)
        m->face->domain_looked(d, m->face_data);
}

void manager_store_link(Domain *d) {
    if (domain_qmp(d))
        fdstore_put(domain_name(d), qmp_fd(domain_qmp(d)));
    else
        fdstore_remove(domain_name(d));
}

static void on_domain_link(Domain *d, void *userdata) {
    Manager *m = userdata;

    manager_changed(m);
    if (!manager_is_attached(m, d)) {
        manager_attach_link(m, d);
        return;
    }
    manager_store_link(d);
    if (m->to_connect->len > 0 && m->connect) /* one has answered, or will not: the next ones */
        sd_event_source_set_time_relative(m->connect, 0);
    g_autoptr(GPtrArray) jobs = manager_jobs_of(d);
    for (guint i = 0; i < jobs->len; i++)
        job_link_changed(jobs->pdata[i]);
    manager_sweep_domains_later(m);
}

const DomainHooks manager_domain_hooks = {
    .changed = on_domain_changed,
    .disk_added = on_disk_added,
    .disk_changed = on_disk_changed,
    .disk_removed = on_disk_removed,
    .looked = on_domain_looked,
    .link_changed = on_domain_link,
};

/* ── life ── */

static void on_journal_changed(Journal *j, void *userdata) {
    Manager *m = userdata;

    if (journal_state(j) == JOURNAL_FAILED) {
        log_event(LOG_CRIT, MESSAGE_JOURNAL_FAILED,
                  "The journal in \"%s\" has failed; nothing that is not durable is acted on. The "
                  "service exits and recovers.",
                  m->config->state_dir);
        sd_event_exit(m->event, EXIT_FAILURE);
        return;
    }
    manager_counts_changed(m);
}

static void restore_domains(Manager *m) {
    g_autoptr(GPtrArray) domains = journal_take_domains(m->journal);

    for (guint i = 0; i < domains->len; i++) {
        const JournalDomain *record = domains->pdata[i];
        DomainParams p = manager_domain_params(m, record->name);
        Domain *d = NULL;
        int r = domain_restore(m->event, m->journal, &p, record->document, &manager_domain_hooks, m,
                               &d);
        if (r < 0) {
            log_error("Domain \"%s\": its record cannot be read and is left alone: %s",
                      record->name, g_strerror(-r));
            continue;
        }
        g_hash_table_insert(m->domains, g_strdup(record->name), d);
    }
}

/* All are there: members find their groups, then each takes up its work. */
static void resume_jobs(Manager *m) {
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, m->jobs);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (job_group_id(value) != 0)
            group_restore_member(value, manager_job(m, job_group_id(value)));
    g_hash_table_iter_init(&iter, m->jobs);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        group_restore(value);
    g_hash_table_iter_init(&iter, m->jobs);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        job_resume_after_restart(value, m->journal, m->event, &manager_job_hooks, m);
}

static void restore_jobs(Manager *m) {
    g_autoptr(GPtrArray) jobs = journal_take_jobs(m->journal);

    for (guint i = 0; i < jobs->len; i++) {
        const JournalJob *record = jobs->pdata[i];
        Job *j = NULL;
        int r = job_restore(record, g_hash_table_lookup(m->domains, record->domain), &j);
        if (r < 0) {
            log_event(
                LOG_ERR, MESSAGE_JOURNAL_CORRUPT,
                "Job %" PRIu64
                ": its record cannot be read; it is left alone, and its guest is not touched.",
                record->id);
            continue;
        }
        add_job(m, j);
        Disk *disk = job_disk(j);
        if (disk && job_is_active(j))
            disk->job = j;
    }
    resume_jobs(m);
}

static void free_job(void *j) {
    job_free(j);
}

static void free_domain(void *d) {
    domain_free(d);
}

int manager_new(sd_event *event, Config *config, Manager **ret) {
    g_autoptr(Manager) m = g_new0(Manager, 1);
    g_auto(Failure) why = {0};

    m->event = sd_event_ref(event);
    m->config = config;
    m->domains = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_domain);
    m->jobs = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, free_job);
    m->attaching = g_ptr_array_new();
    m->to_connect = g_ptr_array_new_with_free_func(g_free);
    int r = journal_open(event, config->state_dir, on_journal_changed, m, &why, &m->journal);
    if (r < 0) {
        log_error("%s", why.message ? why.message : g_strerror(-r));
        return r;
    }
    restore_domains(m);
    restore_jobs(m);
    *ret = g_steal_pointer(&m);
    return 0;
}

static int on_housekeeping(sd_event_source *source, uint64_t usec, void *userdata) {
    Manager *m = userdata;
    JournalRetention retention = {.keep_rows = m->config->history_rows,
                                  .keep_age = m->config->history_age};

    manager_retire(m);
    journal_prune(m->journal, &retention);
    sd_event_source_set_time_relative(source, HOUSEKEEPING);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* ── connecting what was restored ── */

/* A few at a time: a hundred QEMUs that answer at once, with a higher priority than the bus, would keep callers waiting. */
#define CONNECT_AT_ONCE 6
#define CONNECT_PACE (30 * USEC_PER_MSEC) /* … and a few more, whether those have answered or not */

static void connect_some(Manager *m) {
    for (unsigned n = 0; n < CONNECT_AT_ONCE && m->to_connect->len > 0; n++) {
        g_autofree char *name = g_ptr_array_steal_index(m->to_connect, 0);
        Domain *d = g_hash_table_lookup(m->domains, name);
        if (d)
            domain_connect(d, fdstore_take(name));
    }
    if (m->to_connect->len == 0)
        fdstore_drop_rest();
}

static int on_connect(sd_event_source *source, uint64_t usec, void *userdata) {
    Manager *m = userdata;

    connect_some(m);
    if (m->to_connect->len == 0)
        return 0;
    sd_event_source_set_time_relative(source, CONNECT_PACE);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* First those whose guests may be held by a switch. */
static void connect_begin(Manager *m) {
    GHashTableIter iter;
    void *value;

    for (int urgent = 1; urgent >= 0; urgent--) {
        g_hash_table_iter_init(&iter, m->domains);
        while (g_hash_table_iter_next(&iter, NULL, &value)) {
            g_autoptr(GPtrArray) jobs = manager_jobs_of(value);
            bool switching = false;
            for (guint i = 0; i < jobs->len; i++) {
                JobState state = job_state(jobs->pdata[i]);
                switching |=
                    state == JOB_PIVOTING || state == JOB_FINISHING || state == JOB_CANCELLING;
            }
            if (switching == (urgent == 1))
                g_ptr_array_add(m->to_connect, g_strdup(domain_name(value)));
        }
    }
    connect_some(m);
    sd_event_add_time_relative(m->event, &m->connect, CLOCK_MONOTONIC, CONNECT_PACE, USEC_PER_MSEC,
                               on_connect, m);
}

int manager_start(Manager *m) {
    g_autoptr(GPtrArray) jobs = g_ptr_array_new();
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, m->jobs);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        g_ptr_array_add(jobs, value);
    for (guint i = 0; i < jobs->len; i++)
        job_advance(jobs->pdata[i]);
    connect_begin(m);
    manager_watch_sockets(m);
    return sd_event_add_time_relative(m->event, &m->housekeeping, CLOCK_MONOTONIC,
                                      FIRST_HOUSEKEEPING, FIRST_HOUSEKEEPING, on_housekeeping, m);
}

Manager *manager_free(Manager *m) {
    if (!m)
        return NULL;
    m->face = NULL;
    sd_event_source_disable_unref(m->housekeeping);
    sd_event_source_disable_unref(m->socket_watch);
    sd_event_source_disable_unref(m->sweep);
    sd_event_source_disable_unref(m->connect);
    g_ptr_array_unref(m->to_connect);
    manager_free_attaching(m);
    /* Jobs and domains forget their continuations first; what they handed over is written all the same. */
    g_hash_table_unref(m->jobs);
    g_hash_table_unref(m->domains);
    journal_free(m->journal);
    sd_event_unref(m->event);
    config_free(m->config);
    g_free(m);
    return NULL;
}
