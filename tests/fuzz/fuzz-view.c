/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What QEMU answers to the queries of a look: an object with one member for each command, as data/qmp of the unit
 * tests. Everything that can be asked of the view is asked with the names that are in there. */

#include "domain/view.h"
#include "fuzz.h"

#define NAMES_MAX 40

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    fuzz_init();
    return 0;
}

static void collect(const json_t *list, const char *key, GPtrArray *names) {
    const json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        const char *name = json_string_value(json_object_get(item, key));
        if (name && names->len < NAMES_MAX)
            g_ptr_array_add(names, (char *) name);
    }
}

static void walk(const View *v, const char *name, const char *other, bool backing) {
    g_autoptr(GPtrArray) chain = view_chain(v, name), all = view_subtree(v, name, backing);
    const char *skipped = view_skip_filters(v, name);

    g_assert_cmpuint(chain->len, <=, 201);
    for (unsigned i = 0; i < all->len; i++)
        for (unsigned k = 0; k < i; k++)
            g_assert_cmpstr(all->pdata[i], !=, all->pdata[k]);
    if (skipped && chain->len > 0)
        g_assert_cmpstr(skipped, ==, chain->pdata[0]);
    const char *first = view_first_of(v, name, other, name);
    g_assert_true(!first || first == other || first == name);
    (void) view_child(v, name, "file");
    (void) view_child(v, name, "backing");
    (void) view_is_exported(v, name);
    (void) view_is_shared(v, name);
    (void) view_job_uses(v, other, name);
    const QemuNode *node = view_node(v, name);
    g_assert_true(!node || (g_str_equal(node->name, name) && node->driver && node->file));
}

static void check_jobs(const View *v) {
    for (unsigned i = 0; i < view_jobs(v)->len; i++) {
        const QemuJob *job = view_jobs(v)->pdata[i];
        g_assert_true(view_job(v, job->id) == job);
        g_assert_true((job->phase == QJOB_FAILED) == (job->error != NULL));
        g_assert_true(!job->error || string_is_printable(job->error));
        g_assert_true(*qemu_job_phase_to_string(job->phase));
        g_assert_true(*io_status_to_string(job->io));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *look = json_loadb((const char *) data, size, 0, NULL);
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autoptr(View) v = view_new();

    if (!look)
        return 0;
    view_set_jobs(v, json_object_get(look, "query-jobs"),
                  json_object_get(look, "query-block-jobs"));
    view_set_block(v, json_object_get(look, "query-block"));
    view_set_graph(v, json_object_get(look, "x-debug-query-block-graph"));
    view_set_nodes(v, json_object_get(look, "query-named-block-nodes"));
    view_set_exports(v, json_object_get(look, "query-block-exports"));
    collect(json_object_get(json_object_get(look, "x-debug-query-block-graph"), "nodes"), "name",
            names);
    collect(json_object_get(look, "query-named-block-nodes"), "node-name", names);
    collect(json_object_get(look, "query-jobs"), "id", names);
    for (unsigned i = 0; i < names->len; i++)
        walk(v, names->pdata[i], names->pdata[(i * 7 + 3) % names->len], i % 2);
    for (unsigned i = 0; i < view_devices(v)->len; i++) {
        const QemuDevice *device = view_devices(v)->pdata[i];
        g_assert_true(device->qdev && device->backend && (*device->qdev || *device->backend));
        if (device->root)
            walk(v, device->root, device->qdev, true);
    }
    check_jobs(v);
    (void) view_has_concluded(v, "stream");
    view_clear(v);
    g_assert_cmpuint(view_jobs(v)->len + view_devices(v)->len, ==, 0);
    json_decref(look);
    return 0;
}
