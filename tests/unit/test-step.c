/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* job_step(): every combination of facts, against a second specification and against what must never be; and a small
 * world in which it has to bring every job to its right end (step-model.c). */

#include <glib.h>
#include <string.h>

#include "job/step.h"
#include "step-model.h"

/* ── the second specification: what has to happen, from what a job promises ── */

#define RULES(X)                                                                                   \
    X(NOTHING_IS_KNOWN, WAIT, NONE)                                                                \
    /* the end is recorded */                                                                      \
    X(FORGOTTEN_BY_QEMU, RELEASE, NONE)                                                            \
    X(DISMISSED_LAST, DISMISS, NONE)                                                               \
    X(HELD_THOUGH_RECORDED, FINALIZE, NONE)                                                        \
    X(RUNS_THOUGH_RECORDED, ABORT, NONE)                                                           \
    X(RECORDED_AND_ENDING, WAIT, NONE)                                                             \
    /* in a group */                                                                               \
    X(OTHERS_ARE_NOT_AS_FAR, WAIT, NONE)                                                           \
    X(ITS_GROUP_ENDS_IT, WAIT, NONE)                                                               \
    X(MIRRORED_AGAIN, AGAIN, NONE)                                                                 \
    X(LEFT_BY_A_FAILED_SWITCH, DISMISS, NONE)                                                      \
    /* somebody else's */                                                                          \
    X(FOREIGN_CLEANED, CONCLUDE, NONE)                                                             \
    X(FOREIGN_OVER, CLEAN, NONE)                                                                   \
    X(FOREIGN_LOST, SETTLE, LOST)                                                                  \
    X(FOREIGN_FAILED, SETTLE, FAILED)                                                              \
    X(FOREIGN_FINISHED, SETTLE, FINISHED)                                                          \
    X(FOREIGN_IN_SYNC, RECORD_READY, NONE)                                                         \
    X(FOREIGN_GOES_ON, WAIT, NONE)                                                                 \
    /* QEMU is gone */                                                                             \
    X(GONE_CLEANED, CONCLUDE, NONE)                                                                \
    X(GONE_TO_CLEAN, CLEAN, NONE)                                                                  \
    X(GONE_STARTED_ON_SOURCE, SETTLE, LOST)                                                        \
    X(GONE_DECIDED_PIVOT, SETTLE, PIVOTED)                                                         \
    X(GONE_DECIDED_FINISH, SETTLE, FINISHED)                                                       \
    X(GONE_CANCELLED, SETTLE, CANCELLED)                                                           \
    X(GONE_CHAIN_CHANGED, SETTLE, PIVOTED)                                                         \
    X(GONE_CHAIN_AS_WAS, SETTLE, LOST)                                                             \
    X(GONE_UNDECIDED, SETTLE, LOST)                                                                \
    /* over in QEMU */                                                                             \
    X(OVER_GUEST_GOES_ON, CONTINUE_GUEST, NONE)                                                    \
    X(OVER_CLEANED, CONCLUDE, NONE)                                                                \
    X(OVER_TO_CLEAN, CLEAN, NONE)                                                                  \
    X(NOT_MADE_YET, SETUP, NONE)                                                                   \
    X(DISK_WAS_CHANGED, SETTLE, FAILED)                                                            \
    X(GUEST_ON_TARGET, SETTLE, PIVOTED)                                                            \
    X(OVER_CANCELLED, SETTLE, CANCELLED)                                                           \
    X(PIVOT_FAILED, SETTLE, FAILED)                                                                \
    X(PIVOT_AND_UNPLUGGED, SETTLE, PIVOTED)                                                        \
    X(FINISH_FAILED, SETTLE, FAILED)                                                               \
    X(FINISHED, SETTLE, FINISHED)                                                                  \
    X(OVER_TOO_EARLY, SETTLE, FAILED)                                                              \
    /* there in QEMU */                                                                            \
    X(ON_ITS_WAY_OUT, WAIT, NONE)                                                                  \
    X(GUEST_GOES_ON, CONTINUE_GUEST, NONE)                                                         \
    X(HELD_THOUGH_SETTLED, FINALIZE, NONE)                                                         \
    X(RUNS_THOUGH_SETTLED, ABORT, NONE)                                                            \
    X(SETTLED_AND_ENDING, WAIT, NONE)                                                              \
    X(CANCELLED_NOW, ABORT, NONE)                                                                  \
    X(CANCELLED_ALREADY, WAIT, NONE)                                                               \
    X(STARTED, RECORD_RUNNING, NONE)                                                               \
    X(COMPLETED_BY_OTHERS, ABORT, NONE)                                                            \
    X(ROLLED_BACK, WAIT, NONE)                                                                     \
    X(IN_SYNC, RECORD_READY, NONE)                                                                 \
    X(PROMISED_END, ORDER, NONE)                                                                   \
    X(COPYING, WAIT, NONE)                                                                         \
    /* it ends by itself */                                                                        \
    X(TO_BE_PREPARED_ITSELF, PREPARE, NONE)                                                        \
    X(ENDS_ITSELF, DECIDE, NONE)                                                                   \
    X(READY_WITHOUT_AN_END, ABORT, NONE)                                                           \
    /* to be pivoted or finished */                                                                \
    X(FORWARD, FINALIZE, NONE)                                                                     \
    X(FORWARD_AGAIN, COMPLETE, NONE)                                                               \
    X(FORWARD_SOON, WAIT, NONE)                                                                    \
    X(HELD_TOO_LONG, ABORT, NONE)                                                                  \
    X(HELD_BEFORE_PREPARED, PREPARE, NONE)                                                         \
    X(HELD, DECIDE, NONE)                                                                          \
    X(HELD_AND_ROLLED_BACK, WAIT, NONE)                                                            \
    X(STOOD_TOO_LONG, CONTINUE_GUEST, NONE)                                                        \
    X(COMPLETING, WAIT, NONE)                                                                      \
    X(OUT_OF_SYNC, WAIT, NONE)                                                                     \
    X(TO_BE_PREPARED, PREPARE, NONE)                                                               \
    X(PAUSE_TOO_LONG, WAIT, NONE)                                                                  \
    X(STOP_IS_RECORDED, RECORD_HALT, NONE)                                                         \
    X(COMPLETED, COMPLETE, NONE)

