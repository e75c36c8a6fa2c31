/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a domain: its record, and the looks at QEMU. */

#include <stdio.h>
#include <string.h>

#include "domain/internal.h"
#include "log.h"

#define PATROL (5 * USEC_PER_SEC)
#define LEISURE (250 * USEC_PER_MSEC) /* what nobody waits for is looked at that much later */
#define TIMER_ACCURACY (5 * USEC_PER_MSEC)

static const char *const state_names[_DOMAIN_STATE_MAX] = {
#define X(id, name) [DOMAIN_##id] = name,
    DOMAIN_STATE_LIST(X)
#undef X
};

const char *domain_state_to_string(DomainState s) {
    return s < _DOMAIN_STATE_MAX ? state_names[s] : "";
}

/* ── readers ── */

const char *domain_name(const Domain *d) {
    return d->name;
}
const char *domain_qemu_name(const Domain *d) {
    return d->qemu_name;
}
const char *domain_uuid(const Domain *d) {
    return d->uuid;
}
const char *domain_socket(const Domain *d) {
    return d->socket;
}
const char *domain_definition(const Domain *d) {
    return d->definition;
}
const char *domain_version(const Domain *d) {
    return d->version;
}
const char *domain_path(const Domain *d) {
    return d->path;
}
const char *domain_journal_identity(const Domain *d) {
    return journal_identity(d->journal);
}
const char *domain_trouble(const Domain *d) {
    return d->trouble;
}
bool domain_is_automatic(const Domain *d) {
    return d->automatic;
}
DomainState domain_state(const Domain *d) {
    return d->state;
}
bool domain_is_live(const Domain *d) {
    return d->live && !d->unresponsive;
}
bool domain_process_gone(const Domain *d) {
    return d->process_gone;
}
const Instance *domain_instance(const Domain *d) {
    return &d->instance;
}
bool domain_guest_runs(const Domain *d) {
    return d->guest_runs;
}
bool domain_fears_write_blocking(const Domain *d) {
    unsigned major = 0, minor = 0;

    sscanf(d->version, "%u.%u", &major, &minor);
    return d->iothreads && (major < 8 || (major == 8 && minor < 2));
}
uint64_t domain_guest_stood(const Domain *d, uint64_t since) {
    return d->stopped_at >= since && d->resumed_at > d->stopped_at ? d->resumed_at - d->stopped_at
                                                                   : 0;
}
uint64_t domain_status_number(const Domain *d) {
    return d->status_look;
}
uint64_t domain_block_number(const Domain *d) {
    return d->block_look;
}
GPtrArray *domain_jobs(const Domain *d) {
    return d->owner_jobs;
}
View *domain_view(Domain *d) {
    return d->view;
}
uint64_t domain_look_number(const Domain *d) {
    return d->looks;
}
uint64_t domain_qmp_timeout(const Domain *d) {
    return d->qmp_timeout;
}
QmpClient *domain_qmp(Domain *d) {
    return d->qmp && qmp_is_ready(d->qmp) ? d->qmp : NULL;
}

uint64_t domain_look_next(const Domain *d) {
    return d->looks + (d->scope ? 2 : 1);
}

/* ── record ── */

static json_t *names_to_json(const Domain *d) {
    json_t *names = json_object();
    GHashTableIter iter;
    void *key, *value;

    g_hash_table_iter_init(&iter, d->disk_names);
    while (g_hash_table_iter_next(&iter, &key, &value))
        json_object_set_new(names, key, json_string(value));
    return names;
}

static json_t *nodes_to_json(const Domain *d) {
    json_t *nodes = json_object();
    GHashTableIter iter;
    void *key, *value;

    g_hash_table_iter_init(&iter, d->named_nodes);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        const NamedNode *n = value;
        json_object_set_new(
            nodes, key,
            json_pack("{s:s, s:s, s:b}", "path", n->path, "format", n->format, "block", n->block));
    }
    return nodes;
}

