/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The disks of a domain: found in the view, named once, kept in step. */

#include <string.h>
#include <sys/stat.h>

#include "domain/internal.h"
#include "domain/xml.h"

void named_node_free(void *data) {
    NamedNode *n = data;

    g_free(n->path);
    g_free(n->format);
    g_free(n);
}

static void disk_free(Disk *disk) {
    g_free(disk->name);
    g_free(disk->device);
    g_free(disk->root);
    g_free(disk->node);
    g_free(disk->source);
    g_free(disk->format);
    g_free(disk);
}

void disks_free(Domain *d) {
    for (guint i = 0; i < d->disks->len; i++)
        disk_free(d->disks->pdata[i]);
    g_ptr_array_set_size(d->disks, 0);
}

GPtrArray *domain_disks(Domain *d) {
    return d->disks;
}

Disk *domain_disk_by_device(Domain *d, const char *device) {
    for (guint i = 0; i < d->disks->len; i++) {
        Disk *disk = d->disks->pdata[i];
        if (g_str_equal(disk->device, device))
            return disk;
    }
    return NULL;
}

void domain_name_node(Domain *d, const char *node, const char *path, const char *format,
                      bool block) {
    if (path) {
        NamedNode *n = g_new0(NamedNode, 1);
        n->path = g_strdup(path);
        n->format = g_strdup(format);
        n->block = block;
        g_hash_table_replace(d->named_nodes, g_strdup(node), n);
        d->dirty = true;
    } else
        g_hash_table_remove(d->named_nodes, node); /* names are never reused: not worth a commit */
}

/* QEMU may have been started with relative names: they count from its own working folder. */
static char *absolute_path(const Domain *d, const char *file) {
    if (file[0] == '/' || d->instance.pid <= 0 || strchr(file, ':'))
        return g_strdup(file);
    g_autofree char *link = g_strdup_printf("/proc/%" PRIi64 "/cwd", d->instance.pid);
    g_autofree char *cwd = g_file_read_link(link, NULL);
    return cwd ? g_build_filename(cwd, file, NULL) : g_strdup(file);
}

/* The file behind an image: what the journal knows of our own node, else the name that QEMU gives the protocol node at
 * the bottom (a format node may answer with a json: description of itself). Owned by the caller. */
static char *image_path(const Domain *d, const char *node) {
    const NamedNode *ours = g_hash_table_lookup(d->named_nodes, node);
    const QemuNode *known = view_node(d->view, node);
    const char *file = known ? known->file : NULL;

    if (ours)
        return g_strdup(ours->path);
    for (int depth = 0; depth < 8; depth++) {
        const char *child = view_child(d->view, node, "file");
        if (!child)
            child = view_child(d->view, node, "image"); /* blkdebug */
        if (!child)
            break;
        node = child;
        const QemuNode *below = view_node(d->view, node);
        if (below && below->file)
            file = below->file;
    }
    return file ? absolute_path(d, file) : g_strdup("");
}

static bool image_is_block(const char *path) {
    struct stat st;

    return path[0] == '/' && stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

static void chain_image_free(void *data) {
    ChainImage *image = data;

    g_free(image->node);
    g_free(image->file);
    g_free(image->format);
    g_free(image->backing);
    g_free(image->bitmap);
    g_free(image);
}

GPtrArray *disk_chain(const Disk *disk) {
    GPtrArray *chain = g_ptr_array_new_with_free_func(chain_image_free);
    Domain *d = disk->domain;

    if (!disk->root)
        return chain;
    g_autoptr(GPtrArray) nodes = view_chain(d->view, disk->root);
    for (guint i = 0; i < nodes->len; i++) {
        const QemuNode *node = view_node(d->view, nodes->pdata[i]);
        ChainImage *image = g_new0(ChainImage, 1);
        image->node = g_strdup(nodes->pdata[i]);
        image->file = image_path(d, image->node);
        image->format = g_strdup(node && node->driver ? node->driver : "");
        image->backing = g_strdup(node && node->backing_file ? node->backing_file : "");
        image->bitmap = node ? g_strdup(node->bitmap) : NULL;
        image->size = node ? node->size : 0;
        image->allocated = node ? node->allocated : 0;
        image->read_only = node ? node->read_only : true;
        g_ptr_array_add(chain, image);
    }
    return chain;
}

bool disk_chain_is_known(Disk *disk) {
    Domain *d = disk->domain;
    g_autoptr(GPtrArray) chain = disk_chain(disk);
    bool awaited = disk->awaited != 0 && domain_look_number(d) < disk->awaited;

    if (!domain_is_live(d) || !disk->root || chain->len > 0 || (disk->awaited != 0 && !awaited)) {
        disk->awaited = 0;
        return true;
    }
    if (!awaited) {
        disk->awaited = domain_look_next(d);
        domain_look(d, LOOK_ALL);
    }
    return false;
}

/* ── names ── */

/* The last part of a qdev path that a person gave: "vd0" of "/machine/peripheral/vd0/virtio-backend". */
static char *device_id(const char *qdev) {
    static const char prefix[] = "/machine/peripheral/";

    if (!g_str_has_prefix(qdev, prefix))
        return g_strdup(qdev);
    const char *id = qdev + strlen(prefix);
    return g_strndup(id, strcspn(id, "/"));
}

static bool name_is_taken(const Domain *d, const char *name) {
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, d->disk_names);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (g_str_equal(value, name))
            return true;
    return false;
}

