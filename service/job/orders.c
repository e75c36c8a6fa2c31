/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The orders that people give: the three ends, and what only QEMU is asked for. Each is refused with a sentence or done. */

#include "job/internal.h"

static const char *state_phrase(const Job *j) {
    return job_state_to_string(j->state);
}

static bool check_link(const Job *j, Failure *f) {
    if (!j->domain || domain_process_gone(j->domain))
        return failure_set(f, FAILURE_DOMAIN_NOT_RUNNING, "Domain \"%s\" is not running.",
                           j->domain_name);
    if (domain_state(j->domain) == DOMAIN_CONNECTING)
        return failure_set(f, FAILURE_DOMAIN_UNRESPONSIVE,
                           "Domain \"%s\" is being connected to, try again in a moment.",
                           j->domain_name);
    if (!domain_is_live(j->domain))
        return failure_set(f, FAILURE_DOMAIN_UNRESPONSIVE,
                           "Domain \"%s\" does not answer (%s); try again when it does.",
                           j->domain_name, domain_trouble(j->domain));
    return true;
}

static bool check_not_ending(const Job *j, Failure *f) {
    if (j->kind == &kind_foreign)
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "Job %" PRIu64
                           " was started in QEMU by somebody else and is only watched; "
                           "control it with the program that started it.",
                           j->id);
    if (j->state == JOB_CONCLUDED)
        return failure_set(f, FAILURE_ALREADY_ENDING, "Job %" PRIu64 " is over (%s).", j->id,
                           job_result_to_string(j->result));
    if (j->intent != INTENT_NONE)
        return failure_set(f, FAILURE_ALREADY_ENDING,
                           "Job %" PRIu64 " is ending already (%s); wait for it.", j->id,
                           state_phrase(j));
    return true;
}

static bool check_can_pivot(const Job *j, JobIntent intent, Failure *f) {
    if (intent != INTENT_PIVOT || g_strcmp0(j->copy.sync, "none") != 0)
        return true;
    return failure_set(
        f, FAILURE_NOT_SUPPORTED,
        "Job %" PRIu64
        " copies only new writes (sync \"none\"), the guest cannot be switched to its target: "
        "finish or cancel it.",
        j->id);
}

static bool check_in_sync(const Job *j, JobIntent intent, Failure *f) {
    if (!check_not_ending(j, f) || !check_can_pivot(j, intent, f))
        return false;
    if (j->state != JOB_READY)
        return failure_set(
            f, FAILURE_NOT_READY,
            "Job %" PRIu64
            " is not ready to %s: it is %s, %.0f %% copied. Wait until its state is ready "
            "(WaitFor, \"blockjobctl wait --for=ready %" PRIu64 "\"), or set OnReady.",
            j->id, job_intent_to_string(intent), state_phrase(j),
            j->progress.total ? 100.0 * (double) j->progress.done / (double) j->progress.total
                              : 0.0,
            j->id);
    if (j->io != IO_OK || j->paused)
        return failure_set(f, FAILURE_NOT_READY, "Job %" PRIu64 " is paused%s; resume it first.",
                           j->id, j->io != IO_OK ? " by an error" : "");
    return check_link(j, f) && job_check_exports(j, intent, f) &&
           (!j->kind->may_decide || j->kind->may_decide(j, f));
}

void job_record_end(Job *j, JobIntent intent, JournalDone done, void *userdata) {
    job_transition(j, intent == INTENT_PIVOT ? EVENT_PIVOT : EVENT_FINISH);
    j->intent = intent;
    if (!j->halted)
        j->stopped = false;
    /* May be stopped, from here on: in the same record, so that it is durable before `stop` is sent. */
    j->halted = j->halted || (j->pause_guest && domain_guest_runs(j->domain));
    j->halt_time = j->halted ? now_realtime() : 0;
    j->asked = j->prepared = false;
    if (j->error != FAILURE_NONE) /* what an earlier attempt left */
        job_set_error(j, FAILURE_NONE, "%s", "");
    /* How much is left to copy, hence how long the guest would stand, is asked while the record is being written. */
    job_look_again(j, LOOK_EXPORTS | (j->halted ? LOOK_LIST | LOOK_PROGRESS : 0));
    job_commit_order(j, JOB_CHANGED_STATE, j->halted ? "the guest will be stopped" : "", done,
                     userdata);
}

