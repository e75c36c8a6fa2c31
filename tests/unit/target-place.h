/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the tests of targets share: a folder that goes away by itself, files in it, and opening
 * targets that must open. */

#include <glib.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/target.h"
#include "util.h"

/* A folder of its own; paths in it are made by at(). */
typedef struct {
    char *dir;
    GPtrArray *paths;
} Place;

G_GNUC_PRINTF(1, 2) static inline void run(const char *format, ...) {
    g_autoptr(GError) error = NULL;
    g_autofree char *messages = NULL;
    int status = 0;
    va_list ap;

    va_start(ap, format);
    g_autofree char *command = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_spawn_command_line_sync(command, NULL, &messages, &status, &error);
    g_assert_no_error(error);
    if (status != 0)
        g_test_message("%s: %s", command, messages);
    g_assert_cmpint(status, ==, 0);
}

static inline void place_clear(Place *p) {
    run("rm -rf %s", p->dir);
    g_ptr_array_unref(p->paths);
    g_free(p->dir);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Place, place_clear)

static inline Place place_new(gconstpointer base) {
    g_autofree char *dir = g_build_filename(base, "blockjobd-target-XXXXXX", NULL);

    g_assert_nonnull(g_mkdtemp_full(dir, 0755));
    return (Place){.dir = g_steal_pointer(&dir), .paths = g_ptr_array_new_with_free_func(g_free)};
}

static inline const char *at(Place *p, const char *name) {
    char *path = g_build_filename(p->dir, name, NULL);

    g_ptr_array_add(p->paths, path);
    return path;
}

static inline void write_file(const char *path, const char *text) {
    g_assert_true(g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_NONE, 0644, NULL));
}

static inline void make_folder(const char *path) {
    g_assert_cmpint(mkdir(path, 0755), ==, 0);
}

static inline void assert_file(const char *path, const char *expected) {
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, expected);
}

static inline bool there(const char *path) {
    struct stat st;

    return lstat(path, &st) == 0;
}

static inline void assert_sentence(const Failure *f, FailureKind kind, const char *path) {
    if (f->kind != kind)
        g_test_message("%s", f->message);
    g_assert_cmpint(f->kind, ==, kind);
    g_assert_true(g_str_has_suffix(f->message, "."));
    g_assert_true(string_is_printable(f->message));
    if (path) {
        g_autofree char *quoted = g_strdup_printf("\"%s", path);
        g_assert_nonnull(strstr(f->message, quoted));
    }
}

static inline Target *open_new(const char *path) {
    g_auto(Failure) f = {0};
    Target *t = NULL;

    target_open(path, false, (uid_t) -1, (gid_t) -1, 0600, &t, &f);
    g_assert_cmpstr(f.message, ==, NULL);
    g_assert_nonnull(t);
    return t;
}

static inline Target *open_existing(const char *path) {
    g_auto(Failure) f = {0};
    Target *t = NULL;

    target_open(path, true, (uid_t) -1, (gid_t) -1, 0, &t, &f);
    g_assert_cmpstr(f.message, ==, NULL);
    g_assert_nonnull(t);
    return t;
}

static inline void refuse(const char *path, bool existing, FailureKind kind) {
    g_auto(Failure) f = {0};
    Target *t = NULL;

    g_assert_false(target_open(path, existing, (uid_t) -1, (gid_t) -1, 0600, &t, &f));
    g_assert_null(t);
    assert_sentence(&f, kind, NULL);
}

static inline void publish(Target *t, uint64_t size) {
    g_auto(Failure) f = {0};

    target_publish(t, size, &f);
    g_assert_cmpstr(f.message, ==, NULL);
}

/* Runs function in a child, which it may spoil; its assertions fail this test. */
static inline void in_child(void (*prepare)(void), void (*function)(gconstpointer),
                            gconstpointer data) {
    int status = 0;
    pid_t pid = fork();

    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        if (prepare)
            prepare();
        function(data);
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_cmpint(status, ==, 0);
}
