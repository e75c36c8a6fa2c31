/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* View: what QEMU said at the last look, kept small: one View lives as long as its domain. The
 * graph keeps nodes of block drivers and of block jobs (as "job:ID", which no node can be called),
 * with the edges of each in one run; names live in one string chunk. */

#include "domain/view.h"

#include <assert.h>
#include <string.h>

#include "util.h"

/* Far above what QEMU ever has; an answer with more is cut, so that a lying peer costs little memory
 * and, each walk being bounded, little time. */
#define JOBS_MAX 512u
#define DEVICES_MAX 1024u
#define NODES_MAX 16384u
#define EDGES_MAX 65536u
#define NODE_EDGES_MAX 256u
#define FILTERS_MAX 64u          /* in a row */
#define CHAIN_MAX 201u           /* one more than a copy takes, so that it can say so */
#define NAME_SIZE_MAX 1024u      /* ids, node names, QOM paths */
#define FILE_SIZE_MAX (4 * 4096) /* file names: QEMU cuts its own at 4096 bytes */
#define ERROR_SIZE_MAX 1024u

typedef struct {
    const char *name;     /* NULL: without a name, or it is another node's */
    uint32_t edge, edges; /* first one, number */
} GraphNode;

typedef struct {
    uint32_t parent, child;
    const char *name;
} GraphEdge;

typedef struct {
    GStringChunk *strings;
    GraphNode *nodes;
    GraphEdge *edges; /* those of one parent together, in QEMU's order */
    uint32_t n_nodes;
    GHashTable *index; /* name → index + 1 */
} Graph;

struct View {
    GPtrArray *jobs, *devices;
    GHashTable *roots;   /* name → QemuNode; of query-block, as fresh as the devices */
    GHashTable *nodes;   /* the same of query-named-block-nodes, perhaps older */
    GHashTable *exports; /* names of nodes */
    GHashTable *shared;  /* names of nodes under devices that let others write */
    Graph graph;
};

static const char *const phase_table[] = {
    [QJOB_ABSENT] = "absent",   [QJOB_RUNNING] = "running", [QJOB_READY] = "ready",
    [QJOB_PENDING] = "pending", [QJOB_ENDING] = "ending",   [QJOB_CONCLUDED] = "concluded",
    [QJOB_FAILED] = "failed",
};
static_assert(G_N_ELEMENTS(phase_table) == _QJOB_MAX, "one name for each phase");

const char *qemu_job_phase_to_string(QemuJobPhase phase) {
    return (unsigned) phase < _QJOB_MAX ? phase_table[phase] : "";
}

static const char *const io_table[] = {
    [IO_OK] = "ok",
    [IO_NO_SPACE] = "no-space",
    [IO_FAILED] = "failed",
};
static_assert(G_N_ELEMENTS(io_table) == _IO_MAX, "one name for each I/O status");

const char *io_status_to_string(IoStatus s) {
    return (unsigned) s < _IO_MAX ? io_table[s] : "";
}

/* The string member key of o. NULL if it is missing, no string, or longer than max: a cut name
 * would be the name of something else. */
static const char *member_text(const json_t *o, const char *key, size_t max) {
    const json_t *value = json_object_get(o, key);
    return json_is_string(value) && json_string_length(value) <= max ? json_string_value(value)
                                                                     : NULL;
}

/* The same for a name: an empty one is none. */
static const char *member_name(const json_t *o, const char *key) {
    const char *text = member_text(o, key, NAME_SIZE_MAX);
    return text && *text ? text : NULL;
}

static uint64_t member_count(const json_t *o, const char *key) {
    json_int_t value = json_integer_value(json_object_get(o, key));
    return value > 0 ? (uint64_t) value : 0;
}

static bool member_is_true(const json_t *o, const char *key) {
    return json_is_true(json_object_get(o, key));
}

static void job_destroy(void *data) {
    QemuJob *job = data;
    g_free(job->id);
    g_free(job->type);
    g_free(job->error);
    g_free(job->device);
    g_free(job);
}