void domain_save(Domain *d, JournalDone done, void *userdata, JournalSlot **ret) {
    json_t *document =
        json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:s, s:o, s:o, s:o}", "socket", d->socket,
                  "definition", d->definition, "uuid", d->uuid, "automatic", d->automatic, "pid",
                  (json_int_t) d->instance.pid, "start", (json_int_t) d->instance.start, "boot",
                  d->instance.boot, "disk-names", names_to_json(d), "nodes", nodes_to_json(d),
                  "disks", disks_to_json(d));
    char *text = json_dumps(document, JSON_COMPACT | JSON_SORT_KEYS);
    JournalDomain record = {.name = d->name, .document = text};

    journal_put_domain(d->journal, &record, done, userdata, ret);
    d->dirty = false;
    free(text);
    json_decref(document);
}

void domain_forget(Domain *d, JournalDone done, void *userdata) {
    JournalDomain record = {.name = d->name};

    d->forgotten = true;
    journal_put_domain(d->journal, &record, done, userdata, NULL);
}

bool domain_needs_saving(const Domain *d) {
    return d->dirty && !d->forgotten;
}

bool domain_is_forgotten(const Domain *d) {
    return d->forgotten;
}

static bool record_parse(Domain *d, const char *document) {
    json_t *root = json_loads(document, JSON_REJECT_DUPLICATES, NULL);
    const char *socket = NULL, *definition = NULL, *uuid = NULL, *boot = NULL, *key;
    json_int_t pid = 0, start = 0;
    int automatic = 0;
    json_t *names = NULL, *nodes = NULL, *disks = NULL, *value;
    bool ok =
        root && json_unpack(root, "{s:s, s:s, s:s, s:b, s:I, s:I, s:s, s:o, s:o, s:o}", "socket",
                            &socket, "definition", &definition, "uuid", &uuid, "automatic",
                            &automatic, "pid", &pid, "start", &start, "boot", &boot, "disk-names",
                            &names, "nodes", &nodes, "disks", &disks) == 0;

    if (ok) {
        d->socket = g_strdup(socket);
        d->definition = g_strdup(definition);
        g_free(d->uuid);
        d->uuid = g_strdup(uuid);
        d->automatic = automatic;
        d->instance.pid = pid;
        d->instance.start = (uint64_t) start;
        g_strlcpy(d->instance.boot, boot, sizeof(d->instance.boot));
        json_object_foreach (names, key, value)
            if (json_is_string(value))
                g_hash_table_insert(d->disk_names, g_strdup(key),
                                    g_strdup(json_string_value(value)));
        json_object_foreach (nodes, key, value) {
            const char *path, *format;
            int block;
            if (json_unpack(value, "{s:s, s:s, s:b}", "path", &path, "format", &format, "block",
                            &block) == 0)
                domain_name_node(d, key, path, format, block);
        }
        disks_from_json(d, disks);
        d->dirty = false;
    }
    json_decref(root);
    return ok;
}

/* ── state ── */

void domain_set_state(Domain *d, DomainState state, const char *trouble) {
    bool changed = d->state != state;

    if (!g_str_equal(d->trouble, trouble)) {
        g_free(d->trouble);
        d->trouble = g_strdup(trouble);
    }
    d->state = state;
    if (changed)
        d->hooks.changed(d, DOMAIN_CHANGED_STATE, d->userdata);
}

static const struct {
    const char *run_state; /* RunState of qapi/run-state.json */
    DomainState state;
} run_states[] = {
    {"running", DOMAIN_RUNNING},        {"paused", DOMAIN_PAUSED},
    {"prelaunch", DOMAIN_PAUSED},       {"debug", DOMAIN_PAUSED},
    {"io-error", DOMAIN_PAUSED},        {"save-vm", DOMAIN_PAUSED},
    {"restore-vm", DOMAIN_PAUSED},      {"inmigrate", DOMAIN_PAUSED},
    {"finish-migrate", DOMAIN_PAUSED},  {"postmigrate", DOMAIN_PAUSED},
    {"shutdown", DOMAIN_SHUTDOWN},      {"guest-panicked", DOMAIN_CRASHED},
    {"internal-error", DOMAIN_CRASHED}, {"suspended", DOMAIN_SUSPENDED},
    {"watchdog", DOMAIN_PAUSED},
};

static DomainState state_from_status(const json_t *status, bool *ret_runs) {
    const char *text = json_string_value(json_object_get(status, "status"));

    *ret_runs = json_is_true(json_object_get(status, "running"));
    for (size_t i = 0; text && i < G_N_ELEMENTS(run_states); i++)
        if (g_str_equal(run_states[i].run_state, text))
            return run_states[i].state;
    return DOMAIN_OTHER;
}

