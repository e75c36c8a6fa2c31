/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the service is doing, as facts for its own decisions and as a line for people. */

#include <inttypes.h>

#include "host/internal.h"
#include "util.h"

#define SHOWN_MAX 3

static int by_id(const void *a, const void *b) {
    uint64_t x = job_id(*(Job *const *) a), y = job_id(*(Job *const *) b);
    return x < y ? -1 : x > y;
}

static GPtrArray *active_jobs(Manager *m) {
    GPtrArray *jobs = g_ptr_array_new();
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, manager_jobs(m));
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (job_is_active(value))
            g_ptr_array_add(jobs, value);
    g_ptr_array_sort(jobs, by_id);
    return jobs;
}

static void append_job(GString *s, const Job *j) {
    JobInfo i = job_info(j);

    g_string_append_printf(s, ", %s/%s ", i.domain_name, i.disk);
    if (job_state(j) == JOB_RUNNING && i.total > 0)
        g_string_append_printf(s, "%" PRIu64 " %%", (uint64_t) ((double) i.done * 100 / i.total));
    else
        g_string_append(s, i.state);
}

char *status_text(Manager *m) {
    g_autoptr(GPtrArray) jobs = active_jobs(m);
    GString *s = g_string_new(NULL);
    unsigned domains = g_hash_table_size(manager_domains(m));

    if (jobs->len == 0)
        g_string_printf(s, "No jobs, %u domain%s", domains, domains == 1 ? "" : "s");
    else
        g_string_printf(s, "%u job%s", jobs->len, jobs->len == 1 ? "" : "s");
    for (guint i = 0; i < MIN(jobs->len, SHOWN_MAX); i++)
        append_job(s, jobs->pdata[i]);
    if (jobs->len > SHOWN_MAX)
        g_string_append(s, ", …");
    return g_string_free(s, FALSE);
}

unsigned status_n_unsettled(Manager *m) {
    GHashTableIter iter;
    void *value;
    unsigned n = 0;

    g_hash_table_iter_init(&iter, manager_jobs(m));
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const Domain *d = job_domain(value);
        n += job_is_active(value) && (!d || domain_process_gone(d));
    }
    return n;
}

bool status_is_switching(Manager *m) {
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, manager_jobs(m));
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (job_is_switching(value))
            return true;
    return false;
}

bool status_is_quiet(Manager *m) {
    GHashTableIter iter;
    void *value;

    if (manager_n_attaching(m) > 0)
        return false;
    g_hash_table_iter_init(&iter, manager_jobs(m));
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (!job_is_released(value))
            return false;
    g_hash_table_iter_init(&iter, manager_domains(m));
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (domain_state(value) != DOMAIN_DISCONNECTED)
            return false;
    return true;
}
