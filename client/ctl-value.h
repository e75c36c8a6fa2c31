/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* D-Bus values as JSON: everything that is read from the bus becomes one json_t, which the tables,
 * the progress display and --json all use. Dictionaries become objects (keys must be strings),
 * structures become arrays. */

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(json_t, json_decref)

/* Reads the next complete value of m. Negative errno if there is none or it cannot be read; *ret is
 * owned by the caller. Descriptors become null. */
int value_read(sd_bus_message *m, json_t **ret);

/* Members of an object; "", 0, false when missing or of another type. */
const char *value_string(const json_t *object, const char *key);
uint64_t value_u64(const json_t *object, const char *key);
bool value_bool(const json_t *object, const char *key);
