/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.blockjob1.Job at /org/blockjob1/job/jN. */

#include <inttypes.h>

#include "bus/errors.h"
#include "bus/internal.h"
#include "bus/options.h"
#include "util.h"

void job_found(Bus *b, Job *j) {
    b->job = (JobFound){.bus = b, .job = j, .info = job_info(j)};
    b->job.group = b->job.info.group;
    /* A job may outlive its domain. */
    b->job.domain = *b->job.info.domain_path ? b->job.info.domain_path : "/";
}

static int get_warnings(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    char *const *warnings = *(char *const **) userdata;
    int r = sd_bus_message_open_container(reply, 'a', "s");

    for (; r >= 0 && warnings && *warnings; warnings++) {
        g_autofree char *fit = text_make_fit(*warnings, TEXT_MAX);
        r = sd_bus_message_append(reply, "s", fit);
    }
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

const Change job_changes[] = {
    {JOB_CHANGED_STATE, "State"},
    {JOB_DIFFERS_RESULT, "Result"},
    {JOB_CHANGED_ERROR, "ErrorName"},
    {JOB_CHANGED_ERROR, "ErrorMessage"},
    {JOB_CHANGED_IO, "Paused"},
    {JOB_CHANGED_IO, "IoStatus"},
    {JOB_CHANGED_PROGRESS, "Done"},
    {JOB_CHANGED_PROGRESS, "Total"},
    {JOB_CHANGED_PROGRESS, "Rate"},
    {JOB_CHANGED_PROGRESS, "ExpectedEnd"},
    {JOB_CHANGED_SPEED, "SpeedLimit"},
    {JOB_CHANGED_MODE, "CopyMode"},
    {JOB_CHANGED_ON_READY, "OnReady"},
    {JOB_DIFFERS_READY, "Ready"},
    {JOB_DIFFERS_FINISHED, "Finished"},
    {JOB_DIFFERS_GUEST_PAUSED, "GuestPaused"},
    {JOB_CHANGED_RESTARTS, "Restarts"},
    {JOB_CHANGED_WARNINGS, "Warnings"},
    {0, NULL},
};

/* ── orders ── */

/* The common beginning: may the caller do that? The owner of the job needs no authorization. The
 * call's context if so; else NULL, and *ret is what the handler returns: asked, or refused with
 * error filled. */
static Call *order_begin(const JobFound *found, sd_bus_message *m, AuthAction action,
                         const char *verb, int *ret, sd_bus_error *error) {
    const JobInfo *info = &found->info;
    Domain *d = job_domain(found->job);
    g_autofree char *id = g_strdup_printf("%" PRIu64, info->id);
    const AuthRequest request = {.action = action,
                                 .owner_uid = info->owner_uid,
                                 .verb = verb,
                                 .domain = info->domain_name,
                                 .domain_uuid = d ? domain_uuid(d) : NULL,
                                 .disk = info->disk,
                                 .target = info->target,
                                 .job = id};
    g_auto(Failure) f = {0};

    if (job_is_active(found->job) && bus_hold(found->bus, d, m)) {
        *ret = 1;
        return NULL;
    }
    int r = auth_check(found->bus->auth, m, &request, &f);

    if (r > 0)
        return call_new(found->bus, m);
    *ret = r < 0 ? bus_fail(error, &f) : 1;
    return NULL;
}

/* The common end: a given order's continuation owns the call from now on. What the handler
 * returns. */
static int order_end(bool given, Call **call, const Failure *f, sd_bus_error *error) {
    if (!given)
        return bus_fail(error, f);
    *call = NULL;
    return 1;
}

static int complete_or_cancel(sd_bus_message *m, JobFound *found, JobIntent intent,
                              AuthAction action, const char *verb, sd_bus_error *error) {
    EndOptions o;
    g_auto(Failure) f = {0};
    bool fit =
        intent == INTENT_CANCEL ? cancel_options_read(m, &o, &f) : end_options_read(m, &o, &f);

    if (!fit)
        return bus_fail(error, &f);
    int r = 1;
    g_autoptr(Call) c = order_begin(found, m, action, verb, &r, error);
    if (!c)
        return r;
    bool given = job_order_end(found->job, intent, &o, call_done, c, &f);
    return order_end(given, &c, &f, error);
}

static int method_pivot(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    return complete_or_cancel(m, userdata, INTENT_PIVOT, AUTH_COMPLETE, "pivot", error);
}

static int method_finish(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    return complete_or_cancel(m, userdata, INTENT_FINISH, AUTH_COMPLETE, "finish", error);
}

static int method_cancel(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    return complete_or_cancel(m, userdata, INTENT_CANCEL, AUTH_MANAGE_JOBS, "cancel", error);
}

static int method_set_on_ready(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    JobFound *found = userdata;
    const char *word;
    g_auto(Failure) f = {0};
    int r = sd_bus_message_read(m, "s", &word);

    if (r < 0)
        return r;
    if (!option_check_word("on_ready", word, on_ready_words, &f))
        return bus_fail(error, &f);
    g_autoptr(Call) c = order_begin(found, m, AUTH_COMPLETE, "setonready", &r, error);
    if (!c)
        return r;
    bool given = job_set_on_ready(found->job, on_ready_from_string(word), call_done, c, &f);
    return order_end(given, &c, &f, error);
}

static int method_dismiss(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    JobFound *found = userdata;
    g_auto(Failure) f = {0};
    int r = 1;
    g_autoptr(Call) c = order_begin(found, m, AUTH_MANAGE_JOBS, "dismiss", &r, error);

    if (!c)
        return r;
    bool given = manager_dismiss(found->bus->manager, found->job, call_done, c, &f);
    return order_end(given, &c, &f, error);
}

static int method_pause(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    JobFound *found = userdata;
    g_auto(Failure) f = {0};
    int r = 1;
    g_autoptr(Call) c = order_begin(found, m, AUTH_MANAGE_JOBS, "pause", &r, error);

    if (!c)
        return r;
    c->job = found->info.id;
    return order_end(job_pause(found->job, call_reply, c, &f), &c, &f, error);
}

static int method_resume(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    JobFound *found = userdata;
    g_auto(Failure) f = {0};
    int r = 1;
    g_autoptr(Call) c = order_begin(found, m, AUTH_MANAGE_JOBS, "resume", &r, error);

    if (!c)
        return r;
    c->job = found->info.id;
    return order_end(job_unpause(found->job, call_reply, c, &f), &c, &f, error);
}

static int method_set_speed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    JobFound *found = userdata;
    uint64_t speed;
    g_auto(Failure) f = {0};
    int r = sd_bus_message_read(m, "t", &speed);

    if (r < 0)
        return r;
    if (speed > SPEED_MAX) {
        failure_set(&f, FAILURE_INVALID_ARGS,
                    "The bytes_per_second must be from 0 to %" PRIu64 ", not %" PRIu64 ".",
                    SPEED_MAX, speed);
        return bus_fail(error, &f);
    }
    g_autoptr(Call) c = order_begin(found, m, AUTH_MANAGE_JOBS, "setspeed", &r, error);
    if (!c)
        return r;
    c->job = found->info.id;
    return order_end(job_set_speed(found->job, speed, call_reply, c, &f), &c, &f, error);
}

