/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attaching and detaching domains, by call and by the socket folder; jobs found in QEMU; domain XML. */

#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "domain/xml.h"
#include "fdstore.h"
#include "log.h"
#include "manager-internal.h"

#define NAME_MAX_BYTES 128

DomainParams manager_domain_params(const Manager *m, const char *name) {
    return (DomainParams){
        .name = name,
        .socket = "",
        .fd = -1,
        .definition = "",
        .qmp_timeout = m->config->qmp_timeout,
        .greeting_timeout = m->config->greeting_timeout,
        .reconnect_max = m->config->reconnect_max,
    };
}

bool manager_is_attached(const Manager *m, const Domain *d) {
    return g_hash_table_lookup(m->domains, domain_name(d)) == d;
}

/* ── attaching ── */

typedef struct {
    Manager *manager;
    Domain *domain; /* owned until it is attached */
    bool named;     /* by the caller; else QEMU's own name is taken */
    ManagerAttached done;
    void *userdata;
    sd_event_source *defer;
    Failure failure;
} Attaching;

static Attaching *attaching_find(Manager *m, const Domain *d) {
    for (guint i = 0; i < m->attaching->len; i++) {
        Attaching *a = m->attaching->pdata[i];
        if (a->domain == d)
            return a;
    }
    return NULL;
}

static void attaching_free(Attaching *a) {
    sd_event_source_disable_unref(a->defer);
    domain_free(a->domain);
    failure_clear(&a->failure);
    g_free(a);
}

void manager_free_attaching(Manager *m) {
    for (guint i = 0; i < m->attaching->len; i++)
        attaching_free(m->attaching->pdata[i]);
    g_ptr_array_unref(m->attaching);
}

void manager_attach_forget(Manager *m, void *userdata) {
    for (guint i = 0; i < m->attaching->len; i++) {
        Attaching *a = m->attaching->pdata[i];
        if (a->userdata == userdata)
            a->done = NULL;
    }
}

static bool check_name(const char *name, Failure *f) {
    if (!name[0] || strlen(name) > NAME_MAX_BYTES || strchr(name, '/') ||
        !string_is_printable(name))
        return failure_set(
            f, FAILURE_INVALID_ARGS,
            "name: a domain's name has 1 to %d bytes, no \"/\" and no control characters.",
            NAME_MAX_BYTES);
    return true;
}

static bool check_name_is_free(Manager *m, const char *name, Failure *f) {
    if (g_hash_table_contains(m->domains, name))
        return failure_set(
            f, FAILURE_DOMAIN_BUSY,
            "A domain \"%s\" is attached already; detach it first, or give another name.", name);
    return true;
}

static bool check_socket_is_free(Manager *m, const char *socket, Failure *f) {
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, m->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (g_str_equal(domain_socket(value), socket))
            return failure_set(f, FAILURE_DOMAIN_BUSY,
                               "The socket \"%s\" is attached already as domain \"%s\".", socket,
                               domain_name(value));
    return true;
}

static bool check_definition(const char *definition, Failure *f) {
    g_autoptr(DomainXml) xml = NULL;

    if (!definition)
        return true;
    if (definition[0] != '/')
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "definition: give an absolute path, not \"%s\".", definition);
    return domain_xml_load(definition, &xml, f);
}

/* From the loop: the domain must not be freed from inside its own hook. */
static int on_attach_failed(sd_event_source *source, void *userdata) {
    Attaching *a = userdata;
    Manager *m = a->manager;

    g_ptr_array_remove(m->attaching, a);
    if (a->done)
        a->done(NULL, &a->failure, a->userdata);
    attaching_free(a);
    return 0;
}

static void attach_fail(Attaching *a) {
    if (!a->defer)
        sd_event_add_defer(a->manager->event, &a->defer, on_attach_failed, a);
}

