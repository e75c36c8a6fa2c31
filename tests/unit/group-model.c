/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The small world of a group of two: the moves of service, QEMU, deaths and people, and the walk through all of them. */

#include "group-model.h"

#include <stdint.h>
#include <string.h>

#include "job/step.h"

#define N 2 /* members */

/* Commands on their way to QEMU: the group's go to the members in `mask`, one after the other. */
typedef enum { FLIGHT_NONE, FLIGHT_END, FLIGHT_FINALIZE, FLIGHT_ABORT, FLIGHT_CONT } Flight;
typedef enum { GUEST_RUNS, GUEST_STOPPED } Guest;

/* What is recorded of a job. */
typedef struct {
    uint8_t state, intent, decided, result;
} Record;

typedef struct {
    Record now, durable;
    uint8_t clean, aborting, released, asked;
    uint8_t again, d_again, leftover_gone;
    uint8_t phase, completing, root; /* QEMU's */
    uint8_t seen_phase, seen_root;
    uint8_t source_current, target_current; /* the images have all writes */
} Member;

typedef struct {
    Record now, durable;
    uint8_t halted, d_halted, clean, asked, aborting, stopped, released;
    Member m[N];
    uint8_t up, connected, fresh, committing;
    uint8_t flight, intent, at, mask, with_guest, owned; /* intent: which end it asks for */
    uint8_t alive, guest, seen_runs, must_stop, wanted, cancelled;
    uint8_t trouble, finalize_failed;
} World;

typedef struct {
    World world;
    guint parent;
    const char *move;
} Place;

typedef struct {
    GroupRules rules;
    GArray *places;
    GHashTable *known; /* World* (of its own) → index + 1 */
    GArray *edges;     /* guint pairs, moves without trouble */
    guint here;
    const char *harm;
    World harm_world;
    size_t ends;
} Explorer;

static guint world_hash(gconstpointer p) {
    const uint8_t *bytes = p;
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < sizeof(World); i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return (guint) (h ^ (h >> 32));
}

static gboolean world_equal(gconstpointer a, gconstpointer b) {
    return memcmp(a, b, sizeof(World)) == 0;
}

static void harm(Explorer *e, const char *what, const World *w) {
    if (e->harm)
        return;
    e->harm = what;
    e->harm_world = *w;
}

static bool is_there(unsigned phase) {
    return phase == QJOB_RUNNING || phase == QJOB_READY || phase == QJOB_PENDING;
}

static bool is_over(unsigned phase) {
    return phase == QJOB_ABSENT || phase == QJOB_CONCLUDED || phase == QJOB_FAILED;
}

static bool is_ending(const Record *r) {
    return r->state == JOB_PIVOTING || r->state == JOB_FINISHING;
}

/* ── what must hold ── */

/* Failed, lost and cancelled are all the same to the disks: nothing has changed. */
static JobResult outcome(JobResult r) {
    return r == RESULT_PIVOTED || r == RESULT_FINISHED ? r : RESULT_CANCELLED;
}

static const char *end_check(const World *w) {
    JobResult result = w->durable.result;

    for (int i = 0; i < N; i++) {
        const Member *m = &w->m[i];
        if (m->durable.state != JOB_CONCLUDED || w->durable.state != JOB_CONCLUDED)
            return "released before the end is durable";
        if (w->alive && m->phase != QJOB_ABSENT)
            return "released, but QEMU still has a job";
        bool pivoted = m->durable.result == RESULT_PIVOTED;
        if (w->alive && pivoted != (m->root == ROOT_TARGET))
            return "a result does not say where the disk stands";
        if (!(pivoted ? m->target_current : m->source_current) &&
            !(w->finalize_failed && !w->alive))
            return "an image that is called right lacks writes";
        if (w->finalize_failed)
            continue;
        if (outcome(m->durable.result) != outcome(w->m[0].durable.result))
            return "the disks have come to different ends";
        if (outcome(m->durable.result) != outcome(result))
            return "the group's result is not that of its members";
    }
    if (w->alive && w->guest != GUEST_RUNS)
        return "the guest was left stopped";
    if (w->finalize_failed)
        return result == RESULT_PIVOTED && (w->m[0].durable.result != RESULT_PIVOTED ||
                                            w->m[1].durable.result != RESULT_PIVOTED)
                   ? "not all disks were switched, and that is not said"
                   : NULL;
    if (w->durable.decided || (!w->trouble && w->alive && !w->cancelled))
        return result == (w->durable.intent == INTENT_PIVOT ? RESULT_PIVOTED : RESULT_FINISHED)
                   ? NULL
                   : "the promised end was not brought about";
    return outcome(result) != RESULT_CANCELLED ? "an end that was not decided" : NULL;
}

