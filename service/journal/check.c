/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is in the journal after opening, whether it is all there, and the setting aside of damaged rows. */

#include "journal/check.h"

#include <inttypes.h>
#include <string.h>

#include "journal/row.h"
#include "journal/rows.h"
#include "log.h"
#include "util.h"

static void free_job(void *job) {
    journal_job_free(job);
}

static void free_domain(void *domain) {
    journal_domain_free(domain);
}

typedef struct {
    const char *table;
    uint64_t key, second; /* rowid; for a transition its job and its number */
} Suspect;

typedef struct {
    Store *store;
    GArray *suspects; /* Suspect: to be moved */
    GArray *missing;  /* Suspect: transitions to be made up for */
    uint64_t max_seq, max_id;
    sqlite3_stmt *last_transition;
} Loading;

static void loading_suspect(Loading *l, const char *table, uint64_t key, uint64_t second) {
    Suspect suspect = {table, key, second};

    g_array_append_val(l->suspects, suspect);
}

/* The number of the job's last transition; 0 = there is none, or none that can be trusted. */
static int load_last_transition(Loading *l, uint64_t job, uint64_t *ret_seq) {
    sqlite3_stmt *stmt = l->last_transition;
    int r = 0;

    *ret_seq = 0;
    sqlite3_bind_int64(stmt, 1, (sqlite3_int64) job);
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW) {
        Row row = row_begin(stmt, "transition");
        (void) row_get_uint(&row);
        uint64_t seq = row_get_uint(&row);
        (void) row_get_uint(&row);
        for (int i = 0; i < 3; i++)
            (void) row_get_text(&row);
        if (row_check_crc(&row))
            *ret_seq = seq;
        else
            loading_suspect(l, "transition", job, seq);
    } else if (code != SQLITE_DONE)
        r = store_errno(l->store, code);
    sqlite3_reset(stmt);
    return r;
}

/* A row and the transition that was written with it carry the same number. */
static int load_job(Loading *l, sqlite3_stmt *stmt, GPtrArray *jobs) {
    g_autoptr(JournalJob) job = g_new0(JournalJob, 1);
    uint64_t seq = 0, last = 0;

    l->max_id = MAX(l->max_id, (uint64_t) sqlite3_column_int64(stmt, 0));
    if (!rows_read_job(stmt, job, &seq)) {
        store_finding(l->store, "The row of job %" PRIu64 " is set aside: its CRC is wrong.",
                      job->id);
        loading_suspect(l, "job", job->id, 0);
        return 0;
    }
    int r = load_last_transition(l, job->id, &last);
    if (r < 0)
        return r;
    l->max_seq = MAX(l->max_seq, MAX(seq, last));
    if (last > seq) {
        store_finding(l->store,
                      "The row of job %" PRIu64
                      " is set aside: it is older than its last transition.",
                      job->id);
        loading_suspect(l, "job", job->id, 0);
        return 0;
    }
    if (last < seq) {
        Suspect missing = {"transition", job->id, seq};
        store_finding(l->store,
                      "The last transition of job %" PRIu64
                      " is missing or damaged; the job itself is whole.",
                      job->id);
        g_array_append_val(l->missing, missing);
    }
    g_ptr_array_add(jobs, g_steal_pointer(&job));
    return 0;
}

static int load_jobs(Loading *l, GPtrArray *jobs) {
    Store *s = l->store;
    autostmt *stmt = NULL, *last = NULL;
    int code;
    int r = store_prepare(s,
                          "SELECT " JOB_COLUMNS
                          " FROM job NOT INDEXED WHERE finished = 0 OR exported = 1 ORDER BY id",
                          &stmt);

    if (r >= 0)
        r = store_prepare(
            s,
            "SELECT job, seq, time, state, intent, detail, crc FROM transition WHERE job = ?1 "
            "ORDER BY seq DESC LIMIT 1",
            &last);
    if (r < 0)
        return r;
    l->last_transition = last;
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
        r = load_job(l, stmt, jobs);
        if (r < 0)
            return r;
    }
    return store_errno(s, code);
}

static int load_domains(Loading *l, GPtrArray *domains) {
    Store *s = l->store;
    autostmt *stmt = NULL;
    int code;
    int r =
        store_prepare(s, "SELECT name, document, seq, crc, rowid FROM domain ORDER BY name", &stmt);

    if (r < 0)
        return r;
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
        g_autoptr(JournalDomain) domain = g_new0(JournalDomain, 1);
        Row row = row_begin(stmt, "domain");
        domain->name = g_strdup(row_get_text(&row));
        domain->document = g_strdup(row_get_text(&row));
        uint64_t seq = row_get_uint(&row);
        if (row_check_crc(&row)) {
            l->max_seq = MAX(l->max_seq, seq);
            g_ptr_array_add(domains, g_steal_pointer(&domain));
            continue;
        }
        g_autofree char *name = string_sanitize(domain->name, 64);
        store_finding(s, "The row of domain \"%s\" is set aside: its CRC is wrong.", name);
        loading_suspect(l, "domain", (uint64_t) sqlite3_column_int64(stmt, 4), 0);
    }
    return store_errno(s, code);
}