static void on_attach_durable(int error, void *userdata) {
    Attaching *a = userdata;
    Manager *m = a->manager;
    Domain *d = g_steal_pointer(&a->domain);

    if (error == 0 && m->face) {
        m->face->domain_added(d, m->face_data);
        manager_counts_changed(m);
    }
    if (error == 0)
        manager_store_link(d);
    if (error < 0)
        failure_set(&a->failure, FAILURE_JOURNAL, "The journal has failed; nothing was attached.");
    log_info("Domain \"%s\" attached (\"%s\").", domain_name(d), domain_socket(d));
    g_ptr_array_remove(m->attaching, a);
    if (a->done)
        a->done(error == 0 ? d : NULL, &a->failure, a->userdata);
    attaching_free(a);
    if (error == 0) /* what this QEMU runs already is seen by the next look */
        domain_look(d, LOOK_ALL);
}

/* Another attached domain that is the same process, behind another socket. */
static const Domain *find_twin(Manager *m, const Domain *d) {
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, m->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (value != d && domain_instance(d)->pid > 0 && domain_is_live(value) &&
            instance_equal(domain_instance(value), domain_instance(d)))
            return value;
    return NULL;
}

void manager_attach_looked(Manager *m, Domain *d) {
    Attaching *a = attaching_find(m, d);

    if (!a || a->defer)
        return;
    if (!a->named && domain_qemu_name(d)[0])
        domain_rename(d, domain_qemu_name(d));
    else if (!a->named) {
        failure_set(&a->failure, FAILURE_INVALID_ARGS,
                    "name: QEMU was started without -name; give the domain a name.");
        attach_fail(a);
        return;
    }
    if (!check_name(domain_name(d), &a->failure) ||
        !check_name_is_free(m, domain_name(d), &a->failure)) {
        attach_fail(a);
        return;
    }
    const Domain *twin = find_twin(m, d);
    if (twin) {
        failure_set(&a->failure, FAILURE_DOMAIN_BUSY,
                    "That QEMU is attached already as domain \"%s\"; detach it first.",
                    domain_name(twin));
        attach_fail(a);
        return;
    }
    g_hash_table_insert(m->domains, g_strdup(domain_name(d)), d);
    domain_save(d, on_attach_durable, a, NULL);
}

void manager_attach_link(Manager *m, Domain *d) {
    Attaching *a = attaching_find(m, d);

    if (!a || a->defer || domain_is_live(d))
        return;
    if (domain_state(d) == DOMAIN_UNRESPONSIVE)
        failure_set(&a->failure, FAILURE_DOMAIN_UNRESPONSIVE,
                    "Nothing useful came from %s, give the service a QMP socket of its own: %s%s",
                    domain_socket(d)[0] ? domain_socket(d) : "the descriptor", domain_trouble(d),
                    g_str_has_prefix(domain_trouble(d), "QEMU refuses") ? "" : ".");
    else
        failure_set(
            &a->failure, FAILURE_DOMAIN_NOT_RUNNING,
            "Nobody answers at \"%s\" (%s); start QEMU with -qmp unix:PATH,server=on,wait=off.",
            domain_socket(d), domain_trouble(d));
    attach_fail(a);
}

bool manager_attach(Manager *m, const char *name, const char *socket, int fd,
                    const char *definition, ManagerAttached done, void *userdata, Failure *f) {
    if ((name[0] && (!check_name(name, f) || !check_name_is_free(m, name, f))) ||
        !check_definition(definition, f))
        return false;
    if (fd < 0 && (socket[0] != '/' || !string_is_printable(socket)))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "qmp_socket: give the absolute path of a QMP socket, not \"%s\".",
                           socket);
    if (fd < 0 && !check_socket_is_free(m, socket, f))
        return false;
    if (g_hash_table_size(m->domains) + m->attaching->len >= m->config->max_domains)
        return failure_set(f, FAILURE_LIMIT_REACHED,
                           "Too many domains are attached (%u); detach some first.",
                           g_hash_table_size(m->domains));
    Attaching *a = g_new0(Attaching, 1);
    DomainParams p = manager_domain_params(m, name[0] ? name : "?");
    p.socket = fd >= 0 ? "" : socket;
    p.fd = fd;
    p.definition = definition ? definition : "";
    a->manager = m;
    a->named = name[0];
    a->done = done;
    a->userdata = userdata;
    g_ptr_array_add(m->attaching, a);
    int r = domain_new(m->event, m->journal, &p, &manager_domain_hooks, m, &a->domain);
    if (r < 0) {
        g_ptr_array_remove(m->attaching, a);
        attaching_free(a);
        return failure_set(f, FAILURE_BAD_TARGET, "The QMP socket cannot be used: %s.",
                           g_strerror(-r));
    }
    return true;
}

