/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Polkit: the three messages that go between this service and org.freedesktop.PolicyKit1.Authority, and no state.
 * The interface is described at
 * https://www.freedesktop.org/software/polkit/docs/latest/eggdbus-interface-org.freedesktop.PolicyKit1.Authority.html */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#include "failure.h"

typedef enum {
    POLKIT_NO, /* first: what was never filled in is a denial */
    POLKIT_YES,
    POLKIT_CHALLENGE, /* an administrator's password would do */
    POLKIT_ERROR,     /* no answer that we understand: a denial */
} PolkitAnswer;
/* "yes", "no", "challenge"; an error is "no". */
const char *polkit_answer_to_string(PolkitAnswer answer);

/* A CheckAuthorization call about the connection with the unique name sender. details: keys and values in turn, may be
 * NULL. interactive: polkit may ask the user. cancel_id: unique among the checks of this connection that wait. */
int polkit_new_check(sd_bus *bus, const char *sender, const char *action, GPtrArray *details,
                     bool interactive, const char *cancel_id, sd_bus_message **ret);
/* What reply says. Unless it is yes, f gets a sentence for the caller that tells what to do; an error's own text goes to
 * the log only. interactive: as in the call. */
PolkitAnswer polkit_read_answer(sd_bus_message *reply, const char *action, bool interactive,
                                Failure *f);
/* Takes a check back, and with it the dialog that may be open. No reply is awaited; polkit is not started for it. */
void polkit_cancel(sd_bus *bus, const char *cancel_id);
