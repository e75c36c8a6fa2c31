/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Latency: the same copy and switch of a tiny disk, by the service and by hand on an own QMP connection, in turns. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "image/qcow2.h"
#include "measure.h"

/* arguments: ROUNDS FOLDER STATE-FOLDER DISK QMP ROOT-NODE SIZE RUNS
 * FOLDER has "ours-0.qcow2" and "hand-0.qcow2"; RUNS is 1 when the guests' processors run. */
typedef struct {
    unsigned rounds;
    const char *folder, *disk;
    Service *service;
    Qmp *qmp;
    int sync_fd;
    char *root;               /* node under the hand's disk */
    int64_t fdset, old_fdset; /* 0: none */
    uint64_t size;
    unsigned hand_images;
    bool runs;
    json_t *result;
} Latency;

/* For comparing with what strace writes. */
static void clock_add(json_t *result, const char *name) {
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    result_add_number(result, name, (double) t.tv_sec + (double) t.tv_nsec / 1e9);
}

static json_t *name_arg(const char *key, const char *name) {
    return json_pack("{s:s}", key, name);
}

static char *image_path(const Latency *l, const char *who, unsigned n) {
    return g_strdup_printf("%s/%s-%u.qcow2", l->folder, who, n);
}

/* ── by the service ── */

static void service_round(Latency *l, unsigned n) {
    g_autofree char *target = image_path(l, "ours", n), *old = image_path(l, "ours", n - 1);
    Service *s = l->service;
    Pending copy = {0}, pivot = {0};
    uint64_t start;

    clock_add(l->result, "clock copy");
    start = now_ns();
    copy_send(s, l->disk, target, &copy);
    service_wait_time(s, &copy.replied, "the reply to Copy()");
    Job *j = service_job(s, copy.job);
    service_wait_time(s, &j->running, "the job to run");
    clock_add(l->result, "clock running");
    service_wait_time(s, &j->ready, "the job to be ready");
    result_add(l->result, "copy reply", start, copy.replied);
    result_add(l->result, "copy running", start, j->running);
    result_add(l->result, "copy ready", start, j->ready);

    clock_add(l->result, "clock pivot");
    start = now_ns();
    pivot_send(s, copy.job, &pivot);
    service_wait_time(s, &j->finished, "the job to be finished");
    clock_add(l->result, "clock finished");
    service_wait_time(s, &pivot.replied, "the reply to Pivot()");
    if (strcmp(j->result, "pivoted") != 0)
        die("the job's result is %s", j->result);
    result_add(l->result, "pivot reply", start, pivot.replied);
    result_add(l->result, "pivot finished", start, j->finished);
    if (l->runs)
        result_add_number(l->result, "pivot pause",
                          (double) job_get_u64(s, copy.job, "GuestPaused"));
    job_dismiss(s, copy.job);
    g_hash_table_remove(s->jobs, copy.job);
    pending_clear(&copy);
    unlink(old);
}

/* ── by hand ── */

/* The order of one way of sending: many commands in one write, or each after the reply to the one before. */
typedef struct {
    Qmp *qmp;
    bool stepwise;
    uint64_t last;
} Hand;

static void hand_put(Hand *h, const char *command, json_t *arguments) {
    h->last = qmp_put(h->qmp, command, arguments);
    if (h->stepwise) {
        qmp_flush(h->qmp);
        qmp_await(h->qmp, h->last);
    }
}

static void hand_put_fd(Hand *h, int64_t fdset, const char *name, int fd) {
    json_t *arguments = json_pack("{s:I, s:s*}", "fdset-id", (json_int_t) fdset, "opaque", name);

    h->last = qmp_put_fd(h->qmp, "add-fd", arguments, fd);
    if (h->stepwise)
        qmp_await(h->qmp, h->last);
}

static void hand_settle(Hand *h) {
    qmp_flush(h->qmp);
    qmp_await(h->qmp, h->last);
}

static json_t *cache_options(void) {
    return json_pack("{s:b}", "direct", true);
}

static json_t *image_options(const char *job, int64_t fdset) {
    g_autofree char *name = g_strdup_printf("/dev/fdset/%" PRIi64, fdset);

    return json_pack("{s:s, s:s+, s:{s:s, s:s+, s:s, s:s}, s:s, s:s, s:n, s:o}", "driver", "qcow2",
                     "node-name", job, "-t", "file", "driver", "file", "node-name", job, "-f",
                     "filename", name, "aio", "native", "discard", "unmap", "detect-zeroes",
                     "unmap", "backing", "cache", cache_options());
}

static json_t *mirror_options(const Latency *l, const char *job, const char *target) {
    return json_pack("{s:s, s:s, s:s, s:s, s:s+, s:b, s:b, s:s, s:s, s:I}", "job-id", job, "device",
                     l->root, "target", target, "sync", "full", "filter-node-name", job, "-m",
                     "auto-finalize", false, "auto-dismiss", false, "on-source-error", "stop",
                     "on-target-error", "stop", "buf-size", (json_int_t) l->size);
}

