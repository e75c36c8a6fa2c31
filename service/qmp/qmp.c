/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The QMP client: handshake, slots, deadlines, events. Protocol: docs/interop/qmp-spec of QEMU. */

#include "qmp/qmp.h"
#include "qmp/qmp-message.h"
#include "qmp/qmp-transport.h"
#include "util.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define TIMER_ACCURACY USEC_PER_MSEC
#define CONNECT_RETRY                                                                              \
    (50 * USEC_PER_MSEC)      /* unix sockets cannot be polled for a free place in the queue */
#define HELD_MAX QMP_READ_MAX /* bytes of events that wait for ready() */
#define REASON_MAX 200        /* bytes of foreign text in a reason */

/* In the order in which a connection goes through them; RESYNC instead of GREETING when
 * resuming. */
typedef enum {
    STATE_CONNECTING,
    STATE_RESYNC,   /* 0xFF was sent, its error reply is awaited */
    STATE_GREETING, /* connected, nothing was sent */
    STATE_NEGOTIATING,
    STATE_READY,
    STATE_CLOSED, /* disconnected or freed: nothing is to happen any more */
} State;

struct QmpSlot {
    GList link; /* in client->slots */
    QmpClient *client;
    uint64_t id;
    uint64_t sent_at;
    uint64_t deadline;     /* UINT64_MAX: none */
    QmpReplyFunc callback; /* NULL: nobody wants the reply, which still has to come */
    void *userdata;
};

/* Events that came before ready(). */
typedef struct {
    GList link;
    size_t size;
    QmpMessage message;
} Held;

struct QmpClient {
    unsigned corked; /* nothing is sent at once */
    unsigned refs;   /* the owner's, and one for each dispatch on the stack */
    State state;
    bool freed;  /* by the owner: no callback any more */
    bool resume; /* the stream was in use before */
    int broken;  /* what connecting or writing failed with, to be reported from the loop */
    int fd;
    uint32_t io_events;

    sd_event *event;
    sd_event_source *io;
    sd_event_source *timer;
    sd_event_source *defer;
    uint64_t timer_at; /* no later than the earliest thing to do; UINT64_MAX: off */
    uint64_t handshake_deadline;
    uint64_t retry_at; /* of connect() */

    QmpHandlers handlers;
    void *userdata;
    char *path; /* NULL when adopted */
    char *version;
    struct ucred peer;

    QmpInput in;
    QmpOutput out;
    GQueue slots; /* in the order of sending, those that are not wanted any more included */
    uint64_t next_id;
    GQueue held;
    size_t held_size;
};

static void client_disconnect(QmpClient *c, int error, const char *format, ...) G_GNUC_PRINTF(3, 4);
static int client_attach(QmpClient *c, int fd);

/* ── life ── */

static void slot_free(QmpSlot *slot) {
    g_free(slot);
}

static void held_free(Held *held) {
    qmp_message_clear(&held->message);
    g_free(held);
}

/* Everything but the slots, which may have callers waiting. */
static void client_teardown(QmpClient *c) {
    GList *link;

    c->io = sd_event_source_disable_unref(c->io);
    c->timer = sd_event_source_disable_unref(c->timer);
    c->defer = sd_event_source_disable_unref(c->defer);
    c->fd = fd_close(c->fd);
    qmp_input_clear(&c->in);
    qmp_output_clear(&c->out);
    while ((link = g_queue_pop_head_link(&c->held)))
        held_free(link->data);
}

static void client_ref(QmpClient *c) {
    c->refs++;
}

static void client_unref(QmpClient *c) {
    if (--c->refs > 0)
        return;
    sd_event_unref(c->event);
    g_free(c->path);
    g_free(c->version);
    g_free(c);
}

QmpClient *qmp_free(QmpClient *c) {
    GList *link;

    if (!c)
        return NULL;
    g_assert(!c->freed);
    c->freed = true;
    c->state = STATE_CLOSED;
    client_teardown(c);
    while ((link = g_queue_pop_head_link(&c->slots)))
        slot_free(link->data);
    client_unref(c);
    return NULL;
}