/* ── looks ── */

void domain_forget_look(Domain *d) {
    for (guint i = 0; i < d->slots->len; i++)
        qmp_slot_cancel(d->slots->pdata[i]);
    g_ptr_array_set_size(d->slots, 0);
    d->scope = 0;
    d->outstanding = 0;
    g_clear_pointer(&d->status, json_decref);
    g_clear_pointer(&d->jobs, json_decref);
    g_clear_pointer(&d->block_jobs, json_decref);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
    domain_look(userdata, LOOK_ALL);
    return 0;
}

void domain_arm_timer(Domain *d, sd_event_source **source, uint64_t delay,
                      sd_event_time_handler_t handler) {
    if (!*source) {
        int r = sd_event_add_time_relative(d->event, source, CLOCK_MONOTONIC, delay, TIMER_ACCURACY,
                                           handler, d);
        if (r < 0)
            log_error("Domain \"%s\": no timer: %s", d->name, g_strerror(-r));
        return;
    }
    sd_event_source_set_time_relative(*source, delay);
    sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
}

/* A deadline has passed: nobody may rely on what was known, everything is looked at again until an answer comes. */
static void become_unresponsive(Domain *d) {
    if (!d->unresponsive)
        log_event(LOG_WARNING, MESSAGE_DOMAIN_UNRESPONSIVE,
                  "Domain \"%s\" does not answer; its jobs wait, and go on when it does.", d->name);
    d->unresponsive = true;
    domain_set_state(d, DOMAIN_UNRESPONSIVE, "QEMU does not answer");
    d->hooks.link_changed(d, d->userdata);
    domain_arm_timer(d, &d->retry, USEC_PER_SEC, on_retry);
}

static void look_begin(Domain *d);

void domain_remove_fdset(Domain *d, int64_t id) {
    if (!d->guest_runs)
        g_array_append_val(d->stale_fdsets, id);
}

/* QEMU 7.2 closes removed descriptors only while the guest runs: those of an image that was deleted meanwhile would keep
 * its blocks. */
static void remove_stale_fdsets(Domain *d) {
    for (guint i = 0; i < d->stale_fdsets->len; i++) {
        int64_t id = g_array_index(d->stale_fdsets, int64_t, i);
        domain_send(d, NULL, "remove-fd", json_pack("{s:I}", "fdset-id", (json_int_t) id), -1, NULL,
                    NULL);
    }
    g_array_set_size(d->stale_fdsets, 0);
}

/* No event tells that a disk was plugged (device_add), so that is looked for, at leisure. */
static int on_patrol(sd_event_source *source, uint64_t usec, void *userdata) {
    Domain *d = userdata;

    if (d->live && !d->scope)
        domain_look(d, LOOK_BLOCK);
    domain_arm_timer(d, &d->patrol, PATROL, on_patrol);
    return 0;
}

static void look_complete(Domain *d) {
    unsigned scope = d->scope;
    bool first = !d->live;

    if (scope & LOOK_LIST)
        view_set_jobs(d->view, d->jobs, d->block_jobs);
    if (scope & LOOK_STATUS)
        d->run_state = state_from_status(d->status, &d->guest_runs);
    if (d->guest_runs)
        remove_stale_fdsets(d);
    domain_forget_look(d);
    d->looks++;
    if (scope & LOOK_STATUS)
        d->status_look = d->looks;
    if (scope & LOOK_BLOCK)
        d->block_look = d->looks;
    d->live = true;
    d->unresponsive = false;
    domain_set_state(d, d->run_state, "");
    if ((scope & LOOK_BLOCK) && !disks_update(d, d->with_nodes))
        domain_look(d, LOOK_ALL); /* what some disk stands on is not known yet */
    if (first)
        d->hooks.link_changed(d, d->userdata);
    if (first)
        domain_arm_timer(d, &d->patrol, PATROL, on_patrol);
    d->hooks.looked(d, d->userdata);
    if (d->wanted && !d->scope)
        look_begin(d);
}

