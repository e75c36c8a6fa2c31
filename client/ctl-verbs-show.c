/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Verbs that tell of single jobs: status for people, show for programs. */

#include "ctl-format.h"
#include "ctl-job.h"
#include "ctl-terminal.h"
#include "ctl-verbs.h"

#include <pwd.h>
#include <stdio.h>
#include <string.h>

/* The job from the bus, or from the history if it is not there any more. 0 or an exit code. */
static int job_get(Ctl *ctl, uint64_t id, json_t **ret) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL, ignored = SD_BUS_ERROR_NULL;
    g_autofree char *path = job_path(id);
    g_autoptr(sd_bus_message) reply = NULL;
    g_autoptr(json_t) records = NULL;
    json_t *record;
    size_t i;
    int r = bus_properties(ctl, path, CTL_JOB, ret, &error);

    if (r >= 0)
        return 0;
    if (!error_is_no_object(&error))
        return (int) error_report(ctl, r, &error);
    r = bus_request(ctl, CTL_ROOT, CTL_MANAGER, "ListHistory", false, &reply, &ignored, "a{sv}", 1,
                    "limit", "u", (uint32_t) 10000);
    if (r >= 0)
        r = value_read(reply, &records);
    json_array_foreach (records, i, record) {
        if (value_u64(record, "id") == id) {
            *ret = job_from_history(record);
            return 0;
        }
    }
    return (int) job_error_report(ctl, id, r, &error);
}

static void line_print(const char *label, const char *text) {
    g_autofree char *clean = string_sanitize(text, 8192);

    if (*clean)
        printf("%12s: %s\n", label, clean);
}

static void time_print(const char *label, uint64_t usec, const char *more) {
    g_autofree char *time = timestamp_format(usec);
    g_autofree char *text = g_strdup_printf("%s%s", time, more);

    if (usec)
        line_print(label, text);
}

static char *owner_text(const json_t *job) {
    uint64_t uid = value_u64(job, "OwnerUid");
    const struct passwd *user = getpwuid((uid_t) uid);

    return user ? g_strdup_printf("%s (%" PRIu64 ")", user->pw_name, uid)
                : g_strdup_printf("%" PRIu64, uid);
}

static void status_times(const json_t *job) {
    uint64_t created = value_u64(job, "Created"), finished = value_u64(job, "Finished");
    g_autofree char *took = finished > created ? duration_format(finished - created) : NULL;
    g_autofree char *more = took ? g_strdup_printf(" (took %s)", took) : g_strdup("");
    uint64_t restarts = value_u64(job, "Restarts");
    g_autofree char *survived = g_strdup_printf("%" PRIu64 " of the service survived", restarts);
    g_autofree char *stood = duration_format(value_u64(job, "GuestPaused"));

    time_print("Created", created, "");
    time_print("Ready", value_u64(job, "Ready"), "");
    time_print("Finished", finished, more);
    line_print("Guest stood", value_u64(job, "GuestPaused") ? stood : "");
    line_print("Restarts", restarts ? survived : "");
}

static void status_print(const json_t *job) {
    g_autofree char *state = job_state_text(job), *progress = job_progress_text(job);
    g_autofree char *limit = rate_format(value_u64(job, "SpeedLimit"));
    g_autofree char *owner = owner_text(job);
    g_autofree char *title =
        g_strdup_printf("%s of %s/%s", value_string(job, "Kind"), value_string(job, "DomainName"),
                        value_string(job, "Disk"));
    g_autofree char *clean = string_sanitize(title, 4096);
    const char *dot = locale_is_utf8() ? "●" : "*", *on_ready = value_string(job, "OnReady");
    const char *group = value_string(job, "Group");
    json_t *warning;
    size_t i;

    printf("%s%s%s job %" PRIu64 ": %s\n", color_start(STDOUT_FILENO, job_state_color(job)), dot,
           color_end(STDOUT_FILENO), value_u64(job, "Id"), clean);
    line_print("State", state);
    line_print("Progress", progress);
    line_print("Error", job_error(job));
    line_print("Target", value_string(job, "Target"));
    line_print("Group", strcmp(group, "/") == 0 ? "" : group);
    line_print("On ready", job_is_concluded(job) ? "" : on_ready);
    line_print("Copy mode", value_string(job, "CopyMode"));
    line_print("Speed limit", value_u64(job, "SpeedLimit") ? limit : "");
    line_print("Owner", owner);
    status_times(job);
    json_array_foreach (json_object_get(job, "Warnings"), i, warning) {
        if (json_is_string(warning))
            line_print("Warning", json_string_value(warning));
    }
}

