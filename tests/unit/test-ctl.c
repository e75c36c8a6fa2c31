/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blockjobctl: what it reads from people and what it shows them. No bus is needed. */

#include "ctl-format.h"
#include "ctl-job.h"
#include "ctl-options.h"
#include "ctl-progress.h"
#include "ctl-table.h"

#include <glib/gstdio.h>

#include <locale.h>
#include <stdlib.h>
#include <string.h>

static void size_is_read_in_powers_of_1024(void) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"512", 512},
        {"512B", 512},
        {"64K", 64 * KIB},
        {"64k", 64 * KIB},
        {"2M", 2 * MIB},
        {"2MiB", 2 * MIB},
        {"1.5G", 3 * GIB / 2},
        {"20 GiB", 20 * GIB},
        {"1T", 1024 * GIB},
        {"15E", UINT64_C(15) << 60},
        {"18446744073709551615", UINT64_MAX},
    };
    static const char *const bad[] = {"",   " ",    "-1",  "+1",   "K",   "1X",    "10MB", "1.5",
                                      "1.", "0x10", "1 2", "1K/s", "1Ki", "1KiBs", "inf"};

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        uint64_t bytes = 1;
        g_assert_cmpint(size_parse(good[i].text, &bytes), ==, 0);
        g_assert_cmpuint(bytes, ==, good[i].bytes);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        uint64_t bytes = 4711;
        g_assert_cmpint(size_parse(bad[i], &bytes), ==, -EINVAL);
        g_assert_cmpuint(bytes, ==, 4711);
    }
}

static void too_large_is_not_wrapped(void) {
    uint64_t n = 4711;

    g_assert_cmpint(size_parse("16E", &n), ==, -ERANGE);
    g_assert_cmpint(size_parse("18446744073709551616", &n), ==, -ERANGE);
    g_assert_cmpint(size_parse("15.9999999999999999999E", &n), ==, -ERANGE);
    g_assert_cmpint(duration_parse("999999999999999d", &n), ==, -ERANGE);
    g_assert_cmpint(duration_parse("18446744073709551615us 1us", &n), ==, -ERANGE);
    g_assert_cmpint(number_parse("99999999999999999999", &n), ==, -ERANGE);
    g_assert_cmpuint(n, ==, 4711);
}

static void rate_may_say_per_second(void) {
    uint64_t n;

    g_assert_cmpint(rate_parse("100M", &n), ==, 0);
    g_assert_cmpuint(n, ==, 100 * MIB);
    g_assert_cmpint(rate_parse("100MiB/s", &n), ==, 0);
    g_assert_cmpuint(n, ==, 100 * MIB);
    g_assert_cmpint(rate_parse("0/s", &n), ==, 0);
    g_assert_cmpint(rate_parse("1M/min", &n), ==, -EINVAL);
}

static void duration_is_read(void) {
    static const struct {
        const char *text;
        uint64_t usec;
    } good[] = {
        {"500ms", 500000},        {"2s", 2000000},
        {"2", 2000000},           {"5min", 300000000},
        {"1h 30min", 5400000000}, {"1h30m", 5400000000},
        {"1.5s", 1500000},        {"7us", 7},
        {" 2 s ", 2000000},       {"0", 0},
    };
    static const char *const bad[] = {"", "s", "-1s", "5x", "5minn", "1h x", "1..5s"};
    uint64_t usec;

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_assert_cmpint(duration_parse(good[i].text, &usec), ==, 0);
        g_assert_cmpuint(usec, ==, good[i].usec);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_cmpint(duration_parse(bad[i], &usec), ==, -EINVAL);
}

