/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A domain whose QEMU answers with whatever the input says. The first line is the domain's document in the journal; each
 * of the others is what the next command of the service returns, or an event before it when it has a member "event". */

#include <jansson.h>
#include <sys/socket.h>

#include "domain/domain.h"
#include "fuzz.h"

#define COMMANDS_MAX 200

typedef struct {
    int fd;
    char **line; /* next answer */
    GString *heard;
    unsigned commands;
} Peer;

static sd_event *event;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    fuzz_init();
    g_assert_cmpint(sd_event_new(&event), >=, 0);
    return 0;
}

/* ── the owner ── */

static void check_disk(const Disk *disk) {
    g_assert_true(disk->name && *disk->name && disk->device && disk->source && disk->format);
    g_assert_true(!disk->node || *disk->node);
}

static void check_image(const ChainImage *image) {
    g_assert_true(image->node && image->file && image->format && image->backing);
}

static void on_changed(Domain *d, unsigned what, void *userdata) {
    g_assert_cmpuint(what, !=, 0);
    g_assert_true(*domain_state_to_string(domain_state(d)));
}

static void on_disk_added(Disk *disk, void *userdata) {
    check_disk(disk);
}

static void on_disk_changed(Disk *disk, unsigned what, void *userdata) {
    check_disk(disk);
}

static void on_disk_removed(Disk *disk, void *userdata) {
    check_disk(disk);
}

static void on_looked(Domain *d, void *userdata) {
    GPtrArray *disks = domain_disks(d);

    for (unsigned i = 0; i < disks->len; i++) {
        g_autoptr(GPtrArray) chain = disk_chain(disks->pdata[i]);
        check_disk(disks->pdata[i]);
        for (unsigned k = 0; k < chain->len; k++)
            check_image(chain->pdata[k]);
        for (unsigned k = 0; k < i; k++)
            g_assert_cmpstr(((Disk *) disks->pdata[k])->name, !=, ((Disk *) disks->pdata[i])->name);
    }
    domain_look_later(d, LOOK_ALL);
}

static void on_link_changed(Domain *d, void *userdata) {
    g_assert_true(string_is_printable(domain_trouble(d)));
}

static const DomainHooks hooks = {on_changed,      on_disk_added, on_disk_changed,
                                  on_disk_removed, on_looked,     on_link_changed};

/* ── the peer ── */

static void peer_say(Peer *p, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void peer_say(Peer *p, const char *format, ...) {
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    (void) send(p->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void peer_answer(Peer *p, json_int_t id) {
    while (*p->line && strstr(*p->line, "\"event\""))
        peer_say(p, "%s\r\n", *p->line++);
    if (*p->line)
        peer_say(p, "{\"return\": %s, \"id\": %" JSON_INTEGER_FORMAT "}\r\n", *p->line++, id);
    else
        peer_say(p,
                 "{\"error\": {\"class\": \"GenericError\", \"desc\": \"No more.\"}, "
                 "\"id\": %" JSON_INTEGER_FORMAT "}\r\n",
                 id);
}

/* False: there was no command. */
static bool peer_serve(Peer *p) {
    char bytes[8192], *end;
    ssize_t n;

    while ((n = recv(p->fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        g_string_append_len(p->heard, bytes, n);
    end = strchr(p->heard->str, '\n');
    if (!end || ++p->commands > COMMANDS_MAX)
        return false;
    json_t *command = json_loadb(p->heard->str, (size_t) (end - p->heard->str), 0, NULL);
    g_assert_nonnull(command);
    peer_answer(p, json_integer_value(json_object_get(command, "id")));
    json_decref(command);
    g_string_erase(p->heard, 0, end + 1 - p->heard->str);
    return true;
}

static void run(char **lines) {
    const DomainParams params = {.name = "web", .socket = "", .fd = -1, .definition = ""};
    DomainParams connected = params;
    g_autoptr(Domain) restored = NULL, d = NULL;
    Peer p = {.line = lines + 1, .heard = g_string_new(NULL)};
    int pair[2];

    int r = domain_restore(event, NULL, &params, lines[0], &hooks, NULL, &restored);
    g_assert_true(r == 0 || r == -EBADMSG);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), ==,
                    0);
    connected.fd = pair[0];
    p.fd = pair[1];
    g_assert_cmpint(domain_new(event, NULL, &connected, &hooks, NULL, &d), >=, 0);
    peer_say(&p, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}}}"
                 "\r\n");
    do
        while (sd_event_run(event, 0) > 0)
            ;
    while (peer_serve(&p));
    domain_look(d, LOOK_ALL);
    do
        while (sd_event_run(event, 0) > 0)
            ;
    while (*p.line && peer_serve(&p));
    p.fd = fd_close(p.fd);
    while (sd_event_run(event, 0) > 0)
        ;
    g_string_free(p.heard, TRUE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    g_autofree char *text = g_strndup((const char *) data, size);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    if (lines[0])
        run(lines);
    return 0;
}