typedef enum {
#define X(id, action, result) RULE_##id,
    RULES(X)
#undef X
        _RULE_MAX
} Rule;

static const struct {
    const char *name;
    StepAction action;
    JobResult result;
} rules[] = {
#define X(id, action, result) {#id, STEP_##action, RESULT_##result},
    RULES(X)
#undef X
};

static bool is_there(const StepFacts *f) {
    return f->qjob == QJOB_RUNNING || f->qjob == QJOB_READY || f->qjob == QJOB_PENDING;
}

static bool is_over(const StepFacts *f) {
    return f->qjob == QJOB_ABSENT || f->qjob == QJOB_CONCLUDED || f->qjob == QJOB_FAILED;
}

static bool is_ending(const StepFacts *f) {
    return f->state == JOB_PIVOTING || f->state == JOB_FINISHING || f->state == JOB_PENDING;
}

/* The guest's processors stand, and it may have been us. */
static bool is_stopped(const StepFacts *f) {
    return f->halted && !f->guest_runs;
}

static Rule rule_concluded(const StepFacts *f) {
    if (f->foreign || f->link == LINK_GONE || f->qjob == QJOB_ABSENT)
        return RULE_FORGOTTEN_BY_QEMU;
    if (is_over(f))
        return RULE_DISMISSED_LAST;
    if (f->decided && f->qjob == QJOB_PENDING)
        return RULE_HELD_THOUGH_RECORDED;
    if (is_there(f) && !f->decided && !f->aborting)
        return RULE_RUNS_THOUGH_RECORDED;
    return RULE_RECORDED_AND_ENDING;
}

static Rule rule_foreign(const StepFacts *f) {
    if (f->result != RESULT_NONE)
        return f->clean ? RULE_FOREIGN_CLEANED : RULE_FOREIGN_OVER;
    if (f->link == LINK_GONE)
        return RULE_FOREIGN_LOST;
    if (is_over(f))
        return f->qjob == QJOB_FAILED ? RULE_FOREIGN_FAILED : RULE_FOREIGN_FINISHED;
    if (f->qjob == QJOB_READY && f->state == JOB_RUNNING)
        return RULE_FOREIGN_IN_SYNC;
    return RULE_FOREIGN_GOES_ON;
}

static Rule rule_gone(const StepFacts *f) {
    if (f->result != RESULT_NONE && f->waits)
        return RULE_OTHERS_ARE_NOT_AS_FAR;
    if (f->result != RESULT_NONE)
        return f->clean ? RULE_GONE_CLEANED : RULE_GONE_TO_CLEAN;
    if (f->one_phase && f->intent != INTENT_CANCEL)
        return f->root == ROOT_TARGET ? RULE_GONE_CHAIN_CHANGED : RULE_GONE_CHAIN_AS_WAS;
    if (f->one_phase && f->root == ROOT_TARGET)
        return RULE_GONE_CHAIN_CHANGED;
    if (f->decided)
        return f->intent != INTENT_PIVOT ? RULE_GONE_DECIDED_FINISH
               : f->root == ROOT_SOURCE  ? RULE_GONE_STARTED_ON_SOURCE
                                         : RULE_GONE_DECIDED_PIVOT;
    return f->intent == INTENT_CANCEL ? RULE_GONE_CANCELLED : RULE_GONE_UNDECIDED;
}

