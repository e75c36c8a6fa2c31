/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What test-auth stands on: a private dbus-daemon, connections of several uids on one event loop, and a polkit authority
 * that answers as the test says and remembers what it was asked. */

#include <glib.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "auth/auth.h"
#include "log.h"
#include "util.h"

/* Two users of every Debian that are not root: the bus turns away a uid that has no name. */
#define ALICE ((uid_t) 1)
#define BOB ((uid_t) 2)
#define DEADLINE (60 * USEC_PER_SEC)

typedef enum {
    SAY_NO,
    SAY_YES,
    SAY_CHALLENGE,
    SAY_DISMISSED,
    SAY_ERROR,
    SAY_GARBAGE,
    SAY_NOTHING
} Script;

/* One call of CheckAuthorization as the authority got it. */
typedef struct {
    sd_bus_message *message;
    char *subject, *action, *cancel_id;
    GHashTable *details;
    uint32_t flags;
} Asked;

static struct {
    char *dir;
    GPid daemon;
    char *address;
    sd_event *event;
    sd_bus *service, *authority;
    Auth *auth;
    Script script[_AUTH_MAX];
    GPtrArray *asked;     /* Asked* */
    GPtrArray *cancelled; /* cancellation ids */
    unsigned effects;     /* what the service has done */
    unsigned visits;      /* how often its handler ran */
    const char *suffix;   /* of the target that the handler asks about */
    bool forgetful;       /* the handler asks only on its first visit */
} t;

typedef struct {
    sd_bus_message *message;
    bool done;
} Answer;

static void asked_free(Asked *a) {
    sd_bus_message_unref(a->message);
    g_hash_table_unref(a->details);
    g_free(a->subject);
    g_free(a->action);
    g_free(a->cancel_id);
    g_free(a);
}

static void answer_clear(Answer *a) {
    a->message = sd_bus_message_unref(a->message);
    a->done = false;
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Answer, answer_clear)

static void ok(int r) {
    if (r < 0)
        g_error("unexpected: %s", g_strerror(-r));
}

#define WAIT_UNTIL(condition)                                                                      \
    for (uint64_t wait_end = now_monotonic() + DEADLINE; !(condition);) {                          \
        if (now_monotonic() > wait_end)                                                            \
            g_error("line %i: did not come true: %s", __LINE__, #condition);                       \
        ok(sd_event_run(t.event, 100 * USEC_PER_MSEC));                                            \
    }

/* ---- connections ---- */

/* The bus takes the uid from the socket's peer credentials, which the kernel notes in connect(2). */
static sd_bus *connect_as(uid_t uid) {
    sd_bus *bus = NULL;

    ok(sd_bus_new(&bus));
    ok(sd_bus_set_address(bus, t.address));
    ok(sd_bus_set_bus_client(bus, true));
    g_assert_cmpint(seteuid(uid), ==, 0);
    ok(sd_bus_start(bus));
    g_assert_cmpint(seteuid(0), ==, 0);
    ok(sd_bus_attach_event(bus, t.event, 0));
    return bus;
}

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Answer *a = userdata;
    a->message = sd_bus_message_ref(m);
    a->done = true;
    return 0;
}

static sd_bus_message *new_call(sd_bus *bus, const char *method) {
    sd_bus_message *m = NULL;
    ok(sd_bus_message_new_method_call(bus, &m, "org.blockjob1", "/test", "org.blockjob1.Test",
                                      method));
    return m;
}

static void send_call(sd_bus *bus, sd_bus_message *m, Answer *a) {
    answer_clear(a);
    ok(sd_bus_call_async(bus, NULL, m, on_reply, a, DEADLINE));
    sd_bus_message_unref(m);
}

static void send_do(sd_bus *bus, AuthAction action, bool interactive, Answer *a) {
    sd_bus_message *m = new_call(bus, "Do");
    ok(sd_bus_message_append(m, "u", (uint32_t) action));
    ok(sd_bus_message_set_allow_interactive_authorization(m, interactive));
    send_call(bus, m, a);
}

static void do_and_wait(uid_t uid, AuthAction action, bool interactive, Answer *a) {
    sd_bus *bus = connect_as(uid);
    send_do(bus, action, interactive, a);
    WAIT_UNTIL(a->done);
    sd_bus_flush_close_unref(bus);
}

