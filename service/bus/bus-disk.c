/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* org.blockjob1.Disk at /org/blockjob1/domain/NAME/disk/TARGET. */

#include "bus/errors.h"
#include "bus/internal.h"
#include "bus/options.h"
#include "util.h"

static const char *or_empty(const char *s) {
    return s ? s : "";
}

void disk_found(Bus *b, Disk *disk) {
    Job *j = disk_job(disk);
    JobInfo info = {.path = "/"};

    if (j && !bus_has(b, job_info(j).path))
        j = NULL;
    if (j)
        info = job_info(j);
    b->disk = (DiskFound){
        .bus = b,
        .disk = disk,
        .name = disk->name,
        .domain = domain_path(disk->domain),
        .device = or_empty(disk->device),
        .node = or_empty(disk->node),
        .source = or_empty(disk->source),
        .format = or_empty(disk->format),
        .job = info.path,
        .mirror_target = j && job_mirror_type(j) ? info.target : "",
        .size = disk->size,
        .allocated = disk->allocated,
        .read_only = disk->read_only,
        .removable = disk->removable,
        .mirror_ready = j && job_mirror_type(j) && job_in_sync(j),
    };
}

const Change disk_changes[] = {
    {DISK_CHANGED_SOURCE, "Node"},         {DISK_CHANGED_SOURCE, "Source"},
    {DISK_CHANGED_SOURCE, "Format"},       {DISK_CHANGED_SIZE, "Size"},
    {DISK_CHANGED_READ_ONLY, "ReadOnly"},  {DISK_CHANGED_JOB, "Job"},
    {DISK_CHANGED_JOB, "MirrorTarget"},    {DISK_CHANGED_JOB, "MirrorReady"},
    {DISK_CHANGED_ALLOCATED, "Allocated"}, {0, NULL},
};

/* ── Copy ── */

int bus_authorize_copy(Bus *b, sd_bus_message *m, const Disk *disk, const CopyOptions *o,
                       const char *verb, Failure *f) {
    bool harmless =
        o->fd >= 0 ||
        (!o->existing && target_in_folders(o->target, manager_config(b->manager)->target_folders));
    AuthRequest request = {.action = harmless ? AUTH_COPY : AUTH_COPY_ANYWHERE,
                           .owner_uid = AUTH_NO_OWNER,
                           .verb = verb,
                           .domain = domain_name(disk->domain),
                           .domain_uuid = domain_uuid(disk->domain),
                           .disk = disk->name,
                           .target = o->target,
                           .target_kind = o->fd >= 0    ? "fd"
                                          : o->existing ? "file"
                                                        : "new"};
    int r = auth_check(b->auth, m, &request, f);

    if (r > 0 && o->delete_source) {
        request.action = AUTH_DELETE_IMAGE;
        r = auth_check(b->auth, m, &request, f);
    }
    return r;
}

void bus_add_copy_paths(GPtrArray *paths, const Disk *disk, const CopyOptions *o) {
    if (o->fd < 0)
        g_ptr_array_add(paths, o->target);
    if (disk->source[0] == '/')
        g_ptr_array_add(paths, disk->source);
    if (o->backing && o->backing[0] == '/')
        g_ptr_array_add(paths, o->backing);
}

static int reach_copy(Bus *b, sd_bus_message *m, uint32_t uid, const Disk *disk,
                      const CopyOptions *o, Failure *f) {
    g_autoptr(GPtrArray) paths = g_ptr_array_new();

    bus_add_copy_paths(paths, disk, o);
    return bus_reach(b, m, uid, paths, f);
}

void bus_job_made(int error, void *call) {
    Call *c = call;

    calls_answer_new_job(c->bus, c->new_job, error);
}

static int method_copy(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    DiskFound *found = userdata;
    Bus *b = found->bus;
    Disk *disk = found->disk;
    const char *target;
    uint32_t uid;
    Job *j;
    bool again;
    g_auto(CopyOptions) o;
    g_auto(Failure) f = {0};

    copy_options_init(&o);
    int r = sd_bus_message_read(m, "s", &target);
    if (r < 0)
        return r;
    if (!copy_options_read(m, target, &o, &f) || !copy_options_check(&o, &f))
        return bus_fail(error, &f);
    if (bus_hold_disk(b, disk, m))
        return 1;
    r = bus_authorize_copy(b, m, disk, &o, "copy", &f);
    if (r > 0)
        r = auth_sender_uid(b->auth, m, &uid, &f);
    if (r > 0)
        r = reach_copy(b, m, uid, disk, &o, &f);
    if (r == 0)
        return 1;
    if (r < 0)
        return bus_fail(error, &f);

    g_autoptr(Call) c = call_new(b, m);
    if (!manager_copy(b->manager, disk, &o, uid, bus_job_made, c, &j, &again, &f))
        return bus_fail(error, &f);
    if (again && bus_has(b, job_info(j).path))
        return sd_bus_reply_method_return(m, "to", job_id(j), job_info(j).path);
    c->new_job = job_id(j);
    g_steal_pointer(&c);
    return 1;
}

