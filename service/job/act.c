/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Carrying out the steps: each function does one action of job_step() and ends in job_action_done(), or records
 * something, whose durability advances the job. */

#include <string.h>

#include "job/internal.h"
#include "log.h"

static QmpBatch *batch_new(Job *j) {
    j->batch = qmp_batch_new(domain_qmp(j->domain), domain_qmp_timeout(j->domain));
    return j->batch;
}

/* Sends the batch and, right behind it, a look (scope 0: the event that follows asks for it, or else the timer): QEMU answers both in order, so what is seen is what the batch has done. */
static void batch_go(Job *j, QmpBatchDone done, unsigned scope) {
    QmpClient *qmp = domain_qmp(j->domain);

    if (!qmp) {
        j->batch = qmp_batch_free(j->batch);
        job_look_again(j, scope);
        j->again = false; /* the disconnect will be reported and advances the job */
        return;
    }
    j->busy = true;
    qmp_cork(qmp);
    if (qmp_batch_send(j->batch, j->event, done, j) < 0) {
        j->batch = NULL;
        j->busy = j->again = false;
    }
    job_look_again(j, scope);
    for (guint i = 0; i < j->parts->len; i++)
        ((Job *) j->parts->pdata[i])->fresh = j->fresh;
    qmp_uncork(qmp);
}

/* Ends an action that only asked QEMU: an answer that never came says nothing, the look will tell. */
static void action_answered(Job *j, const QmpBatchResult *result, const char *what) {
    j->batch = NULL;
    if (result->error == -EREMOTEIO) {
        log_warning("Job %" PRIu64 ": QEMU refuses %s: %s", j->id, what, result->text);
        job_action_retry(j);
        return;
    }
    job_action_done(j);
}

void job_back_out(Job *j, FailureKind kind, const char *message) {
    if (j->decided || !job_transition(j, EVENT_BACK_OUT))
        return;
    j->intent = INTENT_NONE;
    j->on_ready = ON_READY_WAIT;
    j->asked = j->prepared = false;
    job_set_error(j, kind, "%s", message);
    journal_cork(j->journal);
    group_follow(j, EVENT_BACK_OUT, "backed out");
    job_commit(j, JOB_CHANGED_STATE | JOB_CHANGED_ON_READY, "backed out", NULL);
    journal_uncork(j->journal);
}

/* ── records ── */

static void told_running(Job *j) {
    if (j->domain) /* the mirror's filter stands between device and image now; no step waits to see it */
        domain_look_later(j->domain, LOOK_DISKS);
}

static void act_record_running(Job *j) {
    job_transition(j, EVENT_STARTED);
    job_commit(j, JOB_CHANGED_STATE, "", told_running);
}

void job_log(const Job *j, int level, const char *message_id, const char *format, ...) {
    g_autofree char *id = g_strdup_printf("%" PRIu64, j->id), *words = NULL;
    const LogField fields[] = {{"BLOCKJOB_JOB", id},
                               {"BLOCKJOB_DOMAIN", j->domain_name},
                               {"BLOCKJOB_DISK", j->disk},
                               {"BLOCKJOB_TARGET", job_target_path(j)},
                               {"BLOCKJOB_RESULT", job_result_to_string(j->result)},
                               {0}};
    va_list ap;

    va_start(ap, format);
    words = g_strdup_vprintf(format, ap);
    va_end(ap);
    log_with_fields(level, message_id, fields, "Job %s (\"%s\", disk \"%s\"): %s", id,
                    j->domain_name, j->disk, words);
}

static void told_ready(Job *j) {
    job_log(j, LOG_INFO, MESSAGE_JOB_READY, "ready.");
}

static void act_record_ready(Job *j) {
    job_transition(j, EVENT_IN_SYNC);
    j->ready = now_realtime();
    /* Known by the time of an order; and so that nothing is owed any more at its end. */
    domain_look(j->domain, LOOK_LIST | LOOK_PROGRESS | LOOK_EXPORTS | domain_owed_look(j->domain));
    job_commit(j, JOB_CHANGED_STATE, "", told_ready);
}

static void act_order(Job *j) {
    g_auto(Failure) f = {0};
    JobIntent intent = j->on_ready == ON_READY_PIVOT ? INTENT_PIVOT : INTENT_FINISH;

    if (!job_check_exports(j, intent, &f) || (j->kind->may_decide && !j->kind->may_decide(j, &f))) {
        j->on_ready = ON_READY_WAIT;
        job_set_error(j, f.kind, "%s", f.message);
        job_commit(j, JOB_CHANGED_ON_READY, "the promised end cannot be had", NULL);
        return;
    }
    job_record_end(j, intent, NULL, NULL);
}

