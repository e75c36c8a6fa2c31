/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A job's record and back, its transition table, and what a copy is refused for by its words alone. */

#include <glib.h>
#include <jansson.h>
#include <string.h>

#include "job/internal.h"
#include "log.h"

/* ── the record ── */

static char *word(const char *s) {
    return g_strdup(s);
}

static void fill_copy(Copy *c) {
    c->source_node = word("#block123");
    c->source_path = word("/srv/source.raw");
    c->source_format = word("raw");
    c->source_id = (ImageId){64768, 131};
    c->old_nodes = g_strsplit("#block123,#block045", ",", -1);
    c->under_filter = c->source_block = c->target_known = c->target_block = c->direct = true;
    c->delete_source = c->delete_target = true;
    c->definition = word("/etc/web.xml");
    c->size = UINT64_C(1) << 62;
    c->target_kind = TARGET_BLOCK;
    c->target_id = (ImageId){64769, 132};
    g_free(c->target_format);
    c->target_format = word("qcow2");
    c->backing_node = word("base");
    c->backing_path = word("/srv/base.qcow2");
    c->backing_format = word("qcow2");
    c->sync = word("top");
    c->on_source_error = word("report");
    c->on_target_error = word("stop");
    c->preallocation = word("metadata");
    c->discard = word("unmap");
    c->detect_zeroes = word("on");
    c->cache = word("direct");
    c->aio = word("io_uring");
    c->buf_size = 7 * MIB;
    c->granularity = UINT32_MAX;
    c->cluster_size = 65536;
}

static void fill_chain(Chain *c) {
    c->one_phase = c->delete_images = true;
    c->top_node = word("top");
    c->base_node = word("base");
    c->layer_node = word("layer");
    c->layer_path = word("/srv/layer.qcow2");
    c->gone_node = word("gone");
    c->gone_id = (ImageId){64770, 133};
    c->base_id = (ImageId){64771, 134};
    c->backing_file = word("../base.qcow2");
    c->after = g_strsplit("/srv/layer.qcow2,qcow2,file,/dev/base,raw,block", ",", -1);
    c->superfluous = g_strsplit("/srv/gone.qcow2,64770,133", ",", -1);
}

static const JobKind *full_kind = &kind_copy;

/* A job of that kind with something else than nothing in every field. */
static Job *full_job(void) {
    Job *j = job_alloc(full_kind, 42, "0badcafe");

    j->domain_name = word("web ä");
    j->domain_path = word("/org/blockjob1/domain/web");
    j->disk = word("vda");
    j->device = word("/machine/peripheral/vd0/virtio-backend");
    g_free(j->target);
    j->target = word("/srv/ünïx.qcow2");
    g_free(j->request_id);
    j->request_id = word("r-1");
    g_free(j->copy_mode);
    j->copy_mode = word("write-blocking");
    j->state = JOB_PIVOTING;
    j->intent = INTENT_PIVOT;
    j->result = RESULT_FAILED;
    j->on_ready = ON_READY_FINISH;
    j->decided = j->halted = j->pause_guest = j->paused = true;
    j->exported = false;
    job_set_error(j, FAILURE_NO_SPACE, "There is no space left.");
    job_warn(j, "first");
    job_warn(j, "second \"quoted\"");
    j->halt_time = 1700000000000001;
    j->max_pause = UINT64_MAX;
    j->owner = UINT32_MAX - 1;
    j->restarts = 3;
    j->created = 1700000000000002;
    j->ready = 1700000000000003;
    j->guest_paused = 4;
    j->speed = INT64_MAX;
    j->instance = (Instance){4711, 815, "6bd4c5c5-0c7f-4e4f-8d6e-0c1f2a3b4c5d"};
    fill_copy(&j->copy);
    if (j->kind->of_chain)
        fill_chain(&j->chain);
    return j;
}

