/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of the service: start, readiness, what is told to systemd, reload. */

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "fdstore.h"
#include "host/internal.h"
#include "log.h"
#include "util.h"

#define STATUS_PACE (1 * USEC_PER_SEC)
#define EXTEND_PACE (10 * USEC_PER_SEC)
#define EXTEND_BY (60 * USEC_PER_SEC)
/* Reading a large journal of a machine that went down may take long. */
#define EXTEND_FOR_JOURNAL (180 * USEC_PER_SEC)
/* Who waits for the service to be ready is not kept for longer, whatever the file systems of the definitions do. */
#define READY_MAX (120 * USEC_PER_SEC)

/* ── configuration ── */

static void set_path(char **field, const char *value) {
    if (!value)
        return;
    g_free(*field);
    *field = g_strdup(value);
}

static bool load_config(const HostOptions *o, Config **ret) {
    g_auto(Failure) f = {0};

    if (!config_load(o->config, ret, &f)) {
        log_error("%s", f.message);
        return false;
    }
    set_path(&(*ret)->state_dir, o->state_dir);
    set_path(&(*ret)->socket_dir, o->socket_dir);
    return true;
}

static void reload(Host *h) {
    g_autoptr(Config) fresh = NULL;

    if (!load_config(h->options, &fresh))
        log_error("The configuration that was read before stays in force.");
    else if (fresh->warnings > 0)
        log_error("The configuration has %u mistake%s, see above; the one that was read before "
                  "stays in force.",
                  fresh->warnings, fresh->warnings == 1 ? "" : "s");
    else {
        unsigned changed = manager_reload(h->manager, fresh);
        const Config *c = manager_config(h->manager);

        auth_set_limits(h->auth, c->max_checks_per_uid, c->max_checks, c->check_timeout);
        idle_start(h);
        log_notice("The configuration was read again; %u key%s changed.", changed,
                   changed == 1 ? "" : "s");
    }
}

/* ── what systemd is told ── */

/* At most once a second, and as long as there is progress to tell. */
static void status_later(Host *h) {
    int enabled = SD_EVENT_OFF;

    if (!h->managed || (sd_event_source_get_enabled(h->status, &enabled) >= 0 && enabled))
        return;
    sd_event_source_set_time(h->status, MAX(now_monotonic(), h->status_at + STATUS_PACE));
    sd_event_source_set_enabled(h->status, SD_EVENT_ONESHOT);
}

static int on_status(sd_event_source *source, uint64_t usec, void *userdata) {
    Host *h = userdata;
    g_autofree char *text = status_text(h->manager);

    if (h->leaving)
        return 0;
    h->status_at = now_monotonic();
    if (g_strcmp0(text, h->told) != 0) {
        sd_notifyf(false, "STATUS=%s", text);
        g_free(h->told);
        h->told = g_steal_pointer(&text);
    }
    if (manager_n_active(h->manager) > 0)
        status_later(h);
    return 0;
}

static int on_extend(sd_event_source *source, uint64_t usec, void *userdata) {
    Host *h = userdata;

    if (h->ready)
        return 0;
    sd_notifyf(false, "EXTEND_TIMEOUT_USEC=%" PRIu64 "\nSTATUS=Bringing %u jobs in line", EXTEND_BY,
               status_n_unsettled(h->manager));
    sd_event_source_set_enabled(h->refresh, SD_EVENT_ONESHOT);
    sd_event_source_set_time_relative(source, EXTEND_PACE);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* Ready: the definitions of guests that do not run say what the journal says, so that they can be started. */
static void check_ready(Host *h) {
    unsigned n = status_n_unsettled(h->manager);

    if (n > 0 && now_monotonic() < h->started + READY_MAX)
        return;
    if (n > 0)
        log_warning("%u jobs of guests that do not run could not be brought to their end yet; see "
                    "above, and look at the definitions before these guests are started.",
                    n);
    h->ready = true;
    h->extend = sd_event_source_disable_unref(h->extend);
    idle_reset(h);
    sd_notify(false, "READY=1");
}

static int on_refresh(sd_event_source *source, void *userdata) {
    Host *h = userdata;

    if (!h->ready && !h->leaving)
        check_ready(h);
    inhibitor_set(h->inhibitor, status_is_switching(h->manager));
    status_later(h);
    return 0;
}

static void on_changed(void *userdata) {
    Host *h = userdata;

    idle_reset(h);
    sd_event_source_set_enabled(h->refresh, SD_EVENT_ONESHOT);
}

/* ── what comes in ── */

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata) {
    Host *h = userdata;

    if (h->leaving)
        return 0;
    if (h->ready)
        sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, now_monotonic());
    reload(h);
    if (h->ready)
        sd_notify(false, "READY=1");
    return 0;
}

static int on_terminate(sd_event_source *source, const struct signalfd_siginfo *info,
                        void *userdata) {
    host_leave(userdata, false);
    return 0;
}

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    if (sd_bus_message_is_method_call(m, NULL, NULL))
        idle_reset(userdata);
    return 0;
}