static void guest_writes(World *w) {
    for (int i = 0; i < N && w->alive && w->guest == GUEST_RUNS; i++) {
        Member *m = &w->m[i];
        if (m->phase == QJOB_PENDING)
            continue;
        if (m->root == ROOT_TARGET)
            m->source_current = 0;
        else
            m->target_current = 0;
    }
}

static void go(Explorer *e, World *w, const char *move, bool smooth) {
    guest_writes(w);
    bool released = w->released && w->m[0].released && w->m[1].released;
    const char *what = released ? end_check(w) : NULL;
    if (what)
        harm(e, what, w);
    guint known = GPOINTER_TO_UINT(g_hash_table_lookup(e->known, w));
    if (!known) {
        Place p = {*w, e->here, move};
        g_array_append_val(e->places, p);
        known = e->places->len;
        e->ends += released;
        g_hash_table_insert(e->known, g_memdup2(w, sizeof(*w)), GUINT_TO_POINTER(known));
    }
    guint edge[2] = {e->here, known - 1};
    if (smooth && edge[0] != edge[1])
        g_array_append_vals(e->edges, edge, 2);
}

/* ── the service ── */

static StepLink link_of(const World *w) {
    if (!w->alive)
        return LINK_GONE;
    return w->connected && w->fresh ? LINK_LIVE : LINK_UNKNOWN;
}

static StepFacts member_facts(const Explorer *e, const World *w, int i) {
    const Member *m = &w->m[i];
    bool active = w->now.state != JOB_CONCLUDED;
    StepFacts f = {
        .state = m->now.state,
        .intent = m->now.intent,
        .decided = m->now.decided,
        .result = m->now.result,
        .clean = m->clean,
        .member = active && e->rules.members_wait && !m->again,
        .leftover = m->again && !m->leftover_gone,
        .on_ready = m->again,
        .asked = m->asked,
        .waits = active && (m->clean || !w->clean),
        .link = link_of(w),
        .aborting = m->aborting,
        .root = ROOT_OTHER,
    };

    if (f.link == LINK_LIVE) {
        f.qjob = m->seen_phase;
        f.root = m->seen_root;
        f.guest_runs = w->seen_runs;
    }
    return f;
}

static StepFacts group_facts(const Explorer *e, const World *w, bool overdue) {
    StepMember members[N];
    StepFacts f = {
        .state = w->now.state,
        .intent = w->now.intent,
        .decided = w->now.decided,
        .result = w->now.result,
        .clean = w->clean,
        .halted = w->halted,
        .link = link_of(w),
        .must_stop = w->must_stop,
        .may_stop = true,
        .asked = w->asked,
        .aborting = w->aborting,
        .overdue = overdue,
        .guest_runs = link_of(w) == LINK_LIVE && w->seen_runs,
    };

    for (int i = 0; i < N; i++) {
        StepFacts of = member_facts(e, w, i);
        members[i] = (StepMember){of.state, of.result, of.clean, w->m[i].again, of.qjob, of.root};
    }
    job_step_gather(&f, members, N);
    if (!e->rules.all_must_be_pending && f.qjob == QJOB_READY && w->m[0].seen_phase == QJOB_PENDING)
        f.qjob = QJOB_PENDING;
    return f;
}

static void fly(World *w, Flight flight, unsigned mask) {
    w->flight = flight;
    w->mask = mask;
    w->intent = w->now.intent;
    w->at = w->with_guest = 0;
    w->owned = 1;
}

