/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a job: its states and the one transition table, its records, and its steps. */

#include "job/job.h"

#include <assert.h>
#include <string.h>

#include "job/internal.h"
#include "log.h"

/* ── the transition table ── */

#define X_ _JOB_STATE_MAX /* cannot be */
/* clang-format off */
static const JobState transitions[][_EVENT_MAX] = {
    /*                   PREPARE        STARTED      IN_SYNC    PIVOT         FINISH         BACK_OUT   DECIDE         CANCEL          CONCLUDE */
    [JOB_QUEUED]     = { JOB_PREPARING, X_,          X_,        X_,           X_,            X_,        X_,            JOB_CANCELLING, JOB_CONCLUDED },
    [JOB_PREPARING]  = { X_,            JOB_RUNNING, X_,        X_,           X_,            X_,        X_,            JOB_CANCELLING, JOB_CONCLUDED },
    [JOB_RUNNING]    = { X_,            X_,          JOB_READY, X_,           X_,            X_,        JOB_FINISHING, JOB_CANCELLING, JOB_CONCLUDED },
    [JOB_READY]      = { X_,            X_,          X_,        JOB_PIVOTING, JOB_FINISHING, X_,        X_,            JOB_CANCELLING, JOB_CONCLUDED },
    [JOB_PENDING]    = { JOB_PREPARING, X_,          X_,        X_,           X_,            X_,        X_,            X_,             JOB_CONCLUDED },
    [JOB_PIVOTING]   = { X_,            X_,          X_,        X_,           X_,            JOB_READY, JOB_PENDING,   JOB_CANCELLING, JOB_CONCLUDED },
    [JOB_FINISHING]  = { X_,            X_,          X_,        X_,           X_,            JOB_READY, JOB_PENDING,   JOB_CANCELLING, JOB_CONCLUDED },
    [JOB_CANCELLING] = { X_,            X_,          X_,        X_,           X_,            X_,        X_,            X_,             JOB_CONCLUDED },
    [JOB_CONCLUDED]  = { X_,            X_,          X_,        X_,           X_,            X_,        X_,            X_,             X_            },
};
/* clang-format on */
static_assert(G_N_ELEMENTS(transitions) == _JOB_STATE_MAX, "every state has its row");

bool job_transition(Job *j, JobEvent event) {
    JobState next = transitions[j->state][event];

    if (next == X_) {
        log_error("Job %" PRIu64 ": event %d cannot be in state %s; nothing was done.", j->id,
                  (int) event, job_state_to_string(j->state));
        return false;
    }
    j->state = next;
    return true;
}

static const char *const on_ready_names[_ON_READY_MAX] = {"wait", "pivot", "finish"};

const char *on_ready_to_string(OnReady o) {
    return o < _ON_READY_MAX ? on_ready_names[o] : "";
}

OnReady on_ready_from_string(const char *s) {
    int i = string_index(on_ready_names, _ON_READY_MAX, s);
    return i < 0 ? _ON_READY_MAX : (OnReady) i;
}

/* ── readers ── */

uint64_t job_id(const Job *j) {
    return j->id;
}
JobState job_state(const Job *j) {
    return j->state;
}
JobResult job_result(const Job *j) {
    return j->result;
}
uint64_t job_group_id(const Job *j) {
    return j->group_id;
}
GPtrArray *job_parts(const Job *j) {
    return j->parts;
}
bool job_is_active(const Job *j) {
    return j->state != JOB_CONCLUDED;
}
bool job_is_released(const Job *j) {
    bool released = j->released;

    for (guint i = 0; i < j->parts->len; i++)
        released &= ((const Job *) j->parts->pdata[i])->released;
    return released;
}
bool job_is_exported(const Job *j) {
    return j->exported;
}
Domain *job_domain(const Job *j) {
    return j->domain;
}
const char *job_device(const Job *j) {
    return j->device;
}
const char *job_request_id(const Job *j) {
    return j->request_id;
}
uint32_t job_owner(const Job *j) {
    return j->owner;
}
const char *job_target_path(const Job *j) {
    return j->target;
}
const char *job_target_format(const Job *j) {
    return j->copy.target_format;
}
bool job_target_is_block(const Job *j) {
    return j->copy.target_block;
}
bool job_is_switching(const Job *j) {
    return job_is_active(j) && j->domain && !domain_process_gone(j->domain) &&
           (j->halted || j->decided || (j->asked && j->state != JOB_CANCELLING));
}
const char *job_qemu_id(const Job *j) {
    return j->qemu_id;
}