/* Reports the end, once. Only from the loop. Answers the slots first; each answer may free the
 * client. */
static void client_disconnect(QmpClient *c, int error, const char *format, ...) {
    g_autofree char *reason = NULL;
    QmpError answer = {.error = -ENOTCONN, .class_name = ""};
    GList *link;
    va_list ap;

    if (c->state == STATE_CLOSED)
        return;
    va_start(ap, format);
    reason = g_strdup_vprintf(format, ap);
    va_end(ap);

    c->state = STATE_CLOSED;
    client_teardown(c);
    answer.text = reason;
    while (!c->freed && (link = g_queue_pop_head_link(&c->slots))) {
        QmpSlot *slot = link->data;
        if (slot->callback)
            slot->callback(c, NULL, &answer, slot->userdata);
        slot_free(slot);
    }
    if (!c->freed && c->handlers.disconnected)
        c->handlers.disconnected(c, error, reason, c->userdata);
}

/* ── deadlines ── */

static uint64_t deadline_after(uint64_t timeout) {
    uint64_t now = now_monotonic();

    return timeout == 0 || timeout >= UINT64_MAX - now ? UINT64_MAX : now + timeout;
}

/* One timer for everything. It is never put off, only set earlier: a reply in time costs no call
 * here, and at most one idle wake-up later. */
