/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Failure: a named outcome that the caller of an operation is to be told: an error name and a whole sentence.
 * Rooms below bus/ speak of failures only; bus/errors.c turns them into D-Bus errors. */

#include <glib.h>
#include <stdbool.h>

/* One list: identifier, last part of the D-Bus name. Names are interface and never change meaning. */
#define FAILURE_LIST(X)                                                                            \
    X(NO_SUCH_DOMAIN, "org.blockjob1.Error.NoSuchDomain")                                          \
    X(NO_SUCH_DISK, "org.blockjob1.Error.NoSuchDisk")                                              \
    X(NO_SUCH_JOB, "org.blockjob1.Error.NoSuchJob")                                                \
    X(DISK_BUSY, "org.blockjob1.Error.DiskBusy")                                                   \
    X(DOMAIN_BUSY, "org.blockjob1.Error.DomainBusy")                                               \
    X(DOMAIN_NOT_RUNNING, "org.blockjob1.Error.DomainNotRunning")                                  \
    X(DOMAIN_UNRESPONSIVE, "org.blockjob1.Error.DomainUnresponsive")                               \
    X(NOT_READY, "org.blockjob1.Error.NotReady")                                                   \
    X(ALREADY_ENDING, "org.blockjob1.Error.AlreadyEnding")                                         \
    X(NOT_SUPPORTED, "org.blockjob1.Error.NotSupported")                                           \
    X(NOT_TWO_PHASE, "org.blockjob1.Error.NotTwoPhase")                                            \
    X(NOT_IN_CHAIN, "org.blockjob1.Error.NotInChain")                                              \
    X(BAD_TARGET, "org.blockjob1.Error.BadTarget")                                                 \
    X(TARGET_EXISTS, "org.blockjob1.Error.TargetExists")                                           \
    X(TARGET_MISSING, "org.blockjob1.Error.TargetMissing")                                         \
    X(TARGET_TOO_SMALL, "org.blockjob1.Error.TargetTooSmall")                                      \
    X(TARGET_IN_USE, "org.blockjob1.Error.TargetInUse")                                            \
    X(SAME_IMAGE, "org.blockjob1.Error.SameImage")                                                 \
    X(NO_SPACE, "org.blockjob1.Error.NoSpace")                                                     \
    X(LIMIT_REACHED, "org.blockjob1.Error.LimitReached")                                           \
    X(JOURNAL, "org.blockjob1.Error.Journal")                                                      \
    X(QEMU, "org.blockjob1.Error.Qemu")                                                            \
    X(INVALID_ARGS, "org.freedesktop.DBus.Error.InvalidArgs")                                      \
    X(ACCESS_DENIED, "org.freedesktop.DBus.Error.AccessDenied")                                    \
    X(INTERACTIVE, "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired")                  \
    X(LIMITS_EXCEEDED, "org.freedesktop.DBus.Error.LimitsExceeded")                                \
    X(TIMEOUT, "org.freedesktop.DBus.Error.Timeout")

typedef enum {
    FAILURE_NONE = 0,
#define X(id, name) FAILURE_##id,
    FAILURE_LIST(X)
#undef X
        _FAILURE_MAX
} FailureKind;

typedef struct {
    FailureKind kind;
    char *message; /* owned; a whole English sentence that says what to do */
} Failure;

/* The D-Bus error name of kind; "" for FAILURE_NONE. */
const char *failure_name(FailureKind kind);
/* The kind of a D-Bus error name; FAILURE_NONE if it is none of ours. */
FailureKind failure_kind_from_name(const char *name);
/* Fills f (freeing what it held) and returns false, so that a check can end in `return failure_set(…)`. */
bool failure_set(Failure *f, FailureKind kind, const char *format, ...) G_GNUC_PRINTF(3, 4);
void failure_clear(Failure *f);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Failure, failure_clear)
