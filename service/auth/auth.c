/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who calls, and whether polkit lets them: look-ups and checks that wait while the loop goes on.
 *
 * A Visit is a method call that had to wait once. It keeps the message alive, therefore the message's address cannot
 * become another message's while a verdict is bound to it. It ends when its handler has run without asking anything
 * more, when the caller leaves the bus, or when the queue has run empty and no handler came for it. */

#include "auth/auth.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "auth/polkit.h"
#include "log.h"
#include "util.h"

/* Uids that are remembered. */
#define SENDERS_MAX 1024
/* Calls that may wait for the bus driver to tell their sender's uid: in all and of one sender. */
#define LOOKUPS_MAX 1024
#define LOOKUPS_PER_SENDER_MAX 128
#define DETAIL_MAX 256

typedef struct {
    Auth *auth;
    GList link; /* in auth->order */
    char *name;
    bool known;
    uint32_t uid;      /* when known */
    sd_bus_slot *slot; /* the look-up that waits */
    GQueue waiting;    /* Visit*, in the order of their calls */
} Sender;

typedef struct {
    Auth *auth;
    sd_bus_message *message;
    uint64_t cookie;
    char *sender;
    Sender *lookup; /* waits for this one's uid */
    bool uid_known;
    uint32_t uid;
    Failure lookup_failure; /* the uid cannot be found: the handler is to refuse */
    bool charged;           /* counts against the limits */
    bool visited;           /* its handler has run since it was put back */
    bool held;              /* waits for something that is not asked here */
    bool permissions;       /* of GetPermissions: all actions at once, and the reply is made here */
    PolkitAnswer answers[_AUTH_MAX];
    GSList *checks;       /* Check*, waiting for polkit */
    GHashTable *verdicts; /* key of a request → Failure*, FAILURE_NONE = allowed */
} Visit;

typedef struct {
    Visit *visit;
    AuthAction action;
    char *key; /* action and details, see request_key() */
    bool interactive;
    char cancel_id[32];
    sd_bus_slot *slot;
} Check;

struct Auth {
    sd_bus *bus;
    unsigned max_per_uid, max_total;
    uint64_t timeout;
    GHashTable *visits;  /* sd_bus_message* → Visit* */
    GHashTable *senders; /* unique name → Sender* */
    GQueue order;        /* senders, oldest first */
    sd_bus_slot *left;
    sd_event_source *sweep_visited, *sweep_idle;
    uint64_t last_id;
};

static const char *const action_names[_AUTH_MAX] = {
#define X(id, name) [AUTH_##id] = name,
    AUTH_LIST(X)
#undef X
};

const char *auth_action_name(AuthAction action) {
    g_assert(action < _AUTH_MAX);
    return action_names[action];
}

static void check_free(Check *c) {
    c->visit->checks = g_slist_remove(c->visit->checks, c);
    sd_bus_slot_unref(c->slot);
    g_free(c->key);
    g_free(c);
}

static void visit_free(Visit *v) {
    if (v->lookup)
        g_queue_remove(&v->lookup->waiting, v);
    while (v->checks) {
        Check *c = v->checks->data;
        polkit_cancel(v->auth->bus, c->cancel_id);
        check_free(c);
    }
    g_clear_pointer(&v->verdicts, g_hash_table_unref);
    failure_clear(&v->lookup_failure);
    sd_bus_message_unref(v->message);
    g_free(v->sender);
    g_free(v);
}

static void visit_drop(Visit *v) {
    g_hash_table_remove(v->auth->visits, v->message);
}

static bool visit_waits(const Visit *v) {
    return v->lookup || v->checks || v->held;
}

static void verdict_free(Failure *f) {
    failure_clear(f);
    g_free(f);
}

static Visit *visit_new(Auth *a, sd_bus_message *m) {
    Visit *v = g_new0(Visit, 1);

    v->auth = a;
    v->message = sd_bus_message_ref(m);
    v->sender = g_strdup(sd_bus_message_get_sender(m));
    (void) sd_bus_message_get_cookie(m, &v->cookie);
    v->verdicts =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify) verdict_free);
    g_hash_table_insert(a->visits, m, v);
    return v;
}

