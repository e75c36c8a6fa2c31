/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Config: what the administrator set, read at start and at a reload from ini files with drop-ins, as in
 * blockjobd.conf(5).
 *
 * A key that is unknown or has a bad value is warned about and keeps its default: a slip of the pen must not keep the
 * service from looking after jobs that run. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

typedef struct {
    char *state_dir;  /* StateDirectory */
    char *socket_dir; /* SocketDirectory */
    char **
        target_folders; /* TargetFolders: absolute, without "/" at the end; may be empty, never NULL */
    uint64_t idle_timeout; /* IdleTimeout, µs, 0 = stays for ever */

    uint32_t max_domains;        /* MaxDomains */
    uint32_t max_jobs;           /* MaxJobs: active ones, in all */
    uint32_t max_jobs_per_uid;   /* MaxJobsPerUser */
    uint32_t max_checks;         /* MaxChecks: calls that wait for polkit, in all */
    uint32_t max_checks_per_uid; /* MaxChecksPerUser */

    uint32_t keep_finished;     /* KeepFinishedJobs: on the bus */
    uint64_t keep_finished_age; /* KeepFinishedTime, µs: at least as long, whatever their number */
    uint64_t history_rows;      /* HistoryRows, 0 = no limit */
    uint64_t history_age;       /* HistoryTime, µs, 0 = no limit */

    uint64_t check_timeout;    /* Timeout, µs: of one check */
    uint64_t qmp_timeout;      /* CommandTimeout, µs: of one QMP command */
    uint64_t greeting_timeout; /* GreetingTimeout, µs */
    uint64_t reconnect_max;    /* ReconnectMax, µs: longest pause between two attempts */

    unsigned warnings; /* not a key: about the files that it was read from */
} Config;

/* With a file: that file alone, and false with INVALID_ARGS when it cannot be read. With NULL: blockjobd.conf and
 * the drop-ins blockjobd.conf.d/NAME.conf of /etc/blockjobd, /run/blockjobd and /usr/lib/blockjobd; that there is none
 * is no failure. */
bool config_load(const char *file, Config **ret, Failure *f);
/* The same from other folders than those three; NULL-terminated, the first one wins over the next. */
Config *config_load_from(const char *const *folders);
Config *config_free(Config *c);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Config, config_free)

/* All defaults. */
Config *config_new(void);
/* Brings c in line with fresh, which was read later. Keys that count from the next start on only stay as they are in c,
 * and the log says so. Returns how many keys were changed. */
unsigned config_update(Config *c, const Config *fresh);
/* Sets in c what the text of one file says. name: of the file, for the warnings. Returns the number of warnings. */
unsigned config_parse(Config *c, const char *name, const char *text, size_t size);
/* "500ms", "10s", "5 min", "1h 30min", "90d", a plain number of seconds, or "infinity"; in µs, UINT64_MAX for infinity.
 * False: not a duration. */
bool config_parse_duration(const char *s, uint64_t *ret);
