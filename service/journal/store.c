/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The SQLite file of the journal: opening, checking, migrating, transactions. */

#include "journal/store.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "journal/check.h"
#include "journal/rows.h"
#include "log.h"
#include "util.h"

#define APPLICATION_ID 0x426a6f62 /* "Bjob" */
#define SCHEMA_VERSION 1
/* A higher one is no version of ours, however far in the future, but damage. */
#define SCHEMA_VERSION_CREDIBLE 1000

/* Compared text by text with the file at every start. The document comes last, so that a look at the columns before it
 * does not read its pages. */
static const char *const schema[] = {
    "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL, crc INTEGER NOT NULL) "
    "WITHOUT ROWID",
    "CREATE TABLE position (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, "
    "last_id INTEGER NOT NULL, jobs INTEGER NOT NULL, domains INTEGER NOT NULL, "
    "transitions INTEGER NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE job (id INTEGER PRIMARY KEY AUTOINCREMENT, domain TEXT NOT NULL, disk TEXT NOT "
    "NULL, "
    "kind TEXT NOT NULL, target TEXT NOT NULL, result TEXT NOT NULL, error_name TEXT NOT NULL, "
    "error_message TEXT NOT NULL, request_id TEXT NOT NULL, owner_uid INTEGER NOT NULL, "
    "created INTEGER NOT NULL, restarts INTEGER NOT NULL, finished INTEGER NOT NULL, "
    "exported INTEGER NOT NULL, seq INTEGER NOT NULL, crc INTEGER NOT NULL, document TEXT NOT "
    "NULL)",
    "CREATE TABLE transition (job INTEGER NOT NULL, seq INTEGER NOT NULL, time INTEGER NOT NULL, "
    "state TEXT NOT NULL, intent TEXT NOT NULL, detail TEXT NOT NULL, crc INTEGER NOT NULL, "
    "PRIMARY KEY (job, seq)) WITHOUT ROWID",
    "CREATE TABLE domain (name TEXT PRIMARY KEY NOT NULL, seq INTEGER NOT NULL, crc INTEGER NOT "
    "NULL, "
    "document TEXT NOT NULL)",
    "CREATE TABLE damaged (id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, "
    "source TEXT NOT NULL, key TEXT NOT NULL, content TEXT NOT NULL)",
    "CREATE TABLE reserve (space BLOB NOT NULL)",
    "CREATE INDEX job_finished ON job (finished, id) WHERE finished > 0",
};

/* Step i leads from user_version i to i + 1. Forward only, all in one transaction. */
static const struct {
    const char *const *statements;
    size_t n;
} migrations[] = {{schema, G_N_ELEMENTS(schema)}};
static_assert(G_N_ELEMENTS(migrations) == SCHEMA_VERSION, "a step for every version");

static const char *const statements[_STATEMENT_MAX] = {
#define X(id, sql) [STATEMENT_##id] = sql,
    STATEMENT_LIST(X)
#undef X
};

/* ---- errors and statements ---- */

int store_errno(Store *s, int code) {
    /* Of the call that has failed: sqlite3_system_errno() is not set by a statement that fails in its commit. */
    int written = errno;
    int system = s->db ? sqlite3_system_errno(s->db) : 0;

    switch (code) {
    case SQLITE_IOERR_FSYNC:
    case SQLITE_IOERR_DIR_FSYNC:
        return -EIO; /* whatever its errno: what was not synced may be gone */
    }
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return 0;
    case SQLITE_FULL:
    case SQLITE_READONLY:
        return -ENOSPC;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR: /* the statements are right, so it is a table or a column that is missing */
        return -EBADMSG;
    case SQLITE_BUSY:
        return -EBUSY;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_CANTOPEN:
        return system > 0 ? -system : -EIO;
    case SQLITE_IOERR:
        if (code == SQLITE_IOERR_WRITE &&
            (written == ENOSPC || written == EDQUOT || written == EROFS))
            return -ENOSPC;
        return -EIO;
    default:
        return -EIO;
    }
}

