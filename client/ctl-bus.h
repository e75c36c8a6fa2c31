/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The connection to the service: calls, its owner on the bus, errors as sentences and exit codes.
 *
 * Every call is asynchronous and runs the event loop until its answer arrives, for two reasons:
 * Ctrl-C is heard at any time, and signals and answers are handled in the order in which the
 * service sent them (a blocking call takes its answer out of the queue first, and an older signal
 * would then overwrite what it said). */

#include "ctl-options.h"
#include "ctl-value.h"
#include "util.h"

#define CTL_NAME "org.blockjob1"
#define CTL_ROOT "/org/blockjob1"
#define CTL_MANAGER "org.blockjob1.Manager"
#define CTL_DOMAIN "org.blockjob1.Domain"
#define CTL_DISK "org.blockjob1.Disk"
#define CTL_JOB "org.blockjob1.Job"

/* For how long a service that went away may stay away. */
#define CTL_RETURN_USEC (90 * USEC_PER_SEC)

/* Exit codes are interface: the manual page lists them. */
typedef enum {
    CTL_DONE = 0,
    CTL_FAILED = 1,
    CTL_USAGE = 2,
    CTL_CANCELLED = 3,
    CTL_TIMEOUT = 4,
    CTL_DENIED = 5,
    CTL_NO_OBJECT = 6,
    CTL_WRONG_STATE = 7,
    CTL_NO_SERVICE = 8,
    CTL_DETACHED = 130,
} CtlExit;

typedef struct Ctl {
    Options *options;
    sd_event *event;
    sd_bus *bus;
    bool interrupted;  /* Ctrl-C or SIGTERM */
    bool disconnected; /* the bus is gone, nothing can be heard any more */
    char *owner;       /* unique name that owns CTL_NAME, NULL = nobody or not tracked */
    bool owner_seen;   /* somebody has owned it since bus_track_owner() */
    /* Called after each change of owner. */
    void (*owner_changed)(void *userdata);
    void *owner_userdata;
    sd_bus_slot *owner_slot, *disconnect_slot;
} Ctl;

/* Connects. 0 or an exit code, after the reason was printed. */
int bus_connect(Ctl *ctl);
/* Watches who owns the service's name from here on. 0 or an exit code. */
int bus_track_owner(Ctl *ctl);
void ctl_clear(Ctl *ctl);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Ctl, ctl_clear)

/* A call to the service that is to be filled with arguments. */
int bus_call_new(Ctl *ctl, const char *path, const char *interface, const char *member,
                 sd_bus_message **ret);
/* Sends m and waits for the answer. change says that authorization may be asked for: polkit's agent
 * is started and the patience is that of a person who types a password. Negative errno with *error
 * filled; -EINTR without an answer if interrupted. Not from inside a callback. */
int bus_call(Ctl *ctl, sd_bus_message *m, bool change, sd_bus_message **reply, sd_bus_error *error);
/* The two in one, for basic arguments (types as in sd_bus_message_append). */
int bus_request(Ctl *ctl, const char *path, const char *interface, const char *member, bool change,
                sd_bus_message **reply, sd_bus_error *error, const char *types, ...);
/* Makes the same call each time it is asked; 0 or negative errno. */
typedef int (*CallMaker)(Ctl *ctl, void *userdata, sd_bus_message **ret);
/* As bus_call() with change, and when the service dies before it has answered, calls it again as
 * soon as it is back: only for what may be said twice. *ret_repeated says that it was. Needs
 * bus_track_owner(). -ETIMEDOUT without an error if it does not come back. */
int bus_call_surely(Ctl *ctl, CallMaker maker, void *userdata, bool *ret_repeated,
                    sd_bus_message **reply, sd_bus_error *error);
/* All properties of an interface as an object. */
int bus_properties(Ctl *ctl, const char *path, const char *interface, json_t **ret,
                   sd_bus_error *error);
/* GetManagedObjects(): path → interface → property → value. */
int bus_objects(Ctl *ctl, json_t **ret, sd_bus_error *error);

/* Whether the error says that there is no such object (any more). */
bool error_is_no_object(const sd_bus_error *error);
/* Whether the error says that the service was not there to answer, so that nothing is known of what
 * it did. */
bool error_is_no_service(const sd_bus_error *error);
/* The exit code for the name of a D-Bus error. */
CtlExit error_exit_code(const char *name);
/* What the error says, in a sentence. Owned by the caller. */
char *error_sentence(const sd_bus_error *error);
/* Prints "blockjobctl: SENTENCE" and perhaps a hint; returns the exit code. */
CtlExit error_report(Ctl *ctl, int r, const sd_bus_error *error);

/* Prints "blockjobctl: …". */
void complain(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* Prints value as --json asks for. */
void json_print(const Ctl *ctl, const json_t *value);