static void look_failed(Domain *d, const QmpError *error) {
    domain_forget_look(d);
    if (error->error == -ENOTCONN)
        return; /* disconnected() follows */
    if (error->error == -ETIMEDOUT)
        become_unresponsive(d);
    else {
        log_warning("Domain \"%s\": QEMU refuses a query: %s", d->name, error->text);
        if (!d->live) {
            g_autofree char *trouble = g_strdup_printf("QEMU refuses a query: %s", error->text);
            domain_set_state(d, DOMAIN_UNRESPONSIVE, trouble);
            d->hooks.link_changed(d, d->userdata);
        }
        domain_arm_timer(d, &d->retry, USEC_PER_SEC, on_retry);
    }
}

static void look_send(Domain *d, const char *command, json_t *arguments, QmpReplyFunc reply) {
    QmpSlot *slot = NULL;

    if (domain_send(d, &slot, command, arguments, -1, reply, d) < 0) {
        d->failed = true;
        return;
    }
    g_ptr_array_add(d->slots, slot);
    d->outstanding++;
}

static void on_nodes(QmpClient *c, json_t *result, const QmpError *error, void *userdata);

/* A stream, whoever has started it, may conclude at any moment, also between two queries. When nothing is known of the
 * nodes yet (the service was just started) the look is worth more than that moment. */
static bool stream_is_at_work(const Domain *d) {
    GPtrArray *jobs = view_jobs(d->view);

    for (guint i = 0; i < jobs->len; i++)
        if (g_str_equal(((const QemuJob *) jobs->pdata[i])->type, "stream"))
            return view_knows_nodes(d->view);
    return false;
}

/* QEMU 7.2 dies in query-named-block-nodes while a stream is concluded and not dismissed, and while blockdev-create is
 * at work. A create that was sent after this look began is not in its query-jobs yet. */
static bool nodes_are_safe(const Domain *d) {
    GPtrArray *jobs = view_jobs(d->view);

    if (d->create_look > d->looks + 1 || view_has_concluded(d->view, "stream"))
        return false;
    for (guint i = 0; i < jobs->len; i++) {
        const QemuJob *q = jobs->pdata[i];
        if (g_str_equal(q->type, "create") && q->phase != QJOB_CONCLUDED && q->phase != QJOB_FAILED)
            return false;
    }
    return true;
}

void domain_will_create(Domain *d) {
    d->create_look = domain_look_next(d);
}

/* One answer has come; the last one completes the look, or asks for the nodes if that is safe; else they are owed to
 * the next look. */
static void look_answered(Domain *d) {
    if (--d->outstanding > 0)
        return;
    g_ptr_array_set_size(d->slots, 0);
    if (d->scope & LOOK_NODES) {
        view_set_jobs(d->view, d->jobs, d->block_jobs);
        d->scope &= ~(unsigned) LOOK_NODES;
        d->nodes_owed = !nodes_are_safe(d);
        if (!d->nodes_owed && !stream_is_at_work(d)) {
            look_send(d, "query-named-block-nodes", json_pack("{s:b}", "flat", true), on_nodes);
            if (!d->failed)
                return;
        }
    }
    look_complete(d);
}

/* Slots of answered commands are gone: only the others may be cancelled. */
static void slot_answered(Domain *d) {
    d->answered = true;
    g_ptr_array_remove_index(d->slots, 0);
}

#define REPLY_HANDLER(name, keep)                                                                  \
    static void name(QmpClient *c, json_t *result, const QmpError *error, void *userdata) {        \
        Domain *d = userdata;                                                                      \
        slot_answered(d);                                                                          \
        if (!result) {                                                                             \
            look_failed(d, error);                                                                 \
            return;                                                                                \
        }                                                                                          \
        keep;                                                                                      \
        look_answered(d);                                                                          \
    }

REPLY_HANDLER(on_status, d->status = json_incref(result))
REPLY_HANDLER(on_jobs, d->jobs = json_incref(result))
REPLY_HANDLER(on_block_jobs, d->block_jobs = json_incref(result))
REPLY_HANDLER(on_block, view_set_block(d->view, result))

REPLY_HANDLER(on_nodes, view_set_nodes(d->view, result))

