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
    bool can = true;

    for (guint i = 0; i < j->parts->len; i++)
        can &= g_strcmp0(((const Job *) j->parts->pdata[i])->copy.sync, "none") != 0;
    if (intent != INTENT_PIVOT || can)
        return true;
    return failure_set(
        f, FAILURE_NOT_SUPPORTED,
        "Job %" PRIu64
        " copies only new writes (sync \"none\"), the guest cannot be switched to its target: "
        "finish or cancel it.",
        j->id);
}

static bool check_two_phase(const Job *j, Failure *f) {
    if (!j->chain.one_phase)
        return true;
    return failure_set(f, FAILURE_NOT_TWO_PHASE,
                       "Job %" PRIu64
                       " (%s) ends by itself and is never ready, so there is nothing to pivot or "
                       "finish: wait for its end, or cancel it.",
                       j->id, j->kind->name);
}

static bool check_in_sync(const Job *j, JobIntent intent, Failure *f) {
    if (!check_not_ending(j, f) || !check_two_phase(j, f) || !check_can_pivot(j, intent, f))
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
    journal_cork(j->journal);
    for (guint i = 0; i < j->parts->len; i++)
        copy_target_sync_now(j->parts->pdata[i]);
    group_follow(j, intent == INTENT_PIVOT ? EVENT_PIVOT : EVENT_FINISH, "with its group");
    job_commit_order(j, JOB_CHANGED_STATE, j->halted ? "the guest will be stopped" : "", done,
                     userdata);
    journal_uncork(j->journal);
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
    for (guint i = 0; i <= j->parts->len; i++) { /* of a group: each member, and itself */
        const Job *over = i < j->parts->len ? j->parts->pdata[i] : j;
        if (over->result != RESULT_NONE)
            return failure_set(f, FAILURE_ALREADY_ENDING, "Job %" PRIu64 " is over already (%s).",
                               over->id, job_result_to_string(over->result));
    }
    if (o->delete_target >= 0 && j->kind->of_chain)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "delete-target: a %s has no target of its own; leave it out.",
                           j->kind->name);
    for (guint i = 0; i < j->parts->len && o->delete_target >= 0; i++)
        ((Job *) j->parts->pdata[i])->copy.delete_target = o->delete_target;
    job_transition(j, EVENT_CANCEL);
    j->intent = INTENT_CANCEL;
    j->asked = j->aborting = false;
    journal_cork(j->journal);
    group_follow(j, EVENT_CANCEL, "with its group");
    job_commit_order(j, JOB_CHANGED_STATE, o->force ? "force" : "", done, userdata);
    journal_uncork(j->journal);
    return true;
}

bool job_order_end(Job *j, JobIntent intent, const EndOptions *o, JournalDone done, void *userdata,
                   Failure *f) {
    if (!check_no_member(j, job_intent_to_string(intent), f))
        return false;
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

    if (!check_no_member(j, "end by itself", f) || !check_not_ending(j, f) ||
        !check_two_phase(j, f) || !check_can_pivot(j, intent, f))
        return false;
    j->on_ready = on_ready;
    job_commit_order(j, JOB_CHANGED_ON_READY, on_ready_to_string(on_ready), done, userdata);
    return true;
}

/* ── orders that are QEMU's to carry out: recorded, asked, and what came of it recorded and told ── */

typedef struct {
    const char *command;
    json_t *(*arguments)(const Job *j, uint64_t number, const char *word);
    unsigned (*then)(Job *j, uint64_t number, const char *word); /* what has changed: JobChange */
} AskKind;

typedef struct {
    Job *job;
    const AskKind *kind;
    JobReply reply;
    void *userdata;
    uint64_t number;
    char *word;
    bool sent;
    QmpSlot *slot;
    /* of a group: the members are asked, and the group is answered when they all are */
    unsigned open; /* members without an answer */
    Failure failure;
} JobAsk;

static JobAsk *ask_new(Job *j, const AskKind *kind, uint64_t number, const char *word,
                       JobReply reply, void *userdata) {
    JobAsk *ask = g_new0(JobAsk, 1);

    *ask = (JobAsk){.job = j,
                    .kind = kind,
                    .reply = reply,
                    .userdata = userdata,
                    .number = number,
                    .word = g_strdup(word)};
    return ask;
}