static void device_destroy(void *data) {
    QemuDevice *device = data;
    g_free(device->qdev);
    g_free(device->backend);
    g_free(device->root);
    g_free(device);
}

static void node_destroy(void *data) {
    QemuNode *node = data;
    g_free(node->name);
    g_free(node->driver);
    g_free(node->file);
    g_free(node->backing_file);
    g_free(node->bitmap);
    g_free(node);
}

static void graph_clear(Graph *g) {
    if (g->strings)
        g_string_chunk_free(g->strings);
    g_clear_pointer(&g->index, g_hash_table_destroy);
    g_free(g->nodes);
    g_free(g->edges);
    *g = (Graph){0};
}

View *view_new(void) {
    View *v = g_new0(View, 1);
    v->jobs = g_ptr_array_new_with_free_func(job_destroy);
    v->devices = g_ptr_array_new_with_free_func(device_destroy);
    v->roots = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, node_destroy);
    v->nodes = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, node_destroy);
    v->exports = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    v->shared = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    return v;
}

View *view_free(View *v) {
    if (!v)
        return NULL;
    g_ptr_array_unref(v->jobs);
    g_ptr_array_unref(v->devices);
    g_hash_table_destroy(v->roots);
    g_hash_table_destroy(v->nodes);
    g_hash_table_destroy(v->exports);
    g_hash_table_destroy(v->shared);
    graph_clear(&v->graph);
    g_free(v);
    return NULL;
}

void view_clear(View *v) {
    g_ptr_array_set_size(v->jobs, 0);
    g_ptr_array_set_size(v->devices, 0);
    g_hash_table_remove_all(v->roots);
    g_hash_table_remove_all(v->nodes);
    g_hash_table_remove_all(v->exports);
    g_hash_table_remove_all(v->shared);
    graph_clear(&v->graph);
}

/* JobStatus of qapi/job.json. ready: -1 unknown. "paused", "standby" and "ready" come and go with
 * every drain, while the member "ready" of query-block-jobs stays; so that one decides where it is
 * known. What we do not know is as good as "look again". */
static QemuJobPhase phase_from_status(const char *status, int ready, bool has_error) {
    static const char *const working[] = {"created", "running", "paused"};
    static const char *const synced[] = {"ready", "standby"};
    static const char *const over[] = {"concluded", "null"};

    if (string_index(working, G_N_ELEMENTS(working), status) >= 0)
        return ready > 0 ? QJOB_READY : QJOB_RUNNING;
    if (string_index(synced, G_N_ELEMENTS(synced), status) >= 0)
        return ready != 0 ? QJOB_READY : QJOB_RUNNING;
    if (strcmp(status, "pending") == 0)
        return QJOB_PENDING;
    if (string_index(over, G_N_ELEMENTS(over), status) >= 0)
        return has_error ? QJOB_FAILED : QJOB_CONCLUDED;
    return QJOB_ENDING;
}

static IoStatus io_from_text(const char *text) {
    if (g_strcmp0(text, "nospace") == 0)
        return IO_NO_SPACE;
    return g_strcmp0(text, "failed") == 0 ? IO_FAILED : IO_OK;
}

/* The member "error", which is there only when the job failed: also an odd one must not make it a
 * success. */
static const json_t *job_error_of(const json_t *entry) {
    const json_t *error = json_object_get(entry, "error");
    return json_is_null(error) ? NULL : error;
}

