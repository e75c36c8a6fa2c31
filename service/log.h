/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Logging: to the journal when standard error is connected to it, else plain lines on standard error.
 * Strings that come from users go between quotes in the message, and into fields of their own in the journal. */

#include <glib.h>
#include <stdbool.h>
#include <syslog.h>

/* Starts at LOG_INFO. */
void log_set_max_level(int level);
int log_max_level(void);
/* syslog's names, "emerg" to "debug"; -1 if it is none. */
int log_level_from_string(const char *s);
const char *log_level_to_string(int level);
/* "journal" or "console" (standard error). -EINVAL for others. */
int log_set_target(const char *target);
const char *log_target(void);
void log_full(int level, const char *message_id, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A field of a journal entry besides the message; name: [A-Z0-9_]. A list is ended by one without a name. */
typedef struct {
    const char *name, *value;
} LogField;
/* The same with fields, which may be NULL. */
void log_with_fields(int level, const char *message_id, const LogField *fields, const char *format,
                     ...) __attribute__((format(printf, 4, 5)));
/* What the journal is given for that: strings NAME=value, char*. */
GPtrArray *log_entry(int level, const char *message_id, const LogField *fields,
                     const char *message);

#define log_debug(...)                                                                             \
    (log_max_level() >= LOG_DEBUG ? log_full(LOG_DEBUG, NULL, __VA_ARGS__) : (void) 0)
#define log_info(...) log_full(LOG_INFO, NULL, __VA_ARGS__)
#define log_notice(...) log_full(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_warning(...) log_full(LOG_WARNING, NULL, __VA_ARGS__)
#define log_error(...) log_full(LOG_ERR, NULL, __VA_ARGS__)
/* An event that administrators look for; id is one of the MESSAGE_IDs below. */
#define log_event(level, id, ...) log_full(level, id, __VA_ARGS__)

#define MESSAGE_JOB_CREATED "8d2c5d0a0a6f4ac29d0d0f6a3c1be001"
#define MESSAGE_JOB_READY "8d2c5d0a0a6f4ac29d0d0f6a3c1be002"
#define MESSAGE_JOB_CONCLUDED "8d2c5d0a0a6f4ac29d0d0f6a3c1be003"
#define MESSAGE_JOB_RECOVERED "8d2c5d0a0a6f4ac29d0d0f6a3c1be004"
#define MESSAGE_JOURNAL_CORRUPT "8d2c5d0a0a6f4ac29d0d0f6a3c1be005"
#define MESSAGE_JOURNAL_FAILED "8d2c5d0a0a6f4ac29d0d0f6a3c1be006"
#define MESSAGE_DENIED "8d2c5d0a0a6f4ac29d0d0f6a3c1be007"
#define MESSAGE_DOMAIN_UNRESPONSIVE "8d2c5d0a0a6f4ac29d0d0f6a3c1be008"
#define MESSAGE_JOB_LOST "8d2c5d0a0a6f4ac29d0d0f6a3c1be009"
#define MESSAGE_LIMIT "8d2c5d0a0a6f4ac29d0d0f6a3c1be00a"
