/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is shown on standard error while jobs are waited for: bars or lines. */

#include "ctl-progress.h"
#include "ctl-format.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LINE_INTERVAL (5 * USEC_PER_SEC)
#define BAR_MIN 10
#define BAR_MAX 40
/* Room kept for the words behind a bar, so that it does not jump with each of them. */
#define PROGRESS_USUAL 48

typedef struct {
    uint64_t id;
    json_t *job;
    char *state;        /* as last printed */
    uint64_t last_line; /* monotonic time of the last line of progress */
    char *last_progress;
} Shown;

struct Progress {
    bool quiet, redraws;
    GPtrArray *jobs; /* Shown */
    size_t drawn;    /* lines on the terminal that are ours */
};

static void shown_free(void *data) {
    Shown *shown = data;
    json_decref(shown->job);
    g_free(shown->state);
    g_free(shown->last_progress);
    g_free(shown);
}

Progress *progress_new(const Options *options) {
    Progress *progress = g_new0(Progress, 1);

    progress->quiet = options->quiet;
    progress->redraws = terminal_redraws(STDERR_FILENO);
    progress->jobs = g_ptr_array_new_with_free_func(shown_free);
    return progress;
}

Progress *progress_free(Progress *progress) {
    if (progress) {
        progress_clear(progress);
        g_ptr_array_unref(progress->jobs);
        g_free(progress);
    }
    return NULL;
}

void progress_clear(Progress *progress) {
    if (progress->drawn > 0)
        fprintf(stderr, "\033[%zuA\r\033[J", progress->drawn);
    progress->drawn = 0;
}

char *progress_line(const json_t *job, size_t width, bool utf8) {
    g_autofree char *state = job_state_text(job), *progress = job_progress_text(job);
    g_autofree char *left =
        g_strdup_printf("job %" PRIu64 "  %s/%s  %s", value_u64(job, "Id"),
                        value_string(job, "DomainName"), value_string(job, "Disk"), state);
    g_autofree char *clean = string_sanitize(left, 1024);
    size_t used = text_width(clean) + MAX(text_width(progress), (size_t) PROGRESS_USUAL) + 6;
    GString *line = g_string_new(clean);

    if (*progress && job_percent(job) >= 0 && width >= used + BAR_MIN) {
        size_t bar = MIN(width - used, (size_t) BAR_MAX);
        size_t full = bar * (size_t) job_percent(job) / 100;
        g_string_append(line, "  [");
        for (size_t i = 0; i < bar; i++)
            g_string_append_c(line, i < full ? '=' : i == full ? '>' : ' ');
        g_string_append_c(line, ']');
    }
    if (*progress)
        g_string_append_printf(line, "  %s", progress);
    g_autofree char *whole = g_string_free(line, FALSE);
    return text_ellipsize(whole, width, utf8);
}

static void bars_draw(Progress *progress) {
    size_t width = terminal_columns(STDERR_FILENO), rows = terminal_rows(STDERR_FILENO);
    GString *text = g_string_new(NULL);
    size_t lines = 0;

    /* One write for all, so that the terminal never shows a half of it. */
    if (progress->drawn > 0)
        g_string_append_printf(text, "\033[%zuA\r", progress->drawn);
    for (guint i = 0; i < progress->jobs->len && lines + 1 < rows; i++, lines++) {
        const Shown *shown = progress->jobs->pdata[i];
        g_autofree char *line =
            progress_line(shown->job, width > 1 ? width - 1 : 79, locale_is_utf8());
        g_string_append_printf(text, "%s%s%s\033[K\n",
                               color_start(STDERR_FILENO, job_state_color(shown->job)), line,
                               color_end(STDERR_FILENO));
    }
    g_string_append(text, "\033[J");
    fwrite(text->str, 1, text->len, stderr);
    fflush(stderr);
    progress->drawn = lines;
    g_string_free(text, TRUE);
}

static void line_print(Shown *shown) {
    g_autofree char *state = job_state_text(shown->job);
    g_autofree char *progress = job_progress_text(shown->job);
    uint64_t now = now_monotonic();
    bool new_state = g_strcmp0(state, shown->state) != 0;

    if (!new_state &&
        (now < shown->last_line + LINE_INTERVAL || g_strcmp0(progress, shown->last_progress) == 0))
        return;
    g_autofree char *text =
        g_strdup_printf("job %" PRIu64 " (%s/%s): %s%s%s", value_u64(shown->job, "Id"),
                        value_string(shown->job, "DomainName"), value_string(shown->job, "Disk"),
                        state, *progress ? ", " : "", progress);
    g_autofree char *clean = string_sanitize(text, 1024);
    fprintf(stderr, "%s\n", clean);
    g_free(shown->state);
    g_free(shown->last_progress);
    shown->state = g_steal_pointer(&state);
    shown->last_progress = g_steal_pointer(&progress);
    shown->last_line = now;
}

static Shown *shown_get(Progress *progress, uint64_t id) {
    for (guint i = 0; i < progress->jobs->len; i++) {
        Shown *shown = progress->jobs->pdata[i];
        if (shown->id == id)
            return shown;
    }
    Shown *shown = g_new0(Shown, 1);
    shown->id = id;
    g_ptr_array_add(progress->jobs, shown);
    return shown;
}

void progress_update(Progress *progress, uint64_t id, const json_t *job) {
    Shown *shown = shown_get(progress, id);

    json_decref(shown->job);
    shown->job = json_copy((json_t *) job);
    if (progress->quiet)
        return;
    if (progress->redraws)
        bars_draw(progress);
    else
        line_print(shown);
}

void progress_note(Progress *progress, const char *format, ...) {
    va_list args;

    if (progress->quiet)
        return;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *clean = string_sanitize(text, 4096);
    progress_clear(progress);
    fprintf(stderr, "%s\n", clean);
    if (progress->redraws && progress->jobs->len > 0)
        bars_draw(progress);
}