/* ── Commit and Pull ── */

static const char *const chain_verbs[] = {[CHAIN_COMMIT] = "commit", [CHAIN_PULL] = "pull"};

/* As authorize_copy(). */
static int authorize_chain(Bus *b, sd_bus_message *m, const Disk *disk, const ChainOptions *o,
                           const char *verb, Failure *f) {
    AuthRequest request = {.action = AUTH_COMMIT,
                           .owner_uid = AUTH_NO_OWNER,
                           .verb = verb,
                           .domain = domain_name(disk->domain),
                           .domain_uuid = domain_uuid(disk->domain),
                           .disk = disk->name};
    int r = auth_check(b->auth, m, &request, f);

    if (r > 0 && o->delete_images) {
        request.action = AUTH_DELETE_IMAGE;
        r = auth_check(b->auth, m, &request, f);
    }
    return r;
}

static int start_chain(sd_bus_message *m, DiskFound *found, ChainVerb verb, sd_bus_error *error) {
    Bus *b = found->bus;
    Disk *disk = found->disk;
    uint32_t uid;
    Job *j;
    bool again;
    g_auto(ChainOptions) o;
    g_auto(Failure) f = {0};

    chain_options_init(&o);
    if (!chain_options_read(m, verb, &o, &f) || !chain_options_check(&o, verb, &f))
        return bus_fail(error, &f);
    if (bus_hold_disk(b, disk, m))
        return 1;
    int r = authorize_chain(b, m, disk, &o, chain_verbs[verb], &f);
    if (r > 0)
        r = auth_sender_uid(b->auth, m, &uid, &f);
    if (r == 0)
        return 1;
    if (r < 0)
        return bus_fail(error, &f);

    g_autoptr(Call) c = call_new(b, m);
    if (!manager_chain(b->manager, disk, &o, verb, uid, bus_job_made, c, &j, &again, &f))
        return bus_fail(error, &f);
    if (again && bus_has(b, job_info(j).path))
        return sd_bus_reply_method_return(m, "to", job_id(j), job_info(j).path);
    c->new_job = job_id(j);
    g_steal_pointer(&c);
    return 1;
}

static int method_commit(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    return start_chain(m, userdata, CHAIN_COMMIT, error);
}

static int method_pull(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    return start_chain(m, userdata, CHAIN_PULL, error);
}

/* ── Check ── */

static int reply_check(sd_bus_message *m, bool ok, uint64_t available, uint64_t needed,
                       const Failure *f) {
    g_autoptr(sd_bus_message) reply = NULL;
    int r = sd_bus_message_new_method_return(m, &reply);

    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'a', "{sv}");
    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}", "ok", "b", (int) ok);
    if (r >= 0 && !ok)
        r = message_append_text(reply, "error-name", failure_name(f->kind));
    if (r >= 0 && !ok)
        r = message_append_text(reply, "error-message", f->message);
    if (r >= 0 && needed > 0)
        r = sd_bus_message_append(reply, "{sv}{sv}", "free", "t", available, "needed", "t", needed);
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int check_copy(sd_bus_message *m, DiskFound *found, const char *target,
                      sd_bus_error *error) {
    Bus *b = found->bus;
    Disk *disk = found->disk;
    uint32_t uid;
    uint64_t available = 0, needed = 0;
    g_auto(CopyOptions) o;
    g_auto(Failure) f = {0};

    copy_options_init(&o);
    if (!copy_options_read(m, target, &o, &f))
        return bus_fail(error, &f);
    /* Arguments that make no sense are refused; what Copy() would refuse is the answer. */
    if (!copy_options_check(&o, &f))
        return f.kind == FAILURE_INVALID_ARGS ? bus_fail(error, &f)
                                              : reply_check(m, false, 0, 0, &f);
    int r = bus_authorize_copy(b, m, disk, &o, "check", &f);
    if (r > 0)
        r = auth_sender_uid(b->auth, m, &uid, &f);
    if (r == 0)
        return 1;
    if (r < 0)
        return bus_fail(error, &f);
    r = reach_copy(b, m, uid, disk, &o, &f);
    if (r == 0)
        return 1;
    if (r < 0)
        return reply_check(m, false, 0, 0, &f);

    bool ok = manager_copy_check(b->manager, disk, &o, uid, &available, &needed, &f);
    return reply_check(m, ok, available, needed, &f);
}