static void act_record_halt(Job *j) {
    j->halted = true;
    j->halt_time = now_realtime();
    job_commit(j, 0, "the guest will be stopped", NULL);
}

/* ── the switch ── */

/* A refusal may mean that the end is under way already (asked for before a reconnect): only a fresh look tells whether
 * there is something to back out of. */
static void on_completed(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    j->batch = NULL;
    if (result->error == -EREMOTEIO) {
        g_free(j->refused);
        j->refused = g_strdup(result->text);
        job_look_again(j, LOOK_JOBS | LOOK_DISKS);
    }
    job_action_done(j);
}

static void add_completion(const Job *j, QmpBatch *b) {
    if (j->intent == INTENT_PIVOT)
        qmp_batch_add(b, false, "job-complete", json_pack("{s:s}", "id", j->qemu_id), -1);
    else
        qmp_batch_add(b, false, "block-job-cancel",
                      json_pack("{s:s, s:b}", "device", j->qemu_id, "force", false), -1);
}

static void act_complete(Job *j) {
    QmpBatch *b = batch_new(j);
    bool runs = domain_guest_runs(j->domain);

    if (j->halted && runs) {
        qmp_batch_add(b, false, "stop", NULL, -1);
        j->stopped = true;
        j->halt_since = now_monotonic();
    }
    for (guint i = 0; i < j->parts->len; i++) {
        Job *part = j->parts->pdata[i];
        const QemuJob *q = job_in_qemu(part);
        if (job_part_follows(j, part) && q && q->phase == QJOB_READY)
            add_completion(part, b);
    }
    j->asked = true;
    batch_go(j, on_completed, LOOK_LIST); /* pending already, as a rule; else its event tells */
}

static void act_abort(Job *j);

static void told_decided(Job *j) {
    j->deciding = 0;
}

static void act_decide(Job *j) {
    g_auto(Failure) f = {0};

    if (j->kind->may_decide && !j->kind->may_decide(j, &f)) {
        job_set_error(j, f.kind, "%s", f.message);
        act_abort(j);
        return;
    }
    /* What cannot be recorded must not hold the guest's writes: after DECISION_DEADLINE the job is rolled back, and a
     * record that has not been begun with is taken back for that. */
    if (journal_state(j->journal) == JOURNAL_FULL) {
        j->again = false;
        return;
    }
    if (j->chain.one_phase && job_transition(j, EVENT_DECIDE))
        j->intent = INTENT_FINISH;
    j->decided = true;
    j->deciding = j->chain.one_phase ? 0 : j->hold_since; /* nobody waits for that of one phase */
    journal_cork(j->journal);
    for (guint i = 0; i < j->parts->len; i++)
        copy_target_sync_now(
            j->parts->pdata[i]); /* at the latest; as a rule it was before the order */
    group_follow(j, EVENT_DECIDE, "decided");
    job_commit(j, j->chain.one_phase ? JOB_CHANGED_STATE : 0, "decided", told_decided);
    journal_uncork(j->journal);
}

void job_guest_goes_on(Job *j) {
    uint64_t now = now_realtime(), stood = 0;

    uint64_t at_most = j->halt_since > 0 ? now_monotonic() - j->halt_since : 0;
    if (j->halt_since > 0 && j->domain)
        stood = domain_guest_stood(j->domain, j->halt_time);
    if (j->halt_since > 0 &&
        (stood == 0 || stood > at_most)) /* no events, or QEMU's clock was set */
        stood = at_most;
    else if (stood == 0 && j->hold_since > 0 && j->halt_time > 0 &&
             now > j->halt_time) /* stopped by an earlier life of the service */
        stood = now - j->halt_time;
    if (stood > 0) {
        j->guest_paused += stood;
        log_info("Job %" PRIu64 ": the guest stood for %.1f ms.", j->id, (double) stood / 1000);
    }
    j->halt_since = j->halt_time = 0;
    j->halted = false;
}

static void on_finalized(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    for (guint i = 0; i < j->parts->len; i++) {
        Job *part = j->parts->pdata[i];
        part->finalized = part->end_looked && result->error == 0;
    }
    if (result->error == 0 && !j->halted && j->hold_since > 0) {
        uint64_t waited = now_monotonic() - j->hold_since;
        j->guest_paused += waited;
        log_info("Job %" PRIu64 ": the guest's writes waited for %.1f ms.", j->id,
                 (double) waited / 1000);
    }
    action_answered(j, result, "to finalize");
}

/* Does it wait for the decision about the whole? */
static bool is_pending(const Job *j, const Job *part) {
    const QemuJob *q = job_in_qemu(part);
    return q && q->phase == QJOB_PENDING && job_part_follows(j, part);
}

