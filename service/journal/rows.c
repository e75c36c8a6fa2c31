/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows of the journal's store: writing, history, pruning. */

#include "journal/rows.h"

#include <inttypes.h>
#include <string.h>

#include "journal/row.h"
#include "log.h"
#include "util.h"

#define PRUNE_SLICE 256

/* ---- jobs and transitions ---- */

static void bind_job(sqlite3_stmt *stmt, const JournalJob *job, uint64_t seq) {
    Row row = row_begin(stmt, "job");

    row_put_uint(&row, job->id);
    row_put_text(&row, job->domain);
    row_put_text(&row, job->disk);
    row_put_text(&row, job->kind);
    row_put_text(&row, job->target);
    row_put_text(&row, job->result);
    row_put_text(&row, job->error_name);
    row_put_text(&row, job->error_message);
    row_put_text(&row, job->request_id);
    row_put_uint(&row, job->owner_uid);
    row_put_uint(&row, job->created);
    row_put_uint(&row, job->restarts);
    row_put_uint(&row, job->finished);
    row_put_uint(&row, job->exported);
    row_put_text(&row, job->document);
    row_put_uint(&row, seq);
    row_put_crc(&row);
}

bool rows_read_job(sqlite3_stmt *stmt, JournalJob *job, uint64_t *ret_seq) {
    Row row = row_begin(stmt, "job");

    job->id = row_get_uint(&row);
    job->domain = g_strdup(row_get_text(&row));
    job->disk = g_strdup(row_get_text(&row));
    job->kind = g_strdup(row_get_text(&row));
    job->target = g_strdup(row_get_text(&row));
    job->result = g_strdup(row_get_text(&row));
    job->error_name = g_strdup(row_get_text(&row));
    job->error_message = g_strdup(row_get_text(&row));
    job->request_id = g_strdup(row_get_text(&row));
    job->owner_uid = (uint32_t) row_get_uint(&row);
    job->created = row_get_uint(&row);
    job->restarts = (uint32_t) row_get_uint(&row);
    job->finished = row_get_uint(&row);
    job->exported = row_get_uint(&row) != 0;
    job->document = g_strdup(row_get_text(&row));
    *ret_seq = row_get_uint(&row);
    return row_check_crc(&row);
}

/* *ret_hit: whether there was such a row. */
static int run_job(Store *s, Statement which, const JournalJob *job, uint64_t seq, bool *ret_hit) {
    sqlite3_stmt *stmt = s->statements[which];

    bind_job(stmt, job, seq);
    int r = store_run(s, stmt);
    *ret_hit = r >= 0 && sqlite3_changes(s->db) > 0;
    return r;
}

int rows_put_transition(Store *s, uint64_t job, uint64_t seq, uint64_t time, const char *state,
                        const char *intent, const char *detail) {
    sqlite3_stmt *stmt = s->statements[STATEMENT_TRANSITION_INSERT];
    Row row = row_begin(stmt, "transition");

    row_put_uint(&row, job);
    row_put_uint(&row, seq);
    row_put_uint(&row, time);
    row_put_text(&row, state);
    row_put_text(&row, intent);
    row_put_text(&row, detail);
    row_put_crc(&row);
    s->position.transitions++;
    return store_run(s, stmt);
}

int rows_put_job(Store *s, const JournalJob *job, uint64_t time, const char *state,
                 const char *intent, const char *detail) {
    uint64_t seq = s->position.seq + 1;
    bool hit = false;
    int r = run_job(s, STATEMENT_JOB_UPDATE, job, seq, &hit);

    if (r >= 0 && !hit)
        r = run_job(s, STATEMENT_JOB_REPLACE, job, seq, &hit);
    if (r >= 0 && !hit) {
        r = run_job(s, STATEMENT_JOB_INSERT, job, seq, &hit);
        s->position.jobs++;
    }
    if (r >= 0)
        r = rows_put_transition(s, job->id, seq, time, state, intent, detail);
    if (r < 0)
        return r;
    s->position.seq = seq;
    s->position.last_id = MAX(s->position.last_id, job->id);
    return 0;
}

/* ---- domains, position, meta ---- */

static void bind_domain(sqlite3_stmt *stmt, const JournalDomain *domain, uint64_t seq) {
    Row row = row_begin(stmt, "domain");

    row_put_text(&row, domain->name);
    row_put_text(&row, domain->document);
    row_put_uint(&row, seq);
    row_put_crc(&row);
}

