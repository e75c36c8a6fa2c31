/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The connection to the service: calls, its owner on the bus, errors as sentences and codes. */

#include "ctl-bus.h"
#include "ctl-terminal.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DBUS_ERROR "org.freedesktop.DBus.Error."
#define OUR_ERROR "org.blockjob1.Error."

/* Reading is answered from memory. A change may wait for polkit (five minutes), and for QEMU. */
#define READ_TIMEOUT (25 * USEC_PER_SEC)
#define CHANGE_TIMEOUT (330 * USEC_PER_SEC)

void complain(const char *format, ...) {
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *clean = string_sanitize(text, 8192);
    fflush(stdout);
    fprintf(stderr, "blockjobctl: %s\n", clean);
}

void json_print(const Ctl *ctl, const json_t *value) {
    json_dumpf(value, stdout,
               JSON_ENCODE_ANY |
                   (ctl->options->json == JSON_PRETTY ? JSON_INDENT(4) : JSON_COMPACT));
    putchar('\n');
}

static int on_interrupt(sd_event_source *source, const struct signalfd_siginfo *info,
                        void *userdata) {
    Ctl *ctl = userdata;
    ctl->interrupted = true;
    return 0;
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Ctl *ctl = userdata;
    ctl->disconnected = true;
    return 0;
}

static int signals_watch(Ctl *ctl) {
    static const int signals[] = {SIGINT, SIGTERM};
    sigset_t mask;

    sigemptyset(&mask);
    for (size_t i = 0; i < G_N_ELEMENTS(signals); i++)
        sigaddset(&mask, signals[i]);
    if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
        return -errno;
    for (size_t i = 0; i < G_N_ELEMENTS(signals); i++) {
        int r = sd_event_add_signal(ctl->event, NULL, signals[i], on_interrupt, ctl);
        if (r < 0)
            return r;
    }
    return 0;
}

static int bus_open(Ctl *ctl) {
    int r = ctl->options->host ? sd_bus_open_system_remote(&ctl->bus, ctl->options->host)
                               : sd_bus_open_system_with_description(&ctl->bus, "blockjobctl");
    if (r >= 0)
        r = sd_bus_set_allow_interactive_authorization(ctl->bus, !ctl->options->no_ask_password);
    if (r >= 0)
        r = sd_bus_attach_event(ctl->bus, ctl->event, SD_EVENT_PRIORITY_NORMAL);
    if (r >= 0)
        r = sd_bus_match_signal(ctl->bus, &ctl->disconnect_slot, NULL,
                                "/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local",
                                "Disconnected", on_disconnected, ctl);
    return r;
}

int bus_connect(Ctl *ctl) {
    int r = sd_event_new(&ctl->event);

    if (r >= 0)
        r = bus_open(ctl);
    if (r >= 0)
        r = signals_watch(ctl);
    if (r >= 0)
        return 0;
    complain("Cannot connect to the system bus%s%s: %s.", ctl->options->host ? " of " : "",
             ctl->options->host ? ctl->options->host : "", g_strerror(-r));
    return CTL_NO_SERVICE;
}

void ctl_clear(Ctl *ctl) {
    ctl->disconnect_slot = sd_bus_slot_unref(ctl->disconnect_slot);
    ctl->owner_slot = sd_bus_slot_unref(ctl->owner_slot);
    if (ctl->bus)
        sd_bus_detach_event(ctl->bus);
    ctl->bus = sd_bus_flush_close_unref(ctl->bus);
    ctl->event = sd_event_unref(ctl->event);
    g_clear_pointer(&ctl->owner, g_free);
}

int bus_call_new(Ctl *ctl, const char *path, const char *interface, const char *member,
                 sd_bus_message **ret) {
    return sd_bus_message_new_method_call(ctl->bus, ret, CTL_NAME, path, interface, member);
}

typedef struct {
    bool done;
    sd_bus_message *reply;
} PendingCall;

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    PendingCall *pending = userdata;
    pending->done = true;
    pending->reply = sd_bus_message_ref(m);
    return 0;
}

int bus_call(Ctl *ctl, sd_bus_message *m, bool change, sd_bus_message **reply,
             sd_bus_error *error) {
    PendingCall pending = {0};
    g_autoptr(sd_bus_slot) slot = NULL;

    if (change && !ctl->options->no_ask_password && !ctl->options->host)
        agent_open();
    int r = sd_bus_call_async(ctl->bus, &slot, m, on_reply, &pending,
                              change ? CHANGE_TIMEOUT : READ_TIMEOUT);
    while (r >= 0 && !pending.done && !ctl->interrupted && !ctl->disconnected)
        r = sd_event_run(ctl->event, UINT64_MAX);
    if (!pending.done && r >= 0)
        r = ctl->interrupted ? -EINTR : -ENOTCONN;
    if (!pending.done)
        return r;
    g_autoptr(sd_bus_message) answer = pending.reply;
    if (sd_bus_message_is_method_error(answer, NULL)) {
        sd_bus_error_copy(error, sd_bus_message_get_error(answer));
        return -sd_bus_message_get_errno(answer);
    }
    if (reply)
        *reply = g_steal_pointer(&answer);
    return 0;
}