static void follow(World *w, JobState state) {
    for (int i = 0; i < N; i++)
        if (w->m[i].now.result == RESULT_NONE && !w->m[i].again) {
            w->m[i].now.state = state;
            w->m[i].now.intent = w->now.intent;
            w->m[i].now.decided = w->now.decided;
        }
    w->committing = 1;
}

static void land(const Explorer *e, World *w, bool torn) {
    w->committing = 0;
    for (int i = 0; i < N; i++)
        if (!torn || i == 0) {
            w->m[i].durable = w->m[i].now;
            w->m[i].d_again = w->m[i].again;
        }
    if (torn)
        return;
    w->durable = w->now;
    w->d_halted = w->halted;
}

static void order(World *w, unsigned intent) {
    w->now.intent = intent;
    w->now.state = intent == INTENT_PIVOT    ? JOB_PIVOTING
                   : intent == INTENT_FINISH ? JOB_FINISHING
                                             : JOB_CANCELLING;
    if (intent != INTENT_CANCEL) {
        w->stopped = w->halted && w->stopped;
        w->halted = w->halted || (w->must_stop && w->seen_runs);
    }
    w->asked = w->aborting = 0;
    follow(w, w->now.state);
}

static bool contradicts(const Record *r) {
    if (!r->decided)
        return r->result == RESULT_PIVOTED || r->result == RESULT_FINISHED ||
               r->result == RESULT_FAILED;
    return r->result != (r->intent == INTENT_PIVOT ? RESULT_PIVOTED : RESULT_FINISHED);
}

static void settle(World *w, Record *r, JobResult result) {
    r->result = result;
    if (contradicts(r))
        w->committing = 1;
}

static unsigned seen(const World *w, QemuJobPhase phase) {
    unsigned mask = 0;

    for (int i = 0; i < N; i++)
        mask |= w->m[i].seen_phase == phase && !w->m[i].again ? 1u << i : 0;
    return mask;
}

static void act_abort(World *w) {
    unsigned mask = 0;

    for (int i = 0; i < N; i++)
        if (is_there(w->m[i].seen_phase) && !w->m[i].aborting &&
            w->m[i].now.intent != INTENT_CANCEL)
            mask |= 1u << i;
    fly(w, FLIGHT_ABORT, mask);
    w->aborting = 1;
}

static void conclude(World *w) {
    w->now.state = JOB_CONCLUDED;
    w->halted = 0;
    follow(w, JOB_CONCLUDED);
    for (int i = 0; i < N; i++)
        w->m[i].now.state = JOB_CONCLUDED;
}

static void group_act(Explorer *e, World *w, const Step *s) {
    switch (s->action) {
    case STEP_RECORD_HALT:
        w->halted = w->committing = 1;
        return;
    case STEP_COMPLETE:
        fly(w, FLIGHT_END, seen(w, QJOB_READY));
        w->with_guest = w->halted && w->seen_runs;
        w->stopped |= w->with_guest;
        w->asked = 1;
        return;
    case STEP_DECIDE:
        w->now.decided = 1;
        follow(w, JOB_PENDING);
        return;
    case STEP_FINALIZE:
        fly(w, FLIGHT_FINALIZE, seen(w, QJOB_PENDING));
        w->with_guest = w->halted;
        return;
    case STEP_CONTINUE_GUEST:
        fly(w, FLIGHT_CONT, 0);
        w->with_guest = 1;
        return;
    case STEP_ABORT:
        act_abort(w);
        return;
    case STEP_SETTLE:
        settle(w, &w->now, s->result);
        return;
    case STEP_CLEAN:
        w->clean = 1;
        return;
    case STEP_CONCLUDE:
        conclude(w);
        return;
    case STEP_RELEASE:
        w->released = 1;
        return;
    case STEP_WAIT:
        return;
    default:
        harm(e, "the group does what is not its business", w);
    }
}