static int forget_domain(Store *s, const char *name) {
    sqlite3_stmt *stmt = s->statements[STATEMENT_DOMAIN_DELETE];

    sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    int r = store_run(s, stmt);
    if (r >= 0)
        s->position.domains -= (uint64_t) sqlite3_changes(s->db);
    return r;
}

int rows_put_domain(Store *s, const JournalDomain *domain) {
    uint64_t seq = s->position.seq + 1;
    int r;

    if (!domain->document)
        r = forget_domain(s, domain->name);
    else {
        bind_domain(s->statements[STATEMENT_DOMAIN_UPDATE], domain, seq);
        r = store_run(s, s->statements[STATEMENT_DOMAIN_UPDATE]);
        if (r >= 0 && sqlite3_changes(s->db) == 0) {
            bind_domain(s->statements[STATEMENT_DOMAIN_INSERT], domain, seq);
            r = store_run(s, s->statements[STATEMENT_DOMAIN_INSERT]);
            s->position.domains++;
        }
    }
    if (r >= 0)
        s->position.seq = seq;
    return r;
}

int rows_put_position(Store *s) {
    sqlite3_stmt *stmt = s->statements[STATEMENT_POSITION];
    Row row = row_begin(stmt, "position");

    row_put_uint(&row, 1);
    row_put_uint(&row, s->position.seq);
    row_put_uint(&row, s->position.last_id);
    row_put_uint(&row, s->position.jobs);
    row_put_uint(&row, s->position.domains);
    row_put_uint(&row, s->position.transitions);
    row_put_crc(&row);
    return store_run(s, stmt);
}

int rows_load_position(Store *s) {
    autostmt *stmt = NULL;
    int r = store_prepare(
        s, "SELECT id, seq, last_id, jobs, domains, transitions, crc FROM position WHERE id = 1",
        &stmt);

    if (r < 0)
        return r;
    int code = sqlite3_step(stmt);
    if (code != SQLITE_ROW)
        return code == SQLITE_DONE ? -ENODATA : store_errno(s, code);
    Row row = row_begin(stmt, "position");
    StorePosition position;
    (void) row_get_uint(&row);
    position.seq = row_get_uint(&row);
    position.last_id = row_get_uint(&row);
    position.jobs = row_get_uint(&row);
    position.domains = row_get_uint(&row);
    position.transitions = row_get_uint(&row);
    if (!row_check_crc(&row))
        return -ENODATA;
    s->position = position;
    return 0;
}

int rows_put_meta(Store *s, const char *name, const char *value) {
    autostmt *stmt = NULL;
    int r = store_prepare(s, "INSERT OR REPLACE INTO meta (name, value, crc) VALUES (?1, ?2, ?3)",
                          &stmt);

    if (r < 0)
        return r;
    Row row = row_begin(stmt, "meta");
    row_put_text(&row, name);
    row_put_text(&row, value);
    row_put_crc(&row);
    return store_run(s, stmt);
}

int rows_load_meta(Store *s, const char *name, char **ret_value) {
    autostmt *stmt = NULL;
    int r = store_prepare(s, "SELECT name, value, crc FROM meta WHERE name = ?1", &stmt);

    if (r < 0)
        return r;
    sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    int code = sqlite3_step(stmt);
    if (code != SQLITE_ROW)
        return code == SQLITE_DONE ? -ENODATA : store_errno(s, code);
    Row row = row_begin(stmt, "meta");
    (void) row_get_text(&row);
    g_autofree char *value = g_strdup(row_get_text(&row));
    if (!row_check_crc(&row))
        return -ENODATA;
    *ret_value = g_steal_pointer(&value);
    return 0;
}

static void free_job(void *job) {
    journal_job_free(job);
}

/* ---- history and pruning ---- */

static void bind_filter_text(sqlite3_stmt *stmt, int index, const char *text) {
    if (text)
        sqlite3_bind_text(stmt, index, text, -1, SQLITE_STATIC);
}

static uint64_t clamp_int64(uint64_t value) {
    return MIN(value, (uint64_t) INT64_MAX);
}

