/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Host: the service on its system: what it tells systemd and logind, what they tell it, and when it goes.
 *
 * Life: everything restored and registered → the name owned → domains connected → journal reconciled: READY=1 → serving →
 * leaving (SIGTERM, or nothing to do): STOPPING=1, the name given back, what has arrived until then served, exit.
 * A call that reaches the service is answered: the name goes first and the process after it. */

#include <systemd/sd-event.h>

typedef struct {
    const char *config, *state_dir, *socket_dir; /* of the command line; NULL = not given */
} HostOptions;

/* Runs the service to its end. Returns the exit status of the process. */
int host_run(sd_event *event, const HostOptions *options);
