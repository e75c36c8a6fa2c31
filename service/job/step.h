/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* job_step(): what a job has to do next, from what the journal says and what QEMU says. Pure, no I/O, the same in normal
 * running and after a restart. The table in step.c is the specification; test-step.c walks every combination. */

#include <glib.h>
#include <stdbool.h>

#include "domain/view.h"

#define JOB_STATE_LIST(X)                                                                          \
    X(QUEUED, "queued")                                                                            \
    X(PREPARING, "preparing")                                                                      \
    X(RUNNING, "running")                                                                          \
    X(READY, "ready")                                                                              \
    X(PENDING, "pending")                                                                          \
    X(PIVOTING, "pivoting")                                                                        \
    X(FINISHING, "finishing")                                                                      \
    X(CANCELLING, "cancelling")                                                                    \
    X(CONCLUDED, "concluded")
typedef enum {
#define X(id, name) JOB_##id,
    JOB_STATE_LIST(X)
#undef X
        _JOB_STATE_MAX
} JobState;
const char *job_state_to_string(JobState s);
JobState job_state_from_string(const char *s); /* _JOB_STATE_MAX if unknown */

#define JOB_RESULT_LIST(X)                                                                         \
    X(NONE, "")                                                                                    \
    X(PIVOTED, "pivoted")                                                                          \
    X(FINISHED, "finished")                                                                        \
    X(CANCELLED, "cancelled")                                                                      \
    X(FAILED, "failed")                                                                            \
    X(LOST, "lost")                                                                                \
    X(COMMITTED, "committed")                                                                      \
    X(PULLED, "pulled")
typedef enum {
#define X(id, name) RESULT_##id,
    JOB_RESULT_LIST(X)
#undef X
        _RESULT_MAX
} JobResult;
const char *job_result_to_string(JobResult r);
JobResult job_result_from_string(const char *s); /* _RESULT_MAX if unknown */

/* What the service has promised to bring about. */
typedef enum { INTENT_NONE, INTENT_PIVOT, INTENT_FINISH, INTENT_CANCEL, _INTENT_MAX } JobIntent;
const char *job_intent_to_string(JobIntent i);
JobIntent job_intent_from_string(const char *s);

typedef enum {
    LINK_UNKNOWN, /* not connected, not answering, or no look since our last command: nothing can be said */
    LINK_LIVE, /* the view is fresh */
    LINK_GONE, /* the process in which the job ran is gone */
    _LINK_MAX
} StepLink;

/* Which image is under the guest's device, read from the block graph. Of a job of one phase: are the images that it makes
 * superfluous still in the chain (SOURCE) or not (TARGET), read from the graph or, without QEMU, from the image's header. */
typedef enum { ROOT_SOURCE, ROOT_TARGET, ROOT_OTHER, _ROOT_MAX } StepRoot;

typedef struct {
    /* the journal's */
    JobState state;
    JobIntent intent;
    bool decided;     /* "committed to finalize" is durable: the point of no return */
    JobResult result; /* how it ended, once that is known; NONE before */
    bool clean;       /* finishing work is done */
    bool halted;      /* we have stopped, or may have stopped, the guest's processors */
    bool foreign;     /* somebody else's job: watch only */
    bool member;      /* its group brings it to its end */
    bool one_phase;   /* it is never ready: it stops in pending by itself, and no guest is held */
    bool leftover; /* mirrored again after a switch that failed, whose job may still be in QEMU */
    /* QEMU's */
    StepLink link;
    QemuJobPhase qjob;
    StepRoot root;
    bool guest_runs;
    /* this run's */
    bool on_ready;     /* OnReady is pivot or finish and nobody has ordered an end yet */
    bool must_stop;    /* the guest is to be stopped before completing (pause-guest) */
    bool may_stop;     /* and the predicted pause is within max-pause */
    bool must_prepare; /* the new definition has to be written before the guest is held */
    bool asked;        /* completion was sent to QEMU over this connection */
    bool aborting;     /* job-cancel was sent to QEMU over this connection */
    bool overdue;      /* pending or halted for longer than allowed, without a decision */
    bool waits;        /* the result is known, and others of its group are not as far yet */
} StepFacts;

/* A group goes by the same table: what its members are is gathered into one QEMU job and one image. */
typedef struct {
    JobState state;
    JobResult result;
    bool clean;
    bool alone;        /* mirrored again: it comes to its end by itself */
    QemuJobPhase qjob; /* with a live link */
    StepRoot root;     /* with a link that is not unknown */
} StepMember;
/* Fills qjob, root and waits of a group's facts, whose other fields are set, from those of its members (at least one). */
void job_step_gather(StepFacts *facts, const StepMember *members, size_t n);

#define STEP_LIST(X)                                                                               \
    X(WAIT)           /* until something changes */                                                \
    X(SETUP)          /* leftovers away, target, nodes, blockdev-mirror */                         \
    X(RECORD_RUNNING) /* the job is in QEMU */                                                     \
    X(RECORD_READY)   /* it is in sync */                                                          \
    X(ORDER)          /* carry out OnReady: record the intent */                                   \
    X(PREPARE)        /* write the new definition beside the old one */                            \
    X(RECORD_HALT)    /* record that the processors will be stopped */                             \
    X(COMPLETE)       /* stop if recorded so, job-complete (pivot) or a soft cancel (finish) */    \
    X(DECIDE)         /* record the point of no return */                                          \
    X(FINALIZE)       /* job-finalize, and let the guest go on */                                  \
    X(AGAIN) /* record that the switch of this one disk has failed and it is mirrored again */     \
    X(CONTINUE_GUEST) /* cont */                                                                   \
    X(ABORT)          /* job-cancel */                                                             \
    X(SETTLE)         /* the job is over in QEMU or with it: take the result that is given */      \
    X(CLEAN)          /* definition, nodes, files */                                               \
    X(CONCLUDE)       /* record the end, then tell */                                              \
    X(DISMISS)        /* job-dismiss */                                                            \
    X(RELEASE)        /* nothing is left to do */                                                  \
    X(REFUSE)         /* a combination that cannot be: log, touch nothing */
typedef enum {
#define X(id) STEP_##id,
    STEP_LIST(X)
#undef X
        _STEP_MAX
} StepAction;
const char *step_action_to_string(StepAction a);

typedef struct {
    StepAction action;
    JobResult result; /* with SETTLE; PIVOTED: switched, whatever the kind calls it */
    const char *why;  /* the row's words, for log and tests */
} Step;

Step job_step(const StepFacts *facts);
/* The words of one row of the table; NULL after the last. */
const char *job_step_words(size_t row);