/* Restored from the record of full_job() with that document (taken). */
static int restore(json_t *document, Job **ret) {
    g_autoptr(Job) j = full_job();
    JournalJob *record = job_record(j);
    char *text = json_dumps(document, JSON_COMPACT);

    g_free(record->document);
    record->document = g_strdup(text);
    free(text);
    json_decref(document);
    int r = job_restore(record, NULL, ret);
    journal_job_free(record);
    return r;
}

static void assert_unreadable(json_t *document, const char *key) {
    Job *j = NULL;
    int r = restore(document, &j);

    if (r != -EBADMSG)
        g_error("\"%s\": %d in place of -EBADMSG", key, r);
    g_assert_null(j);
}

static void assert_readable(json_t *document) {
    Job *j = NULL;

    g_assert_cmpint(restore(document, &j), ==, 0);
    job_free(j);
}

static json_t *full_document(void) {
    g_autoptr(Job) j = full_job();
    g_autofree char *text = job_document(j);
    json_t *o = json_loads(text, 0, NULL);

    g_assert_true(json_is_object(o));
    return o;
}

static void everything_comes_back(void) {
    g_autoptr(Job) j = full_job(), back = NULL;
    JournalJob *record = job_record(j);

    g_assert_cmpstr(record->result, ==, "");
    g_assert_cmpint(job_restore(record, NULL, &back), ==, 0);
    g_autofree char *text = job_document(j), *again = job_document(back);
    g_assert_cmpstr(text, ==, again);
    g_assert_true(back->kind == &kind_copy);
    g_assert_cmpuint(back->id, ==, 42);
    g_assert_cmpstr(back->path, ==, "/org/blockjob1/job/j42");
    g_assert_cmpstr(back->tag, ==, "bj-0badcafe-42");
    g_assert_cmpstr(back->qemu_id, ==, "bj-0badcafe-42");
    g_assert_cmpstr(back->domain_name, ==, "web ä");
    g_assert_cmpstr(back->disk, ==, "vda");
    g_assert_cmpstr(back->target, ==, "/srv/ünïx.qcow2");
    g_assert_cmpstr(back->request_id, ==, "r-1");
    g_assert_cmpstr(back->error_message, ==, "There is no space left.");
    g_assert_cmpint(back->error, ==, FAILURE_NO_SPACE);
    g_assert_cmpuint(back->owner, ==, UINT32_MAX - 1);
    g_assert_cmpuint(back->restarts, ==, 3);
    g_assert_cmpuint(back->created, ==, 1700000000000002);
    g_assert_cmpuint(back->finished, ==, 0);
    g_assert_false(back->exported);
    journal_job_free(record);
}

static void what_was_not_given_comes_back_as_nothing(void) {
    g_autoptr(Job) j = full_job(), back = NULL;
    char **optional[] = {&j->copy.definition,
                         &j->copy.backing_node,
                         &j->copy.backing_path,
                         &j->copy.backing_format,
                         &j->copy.preallocation,
                         &j->copy.cache,
                         &j->copy.aio};

    for (size_t i = 0; i < G_N_ELEMENTS(optional); i++)
        g_clear_pointer(optional[i], g_free);
    g_clear_pointer(&j->copy.old_nodes, g_strfreev);
    g_ptr_array_set_size(j->warnings, 0);
    g_ptr_array_add(j->warnings, NULL);
    JournalJob *record = job_record(j);
    g_assert_cmpint(job_restore(record, NULL, &back), ==, 0);
    journal_job_free(record);
    g_assert_null(back->copy.definition);
    g_assert_null(back->copy.backing_node);
    g_assert_null(back->copy.aio);
    g_assert_null(back->warnings->pdata[0]);
    g_assert_cmpuint(g_strv_length(back->copy.old_nodes), ==, 0);
}