static void ask_free(JobAsk *ask) {
    failure_clear(&ask->failure);
    g_free(ask->word);
    g_free(ask);
}

static void ask_finish(JobAsk *ask) {
    ask->reply(&ask->failure, ask->userdata);
    ask_free(ask);
}

void job_asks_give_up(Job *j) {
    while (j->asks->len > 0) {
        JobAsk *ask = g_ptr_array_steal_index(j->asks, 0);
        qmp_slot_cancel(ask->slot);
        failure_set(&ask->failure, FAILURE_DOMAIN_NOT_RUNNING,
                    "Domain \"%s\" was detached; QEMU was not asked to the end.", j->domain_name);
        ask_finish(ask);
    }
}

/* The reply waits for the record, as that of every order. */
static void on_ask_durable(int error, void *userdata) {
    JobAsk *ask = userdata;

    if (error < 0 && ask->failure.kind == FAILURE_NONE)
        failure_set(&ask->failure, FAILURE_JOURNAL,
                    "QEMU has done it, but the journal has failed.");
    ask_finish(ask);
}

static void ask_done(JobAsk *ask) {
    Job *j = ask->job;
    unsigned changed = 0;

    if (ask->failure.kind == FAILURE_NONE) {
        changed = ask->kind->then(j, ask->number, ask->word);
        job_look_again(j, LOOK_JOBS); /* the view is of before */
    }
    job_commit_order(j, changed, ask->failure.message ? ask->failure.message : "", on_ask_durable,
                     ask);
}

