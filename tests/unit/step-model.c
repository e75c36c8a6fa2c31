/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Explores the small world breadth first: every world that can be reached is checked, and from each every way on that
 * has no further trouble in it must end in the release of the job. */

#include "step-model.h"

#include <assert.h>
#include <string.h>

#include "job/step.h"

/* Commands under way to QEMU, or work under way in the journal's thread. */
typedef enum {
    FLIGHT_NONE,
    FLIGHT_SETUP,
    FLIGHT_PIVOT,
    FLIGHT_FINISH,
    FLIGHT_FINALIZE,
    FLIGHT_CONTINUE,
    FLIGHT_ABORT,
    FLIGHT_DISMISS,
    FLIGHT_NODES,
    FLIGHT_PREPARE,
    FLIGHT_FILES,
} Flight;

typedef enum {
    DO_CLEAR,
    DO_ADD,
    DO_MIRROR,
    DO_STOP,
    DO_PIVOT,
    DO_FINISH,
    DO_FINALIZE,
    DO_CONT,
    DO_CANCEL,
    DO_DISMISS,
    DO_DELETE_NODES,
    DO_PREPARE,
    DO_FILES,
    DO_END,
} Command;

typedef enum { GUEST_RUNS, STOPPED_BY_US, STOPPED_BY_OTHERS } Guest;

typedef struct {
    uint64_t state : 4, intent : 2, decided : 1, halted : 1, result : 3, on_ready : 2;
} Record;

typedef union {
    struct {
        /* the service */
        uint64_t state : 4, intent : 2, decided : 1, halted : 1, result : 3, on_ready : 2;
        uint64_t d_state : 4, d_intent : 2, d_decided : 1, d_halted : 1, d_result : 3,
            d_on_ready : 2; /* the same, durable */
        uint64_t committing : 1, up : 1, released : 1;
        uint64_t clean : 1, asked : 1, aborting : 1, prepared : 1, stopped : 1, refused : 1;
        uint64_t connected : 1, fresh : 1, view_phase : 3, view_root : 1, view_runs : 1;
        uint64_t flight : 4, step : 2, error : 1, owned : 1, with_guest : 1;
        /* how it was ordered */
        uint64_t must_stop : 1, definition : 1, wanted : 2;
        uint64_t : 0;
        /* QEMU */
        uint64_t alive : 1, phase : 3, completing : 2, root : 1, guest : 2, node : 1, old_node : 1;
        /* the disks of the host; current: has all writes; whole: one instant of the disk */
        uint64_t source_current : 1, target_current : 1, target_whole : 1, source_file : 1,
            target_file : 1, new_definition : 1, prepared_file : 1;
        /* for the checks */
        uint64_t meddling : 1, trouble : 1, finalize_failed : 1, meddled : 1, unknowable : 1;
    };
    uint64_t words[2];
} World;
static_assert(sizeof(World) == 16, "a world fits into two words");

typedef struct {
    World world;
    uint32_t parent;
    const char *move;
} Place;

typedef struct {
    const ModelRules *rules;
    GArray *places; /* Place */
    GArray *edges;  /* uint32_t pairs: moves that need no trouble */
    uint32_t *slots;
    size_t n_slots, moves, ends;
    uint32_t here;
    const char *harm;
    const char *harm_move;
    World harm_world;
} Explorer;

static uint64_t mix(const World *w) {
    uint64_t h = w->words[0] * UINT64_C(0x9e3779b97f4a7c15) ^ (w->words[1] + (w->words[0] >> 29));

    h *= UINT64_C(0xbf58476d1ce4e5b9);
    return h ^ (h >> 31);
}

static void slots_grow(Explorer *e) {
    size_t n = e->n_slots ? e->n_slots * 2 : 1 << 16;

    g_free(e->slots);
    e->slots = g_new(uint32_t, n);
    memset(e->slots, 0xff, n * sizeof(uint32_t));
    e->n_slots = n;
    for (uint32_t i = 0; i < e->places->len; i++) {
        size_t at = mix(&g_array_index(e->places, Place, i).world) & (n - 1);
        while (e->slots[at] != UINT32_MAX)
            at = (at + 1) & (n - 1);
        e->slots[at] = i;
    }
}

static uint32_t place_of(Explorer *e, const World *w, const char *move) {
    if (e->places->len * 2 >= e->n_slots)
        slots_grow(e);
    size_t at = mix(w) & (e->n_slots - 1);
    for (; e->slots[at] != UINT32_MAX; at = (at + 1) & (e->n_slots - 1))
        if (memcmp(&g_array_index(e->places, Place, e->slots[at]).world, w, sizeof(*w)) == 0)
            return e->slots[at];
    Place p = {*w, e->here, move};
    e->slots[at] = e->places->len;
    g_array_append_val(e->places, p);
    return e->places->len - 1;
}