static Rule rule_over(const StepFacts *f) {
    if (is_stopped(f))
        return RULE_OVER_GUEST_GOES_ON;
    if (f->result != RESULT_NONE && f->waits)
        return RULE_OTHERS_ARE_NOT_AS_FAR;
    if (f->result != RESULT_NONE)
        return f->clean ? RULE_OVER_CLEANED : RULE_OVER_TO_CLEAN;
    if (f->root == ROOT_TARGET)
        return RULE_GUEST_ON_TARGET;
    if ((f->state == JOB_QUEUED || f->state == JOB_PREPARING) && f->qjob == QJOB_ABSENT)
        return f->root == ROOT_SOURCE ? RULE_NOT_MADE_YET : RULE_DISK_WAS_CHANGED;
    if (f->intent == INTENT_CANCEL)
        return RULE_OVER_CANCELLED;
    if (f->leftover && f->state == JOB_PREPARING && f->root == ROOT_SOURCE)
        return RULE_LEFT_BY_A_FAILED_SWITCH;
    if (!f->decided)
        return RULE_OVER_TOO_EARLY;
    if (f->one_phase)
        return f->root == ROOT_OTHER && f->qjob == QJOB_CONCLUDED ? RULE_PIVOT_AND_UNPLUGGED
                                                                  : RULE_PIVOT_FAILED;
    if (f->intent == INTENT_PIVOT && f->root == ROOT_SOURCE && f->member)
        return RULE_MIRRORED_AGAIN;
    if (f->intent == INTENT_PIVOT)
        return f->root == ROOT_SOURCE ? RULE_PIVOT_FAILED : RULE_PIVOT_AND_UNPLUGGED;
    return f->qjob == QJOB_FAILED ? RULE_FINISH_FAILED : RULE_FINISHED;
}

static Rule rule_held(const StepFacts *f) {
    if (f->aborting)
        return RULE_HELD_AND_ROLLED_BACK;
    if (f->overdue)
        return RULE_HELD_TOO_LONG;
    return f->must_prepare ? RULE_HELD_BEFORE_PREPARED : RULE_HELD;
}

static Rule rule_ending(const StepFacts *f) {
    if (f->member)
        return RULE_ITS_GROUP_ENDS_IT;
    if (f->decided && f->qjob == QJOB_PENDING)
        return RULE_FORWARD;
    if (f->decided)
        return f->qjob == QJOB_READY && !f->asked && !f->one_phase ? RULE_FORWARD_AGAIN
                                                                   : RULE_FORWARD_SOON;
    if (f->qjob == QJOB_PENDING)
        return rule_held(f);
    if (is_stopped(f) && f->overdue)
        return RULE_STOOD_TOO_LONG;
    if (f->asked)
        return RULE_COMPLETING;
    if (f->qjob == QJOB_RUNNING)
        return RULE_OUT_OF_SYNC;
    if (f->must_prepare)
        return RULE_TO_BE_PREPARED;
    if (f->must_stop && f->guest_runs && !f->may_stop)
        return RULE_PAUSE_TOO_LONG;
    if (f->must_stop && f->guest_runs && !f->halted)
        return RULE_STOP_IS_RECORDED;
    return RULE_COMPLETED;
}

static Rule rule_copying(const StepFacts *f) {
    if (f->state == JOB_PREPARING)
        return RULE_STARTED;
    if (f->one_phase && f->qjob == QJOB_PENDING && !f->aborting)
        return f->must_prepare ? RULE_TO_BE_PREPARED_ITSELF : RULE_ENDS_ITSELF;
    if (f->one_phase && f->qjob == QJOB_READY)
        return f->aborting ? RULE_COPYING : RULE_READY_WITHOUT_AN_END;
    if (f->qjob == QJOB_PENDING)
        return f->aborting ? RULE_ROLLED_BACK : RULE_COMPLETED_BY_OTHERS;
    if (f->qjob == QJOB_READY && f->state == JOB_RUNNING)
        return RULE_IN_SYNC;
    if (f->qjob == QJOB_READY && f->on_ready)
        return RULE_PROMISED_END;
    return RULE_COPYING;
}

static Rule rule_there(const StepFacts *f) {
    if (f->qjob == QJOB_ENDING)
        return RULE_ON_ITS_WAY_OUT;
    if (is_stopped(f) && f->qjob != QJOB_PENDING && !is_ending(f) && f->state != JOB_PREPARING)
        return RULE_GUEST_GOES_ON;
    if (f->result != RESULT_NONE && f->decided && f->qjob == QJOB_PENDING)
        return RULE_HELD_THOUGH_SETTLED;
    if (f->result != RESULT_NONE)
        return f->decided || f->aborting ? RULE_SETTLED_AND_ENDING : RULE_RUNS_THOUGH_SETTLED;
    if (f->intent == INTENT_CANCEL)
        return f->aborting ? RULE_CANCELLED_ALREADY : RULE_CANCELLED_NOW;
    return is_ending(f) ? rule_ending(f) : rule_copying(f);
}

static Rule rule_of(const StepFacts *f) {
    if (f->link == LINK_UNKNOWN)
        return RULE_NOTHING_IS_KNOWN;
    if (f->state == JOB_CONCLUDED)
        return rule_concluded(f);
    if (f->foreign)
        return rule_foreign(f);
    if (f->link == LINK_GONE)
        return rule_gone(f);
    return is_over(f) ? rule_over(f) : rule_there(f);
}

