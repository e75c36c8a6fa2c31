/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one place where a Failure becomes a D-Bus error, and where text is made fit for the bus. */

#include "bus/errors.h"

#include <string.h>

#include "log.h"
#include "util.h"

/* Who runs into a limit does so a thousand times a second: one line for all of them. */
#define LIMIT_LOG_PACE (10 * USEC_PER_SEC)

static void log_limit(const Failure *f) {
    static uint64_t logged, silent;
    uint64_t now = now_monotonic();

    if (f->kind != FAILURE_LIMIT_REACHED && f->kind != FAILURE_LIMITS_EXCEEDED)
        return;
    if (logged > 0 && now < logged + LIMIT_LOG_PACE) {
        silent++;
        return;
    }
    log_event(LOG_NOTICE, MESSAGE_LIMIT,
              "A call was refused by a limit (%" G_GUINT64_FORMAT
              " more since this was said last): %s",
              silent, f->message);
    logged = now;
    silent = 0;
}

int bus_fail(sd_bus_error *error, const Failure *f) {
    if (f->kind == FAILURE_NONE) {
        log_error("A call was refused without a reason; this is a mistake in the service.");
        return sd_bus_error_set(error, failure_name(FAILURE_NOT_SUPPORTED),
                                "The service refused without saying why.");
    }
    log_limit(f);
    g_autofree char *text = text_make_fit(f->message ? f->message : "", TEXT_MAX);
    return sd_bus_error_set(error, failure_name(f->kind), text);
}

int bus_reply_failure(sd_bus_message *call, const Failure *f) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

    bus_fail(&error, f);
    return sd_bus_reply_method_error(call, &error);
}

static bool is_noncharacter(gunichar c) {
    return (c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE;
}

bool text_is_fit(const char *s, size_t max) {
    size_t n = 0;

    while (n <= max && s[n] &&
           (unsigned char) s[n] < 0x80) /* plain ASCII, nearly always all of it */
        n++;
    if (n > max)
        return false;
    if (!s[n])
        return true;
    if (strnlen(s, max + 1) > max || !g_utf8_validate(s + n, -1, NULL))
        return false;
    for (const char *p = s + n; *p; p = g_utf8_next_char(p))
        if (is_noncharacter(g_utf8_get_char(p)))
            return false;
    return true;
}

char *text_make_fit(const char *s, size_t max) {
    g_autofree char *clean = string_sanitize(s, max);
    GString *out = g_string_new(NULL);

    for (const char *p = clean; *p; p = g_utf8_next_char(p))
        if (!is_noncharacter(g_utf8_get_char(p)))
            g_string_append_len(out, p, g_utf8_next_char(p) - p);
    return g_string_free(out, FALSE);
}

int message_append_text(sd_bus_message *m, const char *key, const char *s) {
    g_autofree char *fit = NULL;

    if (!text_is_fit(s, TEXT_MAX))
        s = fit = text_make_fit(s, TEXT_MAX);
    return sd_bus_message_append(m, "{sv}", key, "s", s);
}