/* What job_note_look() does for a group. */
static void note(const Explorer *e, World *w, bool overdue) {
    StepFacts facts = group_facts(e, w, overdue);
    bool there = facts.qjob == QJOB_READY || facts.qjob == QJOB_RUNNING;
    bool any_over = false, all_over = true;

    if (link_of(w) != LINK_LIVE)
        return;
    for (int i = 0; i < N; i++) {
        any_over |= w->m[i].now.result != RESULT_NONE;
        all_over &= w->m[i].now.result != RESULT_NONE;
    }
    if (e->rules.failure_is_of_all && any_over && !all_over && !w->now.decided &&
        w->now.result == RESULT_NONE && w->now.intent != INTENT_CANCEL &&
        w->now.state != JOB_CONCLUDED)
        w->now.result = RESULT_FAILED;
    bool not_yet = is_ending(&w->now) && w->now.result == RESULT_NONE && there && !w->asked;
    if (w->halted && (w->seen_runs ? !not_yet : !w->stopped))
        w->halted = w->stopped = 0;
}

static void move_group(Explorer *e, const World *from, bool overdue) {
    World w = *from;

    if (!w.up || w.released || w.committing || (w.flight && w.owned))
        return;
    bool held = seen(&w, QJOB_PENDING) || (w.halted && !w.seen_runs);
    if (overdue && (link_of(&w) != LINK_LIVE || !held))
        return;
    note(e, &w, overdue);
    StepFacts facts = group_facts(e, &w, overdue);
    Step s = job_step(&facts);
    group_act(e, &w, &s);
    if (memcmp(&w, from, sizeof(w)) == 0)
        return;
    w.trouble |= overdue;
    go(e, &w, s.why, !overdue);
}

static void command(Explorer *e, World *w, int i, Flight flight) {
    Member *m = &w->m[i];

    switch (flight) {
    case FLIGHT_END:
        if (m->phase == QJOB_READY)
            m->completing = w->intent;
        return;
    case FLIGHT_FINALIZE:
        if (!w->durable.decided || !m->durable.decided)
            harm(e, "job-finalize without a durable decision of the group", w);
        if (m->phase != QJOB_PENDING)
            return;
        m->phase = QJOB_CONCLUDED;
        if (m->completing == INTENT_PIVOT)
            m->root = ROOT_TARGET;
        return;
    case FLIGHT_ABORT:
        if ((m->d_again ? m->durable.decided : w->durable.decided) &&
            m->durable.state != JOB_CONCLUDED)
            harm(e, "job-cancel after the decision", w);
        if (is_there(m->phase))
            m->phase = QJOB_ENDING;
        return;
    default:
        return;
    }
}

static void move_member(Explorer *e, const World *from, int i) {
    World w = *from;
    Member *m = &w.m[i];

    if (!w.up || m->released || w.committing || (w.flight && w.owned))
        return;
    StepFacts facts = member_facts(e, &w, i);
    Step s = job_step(&facts);
    switch (s.action) {
    case STEP_WAIT:
        return;
    case STEP_SETTLE:
        settle(&w, &m->now, s.result);
        break;
    case STEP_CLEAN:
        m->clean = 1;
        break;
    case STEP_CONCLUDE:
        harm(e, "a member concludes by itself", &w);
        return;
    case STEP_ABORT:
        command(e, &w, i, FLIGHT_ABORT);
        m->aborting = 1;
        w.fresh = 0;
        break;
    case STEP_AGAIN:
        m->again = 1;
        m->leftover_gone = 0;
        m->now = (Record){.state = JOB_PREPARING};
        w.committing = 1;
        break;
    case STEP_SETUP:
        m->phase = QJOB_RUNNING;
        m->completing = m->target_current = w.fresh = 0;
        break;
    case STEP_RECORD_RUNNING:
    case STEP_RECORD_READY:
        m->now.state = s.action == STEP_RECORD_READY ? JOB_READY : JOB_RUNNING;
        w.committing = 1;
        break;
    case STEP_ORDER:
        m->now.state = JOB_PIVOTING;
        m->now.intent = INTENT_PIVOT;
        m->asked = 0;
        w.committing = 1;
        break;
    case STEP_DISMISS:
        if (m->durable.state != JOB_CONCLUDED && !m->d_again)
            harm(e, "dismissed before the end is durable", &w);
        m->leftover_gone = 1;
        m->phase = is_over(m->phase) ? QJOB_ABSENT : m->phase;
        w.fresh = 0;
        break;
    case STEP_DECIDE:
        m->now.decided = 1;
        w.committing = 1;
        break;
    case STEP_FINALIZE:
    case STEP_COMPLETE:
        w.intent = m->now.intent;
        m->asked = s.action == STEP_COMPLETE;
        command(e, &w, i, s.action == STEP_FINALIZE ? FLIGHT_FINALIZE : FLIGHT_END);
        w.fresh = 0;
        break;
    case STEP_RELEASE:
        m->released = 1;
        break;
    default:
        harm(e, "a member does what is not its business", &w);
    }
    go(e, &w, s.why, true);
}

