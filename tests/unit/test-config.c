/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The configuration: defaults, values with units, what is wrong in a file, and which file wins. */

#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "log.h"

#define SEC UINT64_C(1000000)
#define DAY (86400 * SEC)

static unsigned parse(Config *c, const char *text) {
    return config_parse(c, "test.conf", text, strlen(text));
}

static void defaults_are_as_documented(void) {
    g_autoptr(Config) c = config_new();

    g_assert_cmpstr(c->state_dir, ==, "/var/lib/blockjobd");
    g_assert_cmpstr(c->socket_dir, ==, "/run/blockjobd/qmp");
    g_assert_cmpuint(g_strv_length(c->target_folders), ==, 1);
    g_assert_cmpstr(c->target_folders[0], ==, "/var/lib/libvirt/images");
    g_assert_cmpuint(c->idle_timeout, ==, 30 * SEC);
    g_assert_cmpuint(c->max_domains, ==, 1024);
    g_assert_cmpuint(c->max_jobs, ==, 1024);
    g_assert_cmpuint(c->max_jobs_per_uid, ==, 64);
    g_assert_cmpuint(c->max_checks, ==, 64);
    g_assert_cmpuint(c->max_checks_per_uid, ==, 8);
    g_assert_cmpuint(c->keep_finished, ==, 256);
    g_assert_cmpuint(c->keep_finished_age, ==, 3600 * SEC);
    g_assert_cmpuint(c->history_rows, ==, 100000);
    g_assert_cmpuint(c->history_age, ==, 90 * DAY);
    g_assert_cmpuint(c->check_timeout, ==, 300 * SEC);
    g_assert_cmpuint(c->qmp_timeout, ==, 10 * SEC);
    g_assert_cmpuint(c->greeting_timeout, ==, 5 * SEC);
    g_assert_cmpuint(c->reconnect_max, ==, 30 * SEC);
}

static void every_key_is_read(void) {
    g_autoptr(Config) c = config_new();

    g_assert_cmpuint(parse(c,
                           "# comment\n; comment\n\n[Service]\r\n"
                           "StateDirectory = /srv/state/\n\tSocketDirectory=\t/srv/qmp\n"
                           "TargetFolders=/srv/a: /srv/b b/ :\nIdleTimeout=infinity\n"
                           "[Limits]\nMaxDomains=1\nMaxJobs=2\nMaxJobsPerUser=3\n"
                           "[Jobs]\nKeepFinishedJobs=0\nKeepFinishedTime=0\nHistoryRows=infinity\n"
                           "HistoryTime=infinity\n"
                           "[Authorization]\nMaxChecks=4\nMaxChecksPerUser=5\nTimeout=6s\n"
                           "[Qemu]\nCommandTimeout=1500ms\nGreetingTimeout=1min 5s\n"
                           "ReconnectMax=2"),
                     ==, 0);
    g_assert_cmpstr(c->state_dir, ==, "/srv/state");
    g_assert_cmpstr(c->socket_dir, ==, "/srv/qmp");
    g_assert_cmpuint(g_strv_length(c->target_folders), ==, 2);
    g_assert_cmpstr(c->target_folders[0], ==, "/srv/a");
    g_assert_cmpstr(c->target_folders[1], ==, "/srv/b b");
    g_assert_cmpuint(c->idle_timeout, ==, 0);
    g_assert_cmpuint(c->max_domains, ==, 1);
    g_assert_cmpuint(c->max_jobs, ==, 2);
    g_assert_cmpuint(c->max_jobs_per_uid, ==, 3);
    g_assert_cmpuint(c->keep_finished, ==, 0);
    g_assert_cmpuint(c->keep_finished_age, ==, 0);
    g_assert_cmpuint(c->history_rows, ==, 0);
    g_assert_cmpuint(c->history_age, ==, 0);
    g_assert_cmpuint(c->max_checks, ==, 4);
    g_assert_cmpuint(c->max_checks_per_uid, ==, 5);
    g_assert_cmpuint(c->check_timeout, ==, 6 * SEC);
    g_assert_cmpuint(c->qmp_timeout, ==, 1500000);
    g_assert_cmpuint(c->greeting_timeout, ==, 65 * SEC);
    g_assert_cmpuint(c->reconnect_max, ==, 2 * SEC);
}

