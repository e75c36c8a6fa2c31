/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Domain: one QEMU process as the service knows it, and its disks.
 *
 * A domain keeps its connection: it reconnects with back-off, has a deadline on every command, and never makes
 * anybody else wait. What QEMU's state is, is known only from a look: a fixed sequence of queries (qemu.md's order)
 * whose answers make up the view. Events and finished commands ask for a look; looks are one at a time, and what is
 * asked for while one runs is looked at in the next. */

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "domain/instance.h"
#include "domain/view.h"
#include "failure.h"
#include "journal/journal.h"
#include "qmp/qmp.h"

#define DOMAIN_STATE_LIST(X)                                                                       \
    X(CONNECTING, "connecting")                                                                    \
    X(RUNNING, "running")                                                                          \
    X(PAUSED, "paused")                                                                            \
    X(SHUTDOWN, "shutdown")                                                                        \
    X(CRASHED, "crashed")                                                                          \
    X(SUSPENDED, "suspended")                                                                      \
    X(OTHER, "other")                                                                              \
    X(UNRESPONSIVE, "unresponsive")                                                                \
    X(DISCONNECTED, "disconnected")

typedef enum {
#define X(id, name) DOMAIN_##id,
    DOMAIN_STATE_LIST(X)
#undef X
        _DOMAIN_STATE_MAX
} DomainState;
const char *domain_state_to_string(DomainState s);

typedef struct Domain Domain;

typedef struct Disk {
    Domain *domain;
    char *name;   /* vda, …; unique in the domain */
    char *device; /* qdev path or id; identifies the disk while it is plugged */
    char *root;   /* node directly under the device; NULL when empty */
    char *node;   /* image under the filters; NULL when empty */
    char *source; /* path of that image, "" when unknown or empty */
    char *format; /* "qcow2", "raw", …; "" when empty */
    bool block;   /* the source is a block device */
    uint64_t size, allocated;
    bool read_only, removable;
    void *job;        /* the active Job on this disk, for the owner of the domain; NULL */
    unsigned seen;    /* number of the look that saw it last */
    uint64_t awaited; /* the look that is to tell what is under it; 0 = none */
} Disk;

/* Which properties changed; bits. */
typedef enum {
    DOMAIN_CHANGED_STATE = 1 << 0,
    DOMAIN_CHANGED_UUID = 1 << 1,
    DOMAIN_CHANGED_VERSION = 1 << 2,
    DOMAIN_CHANGED_DISKS = 1 << 3,
    DOMAIN_CHANGED_JOBS = 1 << 4,
} DomainChange;
typedef enum {
    DISK_CHANGED_SOURCE = 1 << 0, /* Node, Source, Format */
    DISK_CHANGED_SIZE = 1 << 1,
    DISK_CHANGED_READ_ONLY = 1 << 2,
    DISK_CHANGED_JOB = 1 << 3, /* Job, MirrorTarget, MirrorReady */
    DISK_CHANGED_ALLOCATED = 1 << 4,
} DiskChange;

/* How much of a look; bits. QEMU reads its monitor byte by byte, so each query that is not needed costs some 0.1 ms. */
typedef enum {
    LOOK_LIST = 1 << 0,     /* query-jobs */
    LOOK_PROGRESS = 1 << 1, /* query-block-jobs, after query-jobs */
    LOOK_STATUS = 1 << 2,   /* query-status */
    LOOK_BLOCK = 1 << 3,    /* query-block */
    LOOK_GRAPH = 1 << 4,    /* the edges of the block graph */
    LOOK_NODES = 1 << 5,    /* query-named-block-nodes, only when it is safe */
    LOOK_EXPORTS = 1 << 6,  /* query-block-exports */
    LOOK_JOBS = LOOK_LIST | LOOK_PROGRESS | LOOK_STATUS,
    LOOK_DISKS = LOOK_BLOCK | LOOK_GRAPH,
    LOOK_ALL = LOOK_JOBS | LOOK_DISKS | LOOK_NODES | LOOK_EXPORTS,
} LookScope;

typedef struct {
    void (*changed)(Domain *d, unsigned what, void *userdata);
    void (*disk_added)(Disk *disk, void *userdata);
    void (*disk_changed)(Disk *disk, unsigned what, void *userdata);
    void (*disk_removed)(Disk *disk, void *userdata); /* still in the table */
    /* A look is complete: the view is as fresh as domain_look_number() says. */
    void (*looked)(Domain *d, void *userdata);
    /* Connected or not, answering or not, process gone: domain_state(), domain_process_gone() tell. */
    void (*link_changed)(Domain *d, void *userdata);
} DomainHooks;

typedef struct {
    const char *name;                                      /* never "" */
    const char *socket;                                    /* path, or "" with fd */
    int fd;                                                /* connected socket, taken over; -1 */
    const char *definition;                                /* path or "" */
    bool automatic;                                        /* found in the socket folder */
    uint64_t qmp_timeout, greeting_timeout, reconnect_max; /* µs */
} DomainParams;

/* Makes the domain and starts connecting; nothing is durable yet: domain_save(). */
int domain_new(sd_event *event, Journal *journal, const DomainParams *params,
               const DomainHooks *hooks, void *userdata, Domain **ret);