/* ── detaching ── */

typedef struct {
    Manager *manager;
    Domain *domain;
    JournalDone done;
    void *userdata;
} Forgetting;

/* Durable: now it leaves the bus. */
static void on_forgotten(int error, void *userdata) {
    g_autofree Forgetting *f = userdata;
    Manager *m = f->manager;
    Domain *d = f->domain;

    if (error == 0) {
        g_autoptr(GPtrArray) jobs = manager_jobs_of(d);
        GPtrArray *disks = domain_disks(d);
        for (guint i = 0; i < disks->len; i++)
            ((Disk *) disks->pdata[i])->job = NULL;
        for (guint i = 0; i < jobs->len; i++) {
            manager_forget_in_qemu(jobs->pdata[i]);
            job_abandon(jobs->pdata[i]);
        }
        if (m->face)
            m->face->domain_removed(d, m->face_data);
        log_info("Domain \"%s\" detached.", domain_name(d));
        fdstore_remove(domain_name(d));
        g_hash_table_remove(m->domains, domain_name(d));
        manager_counts_changed(m);
    }
    if (f->done)
        f->done(error, f->userdata);
}

static void forget_domain(Manager *m, Domain *d, JournalDone done, void *userdata) {
    Forgetting *f = g_new0(Forgetting, 1);

    *f = (Forgetting){m, d, done, userdata};
    domain_forget(d, on_forgotten, f);
}

bool manager_detach(Manager *m, Domain *d, bool force, JournalDone done, void *userdata,
                    Failure *f) {
    g_autoptr(GPtrArray) jobs = manager_jobs_of(d);

    if (domain_is_forgotten(d))
        return failure_set(f, FAILURE_NO_SUCH_DOMAIN, "Domain \"%s\" is being detached already.",
                           domain_name(d));
    for (guint i = 0; i < jobs->len && !force; i++)
        if (job_is_active(jobs->pdata[i]))
            return failure_set(
                f, FAILURE_DOMAIN_BUSY,
                "Job %" PRIu64
                " of domain \"%s\" is active; wait for it or cancel it, or give the option "
                "\"force\": QEMU would go on with it, and nobody would look after it.",
                job_id(jobs->pdata[i]), domain_name(d));
    for (guint i = 0; i < jobs->len; i++)
        if (job_is_switching(jobs->pdata[i]))
            return failure_set(
                f, FAILURE_DOMAIN_BUSY,
                "Job %" PRIu64
                " is switching the disk of domain \"%s\" right now; try again in a moment.",
                job_id(jobs->pdata[i]), domain_name(d));
    forget_domain(m, d, done, userdata);
    return true;
}

/* Nothing is left of an automatic domain: socket, process and unfinished jobs are gone. */
static bool is_over(Domain *d) {
    g_autoptr(GPtrArray) jobs = manager_jobs_of(d);

    if (domain_is_forgotten(d) || !domain_is_automatic(d) || domain_qmp(d) ||
        access(domain_socket(d), F_OK) == 0)
        return false;
    for (guint i = 0; i < jobs->len; i++)
        if (!job_is_released(jobs->pdata[i]))
            return false;
    return true;
}

