/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A group: jobs on several disks of one domain that end at one point in time, all or none. The group is a job of its own:
 * it goes by the table of every job, acts on the block jobs of its members, and its record decides for all of them. */

#include <string.h>

#include "job/internal.h"
#include "log.h"

/* ── facts ── */

Job *job_active_group(const Job *j) {
    return j->group && job_is_active(j->group) ? j->group : NULL;
}

/* All members ran in the same QEMU. What one does not know, the group does not know. */
static StepLink link_with(StepLink group, const StepFacts *member) {
    return group == LINK_UNKNOWN || member->link == LINK_UNKNOWN ? LINK_UNKNOWN
           : group == LINK_GONE || member->link == LINK_GONE     ? LINK_GONE
                                                                 : LINK_LIVE;
}

void group_facts(const Job *g, StepFacts *f) {
    StepMember members[GROUP_MAX];
    size_t n = MIN(g->parts->len, GROUP_MAX);

    for (size_t i = 0; i < n; i++) {
        const Job *m = g->parts->pdata[i];
        StepFacts of = job_facts(m);
        members[i] = (StepMember){m->state, m->result, m->clean, m->redone, of.qjob, of.root};
        if (job_is_active(m))
            f->link = link_with(f->link, &of);
    }
    job_step_gather(f, members, n);
    /* Without a pause, too, the writes of the first disk wait for the last one: not before that is short. */
    if (f->qjob == QJOB_READY && !f->must_stop && !f->may_stop && !f->asked && !f->decided)
        f->qjob = QJOB_RUNNING;
}

/* ── what the members count ── */

void group_observe(Job *g) {
    Progress *p = &g->progress, sum = {0}, before = *p;
    IoStatus io = IO_OK;
    bool paused = false;
    unsigned changed = 0;

    for (guint i = 0; i < g->parts->len; i++) {
        const Job *m = g->parts->pdata[i];
        sum.done += m->progress.done;
        sum.total += m->progress.total;
        sum.rate += m->progress.rate;
        sum.expected_end = MAX(sum.expected_end, m->progress.expected_end);
        paused |= m->paused;
        io = m->io == IO_OK ? io : m->io;
    }
    if (g->state == JOB_CONCLUDED)
        return;
    p->done = sum.done;
    p->total = sum.total;
    p->rate = sum.rate;
    p->expected_end = sum.rate > 0 ? sum.expected_end : 0;
    if (p->done != before.done || p->total != before.total || p->rate != before.rate ||
        p->expected_end != before.expected_end)
        changed |= JOB_CHANGED_PROGRESS;
    if (paused != g->paused || io != g->io)
        changed |= JOB_CHANGED_IO;
    g->paused = paused;
    g->io = io;
    if (changed)
        g->hooks.changed(g, changed, g->userdata);
}

/* ── all or nothing ── */

static const Job *first_with_error(const Job *g) {
    for (guint i = 0; i < g->parts->len; i++) {
        const Job *m = g->parts->pdata[i];
        if (m->result != RESULT_NONE && m->error != FAILURE_NONE)
            return m;
    }
    return NULL;
}

void group_set_error(Job *g) {
    const Job *m = first_with_error(g);
    g_autoptr(GString) text = g_string_new(NULL);

    if (g->error != FAILURE_NONE && !g->decided)
        return; /* said already */
    if (m)
        g_string_append_printf(text, "Disk \"%s\" (job %" PRIu64 "): %s", m->disk, m->id,
                               m->error_message);
    else
        g_string_append(text, "QEMU went away before the group was switched.");
    for (guint i = 0; g->decided && i < g->parts->len; i++) {
        const Job *part = g->parts->pdata[i];
        g_string_append_printf(text, " Disk \"%s\" stands on \"%s\".", part->disk,
                               part->result == RESULT_PIVOTED ? part->target
                                                              : part->copy.source_path);
    }
    job_set_error(g, m ? m->error : FAILURE_DOMAIN_NOT_RUNNING, "%s", text->str);
}

static bool any_is_held(const Job *g) {
    bool held = false;

    for (guint i = 0; i < g->parts->len; i++) {
        const QemuJob *q = job_in_qemu(g->parts->pdata[i]);
        held |= q && q->phase == QJOB_PENDING;
    }
    return held;
}

