/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A job as the client sees it, and what is said of it. */

#include "ctl-job.h"
#include "ctl-format.h"

#include <string.h>

int job_parse(const char *s, uint64_t *ret_id) {
    uint64_t id;

    if (g_str_has_prefix(s, CTL_ROOT "/job/"))
        s += strlen(CTL_ROOT "/job/");
    if (*s == 'j')
        s++;
    if (number_parse(s, &id) < 0 || id == 0)
        return -EINVAL;
    *ret_id = id;
    return 0;
}

bool job_argument(const char *s, uint64_t *ret_id) {
    if (job_parse(s, ret_id) >= 0)
        return true;
    complain("\"%s\" is no job; say 42, j42, or an object path.", s);
    return false;
}

char *job_path(uint64_t id) {
    return g_strdup_printf(CTL_ROOT "/job/j%" PRIu64, id);
}

CtlExit job_error_report(Ctl *ctl, uint64_t id, int r, const sd_bus_error *error) {
    static const char no_method[] = "org.freedesktop.DBus.Error.UnknownMethod";

    if (!error_is_no_object(error) && g_strcmp0(error->name, no_method) != 0)
        return error_report(ctl, r, error);
    complain("There is no job %" PRIu64 " on the bus; \"blockjobctl list --all\" lists the jobs, "
             "\"blockjobctl history\" the older ones.",
             id);
    return CTL_NO_OBJECT;
}

static bool state_is(const json_t *job, const char *state) {
    return strcmp(value_string(job, "State"), state) == 0;
}

bool job_is_concluded(const json_t *job) {
    return state_is(job, "concluded");
}

bool job_is_ending(const json_t *job) {
    return state_is(job, "pivoting") || state_is(job, "finishing") || state_is(job, "pending");
}

bool job_is_ready(const json_t *job) {
    static const char *const good[] = {"pivoted", "finished", "committed", "pulled"};
    const char *kind = value_string(job, "Kind");
    bool of_chain = strcmp(kind, "commit") == 0 || strcmp(kind, "pull") == 0;

    if (job_is_concluded(job))
        return string_index(good, G_N_ELEMENTS(good), value_string(job, "Result")) >= 0;
    /* Those of one phase end without having been ready. */
    if (of_chain && value_u64(job, "Ready") == 0)
        return false;
    return state_is(job, "ready") || job_is_ending(job);
}

char *job_state_text(const json_t *job) {
    const char *io = value_string(job, "IoStatus");
    bool stopped = *io && strcmp(io, "ok") != 0;

    if (job_is_concluded(job) && *value_string(job, "Result"))
        return g_strdup(value_string(job, "Result"));
    if (job_is_concluded(job))
        return g_strdup("concluded");
    return g_strdup_printf("%s%s%s", value_string(job, "State"),
                           value_bool(job, "Paused") ? ", paused" : "",
                           !stopped                      ? ""
                           : strcmp(io, "no-space") == 0 ? ", no space"
                                                         : ", I/O error");
}

Color job_state_color(const json_t *job) {
    const char *io = value_string(job, "IoStatus"), *result = value_string(job, "Result");

    if (strcmp(result, "failed") == 0 || strcmp(result, "lost") == 0)
        return COLOR_RED;
    if (strcmp(result, "cancelled") == 0)
        return COLOR_YELLOW;
    if (job_is_ready(job))
        return COLOR_GREEN;
    return (*io && strcmp(io, "ok") != 0) || value_bool(job, "Paused") ? COLOR_YELLOW : COLOR_NONE;
}

int job_percent(const json_t *job) {
    uint64_t done = value_u64(job, "Done"), total = value_u64(job, "Total");

    if (total == 0)
        return job_is_ready(job) ? 100 : -1;
    int percent = done >= total ? 100 : (int) ((long double) done * 100 / (long double) total);
    /* Everything copied once is not yet in sync. */
    return job_is_ready(job) || value_u64(job, "Ready") ? percent : MIN(percent, 99);
}

char *job_amount_text(const json_t *job) {
    uint64_t total = value_u64(job, "Total");
    g_autofree char *done_text = format_bytes(value_u64(job, "Done"));
    g_autofree char *total_text = format_bytes(total);

    return total ? g_strdup_printf("%s of %s", done_text, total_text) : g_strdup("");
}

