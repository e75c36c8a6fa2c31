/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What domain.c (life of the domain, looks), link.c (its connection) and disk.c (its disks) share; nobody else includes
 * this. */

#include "domain/domain.h"
#include "util.h"

/* The path behind one of our own nodes, which stand on /dev/fdset/N. */
typedef struct {
    char *path, *format;
    bool block;
} NamedNode;

struct Domain {
    sd_event *event;
    Journal *journal;
    DomainHooks hooks;
    void *userdata;

    char *name, *qemu_name, *uuid, *socket, *definition, *version, *path, *trouble;
    bool automatic;
    uint64_t qmp_timeout, greeting_timeout, reconnect_max;

    QmpClient *qmp;
    DomainState state, run_state; /* as published; as QEMU said last */
    bool live;                    /* a complete look since connecting */
    bool unresponsive;            /* the last deadline passed without an answer */
    bool iothreads;               /* it has some */
    bool guest_runs;
    uint64_t stopped_at, resumed_at; /* of the last STOP and RESUME, QEMU's CLOCK_REALTIME */
    bool process_gone;
    Instance instance; /* pid 0 = unknown */
    int pidfd;
    sd_event_source *pidfd_source, *reconnect, *socket_watch, *poll, *retry, *patrol, *leisure;
    uint64_t backoff;
    uint64_t poll_interval;

    View *view;
    unsigned wanted;      /* scope asked for, not begun */
    unsigned later;       /* scope that the next poll or `leisure` is to have, too */
    unsigned scope;       /* scope of the look under way; 0 = none */
    unsigned outstanding; /* its answers to come */
    bool answered;        /* one has come */
    bool failed;          /* it will not be complete */
    bool named;           /* name and uuid were asked for on this connection */
    uint64_t looks;       /* completed */
    uint64_t block_look;  /* the last one with LOOK_BLOCK */
    uint64_t status_look; /* the last one with LOOK_STATUS */
    json_t *status, *jobs, *block_jobs;
    uint64_t create_look; /* the look in whose query-jobs our last blockdev-create is seen */
    bool with_nodes;      /* the look under way was to have the nodes */
    bool nodes_owed;      /* a look at the nodes was asked for and was not safe */
    GPtrArray *slots;     /* of the look under way */

    GArray *
        stale_fdsets; /* int64_t: removed while the guest stood, to be removed again when it runs */

    GPtrArray *disks;        /* Disk* */
    GPtrArray *owner_jobs;   /* Job*, filled by the owner */
    GHashTable *disk_names;  /* qdev → name, remembered */
    GHashTable *named_nodes; /* node → NamedNode */
    bool forgotten;          /* in the journal */
    bool dirty;              /* the record has changed since it was saved */
};

/* domain.c */
void domain_set_version(Domain *d, const char *version);
void domain_set_state(Domain *d, DomainState state, const char *trouble);
/* Makes *source, or sets it again, to fire once after delay. */
void domain_arm_timer(Domain *d, sd_event_source **source, uint64_t delay,
                      sd_event_time_handler_t handler);
/* Drops the look under way. */
void domain_forget_look(Domain *d);
/* The event handler of the connection: events are hints to look. */
void domain_hear(QmpClient *c, const char *name, json_t *data, uint64_t timestamp, void *userdata);

/* link.c */
void link_init(Domain *d);
void link_clear(Domain *d);
/* Connects to the socket unless it is connected; goes on trying. */
void link_connect(Domain *d);
/* The same with a connected descriptor, which is taken over; resume: it was in use before. */
int link_adopt(Domain *d, int fd, bool resume);

/* disk.c */
void disks_free(Domain *d);
/* Brings the list of disks in line with the view. Without nodes_too, what is not known yet of a disk is left as it was. False:
 * there is such a disk, a look at the nodes is needed. */
bool disks_update(Domain *d, bool nodes_too);
json_t *disks_to_json(const Domain *d);
void disks_from_json(Domain *d, const json_t *array);
void named_node_free(void *data);