static void duration_is_shown_in_two_units(void) {
    static const struct {
        uint64_t usec;
        const char *text;
    } rows[] = {
        {0, "0us"},
        {12345, "12ms"},
        {999999, "999ms"},
        {40 * USEC_PER_SEC, "40s"},
        {100 * USEC_PER_SEC, "1min 40s"},
        {3600 * USEC_PER_SEC, "1h"},
        {3659 * USEC_PER_SEC, "1h"},
        {3660 * USEC_PER_SEC, "1h 1min"},
        {UINT64_C(183600) * USEC_PER_SEC, "2d 3h"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *text = duration_format(rows[i].usec);
        g_assert_cmpstr(text, ==, rows[i].text);
    }
}

static void timestamp_is_read(void) {
    const uint64_t now = UINT64_C(1800000000) * USEC_PER_SEC; /* 2027-01-15 08:00:00 UTC */
    const uint64_t midnight = UINT64_C(1799971200) * USEC_PER_SEC;
    static const char *const bad[] = {"",   "soon",   "2027-13-01",  "2027-01-01 25:00", "12",
                                      "@x", "- 1h x", "2027-01-01x", "12:00:00x"};
    uint64_t t;

    g_assert_cmpint(timestamp_parse("now", now, &t), ==, 0);
    g_assert_cmpuint(t, ==, now);
    g_assert_cmpint(timestamp_parse("today", now, &t), ==, 0);
    g_assert_cmpuint(t, ==, midnight);
    g_assert_cmpint(timestamp_parse("yesterday", now, &t), ==, 0);
    g_assert_cmpuint(t, ==, midnight - UINT64_C(86400) * USEC_PER_SEC);
    g_assert_cmpint(timestamp_parse("2027-01-15", now, &t), ==, 0);
    g_assert_cmpuint(t, ==, midnight);
    g_assert_cmpint(timestamp_parse("2027-01-15 01:02:03", now, &t), ==, 0);
    g_assert_cmpuint(t, ==, midnight + 3723 * USEC_PER_SEC);
    g_assert_cmpint(timestamp_parse("01:02", now, &t), ==, 0);
    g_assert_cmpuint(t, ==, midnight + 3720 * USEC_PER_SEC);
    g_assert_cmpint(timestamp_parse("2h ago", now, &t), ==, 0);
    g_assert_cmpuint(t, ==, now - 7200 * USEC_PER_SEC);
    g_assert_cmpint(timestamp_parse("-2h", now, &t), ==, 0);
    g_assert_cmpuint(t, ==, now - 7200 * USEC_PER_SEC);
    g_assert_cmpint(timestamp_parse("@12", now, &t), ==, 0);
    g_assert_cmpuint(t, ==, 12 * USEC_PER_SEC);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_cmpint(timestamp_parse(bad[i], now, &t), ==, -EINVAL);
}

static void text_is_cut_in_the_middle(void) {
    const char *path = "/srv/images/web.qcow2";

    for (size_t width = 0; width < 40; width++) {
        g_autofree char *narrow = text_ellipsize(path, width, true);
        g_autofree char *ascii = text_ellipsize(path, width, false);
        g_autofree char *wide = text_ellipsize("日本語の長い名前です", width, true);
        g_assert_cmpuint(text_width(narrow), ==, MIN(width, strlen(path)));
        g_assert_cmpuint(text_width(ascii), ==, MIN(width, strlen(path)));
        g_assert_cmpuint(text_width(wide), <=, width);
        g_assert_true(g_utf8_validate(wide, -1, NULL));
    }
    g_autofree char *text = text_ellipsize(path, 16, true);
    g_assert_cmpstr(text, ==, "/srv/…/web.qcow2");
}

static void nearest_word_is_suggested(void) {
    const char *const words[] = {"list", "status", "pivot", "finish", "cancel", NULL};

    g_assert_cmpstr(word_nearest("lsit", words), ==, "list");
    g_assert_cmpstr(word_nearest("pviot", words), ==, "pivot");
    g_assert_cmpstr(word_nearest("canel", words), ==, "cancel");
    g_assert_null(word_nearest("xyzzyx", words));
}

static void job_is_named_in_three_ways(void) {
    static const char *const good[] = {"42", "j42", "/org/blockjob1/job/j42"};
    static const char *const bad[] = {
        "", "0", "j", "42x", "-42", "/org/blockjob1/job/", "jj42", "99999999999999999999"};
    uint64_t id;

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_assert_cmpint(job_parse(good[i], &id), ==, 0);
        g_assert_cmpuint(id, ==, 42);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_cmpint(job_parse(bad[i], &id), ==, -EINVAL);
}

static json_t *job_new(const char *state, const char *result, uint64_t done, uint64_t total) {
    return json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:s}", "Id", 42, "DomainName",
                     "web", "Disk", "vda", "Target", "/srv/new.qcow2", "State", state, "Result",
                     result, "Done", (json_int_t) done, "Total", (json_int_t) total, "Rate",
                     (json_int_t) (120 * MIB), "IoStatus", "ok");
}

static void hundred_percent_is_said_only_when_ready(void) {
    static const struct {
        const char *state, *result;
        uint64_t done, total;
        int percent;
    } rows[] = {
        {"running", "", 0, 0, -1},
        {"running", "", 0, 1000, 0},
        {"running", "", 999, 1000, 99},
        {"running", "", 1000, 1000, 99},
        {"running", "", 2000, 1000, 99},
        {"running", "", UINT64_C(1) << 61, UINT64_C(1) << 62, 50},
        {"ready", "", 1000, 1000, 100},
        {"ready", "", 995, 1000, 99},
        {"pivoting", "", 1000, 1000, 100},
        {"concluded", "pivoted", 1000, 1000, 100},
        {"concluded", "committed", 1000, 1000, 100},
        {"concluded", "pulled", 1000, 1000, 100},
        {"concluded", "cancelled", 1000, 1000, 99},
        {"concluded", "failed", 1000, 1000, 99},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(json_t) job = job_new(rows[i].state, rows[i].result, rows[i].done, rows[i].total);
        g_assert_cmpint(job_percent(job), ==, rows[i].percent);
    }
}

