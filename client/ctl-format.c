/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Texts to numbers and back: sizes, rates, durations, times, names. */

#include "ctl-format.h"
#include "util.h"

#include <string.h>

#define USEC_PER_MIN (60 * USEC_PER_SEC)
#define USEC_PER_HOUR (60 * USEC_PER_MIN)
#define USEC_PER_DAY (24 * USEC_PER_HOUR)

int number_parse(const char *s, uint64_t *ret) {
    char *end;

    if (!g_ascii_isdigit(*s))
        return -EINVAL;
    errno = 0;
    uint64_t number = g_ascii_strtoull(s, &end, 10);
    if (errno == ERANGE)
        return -ERANGE;
    if (*end)
        return -EINVAL;
    *ret = number;
    return 0;
}

/* Reads DIGITS[.DIGITS] at *s, moves *s behind it. The whole part stays an integer, so that no byte
 * is lost. */
static int decimal_parse(const char **s, uint64_t *ret_whole, double *ret_fraction) {
    char *end;
    double fraction = 0, place = 0.1;

    if (!g_ascii_isdigit(**s))
        return -EINVAL;
    errno = 0;
    uint64_t whole = g_ascii_strtoull(*s, &end, 10);
    if (errno == ERANGE)
        return -ERANGE;
    if (*end == '.') {
        end++;
        if (!g_ascii_isdigit(*end))
            return -EINVAL;
        for (; g_ascii_isdigit(*end); end++, place /= 10)
            fraction += (*end - '0') * place;
    }
    *s = end;
    *ret_whole = whole;
    *ret_fraction = fraction;
    return 0;
}

static int decimal_scale(uint64_t whole, double fraction, uint64_t unit, uint64_t *ret) {
    uint64_t number;

    if (__builtin_mul_overflow(whole, unit, &number) ||
        __builtin_add_overflow(number, (uint64_t) (fraction * (double) unit + 0.5), &number))
        return -ERANGE;
    *ret = number;
    return 0;
}

/* The size at s; *ret_rest is what follows it. */
static int size_parse_head(const char *s, const char **ret_rest, uint64_t *ret) {
    static const char units[] = "KMGTPE";
    uint64_t whole, unit = 1;
    double fraction;

    s += strspn(s, " ");
    int r = decimal_parse(&s, &whole, &fraction);
    if (r < 0)
        return r;
    s += strspn(s, " ");
    const char *u = *s ? strchr(units, g_ascii_toupper(*s)) : NULL;
    if (u) {
        unit <<= 10 * (u - units + 1);
        s++;
        if (g_str_has_prefix(s, "iB"))
            s += 2;
    } else if (*s == 'B')
        s++;
    if (unit == 1 && fraction > 0)
        return -EINVAL;
    *ret_rest = s;
    return decimal_scale(whole, fraction, unit, ret);
}

int size_parse(const char *s, uint64_t *ret) {
    uint64_t size;
    const char *rest;
    int r = size_parse_head(s, &rest, &size);

    if (r < 0)
        return r;
    if (*rest)
        return -EINVAL;
    *ret = size;
    return 0;
}

int rate_parse(const char *s, uint64_t *ret) {
    uint64_t size;
    const char *rest;
    int r = size_parse_head(s, &rest, &size);

    if (r < 0)
        return r;
    if (*rest && strcmp(rest, "/s") != 0)
        return -EINVAL;
    *ret = size;
    return 0;
}

static const struct {
    const char *name;
    uint64_t usec;
} duration_units[] = {
    {"us", 1},
    {"usec", 1},
    {"ms", USEC_PER_MSEC},
    {"msec", USEC_PER_MSEC},
    {"", USEC_PER_SEC},
    {"s", USEC_PER_SEC},
    {"sec", USEC_PER_SEC},
    {"second", USEC_PER_SEC},
    {"seconds", USEC_PER_SEC},
    {"m", USEC_PER_MIN},
    {"min", USEC_PER_MIN},
    {"minute", USEC_PER_MIN},
    {"minutes", USEC_PER_MIN},
    {"h", USEC_PER_HOUR},
    {"hr", USEC_PER_HOUR},
    {"hour", USEC_PER_HOUR},
    {"hours", USEC_PER_HOUR},
    {"d", USEC_PER_DAY},
    {"day", USEC_PER_DAY},
    {"days", USEC_PER_DAY},
};

