/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Reach: do the file systems of some paths answer? A network file system whose server is gone keeps whoever touches it
 * waiting for as long as it likes. That is a helper thread here, and not the loop: it looks at the paths once, with a
 * deadline; what has just answered the loop may look at itself. A helper that hangs cannot be ended, hence a limit: what
 * finds none waits for one, up to its deadline. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

typedef struct Reach Reach;

/* Helpers at a time, those that hang included. */
#define REACH_MAX 16

/* hung: the path that has not answered within the deadline; NULL when all have (also: that they are not there). Called once,
 * from the loop; r is gone after it has returned. */
typedef void (*ReachDone)(Reach *r, const char *hung, void *userdata);

/* paths: NULL-terminated, absolute, copied; timeout in µs. Negative errno: there is neither a descriptor nor a thread. */
int reach_new(sd_event *event, const char *const *paths, uint64_t timeout, ReachDone done,
              void *userdata, Reach **ret);
/* Forgets the continuation; the helper ends when it can. */
Reach *reach_free(Reach *r);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Reach, reach_free)