/* The commands of the service, and a header that is written as it writes it. */
static void hand_copy(Latency *l, Hand *h, const char *path, const char *job, const char *image) {
    const Qcow2New empty = {.virtual_size = l->size};
    int writable = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int readable = open(path, O_RDONLY | O_CLOEXEC);

    if (writable < 0 || readable < 0 || qcow2_create(writable, &empty) < 0)
        die("\"%s\" cannot be made: %s", path, g_strerror(errno));
    hand_put_fd(h, l->fdset, job, writable);
    hand_put_fd(h, l->fdset, NULL, readable);
    hand_put(h, "blockdev-add", image_options(job, l->fdset));
    hand_put(h, "blockdev-mirror", mirror_options(l, job, image));
    hand_settle(h);
    close(writable);
    close(readable);
}

/* Returns when the guest has stood for the last time. */
static uint64_t hand_pivot(Latency *l, Hand *h, const char *job) {
    uint64_t moved;

    if (l->runs)
        hand_put(h, "stop", NULL);
    hand_put(h, "job-complete", name_arg("id", job));
    qmp_flush(l->qmp);
    qmp_await_event(l->qmp, "BLOCK_JOB_PENDING", job, NULL);
    hand_put(h, "job-finalize", name_arg("id", job));
    if (l->runs)
        hand_put(h, "cont", NULL);
    moved = h->last;
    hand_put(h, "blockdev-del", name_arg("node-name", l->root));
    if (l->old_fdset)
        hand_put(h, "remove-fd", json_pack("{s:I}", "fdset-id", (json_int_t) l->old_fdset));
    hand_put(h, "job-dismiss", name_arg("id", job));
    qmp_flush(l->qmp);
    qmp_await(l->qmp, moved);
    moved = now_ns();
    hand_settle(h);
    return moved;
}

static void hand_round(Latency *l, bool stepwise) {
    const char *how = stepwise ? "step" : "hand";
    unsigned n = ++l->hand_images;
    g_autofree char *target = image_path(l, "hand", n), *old = image_path(l, "hand", n - 1);
    /* As long as the service's: QEMU 7.2 takes some 3 µs for each byte. */
    g_autofree char *job = g_strdup_printf("bj-00000000-%u", n);
    g_autofree char *image = g_strconcat(job, "-t", NULL);
    Hand h = {.qmp = l->qmp, .stepwise = stepwise};
    g_autofree char *copied = g_strconcat(how, " copy", NULL);
    g_autofree char *pivoted = g_strconcat(how, " pivot", NULL);
    g_autofree char *paused = g_strconcat(how, " pause", NULL);

    l->old_fdset = l->fdset;
    l->fdset = 0x62000000 + n;
    uint64_t start = now_ns();
    hand_copy(l, &h, target, job, image);
    result_add(l->result, copied, start, now_ns());
    qmp_await_event(l->qmp, "BLOCK_JOB_READY", job, NULL);

    start = now_ns();
    uint64_t moved = hand_pivot(l, &h, job);
    result_add(l->result, pivoted, start, now_ns());
    if (l->runs)
        result_add(l->result, paused, start, moved);
    qmp_forget_events(l->qmp);
    g_free(l->root);
    l->root = g_steal_pointer(&image);
    unlink(old);
}

/* ── the disk's own ── */

#define SYNC_FILE_SIZE (1 << 20)

/* Over blocks that are there already, as in the journal's log, and at the end of a file that grows. */
static void sync_round(Latency *l, unsigned n) {
    static char block[4096];
    uint64_t start;

    memset(block, (int) (n % 255) + 1, sizeof block);
    start = now_ns();
    if (pwrite(l->sync_fd, block, sizeof block, (off_t) (n * sizeof block % SYNC_FILE_SIZE)) < 0 ||
        fdatasync(l->sync_fd) < 0)
        die("fdatasync: %s", g_strerror(errno));
    result_add(l->result, "fdatasync", start, now_ns());
    start = now_ns();
    if (pwrite(l->sync_fd, block, sizeof block, SYNC_FILE_SIZE + (off_t) (n * sizeof block)) < 0 ||
        fdatasync(l->sync_fd) < 0)
        die("fdatasync: %s", g_strerror(errno));
    result_add(l->result, "fdatasync growing", start, now_ns());
}

static int sync_open(const char *folder) {
    g_autofree char *path = g_strconcat(folder, "/fdatasync", NULL);
    g_autofree char *filling = g_malloc0(SYNC_FILE_SIZE);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, filling, SYNC_FILE_SIZE) != SYNC_FILE_SIZE || fsync(fd) < 0)
        die("\"%s\": %s", path, g_strerror(errno));
    unlink(path);
    return fd;
}

int measure_latency(int argc, char **argv) {
    if (argc != 8)
        die("latency: wrong arguments");
    Latency l = {
        .rounds = (unsigned) atoi(argv[0]),
        .folder = argv[1],
        .sync_fd = sync_open(argv[2]),
        .disk = argv[3],
        .qmp = qmp_open(argv[4]),
        .root = g_strdup(argv[5]),
        .size = strtoull(argv[6], NULL, 10),
        .runs = atoi(argv[7]) != 0,
        .service = service_open(),
        .result = json_object(),
    };

    for (unsigned n = 1; n <= l.rounds; n++) {
        service_round(&l, n);
        hand_round(&l, false);
        hand_round(&l, true);
        sync_round(&l, n);
    }
    result_print(l.result);
    return EXIT_SUCCESS;
}
