/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Inhibitor: has logind delay sleep and shutdown for a moment while a guest's disk is being switched.
 * Asynchronous; a system without logind is none the worse. Interface: org.freedesktop.login1(5), Inhibit(). */

#include <glib.h>
#include <stdbool.h>
#include <systemd/sd-bus.h>

typedef struct Inhibitor Inhibitor;

Inhibitor *inhibitor_new(sd_bus *bus);
/* Lets go. */
Inhibitor *inhibitor_free(Inhibitor *i);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Inhibitor, inhibitor_free)
/* Idempotent. One refusal holds until it was not wanted for a while. */
void inhibitor_set(Inhibitor *i, bool wanted);