static int on_sweep(sd_event_source *source, void *userdata) {
    Manager *m = userdata;
    g_autoptr(GPtrArray) over = g_ptr_array_new();
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, m->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (is_over(value))
            g_ptr_array_add(over, value);
    for (guint i = 0; i < over->len; i++)
        forget_domain(m, over->pdata[i], NULL, NULL);
    return 0;
}

void manager_sweep_domains_later(Manager *m) {
    if (!m->sweep)
        sd_event_add_defer(m->event, &m->sweep, on_sweep, m);
    sd_event_source_set_enabled(m->sweep, SD_EVENT_ONESHOT);
}

/* ── the socket folder ── */

typedef struct {
    Manager *manager;
    Domain *domain; /* forgotten only by a later record, so it is still there */
} Found;

/* Told when it is remembered, like a domain that was attached by call. */
static void on_found_durable(int error, void *userdata) {
    g_autofree Found *found = userdata;
    Manager *m = found->manager;

    if (error < 0)
        return;
    log_info("Domain \"%s\" found (\"%s\").", domain_name(found->domain),
             domain_socket(found->domain));
    if (m->face) {
        m->face->domain_added(found->domain, m->face_data);
        manager_counts_changed(m);
    }
}

static void attach_found(Manager *m, const char *file) {
    g_autofree char *name =
        g_str_has_suffix(file, ".sock") ? g_strndup(file, strlen(file) - strlen(".sock")) : NULL;
    g_auto(Failure) f = {0};
    struct stat st;
    Domain *d = NULL;

    if (!name || g_hash_table_contains(m->domains, name))
        return;
    g_autofree char *path = g_build_filename(m->config->socket_dir, file, NULL);
    if (stat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return;
    if (!check_name(name, &f) || g_hash_table_size(m->domains) >= m->config->max_domains) {
        log_warning("\"%s\" is not attached: %s", path,
                    f.message ? f.message : "too many domains are attached");
        return;
    }
    DomainParams p = manager_domain_params(m, name);
    p.socket = path;
    p.automatic = true;
    if (domain_new(m->event, m->journal, &p, &manager_domain_hooks, m, &d) < 0)
        return;
    g_hash_table_insert(m->domains, g_strdup(name), d);
    Found *found = g_new0(Found, 1);
    *found = (Found){m, d};
    domain_save(d, on_found_durable, found, NULL);
}

static int on_socket_folder(sd_event_source *source, const struct inotify_event *event,
                            void *userdata) {
    Manager *m = userdata;

    if (event->mask & (IN_CREATE | IN_MOVED_TO))
        attach_found(m, event->name);
    else
        manager_sweep_domains_later(m);
    return 0;
}

void manager_watch_sockets(Manager *m) {
    const char *folder = m->config->socket_dir;

    if (g_mkdir_with_parents(folder, 0755) < 0)
        log_warning("The folder \"%s\" cannot be made: %s", folder, g_strerror(errno));
    int r = sd_event_add_inotify(m->event, &m->socket_watch, folder,
                                 IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR,
                                 on_socket_folder, m);
    if (r < 0) {
        log_warning("The folder \"%s\" is not watched, domains are attached by call only: %s",
                    folder, g_strerror(-r));
        return;
    }
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir)))
        attach_found(m, name);
    manager_sweep_domains_later(m);
}

/* ── jobs that are found in QEMU ── */

static Disk *disk_of_foreign(Domain *d, const QemuJob *q) {
    GPtrArray *disks = domain_disks(d);

    for (guint i = 0; i < disks->len; i++) {
        Disk *disk = disks->pdata[i];
        if (disk->node && view_job_uses(domain_view(d), q->id, disk->node))
            return disk;
    }
    return NULL;
}

static bool is_block_job(const QemuJob *q) {
    static const char *const types[] = {"mirror", "commit", "stream", "backup"};
    return string_index(types, G_N_ELEMENTS(types), q->type) >= 0;
}

