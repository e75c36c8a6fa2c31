/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Journals of earlier versions, kept in data/journal: each is brought up to date, and every record in it can still be
 * read. Who adds a member to a document makes it one that may be missing. */

#include <string.h>

#include "domain/domain.h"
#include "job/internal.h"
#include "journal-test.h"

#define N_VERSIONS 1

static char *sample_path(int version) {
    g_autofree char *name = g_strdup_printf("%d.sql", version);

    return g_build_filename(g_getenv("BLOCKJOBD_TESTS") ?: "tests/unit", "data", "journal", name,
                            NULL);
}

static void place(Rig *rig, int version) {
    g_autofree char *path = sample_path(version), *sql = NULL;
    g_autofree char *file = g_build_filename(rig->dir, "journal.db", NULL);
    char *error = NULL;
    sqlite3 *db = NULL;

    g_assert_true(g_file_get_contents(path, &sql, NULL, NULL));
    g_assert_cmpint(sqlite3_open_v2(file, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix"),
                    ==, SQLITE_OK);
    sqlite3_exec(db, sql, NULL, NULL, &error);
    g_assert_cmpstr(error, ==, NULL);
    g_assert_cmpint(sqlite3_close(db), ==, SQLITE_OK);
}

static void check_jobs(const GPtrArray *jobs) {
    static const struct {
        uint64_t id;
        const char *disk, *request_id;
        JobState state;
        JobResult result;
    } expected[] = {{1, "vdb", "", JOB_CONCLUDED, RESULT_PIVOTED},
                    {2, "vdb", "", JOB_CONCLUDED, RESULT_CANCELLED},
                    {3, "vdc", "again", JOB_READY, RESULT_NONE},
                    {4, "vda", "", JOB_RUNNING, RESULT_NONE}};

    g_assert_cmpuint(jobs->len, ==, G_N_ELEMENTS(expected));
    for (size_t i = 0; i < G_N_ELEMENTS(expected); i++) {
        g_autoptr(Job) j = NULL;
        if (job_restore(jobs->pdata[i], NULL, &j) < 0)
            g_error("The record of job %u cannot be read any more.", (unsigned) expected[i].id);
        g_assert_cmpuint(j->id, ==, expected[i].id);
        g_assert_cmpstr(j->disk, ==, expected[i].disk);
        g_assert_cmpstr(j->request_id, ==, expected[i].request_id);
        g_assert_cmpint(j->state, ==, expected[i].state);
        g_assert_cmpint(j->result, ==, expected[i].result);
        g_assert_true(g_str_has_suffix(j->target, "/copies/a") == (i == 0));
    }
}

static void check_domains(Rig *rig) {
    static const DomainHooks hooks = {0};
    const DomainParams params = {.name = "web", .socket = "", .fd = -1, .definition = ""};
    const JournalDomain *record = rig->domains->pdata[0];
    g_autoptr(Domain) d = NULL;

    g_assert_cmpuint(rig->domains->len, ==, 1);
    g_assert_cmpstr(record->name, ==, "web");
    if (domain_restore(rig->event, rig->journal, &params, record->document, &hooks, NULL, &d) < 0)
        g_error("The record of the domain cannot be read any more.");
    g_assert_cmpuint(domain_disks(d)->len, ==, 4);
    g_assert_true(g_str_has_suffix(domain_socket(d), ".qmp"));
}

static void journals_of_all_versions_are_read(void) {
    for (int version = 1; version <= N_VERSIONS; version++) {
        g_autoptr(Rig) rig = rig_new_dir();
        g_autofree char *next = sample_path(version + 1);
        g_assert_true(version < N_VERSIONS || access(next, F_OK) < 0); /* none is left out */
        place(rig, version);
        for (int starts = 0; starts < 2; starts++) {
            rig_start(rig);
            g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
            check_jobs(rig->jobs);
            check_domains(rig);
            rig_read_history(rig, &(JournalFilter){0});
            g_assert_cmpuint(rig->history->len, ==, 3);
            g_assert_cmpuint(journal_new_id(rig->journal), ==, 6);
            rig_close(rig);
        }
        g_assert_cmpint(rig_sql_int(rig, "PRAGMA user_version"), ==, N_VERSIONS);
    }
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
    log_set_max_level(g_test_verbose() ? LOG_DEBUG : -1);
    g_test_add_func("/journal-samples/journals_of_all_versions_are_read",
                    journals_of_all_versions_are_read);
    return g_test_run();
}
