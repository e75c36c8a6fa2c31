/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A journal in a folder of its own with a loop, and what the tests do with it again and again. */

#include <glib.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <sqlite3.h>

#include "journal-vfs.h"
#include "journal/journal.h"
#include "log.h"
#include "util.h"

typedef struct {
    sd_event *event;
    char *dir;
    bool own_dir;
    Journal *journal;
    GPtrArray *jobs, *domains; /* as found at the last start */
    GPtrArray *history;        /* as read last; copies */
    bool history_read;
    unsigned expected, done; /* continuations */
    int error;               /* sum of theirs; they must be 0 unless count_errors */
    bool count_errors;
    int changes; /* of the state */
} Rig;

static inline void rig_changed(Journal *j, void *userdata) {
    ((Rig *) userdata)->changes++;
}

static inline void rig_count(int error, void *userdata) {
    Rig *rig = userdata;

    rig->done++;
    rig->error += error;
    g_assert_true(rig->count_errors || error == 0);
}

static inline void rig_run_once(Rig *rig) {
    int r = sd_event_run(rig->event, 20 * USEC_PER_SEC);

    g_assert_cmpint(r, >, 0); /* 0: nothing came in all that time */
}

static inline void rig_flush(Rig *rig) {
    while (rig->done < rig->expected)
        rig_run_once(rig);
}

static inline void rig_start(Rig *rig) {
    g_auto(Failure) why = {0};
    int r = journal_open(rig->event, rig->dir, rig_changed, rig, &why, &rig->journal);

    g_assert_cmpstr(why.message, ==, NULL);
    g_assert_cmpint(r, ==, 0);
    rig->jobs = journal_take_jobs(rig->journal);
    rig->domains = journal_take_domains(rig->journal);
}

static inline void rig_close(Rig *rig) {
    rig->journal = journal_free(rig->journal);
    g_clear_pointer(&rig->jobs, g_ptr_array_unref);
    g_clear_pointer(&rig->domains, g_ptr_array_unref);
    g_clear_pointer(&rig->history, g_ptr_array_unref);
    rig->expected = rig->done = 0;
}

static inline void rig_reopen(Rig *rig) {
    rig_close(rig);
    rig_start(rig);
}

/* A folder, no journal yet. */
static inline Rig *rig_new_dir(void) {
    Rig *rig = g_new0(Rig, 1);

    journal_vfs_reset();
    g_assert_cmpint(sd_event_new(&rig->event), >=, 0);
    rig->dir = g_dir_make_tmp("journal-XXXXXX", NULL);
    g_assert_nonnull(rig->dir);
    rig->own_dir = true;
    return rig;
}

static inline Rig *rig_new(const char *dir) {
    Rig *rig = NULL;

    if (!dir)
        rig = rig_new_dir();
    else {
        rig = g_new0(Rig, 1);
        g_assert_cmpint(sd_event_new(&rig->event), >=, 0);
        rig->dir = g_strdup(dir);
    }
    rig_start(rig);
    return rig;
}

static inline void dir_empty(const char *path) {
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);
        g_unlink(file);
    }
    g_clear_pointer(&dir, g_dir_close);
}

static inline void rig_free(Rig *rig) {
    rig_close(rig);
    if (rig->own_dir) {
        dir_empty(rig->dir);
        g_rmdir(rig->dir);
    }
    sd_event_unref(rig->event);
    g_free(rig->dir);
    g_free(rig);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Rig, rig_free)

static inline JournalJob *job_new(uint64_t id, const char *domain) {
    JournalJob job = {.id = id,
                      .domain = (char *) domain,
                      .disk = (char *) "vda",
                      .kind = (char *) "copy",
                      .target = (char *) "/srv/images/ä.qcow2",
                      .request_id = (char *) "r-1",
                      .owner_uid = 4294967294,
                      .created = 1700000000000000,
                      .exported = true,
                      .document = (char *) "{\"node\": \"bj-target\"}"};

    return journal_job_copy(&job);
}

static inline void assert_same_job(const JournalJob *a, const JournalJob *b) {
    g_assert_cmpuint(a->id, ==, b->id);
    g_assert_cmpstr(a->domain, ==, b->domain);
    g_assert_cmpstr(a->disk, ==, b->disk);
    g_assert_cmpstr(a->kind, ==, b->kind);
    g_assert_cmpstr(a->target, ==, b->target);
    g_assert_cmpstr(a->result, ==, b->result);
    g_assert_cmpstr(a->error_name, ==, b->error_name);
    g_assert_cmpstr(a->error_message, ==, b->error_message);
    g_assert_cmpstr(a->request_id, ==, b->request_id);
    g_assert_cmpuint(a->owner_uid, ==, b->owner_uid);
    g_assert_cmpuint(a->created, ==, b->created);
    g_assert_cmpuint(a->finished, ==, b->finished);
    g_assert_cmpuint(a->restarts, ==, b->restarts);
    g_assert_cmpint(a->exported, ==, b->exported);
    g_assert_cmpstr(a->document, ==, b->document);
}

static inline void rig_put(Rig *rig, const JournalJob *job, const char *state) {
    journal_put_job(rig->journal, job, state, "", "", rig_count, rig, NULL);
    rig->expected++;
}

static inline void rig_put_new(Rig *rig, const char *domain) {
    g_autoptr(JournalJob) job = job_new(journal_new_id(rig->journal), domain);

    rig_put(rig, job, "queued");
}

static inline void rig_put_domain(Rig *rig, const char *name, const char *document) {
    JournalDomain domain = {(char *) name, (char *) document};

    journal_put_domain(rig->journal, &domain, rig_count, rig, NULL);
    rig->expected++;
}

static inline void rig_free_job(void *job) {
    journal_job_free(job);
}

static inline void rig_history_done(int error, GPtrArray *jobs, void *userdata) {
    Rig *rig = userdata;

    rig->history_read = true;
    rig->error = error;
    g_assert_true((jobs == NULL) == (error < 0));
    if (!jobs)
        return;
    rig->history = g_ptr_array_new_with_free_func(rig_free_job);
    for (unsigned i = 0; i < jobs->len; i++)
        g_ptr_array_add(rig->history, journal_job_copy(jobs->pdata[i]));
}

static inline void rig_read_history(Rig *rig, const JournalFilter *filter) {
    g_clear_pointer(&rig->history, g_ptr_array_unref);
    rig->history_read = false;
    journal_history(rig->journal, filter, rig_history_done, rig, NULL);
    while (!rig->history_read)
        rig_run_once(rig);
}

/* Pruning has no continuation: reads until so many are left. */
static inline void rig_wait_history(Rig *rig, unsigned n) {
    uint64_t deadline = now_monotonic() + 20 * USEC_PER_SEC;

    do {
        rig_read_history(rig, &(JournalFilter){0});
        g_assert_cmpuint(now_monotonic(), <, deadline);
    } while (rig->history->len != n);
}

/* The file, opened past the journal; it must be closed. The first column of the first row, 0 without one. */
static inline int64_t rig_sql_int(Rig *rig, const char *sql) {
    g_autofree char *path = g_build_filename(rig->dir, "journal.db", NULL);
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    int64_t value = 0;

    g_assert_cmpint(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix"), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL), ==,
                    SQLITE_OK);
    g_assert_cmpint(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), ==, SQLITE_OK);
    int code = sqlite3_step(stmt);
    g_assert_true(code == SQLITE_ROW || code == SQLITE_DONE);
    if (code == SQLITE_ROW)
        value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    g_assert_cmpint(sqlite3_close(db), ==, SQLITE_OK);
    return value;
}