static char *name_from_definition(Domain *d, const QemuDevice *device, const char *source) {
    g_auto(Failure) f = {0};
    g_autoptr(DomainXml) xml = NULL;
    g_autofree char *id = device_id(device->qdev);
    char *found = NULL;

    if (!d->definition[0] || !domain_xml_load(d->definition, &xml, &f))
        return NULL;
    g_autoptr(GPtrArray) disks = domain_xml_disks(xml);
    for (guint i = 0; i < disks->len && !found; i++) {
        const XmlDisk *disk = disks->pdata[i];
        bool same = (disk->alias && g_str_equal(disk->alias, id)) ||
                    (disk->source && source[0] && g_str_equal(disk->source, source));
        if (same && disk->target && !name_is_taken(d, disk->target))
            found = g_strdup(disk->target);
    }
    return found;
}

/* "vda" … "vdz", "vdaa" …, the first that no disk of this domain has or had. */
static char *name_from_type(const Domain *d, const QemuDevice *device) {
    const char *prefix = g_str_has_suffix(device->qdev, "/virtio-backend") ? "vd"
                         : g_str_has_prefix(device->backend, "floppy")     ? "fd"
                                                                           : "sd";

    for (unsigned n = 0;; n++) {
        g_autofree char *name = n < 26
                                    ? g_strdup_printf("%s%c", prefix, 'a' + (char) n)
                                    : g_strdup_printf("%s%c%c", prefix, 'a' + (char) (n / 26 - 1),
                                                      'a' + (char) (n % 26));
        if (!name_is_taken(d, name))
            return g_steal_pointer(&name);
    }
}

static const char *device_name(Domain *d, const QemuDevice *device, const char *source) {
    const char *name = g_hash_table_lookup(d->disk_names, device->qdev);

    if (!name) {
        char *fresh = name_from_definition(d, device, source);
        if (!fresh)
            fresh = name_from_type(d, device);
        g_hash_table_insert(d->disk_names, g_strdup(device->qdev), fresh);
        d->dirty = true;
        name = fresh;
    }
    return name;
}

/* ── update ── */

/* Puts a fresh string into *slot; whether it differs. value may be NULL. */
static bool set_string(char **slot, const char *value) {
    if (g_strcmp0(*slot, value) == 0)
        return false;
    g_free(*slot);
    *slot = g_strdup(value);
    return true;
}

/* The image under the filters of a device. A node of ours that the graph does not have yet is one. */
static const char *device_image(const Domain *d, const QemuDevice *device) {
    if (!device->root)
        return NULL;
    const char *node = view_skip_filters(d->view, device->root);
    return !node && g_hash_table_contains(d->named_nodes, device->root) ? device->root : node;
}

static unsigned disk_set_image(Disk *disk, const QemuDevice *device) {
    Domain *d = disk->domain;
    const char *node = device_image(d, device);
    const QemuNode *image = node ? view_node(d->view, node) : NULL;
    const NamedNode *ours = node ? g_hash_table_lookup(d->named_nodes, node) : NULL;
    g_autofree char *path = node ? image_path(d, node) : g_strdup("");
    const char *format = image && image->driver ? image->driver : ours ? ours->format : "";
    unsigned what = 0;

    if (set_string(&disk->node, node))
        what |= DISK_CHANGED_SOURCE;
    if (set_string(&disk->source, path)) {
        disk->block = ours ? ours->block : image_is_block(path);
        what |= DISK_CHANGED_SOURCE;
    }
    if (set_string(&disk->format, format))
        what |= DISK_CHANGED_SOURCE;
    uint64_t size = image ? image->size : node ? disk->size : 0;
    uint64_t allocated = image ? image->allocated : node ? disk->allocated : 0;
    if (size != disk->size) {
        disk->size = size;
        what |= DISK_CHANGED_SIZE;
    }
    if (allocated != disk->allocated) {
        disk->allocated = allocated;
        what |= DISK_CHANGED_ALLOCATED;
    }
    set_string(&disk->root, device->root);
    if (device->read_only != disk->read_only) {
        disk->read_only = device->read_only;
        what |= DISK_CHANGED_READ_ONLY;
    }
    if (what & ~(unsigned) DISK_CHANGED_ALLOCATED)
        d->dirty = true;
    return what;
}