int bus_request(Ctl *ctl, const char *path, const char *interface, const char *member, bool change,
                sd_bus_message **reply, sd_bus_error *error, const char *types, ...) {
    g_autoptr(sd_bus_message) m = NULL;
    int r = bus_call_new(ctl, path, interface, member, &m);

    if (r >= 0 && types) {
        va_list args;
        va_start(args, types);
        r = sd_bus_message_appendv(m, types, args);
        va_end(args);
    }
    return r < 0 ? r : bus_call(ctl, m, change, reply, error);
}

int bus_properties(Ctl *ctl, const char *path, const char *interface, json_t **ret,
                   sd_bus_error *error) {
    g_autoptr(sd_bus_message) reply = NULL;
    int r = bus_request(ctl, path, "org.freedesktop.DBus.Properties", "GetAll", false, &reply,
                        error, "s", interface);
    return r < 0 ? r : value_read(reply, ret);
}

int bus_objects(Ctl *ctl, json_t **ret, sd_bus_error *error) {
    g_autoptr(sd_bus_message) reply = NULL;
    int r = bus_request(ctl, CTL_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects",
                        false, &reply, error, NULL);
    return r < 0 ? r : value_read(reply, ret);
}

static int on_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Ctl *ctl = userdata;
    const char *name, *old, *new;
    int r = sd_bus_message_read(m, "sss", &name, &old, &new);

    if (r < 0)
        return r;
    g_free(ctl->owner);
    ctl->owner = *new ? g_strdup(new) : NULL;
    ctl->owner_seen |= ctl->owner != NULL;
    if (ctl->owner_changed)
        ctl->owner_changed(ctl->owner_userdata);
    return 0;
}

int bus_track_owner(Ctl *ctl) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(sd_bus_message) m = NULL, reply = NULL;
    int r = sd_bus_add_match_async(ctl->bus, &ctl->owner_slot,
                                   "type='signal',sender='org.freedesktop.DBus',"
                                   "path='/org/freedesktop/DBus',"
                                   "interface='org.freedesktop.DBus',"
                                   "member='NameOwnerChanged',arg0='" CTL_NAME "'",
                                   on_owner_changed, NULL, ctl);
    if (r >= 0)
        r = sd_bus_message_new_method_call(ctl->bus, &m, "org.freedesktop.DBus",
                                           "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                           "GetNameOwner");
    if (r >= 0)
        r = sd_bus_message_append(m, "s", CTL_NAME);
    if (r >= 0)
        r = bus_call(ctl, m, false, &reply, &error);
    if (sd_bus_error_has_name(&error, SD_BUS_ERROR_NAME_HAS_NO_OWNER))
        return 0; /* The first call may start it. */
    if (r < 0)
        return error_report(ctl, r, &error);
    const char *owner;
    r = sd_bus_message_read(reply, "s", &owner);
    if (r < 0)
        return error_report(ctl, r, NULL);
    g_free(ctl->owner);
    ctl->owner = g_strdup(owner);
    ctl->owner_seen = true;
    return 0;
}

static int on_owner_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
    bool *late = userdata;
    *late = true;
    return 0;
}

/* Runs the loop until the service has an owner other than old. 0, -ETIMEDOUT, -EINTR, -ENOTCONN. */
static int owner_wait(Ctl *ctl, const char *old) {
    g_autoptr(sd_event_source) timer = NULL;
    bool late = false;
    int r = sd_event_add_time_relative(ctl->event, &timer, CLOCK_MONOTONIC, CTL_RETURN_USEC,
                                       USEC_PER_SEC, on_owner_timeout, &late);

    while (r >= 0 && (!ctl->owner || g_strcmp0(ctl->owner, old) == 0)) {
        if (ctl->interrupted || ctl->disconnected || late)
            return ctl->interrupted ? -EINTR : ctl->disconnected ? -ENOTCONN : -ETIMEDOUT;
        r = sd_event_run(ctl->event, UINT64_MAX);
    }
    return MIN(r, 0);
}

int bus_call_surely(Ctl *ctl, CallMaker maker, void *userdata, bool *ret_repeated,
                    sd_bus_message **reply, sd_bus_error *error) {
    *ret_repeated = false;
    for (;;) {
        g_autofree char *owner = g_strdup(ctl->owner);
        g_autoptr(sd_bus_message) m = NULL;
        uint64_t start = now_monotonic();
        int r = maker(ctl, userdata, &m);
        if (r < 0)
            return r;
        r = bus_call(ctl, m, true, reply, error);
        /* "No reply" before the time is over comes from the bus: whoever was asked has left it. */
        bool died = error_is_no_service(error) && ctl->owner_seen && !ctl->disconnected &&
                    now_monotonic() - start < CHANGE_TIMEOUT - USEC_PER_SEC;
        if (r >= 0 || !died)
            return r;
        sd_bus_error_free(error);
        r = owner_wait(ctl, owner);
        if (r < 0)
            return r;
        *ret_repeated = true;
    }
}

