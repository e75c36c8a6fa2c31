/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the files of bus/ share: the Bus itself, what the finders found, and calls that are
 * answered later.
 *
 * What is on the bus is in one table, path → object: from the moment when it is durable and
 * announced until its removal is announced. Objects are served by fallback vtables, one for each
 * interface, with a finder that looks there. A finder fills the snapshot of its interface
 * (DomainFound, …), which the property tables read by offset: one look-up for an object and none
 * for each property. A snapshot is true until its finder runs again, or the loop goes round. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#include "auth/auth.h"
#include "bus/bus.h"
#include "failure.h"
#include "job/job.h"
#include "manager.h"

#define PATH_ROOT "/org/blockjob1"
#define PATH_DOMAINS PATH_ROOT "/domain"
#define PATH_JOBS PATH_ROOT "/job"
#define INTERFACE_MANAGER "org.blockjob1.Manager"
#define INTERFACE_DOMAIN "org.blockjob1.Domain"
#define INTERFACE_DISK "org.blockjob1.Disk"
#define INTERFACE_JOB "org.blockjob1.Job"

typedef struct {
    Bus *bus;
    Domain *domain;
    const char *name, *uuid, *state, *version, *socket, *definition;
} DomainFound;

typedef struct {
    Bus *bus;
    Disk *disk;
    const char *name, *domain, *device, *node, *source, *format, *job, *mirror_target;
    uint64_t size, allocated;
    bool read_only, removable, mirror_ready;
} DiskFound;

typedef struct {
    Bus *bus;
    Job *job;
    const char *domain, *group;
    JobInfo info;
} JobFound;

struct Bus {
    sd_bus *bus;
    Manager *manager;
    Auth *auth;
    GHashTable *objects; /* path → Object, those on the bus */
    GPtrArray *slots;    /* sd_bus_slot*: everything registered on the connection */
    bool announced;      /* nothing is signalled before */
    GArray *ended;       /* uint64_t: jobs that finished before the announcement */
    GQueue calls;        /* Call* */
    GQueue waiters;      /* Waiter* */
    GQueue reaching;     /* Reaching* */
    GPtrArray *held;     /* sd_bus_message*: calls for a domain that is being connected to */

    unsigned n_domains;                 /* in objects */
    unsigned told_domains, told_active; /* as last signalled */
    JournalState told_journal;

    DomainFound domain;
    DiskFound disk;
    JobFound job;
};

extern const sd_bus_vtable manager_vtable[], domain_vtable[], disk_vtable[], job_vtable[];
/* Right after a restart a domain is not connected yet, for some milliseconds. true: the call is put aside and the
 * handler returns 1; it runs again when that is decided, however it ends. */
bool bus_hold(Bus *b, const Domain *d, sd_bus_message *m);
/* Likewise for what needs to know the images under the disk, which right after a switch only the next look tells. */
bool bus_hold_disk(Bus *b, Disk *disk, sd_bus_message *m);
/* Do the file systems of these paths answer? 1: yes; 0: not known yet, the handler returns 1 and runs again; negative: one
 * does not, f says which. After the authorization, of which uid is a result, and before any path is touched. */
int bus_reach(Bus *b, sd_bus_message *m, uint32_t uid, GPtrArray *paths, Failure *f);
/* What a copy is going to touch, borrowed; a descriptor's file system has answered already. */
void bus_add_copy_paths(GPtrArray *paths, const Disk *disk, const CopyOptions *o);
void reaching_free(Bus *b);
/* Whether there is an object at path. The manager knows some more, which are not durable yet. */
bool bus_has(const Bus *b, const char *path);
/* Fill the snapshot of bus for one object. */
void domain_found(Bus *b, Domain *d);
void disk_found(Bus *b, Disk *disk);
void job_found(Bus *b, Job *j);
/* As auth_check(), for everything that the options of one copy ask for. By words only: no file is touched before. */
int bus_authorize_copy(Bus *b, sd_bus_message *m, const Disk *disk, const CopyOptions *o,
                       const char *verb, Failure *f);
/* JournalDone of a Call that has made a job: answers it, and those who asked for the same one again. */
void bus_job_made(int error, void *call);
/* Names of the properties behind the bits of DomainChange, …; ended by one without a name. */
typedef struct {
    unsigned what;
    const char *property;
} Change;
/* JOB_CHANGED_STATE stands for State and for those of these that differ from what was told last. */
enum {
    JOB_DIFFERS_RESULT = 1 << 24,
    JOB_DIFFERS_READY = 1 << 25,
    JOB_DIFFERS_FINISHED = 1 << 26,
    JOB_DIFFERS_GUEST_PAUSED = 1 << 27,
};
extern const Change domain_changes[], disk_changes[], job_changes[];

/* Getters for sd_bus_vtable; userdata points at the field. */
int property_get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error);
int property_get_bool(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error);

/* ── calls that are answered later ── */

/* The continuation's context: one method call that waits for the journal or for QEMU. Freed by
 * its continuation. What QEMU is asked is answered at the latest when the job has ended; the
 * call then stays as an empty shell, for the continuation may still come. Those whose
 * continuation never comes are freed with the Bus. */
typedef struct Call Call;
struct Call {
    Bus *bus;
    sd_bus_message *message; /* NULL once answered */
    GList link;              /* in bus->calls */
    uint64_t job;            /* QEMU is asked about this job; 0 = none */
    uint64_t new_job;        /* Copy: the job that was made for it; 0 = none */
    bool attaching;          /* manager_attach() knows it */
};
Call *call_new(Bus *b, sd_bus_message *m);
/* Takes it out of the list, unanswered. */
Call *call_free(Call *c);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Call, call_free)
/* Both answer, unless that has been done, and free. */
void call_return(Call *c, const char *types, ...);
void call_fail(Call *c, const Failure *f);
/* Continuations that answer with nothing, or the failure. */
void call_done(int error, void *call);         /* JournalDone */
void call_reply(const Failure *f, void *call); /* JobReply */
/* Answers what QEMU was asked about a job that has ended. */
void calls_end_job(Bus *b, uint64_t id);
/* Answers the Copy calls that wait for the job to be durable: it is, or (error) never will be. */
void calls_answer_new_job(Bus *b, uint64_t id, int error);
void calls_free(Bus *b);

/* ── WaitFor ── */

/* Keeps m until j is in that state, has passed it or is over, or timeout µs (0 = none) have gone
 * by. */
bool wait_add(Bus *b, sd_bus_message *m, uint32_t uid, Job *j, JobState state, uint64_t timeout,
              Failure *f);
int wait_reply(sd_bus_message *m, const Job *j);
/* Answers those whose state has come. */
void wait_wake(Bus *b, const Job *j);
/* The job leaves the bus: answers all of them. */
void wait_job_removed(Bus *b, const Job *j);
/* Forgets those of a sender that has left the bus. */
void wait_sender_gone(Bus *b, const char *sender);
void wait_free_all(Bus *b);