static int check_chain(sd_bus_message *m, DiskFound *found, const char *target, ChainVerb verb,
                       sd_bus_error *error) {
    Bus *b = found->bus;
    Disk *disk = found->disk;
    uint32_t uid;
    g_auto(ChainOptions) o;
    g_auto(Failure) f = {0};

    chain_options_init(&o);
    if (target[0]) {
        failure_set(&f, FAILURE_INVALID_ARGS,
                    "The target of a %s is the disk's own chain: leave it empty.",
                    chain_verbs[verb]);
        return bus_fail(error, &f);
    }
    if (!chain_options_read(m, verb, &o, &f) || !chain_options_check(&o, verb, &f))
        return bus_fail(error, &f);
    int r = authorize_chain(b, m, disk, &o, "check", &f);
    if (r > 0)
        r = auth_sender_uid(b->auth, m, &uid, &f);
    if (r == 0)
        return 1;
    if (r < 0)
        return bus_fail(error, &f);

    bool ok = manager_chain_check(b->manager, disk, &o, verb, uid, &f);
    return reply_check(m, ok, 0, 0, &f);
}

static int method_check(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    static const char *const verbs[] = {"copy", "commit", "pull", NULL};
    DiskFound *found = userdata;
    const char *verb, *target;
    g_auto(Failure) f = {0};
    int r = sd_bus_message_read(m, "ss", &verb, &target);

    if (r < 0)
        return r;
    if (!option_check_word("verb", verb, verbs, &f))
        return bus_fail(error, &f);
    if (bus_hold_disk(found->bus, found->disk, m))
        return 1;
    if (g_str_equal(verb, "copy"))
        return check_copy(m, found, target, error);
    return check_chain(m, found, target, g_str_equal(verb, "pull") ? CHAIN_PULL : CHAIN_COMMIT,
                       error);
}

/* ── GetChain ── */

static int append_image(sd_bus_message *reply, uint32_t index, const ChainImage *image) {
    int r = sd_bus_message_open_container(reply, 'a', "{sv}");

    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}", "index", "u", index);
    if (r >= 0)
        r = message_append_text(reply, "node", or_empty(image->node));
    if (r >= 0)
        r = message_append_text(reply, "file", or_empty(image->file));
    if (r >= 0)
        r = message_append_text(reply, "format", or_empty(image->format));
    if (r >= 0)
        r = message_append_text(reply, "backing", or_empty(image->backing));
    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}{sv}{sv}", "size", "t", image->size, "allocated", "t",
                                  image->allocated, "read-only", "b", (int) image->read_only);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int method_get_chain(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    DiskFound *found = userdata;
    g_autoptr(sd_bus_message) reply = NULL;

    if (bus_hold_disk(found->bus, found->disk, m))
        return 1;
    g_autoptr(GPtrArray) chain = disk_chain(found->disk);
    int r = sd_bus_message_new_method_return(m, &reply);

    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'a', "a{sv}");
    for (guint i = 0; r >= 0 && i < chain->len; i++)
        r = append_image(reply, i, chain->pdata[i]);
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

#define TEXT(name, field, flags)                                                                   \
    SD_BUS_PROPERTY(name, "s", property_get_text, offsetof(DiskFound, field), flags)
#define PLAIN(name, type, field, flags)                                                            \
    SD_BUS_PROPERTY(name, type, NULL, offsetof(DiskFound, field), flags)
#define FLAG(name, field, flags)                                                                   \
    SD_BUS_PROPERTY(name, "b", property_get_bool, offsetof(DiskFound, field), flags)

/* clang-format off */
const sd_bus_vtable disk_vtable[] = {
    SD_BUS_VTABLE_START(0),
    TEXT("Name", name, SD_BUS_VTABLE_PROPERTY_CONST),
    PLAIN("Domain", "o", domain, SD_BUS_VTABLE_PROPERTY_CONST),
    TEXT("Device", device, SD_BUS_VTABLE_PROPERTY_CONST),
    TEXT("Node", node, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("Source", source, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("Format", format, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("Size", "t", size, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    FLAG("ReadOnly", read_only, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    FLAG("Removable", removable, SD_BUS_VTABLE_PROPERTY_CONST),
    PLAIN("Job", "o", job, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    TEXT("MirrorTarget", mirror_target, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    FLAG("MirrorReady", mirror_ready, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    PLAIN("Allocated", "t", allocated, SD_BUS_VTABLE_PROPERTY_EMITS_INVALIDATION),
    SD_BUS_METHOD_WITH_ARGS("Copy", SD_BUS_ARGS("s", target, "a{sv}", options),
                            SD_BUS_RESULT("t", id, "o", job),
                            method_copy, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Commit", SD_BUS_ARGS("a{sv}", options),
                            SD_BUS_RESULT("t", id, "o", job),
                            method_commit, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Pull", SD_BUS_ARGS("a{sv}", options),
                            SD_BUS_RESULT("t", id, "o", job),
                            method_pull, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("GetChain", SD_BUS_NO_ARGS, SD_BUS_RESULT("aa{sv}", chain),
                            method_get_chain, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Check", SD_BUS_ARGS("s", verb, "s", target, "a{sv}", options),
                            SD_BUS_RESULT("a{sv}", result),
                            method_check, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END
};
/* clang-format on */