/* A value of the same sort that is another one. */
static json_t *another(const char *key, const json_t *value) {
    static const struct {
        const char *key, *word;
    } words[] = {
        {"state", "finishing"}, {"intent", "finish"},   {"settled", "lost"},
        {"on-ready", "pivot"},  {"target-kind", "new"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        if (g_str_equal(key, words[i].key))
            return json_string(words[i].word);
    if (json_is_string(value))
        return json_string("something else");
    if (json_is_boolean(value))
        return json_boolean(!json_is_true(value));
    if (json_is_integer(value))
        return json_integer(json_integer_value(value) == 5 ? 6 : 5);
    g_assert_true(json_is_array(value));
    return json_pack("[s,s,s]", "a", "b", "ä");
}

static void every_field_is_read(void) {
    json_t *whole = full_document(), *value;
    const char *key;
    size_t n = 0;

    json_object_foreach (whole, key, value) {
        json_t *changed = json_deep_copy(whole);
        g_autoptr(Job) j = NULL;
        json_object_set_new(changed, key, another(key, value));
        g_assert_false(json_equal(whole, changed));
        g_assert_cmpint(restore(json_incref(changed), &j), ==, 0);
        g_autofree char *text = job_document(j);
        json_t *back = json_loads(text, 0, NULL);
        if (!json_equal(changed, back))
            g_error("\"%s\" does not come back", key);
        json_decref(back);
        json_decref(changed);
        n++;
    }
    json_decref(whole);
    g_assert_cmpuint(n, >=, 50);
}

static void no_field_may_be_missing_or_of_another_type(void) {
    json_t *whole = full_document(), *value;
    const char *key;

    json_object_foreach (whole, key, value) {
        json_t *without = json_deep_copy(whole);
        json_object_del(without, key);
        /* Earlier versions knew no groups, and not that a mode had been asked for. */
        if (g_str_equal(key, "group") || g_str_equal(key, "members") ||
            g_str_equal(key, "redone") || g_str_equal(key, "mode-asked"))
            assert_readable(without);
        else
            assert_unreadable(without, key);
        json_t *wrongs[] = {json_integer(1),  json_string("x"),       json_true(),
                            json_real(1.5),   json_object(),          json_pack("[i]", 1),
                            json_pack("[n]"), json_pack("[[s]]", "a")};
        for (size_t i = 0; i < G_N_ELEMENTS(wrongs); i++) {
            bool same = json_typeof(wrongs[i]) == json_typeof(value) ||
                        (json_is_boolean(wrongs[i]) && json_is_boolean(value));
            json_t *wrong = json_deep_copy(whole);
            json_object_set_new(wrong, key, wrongs[i]);
            if (same && !json_is_array(value))
                json_decref(wrong);
            else
                assert_unreadable(wrong, key);
        }
    }
    json_decref(whole);
}

static void what_commits_and_pulls_add_is_read_as_well(void) {
    static const JobKind *const kinds[] = {&kind_commit, &kind_pull};

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        full_kind = kinds[i];
        json_t *o = full_document();
        g_assert_true(json_is_true(json_object_get(o, "one-phase")));
        json_decref(o);
        every_field_is_read();
        no_field_may_be_missing_or_of_another_type();
    }
    full_kind = &kind_copy;
    json_t *o = full_document();
    g_assert_null(json_object_get(o, "one-phase"));
    json_decref(o);
}

static void a_commit_without_its_words_is_refused(void) {
    static const char *const keys[] = {"source-node", "on-source-error", "top-node",  "gone-node",
                                       "base-node",   "layer-node",      "layer-path"};
    static const char *const lists[] = {"images-after", "superfluous"};

    full_kind = &kind_commit;
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        json_t *o = full_document();
        json_object_set_new(o, keys[i], json_null());
        assert_unreadable(o, keys[i]);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        json_t *o = full_document();
        json_object_set_new(o, lists[i], json_pack("[s,s]", "/srv/a.qcow2", "qcow2"));
        assert_unreadable(o, lists[i]);
    }
    full_kind = &kind_copy;
}

