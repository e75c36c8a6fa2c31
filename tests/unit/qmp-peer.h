/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* World: a QMP client, a record of all that it reports, and a scripted peer at the other end of its
 * socket, all on one loop. Nothing here sleeps: the loop runs until it has nothing to do, or until
 * something is reported. */

#include "qmp/qmp.h"
#include "util.h"

#include <string.h>
#include <sys/socket.h>

#define DEADLINE (20 * USEC_PER_SEC) /* no test comes near, also not under a sanitizer */
#define GREETING                                                                                   \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "             \
    "\"package\": \"Debian\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define CAPABILITIES "{\"execute\":\"qmp_capabilities\",\"id\":1}\n"
#define STALE_EVENT(name)                                                                          \
    "{\"timestamp\": {\"seconds\": 12, \"microseconds\": 34}, \"event\": \"" name "\"}\r\n"

/* The client under test, what it reported, and the other end of its socket. */
typedef struct {
    sd_event *event;
    QmpClient *client;
    int peer;
    GString *heard;      /* a line for each callback */
    GString *got;        /* what the peer received since it was last asked */
    const char *free_on; /* frees the client in the callback that reports this */
    const char *send_on; /* sends "next" in the callback that reports this */
    uint64_t greeting_timeout;
    unsigned n_events;
} World;

typedef struct {
    World *world;
    const char *tag;
    QmpSlot *cancel; /* by the callback */
} Call;

static inline void note(World *w, const char *format, ...) {
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_string_append_printf(w->heard, "%s\n", text);
    if (w->free_on && g_str_has_prefix(text, w->free_on))
        w->client = qmp_free(w->client);
    else if (w->send_on && g_str_has_prefix(text, w->send_on))
        g_string_append_printf(w->heard, "sent %d\n",
                               qmp_send(w->client, NULL, "next", NULL, -1, 0, NULL, NULL));
}

static inline void on_ready(QmpClient *c, const char *version, void *userdata) {
    g_assert_true(qmp_is_ready(c));
    note(userdata, "ready %s", version);
}

static inline void on_event(QmpClient *c, const char *name, json_t *data, uint64_t timestamp,
                            void *userdata) {
    World *w = userdata;

    w->n_events++;
    if (!g_str_has_prefix(name, "FLOOD"))
        note(w, "event %s %" G_GUINT64_FORMAT, name, timestamp);
}

static inline void on_disconnected(QmpClient *c, int error, const char *reason, void *userdata) {
    g_assert_cmpint(error, <, 0);
    g_assert_cmpuint(strlen(reason), >, 5);
    g_assert_cmpint(qmp_fd(c), ==, -1);
    g_assert_cmpuint(qmp_pending(c, NULL), ==, 0);
    note(userdata, "gone %d", error);
}

static inline void on_reply(QmpClient *c, json_t *result, const QmpError *error, void *userdata) {
    Call *call = userdata;
    g_autofree char *text = NULL;

    g_assert_true(!result != !error);
    qmp_slot_cancel(call->cancel);
    if (error) {
        note(call->world, error->error ? "%s none %d%s" : "%s error %d%s", call->tag, error->error,
             error->class_name);
        return;
    }
    text = json_dumps(result, JSON_COMPACT | JSON_ENCODE_ANY);
    note(call->world, "%s %s", call->tag, text);
}

static const QmpHandlers handlers = {on_ready, on_event, on_disconnected};

static inline void world_init(World *w) {
    *w = (World){.peer = -1, .heard = g_string_new(NULL), .got = g_string_new(NULL)};
    g_assert_cmpint(sd_event_new(&w->event), >=, 0);
}

static inline void world_clear(World *w) {
    qmp_free(w->client);
    fd_close(w->peer);
    g_string_free(w->heard, TRUE);
    g_string_free(w->got, TRUE);
    sd_event_unref(w->event);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(World, world_clear)

static inline void peer_read(World *w) {
    char buffer[65536];
    ssize_t n;

    while (w->peer >= 0 && (n = recv(w->peer, buffer, sizeof buffer, MSG_DONTWAIT)) > 0)
        g_string_append_len(w->got, buffer, n);
}

/* Runs until nothing is left to do now. */
static inline void settle(World *w) {
    while (sd_event_run(w->event, 0) > 0)
        ;
}

static inline void run_until(World *w, const GString *where, const char *what) {
    uint64_t end = now_monotonic() + DEADLINE;

    while (!strstr(where->str, what)) {
        if (now_monotonic() > end)
            g_error("'%s' did not come; heard '%s', peer got '%s'", what, w->heard->str,
                    w->got->str);
        sd_event_run(w->event, 10 * USEC_PER_MSEC);
        if (where == w->got)
            peer_read(w);
    }
    settle(w);
}

static inline void peer_write(World *w, const char *data, size_t size) {
    while (size > 0) {
        ssize_t n = send(w->peer, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EPIPE)
            return;
        if (n < 0) {
            g_assert_cmpint(errno, ==, EAGAIN);
            g_assert_cmpint(sd_event_run(w->event, DEADLINE), >, 0);
            continue;
        }
        data += n;
        size -= (size_t) n;
    }
}

static inline void peer_say(World *w, const char *text) {
    peer_write(w, text, strlen(text));
    settle(w);
}

static inline void peer_close(World *w) {
    w->peer = fd_close(w->peer);
    settle(w);
}

static inline void expect(World *w, const char *heard) {
    g_assert_cmpstr(w->heard->str, ==, heard);
    g_string_truncate(w->heard, 0);
}

static inline void peer_expect(World *w, const char *got) {
    peer_read(w);
    g_assert_cmpstr(w->got->str, ==, got);
    g_string_truncate(w->got, 0);
}

static inline void world_adopt(World *w, bool resume) {
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    w->peer = pair[1];
    g_assert_cmpint(
        qmp_adopt(w->event, pair[0], resume, w->greeting_timeout, &handlers, w, &w->client), ==, 0);
}

static inline void world_ready(World *w) {
    world_adopt(w, false);
    peer_say(w, GREETING);
    peer_expect(w, CAPABILITIES);
    peer_say(w, "{\"return\": {}, \"id\": 1}\r\n");
    expect(w, "ready 7.2.22\n");
}

static inline QmpSlot *send_call(World *w, Call *call, uint64_t timeout) {
    QmpSlot *slot = NULL;

    call->world = w;
    g_assert_cmpint(qmp_send(w->client, &slot, "query", NULL, -1, timeout, on_reply, call), ==, 0);
    return slot;
}
