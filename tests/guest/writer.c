/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The writing load of the test guest: ordered numbers onto its disks, without pause, each one acknowledged to the host.
 * Before a number overwrites an older one it is read back, so that every number is proved to have stayed where it was. */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block.h"

#define SCAN_BLOCKS 256 /* read at once when looking for where an earlier run has stopped */

static int report_fd = -1;
static Layout layout;
static int disk_fds[DISKS_MAX];

/* One line, one write: the lanes share the port. */
__attribute__((format(printf, 1, 2))) static void report(const char *format, ...) {
    char line[256];
    va_list ap;
    int n;

    va_start(ap, format);
    n = vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    if (n > 0 && write(report_fd, line, (size_t) n) != n)
        fprintf(stderr, "writer: the port took no line: %s\n", strerror(errno));
}

/* The host reads these words; a lane that has seen an error writes no more. */
__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...) {
    char text[200];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    report("error %s\n", text);
    fprintf(stderr, "writer: %s\n", text);
    exit(1);
}

static void *aligned(size_t size) {
    void *p;

    if (posix_memalign(&p, BLOCK_BYTES, size) != 0)
        fail("out of memory");
    return p;
}

/* The number after the highest one on the disks: a guest that is started again carries on. */
static uint64_t lane_find_next(uint32_t lane) {
    Block *blocks = aligned(SCAN_BLOCKS * sizeof(Block));
    uint64_t next = 0;

    for (uint32_t d = 0; d < layout.disks; d++)
        for (uint64_t at = 0; at < layout.ring; at += SCAN_BLOCKS) {
            uint64_t n = layout.ring - at < SCAN_BLOCKS ? layout.ring - at : SCAN_BLOCKS;
            off_t offset = (off_t) ((lane * layout.ring + at) * BLOCK_BYTES);

            if (pread(disk_fds[d], blocks, n * BLOCK_BYTES, offset) != (ssize_t) (n * BLOCK_BYTES))
                fail("disk %u: cannot read at start: %s", d, strerror(errno));
            for (uint64_t i = 0; i < n; i++)
                if (block_check(&blocks[i]) == BLOCK_GOOD && blocks[i].lane == lane &&
                    blocks[i].number >= next)
                    next = blocks[i].number + 1;
        }
    free(blocks);
    return next;
}

/* What must be in the place of number: the one a whole span before it, or nothing yet. */
static void lane_read_back(uint32_t lane, uint64_t number, Block *block) {
    uint32_t disk = layout_disk(&layout, number);
    off_t offset = (off_t) (layout_position(&layout, lane, number) * BLOCK_BYTES);
    BlockState state;

    if (pread(disk_fds[disk], block, BLOCK_BYTES, offset) != BLOCK_BYTES)
        fail("lane %u: cannot read the place of %llu: %s", lane, (unsigned long long) number,
             strerror(errno));
    state = block_check(block);
    if (number < layout_span(&layout)) {
        if (state != BLOCK_BLANK)
            fail("lane %u: the place of %llu is not blank", lane, (unsigned long long) number);
        return;
    }
    number -= layout_span(&layout);
    if (state != BLOCK_GOOD)
        fail("lane %u: %llu is %s", lane, (unsigned long long) number,
             state == BLOCK_TORN ? "torn" : "lost: its place is blank");
    if (block->lane != lane || block->disk != disk || block->number != number)
        fail("lane %u: %llu is lost: its place holds %llu of lane %u, disk %u", lane,
             (unsigned long long) number, (unsigned long long) block->number, block->lane,
             block->disk);
}

static void lane_run(uint32_t lane, bool read_back) {
    Block *block = aligned(sizeof(Block));

    for (uint64_t number = lane_find_next(lane);; number++) {
        uint32_t disk = layout_disk(&layout, number);
        off_t offset = (off_t) (layout_position(&layout, lane, number) * BLOCK_BYTES);
        ssize_t n;

        if (read_back)
            lane_read_back(lane, number, block);
        block_fill(block, number, lane, disk);
        n = pwrite(disk_fds[disk], block, BLOCK_BYTES, offset);
        if (n != BLOCK_BYTES)
            fail("lane %u: write of %llu: %s", lane, (unsigned long long) number,
                 n < 0 ? strerror(errno) : "short");
        report("%u %llu\n", lane, (unsigned long long) number);
    }
}

static void disk_open(uint32_t index, const char *path) {
    uint64_t size;

    disk_fds[index] = open(path, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (disk_fds[index] < 0)
        fail("%s: %s", path, strerror(errno));
    if (ioctl(disk_fds[index], BLKGETSIZE64, &size) == 0 &&
        size < layout.lanes * layout.ring * BLOCK_BYTES)
        fail("%s is too small for the rings", path);
}

/* writer PORT LANES RING READ-BACK DISK… */
int main(int argc, char **argv) {
    bool read_back;
    int status;

    if (argc < 6 || argc - 5 > DISKS_MAX)
        return 2;
    report_fd = open(argv[1], O_WRONLY | O_CLOEXEC);
    if (report_fd < 0) {
        perror(argv[1]);
        return 1;
    }
    layout.lanes = (uint32_t) strtoul(argv[2], NULL, 10);
    layout.ring = strtoull(argv[3], NULL, 10);
    layout.disks = (uint32_t) (argc - 5);
    read_back = atoi(argv[4]) != 0;
    if (layout.lanes < 1 || layout.lanes > LANES_MAX || layout.ring < 1)
        fail("layout is out of range");
    for (uint32_t d = 0; d < layout.disks; d++)
        disk_open(d, argv[5 + d]);
    report("start %u %u %llu\n", layout.lanes, layout.disks, (unsigned long long) layout.ring);
    for (uint32_t lane = 1; lane < layout.lanes; lane++)
        if (fork() == 0)
            lane_run(lane, read_back);
    if (layout.lanes > 1 && fork() == 0)
        lane_run(0, read_back);
    else if (layout.lanes == 1)
        lane_run(0, read_back);
    while (wait(&status) > 0)
        ;
    return 1;
}
