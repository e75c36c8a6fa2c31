/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The grammar of QMP's server side: docs/interop/qmp-spec of QEMU. */

#include "qmp/qmp-message.h"
#include "qmp/qmp.h"
#include "util.h"

#include <stdio.h>
#include <string.h>

#define REASON_MAX 200 /* bytes of the peer's own text that a reason may carry */

/* Steps over a string; p is after its opening quote. Unterminated ones end the line: the parser
 * will say so. */
static const char *string_skip(const char *p, const char *end) {
    while (p < end && *p != '"')
        p += *p == '\\' && p + 1 < end ? 2 : 1;
    return p < end ? p + 1 : end;
}

/* Runs before the parser because that one recurses. Closing brackets are not matched with their
 * kind, so this never sees less depth than the parser would. */
static bool depth_is_sane(const char *line, size_t size) {
    const char *end = line + size;
    unsigned depth = 0;

    for (const char *p = line; p < end;) {
        char ch = *p++;
        if (ch == '"')
            p = string_skip(p, end);
        else if (ch == '{' || ch == '[') {
            if (++depth > QMP_DEPTH_MAX)
                return false;
        } else if ((ch == '}' || ch == ']') && depth > 0)
            depth--;
    }
    return true;
}

/* Clamps the number that begins at p in place; returns where it ends. Reals are left alone. */
static char *number_clamp(char *p, const char *end) {
    const char *limit = *p == '-' ? "9223372036854775808" : "9223372036854775807";
    char *digits = *p == '-' ? p + 1 : p;
    size_t n = 0;

    while (digits + n < end && g_ascii_isdigit(digits[n]))
        n++;
    p = digits + n;
    if (p < end && strchr(".eE", *p)) {
        while (p < end && (g_ascii_isdigit(*p) || strchr(".eE+-", *p)))
            p++;
        return p;
    }
    if (n > 19 || (n == 19 && memcmp(digits, limit, 19) > 0)) {
        memcpy(digits, limit, 19);
        memset(digits + 19, ' ', n - 19);
    }
    return MAX(p, digits + 1);
}

/* QEMU has unsigned 64-bit integers, the parser has not: losing the connection over one would be
 * worse than its value. */
static void integers_clamp(char *line, size_t size) {
    char *end = line + size;

    for (char *p = line; p < end;) {
        if (*p == '"')
            p += string_skip(p + 1, end) - p;
        else if (*p == '-' || g_ascii_isdigit(*p))
            p = number_clamp(p, end);
        else
            p++;
    }
}

static int reject(char **ret_reason, const char *what, const char *detail) {
    g_autofree char *clean = string_sanitize(detail, REASON_MAX);

    *ret_reason = g_strconcat(what, *clean ? ": " : "", clean, NULL);
    return -EPROTO;
}

static int line_load(char *line, size_t size, json_t **ret, char **ret_reason) {
    json_error_t error;

    if (!depth_is_sane(line, size))
        return reject(ret_reason, "a message is nested too deeply", "");
    *ret = json_loadb(line, size, JSON_REJECT_DUPLICATES, &error);
    if (!*ret && json_error_code(&error) == json_error_numeric_overflow) {
        integers_clamp(line, size);
        *ret = json_loadb(line, size, JSON_REJECT_DUPLICATES, &error);
    }
    if (*ret)
        return 0;
    if (json_error_code(&error) == json_error_premature_end_of_input)
        return reject(ret_reason,
                      "a line is not a whole JSON object (is the monitor set to pretty=on?)",
                      error.text);
    return reject(ret_reason, "a line is not JSON", error.text);
}

static bool greeting_read(QmpMessage *m, json_t *body) {
    int major, minor, micro;

    m->kind = QMP_MESSAGE_GREETING;
    if (json_unpack(body, "{s:{s:{s:i,s:i,s:i}}}", "version", "qemu", "major", &major, "minor",
                    &minor, "micro", &micro) < 0)
        return false;
    snprintf(m->version, sizeof m->version, "%d.%d.%d", major, minor, micro);
    return true;
}

static bool event_read(QmpMessage *m, json_t *name) {
    json_t *timestamp = json_object_get(m->root, "timestamp");
    json_int_t seconds = json_integer_value(json_object_get(timestamp, "seconds"));
    json_int_t microseconds = json_integer_value(json_object_get(timestamp, "microseconds"));

    m->kind = QMP_MESSAGE_EVENT;
    m->event_name = json_string_value(name);
    m->event_data = json_object_get(m->root, "data");
    /* Both are -1 when QEMU could not read its clock. */
    if (seconds > 0 && seconds < INT64_MAX / (json_int_t) USEC_PER_SEC && microseconds >= 0 &&
        microseconds < (json_int_t) USEC_PER_SEC)
        m->timestamp = (uint64_t) seconds * USEC_PER_SEC + (uint64_t) microseconds;
    return m->event_name && (!m->event_data || json_is_object(m->event_data));
}

static bool reply_read(QmpMessage *m, json_t *result, json_t *error) {
    json_t *id = json_object_get(m->root, "id");

    m->kind = error ? QMP_MESSAGE_ERROR : QMP_MESSAGE_RETURN;
    m->result = result;
    m->has_id = id != NULL;
    m->id = json_integer_value(id) > 0 ? (uint64_t) json_integer_value(id) : 0;
    m->class_name = json_string_value(json_object_get(error, "class"));
    m->text = json_string_value(json_object_get(error, "desc"));
    return error ? !result && m->class_name && m->text : true;
}

static bool message_read(QmpMessage *m) {
    json_t *greeting = json_object_get(m->root, "QMP");
    json_t *event = json_object_get(m->root, "event");
    json_t *result = json_object_get(m->root, "return");
    json_t *error = json_object_get(m->root, "error");

    if (event)
        return !result && !error && !greeting && event_read(m, event);
    if (result || error)
        return !greeting && reply_read(m, result, error);
    return greeting && greeting_read(m, greeting);
}

int qmp_message_parse(QmpMessage *m, char *line, size_t size, char **ret_reason) {
    int r;

    *m = (QmpMessage){};
    r = line_load(line, size, &m->root, ret_reason);
    if (r < 0)
        return r;
    if (message_read(m))
        return 0;
    qmp_message_clear(m);
    return reject(ret_reason, "a JSON value is not a message of QMP", "");
}

void qmp_message_clear(QmpMessage *m) {
    json_decref(m->root);
    *m = (QmpMessage){};
}