int store_exec(Store *s, const char *sql) {
    return store_errno(s, sqlite3_exec(s->db, sql, NULL, NULL, NULL));
}

int store_prepare(Store *s, const char *sql, sqlite3_stmt **ret) {
    return store_errno(s, sqlite3_prepare_v2(s->db, sql, -1, ret, NULL));
}

int store_run(Store *s, sqlite3_stmt *stmt) {
    int code = sqlite3_step(stmt);
    int r = code == SQLITE_ROW ? 0 : store_errno(s, code);

    sqlite3_reset(stmt);
    return r;
}

int store_query_uint(Store *s, const char *sql, uint64_t *ret) {
    autostmt *stmt = NULL;
    int r = store_prepare(s, sql, &stmt);

    if (r < 0)
        return r;
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW) {
        *ret = (uint64_t) sqlite3_column_int64(stmt, 0);
        return 0;
    }
    return code == SQLITE_DONE ? -ENODATA : store_errno(s, code);
}

void store_finding(Store *s, const char *format, ...) {
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    s->findings++;
    log_event(LOG_ERR, MESSAGE_JOURNAL_CORRUPT, "The journal in \"%s\" is damaged: %s",
              s->folder.path, text);
}

/* ---- transactions ---- */

int store_begin(Store *s) {
    return store_run(s, s->statements[STATEMENT_BEGIN]);
}

int store_commit(Store *s) {
    int r = rows_put_position(s);

    if (r >= 0)
        r = store_run(s, s->statements[STATEMENT_COMMIT]);
    if (r < 0)
        return r;
    s->committed = s->position;
    folder_note(&s->folder, s->identity, s->committed.seq, s->committed.last_id);
    return 0;
}

void store_rollback(Store *s) {
    /* After some errors SQLite has rolled back by itself. */
    if (!sqlite3_get_autocommit(s->db))
        (void) store_run(s, s->statements[STATEMENT_ROLLBACK]);
    s->position = s->committed;
}

static int wal_grown(void *userdata, sqlite3 *db, const char *name, int pages) {
    Store *s = userdata;

    s->wal_pages = pages;
    return SQLITE_OK;
}

int store_checkpoint(Store *s) {
    int in_log = 0, copied = 0;
    int r = store_errno(
        s, sqlite3_wal_checkpoint_v2(s->db, "main", SQLITE_CHECKPOINT_PASSIVE, &in_log, &copied));

    if (r < 0)
        return r;
    s->wal_pages = in_log - copied;
    return 0;
}

static bool reserve_is_there(Store *s) {
    uint64_t free_pages = 0;
    struct stat st;

    /* Half of it is enough to come through, and filling it up at each page taken would be a lot of writing. */
    return store_query_uint(s, "PRAGMA freelist_count", &free_pages) >= 0 &&
           free_pages >= STORE_RESERVE / STORE_PAGE_SIZE / 2 &&
           fstatat(s->folder.fd, JOURNAL_FILE "-wal", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           st.st_size >= STORE_RESERVE;
}

int store_reserve(Store *s) {
    if (reserve_is_there(s))
        return 0;
    /* The zeros have to go through the log into the file before they are dropped: then both files own the blocks. */
    g_autofree char *fill =
        g_strdup_printf("INSERT INTO reserve (space) VALUES (zeroblob(%d))", STORE_RESERVE);
    int r = store_exec(s, fill);
    if (r >= 0)
        r = store_checkpoint(s);
    if (r >= 0 || r == -ENOSPC) {
        int dropped = store_exec(s, "DELETE FROM reserve");
        r = r < 0 ? r : dropped;
    }
    if (r >= 0)
        r = store_checkpoint(s);
    sqlite3_db_release_memory(s->db);
    return r;
}

/* ---- opening ---- */

static void set_checkpoint_on_close(Store *s, bool on) {
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !on, (int *) NULL);
}

void store_abandon(Store *s) {
    set_checkpoint_on_close(s, false);
}

