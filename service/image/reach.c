/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking at paths in a helper thread, with a deadline. */

#include "image/reach.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "util.h"

/* What loop and helper share; the last one frees it. */
typedef struct {
    _Atomic unsigned refs;
    _Atomic bool forgotten; /* nobody waits for it any more */
    _Atomic unsigned at;    /* the path that is being looked at */
    char **paths;
    int event_fd;
} Errand;

struct Reach {
    Errand *errand;
    sd_event_source *answered, *deadline;
    ReachDone done;
    void *userdata;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for what follows */
static GQueue errands = G_QUEUE_INIT;
static unsigned helpers;

static void errand_unref(Errand *e) {
    if (atomic_fetch_sub(&e->refs, 1) > 1)
        return;
    fd_close(e->event_fd);
    g_strfreev(e->paths);
    g_free(e);
}

static void errand_run(Errand *e) {
    struct stat st;
    struct statvfs vfs;

    for (unsigned i = 0; e->paths[i] && !e->forgotten; i++) {
        g_autofree char *folder = g_path_get_dirname(e->paths[i]);
        e->at = i;
        /* What comes of it is not of interest, only that something does. */
        (void) !stat(folder, &st);
        (void) !stat(e->paths[i], &st);
        (void) !statvfs(folder, &vfs);
    }
    (void) eventfd_write(e->event_fd, 1);
}

static void *helper_main(void *userdata) {
    Errand *e;

    pthread_setname_np(pthread_self(), "reach");
    pthread_mutex_lock(&lock);
    while ((e = g_queue_pop_head(&errands))) {
        pthread_mutex_unlock(&lock);
        errand_run(e);
        errand_unref(e);
        pthread_mutex_lock(&lock);
    }
    helpers--;
    pthread_mutex_unlock(&lock);
    return NULL;
}

static int helper_start(void) {
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    /* Signals are the loop's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&thread, &attr, helper_main, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return -r;
}

/* Hands it over; a helper more, where one may be. */
static int errand_send(Errand *e) {
    int r = 0;

    pthread_mutex_lock(&lock);
    if (helpers < REACH_MAX) {
        r = helper_start(); /* it waits for the lock */
        if (r >= 0)
            helpers++;
    }
    if (helpers > 0) {
        e->refs++;
        g_queue_push_tail(&errands, e);
        r = 0;
    }
    pthread_mutex_unlock(&lock);
    return r;
}

static int on_answered(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
    g_autoptr(Reach) r = userdata;

    r->done(r, NULL, r->userdata);
    return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
    g_autoptr(Reach) r = userdata;

    unsigned at = atomic_load(&r->errand->at);
    r->done(r, r->errand->paths[at], r->userdata);
    return 0;
}

int reach_new(sd_event *event, const char *const *paths, uint64_t timeout, ReachDone done,
              void *userdata, Reach **ret) {
    g_autoptr(Reach) r = g_new0(Reach, 1);
    Errand *e = g_new0(Errand, 1);

    e->refs = 1;
    e->paths = g_strdupv((char **) paths);
    e->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->errand = e;
    r->done = done;
    r->userdata = userdata;
    if (e->event_fd < 0)
        return -errno;
    int k = sd_event_add_io(event, &r->answered, e->event_fd, EPOLLIN, on_answered, r);
    if (k >= 0)
        k = sd_event_add_time_relative(event, &r->deadline, CLOCK_MONOTONIC, timeout,
                                       10 * USEC_PER_MSEC, on_deadline, r);
    if (k >= 0)
        k = errand_send(e);
    if (k < 0)
        return k;
    *ret = g_steal_pointer(&r);
    return 0;
}

Reach *reach_free(Reach *r) {
    if (!r)
        return NULL;
    sd_event_source_disable_unref(r->answered);
    sd_event_source_disable_unref(r->deadline);
    r->errand->forgotten = true;
    errand_unref(r->errand);
    g_free(r);
    return NULL;
}
