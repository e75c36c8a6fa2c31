/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Verbs that copy a disk, or ask whether it could be copied: copy, move, check. */

#include "ctl-format.h"
#include "ctl-verbs.h"
#include "ctl-wait.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    char *disk;   /* object path */
    char *target; /* absolute, or the name for people of a descriptor */
} CopyRequest;

static void copy_request_clear(CopyRequest *request) {
    g_free(request->disk);
    g_free(request->target);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CopyRequest, copy_request_clear)

/* The target's text for the service (with --fd only for people); NULL after a complaint. */
static char *target_text(const Ctl *ctl, const char *given) {
    int fd = options_fd(ctl->options);

    if (fd >= 0 && given)
        return g_strdup(given);
    if (fd >= 0) {
        g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
        char *name = g_file_read_link(link, NULL);
        return name && g_utf8_validate(name, -1, NULL) ? name : g_strdup("descriptor");
    }
    if (!given) {
        complain("Say where to: blockjobctl copy DOMAIN DISK TARGET.");
        return NULL;
    }
    if (!g_utf8_validate(given, -1, NULL)) {
        complain("The target's name is not UTF-8.");
        return NULL;
    }
    if (ctl->options->host && *given != '/') {
        complain("\"%s\" is a path on another host; give an absolute one.", given);
        return NULL;
    }
    char *path = path_absolute(given);
    if (!path)
        complain("The folder of \"%s\" cannot be found: %s.", given, g_strerror(errno));
    return path;
}

/* Connects and finds what is spoken of. 0 or an exit code. */
static int copy_request_fill(Ctl *ctl, int argc, char **argv, CopyRequest *request) {
    request->target = target_text(ctl, argc > 2 ? argv[2] : NULL);
    if (!request->target)
        return CTL_USAGE;
    int r = bus_connect(ctl);
    if (r == 0)
        r = bus_track_owner(ctl);
    return r != 0 ? r : disk_find(ctl, argv[0], argv[1], &request->disk);
}

static int copy_message(Ctl *ctl, void *userdata, sd_bus_message **ret) {
    const CopyRequest *request = userdata;
    int r = bus_call_new(ctl, request->disk, CTL_DISK, "Copy", ret);

    if (r >= 0)
        r = sd_bus_message_append(*ret, "s", request->target);
    return r < 0 ? r : options_append(ctl->options, *ret);
}

/* ── several disks together ── */

typedef struct {
    char *domain;       /* object path */
    GPtrArray *disks;   /* char*, names */
    GPtrArray *targets; /* char*, of each */
} GroupRequest;

static void group_request_clear(GroupRequest *request) {
    g_free(request->domain);
    g_ptr_array_unref(request->disks);
    g_ptr_array_unref(request->targets);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(GroupRequest, group_request_clear)

static int group_request_fill(Ctl *ctl, int argc, char **argv, GroupRequest *request) {
    if (options_fd(ctl->options) >= 0) {
        complain("--fd is for one disk; several disks have their targets by path.");
        return CTL_USAGE;
    }
    for (int i = 1; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        if (!equals || equals == argv[i] || !equals[1]) {
            complain("\"%s\" is not DISK=TARGET.", argv[i]);
            return CTL_USAGE;
        }
        char *target = target_text(ctl, equals + 1);
        if (!target)
            return CTL_USAGE;
        g_ptr_array_add(request->disks, g_strndup(argv[i], (gsize) (equals - argv[i])));
        g_ptr_array_add(request->targets, target);
    }
    int r = bus_connect(ctl);
    if (r == 0)
        r = bus_track_owner(ctl);
    return r != 0 ? r : domain_find(ctl, argv[0], &request->domain);
}

static int group_message(Ctl *ctl, void *userdata, sd_bus_message **ret) {
    const GroupRequest *request = userdata;
    int r = bus_call_new(ctl, request->domain, CTL_DOMAIN, "CopyDisks", ret);

    if (r >= 0)
        r = sd_bus_message_open_container(*ret, 'a', "(ssa{sv})");
    for (guint i = 0; r >= 0 && i < request->disks->len; i++) {
        r = sd_bus_message_open_container(*ret, 'r', "ssa{sv}");
        if (r >= 0)
            r = sd_bus_message_append(*ret, "ss", request->disks->pdata[i],
                                      request->targets->pdata[i]);
        if (r >= 0)
            r = options_append_part(ctl->options, *ret, false);
        if (r >= 0)
            r = sd_bus_message_close_container(*ret);
    }
    if (r >= 0)
        r = sd_bus_message_close_container(*ret);
    return r < 0 ? r : options_append_part(ctl->options, *ret, true);
}

/* ── the verbs ── */

int job_make(Ctl *ctl, CallMaker message, void *request, uint64_t *ret_id) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(sd_bus_message) reply = NULL;
    bool repeated;

    /* With an id of its own the request can be made again when the service dies over it, and is
     * still one job. */
    if (!options_get(ctl->options, "request-id")) {
        g_autofree char *uuid = g_uuid_string_random();
        g_autofree char *request_id = g_strdup_printf("ctl-%s", uuid);
        options_set(ctl->options, "request-id", request_id);
    }
    int r = bus_call_surely(ctl, message, request, &repeated, &reply, &error);
    if (r >= 0)
        r = sd_bus_message_read(reply, "to", ret_id, NULL);
    return r < 0 ? (int) error_report(ctl, r, &error) : 0;
}

