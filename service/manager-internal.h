/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What manager.c (owning, jobs, hooks) and manager-domains.c (attaching, detaching, XML) share. */

#include "manager.h"
#include "util.h"

struct Manager {
    sd_event *event;
    Config *config;
    Journal *journal;
    GHashTable *domains; /* name → Domain, owned */
    GHashTable *jobs;    /* &id → Job, owned */
    unsigned n_active;
    GPtrArray *attaching; /* Attaching*, not in domains yet */
    const ManagerFace *face;
    void *face_data;
    void (*watch)(void *userdata);
    void *watch_data;
    sd_event_source *housekeeping, *socket_watch, *sweep, *connect;
    GPtrArray *to_connect; /* names of restored domains whose turn has not come */
};

extern const JobHooks manager_job_hooks;
extern const DomainHooks manager_domain_hooks;

/* Tells the watch. */
void manager_changed(Manager *m);
/* NDomains, NJobsActive or JournalState may be different. */
void manager_counts_changed(Manager *m);
/* Has the service manager keep the domain's connection, or forget it when there is none. */
void manager_store_link(Domain *d);
void manager_retire(Manager *m);
void manager_remove_job(Manager *m, Job *j);
void manager_forget_in_qemu(const Job *j);
void manager_start_job(Manager *m, Job *j, Disk *disk, JournalDone done, void *userdata);
GPtrArray *manager_jobs_of(const Domain *d);
/* What every new job is checked for: room for so many more, an idle disk, a target that no other job writes. */
bool manager_check_limits(Manager *m, unsigned n, uint32_t uid, Failure *f);
bool manager_check_not_busy(const Disk *disk, Failure *f);
bool manager_check_target_is_free(Manager *m, const char *target, Failure *f);
Job *manager_job_by_request(Manager *m, const char *request_id, uint32_t uid);

/* manager-domains.c */
DomainParams manager_domain_params(const Manager *m, const char *name);
bool manager_is_attached(const Manager *m, const Domain *d);
/* A domain that is being attached was looked at, or its link changed. */
void manager_attach_looked(Manager *m, Domain *d);
void manager_attach_link(Manager *m, Domain *d);
void manager_free_attaching(Manager *m);
/* Jobs in QEMU that nobody here knows: somebody else's are shown, leftovers of ours are dismissed. */
void manager_adopt_jobs(Manager *m, Domain *d);
/* Forgets automatic domains whose socket and process are gone; from the loop, never from inside a hook. */
void manager_sweep_domains_later(Manager *m);
void manager_watch_sockets(Manager *m);
