/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The journal as JSON: rows become objects with the columns' names. */

#include "journal/export.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "journal/row.h"
#include "journal/rows.h"
#include "util.h"

#define FORMAT 1
#define PART_JOBS 64
#define PART_BYTES (256 * KIB)

/* ---- values ---- */

static void add_uint(json_t *o, const char *key, uint64_t value) {
    json_object_set_new(o, key, json_integer((json_int_t) value));
}

/* A damaged text may be no UTF-8. */
static void add_text(json_t *o, const char *key, const char *text) {
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    json_object_set_new(o, key, json_string(valid));
}

/* As the JSON that it is; what is none, as a text. */
static void add_document(json_t *o, const char *text) {
    json_t *document = json_loads(text, 0, NULL);

    if (document)
        json_object_set_new(o, "document", document);
    else
        add_text(o, "document", text);
}

static void add_crc(json_t *o, bool right) {
    if (!right)
        json_object_set_new(o, "damaged", json_true());
}

static void write_json(GString *out, const json_t *value) {
    char *text = json_dumps(value, JSON_COMPACT);

    g_string_append(out, text ? text : "null");
    free(text);
}

/* ---- jobs ---- */

static json_t *transition_read(sqlite3_stmt *stmt) {
    static const char *const texts[] = {"state", "intent", "detail"};
    Row row = row_begin(stmt, "transition");
    json_t *o = json_object();

    (void) row_get_uint(&row);
    add_uint(o, "seq", row_get_uint(&row));
    add_uint(o, "time", row_get_uint(&row));
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        add_text(o, texts[i], row_get_text(&row));
    add_crc(o, row_check_crc(&row));
    return o;
}

static json_t *job_read(sqlite3_stmt *stmt) {
    g_autoptr(JournalJob) job = g_new0(JournalJob, 1);
    json_t *o = json_object();
    uint64_t seq = 0;
    bool right = rows_read_job(stmt, job, &seq);

    add_uint(o, "id", job->id);
    add_text(o, "domain", job->domain);
    add_text(o, "disk", job->disk);
    add_text(o, "kind", job->kind);
    add_text(o, "target", job->target);
    add_text(o, "result", job->result);
    add_text(o, "error_name", job->error_name);
    add_text(o, "error_message", job->error_message);
    add_text(o, "request_id", job->request_id);
    add_uint(o, "owner_uid", job->owner_uid);
    add_uint(o, "created", job->created);
    add_uint(o, "restarts", job->restarts);
    add_uint(o, "finished", job->finished);
    json_object_set_new(o, "exported", json_boolean(job->exported));
    add_document(o, job->document);
    add_uint(o, "seq", seq);
    add_crc(o, right);
    return o;
}

/* Rows of a statement with one number bound, each made by read. */
static int collect(Store *s, const char *sql, uint64_t key, json_t *(*read)(sqlite3_stmt *stmt),
                   json_t *array) {
    autostmt *stmt = NULL;
    int code;
    int r = store_prepare(s, sql, &stmt);

    if (r < 0)
        return r;
    if (sqlite3_bind_parameter_count(stmt) > 0)
        sqlite3_bind_int64(stmt, 1, (sqlite3_int64) key);
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW)
        json_array_append_new(array, read(stmt));
    return store_errno(s, code);
}

static int write_job(Store *s, uint64_t id, GString *out) {
    json_t *rows = json_array(), *transitions = json_array();
    int r =
        collect(s, "SELECT " JOB_COLUMNS " FROM job NOT INDEXED WHERE id = ?1", id, job_read, rows);

    if (r >= 0)
        r = collect(s,
                    "SELECT job, seq, time, state, intent, detail, crc FROM transition WHERE "
                    "job = ?1 ORDER BY seq",
                    id, transition_read, transitions);
    if (r >= 0) {
        json_t *job = json_incref(json_array_get(rows, 0));
        if (!job) /* its row was damaged and set aside */
            job = json_pack("{s:I}", "id", (json_int_t) id);
        json_object_set(job, "transitions", transitions);
        write_json(out, job);
        json_decref(job);
    }
    json_decref(rows);
    json_decref(transitions);
    return r;
}

