/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tests of progress: rate, expected end, pauses, counts that jump. */

#include <glib.h>

#include "job/progress.h"
#include "util.h"

#define START (UINT64_C(1000) * USEC_PER_SEC)
#define REAL (UINT64_C(1700000000) * USEC_PER_SEC)

/* Copies at rate for seconds, looked at every step µs. Returns the time after it. */
static uint64_t copy_at(Progress *p, uint64_t now, uint64_t rate, unsigned seconds, uint64_t step,
                        bool paused) {
    uint64_t begin = p->done, end = now + seconds * USEC_PER_SEC;
    for (uint64_t t = now + step; t <= end; t += step)
        progress_update(p, begin + rate * (t - now) / USEC_PER_SEC, p->total, paused, t,
                        REAL + t - START);
    return end;
}

static void assert_near(uint64_t value, uint64_t expected, uint64_t slack) {
    g_assert_cmpuint(value, >=, expected - slack);
    g_assert_cmpuint(value, <=, expected + slack);
}

static void nothing_is_known_at_first(void) {
    Progress p;
    progress_init(&p);
    g_assert_cmpuint(p.rate, ==, 0);
    g_assert_cmpuint(progress_remaining(&p), ==, 0);
    g_assert_cmpuint(progress_remaining_time(&p), ==, UINT64_MAX);

    /* The first count may be 40 GiB of an old job: it says nothing about the rate. */
    g_assert_true(progress_update(&p, 40 * GIB, 100 * GIB, false, START, REAL));
    g_assert_cmpuint(p.rate, ==, 0);
    g_assert_cmpuint(p.expected_end, ==, 0);
    g_assert_cmpuint(progress_remaining(&p), ==, 60 * GIB);
    g_assert_cmpuint(progress_remaining_time(&p), ==, UINT64_MAX);
}

static void steady_rate_gives_the_end(void) {
    Progress p;
    progress_init(&p);
    progress_update(&p, 0, 10 * GIB, false, START, REAL);
    copy_at(&p, START, 20 * MIB, 20, USEC_PER_SEC / 2, false);
    assert_near(p.rate, 20 * MIB, KIB);
    g_assert_cmpuint(p.done, ==, 400 * MIB);
    uint64_t left = (10 * GIB - 400 * MIB) / (20 * MIB) * USEC_PER_SEC;
    assert_near(progress_remaining_time(&p), left, USEC_PER_SEC);
    assert_near(p.expected_end, REAL + 20 * USEC_PER_SEC + left, left / 40);
}

static void rate_follows_in_seconds(void) {
    Progress p;
    progress_init(&p);
    progress_update(&p, 0, 10 * GIB, false, START, REAL);
    uint64_t now = copy_at(&p, START, 20 * MIB, 10, USEC_PER_SEC / 2, false);
    now = copy_at(&p, now, 60 * MIB, 3, USEC_PER_SEC / 2, false);
    g_assert_cmpuint(p.rate, >, 35 * MIB);
    g_assert_cmpuint(p.rate, <, 55 * MIB);
    copy_at(&p, now, 60 * MIB, 20, USEC_PER_SEC / 2, false);
    assert_near(p.rate, 60 * MIB, MIB);
}

static void looks_in_quick_succession_do_not_disturb(void) {
    Progress p;
    progress_init(&p);
    progress_update(&p, 0, 10 * GIB, false, START, REAL);
    uint64_t now = copy_at(&p, START, 20 * MIB, 10, USEC_PER_SEC / 2, false);
    /* A whole buffer is counted 1 ms later. */
    g_assert_true(progress_update(&p, p.done + 16 * MIB, p.total, false, now + USEC_PER_MSEC,
                                  REAL + now - START + USEC_PER_MSEC));
    assert_near(p.rate, 20 * MIB, KIB);
    g_assert_cmpuint(p.done, ==, 216 * MIB);
}

static void same_count_at_the_same_time_is_no_change(void) {
    Progress p;
    progress_init(&p);
    g_assert_true(progress_update(&p, 0, GIB, false, START, REAL));
    g_assert_false(progress_update(&p, 0, GIB, false, START, REAL));
    g_assert_true(progress_update(&p, 0, 2 * GIB, false, START, REAL));
    g_assert_false(progress_update(&p, 0, 2 * GIB, true, START + USEC_PER_SEC, REAL));
}

