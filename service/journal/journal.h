/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Journal: the durable store of jobs and domains, and the one thread that may wait for a disk.
 *
 * The loop hands over records and a continuation; the writer thread puts everything that has queued up into one
 * transaction with one fsync and wakes the loop, which runs the continuations in the order of handing over.
 * A record whose continuation was called with 0 survives a power cut. The journal knows nothing of what a job is: it
 * keeps rows of some searchable columns and a document. docs/journal.md describes the file. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "failure.h"

typedef struct Journal Journal;
typedef struct JournalSlot JournalSlot;

typedef enum {
    JOURNAL_OK,
    JOURNAL_RECOVERED, /* at start the file, or rows of it, were damaged or missing: set aside, said in the log */
    JOURNAL_FULL, /* the last write found no space: it waits and is tried again; new jobs are refused. When it succeeds
                     the state is again what it was before */
    JOURNAL_FAILED, /* an fsync failed or the file is unusable: nothing will ever be released; exit and start anew */
} JournalState;

typedef struct {
    uint64_t id;
    char *domain, *disk, *kind, *target; /* owned */
    char *result;                        /* "" while active */
    char *error_name, *error_message;    /* "" if none */
    char *request_id;                    /* "" if none */
    uint32_t owner_uid;
    uint64_t created, finished; /* CLOCK_REALTIME, µs; finished 0 while active */
    uint32_t restarts;
    bool exported;  /* still on the bus though finished; cleared by Dismiss and by pruning */
    char *document; /* JSON, the job's own business */
} JournalJob;

typedef struct {
    char *name;     /* owned */
    char *document; /* JSON; NULL in a record that is handed over = forget the domain */
} JournalDomain;

/* A deep copy; NULL strings become "". */
JournalJob *journal_job_copy(const JournalJob *job);
void journal_job_clear(JournalJob *job);
JournalJob *journal_job_free(JournalJob *job);
JournalDomain *journal_domain_free(JournalDomain *domain);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(JournalJob, journal_job_clear)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JournalJob, journal_job_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JournalDomain, journal_domain_free)

typedef struct {
    uint64_t keep_rows; /* finished jobs kept at most, 0 = no limit */
    uint64_t keep_age;  /* µs after their end, 0 = no limit */
} JournalRetention;

/* error: 0 = durable; -ESHUTDOWN = the journal has failed or was closed, the record may or may not be on disk. */
typedef void (*JournalDone)(int error, void *userdata);

/* Opens (creates) DIR/journal.db, takes the lock, checks, migrates in one transaction. Synchronous: before the loop
 * runs. Returns -EBUSY when another process has it, -EPROTONOSUPPORT when a newer version wrote it (file untouched),
 * other negative errno; *ret_why then holds a sentence for the log. A damaged file is set aside as
 * journal.db.damaged-TIME and an empty one made, which keeps the identity and goes on counting ids where the lock file
 * still tells them; a damaged row is moved into the table `damaged`, the others live on: state is then
 * JOURNAL_RECOVERED. -EIO: the disk could not be read, nothing was touched, for unreadable is not the same as damaged.
 * changed(), may be NULL, is called from the loop when the state changes, in order with the continuations. */
int journal_open(sd_event *event, const char *dir, void (*changed)(Journal *j, void *userdata),
                 void *userdata, Failure *ret_why, Journal **ret);
/* Writes what was handed over, then closes. Continuations are not called any more, free_data of journal_run() is.
 * All slots die with it. On a full disk it tries once more and gives up with a line in the log. */
Journal *journal_free(Journal *j);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Journal, journal_free)

JournalState journal_state(const Journal *j);
/* Nobody waits for the writer thread. */
bool journal_is_idle(const Journal *j);
/* "ok", "recovered", "full", "failed". */
const char *journal_state_to_string(JournalState state);
/* Identity of this journal, made at creation: eight lower-case hex digits. Part of every node name and QEMU job id. */
const char *journal_identity(const Journal *j);
/* A new job id: never given before, also not by an earlier run. Only what is written with it lasts. */
uint64_t journal_new_id(Journal *j);
/* The highest id that journal_new_id() has given or found; raises it when QEMU knows a higher one of this journal. */
uint64_t journal_last_id(const Journal *j);
void journal_raise_id(Journal *j, uint64_t at_least);

/* What was on disk at journal_open(): jobs that are active or still exported (JournalJob*), all domains
 * (JournalDomain*). The arrays are owned by the caller. Call once, before anything is handed over. */
GPtrArray *journal_take_jobs(Journal *j);
GPtrArray *journal_take_domains(Journal *j);

/* Hands over one record (copied): job inserted or replaced by id; and a row in the table of transitions with the given
 * words (state and intent for people and for tests, detail may be ""). done may be NULL. The returned slot (ret may be
 * NULL) lets the owner forget the continuation; the record is written all the same. A slot is gone after its
 * continuation has returned. */
void journal_put_job(Journal *j, const JournalJob *job, const char *state, const char *intent,
                     const char *detail, JournalDone done, void *userdata, JournalSlot **ret);
void journal_put_domain(Journal *j, const JournalDomain *domain, JournalDone done, void *userdata,
                        JournalSlot **ret);
/* Runs work(data) in the writer thread, in order after everything handed over before has been committed and before
 * anything handed over later; for file work that waits for a disk (fsync, rename + fsync of the folder, unlink).
 * work must not touch anything of the loop's. Its return value is given to done; -ESHUTDOWN without work having run
 * when the journal has failed. data must stay valid until free_data(data) is called: once, from the loop, after done
 * has returned, or in its place when the slot was cancelled (work runs all the same) or the journal freed. free_data
 * may be NULL, then data must outlive that. */
void journal_run(Journal *j, int (*work)(void *data), void *data, GDestroyNotify free_data,
                 JournalDone done, void *userdata, JournalSlot **ret);
/* What is handed over between the two becomes durable together, with one fsync. Not nested, not over a return to the loop. */
void journal_cork(Journal *j);
void journal_uncork(Journal *j);
void journal_slot_cancel(JournalSlot *slot);
/* Takes a record back that has not been begun with: it waits behind others, or for space. True: it is not written and
 * never will be, its slot and continuation are gone. False: it is being written, is written, or has failed; the
 * continuation will tell. Only for the newest record of a job: a newer one would hold the same. */
bool journal_slot_withdraw(Journal *j, JournalSlot *slot);

typedef struct {
    char *domain, *disk, *kind, *result; /* owned; NULL = any */
    uint64_t since, until;               /* of the end, both included; 0 = any */
    uint32_t limit;                      /* 0 = no limit */
} JournalFilter;
void journal_filter_clear(JournalFilter *f);
/* Finished jobs, exported or not, newest first, read in the writer thread after what was handed over before; while
 * the state is JOURNAL_FULL it does not wait for that. jobs (JournalJob*) is borrowed; NULL with error set. */
typedef void (*JournalHistoryDone)(int error, GPtrArray *jobs, void *userdata);
void journal_history(Journal *j, const JournalFilter *filter, JournalHistoryDone done,
                     void *userdata, JournalSlot **ret);
/* One part of the journal as JSON, as export_part() says; read as a history is. text is borrowed; NULL with error set. */
typedef void (*JournalExportDone)(int error, const char *text, uint64_t next, void *userdata);
void journal_export(Journal *j, uint64_t after, JournalExportDone done, void *userdata,
                    JournalSlot **ret);
/* Deletes finished, no longer exported rows over the retention, with their transitions; in the writer thread, in
 * small transactions when it has nothing else to do. */
void journal_prune(Journal *j, const JournalRetention *retention);
