/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of the objects on the bus, what sd-bus asks about them, and the signals. */

#include "bus/bus.h"

#include <string.h>

#include "bus/errors.h"
#include "bus/internal.h"
#include "log.h"
#include "util.h"

#define CHANGES_MAX 16 /* properties behind one signal */

/* ── the table of objects ── */

typedef enum { OBJECT_DOMAIN, OBJECT_DISK, OBJECT_JOB, _OBJECT_MAX } ObjectKind;

typedef struct {
    ObjectKind kind;
    void *is; /* Domain *, Disk *, or Job * */
    struct {
        JobResult result;
        uint64_t ready, finished, guest_paused;
    } told; /* of a job, as last signalled */
    char path[];
} Object;

static Object *object_find(const Bus *b, const char *path, ObjectKind kind) {
    Object *o = g_hash_table_lookup(b->objects, path);

    return o && o->kind == kind ? o : NULL;
}

bool bus_has(const Bus *b, const char *path) {
    return g_hash_table_contains(b->objects, path);
}

static void log_signal(const char *what, const char *path, int r) {
    if (r < 0)
        log_debug("%s for %s cannot be sent, ignoring: %s", what, path, g_strerror(-r));
}

static void object_announce(Bus *b, const char *path) {
    if (b->announced)
        log_signal("InterfacesAdded", path, sd_bus_emit_object_added(b->bus, path));
}

/* Notes what is told of a job; returns bits of what differs from what was told before. */
static unsigned job_note(Object *o, const Job *j) {
    JobInfo info = job_info(j);
    /* Settled before it is told. */
    JobResult result = job_is_active(j) ? RESULT_NONE : job_result(j);
    unsigned differs = (result != o->told.result ? JOB_DIFFERS_RESULT : 0) |
                       (info.ready != o->told.ready ? JOB_DIFFERS_READY : 0) |
                       (info.finished != o->told.finished ? JOB_DIFFERS_FINISHED : 0) |
                       (info.guest_paused != o->told.guest_paused ? JOB_DIFFERS_GUEST_PAUSED : 0);

    o->told.result = result;
    o->told.ready = info.ready;
    o->told.finished = info.finished;
    o->told.guest_paused = info.guest_paused;
    return differs;
}

/* Harmless when it is there already. */
static void object_add(Bus *b, ObjectKind kind, void *is, const char *path) {
    size_t size = strlen(path) + 1;

    if (bus_has(b, path))
        return;
    Object *o = g_malloc0(sizeof(*o) + size);
    o->kind = kind;
    o->is = is;
    memcpy(o->path, path, size);
    if (kind == OBJECT_JOB)
        job_note(o, is);
    g_hash_table_insert(b->objects, o->path, o);
    b->n_domains += kind == OBJECT_DOMAIN;
    object_announce(b, path);
}

/* Harmless when it is gone already. */
static void object_remove(Bus *b, const char *path) {
    const Object *o = g_hash_table_lookup(b->objects, path);

    if (!o)
        return;
    /* While it is in the table, else the signal would not name our interface. */
    if (b->announced)
        log_signal("InterfacesRemoved", path, sd_bus_emit_object_removed(b->bus, path));
    b->n_domains -= o->kind == OBJECT_DOMAIN;
    g_hash_table_remove(b->objects, path);
}

static void domain_add(Bus *b, Domain *d) {
    GPtrArray *disks = domain_disks(d);

    object_add(b, OBJECT_DOMAIN, d, domain_path(d));
    for (guint i = 0; i < disks->len; i++) {
        g_autofree char *path = disk_path(disks->pdata[i]);
        object_add(b, OBJECT_DISK, disks->pdata[i], path);
    }
}

static int find_domain(sd_bus *bus, const char *path, const char *interface, void *userdata,
                       void **ret, sd_bus_error *error) {
    Bus *b = userdata;
    const Object *o = object_find(b, path, OBJECT_DOMAIN);

    if (!o)
        return 0;
    domain_found(b, o->is);
    *ret = &b->domain;
    return 1;
}

static int find_disk(sd_bus *bus, const char *path, const char *interface, void *userdata,
                     void **ret, sd_bus_error *error) {
    Bus *b = userdata;
    const Object *o = object_find(b, path, OBJECT_DISK);

    if (!o)
        return 0;
    disk_found(b, o->is);
    *ret = &b->disk;
    return 1;
}

