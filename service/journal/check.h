/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Check: reads what a service starts with, and finds what SQLite cannot: flipped bits, pages that went back to what
 * they were, an end that is missing. */

#include <glib.h>

#include "journal/store.h"

/* Reads the live jobs and all domains, sets damaged rows aside, compares numbers and counts with the position and with
 * the note in the lock file. Arrays of JournalJob*, JournalDomain*, owned by the caller. */
int check_rows(Store *s, GPtrArray **ret_jobs, GPtrArray **ret_domains);