/* A completion cannot be taken back, but by cancelling: refused for one disk means over for all. While others hold
 * writes the refusal may come from one that was pending already, and the deadline decides. */
static bool note_refusal(Job *g) {
    if (!g->refused || any_is_held(g))
        return false;
    g_autofree char *words = g_steal_pointer(&g->refused);
    job_set_error(g, FAILURE_QEMU,
                  "QEMU refuses to end one of the jobs, so none of the disks was switched. QEMU "
                  "says: %s",
                  words);
    g->result = RESULT_FAILED;
    return true;
}

bool group_note_members(Job *g) {
    bool ending = g->state == JOB_PIVOTING || g->state == JOB_FINISHING;
    const Job *over = NULL;
    guint n_over = 0;

    if (g->result != RESULT_NONE || g->decided || !job_is_active(g) || g->intent == INTENT_CANCEL)
        return false;
    if (ending && note_refusal(g))
        return true;
    for (guint i = 0; i < g->parts->len; i++) {
        const Job *m = g->parts->pdata[i];
        n_over += m->result != RESULT_NONE;
        if (m->result != RESULT_NONE && (!over || over->error == FAILURE_NONE))
            over = m;
    }
    if (!over || n_over == g->parts->len)
        return false;
    if (g->error == FAILURE_NONE)
        job_set_error(g, over->error == FAILURE_NONE ? FAILURE_QEMU : over->error,
                      "Disk \"%s\" (job %" PRIu64
                      ") has ended before the others, so all are given up and the guest stays "
                      "where it was: %s",
                      over->disk, over->id,
                      over->error == FAILURE_NONE ? "somebody else's command did it."
                                                  : over->error_message);
    g->result = RESULT_FAILED;
    return true;
}

void group_follow(Job *g, JobEvent event, const char *detail) {
    for (guint i = 0; i < g->parts->len && job_is_group(g); i++) {
        Job *m = g->parts->pdata[i];
        if (m->result != RESULT_NONE || !job_transition(m, event))
            continue;
        m->intent = g->intent;
        m->decided = g->decided;
        m->aborting = false;
        if (m->error != FAILURE_NONE && event != EVENT_DECIDE) /* what an earlier attempt left */
            job_set_error(m, FAILURE_NONE, "%s", "");
        job_commit(m, JOB_CHANGED_STATE, detail, NULL);
    }
}

void group_mirror_again(Job *m) {
    const QemuJob *q = job_in_qemu(m);

    job_warn(m->group,
             "Disk \"%s\" (job %" PRIu64
             ") could not be switched together with the others, so it is copied again and switched "
             "later: %s",
             m->disk, m->id,
             q && q->error ? q->error : "the job has ended in QEMU before it was switched.");
    job_transition(m, EVENT_PREPARE);
    m->redone = true;
    m->leftover_gone = m->decided = m->finalized = m->end_looked = false;
    m->intent = INTENT_NONE;
    m->on_ready = ON_READY_PIVOT;
    m->pause_guest = m->group->pause_guest;
    m->max_pause = m->group->max_pause;
    /* From here on the guest's writes go to the source alone: without QEMU, that is right again. */
    job_commit(m, JOB_CHANGED_STATE | JOB_CHANGED_ON_READY, "mirrored again", NULL);
}

bool check_no_member(const Job *j, const char *verb, Failure *f) {
    if (!job_active_group(j))
        return true;
    return failure_set(f, FAILURE_NOT_SUPPORTED,
                       "Job %" PRIu64 " (disk \"%s\") is a member of a group and does not %s by "
                       "itself: give the order to the group, job %" PRIu64 ".",
                       j->id, j->disk, verb, j->group_id);
}

/* ── the kind ── */

static bool group_may_decide(const Job *g, Failure *f) {
    for (guint i = 0; i < g->parts->len; i++) {
        const Job *m = g->parts->pdata[i];
        if (m->kind->may_decide && !m->kind->may_decide(m, f)) {
            g_autofree char *why = g_steal_pointer(&f->message);
            return failure_set(f, f->kind, "Disk \"%s\" (job %" PRIu64 "): %s", m->disk, m->id,
                               why);
        }
    }
    return true;
}

