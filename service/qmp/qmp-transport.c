/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sockets, line framing and the outbound queue of a QMP connection. */

#include "qmp/qmp-transport.h"
#include "util.h"

#include <fcntl.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define READ_SIZE ((size_t) 32 * 1024)
#define BATCH_MAX 16 /* commands in one system call */

typedef struct {
    GList link;
    char *text;
    size_t size;
    size_t sent;
    int fd;
} Chunk;

/* ── connecting ── */

int qmp_socket_connect(const char *path, int *ret_fd) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    autofd int handle = -1, fd = -1;

    if (*path == '\0') /* would be a name in the abstract namespace */
        return -ENOENT;
    if (strlen(path) < sizeof address.sun_path)
        strcpy(address.sun_path, path);
    else {
        handle = open(path, O_PATH | O_CLOEXEC);
        if (handle < 0)
            return -errno;
        snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d", handle);
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *) &address, sizeof address) < 0)
        return -errno;
    *ret_fd = fd_steal(&fd);
    return 0;
}

/* ── in ── */

static void input_make_room(QmpInput *in) {
    if (in->begin > 0) {
        memmove(in->data, in->data + in->begin, in->end - in->begin);
        in->end -= in->begin;
        in->scanned -= in->begin;
        in->begin = 0;
    }
    if (in->allocated - in->end < READ_SIZE) {
        /* Doubling keeps the copying of a growing line linear; the owner bounds its length. */
        in->allocated = MAX(in->allocated * 2, in->end + READ_SIZE);
        in->data = g_realloc(in->data, in->allocated);
    }
}

ssize_t qmp_input_read(QmpInput *in, int fd, size_t max) {
    ssize_t n;

    input_make_room(in);
    do
        n = recv(fd, in->data + in->end, MIN(in->allocated - in->end, max), MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if (n == 0)
        return -ECONNRESET;
    in->end += (size_t) n;
    return n;
}

bool qmp_input_line(QmpInput *in, char **ret_line, size_t *ret_size) {
    char *newline;

    if (in->scanned == in->end)
        return false;
    newline = memchr(in->data + in->scanned, '\n', in->end - in->scanned);
    if (!newline) {
        in->scanned = in->end;
        return false;
    }
    *ret_line = in->data + in->begin;
    *ret_size = (size_t) (newline - *ret_line);
    in->begin = in->scanned = (size_t) (newline + 1 - in->data);
    return true;
}

size_t qmp_input_rest(const QmpInput *in) {
    return in->end - in->begin;
}

void qmp_input_shrink(QmpInput *in) {
    size_t rest = qmp_input_rest(in);

    if (rest == 0)
        qmp_input_clear(in);
    else if (in->allocated / 4 > rest) {
        memmove(in->data, in->data + in->begin, rest);
        in->scanned -= in->begin;
        in->begin = 0;
        in->end = in->allocated = rest;
        in->data = g_realloc(in->data, rest);
    }
}

void qmp_input_clear(QmpInput *in) {
    g_free(in->data);
    *in = (QmpInput){};
}

/* ── out ── */

static void chunk_free(Chunk *chunk) {
    fd_close(chunk->fd);
    free(chunk->text);
    g_free(chunk);
}

void qmp_output_push(QmpOutput *out, char *text, size_t size, int fd) {
    Chunk *chunk = g_new0(Chunk, 1);

    *chunk = (Chunk){.link.data = chunk, .text = text, .size = size, .fd = fd};
    g_queue_push_tail_link(&out->queue, &chunk->link);
}

bool qmp_output_is_empty(const QmpOutput *out) {
    return out->queue.length == 0;
}

static void output_pop(QmpOutput *out) {
    chunk_free(g_queue_pop_head_link(&out->queue)->data);
}

/* The head chunk and those after it up to the next descriptor: a descriptor belongs to the first
 * byte of a system call, and QEMU takes the one that it received last for the command that it
 * executes. */
static size_t output_gather(QmpOutput *out, struct iovec *iov) {
    size_t n = 0;

    for (GList *l = out->queue.head; l && n < BATCH_MAX; l = l->next) {
        Chunk *chunk = l->data;
        if (n > 0 && chunk->fd >= 0)
            break;
        iov[n++] = (struct iovec){chunk->text + chunk->sent, chunk->size - chunk->sent};
    }
    return n;
}

static ssize_t output_send(QmpOutput *out, int fd) {
    const Chunk *head = out->queue.head->data;
    alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    struct iovec iov[BATCH_MAX];
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = output_gather(out, iov)};
    ssize_t n;

    if (head->fd >= 0) {
        struct cmsghdr *cmsg;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsg = CMSG_FIRSTHDR(&message);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &head->fd, sizeof(int));
    }
    do
        n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void output_advance(QmpOutput *out, size_t n) {
    while (n > 0) {
        Chunk *chunk = out->queue.head->data;
        size_t taken = MIN(n, chunk->size - chunk->sent);

        /* The descriptor has left with the first byte and must not leave again with the rest. */
        chunk->fd = fd_close(chunk->fd);
        chunk->sent += taken;
        n -= taken;
        if (chunk->sent < chunk->size)
            return;
        output_pop(out);
    }
}

int qmp_output_flush(QmpOutput *out, int fd) {
    while (!qmp_output_is_empty(out)) {
        ssize_t n = output_send(out, fd);
        if (n < 0)
            return (int) n;
        output_advance(out, (size_t) n);
    }
    return 0;
}

void qmp_output_clear(QmpOutput *out) {
    while (!qmp_output_is_empty(out))
        output_pop(out);
}
