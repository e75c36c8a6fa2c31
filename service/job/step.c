/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The specification of what a job does next: one table, first matching row wins. */

#include "job/step.h"

#include "util.h"

static const char *const state_names[_JOB_STATE_MAX] = {
#define X(id, name) [JOB_##id] = name,
    JOB_STATE_LIST(X)
#undef X
};
static const char *const result_names[_RESULT_MAX] = {
#define X(id, name) [RESULT_##id] = name,
    JOB_RESULT_LIST(X)
#undef X
};
static const char *const intent_names[_INTENT_MAX] = {"", "pivot", "finish", "cancel"};
static const char *const action_names[_STEP_MAX] = {
#define X(id) [STEP_##id] = #id,
    STEP_LIST(X)
#undef X
};

const char *job_state_to_string(JobState s) {
    return s < _JOB_STATE_MAX ? state_names[s] : "";
}

JobState job_state_from_string(const char *s) {
    int i = string_index(state_names, _JOB_STATE_MAX, s);
    return i < 0 ? _JOB_STATE_MAX : (JobState) i;
}

const char *job_result_to_string(JobResult r) {
    return r < _RESULT_MAX ? result_names[r] : "";
}

JobResult job_result_from_string(const char *s) {
    int i = string_index(result_names, _RESULT_MAX, s);
    return i < 0 ? _RESULT_MAX : (JobResult) i;
}

const char *job_intent_to_string(JobIntent i) {
    return i < _INTENT_MAX ? intent_names[i] : "";
}

JobIntent job_intent_from_string(const char *s) {
    int i = string_index(intent_names, _INTENT_MAX, s);
    return i < 0 ? _INTENT_MAX : (JobIntent) i;
}

const char *step_action_to_string(StepAction a) {
    return a < _STEP_MAX ? action_names[a] : "";
}

/* Sets of enumerators; 0 in a row means "any". */
#define S(id) (1u << JOB_##id)
#define I(id) (1u << INTENT_##id)
#define L(id) (1u << LINK_##id)
#define Q(id) (1u << QJOB_##id)
#define R(id) (1u << ROOT_##id)
#define Q_THERE (Q(RUNNING) | Q(READY) | Q(PENDING))
#define Q_OVER (Q(ABSENT) | Q(CONCLUDED) | Q(FAILED))
#define S_PIVOT (S(PIVOTING) | S(PENDING)) /* pending: of a member, decided */
#define S_FINISH (S(FINISHING) | S(PENDING))
#define S_ENDING (S_PIVOT | S_FINISH)

/* Yes-or-no facts, as bits of `yes` and `no`. */
enum {
    DECIDED = 1 << 0,
    SETTLED = 1 << 1, /* a result is known */
    CLEAN = 1 << 2,
    HALTED = 1 << 3,
    FOREIGN = 1 << 4,
    RUNS = 1 << 5,
    ON_READY = 1 << 6,
    MUST_STOP = 1 << 7,
    MAY_STOP = 1 << 8,
    ASKED = 1 << 9,
    OVERDUE = 1 << 10,
    ABORTING = 1 << 11,
    MUST_PREPARE = 1 << 12,
    MEMBER = 1 << 13,
    WAITS = 1 << 14,
    ONE_PHASE = 1 << 15,
    LEFTOVER = 1 << 16,
};

typedef struct {
    unsigned states, intents, links, qjobs, roots, yes, no;
    StepAction action;
    JobResult result;
    const char *why;
} StepRow;