static int find_job(sd_bus *bus, const char *path, const char *interface, void *userdata,
                    void **ret, sd_bus_error *error) {
    Bus *b = userdata;
    const Object *o = object_find(b, path, OBJECT_JOB);

    if (!o)
        return 0;
    job_found(b, o->is);
    *ret = &b->job;
    return 1;
}

/* All objects below the prefix that this was registered for. sd-bus frees a list and its strings
 * with free(), which is what g_free() is. */
static char **list_objects(Bus *b, bool jobs) {
    GPtrArray *paths = g_ptr_array_new();
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, b->objects);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const Object *o = value;
        if ((o->kind == OBJECT_JOB) == jobs)
            g_ptr_array_add(paths, g_strdup(o->path));
    }
    g_ptr_array_add(paths, NULL);
    return (char **) g_ptr_array_free(paths, FALSE);
}

static int list_domains(sd_bus *bus, const char *prefix, void *userdata, char ***ret,
                        sd_bus_error *error) {
    *ret = list_objects(userdata, false);
    return 0;
}

static int list_jobs(sd_bus *bus, const char *prefix, void *userdata, char ***ret,
                     sd_bus_error *error) {
    *ret = list_objects(userdata, true);
    return 0;
}

/* ── getters that several interfaces use ── */

int property_get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    const char *s = *(const char **) userdata;
    g_autofree char *fit = NULL;

    if (!text_is_fit(s, TEXT_MAX))
        s = fit = text_make_fit(s, TEXT_MAX);
    return sd_bus_message_append_basic(reply, SD_BUS_TYPE_STRING, s);
}

int property_get_bool(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    int value = *(bool *) userdata;

    return sd_bus_message_append_basic(reply, SD_BUS_TYPE_BOOLEAN, &value);
}

/* ── signals ── */

static void emit_changed(Bus *b, const char *path, const char *interface, const Change *changes,
                         unsigned what) {
    const char *names[CHANGES_MAX + 1];
    size_t n = 0;

    for (const Change *c = changes; c->property; c++)
        if (what & c->what && n < CHANGES_MAX)
            names[n++] = c->property;
    names[n] = NULL;
    if (n == 0 || !b->announced)
        return;
    int r = sd_bus_emit_properties_changed_strv(b->bus, path, interface, (char **) names);
    log_signal("PropertiesChanged", path, r);
}

static void emit_job_finished(Bus *b, const Job *j) {
    JobInfo info = job_info(j);
    int r = sd_bus_emit_signal(b->bus, PATH_ROOT, INTERFACE_MANAGER, "JobFinished", "toss", info.id,
                               info.path, info.result, info.error_name);

    log_signal("JobFinished", info.path, r);
}

static void on_domain_added(Domain *d, void *userdata) {
    domain_add(userdata, d);
}

static void message_unref(void *m) {
    sd_bus_message_unref(m);
}

#define HELD_MAX 1024

bool bus_hold(Bus *b, const Domain *d, sd_bus_message *m) {
    if (!d || domain_state(d) != DOMAIN_CONNECTING || b->held->len >= HELD_MAX)
        return false;
    g_ptr_array_add(b->held, sd_bus_message_ref(m));
    return true;
}

bool bus_hold_disk(Bus *b, Disk *disk, sd_bus_message *m) {
    if (bus_hold(b, disk->domain, m))
        return true;
    if (b->held->len >= HELD_MAX || disk_chain_is_known(disk))
        return false;
    g_ptr_array_add(b->held, sd_bus_message_ref(m));
    return true;
}

/* All of them: those whose domain is still being connected to are put aside again. */
static void release_held(Bus *b) {
    g_autoptr(GPtrArray) held = b->held;

    b->held = g_ptr_array_new_with_free_func(message_unref);
    for (guint i = 0; i < held->len; i++)
        if (sd_bus_message_rewind(held->pdata[i], true) < 0 ||
            sd_bus_enqueue_for_read(b->bus, held->pdata[i]) < 0)
            log_warning("A call that waited for a domain is lost.");
}

static void on_domain_changed(Domain *d, unsigned what, void *userdata) {
    if (what & DOMAIN_CHANGED_STATE)
        release_held(userdata);
    if (bus_has(userdata, domain_path(d)))
        emit_changed(userdata, domain_path(d), INTERFACE_DOMAIN, domain_changes, what);
}

static void on_domain_looked(Domain *d, void *userdata) {
    Bus *b = userdata;

    if (b->held->len > 0)
        release_held(b);
}

