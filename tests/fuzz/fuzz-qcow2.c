/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The head of a qcow2 image that a caller brings. */

#include "fuzz.h"
#include "image/qcow2.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    fuzz_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    g_auto(Qcow2Header) h = {0};
    g_auto(Failure) f = {0};

    if (!qcow2_parse(data, size, &h, &f)) {
        fuzz_check_failure(&f, FAILURE_BAD_TARGET);
        return 0;
    }
    fuzz_check_success(&f);
    g_assert_true(h.version == 2 || h.version == 3);
    g_assert_true(h.cluster_size >= 512 && h.cluster_size <= 2 * MIB);
    g_assert_cmpuint(h.cluster_size & (h.cluster_size - 1), ==, 0);
    g_assert_true(!h.backing_file || string_is_printable(h.backing_file));
    g_assert_true(!h.backing_format || string_is_printable(h.backing_format));
    return 0;
}