static void disk_add(Domain *d, const QemuDevice *device) {
    Disk *disk = g_new0(Disk, 1);
    const char *node = device_image(d, device);
    g_autofree char *source = node ? image_path(d, node) : g_strdup("");

    disk->domain = d;
    disk->device = g_strdup(device->qdev);
    disk->name = g_strdup(device_name(d, device, source));
    disk->removable = device->removable;
    disk->seen = (unsigned) d->looks;
    disk_set_image(disk, device);
    g_ptr_array_add(d->disks, disk);
    d->hooks.disk_added(disk, d->userdata);
}

/* What the record keeps, so that the disks are on the bus again before QEMU has answered. */
json_t *disks_to_json(const Domain *d) {
    json_t *array = json_array();

    for (guint i = 0; i < d->disks->len; i++) {
        const Disk *disk = d->disks->pdata[i];
        json_array_append_new(
            array, json_pack("{s:s, s:s, s:s?, s:s?, s:s, s:s, s:I, s:b, s:b, s:b}", "name",
                             disk->name, "device", disk->device, "root", disk->root, "node",
                             disk->node, "source", disk->source, "format", disk->format, "size",
                             (json_int_t) disk->size, "block", disk->block, "read-only",
                             disk->read_only, "removable", disk->removable));
    }
    return array;
}

void disks_from_json(Domain *d, const json_t *array) {
    const json_t *item;
    size_t n;

    json_array_foreach (array, n, item) {
        const char *name, *device, *source, *format;
        const json_t *root = json_object_get(item, "root"), *node = json_object_get(item, "node");
        int block, read_only, removable;
        json_int_t size;
        if (json_unpack((json_t *) item, "{s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:b}", "name", &name,
                        "device", &device, "source", &source, "format", &format, "size", &size,
                        "block", &block, "read-only", &read_only, "removable", &removable) < 0)
            continue;
        Disk *disk = g_new0(Disk, 1);
        disk->domain = d;
        disk->name = g_strdup(name);
        disk->device = g_strdup(device);
        disk->root = g_strdup(json_string_value(root));
        disk->node = g_strdup(json_string_value(node));
        disk->source = g_strdup(source);
        disk->format = g_strdup(format);
        disk->size = (uint64_t) size;
        disk->block = block;
        disk->read_only = read_only;
        disk->removable = removable;
        g_ptr_array_add(d->disks, disk);
    }
}

/* Is it known what the device stands on? What was plugged, or put over an image, since the last look at the graph is not. */
static bool device_is_known(const Domain *d, const QemuDevice *device) {
    const Disk *disk = NULL;

    for (guint n = 0; n < d->disks->len && !disk; n++)
        if (g_str_equal(((Disk *) d->disks->pdata[n])->device, device->qdev))
            disk = d->disks->pdata[n];
    if (disk && g_strcmp0(device->root, disk->root) == 0)
        return true;
    return disk && (!device->root || g_hash_table_contains(d->named_nodes, device->root) ||
                    view_skip_filters(d->view, device->root));
}

bool disks_update(Domain *d, bool nodes_too) {
    GPtrArray *devices = view_devices(d->view);
    bool changed = false, complete = true;

    for (guint i = 0; i < devices->len; i++) {
        const QemuDevice *device = devices->pdata[i];
        if (!device->qdev[0])
            continue; /* a drive that is plugged into nothing */
        Disk *disk = domain_disk_by_device(d, device->qdev);
        if (disk)
            disk->seen = (unsigned) d->looks;
        if (!nodes_too && !device_is_known(d, device)) {
            complete = false;
            continue;
        }
        if (!disk) {
            disk_add(d, device);
            changed = true;
            continue;
        }
        unsigned what = disk_set_image(disk, device);
        if (what)
            d->hooks.disk_changed(disk, what, d->userdata);
    }
    for (guint i = d->disks->len; i > 0; i--) {
        Disk *disk = d->disks->pdata[i - 1];
        if (disk->seen == (unsigned) d->looks)
            continue;
        d->hooks.disk_removed(disk, d->userdata);
        g_hash_table_remove(d->disk_names, disk->device);
        d->dirty = true;
        g_ptr_array_remove_index(d->disks, i - 1);
        disk_free(disk);
        changed = true;
    }
    if (changed)
        d->hooks.changed(d, DOMAIN_CHANGED_DISKS, d->userdata);
    return complete;
}
