/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Texts to numbers and back: sizes, rates, durations, times, names. Pure functions.
 * A `_parse()` function returns 0, -EINVAL (no such thing) or -ERANGE (too large), and writes *ret
 * only on success. A `_format()` function returns a text that the caller owns. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes: "512", "64K", "1.5G", "20GiB"; powers of 1024, K to E, optionally followed by "iB". */
int size_parse(const char *s, uint64_t *ret);
/* As size_parse(), and a "/s" may follow. */
int rate_parse(const char *s, uint64_t *ret);
/* Microseconds: "500ms", "2s", "5min", "1h 30min"; a bare number is seconds. */
int duration_parse(const char *s, uint64_t *ret);
/* Microseconds since 1970: "2026-01-31", "2026-01-31 12:30[:05]", "12:30", "now", "today",
 * "yesterday", "-2h", "2h ago", "@SECONDS". Local time; now is the present. */
int timestamp_parse(const char *s, uint64_t now, uint64_t *ret);
int boolean_parse(const char *s, bool *ret);
/* A plain decimal number without sign or space. */
int number_parse(const char *s, uint64_t *ret);

/* "120 MiB/s". */
char *rate_format(uint64_t bytes_per_second);
/* At most two units: "12ms", "40s", "1min 40s", "2d 3h". */
char *duration_format(uint64_t usec);
/* "2026-01-31 12:30:05" in local time; "-" for 0. */
char *timestamp_format(uint64_t usec);

/* Columns that s takes on a terminal. */
size_t text_width(const char *s);
/* s cut to at most width columns; the middle is left out and marked, because the end of a path
 * tells most. utf8 says whether the mark may be "…". */
char *text_ellipsize(const char *s, size_t width, bool utf8);
/* The word of the NULL-terminated list that s was probably meant to be, or NULL if none is near. */
const char *word_nearest(const char *s, const char *const *words);
