/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Instance: a QEMU process that may be met again: pid and start time within one boot. */

#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t pid; /* 0 = unknown */
    uint64_t
        start; /* clock ticks since boot, /proc/PID/stat field 22; 0 = /proc hides it (ProtectProc=, hidepid=) */
    char boot[40]; /* /proc/sys/kernel/random/boot_id */
} Instance;

/* -ESRCH when there is no such process. */
int instance_read(int64_t pid, Instance *ret);
bool instance_equal(const Instance *a, const Instance *b);
/* Known to be gone; false also when nothing is known. */
bool instance_is_gone(const Instance *i);
