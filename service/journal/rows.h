/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Rows of the journal's store, each with its sequence number and a CRC over all of its columns: writing, history,
 * pruning. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "journal/journal.h"
#include "journal/store.h"

/* Inside a transaction. */
int rows_put_job(Store *s, const JournalJob *job, uint64_t time, const char *state,
                 const char *intent, const char *detail);
/* Part of rows_put_job(). */
int rows_put_transition(Store *s, uint64_t job, uint64_t seq, uint64_t time, const char *state,
                        const char *intent, const char *detail);
/* The row that stmt, which selects JOB_COLUMNS, stands on. job is filled in any case; true = the CRC is right. */
bool rows_read_job(sqlite3_stmt *stmt, JournalJob *job, uint64_t *ret_seq);
int rows_put_domain(Store *s, const JournalDomain *domain);
/* The position is written by store_commit(); store_open() reads it. -ENODATA: the row is missing or damaged. */
int rows_put_position(Store *s);
int rows_load_position(Store *s);
/* The row of the table meta; -ENODATA as above. value is owned by the caller. */
int rows_put_meta(Store *s, const char *name, const char *value);
int rows_load_meta(Store *s, const char *name, char **ret_value);

/* Finished jobs, newest first. Damaged rows are logged and left out. */
int rows_history(Store *s, const JournalFilter *filter, GPtrArray **ret_jobs);
/* Deletes one slice of the rows over the retention, in a transaction of its own. */
int rows_prune(Store *s, const JournalRetention *retention, bool *ret_more);