char *job_left_text(const json_t *job) {
    uint64_t end = value_u64(job, "ExpectedEnd"), now = now_realtime();
    bool moving = state_is(job, "running") && !value_bool(job, "Paused");

    return moving && end > now + USEC_PER_SEC ? duration_format(end - now) : g_strdup("");
}

char *job_progress_text(const json_t *job) {
    g_autofree char *amount = job_amount_text(job), *left = job_left_text(job);
    g_autofree char *rate = rate_format(value_u64(job, "Rate"));
    GString *text = g_string_new(NULL);
    /* Before the copying there is nothing to tell, and after a good end nothing to doubt. */
    bool begun = state_is(job, "running") || value_u64(job, "Done") > 0;
    bool ended_well = job_is_concluded(job) && job_is_ready(job);

    if (begun && !ended_well && job_percent(job) >= 0 && *amount)
        g_string_append_printf(text, "%d %%, %s", job_percent(job), amount);
    if (state_is(job, "running") && value_u64(job, "Rate") > 0)
        g_string_append_printf(text, "%s%s", text->len ? ", " : "", rate);
    if (*left)
        g_string_append_printf(text, "%s%s left", text->len ? ", " : "", left);
    return g_string_free(text, FALSE);
}

const char *job_error(const json_t *job) {
    const char *message = value_string(job, "ErrorMessage");
    return *message ? message : value_string(job, "ErrorName");
}

char *job_sentence(const json_t *job) {
    const char *domain = value_string(job, "DomainName"), *disk = value_string(job, "Disk");
    const char *target = value_string(job, "Target"), *result = value_string(job, "Result");
    uint64_t id = value_u64(job, "Id"), paused = value_u64(job, "GuestPaused");
    const char *error = job_error(job), *colon = *error ? ": " : ".";

    if (strcmp(result, "pivoted") == 0) {
        g_autofree char *stood = duration_format(paused);
        return g_strdup_printf("Job %" PRIu64 " has pivoted: %s/%s is on %s now%s%s.", id, domain,
                               disk, target, paused ? "; the guest stood for " : "",
                               paused ? stood : "");
    }
    if (strcmp(result, "committed") == 0)
        return g_strdup_printf("Job %" PRIu64 " has committed: images of %s/%s are merged into %s.",
                               id, domain, disk, target);
    if (strcmp(result, "pulled") == 0)
        return g_strdup_printf("Job %" PRIu64 " has pulled: %s holds what %s/%s had below it.", id,
                               target, domain, disk);
    if (strcmp(result, "finished") == 0)
        return g_strdup_printf("Job %" PRIu64 " has finished: %s is a consistent copy of %s/%s.",
                               id, target, domain, disk);
    if (strcmp(result, "cancelled") == 0)
        return g_strdup_printf("Job %" PRIu64 " was cancelled; %s/%s is where it was.", id, domain,
                               disk);
    if (strcmp(result, "lost") == 0)
        return g_strdup_printf("Job %" PRIu64 " is lost, QEMU went away%s%s", id, colon, error);
    if (strcmp(result, "failed") == 0)
        return g_strdup_printf("Job %" PRIu64 " has failed%s%s", id, colon, error);
    if (state_is(job, "ready"))
        return g_strdup_printf("Job %" PRIu64 " is ready: %s follows %s/%s.", id, target, domain,
                               disk);
    g_autofree char *state = job_state_text(job);
    return g_strdup_printf("Job %" PRIu64 " is %s.", id, state);
}

json_t *job_from_history(const json_t *record) {
    static const char *const names[][2] = {
        {"id", "Id"},
        {"kind", "Kind"},
        {"domain", "DomainName"},
        {"disk", "Disk"},
        {"target", "Target"},
        {"result", "Result"},
        {"error-name", "ErrorName"},
        {"error-message", "ErrorMessage"},
        {"owner-uid", "OwnerUid"},
        {"created", "Created"},
        {"finished", "Finished"},
        {"restarts", "Restarts"},
    };
    json_t *job = json_object();

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        json_t *value = json_object_get(record, names[i][0]);
        if (value)
            json_object_set(job, names[i][1], value);
    }
    json_object_set_new(job, "State", json_string("concluded"));
    return job;
}
