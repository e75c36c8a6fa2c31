/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The journal as a JSON document, from the service and from its files. */

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "journal-test.h"
#include "journal/export.h"

typedef struct {
    GString *text;
    uint64_t next;
    unsigned parts;
    bool done;
} Export;

static void export_done(int error, const char *text, uint64_t next, void *userdata) {
    Export *e = userdata;

    g_assert_cmpint(error, ==, 0);
    g_string_append(e->text, text);
    g_assert_true(next == 0 || next > e->next);
    e->next = next;
    e->parts++;
    e->done = true;
}

static json_t *parse(const char *text) {
    json_error_t error;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);

    if (!root)
        g_error("%s, at %d", error.text, error.position);
    return root;
}

static json_t *export_open(Rig *rig, unsigned *ret_parts) {
    Export e = {.text = g_string_new(NULL)};

    do {
        e.done = false;
        journal_export(rig->journal, e.next, export_done, &e, NULL);
        while (!e.done)
            rig_run_once(rig);
    } while (e.next > 0);
    json_t *root = parse(e.text->str);
    g_string_free(e.text, TRUE);
    *ret_parts = e.parts;
    return root;
}

static json_t *export_files(Rig *rig) {
    g_auto(Failure) why = {0};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    g_assert_cmpint(export_closed(rig->dir, out, &why), ==, 0);
    fclose(out);
    json_t *root = parse(text);
    free(text);
    json_object_del(root, "exported"); /* the time */
    return root;
}

static void the_export_is_one_document(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    unsigned parts = 0;

    json_t *empty = export_open(rig, &parts);
    g_assert_cmpuint(json_array_size(json_object_get(empty, "jobs")), ==, 0);
    g_assert_cmpuint(parts, ==, 1);
    json_decref(empty);
    rig_put_domain(rig, "web", "{\"socket\": \"/run/web.sock\"}");
    rig_put_domain(rig, "odd", "no JSON");
    for (unsigned i = 0; i < 200; i++) {
        rig_put_new(rig, "web");
        g_autoptr(JournalJob) job = job_new(i + 1, "web");
        rig_put(rig, job, "ready");
    }
    rig_flush(rig);
    json_t *whole = export_open(rig, &parts);
    json_t *jobs = json_object_get(whole, "jobs"), *domains = json_object_get(whole, "domains");
    g_assert_cmpuint(parts, >, 3);
    g_assert_cmpuint(json_array_size(jobs), ==, 200);
    for (size_t i = 0; i < 200; i++) {
        const json_t *job = json_array_get(jobs, i);
        const json_t *transitions = json_object_get(job, "transitions");
        const json_t *document = json_object_get(job, "document");
        g_assert_cmpint(json_integer_value(json_object_get(job, "id")), ==, (json_int_t) i + 1);
        g_assert_null(json_object_get(job, "damaged"));
        g_assert_cmpstr(json_string_value(json_object_get(document, "node")), ==, "bj-target");
        g_assert_cmpuint(json_array_size(transitions), ==, 2);
        g_assert_cmpstr(json_string_value(json_object_get(json_array_get(transitions, 1), "state")),
                        ==, "ready");
    }
    g_assert_cmpuint(json_array_size(domains), ==, 2);
    g_assert_true(json_is_object(json_object_get(json_array_get(domains, 0), "document")));
    g_assert_true(json_is_string(json_object_get(json_array_get(domains, 1), "document")));

    /* The same without the service, twice, with no byte changed: not even what the log holds is moved. */
    rig_close(rig);
    json_object_del(whole, "exported");
    g_autofree char *path = g_build_filename(rig->dir, "journal.db", NULL);
    g_autofree char *wal = g_strconcat(path, "-wal", NULL);
    const char *const files[] = {path, wal};
    char *before[2];
    size_t sizes[2];
    for (size_t i = 0; i < 2; i++)
        g_assert_true(g_file_get_contents(files[i], &before[i], &sizes[i], NULL));
    for (int i = 0; i < 2; i++) {
        json_t *closed = export_files(rig);
        g_assert_true(json_equal(closed, whole));
        json_decref(closed);
    }
    for (size_t i = 0; i < 2; i++) {
        g_autofree char *after = NULL;
        size_t size = 0;
        g_assert_true(g_file_get_contents(files[i], &after, &size, NULL));
        g_assert_cmpmem(before[i], sizes[i], after, size);
        g_free(before[i]);
    }
    json_decref(whole);
}

static void the_export_shows_what_is_damaged(void) {
    g_autoptr(Rig) rig = rig_new(NULL);

    for (int i = 0; i < 3; i++)
        rig_put_new(rig, "web");
    rig_flush(rig);
    rig_close(rig);
    (void) rig_sql_int(rig, "UPDATE job SET result = CAST(x'ff' AS TEXT) WHERE id = 2");
    (void) rig_sql_int(rig, "DELETE FROM job WHERE id = 3");
    (void) rig_sql_int(rig, "UPDATE transition SET detail = 'x' WHERE job = 1");
    (void) rig_sql_int(rig, "DELETE FROM position");
    json_t *root = export_files(rig);
    json_t *jobs = json_object_get(root, "jobs");
    json_t *first = json_array_get(jobs, 0), *third = json_array_get(jobs, 2);
    g_assert_cmpuint(json_array_size(jobs), ==, 3);
    g_assert_null(json_object_get(first, "damaged"));
    g_assert_true(json_is_true(
        json_object_get(json_array_get(json_object_get(first, "transitions"), 0), "damaged")));
    g_assert_true(json_is_true(json_object_get(json_array_get(jobs, 1), "damaged")));
    g_assert_cmpuint(json_object_size(third), ==, 2);
    g_assert_cmpuint(json_array_size(json_object_get(third, "transitions")), ==, 1);
    json_decref(root);
}

static void what_cannot_be_exported_is_said(void) {
    g_autoptr(Rig) rig = rig_new_dir();
    const struct {
        const char *sql;
        int error;
        const char *words;
    } cases[] = {{NULL, -EBUSY, "Another instance"},
                 {"PRAGMA user_version = 2", -EPROTONOSUPPORT, "newer version"},
                 {"PRAGMA application_id = 7", -EBADMSG, "cannot be used"}};
    g_auto(Failure) why = {0};

    g_assert_cmpint(export_closed(rig->dir, stdout, &why), ==, -ENOENT);
    g_assert_nonnull(strstr(why.message, "No such file"));
    rig_start(rig);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        if (cases[i].sql) {
            rig_close(rig);
            (void) rig_sql_int(rig, cases[i].sql);
        }
        g_assert_cmpint(export_closed(rig->dir, stdout, &why), ==, cases[i].error);
        g_assert_nonnull(strstr(why.message, cases[i].words));
    }
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
    log_set_max_level(g_test_verbose() ? LOG_DEBUG : -1);
#define ADD(name) g_test_add_func("/journal-export/" #name, name)
    ADD(the_export_is_one_document);
    ADD(the_export_shows_what_is_damaged);
    ADD(what_cannot_be_exported_is_said);
    return g_test_run();
}