static bool state_in_sync(JobState s) {
    return s == JOB_READY || s == JOB_PENDING || s == JOB_PIVOTING || s == JOB_FINISHING;
}

bool job_in_sync(const Job *j) {
    return !j->chain.one_phase && state_in_sync(j->state);
}

bool job_is_switched(const Job *j) {
    return j->result != RESULT_NONE && j->result == j->kind->done;
}

const char *job_mirror_type(const Job *j) {
    return j->kind == &kind_copy                            ? "copy"
           : j->kind == &kind_commit && !j->chain.one_phase ? "active-commit"
                                                            : NULL;
}

bool job_has_reached(const Job *j, JobState state) {
    if (j->shown.state == JOB_CONCLUDED || j->shown.state == state)
        return true;
    return state == JOB_READY && !j->chain.one_phase && state_in_sync(j->shown.state);
}

JobInfo job_info(const Job *j) {
    return (JobInfo){
        .id = j->id,
        .path = j->path,
        .group = j->group ? j->group->path : "/",
        .kind = j->kind->name,
        .domain_name = j->domain_name,
        .domain_path = j->domain_path,
        .disk = j->disk,
        .target = j->target,
        .state = job_state_to_string(j->shown.state),
        .result = j->shown.state == JOB_CONCLUDED ? job_result_to_string(j->shown.result) : "",
        .error_name = failure_name(j->error),
        .error_message = j->error_message,
        .io_status = io_status_to_string(j->io),
        .copy_mode = j->copy_mode,
        .on_ready = on_ready_to_string(j->on_ready),
        .owner_uid = j->owner,
        .restarts = j->restarts,
        .created = j->created,
        .ready = j->shown.ready,
        .finished = j->shown.finished,
        .guest_paused = j->guest_paused,
        .speed = j->speed,
        .done = j->progress.done,
        .total = j->progress.total,
        .rate = j->progress.rate,
        .expected_end = j->progress.expected_end,
        .paused = j->paused,
        .warnings = (char *const *) j->warnings->pdata,
    };
}

const QemuJob *job_in_qemu(const Job *j) {
    return j->domain ? view_job(domain_view(j->domain), j->qemu_id) : NULL;
}

/* ── life ── */

Job *job_alloc(const JobKind *kind, uint64_t id, const char *identity) {
    Job *j = g_new0(Job, 1);

    j->kind = kind;
    j->id = id;
    j->path = g_strdup_printf("/org/blockjob1/job/j%" PRIu64, id);
    j->tag = g_strdup_printf("bj-%s-%" PRIu64, identity, id);
    j->qemu_id = g_strdup(j->tag);
    j->target = g_strdup("");
    j->request_id = g_strdup("");
    j->error_message = g_strdup("");
    j->copy_mode = g_strdup("background");
    j->copy.target_format = g_strdup("");
    j->exported = true;
    j->warnings = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(j->warnings, NULL);
    j->commits = g_ptr_array_new();
    j->asks = g_ptr_array_new();
    j->parts = g_ptr_array_new();
    if (kind != &kind_group)
        g_ptr_array_add(j->parts, j);
    progress_init(&j->progress);
    return j;
}

typedef struct {
    Job *job; /* NULL: the job is gone, only the caller's continuation is left */
    JournalSlot *slot;
    unsigned changed;
    void (*then)(Job *j);
    JournalDone done;
    void *userdata;
    JobState state; /* as recorded: shown from then on */
    JobResult result;
    uint64_t ready, finished;
} JobCommit;

