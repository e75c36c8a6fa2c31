/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Authorization against a private bus and a scripted polkit authority: every outcome, what a verdict is bound to, callers
 * that leave, limits. The service here is a handler that counts what it does. */

#include "auth-bus.h"

/* ---- the service ---- */

static int finish(sd_bus_message *m, int r, const Failure *f) {
    if (r < 0)
        return sd_bus_reply_method_errorf(m, failure_name(f->kind), "%s", f->message);
    if (r == 0)
        return 1;
    t.effects++;
    return sd_bus_reply_method_return(m, NULL);
}

static int on_do(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    g_auto(Failure) f = {0};
    g_autofree char *target = g_strconcat("/srv/", t.suffix, NULL);
    AuthRequest request = {.owner_uid = AUTH_NO_OWNER,
                           .verb = "copy",
                           .domain = "we\nb\x1b[0m",
                           .disk = "vda",
                           .target = target,
                           .target_kind = "file"};
    uint32_t action;

    t.visits++;
    if (t.forgetful && t.asked->len > 0)
        return sd_bus_reply_method_return(m, NULL);
    ok(sd_bus_message_read(m, "u", &action));
    request.action = action;
    return finish(m, auth_check(t.auth, m, &request, &f), &f);
}

static int on_owned(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    g_auto(Failure) f = {0};
    AuthRequest request = {.action = AUTH_MANAGE_JOBS, .verb = "cancel", .job = "j7"};

    ok(sd_bus_message_read(m, "u", &request.owner_uid));
    return finish(m, auth_check(t.auth, m, &request, &f), &f);
}

static int on_both(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    g_auto(Failure) f = {0};
    AuthRequest copy = {.action = AUTH_COPY, .owner_uid = AUTH_NO_OWNER};
    AuthRequest delete = {.action = AUTH_DELETE_IMAGE, .owner_uid = AUTH_NO_OWNER};
    int r = auth_check(t.auth, m, &copy, &f);

    if (r > 0)
        r = auth_check(t.auth, m, &delete, &f);
    return finish(m, r, &f);
}

static int on_permissions(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    g_auto(Failure) f = {0};
    int r = auth_reply_permissions(t.auth, m, &f);

    return r < 0 ? finish(m, r, &f) : 1;
}

static int on_whoami(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    g_auto(Failure) f = {0};
    uint32_t uid;
    int r = auth_sender_uid(t.auth, m, &uid, &f);

    return r > 0 ? sd_bus_reply_method_return(m, "u", uid) : finish(m, r, &f);
}

static const sd_bus_vtable service_vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Do", "u", "", on_do, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Owned", "u", "", on_owned, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Both", "", "", on_both, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Permissions", "", "a{ss}", on_permissions, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("WhoAmI", "", "u", on_whoami, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END,
};

static void start_service(unsigned per_uid, unsigned total, uint64_t timeout) {
    t.service = connect_as(0);
    ok(sd_bus_add_object_vtable(t.service, NULL, "/test", "org.blockjob1.Test", service_vtable,
                                NULL));
    ok(auth_new(t.service, per_uid, total, timeout, &t.auth));
    ok(sd_bus_request_name(t.service, "org.blockjob1", 0));
}

/* ---- verdicts ---- */

static void root_passes_without_polkit(void) {
    g_auto(Answer) a = {0};

    start_service(8, 64, DEADLINE);
    do_and_wait(0, AUTH_COPY_ANYWHERE, false, &a);
    assert_allowed(&a);
    g_assert_cmpuint(t.effects, ==, 1);
}

static void yes_is_allowed_once(void) {
    g_auto(Answer) a = {0};
    const Asked *asked;

    start_authority(SAY_YES);
    start_service(8, 64, DEADLINE);
    do_and_wait(ALICE, AUTH_COPY, false, &a);
    assert_allowed(&a);
    g_assert_cmpuint(t.effects, ==, 1);
    g_assert_cmpuint(t.visits, ==, 3);
    g_assert_cmpuint(t.asked->len, ==, 1);
    g_assert_cmpuint(auth_pending(t.auth), ==, 0);
    asked = last_asked();
    g_assert_cmpstr(asked->action, ==, "org.blockjob1.copy");
    g_assert_cmpstr(asked->subject, ==, sd_bus_message_get_destination(a.message));
    g_assert_cmpuint(asked->flags, ==, 0);
}