static void store_disconnect(Store *s) {
    for (size_t i = 0; i < _STATEMENT_MAX; i++)
        g_clear_pointer(&s->statements[i], sqlite3_finalize);
    g_clear_pointer(&s->db, sqlite3_close_v2);
}

Store *store_free(Store *s) {
    if (!s)
        return NULL;
    store_disconnect(s);
    folder_close(&s->folder);
    g_free(s);
    return NULL;
}

/* Until the file has proved to be sound and ours nothing of it may change, not even by closing it. */
static int store_connect(Store *s) {
    g_autofree char *path = g_strconcat(s->folder.path, "/" JOURNAL_FILE, NULL);
    int keep = 1;
    int r = folder_make_file(&s->folder);

    if (r < 0)
        return r;
    r = store_errno(s, sqlite3_open_v2(path, &s->db,
                                       SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                                           SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                                       NULL));
    if (r < 0)
        return r;
    set_checkpoint_on_close(s, false);
    /* The log's file stays: its blocks are part of the reserve. */
    sqlite3_file_control(s->db, "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *) NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, (int *) NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_LOOKASIDE, NULL, 512, 32);
    return store_exec(s,
                      "PRAGMA locking_mode = EXCLUSIVE; PRAGMA cell_size_check = ON; "
                      "PRAGMA cache_size = -256; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; "
                      "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; "
                      "PRAGMA secure_delete = OFF");
}

/* *ret_version = 0: empty, to be filled. */
static int store_identify(Store *s, uint64_t *ret_version, char **ret_reason) {
    uint64_t application = 0, version = 0, tables = 0;
    int r = store_query_uint(s, "PRAGMA application_id", &application);

    if (r >= 0)
        r = store_query_uint(s, "PRAGMA user_version", &version);
    if (r >= 0)
        r = store_query_uint(s, "SELECT count(*) FROM sqlite_schema", &tables);
    if (r < 0)
        return r;
    if (application == 0 && version == 0 && tables == 0) {
        /* A creation that did not get to its end; the note is written only after that. */
        if (s->folder.note.identity[0] && !s->anew) {
            *ret_reason = g_strdup("it is empty");
            return -EBADMSG;
        }
    } else if (application != APPLICATION_ID || version == 0 || version > SCHEMA_VERSION_CREDIBLE) {
        *ret_reason = g_strdup("it is not a journal of blockjobd");
        return -EBADMSG;
    } else if (version > SCHEMA_VERSION)
        return -EPROTONOSUPPORT;
    *ret_version = version;
    return 0;
}

static int store_use_wal(Store *s) {
    autostmt *stmt = NULL;
    int r = store_prepare(s, "PRAGMA journal_mode = WAL", &stmt);

    if (r < 0)
        return r;
    int code = sqlite3_step(stmt);
    if (code != SQLITE_ROW)
        return code == SQLITE_DONE ? -EIO : store_errno(s, code);
    return g_strcmp0((const char *) sqlite3_column_text(stmt, 0), "wal") == 0 ? 0 : -EOPNOTSUPP;
}

/* How far a finding of SQLite's check reaches, by its words. */
typedef enum {
    REACH_ROW,   /* the row's CRC tells; the others are sound */
    REACH_INDEX, /* made anew from the table */
    REACH_FILE,
} CheckReach;

static CheckReach check_reach(const char *text) {
    static const char *const rows[] = {"NULL value in ", "TEXT value in ", "NUMERIC value in ",
                                       "row not in PRIMARY KEY order "};

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        if (g_str_has_prefix(text, rows[i]))
            return REACH_ROW;
    return strstr(text, " index ") ? REACH_INDEX : REACH_FILE;
}

/* All of it and not the quick one, which does not compare indices with their tables: by a wrong one the history would
 * be unreadable, and the transaction that prunes its job would fail at each start anew. */
static int store_check_structure(Store *s, bool *ret_mend, char **ret_reason) {
    autostmt *stmt = NULL;
    int code;
    int r = store_prepare(s, "PRAGMA integrity_check", &stmt);

    if (r < 0)
        return r;
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
        const char *text = (const char *) sqlite3_column_text(stmt, 0) ?: "nothing";
        CheckReach reach = g_str_equal(text, "ok") ? REACH_ROW : check_reach(text);
        if (reach == REACH_FILE) {
            *ret_reason = g_strdup_printf("the check of its structure says: %s", text);
            return -EBADMSG;
        }
        *ret_mend |= reach == REACH_INDEX;
    }
    return store_errno(s, code);
}

