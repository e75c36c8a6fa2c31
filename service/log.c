/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Logging to the journal or to standard error. */

#include "log.h"

#include <glib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#define SD_JOURNAL_SUPPRESS_LOCATION /* it would always be that of this file */
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

GPtrArray *log_entry(int level, const char *message_id, const LogField *fields,
                     const char *message) {
    GPtrArray *entry = g_ptr_array_new_with_free_func(g_free);

    g_ptr_array_add(entry, g_strdup_printf("MESSAGE=%s", message));
    g_ptr_array_add(entry, g_strdup_printf("PRIORITY=%i", level));
    g_ptr_array_add(entry, g_strdup("SYSLOG_IDENTIFIER=blockjobd"));
    if (message_id)
        g_ptr_array_add(entry, g_strdup_printf("MESSAGE_ID=%s", message_id));
    for (const LogField *f = fields; f && f->name; f++)
        if (f->value)
            g_ptr_array_add(entry, g_strdup_printf("%s=%s", f->name, f->value));
    return entry;
}

static void send_entry(const GPtrArray *entry) {
    g_autofree struct iovec *parts = g_new(struct iovec, entry->len);

    for (guint i = 0; i < entry->len; i++)
        parts[i] = (struct iovec){entry->pdata[i], strlen(entry->pdata[i])};
    (void) sd_journal_sendv(parts, (int) entry->len);
}

static void log_message(int level, const char *message_id, const LogField *fields,
                        const char *message) {
    if (!is_to_journal()) {
        fprintf(stderr, "blockjobd: %s\n", message);
        return;
    }
    g_autoptr(GPtrArray) entry = log_entry(level, message_id, fields, message);
    send_entry(entry);
}

void log_full(int level, const char *message_id, const char *format, ...) {
    g_autofree char *message = NULL;
    va_list ap;

    if (level > max_level)
        return;
    va_start(ap, format);
    message = g_strdup_vprintf(format, ap);
    va_end(ap);
    log_message(level, message_id, NULL, message);
}

void log_with_fields(int level, const char *message_id, const LogField *fields, const char *format,
                     ...) {
    g_autofree char *message = NULL;
    va_list ap;

    if (level > max_level)
        return;
    va_start(ap, format);
    message = g_strdup_vprintf(format, ap);
    va_end(ap);
    log_message(level, message_id, fields, message);
}
