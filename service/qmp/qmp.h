/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* QmpClient: one QMP connection on the event loop. Non-blocking in both directions; never blocks in
 * connect either.
 *
 * Life: new → (greeting, qmp_capabilities) → ready() once → events and replies → disconnected()
 * once. The owner frees it, also from inside any of its callbacks. After disconnected() every
 * outstanding slot has been called with -ENOTCONN (before disconnected() itself), and qmp_send()
 * refuses.
 * A peer that breaks the protocol (not JSON, a line over QMP_LINE_MAX, deeper than QMP_DEPTH_MAX,
 * reply without command) is disconnected. Protocol: QEMU's docs/interop/qmp-spec. */

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#define QMP_LINE_MAX (4u * 1024 * 1024) /* bytes of one message */
#define QMP_DEPTH_MAX                                                                              \
    512 /* nesting of one message; query-block nests once for each backing image */
#define QMP_READ_MAX (256u * 1024) /* bytes read in one dispatch, so that one peer starves nobody */
#define QMP_PENDING_MAX 4096       /* commands without an answer */

typedef struct QmpClient QmpClient;
typedef struct QmpSlot QmpSlot;

/* What QEMU said instead of a result, or why there is no answer. Valid during the callback. */
typedef struct {
    int error;              /* 0: QEMU answered with an error; -ETIMEDOUT, -ENOTCONN: no answer */
    const char *class_name; /* "GenericError", "CommandNotFound", …; "" without an answer */
    const char *text;       /* QEMU's own words, or ours without an answer; never NULL */
} QmpError;

/* Exactly one of result and error is non-NULL. result is borrowed: json_incref() to keep it.
 * Integers beyond int64_t, which QEMU has, arrive as INT64_MAX. */
typedef void (*QmpReplyFunc)(QmpClient *c, json_t *result, const QmpError *error, void *userdata);

typedef struct {
    /* Negotiated; version is e.g. "7.2.22". */
    void (*ready)(QmpClient *c, const char *version, void *userdata);
    /* timestamp: microseconds of QEMU's realtime clock, 0 if it has none. data is borrowed and may
     * be NULL. What came before ready is delivered after ready(), the oldest dropped when it is a
     * flood. */
    void (*event)(QmpClient *c, const char *name, json_t *data, uint64_t timestamp, void *userdata);
    /* error: negative errno (-ECONNREFUSED, -ENOENT, -ECONNRESET, -EPIPE, -EPROTO, -ETIMEDOUT for
     * no greeting in time, …); reason: a sentence's worth of words. Called once, also when
     * connecting failed. */
    void (*disconnected)(QmpClient *c, int error, const char *reason, void *userdata);
} QmpHandlers;

/* Connects to a unix socket. Failures to connect come through disconnected(), from the loop, never
 * from inside this call; a negative errno here means that nothing could be set up at all.
 * greeting_timeout: microseconds from now until ready, 0 = none. Paths longer than sun_path are
 * connected through /proc/self/fd. */
int qmp_connect(sd_event *event, const char *path, uint64_t greeting_timeout,
                const QmpHandlers *handlers, void *userdata, QmpClient **ret);
/* Takes over a connected descriptor (closed by the client, also on failure). resume: the socket was
 * in use before and may be in the middle of a line: resynchronise as the QMP specification says
 * (0xFF, then wait for the error reply) instead of waiting for a greeting; version is then "". */
int qmp_adopt(sd_event *event, int fd, bool resume, uint64_t greeting_timeout,
              const QmpHandlers *handlers, void *userdata, QmpClient **ret);
/* Forgets everything: no callback is called any more, those of outstanding slots included. */
QmpClient *qmp_free(QmpClient *c);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QmpClient, qmp_free)

/* Sends a command. arguments is consumed, also on failure; NULL for none. fd is passed along with
 * SCM_RIGHTS when >= 0 and is closed when it was sent or cannot be. timeout: microseconds, 0 =
 * none; after a timeout the slot is answered with -ETIMEDOUT and a late reply is dropped. Commands
 * are executed in the order of sending. ret_slot may be NULL. Returns -ENOTCONN when the connection
 * is not ready, -ENOBUFS when QMP_PENDING_MAX commands wait. The callback may be NULL; it is never
 * called from inside this. */
int qmp_send(QmpClient *c, QmpSlot **ret_slot, const char *command, json_t *arguments, int fd,
             uint64_t timeout, QmpReplyFunc callback, void *userdata);
/* Between the two, commands are queued; then they leave in as few writes as their descriptors allow, so that QEMU is woken
 * once. They nest. Not over a return to the loop. */
void qmp_cork(QmpClient *c);
void qmp_uncork(QmpClient *c);
/* Forgets the callback: it will not be called. The command itself was sent. The slot is owned by
 * the client and is gone after its callback has been called; NULL is fine. */
void qmp_slot_cancel(QmpSlot *slot);

bool qmp_is_ready(const QmpClient *c);
/* The connected descriptor, still owned by the client; -1 when there is none. */
int qmp_fd(const QmpClient *c);
/* Credentials of the process at the other end, i.e. of the one that called listen(): a manager may
 * have passed QEMU its socket. pid 0 when unknown. */
void qmp_peer(const QmpClient *c, pid_t *ret_pid, uid_t *ret_uid, gid_t *ret_gid);
/* Number of commands without an answer from QEMU, timed out and cancelled ones included, and the
 * age in microseconds of the oldest (0 without any): how long QEMU has been silent. ret_oldest may
 * be NULL. */
unsigned qmp_pending(const QmpClient *c, uint64_t *ret_oldest);
