/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The QMP client against a scripted peer on the same loop: what QEMU does, and what it never
 * should. */

#include "qmp-peer.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

/* ── handshake ── */

static void handshake_and_commands(void) {
    g_auto(World) w = {};
    Call a = {&w, "a"}, b = {&w, "b"};
    uint64_t oldest;
    pid_t pid;
    uid_t uid;
    gid_t gid;

    world_init(&w);
    world_adopt(&w, false);
    settle(&w);
    expect(&w, "");
    peer_expect(&w, ""); /* the greeting comes first */
    g_assert_cmpint(qmp_send(w.client, NULL, "early", json_object(), -1, 0, NULL, NULL), ==,
                    -ENOTCONN);
    peer_say(&w, GREETING);
    peer_expect(&w, CAPABILITIES);
    g_assert_false(qmp_is_ready(w.client));
    peer_say(&w, "\r\n{\"return\": {}, \"id\": 1}\r\n\n");
    expect(&w, "ready 7.2.22\n");

    qmp_peer(w.client, &pid, &uid, &gid);
    g_assert_cmpint(pid, ==, getpid());
    g_assert_cmpint(uid, ==, getuid());
    g_assert_cmpint(qmp_fd(w.client), >=, 0);

    g_assert_cmpint(
        qmp_send(w.client, NULL, "x", json_pack("{s:s}", "k", "ü\n"), -1, 0, on_reply, &a), ==, 0);
    /* It has left already: the loop did not run. */
    peer_expect(&w, "{\"execute\":\"x\",\"arguments\":{\"k\":\"ü\\n\"},\"id\":2}\n");
    send_call(&w, &b, 0);
    g_assert_cmpuint(qmp_pending(w.client, &oldest), ==, 2);
    g_assert_cmpuint(oldest, <, DEADLINE);
    peer_say(&w, "{\"return\": [1], \"id\": 2}\r\n"
                 "{\"id\": 3, \"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no\"}}\r\n");
    expect(&w, "a [1]\nb error 0DeviceNotFound\n");
    g_assert_cmpuint(qmp_pending(w.client, &oldest), ==, 0);
    g_assert_cmpuint(oldest, ==, 0);
    peer_close(&w);
    expect(&w, "gone -104\n");
    g_assert_cmpint(qmp_send(w.client, NULL, "late", NULL, -1, 0, NULL, NULL), ==, -ENOTCONN);
}

static const char dialogue[] = STALE_EVENT("EARLY")
    GREETING STALE_EVENT("MIDDLE") "{\"return\": {}, \"id\": 1}\r\n" STALE_EVENT(
        "LATE") "{\"return\": {\"a\": \"}{\\\"]\\n\"}, \"id\": 2}\n";
static const char dialogue_heard[] = "ready 7.2.22\nevent EARLY 12000034\nevent MIDDLE 12000034\n"
                                     "sent 0\nevent LATE 12000034\n";

/* Plays the first n bytes, in pieces of the given size; a command is sent as soon as possible. */
static void dialogue_play(World *w, size_t n, size_t piece) {
    w->send_on = "event MIDDLE";
    world_adopt(w, false);
    for (size_t i = 0; i < n; i += piece) {
        peer_write(w, dialogue + i, MIN(piece, n - i));
        settle(w);
    }
}

static void pieces_of_any_size(void) {
    for (size_t piece = 1; piece < sizeof dialogue; piece++) {
        g_auto(World) w = {};
        world_init(&w);
        dialogue_play(&w, strlen(dialogue), piece);
        expect(&w, dialogue_heard);
        g_assert_cmpuint(qmp_pending(w.client, NULL), ==, 0);
    }
}

static void disconnect_after_every_byte(void) {
    for (size_t n = 0; n <= strlen(dialogue); n++) {
        g_auto(World) w = {};
        g_autofree char *end = NULL;

        world_init(&w);
        dialogue_play(&w, n, n + 1);
        peer_close(&w);
        settle(&w);
        end = g_strdup(strstr(w.heard->str, "gone"));
        g_assert_cmpstr(end, ==, "gone -104\n"); /* once, and last */
        g_string_truncate(w.heard, w.heard->len - strlen(end));
        g_assert_true(g_str_has_prefix(dialogue_heard, w.heard->str));
    }
}