static void details_are_sent_and_cleaned(void) {
    g_auto(Answer) a = {0};
    g_autofree char *suffix = g_strnfill(1000, 'x');
    GHashTable *details;

    start_authority(SAY_YES);
    start_service(8, 64, DEADLINE);
    t.suffix = suffix;
    do_and_wait(ALICE, AUTH_COPY, false, &a);
    assert_allowed(&a);
    details = last_asked()->details;
    g_assert_cmpuint(g_hash_table_size(details), ==, 5);
    g_assert_cmpstr(g_hash_table_lookup(details, "verb"), ==, "copy");
    g_assert_cmpstr(g_hash_table_lookup(details, "domain"), ==, "web[0m");
    g_assert_cmpstr(g_hash_table_lookup(details, "disk"), ==, "vda");
    g_assert_cmpstr(g_hash_table_lookup(details, "target-kind"), ==, "file");
    g_assert_cmpuint(strlen(g_hash_table_lookup(details, "target")), ==, 256);
}

static void no_is_denied(void) {
    g_auto(Answer) a = {0};

    start_authority(SAY_NO);
    start_service(8, 64, DEADLINE);
    do_and_wait(ALICE, AUTH_COPY, true, &a);
    assert_refused(&a, FAILURE_ACCESS_DENIED, "polkit rule");
    g_assert_cmpuint(t.effects, ==, 0);
}

static void challenge_without_the_flag_asks_to_call_again(void) {
    g_auto(Answer) a = {0};

    start_authority(SAY_CHALLENGE);
    start_service(8, 64, DEADLINE);
    do_and_wait(ALICE, AUTH_COPY, false, &a);
    assert_refused(&a, FAILURE_INTERACTIVE, "allow interactive authorization");
    g_assert_cmpuint(last_asked()->flags, ==, 0);
}

static void challenge_with_the_flag_misses_an_agent(void) {
    g_auto(Answer) a = {0};

    start_authority(SAY_CHALLENGE);
    start_service(8, 64, DEADLINE);
    do_and_wait(ALICE, AUTH_COPY, true, &a);
    assert_refused(&a, FAILURE_ACCESS_DENIED, "pkttyagent");
    g_assert_cmpuint(last_asked()->flags, ==, 1);
}

static void a_closed_dialog_is_a_denial(void) {
    g_auto(Answer) a = {0};

    start_authority(SAY_DISMISSED);
    start_service(8, 64, DEADLINE);
    do_and_wait(ALICE, AUTH_COPY, true, &a);
    assert_refused(&a, FAILURE_ACCESS_DENIED, "dialog was closed");
}

static void any_error_is_a_denial(void) {
    static const Script scripts[] = {SAY_ERROR, SAY_GARBAGE};

    start_authority(SAY_NO);
    start_service(8, 64, DEADLINE);
    for (size_t i = 0; i < G_N_ELEMENTS(scripts); i++) {
        g_auto(Answer) a = {0};

        t.script[AUTH_COPY] = scripts[i];
        do_and_wait(ALICE, AUTH_COPY, true, &a);
        assert_refused(&a, FAILURE_ACCESS_DENIED, "log of blockjobd");
        g_assert_null(strstr(sd_bus_message_get_error(a.message)->message, "secret"));
    }
    g_assert_cmpuint(t.effects, ==, 0);
}

static void without_polkit_only_root_passes(void) {
    g_auto(Answer) a = {0};

    start_service(8, 64, DEADLINE);
    do_and_wait(ALICE, AUTH_COPY, true, &a);
    assert_refused(&a, FAILURE_ACCESS_DENIED, "polkit is not running");
    g_assert_cmpuint(t.effects, ==, 0);
}

