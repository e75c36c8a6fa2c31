/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Preloaded into the service: a disk that is slow or full and a clock that is wrong, by what tests/lib/faults.py writes into
 * the folder FAULTS_FOLDER: slow (milliseconds of each fdatasync), full (no block can be written), clock (seconds that
 * the time of day is ahead). Only the journal's files are slow and full. */

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int fd);
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset);
int clock_gettime(clockid_t id, struct timespec *ret);
int gettimeofday(struct timeval *restrict ret, void *restrict zone);

/* Is the fault asked for, and with which number? */
static bool fault(const char *name, long *ret) {
    const char *folder = getenv("FAULTS_FOLDER");
    char path[512], text[32] = "";

    if (!folder)
        return false;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool asked = fgets(text, sizeof text, f) != NULL;
    fclose(f);
    *ret = strtol(text, NULL, 10);
    return asked;
}

static bool is_journal(int fd) {
    char link[64], path[512];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    return strstr(path, "/journal.db") != NULL;
}

int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    long milliseconds;

    if (is_journal(fd) && fault("slow", &milliseconds))
        usleep((useconds_t) milliseconds * 1000);
    return next(fd);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    ssize_t (*next)(int, const void *, size_t, off64_t) =
        (ssize_t(*)(int, const void *, size_t, off64_t)) dlsym(RTLD_NEXT, "pwrite64");
    long ignored;

    if (is_journal(fd) && fault("full", &ignored)) {
        errno = ENOSPC;
        return -1;
    }
    return next(fd, data, size, offset);
}

int clock_gettime(clockid_t id, struct timespec *ret) {
    static int (*next)(clockid_t, struct timespec *);
    long seconds;

    if (!next)
        next = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int r = next(id, ret);
    if (r == 0 && id == CLOCK_REALTIME && fault("clock", &seconds))
        ret->tv_sec += seconds;
    return r;
}

int gettimeofday(struct timeval *restrict ret, void *restrict zone) {
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    ret->tv_sec = now.tv_sec;
    ret->tv_usec = now.tv_nsec / 1000;
    return 0;
}