static void harm(Explorer *e, const char *what, const char *move, const World *w) {
    if (e->harm)
        return;
    e->harm = what;
    e->harm_move = move;
    e->harm_world = *w;
}

/* ── what the guest's writes do to the images ── */

static bool phase_is_there(unsigned phase) {
    return phase == QJOB_RUNNING || phase == QJOB_READY || phase == QJOB_PENDING;
}

static bool phase_is_over(unsigned phase) {
    return phase == QJOB_ABSENT || phase == QJOB_CONCLUDED || phase == QJOB_FAILED;
}

/* The guest writes whenever it can. */
static void guest_writes(World *w) {
    if (!w->alive || w->guest != GUEST_RUNS || w->phase == QJOB_PENDING)
        return;
    if (w->root == ROOT_TARGET)
        w->source_current = 0;
    else
        w->target_current = 0;
}

static const char *world_check(const World *w) {
    bool on_target = w->root == ROOT_TARGET;

    if (w->alive && !(on_target ? w->target_file : w->source_file))
        return "the image under the device was deleted";
    if (w->alive && !(on_target ? w->target_current : w->source_current))
        return "the image under the device lacks writes";
    if (!w->source_file && !w->target_file)
        return "no image is left";
    if (!w->unknowable && !(w->source_current && w->source_file) &&
        !(w->target_current && w->target_file))
        return "no image with all writes is left";
    return NULL;
}

static const char *end_check(const World *w) {
    bool pivoted = w->d_result == RESULT_PIVOTED;

    if (w->d_state != JOB_CONCLUDED || w->d_result == RESULT_NONE)
        return "released before the end was durable";
    if (w->alive && w->phase != QJOB_ABSENT)
        return "released, but QEMU still has the job";
    if (w->alive && w->guest == STOPPED_BY_US)
        return "the guest was left stopped";
    if (w->alive && pivoted != (w->root == ROOT_TARGET))
        return "the result does not say where the guest stands";
    if (w->definition && pivoted != w->new_definition)
        return "the definition does not fit to the result";
    if (!(pivoted ? w->target_file : w->source_file))
        return "the image that the record calls right was deleted";
    if (w->unknowable)
        return NULL;
    if (pivoted ? !w->target_current || !w->target_file : !w->source_current || !w->source_file)
        return "the image that the record calls right lacks writes";
    if (w->d_result == RESULT_FINISHED && (!w->target_whole || !w->target_file))
        return "the finished copy is not whole";
    if (w->meddled || w->finalize_failed)
        return NULL;
    if (w->d_intent == INTENT_CANCEL)
        return w->d_result == RESULT_CANCELLED || (w->trouble && w->d_result == RESULT_FAILED)
                   ? NULL
                   : "it was to be cancelled";
    if (w->d_decided || (!w->trouble && w->alive)) {
        JobResult promised = w->d_intent == INTENT_PIVOT ? RESULT_PIVOTED : RESULT_FINISHED;
        return w->d_result == promised ? NULL : "the promised end was not brought about";
    }
    if (!w->alive && !w->trouble && w->d_result != RESULT_LOST)
        return "QEMU died undecided, and it is not called lost";
    return w->d_result == RESULT_LOST || w->d_result == RESULT_FAILED ? NULL : "an odd result";
}

static void go(Explorer *e, World *w, const char *move, bool smooth) {
    const char *what;

    e->moves++;
    guest_writes(w);
    what = world_check(w);
    if (!what && w->released)
        what = end_check(w);
    if (what)
        harm(e, what, move, w);
    uint32_t from = e->here, to = place_of(e, w, move);
    if (smooth && to != from) {
        g_array_append_val(e->edges, from);
        g_array_append_val(e->edges, to);
    }
}

/* ── what the service does, as in job.c and act.c ── */

static void commit(World *w) {
    w->committing = 1;
}

static void commit_lands(const Explorer *e, World *w) {
    w->committing = 0;
    w->d_state = w->state;
    w->d_intent = w->intent;
    w->d_decided = w->decided;
    w->d_halted = w->halted;
    w->d_on_ready = w->on_ready;
    w->d_result =
        e->rules->settle_is_durable || w->state == JOB_CONCLUDED ? w->result : RESULT_NONE;
}

static bool is_ending(const World *w) {
    return w->state == JOB_PIVOTING || w->state == JOB_FINISHING;
}

static void back_out(const Explorer *e, World *w) {
    if (is_ending(w)) /* else the transition table refuses */
        w->state = JOB_READY;
    w->intent = INTENT_NONE;
    w->on_ready = 0;
    w->asked = w->prepared = 0;
    commit(w);
}