static void polkit_that_dies_is_a_denial(void) {
    g_auto(Answer) a = {0};
    sd_bus *alice;

    start_authority(SAY_NOTHING);
    start_service(8, 64, DEADLINE);
    alice = connect_as(ALICE);
    send_do(alice, AUTH_COPY, true, &a);
    WAIT_UNTIL(t.asked->len == 1);
    g_ptr_array_set_size(t.asked, 0);
    sd_bus_close_unref(t.authority);
    t.authority = NULL;
    WAIT_UNTIL(a.done);
    assert_refused(&a, FAILURE_ACCESS_DENIED, "did not answer");
    sd_bus_flush_close_unref(alice);
}

static void a_hanging_polkit_is_given_up_and_cancelled(void) {
    g_auto(Answer) a = {0};

    start_authority(SAY_NOTHING);
    start_service(8, 64, 200 * USEC_PER_MSEC);
    do_and_wait(ALICE, AUTH_COPY, true, &a);
    assert_refused(&a, FAILURE_ACCESS_DENIED, "did not answer in time");
    WAIT_UNTIL(t.cancelled->len == 1);
    g_assert_cmpstr(t.cancelled->pdata[0], ==, last_asked()->cancel_id);
    g_assert_cmpuint(t.effects, ==, 0);
}

static void others_are_served_while_a_check_waits(void) {
    g_auto(Answer) slow = {0}, quick = {0}, root = {0};
    sd_bus *alice;

    start_authority(SAY_NOTHING);
    start_service(8, 64, DEADLINE);
    t.script[AUTH_ATTACH] = SAY_YES;
    alice = connect_as(ALICE);
    send_do(alice, AUTH_COPY, true, &slow);
    WAIT_UNTIL(t.asked->len == 1);
    do_and_wait(BOB, AUTH_ATTACH, false, &quick);
    do_and_wait(0, AUTH_COPY, false, &root);
    assert_allowed(&quick);
    assert_allowed(&root);
    g_assert_false(slow.done);
    ok(say(((Asked *) t.asked->pdata[0])->message, SAY_YES));
    WAIT_UNTIL(slow.done);
    assert_allowed(&slow);
    g_assert_cmpuint(t.effects, ==, 3);
    sd_bus_flush_close_unref(alice);
}

/* ---- what a verdict is bound to ---- */

static void two_requests_of_one_call_are_asked_in_turn(void) {
    g_auto(Answer) a = {0};
    sd_bus *alice;

    start_authority(SAY_YES);
    start_service(8, 64, DEADLINE);
    alice = connect_as(ALICE);
    send_call(alice, new_call(alice, "Both"), &a);
    WAIT_UNTIL(a.done);
    assert_allowed(&a);
    g_assert_cmpuint(t.effects, ==, 1);
    g_assert_cmpuint(t.asked->len, ==, 2);
    g_assert_cmpstr(last_asked()->action, ==, "org.blockjob1.delete-image");

    t.script[AUTH_DELETE_IMAGE] = SAY_NO;
    send_call(alice, new_call(alice, "Both"), &a);
    WAIT_UNTIL(a.done);
    assert_refused(&a, FAILURE_ACCESS_DENIED, "org.blockjob1.delete-image");
    g_assert_cmpuint(t.effects, ==, 1);
    sd_bus_flush_close_unref(alice);
}

static void a_verdict_is_for_one_call_only(void) {
    g_auto(Answer) a = {0};
    sd_bus *alice;

    start_authority(SAY_YES);
    start_service(8, 64, DEADLINE);
    alice = connect_as(ALICE);
    send_do(alice, AUTH_COPY, false, &a);
    WAIT_UNTIL(a.done);
    assert_allowed(&a);
    t.script[AUTH_COPY] = SAY_NO;
    send_do(alice, AUTH_COPY, false, &a);
    WAIT_UNTIL(a.done);
    assert_refused(&a, FAILURE_ACCESS_DENIED, "org.blockjob1.copy");
    g_assert_cmpuint(t.asked->len, ==, 2);
    sd_bus_flush_close_unref(alice);
}

