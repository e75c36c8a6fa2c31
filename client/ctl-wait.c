/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Waiting for jobs, by signals only, also through a death of the service. */

#include "ctl-wait.h"
#include "ctl-terminal.h"

#include <stdio.h>
#include <string.h>

/* For how long a restarted service may take to publish a job that it does not show at once. */
#define RESTORE_USEC (10 * USEC_PER_SEC)

typedef struct {
    Waiter *waiter;
    uint64_t id;
    char *path;
    json_t *job;     /* NULL until read */
    bool was_ending; /* it was seen pivoting or finishing */
    bool hinted;     /* it was said that somebody has to end it */
    bool stop_told;  /* it was said that QEMU has stopped it */
    bool restarted;  /* the service came back and the job has not been read since */
    bool ended;      /* decided: code and message hold */
    CtlExit code;
    char *failure; /* what to complain of, NULL = nothing */
    sd_bus_slot *match, *read;
    sd_event_source *restore_timer;
} Followed;

struct Waiter {
    Ctl *ctl;
    Goal goal;
    Expect expect;
    bool steady;
    bool armed; /* decisions are made; before, jobs are only read */
    bool timed_out, service_lost, gave_up;
    GPtrArray *jobs; /* Followed */
    Progress *progress;
    sd_bus_slot *added_match, *removed_match;
    sd_event_source *timeout, *return_timer;
};

static void followed_read(Followed *f);

static void followed_free(void *data) {
    Followed *f = data;
    sd_bus_slot_unref(f->match);
    sd_bus_slot_unref(f->read);
    sd_event_source_disable_unref(f->restore_timer);
    json_decref(f->job);
    g_free(f->path);
    g_free(f->failure);
    g_free(f);
}

static Followed *followed_find(Waiter *w, uint64_t id, const char *path) {
    for (guint i = 0; i < w->jobs->len; i++) {
        Followed *f = w->jobs->pdata[i];
        if (path ? strcmp(f->path, path) == 0 : f->id == id)
            return f;
    }
    return NULL;
}

/* ---- decisions ---- */

static void followed_end(Followed *f, CtlExit code, char *failure_taken) {
    f->ended = true;
    f->code = code;
    g_free(f->failure);
    f->failure = failure_taken;
}

static CtlExit result_code(Expect expect, const char *result) {
    static const char *const wanted[] = {
        [EXPECT_PIVOT] = "pivoted",
        [EXPECT_FINISH] = "finished",
        [EXPECT_CANCEL] = "cancelled",
    };
    bool good = strcmp(result, "failed") != 0 && strcmp(result, "lost") != 0;

    if (expect != EXPECT_END && strcmp(result, wanted[expect]) == 0)
        return CTL_DONE;
    if (expect == EXPECT_PIVOT && strcmp(result, "committed") == 0) /* a pivot to the base */
        return CTL_DONE;
    if (strcmp(result, "cancelled") == 0)
        return CTL_CANCELLED;
    return expect == EXPECT_END && good ? CTL_DONE : CTL_FAILED;
}

/* A job that is ready does not end by itself; who waits for its end wants to know that. */
static void followed_hint(Followed *f) {
    bool waits = strcmp(value_string(f->job, "State"), "ready") == 0 &&
                 strcmp(value_string(f->job, "OnReady"), "wait") == 0;

    if (waits && !f->hinted)
        progress_note(f->waiter->progress,
                      "job %" PRIu64
                      " waits for its end: blockjobctl pivot, finish or cancel %" PRIu64,
                      f->id, f->id);
    f->hinted = waits;
}