static int store_mend_indices(Store *s) {
    store_finding(s, "An index does not fit its table; it is made anew.");
    int r = store_exec(s, "REINDEX job; REINDEX domain");
    return r == -ENOSPC ? 0 : r;
}

static int store_check_schema(Store *s, char **ret_reason) {
    uint64_t n = 0, matching = 0;
    autostmt *stmt = NULL;
    int r = store_query_uint(s,
                             "SELECT count(*) FROM sqlite_schema WHERE sql IS NOT NULL AND name "
                             "NOT LIKE 'sqlite!_%' ESCAPE '!'",
                             &n);

    if (r >= 0)
        r = store_prepare(s, "SELECT 1 FROM sqlite_schema WHERE sql = ?1", &stmt);
    if (r < 0)
        return r;
    for (size_t i = 0; i < G_N_ELEMENTS(schema); i++) {
        sqlite3_bind_text(stmt, 1, schema[i], -1, SQLITE_STATIC);
        matching += sqlite3_step(stmt) == SQLITE_ROW;
        sqlite3_reset(stmt);
    }
    if (n == G_N_ELEMENTS(schema) && matching == n)
        return 0;
    *ret_reason = g_strdup("its tables are not those that this version of the journal has");
    return -EBADMSG;
}

static int store_run_migrations(Store *s, uint64_t version) {
    int r = 0;

    for (uint64_t v = version; v < SCHEMA_VERSION; v++)
        for (size_t i = 0; i < migrations[v].n && r >= 0; i++)
            r = store_exec(s, migrations[v].statements[i]);
    if (r < 0)
        return r;
    g_autofree char *mark = g_strdup_printf("PRAGMA application_id = %d; PRAGMA user_version = %d",
                                            APPLICATION_ID, SCHEMA_VERSION);
    return store_exec(s, mark);
}

/* The first rows. What the note knows of a journal that was lost goes on: QEMU may still run its jobs, which carry the
 * identity and the numbers, and a number is never given twice. */