/* The visit of m, marked as visited: it goes away after this dispatch unless it waits again. */
static Visit *visit_find(Auth *a, sd_bus_message *m) {
    Visit *v = g_hash_table_lookup(a->visits, m);
    uint64_t cookie = 0;

    if (!v)
        return NULL;
    (void) sd_bus_message_get_cookie(m, &cookie);
    if (cookie != v->cookie || g_strcmp0(v->sender, sd_bus_message_get_sender(m)) != 0) {
        visit_drop(v);
        return NULL;
    }
    v->visited = true;
    (void) sd_event_source_set_enabled(a->sweep_visited, SD_EVENT_ONESHOT);
    return v;
}

static void visit_put_back(Visit *v) {
    int r;

    v->visited = false;
    r = sd_bus_message_rewind(v->message, true);
    if (r >= 0)
        r = sd_bus_enqueue_for_read(v->auth->bus, v->message);
    if (r < 0) {
        log_warning("Cannot go on with a call of %s after its check: %s", v->sender,
                    g_strerror(-r));
        (void) sd_bus_reply_method_errorf(v->message, failure_name(FAILURE_LIMITS_EXCEEDED),
                                          "The service has too many calls to handle. Try again.");
        visit_drop(v);
        return;
    }
    (void) sd_event_source_set_enabled(v->auth->sweep_idle, SD_EVENT_ONESHOT);
}

static gboolean visit_is_over(gpointer message, gpointer visit, gpointer userdata) {
    const Visit *v = visit;
    return v->visited && !visit_waits(v);
}

static gboolean visit_is_forgotten(gpointer message, gpointer visit, gpointer userdata) {
    return !visit_waits(visit);
}

/* Runs in the first dispatch after the handler's. */
static int on_sweep_visited(sd_event_source *s, void *userdata) {
    Auth *a = userdata;
    g_hash_table_foreach_remove(a->visits, visit_is_over, NULL);
    return 0;
}

/* Runs at idle priority, when the bus's queue is empty: what was put back has been dispatched, but to no handler that
 * asked again (its object is gone, say). */
static int on_sweep_idle(sd_event_source *s, void *userdata) {
    Auth *a = userdata;
    g_hash_table_foreach_remove(a->visits, visit_is_forgotten, NULL);
    return 0;
}

static void sender_free(Sender *s) {
    Visit *v;

    while ((v = g_queue_pop_head(&s->waiting))) {
        v->lookup = NULL;
        visit_drop(v);
    }
    g_queue_unlink(&s->auth->order, &s->link);
    sd_bus_slot_unref(s->slot);
    g_free(s->name);
    g_free(s);
}

/* NULL when every place is taken by one whose look-up waits. */
static Sender *sender_new(Auth *a, const char *name) {
    Sender *s;

    if (g_hash_table_size(a->senders) >= SENDERS_MAX) {
        GList *l = a->order.head;
        while (l && !((Sender *) l->data)->known)
            l = l->next;
        if (!l)
            return NULL;
        g_hash_table_remove(a->senders, ((Sender *) l->data)->name);
    }
    s = g_new0(Sender, 1);
    s->auth = a;
    s->name = g_strdup(name);
    s->link.data = s;
    g_queue_init(&s->waiting);
    g_queue_push_tail_link(&a->order, &s->link);
    g_hash_table_insert(a->senders, s->name, s);
    return s;
}

/* Lets go of everything that belongs to a connection that is gone. */
static void sender_left(Auth *a, const char *name) {
    GHashTableIter i;
    gpointer v;

    g_hash_table_remove(a->senders, name);
    g_hash_table_iter_init(&i, a->visits);
    while (g_hash_table_iter_next(&i, NULL, &v))
        if (g_str_equal(((Visit *) v)->sender, name)) {
            log_debug("%s left the bus while its call waited for authorization", name);
            g_hash_table_iter_remove(&i);
        }
}

