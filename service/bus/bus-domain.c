/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.blockjob1.Domain at /org/blockjob1/domain/NAME. */

#include "bus/errors.h"
#include "bus/internal.h"
#include "bus/options.h"
#include "util.h"

void domain_found(Bus *b, Domain *d) {
    b->domain = (DomainFound){
        .bus = b,
        .domain = d,
        .name = domain_name(d),
        .uuid = domain_uuid(d),
        .state = domain_state_to_string(domain_state(d)),
        .version = domain_version(d),
        .socket = domain_socket(d),
        .definition = domain_definition(d),
    };
}

/* ── properties ── */

static int get_disks(sd_bus *bus, const char *path, const char *interface, const char *property,
                     sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    GPtrArray *disks = domain_disks(((DomainFound *) userdata)->domain);
    int r = sd_bus_message_open_container(reply, 'a', "o");

    for (guint i = 0; r >= 0 && i < disks->len; i++) {
        g_autofree char *disk = disk_path(disks->pdata[i]);
        r = sd_bus_message_append_basic(reply, SD_BUS_TYPE_OBJECT_PATH, disk);
    }
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int compare_jobs(const void *a, const void *b) {
    uint64_t x = job_id(*(Job *const *) a), y = job_id(*(Job *const *) b);

    return x < y ? -1 : x > y;
}

static int get_jobs(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    DomainFound *found = userdata;
    /* Not by way of the disks: a job outlives the disk that was unplugged under it. */
    const GPtrArray *all = domain_jobs(found->domain);
    g_autoptr(GPtrArray) jobs = g_ptr_array_new();

    for (guint i = 0; i < all->len; i++)
        if (job_is_active(all->pdata[i]) && bus_has(found->bus, job_info(all->pdata[i]).path))
            g_ptr_array_add(jobs, all->pdata[i]);
    g_ptr_array_sort(jobs, compare_jobs);

    int r = sd_bus_message_open_container(reply, 'a', "o");
    for (guint i = 0; r >= 0 && i < jobs->len; i++)
        r = sd_bus_message_append_basic(reply, SD_BUS_TYPE_OBJECT_PATH,
                                        job_info(jobs->pdata[i]).path);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

const Change domain_changes[] = {
    {DOMAIN_CHANGED_STATE, "State"}, {DOMAIN_CHANGED_UUID, "UUID"},
    {DOMAIN_CHANGED_DISKS, "Disks"}, {DOMAIN_CHANGED_VERSION, "QemuVersion"},
    {DOMAIN_CHANGED_JOBS, "Jobs"},   {0, NULL},
};

/* ── methods ── */

static int method_get_xml(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    DomainFound *found = userdata;
    bool persistent;
    g_auto(Failure) f = {0};

    if (!xml_options_read(m, &persistent, &f))
        return bus_fail(error, &f);
    g_autofree char *xml = manager_domain_xml(found->bus->manager, found->domain, persistent, &f);
    if (xml && !text_is_fit(xml, SIZE_MAX - 1))
        failure_set(&f, FAILURE_NOT_SUPPORTED,
                    "The document has characters that D-Bus does not carry; read the file itself.");
    if (!xml || f.kind != FAILURE_NONE)
        return bus_fail(error, &f);
    return sd_bus_reply_method_return(m, "s", xml);
}

static int method_detach(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    DomainFound *found = userdata;
    Bus *b = found->bus;
    Domain *d = found->domain;
    bool force;
    g_auto(Failure) f = {0};

    if (!detach_options_read(m, &force, &f))
        return bus_fail(error, &f);
    const AuthRequest request = {.action = AUTH_ATTACH,
                                 .owner_uid = AUTH_NO_OWNER,
                                 .verb = "detach",
                                 .domain = domain_name(d),
                                 .domain_uuid = domain_uuid(d)};
    int r = auth_check(b->auth, m, &request, &f);
    if (r == 0)
        return 1;
    if (r < 0)
        return bus_fail(error, &f);

    g_autoptr(Call) c = call_new(b, m);
    if (!manager_detach(b->manager, d, force, call_done, c, &f))
        return bus_fail(error, &f);
    g_steal_pointer(&c);
    return 1;
}

static void disk_copy_free(void *data) {
    DiskCopy *c = data;

    copy_options_clear(&c->copy);
    g_free(c->disk);
    g_free(c);
}

/* a(ssa{sv}). NULL: *ret_errno is negative, or f says why. */
static GPtrArray *read_copies(sd_bus_message *m, int *ret_errno, Failure *f) {
    g_autoptr(GPtrArray) copies = g_ptr_array_new_with_free_func(disk_copy_free);
    const char *disk, *target;
    int r = sd_bus_message_enter_container(m, 'a', "(ssa{sv})");

    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'r', "ssa{sv}")) > 0) {
        g_auto(Failure) why = {0};
        r = sd_bus_message_read(m, "ss", &disk, &target);
        if (r < 0)
            break;
        if (copies->len == GROUP_MAX) {
            failure_set(f, FAILURE_INVALID_ARGS, "At most %d disks can be copied together.",
                        GROUP_MAX);
            return NULL;
        }
        DiskCopy *c = g_new0(DiskCopy, 1);
        copy_options_init(&c->copy);
        c->disk = g_strdup(disk);
        g_ptr_array_add(copies, c);
        if (!member_options_read(m, target, &c->copy, &why)) {
            failure_set(f, why.kind, "Disk \"%.64s\": %s", disk, why.message);
            return NULL;
        }
        r = sd_bus_message_exit_container(m);
    }
    if (r >= 0)
        r = sd_bus_message_exit_container(m);
    *ret_errno = r;
    if (r >= 0 && copies->len == 0)
        failure_set(f, FAILURE_INVALID_ARGS, "No disk is named: name one at least.");
    return r >= 0 && copies->len > 0 ? g_steal_pointer(&copies) : NULL;
}