Job *job_free(Job *j) {
    if (!j)
        return NULL;
    for (guint i = 0; i < j->commits->len; i++) {
        JobCommit *c = j->commits->pdata[i];
        journal_slot_cancel(c->slot);
        g_free(c);
    }
    g_ptr_array_unref(j->commits);
    if (j->group)
        g_ptr_array_remove(j->group->parts, j);
    for (guint i = 0; i < j->parts->len; i++)
        ((Job *) j->parts->pdata[i])->group = NULL;
    g_ptr_array_unref(j->parts);
    job_asks_give_up(j);
    g_ptr_array_unref(j->asks);
    qmp_batch_free(j->batch);
    qmp_slot_cancel(j->slot);
    journal_slot_cancel(j->file_work);
    journal_slot_cancel(j->target_sync);
    sd_event_source_disable_unref(j->timer);
    copy_clear(&j->copy);
    chain_clear(&j->chain);
    g_ptr_array_unref(j->warnings);
    g_free(j->path);
    g_free(j->tag);
    g_free(j->qemu_id);
    g_free(j->domain_name);
    g_free(j->domain_path);
    g_free(j->disk);
    g_free(j->device);
    g_free(j->target);
    g_free(j->request_id);
    g_free(j->error_message);
    g_free(j->copy_mode);
    g_free(j->refused);
    g_free(j);
    return NULL;
}

void job_warn(Job *j, const char *format, ...) {
    va_list ap;

    va_start(ap, format);
    char *text = g_strdup_vprintf(format, ap);
    va_end(ap);
    for (guint i = 0; i + 1 < j->warnings->len; i++)
        if (g_str_equal(j->warnings->pdata[i], text)) {
            g_free(text);
            return;
        }
    log_warning("Job %" PRIu64 ": %s", j->id, text);
    g_ptr_array_insert(j->warnings, (gint) j->warnings->len - 1, text);
    j->changed |= JOB_CHANGED_WARNINGS;
}

void job_set_error(Job *j, FailureKind kind, const char *format, ...) {
    va_list ap;

    va_start(ap, format);
    g_free(j->error_message);
    j->error_message = g_strdup_vprintf(format, ap);
    va_end(ap);
    j->error = kind;
    j->changed |= JOB_CHANGED_ERROR;
}

/* ── commits: durable first, then told, then acted on ── */

JournalJob *job_record(const Job *j) {
    JournalJob *r = g_new0(JournalJob, 1);

    r->id = j->id;
    r->domain = g_strdup(j->domain_name);
    r->disk = g_strdup(j->disk);
    r->kind = g_strdup(j->kind->name);
    r->target = g_strdup(j->target);
    r->result = g_strdup(j->state == JOB_CONCLUDED ? job_result_to_string(j->result) : "");
    r->error_name = g_strdup(failure_name(j->error));
    r->error_message = g_strdup(j->error_message);
    r->request_id = g_strdup(j->request_id);
    r->owner_uid = j->owner;
    r->created = j->created;
    r->finished = j->finished;
    r->restarts = j->restarts;
    r->exported = j->exported;
    r->document = job_document(j);
    return r;
}

static void on_durable(int error, void *userdata) {
    JobCommit *c = userdata;
    Job *j = c->job;
    JobCommit commit = *c;

    g_ptr_array_remove(j->commits, c);
    g_free(c);
    if (error < 0) {
        /* The journal is lost: nothing may be told or done any more; the service exits and recovers. */
        if (commit.done)
            commit.done(error, commit.userdata);
        return;
    }
    j->shown.state = commit.state;
    j->shown.result = commit.result;
    j->shown.ready = commit.ready;
    j->shown.finished = commit.finished;
    if (commit.changed)
        j->hooks.changed(j, commit.changed, j->userdata);
    if (commit.done)
        commit.done(0, commit.userdata);
    if (commit.then)
        commit.then(j);
    job_advance(j);
}