static void order_end(const Explorer *e, World *w, unsigned intent, bool may_stop) {
    w->state = intent == INTENT_PIVOT ? JOB_PIVOTING : JOB_FINISHING;
    w->intent = intent;
    w->stopped = e->rules->halt_is_kept && w->halted && w->stopped;
    w->halted = (e->rules->halt_is_kept && w->halted) || (w->must_stop && w->view_runs && may_stop);
    w->asked = w->prepared = w->refused = 0;
    commit(w);
}

static void order_cancel(World *w) {
    w->state = JOB_CANCELLING;
    w->intent = INTENT_CANCEL;
    w->asked = w->aborting = 0;
    commit(w);
}

static StepLink world_link(const World *w) {
    if (!w->alive)
        return LINK_GONE;
    return w->connected && w->fresh ? LINK_LIVE : LINK_UNKNOWN;
}

static StepFacts world_facts(const World *w, bool may_stop, bool overdue) {
    bool live = world_link(w) == LINK_LIVE;

    return (StepFacts){
        .state = w->state,
        .intent = w->intent,
        .decided = w->decided,
        .result = w->result,
        .clean = w->clean,
        .halted = w->halted,
        .link = world_link(w),
        .qjob = live ? w->view_phase : QJOB_ABSENT,
        .root = live ? w->view_root : ROOT_OTHER,
        .guest_runs = live && w->view_runs,
        .on_ready = w->on_ready != 0,
        .must_stop = w->must_stop,
        .may_stop = may_stop,
        .must_prepare = w->intent == INTENT_PIVOT && !w->prepared && w->definition,
        .asked = w->asked,
        .aborting = w->aborting,
        .overdue = overdue,
    };
}

static void fly(World *w, Flight flight) {
    w->flight = flight;
    w->step = 0;
    w->error = 0;
    w->owned = 1;
    w->with_guest = 0;
}

static void act_complete(World *w) {
    bool stop = w->halted && w->view_runs;

    fly(w, w->intent == INTENT_PIVOT ? FLIGHT_PIVOT : FLIGHT_FINISH);
    w->with_guest = stop;
    if (stop)
        w->stopped = 1;
    w->asked = 1;
}

static void act_abort(World *w) {
    fly(w, FLIGHT_ABORT);
    w->aborting = 1;
}

static void check_cont(Explorer *e, const World *w) {
    if (w->guest == STOPPED_BY_OTHERS && !w->stopped)
        harm(e, "a guest that only somebody else can have stopped is let go on", "cont", w);
}

static void act_finalize(Explorer *e, World *w) {
    fly(w, FLIGHT_FINALIZE);
    w->with_guest = w->halted;
    if (w->halted)
        check_cont(e, w);
}

static void act_continue(Explorer *e, World *w) {
    fly(w, FLIGHT_CONTINUE);
    check_cont(e, w);
}

static void record(World *w, JobState state) {
    w->state = state;
    commit(w);
}

/* Would a restart without QEMU come to another result? */
static bool contradicts_record(const World *w) {
    if (!w->decided)
        return w->result == RESULT_PIVOTED || w->result == RESULT_FINISHED;
    return w->result != (w->intent == INTENT_PIVOT ? RESULT_PIVOTED : RESULT_FINISHED);
}

static void act_settle(const Explorer *e, World *w, JobResult result) {
    w->result = result;
    if (e->rules->settle_is_durable && contradicts_record(w))
        commit(w);
}

/* Does what the step says. */
static void act(Explorer *e, World *w, const Step *s, bool may_stop) {
    switch (s->action) {
    case STEP_SETUP:
        fly(w, FLIGHT_SETUP);
        break;
    case STEP_RECORD_RUNNING:
        record(w, JOB_RUNNING);
        break;
    case STEP_RECORD_READY:
        record(w, JOB_READY);
        break;
    case STEP_ORDER:
        order_end(e, w, w->on_ready, may_stop);
        break;
    case STEP_PREPARE:
        fly(w, FLIGHT_PREPARE);
        break;
    case STEP_RECORD_HALT:
        w->halted = 1;
        commit(w);
        break;
    case STEP_COMPLETE:
        act_complete(w);
        break;
    case STEP_DECIDE:
        w->decided = 1;
        commit(w);
        break;
    case STEP_FINALIZE:
        act_finalize(e, w);
        break;
    case STEP_CONTINUE_GUEST:
        act_continue(e, w);
        break;
    case STEP_ABORT:
        act_abort(w);
        break;
    case STEP_SETTLE:
        act_settle(e, w, s->result);
        break;
    case STEP_CLEAN:
        fly(w, w->connected ? FLIGHT_NODES : FLIGHT_FILES);
        break;
    case STEP_CONCLUDE:
        w->halted = e->rules->halt_is_let_go ? 0 : w->halted;
        record(w, JOB_CONCLUDED);
        break;
    case STEP_DISMISS:
        fly(w, FLIGHT_DISMISS);
        break;
    case STEP_RELEASE:
        w->released = 1;
        break;
    case STEP_REFUSE:
        harm(e, "a combination that cannot be has come about", s->why, w);
        break;
    case STEP_WAIT:
    case _STEP_MAX:
        break;
    }
}

