/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Store: the SQLite file of the journal: opening, checking, migrating, and transactions. rows.h reads and writes what
 * is in it. docs/journal.md describes the file.
 *
 * A store belongs to one thread at a time: to the loop while it is opened, then to the writer thread.
 * Errors: -ENOSPC = no space, quota or read-only, may succeed later; -EBADMSG = damaged; anything else = unusable. */

#include <glib.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "failure.h"
#include "journal/folder.h"

/* The prepared statements: identifier, SQL. Parameters keep the same number in all statements on one table, so that
 * one function binds a row for all of them. */
#define JOB_COLUMNS                                                                                \
    "id, domain, disk, kind, target, result, error_name, error_message, request_id, owner_uid, "   \
    "created, restarts, finished, exported, document, seq, crc"
#define JOB_SET                                                                                    \
    "domain = ?2, disk = ?3, kind = ?4, target = ?5, result = ?6, error_name = ?7, "               \
    "error_message = ?8, request_id = ?9, owner_uid = ?10, created = ?11, restarts = ?12, "        \
    "document = ?15, seq = ?16, crc = ?17"
#define STATEMENT_LIST(X)                                                                          \
    X(BEGIN, "BEGIN IMMEDIATE")                                                                    \
    X(COMMIT, "COMMIT")                                                                            \
    X(ROLLBACK, "ROLLBACK")                                                                        \
    X(POSITION, "UPDATE position SET seq = ?2, last_id = ?3, jobs = ?4, domains = ?5, "            \
                "transitions = ?6, crc = ?7 WHERE id = ?1")                                        \
    /* Leaves the index alone: most updates change neither the end nor the being exported. */      \
    X(JOB_UPDATE,                                                                                  \
      "UPDATE job SET " JOB_SET " WHERE id = ?1 AND finished = ?13 AND exported = ?14")            \
    X(JOB_REPLACE, "UPDATE job SET " JOB_SET ", finished = ?13, exported = ?14 WHERE id = ?1")     \
    X(JOB_INSERT, "INSERT INTO job (" JOB_COLUMNS ") VALUES "                                      \
                  "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)")  \
    /* A damaged key must not be in the way of a sound row for ever. */                            \
    X(TRANSITION_INSERT,                                                                           \
      "INSERT OR REPLACE INTO transition (job, seq, time, state, intent, detail, crc) "            \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")                                                       \
    X(DOMAIN_UPDATE, "UPDATE domain SET document = ?2, seq = ?3, crc = ?4 WHERE name = ?1")        \
    X(DOMAIN_INSERT, "INSERT INTO domain (name, document, seq, crc) VALUES (?1, ?2, ?3, ?4)")      \
    X(DOMAIN_DELETE, "DELETE FROM domain WHERE name = ?1")

typedef enum {
#define X(id, sql) STATEMENT_##id,
    STATEMENT_LIST(X)
#undef X
        _STATEMENT_MAX
} Statement;

/* Where the journal stands; written with every transaction, so that missing rows are noticed. */
typedef struct {
    uint64_t seq;                        /* of the last record */
    uint64_t last_id;                    /* the highest job id that was ever written */
    uint64_t jobs, domains, transitions; /* rows */
} StorePosition;

typedef struct {
    sqlite3 *db;
    sqlite3_stmt *statements[_STATEMENT_MAX];
    JournalFolder folder;
    char identity[JOURNAL_IDENTITY_SIZE];
    StorePosition position;  /* with what the open transaction has done */
    StorePosition committed; /* without it */
    int wal_pages;           /* in the log, not yet copied into the database */
    bool anew;               /* begun in place of one that was set aside */
    unsigned findings;       /* what was wrong at opening; each was logged */
} Store;

#define STORE_RESERVE (4 * 1024 * 1024)
#define STORE_PAGE_SIZE 4096

/* Synchronous, with ret_why as journal_open(). Live jobs (JournalJob*) and all domains (JournalDomain*) are owned by
 * the caller. */
int store_open(const char *dir, GPtrArray **ret_jobs, GPtrArray **ret_domains, Failure *ret_why,
               Store **ret);
/* The journal of a service that does not run, to be read only: no byte of it changes, also not by store_free(). ret_why as
 * above; -ENOENT when there is none. */
int store_look_into(const char *dir, Failure *ret_why, Store **ret);
/* Copies the log into the database, unless it was only looked into; must not be called with a transaction open. */
Store *store_free(Store *s);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Store, store_free)

int store_begin(Store *s);
int store_commit(Store *s);
void store_rollback(Store *s);
/* Copies the log into the database without waiting for anything but the disk. The log's file keeps its size: the
 * blocks that it has are what an update needs on a full disk. */
int store_checkpoint(Store *s);
/* Sees to it that STORE_RESERVE of free pages are in the file. Two transactions and checkpoints when not. */
int store_reserve(Store *s);
/* After a failed fsync nothing may be synced again: closing will not copy the log. */
void store_abandon(Store *s);

/* Logs something wrong that was found at opening, and counts it. */
void store_finding(Store *s, const char *format, ...) G_GNUC_PRINTF(2, 3);

int store_errno(Store *s, int code);
int store_exec(Store *s, const char *sql);
int store_prepare(Store *s, const char *sql, sqlite3_stmt **ret);
/* Runs a prepared statement that gives no rows, then resets it. */
int store_run(Store *s, sqlite3_stmt *stmt);
/* The first column of the first row; -ENODATA without a row. */
int store_query_uint(Store *s, const char *sql, uint64_t *ret);

static inline void sqlite3_finalizep(sqlite3_stmt **stmt) {
    sqlite3_finalize(*stmt);
}
#define autostmt __attribute__((cleanup(sqlite3_finalizep))) sqlite3_stmt