static void commit_put(Job *j, unsigned changed, const char *detail, void (*then)(Job *j),
                       JournalDone done, void *userdata) {
    JobCommit *c = g_new0(JobCommit, 1);
    JournalJob *record = job_record(j);

    c->job = j;
    c->changed = changed | j->changed;
    c->then = then;
    c->done = done;
    c->userdata = userdata;
    c->state = j->state;
    c->result = j->result;
    c->ready = j->ready;
    c->finished = j->finished;
    j->changed = 0;
    g_ptr_array_add(j->commits, c);
    journal_put_job(j->journal, record, job_state_to_string(j->state),
                    job_intent_to_string(j->intent), detail, on_durable, c, &c->slot);
    journal_job_free(record);
}

void job_commit(Job *j, unsigned changed, const char *detail, void (*then)(Job *j)) {
    commit_put(j, changed, detail, then, NULL, NULL);
}

void job_commit_order(Job *j, unsigned changed, const char *detail, JournalDone done,
                      void *userdata) {
    commit_put(j, changed, detail, NULL, done, userdata);
}

/* The only record that is not durable yet; false: it may be so any moment. */
static bool commit_withdraw(Job *j) {
    if (j->commits->len != 1)
        return false;
    JobCommit *c = j->commits->pdata[0];
    if (!journal_slot_withdraw(j->journal, c->slot))
        return false;
    g_ptr_array_remove(j->commits, c);
    j->changed |= c->changed;
    g_free(c);
    j->decided = false;
    return true;
}

void job_take_back_decision(Job *j) {
    if (!commit_withdraw(j))
        return;
    /* In one transaction with those of its members: what is true of one is true of all. */
    for (guint i = 0; i < j->parts->len && job_is_group(j); i++) {
        Job *m = j->parts->pdata[i];
        if (commit_withdraw(m))
            m->state = j->state;
    }
    j->deciding = 0;
    job_set_error(j, FAILURE_JOURNAL,
                  "The journal could not be written while the guest's writes waited for it, so the "
                  "switch was given up; the guest stays on its source. Make room for the journal "
                  "and copy again.");
    log_warning("Job %" PRIu64 ": %s", j->id, j->error_message);
}

static void surroundings(Job *j, Journal *journal, sd_event *event, const JobHooks *hooks,
                         void *userdata) {
    j->journal = journal;
    j->event = event;
    j->hooks = *hooks;
    j->userdata = userdata;
    j->shown.state = j->state;
    j->shown.result = j->result;
    j->shown.ready = j->ready;
    j->shown.finished = j->finished;
}

void job_start(Job *j, Journal *journal, sd_event *event, const JobHooks *hooks, void *userdata,
               JournalDone done, void *done_data) {
    surroundings(j, journal, event, hooks, userdata);
    j->fresh_setup = true;
    if (j->state == JOB_QUEUED)
        job_transition(j, EVENT_PREPARE);
    commit_put(j, 0, "created", NULL, done, done_data);
}

void job_resume_after_restart(Job *j, Journal *journal, sd_event *event, const JobHooks *hooks,
                              void *userdata) {
    surroundings(j, journal, event, hooks, userdata);
    if (!job_is_active(j))
        return;
    j->restarts++;
    j->stopped = j->halted; /* perhaps by an earlier life */
    if (j->mode_asked)      /* pause and speed are seen in QEMU, this is not */
        job_warn(j,
                 "Whether QEMU has changed the copy mode to \"write-blocking\" is not known, for "
                 "the service ended before QEMU had answered; order it again to be sure.");
    j->mode_asked = false;
    if (j->domain && j->kind->restored)
        j->kind->restored(j);
    job_log(j, LOG_INFO, MESSAGE_JOB_RECOVERED, "found in the journal, %s%s%s.",
            job_state_to_string(j->state), j->intent ? ", to be " : "",
            job_intent_to_string(j->intent));
    job_commit(j, JOB_CHANGED_RESTARTS, "recovered", NULL);
}

