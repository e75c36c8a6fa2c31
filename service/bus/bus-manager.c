/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.blockjob1.Manager at /org/blockjob1. */

#include <fcntl.h>
#include <string.h>

#include "bus/errors.h"
#include "bus/internal.h"
#include "bus/options.h"
#include "log.h"
#include "util.h"

#define NAME_MAX_BYTES 128
/* Of one reply of ListHistory(); the bus daemon's own limit is 32 MiB, and who exceeds it is
 * disconnected. */
#define HISTORY_BYTES_MAX (16 * MIB)

/* ── properties ── */

static int get_version(sd_bus *bus, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    return sd_bus_message_append(reply, "s", BLOCKJOBD_VERSION);
}

static int get_features(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    static const char *const features[] = {"commit",           "copy", "definition",
                                           "journal-recovery", "pull", NULL};

    return sd_bus_message_append_strv(reply, (char **) features);
}

static int get_n_domains(sd_bus *bus, const char *path, const char *interface, const char *property,
                         sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    Bus *b = userdata;

    return sd_bus_message_append(reply, "u", b->n_domains);
}

static int get_n_active(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    Bus *b = userdata;

    return sd_bus_message_append(reply, "u", manager_n_active(b->manager));
}

static int get_journal_state(sd_bus *bus, const char *path, const char *interface,
                             const char *property, sd_bus_message *reply, void *userdata,
                             sd_bus_error *error) {
    Bus *b = userdata;
    JournalState state = journal_state(manager_journal(b->manager));

    return sd_bus_message_append(reply, "s", journal_state_to_string(state));
}

/* ── AttachDomain ── */

static bool check_attach(const char *name, const char *socket, const AttachOptions *o, Failure *f) {
    if (strlen(name) > NAME_MAX_BYTES || strchr(name, '/') || !string_is_printable(name))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The name of a domain must have at most %d bytes, no \"/\" and no "
                           "control characters; \"\" takes the name that QEMU reports.",
                           NAME_MAX_BYTES);
    if (o->fd >= 0 && *socket)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "With the option \"fd\" the qmp_socket must be \"\".");
    return o->fd >= 0 || option_check_path("qmp_socket", socket, f);
}

static void on_attached(Domain *d, const Failure *f, void *userdata) {
    Call *c = userdata;

    if (d)
        call_return(c, "o", domain_path(d));
    else
        call_fail(c, f);
}