static void client_arm(QmpClient *c, uint64_t at) {
    if (at >= c->timer_at)
        return;
    c->timer_at = at;
    sd_event_source_set_time(c->timer, at);
    sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

static uint64_t client_next_deadline(const QmpClient *c) {
    uint64_t at = UINT64_MAX;

    if (c->state < STATE_READY)
        at = MIN(at, c->handshake_deadline);
    if (c->state == STATE_CONNECTING)
        at = MIN(at, c->retry_at);
    for (const GList *l = c->slots.head; l; l = l->next) {
        const QmpSlot *slot = l->data;
        at = MIN(at, slot->deadline);
    }
    return at;
}

/* The slot stays in the list, without a callback, until QEMU's late reply takes it out. */
static void slot_expire(QmpSlot *slot) {
    QmpReplyFunc callback = slot->callback;
    const QmpError error = {-ETIMEDOUT, "", "QEMU did not answer in time"};

    slot->callback = NULL;
    slot->deadline = UINT64_MAX;
    if (callback)
        callback(slot->client, NULL, &error, slot->userdata);
}

static void client_expire(QmpClient *c, uint64_t now) {
    GList *l = c->slots.head;

    /* A callback can append slots, which is harmless, or end the connection, which leaves no list.
     * Only a reply takes out single slots, and none is read in here. */
    while (c->state != STATE_CLOSED && l) {
        QmpSlot *slot = l->data;
        if (slot->deadline <= now)
            slot_expire(slot);
        if (c->state != STATE_CLOSED)
            l = l->next;
    }
}

/* ── out ── */

/* From wherever the mistake was found: the owner hears of it from the loop. */
static void client_break(QmpClient *c, int error) {
    c->broken = error;
    qmp_output_clear(&c->out);
    sd_event_source_set_enabled(c->defer, SD_EVENT_ONESHOT);
}

static void client_flush(QmpClient *c) {
    uint32_t events;
    int r;

    if (c->broken < 0)
        return;
    r = qmp_output_flush(&c->out, c->fd);
    if (r < 0 && r != -EAGAIN)
        client_break(c, r);
    events = EPOLLIN | (qmp_output_is_empty(&c->out) ? 0 : EPOLLOUT);
    if (events != c->io_events && sd_event_source_set_io_events(c->io, events) >= 0)
        c->io_events = events;
}

static void client_push(QmpClient *c, char *text, size_t size, int fd) {
    bool idle = qmp_output_is_empty(&c->out);

    qmp_output_push(&c->out, text, size, fd);
    /* A full socket says with EPOLLOUT when it is worth trying again. */
    if (idle && c->corked == 0)
        client_flush(c);
}

void qmp_cork(QmpClient *c) {
    c->corked++;
}

void qmp_uncork(QmpClient *c) {
    if (--c->corked == 0 && !qmp_output_is_empty(&c->out) && !(c->io_events & EPOLLOUT))
        client_flush(c);
}

/* Consumes arguments and fd. */
static int client_command(QmpClient *c, QmpSlot **ret_slot, const char *command, json_t *arguments,
                          int fd, uint64_t timeout, QmpReplyFunc callback, void *userdata) {
    autofd int passed = fd;
    json_auto_t *message = NULL;
    QmpSlot *slot;
    char *text;
    size_t size;

    message = json_pack("{s:s, s:o*, s:I}", "execute", command, "arguments", arguments, "id",
                        (json_int_t) c->next_id);
    text = message ? json_dumps(message, JSON_COMPACT) : NULL;
    if (!text)
        return -EINVAL;
    size = strlen(text);
    text[size++] = '\n'; /* in the place of the terminating zero */

    slot = g_new0(QmpSlot, 1);
    *slot = (QmpSlot){
        .link.data = slot,
        .client = c,
        .id = c->next_id++,
        .sent_at = now_monotonic(),
        .deadline = deadline_after(timeout),
        .callback = callback,
        .userdata = userdata,
    };
    g_queue_push_tail_link(&c->slots, &slot->link);
    client_arm(c, slot->deadline);
    client_push(c, text, size, fd_steal(&passed));
    if (ret_slot)
        *ret_slot = slot;
    return 0;
}

int qmp_send(QmpClient *c, QmpSlot **ret_slot, const char *command, json_t *arguments, int fd,
             uint64_t timeout, QmpReplyFunc callback, void *userdata) {
    int r = 0;

    if (c->state != STATE_READY || c->broken < 0)
        r = -ENOTCONN;
    else if (c->slots.length >= QMP_PENDING_MAX)
        r = -ENOBUFS;
    if (r < 0) {
        json_decref(arguments);
        fd_close(fd);
        return r;
    }
    return client_command(c, ret_slot, command, arguments, fd, timeout, callback, userdata);
}

void qmp_slot_cancel(QmpSlot *slot) {
    if (!slot)
        return;
    slot->callback = NULL;
    slot->deadline = UINT64_MAX;
}

/* ── handshake ── */

static void client_event(QmpClient *c, const QmpMessage *m) {
    if (c->handlers.event)
        c->handlers.event(c, m->event_name, m->event_data, m->timestamp, c->userdata);
}

/* Takes over m. A peer that floods loses its oldest events: whoever becomes ready has to look at
 * the state anyway, as QEMU never repeats events. */
static void client_hold(QmpClient *c, QmpMessage *m, size_t size) {
    Held *held = g_new0(Held, 1);

    *held = (Held){.link.data = held, .size = size, .message = *m};
    *m = (QmpMessage){};
    g_queue_push_tail_link(&c->held, &held->link);
    c->held_size += size;
    while (c->held_size > HELD_MAX) {
        Held *oldest = g_queue_pop_head_link(&c->held)->data;
        c->held_size -= oldest->size;
        held_free(oldest);
    }
}

static void client_ready(QmpClient *c) {
    GList *link;

    c->state = STATE_READY;
    if (c->handlers.ready)
        c->handlers.ready(c, c->version, c->userdata);
    while (c->state == STATE_READY && (link = g_queue_pop_head_link(&c->held))) {
        Held *held = link->data;
        client_event(c, &held->message);
        held_free(held);
    }
}

static void on_negotiated(QmpClient *c, json_t *result, const QmpError *error, void *userdata) {
    g_autofree char *text = NULL;

    if (error && error->error < 0) /* disconnected() is about to be called */
        return;
    /* QEMU's "Capabilities negotiation is already complete": the predecessor did it. */
    if (!error || (c->resume && strcmp(error->class_name, "CommandNotFound") == 0)) {
        client_ready(c);
        return;
    }
    text = string_sanitize(error->text, REASON_MAX);
    client_disconnect(c, -EPROTO, "QEMU refused to negotiate capabilities: %s", text);
}

static void client_negotiate(QmpClient *c, const char *version) {
    g_free(c->version);
    c->version = g_strdup(version);
    c->state = STATE_NEGOTIATING;
    /* No deadline of its own: that of the handshake covers it. */
    client_command(c, NULL, "qmp_capabilities", NULL, -1, 0, on_negotiated, NULL);
}

/* ── in ── */

static QmpSlot *client_find(QmpClient *c, uint64_t id) {
    /* QEMU answers in order, so that this ends at the first one, as a rule. */
    for (GList *l = c->slots.head; l; l = l->next) {
        QmpSlot *slot = l->data;
        if (slot->id == id)
            return slot;
    }
    return NULL;
}

static void client_reply(QmpClient *c, const QmpMessage *m) {
    QmpSlot *slot = m->id > 0 ? client_find(c, m->id) : NULL;
    const QmpError error = {0, m->class_name, m->text};

    if (!slot) {
        /* One 0xFF can cause two error replies, when it also ended something else. */
        if (c->resume && c->state == STATE_NEGOTIATING)
            return;
        if (!m->has_id && m->kind == QMP_MESSAGE_ERROR) {
            g_autofree char *text = string_sanitize(m->text, REASON_MAX);
            client_disconnect(c, -EPROTO, "QEMU did not understand a command: %s", text);
        } else
            client_disconnect(c, -EPROTO, "a reply came without a command");
        return;
    }
    g_queue_unlink(&c->slots, &slot->link);
    if (slot->callback)
        slot->callback(c, m->result, m->result ? NULL : &error, slot->userdata);
    /* Not before: the callback may cancel its own slot. */
    slot_free(slot);
}

static void client_reply_early(QmpClient *c, const QmpMessage *m) {
    if (c->state != STATE_RESYNC)
        client_disconnect(c, -EPROTO, "a reply came before the greeting");
    else if (m->kind == QMP_MESSAGE_ERROR && !m->has_id &&
             strcmp(m->class_name, "GenericError") == 0)
        client_negotiate(c, "");
    /* All else answers the predecessor. */
}

static void client_message(QmpClient *c, QmpMessage *m, size_t size) {
    switch (m->kind) {
    case QMP_MESSAGE_EVENT:
        /* Also before the greeting: QEMU's other threads may emit while it is opening the
         * monitor. */
        if (c->state == STATE_READY)
            client_event(c, m);
        else
            client_hold(c, m, size);
        return;
    case QMP_MESSAGE_GREETING:
        if (c->state == STATE_GREETING)
            client_negotiate(c, m->version);
        else if (c->state != STATE_RESYNC)
            client_disconnect(c, -EPROTO, "a second greeting came");
        return;
    case QMP_MESSAGE_RETURN:
    case QMP_MESSAGE_ERROR:
        if (c->state < STATE_NEGOTIATING)
            client_reply_early(c, m);
        else
            client_reply(c, m);
        return;
    }
}

static bool line_is_blank(const char *line, size_t size) {
    return size == 0 || (size == 1 && *line == '\r');
}

static void client_line(QmpClient *c, char *line, size_t size) {
    g_autofree char *reason = NULL;
    QmpMessage m;
    int r;

    if (line_is_blank(line, size))
        return;
    if (size > QMP_LINE_MAX) {
        client_disconnect(c, -EPROTO, "a message is longer than %u bytes", QMP_LINE_MAX);
        return;
    }
    r = qmp_message_parse(&m, line, size, &reason);
    if (r < 0) {
        /* The predecessor may have read the first half of this line. */
        if (c->state != STATE_RESYNC)
            client_disconnect(c, r, "%s", reason);
        return;
    }
    client_message(c, &m, size);
    qmp_message_clear(&m);
}

static void client_lines(QmpClient *c) {
    char *line;
    size_t size;

    while (c->state != STATE_CLOSED && qmp_input_line(&c->in, &line, &size))
        client_line(c, line, size);
    if (c->state != STATE_CLOSED && qmp_input_rest(&c->in) > QMP_LINE_MAX)
        client_disconnect(c, -EPROTO, "a message is longer than %u bytes", QMP_LINE_MAX);
}

static void client_read(QmpClient *c) {
    size_t left = QMP_READ_MAX;

    while (c->state != STATE_CLOSED && left > 0) {
        ssize_t n = qmp_input_read(&c->in, c->fd, left);
        if (n == -EAGAIN)
            break;
        if (n < 0) {
            client_disconnect(c, (int) n,
                              n == -ECONNRESET ? "QEMU closed the monitor connection"
                                               : "cannot read from the monitor");
            return;
        }
        left -= (size_t) n;
        client_lines(c);
    }
    qmp_input_shrink(&c->in);
}

/* ── connecting ── */

static void client_connect(QmpClient *c) {
    autofd int fd = -1;
    int r;

    r = qmp_socket_connect(c->path, &fd);
    if (r == -EAGAIN) {
        c->retry_at = deadline_after(CONNECT_RETRY);
        client_arm(c, c->retry_at);
        return;
    }
    if (r >= 0)
        r = client_attach(c, fd_steal(&fd));
    if (r < 0)
        client_break(c, r);
}

static void client_disconnect_broken(QmpClient *c) {
    g_autofree char *path = NULL;

    if (c->state == STATE_CONNECTING) {
        path = string_sanitize(c->path, REASON_MAX);
        client_disconnect(c, c->broken, "cannot connect to \"%s\": %s", path,
                          g_strerror(-c->broken));
        return;
    }
    /* What QEMU said before it went away comes first. */
    client_read(c);
    client_disconnect(c, c->broken, "cannot write to the monitor: %s", g_strerror(-c->broken));
}

static void client_disconnect_late(QmpClient *c) {
    static const char *const words[] = {
        [STATE_CONNECTING] = "the monitor's queue of connections stayed full",
        [STATE_RESYNC] = "QEMU did not answer in time",
        [STATE_GREETING] = "no greeting came in time; another client may be using the monitor",
        [STATE_NEGOTIATING] = "QEMU did not answer in time",
    };
    static_assert(G_N_ELEMENTS(words) == STATE_READY, "one for each state of the handshake");

    client_disconnect(c, -ETIMEDOUT, "%s", words[c->state]);
}

/* ── the loop ── */

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
    QmpClient *c = userdata;

    client_ref(c);
    if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
        client_read(c);
    if (c->state != STATE_CLOSED && (revents & EPOLLOUT))
        client_flush(c);
    client_unref(c);
    return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
    QmpClient *c = userdata;
    uint64_t now = now_monotonic();

    client_ref(c);
    c->timer_at = UINT64_MAX;
    if (c->state < STATE_READY && c->handshake_deadline <= now)
        client_disconnect_late(c);
    if (c->state == STATE_CONNECTING && c->retry_at <= now) {
        c->retry_at = UINT64_MAX;
        client_connect(c);
    }
    client_expire(c, now);
    if (c->state != STATE_CLOSED)
        client_arm(c, client_next_deadline(c));
    client_unref(c);
    return 0;
}

