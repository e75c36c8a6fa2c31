/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Verbs about existing jobs: waiting, the three ends, and small adjustments. */

#include "ctl-format.h"
#include "ctl-verbs.h"
#include "ctl-wait.h"

#include <stdio.h>
#include <string.h>

/* The ids of all arguments, NULL after a complaint. */
static uint64_t *job_arguments(int argc, char **argv) {
    g_autofree uint64_t *ids = g_new(uint64_t, (gsize) argc);

    for (int i = 0; i < argc; i++)
        if (!job_argument(argv[i], &ids[i]))
            return NULL;
    return g_steal_pointer(&ids);
}

int verb_wait(Ctl *ctl, int argc, char **argv) {
    g_autofree uint64_t *ids = job_arguments(argc, argv);

    if (!ids)
        return CTL_USAGE;
    int r = bus_connect(ctl);
    if (r == 0)
        r = bus_track_owner(ctl);
    if (r != 0)
        return r;
    g_autoptr(Waiter) waiter = waiter_new(ctl, ctl->options->goal, EXPECT_END, false);
    for (int i = 0; i < argc; i++)
        waiter_add(waiter, ids[i]);
    return (int) waiter_run(waiter);
}

typedef struct {
    uint64_t id;
    const char *member;
} Order;

static int order_message(Ctl *ctl, void *userdata, sd_bus_message **ret) {
    const Order *order = userdata;
    g_autofree char *path = job_path(order->id);
    int r = bus_call_new(ctl, path, CTL_JOB, order->member, ret);

    return r < 0 ? r : options_append(ctl->options, *ret);
}

/* Orders an end; 0 or an exit code. That the job is ending already is no error if the order was
 * repeated: then it was the first one, made durable before the service died, that is being carried
 * out. */
static int order_send(Ctl *ctl, uint64_t id, const char *member) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    Order order = {.id = id, .member = member};
    bool repeated;
    int r = bus_call_surely(ctl, order_message, &order, &repeated, NULL, &error);

    if (repeated && sd_bus_error_has_name(&error, "org.blockjob1.Error.AlreadyEnding"))
        return 0;
    if (r >= 0)
        return 0;
    int code = (int) job_error_report(ctl, id, r, &error);
    if (sd_bus_error_has_name(&error, "org.blockjob1.Error.NotReady") && !ctl->options->quiet)
        complain("\"blockjobctl wait --for=ready %" PRIu64 "\" returns when it is ready.", id);
    return code;
}

static int end_run(Ctl *ctl, int argc, char **argv, const char *member, Expect expect) {
    g_autofree uint64_t *ids = job_arguments(argc, argv);
    g_autoptr(Waiter) waiter = NULL;
    int code = 0;

    if (!ids)
        return CTL_USAGE;
    int r = bus_connect(ctl);
    if (r == 0)
        r = bus_track_owner(ctl);
    if (r != 0)
        return r;
    /* Followed before the order is given, so that every state after it is seen. */
    if (!ctl->options->no_block) {
        waiter = waiter_new(ctl, GOAL_CONCLUDED, expect, true);
        for (int i = 0; i < argc; i++)
            waiter_add(waiter, ids[i]);
        r = waiter_read(waiter);
        if (r != 0)
            return r;
    }
    for (int i = 0; i < argc; i++) {
        if (waiter)
            progress_clear(waiter_progress(waiter));
        r = order_send(ctl, ids[i], member);
        if (r != 0 && waiter)
            waiter_drop(waiter, ids[i], (CtlExit) r);
        if (code == 0)
            code = r;
        if (r == CTL_DETACHED)
            return r;
    }
    if (waiter) {
        r = (int) waiter_run(waiter);
        code = code ? code : r;
    }
    return code;
}

int verb_pivot(Ctl *ctl, int argc, char **argv) {
    return end_run(ctl, argc, argv, "Pivot", EXPECT_PIVOT);
}

int verb_finish(Ctl *ctl, int argc, char **argv) {
    return end_run(ctl, argc, argv, "Finish", EXPECT_FINISH);
}

int verb_cancel(Ctl *ctl, int argc, char **argv) {
    return end_run(ctl, argc, argv, "Cancel", EXPECT_CANCEL);
}

/* Calls a method without arguments on each job; the first failure is the exit code, the rest are
 * called all the same. */
static int each_run(Ctl *ctl, int argc, char **argv, const char *member) {
    g_autofree uint64_t *ids = job_arguments(argc, argv);
    int code = 0;

    if (!ids)
        return CTL_USAGE;
    int r = bus_connect(ctl);
    if (r != 0)
        return r;
    for (int i = 0; i < argc; i++) {
        g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
        g_autofree char *path = job_path(ids[i]);
        r = bus_request(ctl, path, CTL_JOB, member, true, NULL, &error, NULL);
        if (r >= 0)
            continue;
        int failed = (int) job_error_report(ctl, ids[i], r, &error);
        code = code ? code : failed;
        if (ctl->interrupted)
            break;
    }
    return code;
}

int verb_pause(Ctl *ctl, int argc, char **argv) {
    return each_run(ctl, argc, argv, "Pause");
}

int verb_resume(Ctl *ctl, int argc, char **argv) {
    return each_run(ctl, argc, argv, "Resume");
}

int verb_dismiss(Ctl *ctl, int argc, char **argv) {
    return each_run(ctl, argc, argv, "Dismiss");
}

int verb_set_speed(Ctl *ctl, int argc, char **argv) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autofree char *path = NULL;
    uint64_t id, rate;

    if (!job_argument(argv[0], &id))
        return CTL_USAGE;
    if (rate_parse(argv[1], &rate) < 0) {
        complain("\"%s\" is no rate; give bytes per second, as in 100M or 1.5G/s, 0 for no limit.",
                 argv[1]);
        return CTL_USAGE;
    }
    int r = bus_connect(ctl);
    if (r != 0)
        return r;
    path = job_path(id);
    r = bus_request(ctl, path, CTL_JOB, "SetSpeed", true, NULL, &error, "t", rate);
    return r < 0 ? (int) job_error_report(ctl, id, r, &error) : 0;
}

static int word_set(Ctl *ctl, char **argv, const char *member) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autofree char *path = NULL;
    uint64_t id;

    if (!job_argument(argv[0], &id))
        return CTL_USAGE;
    int r = bus_connect(ctl);
    if (r != 0)
        return r;
    path = job_path(id);
    r = bus_request(ctl, path, CTL_JOB, member, true, NULL, &error, "s", argv[1]);
    return r < 0 ? (int) job_error_report(ctl, id, r, &error) : 0;
}

int verb_set_copy_mode(Ctl *ctl, int argc, char **argv) {
    return word_set(ctl, argv, "SetCopyMode");
}

int verb_set_on_ready(Ctl *ctl, int argc, char **argv) {
    return word_set(ctl, argv, "SetOnReady");
}
