/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scale: many jobs at once, many readers, and a service that is killed. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "measure.h"

/* dbus-daemon lets a connection wait for 128 replies. */
#define WINDOW 120

/* ── starting and switching all ── */

/* Sends all calls, WINDOW of them at a time. */
static void send_all(Service *s, char **lines, Pending *pending,
                     void (*send_one)(Service *s, const char *line, Pending *p)) {
    for (size_t i = 0; lines[i]; i++) {
        if (i >= WINDOW)
            service_wait_time(s, &pending[i - WINDOW].replied, "replies");
        send_one(s, lines[i], &pending[i]);
    }
    for (size_t i = 0; lines[i]; i++)
        service_wait_time(s, &pending[i].replied, "replies");
}

/* A line: the disk's path, a blank, the target. */
static void copy_line(Service *s, const char *line, Pending *p) {
    g_auto(GStrv) words = g_strsplit(line, " ", 2);

    copy_send(s, words[0], words[1], p);
}

int measure_copy(int argc, char **argv) {
    g_auto(GStrv) lines = lines_read();
    unsigned n = g_strv_length(lines);
    g_autofree Pending *pending = g_new0(Pending, n);
    Service *s = service_open();
    json_t *result = json_object(), *paths = json_array();
    uint64_t start = now_ns();

    send_all(s, lines, pending, copy_line);
    service_wait(s, &s->n_ready, n, "all jobs to be ready");
    for (unsigned i = 0; i < n; i++) {
        Job *j = service_job(s, pending[i].job);
        result_add(result, "replied", start, pending[i].replied);
        result_add(result, "running", start, j->running);
        result_add(result, "ready", start, j->ready);
        json_array_append_new(paths, json_string(pending[i].job));
    }
    json_object_set_new(result, "jobs", paths);
    result_print(result);
    return EXIT_SUCCESS;
}

static void pivot_line(Service *s, const char *line, Pending *p) {
    pivot_send(s, line, p);
}

int measure_pivot(int argc, char **argv) {
    g_auto(GStrv) lines = lines_read();
    unsigned n = g_strv_length(lines);
    g_autofree Pending *pending = g_new0(Pending, n);
    Service *s = service_open();
    json_t *result = json_object();
    uint64_t start = now_ns();

    send_all(s, lines, pending, pivot_line);
    service_wait(s, &s->n_finished, n, "all jobs to be finished");
    for (unsigned i = 0; i < n; i++) {
        Job *j = service_job(s, lines[i]);
        if (strcmp(j->result, "pivoted") != 0)
            die("%s ended as %s", lines[i], j->result);
        result_add(result, "replied", start, pending[i].replied);
        result_add(result, "finished", start, j->finished);
    }
    result_print(result);
    return EXIT_SUCCESS;
}

/* ── GetManagedObjects ── */

static sd_bus_message *managed_call(sd_bus *bus) {
    sd_bus_error e = SD_BUS_ERROR_NULL;
    sd_bus_message *reply = NULL;

    if (sd_bus_call_method(bus, NAME, ROOT, "org.freedesktop.DBus.ObjectManager",
                           "GetManagedObjects", &e, &reply, NULL) < 0)
        die("GetManagedObjects(): %s", e.message);
    return reply;
}

/* Objects whose path begins so. */
static unsigned managed_count(sd_bus_message *m, const char *prefix) {
    const char *path;
    unsigned n = 0;

    must(sd_bus_message_rewind(m, true), "GetManagedObjects()");
    must(sd_bus_message_enter_container(m, 'a', "{oa{sa{sv}}}"), "GetManagedObjects()");
    while (must(sd_bus_message_enter_container(m, 'e', "oa{sa{sv}}"), "GetManagedObjects()") > 0) {
        must(sd_bus_message_read(m, "o", &path), "GetManagedObjects()");
        must(sd_bus_message_skip(m, "a{sa{sv}}"), "GetManagedObjects()");
        must(sd_bus_message_exit_container(m), "GetManagedObjects()");
        n += g_str_has_prefix(path, prefix);
    }
    return n;
}

