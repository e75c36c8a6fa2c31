/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The view: what QEMU really says (data/qmp, recorded by the script there), what it never should
 * say, and samples that were damaged at random. */

#include <glib.h>
#include <jansson.h>
#include <string.h>

#include "domain/view.h"

static const char *const samples[] = {
    "idle",      "running", "paused",  "ready",     "standby", "pending",
    "concluded", "failed",  "nospace", "cancelled", "commit",  "stream",
};

static json_t *sample_load(const char *name) {
    g_autofree char *path =
        g_strdup_printf("%s/data/qmp/%s.json", g_getenv("BLOCKJOBD_TESTS") ?: "tests/unit", name);
    json_error_t error;
    json_t *look = json_load_file(path, 0, &error);
    if (!look)
        g_error("%s: %s", path, error.text);
    return look;
}

/* Everything of a look. */
static void view_set(View *v, const json_t *look) {
    view_set_jobs(v, json_object_get(look, "query-jobs"),
                  json_object_get(look, "query-block-jobs"));
    view_set_block(v, json_object_get(look, "query-block"));
    view_set_graph(v, json_object_get(look, "x-debug-query-block-graph"));
    view_set_nodes(v, json_object_get(look, "query-named-block-nodes"));
}

static View *view_load(const char *name) {
    json_t *look = sample_load(name);
    View *v = view_new();
    view_set(v, look);
    json_decref(look);
    return v;
}

/* JSON with ' for ". The caller owns it. */
static json_t *json(const char *text) {
    g_autofree char *quoted = g_strdelimit(g_strdup(text), "'", '"');
    json_error_t error;
    json_t *value = json_loads(quoted, JSON_DECODE_ANY, &error);
    if (!value)
        g_error("%s: %s", quoted, error.text);
    return value;
}

static void set_jobs(View *v, const char *query_jobs, const char *query_block_jobs) {
    json_t *jobs = json(query_jobs), *block_jobs = json(query_block_jobs);
    view_set_jobs(v, jobs, block_jobs);
    json_decref(jobs);
    json_decref(block_jobs);
}

static void set_one(View *v, void (*set)(View *v, const json_t *answer), const char *text) {
    json_t *answer = json(text);
    set(v, answer);
    json_decref(answer);
}

/* A graph from "parent edge child" lines; each name is a node, its id is when it came first. */
static void set_graph(View *v, const char *lines) {
    g_autoptr(GHashTable) ids = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    json_t *nodes = json_array(), *edges = json_array();
    g_auto(GStrv) all = g_strsplit(lines, "\n", -1);

    for (char **line = all; *line; line++) {
        g_auto(GStrv) words = g_strsplit(*line, " ", 3);
        int ends[2];
        for (unsigned i = 0; i < 2; i++) {
            ends[i] = GPOINTER_TO_INT(g_hash_table_lookup(ids, words[2 * i]));
            if (ends[i] > 0)
                continue;
            ends[i] = (int) g_hash_table_size(ids) + 1;
            g_hash_table_insert(ids, g_strdup(words[2 * i]), GINT_TO_POINTER(ends[i]));
            json_array_append_new(nodes, json_pack("{s:i,s:s,s:s}", "id", ends[i], "type",
                                                   "block-driver", "name", words[2 * i]));
        }
        json_array_append_new(edges, json_pack("{s:i,s:i,s:s}", "parent", ends[0], "child", ends[1],
                                               "name", words[1]));
    }
    json_t *graph = json_pack("{s:o,s:o}", "nodes", nodes, "edges", edges);
    view_set_graph(v, graph);
    json_decref(graph);
}

/* Drivers from "node driver" words. */
static void set_drivers(View *v, const char *text) {
    g_auto(GStrv) words = g_strsplit(text, " ", -1);
    json_t *nodes = json_array();
    for (char **word = words; *word && word[1]; word += 2)
        json_array_append_new(nodes, json_pack("{s:s,s:s}", "node-name", word[0], "drv", word[1]));
    view_set_nodes(v, nodes);
    json_decref(nodes);
}

/* Compares names (which it frees) with words. */
static void assert_names(GPtrArray *names, const char *words) {
    g_ptr_array_add(names, NULL);
    g_autofree char *joined = g_strjoinv(" ", (char **) names->pdata);
    g_assert_cmpstr(joined, ==, words);
    g_ptr_array_unref(names);
}

static bool is_filter(const View *v, const char *node) {
    return g_strcmp0(view_skip_filters(v, node), node) != 0;
}

static void enumerators_have_names(void) {
    g_assert_cmpstr(qemu_job_phase_to_string(QJOB_ABSENT), ==, "absent");
    g_assert_cmpstr(qemu_job_phase_to_string(QJOB_FAILED), ==, "failed");
    g_assert_cmpstr(qemu_job_phase_to_string(_QJOB_MAX), ==, "");
    g_assert_cmpstr(io_status_to_string(IO_NO_SPACE), ==, "no-space");
    g_assert_cmpstr(io_status_to_string(_IO_MAX), ==, "");
}

