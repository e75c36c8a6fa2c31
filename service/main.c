/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blockjobd: the command line; the rest is the Host's. */

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "host/host.h"
#include "log.h"

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
    int level = log_level_from_string(s);

    if (level >= 0)
        log_set_max_level(level);
    return level >= 0;
}

/* 1: go on; 0: done; negative: usage. */
static int parse_arguments(int argc, char **argv, HostOptions *o) {
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
            o->config = optarg;
        else if (c == 's')
            o->state_dir = optarg;
        else if (c == 'q')
            o->socket_dir = optarg;
        else if (c == 'v')
            return puts("blockjobd " BLOCKJOBD_VERSION), 0;
        else if (c == 'h')
            return print_help(), 0;
        else if (c != 'l' || !parse_level(optarg))
            return -EINVAL;
    }
    return optind == argc ? 1 : -EINVAL;
}

int main(int argc, char **argv) {
    HostOptions o = {0};
    sd_event *event = NULL;
    int r = parse_arguments(argc, argv, &o);

    if (r <= 0)
        return r < 0 ? 2 : EXIT_SUCCESS;
    signal(SIGPIPE, SIG_IGN);
    r = sd_event_default(&event);
    if (r < 0) {
        log_error("There is no event loop: %s", strerror(-r));
        return EXIT_FAILURE;
    }
    r = host_run(event, &o);
    sd_event_unref(event);
    return r;
}
