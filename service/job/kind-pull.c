/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pull: block-stream of what lies under an image into it, whole or down to a base. It ends by itself. Recipes: QEMU's
 * docs/interop/live-block-operations.rst. */

#include "job/internal.h"

static void pull_setup(Job *j) {
    json_t *arguments = json_pack("{s:s}", "device", j->chain.top_node);

    if (j->chain.base_node)
        json_object_set_new(arguments, "base-node", json_string(j->chain.base_node));
    chain_start(j, "block-stream", arguments);
}

static void pull_lost(Job *j) {
    job_set_error(j, FAILURE_DOMAIN_NOT_RUNNING,
                  "QEMU went away and the job with it; the chain of \"%s\" is right as it was, and "
                  "what was pulled is kept: pull again.",
                  j->copy.source_path);
}

const JobKind kind_pull = {
    .name = "pull",
    .done = RESULT_PULLED,
    .unchanged = "the disk's chain is as it was",
    .of_chain = true,
    .setup = pull_setup,
    .root = chain_root,
    .images_after = chain_images_after,
    .doomed = chain_doomed,
    .lost = pull_lost,
    .clean = chain_clean,
};