static int method_attach_domain(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Bus *b = userdata;
    const char *name, *socket;
    g_auto(AttachOptions) o = {.fd = -1};
    g_auto(Failure) f = {0};
    autofd int fd = -1;
    int r = sd_bus_message_read(m, "ss", &name, &socket);

    if (r < 0)
        return r;
    if (!attach_options_read(m, &o, &f) || !check_attach(name, socket, &o, &f))
        return bus_fail(error, &f);

    /* The dialog names a domain, whatever happens: its name is not known before QEMU has said
     * it. */
    const AuthRequest request = {.action = AUTH_ATTACH,
                                 .owner_uid = AUTH_NO_OWNER,
                                 .verb = "attachdomain",
                                 .domain = *name ? name : "-",
                                 .target = o.fd >= 0 ? "-" : socket};
    r = auth_check(b->auth, m, &request, &f);
    if (r == 0)
        return 1;
    if (r < 0)
        return bus_fail(error, &f);

    if (o.fd >= 0) {
        fd = fcntl(o.fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            return -errno;
    }
    g_autoptr(Call) c = call_new(b, m);
    c->attaching = true;
    if (!manager_attach(b->manager, name, socket, fd, o.definition, on_attached, c, &f))
        return bus_fail(error, &f);
    fd_steal(&fd);
    g_steal_pointer(&c);
    return 1;
}

/* ── look-ups ── */

static int method_get_domain(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Bus *b = userdata;
    const char *name;
    g_auto(Failure) f = {0};
    int r = sd_bus_message_read(m, "s", &name);

    if (r < 0)
        return r;
    Domain *d = manager_domain(b->manager, name);
    if (!d || !bus_has(b, domain_path(d))) {
        g_autofree char *quoted = string_sanitize(name, NAME_MAX_BYTES);
        failure_set(&f, FAILURE_NO_SUCH_DOMAIN,
                    "There is no domain \"%s\"; attach it with AttachDomain().", quoted);
        return bus_fail(error, &f);
    }
    return sd_bus_reply_method_return(m, "o", domain_path(d));
}

static int method_get_job(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Bus *b = userdata;
    uint64_t id;
    g_auto(Failure) f = {0};
    int r = sd_bus_message_read(m, "t", &id);

    if (r < 0)
        return r;
    Job *j = manager_job(b->manager, id);
    if (!j || !bus_has(b, job_info(j).path)) {
        failure_set(&f, FAILURE_NO_SUCH_JOB,
                    "There is no job %" G_GUINT64_FORMAT
                    " on the bus; finished ones are found with ListHistory().",
                    id);
        return bus_fail(error, &f);
    }
    return sd_bus_reply_method_return(m, "o", job_info(j).path);
}

/* ── ListJobs ── */

static int by_id(const void *a, const void *b) {
    uint64_t x = job_id(*(Job *const *) a), y = job_id(*(Job *const *) b);
    return x < y ? -1 : x > y;
}

static int append_job(sd_bus_message *reply, const JobInfo *i) {
    return sd_bus_message_append(reply, "(tosssssstttt)", i->id, i->path, i->kind, i->domain_name,
                                 i->disk, i->target, i->state, i->result, i->done, i->total,
                                 i->rate, i->expected_end);
}

static int method_list_jobs(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Bus *b = userdata;
    g_autoptr(GPtrArray) jobs = g_ptr_array_new();
    g_autoptr(sd_bus_message) reply = NULL;
    GHashTableIter iter;
    void *value;
    int r = sd_bus_message_new_method_return(m, &reply);

    if (r < 0)
        return r;
    g_hash_table_iter_init(&iter, manager_jobs(b->manager));
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (bus_has(b, job_info(value).path))
            g_ptr_array_add(jobs, value);
    g_ptr_array_sort(jobs, by_id);
    r = sd_bus_message_open_container(reply, 'a', "(tosssssstttt)");
    for (guint i = 0; r >= 0 && i < jobs->len; i++) {
        JobInfo info = job_info(jobs->pdata[i]);
        r = append_job(reply, &info);
    }
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

/* ── ListHistory ── */

static int append_history_job(sd_bus_message *reply, const JournalJob *j) {
    const struct {
        const char *key, *value;
    } texts[] = {
        {"kind", j->kind},
        {"domain", j->domain},
        {"disk", j->disk},
        {"target", j->target},
        {"result", j->result},
        {"error-name", j->error_name},
        {"error-message", j->error_message},
    };
    int r = sd_bus_message_open_container(reply, 'a', "{sv}");

    for (size_t i = 0; r >= 0 && i < G_N_ELEMENTS(texts); i++)
        r = message_append_text(reply, texts[i].key, texts[i].value ? texts[i].value : "");
    if (r < 0)
        return r;
    r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}", "id", "t", j->id, "owner-uid", "u",
                              j->owner_uid, "created", "t", j->created, "finished", "t",
                              j->finished, "restarts", "u", j->restarts);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* What the row takes in a message, about. */
static uint64_t history_job_size(const JournalJob *j) {
    const char *const texts[] = {j->kind,   j->domain,     j->disk,         j->target,
                                 j->result, j->error_name, j->error_message};
    uint64_t size = 512;

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        size += texts[i] ? strnlen(texts[i], TEXT_MAX) : 0;
    return size;
}

static int reply_history(sd_bus_message *m, const GPtrArray *jobs) {
    g_autoptr(sd_bus_message) reply = NULL;
    uint64_t size = 0;
    int r = sd_bus_message_new_method_return(m, &reply);

    if (r < 0)
        return r;
    r = sd_bus_message_open_container(reply, 'a', "a{sv}");
    for (guint i = 0; r >= 0 && i < jobs->len; i++) {
        size += history_job_size(jobs->pdata[i]);
        if (size > HISTORY_BYTES_MAX)
            break;
        r = append_history_job(reply, jobs->pdata[i]);
    }
    if (r < 0)
        return r;
    r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static void on_history(int error, GPtrArray *jobs, void *userdata) {
    g_autoptr(Call) c = userdata;
    g_auto(Failure) f = {0};

    if (error < 0 || !jobs) {
        failure_set(&f, FAILURE_JOURNAL, "The history cannot be read: %s.", g_strerror(-error));
        call_fail(g_steal_pointer(&c), &f);
        return;
    }
    int r = reply_history(c->message, jobs);
    if (r < 0)
        log_warning("ListHistory() cannot be answered: %s", g_strerror(-r));
}

static int method_list_history(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Bus *b = userdata;
    g_auto(JournalFilter) filter = {0};
    g_auto(Failure) f = {0};

    if (!history_filter_read(m, &filter, &f))
        return bus_fail(error, &f);
    journal_history(manager_journal(b->manager), &filter, on_history, call_new(b, m), NULL);
    return 1;
}

static void on_export(int error, const char *text, uint64_t next, void *userdata) {
    Call *c = userdata;
    g_auto(Failure) f = {0};

    if (error >= 0) {
        call_return(c, "st", text, next);
        return;
    }
    failure_set(&f, FAILURE_JOURNAL, "The journal cannot be read: %s.", g_strerror(-error));
    call_fail(c, &f);
}

static int method_export_journal(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    const AuthRequest request = {
        .action = AUTH_EXPORT_JOURNAL, .owner_uid = AUTH_NO_OWNER, .verb = "exportjournal"};
    Bus *b = userdata;
    g_auto(Failure) f = {0};
    uint64_t after;
    int r = sd_bus_message_read(m, "t", &after);

    if (r < 0)
        return r;
    r = auth_check(b->auth, m, &request, &f);
    if (r == 0)
        return 1;
    if (r < 0)
        return bus_fail(error, &f);
    journal_export(manager_journal(b->manager), after, on_export, call_new(b, m), NULL);
    return 1;
}

static int method_get_permissions(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Bus *b = userdata;
    g_auto(Failure) f = {0};

    return auth_reply_permissions(b->auth, m, &f) < 0 ? bus_fail(error, &f) : 1;
}

/* clang-format off */
const sd_bus_vtable manager_vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Features", "as", get_features, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("NDomains", "u", get_n_domains, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("NJobsActive", "u", get_n_active, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("JournalState", "s", get_journal_state, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_METHOD_WITH_ARGS("AttachDomain",
                            SD_BUS_ARGS("s", name, "s", qmp_socket, "a{sv}", options),
                            SD_BUS_RESULT("o", domain),
                            method_attach_domain, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("GetDomain", SD_BUS_ARGS("s", name_or_uuid), SD_BUS_RESULT("o", domain),
                            method_get_domain, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("GetJob", SD_BUS_ARGS("t", id), SD_BUS_RESULT("o", job),
                            method_get_job, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("ListJobs", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(tosssssstttt)", jobs),
                            method_list_jobs, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("ListHistory", SD_BUS_ARGS("a{sv}", filter),
                            SD_BUS_RESULT("aa{sv}", jobs),
                            method_list_history, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("ExportJournal", SD_BUS_ARGS("t", after), SD_BUS_RESULT("s", part, "t", next),
                            method_export_journal, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("GetPermissions", SD_BUS_NO_ARGS, SD_BUS_RESULT("a{ss}", permissions),
                            method_get_permissions, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_SIGNAL_WITH_ARGS("JobNew", SD_BUS_ARGS("t", id, "o", job), 0),
    SD_BUS_SIGNAL_WITH_ARGS("JobFinished",
                            SD_BUS_ARGS("t", id, "o", job, "s", result, "s", error_name), 0),
    SD_BUS_VTABLE_END
};
/* clang-format on */
