/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blockjobd: command line, configuration, event loop, readiness. */

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "bus/bus.h"
#include "log.h"
#include "util.h"

typedef struct {
    const char *config, *state_dir, *socket_dir;
} Arguments;

static void print_help(void) {
    puts("blockjobd [OPTION…]\n\n"
         "The service that copies the disks of running QEMU guests. It is started by systemd and "
         "D-Bus.\n\n"
         "  --config=FILE      read this file instead of /etc/blockjobd/blockjobd.conf and its "
         "drop-ins\n"
         "  --state-dir=DIR    keep the journal here instead of /var/lib/blockjobd\n"
         "  --socket-dir=DIR   attach every NAME.sock in here instead of /run/blockjobd/qmp\n"
         "  --log-level=LEVEL  err, warning, notice, info (default), or debug\n"
         "  --version          print the version\n"
         "  --help             print this text\n\n"
         "See blockjobd(8).");
}

static bool parse_level(const char *s) {
    static const char *const levels[] = {NULL,      NULL,     NULL,   "err",
                                         "warning", "notice", "info", "debug"};
    int level = string_index(levels, G_N_ELEMENTS(levels), s);

    if (level >= 0)
        log_set_max_level(level);
    return level >= 0;
}

/* 1: go on; 0: done; negative: usage. */
static int parse_arguments(int argc, char **argv, Arguments *a) {
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"state-dir", required_argument, NULL, 's'},
        {"socket-dir", required_argument, NULL, 'q'},
        {"log-level", required_argument, NULL, 'l'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if (c == 'c')
            a->config = optarg;
        else if (c == 's')
            a->state_dir = optarg;
        else if (c == 'q')
            a->socket_dir = optarg;
        else if (c == 'v')
            return puts("blockjobd " BLOCKJOBD_VERSION), 0;
        else if (c == 'h')
            return print_help(), 0;
        else if (c != 'l' || !parse_level(optarg))
            return -EINVAL;
    }
    return optind == argc ? 1 : -EINVAL;
}

static bool load_config(const Arguments *a, Config **ret) {
    g_auto(Failure) f = {0};

    if (!config_load(a->config, ret, &f)) {
        log_error("%s", f.message);
        return false;
    }
    if (a->state_dir) {
        g_free((*ret)->state_dir);
        (*ret)->state_dir = g_strdup(a->state_dir);
    }
    if (a->socket_dir) {
        g_free((*ret)->socket_dir);
        (*ret)->socket_dir = g_strdup(a->socket_dir);
    }
    return true;
}

static int on_bus_closed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    log_error("The message bus has closed the connection; the service exits. Jobs go on in QEMU.");
    return sd_event_exit(userdata, EXIT_FAILURE);
}

static int serve(sd_event *event, Config *config) {
    g_autoptr(Manager) manager = NULL;
    g_autoptr(Auth) auth = NULL;
    g_autoptr(Bus) face = NULL;
    sd_bus *bus = NULL;
    int r = manager_new(event, config, &manager);

    if (r < 0)
        return r;
    r = sd_bus_open_system_with_description(&bus, "blockjobd");
    if (r < 0) {
        log_error("There is no system bus: %s", g_strerror(-r));
        return r;
    }
    /* QMP, journal and timers come before the bus: a flooding caller delays callers and never a job. */
    r = sd_bus_attach_event(bus, event, SD_EVENT_PRIORITY_NORMAL);
    if (r >= 0)
        r = auth_new(bus, config->max_checks_per_uid, config->max_checks, config->check_timeout,
                     &auth);
    if (r >= 0)
        r = bus_new(bus, manager, auth, &face);
    if (r >= 0)
        r = sd_bus_match_signal_async(bus, NULL, "org.freedesktop.DBus.Local",
                                      "/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local",
                                      "Disconnected", on_bus_closed, NULL, event);
    /* Callers find everything that the journal has before the first QEMU is heard: a hundred of them, answering with a
     * higher priority, would keep the name waiting. The loop does not run yet, so this call may wait. */
    if (r >= 0) {
        r = sd_bus_request_name(bus, "org.blockjob1", 0);
        if (r < 0)
            log_error("The name org.blockjob1 cannot be had: %s", g_strerror(-r));
    }
    if (r >= 0) {
        bus_announce(face);
        r = manager_start(manager);
    }
    if (r >= 0)
        sd_notify(false, "READY=1");
    if (r >= 0)
        r = sd_event_loop(event);
    sd_notify(false, "STOPPING=1");
    sd_bus_flush(bus);
    face = bus_free(face);
    auth = auth_free(auth);
    manager = manager_free(manager);
    sd_bus_close_unref(bus);
    return r;
}

int main(int argc, char **argv) {
    Arguments a = {0};
    sd_event *event = NULL;
    Config *config = NULL;
    sigset_t mask;
    int r = parse_arguments(argc, argv, &a);

    if (r <= 0)
        return r < 0 ? 2 : EXIT_SUCCESS;
    if (!load_config(&a, &config))
        return EXIT_FAILURE;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    signal(SIGPIPE, SIG_IGN);
    r = sd_event_default(&event);
    if (r >= 0) {
        sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL);
        sd_event_add_signal(event, NULL, SIGINT, NULL, NULL);
        sd_event_set_watchdog(event, true);
        r = serve(event, config);
    }
    sd_event_unref(event);
    return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
