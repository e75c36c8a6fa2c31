/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What job_step() goes by: the facts of a job, gathered from its record and from the last look at QEMU. Changes nothing. */

#include "job/internal.h"

StepLink job_link(const Job *j) {
    if (!j->domain)
        return LINK_GONE;
    const Instance *now = domain_instance(j->domain);
    bool same = instance_equal(now, &j->instance), seen = false;

    for (guint i = 0; i < j->parts->len; i++)
        seen |= job_in_qemu(j->parts->pdata[i]) != NULL;

    if (domain_is_live(j->domain)) {
        /* A QMP proxy may have been restarted: the job's own name in QEMU is the better witness. */
        if (!same && !seen && (j->instance.pid > 0 || now->pid > 0))
            return LINK_GONE;
        return domain_look_number(j->domain) >= j->fresh ? LINK_LIVE : LINK_UNKNOWN;
    }
    if (domain_state(j->domain) == DOMAIN_CONNECTING)
        return LINK_UNKNOWN; /* after a restart: who answers at the socket is about to be known */
    if (same ? domain_process_gone(j->domain) : instance_is_gone(&j->instance))
        return LINK_GONE;
    return LINK_UNKNOWN;
}

static StepRoot job_root(const Job *j) {
    if (j->kind->root)
        return j->kind->root(j);
    /* From QEMU's answer itself: the published disk may be a look behind. */
    const QemuDevice *device = view_device(domain_view(j->domain), j->device);

    if (!device || !device->root)
        return ROOT_OTHER;
    g_autofree char *target = g_strconcat(j->tag, "-t", NULL);
    const char *first =
        view_first_of(domain_view(j->domain), device->root, j->copy.source_node, target);
    if (!first)
        return ROOT_OTHER;
    return g_str_equal(first, target) ? ROOT_TARGET : ROOT_SOURCE;
}

/* QEMU was started again: on which image does the disk stand now? By path, the nodes are new. */
static StepRoot root_of_successor(const Job *j) {
    Disk *disk = domain_disk_by_device(j->domain, j->device);

    if (!disk || !disk->node || !j->copy.source_path)
        return ROOT_OTHER;
    return g_str_equal(disk->source, j->copy.source_path) ? ROOT_SOURCE
           : g_str_equal(disk->source, j->target)         ? ROOT_TARGET
                                                          : ROOT_OTHER;
}

/* Bytes still to copy at the measured rate: how long would the guest stand? Unknown rate with little left is short. */
static bool may_stop(const Job *j, uint64_t max_pause) {
    uint64_t left = progress_remaining(&j->progress);
    uint64_t time = progress_remaining_time(&j->progress);

    if (left <= MIB)
        return true;
    if (time == UINT64_MAX) /* no rate yet: assume a slow disk */
        time = left * USEC_PER_SEC / (50 * MIB);
    return time <= max_pause;
}

bool job_may_stop(const Job *j) {
    bool may = true;

    for (guint i = 0; i < j->parts->len; i++)
        may &= may_stop(j->parts->pdata[i], j->max_pause);
    return may;
}

bool job_holds(const Job *j) {
    bool holds = false;

    for (guint i = 0; i < j->parts->len; i++) {
        const QemuJob *q = job_in_qemu(j->parts->pdata[i]);
        holds |= q && q->phase == QJOB_PENDING && job_part_follows(j, j->parts->pdata[i]);
    }
    return holds;
}

/* Pending or halted for longer than allowed? */
static bool job_is_overdue(const Job *j) {
    uint64_t limit = job_holds(j) ? DECISION_DEADLINE : MAX(j->max_pause, DECISION_DEADLINE);

    return j->hold_since > 0 && now_monotonic() - j->hold_since > limit;
}

StepFacts job_facts(const Job *j) {
    StepFacts f = {
        .state = j->state,
        .intent = j->intent,
        .decided = j->decided,
        .result = j->result,
        .clean = j->clean,
        .halted = j->halted,
        .foreign = j->kind == &kind_foreign,
        .member = job_active_group(j) && !j->redone,
        .one_phase = j->chain.one_phase,
        .leftover = j->redone && !j->leftover_gone,
        .link = job_link(j),
        .on_ready = j->on_ready != ON_READY_WAIT && !j->paused,
        .must_stop = j->pause_guest,
        .may_stop = job_may_stop(j),
        .asked = j->asked,
        .aborting = j->aborting,
        .must_prepare = (j->intent == INTENT_PIVOT || j->chain.one_phase) && !j->prepared &&
                        j->domain && j->copy.definition,
        .root = ROOT_OTHER,
        .waits = job_active_group(j) && (j->clean || !j->group->clean),
    };

    if (job_is_group(j)) {
        f.guest_runs = f.link == LINK_LIVE && domain_guest_runs(j->domain);
        f.overdue = f.link == LINK_LIVE && job_is_overdue(j);
        group_facts(j, &f);
        return f;
    }
    if (f.link == LINK_GONE && j->chain.one_phase && j->result == RESULT_NONE)
        f.root = chain_root_by_header(j);
    else if (f.link == LINK_GONE && j->domain && domain_is_live(j->domain))
        f.root = root_of_successor(j);
    if (f.link == LINK_LIVE) {
        const QemuJob *q = job_in_qemu(j);
        f.qjob = q ? q->phase : QJOB_ABSENT;
        f.root = job_root(j);
        f.guest_runs = domain_guest_runs(j->domain);
        f.overdue = job_is_overdue(j);
    }
    return f;
}