/* From the journal's document; params gives name and time-outs. Does not connect yet: domain_connect(). -EBADMSG for a
 * document that is none. */
int domain_restore(sd_event *event, Journal *journal, const DomainParams *params,
                   const char *document, const DomainHooks *hooks, void *userdata, Domain **ret);
/* fd: the connection of the service's last life, maybe in the middle of a line, taken over; -1 if there is none. */
void domain_connect(Domain *d, int fd);
/* New limits, from the next command and the next attempt to connect on; µs. */
void domain_set_timeouts(Domain *d, uint64_t qmp_timeout, uint64_t greeting_timeout,
                         uint64_t reconnect_max);
Domain *domain_free(Domain *d);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Domain, domain_free)
/* Hands the domain's record to the journal; forget = delete it there. */
void domain_save(Domain *d, JournalDone done, void *userdata, JournalSlot **ret);
/* From then on it is not saved any more. */
void domain_forget(Domain *d, JournalDone done, void *userdata);
/* Has the record changed since it was handed over last? */
bool domain_needs_saving(const Domain *d);
bool domain_is_forgotten(const Domain *d);

const char *domain_name(const Domain *d);
const char *domain_uuid(const Domain *d);
/* The name that QEMU was given with -name; "" if none, or not asked yet. */
const char *domain_qemu_name(const Domain *d);
/* Before it is published: the name was not known when connecting began. */
void domain_rename(Domain *d, const char *name);
const char *domain_socket(const Domain *d);
const char *domain_definition(const Domain *d);       /* "" if none */
const char *domain_version(const Domain *d);          /* "" before the greeting */
const char *domain_path(const Domain *d);             /* D-Bus object path */
const char *domain_journal_identity(const Domain *d); /* part of all our names in this QEMU */
bool domain_is_automatic(const Domain *d);
DomainState domain_state(const Domain *d);
/* Why it is disconnected or unresponsive, in words; "" otherwise. */
const char *domain_trouble(const Domain *d);
/* Connected, answering, and at least one complete look since connecting. */
bool domain_is_live(const Domain *d);
/* The process of the journaled instance is known to be gone, or another one answers at its socket. */
bool domain_process_gone(const Domain *d);
const Instance *domain_instance(const Domain *d);
/* Are the guest's processors running, as of the last look? */
/* QEMU before 8.2 crashes with write-blocking mirrors on disks of iothreads (8 of 10 runs on 7.2). */
bool domain_fears_write_blocking(const Domain *d);
bool domain_guest_runs(const Domain *d);
/* How long the guest stood last (µs), by the times of QEMU's own STOP and RESUME events, if it was stopped at or after since
 * (CLOCK_REALTIME) and runs again; else 0. */
uint64_t domain_guest_stood(const Domain *d, uint64_t since);
/* Number of the last look that asked for that (LOOK_STATUS). */
uint64_t domain_status_number(const Domain *d);
uint64_t domain_block_number(const Domain *d); /* (LOOK_BLOCK) */

View *domain_view(Domain *d);
/* Asks for a look; cheap and idempotent. */
void domain_look(Domain *d, unsigned scope);
/* For what nobody waits for: with the next poll, or in a quarter of a second. */
void domain_look_later(Domain *d, unsigned scope);
/* The scope that is left for later. */
unsigned domain_owed_look(const Domain *d);
/* Number of the last completed look, and of the look that will contain everything sent so far (the next to start). */
uint64_t domain_look_number(const Domain *d);
uint64_t domain_look_next(const Domain *d);
/* To be called with each remove-fd that is sent. */
void domain_remove_fdset(Domain *d, int64_t id);
/* To be called right before blockdev-create is sent: no look at the nodes until it is seen to be over. */
void domain_will_create(Domain *d);
/* Looks at the jobs every interval µs (progress has no event); 0 = not. */
void domain_set_poll(Domain *d, uint64_t interval);
/* Sends a command with the domain's deadline; as qmp_send(). */
int domain_send(Domain *d, QmpSlot **ret_slot, const char *command, json_t *arguments, int fd,
                QmpReplyFunc callback, void *userdata);
QmpClient *domain_qmp(Domain *d); /* NULL while not connected */
uint64_t domain_qmp_timeout(const Domain *d);

GPtrArray *domain_disks(Domain *d);      /* Disk*, borrowed */
GPtrArray *domain_jobs(const Domain *d); /* its Jobs, for the owner of the domain to fill */
Disk *domain_disk_by_device(Domain *d, const char *device);
/* The images under the disk, from the last look; for sync=top, GetChain(), and checks. Array of ChainImage*. */
typedef struct {
    char *node, *file, *format,
        *backing; /* file: path for people (fdsets are translated); backing "" if none */
    char *bitmap; /* name of a dirty bitmap that it has; NULL if none */
    uint64_t size, allocated;
    bool read_only;
} ChainImage;
GPtrArray *disk_chain(const Disk *disk);
/* Is there more to know about what is under the disk? Between a switch and the next complete look the device's new root may
 * not be among the known nodes: false, and such a look has been asked for. true also when that could not read it. */
bool disk_chain_is_known(Disk *disk);

/* Our own nodes stand on /dev/fdset/N: remembers (in the domain's record) which path that is. NULL path forgets. */
void domain_name_node(Domain *d, const char *node, const char *path, const char *format,
                      bool block);
