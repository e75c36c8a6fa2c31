/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes that come from a QMP server, through the client as the service uses it. The first byte chooses how far the
 * connection is when they begin, in what pieces they come, and what the owner does meanwhile. */

#include <sys/socket.h>

#include "fuzz.h"
#include "qmp/qmp.h"

enum {
    SHAKEN = 1 << 0, /* the handshake is over */
    RESUME = 1 << 1, /* a socket that was in use before */
    CANCEL = 1 << 2, /* the owner forgets a command */
    FREE = 1 << 3,   /* the owner frees the client in the middle */
};

static const size_t pieces[] = {SIZE_MAX, 1, 7, 100};

typedef struct {
    QmpClient *client;
    QmpSlot *slot;
    unsigned flags;
    unsigned ready, gone, events, sent, answered, cancelled;
} Owner;

static sd_event *event;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    fuzz_init();
    g_assert_cmpint(sd_event_new(&event), >=, 0);
    return 0;
}

static void on_reply(QmpClient *c, json_t *result, const QmpError *error, void *userdata) {
    Owner *o = userdata;

    o->answered++;
    g_assert_true(!result != !error);
    g_assert_true(!error || error->text);
    g_assert_cmpuint(o->answered + o->cancelled, <=, o->sent);
}

static void send_command(Owner *o, QmpSlot **ret) {
    if (qmp_send(o->client, ret, "query-block", NULL, -1, 0, on_reply, o) >= 0)
        o->sent++;
}

static void on_ready(QmpClient *c, const char *version, void *userdata) {
    Owner *o = userdata;

    g_assert_cmpuint(o->ready++, ==, 0);
    g_assert_nonnull(version);
    send_command(o, NULL);
    send_command(o, o->flags & CANCEL ? &o->slot : NULL);
    send_command(o, NULL);
    if (o->slot) {
        qmp_slot_cancel(o->slot);
        o->cancelled++;
    }
}

static void on_event(QmpClient *c, const char *name, json_t *data, uint64_t timestamp,
                     void *userdata) {
    Owner *o = userdata;

    g_assert_cmpuint(o->ready, ==, 1);
    g_assert_cmpuint(o->gone, ==, 0);
    g_assert_true(!data || json_is_object(data));
    if (++o->events < 100)
        send_command(o, NULL);
    if (o->events == 3 && o->flags & FREE)
        o->client = qmp_free(o->client);
}

static void on_disconnected(QmpClient *c, int error, const char *reason, void *userdata) {
    Owner *o = userdata;

    g_assert_cmpuint(o->gone++, ==, 0);
    g_assert_cmpint(error, <, 0);
    g_assert_true(*reason && string_is_printable(reason));
    g_assert_cmpuint(o->answered + o->cancelled, ==, o->sent);
}

static const QmpHandlers handlers = {on_ready, on_event, on_disconnected};

static void peer_say(int peer, const void *data, size_t size) {
    char sink[4096];

    while (size > 0) {
        ssize_t n = send(peer, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            break;
        if (n > 0) {
            data = (const char *) data + n;
            size -= (size_t) n;
        }
        while (sd_event_run(event, 0) > 0)
            ;
        while (recv(peer, sink, sizeof sink, MSG_DONTWAIT) > 0)
            ;
    }
    while (sd_event_run(event, 0) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char greeting[] =
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}}}\r\n"
        "{\"return\": {}, \"id\": 1}\r\n";
    Owner o = {.flags = size > 0 ? data[0] : 0};
    int pair[2];

    if (size < 2)
        return 0;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    autofd int peer = pair[1];
    g_assert_cmpint(qmp_adopt(event, pair[0], o.flags & RESUME, 0, &handlers, &o, &o.client), >=,
                    0);
    if (o.flags & SHAKEN)
        peer_say(peer, greeting, strlen(greeting));
    for (size_t begin = 1, n; begin < size; begin += n) {
        n = MIN(pieces[o.flags >> 4 & 3], size - begin);
        peer_say(peer, data + begin, n);
    }
    peer = fd_close(peer);
    while (sd_event_run(event, 0) > 0)
        ;
    g_assert_true(o.gone == 1 || !o.client);
    g_assert_cmpuint(o.answered + o.cancelled, <=, o.sent);
    qmp_free(o.client);
    return 0;
}
