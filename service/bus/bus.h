/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The D-Bus face: vtables and marshalling, one file per interface, no logic. dbus-interfaces/ is
 * the contract. */

#include <systemd/sd-bus.h>

#include "auth/auth.h"
#include "manager.h"

typedef struct Bus Bus;

/* Registers all objects on the connection and becomes the manager's face; emits nothing before
 * bus_announce(). */
int bus_new(sd_bus *bus, Manager *manager, Auth *auth, Bus **ret);
Bus *bus_free(Bus *b);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Bus, bus_free)
/* The name is owned: InterfacesAdded for every object restored so far; from now on changes are
 * signalled. */
void bus_announce(Bus *b);
/* Calls that are to be answered: by the journal, by QEMU, or by a domain that is being connected to. */
unsigned bus_n_unanswered(const Bus *b);
/* Calls of WaitFor(). */
unsigned bus_n_waiting(const Bus *b);