/* entry: of query-jobs; block: of query-block-jobs, or NULL. */
static QemuJob *job_from_json(const char *id, const json_t *entry, const json_t *block) {
    /* query-block-jobs is asked last and has status, ready and error of one instant. */
    const char *status = member_name(block, "status") ?: member_name(entry, "status") ?: "";
    const json_t *error = job_error_of(block) ?: job_error_of(entry);
    const json_t *ready = json_object_get(block, "ready");
    const json_t *synced = json_object_get(block, "actively-synced");
    QemuJob *job = g_new0(QemuJob, 1);

    job->id = g_strdup(id);
    job->type = g_strdup(member_name(entry, "type") ?: "");
    job->phase =
        phase_from_status(status, json_is_boolean(ready) ? json_is_true(ready) : -1, error != NULL);
    if (job->phase == QJOB_FAILED)
        job->error = json_is_string(error)
                         ? string_sanitize(json_string_value(error), ERROR_SIZE_MAX)
                         : g_strdup("QEMU gave no reason");
    job->done = member_count(entry, "current-progress");
    job->total = member_count(entry, "total-progress");
    job->actively_synced = json_is_boolean(synced) ? json_is_true(synced) : -1;
    if (!block)
        return job;

    job->block = true;
    if (json_is_integer(json_object_get(block, "offset")) &&
        json_is_integer(json_object_get(block, "len"))) {
        job->done = member_count(block, "offset");
        job->total = member_count(block, "len");
    }
    job->speed = member_count(block, "speed");
    job->paused = member_is_true(block, "paused");
    job->io = io_from_text(member_name(block, "io-status"));
    job->device = g_strdup(id);
    return job;
}

/* The entry of query-block-jobs that is the job id: its "device" is the job's id, whatever the name
 * says. */
static const json_t *block_job_find(const json_t *query_block_jobs, const char *id) {
    size_t n = MIN(json_array_size(query_block_jobs), JOBS_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(query_block_jobs, i);
        if (g_strcmp0(member_name(entry, "device"), id) == 0)
            return entry;
    }
    return NULL;
}

void view_set_jobs(View *v, const json_t *query_jobs, const json_t *query_block_jobs) {
    size_t n = MIN(json_array_size(query_jobs), JOBS_MAX);

    g_ptr_array_set_size(v->jobs, 0);
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(query_jobs, i);
        const char *id = member_name(entry, "id");
        if (id && !view_job(v, id))
            g_ptr_array_add(v->jobs,
                            job_from_json(id, entry, block_job_find(query_block_jobs, id)));
    }
}

/* The first bitmap with a name, and that nobody uses for the time of a job only. */
static char *bitmap_of(const json_t *info) {
    const json_t *item;
    size_t i;

    json_array_foreach (json_object_get(info, "dirty-bitmaps"), i, item)
        if (member_name(item, "name"))
            return string_sanitize(member_name(item, "name"), NAME_SIZE_MAX);
    return NULL;
}

/* info: BlockDeviceInfo of qapi/block-core.json. Its "backing_file" is the name of the node that is
 * attached now; the image's header is in "image". */
static void nodes_add(GHashTable *nodes, const json_t *info) {
    const char *name = member_name(info, "node-name");
    if (!name || g_hash_table_size(nodes) >= NODES_MAX || g_hash_table_contains(nodes, name))
        return;

    const json_t *image = json_object_get(info, "image");
    const char *backing = member_text(image, "backing-filename", FILE_SIZE_MAX);
    QemuNode *node = g_new0(QemuNode, 1);
    node->name = g_strdup(name);
    node->driver = g_strdup(member_name(info, "drv") ?: "");
    node->file = g_strdup(member_text(info, "file", FILE_SIZE_MAX) ?: "");
    node->backing_file = backing && *backing ? g_strdup(backing) : NULL;
    node->bitmap = bitmap_of(info);
    node->size = member_count(image, "virtual-size");
    node->allocated = member_count(image, "actual-size");
    node->read_only = member_is_true(info, "ro");
    g_hash_table_insert(nodes, node->name, node);
}

