/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the parts of the measuring client share. It takes the times that tests/bench shows, so that
 * none of them contains an interpreter: one process for each measurement, arguments in, one JSON
 * object out. Whatever goes wrong ends it with a line on stderr and status 1. */

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#define NAME "org.blockjob1"
#define ROOT "/org/blockjob1"
#define PATIENCE_NS (60 * UINT64_C(1000000000)) /* for anything that is waited for */

uint64_t now_ns(void); /* CLOCK_MONOTONIC */
void die(const char *format, ...) G_GNUC_PRINTF(1, 2) G_GNUC_NORETURN;
/* r, or the end when it is negative. */
int must(int r, const char *what);

/* ── results ── */

/* Appends the time from since to until, in microseconds, to the array of that name in the result. */
void result_add(json_t *result, const char *name, uint64_t since, uint64_t until);
void result_add_number(json_t *result, const char *name, double number);

/* ── an own QMP connection ── */

typedef struct Qmp Qmp;
Qmp *qmp_open(const char *path);
/* Puts a command into what the next flush sends; arguments (may be NULL) are taken over. */
uint64_t qmp_put(Qmp *q, const char *command, json_t *arguments);
/* Sends it at once, behind what was put before, with a copy of fd. */
uint64_t qmp_put_fd(Qmp *q, const char *command, json_t *arguments, int fd);
void qmp_flush(Qmp *q);
/* Waits for the reply; an error of QEMU's is the end. */
void qmp_await(Qmp *q, uint64_t id);
/* Puts, sends, waits. */
void qmp_do(Qmp *q, const char *command, json_t *arguments);
/* Waits for the event whose data has id (and status, unless NULL); one that came before counts. */
void qmp_await_event(Qmp *q, const char *event, const char *id, const char *status);
void qmp_forget_events(Qmp *q);

/* ── the service ── */

/* What is known of one job, from its signals; times are 0 until it happens. */
typedef struct {
    char *path;
    uint64_t running, ready, finished;
    char result[16];
} Job;

typedef struct {
    sd_bus *bus;
    GHashTable *jobs; /* path → Job */
    unsigned n_running, n_ready, n_finished;
} Service;

/* A connection that hears of the jobs' states and ends from now on. */
Service *service_open(void);
/* A connection that hears of nothing. */
sd_bus *bus_open(void);
Job *service_job(Service *s, const char *path);
/* Dispatches until *value is at least goal. */
void service_wait(Service *s, const unsigned *value, unsigned goal, const char *what);
void service_wait_time(Service *s, const uint64_t *value, const char *what);
/* Strings of a reply that is an error. */
void reply_check(sd_bus_message *m, const char *what);

/* One call that is under way; replied is set when its reply is there. */
typedef struct {
    uint64_t replied;
    char *job; /* the object path of a Copy() */
} Pending;
void pending_clear(Pending *p);
void copy_send(Service *s, const char *disk, const char *target, Pending *p);
void pivot_send(Service *s, const char *job, Pending *p);
/* Takes a concluded job off the bus, as soon as the service lets it go. */
void job_dismiss(Service *s, const char *job);
uint64_t job_get_u64(Service *s, const char *job, const char *property);

/* ── the measurements: name, arguments ── */

int measure_latency(int argc, char **argv);
int measure_copy(int argc, char **argv);
int measure_pivot(int argc, char **argv);
int measure_managed(int argc, char **argv);
int measure_reads(int argc, char **argv);
int measure_calls(int argc, char **argv);
int measure_restart(int argc, char **argv);
/* Lines of stdin, NULL-terminated. */
char **lines_read(void);
void result_print(json_t *result);
