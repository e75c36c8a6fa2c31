/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Auth: who is the caller, and may this caller do that? Asynchronous, over polkit on the same bus connection.
 *
 * A method handler calls auth_check() after it has validated its arguments and before it has any side effect. When the
 * answer is not known yet the handler returns 1 and the message is put back into the queue (sd_bus_message_rewind,
 * sd_bus_enqueue_for_read) when it is; the handler then runs again and auth_check() finds the verdict. A handler may
 * run several times: once for the caller's uid, once for each verdict. What it reads anew each time may have changed.
 *
 * Nothing here waits: sd_bus_query_sender_creds() would (it asks the bus driver synchronously), so uids are looked up
 * by a call of our own and kept by unique name until that name leaves the bus; the bus never gives one twice. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#include "failure.h"

/* One list: identifier, action id. */
#define AUTH_LIST(X)                                                                               \
    X(ATTACH, "org.blockjob1.attach")                                                              \
    X(COPY, "org.blockjob1.copy")                                                                  \
    X(COPY_ANYWHERE, "org.blockjob1.copy-anywhere")                                                \
    X(COMMIT, "org.blockjob1.commit")                                                              \
    X(DELETE_IMAGE, "org.blockjob1.delete-image")                                                  \
    X(COMPLETE, "org.blockjob1.complete")                                                          \
    X(MANAGE_JOBS, "org.blockjob1.manage-jobs")                                                    \
    X(EXPORT_JOURNAL, "org.blockjob1.export-journal")

typedef enum {
#define X(id, name) AUTH_##id,
    AUTH_LIST(X)
#undef X
        _AUTH_MAX
} AuthAction;
const char *auth_action_name(AuthAction action);

#define AUTH_NO_OWNER UINT32_MAX

typedef struct {
    AuthAction action;
    /* a caller with this uid needs no check; AUTH_NO_OWNER if nobody is exempt; also sent as "job-owner" */
    uint32_t owner_uid;
    /* Details for polkit rules and for the dialog; NULL = left out; control characters removed, cut to 256 bytes here.
     * The texts in polkit/org.blockjob1.policy name domain for every action but export-journal, target for the copies
     * and disk for all but these and attach: a key that is missing there is shown to the user as $(key). */
    const char *verb, *domain, *domain_uuid, *disk, *target, *target_kind, *job;
} AuthRequest;

typedef struct Auth Auth;
/* bus must be attached to an event loop. max_per_uid and max_total: checks that may wait at the same time (8 and 64).
 * timeout: of one check, µs (5 minutes: sd-bus's own 25 s would deny a slow typist while the dialog is open). */
int auth_new(sd_bus *bus, unsigned max_per_uid, unsigned max_total, uint64_t timeout, Auth **ret);
/* The same numbers, from the next check on. */
void auth_set_limits(Auth *a, unsigned max_per_uid, unsigned max_total, uint64_t timeout);
/* Cancels what waits; those calls stay unanswered. */
Auth *auth_free(Auth *a);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Auth, auth_free)

/* 1: allowed. 0: asked; the handler must return 1 without having done or replied anything. Negative: refused, f says why
 * (ACCESS_DENIED, INTERACTIVE, LIMITS_EXCEEDED). Root passes without polkit. Whether polkit may ask the user comes from
 * the message's ALLOW_INTERACTIVE_AUTHORIZATION flag. When the caller leaves the bus meanwhile its check is cancelled
 * and nothing happens. Several requests for one message (e.g. COPY then DELETE_IMAGE) are checked one after the other:
 * call again with the next one; a verdict holds for this message, this action and these details, until the handler
 * returns something else than "asked". */
int auth_check(Auth *a, sd_bus_message *m, const AuthRequest *request, Failure *f);

/* uid of the sender. 1: known. 0: asked, as in auth_check(): the handler returns 1 and will run again. Negative: refused,
 * f says why (ACCESS_DENIED, LIMITS_EXCEEDED). *ret is written only with 1. */
int auth_sender_uid(Auth *a, sd_bus_message *m, uint32_t *ret, Failure *f);

/* A call of that uid, allowed so far, waits for something else before its handler can go on: the handler returns 1, what was
 * decided about the call is kept, and auth_go_on() puts it back into the queue, unless its caller has left. */
void auth_hold(Auth *a, sd_bus_message *m, uint32_t uid);
void auth_go_on(Auth *a, sd_bus_message *m);

/* GetPermissions: asks polkit about every action for the sender and replies to m with a{ss} (yes, no, challenge).
 * The handler returns 1 when this returns 0 or 1 (replied, or will reply or run again); negative: refused, f says why. */
int auth_reply_permissions(Auth *a, sd_bus_message *m, Failure *f);
/* Number of calls that wait for polkit or for the caller's uid. */
unsigned auth_pending(const Auth *a);
