/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The names of failures and the small functions that fill and clear one. */

#include "failure.h"

static const char *const names[_FAILURE_MAX] = {[FAILURE_NONE] = "",
#define X(id, name) [FAILURE_##id] = name,
                                                FAILURE_LIST(X)
#undef X
};

const char *failure_name(FailureKind kind) {
    return kind < _FAILURE_MAX ? names[kind] : "";
}

FailureKind failure_kind_from_name(const char *name) {
    for (FailureKind k = FAILURE_NONE; k < _FAILURE_MAX; k++)
        if (g_str_equal(names[k], name))
            return k;
    return FAILURE_NONE;
}

bool failure_set(Failure *f, FailureKind kind, const char *format, ...) {
    va_list ap;

    va_start(ap, format);
    char *message = g_strdup_vprintf(format, ap);
    va_end(ap);

    failure_clear(f);
    f->kind = kind;
    f->message = message;
    return false;
}

void failure_clear(Failure *f) {
    f->kind = FAILURE_NONE;
    g_clear_pointer(&f->message, g_free);
}