static int on_left(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    const char *name, *old_owner, *new_owner;

    if (sd_bus_message_read(m, "sss", &name, &old_owner, &new_owner) < 0)
        return 0;
    if (name[0] == ':' && !*new_owner)
        sender_left(userdata, name);
    return 0;
}

static int on_left_installed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
    if (sd_bus_message_is_method_error(m, NULL))
        log_warning("Cannot watch callers leave the bus; their checks will run to the end: %s",
                    sd_bus_message_get_error(m)->message);
    return 0;
}

static int on_uid(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    Sender *s = userdata;
    Auth *a = s->auth;
    g_autofree char *name = g_strdup(s->name);
    uint32_t uid = UINT32_MAX;
    Visit *v;

    s->slot = sd_bus_slot_unref(s->slot);
    if (sd_bus_message_is_method_error(reply, SD_BUS_ERROR_NAME_HAS_NO_OWNER)) {
        sender_left(a, name);
        return 0;
    }
    s->known = !sd_bus_message_is_method_error(reply, NULL) &&
               sd_bus_message_read(reply, "u", &uid) >= 0 && uid != UINT32_MAX;
    s->uid = uid;
    if (!s->known)
        log_warning("The bus does not tell the uid of %s; its calls are refused", name);

    while ((v = g_queue_pop_head(&s->waiting))) {
        v->lookup = NULL;
        v->uid_known = s->known;
        v->uid = uid;
        if (!s->known)
            failure_set(&v->lookup_failure, FAILURE_ACCESS_DENIED,
                        "The message bus did not tell who is calling. Try again.");
        visit_put_back(v);
    }
    if (!s->known)
        g_hash_table_remove(a->senders, name);
    return 0;
}

static unsigned count_lookups(const Auth *a) {
    unsigned n = 0;

    for (const GList *l = a->order.head; l; l = l->next)
        n += ((const Sender *) l->data)->waiting.length;
    return n;
}

static int refuse_lookup(Failure *f) {
    failure_set(f, FAILURE_LIMITS_EXCEEDED,
                "Too many calls wait to be authorized. Wait for their answers, then try again.");
    return -EBUSY;
}