static void act_finalize(Job *j) {
    QmpBatch *b = batch_new(j);
    unsigned scope = LOOK_LIST | LOOK_BLOCK;

    for (guint i = 0; i < j->parts->len; i++) {
        Job *part = j->parts->pdata[i];
        if (!is_pending(j, part))
            continue;
        qmp_batch_add(b, false, "job-finalize", json_pack("{s:s}", "id", part->qemu_id), -1);
        part->end_looked = true;
        scope |= part->copy.under_filter || part->chain.one_phase ? LOOK_GRAPH : 0;
    }
    if (j->halted) {
        qmp_batch_add(b, true, "cont", NULL, -1);
        scope |= LOOK_STATUS; /* does it run? */
    }
    for (guint i = 0; i < j->parts->len; i++) {
        Job *part = j->parts->pdata[i];
        if (is_pending(j, part) && part->kind->finalize)
            part->kind->finalize(part, b);
    }
    batch_go(j, on_finalized, scope);
}

static void on_continued(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    if (result->error == -EREMOTEIO)
        job_warn(j, "The guest was stopped for the switch and cannot be let go on: %s",
                 result->text);
    action_answered(j, result, "to let the guest go on");
}

static void act_continue_guest(Job *j) {
    qmp_batch_add(batch_new(j), false, "cont", NULL, -1);
    batch_go(j, on_continued, LOOK_JOBS);
}

static void on_aborted(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    if (result->error == -EREMOTEIO)
        j->aborting = false;
    action_answered(j, result, "to cancel");
}

static void act_abort(Job *j) {
    QmpBatch *b = batch_new(j);

    if (job_is_group(j) && j->error == FAILURE_NONE)
        job_set_error(j, FAILURE_QEMU,
                      "Not all disks of the group came to the common point in time, so none was "
                      "switched and the guest goes on.%s%s",
                      j->refused ? " QEMU says: " : "", j->refused ? j->refused : "");
    for (guint i = 0; i < j->parts->len; i++) {
        Job *part = j->parts->pdata[i];
        const QemuJob *q = job_in_qemu(part);
        bool there =
            q && (q->phase == QJOB_RUNNING || q->phase == QJOB_READY || is_pending(j, part));
        if (part != j && (!there || part->aborting || part->intent == INTENT_CANCEL))
            continue; /* a member that is cancelled by itself */
        qmp_batch_add(b, false, "job-cancel", json_pack("{s:s}", "id", part->qemu_id), -1);
        part->end_looked = true;
    }
    j->aborting = true;
    batch_go(j, on_aborted, LOOK_JOBS | LOOK_DISKS);
}

/* ── the end ── */

/* QEMU's words are then only those of our own job-cancel. */
static bool is_given_up_with_group(const Job *j, const QemuJob *q) {
    return j->group && j->group->error != FAILURE_NONE &&
           (!q || !q->error || strstr(q->error, "cancel"));
}

static void settle_failed(Job *j, const char *why) {
    const QemuJob *q = job_in_qemu(j);

    if (j->error != FAILURE_NONE && j->io == IO_OK)
        return; /* said already */
    if (is_given_up_with_group(j, q))
        job_set_error(j, j->group->error,
                      "The job was ended with its group, job %" PRIu64
                      ", which could not be brought to its end; the guest stays on its source.",
                      j->group_id);
    else if (q && q->error)
        job_set_error(j, strstr(q->error, "No space left") ? FAILURE_NO_SPACE : FAILURE_QEMU,
                      "The job failed; %s. QEMU says: %s", j->kind->unchanged, q->error);
    else
        job_set_error(j, FAILURE_QEMU, "The job ended in QEMU before its time (%s); %s.", why,
                      j->kind->unchanged);
}

/* Would a restart come to another result than was found just now? Without QEMU, the record alone says which image is right;
 * and a failure may be told by nothing that is left, e.g. when QEMU has refused a command of the setup. */
static bool contradicts_record(const Job *j) {
    JobResult by_record = !j->decided                 ? RESULT_NONE
                          : j->intent == INTENT_PIVOT ? j->kind->done
                                                      : RESULT_FINISHED;

    return j->decided
               ? j->result != by_record
               : job_is_switched(j) || j->result == RESULT_FINISHED || j->result == RESULT_FAILED;
}

/* Finishing work deletes and rewrites: what it goes by must not be forgotten in its middle. That of a job of one phase
 * begins with job-dismiss, for QEMU keeps hold of its nodes until then. */
void job_record_result(Job *j) {
    if (contradicts_record(j) || j->chain.one_phase)
        job_commit(j, 0, job_result_to_string(j->result), NULL);
}