/* ── steps ── */

/* In place of a look's number: none counts until the timer has asked for one. */
#define RETRY UINT64_MAX

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
    Job *j = userdata;

    if (j->deciding > 0 && now_monotonic() - j->deciding > DECISION_DEADLINE)
        job_take_back_decision(j);
    copy_target_sync_now(j);
    if (j->fresh == RETRY && now_monotonic() >= j->retry_at)
        job_look_again(j, LOOK_JOBS | LOOK_DISKS);
    else if (j->domain)
        domain_look(j->domain, LOOK_JOBS | LOOK_DISKS);
    job_advance(j);
    return 0;
}

/* What is unfinished is looked at again: soon while the guest's writes or processors are held, else every few seconds. */
static void job_arm_for_later(Job *j) {
    uint64_t delay = j->hold_since || j->deciding || (j->asked && !j->decided) ? 100 * USEC_PER_MSEC
                                                                               : 5 * USEC_PER_SEC;
    uint64_t at = j->fresh == RETRY ? j->retry_at : now_monotonic() + delay, armed = 0;
    int enabled = SD_EVENT_OFF;

    if (!j->timer) {
        sd_event_add_time(j->event, &j->timer, CLOCK_MONOTONIC, at, 10 * USEC_PER_MSEC, on_timer,
                          j);
        return;
    }
    sd_event_source_get_enabled(j->timer, &enabled);
    sd_event_source_get_time(j->timer, &armed);
    if (enabled != SD_EVENT_OFF && armed <= at)
        return; /* each look comes by here: it must not push the timer back for ever */
    sd_event_source_set_time(j->timer, at);
    sd_event_source_set_enabled(j->timer, SD_EVENT_ONESHOT);
}

/* QEMU's flag flickers whenever anything drains; what lasts is a pause, also one that is in no record: somebody else's,
 * or our own just before a death. */
static unsigned observe_pause(Job *j, const QemuJob *q) {
    bool differs = q->io == IO_OK && q->paused != j->paused &&
                   (j->state == JOB_RUNNING || j->state == JOB_READY);

    if (!differs || j->pause_since == 0) {
        j->pause_since = differs ? now_monotonic() : 0;
        return 0;
    }
    if (now_monotonic() - j->pause_since < PAUSE_LASTS)
        return 0;
    j->pause_since = 0;
    j->paused = q->paused;
    return JOB_CHANGED_IO;
}

static unsigned observe_io(Job *j, const QemuJob *q) {
    if (q->io == j->io)
        return 0;
    j->io = q->io;
    if (q->io == IO_NO_SPACE)
        job_set_error(
            j, FAILURE_NO_SPACE,
            "There is no space left for the target \"%s\": make room, then resume the job.",
            j->target);
    else if (q->io == IO_FAILED)
        job_set_error(j, FAILURE_QEMU,
                      "QEMU has stopped the %s after an I/O error on the source or on the target "
                      "\"%s\": resume the "
                      "job when the cause is removed, or cancel it.",
                      j->kind->name, j->target);
    else
        job_set_error(j, FAILURE_NONE, "%s", "");
    return JOB_CHANGED_IO | JOB_CHANGED_ERROR;
}

/* Takes over what QEMU counts; tells at most as often as the domain is polled. */
static void job_observe(Job *j) {
    const QemuJob *q = job_link(j) == LINK_LIVE ? job_in_qemu(j) : NULL;
    unsigned changed = 0;

    if (job_is_group(j)) {
        group_observe(j);
        return;
    }
    if (!q || !q->block || q->phase == QJOB_CONCLUDED || q->phase == QJOB_FAILED)
        return;
    changed |= observe_pause(j, q) | observe_io(j, q);
    bool paused = q->paused && (q->io != IO_OK || j->paused);
    if (progress_update(&j->progress, q->done, q->total, paused, now_monotonic(), now_realtime()))
        changed |= JOB_CHANGED_PROGRESS;
    if (q->speed != j->speed) { /* set by somebody else, or just before a death */
        j->speed = q->speed;
        changed |= JOB_CHANGED_SPEED;
    }
    if (changed)
        j->hooks.changed(j, changed, j->userdata);
}

