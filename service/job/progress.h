/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Progress: rate and remaining time from what QEMU counts. Pure: times are given. */

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint64_t done, total; /* bytes */
    uint64_t
        rate; /* bytes per second, exponentially smoothed over about 3 s; 0 = unknown or standing */
    uint64_t expected_end;             /* CLOCK_REALTIME, µs; 0 = unknown, or nothing is left */
    uint64_t sample_time, sample_done; /* last sample, CLOCK_MONOTONIC; time 0 = none yet */
    uint64_t moved_time;               /* when done last grew, CLOCK_MONOTONIC */
    double smoothed;                   /* bytes per second; negative = no rate measured yet */
} Progress;

void progress_init(Progress *p);
/* A new count at monotonic time now (µs). paused: the rate is 0 and there is no expected end.
 * Returns whether anything that is published changed. */
bool progress_update(Progress *p, uint64_t done, uint64_t total, bool paused, uint64_t now,
                     uint64_t realtime);
/* Bytes still to be copied. */
uint64_t progress_remaining(const Progress *p);
/* Microseconds that copying the rest takes at this rate; UINT64_MAX when unknown. */
uint64_t progress_remaining_time(const Progress *p);