int job_follow(Ctl *ctl, uint64_t id, Goal goal) {
    if (ctl->options->no_block) {
        printf("%" PRIu64 "\n", id);
        return CTL_DONE;
    }
    g_autoptr(Waiter) waiter = waiter_new(ctl, goal, EXPECT_END, true);
    waiter_add(waiter, id);
    return (int) waiter_run(waiter);
}

static int copy_disk(Ctl *ctl, int argc, char **argv, uint64_t *ret_id) {
    g_auto(CopyRequest) request = {0};
    int r = copy_request_fill(ctl, argc, argv, &request);

    return r != 0 ? r : job_make(ctl, copy_message, &request, ret_id);
}

static int copy_disks(Ctl *ctl, int argc, char **argv, uint64_t *ret_id) {
    g_auto(GroupRequest) request = {.disks = g_ptr_array_new_with_free_func(g_free),
                                    .targets = g_ptr_array_new_with_free_func(g_free)};
    int r = group_request_fill(ctl, argc, argv, &request);

    return r != 0 ? r : job_make(ctl, group_message, &request, ret_id);
}

int verb_copy(Ctl *ctl, int argc, char **argv) {
    bool group = strchr(argv[1], '=') != NULL;
    uint64_t id = 0;

    if (!group && argc > 3) {
        complain("Say DOMAIN DISK TARGET, or for several disks DOMAIN DISK=TARGET...");
        return CTL_USAGE;
    }
    int r = group ? copy_disks(ctl, argc, argv, &id) : copy_disk(ctl, argc, argv, &id);
    if (r != 0)
        return r;
    const char *on_ready = options_get(ctl->options, "on-ready");
    bool wait = !on_ready || strcmp(on_ready, "wait") == 0;
    return job_follow(ctl, id, wait ? GOAL_READY : GOAL_CONCLUDED);
}

int verb_move(Ctl *ctl, int argc, char **argv) {
    const char *on_ready = options_get(ctl->options, "on-ready");

    if (on_ready && strcmp(on_ready, "pivot") != 0) {
        complain("\"move\" is a copy with --on-ready=pivot; for --on-ready=%s say copy.", on_ready);
        return CTL_USAGE;
    }
    options_set(ctl->options, "on-ready", "pivot");
    return verb_copy(ctl, argc, argv);
}

static int check_print(const Ctl *ctl, const json_t *result, const char *target) {
    bool ok = value_bool(result, "ok");
    const char *message = value_string(result, "error-message");
    uint64_t needed = value_u64(result, "needed");
    g_autofree char *needed_text = format_bytes(needed);
    g_autofree char *free_text = format_bytes(value_u64(result, "free"));
    int code = ok ? CTL_DONE : (int) error_exit_code(value_string(result, "error-name"));

    if (ctl->options->json) {
        json_print(ctl, result);
        return code;
    }
    if (ctl->options->quiet)
        return code;
    if (ok)
        printf("The copy to %s would be accepted.\n", target);
    else
        complain("The copy would be refused: %s",
                 *message ? message : value_string(result, "error-name"));
    if (json_object_get(result, "free"))
        printf("It needs at most %s; %s are free there.\n", needed_text, free_text);
    return code;
}

int verb_check(Ctl *ctl, int argc, char **argv) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(sd_bus_message) m = NULL, reply = NULL;
    g_autoptr(json_t) result = NULL;
    g_auto(CopyRequest) request = {0};
    int r = copy_request_fill(ctl, argc, argv, &request);

    if (r != 0)
        return r;
    r = bus_call_new(ctl, request.disk, CTL_DISK, "Check", &m);
    if (r >= 0)
        r = sd_bus_message_append(m, "ss", "copy", request.target);
    if (r >= 0)
        r = options_append(ctl->options, m);
    if (r >= 0)
        r = bus_call(ctl, m, true, &reply, &error);
    if (r >= 0)
        r = value_read(reply, &result);
    return r < 0 ? (int) error_report(ctl, r, &error) : check_print(ctl, result, request.target);
}
