/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* D-Bus values as JSON: one recursive reader (D-Bus bounds the depth) and plain accessors. */

#include "ctl-value.h"

#include <errno.h>
#include <string.h>

static json_t *integer_new(uint64_t number) {
    /* JSON integers are signed here; no size or time comes near the border, but a wrong sign would
     * be a lie. */
    return number <= INT64_MAX ? json_integer((json_int_t) number) : json_real((double) number);
}

static int basic_read(sd_bus_message *m, char type, json_t **ret) {
    union {
        uint8_t y;
        int16_t n;
        uint16_t q;
        int32_t i;
        uint32_t u;
        int64_t x;
        uint64_t t;
        double d;
        int b;
        const char *s;
    } v = {0};
    int r = sd_bus_message_read_basic(m, type, &v);

    if (r < 0)
        return r;
    switch (type) {
    case 'b':
        *ret = json_boolean(v.b);
        break;
    case 'y':
        *ret = json_integer(v.y);
        break;
    case 'n':
        *ret = json_integer(v.n);
        break;
    case 'q':
        *ret = json_integer(v.q);
        break;
    case 'i':
        *ret = json_integer(v.i);
        break;
    case 'u':
        *ret = json_integer(v.u);
        break;
    case 'x':
        *ret = json_integer(v.x);
        break;
    case 't':
        *ret = integer_new(v.t);
        break;
    case 'd':
        *ret = json_real(v.d);
        break;
    case 'h':
        *ret = json_null();
        break;
    default:
        *ret = json_string(v.s);
    }
    return *ret ? 0 : -EBADMSG;
}

static int list_read(sd_bus_message *m, char type, const char *contents, json_t **ret) {
    g_autoptr(json_t) list = json_array();
    int r = sd_bus_message_enter_container(m, type, contents);

    if (r < 0)
        return r;
    while ((r = sd_bus_message_at_end(m, false)) == 0) {
        json_t *item = NULL;
        r = value_read(m, &item);
        if (r < 0)
            return r;
        if (json_array_append_new(list, item) < 0)
            return -ENOMEM;
    }
    if (r < 0)
        return r;
    r = sd_bus_message_exit_container(m);
    if (r < 0)
        return r;
    *ret = g_steal_pointer(&list);
    return 0;
}

static int dict_read(sd_bus_message *m, const char *contents, json_t **ret) {
    g_autoptr(json_t) object = json_object();
    g_autofree char *entry = g_strndup(contents + 1, strlen(contents) - 2);
    int r = sd_bus_message_enter_container(m, 'a', contents);

    if (r < 0)
        return r;
    if (!strchr("sog", entry[0]))
        return -EBADMSG;
    while ((r = sd_bus_message_enter_container(m, 'e', entry)) > 0) {
        const char *key;
        json_t *value = NULL;
        r = sd_bus_message_read_basic(m, entry[0], &key);
        if (r >= 0)
            r = value_read(m, &value);
        if (r < 0)
            return r;
        if (json_object_set_new(object, key, value) < 0)
            return -ENOMEM;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
            return r;
    }
    if (r < 0)
        return r;
    r = sd_bus_message_exit_container(m);
    if (r < 0)
        return r;
    *ret = g_steal_pointer(&object);
    return 0;
}

static int variant_read(sd_bus_message *m, const char *contents, json_t **ret) {
    g_autoptr(json_t) value = NULL;
    int r = sd_bus_message_enter_container(m, 'v', contents);

    if (r >= 0)
        r = value_read(m, &value);
    if (r >= 0)
        r = sd_bus_message_exit_container(m);
    if (r < 0)
        return r;
    *ret = g_steal_pointer(&value);
    return 0;
}

int value_read(sd_bus_message *m, json_t **ret) {
    const char *contents;
    char type;
    int r = sd_bus_message_peek_type(m, &type, &contents);

    if (r < 0)
        return r;
    if (r == 0)
        return -ENODATA;
    switch (type) {
    case 'v':
        return variant_read(m, contents, ret);
    case 'r':
        return list_read(m, 'r', contents, ret);
    case 'a':
        return contents[0] == '{' ? dict_read(m, contents, ret) : list_read(m, 'a', contents, ret);
    default:
        return basic_read(m, type, ret);
    }
}

const char *value_string(const json_t *object, const char *key) {
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

uint64_t value_u64(const json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);

    if (json_is_real(value))
        return (uint64_t) json_real_value(value);
    return json_is_integer(value) && json_integer_value(value) > 0
               ? (uint64_t) json_integer_value(value)
               : 0;
}

bool value_bool(const json_t *object, const char *key) {
    return json_is_true(json_object_get(object, key));
}
