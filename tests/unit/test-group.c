/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Groups: what is gathered from members, and whether a group of two comes to its right end whatever dies when. */

#include <glib.h>
#include <string.h>

#include "group-model.h"
#include "job/step.h"

/* ── the small world ── */

static const GroupRules sound = {true, true, true, true};

static void every_death_between_two_members_ends_well(void) {
    g_autofree char *text = group_explore(sound);

    if (text)
        g_error("%s", text);
}

static void assert_harm(GroupRules broken, const char *words) {
    g_autofree char *text = group_explore(broken);

    g_assert_nonnull(text);
    if (!strstr(text, words))
        g_error("Another harm was seen: %s", text);
}

static void a_decision_without_all_does_harm(void) {
    GroupRules broken = sound;
    broken.all_must_be_pending = false;
    assert_harm(broken, "lacks writes");
}

static void a_record_that_decides_for_one_only_does_harm(void) {
    GroupRules broken = sound;
    broken.decision_is_of_all = false;
    assert_harm(broken, "not that of its members");
}

static void a_failure_that_is_kept_to_oneself_does_harm(void) {
    GroupRules broken = sound;
    broken.failure_is_of_all = false;
    assert_harm(broken, "nothing goes on any more");
}

static void a_member_that_ends_by_itself_does_harm(void) {
    GroupRules broken = sound;
    broken.members_wait = false;
    assert_harm(broken, "without a durable decision of the group");
}

/* ── gathering ── */

static StepFacts gathered(StepFacts f, StepMember a, StepMember b) {
    StepMember members[] = {a, b};

    job_step_gather(&f, members, 2);
    return f;
}

#define M(s, q) ((StepMember){.state = JOB_##s, .qjob = QJOB_##q})
#define OVER(r) ((StepMember){.state = JOB_PENDING, .result = RESULT_##r, .qjob = QJOB_CONCLUDED})
#define GROUP(s, i, ...)                                                                           \
    ((StepFacts){.state = JOB_##s, .intent = INTENT_##i, .link = LINK_LIVE, __VA_ARGS__})
#define assert_phase(facts, a, b, phase)                                                           \
    do {                                                                                           \
        g_assert_cmpint(gathered(facts, a, b).qjob, ==, QJOB_##phase);                             \
        g_assert_cmpint(gathered(facts, b, a).qjob, ==, QJOB_##phase);                             \
    } while (0)

static void before_the_end_the_last_one_counts(void) {
    assert_phase(GROUP(PREPARING, NONE), M(PREPARING, RUNNING), M(RUNNING, RUNNING), ENDING);
    assert_phase(GROUP(PREPARING, NONE), M(RUNNING, READY), M(RUNNING, RUNNING), RUNNING);
    assert_phase(GROUP(RUNNING, NONE), M(READY, READY), M(RUNNING, READY), RUNNING);
    assert_phase(GROUP(RUNNING, NONE), M(READY, READY), M(READY, READY), READY);
    assert_phase(GROUP(PIVOTING, PIVOT), M(PIVOTING, PENDING), M(PIVOTING, READY), READY);
    assert_phase(GROUP(PIVOTING, PIVOT), M(PIVOTING, PENDING), M(PIVOTING, PENDING), PENDING);
    assert_phase(GROUP(PIVOTING, PIVOT), M(PIVOTING, PENDING), M(PIVOTING, FAILED), ENDING);
}

static void on_the_way_back_what_is_held_comes_first(void) {
    assert_phase(GROUP(READY, NONE), M(READY, PENDING), M(READY, READY), PENDING);
    assert_phase(GROUP(PIVOTING, PIVOT, .overdue = true), M(PIVOTING, PENDING), M(PIVOTING, READY),
                 PENDING);
    assert_phase(GROUP(PIVOTING, PIVOT, .result = RESULT_FAILED), M(PIVOTING, PENDING),
                 OVER(FAILED), PENDING);
    assert_phase(GROUP(CANCELLING, CANCEL), M(CANCELLING, PENDING), M(CANCELLING, READY), PENDING);
}

static void after_the_decision_the_rest_goes_forward(void) {
    assert_phase(GROUP(PIVOTING, PIVOT, .decided = true), M(PENDING, PENDING), OVER(PIVOTED),
                 PENDING);
    assert_phase(GROUP(PIVOTING, PIVOT, .decided = true), OVER(PIVOTED), OVER(PIVOTED), CONCLUDED);
    assert_phase(GROUP(PIVOTING, PIVOT, .decided = true), OVER(PIVOTED), OVER(FAILED), FAILED);
    g_assert_cmpint(gathered(GROUP(PIVOTING, PIVOT), OVER(PIVOTED), OVER(PIVOTED)).root, ==,
                    ROOT_TARGET);
    g_assert_cmpint(gathered(GROUP(PIVOTING, PIVOT), OVER(PIVOTED), OVER(FAILED)).root, ==,
                    ROOT_SOURCE);
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
#define TEST(name) g_test_add_func("/group/" #name, name)
    TEST(before_the_end_the_last_one_counts);
    TEST(on_the_way_back_what_is_held_comes_first);
    TEST(after_the_decision_the_rest_goes_forward);
    TEST(every_death_between_two_members_ends_well);
    TEST(a_decision_without_all_does_harm);
    TEST(a_record_that_decides_for_one_only_does_harm);
    TEST(a_failure_that_is_kept_to_oneself_does_harm);
    TEST(a_member_that_ends_by_itself_does_harm);
#undef TEST
    return g_test_run();
}