/* What job_advance() does with a fresh look before it asks job_step(). */
static void look_is_used(const Explorer *e, World *w) {
    bool still_there = w->view_phase == QJOB_READY || w->view_phase == QJOB_RUNNING;

    if (world_link(w) != LINK_LIVE)
        return;
    if (w->refused) {
        w->refused = 0;
        if (is_ending(w) && still_there)
            back_out(e, w);
    }
    bool not_yet = is_ending(w) && w->result == RESULT_NONE && still_there && !w->asked;
    if (e->rules->halt_is_let_go && w->halted && (w->view_runs ? !not_yet : !w->stopped))
        w->halted = w->stopped = 0; /* going on, or stopped by somebody else */
}

static void move_step(Explorer *e, const World *from, bool may_stop, bool overdue) {
    World w = *from;

    if (!w.up || w.released || w.committing || (w.flight && w.owned))
        return;
    look_is_used(e, &w);
    if (w.committing) {
        go(e, &w, "back out", true);
        return;
    }
    if (overdue && !(world_link(&w) == LINK_LIVE &&
                     (w.view_phase == QJOB_PENDING || (w.halted && !w.view_runs))))
        return;
    StepFacts facts = world_facts(&w, may_stop, overdue);
    Step s = job_step(&facts);
    if (s.action == STEP_WAIT && memcmp(&w, from, sizeof(w)) == 0)
        return;
    if (overdue)
        w.trouble = 1;
    World before = w;
    act(e, &w, &s, may_stop);
    go(e, &w, s.why, may_stop && !overdue);
    if (s.action == STEP_DECIDE) { /* the target is away */
        w = before;
        w.trouble = 1;
        act_abort(&w);
        go(e, &w, "may not decide", false);
    }
}

/* ── commands on their way ── */

static Command next_command(const World *w) {
    static const Command plans[][4] = {
        [FLIGHT_NONE] = {DO_END},
        [FLIGHT_SETUP] = {DO_CLEAR, DO_ADD, DO_MIRROR, DO_END},
        [FLIGHT_PIVOT] = {DO_STOP, DO_PIVOT, DO_END},
        [FLIGHT_FINISH] = {DO_STOP, DO_FINISH, DO_END},
        [FLIGHT_FINALIZE] = {DO_FINALIZE, DO_CONT, DO_END},
        [FLIGHT_CONTINUE] = {DO_CONT, DO_END},
        [FLIGHT_ABORT] = {DO_CANCEL, DO_END},
        [FLIGHT_DISMISS] = {DO_DISMISS, DO_END},
        [FLIGHT_NODES] = {DO_DELETE_NODES, DO_END},
        [FLIGHT_PREPARE] = {DO_PREPARE, DO_END},
        [FLIGHT_FILES] = {DO_FILES, DO_END},
    };

    return plans[w->flight][w->step];
}

/* stop and cont go along with the others only when the service's processors' business is in it. */
static bool is_left_out(const World *w, Command c) {
    return (c == DO_STOP || c == DO_CONT) && w->flight != FLIGHT_CONTINUE && !w->with_guest;
}

static bool begin_end(World *w, unsigned intent) {
    if (w->phase != QJOB_READY)
        return false;
    if (w->completing != INTENT_PIVOT) /* a completion is not taken back by a soft cancel */
        w->completing = intent;
    return true;
}

static bool finalize(World *w) {
    if (w->phase != QJOB_PENDING)
        return false;
    w->phase = QJOB_CONCLUDED;
    if (w->completing == INTENT_PIVOT)
        w->root = ROOT_TARGET;
    return true;
}

static void files(World *w) {
    bool target_open = w->alive && w->node, source_open = w->alive && w->old_node;

    if (w->result == RESULT_PIVOTED) {
        w->new_definition = w->definition;
        if (!source_open)
            w->source_file = 0;
    } else if (w->result != RESULT_FINISHED && !target_open)
        w->target_file = 0;
    w->prepared_file = 0;
}

