/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The connection of a domain: connecting with back-off, who answers at the socket, and whether that process lives. */

#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/pidfd.h>

#include "domain/internal.h"
#include "log.h"

#define BACKOFF_MIN (20 * USEC_PER_MSEC)

static int on_reconnect(sd_event_source *source, uint64_t usec, void *userdata) {
    link_connect(userdata);
    return 0;
}

/* Something appeared beside the socket: try at once instead of waiting for the back-off. */
static int on_socket_watch(sd_event_source *source, const struct inotify_event *event,
                           void *userdata) {
    Domain *d = userdata;
    g_autofree char *base = g_path_get_basename(d->socket);

    if (event->len > 0 && g_str_equal(event->name, base) && !d->qmp)
        domain_arm_timer(d, &d->reconnect, 0, on_reconnect);
    return 0;
}

static void link_schedule(Domain *d) {
    if (!d->socket[0])
        return; /* came as a descriptor: there is no way back */
    if (!d->socket_watch) {
        g_autofree char *dir = g_path_get_dirname(d->socket);
        sd_event_add_inotify(d->event, &d->socket_watch, dir, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR,
                             on_socket_watch, d);
    }
    domain_arm_timer(d, &d->reconnect, d->backoff, on_reconnect);
    d->backoff = MIN(d->backoff * 2, d->reconnect_max);
}

static void process_is_gone(Domain *d) {
    if (d->process_gone)
        return;
    d->process_gone = true;
    d->hooks.link_changed(d, d->userdata);
}

static int on_pidfd(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
    Domain *d = userdata;

    sd_event_source_set_enabled(source, SD_EVENT_OFF);
    process_is_gone(d);
    return 0;
}

/* Who answers at the socket? SO_PEERCRED names the process that called listen(), which is QEMU. */
static void link_identify(Domain *d) {
    Instance now = {0};
    pid_t pid = 0;
    uid_t uid;
    gid_t gid;

    qmp_peer(d->qmp, &pid, &uid, &gid);
    if (pid > 0)
        instance_read(pid, &now);
    if (!instance_equal(&now, &d->instance)) {
        d->instance = now;
        g_hash_table_remove_all(d->named_nodes);
        d->dirty = true;
    }
    d->process_gone = false;
    g_clear_pointer(&d->pidfd_source, sd_event_source_disable_unref);
    d->pidfd = fd_close(d->pidfd);
    if (pid > 0)
        d->pidfd = pidfd_open(pid, 0);
    if (d->pidfd >= 0)
        sd_event_add_io(d->event, &d->pidfd_source, d->pidfd, EPOLLIN, on_pidfd, d);
}

static void on_ready(QmpClient *c, const char *version, void *userdata) {
    Domain *d = userdata;

    d->backoff = BACKOFF_MIN;
    g_clear_pointer(&d->socket_watch, sd_event_source_disable_unref);
    if (version[0]) /* else the connection is of our last life; the look asks for it */
        domain_set_version(d, version);
    link_identify(d);
    domain_look(d, LOOK_ALL);
}

static void on_disconnected(QmpClient *c, int error, const char *reason, void *userdata) {
    Domain *d = userdata;
    bool was_live = d->live;

    domain_forget_look(d);
    d->qmp = qmp_free(d->qmp);
    d->live = d->unresponsive = d->named = d->guest_runs = false;
    d->wanted = d->later = 0;
    d->create_look = 0; /* executed or dropped before the next greeting */
    if (d->retry)
        sd_event_source_set_enabled(d->retry, SD_EVENT_OFF);
    view_clear(d->view);
    if (was_live)
        log_info("Domain \"%s\": disconnected: %s", d->name, reason);
    if (error == -ETIMEDOUT)
        domain_set_state(d, DOMAIN_UNRESPONSIVE,
                         "no greeting: another client holds the monitor, or QEMU does not answer");
    else
        domain_set_state(d, DOMAIN_DISCONNECTED, reason);
    if (instance_is_gone(&d->instance))
        d->process_gone = true;
    link_schedule(d);
    d->hooks.link_changed(d, d->userdata);
}

static const QmpHandlers qmp_handlers = {
    .ready = on_ready,
    .event = domain_hear,
    .disconnected = on_disconnected,
};

void link_connect(Domain *d) {
    if (d->qmp)
        return;
    int r = qmp_connect(d->event, d->socket, d->greeting_timeout, &qmp_handlers, d, &d->qmp);
    if (r < 0) {
        log_warning("Domain \"%s\": cannot connect: %s", d->name, g_strerror(-r));
        link_schedule(d);
    }
}

int link_adopt(Domain *d, int fd, bool resume) {
    return qmp_adopt(d->event, fd, resume, d->greeting_timeout, &qmp_handlers, d, &d->qmp);
}

void link_init(Domain *d) {
    d->pidfd = -1;
    d->backoff = BACKOFF_MIN;
}

void link_clear(Domain *d) {
    qmp_free(d->qmp);
    sd_event_source_disable_unref(d->pidfd_source);
    sd_event_source_disable_unref(d->reconnect);
    sd_event_source_disable_unref(d->socket_watch);
    fd_close(d->pidfd);
}