static void new_view_knows_nothing(void) {
    g_autoptr(View) v = view_new();
    g_assert_null(view_job(v, "x"));
    g_assert_null(view_job(v, NULL));
    g_assert_null(view_device(v, "x"));
    g_assert_null(view_node(v, "x"));
    g_assert_null(view_node(v, NULL));
    g_assert_null(view_child(v, "x", "file"));
    g_assert_null(view_skip_filters(v, "x"));
    g_assert_null(view_skip_filters(v, NULL));
    g_assert_null(view_first_of(v, "x", "x", NULL));
    assert_names(view_chain(v, "x"), "");
    assert_names(view_chain(v, NULL), "");
    assert_names(view_subtree(v, "x", true), "");
    g_assert_false(view_has_concluded(v, "stream"));
    g_assert_null(view_free(NULL));
}

static void recorded_jobs_have_their_phases(void) {
    static const struct {
        const char *sample, *job, *type;
        QemuJobPhase phase;
        bool block, paused;
        IoStatus io;
        const char *error;
    } rows[] = {
        {"running", "copy1", "mirror", QJOB_RUNNING, true, false, IO_OK, NULL},
        {"paused", "copy1", "mirror", QJOB_RUNNING, true, true, IO_OK, NULL},
        {"ready", "copy1", "mirror", QJOB_READY, true, false, IO_OK, NULL},
        {"standby", "copy1", "mirror", QJOB_READY, true, true, IO_OK, NULL},
        {"pending", "copy1", "mirror", QJOB_PENDING, true, true, IO_OK, NULL},
        {"concluded", "copy1", "mirror", QJOB_CONCLUDED, true, false, IO_OK, NULL},
        {"failed", "copy2", "mirror", QJOB_FAILED, true, false, IO_OK,
         "Source and target image have different sizes"},
        {"nospace", "copy3", "mirror", QJOB_RUNNING, true, true, IO_NO_SPACE, NULL},
        {"cancelled", "copy3", "mirror", QJOB_FAILED, true, false, IO_OK, "Operation canceled"},
        {"commit", "commit1", "commit", QJOB_READY, true, false, IO_OK, NULL},
        {"stream", "stream1", "stream", QJOB_FAILED, true, false, IO_OK, "Operation canceled"},
        {"stream", "create1", "create", QJOB_CONCLUDED, false, false, IO_OK, NULL},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(View) v = view_load(rows[i].sample);
        const QemuJob *job = view_job(v, rows[i].job);
        g_test_message("%s", rows[i].sample);
        g_assert_nonnull(job);
        g_assert_cmpstr(job->id, ==, rows[i].job);
        g_assert_cmpstr(job->type, ==, rows[i].type);
        g_assert_cmpstr(qemu_job_phase_to_string(job->phase), ==,
                        qemu_job_phase_to_string(rows[i].phase));
        g_assert_cmpint(job->block, ==, rows[i].block);
        g_assert_cmpint(job->paused, ==, rows[i].paused);
        g_assert_cmpint(job->io, ==, rows[i].io);
        g_assert_cmpstr(job->error, ==, rows[i].error);
        g_assert_cmpstr(job->device, ==, rows[i].block ? rows[i].job : NULL);
        g_assert_cmpint(job->actively_synced, ==, -1);
    }
}

static void recorded_progress_is_read(void) {
    g_autoptr(View) v = view_load("running");
    const QemuJob *job = view_job(v, "copy1");
    g_assert_cmpuint(job->speed, ==, 65536);
    g_assert_cmpuint(job->total, ==, 8 << 20);
    g_assert_cmpuint(job->done, >, 0);
    g_assert_cmpuint(job->done, <, job->total);
    g_assert_cmpuint(view_jobs(v)->len, ==, 1);
    g_assert_null(view_job(v, "copy"));
}

static void concluded_stream_is_seen_also_when_it_was_cancelled(void) {
    g_autoptr(View) v = view_load("stream");
    g_assert_true(view_has_concluded(v, "stream"));
    g_assert_true(view_has_concluded(v, "create"));
    g_assert_false(view_has_concluded(v, "mirror"));
    g_autoptr(View) other = view_load("ready");
    g_assert_false(view_has_concluded(other, "mirror"));
}