/* ── which combinations can come about ── */

static bool intent_fits(const StepFacts *f) {
    switch (f->state) {
    case JOB_QUEUED:
    case JOB_PREPARING:
    case JOB_RUNNING:
    case JOB_READY:
        return f->intent == INTENT_NONE;
    case JOB_PIVOTING:
        return f->intent == INTENT_PIVOT;
    case JOB_FINISHING:
        return f->intent == INTENT_FINISH;
    case JOB_CANCELLING:
        return f->intent == INTENT_CANCEL;
    case JOB_CONCLUDED:
        return true;
    case JOB_PENDING:
        return f->intent == INTENT_PIVOT || f->intent == INTENT_FINISH;
    case _JOB_STATE_MAX:
        break;
    }
    return false;
}

static bool record_fits(const StepFacts *f) {
    bool to_be_ended = f->intent == INTENT_PIVOT || f->intent == INTENT_FINISH;
    bool switching = is_ending(f) || f->state == JOB_CONCLUDED;

    if (!intent_fits(f) || (f->decided && (!to_be_ended || !switching)))
        return false;
    if (f->state == JOB_CONCLUDED && f->result == RESULT_NONE)
        return false;
    if ((f->clean || f->waits) && f->result == RESULT_NONE)
        return false;
    /* At the common point only by the decision of the group. */
    if (f->state == JOB_PENDING && (!f->member || !f->decided))
        return false;
    if (f->leftover && (f->member || f->foreign || f->state == JOB_QUEUED))
        return false;
    /* Processors and promises are the group's. */
    if (f->member && (f->halted || f->on_ready || f->foreign))
        return false;
    /* Recorded with or after the order; left over where a pivot or finish was backed out or cancelled. */
    if (f->halted &&
        (f->state == JOB_QUEUED || f->state == JOB_PREPARING || f->state == JOB_RUNNING))
        return false;
    if (f->foreign && (f->intent != INTENT_NONE || f->halted || f->on_ready || f->must_stop ||
                       f->waits || f->state == JOB_QUEUED || f->state == JOB_PREPARING))
        return false;
    return true;
}

/* A job of one phase is never ready, ends by the decision alone, and has no guest to stop. */
static bool one_phase_fits(const StepFacts *f) {
    return !f->foreign && f->intent != INTENT_PIVOT && f->state != JOB_READY &&
           (f->intent == INTENT_FINISH) == f->decided && !f->halted && !f->on_ready &&
           !f->must_stop && !f->asked && !(f->overdue && f->state == JOB_FINISHING);
}

static bool can_be(const StepFacts *f) {
    if (!record_fits(f) || (f->one_phase && !one_phase_fits(f)))
        return false;
    if (f->link != LINK_LIVE)
        /* Another process may have been started on either image since. */
        return f->qjob == QJOB_ABSENT && (f->root == ROOT_OTHER || f->link == LINK_GONE) &&
               !f->guest_runs && !f->overdue;
    /* What QEMU promises: before its end the mirror stands over the source, or its disk was unplugged. */
    if (f->root == ROOT_TARGET && is_there(f) && !f->foreign)
        return false;
    if (f->state == JOB_QUEUED && (f->qjob != QJOB_ABSENT || f->root == ROOT_TARGET))
        return false;
    if (f->overdue && f->qjob != QJOB_PENDING && !is_stopped(f))
        return false;
    return !(f->must_prepare && f->intent != INTENT_PIVOT && !f->one_phase);
}

/* ── what must never be, whatever the combination ── */

static bool touches_qemu(StepAction a) {
    return a == STEP_SETUP || a == STEP_COMPLETE || a == STEP_FINALIZE || a == STEP_ABORT ||
           a == STEP_CONTINUE_GUEST || a == STEP_DISMISS;
}

/* Each returns the words of what is broken, or NULL. */
static const char *check_knowledge(const StepFacts *f, StepAction a) {
    if (f->link == LINK_UNKNOWN && a != STEP_WAIT)
        return "something is done though nothing is known";
    if (f->link == LINK_GONE && a != STEP_WAIT && a != STEP_SETTLE && a != STEP_CLEAN &&
        a != STEP_CONCLUDE && a != STEP_RELEASE)
        return "something is asked of a QEMU that is gone";
    if (f->foreign && a != STEP_WAIT && a != STEP_RECORD_READY && a != STEP_SETTLE &&
        a != STEP_CLEAN && a != STEP_CONCLUDE && a != STEP_RELEASE)
        return "somebody else's job is touched";
    if (f->state == JOB_CONCLUDED && a != STEP_WAIT && a != STEP_RELEASE && a != STEP_DISMISS &&
        a != STEP_ABORT && a != STEP_FINALIZE)
        return "a concluded job is taken up again";
    return NULL;
}