/* Nothing is doomed: the members delete what is theirs, when the definition does not name it any more. */
const JobKind kind_group = {
    .name = "group",
    .done = RESULT_PIVOTED,
    .unchanged = "the guest stays on its sources",
    .clean = files_clean,
    .may_decide = group_may_decide,
};

/* ── making ── */

static void join(Job *m, Job *g) {
    m->group = g;
    m->group_id = g->id;
    m->on_ready = ON_READY_WAIT; /* the end is the group's */
    g_ptr_array_add(g->parts, m);
}

Job *group_new(uint64_t id, GPtrArray *members, GroupOptions *o) {
    const Job *first = members->pdata[0];
    Job *g = job_alloc(&kind_group, id, domain_journal_identity(first->domain));
    g_autoptr(GString) disks = g_string_new(NULL);

    g_assert(members->len <= GROUP_MAX);
    for (guint i = 0; i < members->len; i++) {
        Job *m = members->pdata[i];
        join(m, g);
        g_string_append_printf(disks, "%s%s", i ? "," : "", m->disk);
        /* One file names all disks: it is the group's. */
        if (m->copy.definition && !g->copy.definition)
            g->copy.definition = g_strdup(m->copy.definition);
        g_clear_pointer(&m->copy.definition, g_free);
    }
    g->n_members = members->len;
    g->domain = first->domain;
    g->domain_name = g_strdup(first->domain_name);
    g->domain_path = g_strdup(first->domain_path);
    g->disk = g_strdup(disks->str);
    g->device = g_strdup("");
    g->instance = first->instance;
    g->owner = first->owner;
    g->created = now_realtime();
    if (o->request_id) {
        g_free(g->request_id);
        g->request_id = g_steal_pointer(&o->request_id);
    }
    g->on_ready = o->on_ready;
    g->pause_guest = o->pause_guest;
    g->max_pause = o->max_pause;
    return g;
}

void group_restore_member(Job *m, Job *g) {
    if (g && job_is_group(g)) {
        join(m, g);
        return;
    }
    uint64_t lost = m->group_id;
    m->group_id = 0;
    if (!job_is_active(m))
        return;
    job_warn(m, "The record of its group, job %" PRIu64 ", is lost; it is a job of its own now.",
             lost);
    if (m->domain && domain_definition(m->domain)[0])
        m->copy.definition = g_strdup(domain_definition(m->domain));
    /* Its end was not for itself alone, and nobody is left to decide it: the source has everything. */
    if (!m->decided && (m->intent == INTENT_PIVOT || m->intent == INTENT_FINISH) &&
        job_transition(m, EVENT_CANCEL))
        m->intent = INTENT_CANCEL;
}

static void follow_record(Job *m, const Job *g) {
    bool ending = g->state == JOB_PIVOTING || g->state == JOB_FINISHING;
    bool went_ahead = m->intent == INTENT_PIVOT || m->intent == INTENT_FINISH;

    if (!job_is_active(m) || m->result != RESULT_NONE || m->redone)
        return;
    m->decided = g->decided;
    if (ending || g->state == JOB_CANCELLING) {
        m->state = g->decided ? JOB_PENDING : g->state;
        m->intent = g->intent;
    } else if (went_ahead && m->state != JOB_READY) {
        m->state = JOB_READY;
        m->intent = INTENT_NONE;
    }
}

/* What concerns the group is one transaction. A record may be missing all the same (a damaged row is set aside), or be
 * older: what a member's record says of the end counts only as its group's does, whatever a journal brings back. */
void group_restore(Job *g) {
    bool cancelled = false;

    if (!job_is_group(g) || !job_is_active(g))
        return;
    for (guint i = 0; i < g->parts->len; i++)
        cancelled |= ((const Job *) g->parts->pdata[i])->intent == INTENT_CANCEL;
    /* Not all are there, so it cannot be all of them; or a member is to be cancelled, which is never its own business. */
    if ((cancelled || g->parts->len < g->n_members) && !g->decided && g->intent != INTENT_CANCEL &&
        job_transition(g, EVENT_CANCEL))
        g->intent = INTENT_CANCEL;
    for (guint i = 0; i < g->parts->len; i++)
        follow_record(g->parts->pdata[i], g);
}