static void sentence_says_how_it_ended(void) {
    static const char *const rows[][3] = {
        {"concluded", "pivoted", "Job 42 has pivoted: web/vda is on /srv/new.qcow2 now."},
        {"concluded", "finished",
         "Job 42 has finished: /srv/new.qcow2 is a consistent copy of web/vda."},
        {"concluded", "committed",
         "Job 42 has committed: images of web/vda are merged into /srv/new.qcow2."},
        {"concluded", "pulled",
         "Job 42 has pulled: /srv/new.qcow2 holds what web/vda had below it."},
        {"concluded", "cancelled", "Job 42 was cancelled; web/vda is where it was."},
        {"concluded", "failed", "Job 42 has failed."},
        {"ready", "", "Job 42 is ready: /srv/new.qcow2 follows web/vda."},
        {"running", "", "Job 42 is running."},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(json_t) job = job_new(rows[i][0], rows[i][1], 1, 1);
        g_autofree char *text = job_sentence(job);
        g_assert_cmpstr(text, ==, rows[i][2]);
    }
}

static void progress_line_fits_every_width(void) {
    g_autoptr(json_t) job = job_new("running", "", 430 * MIB, 1000 * MIB);

    for (size_t width = 1; width < 200; width++) {
        g_autofree char *line = progress_line(job, width, true);
        g_assert_cmpuint(text_width(line), <=, width);
    }
    g_autofree char *wide = progress_line(job, 100, false);
    g_assert_nonnull(strstr(wide, "=>"));
    g_assert_nonnull(strstr(wide, "43 %, 430 MiB of 1000 MiB, 120 MiB/s"));
    g_autofree char *narrow = progress_line(job, 70, false);
    g_assert_null(strstr(narrow, "["));
}

static void control_characters_do_not_reach_the_terminal(void) {
    g_autoptr(json_t) job = job_new("running", "", 1, 2);

    json_object_set_new(job, "DomainName", json_string("a\033[2Jb\r\nc"));
    g_autofree char *line = progress_line(job, 200, true);
    g_assert_true(string_is_printable(line));
}

static char *table_text(const Table *table, size_t width, bool title) {
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    table_print(table, file, width, title);
    fclose(file);
    return text;
}

static void table_shrinks_only_what_may_shrink(void) {
    static const TableColumn columns[] = {
        {"ID", .right = true}, {"NAME"}, {"PATH", .shrink = true}};
    g_autoptr(Table) table = table_new(columns, G_N_ELEMENTS(columns));

    table_cell(table, "%d", 7);
    table_cell(table, "a-rather-long-name");
    table_cell(table, "/srv/some/long/path/to/an/image.qcow2");
    table_cell(table, "%d", 123);
    table_cell(table, "%s", "");
    table_cell(table, "%s", "x\ty");
    char *full = table_text(table, 0, true);
    g_assert_cmpstr(full, ==,
                    " ID  NAME                PATH\n"
                    "  7  a-rather-long-name  /srv/some/long/path/to/an/image.qcow2\n"
                    "123  -                   xy\n");
    char *narrow = table_text(table, 40, false);
    g_assert_nonnull(strstr(narrow, "a-rather-long-name"));
    g_assert_nonnull(strstr(narrow, "ge.qcow2"));
    g_assert_null(strstr(narrow, "PATH"));
    g_assert_cmpuint(table_rows(table), ==, 2);
    free(full);
    free(narrow);
}

static bool parse(Options *options, int *argc, char ***argv, ...) {
    static char *words[16];
    va_list args;
    int n = 0;

    va_start(args, argv);
    words[n++] = (char *) "blockjobctl";
    while (n < 15 && (words[n] = va_arg(args, char *)))
        n++;
    va_end(args);
    words[n] = NULL;
    return options_parse(options, n, words, argc, argv);
}

