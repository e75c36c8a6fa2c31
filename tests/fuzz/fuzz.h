/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the fuzz targets share. A target calls the product's own loader with whatever libFuzzer gives it, and checks what
 * must hold of every input; abort() is a finding. Each input is one file of seeds/NAME. */

#include <glib.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "failure.h"
#include "log.h"
#include "util.h"

/* Called by libFuzzer. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A critical of GLib's is a mistake of ours. The log's words are made, and go nowhere. */
static inline void fuzz_init(void) {
    g_log_set_always_fatal(G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_WARNING | G_LOG_LEVEL_ERROR);
    log_set_max_level(-1);
}

/* Every refusal is a whole sentence that can be printed. */
static inline void fuzz_check_failure(const Failure *f, FailureKind kind) {
    g_assert_cmpint(f->kind, ==, kind);
    g_assert_nonnull(f->message);
    g_assert_true(string_is_printable(f->message));
    g_assert_true(g_str_has_suffix(f->message, "."));
}

static inline void fuzz_check_success(const Failure *f) {
    g_assert_cmpint(f->kind, ==, FAILURE_NONE);
    g_assert_null(f->message);
}
