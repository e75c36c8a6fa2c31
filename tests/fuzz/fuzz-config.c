/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One configuration file. Whatever is in it, the service starts with values that it can work with. */

#include "config.h"
#include "fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    fuzz_init();
    return 0;
}

static void check(const Config *c) {
    g_assert_true(c->state_dir && c->state_dir[0] == '/');
    g_assert_true(c->socket_dir && c->socket_dir[0] == '/');
    g_assert_nonnull(c->target_folders);
    for (char **folder = c->target_folders; *folder; folder++) {
        g_assert_cmpint((*folder)[0], ==, '/');
        g_assert_true(string_is_printable(*folder));
        g_assert_true(!(*folder)[1] || !g_str_has_suffix(*folder, "/"));
    }
    g_assert_cmpuint(c->max_domains, >, 0);
    g_assert_cmpuint(c->max_jobs, >, 0);
    g_assert_cmpuint(c->qmp_timeout, >, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    g_autoptr(Config) c = config_new();
    g_autofree char *text = g_strndup((const char *) data, size);
    uint64_t duration = 0;

    (void) config_parse(c, "fuzz.conf", (const char *) data, size);
    check(c);
    /* A second file on top of it. */
    (void) config_parse(c, "fuzz.conf", (const char *) data, size);
    check(c);
    (void) config_parse_duration(text, &duration);
    return 0;
}
