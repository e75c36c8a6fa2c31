/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves on raw images what the guest's writer was promised: of each lane the last numbers are there, one unbroken run
 * up to the highest, each in its own place, none twice, none torn, and none missing that the guest had acknowledged. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block.h"

#define COMPLAINTS_MAX 20 /* printed; all are counted */

typedef struct {
    uint64_t next;     /* one after the highest acknowledged number, 0 = none */
    uint64_t floor;    /* as next, when the caller gives it */
    uint64_t highest;  /* on the images, valid when found > 0 */
    uint64_t found;    /* good blocks */
    uint64_t in_place; /* of them, those that belong where they were found */
} Lane;

static Layout layout;
static Lane lanes[LANES_MAX];
static int images[DISKS_MAX];
static uint64_t complaints;

__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...) {
    va_list ap;

    if (++complaints > COMPLAINTS_MAX)
        return;
    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    putchar('\n');
}

/* Lines of the writer's port: "start LANES DISKS RING", "LANE NUMBER", "error WORDS". The last line may be cut off. */
static void acknowledgements_read(const char *path) {
    FILE *f = fopen(path, "re");
    char line[512];

    if (!f) {
        perror(path);
        exit(2);
    }
    while (fgets(line, sizeof line, f)) {
        unsigned lane, n_lanes, n_disks;
        unsigned long long number, ring;

        if (!strchr(line, '\n'))
            break;
        line[strcspn(line, "\r\n")] = '\0';
        if (strncmp(line, "error ", 6) == 0) {
            complain("the guest says: %s", line + 6);
        } else if (sscanf(line, "start %u %u %llu", &n_lanes, &n_disks, &ring) == 3) {
            layout = (Layout){.lanes = n_lanes, .disks = n_disks, .ring = ring};
        } else if (sscanf(line, "%u %llu", &lane, &number) == 2 && lane < LANES_MAX) {
            /* After a restart of the guest a number that was on disk, but not acknowledged, is skipped. */
            if (lanes[lane].next != 0 && number < lanes[lane].next)
                complain("lane %u: %llu was acknowledged after %llu", lane, number,
                         (unsigned long long) lanes[lane].next - 1);
            lanes[lane].next = number + 1;
        } else {
            complain("the port brought a line that is not the writer's: %s", line);
        }
    }
    fclose(f);
}

static bool block_read(uint32_t disk, uint64_t position, Block *ret) {
    ssize_t n = pread(images[disk], ret, BLOCK_BYTES, (off_t) (position * BLOCK_BYTES));

    if (n < 0) {
        perror("read");
        exit(2);
    }
    /* A raw image may end before the ring does, where nothing was written. */
    memset((char *) ret + n, 0, (size_t) (BLOCK_BYTES - n));
    return n > 0;
}

/* First pass: the highest number of each lane, over all disks. */
static void images_scan(void) {
    for (uint32_t d = 0; d < layout.disks; d++)
        for (uint64_t p = 0; p < layout.lanes * layout.ring; p++) {
            Block block;

            block_read(d, p, &block);
            if (block_check(&block) != BLOCK_GOOD || block.lane >= layout.lanes)
                continue;
            if (lanes[block.lane].found++ == 0 || block.number > lanes[block.lane].highest)
                lanes[block.lane].highest = block.number;
        }
}

/* The number that must be in a slot of a lane when highest was its last write; false: the slot must be blank. */
static bool slot_expected(uint32_t disk, uint64_t slot, uint64_t highest, uint64_t *ret) {
    uint64_t first = slot * layout.disks + disk;

    if (first > highest)
        return false;
    *ret = first + (highest - first) / layout_span(&layout) * layout_span(&layout);
    return true;
}