/* Executes one command; false if it is refused. */
static bool execute(Explorer *e, World *w, Command c) {
    switch (c) {
    case DO_CLEAR:
        w->node = w->phase == QJOB_ABSENT && w->root == ROOT_SOURCE ? 0 : w->node;
        w->target_file = 1; /* made before the nodes are */
        return true;
    case DO_ADD:
        if (w->node)
            return false;
        w->node = 1;
        return true;
    case DO_MIRROR:
        if (!w->node || w->phase != QJOB_ABSENT)
            return false;
        w->phase = QJOB_RUNNING;
        w->completing = INTENT_NONE;
        w->target_whole = 0;
        return true;
    case DO_STOP:
        if (!w->d_halted)
            harm(e, "stop without a record", "stop", w);
        w->guest = STOPPED_BY_US; /* by both, when somebody else was faster: cannot be told */
        return true;
    case DO_PIVOT:
        return begin_end(w, INTENT_PIVOT);
    case DO_FINISH:
        return begin_end(w, INTENT_FINISH);
    case DO_FINALIZE:
        if (!w->d_decided)
            harm(e, "job-finalize without a durable decision", "job-finalize", w);
        return finalize(w);
    case DO_CONT:
        w->guest = GUEST_RUNS;
        return true;
    case DO_CANCEL:
        if (w->d_decided)
            harm(e, "job-cancel after the decision", "job-cancel", w);
        if (phase_is_there(w->phase))
            w->phase = QJOB_ENDING;
        return true;
    case DO_DISMISS:
        if (w->d_state != JOB_CONCLUDED)
            harm(e, "dismissed before the end was durable", "job-dismiss", w);
        if (phase_is_over(w->phase))
            w->phase = QJOB_ABSENT;
        return true;
    case DO_DELETE_NODES:
        if (!phase_is_over(w->phase))
            return true;
        if (w->result == RESULT_PIVOTED)
            w->old_node = w->root == ROOT_TARGET ? 0 : w->old_node;
        else
            w->node = w->root == ROOT_SOURCE ? 0 : w->node;
        return true;
    case DO_PREPARE:
        w->prepared_file = 1;
        return true;
    case DO_FILES:
        files(w);
        return true;
    case DO_END:
        break;
    }
    return true;
}

static bool matters(Command c, Flight flight) {
    return c != DO_CANCEL && c != DO_DISMISS && c != DO_DELETE_NODES && c != DO_CLEAR &&
           !(c == DO_CONT && flight == FLIGHT_FINALIZE);
}

static void setup_replied(World *w) {
    if (w->error)
        w->result = RESULT_FAILED;
}

static void completed(const Explorer *e, World *w) {
    if (!w->error)
        return;
    w->asked = 0;
    if (e->rules->refusal_is_looked_at)
        w->refused = 1;
    else
        back_out(e, w);
}

static void prepared(const Explorer *e, World *w) {
    if (!w->error)
        w->prepared = 1;
    else if (w->intent == INTENT_PIVOT && !w->decided)
        back_out(e, w);
}

/* The service's callback when everything has been answered. */
static void replied(const Explorer *e, World *w) {
    Flight flight = w->flight;

    w->flight = FLIGHT_NONE;
    w->owned = 0;
    if (flight != FLIGHT_PREPARE && flight != FLIGHT_FILES)
        w->fresh = 0;
    if (flight == FLIGHT_SETUP)
        setup_replied(w);
    else if (flight == FLIGHT_PIVOT || flight == FLIGHT_FINISH)
        completed(e, w);
    else if ((flight == FLIGHT_CONTINUE || flight == FLIGHT_FINALIZE) && !w->error &&
             !e->rules->cont_is_looked_at)
        w->halted = 0;
    else if (flight == FLIGHT_NODES)
        fly(w, FLIGHT_FILES);
    else if (flight == FLIGHT_PREPARE)
        prepared(e, w);
    else if (flight == FLIGHT_FILES)
        w->clean = 1;
    w->step = 0;
    w->error = 0;
    w->with_guest = 0;
}

static void forget_flight(World *w) {
    w->flight = FLIGHT_NONE;
    w->step = w->error = w->owned = w->with_guest = 0;
}

static bool is_file_work(unsigned flight) {
    return flight == FLIGHT_PREPARE || flight == FLIGHT_FILES;
}

/* QEMU says no for a reason of its own, or the work of the disk fails. */
static void move_refusal(Explorer *e, const World *from, Command c) {
    World w = *from;

    w.trouble = 1;
    w.step++;
    if (c == DO_FINALIZE) { /* the command is accepted, the job fails in it */
        if (w.phase != QJOB_PENDING)
            return;
        w.phase = QJOB_FAILED;
        w.finalize_failed = 1;
    } else if (c == DO_MIRROR || c == DO_PIVOT || c == DO_FINISH || c == DO_PREPARE || c == DO_STOP)
        w.error = 1;
    else if (c == DO_CONT)
        w.error |= w.flight == FLIGHT_CONTINUE;
    else
        return;
    go(e, &w, "refused", false);
}