static bool is_known(const Domain *d, const char *qemu_id) {
    g_autoptr(GPtrArray) jobs = manager_jobs_of(d);

    for (guint i = 0; i < jobs->len; i++)
        if (g_str_equal(job_qemu_id(jobs->pdata[i]), qemu_id) && !job_is_released(jobs->pdata[i]))
            return true;
    return false;
}

/* Ids that QEMU tells are believed within reason only: they are never given again. */
#define ID_LEAP 1000000

/* The number of a job of ours that is known nowhere here; 0 if it is not one. */
static uint64_t lost_id(Manager *m, const QemuJob *q) {
    g_autofree char *prefix = g_strdup_printf("bj-%s-", journal_identity(m->journal));
    uint64_t id =
        g_str_has_prefix(q->id, prefix) ? g_ascii_strtoull(q->id + strlen(prefix), NULL, 10) : 0;

    return id > 0 && id <= journal_last_id(m->journal) + ID_LEAP ? id : 0;
}

static void watch_foreign(Manager *m, Domain *d, const QemuJob *q) {
    Disk *disk = disk_of_foreign(d, q);
    manager_start_job(m, foreign_new(journal_new_id(m->journal), disk, d, q), disk, NULL, NULL);
}

/* The witness in query-fdsets' answer, by the beginning that is the job's name. */
static const char *find_witness(const json_t *fdsets, const char *tag) {
    const json_t *set, *fd;
    size_t i, k;
    size_t length = strlen(tag);

    json_array_foreach (fdsets, i, set)
        json_array_foreach (json_object_get(set, "fds"), k, fd) {
            const char *opaque = json_string_value(json_object_get(fd, "opaque"));
            if (opaque && strncmp(opaque, tag, length) == 0 && opaque[length] == ' ')
                return opaque;
        }
    return NULL;
}

static void adopt_lost(Manager *m, Domain *d, const QemuJob *q, const json_t *fdsets) {
    uint64_t id = lost_id(m, q);
    Disk *disk = disk_of_foreign(d, q);
    const char *witness = find_witness(fdsets, q->id);
    Job *j = disk && !disk->job && witness && !manager_job(m, id) ? copy_adopt(id, disk, q, witness)
                                                                  : NULL;

    journal_raise_id(m->journal, id); /* its names in QEMU are taken */
    if (!j) {
        log_event(LOG_WARNING, MESSAGE_JOURNAL_CORRUPT,
                  "Domain \"%s\": QEMU runs our job \"%s\", which the journal has lost, and does "
                  "not tell enough to carry it on; it is shown and not touched.",
                  domain_name(d), q->id);
        watch_foreign(m, d, q);
        return;
    }
    log_event(LOG_WARNING, MESSAGE_JOURNAL_CORRUPT,
              "Domain \"%s\": QEMU runs our job \"%s\", which the journal has lost; it is carried "
              "on as job %" PRIu64 ".",
              domain_name(d), q->id, id);
    manager_start_job(m, j, disk, NULL, NULL);
}

/* Known here, or by the domain that is the same QEMU behind another socket. */
static bool is_ours_already(Manager *m, const Domain *d, const QemuJob *q) {
    uint64_t id = lost_id(m, q);
    const Job *known = id > 0 ? manager_job(m, id) : NULL;

    return is_known(d, q->id) || (known && job_is_active(known));
}

static bool has_ended(const QemuJob *q) {
    return q->phase == QJOB_CONCLUDED || q->phase == QJOB_FAILED;
}

static void on_fdsets(QmpClient *c, json_t *result, const QmpError *error, void *userdata) {
    Manager *m = userdata;
    GHashTableIter iter;
    void *value;

    if (error && error->error != 0)
        return; /* no answer: the next look asks again */
    g_hash_table_iter_init(&iter, m->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        GPtrArray *jobs = view_jobs(domain_view(value));
        for (guint i = 0; i < jobs->len && domain_qmp(value) == c; i++) {
            const QemuJob *q = jobs->pdata[i];
            if (is_block_job(q) && !has_ended(q) && lost_id(m, q) > 0 &&
                !is_ours_already(m, value, q))
                adopt_lost(m, value, q, result);
        }
    }
}