static void recorded_devices_are_read(void) {
    g_autoptr(View) v = view_load("idle");
    g_assert_cmpuint(view_devices(v)->len, ==, 6);

    const QemuDevice *disk = view_device(v, "/machine/peripheral/vd0/virtio-backend");
    g_assert_nonnull(disk);
    g_assert_cmpstr(disk->root, ==, "a-throttle");
    g_assert_cmpstr(disk->backend, ==, "");
    g_assert_false(disk->removable);
    g_assert_false(disk->read_only);

    const QemuDevice *cdrom = view_device(v, "cd0");
    g_assert_nonnull(cdrom);
    g_assert_null(cdrom->root);
    g_assert_true(cdrom->removable);

    const QemuDevice *scsi = view_device(v, "/machine/peripheral-anon/device[1]");
    g_assert_nonnull(scsi);
    g_assert_cmpstr(scsi->backend, ==, "ro");
    g_assert_true(scsi->read_only);
    g_assert_true(g_str_has_prefix(scsi->root, "#block"));
    g_assert_cmpstr(view_node(v, scsi->root)->driver, ==, "qcow2");
    g_assert_cmpstr(view_node(v, scsi->root)->file, ==, "f.qcow2");
}

static void recorded_nodes_are_read(void) {
    g_autoptr(View) v = view_load("idle");
    const QemuNode *node = view_node(v, "a");
    g_assert_nonnull(node);
    g_assert_cmpstr(node->name, ==, "a");
    g_assert_cmpstr(node->driver, ==, "qcow2");
    g_assert_cmpstr(node->file, ==, "a.qcow2");
    g_assert_cmpstr(node->backing_file, ==, "base.qcow2");
    g_assert_cmpuint(node->size, ==, 8 << 20);
    g_assert_cmpuint(node->allocated, >=, 4 << 20);
    g_assert_false(node->read_only);
    g_assert_true(view_node(v, "base")->read_only);
    g_assert_null(view_node(v, "base")->backing_file);
    g_assert_true(g_str_has_prefix(view_node(v, "d")->file, "json:"));
    g_assert_cmpstr(view_node(v, "d-file")->file, ==, "d.raw");
    /* The node that is attached has a json: name; the header has another. */
    g_assert_cmpstr(view_node(v, "c")->backing_file, ==, "base2.qcow2");
}

static void roots_are_known_without_a_look_at_the_nodes(void) {
    json_t *look = sample_load("running");
    g_autoptr(View) v = view_new();
    view_set_block(v, json_object_get(look, "query-block"));
    view_set_graph(v, json_object_get(look, "x-debug-query-block-graph"));
    json_decref(look);
    g_assert_cmpstr(view_node(v, "copy1-top")->driver, ==, "mirror_top");
    g_assert_cmpstr(view_node(v, "c-cor")->driver, ==, "copy-on-read");
    g_assert_cmpuint(view_node(v, "d")->size, ==, 8 << 20);
    g_assert_null(view_node(v, "a"));
    g_assert_cmpstr(view_skip_filters(v, "c-cor"), ==, "c");
    /* Its file may be anything while the driver is not known: it counts as an image. */
    g_assert_cmpstr(view_skip_filters(v, "copy1-top"), ==, "a-throttle");
}

static void recorded_graph_is_walked(void) {
    g_autoptr(View) v = view_load("idle");
    g_assert_cmpstr(view_child(v, "a", "file"), ==, "a-file");
    g_assert_cmpstr(view_child(v, "a", "backing"), ==, "base");
    g_assert_null(view_child(v, "base", "backing"));
    g_assert_true(is_filter(v, "a-throttle"));
    g_assert_true(is_filter(v, "c-cor"));
    g_assert_true(is_filter(v, "d-debug"));
    g_assert_false(is_filter(v, "a"));
    g_assert_false(is_filter(v, "a-file"));
    g_assert_cmpstr(view_skip_filters(v, "a-throttle"), ==, "a");
    g_assert_cmpstr(view_skip_filters(v, "a"), ==, "a");
    g_assert_cmpstr(view_skip_filters(v, "d-debug"), ==, "d-file");
    assert_names(view_chain(v, "a-throttle"), "a base");
    assert_names(view_chain(v, "c-cor"), "c base2");
    assert_names(view_chain(v, "d"), "d");
    assert_names(view_subtree(v, "a-throttle", true), "a-throttle a a-file base base-file");
    assert_names(view_subtree(v, "a-throttle", false), "a-throttle a a-file");
    assert_names(view_subtree(v, "d", true), "d d-debug d-file");
}

static void recorded_mirror_shows_source_then_target(void) {
    g_autoptr(View) running = view_load("running");
    g_assert_true(is_filter(running, "copy1-top"));
    g_assert_cmpstr(view_first_of(running, "copy1-top", "a", "t1"), ==, "a");
    g_assert_cmpstr(view_first_of(running, "copy1-top", "a-throttle", "t1"), ==, "a-throttle");
    g_assert_null(view_first_of(running, "copy1-top", "base", "t1"));
    g_assert_cmpstr(view_skip_filters(running, "copy1-top"), ==, "a");
    assert_names(view_chain(running, "copy1-top"), "a base");
    assert_names(view_subtree(running, "copy1-top", false), "copy1-top a-throttle a a-file");

    g_autoptr(View) over = view_load("concluded");
    const char *root = view_device(over, "/machine/peripheral/vd0/virtio-backend")->root;
    g_assert_cmpstr(view_first_of(over, root, "a", "t1"), ==, "t1");
}