int rows_history(Store *s, const JournalFilter *filter, GPtrArray **ret_jobs) {
    g_autoptr(GPtrArray) jobs = g_ptr_array_new_with_free_func(free_job);
    autostmt *stmt = NULL;
    int code, r;

    r = store_prepare(s,
                      "SELECT " JOB_COLUMNS " FROM job WHERE finished > 0 "
                      "AND finished >= ?1 AND finished <= ?2 AND (?3 IS NULL OR domain = ?3) "
                      "AND (?4 IS NULL OR disk = ?4) AND (?5 IS NULL OR kind = ?5) "
                      "AND (?6 IS NULL OR result = ?6) ORDER BY finished DESC, id DESC LIMIT ?7",
                      &stmt);
    if (r < 0)
        return r;
    sqlite3_bind_int64(stmt, 1, (sqlite3_int64) clamp_int64(filter->since));
    sqlite3_bind_int64(stmt, 2,
                       (sqlite3_int64) clamp_int64(filter->until ? filter->until : UINT64_MAX));
    bind_filter_text(stmt, 3, filter->domain);
    bind_filter_text(stmt, 4, filter->disk);
    bind_filter_text(stmt, 5, filter->kind);
    bind_filter_text(stmt, 6, filter->result);
    sqlite3_bind_int64(stmt, 7, filter->limit ? (sqlite3_int64) filter->limit : -1);
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
        JournalJob *job = g_new0(JournalJob, 1);
        uint64_t seq;
        if (rows_read_job(stmt, job, &seq))
            g_ptr_array_add(jobs, job);
        else {
            log_event(LOG_ERR, MESSAGE_JOURNAL_CORRUPT,
                      "The journal's row of the finished job %" PRIu64
                      " is damaged; it is left out of the history.",
                      job->id);
            journal_job_free(job);
        }
    }
    if (code != SQLITE_DONE)
        return store_errno(s, code);
    *ret_jobs = g_steal_pointer(&jobs);
    return 0;
}

static int prune_candidates(Store *s, const JournalRetention *retention, GArray *ids) {
    autostmt *stmt = NULL;
    uint64_t now = now_realtime();
    int code;
    int r = store_prepare(
        s,
        "SELECT id FROM job WHERE finished > 0 AND exported = 0 AND finished < ?1 UNION "
        "SELECT id FROM (SELECT id, exported FROM job WHERE finished > 0 ORDER BY "
        "finished DESC, id DESC LIMIT -1 OFFSET ?2) WHERE exported = 0 LIMIT ?3",
        &stmt);

    if (r < 0)
        return r;
    if (retention->keep_age && retention->keep_age < now)
        sqlite3_bind_int64(stmt, 1, (sqlite3_int64) (now - retention->keep_age));
    sqlite3_bind_int64(
        stmt, 2,
        (sqlite3_int64) (retention->keep_rows ? clamp_int64(retention->keep_rows) : INT64_MAX));
    sqlite3_bind_int(stmt, 3, PRUNE_SLICE);
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
        uint64_t id = (uint64_t) sqlite3_column_int64(stmt, 0);
        g_array_append_val(ids, id);
    }
    return store_errno(s, code);
}

static int delete_where(Store *s, const char *sql, const GArray *ids, uint64_t *counter) {
    autostmt *stmt = NULL;
    int r = store_prepare(s, sql, &stmt);

    for (guint i = 0; i < ids->len && r >= 0; i++) {
        sqlite3_bind_int64(stmt, 1, (sqlite3_int64) g_array_index(ids, uint64_t, i));
        r = store_run(s, stmt);
        if (r >= 0)
            *counter -= (uint64_t) sqlite3_changes(s->db);
    }
    return r;
}

int rows_prune(Store *s, const JournalRetention *retention, bool *ret_more) {
    g_autoptr(GArray) ids = g_array_new(false, false, sizeof(uint64_t));
    int r = prune_candidates(s, retention, ids);

    *ret_more = false;
    if (r < 0 || ids->len == 0)
        return r;
    r = store_begin(s);
    if (r >= 0)
        r = delete_where(s, "DELETE FROM transition WHERE job = ?1", ids, &s->position.transitions);
    if (r >= 0)
        r = delete_where(s, "DELETE FROM job WHERE id = ?1", ids, &s->position.jobs);
    if (r >= 0)
        r = store_commit(s);
    if (r < 0) {
        store_rollback(s);
        return r;
    }
    *ret_more = ids->len == PRUNE_SLICE;
    return 0;
}