static void silence_times_out(void) {
    const char *const said[] = {"", "{\"QM", GREETING, STALE_EVENT("E")};

    for (size_t i = 0; i < G_N_ELEMENTS(said); i++) {
        g_auto(World) w = {};
        world_init(&w);
        w.greeting_timeout = 10 * USEC_PER_MSEC;
        world_adopt(&w, i == 3);
        peer_write(&w, said[i], strlen(said[i]));
        run_until(&w, w.heard, "gone");
        expect(&w, "gone -110\n");
    }
}

static void negotiation_refused(void) {
    g_auto(World) w = {};

    world_init(&w);
    world_adopt(&w, false);
    peer_say(&w, GREETING);
    peer_say(&w, "{\"id\": 1, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}}\n");
    expect(&w, "gone -71\n");
}

static void flood_before_ready_drops_the_oldest(void) {
    g_auto(World) w = {};

    world_init(&w);
    world_adopt(&w, false);
    peer_say(&w, STALE_EVENT("OLDEST"));
    for (unsigned i = 0; i < 20000; i++)
        peer_say(&w, STALE_EVENT("FLOOD"));
    peer_say(&w, STALE_EVENT("NEWEST"));
    peer_say(&w, GREETING "{\"return\": {}, \"id\": 1}\r\n");
    expect(&w, "ready 7.2.22\nevent NEWEST 12000034\n");
    g_assert_cmpuint(w.n_events, >, 1000);
    g_assert_cmpuint(w.n_events * (strlen(STALE_EVENT("FLOOD")) - 1), <=, QMP_READ_MAX);
}

/* ── a peer that breaks the protocol ── */

static void garbage_disconnects(void) {
    const char *const lines[] = {
        "hello",
        "{",
        "[]",
        "{}",
        "null",
        "\xff",
        "{\"a\": 1}",
        "{\"event\": 1}",
        "{\"event\": \"E\", \"data\": []}",
        "{\"event\": \"E\", \"event\": \"E\"}",
        "{\"event\": \"E\\u0000\"}",
        "{\"event\": \"\xc3\x28\"}",
        "{\"event\": \"E\"} {\"event\": \"E\"}",
        "{\"event\": \"E\", \"return\": {}}",
        "{\"event\": \"E\", \"n\": 1e999}",
        "{\"QMP\": {}}",
        "{\"return\": {}, \"error\": {}, \"id\": 2}",
        "{\"error\": {}, \"id\": 2}",
        "{\"error\": {\"class\": 1, \"desc\": 2}, \"id\": 2}",
        "{\"return\": {}}",
        "{\"return\": {}, \"id\": 1}",
        "{\"return\": {}, \"id\": 77}",
        "{\"return\": {}, \"id\": -2}",
        "{\"return\": {}, \"id\": \"2\"}",
        "{\"return\": {}, \"id\": 2.0}",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}",
        "}}}}\"{[",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++)
        for (unsigned ready = 0; ready < 2; ready++) {
            g_auto(World) w = {};
            Call a = {&w, "a"};

            world_init(&w);
            if (ready) {
                world_ready(&w);
                send_call(&w, &a, 0);
            } else
                world_adopt(&w, false);
            peer_say(&w, lines[i]);
            expect(&w, "");
            peer_say(&w, "\n" STALE_EVENT("AFTER"));
            expect(&w, ready ? "a none -107\ngone -71\n" : "gone -71\n");
        }
}

static void second_greeting_disconnects(void) {
    g_auto(World) w = {};

    world_init(&w);
    world_ready(&w);
    peer_say(&w, GREETING);
    expect(&w, "gone -71\n");
}

/* A line of size bytes, its newline not counted. */
static char *long_event(const char *name, size_t size) {
    g_autofree char *head = g_strdup_printf("{\"event\": \"%s\", \"data\": {\"x\": \"", name);
    g_autofree char *filler = g_strnfill(size - strlen(head) - strlen("\"}}"), '[');

    return g_strconcat(head, filler, "\"}}\n", NULL);
}

static void line_of_any_size_up_to_the_limit(void) {
    for (unsigned over = 0; over < 3; over++) {
        g_auto(World) w = {};
        size_t size = QMP_LINE_MAX + (over ? 1 : 0);
        g_autofree char *line = long_event("BIG", size);

        world_init(&w);
        world_ready(&w);
        peer_write(&w, line, size);
        if (over != 2) /* the last one never sends its newline */
            peer_say(&w, "\n" STALE_EVENT("AFTER"));
        settle(&w);
        expect(&w, over ? "gone -71\n" : "event BIG 0\nevent AFTER 12000034\n");
    }
}