static void filter_of_a_job_that_came_later_is_skipped(void) {
    g_autoptr(View) v = view_load("idle");
    json_t *look = sample_load("commit");
    /* commit1-top is under c-cor now; the drivers are those of before. */
    view_set_graph(v, json_object_get(look, "x-debug-query-block-graph"));
    json_decref(look);
    g_assert_null(view_node(v, "commit1-top"));
    g_assert_cmpstr(view_child(v, "c-cor", "file"), ==, "commit1-top");
    g_assert_true(is_filter(v, "commit1-top"));
    assert_names(view_chain(v, "c-cor"), "c base2");
}

static void status_and_ready_make_the_phase(void) {
    static const struct {
        const char *status, *ready;
        QemuJobPhase phase;
    } rows[] = {
        {"created", "false", QJOB_RUNNING}, {"running", "false", QJOB_RUNNING},
        {"paused", "false", QJOB_RUNNING},  {"running", "true", QJOB_READY},
        {"paused", "true", QJOB_READY},     {"ready", "true", QJOB_READY},
        {"standby", "true", QJOB_READY},    {"ready", "false", QJOB_RUNNING},
        {"ready", "null", QJOB_READY},      {"standby", "null", QJOB_READY},
        {"waiting", "false", QJOB_ENDING},  {"aborting", "false", QJOB_ENDING},
        {"pending", "true", QJOB_PENDING},  {"concluded", "false", QJOB_CONCLUDED},
        {"null", "false", QJOB_CONCLUDED},  {"undefined", "false", QJOB_ENDING},
        {"a new one", "true", QJOB_ENDING}, {"", "true", QJOB_ENDING},
    };
    g_autoptr(View) v = view_new();

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *jobs =
            g_strdup_printf("[{'id':'j','type':'mirror','status':'%s'}]", rows[i].status);
        g_autofree char *block = g_strdup_printf("[{'device':'j','ready':%s}]", rows[i].ready);
        g_test_message("%s, ready %s", rows[i].status, rows[i].ready);
        set_jobs(v, jobs, block);
        g_assert_cmpint(view_job(v, "j")->phase, ==, rows[i].phase);
    }
}

static void later_answer_about_a_job_wins(void) {
    g_autoptr(View) v = view_new();
    set_jobs(v, "[{'id':'j','type':'mirror','status':'pending'}]",
             "[{'device':'j','status':'concluded','ready':false,'error':'gone'}]");
    g_assert_cmpint(view_job(v, "j")->phase, ==, QJOB_FAILED);
    g_assert_cmpstr(view_job(v, "j")->error, ==, "gone");
}

static void any_error_makes_a_concluded_job_a_failed_one(void) {
    g_autoptr(View) v = view_new();
    set_jobs(
        v,
        "[{'id':'a','status':'concluded','error':''},{'id':'b','status':'concluded','error':7},"
        "{'id':'c','status':'concluded','error':null},"
        "{'id':'d','status':'concluded','error':'two\\nlines'}]",
        "[]");
    g_assert_cmpint(view_job(v, "a")->phase, ==, QJOB_FAILED);
    g_assert_cmpstr(view_job(v, "a")->error, ==, "");
    g_assert_cmpint(view_job(v, "b")->phase, ==, QJOB_FAILED);
    g_assert_nonnull(view_job(v, "b")->error);
    g_assert_cmpint(view_job(v, "c")->phase, ==, QJOB_CONCLUDED);
    g_assert_null(strchr(view_job(v, "d")->error, '\n'));
}

static void odd_numbers_of_jobs_are_none(void) {
    g_autoptr(View) v = view_new();
    set_jobs(v,
             "[{'id':'a','status':'running','current-progress':-5,'total-progress':1e300},"
             "{'id':'b','status':'running','current-progress':3,'total-progress':4},"
             "{'id':'c','status':'running','current-progress':3,'total-progress':4}]",
             "[{'device':'a','offset':-9223372036854775808,'len':9223372036854775807,'speed':-1,"
             "'io-status':'failed','actively-synced':false},"
             "{'device':'b','offset':'1','len':[],'paused':1,'io-status':{},'speed':true}]");
    const QemuJob *a = view_job(v, "a"), *b = view_job(v, "b"), *c = view_job(v, "c");
    g_assert_cmpuint(a->done, ==, 0);
    g_assert_cmpuint(a->total, ==, INT64_MAX);
    g_assert_cmpuint(a->speed, ==, 0);
    g_assert_cmpint(a->io, ==, IO_FAILED);
    g_assert_cmpint(a->actively_synced, ==, 0);
    g_assert_true(b->block);
    g_assert_cmpuint(b->done, ==, 3);
    g_assert_cmpuint(b->total, ==, 4);
    g_assert_false(b->paused);
    g_assert_cmpint(b->io, ==, IO_OK);
    g_assert_false(c->block);
    g_assert_null(c->device);
}

