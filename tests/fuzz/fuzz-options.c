/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dictionaries of options, as the bytes of a message's body on a real connection. The first byte chooses the reader,
 * the others are the body of a message of type a{sv} with one descriptor. */

#include <fcntl.h>
#include <stdalign.h>
#include <sys/socket.h>

#include "bus/options.h"
#include "fuzz.h"

static sd_bus *bus;
static int peer = -1, null_fd = -1;

static void bus_open(void) {
    static const char answer[] = "DATA\r\nOK 0123456789abcdef0123456789abcdef\r\nAGREE_UNIX_FD\r\n";
    char authentication[512];
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), ==, 0);
    g_assert_cmpint(sd_bus_new(&bus), >=, 0);
    g_assert_cmpint(sd_bus_set_fd(bus, fds[0], fds[0]), >=, 0);
    g_assert_cmpint(sd_bus_negotiate_fds(bus, true), >=, 0);
    g_assert_cmpint(sd_bus_start(bus), >=, 0);
    peer = fds[1];
    g_assert_cmpint(send(peer, answer, strlen(answer), 0), ==, (ssize_t) strlen(answer));
    while (sd_bus_is_ready(bus) == 0)
        g_assert_cmpint(sd_bus_process(bus, NULL), >=, 0);
    g_assert_cmpint(recv(peer, authentication, sizeof authentication, 0), >, 0);
}

static void bus_close(void) {
    sd_bus_close(bus);
    bus = sd_bus_unref(bus);
    peer = fd_close(peer);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    fuzz_init();
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    g_assert_cmpint(null_fd, >=, 0);
    return 0;
}

/* ── the message: D-Bus specification, "Message Format" ── */

static void put(GByteArray *m, const void *data, size_t size) {
    g_byte_array_append(m, data, (guint) size);
}

static void put_uint(GByteArray *m, uint32_t value) {
    uint32_t bytes = GUINT32_TO_LE(value);

    put(m, &bytes, sizeof bytes);
}

static void align(GByteArray *m) {
    static const uint8_t zeros[8];

    put(m, zeros, (8 - m->len % 8) % 8);
}

/* type: "s", "o", "g" with text, or "u" with number. */
static void put_field(GByteArray *m, uint8_t code, const char *type, const char *text,
                      uint32_t number) {
    uint8_t length = text ? (uint8_t) strlen(text) : 0;

    align(m);
    put(m, &code, 1);
    put(m, "\1", 1);
    put(m, type, 2);
    if (*type == 'u')
        put_uint(m, number);
    else if (*type == 'g')
        put(m, &length, 1);
    else
        put_uint(m, length);
    if (text)
        put(m, text, strlen(text) + 1);
}

static GByteArray *message_new(const uint8_t *body, size_t size) {
    GByteArray *m = g_byte_array_new();

    put(m, "l\1\1\1", 4); /* little endian, a call that wants no reply, version 1 */
    put_uint(m, (uint32_t) size);
    put_uint(m, 1); /* serial */
    put_uint(m, 0); /* length of the fields, below */
    put_field(m, 1, "o", "/org/blockjob1", 0);
    put_field(m, 2, "s", "org.blockjob1.Manager", 0);
    put_field(m, 3, "s", "Fuzz", 0);
    put_field(m, 8, "g", "a{sv}", 0);
    put_field(m, 9, "u", NULL, 1); /* descriptors */
    uint32_t length = GUINT32_TO_LE(m->len - 16);
    memcpy(m->data + 12, &length, sizeof length);
    align(m);
    put(m, body, size);
    return m;
}

static void message_send(const GByteArray *m) {
    alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {m->data, m->len};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &null_fd, sizeof(int));
    g_assert_cmpint(sendmsg(peer, &message, MSG_NOSIGNAL), ==, (ssize_t) m->len);
}

/* NULL for what sd-bus does not let through; the connection is then gone. */
static sd_bus_message *message_receive(void) {
    sd_bus_message *m = NULL;
    int r;

    do
        r = sd_bus_process(bus, &m);
    while (r > 0 && !m);
    return m;
}

/* ── the readers ── */

static void check_text(const char *text) {
    g_assert_true(!text || string_is_printable(text));
}

static void check_path(const char *path) {
    g_assert_true(!path || path[0] == '/');
    check_text(path);
}

static bool read_copy(sd_bus_message *m, Failure *f) {
    CopyOptions o;
    bool ok;

    copy_options_init(&o);
    ok = copy_options_read(m, "/srv/new.qcow2", &o, f);
    if (ok) {
        check_path(o.backing);
        check_text(o.request_id);
        g_assert_cmpuint(o.speed, <=, SPEED_MAX);
        g_assert_true(o.on_ready >= 0 && o.on_ready < _ON_READY_MAX);
        g_assert_cmpuint(o.granularity & (o.granularity - 1), ==, 0);
        g_assert_cmpuint(o.cluster_size & (o.cluster_size - 1), ==, 0);
    }
    copy_options_clear(&o);
    return ok;
}

static bool read_attach(sd_bus_message *m, Failure *f) {
    g_auto(AttachOptions) o = {.fd = -1};

    if (!attach_options_read(m, &o, f))
        return false;
    check_path(o.definition);
    g_assert_true(o.fd == -1 || fcntl(o.fd, F_GETFD) >= 0);
    return true;
}

static bool read_history(sd_bus_message *m, Failure *f) {
    g_auto(JournalFilter) filter = {0};

    if (!history_filter_read(m, &filter, f))
        return false;
    check_text(filter.domain);
    check_text(filter.result);
    g_assert_cmpuint(filter.limit, >, 0);
    return true;
}

static bool read_any(uint8_t which, sd_bus_message *m, Failure *f) {
    EndOptions end;
    bool flag;

    switch (which % 7) {
    case 0:
        return read_copy(m, f);
    case 1:
        return read_attach(m, f);
    case 2:
        return read_history(m, f);
    case 3:
        return end_options_read(m, &end, f);
    case 4:
        return cancel_options_read(m, &end, f);
    case 5:
        return detach_options_read(m, &flag, f);
    default:
        return xml_options_read(m, &flag, f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    g_autoptr(GByteArray) bytes = NULL;
    g_autoptr(sd_bus_message) m = NULL;
    g_auto(Failure) f = {0};

    if (size == 0 || size > 64 * KIB)
        return 0;
    if (!bus)
        bus_open();
    bytes = message_new(data + 1, size - 1);
    message_send(bytes);
    m = message_receive();
    if (!m)
        bus_close();
    else if (read_any(data[0], m, &f))
        fuzz_check_success(&f);
    else
        fuzz_check_failure(&f, FAILURE_INVALID_ARGS);
    return 0;
}
