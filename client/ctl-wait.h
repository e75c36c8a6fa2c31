/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Waiting for jobs, by signals only, also through a death of the service.
 *
 * A Waiter holds jobs. For each it subscribes first and reads all properties then, so that nothing
 * falls in between; PropertiesChanged keeps them up to date. When the service leaves the bus
 * everything stays as it is known; when it has a new owner all jobs are read again. A job that is
 * not on the bus any more is looked up in the history.
 *
 *     waiter_new → waiter_add for each job → (waiter_read, orders) → waiter_run → waiter_free */

#include "ctl-progress.h"

/* What the caller has asked for, and so what counts as success. */
typedef enum {
    EXPECT_END, /* any good end, or readiness: wait, copy, move */
    EXPECT_PIVOT,
    EXPECT_FINISH,
    EXPECT_CANCEL,
} Expect;

typedef struct Waiter Waiter;

/* goal: ready or concluded. steady: an end that falls back to "ready" is the end of the wait as
 * well, because somebody ordered that end (all but the verb "wait"). */
Waiter *waiter_new(Ctl *ctl, Goal goal, Expect expect, bool steady);
Waiter *waiter_free(Waiter *waiter);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Waiter, waiter_free)

/* Starts to follow a job; a job that is there already is not added again. */
void waiter_add(Waiter *waiter, uint64_t id);
/* No longer waits for a job, because the order to it has failed. */
void waiter_drop(Waiter *waiter, uint64_t id, CtlExit code);
/* Runs the loop until all jobs are read. 0 or the exit code of what prevents it, which has been
 * printed. */
int waiter_read(Waiter *waiter);
/* The properties as known, or NULL. */
const json_t *waiter_job(Waiter *waiter, uint64_t id);
/* A line beside the progress. */
Progress *waiter_progress(Waiter *waiter);

/* Runs the loop until every job has come to the goal (or cannot any more), the time is over, or
 * Ctrl-C. Prints the ends and returns the exit code of the first job that has one. */
CtlExit waiter_run(Waiter *waiter);