static void nesting_is_limited(void) {
    for (unsigned depth = QMP_DEPTH_MAX; depth <= 300000;
         depth = depth == QMP_DEPTH_MAX ? depth + 1 : depth * 9) {
        g_auto(World) w = {};
        g_autoptr(GString) line = g_string_new("{\"event\": \"DEEP\", \"data\": {\"x\": ");

        for (unsigned i = 2; i < depth; i++)
            g_string_append_c(line, '[');
        for (unsigned i = 2; i < depth; i++)
            g_string_append_c(line, ']');
        g_string_append(line, "}}\n");
        world_init(&w);
        world_ready(&w);
        peer_say(&w, line->str);
        expect(&w, depth > QMP_DEPTH_MAX ? "gone -71\n" : "event DEEP 0\n");
    }
}

static void integers_are_clamped(void) {
    g_auto(World) w = {};
    Call a = {&w, "a"};

    world_init(&w);
    world_ready(&w);
    send_call(&w, &a, 0);
    peer_say(&w, "{\"return\": [18446744073709551615, 9223372036854775807, -9223372036854775809, "
                 "123456789012345678901234567890, \"18446744073709551615\", -7, 0.5, 1E3, "
                 "12345678901234567890.5, 9223372036854775808], \"id\": 2}\n");
    expect(&w, "a [9223372036854775807,9223372036854775807,-9223372036854775808,"
               "9223372036854775807,\"18446744073709551615\",-7,0.5,1000.0,"
               "1.2345678901234567e19,9223372036854775807]\n");
}

/* ── slots ── */

static void replies_in_any_order_and_once(void) {
    g_auto(World) w = {};
    Call a = {&w, "a"}, b = {&w, "b"}, c = {&w, "c"};

    world_init(&w);
    world_ready(&w);
    send_call(&w, &a, 0);
    send_call(&w, &b, 0);
    send_call(&w, &c, 0);
    peer_say(&w, "{\"return\": 3, \"id\": 4}\n{\"return\": 1, \"id\": 2}\n");
    expect(&w, "c 3\na 1\n");
    peer_say(&w, "{\"return\": 1, \"id\": 2}\n");
    expect(&w, "b none -107\ngone -71\n");
}

static void late_reply_is_dropped(void) {
    g_auto(World) w = {};
    Call a = {&w, "a"}, b = {&w, "b"}, c = {&w, "c"};
    uint64_t start, oldest;

    world_init(&w);
    world_ready(&w);
    start = now_monotonic();
    send_call(&w, &a, 30 * USEC_PER_MSEC);
    send_call(&w, &b, 5 * USEC_PER_MSEC);
    send_call(&w, &c, 0);
    run_until(&w, w.heard, "a none -110");
    g_assert_cmpuint(now_monotonic() - start, >=, 30 * USEC_PER_MSEC);
    expect(&w, "b none -110\na none -110\n");
    g_assert_cmpuint(qmp_pending(w.client, &oldest), ==, 3);
    g_assert_cmpuint(oldest, >=, 30 * USEC_PER_MSEC);
    peer_say(&w, "{\"return\": {}, \"id\": 2}\n{\"return\": 1, \"id\": 4}\n");
    peer_say(&w, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"\"}, \"id\": 3}\n");
    expect(&w, "c 1\n");
    g_assert_cmpuint(qmp_pending(w.client, NULL), ==, 0);
    peer_say(&w, "{\"return\": {}, \"id\": 2}\n");
    expect(&w, "gone -71\n");
}

static void reply_that_is_there_beats_its_deadline(void) {
    g_auto(World) w = {};
    Call a = {&w, "a"};

    world_init(&w);
    world_ready(&w);
    send_call(&w, &a, 1);
    peer_write(&w, "{\"return\": 1, \"id\": 2}\n", 23);
    for (uint64_t end = now_monotonic() + 5 * USEC_PER_MSEC; now_monotonic() < end;)
        ; /* a loop that was busy elsewhere until after the deadline */
    settle(&w);
    expect(&w, "a 1\n");
}