/* The same for what a QEMU need not have: a refusal counts as nothing there. */
#define OPTIONAL_HANDLER(name, keep)                                                               \
    static void name(QmpClient *c, json_t *result, const QmpError *error, void *userdata) {        \
        Domain *d = userdata;                                                                      \
        slot_answered(d);                                                                          \
        if (error && error->error != 0) {                                                          \
            look_failed(d, error);                                                                 \
            return;                                                                                \
        }                                                                                          \
        keep;                                                                                      \
        look_answered(d);                                                                          \
    }

/* Unstable by name: without it filters between device and image are not seen. */
OPTIONAL_HANDLER(on_graph, view_set_graph(d->view, result))
OPTIONAL_HANDLER(on_exports, view_set_exports(d->view, result))
OPTIONAL_HANDLER(on_iothreads, d->iothreads = json_array_size(result) > 0)

static bool set_uuid(Domain *d, const json_t *result) {
    const char *uuid = json_string_value(json_object_get(result, "UUID"));

    if (!uuid || !string_is_printable(uuid) || g_str_equal(uuid, d->uuid))
        return false;
    g_free(d->uuid);
    d->uuid = g_strdup(uuid);
    d->dirty = true;
    d->hooks.changed(d, DOMAIN_CHANGED_UUID, d->userdata);
    return true;
}
REPLY_HANDLER(on_uuid, set_uuid(d, result))

void domain_set_version(Domain *d, const char *version) {
    if (g_str_equal(d->version, version))
        return;
    g_free(d->version);
    d->version = g_strdup(version);
    d->hooks.changed(d, DOMAIN_CHANGED_VERSION, d->userdata);
}

static void read_version(Domain *d, json_t *result) {
    g_autofree char *version = NULL;
    int major, minor, micro;

    if (json_unpack(result, "{s:{s:i,s:i,s:i}}", "qemu", "major", &major, "minor", &minor, "micro",
                    &micro) < 0)
        return;
    version = g_strdup_printf("%d.%d.%d", major, minor, micro);
    domain_set_version(d, version);
}
REPLY_HANDLER(on_version, read_version(d, result))

static void set_qemu_name(Domain *d, const json_t *result) {
    const char *name = json_string_value(json_object_get(result, "name"));

    g_free(d->qemu_name);
    d->qemu_name = g_strdup(name && string_is_printable(name) ? name : "");
}
REPLY_HANDLER(on_name, set_qemu_name(d, result))

static void look_send_all(Domain *d) {
    if (d->scope & LOOK_STATUS)
        look_send(d, "query-status", NULL, on_status);
    if (d->scope & LOOK_LIST)
        look_send(d, "query-jobs", NULL, on_jobs);
    if (d->scope & LOOK_PROGRESS)
        look_send(d, "query-block-jobs", NULL, on_block_jobs);
    if (d->scope & LOOK_BLOCK)
        look_send(d, "query-block", NULL, on_block);
    if (d->scope & LOOK_GRAPH)
        look_send(d, "x-debug-query-block-graph", NULL, on_graph);
    if (d->scope & LOOK_EXPORTS)
        look_send(d, "query-block-exports", NULL, on_exports);
    if (!d->version[0])
        look_send(d, "query-version", NULL, on_version);
    if (!d->named) {
        look_send(d, "query-uuid", NULL, on_uuid);
        look_send(d, "query-name", NULL, on_name);
        look_send(d, "query-iothreads", NULL, on_iothreads);
        d->named = true;
    }
}

static void look_begin(Domain *d) {
    if (!domain_qmp(d) || d->scope)
        return;
    /* The list of jobs is so short that it comes along. */
    d->scope = d->wanted | (d->later & LOOK_LIST) | (d->nodes_owed || !d->live ? LOOK_ALL : 0);
    d->with_nodes = d->scope & LOOK_NODES;
    if (d->with_nodes)
        d->scope |= LOOK_JOBS | LOOK_DISKS;
    d->wanted = 0;
    d->later &= ~d->scope;
    d->failed = d->answered = false;
    qmp_cork(d->qmp);
    look_send_all(d);
    qmp_uncork(d->qmp);
    if (d->failed)
        domain_forget_look(d); /* disconnected() follows */
}

void domain_look(Domain *d, unsigned scope) {
    d->wanted |= scope;
    look_begin(d);
}

