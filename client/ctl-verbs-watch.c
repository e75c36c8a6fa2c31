/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verb watch: a line on standard output for each event of a job, until Ctrl-C. Follows the
 * signals of the service and goes on when it is restarted. */

#include "ctl-format.h"
#include "ctl-job.h"
#include "ctl-verbs.h"

#include <stdio.h>
#include <string.h>

#define PROGRESS_INTERVAL (5 * USEC_PER_SEC)

typedef struct {
    Ctl *ctl;
    uint64_t only;    /* the one job that is watched, 0 = all */
    bool over;        /* that job has concluded */
    bool quiet;       /* objects are being read, there is nothing to tell yet */
    GHashTable *jobs; /* object path → Watched */
    sd_bus_slot *slots[3];
    sd_bus_slot *read;
} Watch;

typedef struct {
    json_t *job;
    char *state;        /* as last told */
    uint64_t last_line; /* monotonic */
} Watched;

static void watched_free(void *data) {
    Watched *watched = data;
    json_decref(watched->job);
    g_free(watched->state);
    g_free(watched);
}

static void event_print(const Watch *w, const char *event, const json_t *job, const char *text) {
    if (w->ctl->options->json) {
        g_autoptr(json_t) line = json_object();
        json_object_set_new(line, "time", json_integer((json_int_t) now_realtime()));
        json_object_set_new(line, "event", json_string(event));
        if (job)
            json_object_set(line, "job", (json_t *) job);
        json_print(w->ctl, line);
    } else {
        g_autofree char *time = timestamp_format(now_realtime());
        g_autofree char *clean = string_sanitize(text, 8192);
        printf("%s %s\n", time, clean);
    }
    fflush(stdout);
}

static void job_event(Watch *w, const char *event, const json_t *job, const char *text) {
    g_autofree char *line =
        g_strdup_printf("job %" PRIu64 " (%s/%s): %s", value_u64(job, "Id"),
                        value_string(job, "DomainName"), value_string(job, "Disk"), text);
    event_print(w, event, job, line);
}

/* Tells what has changed since the last time, if it is worth a line. */
static void watched_tell(Watch *w, Watched *watched) {
    const json_t *job = watched->job;
    g_autofree char *state = job_state_text(job), *progress = job_progress_text(job);
    const char *error = job_error(job);
    bool new_state = g_strcmp0(state, watched->state) != 0, concluded = job_is_concluded(job);
    uint64_t now = now_monotonic();

    if (!new_state && (concluded || now < watched->last_line + PROGRESS_INTERVAL))
        return;
    const char *detail = *error ? error : concluded ? "" : progress;
    g_autofree char *text = g_strdup_printf("%s%s%s", state, *detail ? ", " : "", detail);
    job_event(w, !new_state ? "progress" : concluded ? "concluded" : "state", job, text);
    g_free(watched->state);
    watched->state = g_steal_pointer(&state);
    watched->last_line = now;
    w->over |= concluded && w->only;
}

static bool path_is_watched(const Watch *w, const char *path) {
    uint64_t id;
    return job_parse(path, &id) >= 0 && (!w->only || w->only == id);
}

/* Puts the properties of a job in place of what was known of it. */
static void watched_put(Watch *w, const char *path, json_t *properties) {
    Watched *watched = g_hash_table_lookup(w->jobs, path);

    if (!watched) {
        watched = g_new0(Watched, 1);
        g_hash_table_insert(w->jobs, g_strdup(path), watched);
        if (!w->quiet) {
            g_autofree char *text =
                g_strdup_printf("new %s to %s", value_string(properties, "Kind"),
                                value_string(properties, "Target"));
            job_event(w, "new", properties, text);
        }
    }
    json_decref(watched->job);
    watched->job = json_incref(properties);
    if (w->quiet && job_is_concluded(properties) && !w->only) {
        g_free(watched->state);
        watched->state = job_state_text(properties);
    }
    watched_tell(w, watched);
}

static int on_objects(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
    Watch *w = userdata;
    g_autoptr(json_t) objects = NULL;
    json_t *interfaces;
    const char *path;

    w->read = sd_bus_slot_unref(w->read);
    if (sd_bus_message_is_method_error(m, NULL) || value_read(m, &objects) < 0)
        return 0; /* When the service is back everything is read again. */
    w->quiet = true;
    json_object_foreach (objects, path, interfaces) {
        json_t *properties = json_object_get(interfaces, CTL_JOB);
        if (json_is_object(properties) && path_is_watched(w, path))
            watched_put(w, path, properties);
    }
    w->quiet = false;
    return 0;
}

