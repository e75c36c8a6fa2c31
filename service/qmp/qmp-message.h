/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* QmpMessage: one line from a QMP server, checked and taken apart. Knows the grammar of QMP,
 * nothing of connections. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    QMP_MESSAGE_GREETING,
    QMP_MESSAGE_EVENT,
    QMP_MESSAGE_RETURN,
    QMP_MESSAGE_ERROR,
} QmpMessageKind;

/* Everything but root and version borrows from root. */
typedef struct {
    json_t *root;
    QmpMessageKind kind;
    char version[36];       /* GREETING: "7.2.22" */
    const char *event_name; /* EVENT */
    json_t *event_data;     /* EVENT: an object or NULL */
    uint64_t timestamp;     /* EVENT: microseconds of QEMU's realtime clock, 0 when it has none */
    bool has_id;            /* RETURN, ERROR */
    uint64_t id;            /* RETURN, ERROR: 0 for an id that can be none of ours */
    json_t *result;         /* RETURN: any JSON value */
    const char *class_name; /* ERROR */
    const char *text;       /* ERROR */
} QmpMessage;

/* Parses a line of size bytes. May write to the line. Returns -EPROTO, with words for people in
 * *ret_reason (owned by the caller, printable), for what is not a message of QMP or is nested
 * deeper than QMP_DEPTH_MAX; on failure m holds nothing. */
int qmp_message_parse(QmpMessage *m, char *line, size_t size, char **ret_reason);
void qmp_message_clear(QmpMessage *m);