void view_set_block(View *v, const json_t *query_block) {
    size_t n = MIN(json_array_size(query_block), DEVICES_MAX);

    g_ptr_array_set_size(v->devices, 0);
    g_hash_table_remove_all(v->roots);
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(query_block, i);
        const json_t *inserted = json_object_get(entry, "inserted");
        const char *qdev = member_name(entry, "qdev");
        const char *backend = member_name(entry, "device");
        if ((!qdev && !backend) || (qdev && view_device(v, qdev)))
            continue;

        QemuDevice *device = g_new0(QemuDevice, 1);
        device->qdev = g_strdup(qdev ?: "");
        device->backend = g_strdup(backend ?: "");
        device->root = g_strdup(member_name(inserted, "node-name"));
        device->removable = member_is_true(entry, "removable");
        device->read_only = member_is_true(inserted, "ro");
        g_ptr_array_add(v->devices, device);
        nodes_add(v->roots, inserted);
    }
}

void view_set_nodes(View *v, const json_t *query_named_block_nodes) {
    size_t n = MIN(json_array_size(query_named_block_nodes), NODES_MAX);

    g_hash_table_remove_all(v->nodes);
    for (size_t i = 0; i < n; i++)
        nodes_add(v->nodes, json_array_get(query_named_block_nodes, i));
}

/* Fills in the nodes. ids: storage for the keys of by_id; by_id: QEMU's id → index + 1. */
static void graph_read_nodes(Graph *g, const json_t *nodes, gint64 *ids, GHashTable *by_id) {
    size_t n = MIN(json_array_size(nodes), NODES_MAX);

    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(nodes, i);
        const json_t *id = json_object_get(entry, "id");
        const char *type = member_name(entry, "type");
        bool job = g_strcmp0(type, "block-job") == 0;
        const char *plain = member_name(entry, "name");
        g_autofree char *job_name = job && plain ? g_strconcat("job:", plain, NULL) : NULL;
        const char *name = job ? job_name : plain;
        if (!json_is_integer(id) || (!job && g_strcmp0(type, "block-driver") != 0))
            continue;
        ids[g->n_nodes] = json_integer_value(id);
        if (g_hash_table_contains(by_id, &ids[g->n_nodes]))
            continue;

        GraphNode *node = &g->nodes[g->n_nodes];
        void *number = GUINT_TO_POINTER(g->n_nodes + 1);
        g_hash_table_insert(by_id, &ids[g->n_nodes], number);
        if (name && !g_hash_table_contains(g->index, name)) {
            node->name = g_string_chunk_insert(g->strings, name);
            g_hash_table_insert(g->index, (char *) node->name, number);
        }
        g->n_nodes++;
    }
}

/* Index + 1 of the node whose id is the member key; 0 if it is none of ours. */
static uint32_t edge_end(const json_t *entry, const char *key, GHashTable *by_id) {
    const json_t *value = json_object_get(entry, key);
    gint64 id = json_integer_value(value);
    return json_is_integer(value) ? GPOINTER_TO_UINT(g_hash_table_lookup(by_id, &id)) : 0;
}

/* The edges between our nodes, in QEMU's order; counts those of each parent. */
static GArray *graph_read_edges(Graph *g, const json_t *edges, GHashTable *by_id) {
    size_t n = MIN(json_array_size(edges), EDGES_MAX);
    GArray *found = g_array_new(false, false, sizeof(GraphEdge));

    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(edges, i);
        uint32_t parent = edge_end(entry, "parent", by_id);
        uint32_t child = edge_end(entry, "child", by_id);
        const char *name = member_name(entry, "name");
        if (parent == 0 || child == 0 || !name || g->nodes[parent - 1].edges >= NODE_EDGES_MAX)
            continue;
        GraphEdge edge = {
            .parent = parent - 1,
            .child = child - 1,
            .name = g_string_chunk_insert_const(g->strings, name),
        };
        g_array_append_val(found, edge);
        g->nodes[edge.parent].edges++;
    }
    return found;
}