static void second_of_the_same_name_is_ignored(void) {
    g_autoptr(View) v = view_new();
    set_jobs(v, "[{'id':'j','status':'running'},{'id':'j','status':'concluded'}]",
             "[{'device':'j','len':1,'offset':1},{'device':'j','len':2,'offset':2}]");
    g_assert_cmpuint(view_jobs(v)->len, ==, 1);
    g_assert_cmpint(view_job(v, "j")->phase, ==, QJOB_RUNNING);
    g_assert_cmpuint(view_job(v, "j")->total, ==, 1);

    set_one(v, view_set_block,
            "[{'qdev':'d','inserted':{'node-name':'n','drv':'raw'}},"
            "{'qdev':'d','inserted':{'node-name':'n','drv':'qcow2'}},{'device':''},{},7,"
            "{'device':'drive0','inserted':{'node-name':''}},{'device':'drive1','inserted':[]}]");
    g_assert_cmpuint(view_devices(v)->len, ==, 3);
    g_assert_cmpstr(view_node(v, "n")->driver, ==, "raw");
    g_assert_null(view_device(v, ""));

    set_one(v, view_set_graph,
            "{'nodes':[{'id':1,'type':'block-driver','name':'a'},"
            "{'id':1,'type':'block-driver','name':'b'},"
            "{'id':2,'type':'block-driver','name':'a'},{'id':3,'type':'block-driver','name':'c'}],"
            "'edges':[{'parent':1,'child':3,'name':'file'},{'parent':2,'child':1,'name':'file'}]}");
    g_assert_cmpstr(view_child(v, "a", "file"), ==, "c");
    g_assert_null(view_child(v, "b", "file"));
}

static void answers_of_the_wrong_sort_are_empty(void) {
    static const char *const answers[] = {
        "null", "7",         "'x'",          "{}",
        "[]",   "[[],7,{}]", "{'nodes':{}}", "{'nodes':[7,{},[]],'edges':[7,{},[]]}",
    };
    g_autoptr(View) v = view_load("running");
    for (size_t i = 0; i < G_N_ELEMENTS(answers); i++) {
        set_jobs(v, answers[i], answers[i]);
        set_one(v, view_set_block, answers[i]);
        set_one(v, view_set_graph, answers[i]);
        set_one(v, view_set_nodes, answers[i]);
        g_assert_cmpuint(view_jobs(v)->len, ==, 0);
        g_assert_cmpuint(view_devices(v)->len, ==, 0);
        g_assert_null(view_node(v, "a"));
        assert_names(view_subtree(v, "a", true), "");
    }
    view_set_jobs(v, NULL, NULL);
    view_set_block(v, NULL);
    view_set_graph(v, NULL);
    view_set_nodes(v, NULL);
}

static void cleared_view_knows_nothing(void) {
    g_autoptr(View) v = view_load("running");
    view_clear(v);
    g_assert_cmpuint(view_jobs(v)->len, ==, 0);
    g_assert_cmpuint(view_devices(v)->len, ==, 0);
    g_assert_null(view_node(v, "a"));
    g_assert_null(view_node(v, "copy1-top"));
    g_assert_null(view_child(v, "a", "file"));
    view_clear(v);
}

static void too_long_names_are_no_names(void) {
    g_autofree char *name = g_strnfill(5000, 'x');
    g_autofree char *jobs = g_strdup_printf("[{'id':'%s','status':'running'}]", name);
    g_autofree char *block = g_strdup_printf("[{'qdev':'d','inserted':{'node-name':'%s'}}]", name);
    g_autoptr(View) v = view_new();
    set_jobs(v, jobs, "[]");
    set_one(v, view_set_block, block);
    g_assert_cmpuint(view_jobs(v)->len, ==, 0);
    g_assert_null(view_device(v, "d")->root);
}