/* argument: ROUNDS */
int measure_managed(int argc, char **argv) {
    sd_bus *bus = bus_open();
    json_t *result = json_object();
    unsigned jobs = 0;

    sd_bus_message_unref(managed_call(bus));
    for (int n = argc > 0 ? atoi(argv[0]) : 0; n > 0; n--) {
        uint64_t start = now_ns();
        sd_bus_message *reply = managed_call(bus);
        result_add(result, "managed", start, now_ns());
        jobs = managed_count(reply, ROOT "/job/");
        sd_bus_message_unref(reply);
    }
    json_object_set_new(result, "jobs", json_integer(jobs));
    result_print(result);
    return EXIT_SUCCESS;
}

/* ── readers ── */

typedef struct {
    pthread_t thread;
    char **paths;
    unsigned n_paths, next;
    const char *how; /* get, getall, managed */
    unsigned depth, outstanding;
    uint64_t until, jobs_read;
    sd_bus *bus;
} Reader;

static int on_read(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Reader *r = userdata;

    reply_check(m, r->how);
    r->outstanding--;
    r->jobs_read += strcmp(r->how, "managed") == 0 ? managed_count(m, ROOT "/job/") : 1;
    return 0;
}

static void read_send(Reader *r) {
    const char *path = r->paths[r->next++ % r->n_paths];
    int e;

    if (strcmp(r->how, "get") == 0)
        e = sd_bus_call_method_async(r->bus, NULL, NAME, path, "org.freedesktop.DBus.Properties",
                                     "Get", on_read, r, "ss", NAME ".Job", "State");
    else if (strcmp(r->how, "getall") == 0)
        e = sd_bus_call_method_async(r->bus, NULL, NAME, path, "org.freedesktop.DBus.Properties",
                                     "GetAll", on_read, r, "s", NAME ".Job");
    else
        e = sd_bus_call_method_async(r->bus, NULL, NAME, ROOT, "org.freedesktop.DBus.ObjectManager",
                                     "GetManagedObjects", on_read, r, NULL);
    must(e, r->how);
    r->outstanding++;
}

static void *reader_main(void *userdata) {
    Reader *r = userdata;
    uint64_t now;

    while ((now = now_ns()) < r->until || r->outstanding > 0) {
        while (now < r->until && r->outstanding < r->depth)
            read_send(r);
        if (must(sd_bus_process(r->bus, NULL), "the bus") == 0)
            must(sd_bus_wait(r->bus, 1000000), "the bus");
    }
    return NULL;
}

/* arguments: HOW CLIENTS DEPTH SECONDS; paths of jobs on stdin */
int measure_reads(int argc, char **argv) {
    if (argc != 4)
        die("reads: wrong arguments");
    g_auto(GStrv) paths = lines_read();
    unsigned n = (unsigned) atoi(argv[1]);
    g_autofree Reader *readers = g_new0(Reader, n);
    json_t *result = json_object();
    uint64_t sum = 0, start;

    for (unsigned i = 0; i < n; i++)
        readers[i].bus = bus_open();
    start = now_ns();
    for (unsigned i = 0; i < n; i++) {
        Reader *r = &readers[i];
        r->paths = paths;
        r->n_paths = g_strv_length(paths);
        r->next = i * 7;
        r->how = argv[0];
        r->depth = (unsigned) atoi(argv[2]);
        r->until = start + (uint64_t) (atof(argv[3]) * 1e9);
        if (pthread_create(&r->thread, NULL, reader_main, r) != 0)
            die("no thread");
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(readers[i].thread, NULL);
        sum += readers[i].jobs_read;
    }
    json_object_set_new(result, "per second",
                        json_real((double) sum * 1e9 / (double) (now_ns() - start)));
    result_print(result);
    return EXIT_SUCCESS;
}

/* ── calls, also while somebody hangs ── */

static int on_whatever(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    return 0;
}

/* arguments: ROUNDS [STUCK-JOB CALLS]: so many calls to a job whose QEMU does not answer are under way meanwhile.
 * Paths of jobs on stdin. */