static int method_set_copy_mode(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    JobFound *found = userdata;
    const char *mode;
    g_auto(Failure) f = {0};
    int r = sd_bus_message_read(m, "s", &mode);

    if (r < 0)
        return r;
    if (!option_check_word("mode", mode, copy_mode_words, &f))
        return bus_fail(error, &f);
    g_autoptr(Call) c = order_begin(found, m, AUTH_MANAGE_JOBS, "setcopymode", &r, error);
    if (!c)
        return r;
    c->job = found->info.id;
    return order_end(job_set_copy_mode(found->job, mode, call_reply, c, &f), &c, &f, error);
}

/* ── WaitFor ── */

static int method_wait_for(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    static const char *const states[] = {"ready", "pending", "concluded", NULL};
    JobFound *found = userdata;
    Bus *b = found->bus;
    Job *j = found->job;
    const char *word;
    uint64_t timeout;
    uint32_t uid;
    g_auto(Failure) f = {0};
    int r = sd_bus_message_read(m, "st", &word, &timeout);

    if (r < 0)
        return r;
    if (!option_check_word("state", word, states, &f))
        return bus_fail(error, &f);
    JobState state = job_state_from_string(word);
    if (job_has_reached(j, state))
        return wait_reply(m, j);

    r = auth_sender_uid(b->auth, m, &uid, &f);
    if (r == 0)
        return 1;
    if (r < 0 || !wait_add(b, m, uid, j, state, timeout, &f))
        return bus_fail(error, &f);
    return 1;
}

