/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A job that somebody else started in QEMU: shown, never touched. */

#include "job/internal.h"

static void foreign_clean(Job *j) {
    j->clean = true;
    job_action_done(j);
}

static void foreign_lost(Job *j) {
    job_set_error(j, FAILURE_DOMAIN_NOT_RUNNING, "QEMU went away and the job with it.");
}

const JobKind kind_foreign = {
    .name = "foreign",
    .done = RESULT_PIVOTED,
    .unchanged = "the guest stays on its source",
    .lost = foreign_lost,
    .clean = foreign_clean,
};

Job *foreign_new(uint64_t id, Disk *disk, Domain *domain, const QemuJob *q) {
    Job *j = job_alloc(&kind_foreign, id, "foreign");

    g_free(j->qemu_id);
    j->qemu_id = g_strdup(q->id);
    j->domain = domain;
    j->domain_name = g_strdup(domain_name(domain));
    j->domain_path = g_strdup(domain_path(domain));
    j->disk = g_strdup(disk ? disk->name : "");
    j->device = g_strdup(disk ? disk->device : "");
    j->created = now_realtime();
    j->instance = *domain_instance(domain);
    j->state = JOB_RUNNING;
    j->speed = q->speed;
    job_warn(j, "This is QEMU's job \"%s\" (%s), started by somebody else; it is only watched.",
             q->id, q->type);
    return j;
}