static int on_defer(sd_event_source *source, void *userdata) {
    QmpClient *c = userdata;

    client_ref(c);
    client_disconnect_broken(c);
    client_unref(c);
    return 0;
}

/* ── setting up ── */

/* Takes fd, also on failure. */
static int client_attach(QmpClient *c, int fd) {
    socklen_t size = sizeof c->peer;
    int r;

    c->fd = fd;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c->peer, &size) < 0)
        c->peer = (struct ucred){0, (uid_t) -1, (gid_t) -1};
    c->io_events = EPOLLIN;
    r = sd_event_add_io(c->event, &c->io, fd, c->io_events, on_io, c);
    if (r < 0)
        return r;
    r = sd_event_source_set_priority(c->io, SD_EVENT_PRIORITY_IMPORTANT);
    if (r < 0)
        return r;
    c->state = c->resume ? STATE_RESYNC : STATE_GREETING;
    if (c->resume) {
        char *resync = malloc(1);
        if (!resync)
            return -ENOMEM;
        /* A lexical error for every QEMU, wherever in a command its parser is: qmp-spec, "Forcing
         * the JSON parser into known-good state". */
        *resync = (char) 0xff;
        client_push(c, resync, 1, -1);
    }
    return 0;
}

static int client_add_sources(QmpClient *c) {
    int r;

    r = sd_event_add_time(c->event, &c->timer, CLOCK_MONOTONIC, UINT64_MAX, TIMER_ACCURACY,
                          on_timer, c);
    if (r < 0)
        return r;
    r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
    if (r < 0)
        return r;
    /* After reading, so that a reply that is already here beats its own deadline. */
    r = sd_event_source_set_priority(c->timer, SD_EVENT_PRIORITY_IMPORTANT + 1);
    if (r < 0)
        return r;
    r = sd_event_add_defer(c->event, &c->defer, on_defer, c);
    if (r < 0)
        return r;
    r = sd_event_source_set_enabled(c->defer, SD_EVENT_OFF);
    if (r < 0)
        return r;
    return sd_event_source_set_priority(c->defer, SD_EVENT_PRIORITY_IMPORTANT);
}