static void a_verdict_is_for_these_details_only(void) {
    g_auto(Answer) a = {0};
    sd_bus *alice;

    start_authority(SAY_NOTHING);
    start_service(8, 64, DEADLINE);
    alice = connect_as(ALICE);
    send_do(alice, AUTH_COPY, false, &a);
    WAIT_UNTIL(t.asked->len == 1);
    t.suffix = "other.qcow2";
    t.script[AUTH_COPY] = SAY_NO;
    ok(say(last_asked()->message, SAY_YES));
    WAIT_UNTIL(a.done);
    assert_refused(&a, FAILURE_ACCESS_DENIED, "org.blockjob1.copy");
    g_assert_cmpuint(t.asked->len, ==, 2);
    g_assert_cmpstr(g_hash_table_lookup(last_asked()->details, "target"), ==, "/srv/other.qcow2");
    g_assert_cmpuint(t.effects, ==, 0);
    sd_bus_flush_close_unref(alice);
}

static void owners_need_no_check(void) {
    static const struct {
        uid_t caller;
        uint32_t owner;
        bool asked;
    } cases[] = {{ALICE, ALICE, false}, {BOB, ALICE, true}, {BOB, 0, true}, {0, ALICE, false}};

    start_authority(SAY_NO);
    start_service(8, 64, DEADLINE);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(Answer) a = {0};
        sd_bus *bus = connect_as(cases[i].caller);
        sd_bus_message *m = new_call(bus, "Owned");

        g_ptr_array_set_size(t.asked, 0);
        ok(sd_bus_message_append(m, "u", cases[i].owner));
        send_call(bus, m, &a);
        WAIT_UNTIL(a.done);
        g_assert_cmpuint(t.asked->len, ==, cases[i].asked);
        if (cases[i].asked) {
            g_autofree char *owner = g_strdup_printf("%u", cases[i].owner);
            assert_refused(&a, FAILURE_ACCESS_DENIED, "org.blockjob1.manage-jobs");
            g_assert_cmpstr(g_hash_table_lookup(last_asked()->details, "job-owner"), ==, owner);
            g_assert_cmpstr(g_hash_table_lookup(last_asked()->details, "job"), ==, "j7");
        } else
            assert_allowed(&a);
        sd_bus_flush_close_unref(bus);
    }
}

/* ---- callers that leave ---- */

static void a_caller_who_leaves_is_cancelled_and_nothing_happens(void) {
    g_auto(Answer) a = {0}, barrier = {0};
    sd_bus *alice;

    start_authority(SAY_NOTHING);
    start_service(8, 64, DEADLINE);
    alice = connect_as(ALICE);
    send_do(alice, AUTH_COPY, true, &a);
    WAIT_UNTIL(t.asked->len == 1);
    g_assert_cmpuint(auth_pending(t.auth), ==, 1);
    sd_bus_close_unref(alice);
    WAIT_UNTIL(t.cancelled->len == 1);
    g_assert_cmpstr(t.cancelled->pdata[0], ==, last_asked()->cancel_id);
    g_assert_cmpuint(auth_pending(t.auth), ==, 0);

    ok(say(last_asked()->message, SAY_YES));
    do_and_wait(0, AUTH_COPY, false, &barrier);
    g_assert_cmpuint(t.effects, ==, 1);
}

static void a_call_of_somebody_gone_before_the_uid_is_known_is_dropped(void) {
    g_auto(Answer) barrier = {0};
    sd_bus_message *m;
    sd_bus *root;

    start_authority(SAY_YES);
    start_service(8, 64, DEADLINE);
    do_and_wait(0, AUTH_COPY, false, &barrier);
    root = connect_as(0);
    WAIT_UNTIL(sd_bus_is_ready(root) > 0);
    m = new_call(root, "Do");
    ok(sd_bus_message_append(m, "u", (uint32_t) AUTH_COPY));
    ok(sd_bus_message_set_expect_reply(m, false));
    ok(sd_bus_send(root, m, NULL));
    sd_bus_message_unref(m);
    sd_bus_flush_close_unref(root);
    WAIT_UNTIL(t.visits == 3);
    do_and_wait(0, AUTH_COPY, false, &barrier);
    g_assert_cmpuint(t.effects, ==, 2);
    g_assert_cmpuint(auth_pending(t.auth), ==, 0);
}

