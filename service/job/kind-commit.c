/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commit: block-commit of images of the chain into one below them. Of the active layer it is like a mirror into the base, with
 * two phases; further down it ends by itself. Recipes: QEMU's docs/interop/live-block-operations.rst. */

#include "job/internal.h"

static void commit_setup(Job *j) {
    Disk *disk = domain_disk_by_device(j->domain, j->device);
    const char *root = disk && disk->root ? disk->root : j->copy.source_node;

    chain_start(j, "block-commit",
                json_pack("{s:s, s:s, s:s}", "device", root, "top-node", j->chain.top_node,
                          "base-node", j->chain.base_node));
}

static void commit_finalize(Job *j, QmpBatch *b) {
    if (j->intent == INTENT_PIVOT)
        add_old_nodes(j, b);
}

static bool commit_may_decide(const Job *j, Failure *f) {
    if (j->chain.one_phase || j->copy.target_block || !j->copy.target_known ||
        image_is_intact(j->target, &j->copy.target_id, f))
        return true;
    g_autofree char *why = g_steal_pointer(&f->message);
    return failure_set(f, FAILURE_BAD_TARGET,
                       "%s The guest stays on its active layer; cancel this job.", why);
}

static void commit_doomed(Job *j, GPtrArray *images) {
    bool begun = j->state != JOB_QUEUED && j->state != JOB_PREPARING;

    if (begun && !job_is_switched(j) && j->result != RESULT_FINISHED)
        job_warn(
            j,
            "The base \"%s\" was written to by the unfinished commit: the disk itself reads as "
            "before, but any other image that has it as backing file is wrong now.",
            j->target);
    chain_doomed(j, images);
}

static void commit_lost(Job *j) {
    job_set_error(
        j, FAILURE_DOMAIN_NOT_RUNNING,
        j->decided && !j->chain.one_phase
            ? "QEMU went away in the middle of the switch and was started on \"%s\" "
              "again, which is therefore right."
            : "QEMU went away and the job with it; the chain of \"%s\" is right as it was, "
              "commit again.",
        j->copy.source_path);
}

const JobKind kind_commit = {
    .name = "commit",
    .done = RESULT_COMMITTED,
    .unchanged = "the disk's chain is as it was",
    .of_chain = true,
    .setup = commit_setup,
    .root = chain_root,
    .finalize = commit_finalize,
    .images_after = chain_images_after,
    .doomed = commit_doomed,
    .lost = commit_lost,
    .clean = chain_clean,
    .may_decide = commit_may_decide,
};