static void words_that_are_none_are_refused(void) {
    static const char *const keys[] = {"state", "intent", "settled", "on-ready", "target-kind"};
    static const char *const needed[] = {"device",    "qemu-id",     "tag",
                                         "copy-mode", "domain-path", "target-format"};

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        json_t *o = full_document();
        json_object_set_new(o, keys[i], json_string("no such word"));
        assert_unreadable(o, keys[i]);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(needed); i++) {
        json_t *o = full_document();
        json_object_set_new(o, needed[i], json_null());
        assert_unreadable(o, needed[i]);
    }
}

static void a_number_that_is_too_large_is_refused(void) {
    static const char *const keys[] = {"granularity", "cluster-size"};

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        json_t *o = full_document();
        json_object_set_new(o, keys[i], json_integer(INT64_C(0x100000001)));
        assert_unreadable(o, keys[i]);
        o = full_document();
        json_object_set_new(o, keys[i], json_integer(-1));
        assert_unreadable(o, keys[i]);
    }
}

/* A copy's own words are used without looking again whether they are there. */
static void a_copy_without_its_words_is_refused(void) {
    static const char *const keys[] = {"sync",    "on-source-error", "on-target-error",
                                       "discard", "detect-zeroes",   "source-node"};

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        json_t *o = full_document();
        json_object_set_new(o, keys[i], json_null());
        assert_unreadable(o, keys[i]);
    }
}

static void a_document_that_is_none_is_refused(void) {
    static const char *const texts[] = {
        "",   "null",      "[]",
        "{}", "\"state\"", "{\"state\":\"running\"}",
        "{",  "\xff\xfe",  "{\"state\":\"running\",\"state\":\"ready\"}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(Job) j = full_job();
        g_assert_false(job_document_parse(j, texts[i]));
    }
    /* A key that is there twice: which one counts is not to be guessed. */
    g_autoptr(Job) j = full_job();
    g_autofree char *text = job_document(j);
    g_assert_true(job_document_parse(j, text));
    g_autofree char *twice = g_strdup_printf("{\"decided\":false,%s", text + 1);
    g_assert_false(job_document_parse(j, twice));
}

static void assert_record(const char *kind, const char *state, const char *settled,
                          const char *result, int expected) {
    g_autoptr(Job) j = full_job(), back = NULL;
    JournalJob *record = job_record(j);
    json_t *o = full_document();

    json_object_set_new(o, "state", json_string(state));
    json_object_set_new(o, "settled", json_string(settled));
    char *text = json_dumps(o, 0);
    g_free(record->document);
    g_free(record->result);
    g_free(record->kind);
    record->document = g_strdup(text);
    record->result = g_strdup(result);
    record->kind = g_strdup(kind);
    free(text);
    json_decref(o);
    int r = job_restore(record, NULL, &back);
    if (r != expected)
        g_error("kind %s, state %s, settled \"%s\", result \"%s\": %d", kind, state, settled,
                result, r);
    if (back)
        g_assert_cmpstr(job_result_to_string(back->result), ==, settled);
    journal_job_free(record);
}

static void row_and_document_must_agree_on_the_end(void) {
    assert_record("copy", "running", "", "", 0);
    assert_record("foreign", "running", "", "", 0);
    assert_record("stream", "running", "", "", -EBADMSG);
    assert_record("copy", "concluded", "lost", "lost", 0);
    assert_record("copy", "concluded", "lost", "", -EBADMSG);
    assert_record("copy", "concluded", "", "", -EBADMSG);
    assert_record("copy", "concluded", "lost", "pivoted", -EBADMSG);
    assert_record("copy", "concluded", "lost", "good", -EBADMSG);
    assert_record("copy", "running", "", "lost", -EBADMSG);
    /* Settled, but finishing work was not done: taken up there. */
    assert_record("copy", "pivoting", "failed", "", 0);
    assert_record("copy", "pivoting", "failed", "failed", -EBADMSG);
}

static void the_row_says_the_result_only_at_the_end(void) {
    g_autoptr(Job) j = full_job();
    JournalJob *record = job_record(j);

    g_assert_cmpstr(record->result, ==, "");
    journal_job_free(record);
    j->state = JOB_CONCLUDED;
    record = job_record(j);
    g_assert_cmpstr(record->result, ==, "failed");
    g_assert_cmpstr(record->error_name, ==, "org.blockjob1.Error.NoSpace");
    journal_job_free(record);
}