static const char *check_switch(const StepFacts *f, StepAction a) {
    bool to_be_ended = f->intent == INTENT_PIVOT || f->intent == INTENT_FINISH;
    bool open = f->result == RESULT_NONE && !f->decided;
    bool by_itself = f->one_phase && f->state == JOB_RUNNING && f->intent == INTENT_NONE;

    if (by_itself && a == STEP_DECIDE)
        return !open || f->qjob != QJOB_PENDING || f->aborting || f->must_prepare
                   ? "decided by itself too early"
                   : NULL;
    if (a == STEP_FINALIZE && (!f->decided || f->qjob != QJOB_PENDING))
        return "finalized without a decision";
    if (a == STEP_DECIDE &&
        (!open || !to_be_ended || f->qjob != QJOB_PENDING || f->aborting || f->overdue ||
         (f->must_prepare && f->state == JOB_PIVOTING && f->intent == INTENT_PIVOT)))
        return "decided too early";
    if (a == STEP_ABORT && (f->decided || f->aborting || !is_there(f)))
        return "aborted after the decision, or again";
    if (a == STEP_COMPLETE && (!to_be_ended || f->qjob != QJOB_READY || f->asked ||
                               f->result != RESULT_NONE || !is_ending(f)))
        return "completed without an order";
    if (a == STEP_COMPLETE && !f->decided && f->must_stop && f->guest_runs &&
        (!f->halted || !f->may_stop))
        return "completed while the guest should stand";
    if (a == STEP_PREPARE &&
        (!f->must_prepare || !open || (f->state != JOB_PIVOTING && !by_itself)))
        return "prepared for nothing";
    if (a == STEP_RECORD_HALT && (!f->must_stop || !f->may_stop || !f->guest_runs || f->halted ||
                                  !open || f->qjob != QJOB_READY))
        return "the guest is stopped without need";
    if (a == STEP_ORDER && (!f->on_ready || f->state != JOB_READY || f->intent != INTENT_NONE ||
                            f->qjob != QJOB_READY || f->result != RESULT_NONE))
        return "ordered without a promise";
    return NULL;
}

static const char *check_group(const StepFacts *f, StepAction a) {
    bool open = f->result == RESULT_NONE && f->state != JOB_CONCLUDED;

    if (f->member && open && is_ending(f) && touches_qemu(a) && is_there(f) &&
        a != STEP_CONTINUE_GUEST)
        return "a member ends by itself";
    if (f->member && open && is_ending(f) &&
        (a == STEP_DECIDE || a == STEP_RECORD_HALT || a == STEP_PREPARE))
        return "a member decides by itself";
    if (f->waits && (a == STEP_CLEAN || a == STEP_CONCLUDE))
        return "finished before the others of the group are as far";
    return NULL;
}

static const char *check_guest(const StepFacts *f, StepAction a) {
    bool ours = !f->foreign && f->state != JOB_CONCLUDED && f->link == LINK_LIVE;

    if (a == STEP_CONTINUE_GUEST &&
        (!is_stopped(f) || f->qjob == QJOB_PENDING || f->qjob == QJOB_ENDING))
        return "a guest goes on that was not stopped, or in the middle of the switch";
    if (ours && is_stopped(f) && is_over(f) && a != STEP_CONTINUE_GUEST)
        return "something else comes before the guest goes on";
    return NULL;
}

static const char *check_begin(const StepFacts *f, StepAction a) {
    bool new = f->state == JOB_QUEUED || f->state == JOB_PREPARING;

    if (a == STEP_SETUP && (!new || f->qjob != QJOB_ABSENT || f->root != ROOT_SOURCE ||
                            f->intent != INTENT_NONE || f->result != RESULT_NONE || f->decided))
        return "made where something may be already";
    if (a == STEP_RECORD_RUNNING && (f->state != JOB_PREPARING || !is_there(f)))
        return "recorded as running without a mirror";
    if (a == STEP_RECORD_READY && (f->state != JOB_RUNNING || f->qjob != QJOB_READY))
        return "recorded as ready without being so";
    return NULL;
}

static const char *check_result(const StepFacts *f, JobResult r) {
    bool over = f->link == LINK_LIVE && is_over(f);
    bool ended = f->decided && (f->intent == INTENT_FINISH ||
                                (f->intent == INTENT_PIVOT && f->root != ROOT_SOURCE));

    if (r == RESULT_NONE || f->result != RESULT_NONE || f->state == JOB_CONCLUDED)
        return "settled twice, or as nothing";
    if (f->link == LINK_LIVE && !over)
        return "settled before it is over";
    if (over && !f->foreign && f->root == ROOT_TARGET && r != RESULT_PIVOTED)
        return "the guest stands on the target, and it is not called pivoted";
    if (over && !f->foreign && f->root == ROOT_SOURCE && r == RESULT_PIVOTED)
        return "the guest stands on the source, and it is called pivoted";
    if (f->link == LINK_GONE && f->one_phase)
        return (r == RESULT_PIVOTED) != (f->root == ROOT_TARGET) ? "not the header has decided"
               : r == RESULT_CANCELLED && f->intent != INTENT_CANCEL
                   ? "a lost job is called cancelled"
                   : NULL;
    if (f->link == LINK_GONE && (r == RESULT_PIVOTED || r == RESULT_FINISHED) != ended)
        return "QEMU is gone, and not the record has decided";
    if (r == RESULT_LOST && f->link != LINK_GONE)
        return "called lost while QEMU is there";
    if (r == RESULT_CANCELLED && f->intent != INTENT_CANCEL)
        return "called cancelled without an order";
    return NULL;
}

