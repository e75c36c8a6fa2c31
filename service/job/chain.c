/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What commit and pull share: both make images of the disk's own chain superfluous. Where they are at is read from the
 * block graph or, when QEMU is gone, from the header of the image whose backing file changes; then definition, nodes and
 * files follow. */

#include <fcntl.h>
#include <string.h>

#include "image/qcow2.h"
#include "job/internal.h"

void chain_clear(Chain *c) {
    g_free(c->top_node);
    g_free(c->base_node);
    g_free(c->layer_node);
    g_free(c->layer_path);
    g_free(c->gone_node);
    g_free(c->backing_file);
    g_strfreev(c->after);
    g_strfreev(c->superfluous);
}

/* ── which images are in the chain ── */

char *chain_resolve(const char *image, const char *backing) {
    if (backing[0] == '/')
        return g_strdup(backing);
    g_autofree char *folder = g_path_get_dirname(image);
    return g_build_filename(folder, backing, NULL);
}

StepRoot chain_root_by_header(const Job *j) {
    const Chain *c = &j->chain;
    autofd int fd = open(c->layer_path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    g_auto(Qcow2Header) header = {0};
    g_auto(Failure) f = {0};
    ImageId id;

    if (fd < 0 || !qcow2_read(fd, &header, &f))
        return ROOT_OTHER;
    if (!header.backing_file)
        return c->base_node ? ROOT_OTHER : ROOT_TARGET;
    g_autofree char *path = chain_resolve(c->layer_path, header.backing_file);
    if (image_stat(path, &id, NULL, NULL, NULL) == 0) {
        if (image_id_equal(&id, &c->gone_id))
            return ROOT_SOURCE;
        if (c->base_node && image_id_equal(&id, &c->base_id))
            return ROOT_TARGET;
    }
    /* No file of this host: what was to be written is all there is to compare with. */
    return g_strcmp0(header.backing_file, c->backing_file) == 0 ? ROOT_TARGET : ROOT_OTHER;
}

static bool is_under(const View *v, const char *root, const char *node) {
    g_autoptr(GPtrArray) nodes = view_subtree(v, root, true);

    return g_ptr_array_find_with_equal_func(nodes, node, g_str_equal, NULL);
}

StepRoot chain_root(const Job *j) {
    const Chain *c = &j->chain;
    const View *v = domain_view(j->domain);
    const QemuDevice *device = view_device(v, j->device);
    const char *root = device ? device->root : NULL;

    if (!c->one_phase) {
        const char *first = root ? view_first_of(v, root, c->top_node, c->base_node) : NULL;
        return !first ? ROOT_OTHER : g_str_equal(first, c->base_node) ? ROOT_TARGET : ROOT_SOURCE;
    }
    if (root && is_under(v, root, c->gone_node))
        return ROOT_SOURCE;
    if (root && is_under(v, root, c->layer_node))
        return ROOT_TARGET;
    return chain_root_by_header(j); /* unplugged */
}

/* ── setup ── */

static void on_started(const QmpBatchResult *result, void *userdata) {
    Job *j = userdata;

    if (!setup_answered(j, result))
        return;
    j->stage = SETUP_IDLE;
    j->fresh_setup = false;
    job_action_done(j);
}

void chain_start(Job *j, const char *command, json_t *arguments) {
    const Chain *c = &j->chain;
    QmpClient *qmp = domain_qmp(j->domain);
    g_autofree char *filter = job_node_name(j, 'm');
    json_t *ours = json_pack("{s:s, s:s, s:b, s:b, s:s}", "job-id", j->qemu_id, "filter-node-name",
                             filter, "auto-finalize", false, "auto-dismiss", false, "on-error",
                             j->copy.on_source_error);

    json_object_update(arguments, ours);
    json_decref(ours);
    if (c->backing_file)
        json_object_set_new(arguments, "backing-file", json_string(c->backing_file));
    if (j->speed)
        json_object_set_new(arguments, "speed", json_integer((json_int_t) j->speed));
    if (!setup_batch(j)) {
        json_decref(arguments);
        return;
    }
    j->stage = SETUP_STARTING;
    qmp_batch_add(j->batch, false, command, arguments, -1);
    qmp_cork(qmp);
    setup_send(j, on_started);
    if (j->stage == SETUP_STARTING)
        job_look_again(j, LOOK_LIST);
    qmp_uncork(qmp);
}

/* ── finishing work ── */

void chain_images_after(const Job *j, GPtrArray *images) {
    for (char **s = j->chain.after; *s; s += 3)
        job_image_add(images, s[0], s[1][0] ? s[1] : NULL, g_str_equal(s[2], "block"), NULL);
}

void chain_doomed(Job *j, GPtrArray *images) {
    if (!job_is_switched(j) || !j->chain.delete_images)
        return;
    for (char **s = j->chain.superfluous; *s; s += 3) {
        ImageId id = {g_ascii_strtoull(s[1], NULL, 10), g_ascii_strtoull(s[2], NULL, 10)};
        job_image_add(images, s[0], NULL, false, &id);
    }
}

void chain_clean(Job *j) {
    bool switched = job_is_switched(j);

    if (!job_qemu_is_there(j)) {
        files_clean(j);
        return;
    }
    if (switched)
        forget_old_nodes(j);
    if (j->chain.one_phase || (switched && !j->finalized)) {
        QmpBatch *b = qmp_batch_new(domain_qmp(j->domain), domain_qmp_timeout(j->domain));
        if (j->chain.one_phase) /* its nodes are in use until then; the result is in the record */
            qmp_batch_add(b, true, "job-dismiss", json_pack("{s:s}", "id", j->qemu_id), -1);
        if (switched)
            add_old_nodes(j, b);
        nodes_clean(j, b);
        return;
    }
    job_look_again(j, LOOK_DISKS | LOOK_NODES);
    files_clean(j);
}
