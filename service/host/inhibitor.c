/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inhibitor lock of logind: held as long as its descriptor is open. */

#include "host/inhibitor.h"

#include <fcntl.h>

#include "log.h"
#include "util.h"

struct Inhibitor {
    sd_bus *bus;
    sd_bus_slot *slot; /* the call that waits */
    bool wanted;
    int fd;
};

Inhibitor *inhibitor_new(sd_bus *bus) {
    Inhibitor *i = g_new0(Inhibitor, 1);

    i->bus = sd_bus_ref(bus);
    i->fd = -1;
    return i;
}

Inhibitor *inhibitor_free(Inhibitor *i) {
    if (!i)
        return NULL;
    sd_bus_slot_unref(i->slot);
    fd_close(i->fd);
    sd_bus_unref(i->bus);
    g_free(i);
    return NULL;
}

static int on_inhibited(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    Inhibitor *i = userdata;
    int fd;

    i->slot = sd_bus_slot_unref(i->slot);
    if (sd_bus_message_is_method_error(reply, NULL)) {
        log_debug("logind does not delay sleep and shutdown, ignoring: %s",
                  sd_bus_message_get_error(reply)->message);
        return 0;
    }
    if (sd_bus_message_read(reply, "h", &fd) < 0)
        return 0;
    /* The message closes its own; not wanted any more: nothing is kept. */
    if (i->wanted)
        i->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return 0;
}

static int inhibit(Inhibitor *i) {
    g_autoptr(sd_bus_message) m = NULL;
    int r = sd_bus_message_new_method_call(i->bus, &m, "org.freedesktop.login1",
                                           "/org/freedesktop/login1",
                                           "org.freedesktop.login1.Manager", "Inhibit");

    if (r >= 0)
        r = sd_bus_message_set_auto_start(m, false);
    if (r >= 0)
        r = sd_bus_message_append(m, "ssss", "sleep:shutdown", "blockjobd",
                                  "The disk of a guest is being switched", "delay");
    if (r >= 0)
        r = sd_bus_call_async(i->bus, &i->slot, m, on_inhibited, i, 0);
    return r;
}

void inhibitor_set(Inhibitor *i, bool wanted) {
    if (wanted == i->wanted)
        return;
    i->wanted = wanted;
    i->fd = fd_close(i->fd);
    if (!wanted || i->slot) /* one that is still being asked for will do */
        return;
    int r = inhibit(i);
    if (r < 0)
        log_debug("logind cannot be asked to delay sleep and shutdown, ignoring: %s",
                  g_strerror(-r));
}
