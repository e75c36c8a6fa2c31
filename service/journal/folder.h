/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The journal's folder: the lock that keeps out a second instance, the note in the lock file that bears witness to
 * what had been committed, and the setting aside of damaged files.
 *
 * The note is written after each commit and never synced on its own account, so that on disk it is never ahead of what
 * was durable; a journal that stands behind it has lost its end (SQLite drops a damaged end of its log silently). */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

#define JOURNAL_FILE "journal.db"
#define JOURNAL_LOCK_FILE "journal.lock"
#define JOURNAL_IDENTITY_SIZE 9 /* eight hex digits and the zero */

typedef struct {
    char identity[JOURNAL_IDENTITY_SIZE]; /* "" = nothing noted yet */
    uint64_t seq;     /* sequence number of the last record known to be durable */
    uint64_t last_id; /* the highest job id known to be durable */
} JournalNote;

typedef struct {
    char *path; /* owned */
    int fd;
    int lock_fd;
    JournalNote note;
} JournalFolder;

/* What lies there before SQLite may touch it: SQLite deletes the log of an empty database. */
typedef enum {
    FOLDER_FRESH,  /* no journal, none known of */
    FOLDER_USABLE, /* a database file to look into */
    FOLDER_LOST,   /* no journal or an empty file, but a log or the note tells that there was one */
} FolderContent;

/* Opens (creates, mode 0700) the folder and takes the lock. -EBUSY: another process has it. */
int folder_open(JournalFolder *f, const char *path, Failure *ret_why);
void folder_close(JournalFolder *f);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(JournalFolder, folder_close)

int folder_look(JournalFolder *f, FolderContent *ret);
/* Renames journal.db and what belongs to it to journal.db.damaged-TIME…; durable when it returns 0. ret_name: the new
 * name of the database file, owned by the caller; NULL if there was nothing. */
int folder_set_aside(JournalFolder *f, char **ret_name);
/* An empty database file, readable for its owner only, if there is none: the log gets the same mode. */
int folder_make_file(JournalFolder *f);
int folder_sync(JournalFolder *f);
/* Makes durable what SQLite's log holds. SQLite has no locks on that file that closing it could drop. */
int folder_sync_log(JournalFolder *f);
/* Notes that everything up to seq is durable. Failure is of no consequence: the note is a second witness only. */
void folder_note(JournalFolder *f, const char *identity, uint64_t seq, uint64_t last_id);
