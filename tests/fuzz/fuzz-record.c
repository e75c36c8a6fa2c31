/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A job's document as it is read from the journal: refused, or a job that is written as the same document again. */

#include "fuzz.h"
#include "job/internal.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    fuzz_init();
    return 0;
}

/* The row's own columns, of which the result must fit the document. */
static int restore(const char *kind, const char *result, const char *document, Job **ret) {
    JournalJob row = {.id = 42,
                      .domain = (char *) "web",
                      .disk = (char *) "vda",
                      .kind = (char *) kind,
                      .target = (char *) "/srv/web.qcow2",
                      .result = (char *) result,
                      .error_name = (char *) "",
                      .error_message = (char *) "",
                      .request_id = (char *) "",
                      .document = (char *) document};

    return job_restore(&row, NULL, ret);
}

static void try(const char *kind, const char *result, const char *document) {
    g_autoptr(Job) job = NULL, again = NULL;
    int r = restore(kind, result, document, &job);

    if (r < 0) {
        g_assert_cmpint(r, ==, -EBADMSG);
        g_assert_null(job);
        return;
    }
    g_autofree char *first = job_document(job);
    g_assert_cmpint(restore(kind, result, first, &again), ==, 0);
    g_autofree char *second = job_document(again);
    g_assert_cmpstr(first, ==, second);
    g_assert_true((job->state == JOB_CONCLUDED) == (*result != '\0'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    g_autofree char *document = g_strndup((const char *) data, size);

    for (JobResult result = RESULT_NONE; result < _RESULT_MAX; result++) {
        try("copy", job_result_to_string(result), document);
        try("foreign", job_result_to_string(result), document);
    }
    try("copy", "no such result", document);
    try("no such kind", "", document);
    return 0;
}