static void drop_over(Domain *d, const QemuJob *q) {
    g_autofree char *image = g_strconcat(q->id, "-t", NULL);

    log_notice("Domain \"%s\": QEMU's job \"%s\" is ours, over, and recorded nowhere as active; "
               "dismissed.",
               domain_name(d), q->id);
    domain_send(d, NULL, "job-dismiss", json_pack("{s:s}", "id", q->id), -1, NULL, NULL);
    copy_drop_image(d, image);
}

void manager_adopt_jobs(Manager *m, Domain *d) {
    GPtrArray *jobs = view_jobs(domain_view(d));
    bool lost = false;

    for (guint i = 0; i < jobs->len; i++) {
        const QemuJob *q = jobs->pdata[i];
        if (!is_block_job(q) || is_ours_already(m, d, q))
            continue;
        if (lost_id(m, q) > 0 && has_ended(q))
            drop_over(d, q);
        else if (lost_id(m, q) > 0)
            lost = true;
        else if (!has_ended(q))
            watch_foreign(m, d, q);
    }
    if (lost)
        domain_send(d, NULL, "query-fdsets", NULL, -1, on_fdsets, m);
}

/* ── domain XML ── */

static bool xml_set_live_disk(DomainXml *xml, const Disk *disk, Failure *f) {
    g_autoptr(GPtrArray) chain = disk_chain(disk);
    g_autofree XmlImage *images = g_new0(XmlImage, chain->len + 1);
    const Job *j = disk_job(disk);

    for (guint i = 0; i < chain->len; i++) {
        const ChainImage *image = chain->pdata[i];
        images[i] = (XmlImage){image->file, image->format};
    }
    if (chain->len > 0 &&
        !domain_xml_set_disk(xml, disk->name, images, chain->len, disk->block, true, f))
        return false;
    if (!j || !job_is_active(j) || !job_mirror_type(j))
        return true;
    XmlImage mirror = {job_target_path(j), job_target_format(j)};
    return domain_xml_set_mirror(xml, disk->name, job_mirror_type(j), &mirror,
                                 job_target_is_block(j), job_in_sync(j), f);
}

char *manager_domain_xml(Manager *m, Domain *d, bool persistent, Failure *f) {
    g_autoptr(DomainXml) xml = NULL;
    bool defined = domain_definition(d)[0];
    GPtrArray *disks = domain_disks(d);

    if (persistent && !defined) {
        failure_set(f, FAILURE_NOT_SUPPORTED,
                    "Domain \"%s\" was attached without a definition; attach it with one to have "
                    "it kept in step.",
                    domain_name(d));
        return NULL;
    }
    if (defined && !domain_xml_load(domain_definition(d), &xml, f))
        return NULL;
    if (persistent)
        return domain_xml_to_text(xml);
    if (!defined)
        xml = domain_xml_new(domain_name(d), domain_uuid(d));
    for (guint i = 0; i < disks->len; i++) {
        const Disk *disk = disks->pdata[i];
        g_auto(Failure) missing = {0};
        const char *bus = g_str_has_prefix(disk->name, "vd")   ? "virtio"
                          : g_str_has_prefix(disk->name, "fd") ? "fdc"
                                                               : "scsi";
        if (!defined)
            domain_xml_add_disk(xml, disk->name, bus, disk->read_only);
        if (!xml_set_live_disk(xml, disk, &missing) && missing.kind != FAILURE_NOT_IN_CHAIN) {
            failure_set(f, missing.kind, "%s", missing.message);
            return NULL;
        }
    }
    return domain_xml_to_text(xml);
}