static int duration_unit(const char *name, size_t length, uint64_t *ret) {
    for (size_t i = 0; i < G_N_ELEMENTS(duration_units); i++)
        if (strlen(duration_units[i].name) == length &&
            strncmp(duration_units[i].name, name, length) == 0) {
            *ret = duration_units[i].usec;
            return 0;
        }
    return -EINVAL;
}

int duration_parse(const char *s, uint64_t *ret) {
    uint64_t total = 0;

    s += strspn(s, " ");
    do {
        uint64_t whole, part, unit;
        double fraction;
        int r = decimal_parse(&s, &whole, &fraction);
        if (r < 0)
            return r;
        s += strspn(s, " ");
        size_t length = strspn(s, "abcdefghijklmnopqrstuvwxyz");
        r = duration_unit(s, length, &unit);
        if (r >= 0)
            r = decimal_scale(whole, fraction, unit, &part);
        if (r < 0)
            return r;
        if (__builtin_add_overflow(total, part, &total))
            return -ERANGE;
        s += length;
        s += strspn(s, " ");
    } while (*s);
    *ret = total;
    return 0;
}

static int calendar_usec(int y, int mo, int d, int h, int mi, int se, uint64_t *ret) {
    g_autoptr(GDateTime) time = g_date_time_new_local(y, mo, d, h, mi, se);

    if (!time || g_date_time_to_unix(time) < 0)
        return -EINVAL;
    *ret = (uint64_t) g_date_time_to_unix(time) * USEC_PER_SEC;
    return 0;
}

/* "[DATE ]TIME" or "DATE"; the date is today's unless said. */
static int calendar_parse(const char *s, uint64_t now, uint64_t *ret) {
    g_autoptr(GDateTime) today = g_date_time_new_from_unix_local((gint64) (now / USEC_PER_SEC));
    int y, mo, d, h = 0, mi = 0, se = 0, n = 0;

    if (!today)
        return -EINVAL;
    g_date_time_get_ymd(today, &y, &mo, &d);
    if (strcmp(s, "today") == 0 || strcmp(s, "yesterday") == 0) {
        g_autoptr(GDateTime) day = g_date_time_add_days(today, *s == 'y' ? -1 : 0);
        g_date_time_get_ymd(day, &y, &mo, &d);
        return calendar_usec(y, mo, d, 0, 0, 0, ret);
    }
    int date[3];
    if (sscanf(s, "%4d-%2d-%2d%n", &date[0], &date[1], &date[2], &n) == 3 && n > 0) {
        y = date[0];
        mo = date[1];
        d = date[2];
        s += n;
        if (!*s)
            return calendar_usec(y, mo, d, 0, 0, 0, ret);
        if (*s != ' ' && *s != 'T')
            return -EINVAL;
        s++;
    }
    n = 0;
    if (sscanf(s, "%2d:%2d%n", &h, &mi, &n) != 2 || n == 0)
        return -EINVAL;
    s += n;
    n = 0;
    if (sscanf(s, ":%2d%n", &se, &n) == 1 && n > 0)
        s += n;
    return *s ? -EINVAL : calendar_usec(y, mo, d, h, mi, se, ret);
}

int timestamp_parse(const char *s, uint64_t now, uint64_t *ret) {
    uint64_t usec;

    if (strcmp(s, "now") == 0) {
        *ret = now;
        return 0;
    }
    if (*s == '@') {
        uint64_t seconds;
        int r = number_parse(s + 1, &seconds);
        return r < 0 ? r : decimal_scale(seconds, 0, USEC_PER_SEC, ret);
    }
    if (*s == '-' || g_str_has_suffix(s, " ago")) {
        g_autofree char *ago = *s == '-' ? g_strdup(s + 1) : g_strndup(s, strlen(s) - 4);
        int r = duration_parse(ago, &usec);
        if (r < 0)
            return r;
        *ret = usec < now ? now - usec : 0;
        return 0;
    }
    return calendar_parse(s, now, ret);
}