/* ── QEMU, deaths, people ── */

/* `stop` goes before the others, `cont` behind them. */
static void move_flight(Explorer *e, const World *from) {
    World w = *from;

    if (!w.flight || !w.alive)
        return;
    if (w.flight == FLIGHT_END && w.with_guest) {
        if (!w.d_halted)
            harm(e, "stop without a record", &w);
        w.guest = GUEST_STOPPED;
        w.with_guest = 0;
        go(e, &w, "stop", true);
        return;
    }
    while (w.at < N && !(w.mask & 1u << w.at))
        w.at++;
    if (w.at < N) {
        World failed = w;
        command(e, &w, w.at, w.flight);
        w.at++;
        go(e, &w, "executed", true);
        if (failed.flight != FLIGHT_FINALIZE || failed.m[failed.at].phase != QJOB_PENDING)
            return;
        failed.m[failed.at++].phase = QJOB_FAILED;
        failed.trouble = failed.finalize_failed = 1;
        go(e, &failed, "finalizing failed", false);
        return;
    }
    if (w.with_guest) {
        w.guest = GUEST_RUNS;
        w.with_guest = 0;
        go(e, &w, "cont", true);
        return;
    }
    if (!w.owned)
        return;
    w.flight = w.intent = w.at = w.mask = w.owned = w.fresh = 0;
    go(e, &w, "replied", true);
}

static void lose_connection(World *w) {
    w->connected = w->fresh = w->seen_runs = w->asked = w->aborting = w->owned = 0;
    for (int i = 0; i < N; i++)
        w->m[i].seen_phase = w->m[i].seen_root = w->m[i].aborting = w->m[i].asked = 0;
}

/* As group_restore(): the group's record decides for its members. */
static void restore(const Explorer *e, World *w) {
    w->now = w->durable;
    w->halted = w->stopped = w->d_halted;
    w->clean = 0;
    for (int i = 0; i < N; i++) {
        Record *r = &w->m[i].now;
        *r = w->m[i].durable;
        w->m[i].again = w->m[i].d_again;
        w->m[i].clean = w->m[i].leftover_gone = 0;
        if (!e->rules.decision_is_of_all || w->now.state == JOB_CONCLUDED ||
            r->state == JOB_CONCLUDED || r->result != RESULT_NONE || w->m[i].again)
            continue;
        r->decided = w->now.decided;
        if (w->now.state != JOB_READY) {
            r->state = w->now.decided ? JOB_PENDING : w->now.state;
            r->intent = w->now.intent;
        } else if (r->intent == INTENT_PIVOT || r->intent == INTENT_FINISH) {
            r->state = JOB_READY;
            r->intent = INTENT_NONE;
        } else if (r->intent == INTENT_CANCEL) {
            w->now.state = JOB_CANCELLING;
            w->now.intent = INTENT_CANCEL;
        }
    }
}

static void die(const Explorer *e, World *w) {
    lose_connection(w);
    w->up = w->committing = 0;
    restore(e, w);
}

static void move_deaths(Explorer *e, const World *from) {
    World w = *from;

    for (int how = 0; how < 3 && from->up; how++) {
        w = *from;
        if (how > 0 && !w.committing)
            break;
        if (how > 0)
            land(e, &w, how == 2); /* 2: a journal without room has written only some of it */
        die(e, &w);
        go(e, &w, "service killed", false);
    }
    w = *from;
    if (w.up && w.connected) {
        lose_connection(&w);
        go(e, &w, "connection lost", false);
    }
    w = *from;
    if (!w.alive)
        return;
    w.alive = w.flight = w.intent = w.mask = w.at = w.with_guest = 0;
    w.guest = GUEST_RUNS;
    lose_connection(&w);
    for (int i = 0; i < N; i++)
        w.m[i].phase = w.m[i].completing = 0;
    go(e, &w, "QEMU killed", false);
}