/* x-debug-query-block-graph: XDbgBlockGraph of qapi/block-core.json. */
void view_set_exports(View *v, const json_t *query_block_exports) {
    size_t n = MIN(json_array_size(query_block_exports), DEVICES_MAX);

    g_hash_table_remove_all(v->exports);
    for (size_t i = 0; i < n; i++) {
        const char *node = member_name(json_array_get(query_block_exports, i), "node-name");
        if (node)
            g_hash_table_add(v->exports, g_strdup(node));
    }
}

/* Which entry of nodes has that id? Their number is small and this is asked for a few of them. */
static const json_t *graph_entry(const json_t *nodes, const json_t *id) {
    size_t n = MIN(json_array_size(nodes), NODES_MAX);

    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(nodes, i);
        if (json_is_integer(id) && json_equal(json_object_get(entry, "id"), id))
            return entry;
    }
    return NULL;
}

static bool lets_others_write(const json_t *edge) {
    const json_t *shared = json_object_get(edge, "shared-perm"), *item;
    size_t i;

    json_array_foreach (shared, i, item)
        if (g_strcmp0(json_string_value(item), "write") == 0)
            return true;
    return false;
}

/* Edges from a device (a backend with a name; exports have none) to its root. */
static void view_read_shared(View *v, const json_t *nodes, const json_t *edges) {
    size_t n = MIN(json_array_size(edges), EDGES_MAX);

    g_hash_table_remove_all(v->shared);
    for (size_t i = 0; i < n; i++) {
        const json_t *edge = json_array_get(edges, i);
        if (g_strcmp0(member_name(edge, "name"), "root") != 0 || !lets_others_write(edge))
            continue;
        const json_t *parent = graph_entry(nodes, json_object_get(edge, "parent"));
        const char *backend = member_name(parent, "name");
        const char *root = member_name(graph_entry(nodes, json_object_get(edge, "child")), "name");
        if (backend && backend[0] && root)
            g_hash_table_add(v->shared, g_strdup(root));
    }
}

void view_set_graph(View *v, const json_t *x_debug_query_block_graph) {
    Graph *g = &v->graph;
    const json_t *nodes = json_object_get(x_debug_query_block_graph, "nodes");
    const json_t *edges = json_object_get(x_debug_query_block_graph, "edges");
    size_t n = MIN(json_array_size(nodes), NODES_MAX);

    graph_clear(g);
    view_read_shared(v, nodes, edges);
    if (n == 0)
        return;
    g_autofree gint64 *ids = g_new(gint64, n);
    g_autoptr(GHashTable) by_id = g_hash_table_new(g_int64_hash, g_int64_equal);
    g->strings = g_string_chunk_new(256);
    g->index = g_hash_table_new(g_str_hash, g_str_equal);
    g->nodes = g_new0(GraphNode, n);
    graph_read_nodes(g, nodes, ids, by_id);
    g->nodes = g_renew(GraphNode, g->nodes, g->n_nodes);

    g_autoptr(GArray) found = graph_read_edges(g, edges, by_id);
    uint32_t next = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        g->nodes[i].edge = next;
        next += g->nodes[i].edges;
        g->nodes[i].edges = 0; /* counted again while they are put in place */
    }
    g->edges = g_new(GraphEdge, found->len);
    for (uint32_t i = 0; i < found->len; i++) {
        const GraphEdge *edge = &g_array_index(found, GraphEdge, i);
        GraphNode *parent = &g->nodes[edge->parent];
        g->edges[parent->edge + parent->edges++] = *edge;
    }
}

const QemuJob *view_job(const View *v, const char *id) {
    for (unsigned i = 0; id && i < v->jobs->len; i++) {
        const QemuJob *job = g_ptr_array_index(v->jobs, i);
        if (strcmp(job->id, id) == 0)
            return job;
    }
    return NULL;
}

GPtrArray *view_jobs(const View *v) {
    return v->jobs;
}

GPtrArray *view_devices(const View *v) {
    return v->devices;
}

const QemuDevice *view_device(const View *v, const char *qdev) {
    if (!qdev || !*qdev)
        return NULL;
    for (unsigned i = 0; i < v->devices->len; i++) {
        const QemuDevice *device = g_ptr_array_index(v->devices, i);
        if (strcmp(device->qdev, qdev) == 0)
            return device;
    }
    return NULL;
}