/* ---- limits ---- */

static void limits_hold_for_a_uid_and_for_all(void) {
    g_auto(Answer) first = {0}, second = {0}, third = {0}, bobs = {0}, bobs_second = {0};
    sd_bus *alice, *alice2, *bob;

    start_authority(SAY_NOTHING);
    start_service(2, 3, DEADLINE);
    alice = connect_as(ALICE);
    alice2 = connect_as(ALICE);
    bob = connect_as(BOB);
    send_do(alice, AUTH_COPY, true, &first);
    send_do(alice2, AUTH_COPY, true, &second);
    WAIT_UNTIL(t.asked->len == 2);
    send_do(alice2, AUTH_COPY, true, &third);
    WAIT_UNTIL(third.done);
    assert_refused(&third, FAILURE_LIMITS_EXCEEDED, "2 of your calls");
    send_do(bob, AUTH_COPY, true, &bobs);
    WAIT_UNTIL(t.asked->len == 3);
    send_do(bob, AUTH_COPY, true, &bobs_second);
    WAIT_UNTIL(bobs_second.done);
    assert_refused(&bobs_second, FAILURE_LIMITS_EXCEEDED, "3 calls wait");
    g_assert_cmpuint(auth_pending(t.auth), ==, 3);

    for (guint i = 0; i < 3; i++)
        ok(say(((Asked *) t.asked->pdata[i])->message, SAY_YES));
    WAIT_UNTIL(first.done && second.done && bobs.done);
    t.script[AUTH_COPY] = SAY_YES;
    send_do(alice2, AUTH_COPY, true, &third);
    WAIT_UNTIL(third.done);
    assert_allowed(&third);
    g_assert_cmpuint(t.effects, ==, 4);
    sd_bus_flush_close_unref(alice);
    sd_bus_flush_close_unref(alice2);
    sd_bus_flush_close_unref(bob);
}

static void a_handler_that_never_asks_again_gives_its_place_back(void) {
    start_authority(SAY_YES);
    start_service(1, 1, DEADLINE);
    t.forgetful = true;
    for (int i = 0; i < 3; i++) {
        g_auto(Answer) a = {0};
        g_ptr_array_set_size(t.asked, 0);
        do_and_wait(ALICE, AUTH_COPY, false, &a);
        assert_allowed(&a);
        g_assert_cmpuint(t.asked->len, ==, 1);
    }
}

static void a_flood_before_the_uid_is_known_is_bounded(void) {
    enum { N = 2000 };
    Answer *answers = g_new0(Answer, N);
    unsigned refused = 0, last = 0;
    sd_bus *alice;

    start_service(8, 64, DEADLINE);
    alice = connect_as(ALICE);
    for (unsigned i = 0; i < N; i++)
        send_call(alice, new_call(alice, "WhoAmI"), &answers[i]);
    for (unsigned i = 0; i < N; i++)
        WAIT_UNTIL(answers[i].done);
    for (unsigned i = 0; i < N; i++) {
        uint32_t uid = 0;
        if (sd_bus_message_is_method_error(answers[i].message, NULL)) {
            assert_refused(&answers[i], FAILURE_LIMITS_EXCEEDED, "Too many calls wait");
            refused++;
        } else {
            ok(sd_bus_message_read(answers[i].message, "u", &uid));
            g_assert_cmpuint(uid, ==, ALICE);
            last = i;
        }
        answer_clear(&answers[i]);
    }
    g_test_message("%u of %u refused, last answered %u", refused, N, last);
    g_assert_cmpuint(auth_pending(t.auth), ==, 0);
    g_free(answers);
    sd_bus_flush_close_unref(alice);
}