static void assert_allowed(const Answer *a) {
    g_assert_true(a->done);
    if (sd_bus_message_is_method_error(a->message, NULL))
        g_error("refused: %s", sd_bus_message_get_error(a->message)->message);
}

static void assert_refused(const Answer *a, FailureKind kind, const char *words) {
    const sd_bus_error *e;

    g_assert_true(a->done);
    e = sd_bus_message_get_error(a->message);
    g_assert_nonnull(e);
    g_assert_cmpstr(e->name, ==, failure_name(kind));
    if (!strstr(e->message, words))
        g_error("\"%s\" does not say \"%s\"", e->message, words);
}

static const Asked *last_asked(void) {
    g_assert_cmpuint(t.asked->len, >, 0);
    return t.asked->pdata[t.asked->len - 1];
}

/* ---- the authority ---- */

static int say(sd_bus_message *m, Script script) {
    switch (script) {
    case SAY_NO:
        return sd_bus_reply_method_return(m, "(bba{ss})", 0, 0, 0);
    case SAY_YES:
        return sd_bus_reply_method_return(m, "(bba{ss})", 1, 0, 1, "polkit.retains", "1");
    case SAY_CHALLENGE:
        return sd_bus_reply_method_return(m, "(bba{ss})", 0, 1, 0);
    case SAY_DISMISSED:
        return sd_bus_reply_method_return(m, "(bba{ss})", 0, 0, 1, "polkit.dismissed", "true");
    case SAY_ERROR:
        return sd_bus_reply_method_errorf(m, "org.freedesktop.PolicyKit1.Error.Failed",
                                          "Action is not registered, secret of the host");
    case SAY_GARBAGE:
        return sd_bus_reply_method_return(m, "(bbs)", 1, 0, "yes");
    case SAY_NOTHING:
        break;
    }
    return 1;
}

static int on_check(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    Asked *a = g_new0(Asked, 1);
    const char *kind, *key, *value, *action, *cancel_id;

    ok(sd_bus_message_enter_container(m, 'r', "sa{sv}"));
    ok(sd_bus_message_read(m, "s", &kind));
    g_assert_cmpstr(kind, ==, "system-bus-name");
    ok(sd_bus_message_read(m, "a{sv}", 1, &key, "s", &value));
    g_assert_cmpstr(key, ==, "name");
    ok(sd_bus_message_exit_container(m));
    a->subject = g_strdup(value);
    ok(sd_bus_message_read(m, "s", &action));
    a->action = g_strdup(action);
    a->details = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    ok(sd_bus_message_enter_container(m, 'a', "{ss}"));
    while (sd_bus_message_read(m, "{ss}", &key, &value) > 0)
        g_hash_table_insert(a->details, g_strdup(key), g_strdup(value));
    ok(sd_bus_message_exit_container(m));
    ok(sd_bus_message_read(m, "us", &a->flags, &cancel_id));
    a->cancel_id = g_strdup(cancel_id);
    a->message = sd_bus_message_ref(m);
    g_ptr_array_add(t.asked, a);
    for (AuthAction i = 0; i < _AUTH_MAX; i++)
        if (g_str_equal(action, auth_action_name(i)))
            return say(m, t.script[i]);
    g_error("asked about %s", action);
}

static int on_cancel(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    const char *id;

    ok(sd_bus_message_read(m, "s", &id));
    g_ptr_array_add(t.cancelled, g_strdup(id));
    return sd_bus_reply_method_return(m, NULL);
}

