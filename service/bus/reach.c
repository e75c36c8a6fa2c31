/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls that wait until the file systems of their paths are known to answer. */

#include "image/reach.h"
#include "bus/internal.h"
#include "util.h"

#define REACH_TIMEOUT (5 * USEC_PER_SEC)
#define KEEP_ANSWER (10 * USEC_PER_SEC) /* a handler that does not come back has lost its object */

typedef struct {
    Bus *bus;
    sd_bus_message *message;
    Reach *reach;      /* NULL: known */
    Failure failure;   /* NONE: all answer */
    uint64_t known_at; /* CLOCK_MONOTONIC */
} Reaching;

static void reaching_drop(Reaching *r) {
    g_queue_remove(&r->bus->reaching, r);
    reach_free(r->reach);
    sd_bus_message_unref(r->message);
    failure_clear(&r->failure);
    g_free(r);
}

void reaching_free(Bus *b) {
    while (b->reaching.head)
        reaching_drop(b->reaching.head->data);
}

static void on_reached(Reach *reach, const char *hung, void *userdata) {
    Reaching *r = userdata;

    r->reach = NULL; /* it goes by itself now */
    r->known_at = now_monotonic();
    if (hung)
        failure_set(&r->failure, FAILURE_BAD_TARGET,
                    "The file system of \"%s\" does not answer (waited for %u s): look after its "
                    "server or its device, then try again.",
                    hung, (unsigned) (REACH_TIMEOUT / USEC_PER_SEC));
    auth_go_on(r->bus->auth, r->message);
}

/* Drops those that nobody came for. */
static Reaching *reaching_find(Bus *b, const sd_bus_message *m) {
    Reaching *found = NULL;

    for (GList *l = b->reaching.head, *next; l; l = next) {
        Reaching *r = l->data;
        next = l->next;
        if (r->message == m)
            found = r;
        else if (!r->reach && now_monotonic() - r->known_at > KEEP_ANSWER)
            reaching_drop(r);
    }
    return found;
}

int bus_reach(Bus *b, sd_bus_message *m, uint32_t uid, GPtrArray *paths, Failure *f) {
    Reaching *r = reaching_find(b, m);

    if (r && r->reach)
        return 0;
    if (r) {
        int known = r->failure.kind == FAILURE_NONE ? 1 : -ETIMEDOUT;
        if (known < 0)
            failure_set(f, r->failure.kind, "%s", r->failure.message);
        reaching_drop(r);
        return known;
    }
    r = g_new0(Reaching, 1);
    r->bus = b;
    r->message = sd_bus_message_ref(m);
    g_queue_push_tail(&b->reaching, r);
    g_ptr_array_add(paths, NULL);
    int k = reach_new(manager_event(b->manager), (const char *const *) paths->pdata, REACH_TIMEOUT,
                      on_reached, r, &r->reach);
    if (k < 0) {
        failure_set(f, FAILURE_BAD_TARGET, "The paths cannot be looked at: %s.", g_strerror(-k));
        reaching_drop(r);
        return k;
    }
    auth_hold(b->auth, m, uid);
    return 0;
}