static void more_callers_than_are_remembered(void) {
    enum { N = 1100 };
    Answer *answers = g_new0(Answer, N);
    sd_bus **callers = g_new0(sd_bus *, N);

    start_service(8, 64, DEADLINE);
    for (unsigned i = 0; i < N; i++) { /* the bus takes its time for so many handshakes */
        callers[i] = connect_as(ALICE + i % 2);
        WAIT_UNTIL(sd_bus_is_ready(callers[i]) > 0);
    }
    /* In portions: over a thousand senders at once are over the limit of look-ups. */
    for (unsigned round = 0; round < 2; round++)
        for (unsigned start = 0; start < N; start += 100) {
            for (unsigned i = start; i < start + 100; i++)
                send_call(callers[i], new_call(callers[i], "WhoAmI"), &answers[i]);
            for (unsigned i = start; i < start + 100; i++) {
                uint32_t uid = 0;
                WAIT_UNTIL(answers[i].done);
                assert_allowed(&answers[i]);
                ok(sd_bus_message_read(answers[i].message, "u", &uid));
                g_assert_cmpuint(uid, ==, ALICE + i % 2);
            }
        }
    for (unsigned i = 0; i < N; i++) {
        answer_clear(&answers[i]);
        sd_bus_close_unref(callers[i]);
    }
    g_free(callers);
    g_free(answers);
}

/* ---- the bus policy ---- */

static void only_root_and_the_service_own_the_name(void) {
    sd_bus *alice = connect_as(ALICE), *root = connect_as(0);

    g_assert_cmpint(sd_bus_request_name(alice, "org.blockjob1", 0), ==, -EACCES);
    g_assert_cmpint(sd_bus_request_name(root, "org.blockjob1", 0), >, 0);
    sd_bus_flush_close_unref(alice);
    sd_bus_flush_close_unref(root);
}

/* ---- GetPermissions ---- */

static void assert_permissions(uid_t uid, const char *const expected[static _AUTH_MAX]) {
    g_auto(Answer) a = {0};
    sd_bus *bus = connect_as(uid);
    const char *action, *word;
    unsigned n = 0;

    send_call(bus, new_call(bus, "Permissions"), &a);
    WAIT_UNTIL(a.done);
    assert_allowed(&a);
    ok(sd_bus_message_enter_container(a.message, 'a', "{ss}"));
    while (sd_bus_message_read(a.message, "{ss}", &action, &word) > 0) {
        g_assert_cmpstr(action, ==, auth_action_name(n));
        g_assert_cmpstr(word, ==, expected[n]);
        n++;
    }
    g_assert_cmpuint(n, ==, _AUTH_MAX);
    g_assert_cmpuint(auth_pending(t.auth), ==, 0);
    sd_bus_flush_close_unref(bus);
}

static void permissions_tell_what_polkit_would_say(void) {
    start_authority(SAY_YES);
    start_service(8, 64, DEADLINE);
    t.script[AUTH_COPY] = SAY_NO;
    t.script[AUTH_DELETE_IMAGE] = SAY_CHALLENGE;
    t.script[AUTH_COMPLETE] = SAY_ERROR;
    assert_permissions(
        ALICE, (const char *const[]){"yes", "no", "yes", "yes", "challenge", "no", "yes", "yes"});
    g_assert_cmpuint(t.asked->len, ==, _AUTH_MAX);
    for (guint i = 0; i < t.asked->len; i++) {
        const Asked *asked = t.asked->pdata[i];
        g_assert_cmpuint(asked->flags, ==, 0);
        g_assert_cmpuint(g_hash_table_size(asked->details), ==, 0);
    }
    assert_permissions(
        0, (const char *const[]){"yes", "yes", "yes", "yes", "yes", "yes", "yes", "yes"});
    g_assert_cmpuint(t.asked->len, ==, _AUTH_MAX);
}