/* Decides whether the job has come to its goal, from its properties alone. */
static void followed_decide(Followed *f) {
    Waiter *w = f->waiter;
    bool was_ending = f->was_ending;

    f->was_ending = job_is_ending(f->job);
    if (!w->armed || f->ended)
        return;
    if (job_is_concluded(f->job)) {
        CtlExit code = result_code(w->expect, value_string(f->job, "Result"));
        followed_end(f, code, code ? job_sentence(f->job) : NULL);
        return;
    }
    if (w->goal == GOAL_READY && job_is_ready(f->job)) {
        followed_end(f, CTL_DONE, NULL);
        return;
    }
    /* The end was tried and given up: the guest is on its source, and the job goes on. Nobody will
     * try again. A restarted service that shows "ready" without an error has not come to the order
     * yet. */
    const char *error = job_error(f->job);
    bool ready = strcmp(value_string(f->job, "State"), "ready") == 0;
    bool fell_back = was_ending && (!f->restarted || *error);
    bool refused = w->expect == EXPECT_END && *error;
    if (w->steady && ready && (fell_back || refused)) {
        followed_end(f, CTL_FAILED,
                     g_strdup_printf("Job %" PRIu64 " could not end and is ready again%s%s", f->id,
                                     *error ? ": " : ".", error));
    } else if (!w->steady)
        followed_hint(f);
}

/* After an I/O error QEMU holds the job until somebody deals with it. */
static void followed_stopped(Followed *f) {
    const char *io = value_string(f->job, "IoStatus"), *error = job_error(f->job);
    bool stopped = *io && strcmp(io, "ok") != 0 && !job_is_concluded(f->job);

    if (stopped && !f->stop_told)
        progress_note(f->waiter->progress,
                      "job %" PRIu64
                      " is stopped: %s; when that is mended: blockjobctl resume %" PRIu64,
                      f->id,
                      *error                        ? error
                      : strcmp(io, "no-space") == 0 ? "there is no space left"
                                                    : "QEMU has met an I/O error",
                      f->id);
    f->stop_told = stopped;
}

static void followed_changed(Followed *f) {
    /* While an order is given the terminal may belong to polkit's agent and a password. */
    if (f->waiter->armed) {
        progress_update(f->waiter->progress, f->id, f->job);
        followed_stopped(f);
    }
    followed_decide(f);
}

/* ---- reading ---- */

static int on_restore_late(sd_event_source *source, uint64_t usec, void *userdata) {
    Followed *f = userdata;
    followed_end(f, CTL_NO_OBJECT,
                 g_strdup_printf("Job %" PRIu64 " is not known to the service any more.", f->id));
    return 0;
}

static void followed_missing(Followed *f) {
    Waiter *w = f->waiter;

    if (f->job && f->restarted && !f->restore_timer) {
        sd_event_add_time_relative(w->ctl->event, &f->restore_timer, CLOCK_MONOTONIC, RESTORE_USEC,
                                   USEC_PER_MSEC * 100, on_restore_late, f);
        return;
    }
    followed_end(f, CTL_NO_OBJECT,
                 g_strdup_printf(
                     "There is no job %" PRIu64 ". \"blockjobctl list --all\" lists them.", f->id));
}

/* The service does not answer or is gone: wait for it, if it has ever been there. */
static void followed_unanswered(Followed *f, const sd_bus_error *error) {
    Waiter *w = f->waiter;

    if (!w->ctl->owner_seen || w->ctl->disconnected) {
        followed_end(f, error_exit_code(error->name), error_sentence(error));
        return;
    }
    if (!w->ctl->owner)
        return;
    progress_note(w->progress, "job %" PRIu64 ": the service does not answer; still waiting",
                  f->id);
    followed_read(f);
}

static int on_history(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
    Followed *f = userdata;
    const sd_bus_error *error = sd_bus_message_get_error(m);
    g_autoptr(json_t) records = NULL;
    json_t *record;
    size_t i;

    f->read = sd_bus_slot_unref(f->read);
    if (!error && value_read(m, &records) >= 0) {
        json_array_foreach (records, i, record) {
            if (value_u64(record, "id") != f->id)
                continue;
            g_autoptr(json_t) job = job_from_history(record);
            if (!f->job)
                f->job = json_object();
            json_object_update(f->job, job);
            followed_changed(f);
            return 0;
        }
    } else if (error && error_is_no_service(error)) {
        followed_unanswered(f, error);
        return 0;
    }
    followed_missing(f);
    return 0;
}

static int history_read(Followed *f) {
    Ctl *ctl = f->waiter->ctl;
    g_autoptr(sd_bus_message) m = NULL;
    int r = bus_call_new(ctl, CTL_ROOT, CTL_MANAGER, "ListHistory", &m);

    f->read = sd_bus_slot_unref(f->read);
    if (r >= 0)
        r = sd_bus_message_append(m, "a{sv}", 1, "limit", "u", (uint32_t) 10000);
    return r < 0 ? r : sd_bus_call_async(ctl->bus, &f->read, m, on_history, f, 0);
}

