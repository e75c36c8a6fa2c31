/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The measuring client: which measurement, and how its result is printed. */

#include "measure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t now_ns(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t) t.tv_sec * 1000000000 + (uint64_t) t.tv_nsec;
}

void die(const char *format, ...) {
    va_list ap;

    va_start(ap, format);
    fputs("bench-measure: ", stderr);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(EXIT_FAILURE);
}

int must(int r, const char *what) {
    if (r < 0)
        die("%s: %s", what, g_strerror(-r));
    return r;
}

void result_add_number(json_t *result, const char *name, double number) {
    json_t *series = json_object_get(result, name);

    if (!series) {
        series = json_array();
        json_object_set_new(result, name, series);
    }
    json_array_append_new(series, json_real(number));
}

void result_add(json_t *result, const char *name, uint64_t since, uint64_t until) {
    result_add_number(result, name, until > since ? (double) (until - since) / 1000 : 0);
}

void result_print(json_t *result) {
    char *text = json_dumps(result, JSON_COMPACT | JSON_REAL_PRECISION(16));

    puts(text);
    fflush(stdout);
    free(text);
    json_decref(result);
}

char **lines_read(void) {
    g_autofree char *text = NULL;
    g_autoptr(GIOChannel) in = g_io_channel_unix_new(0);

    if (g_io_channel_read_to_end(in, &text, NULL, NULL) != G_IO_STATUS_NORMAL)
        die("stdin cannot be read");
    return g_strsplit(g_strchomp(text), "\n", -1);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*measure)(int argc, char **argv);
    } all[] = {
        {"latency", measure_latency}, {"copy", measure_copy},   {"pivot", measure_pivot},
        {"managed", measure_managed}, {"reads", measure_reads}, {"calls", measure_calls},
        {"restart", measure_restart},
    };

    for (size_t i = 0; argc > 1 && i < G_N_ELEMENTS(all); i++)
        if (strcmp(argv[1], all[i].name) == 0)
            return all[i].measure(argc - 2, argv + 2);
    die("it is started by tests/bench");
}