static void move_flight(Explorer *e, const World *from) {
    World w = *from;
    Command c = next_command(&w);

    if (!w.flight || (!w.alive && !is_file_work(w.flight)))
        return;
    while (c != DO_END && is_left_out(&w, c)) {
        w.step++;
        c = next_command(&w);
    }
    World skipped = w;
    if (c == DO_END) {
        if (!w.owned)
            return;
        replied(e, &w);
        go(e, &w, "replied", true);
        return;
    }
    w.step++;
    if (!execute(e, &w, c) && matters(c, w.flight))
        w.error = 1;
    go(e, &w, "executed", true);
    move_refusal(e, &skipped, c);
}

/* ── deaths and connections ── */

static void lose_connection(World *w) {
    w->connected = w->fresh = 0;
    w->view_phase = w->view_root = w->view_runs = 0;
    w->asked = w->aborting = 0;
    w->refused = 0;
    if (w->owned && !is_file_work(w->flight))
        w->owned = 0; /* goes on, or is dropped, in QEMU */
}

static void forget_memory(World *w) {
    lose_connection(w);
    if (is_file_work(w->flight))
        forget_flight(w);
    w->owned = w->committing = w->up = 0;
    w->clean = w->prepared = w->stopped = 0;
    w->state = w->d_state;
    w->intent = w->d_intent;
    w->decided = w->d_decided;
    w->halted = w->d_halted;
    w->result = w->d_result;
    w->on_ready = w->d_on_ready;
}

static void move_deaths(Explorer *e, const World *from) {
    World w = *from;

    if (w.up) {
        forget_memory(&w);
        go(e, &w, "service killed", false);
        if (from->committing) {
            w = *from;
            commit_lands(e, &w);
            forget_memory(&w);
            go(e, &w, "service killed after its commit", false);
        }
    }
    w = *from;
    if (w.up && w.connected) {
        lose_connection(&w);
        go(e, &w, "connection lost", false);
    }
    w = *from;
    if (w.alive) {
        w.alive = 0;
        /* QEMU did what was not asked of it, and died before that could be recorded: no protocol helps against that. */
        w.unknowable = (w.meddled || w.finalize_failed) && w.d_result == RESULT_NONE;
        w.phase = QJOB_ABSENT;
        w.completing = INTENT_NONE;
        w.node = w.old_node = 0;
        lose_connection(&w);
        if (!is_file_work(w.flight))
            forget_flight(&w);
        w.guest = GUEST_RUNS;
        go(e, &w, "QEMU killed", false);
    }
}

static void look(World *w) {
    w->fresh = 1;
    w->view_phase = w->phase;
    w->view_root = w->root;
    w->view_runs = w->guest == GUEST_RUNS;
}

static void move_service(Explorer *e, const World *from) {
    World w = *from;

    if (!w.up) {
        w.up = 1;
        w.stopped = w.halted; /* it may have been sent */
        go(e, &w, "service started", true);
        return;
    }
    if (w.committing) {
        commit_lands(e, &w);
        go(e, &w, "durable", true);
    }
    w = *from;
    if (!w.connected && w.alive) {
        w.connected = 1;
        if (!is_file_work(w.flight))
            forget_flight(&w); /* the new greeting is a barrier */
        look(&w);
        go(e, &w, "connected", true);
    } else if (w.connected && !(w.flight && w.owned && !is_file_work(w.flight))) {
        look(&w);
        if (memcmp(&w, from, sizeof(w)) != 0)
            go(e, &w, "looked", true);
    }
}

/* ── QEMU by itself ── */

static void become_pending(World *w) {
    w->phase = QJOB_PENDING;
    w->target_current = w->target_whole = 1;
}

static void move_qemu(Explorer *e, const World *from) {
    World w = *from;

    if (!w.alive)
        return;
    if (w.phase == QJOB_RUNNING || w.phase == QJOB_ENDING) {
        w.phase = w.phase == QJOB_RUNNING ? QJOB_READY : QJOB_FAILED;
        go(e, &w, from->phase == QJOB_RUNNING ? "in sync" : "ended", true);
    } else if (w.phase == QJOB_READY && w.completing) {
        become_pending(&w);
        go(e, &w, "pending", true);
    }
    w = *from;
    if (w.phase == QJOB_RUNNING || w.phase == QJOB_READY) {
        w.phase = QJOB_FAILED;
        w.trouble = 1;
        go(e, &w, "the job failed", false);
    }
}

/* ── people ── */