static int on_leisure(sd_event_source *source, uint64_t usec, void *userdata) {
    Domain *d = userdata;

    if (d->later)
        domain_look(d, d->later);
    return 0;
}

void domain_look_later(Domain *d, unsigned scope) {
    if (!d->later)
        domain_arm_timer(d, &d->leisure, LEISURE, on_leisure);
    d->later |= scope;
}

unsigned domain_owed_look(const Domain *d) {
    return d->later;
}

static int on_poll(sd_event_source *source, uint64_t usec, void *userdata) {
    Domain *d = userdata;

    if (d->poll_interval == 0)
        return 0;
    domain_look(d, LOOK_JOBS | d->later);
    domain_arm_timer(d, &d->poll, d->poll_interval, on_poll);
    return 0;
}

void domain_set_poll(Domain *d, uint64_t interval) {
    if (interval == d->poll_interval)
        return;
    d->poll_interval = interval;
    if (interval > 0)
        domain_arm_timer(d, &d->poll, interval, on_poll);
    else if (d->poll)
        sd_event_source_set_enabled(d->poll, SD_EVENT_OFF);
}

int domain_send(Domain *d, QmpSlot **ret_slot, const char *command, json_t *arguments, int fd,
                QmpReplyFunc callback, void *userdata) {
    if (!d->qmp) {
        json_decref(arguments);
        fd_close(fd);
        return -ENOTCONN;
    }
    return qmp_send(d->qmp, ret_slot, command, arguments, fd, d->qmp_timeout, callback, userdata);
}

/* ── events: only hints to look ── */

/* Which look a change of a job's status is worth. Our own jobs are dismissed by us, and known to be gone then. */
static unsigned job_event_scope(const json_t *data) {
    const char *status = json_string_value(json_object_get(data, "status"));
    const char *id = json_string_value(json_object_get(data, "id"));
    bool ours = id && g_str_has_prefix(id, "bj-");

    if (!status || !id)
        return 0;
    if (g_str_equal(status, "ready"))
        return LOOK_LIST;
    if (g_str_equal(status, "pending")) /* a creation passes by there on its way to its end */
        return ours && g_str_has_suffix(id, "-c") ? 0 : LOOK_LIST;
    if (g_str_equal(
            status,
            "concluded")) /* what else one of ours has changed is looked at when it is cleaned up */
        return !ours                        ? LOOK_LIST | LOOK_DISKS
               : g_str_has_suffix(id, "-c") ? LOOK_LIST
                                            : LOOK_LIST | LOOK_BLOCK;
    if (g_str_equal(status, "null") || (g_str_equal(status, "running") && !ours))
        return ours ? 0 : LOOK_ALL;
    return 0; /* paused, standby, waiting flicker whenever anything drains */
}

static unsigned event_scope(const char *name, const json_t *data) {
    static const struct {
        const char *name;
        unsigned scope;
    } events[] = {
        {"STOP", LOOK_STATUS},
        {"RESUME", LOOK_STATUS},
        {"SHUTDOWN", LOOK_STATUS},
        {"GUEST_PANICKED", LOOK_STATUS},
        {"SUSPEND", LOOK_STATUS},
        {"WAKEUP", LOOK_STATUS},
        {"BLOCK_EXPORT_DELETED", LOOK_EXPORTS},
        {"BLOCK_IO_ERROR", LOOK_JOBS},
        {"BLOCK_JOB_ERROR", LOOK_JOBS},
        {"DEVICE_DELETED", LOOK_ALL},
        {"DEVICE_TRAY_MOVED", LOOK_ALL},
    };

    if (g_str_equal(name, "JOB_STATUS_CHANGE"))
        return job_event_scope(data);
    for (size_t i = 0; i < G_N_ELEMENTS(events); i++)
        if (g_str_equal(events[i].name, name))
            return events[i].scope;
    return 0;
}

void domain_hear(QmpClient *c, const char *name, json_t *data, uint64_t timestamp, void *userdata) {
    Domain *d = userdata;
    unsigned scope = event_scope(name, data);

    if (g_str_equal(name, "STOP"))
        d->stopped_at = timestamp;
    else if (g_str_equal(name, "RESUME"))
        d->resumed_at = timestamp;
    /* QEMU's main loop sends events and executes commands, so that a look without an answer yet comes after this. Only
     * "ready" may come from the thread of a disk and overtake an answer: the next poll sees it. */
    if (d->scope && !d->answered)
        scope &= ~d->scope;
    if (scope)
        domain_look(d, scope);
}