#define TEXT(name, field, flags)                                                                   \
    SD_BUS_PROPERTY(name, "s", property_get_text, offsetof(JobFound, field), flags)
#define PLAIN(name, type, field, flags)                                                            \
    SD_BUS_PROPERTY(name, type, NULL, offsetof(JobFound, field), flags)

/* clang-format off */
const sd_bus_vtable job_vtable[] = {
    SD_BUS_VTABLE_START(0),
    PLAIN("Id", "t", info.id, SD_BUS_VTABLE_PROPERTY_CONST),
    TEXT("Kind", info.kind, SD_BUS_VTABLE_PROPERTY_CONST),
    PLAIN("Domain", "o", domain, SD_BUS_VTABLE_PROPERTY_CONST),
    TEXT("DomainName", info.domain_name, SD_BUS_VTABLE_PROPERTY_CONST),
    TEXT("Disk", info.disk, SD_BUS_VTABLE_PROPERTY_CONST),
    TEXT("Target", info.target, SD_BUS_VTABLE_PROPERTY_CONST),
    PLAIN("Group", "o", group, SD_BUS_VTABLE_PROPERTY_CONST),
    PLAIN("OwnerUid", "u", info.owner_uid, SD_BUS_VTABLE_PROPERTY_CONST),
    PLAIN("Created", "t", info.created, SD_BUS_VTABLE_PROPERTY_CONST),
    TEXT("State", info.state, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("Result", info.result, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("ErrorName", info.error_name, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("ErrorMessage", info.error_message, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Paused", "b", property_get_bool, offsetof(JobFound, info.paused),
                    SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("IoStatus", info.io_status, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("Done", "t", info.done, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("Total", "t", info.total, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("Rate", "t", info.rate, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("ExpectedEnd", "t", info.expected_end, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("SpeedLimit", "t", info.speed, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("CopyMode", info.copy_mode, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("OnReady", info.on_ready, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("Ready", "t", info.ready, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("Finished", "t", info.finished, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("GuestPaused", "t", info.guest_paused, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("Restarts", "u", info.restarts, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Warnings", "as", get_warnings, offsetof(JobFound, info.warnings),
                    SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_METHOD_WITH_ARGS("Pivot", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT,
                            method_pivot, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Finish", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT,
                            method_finish, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Cancel", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT,
                            method_cancel, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Pause", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT,
                            method_pause, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Resume", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT,
                            method_resume, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("SetSpeed", SD_BUS_ARGS("t", bytes_per_second), SD_BUS_NO_RESULT,
                            method_set_speed, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("SetCopyMode", SD_BUS_ARGS("s", mode), SD_BUS_NO_RESULT,
                            method_set_copy_mode, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("SetOnReady", SD_BUS_ARGS("s", on_ready), SD_BUS_NO_RESULT,
                            method_set_on_ready, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("WaitFor", SD_BUS_ARGS("s", state, "t", timeout_usec),
                            SD_BUS_RESULT("s", now, "s", result),
                            method_wait_for, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Dismiss", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT,
                            method_dismiss, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END
};
/* clang-format on */