static int on_bus_closed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    log_error("The message bus has closed the connection; the service exits. Jobs go on in QEMU.");
    return sd_event_exit(userdata, EXIT_FAILURE);
}

/* ── life ── */

static int add_signal(Host *h, int number, sd_event_signal_handler_t handler) {
    sigset_t mask;

    sigemptyset(&mask);
    sigaddset(&mask, number);
    if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
        return -errno;
    return sd_event_add_signal(h->event, NULL, number, handler, h);
}

static int add_sources(Host *h) {
    int r = sd_event_add_defer(h->event, &h->refresh, on_refresh, h);

    if (r >= 0)
        r = sd_event_source_set_priority(h->refresh, SD_EVENT_PRIORITY_NORMAL + 1);
    if (r >= 0)
        r = sd_event_add_time_relative(h->event, &h->status, CLOCK_MONOTONIC, 0, 0, on_status, h);
    if (r >= 0)
        r = sd_event_add_time_relative(h->event, &h->extend, CLOCK_MONOTONIC, EXTEND_PACE, 0,
                                       on_extend, h);
    if (r >= 0)
        r = add_signal(h, SIGTERM, on_terminate);
    if (r >= 0)
        r = add_signal(h, SIGINT, on_terminate);
    if (r >= 0)
        r = add_signal(h, SIGHUP, on_hangup);
    return r;
}

static int open_bus(Host *h) {
    const Config *c = manager_config(h->manager);
    int r = sd_bus_open_system_with_description(&h->bus, "blockjobd");

    if (r < 0) {
        log_error("There is no system bus: %s", g_strerror(-r));
        return r;
    }
    /* QMP, journal and timers come before the bus: a flooding caller delays callers and never a job. */
    r = sd_bus_attach_event(h->bus, h->event, SD_EVENT_PRIORITY_NORMAL);
    if (r >= 0)
        r = auth_new(h->bus, c->max_checks_per_uid, c->max_checks, c->check_timeout, &h->auth);
    if (r >= 0)
        r = sd_bus_add_filter(h->bus, &h->filter, on_message, h);
    if (r >= 0)
        r = log_control_register(h);
    if (r >= 0)
        r = bus_new(h->bus, h->manager, h->auth, &h->face);
    if (r >= 0)
        r = sd_bus_match_signal_async(h->bus, NULL, "org.freedesktop.DBus.Local",
                                      "/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local",
                                      "Disconnected", on_bus_closed, NULL, h->event);
    h->inhibitor = inhibitor_new(h->bus);
    return r;
}

static int host_start(Host *h, Config *config) {
    int r = add_sources(h);

    if (r < 0) {
        config_free(config);
        return r;
    }
    sd_notifyf(false, "EXTEND_TIMEOUT_USEC=%" PRIu64 "\nSTATUS=Reading the journal",
               EXTEND_FOR_JOURNAL);
    r = manager_new(h->event, config, &h->manager);
    if (r >= 0)
        r = open_bus(h);
    if (r < 0)
        return r;
    manager_set_watch(h->manager, on_changed, h);
    /* Callers find everything that the journal has before the first QEMU is heard: a hundred of them, answering with a
     * higher priority, would keep the name waiting. The loop does not run yet, so this call may wait. */
    r = sd_bus_request_name(h->bus, BUS_NAME, 0);
    if (r < 0) {
        log_error("The name " BUS_NAME " cannot be had: %s", g_strerror(-r));
        return r;
    }
    bus_announce(h->face);
    r = manager_start(h->manager);
    return r < 0 ? r : idle_start(h);
}

static void host_clear(Host *h) {
    if (h->manager)
        manager_set_watch(h->manager, NULL, NULL);
    if (h->bus)
        sd_bus_flush(h->bus);
    sd_bus_slot_unref(h->filter);
    sd_bus_slot_unref(h->log_filter);
    sd_bus_slot_unref(h->log_object);
    inhibitor_free(h->inhibitor);
    bus_free(h->face);
    auth_free(h->auth);
    manager_free(h->manager);
    sd_bus_close_unref(h->bus);
    sd_event_source_disable_unref(h->refresh);
    sd_event_source_disable_unref(h->extend);
    sd_event_source_disable_unref(h->status);
    sd_event_source_disable_unref(h->idle);
    sd_event_source_disable_unref(h->deadline);
    sd_event_source_disable_unref(h->post);
    fdstore_clear();
    g_free(h->told);
}

int host_run(sd_event *event, const HostOptions *options) {
    Host h = {.options = options,
              .event = event,
              .managed = getenv("NOTIFY_SOCKET") != NULL,
              .started = now_monotonic()};
    Config *config = NULL;

    fdstore_restore();
    if (!load_config(options, &config)) {
        fdstore_clear();
        return EXIT_FAILURE;
    }
    sd_event_set_watchdog(event, true);
    int r = host_start(&h, config);
    if (r >= 0)
        r = sd_event_loop(event);
    host_clear(&h);
    return r < 0 ? EXIT_FAILURE : r;
}