static const char *check_end(const StepFacts *f, const Step *s) {
    bool over = f->link == LINK_GONE || f->foreign || is_over(f);
    StepAction a = s->action;

    if (a == STEP_SETTLE)
        return check_result(f, s->result);
    if (s->result != RESULT_NONE)
        return "a result comes with something else than settling";
    if ((a == STEP_CLEAN || a == STEP_CONCLUDE) && (f->result == RESULT_NONE || !over))
        return "finished without a result, or too early";
    if (a == STEP_CONCLUDE && !f->clean)
        return "concluded before the finishing work";
    bool left = f->leftover && f->state == JOB_PREPARING && f->result == RESULT_NONE;
    if (a == STEP_AGAIN && (!f->member || !f->decided || f->root != ROOT_SOURCE || !over))
        return "mirrored again without need";
    if (a == STEP_DISMISS &&
        ((f->state != JOB_CONCLUDED && !left) || !is_over(f) || f->qjob == QJOB_ABSENT))
        return "dismissed before the end is recorded";
    if (a == STEP_RELEASE && (f->state != JOB_CONCLUDED ||
                              (!f->foreign && f->link == LINK_LIVE && f->qjob != QJOB_ABSENT)))
        return "released while something is left";
    return NULL;
}

static const char *what_is_broken(const StepFacts *f, const Step *s) {
    const char *what = check_knowledge(f, s->action);

    /* Without a link nothing that QEMU would have said may count; those were checked. */
    if (!what && touches_qemu(s->action) && f->link != LINK_LIVE)
        what = "QEMU is touched blindly";
    what = what ? what : check_switch(f, s->action);
    what = what ? what : check_group(f, s->action);
    what = what ? what : check_guest(f, s->action);
    what = what ? what : check_begin(f, s->action);
    return what ? what : check_end(f, s);
}

/* ── the walk through all combinations ── */

enum { N_BITS = 16 };

/* The next combination after that. A job of one phase has no others than these, for it has no guest to stop, nobody gives it
 * an end, and it is in no group. */
static unsigned next_bits(unsigned bits) {
    const unsigned one_phase = 1u << 14, leftover = 1u << 15,
                   along = 1 | 2 | 16 | 256 | 1024 | 2048;

    if (bits < one_phase)
        return bits + 1;
    if (bits & leftover) /* alone, too: it is mirrored again by itself */
        return bits + 1 < (leftover | 1u << 12) ? bits + 1 : 1u << N_BITS;
    bits = ((bits | ~along) + 1) & along;
    return bits ? bits | one_phase : leftover;
}

/* False: not tried, for of the results one is enough with what a group adds. */
static bool facts_set_bits(StepFacts *f, unsigned bits) {
    f->decided = bits & 1;
    f->clean = bits & 2;
    f->halted = bits & 4;
    f->foreign = bits & 8;
    f->guest_runs = bits & 16;
    f->on_ready = bits & 32;
    f->must_stop = bits & 64;
    f->may_stop = bits & 128;
    f->must_prepare = bits & 256;
    f->asked = bits & 512;
    f->aborting = bits & 1024;
    f->overdue = bits & 2048;
    f->member = bits & 4096;
    f->waits = bits & 8192;
    f->one_phase = bits & 16384;
    f->leftover = bits & 32768;
    if (f->leftover && f->result != RESULT_NONE)
        return false;
    return (!f->member && !f->waits) || f->result == RESULT_PIVOTED ||
           (f->result == RESULT_NONE && !f->waits);
}

static char *facts_to_text(const StepFacts *f) {
    static const char *const links[] = {"unknown", "live", "gone"};
    static const char *const roots[] = {"source", "target", "other"};

    return g_strdup_printf(
        "state %s, intent \"%s\", result \"%s\", link %s, QEMU's job %s, root "
        "%s,%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s",
        job_state_to_string(f->state), job_intent_to_string(f->intent),
        job_result_to_string(f->result), links[f->link], qemu_job_phase_to_string(f->qjob),
        roots[f->root], f->decided ? " decided" : "", f->clean ? " clean" : "",
        f->halted ? " halted" : "", f->foreign ? " foreign" : "",
        f->guest_runs ? " guest-runs" : "", f->on_ready ? " on-ready" : "",
        f->must_stop ? " must-stop" : "", f->may_stop ? " may-stop" : "",
        f->must_prepare ? " must-prepare" : "", f->asked ? " asked" : "",
        f->aborting ? " aborting" : "", f->overdue ? " overdue" : "", f->member ? " member" : "",
        f->waits ? " waits" : "", f->one_phase ? " one-phase" : "", f->leftover ? " leftover" : "");
}

