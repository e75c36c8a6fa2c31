/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The moves: what job.c and act.c do with a step, what QEMU does with commands, deaths, connections, orders, and other people. */

#include "step-world.h"

#include <string.h>

bool phase_is_there(unsigned phase) {
    return phase == QJOB_RUNNING || phase == QJOB_READY || phase == QJOB_PENDING;
}

bool phase_is_over(unsigned phase) {
    return phase == QJOB_ABSENT || phase == QJOB_CONCLUDED || phase == QJOB_FAILED;
}

/* ── what the service does, as in job.c and act.c ── */

static void commit(World *w) {
    w->committing = 1;
}

static bool result_is_recorded(const Explorer *e, const World *w) {
    return w->result == RESULT_FAILED && !w->decided ? explorer_rules(e)->failure_is_durable
                                                     : explorer_rules(e)->settle_is_durable;
}

static void commit_lands(const Explorer *e, World *w) {
    w->committing = 0;
    w->d_state = w->state;
    w->d_intent = w->intent;
    w->d_decided = w->decided;
    w->d_halted = w->halted;
    w->d_on_ready = w->on_ready;
    w->d_result = result_is_recorded(e, w) || w->state == JOB_CONCLUDED ? w->result : RESULT_NONE;
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
    w->stopped = explorer_rules(e)->stop_is_kept && w->halted && w->stopped;
    w->halted = (explorer_rules(e)->halt_is_kept && w->halted) ||
                (w->must_stop && w->view_runs && may_stop);
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
        .one_phase = w->one_phase,
        .link = world_link(w),
        .qjob = live ? w->view_phase : QJOB_ABSENT,
        .root = live                        ? w->view_root
                : w->one_phase && !w->alive ? w->root /* as the header says */
                                            : ROOT_OTHER,
        .guest_runs = live && w->view_runs,
        .on_ready = w->on_ready != 0,
        .must_stop = w->must_stop,
        .may_stop = may_stop,
        .must_prepare =
            (w->intent == INTENT_PIVOT || w->one_phase) && !w->prepared && w->definition,
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
        explorer_harm(e, "a guest that only somebody else can have stopped is let go on", "cont",
                      w);
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

/* Would a restart come to another result? */
static bool contradicts_record(const World *w) {
    if (!w->decided)
        return w->result == RESULT_PIVOTED || w->result == RESULT_FINISHED ||
               w->result == RESULT_FAILED;
    return w->result != (w->intent == INTENT_PIVOT ? RESULT_PIVOTED : RESULT_FINISHED);
}

static void record_result(const Explorer *e, World *w) {
    if (result_is_recorded(e, w) && (contradicts_record(w) || w->one_phase))
        commit(w);
}

static void act_settle(const Explorer *e, World *w, JobResult result) {
    w->result = result;
    record_result(e, w);
}

static void act_record_halt(World *w) {
    w->halted = 1;
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
        act_record_halt(w);
        break;
    case STEP_COMPLETE:
        act_complete(w);
        break;
    case STEP_DECIDE:
        if (w->one_phase) {
            w->state = JOB_FINISHING;
            w->intent = INTENT_FINISH;
        }
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
        w->halted = explorer_rules(e)->halt_is_let_go ? 0 : w->halted;
        record(w, JOB_CONCLUDED);
        break;
    case STEP_DISMISS:
        fly(w, FLIGHT_DISMISS);
        break;
    case STEP_RELEASE:
        w->released = 1;
        break;
    case STEP_REFUSE:
        explorer_harm(e, "a combination that cannot be has come about", s->why, w);
        break;
    case STEP_AGAIN:
        explorer_harm(e, "a job that is in no group begins anew", s->why, w);
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
    if (explorer_rules(e)->halt_is_let_go && w->halted && (w->view_runs ? !not_yet : !w->stopped))
        w->halted = w->stopped = 0; /* going on, or stopped by somebody else */
}

static void move_step(Explorer *e, const World *from, bool may_stop, bool overdue) {
    World w = *from;

    if (!w.up || w.released || w.committing || (w.flight && w.owned))
        return;
    look_is_used(e, &w);
    if (w.committing) {
        explorer_go(e, &w, "back out", true);
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
    explorer_go(e, &w, s.why, may_stop && !overdue);
    if (s.action == STEP_DECIDE) { /* the target is away */
        w = before;
        w.trouble = 1;
        act_abort(&w);
        explorer_go(e, &w, "may not decide", false);
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
        [FLIGHT_NODES] = {DO_DISMISS, DO_DELETE_NODES, DO_END},
        [FLIGHT_PREPARE] = {DO_PREPARE, DO_END},
        [FLIGHT_FILES] = {DO_FILES, DO_END},
    };

    return plans[w->flight][w->step];
}

/* stop and cont go along with the others only when the service's processors' business is in it. */
static bool is_left_out(const World *w, Command c) {
    if (w->flight == FLIGHT_SETUP && w->one_phase) /* there is nothing to be made but the job */
        return c == DO_CLEAR || c == DO_ADD;
    if (w->flight ==
        FLIGHT_NODES) /* QEMU keeps hold of the nodes of a job of one phase until then */
        return c == DO_DISMISS && !w->one_phase;
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
    if (w->completing == INTENT_PIVOT || w->one_phase)
        w->root = ROOT_TARGET;
    return true;
}

/* Why the target goes; a lost, cancelled or decided job's record says it already. */
static bool reason_is_durable(const World *w) {
    return w->result != RESULT_FAILED || w->d_decided || w->d_result == RESULT_FAILED;
}

static void files(Explorer *e, World *w) {
    bool target_open = w->alive && w->node, source_open = w->alive && w->old_node;

    if (w->result == RESULT_PIVOTED) {
        w->new_definition = w->definition;
        if (!source_open)
            w->source_file = 0;
    } else if (w->result != RESULT_FINISHED && !target_open && !w->one_phase) {
        if (!reason_is_durable(w))
            explorer_harm(e, "the target goes before it is recorded why", "unlink", w);
        w->target_file = 0;
    }
    w->prepared_file = 0;
}

static void delete_nodes(World *w) {
    if (!phase_is_over(w->phase) || (w->one_phase && w->phase != QJOB_ABSENT))
        return;
    if (w->result == RESULT_PIVOTED)
        w->old_node = w->root == ROOT_TARGET ? 0 : w->old_node;
    else
        w->node = w->root == ROOT_SOURCE ? 0 : w->node;
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
        if ((!w->node && !w->one_phase) || w->phase != QJOB_ABSENT || w->root == ROOT_TARGET)
            return false;
        w->phase = QJOB_RUNNING;
        w->completing = INTENT_NONE;
        w->target_whole = 0;
        return true;
    case DO_STOP:
        if (!w->d_halted)
            explorer_harm(e, "stop without a record", "stop", w);
        w->guest = STOPPED_BY_US; /* by both, when somebody else was faster: cannot be told */
        return true;
    case DO_PIVOT:
        return begin_end(w, INTENT_PIVOT);
    case DO_FINISH:
        return begin_end(w, INTENT_FINISH);
    case DO_FINALIZE:
        if (!w->d_decided)
            explorer_harm(e, "job-finalize without a durable decision", "job-finalize", w);
        return finalize(w);
    case DO_CONT:
        w->guest = GUEST_RUNS;
        return true;
    case DO_CANCEL:
        if (w->d_decided)
            explorer_harm(e, "job-cancel after the decision", "job-cancel", w);
        if (phase_is_there(w->phase))
            w->phase = QJOB_ENDING;
        return true;
    case DO_DISMISS:
        if (w->d_state != JOB_CONCLUDED && !(w->one_phase && w->d_result != RESULT_NONE))
            explorer_harm(e, "dismissed before the end was durable", "job-dismiss", w);
        if (phase_is_over(w->phase))
            w->phase = QJOB_ABSENT;
        return true;
    case DO_DELETE_NODES:
        delete_nodes(w);
        return true;
    case DO_PREPARE:
        w->prepared_file = 1;
        return true;
    case DO_FILES:
        files(e, w);
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

static void setup_replied(const Explorer *e, World *w) {
    if (!w->error)
        return;
    w->result = RESULT_FAILED;
    record_result(e, w);
}

static void completed(const Explorer *e, World *w) {
    if (!w->error)
        return;
    w->asked = 0;
    if (explorer_rules(e)->refusal_is_looked_at)
        w->refused = 1;
    else
        back_out(e, w);
}

static void prepared(const Explorer *e, World *w) {
    if (!w->error || w->one_phase)
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
        setup_replied(e, w);
    else if (flight == FLIGHT_PIVOT || flight == FLIGHT_FINISH)
        completed(e, w);
    else if ((flight == FLIGHT_CONTINUE || flight == FLIGHT_FINALIZE) && !w->error &&
             !explorer_rules(e)->cont_is_looked_at)
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
    explorer_go(e, &w, "refused", false);
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
        explorer_go(e, &w, "replied", true);
        return;
    }
    w.step++;
    if (!execute(e, &w, c) && matters(c, w.flight))
        w.error = 1;
    explorer_go(e, &w, "executed", true);
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
        explorer_go(e, &w, "service killed", false);
        if (from->committing) {
            w = *from;
            commit_lands(e, &w);
            forget_memory(&w);
            explorer_go(e, &w, "service killed after its commit", false);
        }
    }
    w = *from;
    if (w.up && w.connected) {
        lose_connection(&w);
        explorer_go(e, &w, "connection lost", false);
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
        explorer_go(e, &w, "QEMU killed", false);
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
        w.stopped = explorer_rules(e)->stop_is_kept && w.halted; /* it may have been sent */
        explorer_go(e, &w, "service started", true);
        return;
    }
    if (w.committing) {
        commit_lands(e, &w);
        explorer_go(e, &w, "durable", true);
    }
    w = *from;
    if (w.committing && w.decided && !w.d_decided && w.result == RESULT_NONE && !w.one_phase) {
        if (!explorer_rules(e)->withdrawn_is_gone)
            commit_lands(e, &w);
        w.committing = w.decided = 0;
        w.trouble = 1;
        explorer_go(e, &w, "the decision is taken back", false);
    }
    w = *from;
    if (!w.connected && w.alive) {
        w.connected = 1;
        if (!is_file_work(w.flight))
            forget_flight(&w); /* the new greeting is a barrier */
        look(&w);
        explorer_go(e, &w, "connected", true);
    } else if (w.connected && !(w.flight && w.owned && !is_file_work(w.flight))) {
        look(&w);
        if (memcmp(&w, from, sizeof(w)) != 0)
            explorer_go(e, &w, "looked", true);
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
    if (w.phase == QJOB_RUNNING && w.one_phase) {
        become_pending(&w);
        explorer_go(e, &w, "pending by itself", true);
    } else if (w.phase == QJOB_RUNNING || w.phase == QJOB_ENDING) {
        w.phase = w.phase == QJOB_RUNNING ? QJOB_READY : QJOB_FAILED;
        explorer_go(e, &w, from->phase == QJOB_RUNNING ? "in sync" : "ended", true);
    } else if (w.phase == QJOB_READY && w.completing) {
        become_pending(&w);
        explorer_go(e, &w, "pending", true);
    }
    w = *from;
    if (w.phase == QJOB_RUNNING || w.phase == QJOB_READY) {
        w.phase = QJOB_FAILED;
        w.trouble = 1;
        explorer_go(e, &w, "the job failed", false);
    }
}

/* ── people ── */

static void move_orders(Explorer *e, const World *from) {
    World w = *from;

    if (!w.up || w.released)
        return;
    if (w.state == JOB_READY && w.intent == INTENT_NONE && w.connected && w.result == RESULT_NONE) {
        order_end(e, &w, w.wanted, true);
        explorer_go(e, &w, "ordered", w.on_ready == 0);
        w = *from;
        order_end(e, &w, w.wanted, false);
        explorer_go(e, &w, "ordered, the pause would be long", false);
    }
    w = *from;
    if (w.state != JOB_CONCLUDED && !w.decided && w.result == RESULT_NONE &&
        w.intent != INTENT_CANCEL) {
        order_cancel(&w);
        explorer_go(e, &w, "cancel ordered", false);
    }
}

/* The guest's processors are left alone by others while a switch is under way. */
static void move_processors(Explorer *e, const World *from) {
    World w = *from;

    if (!w.alive || w.guest == STOPPED_BY_US || is_ending(&w) || w.flight == FLIGHT_FINALIZE ||
        w.flight == FLIGHT_CONTINUE || w.flight == FLIGHT_PIVOT || w.flight == FLIGHT_FINISH)
        return;
    w.guest = w.guest == GUEST_RUNS ? STOPPED_BY_OTHERS : GUEST_RUNS;
    explorer_go(e, &w, w.guest == GUEST_RUNS ? "somebody's cont" : "somebody's stop", false);
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
        explorer_go(e, &w, words[i], false);
    }
}

void world_move(Explorer *e, const World *from) {
    move_step(e, from, true, false);
    move_step(e, from, false, false);
    move_step(e, from, true, true);
    move_flight(e, from);
    move_service(e, from);
    move_deaths(e, from);
    move_qemu(e, from);
    move_orders(e, from);
    move_processors(e, from);
    move_meddling(e, from);
}