static void look(World *w) {
    w->fresh = 1;
    w->seen_runs = w->guest == GUEST_RUNS;
    for (int i = 0; i < N; i++) {
        w->m[i].seen_phase = w->m[i].phase;
        w->m[i].seen_root = w->m[i].root;
    }
}

static void move_service(Explorer *e, const World *from) {
    World w = *from;

    if (!w.up) {
        w.up = 1;
        go(e, &w, "service started", true);
        return;
    }
    if (w.committing) {
        land(e, &w, false);
        go(e, &w, "durable", true);
    }
    w = *from;
    if (!w.connected && w.alive) {
        w.connected = 1;
        w.flight = w.intent = w.mask = w.at = w.with_guest = 0; /* the greeting is a barrier */
        look(&w);
        go(e, &w, "connected", true);
    } else if (w.connected && !(w.flight && w.owned)) {
        look(&w);
        if (memcmp(&w, from, sizeof(w)) != 0)
            go(e, &w, "looked", true);
    }
}

static void move_qemu(Explorer *e, const World *from, int i) {
    World w = *from;
    Member *m = &w.m[i];

    if (!w.alive)
        return;
    if (m->phase == QJOB_ENDING) {
        m->phase = QJOB_FAILED;
        go(e, &w, "ended", true);
    } else if (m->phase == QJOB_READY && m->completing) {
        m->phase = QJOB_PENDING;
        m->target_current = m->source_current = 1;
        go(e, &w, "pending", true);
    } else if (m->phase == QJOB_RUNNING) {
        m->phase = QJOB_READY;
        go(e, &w, "in sync", true);
    }
    w = *from;
    if (m->phase == QJOB_READY) {
        m->phase = QJOB_FAILED;
        w.trouble = 1;
        go(e, &w, "a job failed", false);
    }
}

static void move_orders(Explorer *e, const World *from) {
    World w = *from;

    if (!w.up || w.committing || w.now.result != RESULT_NONE)
        return;
    if (w.now.state == JOB_READY && w.connected) {
        order(&w, w.wanted);
        go(e, &w, "ordered", true);
    }
    w = *from;
    if (w.now.state != JOB_CONCLUDED && w.now.state != JOB_CANCELLING && !w.now.decided &&
        w.m[0].now.result == RESULT_NONE && w.m[1].now.result == RESULT_NONE) {
        order(&w, INTENT_CANCEL);
        w.cancelled = 1;
        go(e, &w, "cancel ordered", false);
    }
}

/* ── the walk ── */

static World beginning(bool must_stop, JobIntent wanted) {
    World w;

    memset(&w, 0, sizeof(w));
    w.now.state = w.durable.state = JOB_READY;
    w.up = w.alive = 1;
    w.must_stop = must_stop;
    w.wanted = wanted;
    for (int i = 0; i < N; i++) {
        w.m[i].now.state = w.m[i].durable.state = JOB_READY;
        w.m[i].phase = QJOB_READY;
        w.m[i].source_current = 1;
    }
    return w;
}

/* Every way on without trouble comes to an end (Kahn), and only released groups have none. */
static void check_ends(Explorer *e) {
    guint n = e->places->len, done = 0;
    g_autofree guint *first = g_new0(guint, n + 1), *incoming = g_new0(guint, n),
                     *queue = g_new(guint, n), *to = g_new(guint, e->edges->len / 2 + 1);

    for (guint i = 0; i < e->edges->len; i += 2) {
        first[g_array_index(e->edges, guint, i) + 1]++;
        incoming[g_array_index(e->edges, guint, i + 1)]++;
    }
    for (guint i = 0; i < n; i++) {
        const World *w = &g_array_index(e->places, Place, i).world;
        if (first[i + 1] == 0 && !(w->released && w->m[0].released && w->m[1].released))
            harm(e, "nothing goes on any more", w);
        first[i + 1] += first[i];
    }
    g_autofree guint *fill = g_memdup2(first, (n + 1) * sizeof(guint));
    for (guint i = 0; i < e->edges->len; i += 2)
        to[fill[g_array_index(e->edges, guint, i)]++] = g_array_index(e->edges, guint, i + 1);
    for (guint i = 0; i < n; i++)
        if (incoming[i] == 0)
            queue[done++] = i;
    for (guint head = 0; head < done; head++)
        for (guint k = first[queue[head]]; k < first[queue[head] + 1]; k++)
            if (--incoming[to[k]] == 0)
                queue[done++] = to[k];
    for (guint i = 0; i < n && done < n; i++)
        if (incoming[i] > 0)
            harm(e, "it goes round in a circle", &g_array_index(e->places, Place, i).world);
}

