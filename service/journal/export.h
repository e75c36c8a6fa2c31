/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Export: the journal as one readable JSON document, in parts that do not keep the writer thread from its work for
 * long. What is damaged is in it, too, and says so. docs/journal.md describes the document. */

#include <stdint.h>
#include <stdio.h>

#include "journal/store.h"

/* The part of the document that begins behind the job `after`, 0 = from the start; all parts one after the other are the
 * document. ret_text is owned by the caller; *ret_next is where the next part begins, 0 = this was the last. */
int export_part(Store *s, uint64_t after, char **ret_text, uint64_t *ret_next);
/* Writes the document of the journal in dir, which no service may have open; changes nothing there. Synchronous.
 * Negative errno with a sentence, as journal_open(), and -ENOENT when there is no journal. */
int export_closed(const char *dir, FILE *out, Failure *ret_why);