static void restarted_note(Followed *f) {
    if (f->restarted && !job_is_concluded(f->job))
        progress_note(f->waiter->progress, "job %" PRIu64 ": service restarted, job goes on",
                      f->id);
}

static int on_properties(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
    Followed *f = userdata;
    const sd_bus_error *error = sd_bus_message_get_error(m);
    g_autoptr(json_t) job = NULL;
    int r;

    f->read = sd_bus_slot_unref(f->read);
    if (error && error_is_no_object(error)) {
        r = history_read(f);
        if (r < 0)
            followed_end(f, CTL_FAILED, g_strdup(g_strerror(-r)));
        return 0;
    }
    if (error && error_is_no_service(error)) {
        followed_unanswered(f, error);
        return 0;
    }
    r = error ? -EIO : value_read(m, &job);
    if (r < 0) {
        followed_end(f, error ? error_exit_code(error->name) : CTL_FAILED,
                     g_strdup(error ? error->message : "The service's answer cannot be read."));
        return 0;
    }
    json_decref(f->job);
    f->job = g_steal_pointer(&job);
    f->restore_timer = sd_event_source_disable_unref(f->restore_timer);
    restarted_note(f);
    followed_changed(f);
    f->restarted = false;
    return 0;
}

static void followed_read(Followed *f) {
    Ctl *ctl = f->waiter->ctl;
    g_autoptr(sd_bus_message) m = NULL;
    int r = bus_call_new(ctl, f->path, "org.freedesktop.DBus.Properties", "GetAll", &m);

    f->read = sd_bus_slot_unref(f->read);
    if (r >= 0)
        r = sd_bus_message_append(m, "s", CTL_JOB);
    if (r >= 0)
        r = sd_bus_call_async(ctl->bus, &f->read, m, on_properties, f, 0);
    if (r < 0)
        followed_end(f, CTL_FAILED, g_strdup(g_strerror(-r)));
}

/* ---- signals ---- */

static int on_properties_changed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Followed *f = userdata;
    g_autoptr(json_t) changed = NULL, invalidated = NULL;
    const char *interface;
    int r = sd_bus_message_read(m, "s", &interface);

    if (r < 0 || strcmp(interface, CTL_JOB) != 0)
        return 0;
    r = value_read(m, &changed);
    if (r >= 0)
        r = value_read(m, &invalidated);
    /* Before the first answer, and after a restart, only the whole counts; it is on its way. */
    if (r < 0 || !f->job || f->read)
        return 0;
    if (json_array_size(invalidated) > 0)
        followed_read(f);
    json_object_update(f->job, changed);
    followed_changed(f);
    return 0;
}

/* InterfacesAdded and InterfacesRemoved: a job is restored, or was dismissed by somebody. */
static int on_interfaces(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Waiter *w = userdata;
    const char *path;

    if (sd_bus_message_read(m, "o", &path) < 0)
        return 0;
    Followed *f = followed_find(w, 0, path);
    if (f && !f->ended)
        followed_read(f);
    return 0;
}

static int on_return_late(sd_event_source *source, uint64_t usec, void *userdata) {
    Waiter *w = userdata;
    w->gave_up = true;
    return 0;
}

static void on_owner(void *userdata) {
    Waiter *w = userdata;

    w->return_timer = sd_event_source_disable_unref(w->return_timer);
    for (guint i = 0; i < w->jobs->len; i++) {
        Followed *f = w->jobs->pdata[i];
        f->restore_timer = sd_event_source_disable_unref(f->restore_timer);
        /* An answer that is under way would be the old service's last word. */
        if (!w->ctl->owner)
            f->read = sd_bus_slot_unref(f->read);
        else if (!f->ended) {
            f->restarted = f->restarted || f->job != NULL;
            followed_read(f);
        }
    }
    if (w->ctl->owner)
        return;
    progress_note(w->progress, "the service has stopped; waiting for it to come back");
    sd_event_add_time_relative(w->ctl->event, &w->return_timer, CLOCK_MONOTONIC, CTL_RETURN_USEC,
                               USEC_PER_SEC, on_return_late, w);
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
    Waiter *w = userdata;
    w->timed_out = true;
    return 0;
}