/* Checked by their words before anybody is asked for them. */
static bool check_copies(Domain *d, GPtrArray *copies, OnReady on_ready, Failure *f) {
    for (guint i = 0; i < copies->len; i++) {
        DiskCopy *c = copies->pdata[i];
        g_auto(Failure) why = {0};
        c->copy.on_ready = on_ready;
        if (!manager_disk(d, c->disk, f))
            return false;
        if (!copy_options_check(&c->copy, &why))
            return failure_set(f, why.kind, "Disk \"%s\": %s", c->disk, why.message);
    }
    return true;
}

static int authorize_copies(Bus *b, sd_bus_message *m, Domain *d, GPtrArray *copies, Failure *f) {
    int r = 1;

    for (guint i = 0; i < copies->len && r > 0; i++) {
        const DiskCopy *c = copies->pdata[i];
        const Disk *disk = manager_disk(d, c->disk, f);
        r = disk ? bus_authorize_copy(b, m, disk, &c->copy, "copy", f) : -ENOENT;
    }
    return r;
}

static int reach_copies(Bus *b, sd_bus_message *m, uint32_t uid, Domain *d, GPtrArray *copies,
                        Failure *f) {
    g_autoptr(GPtrArray) paths = g_ptr_array_new();

    for (guint i = 0; i < copies->len; i++) {
        const DiskCopy *c = copies->pdata[i];
        const Disk *disk = manager_disk(d, c->disk, f);
        if (!disk)
            return -ENOENT;
        bus_add_copy_paths(paths, disk, &c->copy);
    }
    return bus_reach(b, m, uid, paths, f);
}

static int method_copy_disks(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    DomainFound *found = userdata;
    Bus *b = found->bus;
    Domain *d = found->domain;
    g_auto(GroupOptions) o = {0};
    g_auto(Failure) f = {0};
    uint32_t uid;
    Job *j;
    bool again;
    int r = 0;
    g_autoptr(GPtrArray) copies = read_copies(m, &r, &f);

    if (r < 0)
        return r;
    if (!copies || !group_options_read(m, &o, &f))
        return bus_fail(error, &f);
    if (bus_hold(b, d, m))
        return 1;
    if (!check_copies(d, copies, o.on_ready, &f))
        return bus_fail(error, &f);
    r = authorize_copies(b, m, d, copies, &f);
    if (r > 0)
        r = auth_sender_uid(b->auth, m, &uid, &f);
    if (r > 0)
        r = reach_copies(b, m, uid, d, copies, &f);
    if (r == 0)
        return 1;
    if (r < 0)
        return bus_fail(error, &f);

    g_autoptr(Call) c = call_new(b, m);
    if (!manager_copy_disks(b->manager, d, copies, &o, uid, bus_job_made, c, &j, &again, &f))
        return bus_fail(error, &f);
    if (again && bus_has(b, job_info(j).path))
        return sd_bus_reply_method_return(m, "to", job_id(j), job_info(j).path);
    c->new_job = job_id(j);
    g_steal_pointer(&c);
    return 1;
}

#define TEXT(name, field, flags)                                                                   \
    SD_BUS_PROPERTY(name, "s", property_get_text, offsetof(DomainFound, field), flags)

/* clang-format off */
const sd_bus_vtable domain_vtable[] = {
    SD_BUS_VTABLE_START(0),
    TEXT("Name", name, SD_BUS_VTABLE_PROPERTY_CONST),
    TEXT("UUID", uuid, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("State", state, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("QemuVersion", version, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("Socket", socket, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("Definition", definition, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Disks", "ao", get_disks, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Jobs", "ao", get_jobs, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_METHOD_WITH_ARGS("CopyDisks",
                            SD_BUS_ARGS("a(ssa{sv})", disk_target_options, "a{sv}", options),
                            SD_BUS_RESULT("t", id, "o", job),
                            method_copy_disks, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("GetXML", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("s", xml),
                            method_get_xml, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Detach", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT,
                            method_detach, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END
};
/* clang-format on */
