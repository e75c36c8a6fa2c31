/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The bytes of a QMP connection: connecting, lines in, commands with descriptors out. No call here
 * ever waits, also not when the other holder of a passed descriptor takes O_NONBLOCK away. */

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Connects to path, of any length. -EAGAIN: the listener's queue is full, try again later. */
int qmp_socket_connect(const char *path, int *ret_fd);

/* Lines from the peer. All zeroes is empty; holds no memory while empty. */
typedef struct {
    char *data;
    size_t allocated;
    size_t begin;   /* first byte of the next line */
    size_t scanned; /* bytes before this one hold no newline of that line */
    size_t end;
} QmpInput;

/* Reads once, at most max bytes. Returns the number of bytes, -EAGAIN, -ECONNRESET at the end of
 * the stream. */
ssize_t qmp_input_read(QmpInput *in, int fd, size_t max);
/* The next whole line without its newline; valid until the next call on in. */
bool qmp_input_line(QmpInput *in, char **ret_line, size_t *ret_size);
/* Bytes of the line that is not complete yet. */
size_t qmp_input_rest(const QmpInput *in);
/* Gives back what memory is not needed; to be called when the reading is over for now. */
void qmp_input_shrink(QmpInput *in);
void qmp_input_clear(QmpInput *in);

/* Commands to the peer, in order. {.queue = G_QUEUE_INIT} is empty. */
typedef struct {
    GQueue queue;
} QmpOutput;

/* Takes text (from malloc) and fd, which goes out with the first byte of text; -1 for none. */
void qmp_output_push(QmpOutput *out, char *text, size_t size, int fd);
bool qmp_output_is_empty(const QmpOutput *out);
/* Writes what the socket takes. 0: all of it; -EAGAIN: some is left. */
int qmp_output_flush(QmpOutput *out, int fd);
void qmp_output_clear(QmpOutput *out);
