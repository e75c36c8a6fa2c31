/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When the service goes, and how: no call that was sent to it is lost on the way.
 *
 * An activating call that arrives between the last one served and the end of the process would hang until it times out.
 * Therefore: systemd is told first (it starts a new process only after this one has ended), then the name is given back,
 * and what arrives until the bus says that it is gone is served. */

#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "host/internal.h"
#include "log.h"
#include "util.h"

#define IDLE_ACCURACY (100 * USEC_PER_MSEC)
/* For answers on their way; an authentication dialog may take longer and is given up. */
#define LEAVE_IDLE (5 * USEC_PER_SEC)
#define LEAVE_TERM (1 * USEC_PER_SEC)

/* ── idleness ── */

static bool is_idle(Host *h) {
    return h->ready && status_is_quiet(h->manager) && auth_pending(h->auth) == 0 &&
           bus_n_unanswered(h->face) == 0 && bus_n_waiting(h->face) == 0;
}

void idle_reset(Host *h) {
    h->active_at = now_monotonic();
}

static int on_idle(sd_event_source *source, uint64_t usec, void *userdata) {
    Host *h = userdata;
    uint64_t timeout = manager_config(h->manager)->idle_timeout, now = now_monotonic();

    if (timeout == 0 || h->leaving)
        return 0; /* a reload starts it again */
    if (!is_idle(h))
        h->active_at = now;
    if (now >= h->active_at + timeout) {
        host_leave(h, true);
        return 0;
    }
    sd_event_source_set_time(source, h->active_at + timeout);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int idle_start(Host *h) {
    uint64_t timeout = manager_config(h->manager)->idle_timeout;

    /* Who started it by hand would wonder where it is. */
    if (!h->managed || timeout == 0)
        return 0;
    if (h->idle) {
        sd_event_source_set_time_relative(h->idle, timeout);
        return sd_event_source_set_enabled(h->idle, SD_EVENT_ONESHOT);
    }
    return sd_event_add_time_relative(h->event, &h->idle, CLOCK_MONOTONIC, timeout, IDLE_ACCURACY,
                                      on_idle, h);
}

/* ── leaving ── */

static void exit_now(Host *h) {
    bool again = h->by_idleness && !status_is_quiet(h->manager);

    if (again)
        log_notice("There is something to do since the service began to leave; it comes back at "
                   "once.");
    sd_event_exit(h->event, again ? EXIT_AGAIN : EXIT_SUCCESS);
}

/* After everything else of a round of the loop. */
static int on_post(sd_event_source *source, void *userdata) {
    Host *h = userdata;
    uint64_t queued = 0;

    if (!h->released)
        return 0;
    if (sd_bus_get_n_queued_read(h->bus, &queued) >= 0 && queued > 0)
        return 0;
    if (auth_pending(h->auth) == 0 && bus_n_unanswered(h->face) == 0)
        exit_now(h);
    return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
    Host *h = userdata;

    log_info("Leaving with %u calls unanswered.",
             auth_pending(h->auth) + bus_n_unanswered(h->face));
    exit_now(h);
    return 0;
}

static int on_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Host *h = userdata;
    const char *name, *old, *new, *own;

    if (sd_bus_message_read(m, "sss", &name, &old, &new) >= 0 &&
        sd_bus_get_unique_name(h->bus, &own) >= 0 && g_str_equal(old, own))
        h->released = true;
    return 0;
}

static int on_release_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    if (sd_bus_message_is_method_error(m, NULL))
        log_warning("The name " BUS_NAME " cannot be given back: %s",
                    sd_bus_message_get_error(m)->message);
    return 0;
}

static int leave_begin(Host *h) {
    int r = sd_event_add_time_relative(h->event, &h->deadline, CLOCK_MONOTONIC,
                                       h->by_idleness ? LEAVE_IDLE : LEAVE_TERM, 0, on_deadline, h);

    if (r >= 0)
        r = sd_event_add_post(h->event, &h->post, on_post, h);
    /* In force before the release that follows on the same connection. */
    if (r >= 0)
        r = sd_bus_add_match_async(h->bus, NULL,
                                   "type='signal',sender='org.freedesktop.DBus',"
                                   "path='/org/freedesktop/DBus',"
                                   "interface='org.freedesktop.DBus',"
                                   "member='NameOwnerChanged',arg0='" BUS_NAME "'",
                                   on_owner_changed, NULL, h);
    if (r >= 0)
        r = sd_bus_release_name_async(h->bus, NULL, BUS_NAME, on_release_reply, h);
    return r;
}

void host_leave(Host *h, bool by_idleness) {
    if (h->leaving) {
        exit_now(h);
        return;
    }
    h->leaving = true;
    h->by_idleness = by_idleness;
    sd_notifyf(false, "STOPPING=1\nSTATUS=%s",
               by_idleness ? "Nothing to do, leaving" : "Leaving, jobs go on in QEMU");
    int r = leave_begin(h);
    if (r < 0) {
        log_warning("The service cannot leave in order: %s", g_strerror(-r));
        exit_now(h);
    }
}
