/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A QEMU process that may be met again: pid and start time within one boot. */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "domain/instance.h"

static void read_boot_id(char *ret, size_t size) {
    static char cached[40];

    if (!cached[0]) {
        g_autofree char *text = NULL;
        if (g_file_get_contents("/proc/sys/kernel/random/boot_id", &text, NULL, NULL))
            g_strlcpy(cached, g_strstrip(text), sizeof(cached));
    }
    g_strlcpy(ret, cached, size);
}

/* Also where /proc hides the processes of others, and then it looks as if they had ended. */
static bool process_exists(int64_t pid) {
    return kill((pid_t) pid, 0) == 0 || errno == EPERM;
}

/* Start time from /proc/PID/stat, field 22 (proc(5)); the name in field 2 may hold anything, so count from its end.
 * A zombie has ended, whatever its parent does. 0 when there is a process and no more can be known. */
static int read_start(int64_t pid, uint64_t *ret) {
    g_autofree char *path = g_strdup_printf("/proc/%" PRIi64 "/stat", pid);
    g_autofree char *text = NULL;
    char state;
    unsigned long long start;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        *ret = 0;
        return process_exists(pid) ? 0 : -ESRCH;
    }
    const char *rest = strrchr(text, ')');
    if (!rest ||
        sscanf(rest + 1,
               " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &state, &start) != 2)
        return -EBADMSG;
    if (state == 'Z' || state == 'X')
        return -ESRCH;
    *ret = start;
    return 0;
}

int instance_read(int64_t pid, Instance *ret) {
    Instance i = {.pid = pid};
    int r = read_start(pid, &i.start);

    if (r < 0)
        return r;
    read_boot_id(i.boot, sizeof(i.boot));
    *ret = i;
    return 0;
}

static bool start_fits(uint64_t a, uint64_t b) {
    return a == b || a == 0 || b == 0;
}

bool instance_equal(const Instance *a, const Instance *b) {
    return a->pid == b->pid && start_fits(a->start, b->start) && g_str_equal(a->boot, b->boot);
}

bool instance_is_gone(const Instance *i) {
    char boot[40];
    uint64_t start;

    if (i->pid <= 0)
        return false; /* never known: cannot be known to be gone */
    read_boot_id(boot, sizeof(boot));
    if (!g_str_equal(boot, i->boot))
        return true;
    int r = read_start(i->pid, &start);
    return r == -ESRCH || (r >= 0 && !start_fits(start, i->start));
}