static void move_orders(Explorer *e, const World *from) {
    World w = *from;

    if (!w.up || w.released)
        return;
    if (w.state == JOB_READY && w.intent == INTENT_NONE && w.connected && w.result == RESULT_NONE) {
        order_end(e, &w, w.wanted, true);
        go(e, &w, "ordered", w.on_ready == 0);
        w = *from;
        order_end(e, &w, w.wanted, false);
        go(e, &w, "ordered, the pause would be long", false);
    }
    w = *from;
    if (w.state != JOB_CONCLUDED && !w.decided && w.result == RESULT_NONE &&
        w.intent != INTENT_CANCEL) {
        order_cancel(&w);
        go(e, &w, "cancel ordered", false);
    }
}

/* The guest's processors are left alone by others while a switch is under way. */
static void move_processors(Explorer *e, const World *from) {
    World w = *from;

    if (!w.alive || w.guest == STOPPED_BY_US || is_ending(&w) || w.flight == FLIGHT_FINALIZE ||
        w.flight == FLIGHT_CONTINUE || w.flight == FLIGHT_PIVOT || w.flight == FLIGHT_FINISH)
        return;
    w.guest = w.guest == GUEST_RUNS ? STOPPED_BY_OTHERS : GUEST_RUNS;
    go(e, &w, w.guest == GUEST_RUNS ? "somebody's cont" : "somebody's stop", false);
}

static void move_meddling(Explorer *e, const World *from) {
    static const Command commands[] = {DO_PIVOT, DO_FINISH, DO_FINALIZE, DO_CANCEL, DO_DISMISS};
    static const char *const words[] = {"somebody's job-complete", "somebody's soft cancel",
                                        "somebody's job-finalize", "somebody's job-cancel",
                                        "somebody's job-dismiss"};

    if (!from->meddling || !from->alive)
        return;
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        World w = *from;
        if (commands[i] == DO_PIVOT || commands[i] == DO_FINISH)
            begin_end(&w, commands[i] == DO_PIVOT ? INTENT_PIVOT : INTENT_FINISH);
        else if (commands[i] == DO_FINALIZE)
            finalize(&w);
        else if (commands[i] == DO_CANCEL && phase_is_there(w.phase))
            w.phase = QJOB_ENDING;
        else if (commands[i] == DO_DISMISS && phase_is_over(w.phase))
            w.phase = QJOB_ABSENT;
        if (memcmp(&w, from, sizeof(w)) == 0)
            continue;
        w.meddled = w.trouble = 1;
        go(e, &w, words[i], false);
    }
}

/* ── the walk ── */

static void add_beginnings(Explorer *e, bool meddling) {
    for (unsigned i = 0; i < 16; i++) {
        World w = {0};
        unsigned wanted = i & 1 ? INTENT_PIVOT : INTENT_FINISH;
        w.state = w.d_state = JOB_PREPARING;
        w.up = 1;
        w.must_stop = (i & 2) != 0;
        w.definition = (i & 4) != 0;
        w.wanted = wanted;
        w.on_ready = w.d_on_ready = i & 8 ? wanted : 0;
        w.alive = w.old_node = 1;
        w.source_current = w.source_file = 1;
        w.meddling = meddling;
        place_of(e, &w, "begin");
    }
}

/* Every way on without trouble ends, and ends in a release: the moves without trouble make no circle (Kahn), and only
 * released worlds have none. */
static void check_ends(Explorer *e) {
    size_t n = e->places->len, n_edges = e->edges->len / 2, done = 0, head = 0;
    const uint32_t *edges = (const uint32_t *) (const void *) e->edges->data;
    g_autofree uint32_t *first = g_new0(uint32_t, n + 1), *to = g_new(uint32_t, n_edges + 1);
    g_autofree uint32_t *incoming = g_new0(uint32_t, n), *queue = g_new(uint32_t, n);

    for (size_t i = 0; i < n_edges; i++) {
        first[edges[2 * i] + 1]++;
        incoming[edges[2 * i + 1]]++;
    }
    for (size_t i = 0; i < n; i++) {
        const Place *p = &g_array_index(e->places, Place, i);
        if (first[i + 1] == 0 && !p->world.released)
            harm(e, "nothing goes on any more", p->move, &p->world);
        e->ends += p->world.released;
        first[i + 1] += first[i];
    }
    g_autofree uint32_t *fill = g_memdup2(first, (n + 1) * sizeof(uint32_t));
    for (size_t i = 0; i < n_edges; i++)
        to[fill[edges[2 * i]]++] = edges[2 * i + 1];
    for (size_t i = 0; i < n; i++)
        if (incoming[i] == 0)
            queue[done++] = (uint32_t) i;
    for (; head < done; head++)
        for (uint32_t k = first[queue[head]]; k < first[queue[head] + 1]; k++)
            if (--incoming[to[k]] == 0)
                queue[done++] = to[k];
    for (size_t i = 0; i < n && done < n; i++)
        if (incoming[i] > 0) {
            const Place *p = &g_array_index(e->places, Place, i);
            harm(e, "it goes round in a circle", p->move, &p->world);
            return;
        }
}