static void slot_verify(uint32_t lane, uint32_t disk, uint64_t slot) {
    uint64_t expected = 0;
    bool any = lanes[lane].found > 0 && slot_expected(disk, slot, lanes[lane].highest, &expected);
    Block block;

    block_read(disk, lane * layout.ring + slot, &block);
    switch (block_check(&block)) {
    case BLOCK_TORN:
        complain("disk %u, lane %u, slot %llu: torn block (it says %llu)", disk, lane,
                 (unsigned long long) slot, (unsigned long long) block.number);
        return;
    case BLOCK_BLANK:
        if (any)
            complain("lane %u: %llu is lost: slot %llu of disk %u is blank", lane,
                     (unsigned long long) expected, (unsigned long long) slot, disk);
        return;
    case BLOCK_GOOD:
        break;
    }
    if (any && block.lane == lane && block.disk == disk && block.number == expected) {
        lanes[lane].in_place++;
        return;
    }
    if (block.lane != lane || block.disk != disk ||
        layout_position(&layout, lane, block.number) != lane * layout.ring + slot ||
        layout_disk(&layout, block.number) != disk)
        complain("disk %u, lane %u, slot %llu: %llu of lane %u, disk %u is there a second time, or "
                 "in a wrong place",
                 disk, lane, (unsigned long long) slot, (unsigned long long) block.number,
                 block.lane, block.disk);
    if (any)
        complain("lane %u: %llu is lost: slot %llu of disk %u still holds %llu", lane,
                 (unsigned long long) expected, (unsigned long long) slot, disk,
                 (unsigned long long) block.number);
}

static void lane_verify(uint32_t lane) {
    uint64_t needed = lanes[lane].floor > lanes[lane].next ? lanes[lane].floor : lanes[lane].next;

    for (uint32_t d = 0; d < layout.disks; d++)
        for (uint64_t slot = 0; slot < layout.ring; slot++)
            slot_verify(lane, d, slot);
    if (needed > 0 && lanes[lane].found == 0)
        complain("lane %u: numbers up to %llu were acknowledged and none is there", lane,
                 (unsigned long long) needed - 1);
    else if (needed > 0 && lanes[lane].highest < needed - 1)
        complain("lane %u: %llu was acknowledged and the highest number there is %llu", lane,
                 (unsigned long long) needed - 1, (unsigned long long) lanes[lane].highest);
    if (lanes[lane].found > 0)
        printf("lane %u: numbers up to %llu are there, %llu were acknowledged, %llu in place\n",
               lane, (unsigned long long) lanes[lane].highest, (unsigned long long) needed,
               (unsigned long long) lanes[lane].in_place);
}

static int usage(void) {
    fputs(
        "verify --acks FILE IMAGE…                  the layout and what was acknowledged come from "
        "FILE\n"
        "verify --layout LANES,RING [--floor N] IMAGE…   N: numbers of lane 0 that must be there\n",
        stderr);
    return 2;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"acks", required_argument, NULL, 'a'},
                                            {"layout", required_argument, NULL, 'l'},
                                            {"floor", required_argument, NULL, 'f'},
                                            {}};
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        unsigned long long ring;

        if (c == 'a')
            acknowledgements_read(optarg);
        else if (c == 'l' && sscanf(optarg, "%u,%llu", &layout.lanes, &ring) == 2)
            layout.ring = ring;
        else if (c == 'f')
            lanes[0].floor = strtoull(optarg, NULL, 10);
        else
            return usage();
    }
    if (layout.disks == 0)
        layout.disks = (uint32_t) (argc - optind);
    if (layout.disks == 0 || layout.disks > DISKS_MAX || layout.lanes == 0 ||
        layout.lanes > LANES_MAX || layout.disks != (uint32_t) (argc - optind))
        return usage();
    for (uint32_t d = 0; d < layout.disks; d++)
        if ((images[d] = open(argv[optind + (int) d], O_RDONLY | O_CLOEXEC)) < 0) {
            perror(argv[optind + (int) d]);
            return 2;
        }
    images_scan();
    for (uint32_t lane = 0; lane < layout.lanes; lane++)
        lane_verify(lane);
    if (complaints > COMPLAINTS_MAX)
        printf("… and %llu more\n", (unsigned long long) complaints - COMPLAINTS_MAX);
    printf("%s\n", complaints == 0 ? "nothing lost, nothing twice, nothing torn" : "DAMAGED");
    return complaints == 0 ? 0 : 1;
}
