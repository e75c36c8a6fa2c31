/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Method calls that are answered from a continuation. */

#include <stdarg.h>

#include "bus/errors.h"
#include "bus/internal.h"
#include "log.h"
#include "util.h"

Call *call_new(Bus *b, sd_bus_message *m) {
    Call *c = g_new0(Call, 1);

    c->bus = b;
    c->message = sd_bus_message_ref(m);
    c->link.data = c;
    g_queue_push_tail_link(&b->calls, &c->link);
    return c;
}

Call *call_free(Call *c) {
    if (!c)
        return NULL;
    g_queue_unlink(&c->bus->calls, &c->link);
    sd_bus_message_unref(c->message);
    g_free(c);
    return NULL;
}

static void log_reply(int r) {
    if (r < 0)
        log_debug("A method call cannot be answered, ignoring: %s", g_strerror(-r));
}

/* Answers without freeing. */
static void answer(Call *c, const Failure *f) {
    g_autoptr(sd_bus_message) m = g_steal_pointer(&c->message);

    if (m)
        log_reply(f ? bus_reply_failure(m, f) : sd_bus_reply_method_return(m, NULL));
}

void call_return(Call *c, const char *types, ...) {
    va_list ap;

    va_start(ap, types);
    if (c->message)
        log_reply(sd_bus_reply_method_returnv(c->message, types, ap));
    va_end(ap);
    call_free(c);
}

void call_fail(Call *c, const Failure *f) {
    answer(c, f);
    call_free(c);
}

/* false: the journal has failed; answered and freed. */
static bool check_journal(Call *c, int error) {
    if (error >= 0)
        return true;
    g_auto(Failure) f = {0};
    failure_set(&f, FAILURE_JOURNAL,
                "The journal cannot be written any more; whether this order was recorded will be "
                "known when the service has been started anew.");
    call_fail(c, &f);
    return false;
}

void call_done(int error, void *call) {
    Call *c = call;

    if (check_journal(c, error))
        call_return(c, NULL);
}

void call_reply(const Failure *f, void *call) {
    Call *c = call;

    if (f && f->kind != FAILURE_NONE)
        call_fail(c, f);
    else
        call_return(c, NULL);
}

void calls_end_job(Bus *b, uint64_t id) {
    g_auto(Failure) f = {0};

    failure_set(&f, FAILURE_ALREADY_ENDING,
                "The job ended before QEMU had answered; look at its result.");
    for (GList *l = b->calls.head; l; l = l->next) {
        Call *c = l->data;
        if (c->job == id)
            answer(c, &f);
    }
}

void calls_answer_new_job(Bus *b, uint64_t id, int error) {
    for (GList *l = b->calls.head, *next; l; l = next) {
        Call *c = l->data;

        next = l->next;
        if (c->new_job != id || !check_journal(c, error))
            continue;
        g_autofree char *path = g_strdup_printf(PATH_JOBS "/j%" G_GUINT64_FORMAT, id);
        call_return(c, "to", id, path);
    }
}

void calls_free(Bus *b) {
    for (GList *l = b->calls.head, *next; l; l = next) {
        Call *c = l->data;

        next = l->next;
        if (c->attaching)
            manager_attach_forget(b->manager, c);
        call_free(c);
    }
}