static void cancelled_slots_are_silent(void) {
    g_auto(World) w = {};
    Call a = {&w, "a"}, b = {&w, "b"}, c = {&w, "c"}, d = {&w, "d"};

    world_init(&w);
    world_ready(&w);
    qmp_slot_cancel(NULL);
    qmp_slot_cancel(send_call(&w, &a, 1));
    b.cancel = send_call(&w, &b, 0); /* itself */
    d.cancel = send_call(&w, &c, 0);
    send_call(&w, &d, 0);
    settle(&w);
    expect(&w, "");
    peer_say(&w, "{\"return\": 1, \"id\": 2}\n{\"return\": 2, \"id\": 3}\n");
    peer_say(&w, "{\"return\": 4, \"id\": 5}\n{\"return\": 3, \"id\": 4}\n");
    expect(&w, "b 2\nd 4\n");
    b.cancel = send_call(&w, &c, 0);
    send_call(&w, &b, 1 * USEC_PER_MSEC);
    run_until(&w, w.heard, "b none -110\n");
    peer_close(&w);
    expect(&w, "b none -110\ngone -104\n");
}

static void sending_from_callbacks(void) {
    const char *const when[] = {"event", "a 1", "b none -110", "c none -107", "gone"};

    for (size_t i = 0; i < G_N_ELEMENTS(when); i++) {
        g_auto(World) w = {};
        Call a = {&w, "a"}, b = {&w, "b"}, c = {&w, "c"};
        g_autofree char *sent = g_strdup_printf("%s\nsent %d", when[i], i < 3 ? 0 : -ENOTCONN);

        world_init(&w);
        world_ready(&w);
        w.send_on = when[i];
        send_call(&w, &a, 0);
        send_call(&w, &b, 1 * USEC_PER_MSEC);
        send_call(&w, &c, 0);
        peer_say(&w, STALE_EVENT("E") "{\"return\": 1, \"id\": 2}\n");
        run_until(&w, w.heard, "b none -110\n");
        peer_close(&w);
        g_assert_nonnull(strstr(w.heard->str, "c none -107\n"));
        if (i == 0 || i == 4)
            sent[strlen(when[i])] = '\0'; /* these lines go on after the prefix */
        g_assert_nonnull(strstr(w.heard->str, sent));
        g_assert_nonnull(strstr(w.heard->str, "sent"));
    }
}

static void freeing_in_every_callback(void) {
    const char *const when[] = {"ready",       "event EARLY", "event NOW", "a 1",
                                "b none -110", "c none -107", "gone"};

    for (size_t i = 0; i < G_N_ELEMENTS(when); i++) {
        g_auto(World) w = {};
        Call a = {&w, "a"}, b = {&w, "b"}, c = {&w, "c"}, d = {&w, "d"};
        const char *last;

        world_init(&w);
        w.free_on = when[i];
        world_adopt(&w, false);
        peer_say(&w, STALE_EVENT("EARLY") STALE_EVENT("SECOND"));
        peer_say(&w, GREETING "{\"return\": {}, \"id\": 1}\n");
        if (w.client) {
            send_call(&w, &a, 0);
            send_call(&w, &b, 20 * USEC_PER_MSEC);
            send_call(&w, &c, 0);
            send_call(&w, &d, 0);
            peer_say(&w, STALE_EVENT("NOW") "{\"return\": 1, \"id\": 2}\n");
        }
        if (w.client)
            run_until(&w, w.heard, "b none -110\n");
        peer_close(&w);
        g_assert_null(w.client);
        last = g_strrstr_len(w.heard->str, (gssize) w.heard->len - 1, "\n");
        g_assert_true(g_str_has_prefix(last ? last + 1 : w.heard->str, when[i]));
    }
}

static void freeing_forgets_everything(void) {
    g_auto(World) w = {};
    Call a = {&w, "a"};

    world_init(&w);
    world_ready(&w);
    g_assert_null(qmp_free(NULL));
    send_call(&w, &a, 1);
    peer_write(&w, STALE_EVENT("E"), strlen(STALE_EVENT("E")));
    w.client = qmp_free(w.client);
    settle(&w);
    expect(&w, "");
}