static void only_block_drivers_of_the_graph_count(void) {
    g_autoptr(View) v = view_new();
    set_one(
        v, view_set_graph,
        "{'nodes':[{'id':-1,'type':'block-driver','name':'a'},{'id':9223372036854775807,"
        "'type':'block-driver','name':'b'},{'id':3,'type':'block-backend','name':'a'},"
        "{'id':4,'type':'block-job','name':'j'},{'id':5,'type':'block-driver'},"
        "{'id':6,'type':'block-driver','name':'c'},{'id':'7','type':'block-driver','name':'d'}],"
        "'edges':[{'parent':3,'child':-1,'name':'root'},{'parent':4,'child':-1,'name':'file'},"
        "{'parent':-1,'child':9223372036854775807,'name':'file'},"
        "{'parent':-1,'child':12345,'name':'backing'},{'parent':0,'child':-1,'name':'file'},"
        "{'parent':-1,'child':5,'name':'other'},{'parent':5,'child':6,'name':'file'},"
        "{'parent':6,'child':-1},{'child':6,'name':'file'},{'parent':6,'name':'file'}]}");
    g_assert_cmpstr(view_child(v, "a", "file"), ==, "b");
    g_assert_null(view_child(v, "a", "backing"));
    g_assert_null(view_child(v, "a", "other"));
    g_assert_null(view_child(v, "j", "file"));
    g_assert_null(view_child(v, "c", "file"));
    g_assert_null(view_child(v, "d", "file"));
    /* A node without a name is passed through. */
    assert_names(view_subtree(v, "a", true), "a b c");
}

static void filters_in_every_place_are_skipped(void) {
    g_autoptr(View) v = view_new();
    set_graph(v, "thr file cor\ncor file mir\nmir backing top\ntop file top-file\n"
                 "top backing com\ncom backing mid\nmid file mid-file\nmid backing pre\n"
                 "pre file base\nbase file dbg\ndbg image base-file");
    set_drivers(v, "thr throttle cor copy-on-read mir mirror_top top qcow2 top-file file "
                   "com commit_top mid qcow2 mid-file file pre preallocate base qcow2 "
                   "dbg blkdebug base-file file");
    g_assert_cmpstr(view_skip_filters(v, "thr"), ==, "top");
    g_assert_cmpstr(view_skip_filters(v, "com"), ==, "mid");
    assert_names(view_chain(v, "thr"), "top mid base");
    assert_names(view_subtree(v, "thr", false), "thr cor mir top top-file");
    assert_names(view_subtree(v, "mid", true), "mid mid-file pre base dbg base-file");
    g_assert_cmpstr(view_first_of(v, "thr", "mid", "top"), ==, "top");
    g_assert_cmpstr(view_first_of(v, "thr", "mir", "top"), ==, "mir");
    g_assert_cmpstr(view_first_of(v, "thr", NULL, "thr"), ==, "thr");
    g_assert_null(view_first_of(v, "thr", "mid", "base"));
    g_assert_null(view_first_of(v, "thr", NULL, NULL));
}

static void unknown_driver_with_a_file_is_an_image(void) {
    g_autoptr(View) v = view_new();
    set_graph(v,
              "new file img\nimg file proto\ntop backing img\nboth file proto\nboth backing img");
    g_assert_false(is_filter(v, "new"));
    g_assert_false(is_filter(v, "both"));
    g_assert_false(is_filter(v, "proto"));
    g_assert_true(is_filter(v, "top"));
    assert_names(view_chain(v, "both"), "both img");
    /* Once it is known the look of the graph does not matter. */
    set_drivers(v, "new throttle top qcow2");
    g_assert_true(is_filter(v, "new"));
    g_assert_false(is_filter(v, "top"));
}

static void parents_come_before_children_in_a_shared_graph(void) {
    g_autoptr(View) v = view_new();
    set_graph(v, "root file a\nroot data-file b\na file c\nc file b\nb file d\nroot backing d");
    assert_names(view_subtree(v, "root", true), "root a c b d");
    assert_names(view_subtree(v, "root", false), "root a c b d");
}

static void rings_come_to_an_end(void) {
    g_autoptr(View) v = view_new();
    set_graph(v, "a file b\nb file c\nc file a\nx backing y\ny backing x\nx file a\ny file a\n"
                 "self backing self\nself2 file self2\nself2 backing self2");
    set_drivers(v, "a throttle b throttle c throttle x qcow2 y qcow2 self2 qcow2");
    g_assert_null(view_skip_filters(v, "a"));
    g_assert_null(view_skip_filters(v, "self"));
    g_assert_null(view_first_of(v, "a", "x", "y"));
    g_assert_cmpstr(view_first_of(v, "a", "c", "x"), ==, "c");
    assert_names(view_chain(v, "a"), "");
    assert_names(view_chain(v, "x"), "x y");
    assert_names(view_chain(v, "self"), "");
    assert_names(view_chain(v, "self2"), "self2");
    assert_names(view_subtree(v, "self", true), "self");
    assert_names(view_subtree(v, "a", true), "a b c");
    GPtrArray *all = view_subtree(v, "x", true);
    g_assert_cmpuint(all->len, ==, 5);
    g_ptr_array_unref(all);
}