/* clang-format off */
static const StepRow table[] = {
/*  states, intents, links, qjobs, roots, yes, no → action, result, why; 0 = any */

/* ── the end is recorded ── */
    {S(CONCLUDED), 0, L(LIVE), Q(CONCLUDED) | Q(FAILED), 0, 0, FOREIGN,  STEP_DISMISS, 0, "recorded, so QEMU may forget it"},
    {S(CONCLUDED), 0, L(LIVE), Q(PENDING), 0, DECIDED, FOREIGN,  STEP_FINALIZE, 0, "recorded by its decision, but QEMU still holds it: only forward"},
    {S(CONCLUDED), 0, L(LIVE), Q_THERE, 0, 0, FOREIGN | ABORTING | DECIDED,  STEP_ABORT, 0, "recorded as over, but QEMU still runs it"},
    {S(CONCLUDED), 0, L(LIVE), Q_THERE | Q(ENDING), 0, 0, FOREIGN,  STEP_WAIT, 0, "it is ending"},
    {S(CONCLUDED), 0, L(LIVE) | L(GONE), 0, 0, 0, 0,  STEP_RELEASE, 0, "nothing of it is left in QEMU"},
    {S(CONCLUDED), 0, 0, 0, 0, 0, 0,  STEP_WAIT, 0, "dismissed when QEMU answers again"},

/* ── a guest that we stopped goes on as soon as no switch is under way, whatever else is to be done ── */
    {0, 0, L(LIVE), Q_OVER, 0, HALTED, RUNS | FOREIGN,  STEP_CONTINUE_GUEST, 0, "the switch is over, the guest goes on"},
    {S(RUNNING) | S(READY) | S(CANCELLING), 0, L(LIVE), Q(RUNNING) | Q(READY), 0, HALTED, RUNS | FOREIGN,  STEP_CONTINUE_GUEST, 0, "no switch is under way, the guest goes on"},

/* ── the result is known ── */
    {0, 0, L(LIVE), Q(PENDING), 0, SETTLED | DECIDED, FOREIGN,  STEP_FINALIZE, 0, "known by its decision, but QEMU still holds it: only forward"},
    {0, 0, L(LIVE), Q_THERE, 0, SETTLED, FOREIGN | ABORTING | DECIDED,  STEP_ABORT, 0, "the result is known, the job must not go on"},
    {0, 0, L(LIVE), Q_THERE | Q(ENDING), 0, SETTLED, FOREIGN,  STEP_WAIT, 0, "the result is known, QEMU ends it"},
    {0, 0, L(LIVE) | L(GONE), 0, 0, SETTLED | WAITS, 0,  STEP_WAIT, 0, "the result is known, others of the group are not as far"},
    {0, 0, L(LIVE) | L(GONE), 0, 0, SETTLED | CLEAN, 0,  STEP_CONCLUDE, 0, "finishing work is done"},
    {0, 0, L(LIVE) | L(GONE), 0, 0, SETTLED, 0,  STEP_CLEAN, 0, "finishing work"},
    {0, 0, 0, 0, 0, SETTLED, 0,  STEP_WAIT, 0, "finishing work waits for QEMU"},

/* ── QEMU is gone: the record decides, or the header that a job of one phase rewrites ── */
    {0, 0, L(GONE), 0, R(TARGET), ONE_PHASE, 0,  STEP_SETTLE, RESULT_PIVOTED, "the image's header says that it was done before QEMU went"},
    {0, I(NONE) | I(PIVOT) | I(FINISH), L(GONE), 0, 0, ONE_PHASE, 0,  STEP_SETTLE, RESULT_LOST, "no header says that it was done before QEMU went: the chain is right as it was"},
    {0, I(PIVOT), L(GONE), 0, R(SOURCE), DECIDED, 0,  STEP_SETTLE, RESULT_LOST, "it was decided before QEMU went, but QEMU was started on the source again: the source is right"},
    {0, I(PIVOT), L(GONE), 0, 0, DECIDED, 0,  STEP_SETTLE, RESULT_PIVOTED, "it was decided before QEMU went: the target is right"},
    {0, I(FINISH), L(GONE), 0, 0, DECIDED, 0,  STEP_SETTLE, RESULT_FINISHED, "it was decided before QEMU went: the copy is whole"},
    {0, I(CANCEL), L(GONE), 0, 0, 0, 0,  STEP_SETTLE, RESULT_CANCELLED, "it was to be cancelled"},
    {0, 0, L(GONE), 0, 0, 0, 0,  STEP_SETTLE, RESULT_LOST, "QEMU is gone and nothing was decided: the source is right"},

/* ── nothing can be said ── */
    {0, 0, L(UNKNOWN), 0, 0, 0, 0,  STEP_WAIT, 0, "QEMU has not answered"},

/* ── somebody else's job: watch ── */
    {0, 0, 0, Q(ABSENT) | Q(CONCLUDED), 0, FOREIGN, 0,  STEP_SETTLE, RESULT_FINISHED, "somebody else's job is over"},
    {0, 0, 0, Q(FAILED), 0, FOREIGN, 0,  STEP_SETTLE, RESULT_FAILED, "somebody else's job has failed"},
    {S(RUNNING), 0, 0, Q(READY), 0, FOREIGN, 0,  STEP_RECORD_READY, 0, "somebody else's job is in sync"},
    {0, 0, 0, 0, 0, FOREIGN, 0,  STEP_WAIT, 0, "somebody else's job"},

/* ── a member: the common point is its group's business ── */
    {S_ENDING, 0, 0, Q_THERE | Q(ENDING), 0, MEMBER, 0,  STEP_WAIT, 0, "its group brings it to its end"},

/* ── decided: only forward ── */
    {S_ENDING, 0, 0, Q(PENDING), 0, DECIDED, 0,  STEP_FINALIZE, 0, "decided and pending"},
    {S_ENDING, 0, 0, Q(ENDING), 0, DECIDED, 0,  STEP_WAIT, 0, "decided, QEMU is at it"},
    {S_PIVOT, I(PIVOT), 0, Q_OVER, R(TARGET) | R(OTHER), DECIDED, 0,  STEP_SETTLE, RESULT_PIVOTED, "decided, and the guest stands on the target or its disk is unplugged"},
    {S_PIVOT, I(PIVOT), 0, Q_OVER, R(SOURCE), DECIDED | MEMBER, 0,  STEP_AGAIN, 0, "decided for the group, but this disk stands on its source: mirrored again"},
    {S_PIVOT, I(PIVOT), 0, Q_OVER, R(SOURCE), DECIDED, 0,  STEP_SETTLE, RESULT_FAILED, "decided, but the guest stands on the source"},
    {S(FINISHING), I(FINISH), 0, Q_OVER, R(TARGET), DECIDED | ONE_PHASE, 0,  STEP_SETTLE, RESULT_PIVOTED, "decided, and the chain is shorter"},
    {S(FINISHING), I(FINISH), 0, Q(CONCLUDED), R(OTHER), DECIDED | ONE_PHASE, 0,  STEP_SETTLE, RESULT_PIVOTED, "decided and over without an error, its disk is unplugged"},
    {S(FINISHING), I(FINISH), 0, Q_OVER, 0, DECIDED | ONE_PHASE, 0,  STEP_SETTLE, RESULT_FAILED, "decided, but the chain is as it was"},
    {S_FINISH, I(FINISH), 0, Q_OVER, R(TARGET), DECIDED, 0,  STEP_SETTLE, RESULT_PIVOTED, "to be finished, but the guest stands on the target"},
    {S_FINISH, I(FINISH), 0, Q(FAILED), 0, DECIDED, 0,  STEP_SETTLE, RESULT_FAILED, "QEMU could not finish it"},
    {S_FINISH, I(FINISH), 0, Q(CONCLUDED) | Q(ABSENT), 0, DECIDED, 0,  STEP_SETTLE, RESULT_FINISHED, "decided and over"},
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(READY), 0, DECIDED, ASKED | ONE_PHASE,  STEP_COMPLETE, 0, "decided, but the job in QEMU is not pending: only forward"},
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(RUNNING) | Q(READY), 0, DECIDED, 0,  STEP_WAIT, 0, "decided, completing"},
    {0, 0, 0, 0, 0, DECIDED, 0,  STEP_REFUSE, 0, "decided in a state that cannot be"},