static int client_new(sd_event *event, uint64_t greeting_timeout, const QmpHandlers *handlers,
                      void *userdata, QmpClient **ret) {
    g_autoptr(QmpClient) c = g_new0(QmpClient, 1);
    int r;

    *c = (QmpClient){
        .refs = 1,
        .state = STATE_CONNECTING,
        .fd = -1,
        .event = sd_event_ref(event),
        .timer_at = UINT64_MAX,
        .handshake_deadline = deadline_after(greeting_timeout),
        .retry_at = UINT64_MAX,
        .handlers = *handlers,
        .userdata = userdata,
        .peer = {0, (uid_t) -1, (gid_t) -1},
        .out = {G_QUEUE_INIT},
        .slots = G_QUEUE_INIT,
        .next_id = 1,
        .held = G_QUEUE_INIT,
    };
    r = client_add_sources(c);
    if (r < 0)
        return r;
    client_arm(c, c->handshake_deadline);
    *ret = g_steal_pointer(&c);
    return 0;
}

int qmp_connect(sd_event *event, const char *path, uint64_t greeting_timeout,
                const QmpHandlers *handlers, void *userdata, QmpClient **ret) {
    g_autoptr(QmpClient) c = NULL;
    int r;

    r = client_new(event, greeting_timeout, handlers, userdata, &c);
    if (r < 0)
        return r;
    c->path = g_strdup(path);
    client_connect(c);
    *ret = g_steal_pointer(&c);
    return 0;
}