static void act_settle(Job *j, const Step *step) {
    j->result = step->result == RESULT_PIVOTED ? j->kind->done : step->result;
    if (job_is_group(j) && (step->result == RESULT_LOST || step->result == RESULT_FAILED))
        group_set_error(j);
    else if (step->result == RESULT_LOST)
        j->kind->lost(j);
    else if (step->result == RESULT_FAILED)
        settle_failed(j, step->why);
    else if (j->error != FAILURE_NONE)
        job_set_error(j, FAILURE_NONE, "%s", "");
    if (step->result == RESULT_PIVOTED && !j->decided)
        job_warn(j, j->chain.one_phase
                        ? "The job was ended by somebody else's command."
                        : "The guest was switched to the target by somebody else's command.");
    job_record_result(j);
}

static void act_clean(Job *j) {
    j->busy = true;
    j->kind->clean(j);
}

static void told_concluded(Job *j) {
    bool lost = j->result == RESULT_LOST;

    job_log(j, lost ? LOG_WARNING : LOG_INFO, lost ? MESSAGE_JOB_LOST : MESSAGE_JOB_CONCLUDED,
            "%s%s%s", job_result_to_string(j->result), j->error_message[0] ? ": " : ".",
            j->error_message);
    j->hooks.finished(j, j->userdata);
}

void job_conclude(Job *j) {
    job_transition(j, EVENT_CONCLUDE);
    j->finished = now_realtime();
    j->io = IO_OK;
    j->paused = j->halted = false;
    if (job_is_switched(j) || j->result == RESULT_FINISHED)
        j->progress.done =
            j->progress.total; /* the target has everything, whenever it was counted last */
    j->progress.rate = 0;
    j->progress.expected_end = 0;
    job_commit(j, JOB_CHANGED_STATE | JOB_CHANGED_IO | JOB_CHANGED_PROGRESS, j->error_message,
               told_concluded);
}

static void act_conclude(Job *j) {
    /* Where its disk stands now must be known as long as how the job ended: one transaction. */
    journal_cork(j->journal);
    if (j->domain && domain_needs_saving(j->domain))
        domain_save(j->domain, NULL, NULL, NULL);
    for (guint i = 0; i < j->parts->len; i++)
        if (j->parts->pdata[i] != j && job_is_active(j->parts->pdata[i]))
            job_conclude(j->parts->pdata[i]);
    job_conclude(j);
    journal_uncork(j->journal);
}

static void on_dismissed(const QmpBatchResult *result, void *userdata) {
    action_answered(userdata, result, "to dismiss the job");
}

static void act_dismiss(Job *j) {
    QmpBatch *b = batch_new(j);
    bool over = j->state == JOB_CONCLUDED; /* else it is what a failed switch has left */

    j->leftover_gone = true;
    if (over && j->kind->dismiss)
        j->kind->dismiss(j, b);
    qmp_batch_add(b, false, "job-dismiss", json_pack("{s:s}", "id", j->qemu_id), -1);
    batch_go(j, on_dismissed, over ? 0 : LOOK_LIST);
    if (over && j->domain) /* nobody waits to see it gone */
        domain_look_later(j->domain, LOOK_LIST);
}

void job_act(Job *j, const Step *step) {
    switch (step->action) {
    case STEP_SETUP:
        j->busy = true;
        j->kind->setup(j);
        return;
    case STEP_RECORD_RUNNING:
        act_record_running(j);
        return;
    case STEP_RECORD_READY:
        act_record_ready(j);
        return;
    case STEP_ORDER:
        act_order(j);
        return;
    case STEP_PREPARE:
        j->busy = true;
        files_prepare(j);
        return;
    case STEP_RECORD_HALT:
        act_record_halt(j);
        return;
    case STEP_COMPLETE:
        act_complete(j);
        return;
    case STEP_DECIDE:
        act_decide(j);
        return;
    case STEP_FINALIZE:
        act_finalize(j);
        return;
    case STEP_AGAIN:
        group_mirror_again(j);
        return;
    case STEP_CONTINUE_GUEST:
        act_continue_guest(j);
        return;
    case STEP_ABORT:
        act_abort(j);
        return;
    case STEP_SETTLE:
        act_settle(j, step);
        return;
    case STEP_CLEAN:
        act_clean(j);
        return;
    case STEP_CONCLUDE:
        act_conclude(j);
        return;
    case STEP_DISMISS:
        act_dismiss(j);
        return;
    case STEP_RELEASE:
        j->released = true;
        return;
    case STEP_REFUSE:
        log_error("Job %" PRIu64
                  ": state %s with intent \"%s\" does not fit to what QEMU says; nothing is done.",
                  j->id, job_state_to_string(j->state), job_intent_to_string(j->intent));
        j->again = false;
        return;
    case STEP_WAIT:
    case _STEP_MAX:
        break;
    }
    j->again = false;
}