/* ── life ── */

void domain_rename(Domain *d, const char *name) {
    char *fresh = g_strdup(name);

    g_free(d->name);
    free(d->path);
    d->name = fresh;
    d->path = NULL;
    sd_bus_path_encode("/org/blockjob1/domain", d->name, &d->path);
}

static Domain *domain_alloc(sd_event *event, Journal *journal, const DomainParams *p,
                            const DomainHooks *hooks, void *userdata) {
    Domain *d = g_new0(Domain, 1);

    d->event = event;
    d->journal = journal;
    d->hooks = *hooks;
    d->userdata = userdata;
    d->name = g_strdup(p->name);
    d->uuid = g_strdup("00000000-0000-0000-0000-000000000000");
    d->qemu_name = g_strdup("");
    d->version = g_strdup("");
    d->trouble = g_strdup("");
    d->qmp_timeout = p->qmp_timeout;
    d->greeting_timeout = p->greeting_timeout;
    d->reconnect_max = p->reconnect_max;
    link_init(d);
    d->view = view_new();
    d->slots = g_ptr_array_new();
    d->stale_fdsets = g_array_new(false, false, sizeof(int64_t));
    d->disks = g_ptr_array_new();
    d->owner_jobs = g_ptr_array_new();
    d->disk_names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    d->named_nodes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, named_node_free);
    sd_bus_path_encode("/org/blockjob1/domain", d->name, &d->path);
    return d;
}

int domain_new(sd_event *event, Journal *journal, const DomainParams *p, const DomainHooks *hooks,
               void *userdata, Domain **ret) {
    g_autoptr(Domain) d = domain_alloc(event, journal, p, hooks, userdata);
    int r;

    d->socket = g_strdup(p->socket);
    d->definition = g_strdup(p->definition);
    d->automatic = p->automatic;
    if (p->fd >= 0) {
        r = link_adopt(d, p->fd, false);
        if (r < 0)
            return r;
    } else
        link_connect(d);
    *ret = g_steal_pointer(&d);
    return 0;
}

int domain_restore(sd_event *event, Journal *journal, const DomainParams *p, const char *document,
                   const DomainHooks *hooks, void *userdata, Domain **ret) {
    g_autoptr(Domain) d = domain_alloc(event, journal, p, hooks, userdata);

    if (!record_parse(d, document))
        return -EBADMSG;
    d->process_gone = instance_is_gone(&d->instance);
    *ret = g_steal_pointer(&d);
    return 0;
}

void domain_connect(Domain *d, int fd) {
    if (fd >= 0 && link_adopt(d, fd, true) == 0)
        return;
    if (d->socket[0])
        link_connect(d);
    else
        domain_set_state(d, DOMAIN_DISCONNECTED,
                         "its QMP socket came as a descriptor, and the connection is lost");
}

void domain_set_timeouts(Domain *d, uint64_t qmp_timeout, uint64_t greeting_timeout,
                         uint64_t reconnect_max) {
    d->qmp_timeout = qmp_timeout;
    d->greeting_timeout = greeting_timeout;
    d->reconnect_max = reconnect_max;
}

Domain *domain_free(Domain *d) {
    if (!d)
        return NULL;
    domain_forget_look(d);
    link_clear(d);
    sd_event_source_disable_unref(d->poll);
    sd_event_source_disable_unref(d->leisure);
    sd_event_source_disable_unref(d->patrol);
    sd_event_source_disable_unref(d->retry);
    disks_free(d);
    g_ptr_array_unref(d->disks);
    g_ptr_array_unref(d->owner_jobs);
    g_ptr_array_unref(d->slots);
    g_array_unref(d->stale_fdsets);
    g_hash_table_unref(d->disk_names);
    g_hash_table_unref(d->named_nodes);
    view_free(d->view);
    g_free(d->name);
    g_free(d->qemu_name);
    g_free(d->uuid);
    g_free(d->socket);
    g_free(d->definition);
    g_free(d->version);
    g_free(d->trouble);
    free(d->path);
    g_free(d);
    return NULL;
}