/* Once a job, and recorded at once: no other record is about to be written while the switch waits. */
static void warn_of_pause(Job *j) {
    unsigned before = j->changed;

    job_warn(
        j, "The pause would be longer than %.1f s, so the switch waits until less is left to copy.",
        (double) j->max_pause / USEC_PER_SEC);
    if (j->changed != before)
        job_commit(j, 0, "waits for a shorter pause", NULL);
}

/* An NBD client that connects while the job is pending gets past QEMU 7.2's hold: an exported disk is not switched. */
static bool check_export(const Job *j, JobIntent intent, Failure *f) {
    /* The mirror's filter has taken the source's place under its users, and may not be in the graph yet. */
    g_autofree char *filter = g_strconcat(j->tag, "-m", NULL);

    if (intent != INTENT_PIVOT || !j->domain || !j->copy.source_node ||
        (!view_is_exported(domain_view(j->domain), j->copy.source_node) &&
         !view_is_exported(domain_view(j->domain), filter)))
        return true;
    return failure_set(f, FAILURE_NOT_SUPPORTED,
                       "Disk \"%s\" has an export in QEMU (NBD or the like), whose clients would "
                       "write past the switch: "
                       "end the export (block-export-del), then pivot.",
                       j->disk);
}

bool job_check_exports(const Job *j, JobIntent intent, Failure *f) {
    for (guint i = 0; i < j->parts->len; i++)
        if (!check_export(j->parts->pdata[i], intent, f))
            return false;
    return true;
}

/* The export may be newer than the order: backed out while that is possible. */
static bool exports_forbid(Job *j, bool not_yet) {
    g_auto(Failure) f = {0};

    if (!not_yet || job_check_exports(j, j->intent, &f))
        return false;
    job_back_out(j, f.kind, f.message);
    return true;
}

/* What a fresh look changes in what this run remembers. false: look again before anything is decided. */
static bool job_note_look(Job *j, StepFacts *f) {
    bool over = f->qjob == QJOB_ABSENT || f->qjob == QJOB_CONCLUDED || f->qjob == QJOB_FAILED;
    bool ending =
        (j->state == JOB_PIVOTING || j->state == JOB_FINISHING) && j->result == RESULT_NONE;
    bool there = f->qjob == QJOB_RUNNING || f->qjob == QJOB_READY;

    /* The list of jobs may be newer than the graph: which image the guest stands on is read after the end, not before. */
    if (over && j->result == RESULT_NONE && job_is_active(j) && j->state != JOB_QUEUED &&
        j->state != JOB_PREPARING && !job_is_group(j) &&
        (!j->end_looked || domain_block_number(j->domain) < j->fresh)) {
        j->end_looked = true;
        job_look_again(j, LOOK_JOBS | LOOK_DISKS);
        return false;
    }
    if (j->refused && !job_is_group(j)) {
        g_autofree char *words = g_steal_pointer(&j->refused);
        if (ending && there && !j->decided) {
            g_autofree char *message = g_strdup_printf(
                "QEMU refuses to end the job now; it stays ready. QEMU says: %s", words);
            job_back_out(j, FAILURE_QEMU, message);
            return false;
        }
    }
    if (job_is_group(j) && group_note_members(j))
        *f = job_facts(j);
    /* It runs, though we had it stopped: somebody has let it go on. It stands, though we have not stopped it yet: somebody
     * else has, and it is not ours to let go on. */
    bool not_yet = ending && there && !j->asked;
    if (f->halted && domain_status_number(j->domain) >= j->fresh &&
        (f->guest_runs ? !not_yet : !j->stopped)) {
        job_guest_goes_on(j);
        f->halted = j->stopped = false;
    }
    if (not_yet && f->must_stop && f->guest_runs && !f->may_stop && f->qjob == QJOB_READY)
        warn_of_pause(j);
    if (job_holds(j) || (j->halted && !f->guest_runs)) {
        if (j->hold_since == 0)
            j->hold_since = now_monotonic();
    } else
        j->hold_since = 0;
    if (exports_forbid(j, ending && there && !j->asked))
        return false;
    return j->commits->len == 0;
}