/* Starts the look-up of a sender that nobody has asked about, or joins the one that waits. */
static int lookup_start(Auth *a, sd_bus_message *m, const char *name, Failure *f) {
    Sender *s = g_hash_table_lookup(a->senders, name);
    Visit *v;
    int r;

    if (count_lookups(a) >= LOOKUPS_MAX || (s && s->waiting.length >= LOOKUPS_PER_SENDER_MAX))
        return refuse_lookup(f);
    if (!s) {
        s = sender_new(a, name);
        if (!s)
            return refuse_lookup(f);
        r = sd_bus_call_method_async(a->bus, &s->slot, "org.freedesktop.DBus",
                                     "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                     "GetConnectionUnixUser", on_uid, s, "s", name);
        if (r < 0) {
            g_hash_table_remove(a->senders, name);
            failure_set(f, FAILURE_ACCESS_DENIED,
                        "The message bus cannot be asked who is calling. Try again.");
            return r;
        }
    }
    v = visit_new(a, m);
    v->lookup = s;
    g_queue_push_tail(&s->waiting, v);
    return 0;
}

int auth_sender_uid(Auth *a, sd_bus_message *m, uint32_t *ret, Failure *f) {
    const char *name = sd_bus_message_get_sender(m);
    Visit *v = visit_find(a, m);
    Sender *s;

    if (v && v->uid_known) {
        *ret = v->uid;
        return 1;
    }
    if (v && v->lookup_failure.kind) {
        failure_set(f, v->lookup_failure.kind, "%s", v->lookup_failure.message);
        return -EACCES;
    }
    if (v)
        return 0;
    if (!name) {
        failure_set(f, FAILURE_ACCESS_DENIED,
                    "This call came from nobody on the message bus. Call over the system bus.");
        return -EACCES;
    }
    s = g_hash_table_lookup(a->senders, name);
    if (s && s->known) {
        *ret = s->uid;
        return 1;
    }
    return lookup_start(a, m, name, f);
}

void auth_hold(Auth *a, sd_bus_message *m, uint32_t uid) {
    Visit *v = visit_find(a, m);

    if (!v)
        v = visit_new(a, m);
    v->uid_known = v->held = true;
    v->uid = uid;
}

void auth_go_on(Auth *a, sd_bus_message *m) {
    Visit *v = g_hash_table_lookup(a->visits, m);

    if (!v || !v->held)
        return;
    v->held = false;
    visit_put_back(v);
}

static void add_detail(GPtrArray *details, const char *key, const char *value) {
    if (!value)
        return;
    g_ptr_array_add(details, g_strdup(key));
    g_ptr_array_add(details, string_sanitize(value, DETAIL_MAX));
}

static GPtrArray *request_details(const AuthRequest *request) {
    GPtrArray *details = g_ptr_array_new_with_free_func(g_free);

    add_detail(details, "verb", request->verb);
    add_detail(details, "domain", request->domain);
    add_detail(details, "domain-uuid", request->domain_uuid);
    add_detail(details, "disk", request->disk);
    add_detail(details, "target", request->target);
    add_detail(details, "target-kind", request->target_kind);
    add_detail(details, "job", request->job);
    if (request->owner_uid != AUTH_NO_OWNER) {
        g_autofree char *uid = g_strdup_printf("%" PRIu32, request->owner_uid);
        add_detail(details, "job-owner", uid);
    }
    return details;
}

/* What a verdict is about, and what the log says it is about. Values hold no line breaks: no two requests share a key. */
static char *request_key(AuthAction action, GPtrArray *details) {
    GString *key = g_string_new(auth_action_name(action));

    for (guint i = 0; details && i + 1 < details->len; i += 2)
        g_string_append_printf(key, "\n%s=%s", (const char *) details->pdata[i],
                               (const char *) details->pdata[i + 1]);
    return g_string_free(key, FALSE);
}

static void log_denied(const Check *c, const Failure *f) {
    g_auto(GStrv) lines = g_strsplit(c->key, "\n", -1);
    g_autofree char *details = lines[0] && lines[1] ? g_strjoinv("\", \"", lines + 1) : NULL;
    g_autofree char *plain = lines[0] ? g_strjoinv("\n", lines + 1) : NULL;

    g_autofree char *uid = g_strdup_printf("%" PRIu32, c->visit->uid);
    const LogField fields[] = {{"BLOCKJOB_ACTION", auth_action_name(c->action)},
                               {"BLOCKJOB_CALLER", uid},
                               {"BLOCKJOB_DETAILS", lines[0] && lines[1] ? plain : NULL},
                               {0}};

    log_with_fields(LOG_NOTICE, MESSAGE_DENIED, fields, "Denied %s to uid %s%s%s%s: %s",
                    auth_action_name(c->action), uid, details ? " (\"" : "", details ? details : "",
                    details ? "\")" : "", f->message);
}

static int reply_permissions(sd_bus_message *m, const PolkitAnswer answers[static _AUTH_MAX]) {
    g_autoptr(sd_bus_message) reply = NULL;
    int r;

    r = sd_bus_message_new_method_return(m, &reply);
    if (r < 0)
        return r;
    r = sd_bus_message_open_container(reply, 'a', "{ss}");
    for (AuthAction i = 0; r >= 0 && i < _AUTH_MAX; i++)
        r = sd_bus_message_append(reply, "{ss}", auth_action_name(i),
                                  polkit_answer_to_string(answers[i]));
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int on_answer(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
    Check *c = userdata;
    Visit *v = c->visit;
    Failure *verdict = g_new0(Failure, 1);
    PolkitAnswer answer =
        polkit_read_answer(reply, auth_action_name(c->action), c->interactive, verdict);

    /* When we gave up waiting polkit did not: its dialog may still be open. */
    if (sd_bus_message_is_method_error(reply, SD_BUS_ERROR_NO_REPLY) ||
        sd_bus_message_is_method_error(reply, SD_BUS_ERROR_TIMEOUT))
        polkit_cancel(v->auth->bus, c->cancel_id);
    if (!v->permissions && verdict->kind == FAILURE_ACCESS_DENIED)
        log_denied(c, verdict);
    v->answers[c->action] = answer;
    g_hash_table_replace(v->verdicts, g_steal_pointer(&c->key), verdict);
    check_free(c);
    if (v->checks)
        return 0;

    if (v->permissions) {
        int r = reply_permissions(v->message, v->answers);
        if (r < 0)
            log_debug("Cannot answer GetPermissions, ignoring: %s", g_strerror(-r));
        visit_drop(v);
    } else
        visit_put_back(v);
    return 0;
}

/* Takes one of the places for a call that waits for polkit. */
static int visit_charge(Visit *v, Failure *f) {
    Auth *a = v->auth;
    unsigned total = 0, of_uid = 0;
    GHashTableIter i;
    gpointer p;

    if (v->charged)
        return 0;
    g_hash_table_iter_init(&i, a->visits);
    while (g_hash_table_iter_next(&i, NULL, &p)) {
        const Visit *other = p;
        total += other->charged;
        of_uid += other->charged && other->uid == v->uid;
    }
    if (of_uid >= a->max_per_uid)
        failure_set(f, FAILURE_LIMITS_EXCEEDED,
                    "%u of your calls wait for authorization already. Answer their authentication "
                    "dialogs, then try again.",
                    of_uid);
    else if (total >= a->max_total)
        failure_set(f, FAILURE_LIMITS_EXCEEDED,
                    "%u calls wait for authorization already. Try again later.", total);
    else {
        v->charged = true;
        return 0;
    }
    return -EBUSY;
}

static int check_start(Visit *v, AuthAction action, GPtrArray *details, bool interactive,
                       Failure *f) {
    g_autoptr(sd_bus_message) call = NULL;
    Check *c = g_new0(Check, 1);
    int r;

    c->visit = v;
    c->action = action;
    c->key = request_key(action, details);
    c->interactive = interactive;
    snprintf(c->cancel_id, sizeof c->cancel_id, "check-%" PRIu64, ++v->auth->last_id);
    v->checks = g_slist_prepend(v->checks, c);

    r = polkit_new_check(v->auth->bus, v->sender, auth_action_name(action), details, interactive,
                         c->cancel_id, &call);
    if (r >= 0)
        r = sd_bus_call_async(v->auth->bus, &c->slot, call, on_answer, c, v->auth->timeout);
    if (r < 0) {
        log_warning("Cannot ask polkit about %s: %s", auth_action_name(action), g_strerror(-r));
        failure_set(f, FAILURE_ACCESS_DENIED,
                    "polkit cannot be asked whether you may do this (%s). Call as root.",
                    auth_action_name(action));
        check_free(c);
        return r;
    }
    return 0;
}

/* The visit of a call whose uid is known and that must ask polkit; NULL: refused. */
static Visit *visit_for_checks(Auth *a, sd_bus_message *m, uint32_t uid, Failure *f) {
    Visit *v = visit_find(a, m);

    if (!v)
        v = visit_new(a, m);
    /* From before the check: the verdict belongs to who called, whatever becomes of the connection meanwhile. */
    v->uid = uid;
    v->uid_known = true;
    if (visit_charge(v, f) < 0) {
        visit_drop(v);
        return NULL;
    }
    return v;
}

int auth_check(Auth *a, sd_bus_message *m, const AuthRequest *request, Failure *f) {
    g_autoptr(GPtrArray) details = NULL;
    g_autofree char *key = NULL;
    const Failure *verdict;
    uint32_t uid;
    Visit *v;
    int r;

    r = auth_sender_uid(a, m, &uid, f);
    if (r <= 0)
        return r;
    if (uid == 0 || (request->owner_uid != AUTH_NO_OWNER && uid == request->owner_uid))
        return 1;

    v = visit_for_checks(a, m, uid, f);
    if (!v)
        return -EBUSY;
    details = request_details(request);
    key = request_key(request->action, details);
    verdict = g_hash_table_lookup(v->verdicts, key);
    if (verdict && verdict->kind) {
        failure_set(f, verdict->kind, "%s", verdict->message);
        return -EACCES;
    }
    if (verdict)
        return 1;
    if (v->checks)
        return 0;
    r = check_start(v, request->action, details,
                    sd_bus_message_get_allow_interactive_authorization(m) > 0, f);
    if (r < 0)
        visit_drop(v);
    return r;
}

int auth_reply_permissions(Auth *a, sd_bus_message *m, Failure *f) {
    PolkitAnswer of_root[_AUTH_MAX];
    uint32_t uid;
    Visit *v;
    int r;

    r = auth_sender_uid(a, m, &uid, f);
    if (r <= 0)
        return r;
    if (uid == 0) {
        for (AuthAction i = 0; i < _AUTH_MAX; i++)
            of_root[i] = POLKIT_YES;
        r = reply_permissions(m, of_root);
        if (r < 0)
            failure_set(f, FAILURE_LIMITS_EXCEEDED, "The answer cannot be sent. Try again.");
        return r < 0 ? r : 1;
    }
    v = visit_for_checks(a, m, uid, f);
    if (!v)
        return -EBUSY;
    v->permissions = true;
    for (AuthAction i = 0; i < _AUTH_MAX; i++) {
        r = check_start(v, i, NULL, false, f);
        if (r < 0) {
            visit_drop(v);
            return r;
        }
    }
    return 0;
}

unsigned auth_pending(const Auth *a) {
    unsigned n = 0;
    GHashTableIter i;
    gpointer v;

    g_hash_table_iter_init(&i, a->visits);
    while (g_hash_table_iter_next(&i, NULL, &v))
        n += visit_waits(v);
    return n;
}

static int add_sweep(Auth *a, sd_event_handler_t handler, int64_t priority, sd_event_source **ret) {
    int r = sd_event_add_defer(sd_bus_get_event(a->bus), ret, handler, a);

    if (r >= 0)
        r = sd_event_source_set_priority(*ret, priority);
    return r < 0 ? r : sd_event_source_set_enabled(*ret, SD_EVENT_OFF);
}

void auth_set_limits(Auth *a, unsigned max_per_uid, unsigned max_total, uint64_t timeout) {
    a->max_per_uid = max_per_uid;
    a->max_total = max_total;
    a->timeout = timeout;
}

int auth_new(sd_bus *bus, unsigned max_per_uid, unsigned max_total, uint64_t timeout, Auth **ret) {
    g_autoptr(Auth) a = g_new0(Auth, 1);
    int r;

    a->bus = sd_bus_ref(bus);
    auth_set_limits(a, max_per_uid, max_total, timeout);
    g_queue_init(&a->order);
    a->visits = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify) visit_free);
    a->senders = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify) sender_free);
    if (!sd_bus_get_event(bus))
        return -EINVAL;

    r = add_sweep(a, on_sweep_visited, SD_EVENT_PRIORITY_IMPORTANT, &a->sweep_visited);
    if (r < 0)
        return r;
    r = add_sweep(a, on_sweep_idle, SD_EVENT_PRIORITY_IDLE, &a->sweep_idle);
    if (r < 0)
        return r;
    /* One match for all: the bus allows a connection 512 of them, fewer than there may be callers. It is on its way
     * before the first look-up, therefore no departure after a look-up is missed. */
    r = sd_bus_add_match_async(bus, &a->left,
                               "type='signal',sender='org.freedesktop.DBus',"
                               "path='/org/freedesktop/DBus',interface='org.freedesktop.DBus',"
                               "member='NameOwnerChanged',arg2=''",
                               on_left, on_left_installed, a);
    if (r < 0)
        return r;
    *ret = g_steal_pointer(&a);
    return 0;
}

Auth *auth_free(Auth *a) {
    if (!a)
        return NULL;
    sd_bus_slot_unref(a->left);
    g_clear_pointer(&a->visits, g_hash_table_destroy);
    g_clear_pointer(&a->senders, g_hash_table_destroy);
    sd_event_source_disable_unref(a->sweep_visited);
    sd_event_source_disable_unref(a->sweep_idle);
    sd_bus_unref(a->bus);
    g_free(a);
    return NULL;
}