static void describe(GString *out, const World *w) {
    static const char *const flights[] = {"",         "setup",    "pivot", "finish",
                                          "finalize", "continue", "abort", "dismiss",
                                          "nodes",    "prepare",  "files"};

    g_string_append_printf(
        out,
        "%s/%s%s%s%s%s [durable %s/%s%s%s%s%s]%s%s%s%s%s%s%s%s flight %s:%u%s%s | view %s %s%s%s "
        "| ",
        job_state_to_string(w->state), job_intent_to_string(w->intent),
        w->decided ? " decided" : "", w->halted ? " halted " : " ", job_result_to_string(w->result),
        w->on_ready ? " on-ready" : "", job_state_to_string(w->d_state),
        job_intent_to_string(w->d_intent), w->d_decided ? " decided" : "",
        w->d_halted ? " halted " : " ", job_result_to_string(w->d_result),
        w->d_on_ready ? " on-ready" : "", w->up ? "" : " down", w->committing ? " committing" : "",
        w->clean ? " clean" : "", w->asked ? " asked" : "", w->aborting ? " aborting" : "",
        w->prepared ? " prepared" : "", w->stopped ? " stopped" : "", w->refused ? " refused" : "",
        flights[w->flight], (unsigned) w->step, w->error ? " error" : "", w->owned ? " owned" : "",
        w->connected ? qemu_job_phase_to_string(w->view_phase) : "none",
        w->view_root == ROOT_TARGET ? "target" : "source", w->view_runs ? " runs" : "",
        w->fresh ? " fresh" : "");
    g_string_append_printf(
        out, "QEMU %s %s for %s, on %s, guest %u%s%s | images:%s%s%s%s%s%s%s%s%s%s\n",
        w->alive ? "lives" : "dead", qemu_job_phase_to_string(w->phase),
        job_intent_to_string(w->completing), w->root == ROOT_TARGET ? "target" : "source",
        (unsigned) w->guest, w->node ? " node" : "", w->old_node ? " old-node" : "",
        w->source_file ? " source" : "", w->source_current ? " (current)" : "",
        w->target_file ? " target" : "", w->target_current ? " (current)" : "",
        w->target_whole ? " (whole)" : "", w->new_definition ? " new-definition" : "",
        w->must_stop ? " must-stop" : "", w->definition ? " with-definition" : "",
        w->trouble ? " trouble" : "", w->meddled ? " meddled" : "");
}

static char *explain(Explorer *e) {
    GString *out = g_string_new(NULL);
    GPtrArray *way = g_ptr_array_new();

    for (uint32_t at = place_of(e, &e->harm_world, e->harm_move);;) {
        Place *p = &g_array_index(e->places, Place, at);
        g_ptr_array_add(way, p);
        if (p->parent == UINT32_MAX)
            break;
        at = p->parent;
    }
    for (guint i = way->len; i-- > 0;) {
        const Place *p = way->pdata[i];
        g_string_append_printf(out, "\n# %-60s ", p->move);
        describe(out, &p->world);
    }
    g_string_append_printf(out, "# %s (%s)", e->harm, e->harm_move);
    g_ptr_array_unref(way);
    return g_string_free(out, FALSE);
}

void model_explore(const ModelRules *rules, bool meddling, ModelReport *ret) {
    Explorer e = {
        .rules = rules,
        .places = g_array_new(FALSE, FALSE, sizeof(Place)),
        .edges = g_array_new(FALSE, FALSE, sizeof(uint32_t)),
        .here = UINT32_MAX,
    };

    add_beginnings(&e, meddling);
    for (uint32_t i = 0; i < e.places->len && !e.harm; i++) {
        World w = g_array_index(e.places, Place, i).world;
        e.here = i;
        if (w.released)
            continue;
        move_step(&e, &w, true, false);
        move_step(&e, &w, false, false);
        move_step(&e, &w, true, true);
        move_flight(&e, &w);
        move_service(&e, &w);
        move_deaths(&e, &w);
        move_qemu(&e, &w);
        move_orders(&e, &w);
        move_processors(&e, &w);
        move_meddling(&e, &w);
    }
    if (!e.harm)
        check_ends(&e);
    *ret = (ModelReport){
        .worlds = e.places->len,
        .moves = e.moves,
        .ends = e.ends,
        .harm = e.harm ? explain(&e) : NULL,
    };
    g_free(e.slots);
    g_array_unref(e.places);
    g_array_unref(e.edges);
}

void model_report_clear(ModelReport *r) {
    g_free(r->harm);
    *r = (ModelReport){0};
}
