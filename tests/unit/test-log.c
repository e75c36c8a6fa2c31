/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the journal is given, and the names of levels and targets. */

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "log.h"

static const char *value_of(const GPtrArray *entry, const char *name) {
    for (guint i = 0; i < entry->len; i++)
        if (g_str_has_prefix(entry->pdata[i], name) &&
            ((const char *) entry->pdata[i])[strlen(name)] == '=')
            return (const char *) entry->pdata[i] + strlen(name) + 1;
    return NULL;
}

static void an_entry_has_message_priority_and_fields(void) {
    const LogField fields[] = {
        {"BLOCKJOB_DOMAIN", "a\nMESSAGE=forged"}, {"BLOCKJOB_DISK", NULL}, {0}};
    g_autoptr(GPtrArray) entry = log_entry(LOG_WARNING, MESSAGE_JOB_LOST, fields, "It is gone.");

    g_assert_cmpstr(value_of(entry, "MESSAGE"), ==, "It is gone.");
    g_assert_cmpstr(value_of(entry, "PRIORITY"), ==, "4");
    g_assert_cmpstr(value_of(entry, "MESSAGE_ID"), ==, MESSAGE_JOB_LOST);
    g_assert_cmpstr(value_of(entry, "SYSLOG_IDENTIFIER"), ==, "blockjobd");
    /* One field, whatever is in it: the journal's protocol gives its length. */
    g_assert_cmpstr(value_of(entry, "BLOCKJOB_DOMAIN"), ==, "a\nMESSAGE=forged");
    g_assert_null(value_of(entry, "BLOCKJOB_DISK"));
    g_assert_cmpuint(entry->len, ==, 5);
}

static void an_entry_needs_neither_id_nor_fields(void) {
    g_autoptr(GPtrArray) entry = log_entry(LOG_INFO, NULL, NULL, "Words.");

    g_assert_cmpuint(entry->len, ==, 3);
    g_assert_null(value_of(entry, "MESSAGE_ID"));
}

static void levels_have_the_names_of_syslog(void) {
    for (int level = LOG_EMERG; level <= LOG_DEBUG; level++)
        g_assert_cmpint(log_level_from_string(log_level_to_string(level)), ==, level);
    g_assert_cmpint(log_level_from_string("err"), ==, LOG_ERR);
    g_assert_cmpint(log_level_from_string("loud"), ==, -1);
    g_assert_cmpint(log_level_from_string(""), ==, -1);
}

static void a_target_that_is_unknown_changes_nothing(void) {
    g_assert_cmpint(log_set_target("console"), ==, 0);
    g_assert_cmpint(log_set_target("kmsg"), ==, -EINVAL);
    g_assert_cmpstr(log_target(), ==, "console");
    g_assert_cmpint(log_set_target("journal"), ==, 0);
    g_assert_cmpstr(log_target(), ==, "journal");
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
#define TEST(name) g_test_add_func("/log/" #name, name)
    TEST(an_entry_has_message_priority_and_fields);
    TEST(an_entry_needs_neither_id_nor_fields);
    TEST(levels_have_the_names_of_syslog);
    TEST(a_target_that_is_unknown_changes_nothing);
    return g_test_run();
}