/* A chain of n images, n0 on top, each with one more node under "file". */
static json_t *graph_of_chain(int n) {
    json_t *nodes = json_array(), *edges = json_array();
    for (int i = 0; i < n; i++) {
        g_autofree char *name = g_strdup_printf("n%d", i), *file = g_strdup_printf("f%d", i);
        json_array_append_new(
            nodes, json_pack("{s:i,s:s,s:s}", "id", i, "type", "block-driver", "name", name));
        json_array_append_new(
            nodes, json_pack("{s:i,s:s,s:s}", "id", n + i, "type", "block-driver", "name", file));
        json_array_append_new(
            edges, json_pack("{s:i,s:i,s:s}", "parent", i, "child", n + i, "name", "file"));
        json_array_append_new(
            edges, json_pack("{s:i,s:i,s:s}", "parent", i, "child", i + 1, "name", "backing"));
    }
    return json_pack("{s:o,s:o}", "nodes", nodes, "edges", edges);
}

static void long_chains_are_cut_and_walked_without_recursion(void) {
    g_autoptr(View) v = view_new();
    json_t *graph = graph_of_chain(8000);
    view_set_graph(v, graph);
    json_decref(graph);
    GPtrArray *chain = view_chain(v, "n0"), *all = view_subtree(v, "n0", true);
    g_assert_cmpuint(chain->len, ==, 201);
    g_assert_cmpstr(chain->pdata[199], ==, "n199");
    g_assert_cmpuint(all->len, ==, 16000);
    g_ptr_array_unref(chain);
    g_ptr_array_unref(all);

    /* More than anything may have: cut, not refused. */
    graph = graph_of_chain(20000);
    view_set_graph(v, graph);
    json_decref(graph);
    g_assert_cmpstr(view_child(v, "n0", "backing"), ==, "n1");
    g_assert_null(view_child(v, "n19000", "backing"));
}

static void lying_peer_costs_little_time(void) {
    g_autoptr(View) v = view_new();
    json_t *jobs = json_array(), *block = json_array(), *edges = json_array();
    for (int i = 0; i < 20000; i++) {
        g_autofree char *name = g_strdup_printf("a job with a long name, number %d", i);
        json_array_append_new(jobs, json_pack("{s:s}", "id", name));
        json_array_append_new(block, json_pack("{s:s}", "device", name));
        json_array_append_new(edges, json_pack("{s:i,s:i,s:s}", "parent", 1, "child", 2, "name",
                                               i < 19000 ? name : "file"));
        json_array_append_new(edges, json_pack("{s:i,s:i,s:s}", "parent", 2, "child", 1, "name",
                                               i < 19000 ? name : "backing"));
    }
    json_t *graph = json("{'nodes':[{'id':1,'type':'block-driver','name':'a'},"
                         "{'id':2,'type':'block-driver','name':'b'}]}");
    json_object_set_new(graph, "edges", edges);
    gint64 begin = g_get_monotonic_time();
    view_set_jobs(v, jobs, block);
    view_set_block(v, jobs);
    view_set_graph(v, graph);
    view_set_nodes(v, jobs);
    for (unsigned i = 0; i < 100; i++) {
        g_ptr_array_unref(view_chain(v, "a"));
        g_ptr_array_unref(view_subtree(v, "a", false));
    }
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 10 * G_USEC_PER_SEC);
    g_assert_cmpuint(view_jobs(v)->len, <=, 512);
    json_decref(jobs);
    json_decref(block);
    json_decref(graph);
}

/* Calls everything that reads, with the names that are in there. */
static void view_read_all(View *v, const GPtrArray *names) {
    for (unsigned i = 0; i < names->len; i++) {
        const char *name = names->pdata[i], *other = names->pdata[(i * 7 + 3) % names->len];
        GPtrArray *chain = view_chain(v, name), *all = view_subtree(v, name, i % 2);
        g_assert_cmpuint(chain->len, <=, 200);
        for (unsigned j = 0; j < all->len; j++)
            g_assert_nonnull(all->pdata[j]);
        g_ptr_array_unref(chain);
        g_ptr_array_unref(all);
        view_skip_filters(v, name);
        view_first_of(v, name, other, names->pdata[0]);
        view_child(v, name, "file");
        view_node(v, name);
    }
    for (unsigned i = 0; i < view_jobs(v)->len; i++) {
        const QemuJob *job = view_jobs(v)->pdata[i];
        g_assert_true(view_job(v, job->id) == job);
        g_assert_nonnull(job->type);
        g_assert_true((job->phase == QJOB_FAILED) == (job->error != NULL));
        g_assert_cmpint(job->phase, !=, QJOB_ABSENT);
    }
    for (unsigned i = 0; i < view_devices(v)->len; i++) {
        const QemuDevice *device = view_devices(v)->pdata[i];
        g_assert_true(*device->qdev || *device->backend);
        if (*device->qdev)
            g_assert_true(view_device(v, device->qdev) == device);
    }
    view_has_concluded(v, "stream");
}