static int job_print(Ctl *ctl, uint64_t id, bool first) {
    g_autoptr(json_t) job = NULL;
    int code = job_get(ctl, id, &job);

    if (code != 0)
        return code;
    if (ctl->options->json) {
        json_print(ctl, job);
        return 0;
    }
    if (!first)
        putchar('\n');
    status_print(job);
    return 0;
}

int verb_status(Ctl *ctl, int argc, char **argv) {
    int code = 0;
    uint64_t id;

    for (int i = 0; i < argc; i++)
        if (!job_argument(argv[i], &id))
            return CTL_USAGE;
    int r = bus_connect(ctl);
    if (r != 0)
        return r;
    for (int i = 0; i < argc; i++) {
        job_parse(argv[i], &id);
        r = job_print(ctl, id, i == 0);
        code = code ? code : r;
    }
    return code;
}

static void value_print(const Options *options, const char *name, const json_t *value) {
    g_autofree char *text = json_is_string(value) ? string_sanitize(json_string_value(value), 8192)
                            : json_is_boolean(value) ? g_strdup(json_is_true(value) ? "yes" : "no")
                                                     : NULL;
    if (!text) {
        char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        text = g_strdup(dump ? dump : "");
        free(dump);
    }
    if (options->value_only)
        printf("%s\n", text);
    else
        printf("%s=%s\n", name, text);
}

/* A list is one line for each element, so that elements may hold any character; an empty one is one
 * empty line. */
static void property_print(const Options *options, const char *name, const json_t *value) {
    json_t *element;
    size_t i;

    if (!json_is_array(value)) {
        value_print(options, name, value);
        return;
    }
    json_array_foreach (value, i, element) {
        value_print(options, name, element);
    }
    if (json_array_size(value) == 0 && !options->value_only)
        printf("%s=\n", name);
}

static int properties_print(const Ctl *ctl, const json_t *properties) {
    const Options *options = ctl->options;
    const char *name;
    json_t *value;
    int code = 0;

    if (options->property->len == 0 && options->json)
        json_print(ctl, properties);
    else if (options->property->len == 0) {
        json_object_foreach ((json_t *) properties, name, value) {
            property_print(options, name, value);
        }
    }
    for (guint i = 0; i < options->property->len; i++) {
        name = options->property->pdata[i];
        value = json_object_get(properties, name);
        if (!value) {
            complain("There is no property \"%s\".", name);
            code = CTL_USAGE;
        } else if (options->json)
            json_print(ctl, value);
        else
            property_print(options, name, value);
    }
    return code;
}

static int manager_show(Ctl *ctl) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(json_t) properties = NULL;
    int r = bus_properties(ctl, CTL_ROOT, CTL_MANAGER, &properties, &error);

    return r < 0 ? (int) error_report(ctl, r, &error) : properties_print(ctl, properties);
}

int verb_show(Ctl *ctl, int argc, char **argv) {
    int code = 0;
    uint64_t id;

    for (int i = 0; i < argc; i++)
        if (!job_argument(argv[i], &id))
            return CTL_USAGE;
    int r = bus_connect(ctl);
    if (r != 0)
        return r;
    if (argc == 0)
        return manager_show(ctl);
    for (int i = 0; i < argc; i++) {
        g_autoptr(json_t) job = NULL;
        job_parse(argv[i], &id);
        r = job_get(ctl, id, &job);
        if (r == 0 && i > 0 && !ctl->options->json)
            putchar('\n');
        if (r == 0)
            r = properties_print(ctl, job);
        code = code ? code : r;
    }
    return code;
}