/* Both tables, for a job may be left in one of them. */
static int read_ids(Store *s, uint64_t after, GArray *ids) {
    autostmt *stmt = NULL;
    int code;
    int r = store_prepare(
        s,
        "SELECT id FROM (SELECT id FROM job NOT INDEXED WHERE id > ?1 ORDER BY id LIMIT ?2) UNION "
        "SELECT job FROM (SELECT DISTINCT job FROM transition WHERE job > ?1 ORDER BY job LIMIT "
        "?2) ORDER BY 1 LIMIT ?2",
        &stmt);

    if (r < 0)
        return r;
    sqlite3_bind_int64(stmt, 1, (sqlite3_int64) MIN(after, (uint64_t) INT64_MAX));
    sqlite3_bind_int(stmt, 2, PART_JOBS);
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
        uint64_t id = (uint64_t) sqlite3_column_int64(stmt, 0);
        g_array_append_val(ids, id);
    }
    return store_errno(s, code);
}

/* ---- the head ---- */

static json_t *domain_read(sqlite3_stmt *stmt) {
    Row row = row_begin(stmt, "domain");
    json_t *o = json_object();

    add_text(o, "name", row_get_text(&row));
    add_document(o, row_get_text(&row));
    add_uint(o, "seq", row_get_uint(&row));
    add_crc(o, row_check_crc(&row));
    return o;
}

static json_t *damaged_read(sqlite3_stmt *stmt) {
    static const char *const texts[] = {"source", "key", "content"};
    json_t *o = json_object();

    add_uint(o, "time", (uint64_t) sqlite3_column_int64(stmt, 0));
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        add_text(o, texts[i], (const char *) sqlite3_column_text(stmt, (int) i + 1) ?: "");
    return o;
}

static void write_list(GString *out, const char *name, const json_t *list) {
    const json_t *item;
    size_t i;

    g_string_append_printf(out, "\"%s\":[\n", name);
    json_array_foreach (list, i, item) {
        g_string_append(out, i > 0 ? ",\n" : "");
        write_json(out, item);
    }
    g_string_append(out, "],\n");
}

static int write_head(Store *s, GString *out) {
    json_t *domains = json_array(), *damaged = json_array();
    int r = collect(s, "SELECT name, document, seq, crc FROM domain NOT INDEXED", 0, domain_read,
                    domains);

    if (r >= 0)
        r = collect(s, "SELECT time, source, key, content FROM damaged ORDER BY id", 0,
                    damaged_read, damaged);
    if (r >= 0) {
        g_string_append_printf(out,
                               "{\"format\":%d,\"identity\":\"%s\",\"exported\":%" PRIu64
                               ",\"seq\":%" PRIu64 ",\"last_id\":%" PRIu64 ",\n",
                               FORMAT, s->identity, now_realtime(), s->position.seq,
                               s->position.last_id);
        write_list(out, "domains", domains);
        write_list(out, "damaged", damaged);
        g_string_append(out, "\"jobs\":[\n");
    }
    json_decref(domains);
    json_decref(damaged);
    return r;
}

int export_part(Store *s, uint64_t after, char **ret_text, uint64_t *ret_next) {
    g_autoptr(GArray) ids = g_array_new(false, false, sizeof(uint64_t));
    GString *out = g_string_new(NULL);
    guint n = 0;
    int r = after == 0 ? write_head(s, out) : 0;

    if (r >= 0)
        r = read_ids(s, after, ids);
    for (; r >= 0 && n < ids->len && out->len < PART_BYTES; n++) {
        /* Behind the head there is always a job before. */
        g_string_append(out, after > 0 || n > 0 ? ",\n" : "");
        r = write_job(s, g_array_index(ids, uint64_t, n), out);
    }
    if (r < 0) {
        g_string_free(out, TRUE);
        return r;
    }
    bool more = n < ids->len || n == PART_JOBS;
    if (!more)
        g_string_append(out, "]}\n");
    *ret_next = more ? g_array_index(ids, uint64_t, n - 1) : 0;
    *ret_text = g_string_free(out, FALSE);
    return 0;
}

int export_closed(const char *dir, FILE *out, Failure *ret_why) {
    g_autoptr(Store) s = NULL;
    uint64_t next = 0;
    int r = store_look_into(dir, ret_why, &s);

    if (r < 0)
        return r;
    do {
        g_autofree char *text = NULL;
        r = export_part(s, next, &text, &next);
        if (r < 0) {
            failure_set(ret_why, FAILURE_JOURNAL, "The journal in \"%s\" cannot be read: %s.", dir,
                        sqlite3_errmsg(s->db));
            return r;
        }
        fputs(text, out);
    } while (next > 0);
    return 0;
}