static void many_commands_at_once(void) {
    g_auto(World) w = {};
    Call a = {&w, "a"};

    world_init(&w);
    world_ready(&w);
    for (unsigned i = 0; i < QMP_PENDING_MAX; i++)
        send_call(&w, &a, 60 * USEC_PER_SEC);
    g_assert_cmpint(qmp_send(w.client, NULL, "more", NULL, -1, 0, NULL, NULL), ==, -ENOBUFS);
    run_until(&w, w.got, "\"id\":4097}\n");
    for (unsigned i = 0; i < QMP_PENDING_MAX; i++) {
        g_autofree char *reply = g_strdup_printf("{\"return\": %u, \"id\": %u}\r\n", i, i + 2);
        peer_write(&w, reply, strlen(reply));
    }
    run_until(&w, w.heard, "a 4095\n");
    g_assert_cmpuint(qmp_pending(w.client, NULL), ==, 0);
}

/* ── errors and endings ── */

static void write_errors_come_from_the_loop(void) {
    g_auto(World) w = {};
    Call a = {&w, "a"}, b = {&w, "b"};

    world_init(&w);
    world_ready(&w);
    send_call(&w, &a, 0);
    peer_write(&w, "{\"return\": 1, \"id\": 2}\n", 23);
    w.peer = fd_close(w.peer);
    send_call(&w, &b, 0);
    g_assert_cmpint(qmp_send(w.client, NULL, "more", NULL, -1, 0, NULL, NULL), ==, -ENOTCONN);
    expect(&w, "");
    settle(&w);
    /* The last words of the peer are heard. */
    expect(&w, "a 1\nb none -107\ngone -104\n");
}

static void half_closed_peer_is_gone(void) {
    g_auto(World) w = {};

    world_init(&w);
    world_ready(&w);
    shutdown(w.peer, SHUT_RD);
    g_assert_cmpint(qmp_send(w.client, NULL, "x", NULL, -1, 0, NULL, NULL), ==, 0);
    expect(&w, "");
    peer_say(&w, STALE_EVENT("LAST"));
    expect(&w, "event LAST 12000034\ngone -32\n");
}

