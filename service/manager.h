/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Manager: owns everything: the loop's sources, the journal, the domains, the jobs; start-up and shutdown order. */

#include <glib.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "auth/auth.h"
#include "config.h"
#include "domain/domain.h"
#include "job/job.h"
#include "journal/journal.h"

typedef struct Manager Manager;

/* What the bus face is told; set once by bus_attach(). All after durability where something must be durable. */
typedef struct {
    void (*domain_added)(Domain *d, void *userdata);
    void (*domain_changed)(Domain *d, unsigned what, void *userdata); /* DomainChange */
    void (*domain_looked)(Domain *d, void *userdata);                 /* the view is new */
    void (*domain_removed)(Domain *d, void *userdata);                /* still in the table */
    void (*disk_added)(Disk *disk, void *userdata);
    void (*disk_changed)(Disk *disk, unsigned what, void *userdata); /* DiskChange */
    void (*disk_removed)(Disk *disk, void *userdata);                /* still in the table */
    void (*job_added)(Job *j, void *userdata);
    void (*job_changed)(Job *j, unsigned what, void *userdata); /* JobChange; also wakes WaitFor */
    void (*job_finished)(Job *j, void *userdata);
    void (*job_removed)(Job *j, void *userdata); /* still in the table */
    void (*counts_changed)(void *userdata);      /* NDomains, NJobsActive, JournalState */
} ManagerFace;

/* Opens the journal and restores domains and jobs; nothing is connected to the bus yet. */
int manager_new(sd_event *event, Config *config, Manager **ret);
Manager *manager_free(Manager *m);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Manager, manager_free)
/* Starts everything that reaches outside: reconnects domains, watches the socket folder. */
int manager_start(Manager *m);
void manager_set_face(Manager *m, const ManagerFace *face, void *userdata);
/* changed: something of a job, a domain or a connection is different now, progress apart; it only takes note and looks
 * later. */
void manager_set_watch(Manager *m, void (*changed)(void *userdata), void *userdata);
/* The configuration was read again; see config_update(). Returns how many keys were changed. */
unsigned manager_reload(Manager *m, const Config *fresh);

sd_event *manager_event(Manager *m);
const Config *manager_config(const Manager *m);
Journal *manager_journal(Manager *m);

GHashTable *manager_domains(Manager *m); /* name → Domain*; borrowed */
GHashTable *manager_jobs(Manager *m);    /* &id → Job*, those on the bus; borrowed */
Domain *manager_domain(Manager *m, const char *name_or_uuid);
Job *manager_job(Manager *m, uint64_t id);
unsigned manager_n_active(const Manager *m);
unsigned manager_n_attaching(const Manager *m); /* not among the domains yet */
/* D-Bus object path of a disk; owned by the caller. */
char *disk_path(const Disk *disk);
/* The active job on that disk or NULL. */
Job *disk_job(const Disk *disk);

/* Attaches and remembers; done is called when the domain is durable and looked at for the first time (f->kind NONE, d set),
 * or when it cannot be (d NULL; nothing is left). definition may be NULL. fd is taken over on
 * success of this call. */
typedef void (*ManagerAttached)(Domain *d, const Failure *f, void *userdata);
bool manager_attach(Manager *m, const char *name, const char *socket, int fd,
                    const char *definition, ManagerAttached done, void *userdata, Failure *f);
/* Forgets an attach's continuation (its caller has left); the domain stays. */
void manager_attach_forget(Manager *m, void *userdata);
bool manager_detach(Manager *m, Domain *d, bool force, JournalDone done, void *userdata,
                    Failure *f);

/* Copies: limits, request-id, busy disk, then copy_check(). done(0): the job is durable; it has been announced by then.
 * With a known request-id of the same caller *ret is that job, *ret_again is true and done is not called. */
bool manager_copy(Manager *m, Disk *disk, CopyOptions *o, uint32_t uid, JournalDone done,
                  void *userdata, Job **ret, bool *ret_again, Failure *f);
/* The same checks without doing it. */
bool manager_copy_check(Manager *m, Disk *disk, const CopyOptions *o, uint32_t uid,
                        uint64_t *ret_free, uint64_t *ret_needed, Failure *f);
/* The same for several disks of one domain, which end together: all checks before anything is made; *ret is the group. */
typedef struct {
    char *disk; /* name */
    CopyOptions copy;
} DiskCopy;
bool manager_copy_disks(Manager *m, Domain *d, GPtrArray *copies, GroupOptions *o, uint32_t uid,
                        JournalDone done, void *userdata, Job **ret, bool *ret_again, Failure *f);
Disk *manager_disk(Domain *d, const char *name, Failure *f);
/* Commits and pulls, likewise: images that others use are looked for among all domains. */
bool manager_chain(Manager *m, Disk *disk, ChainOptions *o, ChainVerb verb, uint32_t uid,
                   JournalDone done, void *userdata, Job **ret, bool *ret_again, Failure *f);
bool manager_chain_check(Manager *m, Disk *disk, const ChainOptions *o, ChainVerb verb,
                         uint32_t uid, Failure *f);
bool manager_dismiss(Manager *m, Job *j, JournalDone done, void *userdata, Failure *f);
/* Live or persistent XML of a domain; owned by the caller. NULL with f. */
char *manager_domain_xml(Manager *m, Domain *d, bool persistent, Failure *f);
