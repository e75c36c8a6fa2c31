/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Small helpers that every room may use. */

#include "util.h"

#include <string.h>
#include <time.h>

static uint64_t clock_usec(clockid_t clock) {
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}

uint64_t now_realtime(void) {
    return clock_usec(CLOCK_REALTIME);
}

uint64_t now_monotonic(void) {
    return clock_usec(CLOCK_MONOTONIC);
}

static bool is_control(gunichar c) {
    return g_unichar_iscntrl(c) || g_unichar_type(c) == G_UNICODE_FORMAT;
}

bool string_is_printable(const char *s) {
    if (!g_utf8_validate(s, -1, NULL))
        return false;
    for (const char *p = s; *p; p = g_utf8_next_char(p))
        if (is_control(g_utf8_get_char(p)))
            return false;
    return true;
}

char *string_sanitize(const char *s, size_t max) {
    g_autofree char *valid = g_utf8_make_valid(s, -1);
    GString *out = g_string_new(NULL);

    for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
        size_t len = (size_t) (g_utf8_next_char(p) - p);
        if (is_control(g_utf8_get_char(p)))
            continue;
        if (out->len + len > max)
            break;
        g_string_append_len(out, p, (gssize) len);
    }
    return g_string_free(out, FALSE);
}

int string_index(const char *const *table, size_t n, const char *s) {
    for (size_t i = 0; i < n; i++)
        if (table[i] && strcmp(table[i], s) == 0)
            return (int) i;
    return -1;
}

char *format_bytes(uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double) bytes;
    size_t u = 0;

    while (value >= 1024 && u + 1 < G_N_ELEMENTS(units)) {
        value /= 1024;
        u++;
    }
    if (value < 10 && u > 0 && value != (double) (int) value)
        return g_strdup_printf("%.1f %s", value, units[u]);
    return g_strdup_printf("%.0f %s", value, units[u]);
}

uint32_t crc32_update(uint32_t crc, const void *data, size_t size) {
    static uint32_t table[256];
    const uint8_t *p = data;

    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++)
                c = c & 1 ? UINT32_C(0xedb88320) ^ (c >> 1) : c >> 1;
            table[i] = c;
        }
    crc = ~crc;
    while (size--)
        crc = table[(crc ^ *p++) & 0xff] ^ (crc >> 8);
    return ~crc;
}
