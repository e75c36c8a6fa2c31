/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking at paths in helper threads: all that answer are told, whoever has lost interest is left alone. What hangs is
 * in the bus suite, with a file system that does. */

#include "image/reach.h"

#include "util.h"

typedef struct {
    sd_event *event;
    unsigned answered, hung;
} Rig;

static void count(Reach *r, const char *hung, void *userdata) {
    Rig *rig = userdata;

    rig->answered += !hung;
    rig->hung += hung != NULL;
}

static void run_until(Rig *rig, unsigned n) {
    uint64_t deadline = now_monotonic() + 20 * USEC_PER_SEC;

    while (rig->answered + rig->hung < n) {
        g_assert_cmpuint(now_monotonic(), <, deadline);
        g_assert_cmpint(sd_event_run(rig->event, USEC_PER_SEC), >=, 0);
    }
}

static void look(Rig *rig, const char *path, Reach **ret) {
    const char *paths[] = {path, "/", NULL};

    g_assert_cmpint(reach_new(rig->event, paths, 10 * USEC_PER_SEC, count, rig, ret), ==, 0);
}

static void paths_that_are_there_or_not_answer(void) {
    static const char *const paths[] = {"/", "/nowhere/at/all", "/dev/null", "relative", ""};
    Rig rig = {0};
    Reach *r;

    g_assert_cmpint(sd_event_new(&rig.event), >=, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(paths); i++) {
        look(&rig, paths[i], &r);
        run_until(&rig, i + 1);
    }
    g_assert_cmpuint(rig.hung, ==, 0);
    sd_event_unref(rig.event);
}

static void more_than_there_are_helpers_are_all_answered(void) {
    Rig rig = {0};
    Reach *r;

    g_assert_cmpint(sd_event_new(&rig.event), >=, 0);
    for (unsigned i = 0; i < 400; i++)
        look(&rig, "/tmp", &r);
    run_until(&rig, 400);
    g_assert_cmpuint(rig.hung, ==, 0);
    sd_event_unref(rig.event);
}

static void what_is_forgotten_is_not_told(void) {
    Rig rig = {0}, forgotten = {0};
    Reach *r;

    g_assert_cmpint(sd_event_new(&rig.event), >=, 0);
    forgotten.event = rig.event;
    for (unsigned i = 0; i < 100; i++) {
        look(&forgotten, "/tmp", &r);
        reach_free(r);
        look(&rig, "/tmp", &r);
    }
    run_until(&rig, 100);
    g_assert_cmpuint(forgotten.answered + forgotten.hung, ==, 0);
    sd_event_unref(rig.event);
}

static void a_deadline_that_is_over_names_a_path(void) {
    Rig rig = {0};
    Reach *r;
    const char *paths[] = {"/tmp", NULL};

    g_assert_cmpint(sd_event_new(&rig.event), >=, 0);
    for (unsigned i = 0; i < 100; i++) /* either is in time, once each */
        g_assert_cmpint(reach_new(rig.event, paths, 0, count, &rig, &r), ==, 0);
    run_until(&rig, 100);
    g_assert_cmpuint(rig.answered + rig.hung, ==, 100);
    sd_event_unref(rig.event);
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/reach/" #name, name)
    ADD(paths_that_are_there_or_not_answer);
    ADD(more_than_there_are_helpers_are_all_answered);
    ADD(what_is_forgotten_is_not_told);
    ADD(a_deadline_that_is_over_names_a_path);
    return g_test_run();
}