static void names_in_qemu_are_short_enough(void) {
    g_autoptr(Job) j = job_alloc(&kind_copy, UINT64_C(9999999999999999), "0badcafe");
    g_autofree char *node = g_strconcat(j->tag, "-t", NULL);

    g_assert_cmpstr(node, ==, "bj-0badcafe-9999999999999999-t");
    g_assert_cmpuint(strlen(node), <=, 31);
}

/* ── transitions ── */

static void only_documented_transitions_happen(void) {
    static const struct {
        JobState from;
        JobEvent event;
        JobState to;
    } good[] = {
        {JOB_QUEUED, EVENT_PREPARE, JOB_PREPARING},  {JOB_PREPARING, EVENT_STARTED, JOB_RUNNING},
        {JOB_RUNNING, EVENT_IN_SYNC, JOB_READY},     {JOB_READY, EVENT_PIVOT, JOB_PIVOTING},
        {JOB_READY, EVENT_FINISH, JOB_FINISHING},    {JOB_PIVOTING, EVENT_DECIDE, JOB_PENDING},
        {JOB_FINISHING, EVENT_DECIDE, JOB_PENDING},  {JOB_PIVOTING, EVENT_BACK_OUT, JOB_READY},
        {JOB_FINISHING, EVENT_BACK_OUT, JOB_READY},  {JOB_RUNNING, EVENT_DECIDE, JOB_FINISHING},
        {JOB_PENDING, EVENT_PREPARE, JOB_PREPARING},
    };

    for (unsigned from = 0; from < _JOB_STATE_MAX; from++)
        for (unsigned event = 0; event < _EVENT_MAX; event++) {
            g_autoptr(Job) j = full_job();
            JobState to = _JOB_STATE_MAX;
            /* Whatever is not over can end, and can be cancelled unless it is being cancelled, or decided. */
            if (event == EVENT_CONCLUDE && from != JOB_CONCLUDED)
                to = JOB_CONCLUDED;
            if (event == EVENT_CANCEL && from != JOB_CONCLUDED && from != JOB_CANCELLING &&
                from != JOB_PENDING)
                to = JOB_CANCELLING;
            for (size_t i = 0; i < G_N_ELEMENTS(good); i++)
                if (good[i].from == from && good[i].event == event)
                    to = good[i].to;
            j->state = from;
            bool done = job_transition(j, event);
            if (done != (to != _JOB_STATE_MAX) || j->state != (done ? to : (JobState) from))
                g_error("event %u in %s leads to %s", event, job_state_to_string(from),
                        job_state_to_string(j->state));
        }
}

static void backing_out_is_for_undecided_ends_only(void) {
    g_autoptr(Job) j = full_job();

    j->state = JOB_CANCELLING; /* a cancel came while the refusal was on its way */
    j->intent = INTENT_CANCEL;
    j->decided = false;
    job_back_out(j, FAILURE_QEMU, "refused");
    g_assert_cmpint(j->state, ==, JOB_CANCELLING);
    g_assert_cmpint(j->intent, ==, INTENT_CANCEL);

    j->state = JOB_PIVOTING;
    j->intent = INTENT_PIVOT;
    j->decided = true;
    job_back_out(j, FAILURE_QEMU, "refused");
    g_assert_cmpint(j->state, ==, JOB_PIVOTING);
    g_assert_cmpint(j->intent, ==, INTENT_PIVOT);
    g_assert_true(j->decided);
}