static json_t *value_random(GRand *rand) {
    static const char *const values[] = {
        "null",
        "true",
        "-1",
        "0",
        "9223372036854775807",
        "-9223372036854775808",
        "1e300",
        "''",
        "'a'",
        "3",
        "'backing'",
        "'file'",
        "'#block'",
        "'throttle'",
        "'standby'",
        "7",
        "[]",
        "{}",
        "[[[]]]",
        "[{}]",
        "[7]",
        "5",
        "{'nodes':[{}]}",
        "'copy1-top'",
    };
    return json(values[g_rand_int_range(rand, 0, G_N_ELEMENTS(values))]);
}

/* Goes down to some value and deletes it, puts another in its place, or doubles it. */
static void json_damage(json_t *value, GRand *rand) {
    for (;;) {
        bool object = json_is_object(value);
        size_t n = object ? json_object_size(value) : json_array_size(value);
        if (n == 0)
            return;
        size_t at = (size_t) g_rand_int_range(rand, 0, (gint32) n);
        void *member = object ? json_object_iter(value) : NULL;
        for (size_t i = 0; object && i < at; i++)
            member = json_object_iter_next(value, member);
        json_t *child = object ? json_object_iter_value(member) : json_array_get(value, at);
        bool deeper = json_is_object(child) || json_is_array(child);
        if (deeper && g_rand_int_range(rand, 0, 8) != 0) {
            value = child;
            continue;
        }
        int how = g_rand_int_range(rand, 0, 3);
        if (object && how == 0)
            json_object_del(value, json_object_iter_key(member));
        else if (object)
            json_object_iter_set_new(value, member, value_random(rand));
        else if (how == 0)
            json_array_remove(value, at);
        else if (how == 1)
            json_array_set_new(value, at, value_random(rand));
        else
            json_array_append_new(value, json_deep_copy(child));
        return;
    }
}

static void damaged_answers_are_survived(void) {
    g_autoptr(GRand) rand = g_rand_new_with_seed(20240229);
    json_t *looks[G_N_ELEMENTS(samples)];
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(View) v = view_new();

    for (size_t i = 0; i < G_N_ELEMENTS(samples); i++)
        looks[i] = sample_load(samples[i]);
    size_t index;
    json_t *node;
    json_t *nodes =
        json_object_get(json_object_get(looks[1], "x-debug-query-block-graph"), "nodes");
    json_array_foreach (nodes, index, node)
        g_ptr_array_add(names, g_strdup(json_string_value(json_object_get(node, "name"))));

    for (unsigned round = 0; round < 5000; round++) {
        json_t *look = json_deep_copy(looks[round % G_N_ELEMENTS(looks)]);
        for (int damages = g_rand_int_range(rand, 1, 60); damages > 0; damages--)
            json_damage(look, rand);
        view_set(v, look);
        json_decref(look);
        view_read_all(v, names);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(looks); i++)
        json_decref(looks[i]);
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
#define TEST(name) g_test_add_func("/view/" #name, name)
    TEST(enumerators_have_names);
    TEST(new_view_knows_nothing);
    TEST(recorded_jobs_have_their_phases);
    TEST(recorded_progress_is_read);
    TEST(concluded_stream_is_seen_also_when_it_was_cancelled);
    TEST(recorded_devices_are_read);
    TEST(recorded_nodes_are_read);
    TEST(roots_are_known_without_a_look_at_the_nodes);
    TEST(recorded_graph_is_walked);
    TEST(recorded_mirror_shows_source_then_target);
    TEST(filter_of_a_job_that_came_later_is_skipped);
    TEST(status_and_ready_make_the_phase);
    TEST(later_answer_about_a_job_wins);
    TEST(any_error_makes_a_concluded_job_a_failed_one);
    TEST(odd_numbers_of_jobs_are_none);
    TEST(second_of_the_same_name_is_ignored);
    TEST(answers_of_the_wrong_sort_are_empty);
    TEST(cleared_view_knows_nothing);
    TEST(too_long_names_are_no_names);
    TEST(only_block_drivers_of_the_graph_count);
    TEST(filters_in_every_place_are_skipped);
    TEST(unknown_driver_with_a_file_is_an_image);
    TEST(parents_come_before_children_in_a_shared_graph);
    TEST(rings_come_to_an_end);
    TEST(long_chains_are_cut_and_walked_without_recursion);
    TEST(lying_peer_costs_little_time);
    TEST(damaged_answers_are_survived);
    return g_test_run();
}