/* Calls visit for all values of what is no yes-or-no. How a kind calls its end (committed, pulled) is not asked for. */
static void for_all_sets(void (*visit)(StepFacts *f, void *userdata), void *userdata) {
    for (unsigned state = 0; state < _JOB_STATE_MAX; state++)
        for (unsigned intent = 0; intent < _INTENT_MAX; intent++)
            for (unsigned link = 0; link < _LINK_MAX; link++)
                for (unsigned qjob = 0; qjob < _QJOB_MAX; qjob++)
                    for (unsigned root = 0; root < _ROOT_MAX; root++)
                        for (unsigned result = 0; result < RESULT_COMMITTED; result++) {
                            StepFacts f = {
                                .state = state,
                                .intent = intent,
                                .link = link,
                                .qjob = qjob,
                                .root = root,
                                .result = result,
                            };
                            visit(&f, userdata);
                        }
}

static G_NORETURN void fail_at(const StepFacts *f, const Step *s, const char *what) {
    g_autofree char *text = facts_to_text(f);

    g_error("%s: %s → %s %s (%s)", what, text, step_action_to_string(s->action),
            job_result_to_string(s->result), s->why);
}

static void visit_expected(StepFacts *f, void *userdata) {
    uint64_t *hits = userdata;

    for (unsigned bits = 0; bits < 1u << N_BITS; bits = next_bits(bits)) {
        if (!facts_set_bits(f, bits))
            continue;
        if (!can_be(f))
            continue;
        Rule rule = rule_of(f);
        Step s = job_step(f);
        hits[rule]++;
        if (s.action != rules[rule].action || s.result != rules[rule].result)
            fail_at(f, &s, rules[rule].name);
    }
}

static void every_combination_that_can_be_does_what_was_promised(void) {
    uint64_t hits[_RULE_MAX] = {0};

    for_all_sets(visit_expected, hits);
    for (unsigned i = 0; i < _RULE_MAX; i++)
        if (hits[i] == 0)
            g_error("The rule %s is never used.", rules[i].name);
}

/* Which rows were met: the words of all rows lie in one constant table. */
typedef struct {
    uintptr_t low;
    size_t size;
    bool *met; /* by address */
} Rows;

static void visit_all(StepFacts *f, void *userdata) {
    Rows *rows = userdata;

    for (unsigned bits = 0; bits < 1u << N_BITS; bits = next_bits(bits)) {
        if (!facts_set_bits(f, bits))
            continue;
        Step s = job_step(f);
        const char *broken = what_is_broken(f, &s);
        if (broken)
            fail_at(f, &s, broken);
        uintptr_t at = (uintptr_t) s.why - rows->low;
        if (at >= rows->size)
            fail_at(f, &s, "no row");
        rows->met[at] = true;
    }
}

static void no_combination_does_harm_and_every_row_is_met(void) {
    g_autoptr(GHashTable) words = g_hash_table_new(g_str_hash, g_str_equal);
    Rows rows = {.low = UINTPTR_MAX};
    uintptr_t high = 0;

    for (size_t i = 0; job_step_words(i); i++) {
        uintptr_t at = (uintptr_t) job_step_words(i);
        if (!g_hash_table_add(words, (char *) job_step_words(i)))
            g_error("Two rows have the words \"%s\".", job_step_words(i));
        rows.low = MIN(rows.low, at);
        high = MAX(high, at);
    }
    rows.size = high - rows.low + 1;
    g_assert_cmpuint(rows.size, <, 1 << 24);
    g_autofree bool *met = rows.met = g_new0(bool, rows.size);
    for_all_sets(visit_all, &rows);
    for (size_t i = 0; job_step_words(i); i++)
        if (!met[(uintptr_t) job_step_words(i) - rows.low])
            g_error("The row \"%s\" is never met.", job_step_words(i));
}

/* Without a link, what would be of QEMU does not count: the record alone decides. Of the results one is enough here: that
 * is a question of known or not, and the walk above has all of them. */
static void visit_blind(StepFacts *f, void *userdata) {
    if (f->result > RESULT_PIVOTED)
        return;
    if (f->link == LINK_LIVE || (f->qjob == QJOB_ABSENT && f->root == ROOT_OTHER))
        return;
    for (unsigned bits = 0; bits < 1u << N_BITS; bits = next_bits(bits)) {
        if (!facts_set_bits(f, bits))
            continue;
        StepFacts blind = *f;
        blind.qjob = QJOB_ABSENT;
        blind.root =
            f->link == LINK_GONE ? f->root : ROOT_OTHER; /* of a process that was started since */
        blind.guest_runs = blind.overdue = false;
        Step s = job_step(f), other = job_step(&blind);
        if (s.action != other.action || s.result != other.result)
            fail_at(f, &s, "an old view counts");
    }
}

static void an_old_view_counts_for_nothing(void) {
    for_all_sets(visit_blind, NULL);
}

