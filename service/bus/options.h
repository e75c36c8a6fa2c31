/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Options: readers of a{sv} arguments, one table of keys for each dictionary.
 *
 * An unknown key, a key given twice, a wrong type and a value out of range are INVALID_ARGS with
 * a sentence that names the key and what is allowed. What needs more than the one value
 * (combinations, files, QEMU) is checked elsewhere. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#include "failure.h"
#include "job/job.h"
#include "journal/journal.h"

#define OPTIONS_MAX 64         /* keys in one dictionary */
#define OPTION_STRING_MAX 4096 /* bytes of one string */

typedef enum {
    OPTION_STRING, /* s, 1 to max characters, no control characters → char *, owned */
    OPTION_WORD,   /* s, one of words → char *, owned */
    OPTION_INDEX,  /* s, one of words → its index, an enum or int */
    OPTION_PATH,   /* s, an absolute path without ".." → char *, owned */
    OPTION_UINT32, /* u, from min to max → uint32_t */
    OPTION_UINT64, /* t, from min to max → uint64_t */
    OPTION_POWER,  /* u, 0 or a power of two from min to max → uint32_t */
    OPTION_BOOL,   /* b → bool */
    OPTION_CHOICE, /* b → int 0 or 1, so that -1 can stand for "not given" */
    OPTION_FD,     /* h → int, borrowed from the message */
    _OPTION_MAX
} OptionKind;

typedef struct {
    const char *key;
    OptionKind kind;
    size_t offset; /* of the field in the structure that is filled */
    uint64_t min, max;
    const char *unit;         /* of numbers, for the sentence; NULL for none */
    const char *const *words; /* NULL-terminated */
} Option;

/* Reads the dictionary that m stands at into the structure `into`, which holds the defaults.
 * False with f; into may then be filled in part: its owner clears it. */
bool options_read(sd_bus_message *m, const Option *table, size_t n, void *into, Failure *f);
/* The same check for an argument of its own: is word in words? what: how the sentence calls it,
 * e.g. "mode". */
bool option_check_word(const char *what, const char *word, const char *const *words, Failure *f);
/* Absolute, no control characters, no "..", at most 4095 bytes? */
bool option_check_path(const char *what, const char *path, Failure *f);

typedef struct {
    int fd;           /* borrowed from the message; -1 */
    char *definition; /* NULL = none */
} AttachOptions;
void attach_options_clear(AttachOptions *o);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(AttachOptions, attach_options_clear)
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(JournalFilter, journal_filter_clear)

/* One for each method; all set the defaults of what is not given. */
/* o has been through copy_options_init() and gets a copy of target. */
bool copy_options_read(sd_bus_message *m, const char *target, CopyOptions *o, Failure *f);
/* Of one disk in CopyDisks(): without the keys of the end, which are the group's. */
bool member_options_read(sd_bus_message *m, const char *target, CopyOptions *o, Failure *f);
bool group_options_read(sd_bus_message *m, GroupOptions *o, Failure *f);
void group_options_clear(GroupOptions *o);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(GroupOptions, group_options_clear)
bool chain_options_read(sd_bus_message *m, ChainVerb verb, ChainOptions *o, Failure *f);
bool end_options_read(sd_bus_message *m, EndOptions *o, Failure *f);    /* Pivot, Finish */
bool cancel_options_read(sd_bus_message *m, EndOptions *o, Failure *f); /* Cancel */
bool attach_options_read(sd_bus_message *m, AttachOptions *o, Failure *f);
bool detach_options_read(sd_bus_message *m, bool *ret_force, Failure *f);
bool xml_options_read(sd_bus_message *m, bool *ret_persistent, Failure *f);
bool history_filter_read(sd_bus_message *m, JournalFilter *filter, Failure *f);

/* The words of SetOnReady(), in the order of OnReady, and of SetCopyMode(). */
extern const char *const on_ready_words[];
extern const char *const copy_mode_words[];
/* Limits in bytes per second are handed to QEMU as a signed number. */
#define SPEED_MAX ((uint64_t) INT64_MAX)