static void on_asked(QmpClient *c, json_t *result, const QmpError *error, void *userdata) {
    JobAsk *ask = userdata;
    Job *j = ask->job;

    g_ptr_array_remove(j->asks, ask);
    if (error && error->error != 0)
        failure_set(&ask->failure, FAILURE_DOMAIN_UNRESPONSIVE,
                    "QEMU did not answer (%s); look at the job before you try again.", error->text);
    else if (error && g_str_equal(error->class_name, "CommandNotFound"))
        failure_set(&ask->failure, FAILURE_NOT_SUPPORTED, "This QEMU cannot do that: %s",
                    error->text);
    else if (error)
        failure_set(&ask->failure, FAILURE_QEMU, "QEMU refuses: %s", error->text);
    if (ask->word && ask->failure.kind != FAILURE_DOMAIN_UNRESPONSIVE)
        j->mode_asked = false;
    ask_done(ask);
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

static bool is_resume(const AskKind *kind) {
    return g_str_equal(kind->command, "block-job-resume");
}

static bool ask_send(JobAsk *ask) {
    Job *j = ask->job;

    ask->sent = true;
    if (!check_askable(j, is_resume(ask->kind), &ask->failure))
        return false;
    if (domain_send(j->domain, &ask->slot, ask->kind->command,
                    ask->kind->arguments(j, ask->number, ask->word), -1, on_asked, ask) < 0)
        return failure_set(&ask->failure, FAILURE_DOMAIN_UNRESPONSIVE,
                           "Domain \"%s\" was just disconnected; try again.", j->domain_name);
    return true;
}

/* Each ask has a record of its own, and they become durable in their order: it is the turn of the first that waits. */
static void ask_recorded(Job *j) {
    guint i = 0;

    while (i < j->asks->len && ((const JobAsk *) j->asks->pdata[i])->sent)
        i++;
    if (i == j->asks->len || ask_send(j->asks->pdata[i]))
        return;
    /* What was possible when it was ordered is not any more. */
    ask_finish(g_ptr_array_steal_index(j->asks, i));
}

static bool ask_one(Job *j, const AskKind *kind, uint64_t number, const char *word, JobReply reply,
                    void *userdata, Failure *f) {
    if (!check_askable(j, is_resume(kind), f))
        return false;
    json_t *arguments = kind->arguments(j, number, word);
    char *words = json_dumps(arguments, JSON_COMPACT);
    g_autofree char *detail = g_strdup_printf("%s %s", kind->command, words);

    free(words);
    json_decref(arguments);
    g_ptr_array_add(j->asks, ask_new(j, kind, number, word, reply, userdata));
    j->mode_asked |= word != NULL;
    job_commit(j, 0, detail, ask_recorded);
    return true;
}

static void on_member_asked(const Failure *f, void *userdata) {
    JobAsk *ask = userdata;

    if (f->kind != FAILURE_NONE && ask->failure.kind == FAILURE_NONE)
        failure_set(&ask->failure, f->kind, "%s", f->message);
    if (--ask->open == 0)
        ask_done(ask);
}

/* QEMU refuses to resume what is not paused, and only some of the members may be. */
static bool concerns(const AskKind *kind, const Job *part) {
    return !is_resume(kind) || part->paused || part->io != IO_OK;
}

static bool job_ask(Job *j, const AskKind *kind, uint64_t number, const char *word, JobReply reply,
                    void *userdata, Failure *f) {
    if (!job_is_group(j))
        return ask_one(j, kind, number, word, reply, userdata, f);
    if (!check_askable(j, is_resume(kind), f))
        return false;
    JobAsk *ask = ask_new(j, kind, number, word, reply, userdata);
    for (guint i = 0; i < j->parts->len; i++)
        if (concerns(kind, j->parts->pdata[i]) &&
            ask_one(j->parts->pdata[i], kind, number, word, on_member_asked, ask, &ask->failure))
            ask->open++;
    if (ask->open > 0)
        return true;
    if (ask->failure.kind == FAILURE_NONE)
        failure_set(&ask->failure, FAILURE_NOT_READY,
                    "No disk of the group of job %" PRIu64 " is paused.", j->id);
    failure_set(f, ask->failure.kind, "%s", ask->failure.message);
    ask_free(ask);
    return false;
}

static json_t *device_argument(const Job *j, uint64_t number, const char *word) {
    return json_pack("{s:s}", "device", j->qemu_id);
}

static unsigned then_paused(Job *j, uint64_t paused, const char *word) {
    j->paused = paused;
    j->progress.rate = 0;
    return JOB_CHANGED_IO | JOB_CHANGED_PROGRESS;
}

bool job_pause(Job *j, JobReply reply, void *userdata, Failure *f) {
    static const AskKind kind = {"block-job-pause", device_argument, then_paused};

    return job_ask(j, &kind, 1, NULL, reply, userdata, f);
}

bool job_unpause(Job *j, JobReply reply, void *userdata, Failure *f) {
    static const AskKind kind = {"block-job-resume", device_argument, then_paused};

    return job_ask(j, &kind, 0, NULL, reply, userdata, f);
}

static json_t *speed_arguments(const Job *j, uint64_t speed, const char *word) {
    return json_pack("{s:s, s:I}", "device", j->qemu_id, "speed", (json_int_t) speed);
}

static unsigned then_speed(Job *j, uint64_t speed, const char *word) {
    j->speed = speed;
    return JOB_CHANGED_SPEED;
}

bool job_set_speed(Job *j, uint64_t speed, JobReply reply, void *userdata, Failure *f) {
    static const AskKind kind = {"block-job-set-speed", speed_arguments, then_speed};

    if (speed > INT64_MAX)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The speed is too large: give bytes per second, 0 = no limit.");
    return job_ask(j, &kind, speed, NULL, reply, userdata, f);
}

static json_t *mode_arguments(const Job *j, uint64_t number, const char *mode) {
    return json_pack("{s:s, s:s, s:s}", "id", j->qemu_id, "type", "mirror", "copy-mode", mode);
}

static unsigned then_mode(Job *j, uint64_t number, const char *mode) {
    g_free(j->copy_mode);
    j->copy_mode = g_strdup(mode);
    return JOB_CHANGED_MODE;
}

bool job_set_copy_mode(Job *j, const char *mode, JobReply reply, void *userdata, Failure *f) {
    static const AskKind kind = {"block-job-change", mode_arguments, then_mode};

    if (j->kind->of_chain)
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "QEMU cannot change the copy mode of a %s, only that of a copy.",
                           j->kind->name);
    if (!g_str_equal(mode, "write-blocking"))
        return failure_set(
            f, FAILURE_INVALID_ARGS,
            "A running job can only be changed to the copy mode \"write-blocking\".");
    return job_ask(j, &kind, 0, mode, reply, userdata, f);
}