static const sd_bus_vtable authority_vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("CheckAuthorization", "(sa{sv})sa{ss}us", "(bba{ss})", on_check,
                  SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("CancelCheckAuthorization", "s", "", on_cancel, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END,
};

static void start_authority(Script script) {
    for (AuthAction i = 0; i < _AUTH_MAX; i++)
        t.script[i] = script;
    t.authority = connect_as(0);
    ok(sd_bus_add_object_vtable(t.authority, NULL, "/org/freedesktop/PolicyKit1/Authority",
                                "org.freedesktop.PolicyKit1.Authority", authority_vtable, NULL));
    ok(sd_bus_request_name(t.authority, "org.freedesktop.PolicyKit1", 0));
}

/* ---- the bus ---- */

static const char bus_config[] =
    "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\""
    " \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n"
    "<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>"
    "<limit name=\"max_connections_per_user\">2000</limit>"
    "<limit name=\"max_completed_connections\">3000</limit>"
    "<limit name=\"max_incomplete_connections\">2000</limit>"
    "<limit name=\"max_replies_per_connection\">5000</limit>"
    "<policy context=\"default\"><allow user=\"*\"/><allow send_type=\"signal\"/>"
    "<allow send_requested_reply=\"true\" send_type=\"method_return\"/>"
    "<allow send_requested_reply=\"true\" send_type=\"error\"/>"
    "<allow receive_type=\"method_call\"/><allow receive_type=\"method_return\"/>"
    "<allow receive_type=\"error\"/><allow receive_type=\"signal\"/>"
    "<allow send_destination=\"org.freedesktop.DBus\"/>"
    "<allow send_destination=\"org.freedesktop.PolicyKit1\"/></policy>"
    "<policy user=\"root\"><allow own=\"org.freedesktop.PolicyKit1\"/></policy>"
    "%s</busconfig>";

/* The policy that is installed, when the test knows where it is; else one that lets root own the name. */
static char *service_policy(void) {
    const char *tests = g_getenv("BLOCKJOBD_TESTS");

    if (!tests)
        return g_strdup("<policy user=\"root\"><allow own=\"org.blockjob1\"/></policy>"
                        "<policy context=\"default\">"
                        "<allow send_destination=\"org.blockjob1\"/></policy>");
    return g_strdup_printf("<include>%s/../../units/org.blockjob1.conf</include>", tests);
}

static void die_with_parent(gpointer unused) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void setup(void) {
    g_autofree char *config = NULL, *path = NULL, *option = NULL;
    g_autofree char *policy = service_policy();
    g_autoptr(GError) error = NULL;
    char line[256];
    ssize_t n;
    int out;

    memset(&t, 0, sizeof t);
    t.suffix = "new.qcow2";
    t.asked = g_ptr_array_new_with_free_func((GDestroyNotify) asked_free);
    t.cancelled = g_ptr_array_new_with_free_func(g_free);
    t.dir = g_dir_make_tmp("blockjobd-auth-XXXXXX", NULL);
    g_assert_nonnull(t.dir);
    g_assert_cmpint(chmod(t.dir, 0755), ==, 0);
    path = g_build_filename(t.dir, "bus.conf", NULL);
    config = g_strdup_printf(bus_config, t.dir, policy);
    g_assert_true(g_file_set_contents(path, config, -1, NULL));
    option = g_strconcat("--config-file=", path, NULL);
    char *argv[] = {(char *) "dbus-daemon",
                    option,
                    (char *) "--nofork",
                    (char *) "--nopidfile",
                    (char *) "--nosyslog",
                    (char *) "--print-address=1",
                    NULL};
    if (!g_spawn_async_with_pipes(NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                                  die_with_parent, NULL, &t.daemon, NULL, &out, NULL, &error))
        g_error("dbus-daemon: %s", error->message);
    n = read(out, line, sizeof line - 1);
    g_assert_cmpint(n, >, 0);
    line[n] = 0;
    t.address = g_strdup(g_strstrip(line));
    close(out);
    ok(sd_event_new(&t.event));
}

static void teardown(void) {
    g_autofree char *config = g_build_filename(t.dir, "bus.conf", NULL);
    g_autofree char *socket = g_build_filename(t.dir, "bus", NULL);

    auth_free(t.auth);
    g_ptr_array_unref(t.asked);
    g_ptr_array_unref(t.cancelled);
    sd_bus_close_unref(t.service);
    sd_bus_close_unref(t.authority);
    sd_event_unref(t.event);
    kill(t.daemon, SIGTERM);
    waitpid(t.daemon, NULL, 0);
    g_spawn_close_pid(t.daemon);
    g_remove(config);
    g_remove(socket);
    g_rmdir(t.dir);
    g_free(t.dir);
    g_free(t.address);
}
