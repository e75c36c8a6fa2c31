/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* WaitFor(): calls that are kept until a job has reached a state. */

#include "bus/errors.h"
#include "bus/internal.h"
#include "log.h"
#include "util.h"

#define WAITERS_PER_UID 64

typedef struct {
    Bus *bus;
    sd_bus_message *message;
    sd_event_source *timer; /* NULL without timeout */
    GList link;             /* in bus->waiters */
    uint64_t job;
    JobState state;
    uint32_t uid;
} Waiter;

static Waiter *waiter_free(Waiter *w) {
    g_queue_unlink(&w->bus->waiters, &w->link);
    sd_event_source_disable_unref(w->timer);
    sd_bus_message_unref(w->message);
    g_free(w);
    return NULL;
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Waiter, waiter_free)

int wait_reply(sd_bus_message *m, const Job *j) {
    JobInfo info = job_info(j);

    return sd_bus_reply_method_return(m, "ss", info.state, info.result);
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
    g_autoptr(Waiter) w = userdata;
    g_auto(Failure) f = {0};

    failure_set(&f, FAILURE_TIMEOUT,
                "The job was not %s in the time given; it goes on, wait again.",
                job_state_to_string(w->state));
    int r = bus_reply_failure(w->message, &f);
    if (r < 0)
        log_debug("WaitFor() cannot be answered, ignoring: %s", g_strerror(-r));
    return 0;
}

static unsigned count(const Bus *b, uint32_t uid) {
    unsigned n = 0;

    for (const GList *l = b->waiters.head; l; l = l->next)
        n += ((const Waiter *) l->data)->uid == uid;
    return n;
}

bool wait_add(Bus *b, sd_bus_message *m, uint32_t uid, Job *j, JobState state, uint64_t timeout,
              Failure *f) {
    if (count(b, uid) >= WAITERS_PER_UID)
        return failure_set(f, FAILURE_LIMITS_EXCEEDED,
                           "%d calls of this user wait for jobs already; wait for one of them to "
                           "return, or use the signals.",
                           WAITERS_PER_UID);

    Waiter *w = g_new0(Waiter, 1);
    w->bus = b;
    w->message = sd_bus_message_ref(m);
    w->job = job_id(j);
    w->state = state;
    w->uid = uid;
    w->link.data = w;
    g_queue_push_tail_link(&b->waiters, &w->link);
    if (timeout == 0)
        return true;

    /* -EOVERFLOW: later than any clock can tell, which is as long as it takes. */
    int r = sd_event_add_time_relative(manager_event(b->manager), &w->timer, CLOCK_MONOTONIC,
                                       timeout, USEC_PER_MSEC, on_timeout, w);
    if (r >= 0 || r == -EOVERFLOW)
        return true;
    waiter_free(w);
    return failure_set(f, FAILURE_LIMITS_EXCEEDED, "No timer can be set: %s.", g_strerror(-r));
}

static void wake(Bus *b, const Job *j, bool all) {
    for (GList *l = b->waiters.head, *next; l; l = next) {
        Waiter *w = l->data;

        next = l->next;
        if (w->job != job_id(j) || (!all && !job_has_reached(j, w->state)))
            continue;
        int r = wait_reply(w->message, j);
        if (r < 0)
            log_debug("WaitFor() cannot be answered, ignoring: %s", g_strerror(-r));
        waiter_free(w);
    }
}

void wait_wake(Bus *b, const Job *j) {
    wake(b, j, false);
}

void wait_job_removed(Bus *b, const Job *j) {
    wake(b, j, true);
}

void wait_sender_gone(Bus *b, const char *sender) {
    for (GList *l = b->waiters.head, *next; l; l = next) {
        Waiter *w = l->data;

        next = l->next;
        if (g_strcmp0(sd_bus_message_get_sender(w->message), sender) == 0)
            waiter_free(w);
    }
}

void wait_free_all(Bus *b) {
    while (b->waiters.head)
        waiter_free(b->waiters.head->data);
}