static void the_pause_is_predicted_from_the_rest(void) {
    g_autoptr(Job) j = full_job();

    j->max_pause = USEC_PER_SEC;
    j->progress.total = 10 * GIB;
    j->progress.done = j->progress.total - MIB; /* next to nothing: whatever the rate */
    g_assert_true(job_may_stop(j));
    j->progress.done = j->progress.total - 40 * MIB; /* no rate yet: a slow disk is assumed */
    g_assert_true(job_may_stop(j));
    j->progress.done = j->progress.total - 60 * MIB;
    g_assert_false(job_may_stop(j));
    j->max_pause = 2 * USEC_PER_SEC;
    g_assert_true(job_may_stop(j));
}

static void ready_is_reached_by_what_comes_after_it(void) {
    static const JobState after[] = {JOB_READY, JOB_PENDING, JOB_PIVOTING, JOB_FINISHING,
                                     JOB_CONCLUDED};

    for (unsigned state = 0; state < _JOB_STATE_MAX; state++) {
        g_autoptr(Job) j = full_job();
        bool reached = false;
        for (size_t i = 0; i < G_N_ELEMENTS(after); i++)
            reached |= after[i] == state;
        j->shown.state = state;
        g_assert_cmpint(job_has_reached(j, JOB_READY), ==, reached);
        g_assert_true(job_has_reached(j, state));
        g_assert_cmpint(job_has_reached(j, JOB_CONCLUDED), ==, state == JOB_CONCLUDED);
    }
}

/* ── what a copy is refused for by its words ── */

#define W(text) ((char *) (text))
#define NEW .fd = -1, .target = W("/srv/t.qcow2")
#define BROUGHT NEW, .existing = true
#define BY_FD .fd = 0, .target = W("a name")

typedef struct {
    CopyOptions options;
    const char *says; /* beginning of the sentence; NULL = accepted */
    FailureKind kind;
} OptionsCase;

static void check_options(const OptionsCase *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        g_auto(Failure) f = {0};
        bool ok = copy_options_check(&cases[i].options, &f);
        if (ok != !cases[i].says || (!ok && !g_str_has_prefix(f.message, cases[i].says)) ||
            f.kind != cases[i].kind)
            g_error("case %zu (%s): %s", i, cases[i].says ? cases[i].says : "accepted",
                    f.message ? f.message : "accepted");
    }
}

static void good_options_are_taken(void) {
    static const OptionsCase cases[] = {
        {{NEW}},
        {{NEW, .format = W("raw"), .preallocation = W("falloc")}},
        {{NEW, .format = W("raw"), .preallocation = W("off")}},
        {{NEW, .format = W("qcow2"), .preallocation = W("full"), .cluster_size = 65536}},
        {{NEW, .preallocation = W("metadata"), .cluster_size = 512}},
        {{NEW, .cluster_size = 2 * 1024 * 1024, .granularity = 512, .buf_size = GIB}},
        {{NEW, .granularity = 64 * 1024 * 1024, .buf_size = 64 * MIB}},
        {{NEW, .sync = W("top")}},
        {{NEW, .sync = W("none"), .on_ready = ON_READY_FINISH}},
        {{NEW, .speed = INT64_MAX, .on_ready = ON_READY_PIVOT}},
        {{NEW, .aio = W("native"), .cache = W("direct")}},
        {{NEW, .aio = W("threads"), .cache = W("writeback")}},
        {{NEW, .detect_zeroes = W("unmap"), .discard = W("unmap")}},
        {{NEW, .detect_zeroes = W("on"), .discard = W("ignore")}},
        {{BROUGHT, .format = W("raw")}},
        {{BROUGHT, .format = W("qcow2"), .sync = W("top"), .backing = W("/srv/b"),
          .backing_format = W("raw")}},
        {{BY_FD, .format = W("raw")}},
        {{BY_FD, .format = W("qcow2")}},
    };

    check_options(cases, G_N_ELEMENTS(cases));
}

