/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Progress: rate and remaining time from what QEMU counts. QEMU counts in whole operations, so
 * looks that follow each other quickly are taken together as one sample. */

#include "job/progress.h"

#include "util.h"

#define SMOOTHING_SECONDS 3.0
#define SAMPLE_MIN (100 * USEC_PER_MSEC)
#define STANDING_AFTER (30 * USEC_PER_SEC) /* without a byte: smoothing alone never says 0 */
#define TIME_MAX (UINT64_C(100) * 365 * 24 * 3600 * USEC_PER_SEC) /* longer is as good as never */

void progress_init(Progress *p) {
    *p = (Progress){.smoothed = -1};
}

uint64_t progress_remaining(const Progress *p) {
    return p->total > p->done ? p->total - p->done : 0;
}

uint64_t progress_remaining_time(const Progress *p) {
    uint64_t rest = progress_remaining(p);
    if (rest == 0 && p->total > 0)
        return 0;
    if (p->rate == 0)
        return UINT64_MAX;
    double usec = (double) rest * (double) USEC_PER_SEC / (double) p->rate;
    return usec < (double) TIME_MAX ? (uint64_t) usec : UINT64_MAX;
}

/* Begins a new sample here. */
static void sample_set(Progress *p, uint64_t done, uint64_t now) {
    p->sample_done = done;
    p->sample_time = now;
}

static void sample_take(Progress *p, uint64_t done, bool paused, uint64_t now) {
    /* A count that fell is another count: a job that began anew, or QEMU that corrected itself. */
    bool anew = p->sample_time == 0 || now < p->sample_time || done < p->sample_done;
    if (anew) {
        p->smoothed = -1;
        p->moved_time = now;
    }
    /* What passes while it is paused says nothing of how fast it copies otherwise. */
    if (anew || paused) {
        if (paused)
            p->moved_time = now;
        sample_set(p, done, now);
        return;
    }
    if (now - p->sample_time < SAMPLE_MIN)
        return;

    double seconds = (double) (now - p->sample_time) / (double) USEC_PER_SEC;
    double rate = (double) (done - p->sample_done) / seconds;
    if (done > p->sample_done)
        p->moved_time = now;
    if (now - p->moved_time >= STANDING_AFTER)
        p->smoothed = 0;
    else if (p->smoothed < 0)
        p->smoothed = rate;
    else
        p->smoothed += (rate - p->smoothed) * seconds / (seconds + SMOOTHING_SECONDS);
    sample_set(p, done, now);
}

/* The end that is expected now. One that differs little from what was told stays, so that readers
 * see it move only when there is something to see. */
static uint64_t end_expect(const Progress *p, uint64_t realtime) {
    uint64_t left = progress_remaining_time(p);
    if (left == UINT64_MAX || left == 0 || p->rate == 0 || realtime > UINT64_MAX - left)
        return 0;
    uint64_t end = realtime + left;
    uint64_t slack = MAX(left / 50, USEC_PER_SEC / 2);
    uint64_t difference = end > p->expected_end ? end - p->expected_end : p->expected_end - end;
    return difference <= slack ? p->expected_end : end;
}

bool progress_update(Progress *p, uint64_t done, uint64_t total, bool paused, uint64_t now,
                     uint64_t realtime) {
    Progress before = *p;

    sample_take(p, done, paused, now);
    p->done = done;
    p->total = total;
    if (paused || p->smoothed < 1)
        p->rate = 0;
    else
        p->rate = p->smoothed < (double) INT64_MAX ? (uint64_t) p->smoothed : INT64_MAX;
    p->expected_end = end_expect(p, realtime);
    return p->done != before.done || p->total != before.total || p->rate != before.rate ||
           p->expected_end != before.expected_end;
}