static void on_domain_removed(Domain *d, void *userdata) {
    GPtrArray *disks = domain_disks(d);

    for (guint i = 0; i < disks->len; i++) {
        g_autofree char *path = disk_path(disks->pdata[i]);
        object_remove(userdata, path);
    }
    object_remove(userdata, domain_path(d));
}

static void on_disk_added(Disk *disk, void *userdata) {
    g_autofree char *path = disk_path(disk);

    /* A domain that is not durable yet comes with all its disks, when it is. */
    if (bus_has(userdata, domain_path(disk->domain)))
        object_add(userdata, OBJECT_DISK, disk, path);
}

static void on_disk_changed(Disk *disk, unsigned what, void *userdata) {
    g_autofree char *path = disk_path(disk);

    if (bus_has(userdata, path))
        emit_changed(userdata, path, INTERFACE_DISK, disk_changes, what);
}

static void on_disk_removed(Disk *disk, void *userdata) {
    g_autofree char *path = disk_path(disk);

    object_remove(userdata, path);
}

static void on_job_added(Job *j, void *userdata) {
    Bus *b = userdata;
    JobInfo info = job_info(j);

    object_add(b, OBJECT_JOB, j, info.path);
    if (!b->announced)
        return;
    int r = sd_bus_emit_signal(b->bus, PATH_ROOT, INTERFACE_MANAGER, "JobNew", "to", info.id,
                               info.path);
    log_signal("JobNew", info.path, r);
}

static void on_job_changed(Job *j, unsigned what, void *userdata) {
    Bus *b = userdata;
    Object *o = object_find(b, job_info(j).path, OBJECT_JOB);

    if (o && what & JOB_CHANGED_STATE)
        what |= job_note(o, j);
    if (o)
        emit_changed(b, o->path, INTERFACE_JOB, job_changes, what);
    /* Those who wait for the end are answered after JobFinished, which follows. */
    if (what & JOB_CHANGED_STATE && job_is_active(j))
        wait_wake(b, j);
}

static void on_job_finished(Job *j, void *userdata) {
    Bus *b = userdata;
    uint64_t id = job_id(j);

    if (b->announced)
        emit_job_finished(b, j);
    else
        g_array_append_val(b->ended, id);
    wait_wake(b, j);
    calls_end_job(b, id);
}

static void on_job_removed(Job *j, void *userdata) {
    Bus *b = userdata;

    object_remove(b, job_info(j).path);
    wait_job_removed(b, j);
    calls_end_job(b, job_id(j));
}

static void on_counts_changed(void *userdata) {
    Bus *b = userdata;
    unsigned n_active = manager_n_active(b->manager);
    JournalState state = journal_state(manager_journal(b->manager));
    const Change changes[] = {{b->n_domains != b->told_domains, "NDomains"},
                              {n_active != b->told_active, "NJobsActive"},
                              {state != b->told_journal, "JournalState"},
                              {0, NULL}};

    b->told_domains = b->n_domains;
    b->told_active = n_active;
    b->told_journal = state;
    emit_changed(b, PATH_ROOT, INTERFACE_MANAGER, changes, true);
}

static const ManagerFace face = {
    .domain_added = on_domain_added,
    .domain_changed = on_domain_changed,
    .domain_looked = on_domain_looked,
    .domain_removed = on_domain_removed,
    .disk_added = on_disk_added,
    .disk_changed = on_disk_changed,
    .disk_removed = on_disk_removed,
    .job_added = on_job_added,
    .job_changed = on_job_changed,
    .job_finished = on_job_finished,
    .job_removed = on_job_removed,
    .counts_changed = on_counts_changed,
};

void bus_announce(Bus *b) {
    GHashTableIter iter;
    void *value;

    b->announced = true;
    for (ObjectKind kind = 0; kind < _OBJECT_MAX; kind++) {
        g_hash_table_iter_init(&iter, b->objects);
        while (g_hash_table_iter_next(&iter, NULL, &value)) {
            const Object *o = value;
            if (o->kind == kind)
                object_announce(b, o->path);
        }
    }
    for (guint i = 0; i < b->ended->len; i++) {
        Job *j = manager_job(b->manager, g_array_index(b->ended, uint64_t, i));
        if (j)
            emit_job_finished(b, j);
    }
    g_array_set_size(b->ended, 0);
}

/* ── registration ── */

static int on_name_lost(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    const char *name;

    if (sd_bus_message_read(m, "s", &name) > 0)
        wait_sender_gone(userdata, name);
    return 0;
}

/* Without this match callers that left would be answered in vain, no more; sd-bus would end the
 * connection. */