static bool order_cancel(Job *j, const EndOptions *o, JournalDone done, void *userdata,
                         Failure *f) {
    if (j->intent != INTENT_CANCEL && !j->decided && o->force && j->intent != INTENT_NONE &&
        job_is_active(j))
        ; /* a pivot or finish that is not decided yet can be taken back */
    else if (!check_not_ending(j, f)) {
        if (f->kind == FAILURE_ALREADY_ENDING && j->intent != INTENT_CANCEL && job_is_active(j))
            failure_set(f, FAILURE_ALREADY_ENDING,
                        j->decided
                            ? "Job %" PRIu64 " is %s and past the point of no return."
                            : "Job %" PRIu64
                              " is %s; to cancel it all the same, give the option \"force\".",
                        j->id, state_phrase(j));
        return false;
    }
    if (j->result != RESULT_NONE)
        return failure_set(f, FAILURE_ALREADY_ENDING, "Job %" PRIu64 " is over already (%s).",
                           j->id, job_result_to_string(j->result));
    if (o->delete_target >= 0)
        j->copy.delete_target = o->delete_target;
    job_transition(j, EVENT_CANCEL);
    j->intent = INTENT_CANCEL;
    j->asked = j->aborting = false;
    job_commit_order(j, JOB_CHANGED_STATE, o->force ? "force" : "", done, userdata);
    return true;
}

bool job_order_end(Job *j, JobIntent intent, const EndOptions *o, JournalDone done, void *userdata,
                   Failure *f) {
    if (intent == INTENT_CANCEL)
        return order_cancel(j, o, done, userdata, f);
    if (!check_in_sync(j, intent, f))
        return false;
    if (o->pause_guest >= 0)
        j->pause_guest = o->pause_guest;
    if (o->max_pause != UINT64_MAX)
        j->max_pause = o->max_pause;
    job_record_end(j, intent, done, userdata);
    return true;
}

bool job_set_on_ready(Job *j, OnReady on_ready, JournalDone done, void *userdata, Failure *f) {
    JobIntent intent = on_ready == ON_READY_PIVOT ? INTENT_PIVOT : INTENT_NONE;

    if (!check_not_ending(j, f) || !check_can_pivot(j, intent, f))
        return false;
    j->on_ready = on_ready;
    job_commit_order(j, JOB_CHANGED_ON_READY, on_ready_to_string(on_ready), done, userdata);
    return true;
}

/* ── orders that only ask QEMU ── */

typedef struct {
    Job *job;
    JobReply reply;
    void *userdata;
    unsigned (*then)(Job *j, uint64_t number, const char *word); /* what has changed: JobChange */
    uint64_t number;
    char *word;
    QmpSlot *slot;
} JobAsk;

static void ask_finish(JobAsk *ask, const Failure *f) {
    ask->reply(f, ask->userdata);
    g_free(ask->word);
    g_free(ask);
}

void job_asks_give_up(Job *j) {
    g_auto(Failure) f = {0};

    failure_set(&f, FAILURE_DOMAIN_NOT_RUNNING,
                "Domain \"%s\" was detached; QEMU was not asked to the end.", j->domain_name);
    while (j->asks->len > 0) {
        JobAsk *ask = g_ptr_array_steal_index(j->asks, 0);
        qmp_slot_cancel(ask->slot);
        ask_finish(ask, &f);
    }
}

/* The reply waits for the record, as that of every order. */
static void on_ask_durable(int error, void *userdata) {
    g_auto(Failure) f = {0};

    if (error < 0)
        failure_set(&f, FAILURE_JOURNAL, "QEMU has done it, but the journal has failed.");
    ask_finish(userdata, &f);
}