static int query_max(Store *s, const char *sql, uint64_t *ret) {
    uint64_t value = 0;
    int r = store_query_uint(s, sql, &value);

    if (r == -ENODATA)
        return 0;
    *ret = MAX(*ret, value);
    return r;
}

/* Names the jobs of which only transitions are left. */
static int report_orphans(Store *s) {
    g_autoptr(GString) ids = g_string_new(NULL);
    autostmt *stmt = NULL;
    int code;
    int r = store_prepare(
        s, "SELECT DISTINCT job FROM transition WHERE job NOT IN (SELECT id FROM job) LIMIT 32",
        &stmt);

    if (r < 0)
        return r;
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW)
        g_string_append_printf(ids, "%s%" PRId64, ids->len ? ", " : "",
                               (int64_t) sqlite3_column_int64(stmt, 0));
    if (ids->len)
        store_finding(s, "Of these jobs only transitions are left: %s.", ids->str);
    return store_errno(s, code);
}

/* Rows counted against the position: what SQLite's check cannot see, a page that has gone back to what it was. */
static int compare_counts(Store *s, bool position_known) {
    StorePosition counted = s->position;
    int r = store_query_uint(s, "SELECT count(*) FROM job NOT INDEXED", &counted.jobs);

    if (r >= 0)
        r = store_query_uint(s, "SELECT count(*) FROM domain NOT INDEXED", &counted.domains);
    if (r >= 0)
        r = store_query_uint(s, "SELECT count(*) FROM transition", &counted.transitions);
    if (r < 0 || memcmp(&counted, &s->position, sizeof counted) == 0)
        return r;
    if (position_known)
        store_finding(s,
                      "There are %" PRIu64 " jobs, %" PRIu64 " domains and %" PRIu64
                      " transitions in it, there should be %" PRIu64 ", %" PRIu64 " and %" PRIu64
                      ".",
                      counted.jobs, counted.domains, counted.transitions, s->position.jobs,
                      s->position.domains, s->position.transitions);
    s->position = counted;
    return report_orphans(s);
}

static int compare_numbers(Loading *l, bool position_known) {
    Store *s = l->store;
    const JournalNote *note = &s->folder.note;
    uint64_t sequence = 0;
    int r = query_max(s, "SELECT seq FROM sqlite_sequence WHERE name = 'job'", &sequence);

    if (r >= 0)
        r = query_max(s, "SELECT max(id) FROM job", &l->max_id);
    if (r < 0)
        return r;
    /* sqlite_sequence has no CRC: it counts only when there is nothing better. */
    if (!position_known)
        l->max_id = MAX(l->max_id, sequence);
    if (position_known && (l->max_seq > s->position.seq || l->max_id > s->position.last_id))
        store_finding(s, "Its position is older than its rows.");
    bool sequence_wrong = position_known && sequence != s->position.last_id;
    s->position.seq = MAX(s->position.seq, l->max_seq);
    s->position.last_id = MAX(s->position.last_id, l->max_id);
    if (strcmp(note->identity, s->identity) == 0) {
        if (note->seq > s->position.seq)
            store_finding(s,
                          "Its last %" PRIu64 " records are missing (it ends with number %" PRIu64
                          ", the lock file knows %" PRIu64 ").",
                          note->seq - s->position.seq, s->position.seq, note->seq);
        s->position.seq = MAX(s->position.seq, note->seq);
        s->position.last_id = MAX(s->position.last_id, note->last_id);
    } else if (note->identity[0])
        log_warning("The lock file in \"%s\" tells of another journal (%s), ignoring.",
                    s->folder.path, note->identity);
    if (sequence_wrong)
        store_finding(s, "Its counter of job ids is wrong; it is put right.");
    if (sequence != s->position.last_id) {
        g_autofree char *put_right =
            g_strdup_printf("DELETE FROM sqlite_sequence WHERE name = 'job'; "
                            "INSERT INTO sqlite_sequence (name, seq) VALUES ('job', %" PRIu64 ")",
                            s->position.last_id);
        r = store_exec(s, put_right);
    }
    return r == -ENOSPC ? 0 : r;
}