static int socket_check(int fd) {
    int domain, type;
    socklen_t size = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return -errno;
    if (domain != AF_UNIX)
        return -EAFNOSUPPORT;
    if (type != SOCK_STREAM)
        return -EPROTOTYPE;
    return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

int qmp_adopt(sd_event *event, int fd, bool resume, uint64_t greeting_timeout,
              const QmpHandlers *handlers, void *userdata, QmpClient **ret) {
    g_autoptr(QmpClient) c = NULL;
    autofd int adopted = fd;
    int r;

    r = socket_check(adopted);
    if (r < 0)
        return r;
    r = client_new(event, greeting_timeout, handlers, userdata, &c);
    if (r < 0)
        return r;
    c->resume = resume;
    /* Away from the predecessor's identifiers, whose replies may still be under way. */
    if (resume)
        c->next_id += (uint64_t) g_random_int() << 20;
    r = client_attach(c, fd_steal(&adopted));
    if (r < 0)
        return r;
    *ret = g_steal_pointer(&c);
    return 0;
}

/* ── looking ── */

bool qmp_is_ready(const QmpClient *c) {
    return c->state == STATE_READY;
}

int qmp_fd(const QmpClient *c) {
    return c->fd;
}

void qmp_peer(const QmpClient *c, pid_t *ret_pid, uid_t *ret_uid, gid_t *ret_gid) {
    *ret_pid = c->peer.pid;
    *ret_uid = c->peer.uid;
    *ret_gid = c->peer.gid;
}

unsigned qmp_pending(const QmpClient *c, uint64_t *ret_oldest) {
    const QmpSlot *oldest = c->slots.head ? c->slots.head->data : NULL;

    if (ret_oldest)
        *ret_oldest = oldest ? now_monotonic() - oldest->sent_at : 0;
    return c->slots.length;
}
