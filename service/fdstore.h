/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The file descriptor store of the service manager: connected QMP sockets outlive this process there.
 *
 * systemd keeps what is stored over a restart and over a crash, and drops it when the service is stopped or its peer
 * hangs up. A key is any text that is unique, e.g. a domain's name. Without a service manager all of this does nothing.
 * Protocol: sd_notify(3), FDSTORE=1; sd_listen_fds(3). */

#include <stdbool.h>

/* Takes over what the last life of the service has stored. Once, before anything else is opened; later calls of
 * fdstore_take() find it. */
void fdstore_restore(void);
/* The descriptor that was stored under that key, which is the caller's from now on and stays in the store, too; -1 if
 * there is none. */
int fdstore_take(const char *key);
/* Stores a copy of fd; one stored under the same key before is forgotten. Harmless when it is stored already: a key is
 * removed before its descriptor is closed. */
void fdstore_put(const char *key, int fd);
/* Harmless when nothing is stored. */
void fdstore_remove(const char *key);
/* What was restored and not taken, nobody will ask for: it is closed and leaves the store. */
void fdstore_drop_rest(void);
/* Forgets what this process knows of the store, not what is in it. */
void fdstore_clear(void);