static const struct {
    const char *table, *copy, *drop;
} set_aside[] = {
    {"job",
     "INSERT INTO damaged (time, source, key, content) SELECT ?3, 'job', quote(id), "
     "quote(id) || ', ' || quote(domain) || ', ' || quote(disk) || ', ' || quote(kind) || ', ' || "
     "quote(target) || ', ' || quote(result) || ', ' || quote(error_name) || ', ' || "
     "quote(error_message) || ', ' || quote(request_id) || ', ' || quote(owner_uid) || ', ' || "
     "quote(created) || ', ' || quote(restarts) || ', ' || quote(finished) || ', ' || "
     "quote(exported) || ', ' || quote(document) || ', ' || quote(seq) || ', ' || quote(crc) "
     "FROM job WHERE id = ?1",
     "DELETE FROM job WHERE id = ?1"},
    {"transition",
     "INSERT INTO damaged (time, source, key, content) SELECT ?3, 'transition', "
     "quote(job) || ', ' || quote(seq), quote(job) || ', ' || quote(seq) || ', ' || quote(time) || "
     "', ' || quote(state) || ', ' || quote(intent) || ', ' || quote(detail) || ', ' || quote(crc) "
     "FROM transition WHERE job = ?1 AND seq = ?2",
     "DELETE FROM transition WHERE job = ?1 AND seq = ?2"},
    {"domain",
     "INSERT INTO damaged (time, source, key, content) SELECT ?3, 'domain', quote(name), "
     "quote(name) || ', ' || quote(document) || ', ' || quote(seq) || ', ' || quote(crc) "
     "FROM domain WHERE rowid = ?1",
     "DELETE FROM domain WHERE rowid = ?1"},
};

static int move_suspect(Store *s, const Suspect *suspect) {
    size_t i = 0;

    while (strcmp(set_aside[i].table, suspect->table) != 0)
        i++;
    const char *const sql[] = {set_aside[i].copy, set_aside[i].drop};
    for (size_t k = 0; k < G_N_ELEMENTS(sql); k++) {
        autostmt *stmt = NULL;
        int r = store_prepare(s, sql[k], &stmt);
        if (r < 0)
            return r;
        sqlite3_bind_int64(stmt, 1, (sqlite3_int64) suspect->key);
        if (sqlite3_bind_parameter_count(stmt) >= 2)
            sqlite3_bind_int64(stmt, 2, (sqlite3_int64) suspect->second);
        if (sqlite3_bind_parameter_count(stmt) >= 3)
            sqlite3_bind_int64(stmt, 3, (sqlite3_int64) now_realtime());
        r = store_run(s, stmt);
        if (r < 0)
            return r;
    }
    uint64_t *counter = i == 0   ? &s->position.jobs
                        : i == 1 ? &s->position.transitions
                                 : &s->position.domains;
    *counter -= (uint64_t) sqlite3_changes(s->db);
    return 0;
}

/* So that the next start does not find the same again. On a full disk it does, which is no reason not to run. */
static int repair(Loading *l) {
    Store *s = l->store;
    int r;

    s->committed = s->position;
    r = store_begin(s);
    for (guint i = 0; i < l->suspects->len && r >= 0; i++)
        r = move_suspect(s, &g_array_index(l->suspects, Suspect, i));
    for (guint i = 0; i < l->missing->len && r >= 0; i++) {
        const Suspect *missing = &g_array_index(l->missing, Suspect, i);
        r = rows_put_transition(s, missing->key, missing->second, now_realtime(), "", "",
                                "the journal's row of this transition was damaged or missing");
    }
    /* One may have taken the place of a row that could not be found by its key. */
    if (r >= 0)
        r = store_query_uint(s, "SELECT count(*) FROM transition", &s->position.transitions);
    if (r >= 0)
        r = store_exec(s, "INSERT OR IGNORE INTO position VALUES (1, 0, 0, 0, 0, 0, 0)");
    if (r >= 0)
        r = store_commit(s);
    if (r < 0)
        store_rollback(s);
    if (r == -ENOSPC) {
        log_warning(
            "There is no room to set damaged rows of the journal in \"%s\" aside, ignoring.",
            s->folder.path);
        return 0;
    }
    return r;
}

int check_rows(Store *s, GPtrArray **ret_jobs, GPtrArray **ret_domains) {
    g_autoptr(GPtrArray) jobs = g_ptr_array_new_with_free_func(free_job);
    g_autoptr(GPtrArray) domains = g_ptr_array_new_with_free_func(free_domain);
    g_autoptr(GArray) suspects = g_array_new(false, false, sizeof(Suspect));
    g_autoptr(GArray) missing = g_array_new(false, false, sizeof(Suspect));
    Loading l = {.store = s, .suspects = suspects, .missing = missing};
    unsigned before = s->findings;
    int r = rows_load_position(s);
    bool position_known = r >= 0;

    if (r == -ENODATA) {
        store_finding(s, "Its position is unreadable; the rows are counted anew.");
        s->position = (StorePosition){0};
        r = 0;
    }
    if (r >= 0)
        r = load_jobs(&l, jobs);
    if (r >= 0)
        r = load_domains(&l, domains);
    if (r >= 0)
        r = compare_counts(s, position_known);
    if (r >= 0)
        r = compare_numbers(&l, position_known);
    s->committed = s->position;
    if (r >= 0 && s->findings > before)
        r = repair(&l);
    if (r < 0)
        return r;
    folder_note(&s->folder, s->identity, s->position.seq, s->position.last_id);
    *ret_jobs = g_steal_pointer(&jobs);
    *ret_domains = g_steal_pointer(&domains);
    return 0;
}