/* ── to be cancelled ── */
    {S(CANCELLING), I(CANCEL), 0, Q_OVER, R(TARGET), 0, 0,  STEP_SETTLE, RESULT_PIVOTED, "to be cancelled, but the guest stands on the target"},
    {S(CANCELLING), I(CANCEL), 0, Q_OVER, 0, 0, 0,  STEP_SETTLE, RESULT_CANCELLED, "cancelled"},
    {S(CANCELLING), I(CANCEL), 0, Q_THERE, 0, 0, ABORTING,  STEP_ABORT, 0, "to be cancelled"},
    {S(CANCELLING), I(CANCEL), 0, 0, 0, 0, 0,  STEP_WAIT, 0, "being cancelled"},

/* ── being made ── */
    {S(QUEUED) | S(PREPARING), I(NONE), 0, Q(ABSENT), R(SOURCE), 0, 0,  STEP_SETUP, 0, "not in QEMU yet"},
    {S(QUEUED) | S(PREPARING), I(NONE), 0, Q(ABSENT), R(OTHER), 0, 0,  STEP_SETTLE, RESULT_FAILED, "the disk is not on its source any more"},
    {S(PREPARING), I(NONE), 0, Q_THERE, 0, 0, 0,  STEP_RECORD_RUNNING, 0, "the job is in QEMU"},

    {S(PREPARING), I(NONE), 0, Q(CONCLUDED) | Q(FAILED), R(SOURCE), LEFTOVER, 0,  STEP_DISMISS, 0, "what the failed switch has left in QEMU, which is recorded"},