static void durations_have_units(void) {
    static const struct {
        const char *text;
        uint64_t usec;
    } good[] = {
        {"0", 0},
        {"7", 7 * SEC},
        {" 7 ", 7 * SEC},
        {"7s", 7 * SEC},
        {"12us", 12},
        {"250ms", 250000},
        {"2min", 120 * SEC},
        {"2m", 120 * SEC},
        {"3h", 3 * 3600 * SEC},
        {"90d", 90 * DAY},
        {"1h30min", 5400 * SEC},
        {"1 h 30 min", 5400 * SEC},
        {"infinity", UINT64_MAX},
    };
    static const char *const bad[] = {
        "",
        " ",
        "s",
        "-1",
        "1.5h",
        "1 year",
        "1S",
        "5 %",
        "0x10",
        "1h,2m",
        "infinity 1",
        "99999999999999999999",
        "999999999999999d",
        "200000000d 200000000d",
    };
    uint64_t usec;

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_test_message("\"%s\"", good[i].text);
        g_assert_true(config_parse_duration(good[i].text, &usec));
        g_assert_cmpuint(usec, ==, good[i].usec);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_test_message("\"%s\"", bad[i]);
        g_assert_false(config_parse_duration(bad[i], &usec));
    }
}

static void a_bad_value_keeps_the_default(void) {
    static const char *const bad[] = {
        "[Limits]\nMaxJobs=many",
        "[Limits]\nMaxJobs=",
        "[Limits]\nMaxJobs=0",
        "[Limits]\nMaxJobs=-1",
        "[Limits]\nMaxJobs=infinity",
        "[Limits]\nMaxJobs=65537",
        "[Limits]\nMaxJobs=4294967297",
        "[Limits]\nMaxJobs=99999999999999999999999",
        "[Limits]\nMaxJobs=10 # ten",
        "[Jobs]\nKeepFinishedTime=infinity",
        "[Authorization]\nTimeout=0",
        "[Authorization]\nTimeout=2d",
        "[Qemu]\nCommandTimeout=1ms",
        "[Service]\nStateDirectory=state",
        "[Service]\nStateDirectory=",
        "[Service]\nStateDirectory=/var/../etc",
        "[Service]\nSocketDirectory=/run/./qmp",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(Config) c = config_new();

        g_test_message("%s", bad[i]);
        g_assert_cmpuint(parse(c, bad[i]), ==, 1);
        g_assert_cmpuint(c->max_jobs, ==, 1024);
        g_assert_cmpuint(c->keep_finished_age, ==, 3600 * SEC);
        g_assert_cmpuint(c->check_timeout, ==, 300 * SEC);
        g_assert_cmpuint(c->qmp_timeout, ==, 10 * SEC);
        g_assert_cmpstr(c->state_dir, ==, "/var/lib/blockjobd");
        g_assert_cmpstr(c->socket_dir, ==, "/run/blockjobd/qmp");
    }
}

static void a_bad_line_does_not_spoil_the_file(void) {
    g_autoptr(Config) c = config_new();

    g_assert_cmpuint(parse(c, "MaxDomains=5\n[Limits]\nMaxDomains\nnonsense here\n=3\n[Broken\n[]\n"
                              "Max Jobs=4\nMaxJobs=\xff\xfe\nMaxJobs=7\n"
                              "[limits]\nMaxJobs=8\n[Limits]\nmaxjobs=9\nMaxJobsPerUser=10"),
                     ==, 10);
    g_assert_cmpuint(c->max_domains, ==, 1024);
    g_assert_cmpuint(c->max_jobs, ==, 7);
    g_assert_cmpuint(c->max_jobs_per_uid, ==, 10);
}

static void the_last_assignment_wins(void) {
    g_autoptr(Config) c = config_new();

    g_assert_cmpuint(parse(c, "[Limits]\nMaxJobs=1\nMaxJobs=2\n[Qemu]\n[Limits]\nMaxJobs=3"), ==,
                     0);
    g_assert_cmpuint(c->max_jobs, ==, 3);
}

static void a_wrong_target_folder_is_never_replaced_by_the_default(void) {
    g_autoptr(Config) c = config_new();

    g_assert_cmpuint(parse(c, "[Service]\nTargetFolders=images:/srv/../etc:/srv/good"), ==, 2);
    g_assert_cmpuint(g_strv_length(c->target_folders), ==, 1);
    g_assert_cmpstr(c->target_folders[0], ==, "/srv/good");
    g_assert_cmpuint(parse(c, "[Service]\nTargetFolders=images"), ==, 1);
    g_assert_cmpuint(g_strv_length(c->target_folders), ==, 0);
    g_assert_cmpuint(parse(c, "[Service]\nTargetFolders=/a"), ==, 0);
    g_assert_cmpuint(parse(c, "[Service]\nTargetFolders="), ==, 0);
    g_assert_cmpuint(g_strv_length(c->target_folders), ==, 0);
}