static void describe(GString *out, const World *w) {
    g_string_append_printf(
        out, "%s/%s%s%s %s [%s%s%s]%s%s%s flight %u:%u guest %u%s |",
        job_state_to_string(w->now.state), job_intent_to_string(w->now.intent),
        w->now.decided ? " decided" : "", w->halted ? " halted" : "",
        job_result_to_string(w->now.result), job_state_to_string(w->durable.state),
        w->durable.decided ? " decided" : "", w->d_halted ? " halted" : "", w->up ? "" : " down",
        w->committing ? " committing" : "", w->connected ? w->fresh ? " fresh" : " connected" : "",
        w->flight, w->at, w->guest, w->alive ? "" : " dead");
    for (int i = 0; i < N; i++)
        g_string_append_printf(
            out, " %s %s [%s%s %s] QEMU %s (seen %s)%s%s", job_state_to_string(w->m[i].now.state),
            job_result_to_string(w->m[i].now.result), job_state_to_string(w->m[i].durable.state),
            w->m[i].durable.decided ? " decided" : "", job_result_to_string(w->m[i].durable.result),
            qemu_job_phase_to_string(w->m[i].phase), qemu_job_phase_to_string(w->m[i].seen_phase),
            w->m[i].root == ROOT_TARGET ? " on target" : "", i ? "\n" : ";");
}

static char *explain(Explorer *e) {
    GString *out = g_string_new(NULL);
    guint at = GPOINTER_TO_UINT(g_hash_table_lookup(e->known, &e->harm_world));

    describe(out, &e->harm_world);
    for (at = at ? at - 1 : e->here; at != G_MAXUINT;) {
        const Place *p = &g_array_index(e->places, Place, at);
        g_autoptr(GString) line = g_string_new(NULL);
        g_string_append_printf(line, "# %-50s ", p->move);
        describe(line, &p->world);
        g_string_prepend(out, line->str);
        at = p->parent;
    }
    g_string_append_printf(out, "# %s", e->harm);
    return g_string_free(out, FALSE);
}

char *group_explore(GroupRules rules) {
    Explorer e = {
        .rules = rules,
        .places = g_array_new(FALSE, FALSE, sizeof(Place)),
        .known = g_hash_table_new_full(world_hash, world_equal, g_free, NULL),
        .edges = g_array_new(FALSE, FALSE, sizeof(guint)),
        .here = G_MAXUINT,
    };

    for (int i = 0; i < 4; i++) {
        World w = beginning(i & 1, i & 2 ? INTENT_PIVOT : INTENT_FINISH);
        go(&e, &w, "begin", false);
    }
    for (guint i = 0; i < e.places->len && !e.harm; i++) {
        World w = g_array_index(e.places, Place, i).world;
        e.here = i;
        if (w.released && w.m[0].released && w.m[1].released)
            continue;
        move_group(&e, &w, false);
        move_group(&e, &w, true);
        for (int k = 0; k < N; k++) {
            move_member(&e, &w, k);
            move_qemu(&e, &w, k);
        }
        move_flight(&e, &w);
        move_service(&e, &w);
        move_deaths(&e, &w);
        move_orders(&e, &w);
    }
    if (!e.harm)
        check_ends(&e);
    g_test_message("%u worlds, %zu ends", e.places->len, e.ends);
    char *text = e.harm ? explain(&e) : NULL;
    if (!text)
        g_assert_cmpuint(e.ends, >, 100);
    g_array_unref(e.places);
    g_array_unref(e.edges);
    g_hash_table_unref(e.known);
    return text;
}