/* ── over without an order ── */
    {S(PREPARING) | S(RUNNING) | S(READY) | S_ENDING, 0, 0, Q_OVER, R(TARGET), 0, 0,  STEP_SETTLE, RESULT_PIVOTED, "the guest stands on the target, though it was not decided here"},
    {S(PREPARING) | S(RUNNING) | S(READY) | S_ENDING, 0, 0, Q_OVER, 0, 0, 0,  STEP_SETTLE, RESULT_FAILED, "over in QEMU before its end was decided"},

/* ── running, ready ── */
    {S(RUNNING), I(NONE), 0, Q(PENDING), 0, ONE_PHASE | MUST_PREPARE, ABORTING,  STEP_PREPARE, 0, "the new definition is written beside the old one before the chain is changed"},
    {S(RUNNING), I(NONE), 0, Q(PENDING), 0, ONE_PHASE, ABORTING,  STEP_DECIDE, 0, "everything is in its place, and nobody is held"},
    {S(RUNNING), I(NONE), 0, Q(READY), 0, ONE_PHASE, ABORTING,  STEP_ABORT, 0, "it waits for an end that it cannot have: somebody else writes to its images"},
    {S(RUNNING) | S(READY), I(NONE), 0, Q(PENDING), 0, 0, ABORTING | ONE_PHASE,  STEP_ABORT, 0, "completed by somebody else: which end is meant is not known, the source has everything"},
    {S(RUNNING), I(NONE), 0, Q(READY), 0, 0, ONE_PHASE,  STEP_RECORD_READY, 0, "in sync"},
    {S(READY), I(NONE), 0, Q(READY), 0, ON_READY, 0,  STEP_ORDER, 0, "the promised end"},
    {S(PREPARING) | S(RUNNING) | S(READY), I(NONE), 0, 0, 0, 0, 0,  STEP_WAIT, 0, "copying"},

/* ── pivot or finish, not decided yet ── */
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(PENDING), 0, OVERDUE, ABORTING,  STEP_ABORT, 0, "held for too long without a decision"},
    {S(PIVOTING), I(PIVOT), 0, Q(PENDING), 0, MUST_PREPARE, ABORTING,  STEP_PREPARE, 0, "the new definition must be there before the decision"},
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(PENDING), 0, 0, ABORTING,  STEP_DECIDE, 0, "both images are the same now"},
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(ENDING) | Q(PENDING), 0, 0, 0,  STEP_WAIT, 0, "on its way"},
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(RUNNING) | Q(READY), 0, HALTED | OVERDUE, RUNS,  STEP_CONTINUE_GUEST, 0, "the guest has stood for long enough"},
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(RUNNING) | Q(READY), 0, ASKED, 0,  STEP_WAIT, 0, "completing"},
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(RUNNING), 0, 0, 0,  STEP_WAIT, 0, "not in sync at the moment"},
    {S(PIVOTING), I(PIVOT), 0, Q(READY), 0, MUST_PREPARE, 0,  STEP_PREPARE, 0, "the new definition is written beside the old one before the guest is held"},
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(READY), 0, MUST_STOP | RUNS | MAY_STOP, HALTED,  STEP_RECORD_HALT, 0, "the guest will stand while its disk is switched"},
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(READY), 0, MUST_STOP | RUNS, MAY_STOP,  STEP_WAIT, 0, "waits until the pause is short enough"},
    {S_ENDING, I(PIVOT) | I(FINISH), 0, Q(READY), 0, 0, 0,  STEP_COMPLETE, 0, "the end can be asked for"},

    {0, 0, 0, 0, 0, 0, 0,  STEP_REFUSE, 0, "a combination that cannot be"},
};
/* clang-format on */

static unsigned fact_bits(const StepFacts *f) {
    return (f->decided ? DECIDED : 0) | (f->result != RESULT_NONE ? SETTLED : 0) |
           (f->clean ? CLEAN : 0) | (f->halted ? HALTED : 0) | (f->foreign ? FOREIGN : 0) |
           (f->guest_runs ? RUNS : 0) | (f->on_ready ? ON_READY : 0) |
           (f->must_stop ? MUST_STOP : 0) | (f->may_stop ? MAY_STOP : 0) | (f->asked ? ASKED : 0) |
           (f->overdue ? OVERDUE : 0) | (f->aborting ? ABORTING : 0) |
           (f->must_prepare ? MUST_PREPARE : 0) | (f->member ? MEMBER : 0) |
           (f->waits ? WAITS : 0) | (f->one_phase ? ONE_PHASE : 0) | (f->leftover ? LEFTOVER : 0);
}

