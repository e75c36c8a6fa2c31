/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The messages between this service and polkit's authority: made, read, and turned into sentences. */

#include "auth/polkit.h"

#include "log.h"
#include "util.h"

#define POLKIT_NAME "org.freedesktop.PolicyKit1"
#define POLKIT_PATH "/org/freedesktop/PolicyKit1/Authority"
#define POLKIT_INTERFACE "org.freedesktop.PolicyKit1.Authority"

/* CheckAuthorizationFlags */
#define POLKIT_ALLOW_USER_INTERACTION UINT32_C(1)

const char *polkit_answer_to_string(PolkitAnswer answer) {
    switch (answer) {
    case POLKIT_YES:
        return "yes";
    case POLKIT_CHALLENGE:
        return "challenge";
    case POLKIT_NO:
    case POLKIT_ERROR:
        break;
    }
    return "no";
}

static int append_details(sd_bus_message *m, GPtrArray *details) {
    int r = sd_bus_message_open_container(m, 'a', "{ss}");

    for (guint i = 0; r >= 0 && details && i + 1 < details->len; i += 2)
        r = sd_bus_message_append(m, "{ss}", (const char *) details->pdata[i],
                                  (const char *) details->pdata[i + 1]);
    return r < 0 ? r : sd_bus_message_close_container(m);
}

int polkit_new_check(sd_bus *bus, const char *sender, const char *action, GPtrArray *details,
                     bool interactive, const char *cancel_id, sd_bus_message **ret) {
    g_autoptr(sd_bus_message) m = NULL;
    int r;

    r = sd_bus_message_new_method_call(bus, &m, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                       "CheckAuthorization");
    if (r < 0)
        return r;
    /* By name, not by process: a pid may be another program's by the time polkit looks. */
    r = sd_bus_message_append(m, "(sa{sv})s", "system-bus-name", 1, "name", "s", sender, action);
    if (r < 0)
        return r;
    r = append_details(m, details);
    if (r < 0)
        return r;
    r = sd_bus_message_append(m, "us", interactive ? POLKIT_ALLOW_USER_INTERACTION : UINT32_C(0),
                              cancel_id);
    if (r < 0)
        return r;
    *ret = g_steal_pointer(&m);
    return 0;
}

void polkit_cancel(sd_bus *bus, const char *cancel_id) {
    g_autoptr(sd_bus_message) m = NULL;
    int r;

    r = sd_bus_message_new_method_call(bus, &m, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                       "CancelCheckAuthorization");
    if (r >= 0)
        r = sd_bus_message_append(m, "s", cancel_id);
    if (r >= 0)
        r = sd_bus_message_set_expect_reply(m, false);
    if (r >= 0)
        r = sd_bus_message_set_auto_start(m, false);
    if (r >= 0)
        r = sd_bus_send(bus, m, NULL);
    if (r < 0)
        log_debug("Cannot cancel polkit check %s, ignoring: %s", cancel_id, g_strerror(-r));
}

/* The caller is told what to do; polkit's own words are for the administrator. */
static void explain_error(const sd_bus_error *error, const char *action, Failure *f) {
    g_autofree char *text = string_sanitize(error->message ? error->message : "", 256);

    log_warning("polkit gave no verdict about %s: %s: \"%s\"", action, error->name, text);
    if (sd_bus_error_has_names(error, SD_BUS_ERROR_SERVICE_UNKNOWN, SD_BUS_ERROR_NAME_HAS_NO_OWNER,
                               "org.freedesktop.systemd1.NoSuchUnit"))
        failure_set(f, FAILURE_ACCESS_DENIED,
                    "polkit is not running, therefore only root may do this (%s). Start polkit, or "
                    "call as root.",
                    action);
    else if (sd_bus_error_has_names(error, SD_BUS_ERROR_NO_REPLY, SD_BUS_ERROR_TIMEOUT))
        failure_set(f, FAILURE_ACCESS_DENIED,
                    "polkit did not answer in time whether you may do this (%s). Try again, and "
                    "answer the authentication dialog when it opens.",
                    action);
    else
        failure_set(f, FAILURE_ACCESS_DENIED,
                    "polkit could not tell whether you may do this (%s). An administrator finds "
                    "the reason in the log of blockjobd.",
                    action);
}

static int read_result(sd_bus_message *reply, bool *ret_yes, bool *ret_challenge,
                       bool *ret_dismissed) {
    int yes, challenge, r;
    bool dismissed = false;

    /* sd-bus does not compare a reply with what was expected. */
    if (!sd_bus_message_has_signature(reply, "(bba{ss})"))
        return -EBADMSG;
    r = sd_bus_message_enter_container(reply, 'r', "bba{ss}");
    if (r >= 0)
        r = sd_bus_message_read(reply, "bb", &yes, &challenge);
    if (r >= 0)
        r = sd_bus_message_enter_container(reply, 'a', "{ss}");
    if (r < 0)
        return r;
    for (;;) {
        const char *key = NULL, *value = NULL;

        r = sd_bus_message_read(reply, "{ss}", &key, &value);
        if (r < 0)
            return r;
        if (r == 0)
            break;
        if (g_str_equal(key, "polkit.dismissed") && *value)
            dismissed = true;
    }
    *ret_yes = yes;
    *ret_challenge = challenge;
    *ret_dismissed = dismissed;
    return 0;
}

PolkitAnswer polkit_read_answer(sd_bus_message *reply, const char *action, bool interactive,
                                Failure *f) {
    const sd_bus_error *error = sd_bus_message_get_error(reply);
    bool yes, challenge, dismissed;

    if (error) {
        explain_error(error, action, f);
        return POLKIT_ERROR;
    }
    if (read_result(reply, &yes, &challenge, &dismissed) < 0) {
        const sd_bus_error strange =
            SD_BUS_ERROR_MAKE_CONST(SD_BUS_ERROR_INVALID_SIGNATURE, "unexpected reply");
        explain_error(&strange, action, f);
        return POLKIT_ERROR;
    }
    if (yes)
        return POLKIT_YES;
    if (challenge && !interactive) {
        failure_set(f, FAILURE_INTERACTIVE,
                    "This needs an administrator's authentication (%s). Call again and allow "
                    "interactive authorization, or call as root.",
                    action);
        return POLKIT_CHALLENGE;
    }
    if (challenge) {
        failure_set(f, FAILURE_ACCESS_DENIED,
                    "This needs an administrator's authentication (%s), and nothing can ask for it "
                    "in this session. Start an authentication agent such as pkttyagent, or call as "
                    "root.",
                    action);
        return POLKIT_CHALLENGE;
    }
    if (dismissed)
        failure_set(f, FAILURE_ACCESS_DENIED,
                    "The authentication dialog was closed, therefore this was not done (%s). Try "
                    "again and authenticate.",
                    action);
    else
        failure_set(f, FAILURE_ACCESS_DENIED,
                    "You are not allowed to do this (%s). Ask an administrator to do it, or to add "
                    "a polkit rule that allows it.",
                    action);
    return POLKIT_NO;
}
