/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* One block of the writing load: what the guest's writer puts on its disks and what the verifier expects to find.
 *
 * A lane is one writer that numbers its writes 0, 1, 2, … and has one write in flight at a time. Number n goes to disk
 * n % disks, and there to slot (n / disks) % ring of the lane's own region: blocks lane * ring … (lane + 1) * ring - 1.
 * So what a lane has written is one ordered sequence over all disks, and at any instant the disks hold exactly the last
 * ring * disks numbers of it. */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BLOCK_BYTES 4096
#define BLOCK_WORDS (BLOCK_BYTES / 8)
#define BLOCK_MAGIC 0x6b636f6c62626a21ULL
#define LANES_MAX 16
#define DISKS_MAX 16

typedef struct {
    uint32_t lanes, disks;
    uint64_t ring; /* blocks that one lane has on one disk */
} Layout;

typedef struct {
    uint64_t magic;
    uint64_t number;
    uint32_t lane, disk;
    uint64_t seed;
    uint64_t words[BLOCK_WORDS - 5];
    uint64_t sum;
} Block;

_Static_assert(sizeof(Block) == BLOCK_BYTES, "a block is what one write carries");

typedef enum {
    BLOCK_BLANK, /* all zeroes: never written */
    BLOCK_TORN,  /* anything that no single write of ours can have left */
    BLOCK_GOOD,
} BlockState;

static inline uint64_t block_mix(uint64_t x) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

/* Every word depends on number, lane and disk: a sector of another write in the middle of a block shows. */
static inline void block_fill(Block *b, uint64_t number, uint32_t lane, uint32_t disk) {
    uint64_t x, sum = 0;

    b->magic = BLOCK_MAGIC;
    b->number = number;
    b->lane = lane;
    b->disk = disk;
    b->seed = (number + 1) * 0x9e3779b97f4a7c15ULL ^ ((uint64_t) lane << 32 | disk);
    x = b->seed | 1;
    for (size_t i = 0; i < BLOCK_WORDS - 5; i++) {
        b->words[i] = x = block_mix(x);
        sum += x;
    }
    b->sum = sum ^ b->seed;
}

static inline BlockState block_check(const Block *b) {
    static const Block blank;
    Block expected;

    if (b->magic != BLOCK_MAGIC)
        return memcmp(b, &blank, sizeof blank) == 0 ? BLOCK_BLANK : BLOCK_TORN;
    block_fill(&expected, b->number, b->lane, b->disk);
    return memcmp(b, &expected, sizeof expected) == 0 ? BLOCK_GOOD : BLOCK_TORN;
}

static inline uint32_t layout_disk(const Layout *l, uint64_t number) {
    return (uint32_t) (number % l->disks);
}

/* In blocks from the start of the disk. */
static inline uint64_t layout_position(const Layout *l, uint32_t lane, uint64_t number) {
    return lane * l->ring + number / l->disks % l->ring;
}

/* How many of a lane's numbers the disks can hold together: number n overwrites number n - layout_span(). */
static inline uint64_t layout_span(const Layout *l) {
    return l->ring * l->disks;
}