/* What a member has done may be what its group waits for, and the other way round. */
static void advance_others(const Job *j) {
    g_autoptr(GPtrArray) parts = g_ptr_array_copy(j->parts, NULL, NULL);

    if (j->group)
        job_advance(j->group);
    for (guint i = 0; i < parts->len && job_is_group(j); i++)
        job_advance(parts->pdata[i]);
}

void job_advance(Job *j) {
    bool acted = false;

    if (j->released || !j->journal)
        return;
    if (j->advancing) {
        j->again = true;
        return;
    }
    j->advancing = true;
    job_observe(j);
    if (j->stage == SETUP_WAITING || j->stage == SETUP_LEFTOVER)
        j->kind->setup_look(j);
    do {
        j->again = false;
        if (j->busy || j->commits->len > 0)
            break;
        StepFacts facts = job_facts(j);
        if (facts.link == LINK_LIVE && !job_note_look(j, &facts))
            break;
        Step step = job_step(&facts);
        if (step.action == STEP_WAIT)
            break;
        log_debug("Job %" PRIu64 ": %s, QEMU: %s → %s (%s)", j->id, job_state_to_string(j->state),
                  qemu_job_phase_to_string(facts.qjob), step_action_to_string(step.action),
                  step.why);
        if (step.action == STEP_SETTLE)
            log_info("Job %" PRIu64 ": %s: %s.", j->id, job_result_to_string(step.result),
                     step.why);
        j->again = acted = true;
        job_act(j, &step);
    } while (j->again && !j->released);
    j->advancing = false;
    if (j->released) {
        j->hooks.released(j, j->userdata);
        return;
    }
    if ((!j->busy && j->commits->len == 0) || j->deciding || j->stage == SETUP_WAITING ||
        j->stage == SETUP_LEFTOVER)
        job_arm_for_later(j);
    if (acted)
        advance_others(j);
}

void job_action_retry(Job *j) {
    j->fresh = RETRY;
    j->retry_at = now_monotonic() + USEC_PER_SEC;
    job_action_done(j);
}

void job_action_done(Job *j) {
    j->busy = false;
    job_advance(j);
    advance_others(j);
}

void job_look_again(Job *j, unsigned scope) {
    if (!j->domain)
        return;
    j->fresh = domain_look_next(j->domain);
    if (scope)
        domain_look(j->domain, scope);
}

void job_link_changed(Job *j) {
    if (j->domain && !domain_is_live(j->domain)) {
        /* What was asked for may have been dropped with the connection: a fresh look, then perhaps ask again. */
        j->asked = j->aborting = j->end_looked = false;
        g_clear_pointer(&j->refused, g_free);
        j->hold_since = 0;
        j->fresh = domain_look_next(j->domain);
    }
    job_advance(j);
}

void job_abandon(Job *j) {
    job_asks_give_up(j);
    j->domain = NULL;
    j->batch = qmp_batch_free(j->batch);
    g_clear_pointer(&j->slot, qmp_slot_cancel);
    j->busy = j->file_work != NULL;
    j->stage = SETUP_IDLE;
    job_advance(j);
}

void job_unexport(Job *j, JournalDone done, void *userdata) {
    JournalJob *record;

    j->exported = false;
    record = job_record(j);
    journal_put_job(j->journal, record, job_state_to_string(j->state), "", "dismissed", done,
                    userdata, NULL);
    journal_job_free(record);
}
