/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Logging to the journal or to standard error. */

#include "log.h"

#include <glib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-journal.h>

static int max_level = LOG_INFO;

void log_set_max_level(int level) {
    max_level = level;
}

int log_max_level(void) {
    return max_level;
}

void log_full(int level, const char *message_id, const char *format, ...) {
    static int to_journal = -1;
    g_autofree char *message = NULL;
    va_list ap;

    if (level > max_level)
        return;
    va_start(ap, format);
    message = g_strdup_vprintf(format, ap);
    va_end(ap);

    if (to_journal < 0)
        to_journal = getenv("JOURNAL_STREAM") != NULL;
    if (!to_journal)
        fprintf(stderr, "blockjobd: %s\n", message);
    else if (message_id)
        sd_journal_send("PRIORITY=%i", level, "MESSAGE_ID=%s", message_id, "MESSAGE=%s", message,
                        NULL);
    else
        sd_journal_send("PRIORITY=%i", level, "MESSAGE=%s", message, NULL);
}