/* ── the small world ── */

static const ModelRules sound = {true, true, true, true, true, true, true, true};

static void assert_harmless(bool one_phase, bool meddling, size_t at_least) {
    ModelReport r;

    model_explore(&sound, one_phase, meddling, &r);
    g_test_message("%zu worlds, %zu moves, %zu ends", r.worlds, r.moves, r.ends);
    if (r.harm)
        g_error("%s", r.harm);
    g_assert_cmpuint(r.worlds, >, at_least);
    g_assert_cmpuint(r.ends, >, at_least / 1000);
    model_report_clear(&r);
}

static void every_death_at_every_point_ends_well(void) {
    assert_harmless(false, false, 100000);
}

static void every_death_and_somebody_elses_commands_end_well(void) {
    assert_harmless(false, true, 500000);
}

static void every_death_of_a_job_of_one_phase_ends_well(void) {
    assert_harmless(true, false, 1000);
    assert_harmless(true, true, 3000);
}

/* The model sees the harm that each of the service's own rules keeps away. */
static void assert_harm_to(bool one_phase, ModelRules broken, const char *words) {
    ModelReport r;

    model_explore(&broken, one_phase, false, &r);
    g_assert_nonnull(r.harm);
    if (!strstr(r.harm, words))
        g_error("Another harm was seen: %s", r.harm);
    model_report_clear(&r);
}

static void assert_harm(ModelRules broken, const char *words) {
    assert_harm_to(false, broken, words);
}

static void a_result_that_is_not_durable_does_harm(void) {
    ModelRules broken = sound;
    broken.settle_is_durable = false;
    assert_harm_to(true, broken, "dismissed before the end was durable");
    assert_harm(broken, "no image is left");
}

static void a_failure_that_is_not_durable_does_harm(void) {
    ModelRules broken = sound;
    broken.failure_is_durable = false;
    assert_harm(broken, "the target goes before it is recorded why");
}

static void a_decision_that_was_taken_back_and_written_does_harm(void) {
    ModelRules broken = sound;
    broken.withdrawn_is_gone = false;
    assert_harm(broken, "job-cancel after the decision");
}

static void a_refusal_believed_at_once_does_harm(void) {
    ModelRules broken = sound;
    broken.refusal_is_looked_at = false;
    assert_harm(broken, "a combination that cannot be has come about");
}

static void a_forgotten_stop_does_harm(void) {
    ModelRules broken = sound;
    broken.halt_is_kept = false;
    assert_harm(broken, "the guest was left stopped");
    broken = sound;
    broken.stop_is_kept = false;
    assert_harm(broken, "the guest was left stopped");
    broken = sound;
    broken.cont_is_looked_at = false;
    assert_harm(broken, "the guest was left stopped");
}

static void a_stop_remembered_for_too_long_does_harm(void) {
    ModelRules broken = sound;
    broken.halt_is_let_go = false;
    assert_harm(broken, "only somebody else can have stopped");
}

/* ── words ── */

static void words_of_states_go_both_ways(void) {
    for (unsigned i = 0; i < _JOB_STATE_MAX; i++)
        g_assert_cmpuint(job_state_from_string(job_state_to_string(i)), ==, i);
    for (unsigned i = 0; i < _RESULT_MAX; i++)
        g_assert_cmpuint(job_result_from_string(job_result_to_string(i)), ==, i);
    for (unsigned i = 0; i < _INTENT_MAX; i++)
        g_assert_cmpuint(job_intent_from_string(job_intent_to_string(i)), ==, i);
    g_assert_cmpuint(job_state_from_string("stopped"), ==, _JOB_STATE_MAX);
    g_assert_cmpuint(job_result_from_string("good"), ==, _RESULT_MAX);
    g_assert_cmpuint(job_intent_from_string("commit"), ==, _INTENT_MAX);
    g_assert_cmpstr(job_state_to_string(_JOB_STATE_MAX), ==, "");
    g_assert_cmpstr(step_action_to_string(STEP_FINALIZE), ==, "FINALIZE");
    g_assert_cmpstr(step_action_to_string(_STEP_MAX), ==, "");
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
#define TEST(name) g_test_add_func("/step/" #name, name)
    TEST(every_combination_that_can_be_does_what_was_promised);
    TEST(no_combination_does_harm_and_every_row_is_met);
    TEST(an_old_view_counts_for_nothing);
    TEST(every_death_at_every_point_ends_well);
    TEST(every_death_and_somebody_elses_commands_end_well);
    TEST(every_death_of_a_job_of_one_phase_ends_well);
    TEST(a_result_that_is_not_durable_does_harm);
    TEST(a_failure_that_is_not_durable_does_harm);
    TEST(a_decision_that_was_taken_back_and_written_does_harm);
    TEST(a_refusal_believed_at_once_does_harm);
    TEST(a_forgotten_stop_does_harm);
    TEST(a_stop_remembered_for_too_long_does_harm);
    TEST(words_of_states_go_both_ways);
#undef TEST
    return g_test_run();
}