static void what_is_no_text_is_ignored(void) {
    g_autoptr(Config) c = config_new();
    g_autofree char *large = g_strnfill(2 << 20, '\n');
    static const char nul[] = "[Limits]\nMaxJobs=5\n\0MaxJobs=6\n";

    g_assert_cmpuint(config_parse(c, "test.conf", nul, sizeof nul - 1), ==, 1);
    g_assert_cmpuint(config_parse(c, "test.conf", large, strlen(large)), ==, 1);
    g_assert_cmpuint(config_parse(c, "test.conf", "", 0), ==, 0);
    g_assert_cmpuint(c->max_jobs, ==, 1024);
}

/* Two folders, the first one with precedence; removed at the end. */
typedef struct {
    char *root, *etc, *usr;
} Folders;

static void put(const char *folder, const char *name, const char *text) {
    g_autofree char *path = g_build_filename(folder, name, NULL);
    g_autofree char *dir = g_path_get_dirname(path);

    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void folders_make(Folders *f) {
    f->root = g_dir_make_tmp("blockjobd-config-XXXXXX", NULL);
    f->etc = g_build_filename(f->root, "etc", NULL);
    f->usr = g_build_filename(f->root, "usr", NULL);
    g_assert_nonnull(f->root);
}

static void remove_tree(const char *path) {
    g_autoptr(GDir) dir =
        g_file_test(path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        remove_tree(child);
    }
    g_assert_cmpint(g_remove(path), ==, 0);
}

static void folders_clear(Folders *f) {
    remove_tree(f->root);
    g_free(f->root);
    g_free(f->etc);
    g_free(f->usr);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Folders, folders_clear)

static Config *load(const Folders *f) {
    return config_load_from((const char *const[]){f->etc, f->usr, NULL});
}

static void no_file_at_all_is_all_defaults(void) {
    g_auto(Folders) f = {0};
    folders_make(&f);
    g_autoptr(Config) c = load(&f);

    g_assert_cmpuint(c->max_jobs, ==, 1024);
}

static void the_first_main_file_hides_the_others(void) {
    g_auto(Folders) f = {0};
    folders_make(&f);
    put(f.etc, "blockjobd.conf", "[Limits]\nMaxJobs=1\n");
    put(f.usr, "blockjobd.conf", "[Limits]\nMaxJobs=2\nMaxDomains=2\n");
    g_autoptr(Config) c = load(&f);

    g_assert_cmpuint(c->max_jobs, ==, 1);
    g_assert_cmpuint(c->max_domains, ==, 1024);
}

static void drop_ins_override_in_the_order_of_their_names(void) {
    g_auto(Folders) f = {0};
    folders_make(&f);
    put(f.etc, "blockjobd.conf", "[Limits]\nMaxJobs=1\nMaxDomains=1\nMaxJobsPerUser=1\n");
    put(f.etc, "blockjobd.conf.d/20-b.conf", "[Limits]\nMaxJobs=20\n");
    put(f.usr, "blockjobd.conf.d/30-c.conf", "[Limits]\nMaxJobs=30\n");
    put(f.usr, "blockjobd.conf.d/10-a.conf", "[Limits]\nMaxJobs=10\nMaxDomains=10\n");
    put(f.etc, "blockjobd.conf.d/.40-hidden.conf", "[Limits]\nMaxJobs=40\n");
    put(f.etc, "blockjobd.conf.d/50-off.conf.bak", "[Limits]\nMaxJobs=50\n");
    g_autoptr(Config) c = load(&f);

    g_assert_cmpuint(c->max_jobs, ==, 30);
    g_assert_cmpuint(c->max_domains, ==, 10);
    g_assert_cmpuint(c->max_jobs_per_uid, ==, 1);
}

static void a_drop_in_hides_its_namesake_and_dev_null_masks_it(void) {
    g_auto(Folders) f = {0};
    folders_make(&f);
    put(f.etc, "blockjobd.conf.d/10-a.conf", "[Limits]\nMaxJobs=10\n");
    put(f.usr, "blockjobd.conf.d/10-a.conf", "[Limits]\nMaxJobs=11\nMaxDomains=11\n");
    put(f.usr, "blockjobd.conf.d/20-b.conf", "[Limits]\nMaxJobsPerUser=20\n");
    g_autofree char *mask = g_build_filename(f.etc, "blockjobd.conf.d/20-b.conf", NULL);
    g_assert_cmpint(symlink("/dev/null", mask), ==, 0);
    g_autoptr(Config) c = load(&f);

    g_assert_cmpuint(c->max_jobs, ==, 10);
    g_assert_cmpuint(c->max_domains, ==, 1024);
    g_assert_cmpuint(c->max_jobs_per_uid, ==, 64);
}

static void a_file_that_is_named_must_be_there(void) {
    g_auto(Folders) f = {0};
    g_auto(Failure) failure = {0};
    Config *none = NULL;
    folders_make(&f);
    put(f.etc, "own.conf", "[Limits]\nMaxJobs=9\n");
    g_autofree char *own = g_build_filename(f.etc, "own.conf", NULL);
    g_autofree char *missing = g_build_filename(f.etc, "missing.conf", NULL);
    g_autoptr(Config) c = NULL;

    g_assert_true(config_load(own, &c, &failure));
    g_assert_cmpuint(c->max_jobs, ==, 9);
    g_assert_false(config_load(missing, &none, &failure));
    g_assert_null(none);
    g_assert_cmpint(failure.kind, ==, FAILURE_INVALID_ARGS);
    g_assert_nonnull(strstr(failure.message, "missing.conf"));
}

static void an_idle_timeout_is_never_shorter_than_a_second(void) {
    g_autoptr(Config) c = config_new();

    g_assert_cmpuint(parse(c, "[Service]\nIdleTimeout=0\n"), ==, 0);
    g_assert_cmpuint(c->idle_timeout, ==, 0);
    g_assert_cmpuint(parse(c, "[Service]\nIdleTimeout=999ms\n"), ==, 1);
    g_assert_cmpuint(c->idle_timeout, ==, 0);
    g_assert_cmpuint(parse(c, "[Service]\nIdleTimeout=1s\n"), ==, 0);
    g_assert_cmpuint(c->idle_timeout, ==, SEC);
}

static void an_update_changes_what_does_not_need_a_start(void) {
    g_autoptr(Config) c = config_new();
    g_autoptr(Config) fresh = config_new();

    g_assert_cmpuint(config_update(c, fresh), ==, 0);
    g_assert_cmpuint(parse(fresh, "[Service]\nStateDirectory=/srv/s\nSocketDirectory=/srv/q\n"
                                  "TargetFolders=/srv/a:/srv/b\n"
                                  "[Limits]\nMaxJobs=7\n[Jobs]\nHistoryRows=8\n"
                                  "[Qemu]\nCommandTimeout=9s\n"),
                     ==, 0);
    g_assert_cmpuint(config_update(c, fresh), ==, 4);
    g_assert_cmpstr(c->state_dir, ==, "/var/lib/blockjobd");
    g_assert_cmpstr(c->socket_dir, ==, "/run/blockjobd/qmp");
    g_assert_cmpuint(g_strv_length(c->target_folders), ==, 2);
    g_assert_cmpstr(c->target_folders[1], ==, "/srv/b");
    g_assert_cmpuint(c->max_jobs, ==, 7);
    g_assert_cmpuint(c->history_rows, ==, 8);
    g_assert_cmpuint(c->qmp_timeout, ==, 9 * SEC);
    g_assert_cmpuint(config_update(c, fresh), ==, 0);
}

static void what_is_wrong_in_files_is_counted(void) {
    g_auto(Folders) f = {0};
    folders_make(&f);
    g_autoptr(Config) none = load(&f);

    g_assert_cmpuint(none->warnings, ==, 0);
    put(f.etc, "blockjobd.conf", "[Limits]\nMaxJobs=0\nrubbish\n");
    put(f.etc, "blockjobd.conf.d/a.conf", "[Limits]\nNoSuchKey=1\n");
    g_autoptr(Config) c = load(&f);
    g_assert_cmpuint(c->warnings, ==, 3);
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
    log_set_max_level(LOG_ERR);
#define TEST(name) g_test_add_func("/config/" #name, name)
    TEST(defaults_are_as_documented);
    TEST(every_key_is_read);
    TEST(durations_have_units);
    TEST(a_bad_value_keeps_the_default);
    TEST(a_bad_line_does_not_spoil_the_file);
    TEST(the_last_assignment_wins);
    TEST(a_wrong_target_folder_is_never_replaced_by_the_default);
    TEST(what_is_no_text_is_ignored);
    TEST(no_file_at_all_is_all_defaults);
    TEST(the_first_main_file_hides_the_others);
    TEST(drop_ins_override_in_the_order_of_their_names);
    TEST(a_drop_in_hides_its_namesake_and_dev_null_masks_it);
    TEST(a_file_that_is_named_must_be_there);
    TEST(an_idle_timeout_is_never_shorter_than_a_second);
    TEST(an_update_changes_what_does_not_need_a_start);
    TEST(what_is_wrong_in_files_is_counted);
    return g_test_run();
}
