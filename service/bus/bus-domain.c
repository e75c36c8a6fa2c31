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
    g_autoptr(GPtrArray) jobs = g_ptr_array_new();
    GHashTableIter iter;
    void *j;

    /* Not by way of the disks: a job outlives the disk that was unplugged under it. */
    g_hash_table_iter_init(&iter, manager_jobs(found->bus->manager));
    while (g_hash_table_iter_next(&iter, NULL, &j))
        if (job_domain(j) == found->domain && job_is_active(j) &&
            bus_has(found->bus, job_info(j).path))
            g_ptr_array_add(jobs, j);
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
    SD_BUS_METHOD_WITH_ARGS("GetXML", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("s", xml),
                            method_get_xml, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Detach", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT,
                            method_detach, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END
};
/* clang-format on */
