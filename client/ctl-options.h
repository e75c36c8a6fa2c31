/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The command line's options. Most of them are keys of an a{sv} dictionary of the interface: one
 * table says their names, types and the verbs that know them; values are checked here only as far
 * as their type goes, the service says what is allowed. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

/* Which options a verb knows. */
typedef enum {
    TAKES_COPY = 1 << 0,
    TAKES_END = 1 << 1, /* pivot, finish */
    TAKES_CANCEL = 1 << 2,
    TAKES_ATTACH = 1 << 3,
    TAKES_DETACH = 1 << 4,
    TAKES_XML = 1 << 5,
    TAKES_HISTORY = 1 << 6,
    TAKES_WAITING = 1 << 7, /* --timeout and, unless TAKES_GOAL, --no-block */
    TAKES_GOAL = 1 << 8,    /* --for */
    TAKES_ALL = 1 << 9,
    TAKES_PROPERTY = 1 << 10,
    TAKES_COMMIT = 1 << 12,
    TAKES_PULL = 1 << 13,
    TAKES_GROUP = 1 << 11, /* not a verb: of several disks together, those of the whole group */
} Takes;

typedef enum { JSON_OFF, JSON_SHORT, JSON_PRETTY } JsonMode;
typedef enum { GOAL_CONCLUDED, GOAL_READY } Goal;

typedef struct Options {
    JsonMode json;
    bool full, quiet, no_pager, no_legend, no_ask_password;
    bool all, no_block, value_only;
    const char *host;    /* of -H, else NULL */
    uint64_t timeout;    /* microseconds, 0 = none */
    Goal goal;           /* of --for */
    GPtrArray *property; /* of -p, (const char *) */
    GArray *dictionary;  /* DictionaryValue, at most one for each key */
    bool help, version;
} Options;

/* Parses the options; *ret_argc and *ret_argv are the verb and its arguments. argv is reordered.
 * False after an error, which has been printed. */
bool options_parse(Options *options, int argc, char **argv, int *ret_argc, char ***ret_argv);
/* Whether all options that were given are known to a verb that takes `takes`; prints the first that
 * is not. */
bool options_check(const Options *options, const char *verb, unsigned takes);
void options_clear(Options *options);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Options, options_clear)

/* The text of a dictionary option, or NULL if it was not given. */
const char *options_get(const Options *options, const char *name);
/* The descriptor of --fd, or -1. */
int options_fd(const Options *options);
/* As if --name=text had been given; name must be in the table and text be valid. */
void options_set(Options *options, const char *name, const char *text);
/* Appends the dictionary as a{sv}. */
int options_append(const Options *options, sd_bus_message *m);

/* The same of those keys that a group has, or of those that each of its disks has. */
int options_append_part(const Options *options, sd_bus_message *m, bool group);

/* path made absolute against the current folder; where it has ".." its folder is resolved first,
 * because the service accepts none. NULL with errno if there is no such folder. */
char *path_absolute(const char *path);