static bool in_set(unsigned set, unsigned value) {
    return set == 0 || (set & (1u << value));
}

const char *job_step_words(size_t row) {
    return row < G_N_ELEMENTS(table) ? table[row].why : NULL;
}

Step job_step(const StepFacts *f) {
    unsigned bits = fact_bits(f);

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        const StepRow *row = &table[i];
        if (in_set(row->states, f->state) && in_set(row->intents, f->intent) &&
            in_set(row->links, f->link) && in_set(row->qjobs, f->qjob) &&
            in_set(row->roots, f->root) && (bits & row->yes) == row->yes && (bits & row->no) == 0)
            return (Step){row->action, row->result, row->why};
    }
    return (Step){STEP_REFUSE, RESULT_NONE, "no row"};
}

/* ── groups ── */

/* What counts of a member: it is only as far as is recorded, and over only when its result is known. */
static QemuJobPhase member_phase(const StepMember *m) {
    if (m->result != RESULT_NONE)
        return QJOB_CONCLUDED;
    if (m->alone)
        return QJOB_ENDING;
    if (m->state == JOB_QUEUED || m->state == JOB_PREPARING)
        return QJOB_ABSENT;
    if (m->qjob == QJOB_ABSENT || m->qjob == QJOB_CONCLUDED || m->qjob == QJOB_FAILED)
        return QJOB_ENDING;
    return m->state == JOB_RUNNING && m->qjob == QJOB_READY ? QJOB_RUNNING : m->qjob;
}

typedef struct {
    unsigned phases; /* set of member_phase() */
    bool all_settled, all_pivoted, all_clean, any_failed, any_on_source;
} Gathering;

static Gathering gather(const StepMember *members, size_t n) {
    Gathering g = {.all_settled = true, .all_pivoted = true, .all_clean = true};

    for (size_t i = 0; i < n; i++) {
        const StepMember *m = &members[i];
        g.phases |= 1u << member_phase(m);
        g.all_settled &= m->result != RESULT_NONE;
        g.all_pivoted &= m->result == RESULT_PIVOTED;
        g.all_clean &= m->clean || m->state == JOB_CONCLUDED; /* by an earlier life */
        g.any_failed |= m->result == RESULT_FAILED || m->result == RESULT_LOST;
        g.any_on_source |= m->root == ROOT_SOURCE || (m->alone && m->result != RESULT_PIVOTED);
    }
    return g;
}

/* Before the end all must have come as far: the last one counts. */
static QemuJobPhase phase_of_last(const Gathering *g) {
    if (g->phases & (Q(ABSENT) | Q(ENDING) | Q(CONCLUDED)))
        return QJOB_ENDING;
    return g->phases & Q(RUNNING) ? QJOB_RUNNING : g->phases & Q(READY) ? QJOB_READY : QJOB_PENDING;
}

/* On the way forward, and on the way back: what holds the guest's writes comes first. */
static QemuJobPhase phase_of_first(const Gathering *g) {
    return g->phases & Q(PENDING)   ? QJOB_PENDING
           : g->phases & Q(READY)   ? QJOB_READY
           : g->phases & Q(RUNNING) ? QJOB_RUNNING
                                    : QJOB_ENDING;
}

void job_step_gather(StepFacts *f, const StepMember *members, size_t n) {
    Gathering g = gather(members, n);
    bool to_be_ended = f->intent == INTENT_PIVOT || f->intent == INTENT_FINISH;
    bool together = f->result == RESULT_NONE && !f->decided &&
                    (to_be_ended ? !f->overdue : f->intent == INTENT_NONE);

    f->waits = f->clean ? !g.all_clean : !g.all_settled;
    if (f->link == LINK_GONE)
        f->root = g.any_on_source ? ROOT_SOURCE : ROOT_OTHER;
    else
        f->root = g.all_settled && g.all_pivoted ? ROOT_TARGET : ROOT_SOURCE;
    if (f->link != LINK_LIVE || f->state == JOB_CONCLUDED)
        f->qjob = QJOB_ABSENT;
    else if (g.all_settled)
        f->qjob = g.any_failed ? QJOB_FAILED : QJOB_CONCLUDED;
    else if (together && !(f->intent == INTENT_NONE && g.phases & Q(PENDING)))
        f->qjob = phase_of_last(&g);
    else
        f->qjob = phase_of_first(&g);
}