const QemuNode *view_node(const View *v, const char *name) {
    if (!name)
        return NULL;
    return g_hash_table_lookup(v->roots, name) ?: g_hash_table_lookup(v->nodes, name);
}

bool view_knows_nodes(const View *v) {
    return g_hash_table_size(v->nodes) > 0;
}

bool view_has_concluded(const View *v, const char *type) {
    for (unsigned i = 0; i < v->jobs->len; i++) {
        const QemuJob *job = g_ptr_array_index(v->jobs, i);
        if ((job->phase == QJOB_CONCLUDED || job->phase == QJOB_FAILED) &&
            g_strcmp0(job->type, type) == 0)
            return true;
    }
    return false;
}

/* The node of that name in the graph. */
static const GraphNode *graph_node(const Graph *g, const char *name) {
    if (!name || !g->index)
        return NULL;
    unsigned number = GPOINTER_TO_UINT(g_hash_table_lookup(g->index, name));
    return number > 0 ? &g->nodes[number - 1] : NULL;
}

static const GraphNode *graph_child(const Graph *g, const GraphNode *node, const char *edge) {
    for (uint32_t i = 0; i < node->edges; i++)
        if (strcmp(g->edges[node->edge + i].name, edge) == 0)
            return &g->nodes[g->edges[node->edge + i].child];
    return NULL;
}

/* Drivers with is_filter in QEMU's block/. */
static bool driver_is_filter(const char *driver) {
    static const char *const filters[] = {
        "backup-top",  "blkdebug",    "blklogwrites",      "blkreplay",    "blkverify",
        "commit_top",  "compress",    "copy-before-write", "copy-on-read", "mirror_top",
        "preallocate", "replication", "throttle",
    };
    return string_index(filters, G_N_ELEMENTS(filters), driver) >= 0;
}

/* A filter that came after the last look at the drivers shows itself by having no file of its own:
 * only the filters of jobs (mirror_top, commit_top) hang over an image by "backing" alone. Anything
 * else unknown counts as an image. */
static bool node_is_filter(const View *v, const GraphNode *node) {
    const QemuNode *known = view_node(v, node->name);
    if (known && *known->driver)
        return driver_is_filter(known->driver);
    if (node->name && g_str_has_prefix(node->name, "bj-") && g_str_has_suffix(node->name, "-m"))
        return true; /* ours; that of a stream hangs by "file" */
    return graph_child(&v->graph, node, "backing") && !graph_child(&v->graph, node, "file");
}

/* What a filter shows to those above it: one edge, whose name is the driver's own choice. blkdebug
 * and blkreplay have "image", blkverify "raw", the filters of jobs "backing". */
static const GraphNode *node_filtered(const View *v, const GraphNode *node) {
    static const char *const edges[] = {"file", "backing", "image", "raw"};
    const GraphNode *child = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(edges) && !child; i++)
        child = graph_child(&v->graph, node, edges[i]);
    return child;
}

const char *view_child(const View *v, const char *node, const char *edge) {
    const GraphNode *parent = graph_node(&v->graph, node);
    const GraphNode *child = parent && edge ? graph_child(&v->graph, parent, edge) : NULL;
    return child ? child->name : NULL;
}

static bool subtree_has(const View *v, const char *top, const char *node) {
    g_autoptr(GPtrArray) nodes = view_subtree(v, top, true);

    for (guint i = 0; i < nodes->len; i++)
        if (g_str_equal(nodes->pdata[i], node))
            return true;
    return g_str_equal(top, node);
}

bool view_is_exported(const View *v, const char *node) {
    GHashTableIter iter;
    void *top;

    g_hash_table_iter_init(&iter, v->exports);
    while (g_hash_table_iter_next(&iter, &top, NULL))
        if (subtree_has(v, top, node))
            return true;
    return false;
}