static int store_fill(Store *s) {
    const JournalNote *note = &s->folder.note;
    g_autofree char *created = g_strdup_printf("%" PRIu64, now_realtime());
    g_autofree char *sequence = g_strdup_printf(
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('job', %" PRIu64 ")", note->last_id);
    uint32_t random;

    if (note->identity[0])
        g_strlcpy(s->identity, note->identity, sizeof s->identity);
    else if (getrandom(&random, sizeof random, 0) != sizeof random)
        return -EIO;
    else
        g_snprintf(s->identity, sizeof s->identity, "%08" PRIx32, random);
    s->position = (StorePosition){.seq = note->seq, .last_id = note->last_id};
    int r = rows_put_meta(s, "identity", s->identity);
    if (r >= 0)
        r = rows_put_meta(s, "created", created);
    if (r >= 0)
        r = store_exec(s, sequence);
    if (r >= 0)
        r = store_exec(s, "INSERT INTO position VALUES (1, 0, 0, 0, 0, 0, 0)");
    return r >= 0 ? rows_put_position(s) : r;
}

static int store_prepare_statements(Store *s) {
    int r = 0;

    for (size_t i = 0; i < _STATEMENT_MAX && r >= 0; i++)
        r = store_errno(s, sqlite3_prepare_v3(s->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT,
                                              &s->statements[i], NULL));
    return r;
}

static int store_migrate(Store *s, uint64_t version) {
    int r = store_exec(s, "BEGIN IMMEDIATE");

    if (r >= 0)
        r = store_run_migrations(s, version);
    if (r >= 0)
        r = store_prepare_statements(s);
    if (r >= 0 && version == 0)
        r = store_fill(s);
    if (r >= 0)
        r = store_exec(s, "COMMIT");
    return r;
}

/* The note is written only when the folder's entry is durable: else a power cut could leave the note of a journal that
 * has never been. */
static int store_finish_creation(Store *s) {
    int r = folder_sync(&s->folder);

    if (r < 0)
        return r;
    folder_note(&s->folder, s->identity, s->position.seq, s->position.last_id);
    r = store_reserve(s);
    if (r == -ENOSPC) {
        log_warning(
            "There is no room for the journal's reserve of %d MiB in \"%s\"; jobs may have to "
            "wait when the disk is full.",
            STORE_RESERVE >> 20, s->folder.path);
        return 0;
    }
    return r;
}

static int store_load_identity(Store *s, char **ret_reason) {
    g_autofree char *identity = NULL;
    int r = rows_load_meta(s, "identity", &identity);

    if (r >= 0 && strlen(identity) == JOURNAL_IDENTITY_SIZE - 1) {
        g_strlcpy(s->identity, identity, sizeof s->identity);
        return 0;
    }
    if (r < 0 && r != -ENODATA)
        return r;
    if (!s->folder.note.identity[0]) {
        *ret_reason = g_strdup("its identity is unreadable");
        return -EBADMSG;
    }
    g_strlcpy(s->identity, s->folder.note.identity, sizeof s->identity);
    store_finding(s, "The row of its identity is damaged; the note in the lock file has it.");
    r = rows_put_meta(s, "identity", s->identity);
    return r == -ENOSPC ? 0 : r;
}

/* What was read may stand in the page cache only: the last run was killed between the write and the fsync, or its
 * fsync failed. Nobody may act on it before it is durable, and after a failed fsync only writing it anew makes it so. */
static int store_settle(Store *s) {
    uint64_t reserved = 0;
    int r = store_checkpoint(s);

    if (r == -ENOSPC)
        r = folder_sync_log(&s->folder);
    if (r < 0)
        return r;
    /* Left by a death in store_reserve(). */
    r = store_query_uint(s, "SELECT count(*) FROM reserve", &reserved);
    if (r >= 0 && reserved > 0)
        r = store_exec(s, "DELETE FROM reserve");
    return r == -ENOSPC ? 0 : r;
}

static int store_try(Store *s, GPtrArray **ret_jobs, GPtrArray **ret_domains, char **ret_reason) {
    uint64_t version = 0;
    bool mend = false;
    int r = store_connect(s);

    if (r >= 0)
        r = store_identify(s, &version, ret_reason);
    if (r >= 0 && version == 0)
        r = store_exec(s, "PRAGMA auto_vacuum = NONE");
    if (r >= 0)
        r = store_use_wal(s);
    if (r >= 0 && version > 0)
        r = store_check_structure(s, &mend, ret_reason);
    if (r >= 0)
        r = version < SCHEMA_VERSION ? store_migrate(s, version) : store_prepare_statements(s);
    if (r >= 0)
        r = store_check_schema(s, ret_reason);
    if (r >= 0 && mend)
        r = store_mend_indices(s);
    if (r >= 0 && version == 0)
        r = store_finish_creation(s);
    if (r >= 0)
        r = store_load_identity(s, ret_reason);
    if (r >= 0)
        r = check_rows(s, ret_jobs, ret_domains);
    if (r < 0) {
        if (r == -EBADMSG && !*ret_reason)
            *ret_reason = g_strdup(s->db ? sqlite3_errmsg(s->db) : "it cannot be opened");
        return r;
    }
    set_checkpoint_on_close(s, true);
    r = store_settle(s);
    sqlite3_wal_hook(s->db, wal_grown, s);
    sqlite3_db_release_memory(s->db);
    return r;
}

static int store_start_anew(Store *s, const char *reason, GPtrArray **ret_jobs,
                            GPtrArray **ret_domains) {
    g_autofree char *name = NULL, *again = NULL;

    store_disconnect(s);
    int r = folder_set_aside(&s->folder, &name);
    if (r < 0)
        return r;
    store_finding(s,
                  "%s. %s%s%s An empty journal is begun, and what QEMU still runs will be adopted.",
                  reason, name ? "It is kept as \"" : "Nothing is left of it.", name ? name : "",
                  name ? "\"." : "");
    s->anew = true;
    r = store_try(s, ret_jobs, ret_domains, &again);
    return r == -EBADMSG ? -EIO : r;
}

static int store_explain(Store *s, int r, Failure *ret_why) {
    const char *path = s->folder.path;

    switch (r) {
    case -EBUSY:
        failure_set(ret_why, FAILURE_JOURNAL,
                    "Another program has the journal \"%s/" JOURNAL_FILE "\" open; close it first.",
                    path);
        break;
    case -EPROTONOSUPPORT:
        failure_set(
            ret_why, FAILURE_JOURNAL,
            "The journal \"%s/" JOURNAL_FILE
            "\" was written by a newer version of blockjobd; install "
            "that version, or move the file away to begin an empty one. It was not touched.",
            path);
        break;
    case -ENOSPC:
        failure_set(ret_why, FAILURE_JOURNAL,
                    "The journal in \"%s\" cannot be made or brought up to date: the disk is full "
                    "or read-only.",
                    path);
        break;
    default:
        failure_set(ret_why, FAILURE_JOURNAL,
                    "The journal \"%s/" JOURNAL_FILE "\" cannot be used: %s%s%s.", path,
                    g_strerror(-r), s->db ? ": " : "", s->db ? sqlite3_errmsg(s->db) : "");
    }
    return r;
}

int store_open(const char *dir, GPtrArray **ret_jobs, GPtrArray **ret_domains, Failure *ret_why,
               Store **ret) {
    g_autoptr(Store) s = g_new0(Store, 1);
    FolderContent content = FOLDER_FRESH;
    g_autofree char *reason = NULL;
    int r = folder_open(&s->folder, dir, ret_why);

    if (r < 0)
        return r;
    r = folder_look(&s->folder, &content);
    if (r >= 0 && content == FOLDER_LOST)
        r = store_start_anew(s, "The file is missing or empty", ret_jobs, ret_domains);
    else if (r >= 0) {
        r = store_try(s, ret_jobs, ret_domains, &reason);
        if (r == -EBADMSG) {
            g_autofree char *sentence = g_strdup_printf("The file is unusable: %s", reason);
            r = store_start_anew(s, sentence, ret_jobs, ret_domains);
        }
    }
    if (r < 0)
        return store_explain(s, r, ret_why);
    *ret = g_steal_pointer(&s);
    return 0;
}

int store_look_into(const char *dir, Failure *ret_why, Store **ret) {
    g_autoptr(Store) s = g_new0(Store, 1);
    g_autofree char *file = g_build_filename(dir, JOURNAL_FILE, NULL);
    g_autofree char *reason = NULL, *identity = NULL;
    uint64_t version = 0;

    s->folder = (JournalFolder){.fd = -1, .lock_fd = -1};
    if (access(file, R_OK) < 0) { /* before folder_open() makes a folder */
        int r = -errno;
        failure_set(ret_why, FAILURE_JOURNAL, "The journal \"%s\" cannot be read: %s.", file,
                    g_strerror(-r));
        return r;
    }
    int r = folder_open(&s->folder, dir, ret_why);
    if (r < 0)
        return r;
    r = store_connect(s);
    if (r >= 0)
        r = store_identify(s, &version, &reason);
    if (r >= 0 && version == 0)
        r = -ENOENT;
    if (r >= 0)
        r = rows_load_meta(s, "identity", &identity);
    if (r >= 0 || r == -ENODATA)
        r = rows_load_position(s);
    if (r < 0 && r != -ENODATA) /* that is damage, and seen in what is exported */
        return store_explain(s, r, ret_why);
    g_strlcpy(s->identity, identity ? identity : s->folder.note.identity, sizeof s->identity);
    *ret = g_steal_pointer(&s);
    return 0;
}
