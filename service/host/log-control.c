/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.freedesktop.LogControl1, which systemctl service-log-level and service-log-target use; see
 * org.freedesktop.LogControl1(5). */

#include <string.h>

#include "bus/errors.h"
#include "host/internal.h"
#include "log.h"
#include "util.h"

#define LOG_PATH "/org/freedesktop/LogControl1"

static int get_level(sd_bus *bus, const char *path, const char *interface, const char *property,
                     sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    return sd_bus_message_append(reply, "s", log_level_to_string(log_max_level()));
}

static int set_level(sd_bus *bus, const char *path, const char *interface, const char *property,
                     sd_bus_message *value, void *userdata, sd_bus_error *error) {
    const char *s;
    int r = sd_bus_message_read(value, "s", &s);

    if (r < 0)
        return r;
    int level = log_level_from_string(s);
    if (level < 0)
        return sd_bus_error_set(error, SD_BUS_ERROR_INVALID_ARGS,
                                "A log level is one of emerg, alert, crit, err, warning, notice, "
                                "info, debug.");
    log_set_max_level(level);
    log_notice("The log level is \"%s\" now.", s);
    return 0;
}

static int get_target(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    return sd_bus_message_append(reply, "s", log_target());
}

static int set_target(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *value, void *userdata, sd_bus_error *error) {
    const char *s;
    int r = sd_bus_message_read(value, "s", &s);

    if (r < 0)
        return r;
    if (log_set_target(s) < 0)
        return sd_bus_error_set(error, SD_BUS_ERROR_INVALID_ARGS,
                                "A log target is one of journal, console.");
    return 0;
}

static int get_identifier(sd_bus *bus, const char *path, const char *interface,
                          const char *property, sd_bus_message *reply, void *userdata,
                          sd_bus_error *error) {
    return sd_bus_message_append(reply, "s", "blockjobd");
}

/* Unprivileged as far as sd-bus goes: its own check waits for the bus daemon. on_message() has checked before. */
static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_WRITABLE_PROPERTY("LogLevel", "s", get_level, set_level, 0, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_WRITABLE_PROPERTY("LogTarget", "s", get_target, set_target, 0,
                             SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_PROPERTY("SyslogIdentifier", "s", get_identifier, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_VTABLE_END,
};

/* Whatever calls itself Set on that object is for root. */
static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Host *h = userdata;
    g_auto(Failure) f = {0};
    uint32_t uid;

    if (!sd_bus_message_is_method_call(m, NULL, "Set") ||
        g_strcmp0(sd_bus_message_get_path(m), LOG_PATH) != 0)
        return 0;
    int r = auth_sender_uid(h->auth, m, &uid, &f);
    if (r == 0)
        return 1; /* it comes again when that is known */
    if (r > 0 && uid == 0)
        return 0;
    if (r > 0)
        failure_set(&f, FAILURE_ACCESS_DENIED,
                    "Only root may change how the service logs; call as root.");
    r = bus_reply_failure(m, &f);
    return r < 0 ? r : 1;
}

int log_control_register(Host *h) {
    int r = sd_bus_add_filter(h->bus, &h->log_filter, on_message, h);

    if (r < 0)
        return r;
    return sd_bus_add_object_vtable(h->bus, &h->log_object, LOG_PATH, "org.freedesktop.LogControl1",
                                    vtable, h);
}