static void one_dispatch_reads_a_bounded_amount(void) {
    g_auto(World) w = {};
    g_autofree char *line = long_event("FLOOD", 1024);
    int size = 8 * 1024 * 1024;

    world_init(&w);
    world_ready(&w);
    if (setsockopt(w.peer, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0) {
        g_test_skip("needs root for a large socket buffer");
        return;
    }
    for (unsigned i = 0; i < 1024; i++)
        g_assert_cmpint(send(w.peer, line, 1025, MSG_DONTWAIT), ==, 1025);
    sd_event_run(w.event, 0);
    g_assert_cmpuint(w.n_events, <=, QMP_READ_MAX / 1025);
    g_assert_cmpuint(w.n_events, >=, QMP_READ_MAX / 1025 - 1);
    settle(&w);
    g_assert_cmpuint(w.n_events, ==, 1024);
}

static void idle_connections_cost_little(void) {
    World worlds[100];
    size_t before, used;

    for (size_t i = 0; i < G_N_ELEMENTS(worlds); i++)
        world_init(&worlds[i]);
    before = mallinfo2().uordblks;
    for (size_t i = 0; i < G_N_ELEMENTS(worlds); i++) {
        world_ready(&worlds[i]);
        peer_say(&worlds[i], STALE_EVENT("E") "{\"half");
    }
    used = (mallinfo2().uordblks - before) / G_N_ELEMENTS(worlds);
    g_test_message("%zu bytes for each connection", used);
    g_assert_cmpuint(used, <, 4096);
    for (size_t i = 0; i < G_N_ELEMENTS(worlds); i++)
        world_clear(&worlds[i]);
}

/* ── descriptors ── */

/* One recvmsg() of at most size bytes. Returns the inode of the descriptor that came along, or
 * 0. */
static ino_t peer_receive(World *w, size_t size, size_t *ret_n) {
    static char buffer[65536];
    char control[CMSG_SPACE(sizeof(int) * 4)];
    struct iovec iov = {buffer, MIN(size, sizeof buffer)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *cmsg;
    struct stat st;
    ssize_t n;
    int fd;

    do {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        n = recvmsg(w->peer, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
            g_assert_cmpint(sd_event_run(w->event, DEADLINE), >, 0);
    } while (n < 0);
    g_assert_cmpint(n, >, 0);
    *ret_n = (size_t) n;
    cmsg = CMSG_FIRSTHDR(&message);
    if (!cmsg)
        return 0;
    g_assert_cmpuint(cmsg->cmsg_len, ==, CMSG_LEN(sizeof(int)));
    memcpy(&fd, CMSG_DATA(cmsg), sizeof fd);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    fd_close(fd);
    return st.st_ino;
}

static int memfd_new(ino_t *ret_inode) {
    struct stat st;
    int fd = memfd_create("test", MFD_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    *ret_inode = st.st_ino;
    return fd;
}

/* The stream is filled with commands of all sizes, so that those with descriptors are cut anywhere
 * by the full buffer; every descriptor must come with the byte that begins its command. */
static void descriptor_comes_with_its_first_byte(void) {
    enum { N = 60 };
    g_auto(World) w = {};
    size_t begin[N + 1] = {}, at = 0, n;
    ino_t inode[N] = {};

    world_init(&w);
    world_ready(&w);
    for (unsigned i = 0; i < N; i++) {
        size_t length = i % 3 == 0 ? 200000 + i * 1009 : i % 3;
        g_autofree char *filler = g_strnfill(length, 'x');
        int fd = i % 4 == 3 ? -1 : memfd_new(&inode[i]);

        g_assert_cmpint(
            qmp_send(w.client, NULL, "fd", json_pack("{s:s}", "k", filler), fd, 0, NULL, NULL), ==,
            0);
        begin[i + 1] = begin[i] +
                       strlen("{\"execute\":\"fd\",\"arguments\":{\"k\":\"\"},\"id\":}\n") +
                       length + (i + 2 < 10 ? 1 : 2);
    }
    g_assert_cmpuint(begin[N], >, 4 * MIB);
    for (unsigned i = 0; i < N; i++) {
        /* In big steps up to the last byte before the command, then one byte. */
        while (at < begin[i]) {
            g_assert_cmpuint(peer_receive(&w, begin[i] - at, &n), ==, 0);
            at += n;
        }
        g_assert_cmpuint(peer_receive(&w, 1, &n), ==, inode[i]);
        at++;
    }
    while (at < begin[N]) {
        g_assert_cmpuint(peer_receive(&w, begin[N] - at, &n), ==, 0);
        at += n;
    }
    settle(&w);
    g_assert_cmpint(recv(w.peer, &n, 1, MSG_DONTWAIT), <, 0);
}

static bool pipe_is_closed(int reader) {
    char byte;

    return read(reader, &byte, 1) == 0;
}

static void descriptors_are_never_leaked(void) {
    for (unsigned i = 0; i < 5; i++) {
        g_auto(World) w = {};
        autofd int reader = -1;
        int ends[2], r;

        world_init(&w);
        g_assert_cmpint(pipe2(ends, O_CLOEXEC | O_NONBLOCK), ==, 0);
        reader = ends[0];
        if (i == 0)
            world_adopt(&w, false); /* not ready: refused */
        else
            world_ready(&w);
        if (i >= 2) { /* stuck behind a full socket */
            g_autofree char *filler = g_strnfill(2 * MIB, 'x');
            qmp_send(w.client, NULL, "x", json_pack("{s:s}", "k", filler), -1, 0, NULL, NULL);
        }
        r = qmp_send(w.client, NULL, "fd", NULL, ends[1], 0, NULL, NULL);
        g_assert_cmpint(r, ==, i == 0 ? -ENOTCONN : 0);
        if (i >= 2)
            g_assert_false(pipe_is_closed(reader));
        if (i == 1) {
            size_t n;
            g_assert_cmpuint(peer_receive(&w, 1, &n), !=, 0);
        }
        if (i == 2)
            w.client = qmp_free(w.client);
        if (i == 3)
            peer_close(&w);
        if (i == 4)
            peer_say(&w, "garbage\n");
        g_assert_true(pipe_is_closed(reader));
    }
}

/* ── resuming ── */

static char *capabilities_of(World *w) {
    char *id;

    run_until(w, w->got, "}\n");
    g_assert_true(g_str_has_prefix(w->got->str, "{\"execute\":\"qmp_capabilities\",\"id\":"));
    id = g_strdup(strstr(w->got->str, "\"id\":") + 5);
    *strchr(id, '}') = '\0';
    g_string_truncate(w->got, 0);
    return id;
}

static void resume_in_the_middle_of_a_line(void) {
    const char *const rest[] = {"", "\n", "lf a line \\\"{[\"}, \"id\": 3}\r\n", GREETING};
    const char *const answers[] = {
        "\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"already complete\"}",
        "\"return\": {}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rest) * 2; i++) {
        g_auto(World) w = {};
        Call a = {&w, "a"};
        g_autofree char *id = NULL, *answer = NULL;

        world_init(&w);
        world_adopt(&w, true);
        peer_expect(&w, "\xff");
        peer_say(&w, rest[i / 2]);
        peer_say(&w, "{\"return\": {}, \"id\": 1}\r\n" STALE_EVENT("MISSED"));
        peer_say(&w, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"\"}, \"id\": \"x\"}\n");
        peer_expect(&w, "");
        /* The end of an unfinished command first, then that of 0xFF. */
        peer_say(&w, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"parse\"}}\r\n");
        peer_say(&w, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"parse\"}}\r\n");
        id = capabilities_of(&w);
        answer = g_strdup_printf("{%s, \"id\": %s}\r\n", answers[i % 2], id);
        expect(&w, "");
        peer_say(&w, answer);
        expect(&w, "ready \nevent MISSED 12000034\n");
        send_call(&w, &a, 0);
        peer_read(&w);
        peer_say(&w, "{\"return\": 1, \"id\": 1}\n");
        expect(&w, "a none -107\ngone -71\n"); /* strict again */
    }
}

static void resume_of_a_dead_connection(void) {
    for (unsigned i = 0; i < 3; i++) {
        g_auto(World) w = {};
        int pair[2];

        world_init(&w);
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
        w.peer = pair[1];
        if (i == 0)
            w.peer = fd_close(w.peer);
        g_assert_cmpint(qmp_adopt(w.event, pair[0], true, 0, &handlers, &w, &w.client), ==, 0);
        expect(&w, "");
        if (i == 2)
            peer_say(&w, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"parse\"}}\r\n");
        peer_close(&w);
        settle(&w);
        expect(&w, "gone -104\n");
    }
}

static void adopting_checks_the_descriptor(void) {
    g_auto(World) w = {};
    QmpClient *c = NULL;
    int fd;

    world_init(&w);
    fd = memfd_create("x", MFD_CLOEXEC);
    g_assert_cmpint(qmp_adopt(w.event, fd, false, 0, &handlers, &w, &c), ==, -ENOTSOCK);
    g_assert_cmpint(fcntl(fd, F_GETFD), <, 0);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    g_assert_cmpint(qmp_adopt(w.event, fd, false, 0, &handlers, &w, &c), ==, -EAFNOSUPPORT);
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    g_assert_cmpint(qmp_adopt(w.event, fd, false, 0, &handlers, &w, &c), ==, -EPROTOTYPE);
    g_assert_cmpint(fcntl(fd, F_GETFD), <, 0);
    /* Not connected at all: known as soon as it is used. */
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(qmp_adopt(w.event, fd, false, 0, &handlers, &w, &w.client), ==, 0);
    g_assert_null(c);
    run_until(&w, w.heard, "gone -22\n");
}

/* ── connecting ── */

typedef struct {
    char *folder;
    char *path;
    int listener;
} Server;

static void server_init(Server *s, size_t name_length, int backlog) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *name = g_strnfill(name_length, 's');
    autofd int folder = -1;

    s->folder = g_dir_make_tmp("blockjobd-qmp-XXXXXX", NULL);
    g_assert_nonnull(s->folder);
    s->path = g_build_filename(s->folder, name, NULL);
    s->listener = -1;
    if (backlog < 0)
        return;
    folder = open(s->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Bound through a short name, renamed to the long one. */
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/b", folder);
    g_assert_cmpint(bind(s->listener, (struct sockaddr *) &address, sizeof address), ==, 0);
    g_assert_cmpint(renameat(folder, "b", AT_FDCWD, s->path), ==, 0);
    g_assert_cmpint(listen(s->listener, backlog), ==, 0);
}

static void server_clear(Server *s) {
    fd_close(s->listener);
    g_unlink(s->path);
    g_rmdir(s->folder);
    g_free(s->path);
    g_free(s->folder);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Server, server_clear)

static void world_connect(World *w, const char *path) {
    g_assert_cmpint(qmp_connect(w->event, path, w->greeting_timeout, &handlers, w, &w->client), ==,
                    0);
    expect(w, "");
}

static void connect_to_paths_of_any_length(void) {
    for (size_t length = 1; length <= 240;
         length = length == 1 ? 60 : length + (length < 110 ? 1 : 43)) {
        g_auto(World) w = {};
        g_auto(Server) s = {};

        world_init(&w);
        server_init(&s, length, 1);
        world_connect(&w, s.path);
        w.peer = accept4(s.listener, NULL, NULL, SOCK_CLOEXEC);
        g_assert_cmpint(w.peer, >=, 0);
        peer_say(&w, GREETING "{\"return\": {}, \"id\": 1}\n");
        expect(&w, "ready 7.2.22\n");
    }
}

static void connect_fails_from_the_loop(void) {
    g_auto(World) w = {};
    g_auto(Server) s = {};
    g_autofree char *missing = NULL, *too_long = g_strnfill(8000, 'x');

    world_init(&w);
    server_init(&s, 150, 1);
    s.listener = fd_close(s.listener);
    world_connect(&w, s.path); /* the file is there, nobody listens */
    settle(&w);
    expect(&w, "gone -111\n");
    w.client = qmp_free(w.client);
    missing = g_strconcat(s.path, "-", NULL);
    const char *const paths[] = {missing, "/nonexistent", "", "/dev/null/x", too_long, "/tmp"};
    const char *const heard[] = {"gone -2\n",  "gone -2\n",  "gone -2\n",
                                 "gone -20\n", "gone -36\n", "gone -111\n"};
    for (size_t i = 0; i < G_N_ELEMENTS(paths); i++) {
        world_connect(&w, paths[i]);
        g_assert_cmpint(qmp_fd(w.client), ==, -1);
        settle(&w);
        expect(&w, heard[i]);
        w.client = qmp_free(w.client);
    }
    world_connect(&w, "/nonexistent");
    w.client = qmp_free(w.client);
    settle(&w);
    expect(&w, "");
}

static void connect_waits_for_a_full_listener(void) {
    for (unsigned late = 0; late < 2; late++) {
        g_auto(World) w = {};
        g_auto(Server) s = {};
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        autofd int other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        world_init(&w);
        server_init(&s, 1, 0);
        strcpy(address.sun_path, s.path);
        g_assert_cmpint(connect(other, (struct sockaddr *) &address, sizeof address), ==, 0);
        w.greeting_timeout = late ? 120 * USEC_PER_MSEC : DEADLINE;
        world_connect(&w, s.path);
        settle(&w);
        g_assert_cmpint(qmp_fd(w.client), ==, -1);
        if (late) {
            run_until(&w, w.heard, "gone -110\n");
            continue;
        }
        w.peer = accept4(s.listener, NULL, NULL, SOCK_CLOEXEC);
        fd_close(w.peer);
        while (qmp_fd(w.client) < 0)
            sd_event_run(w.event, DEADLINE);
        w.peer = accept4(s.listener, NULL, NULL, SOCK_CLOEXEC);
        peer_say(&w, GREETING "{\"return\": {}, \"id\": 1}\n");
        expect(&w, "ready 7.2.22\n");
    }
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/qmp/" #name, name)
    ADD(handshake_and_commands);
    ADD(pieces_of_any_size);
    ADD(disconnect_after_every_byte);
    ADD(silence_times_out);
    ADD(negotiation_refused);
    ADD(flood_before_ready_drops_the_oldest);
    ADD(garbage_disconnects);
    ADD(second_greeting_disconnects);
    ADD(line_of_any_size_up_to_the_limit);
    ADD(nesting_is_limited);
    ADD(integers_are_clamped);
    ADD(replies_in_any_order_and_once);
    ADD(late_reply_is_dropped);
    ADD(reply_that_is_there_beats_its_deadline);
    ADD(cancelled_slots_are_silent);
    ADD(sending_from_callbacks);
    ADD(freeing_in_every_callback);
    ADD(freeing_forgets_everything);
    ADD(many_commands_at_once);
    ADD(write_errors_come_from_the_loop);
    ADD(half_closed_peer_is_gone);
    ADD(one_dispatch_reads_a_bounded_amount);
    ADD(idle_connections_cost_little);
    ADD(descriptor_comes_with_its_first_byte);
    ADD(descriptors_are_never_leaked);
    ADD(resume_in_the_middle_of_a_line);
    ADD(resume_of_a_dead_connection);
    ADD(adopting_checks_the_descriptor);
    ADD(connect_to_paths_of_any_length);
    ADD(connect_fails_from_the_loop);
    ADD(connect_waits_for_a_full_listener);
    return g_test_run();
}
