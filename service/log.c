/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Logging to the journal or to standard error. */

#include "log.h"

#include <glib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-journal.h>

#include "util.h"

static int max_level = LOG_INFO;
static int to_journal = -1; /* not known yet */

void log_set_max_level(int level) {
    max_level = level;
}

int log_max_level(void) {
    return max_level;
}

static const char *const levels[] = {"emerg",   "alert",  "crit", "err",
                                     "warning", "notice", "info", "debug"};

int log_level_from_string(const char *s) {
    return string_index(levels, G_N_ELEMENTS(levels), s);
}

const char *log_level_to_string(int level) {
    g_assert(level >= LOG_EMERG && level <= LOG_DEBUG);
    return levels[level];
}

static bool is_to_journal(void) {
    if (to_journal < 0)
        to_journal = getenv("JOURNAL_STREAM") != NULL;
    return to_journal;
}

int log_set_target(const char *target) {
    if (!g_str_equal(target, "journal") && !g_str_equal(target, "console"))
        return -EINVAL;
    to_journal = g_str_equal(target, "journal");
    return 0;
}

const char *log_target(void) {
    return is_to_journal() ? "journal" : "console";
}

void log_full(int level, const char *message_id, const char *format, ...) {
    g_autofree char *message = NULL;
    va_list ap;

    if (level > max_level)
        return;
    va_start(ap, format);
    message = g_strdup_vprintf(format, ap);
    va_end(ap);

    if (!is_to_journal())
        fprintf(stderr, "blockjobd: %s\n", message);
    else if (message_id)
        sd_journal_send("PRIORITY=%i", level, "MESSAGE_ID=%s", message_id, "MESSAGE=%s", message,
                        NULL);
    else
        sd_journal_send("PRIORITY=%i", level, "MESSAGE=%s", message, NULL);
}