bool error_is_no_object(const sd_bus_error *error) {
    static const char *const names[] = {
        OUR_ERROR "NoSuchJob",        OUR_ERROR "NoSuchDomain",   OUR_ERROR "NoSuchDisk",
        OUR_ERROR "NoSuchSnapshot",   DBUS_ERROR "UnknownObject", DBUS_ERROR "UnknownInterface",
        DBUS_ERROR "UnknownProperty",
    };
    return error->name && string_index(names, G_N_ELEMENTS(names), error->name) >= 0;
}

bool error_is_no_service(const sd_bus_error *error) {
    static const char *const names[] = {
        DBUS_ERROR "ServiceUnknown", DBUS_ERROR "NameHasNoOwner", DBUS_ERROR "NoReply",
        DBUS_ERROR "Disconnected",   DBUS_ERROR "NoServer",       DBUS_ERROR "TimedOut",
    };
    return error->name && (string_index(names, G_N_ELEMENTS(names), error->name) >= 0 ||
                           g_str_has_prefix(error->name, DBUS_ERROR "Spawn.") ||
                           g_str_has_prefix(error->name, "org.freedesktop.systemd1."));
}

CtlExit error_exit_code(const char *name) {
    static const struct {
        const char *name;
        CtlExit code;
    } codes[] = {
        {DBUS_ERROR "AccessDenied", CTL_DENIED},
        {DBUS_ERROR "AuthFailed", CTL_DENIED},
        {DBUS_ERROR "InteractiveAuthorizationRequired", CTL_DENIED},
        {DBUS_ERROR "InvalidArgs", CTL_USAGE},
        {DBUS_ERROR "Timeout", CTL_TIMEOUT},
        {OUR_ERROR "NotReady", CTL_WRONG_STATE},
        {OUR_ERROR "AlreadyEnding", CTL_WRONG_STATE},
        {OUR_ERROR "NotTwoPhase", CTL_WRONG_STATE},
        {OUR_ERROR "DiskBusy", CTL_WRONG_STATE},
        {OUR_ERROR "DomainBusy", CTL_WRONG_STATE},
        {OUR_ERROR "DomainNotRunning", CTL_WRONG_STATE},
    };
    sd_bus_error error = {.name = name};

    for (size_t i = 0; i < G_N_ELEMENTS(codes); i++)
        if (g_strcmp0(codes[i].name, name) == 0)
            return codes[i].code;
    if (error_is_no_object(&error))
        return CTL_NO_OBJECT;
    return error_is_no_service(&error) ? CTL_NO_SERVICE : CTL_FAILED;
}

/* What may be done about an error, where the service's own sentence cannot know: it is about this
 * program. */
static const char *error_hint(const Ctl *ctl, const char *name) {
    if (strcmp(name, DBUS_ERROR "InteractiveAuthorizationRequired") == 0)
        return ctl->options->no_ask_password
                   ? "Without --no-ask-password you may be asked for a password."
                   : "Run this on a terminal, or as root.";
    if (strcmp(name, OUR_ERROR "NoSuchJob") == 0)
        return "\"blockjobctl list --all\" lists the jobs, \"blockjobctl history\" the older ones.";
    if (strcmp(name, OUR_ERROR "NoSuchDomain") == 0)
        return "\"blockjobctl domains\" lists the domains, \"blockjobctl attach\" adds one.";
    if (strcmp(name, OUR_ERROR "NoSuchDisk") == 0)
        return "\"blockjobctl disks DOMAIN\" lists the disks of a domain.";
    if (strcmp(name, OUR_ERROR "NoSpace") == 0)
        return "--force goes on nevertheless.";
    return NULL;
}

char *error_sentence(const sd_bus_error *error) {
    if (g_strcmp0(error->name, DBUS_ERROR "ServiceUnknown") == 0)
        return g_strdup("The service blockjobd does not run and could not be started.");
    if (g_strcmp0(error->name, DBUS_ERROR "NoReply") == 0)
        return g_strdup_printf(
            "The service has not answered, so what became of this is not known. (%s)",
            error->message);
    return g_strdup(error->message && *error->message ? error->message : error->name);
}

CtlExit error_report(Ctl *ctl, int r, const sd_bus_error *error) {
    if (error && error->name) {
        const char *hint = error_hint(ctl, error->name);
        g_autofree char *sentence = error_sentence(error);
        complain("%s", sentence);
        if (hint && !ctl->options->quiet)
            complain("%s", hint);
        return error_exit_code(error->name);
    }
    if (r == -EINTR) {
        complain(
            "Interrupted before the service answered; \"blockjobctl list\" shows what it does.");
        return CTL_DETACHED;
    }
    if (r == -ENOTCONN || r == -ECONNRESET || ctl->disconnected) {
        complain("The connection to the bus was lost.");
        return CTL_NO_SERVICE;
    }
    if (r == -EOPNOTSUPP) {
        complain("Descriptors cannot be passed over this connection; give a path.");
        return CTL_USAGE;
    }
    if (r == -ETIMEDOUT) {
        complain("The service has gone away and has not come back for 90 s.");
        return CTL_NO_SERVICE;
    }
    complain("The service cannot be asked: %s.", g_strerror(-r));
    return CTL_FAILED;
}