static void options_stand_anywhere(void) {
    g_auto(Options) options = {0};
    char **args;
    int n;

    g_assert_true(parse(&options, &n, &args, "copy", "--speed=1M", "web", "--json=short", "vda",
                        "-q", "--", "--x", NULL));
    g_assert_cmpint(n, ==, 4);
    g_assert_cmpstr(args[0], ==, "copy");
    g_assert_cmpstr(args[3], ==, "--x");
    g_assert_cmpint(options.json, ==, JSON_SHORT);
    g_assert_true(options.quiet);
    g_assert_cmpstr(options_get(&options, "speed"), ==, "1M");
    g_assert_true(options_check(&options, "copy", TAKES_COPY | TAKES_WAITING));
}

static void last_option_of_a_key_counts(void) {
    g_auto(Options) options = {0};
    char **args;
    int n;

    g_assert_true(parse(&options, &n, &args, "--keep-target", "--delete-target", "--speed=1M",
                        "--speed=2M", NULL));
    g_assert_cmpint(options.dictionary->len, ==, 2);
    g_assert_null(options_get(&options, "keep-target"));
    g_assert_cmpstr(options_get(&options, "speed"), ==, "2M");
}

static void path_becomes_absolute(void) {
    g_autofree char *folder = g_dir_make_tmp("ctl-XXXXXX", NULL);
    char *real = realpath(folder, NULL), *before = g_get_current_dir();

    g_assert_cmpint(g_chdir(folder), ==, 0);
    g_autofree char *plain = path_absolute("x.img"), *dotted = path_absolute("./x.img");
    g_autofree char *above = path_absolute("../x.img"), *nowhere = path_absolute("nope/../x.img");
    g_autofree char *absolute = path_absolute("/a//b.img");
    g_autofree char *expected = g_build_filename(real, "x.img", NULL);
    g_autofree char *parent = g_path_get_dirname(real);
    g_autofree char *expected_above = g_build_filename(parent, "x.img", NULL);
    g_assert_cmpstr(plain, ==, expected);
    g_assert_cmpstr(dotted, ==, expected);
    g_assert_cmpstr(above, ==, expected_above);
    g_assert_null(nowhere);
    g_assert_cmpstr(absolute, ==, "/a//b.img");
    g_assert_cmpint(g_chdir(before), ==, 0);
    g_assert_cmpint(rmdir(folder), ==, 0);
    g_free(before);
    free(real);
}

static void errors_have_their_exit_codes(void) {
    static const struct {
        const char *name;
        CtlExit code;
    } rows[] = {
        {"org.freedesktop.DBus.Error.InvalidArgs", CTL_USAGE},
        {"org.freedesktop.DBus.Error.AccessDenied", CTL_DENIED},
        {"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", CTL_DENIED},
        {"org.freedesktop.DBus.Error.Timeout", CTL_TIMEOUT},
        {"org.freedesktop.DBus.Error.ServiceUnknown", CTL_NO_SERVICE},
        {"org.freedesktop.DBus.Error.NoReply", CTL_NO_SERVICE},
        {"org.freedesktop.DBus.Error.Spawn.ChildExited", CTL_NO_SERVICE},
        {"org.freedesktop.DBus.Error.UnknownObject", CTL_NO_OBJECT},
        {"org.blockjob1.Error.NoSuchDomain", CTL_NO_OBJECT},
        {"org.blockjob1.Error.NotReady", CTL_WRONG_STATE},
        {"org.blockjob1.Error.DiskBusy", CTL_WRONG_STATE},
        {"org.blockjob1.Error.Qemu", CTL_FAILED},
        {"something.Else", CTL_FAILED},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        g_assert_cmpint(error_exit_code(rows[i].name), ==, rows[i].code);
}

int main(int argc, char **argv) {
    g_setenv("TZ", "UTC", TRUE);
    g_unsetenv("COLUMNS");
    setlocale(LC_ALL, "C.UTF-8");
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/ctl/" #name, name)
    ADD(size_is_read_in_powers_of_1024);
    ADD(too_large_is_not_wrapped);
    ADD(rate_may_say_per_second);
    ADD(duration_is_read);
    ADD(duration_is_shown_in_two_units);
    ADD(timestamp_is_read);
    ADD(text_is_cut_in_the_middle);
    ADD(nearest_word_is_suggested);
    ADD(job_is_named_in_three_ways);
    ADD(hundred_percent_is_said_only_when_ready);
    ADD(sentence_says_how_it_ended);
    ADD(progress_line_fits_every_width);
    ADD(control_characters_do_not_reach_the_terminal);
    ADD(table_shrinks_only_what_may_shrink);
    ADD(options_stand_anywhere);
    ADD(last_option_of_a_key_counts);
    ADD(path_becomes_absolute);
    ADD(errors_have_their_exit_codes);
#undef ADD
    return g_test_run();
}