bool view_is_shared(const View *v, const char *node) {
    return g_hash_table_contains(v->shared, node);
}

bool view_job_uses(const View *v, const char *job_id, const char *node) {
    g_autofree char *name = g_strconcat("job:", job_id, NULL);

    return subtree_has(v, name, node);
}

/* node, or what it filters in the end. Counts its steps: they may go round in a ring. */
static const GraphNode *node_skip_filters(const View *v, const GraphNode *node) {
    for (uint32_t steps = 0; node && steps < FILTERS_MAX; steps++) {
        if (!node_is_filter(v, node))
            return node;
        node = node_filtered(v, node);
    }
    return NULL;
}

const char *view_skip_filters(const View *v, const char *node) {
    const GraphNode *image = node_skip_filters(v, graph_node(&v->graph, node));
    return image ? image->name : NULL;
}

const char *view_first_of(const View *v, const char *root, const char *a, const char *b) {
    const GraphNode *node = graph_node(&v->graph, root);
    for (uint32_t steps = 0; node && steps < FILTERS_MAX; steps++) {
        if (node->name && a && strcmp(node->name, a) == 0)
            return a;
        if (node->name && b && strcmp(node->name, b) == 0)
            return b;
        node = node_is_filter(v, node) ? node_filtered(v, node) : NULL;
    }
    return NULL;
}

GPtrArray *view_chain(const View *v, const char *node) {
    const Graph *g = &v->graph;
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autofree bool *seen = g_new0(bool, g->n_nodes);

    const GraphNode *image = node_skip_filters(v, graph_node(g, node));
    for (unsigned steps = 0; image && steps < CHAIN_MAX && !seen[image - g->nodes]; steps++) {
        seen[image - g->nodes] = true;
        if (image->name)
            g_ptr_array_add(names, g_strdup(image->name));
        image = node_skip_filters(v, graph_child(g, image, "backing"));
    }
    return names;
}

typedef struct {
    const GraphNode *node;
    uint32_t left; /* edges not yet followed */
} Visit;

/* Whether edge leads to another image of the chain. A filter's "backing" is what it filters. */
static bool edge_is_backing(const View *v, const GraphEdge *edge) {
    return strcmp(edge->name, "backing") == 0 && !node_is_filter(v, &v->graph.nodes[edge->parent]);
}

/* Depth first, the last edge first, and a node's name noted when everything under it has been:
 * backwards, that is parents before children, in the order of the edges. An own stack: the peer
 * says how deep. */
GPtrArray *view_subtree(const View *v, const char *node, bool backing) {
    const Graph *g = &v->graph;
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    const GraphNode *top = graph_node(g, node);
    if (!top)
        return names;

    g_autofree bool *seen = g_new0(bool, g->n_nodes);
    g_autoptr(GArray) stack = g_array_new(false, false, sizeof(Visit));
    Visit first = {.node = top, .left = top->edges};
    g_array_append_val(stack, first);
    seen[top - g->nodes] = true;
    while (stack->len > 0) {
        Visit *visit = &g_array_index(stack, Visit, stack->len - 1);
        if (visit->left == 0) {
            if (visit->node->name)
                g_ptr_array_add(names, g_strdup(visit->node->name));
            g_array_set_size(stack, stack->len - 1);
            continue;
        }
        const GraphEdge *edge = &g->edges[visit->node->edge + --visit->left];
        if (seen[edge->child] || (!backing && edge_is_backing(v, edge)))
            continue;
        Visit next = {.node = &g->nodes[edge->child], .left = g->nodes[edge->child].edges};
        seen[edge->child] = true;
        g_array_append_val(stack, next);
    }
    for (unsigned i = 0; i < names->len / 2; i++) {
        void *name = names->pdata[i];
        names->pdata[i] = names->pdata[names->len - 1 - i];
        names->pdata[names->len - 1 - i] = name;
    }
    return names;
}