int boolean_parse(const char *s, bool *ret) {
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    int i = string_index(words, G_N_ELEMENTS(words), s);

    if (i < 0)
        return -EINVAL;
    *ret = i % 2 == 1;
    return 0;
}

char *rate_format(uint64_t bytes_per_second) {
    g_autofree char *bytes = format_bytes(bytes_per_second);
    return g_strdup_printf("%s/s", bytes);
}

char *duration_format(uint64_t usec) {
    static const struct {
        uint64_t usec;
        const char *unit;
        const char *smaller;
        uint64_t smaller_usec;
    } scale[] = {
        {USEC_PER_DAY, "d", "h", USEC_PER_HOUR},
        {USEC_PER_HOUR, "h", "min", USEC_PER_MIN},
        {USEC_PER_MIN, "min", "s", USEC_PER_SEC},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(scale); i++) {
        uint64_t more = usec % scale[i].usec / scale[i].smaller_usec;
        if (usec < scale[i].usec)
            continue;
        if (more == 0)
            return g_strdup_printf("%" PRIu64 "%s", usec / scale[i].usec, scale[i].unit);
        return g_strdup_printf("%" PRIu64 "%s %" PRIu64 "%s", usec / scale[i].usec, scale[i].unit,
                               more, scale[i].smaller);
    }
    if (usec >= USEC_PER_SEC)
        return g_strdup_printf("%" PRIu64 "s", usec / USEC_PER_SEC);
    if (usec >= USEC_PER_MSEC)
        return g_strdup_printf("%" PRIu64 "ms", usec / USEC_PER_MSEC);
    return g_strdup_printf("%" PRIu64 "us", usec);
}

char *timestamp_format(uint64_t usec) {
    g_autoptr(GDateTime) time =
        usec ? g_date_time_new_from_unix_local((gint64) (usec / USEC_PER_SEC)) : NULL;
    return time ? g_date_time_format(time, "%Y-%m-%d %H:%M:%S") : g_strdup("-");
}

static size_t char_width(gunichar c) {
    if (g_unichar_iszerowidth(c))
        return 0;
    return g_unichar_iswide(c) ? 2 : 1;
}

size_t text_width(const char *s) {
    size_t width = 0;

    for (const char *p = s; *p; p = g_utf8_next_char(p))
        width += char_width(g_utf8_get_char(p));
    return width;
}

char *text_ellipsize(const char *s, size_t width, bool utf8) {
    const char *mark = utf8 ? "…" : "...";
    size_t mark_width = utf8 ? 1 : 3, used = 0;

    if (text_width(s) <= width)
        return g_strdup(s);
    if (width <= mark_width)
        mark = "", mark_width = 0;
    size_t room = width - mark_width, head = mark_width ? room / 3 : room;
    const char *first = s, *last = s + strlen(s);
    while (used + char_width(g_utf8_get_char(first)) <= head) {
        used += char_width(g_utf8_get_char(first));
        first = g_utf8_next_char(first);
    }
    while (last > first) {
        const char *before = g_utf8_prev_char(last);
        if (!mark_width || used + char_width(g_utf8_get_char(before)) > room)
            break;
        used += char_width(g_utf8_get_char(before));
        last = before;
    }
    return g_strdup_printf("%.*s%s%s", (int) (first - s), s, mark, mark_width ? last : "");
}

/* Levenshtein's distance of two short words. */
static size_t word_distance(const char *a, const char *b) {
    size_t n = strlen(b);
    g_autofree size_t *row = g_new(size_t, n + 1);

    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t change = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = MIN(change, MIN(row[j], row[j + 1]) + 1);
        }
    }
    return row[n];
}

const char *word_nearest(const char *s, const char *const *words) {
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;

    if (strlen(s) > 64)
        return NULL;
    for (; *words; words++) {
        size_t distance = word_distance(s, *words);
        if (distance < best_distance) {
            best = *words;
            best_distance = distance;
        }
    }
    return best && best_distance <= (strlen(s) + 2) / 3 ? best : NULL;
}