static void formats_are_said_and_never_guessed(void) {
    static const OptionsCase cases[] = {
        {{NEW, .format = W("vmdk")}, "format: \"vmdk\"", FAILURE_INVALID_ARGS},
        {{NEW, .format = W("")}, "format: \"\"", FAILURE_INVALID_ARGS},
        {{BROUGHT}, "format: say whether", FAILURE_INVALID_ARGS},
        {{BY_FD}, "format: say whether", FAILURE_INVALID_ARGS},
        {{NEW, .format = W("raw"), .sync = W("top")}, "sync: a raw image", FAILURE_INVALID_ARGS},
        {{NEW, .format = W("raw"), .cluster_size = 65536},
         "cluster-size: a raw",
         FAILURE_INVALID_ARGS},
        {{NEW, .format = W("raw"), .preallocation = W("metadata")},
         "preallocation: a raw",
         FAILURE_INVALID_ARGS},
        {{NEW, .format = W("raw"), .preallocation = W("full")},
         "preallocation: a raw",
         FAILURE_INVALID_ARGS},
        {{BROUGHT, .format = W("qcow2"), .preallocation = W("off")},
         "preallocation: only",
         FAILURE_INVALID_ARGS},
        {{BY_FD, .format = W("raw"), .preallocation = W("falloc")},
         "preallocation: only",
         FAILURE_INVALID_ARGS},
        {{BROUGHT, .format = W("qcow2"), .cluster_size = 65536},
         "cluster-size: only",
         FAILURE_INVALID_ARGS},
        {{BY_FD, .format = W("raw"), .existing = true},
         "existing: a descriptor",
         FAILURE_INVALID_ARGS},
    };

    check_options(cases, G_N_ELEMENTS(cases));
}

static void a_backing_file_is_for_brought_tops_only(void) {
    static const OptionsCase cases[] = {
        {{BROUGHT, .format = W("qcow2"), .backing = W("/srv/b"), .backing_format = W("raw")},
         "backing: only with sync",
         FAILURE_INVALID_ARGS},
        {{NEW, .sync = W("top"), .backing = W("/srv/b"), .backing_format = W("raw")},
         "backing: a new target",
         FAILURE_INVALID_ARGS},
        {{BROUGHT, .format = W("qcow2"), .sync = W("top"), .backing = W("/srv/b")},
         "backing-format: say",
         FAILURE_INVALID_ARGS},
        {{NEW, .backing_format = W("raw")}, "backing-format: only", FAILURE_INVALID_ARGS},
        {{BROUGHT, .format = W("qcow2"), .sync = W("top")},
         "backing: with sync",
         FAILURE_INVALID_ARGS},
        {{BY_FD, .format = W("qcow2"), .sync = W("top")},
         "backing: with sync",
         FAILURE_INVALID_ARGS},
    };

    check_options(cases, G_N_ELEMENTS(cases));
}

static void numbers_have_ranges(void) {
    static const OptionsCase cases[] = {
        {{NEW, .granularity = 1}, "granularity: 1 is", FAILURE_INVALID_ARGS},
        {{NEW, .granularity = 256}, "granularity: 256", FAILURE_INVALID_ARGS},
        {{NEW, .granularity = 65537}, "granularity: 65537", FAILURE_INVALID_ARGS},
        {{NEW, .granularity = 128 * 1024 * 1024}, "granularity: 134217728", FAILURE_INVALID_ARGS},
        {{NEW, .granularity = UINT32_MAX}, "granularity:", FAILURE_INVALID_ARGS},
        {{NEW, .cluster_size = 256}, "cluster-size: 256", FAILURE_INVALID_ARGS},
        {{NEW, .cluster_size = 65535}, "cluster-size: 65535", FAILURE_INVALID_ARGS},
        {{NEW, .cluster_size = 4 * 1024 * 1024}, "cluster-size: 4194304", FAILURE_INVALID_ARGS},
        {{NEW, .buf_size = GIB + 1}, "buf-size: at most", FAILURE_INVALID_ARGS},
        {{NEW, .buf_size = UINT64_MAX}, "buf-size: at most", FAILURE_INVALID_ARGS},
        {{NEW, .buf_size = 65535, .granularity = 65536},
         "buf-size: at least",
         FAILURE_INVALID_ARGS},
        {{NEW, .speed = UINT64_C(1) << 63}, "speed: too large", FAILURE_INVALID_ARGS},
        {{NEW, .speed = UINT64_MAX}, "speed: too large", FAILURE_INVALID_ARGS},
    };

    check_options(cases, G_N_ELEMENTS(cases));
}

