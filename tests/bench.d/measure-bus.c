/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The service as a client sees it: calls without waiting, and the states of jobs as they are signalled. */

#include <errno.h>
#include <string.h>

#include "measure.h"

sd_bus *bus_open(void) {
    sd_bus *bus = NULL;

    must(sd_bus_open_system(&bus), "the system bus");
    return bus;
}

static void job_free(void *data) {
    Job *j = data;

    g_free(j->path);
    g_free(j);
}

Job *service_job(Service *s, const char *path) {
    Job *j = g_hash_table_lookup(s->jobs, path);

    if (!j) {
        j = g_new0(Job, 1);
        j->path = g_strdup(path);
        g_hash_table_insert(s->jobs, j->path, j);
    }
    return j;
}

static void note(uint64_t *slot, unsigned *count) {
    if (*slot > 0)
        return;
    *slot = now_ns();
    ++*count;
}

static void state_seen(Service *s, const char *path, const char *state) {
    Job *j = service_job(s, path);

    /* A tiny disk may be in sync before anybody has noticed that it was running. */
    if (strcmp(state, "running") == 0 || strcmp(state, "ready") == 0)
        note(&j->running, &s->n_running);
    if (strcmp(state, "ready") == 0)
        note(&j->ready, &s->n_ready);
}

/* The one property of a PropertiesChanged that counts here. */
static int changed_read(sd_bus_message *m, const char **ret_state) {
    const char *name;
    int r = sd_bus_message_skip(m, "s");

    if (r >= 0)
        r = sd_bus_message_enter_container(m, 'a', "{sv}");
    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = sd_bus_message_read(m, "s", &name);
        if (r >= 0)
            r = strcmp(name, "State") == 0 ? sd_bus_message_read(m, "v", "s", ret_state)
                                           : sd_bus_message_skip(m, "v");
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    return r;
}

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    const char *state = NULL;

    must(changed_read(m, &state), "PropertiesChanged");
    if (state)
        state_seen(userdata, sd_bus_message_get_path(m), state);
    return 0;
}

static int on_finished(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Service *s = userdata;
    const char *path, *result, *name;
    uint64_t id;

    must(sd_bus_message_read(m, "toss", &id, &path, &result, &name), "JobFinished");
    Job *j = service_job(s, path);
    g_strlcpy(j->result, result, sizeof j->result);
    note(&j->finished, &s->n_finished);
    return 0;
}

Service *service_open(void) {
    Service *s = g_new0(Service, 1);

    s->bus = bus_open();
    s->jobs = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, job_free);
    must(sd_bus_add_match(s->bus, NULL,
                          "type='signal',sender='" NAME "',path_namespace='" ROOT "/job',"
                          "interface='org.freedesktop.DBus.Properties',member='PropertiesChanged'",
                          on_changed, s),
         "AddMatch");
    must(sd_bus_add_match(s->bus, NULL,
                          "type='signal',sender='" NAME "',path='" ROOT "',"
                          "interface='" NAME ".Manager',member='JobFinished'",
                          on_finished, s),
         "AddMatch");
    return s;
}

/* True: something was done, or it was worth waiting for. */
static void dispatch(Service *s, uint64_t deadline, const char *what) {
    int r = must(sd_bus_process(s->bus, NULL), "the bus");

    if (r > 0)
        return;
    uint64_t now = now_ns();
    if (now >= deadline)
        die("this took too long: %s", what);
    must(sd_bus_wait(s->bus, (deadline - now) / 1000 + 1), "the bus");
}

void service_wait(Service *s, const unsigned *value, unsigned goal, const char *what) {
    uint64_t deadline = now_ns() + PATIENCE_NS;

    while (*value < goal)
        dispatch(s, deadline, what);
}

void service_wait_time(Service *s, const uint64_t *value, const char *what) {
    uint64_t deadline = now_ns() + PATIENCE_NS;

    while (*value == 0)
        dispatch(s, deadline, what);
}

void reply_check(sd_bus_message *m, const char *what) {
    const sd_bus_error *e = sd_bus_message_get_error(m);

    if (e)
        die("%s: %s: %s", what, e->name, e->message);
}

void pending_clear(Pending *p) {
    g_free(p->job);
    *p = (Pending){0};
}

static int on_copy_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Pending *p = userdata;
    const char *path;
    uint64_t id;

    reply_check(m, "Copy()");
    must(sd_bus_message_read(m, "to", &id, &path), "Copy()");
    p->replied = now_ns();
    p->job = g_strdup(path);
    return 0;
}

void copy_send(Service *s, const char *disk, const char *target, Pending *p) {
    must(sd_bus_call_method_async(s->bus, NULL, NAME, disk, NAME ".Disk", "Copy", on_copy_reply, p,
                                  "sa{sv}", target, 0),
         "Copy()");
}

static int on_pivot_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Pending *p = userdata;

    reply_check(m, "Pivot()");
    p->replied = now_ns();
    return 0;
}

void pivot_send(Service *s, const char *job, Pending *p) {
    must(sd_bus_call_method_async(s->bus, NULL, NAME, job, NAME ".Job", "Pivot", on_pivot_reply, p,
                                  "a{sv}", 0),
         "Pivot()");
}

void job_dismiss(Service *s, const char *job) {
    uint64_t deadline = now_ns() + PATIENCE_NS;

    for (;;) {
        sd_bus_error e = SD_BUS_ERROR_NULL;
        int r = sd_bus_call_method(s->bus, NAME, job, NAME ".Job", "Dismiss", &e, NULL, NULL);
        bool again = r < 0 && sd_bus_error_has_name(&e, NAME ".Error.NotReady");

        if (r < 0 && (!again || now_ns() > deadline))
            die("Dismiss(): %s", e.message);
        sd_bus_error_free(&e);
        if (r >= 0)
            return;
    }
}

uint64_t job_get_u64(Service *s, const char *job, const char *property) {
    uint64_t value = 0;

    must(sd_bus_get_property_trivial(s->bus, NAME, job, NAME ".Job", property, NULL, 't', &value),
         property);
    return value;
}
