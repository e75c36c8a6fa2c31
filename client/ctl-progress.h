/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What is shown on standard error while jobs are waited for. On a terminal that can redraw: one bar
 * for each job, drawn again when something has changed. Else: a line for each change of state, and
 * at most one line of progress in five seconds for each job. Quiet: nothing. */

#include "ctl-job.h"

typedef struct Progress Progress;

Progress *progress_new(const Options *options);
/* Leaves the cursor below what was drawn; the bars are wiped. */
Progress *progress_free(Progress *progress);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Progress, progress_free)

/* Shows the present properties of the job with that id; jobs keep the order in which they are first
 * shown. */
void progress_update(Progress *progress, uint64_t id, const json_t *job);
/* A line that stays: what happened besides. */
void progress_note(Progress *progress, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Wipes the bars, so that something else may be printed; the next update draws them again. */
void progress_clear(Progress *progress);

/* One line of at most width columns for a job, with a bar if there is room for one. Owned by the
 * caller. */
char *progress_line(const json_t *job, size_t width, bool utf8);