static int objects_read(Watch *w) {
    g_autoptr(sd_bus_message) m = NULL;
    int r = bus_call_new(w->ctl, CTL_ROOT, "org.freedesktop.DBus.ObjectManager",
                         "GetManagedObjects", &m);

    w->read = sd_bus_slot_unref(w->read);
    return r < 0 ? r : sd_bus_call_async(w->ctl->bus, &w->read, m, on_objects, w, 0);
}

static int on_added(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Watch *w = userdata;
    g_autoptr(json_t) interfaces = NULL;
    const char *path;

    if (sd_bus_message_read(m, "o", &path) < 0 || value_read(m, &interfaces) < 0)
        return 0;
    json_t *properties = json_object_get(interfaces, CTL_JOB);
    /* While all objects are being read, that answer will hold this one too. */
    if (json_is_object(properties) && path_is_watched(w, path) && !w->read)
        watched_put(w, path, properties);
    return 0;
}

static int on_removed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Watch *w = userdata;
    g_autoptr(json_t) interfaces = NULL;
    const char *path;

    if (sd_bus_message_read(m, "o", &path) < 0 || !path_is_watched(w, path))
        return 0;
    Watched *watched = g_hash_table_lookup(w->jobs, path);
    if (watched) {
        job_event(w, "removed", watched->job, "taken off the bus");
        g_hash_table_remove(w->jobs, path);
        w->over |= w->only != 0;
    }
    return 0;
}

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Watch *w = userdata;
    g_autoptr(json_t) changed = NULL;
    const char *interface;
    Watched *watched = g_hash_table_lookup(w->jobs, sd_bus_message_get_path(m));

    if (!watched || w->read || sd_bus_message_read(m, "s", &interface) < 0 ||
        strcmp(interface, CTL_JOB) != 0 || value_read(m, &changed) < 0)
        return 0;
    json_object_update(watched->job, changed);
    watched_tell(w, watched);
    return 0;
}

static void on_owner(void *userdata) {
    Watch *w = userdata;

    event_print(w, w->ctl->owner ? "service-started" : "service-stopped", NULL,
                w->ctl->owner ? "the service has started" : "the service has stopped");
    if (w->ctl->owner)
        objects_read(w);
    else
        w->read = sd_bus_slot_unref(w->read);
}

static int watch_start(Watch *w) {
    sd_bus *bus = w->ctl->bus;
    int r = sd_bus_match_signal_async(bus, &w->slots[0], CTL_NAME, CTL_ROOT,
                                      "org.freedesktop.DBus.ObjectManager", "InterfacesAdded",
                                      on_added, NULL, w);
    if (r >= 0)
        r = sd_bus_match_signal_async(bus, &w->slots[1], CTL_NAME, CTL_ROOT,
                                      "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved",
                                      on_removed, NULL, w);
    if (r >= 0)
        r = sd_bus_add_match_async(bus, &w->slots[2],
                                   "type='signal',sender='" CTL_NAME "',"
                                   "path_namespace='" CTL_ROOT "/job',"
                                   "interface='org.freedesktop.DBus.Properties',"
                                   "member='PropertiesChanged'",
                                   on_changed, NULL, w);
    w->ctl->owner_changed = on_owner;
    w->ctl->owner_userdata = w;
    return r < 0 ? r : objects_read(w);
}

static void watch_clear(Watch *w) {
    w->ctl->owner_changed = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(w->slots); i++)
        sd_bus_slot_unref(w->slots[i]);
    sd_bus_slot_unref(w->read);
    g_hash_table_unref(w->jobs);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Watch, watch_clear)

/* Asks for the one job, so that a wrong number is told at once and does not look like a job in
 * which nothing happens. */
static int watch_check(Ctl *ctl, uint64_t id) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    int r = bus_request(ctl, CTL_ROOT, CTL_MANAGER, "GetJob", false, NULL, &error, "t", id);

    return r < 0 ? (int) job_error_report(ctl, id, r, &error) : 0;
}

int verb_watch(Ctl *ctl, int argc, char **argv) {
    uint64_t only = 0;

    if (argc > 0 && !job_argument(argv[0], &only))
        return CTL_USAGE;
    int r = bus_connect(ctl);
    if (r == 0)
        r = bus_track_owner(ctl);
    if (r == 0 && only)
        r = watch_check(ctl, only);
    if (r != 0)
        return r;
    g_auto(Watch) w = {
        .ctl = ctl,
        .only = only,
        .jobs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, watched_free),
    };
    r = watch_start(&w);
    while (r >= 0 && !w.over && !ctl->interrupted && !ctl->disconnected)
        r = sd_event_run(ctl->event, UINT64_MAX);
    if (r < 0 || ctl->disconnected)
        return (int) error_report(ctl, r < 0 ? r : -ENOTCONN, NULL);
    return CTL_DONE;
}