int measure_calls(int argc, char **argv) {
    g_auto(GStrv) paths = lines_read();
    unsigned n = g_strv_length(paths), rounds = argc > 0 ? (unsigned) atoi(argv[0]) : 0;
    sd_bus *bus = bus_open(), *stuck = bus_open();
    json_t *result = json_object();

    for (int i = argc > 2 ? atoi(argv[2]) : 0; i > 0; i--)
        must(sd_bus_call_method_async(stuck, NULL, NAME, argv[1], NAME ".Job", "SetSpeed",
                                      on_whatever, NULL, "t", (uint64_t) 1 << 30),
             "SetSpeed()");
    must(sd_bus_flush(stuck), "the bus");
    for (unsigned i = 0; i < rounds; i++) {
        sd_bus_error e = SD_BUS_ERROR_NULL;
        g_autofree char *state = NULL;
        const char *path = paths[i % n];
        uint64_t start = now_ns();

        must(sd_bus_get_property_string(bus, NAME, path, NAME ".Job", "State", NULL, &state),
             "State");
        result_add(result, "get", start, now_ns());
        start = now_ns();
        if (sd_bus_call_method(bus, NAME, path, NAME ".Job", "SetSpeed", &e, NULL, "t",
                               (uint64_t) (1 << 30) + i) < 0)
            die("SetSpeed(): %s", e.message);
        result_add(result, "set", start, now_ns());
    }
    result_print(result);
    return EXIT_SUCCESS;
}

/* ── the end of the service, and its return ── */

typedef struct {
    uint64_t owned;
} Return;

static int on_owner(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    const char *name, *old, *new;
    Return *r = userdata;

    must(sd_bus_message_read(m, "sss", &name, &old, &new), "NameOwnerChanged");
    if (strcmp(name, NAME) == 0 && new[0] && r->owned == 0)
        r->owned = now_ns();
    return 0;
}

static pid_t service_exec(const char *log, char **argv) {
    pid_t pid = vfork();

    if (pid < 0)
        die("fork: %s", g_strerror(errno));
    if (pid > 0)
        return pid;
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execv(argv[0], argv);
    _exit(127);
}

static void wait_dead(int pidfd) {
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    if (poll(&p, 1, (int) (PATIENCE_NS / 1000000)) != 1)
        die("the service does not die");
}

/* True: every domain has been looked at again. */
static bool all_live(sd_bus *bus, char **domains) {
    for (char **d = domains; *d; d++) {
        g_autofree char *state = NULL;
        must(sd_bus_get_property_string(bus, NAME, *d, NAME ".Domain", "State", NULL, &state),
             "State");
        if (strcmp(state, "paused") != 0 && strcmp(state, "running") != 0)
            return false;
    }
    return true;
}

/* arguments: PID JOBS LOG PROGRAM ARGUMENT…; paths of domains on stdin, up to an empty line. The service is then a child of
 * this process, which stays until the end of stdin. */
int measure_restart(int argc, char **argv) {
    if (argc < 4)
        die("restart: wrong arguments");
    g_autoptr(GPtrArray) domains = g_ptr_array_new();
    char line[4096];
    while (fgets(line, sizeof line, stdin) && line[0] != '\n')
        g_ptr_array_add(domains, g_strdup(g_strchomp(line)));
    g_ptr_array_add(domains, NULL);
    unsigned jobs = 0, expected = (unsigned) atoi(argv[1]);
    pid_t pid = atoi(argv[0]);
    int pidfd = pidfd_open(pid, 0);
    sd_bus *bus = bus_open();
    json_t *result = json_object();
    Return back = {0};

    must(sd_bus_match_signal(bus, NULL, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                             "org.freedesktop.DBus", "NameOwnerChanged", on_owner, &back),
         "AddMatch");
    uint64_t start = now_ns();
    if (pidfd < 0 || kill(pid, SIGKILL) < 0)
        die("the service cannot be killed: %s", g_strerror(errno));
    wait_dead(pidfd);
    uint64_t dead = now_ns();
    pid = service_exec(argv[2], argv + 3);
    while (back.owned == 0)
        if (must(sd_bus_process(bus, NULL), "the bus") == 0) {
            if (now_ns() - start > PATIENCE_NS)
                die("the service does not come back");
            must(sd_bus_wait(bus, 1000000), "the bus");
        }
    sd_bus_message *reply = managed_call(bus);
    uint64_t answered = now_ns();
    jobs = managed_count(reply, ROOT "/job/");
    sd_bus_message_unref(reply);
    if (jobs != expected)
        die("%u jobs are there after the restart, not %u", jobs, expected);
    while (!all_live(bus, (char **) domains->pdata))
        if (now_ns() - start > PATIENCE_NS)
            die("the domains are not connected again");
    result_add(result, "dead", start, dead);
    result_add(result, "owned", start, back.owned);
    result_add(result, "answered", start, answered);
    result_add(result, "connected", start, now_ns());
    json_object_set_new(result, "pid", json_integer(pid));
    result_print(result);
    while (fgets(line, sizeof line, stdin))
        ;
    return EXIT_SUCCESS;
}