/* ---- life ---- */

Waiter *waiter_new(Ctl *ctl, Goal goal, Expect expect, bool steady) {
    Waiter *w = g_new0(Waiter, 1);

    w->ctl = ctl;
    w->goal = goal;
    w->expect = expect;
    w->steady = steady;
    w->jobs = g_ptr_array_new_with_free_func(followed_free);
    w->progress = progress_new(ctl->options);
    ctl->owner_changed = on_owner;
    ctl->owner_userdata = w;
    if (ctl->owner_seen && !ctl->owner)
        on_owner(w);
    sd_bus_match_signal_async(ctl->bus, &w->added_match, CTL_NAME, CTL_ROOT,
                              "org.freedesktop.DBus.ObjectManager", "InterfacesAdded",
                              on_interfaces, NULL, w);
    sd_bus_match_signal_async(ctl->bus, &w->removed_match, CTL_NAME, CTL_ROOT,
                              "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved",
                              on_interfaces, NULL, w);
    if (ctl->options->timeout)
        sd_event_add_time_relative(ctl->event, &w->timeout, CLOCK_MONOTONIC, ctl->options->timeout,
                                   USEC_PER_MSEC * 10, on_timeout, w);
    return w;
}

Waiter *waiter_free(Waiter *w) {
    if (!w)
        return NULL;
    w->ctl->owner_changed = NULL;
    sd_bus_slot_unref(w->added_match);
    sd_bus_slot_unref(w->removed_match);
    sd_event_source_disable_unref(w->timeout);
    sd_event_source_disable_unref(w->return_timer);
    g_ptr_array_unref(w->jobs);
    progress_free(w->progress);
    g_free(w);
    return NULL;
}

Progress *waiter_progress(Waiter *w) {
    return w->progress;
}

void waiter_add(Waiter *w, uint64_t id) {
    if (followed_find(w, id, NULL))
        return;
    Followed *f = g_new0(Followed, 1);
    f->waiter = w;
    f->id = id;
    f->path = job_path(id);
    g_ptr_array_add(w->jobs, f);
    /* The subscription leaves before the question, so the bus knows it when the answer is made. */
    int r = sd_bus_match_signal_async(w->ctl->bus, &f->match, CTL_NAME, f->path,
                                      "org.freedesktop.DBus.Properties", "PropertiesChanged",
                                      on_properties_changed, NULL, f);
    if (r < 0)
        followed_end(f, CTL_FAILED, g_strdup(g_strerror(-r)));
    else
        followed_read(f);
}

void waiter_drop(Waiter *w, uint64_t id, CtlExit code) {
    Followed *f = followed_find(w, id, NULL);
    if (f)
        followed_end(f, code, NULL);
}

const json_t *waiter_job(Waiter *w, uint64_t id) {
    const Followed *f = followed_find(w, id, NULL);
    return f ? f->job : NULL;
}

/* ---- running ---- */

/* The numbers of the jobs that have not ended, joined by sep. */
static char *waiter_open_ids(Waiter *w, const char *sep, guint *ret_n) {
    GString *text = g_string_new(NULL);
    guint n = 0;

    for (guint i = 0; i < w->jobs->len; i++) {
        const Followed *f = w->jobs->pdata[i];
        if (!f->ended)
            g_string_append_printf(text, "%s%" PRIu64, n++ ? sep : "", f->id);
    }
    *ret_n = n;
    return g_string_free(text, FALSE);
}

static bool waiter_is_over(const Waiter *w, bool reading) {
    for (guint i = 0; i < w->jobs->len; i++) {
        const Followed *f = w->jobs->pdata[i];
        if (!f->ended && (!reading || !f->job))
            return false;
    }
    return true;
}