static void end_does_not_creep(void) {
    Progress p;
    progress_init(&p);
    progress_update(&p, 0, 10 * GIB, false, START, REAL);
    uint64_t now = copy_at(&p, START, 20 * MIB, 10, USEC_PER_SEC / 2, false);
    uint64_t end = p.expected_end;
    copy_at(&p, now, 20 * MIB, 60, USEC_PER_SEC / 2, false);
    g_assert_cmpuint(p.expected_end, ==, end);
}

static void pause_stops_rate_and_end_and_is_not_counted(void) {
    Progress p;
    progress_init(&p);
    progress_update(&p, 0, 10 * GIB, false, START, REAL);
    uint64_t now = copy_at(&p, START, 20 * MIB, 10, USEC_PER_SEC / 2, false);
    now = copy_at(&p, now, 0, 100, USEC_PER_SEC, true);
    g_assert_cmpuint(p.rate, ==, 0);
    g_assert_cmpuint(p.expected_end, ==, 0);
    g_assert_cmpuint(progress_remaining_time(&p), ==, UINT64_MAX);
    copy_at(&p, now, 20 * MIB, 1, USEC_PER_SEC / 2, false);
    assert_near(p.rate, 20 * MIB, KIB);
    g_assert_cmpuint(p.expected_end, >, REAL + 100 * USEC_PER_SEC);
}

static void standing_job_has_no_rate_in_the_end(void) {
    Progress p;
    progress_init(&p);
    progress_update(&p, 0, 10 * GIB, false, START, REAL);
    uint64_t now = copy_at(&p, START, 20 * MIB, 10, USEC_PER_SEC / 2, false);
    now = copy_at(&p, now, 0, 10, USEC_PER_SEC, false);
    g_assert_cmpuint(p.rate, <, 2 * MIB);
    copy_at(&p, now, 0, 30, USEC_PER_SEC, false);
    g_assert_cmpuint(p.rate, ==, 0);
    g_assert_cmpuint(p.expected_end, ==, 0);
}

static void smaller_count_begins_anew(void) {
    Progress p;
    progress_init(&p);
    progress_update(&p, 0, 10 * GIB, false, START, REAL);
    uint64_t now = copy_at(&p, START, 20 * MIB, 10, USEC_PER_SEC / 2, false);
    progress_update(&p, 0, 10 * GIB, false, now + USEC_PER_SEC, REAL);
    g_assert_cmpuint(p.rate, ==, 0);
    g_assert_cmpuint(p.done, ==, 0);
    copy_at(&p, now + USEC_PER_SEC, 5 * MIB, 1, USEC_PER_SEC, false);
    assert_near(p.rate, 5 * MIB, KIB);
}

static void nothing_left_takes_no_time(void) {
    Progress p;
    progress_init(&p);
    progress_update(&p, GIB, GIB, false, START, REAL);
    g_assert_cmpuint(progress_remaining(&p), ==, 0);
    g_assert_cmpuint(progress_remaining_time(&p), ==, 0);
    g_assert_cmpuint(p.expected_end, ==, 0);
    /* More done than there was: failed operations count as well. */
    progress_update(&p, 2 * GIB, GIB, false, START + USEC_PER_SEC, REAL);
    g_assert_cmpuint(progress_remaining(&p), ==, 0);
    g_assert_cmpuint(progress_remaining_time(&p), ==, 0);
}

static void any_numbers_are_survived(void) {
    static const uint64_t values[] = {0, 1, GIB, INT64_MAX, UINT64_MAX};
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    Progress p;

    progress_init(&p);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t v[4];
        for (unsigned j = 0; j < G_N_ELEMENTS(v); j++)
            v[j] = values[g_rand_int_range(rand, 0, G_N_ELEMENTS(values))];
        progress_update(&p, v[0], v[1], g_rand_boolean(rand), v[2], v[3]);
        g_assert_cmpuint(progress_remaining(&p), <=, p.total);
        progress_remaining_time(&p);
        g_assert_cmpuint(p.rate, <=, INT64_MAX);
    }
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
#define TEST(name) g_test_add_func("/progress/" #name, name)
    TEST(nothing_is_known_at_first);
    TEST(steady_rate_gives_the_end);
    TEST(rate_follows_in_seconds);
    TEST(looks_in_quick_succession_do_not_disturb);
    TEST(same_count_at_the_same_time_is_no_change);
    TEST(end_does_not_creep);
    TEST(pause_stops_rate_and_end_and_is_not_counted);
    TEST(standing_job_has_no_rate_in_the_end);
    TEST(smaller_count_begins_anew);
    TEST(nothing_left_takes_no_time);
    TEST(any_numbers_are_survived);
    return g_test_run();
}