static void options_must_go_together(void) {
    static const OptionsCase cases[] = {
        {{NEW, .sync = W("none"), .on_ready = ON_READY_PIVOT}, "on-ready:", FAILURE_INVALID_ARGS},
        {{NEW, .aio = W("native"), .cache = W("writeback")}, "aio:", FAILURE_INVALID_ARGS},
        {{NEW, .detect_zeroes = W("unmap"), .discard = W("ignore")},
         "detect-zeroes:",
         FAILURE_INVALID_ARGS},
        {{.fd = -1, .target = W("relative")},
         "\"relative\" is not an absolute",
         FAILURE_BAD_TARGET},
        {{.fd = -1, .target = W("/srv/")}, "\"/srv/\" names a folder", FAILURE_BAD_TARGET},
        {{.fd = -1, .target = W("/srv/../t")}, "\"/srv/../t\" has", FAILURE_BAD_TARGET},
        {{.fd = -1, .target = W("")}, "", FAILURE_BAD_TARGET},
        {{.fd = 0, .target = W("two\nlines"), .format = W("raw")},
         "target: the name",
         FAILURE_INVALID_ARGS},
    };
    g_autofree char *longest = g_strnfill(4096, 'x'), *longer = g_strnfill(4097, 'x');
    OptionsCase names[] = {
        {{.fd = 0, .target = longest, .format = W("raw")}, NULL, FAILURE_NONE},
        {{.fd = 0, .target = longer, .format = W("raw")}, "target: the name", FAILURE_INVALID_ARGS},
    };

    check_options(cases, G_N_ELEMENTS(cases));
    check_options(names, G_N_ELEMENTS(names));
}

static void defaults_are_safe(void) {
    g_auto(CopyOptions) o = {0};

    copy_options_init(&o);
    g_assert_cmpint(o.fd, ==, -1);
    g_assert_false(o.existing);
    g_assert_false(o.force);
    g_assert_false(o.delete_source);
    g_assert_true(o.delete_target);
    g_assert_true(o.pause_guest);
    g_assert_cmpuint(o.max_pause, ==, USEC_PER_SEC);
    g_assert_cmpint(o.on_ready, ==, ON_READY_WAIT);
    o.target = word("/srv/t");
    o.format = word("raw");
    copy_options_clear(&o);
    g_assert_null(o.target);
    g_assert_null(o.format);
    g_assert_cmpint(o.fd, ==, -1);
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
#define TEST(name) g_test_add_func("/job/" #name, name)
    TEST(everything_comes_back);
    TEST(what_was_not_given_comes_back_as_nothing);
    TEST(every_field_is_read);
    TEST(no_field_may_be_missing_or_of_another_type);
    TEST(what_commits_and_pulls_add_is_read_as_well);
    TEST(a_commit_without_its_words_is_refused);
    TEST(words_that_are_none_are_refused);
    TEST(a_number_that_is_too_large_is_refused);
    TEST(a_copy_without_its_words_is_refused);
    TEST(a_document_that_is_none_is_refused);
    TEST(row_and_document_must_agree_on_the_end);
    TEST(the_row_says_the_result_only_at_the_end);
    TEST(names_in_qemu_are_short_enough);
    TEST(only_documented_transitions_happen);
    TEST(backing_out_is_for_undecided_ends_only);
    TEST(the_pause_is_predicted_from_the_rest);
    TEST(ready_is_reached_by_what_comes_after_it);
    TEST(good_options_are_taken);
    TEST(formats_are_said_and_never_guessed);
    TEST(a_backing_file_is_for_brought_tops_only);
    TEST(numbers_have_ranges);
    TEST(options_must_go_together);
    TEST(defaults_are_safe);
#undef TEST
    return g_test_run();
}