/* Why the wait ends although a job has not: prints it. */
static CtlExit waiter_break(Waiter *w, int r) {
    guint n;
    g_autofree char *list = waiter_open_ids(w, ", ", &n), *words = waiter_open_ids(w, " ", &n);
    const char *jobs = n > 1 ? "jobs" : "job", *go = n > 1 ? "go" : "goes";

    progress_clear(w->progress);
    if (w->ctl->interrupted) {
        complain("%s %s %s on; blockjobctl wait %s / cancel %s", jobs, list, go, words, words);
        return CTL_DETACHED;
    }
    if (w->timed_out) {
        complain("The time is over and %s %s %s on; blockjobctl wait %s / cancel %s", jobs, list,
                 go, words, words);
        return CTL_TIMEOUT;
    }
    if (w->ctl->disconnected) {
        complain("The connection to the bus was lost while waiting for %s %s.", jobs, list);
        return CTL_NO_SERVICE;
    }
    if (w->gave_up) {
        complain("The service has gone away and has not come back for 90 s; what %s %s %s is not "
                 "known before it does. QEMU is not stopped by that.",
                 jobs, list, n > 1 ? "do" : "does");
        return CTL_NO_SERVICE;
    }
    complain("Waiting has failed: %s.", g_strerror(-r));
    return CTL_FAILED;
}

/* Runs until over; 0, or the exit code of what broke it off. */
static int waiter_loop(Waiter *w, bool reading) {
    int r = 0;

    while (!waiter_is_over(w, reading)) {
        if (r < 0 || w->ctl->interrupted || w->timed_out || w->ctl->disconnected || w->gave_up)
            return (int) waiter_break(w, r);
        r = sd_event_run(w->ctl->event, UINT64_MAX);
    }
    return 0;
}

static CtlExit waiter_code(const Waiter *w) {
    for (guint i = 0; i < w->jobs->len; i++) {
        const Followed *f = w->jobs->pdata[i];
        if (f->ended && f->code != CTL_DONE)
            return f->code;
    }
    return CTL_DONE;
}

int waiter_read(Waiter *w) {
    int code = waiter_loop(w, true);

    for (guint i = 0; code == 0 && i < w->jobs->len; i++) {
        Followed *f = w->jobs->pdata[i];
        if (!f->ended || !f->failure)
            continue;
        progress_clear(w->progress);
        complain("%s", f->failure);
        code = (int) f->code;
    }
    return code;
}

static void followed_report(const Followed *f) {
    const Options *options = f->waiter->ctl->options;
    const json_t *warnings = json_object_get(f->job, "Warnings");
    json_t *warning;
    size_t i;

    json_array_foreach (warnings, i, warning) {
        if (!options->quiet && json_is_string(warning))
            complain("Job %" PRIu64 ", warning: %s", f->id, json_string_value(warning));
    }
    if (f->failure)
        complain("%s", f->failure);
    else if (f->job && f->code == CTL_DONE && !options->quiet && !options->json) {
        g_autofree char *text = job_sentence(f->job);
        g_autofree char *clean = string_sanitize(text, 4096);
        puts(clean);
        fflush(stdout);
        if (!job_is_concluded(f->job) && isatty(STDERR_FILENO))
            fprintf(stderr, "Next: blockjobctl pivot, finish or cancel %" PRIu64 "\n", f->id);
    }
}

static void waiter_json(const Waiter *w) {
    g_autoptr(json_t) all = json_array();

    for (guint i = 0; i < w->jobs->len; i++) {
        const Followed *f = w->jobs->pdata[i];
        if (f->job)
            json_array_append(all, f->job);
    }
    if (w->jobs->len == 1 && json_array_size(all) == 1)
        json_print(w->ctl, json_array_get(all, 0));
    else if (json_array_size(all) > 0)
        json_print(w->ctl, all);
}

CtlExit waiter_run(Waiter *w) {
    w->armed = true;
    for (guint i = 0; i < w->jobs->len; i++) {
        Followed *f = w->jobs->pdata[i];
        if (f->job && !f->read)
            followed_changed(f);
    }
    int broken = waiter_loop(w, false);
    progress_clear(w->progress);
    for (guint i = 0; i < w->jobs->len; i++) {
        const Followed *f = w->jobs->pdata[i];
        if (f->ended)
            followed_report(f);
    }
    if (w->ctl->options->json)
        waiter_json(w);
    return broken ? (CtlExit) broken : waiter_code(w);
}
