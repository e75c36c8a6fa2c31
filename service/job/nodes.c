/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What all kinds do with nodes in QEMU: their names, the batches that set a job up, and the removal of what stood under
 * the guest's disk before. */

#include <string.h>

#include "job/internal.h"

/* Sets of descriptors are numbered by the caller, and /dev/fdset/N is parsed as an int; a range of our own keeps out of the
 * way of others, and wraps after 2^28 jobs. */
#define FDSET_BASE INT64_C(0x62000000)
#define FDSET_MASK INT64_C(0x0fffffff)

json_int_t fdset_of(uint64_t id) {
    return (json_int_t) (FDSET_BASE + ((int64_t) id & FDSET_MASK));
}

char *job_node_name(const Job *j, char part) {
    return g_strdup_printf("%s-%c", j->tag, part);
}

json_t *node_arg(const char *node) {
    return json_pack("{s:s}", "node-name", node);
}

/* ── setup ── */

void setup_failed(Job *j, FailureKind kind, const char *message) {
    j->stage = SETUP_IDLE;
    j->result = RESULT_FAILED;
    job_set_error(j, kind, "%s", message);
    job_record_result(j);
    job_look_again(j, LOOK_ALL);
    job_action_done(j);
}

bool setup_answered(Job *j, const QmpBatchResult *result) {
    j->batch = NULL;
    if (result->error == 0 && j->state == JOB_PREPARING)
        return true;
    if (result->error == -EREMOTEIO) {
        g_autofree char *message =
            g_strdup_printf("The %s could not be started (%s); nothing was changed. QEMU says: %s",
                            j->kind->name, result->command, result->text);
        setup_failed(j, FAILURE_QEMU, message);
        return false;
    }
    setup_left(j, LOOK_ALL); /* cancelled meanwhile, or no answer: the look tells how far it came */
    return false;
}

void setup_left(Job *j, unsigned scope) {
    j->stage = SETUP_IDLE;
    job_look_again(j, scope);
    job_action_done(j);
}

void setup_send(Job *j, QmpBatchDone done) {
    if (qmp_batch_send(j->batch, j->event, done, j) < 0) {
        j->batch = NULL;
        setup_left(j, LOOK_ALL);
    }
}

bool setup_batch(Job *j) {
    QmpClient *qmp = domain_qmp(j->domain);

    if (!qmp) {
        setup_left(j, LOOK_ALL);
        return false;
    }
    j->batch = qmp_batch_new(qmp, domain_qmp_timeout(j->domain));
    return true;
}

/* ── removal ── */

void add_fdset_removal(Job *j, QmpBatch *b, uint64_t id) {
    qmp_batch_add(b, true, "remove-fd", json_pack("{s:I}", "fdset-id", fdset_of(id)), -1);
    domain_remove_fdset(j->domain, fdset_of(id));
}

/* The protocol node of an earlier job of ours goes with its image, its set of descriptors goes behind it. */
static bool is_inside_image(const char *node) {
    return g_str_has_prefix(node, "bj-") && g_str_has_suffix(node, "-f");
}

void add_old_images(Job *j, QmpBatch *b) {
    for (char **node = j->copy.old_nodes; node && *node; node++)
        if (!is_inside_image(*node))
            qmp_batch_add(b, true, "blockdev-del", node_arg(*node), -1);
}

void add_old_fdsets(Job *j, QmpBatch *b) {
    for (char **node = j->copy.old_nodes; node && *node; node++)
        if (is_inside_image(*node))
            add_fdset_removal(j, b, g_ascii_strtoull(*node + strlen("bj-01234567-"), NULL, 10));
}

void add_old_nodes(Job *j, QmpBatch *b) {
    add_old_images(j, b);
    add_old_fdsets(j, b);
}

void forget_old_nodes(Job *j) {
    for (char **node = j->copy.old_nodes; node && *node; node++)
        domain_name_node(j->domain, *node, NULL, NULL, false);
}

bool job_qemu_is_there(const Job *j) {
    return j->domain && domain_qmp(j->domain) &&
           instance_equal(domain_instance(j->domain), &j->instance);
}

static void on_nodes_removed(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    j->batch = NULL;
    if (result->error != 0) {
        /* no answer: done again when there is one, or without QEMU when it is gone */
        job_look_again(j, LOOK_ALL);
        job_action_done(j);
        return;
    }
    files_clean(j);
}

void nodes_clean(Job *j, QmpBatch *b) {
    j->batch = b;
    if (qmp_batch_send(j->batch, j->event, on_nodes_removed, j) < 0) {
        j->batch = NULL;
        job_look_again(j, LOOK_ALL);
        job_action_done(j);
        return;
    }
    if (j->kind->of_chain) /* the end is told when the chain can be read */
        job_look_again(j, LOOK_DISKS | LOOK_NODES);
    else
        domain_look(j->domain, LOOK_DISKS | (j->copy.under_filter ? LOOK_NODES : 0));
}
