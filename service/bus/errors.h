/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Errors and text on their way out: a Failure becomes a D-Bus error, and what came from QEMU, a
 * file or a user becomes text that the bus accepts. */

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-bus.h>

#include "failure.h"

/* Longest text of a property, a reply's field or an error's message, in bytes. */
#define TEXT_MAX 4096

/* Fills error from f; returns the negative errno that a method handler has to return. */
int bus_fail(sd_bus_error *error, const Failure *f);
/* Answers call with f. Negative errno as sd_bus_send(). */
int bus_reply_failure(sd_bus_message *call, const Failure *f);

/* Whether D-Bus takes s as a string of at most max bytes: UTF-8, and none of Unicode's 66
 * noncharacters: sd-bus refuses those, and one refused string would make the whole of
 * GetManagedObjects() fail. Control characters are allowed. */
bool text_is_fit(const char *s, size_t max);
/* A fit copy of s, without what is not, without control characters, cut to max bytes. Owned by
 * the caller. */
char *text_make_fit(const char *s, size_t max);
/* Appends `key: <variant of s>` to an open a{sv}; s is made fit. */
int message_append_text(sd_bus_message *m, const char *key, const char *s);