static void permissions_without_polkit_are_no(void) {
    start_service(8, 64, DEADLINE);
    assert_permissions(ALICE,
                       (const char *const[]){"no", "no", "no", "no", "no", "no", "no", "no"});
    assert_permissions(
        0, (const char *const[]){"yes", "yes", "yes", "yes", "yes", "yes", "yes", "yes"});
}

static void permissions_of_a_caller_who_leaves_are_cancelled(void) {
    g_auto(Answer) a = {0};
    sd_bus *alice;

    start_authority(SAY_NOTHING);
    start_service(8, 64, DEADLINE);
    alice = connect_as(ALICE);
    send_call(alice, new_call(alice, "Permissions"), &a);
    WAIT_UNTIL(t.asked->len == _AUTH_MAX);
    sd_bus_close_unref(alice);
    WAIT_UNTIL(t.cancelled->len == _AUTH_MAX);
    g_assert_cmpuint(auth_pending(t.auth), ==, 0);
}

static void checks_that_wait_are_cancelled_at_the_end(void) {
    g_auto(Answer) a = {0}, lookup = {0};
    sd_bus *alice, *bob;

    start_authority(SAY_NOTHING);
    start_service(8, 64, DEADLINE);
    alice = connect_as(ALICE);
    bob = connect_as(BOB);
    send_do(alice, AUTH_COPY, true, &a);
    WAIT_UNTIL(t.asked->len == 1);
    send_do(bob, AUTH_COPY, true, &lookup);
    WAIT_UNTIL(auth_pending(t.auth) == 2);
    t.auth = auth_free(t.auth);
    WAIT_UNTIL(t.cancelled->len >= 1);
    g_assert_cmpuint(t.effects, ==, 0);
    g_assert_false(a.done);
    sd_bus_close_unref(alice);
    sd_bus_close_unref(bob);
}

static void run(gconstpointer test) {
    setup();
    ((void (*)(void)) test)();
    teardown();
}

int main(int argc, char **argv) {
    struct rlimit files;

    g_test_init(&argc, &argv, NULL);
    if (geteuid() != 0) {
        g_print("1..0 # SKIP callers of other uids can be made by root only\n");
        return 0;
    }
    log_set_max_level(LOG_ERR);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = MIN(files.rlim_max, 8192);
    setrlimit(RLIMIT_NOFILE, &files);

#define TEST(name) g_test_add_data_func("/auth/" #name, (gconstpointer) name, run)
    TEST(root_passes_without_polkit);
    TEST(yes_is_allowed_once);
    TEST(details_are_sent_and_cleaned);
    TEST(no_is_denied);
    TEST(challenge_without_the_flag_asks_to_call_again);
    TEST(challenge_with_the_flag_misses_an_agent);
    TEST(a_closed_dialog_is_a_denial);
    TEST(any_error_is_a_denial);
    TEST(without_polkit_only_root_passes);
    TEST(polkit_that_dies_is_a_denial);
    TEST(a_hanging_polkit_is_given_up_and_cancelled);
    TEST(others_are_served_while_a_check_waits);
    TEST(two_requests_of_one_call_are_asked_in_turn);
    TEST(a_verdict_is_for_one_call_only);
    TEST(a_verdict_is_for_these_details_only);
    TEST(owners_need_no_check);
    TEST(a_caller_who_leaves_is_cancelled_and_nothing_happens);
    TEST(a_call_of_somebody_gone_before_the_uid_is_known_is_dropped);
    TEST(limits_hold_for_a_uid_and_for_all);
    TEST(a_handler_that_never_asks_again_gives_its_place_back);
    TEST(a_flood_before_the_uid_is_known_is_bounded);
    TEST(more_callers_than_are_remembered);
    TEST(only_root_and_the_service_own_the_name);
    TEST(permissions_tell_what_polkit_would_say);
    TEST(permissions_without_polkit_are_no);
    TEST(permissions_of_a_caller_who_leaves_are_cancelled);
    TEST(checks_that_wait_are_cancelled_at_the_end);
    return g_test_run();
}