static int on_match_installed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    const sd_bus_error *e = sd_bus_message_get_error(m);

    if (e)
        log_warning("Cannot watch for callers that leave the bus, ignoring: %s", e->message);
    return 0;
}

static void slot_unref(void *slot) {
    sd_bus_slot_unref(slot);
}

static int register_fallback(Bus *b, const char *prefix, const char *interface,
                             const sd_bus_vtable *vtable, sd_bus_object_find_t find) {
    sd_bus_slot *slot;
    int r = sd_bus_add_fallback_vtable(b->bus, &slot, prefix, interface, vtable, find, b);

    if (r >= 0)
        g_ptr_array_add(b->slots, slot);
    return r;
}

static int register_enumerator(Bus *b, const char *prefix, sd_bus_node_enumerator_t list) {
    sd_bus_slot *slot;
    int r = sd_bus_add_node_enumerator(b->bus, &slot, prefix, list, b);

    if (r >= 0)
        g_ptr_array_add(b->slots, slot);
    return r;
}

static int register_root(Bus *b) {
    sd_bus_slot *slot;
    int r = sd_bus_add_object_manager(b->bus, &slot, PATH_ROOT);

    if (r < 0)
        return r;
    g_ptr_array_add(b->slots, slot);
    r = sd_bus_add_object_vtable(b->bus, &slot, PATH_ROOT, INTERFACE_MANAGER, manager_vtable, b);
    if (r < 0)
        return r;
    g_ptr_array_add(b->slots, slot);
    r = sd_bus_add_match_async(b->bus, &slot,
                               "type='signal',sender='org.freedesktop.DBus',"
                               "path='/org/freedesktop/DBus',interface='org.freedesktop.DBus',"
                               "member='NameOwnerChanged',arg2=''",
                               on_name_lost, on_match_installed, b);
    if (r >= 0)
        g_ptr_array_add(b->slots, slot);
    return r;
}

static int register_objects(Bus *b) {
    int r = register_root(b);

    if (r >= 0)
        r = register_fallback(b, PATH_DOMAINS, INTERFACE_DOMAIN, domain_vtable, find_domain);
    if (r >= 0)
        r = register_fallback(b, PATH_DOMAINS, INTERFACE_DISK, disk_vtable, find_disk);
    if (r >= 0)
        r = register_fallback(b, PATH_JOBS, INTERFACE_JOB, job_vtable, find_job);
    if (r >= 0)
        r = register_enumerator(b, PATH_DOMAINS, list_domains);
    if (r >= 0)
        r = register_enumerator(b, PATH_JOBS, list_jobs);
    return r;
}

/* What was restored is durable; nothing else is there yet. */
static void add_restored(Bus *b) {
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, manager_domains(b->manager));
    while (g_hash_table_iter_next(&iter, NULL, &value))
        domain_add(b, value);
    g_hash_table_iter_init(&iter, manager_jobs(b->manager));
    while (g_hash_table_iter_next(&iter, NULL, &value))
        object_add(b, OBJECT_JOB, value, job_info(value).path);
}

int bus_new(sd_bus *bus, Manager *manager, Auth *auth, Bus **ret) {
    g_autoptr(Bus) b = g_new0(Bus, 1);

    b->bus = sd_bus_ref(bus);
    b->manager = manager;
    b->auth = auth;
    b->slots = g_ptr_array_new_with_free_func(slot_unref);
    b->ended = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    b->held = g_ptr_array_new_with_free_func(message_unref);
    g_queue_init(&b->calls);
    g_queue_init(&b->waiters);
    b->objects = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);

    int r = register_objects(b);
    if (r < 0)
        return r;
    manager_set_face(manager, &face, b);
    add_restored(b);
    on_counts_changed(b);
    *ret = g_steal_pointer(&b);
    return 0;
}

unsigned bus_n_unanswered(const Bus *b) {
    unsigned n = b->held->len;

    for (const GList *l = b->calls.head; l; l = l->next)
        n += ((const Call *) l->data)->message != NULL;
    return n;
}

unsigned bus_n_waiting(const Bus *b) {
    return b->waiters.length;
}

Bus *bus_free(Bus *b) {
    if (!b)
        return NULL;
    manager_set_face(b->manager, NULL, NULL);
    g_ptr_array_unref(b->slots);
    g_ptr_array_unref(b->held);
    wait_free_all(b);
    calls_free(b);
    reaching_free(b);
    g_hash_table_unref(b->objects);
    g_array_unref(b->ended);
    sd_bus_unref(b->bus);
    g_free(b);
    return NULL;
}
