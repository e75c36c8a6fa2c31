/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A QMP client that does nothing but what it is told: commands in one write, replies in order. */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "measure.h"

struct Qmp {
    int fd;
    uint64_t sent, answered; /* numbers of commands: QEMU answers in order */
    GString *out, *in;
    size_t seen;    /* bytes of in that have been looked at */
    json_t *events; /* that nobody has waited for yet */
};

static json_t *line_take(Qmp *q) {
    char *end = memchr(q->in->str + q->seen, '\n', q->in->len - q->seen);

    if (!end) {
        q->seen = q->in->len;
        return NULL;
    }
    size_t size = (size_t) (end - q->in->str);
    json_t *message = json_loadb(q->in->str, size, 0, NULL);
    if (!message)
        die("QEMU sent what is no JSON: %.*s", (int) size, q->in->str);
    g_string_erase(q->in, 0, (gssize) size + 1);
    q->seen = 0;
    return message;
}

static json_t *message_read(Qmp *q) {
    char buffer[65536];
    json_t *message;

    while (!(message = line_take(q))) {
        struct pollfd p = {.fd = q->fd, .events = POLLIN};
        if (poll(&p, 1, (int) (PATIENCE_NS / 1000000)) == 0)
            die("QEMU has not answered in time");
        ssize_t n = recv(q->fd, buffer, sizeof buffer, 0);
        if (n <= 0)
            die("QEMU has closed the monitor: %s", n < 0 ? g_strerror(errno) : "end of stream");
        g_string_append_len(q->in, buffer, n);
    }
    return message;
}

/* Reads one message: an event is kept, a reply counts, an error is the end. */
static void message_take(Qmp *q) {
    json_t *message = message_read(q), *error = json_object_get(message, "error");

    if (error)
        die("QEMU: %s", json_string_value(json_object_get(error, "desc")));
    if (json_object_get(message, "event"))
        json_array_append(q->events, message);
    else if (json_object_get(message, "return"))
        q->answered++;
    json_decref(message);
}

static char *command_text(const char *command, json_t *arguments) {
    json_t *message = json_pack("{s:s, s:o*}", "execute", command, "arguments", arguments);
    char *text = json_dumps(message, JSON_COMPACT);

    json_decref(message);
    return text;
}

uint64_t qmp_put(Qmp *q, const char *command, json_t *arguments) {
    char *text = command_text(command, arguments);

    g_string_append(q->out, text);
    g_string_append_c(q->out, '\n');
    free(text);
    return ++q->sent;
}

void qmp_flush(Qmp *q) {
    for (size_t done = 0; done < q->out->len;) {
        ssize_t n = send(q->fd, q->out->str + done, q->out->len - done, MSG_NOSIGNAL);
        if (n < 0)
            die("cannot write to QEMU's monitor: %s", g_strerror(errno));
        done += (size_t) n;
    }
    g_string_truncate(q->out, 0);
}

uint64_t qmp_put_fd(Qmp *q, const char *command, json_t *arguments, int fd) {
    char *text = command_text(command, arguments), control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part[] = {{text, strlen(text)}, {"\n", 1}};
    struct msghdr m = {
        .msg_iov = part, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);

    qmp_flush(q);
    *c = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    if (sendmsg(q->fd, &m, MSG_NOSIGNAL) != (ssize_t) (part[0].iov_len + 1))
        die("cannot pass a descriptor to QEMU: %s", g_strerror(errno));
    free(text);
    return ++q->sent;
}

void qmp_await(Qmp *q, uint64_t id) {
    while (q->answered < id)
        message_take(q);
}

void qmp_do(Qmp *q, const char *command, json_t *arguments) {
    uint64_t id = qmp_put(q, command, arguments);

    qmp_flush(q);
    qmp_await(q, id);
}

/* A mirror's own events name it "device", the events of all jobs name it "id". */
static bool event_fits(const json_t *message, const char *event, const char *id,
                       const char *status) {
    const json_t *data = json_object_get(message, "data");
    const char *name = json_string_value(json_object_get(data, "id"));

    if (!name)
        name = json_string_value(json_object_get(data, "device"));
    return g_strcmp0(json_string_value(json_object_get(message, "event")), event) == 0 &&
           g_strcmp0(name, id) == 0 &&
           (!status || g_strcmp0(json_string_value(json_object_get(data, "status")), status) == 0);
}

void qmp_await_event(Qmp *q, const char *event, const char *id, const char *status) {
    for (size_t i = 0;; i++) {
        while (i >= json_array_size(q->events))
            message_take(q);
        if (event_fits(json_array_get(q->events, i), event, id, status)) {
            json_array_remove(q->events, i);
            return;
        }
    }
}

void qmp_forget_events(Qmp *q) {
    json_array_clear(q->events);
}

Qmp *qmp_open(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    Qmp *q = g_new0(Qmp, 1);

    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    q->out = g_string_new(NULL);
    q->in = g_string_new(NULL);
    q->events = json_array();
    q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (q->fd < 0 || connect(q->fd, (struct sockaddr *) &address, sizeof address) < 0)
        die("cannot connect to \"%s\": %s", path, g_strerror(errno));
    json_decref(message_read(q)); /* the greeting */
    qmp_do(q, "qmp_capabilities", NULL);
    return q;
}