static void on_asked(QmpClient *c, json_t *result, const QmpError *error, void *userdata) {
    JobAsk *ask = userdata;
    Job *j = ask->job;
    g_auto(Failure) f = {0};

    g_ptr_array_remove(j->asks, ask);
    if (!error) {
        unsigned changed = ask->then(j, ask->number, ask->word);
        job_look_again(j, LOOK_JOBS); /* the view is of before */
        job_commit_order(j, changed, "", on_ask_durable, ask);
        return;
    }
    if (error->error != 0)
        failure_set(&f, FAILURE_DOMAIN_UNRESPONSIVE,
                    "QEMU did not answer (%s); look at the job before you try again.", error->text);
    else if (g_str_equal(error->class_name, "CommandNotFound"))
        failure_set(&f, FAILURE_NOT_SUPPORTED, "This QEMU cannot do that: %s", error->text);
    else
        failure_set(&f, FAILURE_QEMU, "QEMU refuses: %s", error->text);
    ask_finish(ask, &f);
}

/* May QEMU be asked for that now? resume: also while an end is under way that an error has held up. */
static bool check_askable(const Job *j, bool resume, Failure *f) {
    bool ending = j->state == JOB_PIVOTING || j->state == JOB_FINISHING;

    if (resume && ending && !j->decided)
        return check_link(j, f);
    if (!check_not_ending(j, f) || !check_link(j, f))
        return false;
    if (j->state != JOB_RUNNING && j->state != JOB_READY)
        return failure_set(f, FAILURE_NOT_READY, "Job %" PRIu64 " is %s; wait until it runs.",
                           j->id, state_phrase(j));
    return true;
}

static bool job_ask(Job *j, const char *command, json_t *arguments,
                    unsigned (*then)(Job *, uint64_t, const char *), uint64_t number,
                    const char *word, JobReply reply, void *userdata, Failure *f) {
    if (!check_askable(j, g_str_equal(command, "block-job-resume"), f)) {
        json_decref(arguments);
        return false;
    }
    JobAsk *ask = g_new0(JobAsk, 1);
    ask->job = j;
    ask->reply = reply;
    ask->userdata = userdata;
    ask->then = then;
    ask->number = number;
    ask->word = g_strdup(word);
    if (domain_send(j->domain, &ask->slot, command, arguments, -1, on_asked, ask) < 0) {
        g_free(ask->word);
        g_free(ask);
        return failure_set(f, FAILURE_DOMAIN_UNRESPONSIVE,
                           "Domain \"%s\" was just disconnected; try again.", j->domain_name);
    }
    g_ptr_array_add(j->asks, ask);
    return true;
}

static unsigned then_paused(Job *j, uint64_t paused, const char *word) {
    j->paused = paused;
    j->progress.rate = 0;
    return JOB_CHANGED_IO | JOB_CHANGED_PROGRESS;
}

bool job_pause(Job *j, JobReply reply, void *userdata, Failure *f) {
    return job_ask(j, "block-job-pause", json_pack("{s:s}", "device", j->qemu_id), then_paused, 1,
                   NULL, reply, userdata, f);
}

bool job_unpause(Job *j, JobReply reply, void *userdata, Failure *f) {
    return job_ask(j, "block-job-resume", json_pack("{s:s}", "device", j->qemu_id), then_paused, 0,
                   NULL, reply, userdata, f);
}

static unsigned then_speed(Job *j, uint64_t speed, const char *word) {
    j->speed = speed;
    return JOB_CHANGED_SPEED;
}

bool job_set_speed(Job *j, uint64_t speed, JobReply reply, void *userdata, Failure *f) {
    if (speed > INT64_MAX)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The speed is too large: give bytes per second, 0 = no limit.");
    return job_ask(j, "block-job-set-speed",
                   json_pack("{s:s, s:I}", "device", j->qemu_id, "speed", (json_int_t) speed),
                   then_speed, speed, NULL, reply, userdata, f);
}

static unsigned then_mode(Job *j, uint64_t number, const char *mode) {
    g_free(j->copy_mode);
    j->copy_mode = g_strdup(mode);
    return JOB_CHANGED_MODE;
}

bool job_set_copy_mode(Job *j, const char *mode, JobReply reply, void *userdata, Failure *f) {
    if (!g_str_equal(mode, "write-blocking"))
        return failure_set(
            f, FAILURE_INVALID_ARGS,
            "A running job can only be changed to the copy mode \"write-blocking\".");
    return job_ask(j, "block-job-change",
                   json_pack("{s:s, s:s, s:s}", "id", j->qemu_id, "type", "mirror", "copy-mode",
                             "write-blocking"),
                   then_mode, 0, mode, reply, userdata, f);
}
