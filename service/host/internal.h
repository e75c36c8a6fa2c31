/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the files of host/ share: the Host itself, and the facts that its decisions are made from. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "auth/auth.h"
#include "bus/bus.h"
#include "host/host.h"
#include "host/inhibitor.h"
#include "manager.h"

#define BUS_NAME "org.blockjob1"

typedef struct {
    const HostOptions *options;
    sd_event *event;
    sd_bus *bus;
    Manager *manager;
    Auth *auth;
    Bus *face;
    Inhibitor *inhibitor;
    sd_bus_slot *filter, *log_filter, *log_object;
    sd_event_source
        *refresh; /* something has changed: everything here is looked at, behind the bus */
    sd_event_source *extend; /* until ready */
    sd_event_source *status, *idle;
    sd_event_source *deadline, *post; /* while leaving */
    bool managed;                     /* a service manager listens */
    bool ready, leaving, released, by_idleness;
    uint64_t started, active_at, status_at; /* CLOCK_MONOTONIC */
    char *told;                             /* STATUS= */
} Host;

/* status.c */
/* One line for people: "2 jobs, web/vda 43 %". Owned by the caller. */
char *status_text(Manager *m);
/* Active jobs whose QEMU is gone: the journal alone decides how they end, and their definitions may have to be written. */
unsigned status_n_unsettled(Manager *m);
/* A guest is held, or past the point of no return. */
bool status_is_switching(Manager *m);
/* Nothing would be different if nobody were here: no job, no connection, no attaching. */
bool status_is_quiet(Manager *m);

/* leave.c */
/* Exit status of a service that left as idle and was given a domain or a job on the way out; the unit starts it again. */
#define EXIT_AGAIN 75
/* Sets the clock of idleness to its beginning. */
void idle_reset(Host *h);
int idle_start(Host *h);
/* A second call ends the process at once. */
void host_leave(Host *h, bool by_idleness);

/* log-control.c */
int log_control_register(Host *h);
