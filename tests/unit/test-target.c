/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Targets on real file systems (ext4 or what /var/tmp is, and tmpfs): links, swapped folders, other
 * programs' locks, other users, kernels without openat2() or O_TMPFILE, block devices. */

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "image/target.h"
#include "target-place.h"
#include "util.h"

#define NOBODY 65534

/* ---- Words ---- */

static void paths_are_judged_by_their_words(void) {
    g_autofree char *name255 = g_strnfill(255, 'n'), *name256 = g_strnfill(256, 'n'),
                    *long_path = g_strnfill(4096, 'n');
    g_autofree char *good_name = g_strconcat("/a/", name255, NULL),
                    *bad_name = g_strconcat("/a/", name256, "/b", NULL);
    const char *const bad[] = {"",
                               "a",
                               "./a",
                               "a/b",
                               "/",
                               "/a/",
                               "/a//b",
                               "/a/./b",
                               "/a/../b",
                               "/..",
                               "/a/..",
                               "/a/.",
                               "//a",
                               "/a\nb",
                               "/a\tb",
                               "/a\x7f",
                               "/\xff",
                               "/a\xe2\x80",
                               "json:{}",
                               "nbd://x",
                               "file:/a",
                               "fd:3",
                               long_path,
                               bad_name,
                               "/a\x1b[31m",
                               "/\xc2\x85"
                               "b"};
    const char *const good[] = {"/a",         "/a/b.qcow2", "/a/..b",   "/a/...",
                                "/a b/c'd\"", "/Größe/x",   "/a/nbd:x", good_name};

    long_path[0] = '/';
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_auto(Failure) f = {0};
        g_assert_false(target_check_path(bad[i], &f));
        assert_sentence(&f, FAILURE_BAD_TARGET, NULL);
        refuse(bad[i], i & 1, FAILURE_BAD_TARGET);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_auto(Failure) f = {0};
        g_assert_true(target_check_path(good[i], &f));
    }
}

static void folders_contain_by_words(void) {
    char *const folders[] = {(char *) "/srv/images", (char *) "/data/", (char *) "relative", NULL};
    char *const root[] = {(char *) "/", NULL};

    g_assert_true(target_in_folders("/srv/images/a", folders));
    g_assert_true(target_in_folders("/srv/images/a/b", folders));
    g_assert_true(target_in_folders("/data/a", folders));
    g_assert_false(target_in_folders("/srv/images", folders));
    g_assert_false(target_in_folders("/srv/images/", folders));
    g_assert_false(target_in_folders("/srv/images2/a", folders));
    g_assert_false(target_in_folders("/srv/a", folders));
    g_assert_false(target_in_folders("relative/a", folders));
    g_assert_true(target_in_folders("/a", root));
    g_assert_false(target_in_folders("/a", NULL));
}

static void kinds_have_names(void) {
    for (int kind = TARGET_NEW; kind <= TARGET_FD; kind++)
        g_assert_cmpint(target_kind_from_string(target_kind_to_string((TargetKind) kind)), ==,
                        kind);
    g_assert_cmpstr(target_kind_to_string(TARGET_BLOCK), ==, "block");
    g_assert_cmpint(target_kind_from_string("network"), ==, -1);
}

/* ---- New files ---- */

static void new_file_appears_when_it_is_published(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    const char *path = at(&p, "new.img");
    g_autoptr(Target) t = open_new(path);
    g_auto(Failure) f = {0};
    struct stat st;

    g_assert_cmpint(t->kind, ==, TARGET_NEW);
    g_assert_false(there(path));
    if (t->fd >= 0)
        g_assert_false(image_is_intact(t->path, &t->id, &f));
    ImageId before = t->id;
    bool known = t->fd >= 0;
    publish(t, 5 * MIB + 512);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 5 * MIB + 512);
    g_assert_cmpuint(st.st_ino, ==, t->id.inode);
    g_assert_cmpuint(st.st_dev, ==, t->id.device);
    g_assert_true(!known || image_id_equal(&before, &t->id));
    g_assert_true(image_is_intact(t->path, &t->id, &f));
    g_assert_cmpint(image_sync_folder(t->path), ==, 0);

    /* Again, and after QEMU has made it longer: nothing is lost. */
    publish(t, 5 * MIB + 512);
    g_assert_cmpint(ftruncate(t->fd, 6 * MIB), ==, 0);
    publish(t, 0);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 6 * MIB);
    g_assert_cmpuint(st.st_nlink, ==, 1);
    g_assert_cmpint(fcntl(t->fd, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
    g_assert_cmpint(fcntl(t->fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_APPEND), ==, O_RDWR);
}

static void unpublished_file_leaves_nothing(gconstpointer base) {
    g_auto(Place) p = place_new(base);

    target_free(open_new(at(&p, "new.img")));
    g_assert_cmpint(rmdir(p.dir), ==, 0);
    make_folder(p.dir);
}

static void new_file_gets_owner_and_mode_of_the_source(gconstpointer base) {
    static const struct {
        mode_t mode, expected;
    } cases[] = {{0600, 0600}, {0660, 0660}, {0777, 0660}, {06640, 0640}, {0444, 0640}, {0, 0600}};
    g_auto(Place) p = place_new(base);
    mode_t saved = umask(0077);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *name = g_strdup_printf("%zu.img", i);
        g_autoptr(Target) t = NULL;
        g_auto(Failure) f = {0};
        struct stat st;
        g_assert_true(
            target_open(at(&p, name), false, 107, i & 1 ? 110 : (gid_t) -1, cases[i].mode, &t, &f));
        publish(t, 0);
        g_assert_cmpint(stat(at(&p, name), &st), ==, 0);
        g_assert_cmpuint(st.st_mode & 07777, ==, cases[i].expected);
        g_assert_cmpuint(st.st_uid, ==, 107);
        g_assert_cmpuint(st.st_gid, ==, i & 1 ? 110 : getgid());
    }
    umask(saved);
}

static void name_that_is_taken_is_refused(gconstpointer base) {
    g_auto(Place) p = place_new(base);

    write_file(at(&p, "full"), "x");
    write_file(at(&p, "empty"), "");
    make_folder(at(&p, "folder"));
    g_assert_cmpint(mkfifo(at(&p, "pipe"), 0600), ==, 0);
    g_assert_cmpint(symlink("/nonexistent", at(&p, "dangling")), ==, 0);
    refuse(at(&p, "full"), false, FAILURE_TARGET_EXISTS);
    refuse(at(&p, "empty"), false, FAILURE_TARGET_EXISTS);
    refuse(at(&p, "folder"), false, FAILURE_BAD_TARGET);
    refuse(at(&p, "pipe"), false, FAILURE_BAD_TARGET);
    refuse(at(&p, "dangling"), false, FAILURE_BAD_TARGET);
    refuse(at(&p, "full/below"), false, FAILURE_BAD_TARGET);
    refuse(at(&p, "missing/new"), false, FAILURE_BAD_TARGET);
}

static void name_taken_before_publishing_is_refused(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    const char *path = at(&p, "new.img");
    g_autoptr(Target) t = open_new(path), dangling = open_new(at(&p, "link"));
    g_auto(Failure) f = {0};

    write_file(path, "theirs");
    g_assert_false(target_publish(t, 1 * MIB, &f));
    assert_sentence(&f, FAILURE_TARGET_EXISTS, path);
    assert_file(path, "theirs");
    g_assert_cmpint(symlink(at(&p, "elsewhere"), at(&p, "link")), ==, 0);
    g_assert_false(target_publish(dangling, 0, &f));
    g_assert_false(there(at(&p, "elsewhere")));
}

static void folder_swapped_before_publishing_is_noticed(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    g_auto(Failure) f = {0};

    for (int as_link = 0; as_link < 2; as_link++) {
        make_folder(at(&p, "in"));
        g_autoptr(Target) t = open_new(at(&p, "in/new.img"));
        g_assert_cmpint(rename(at(&p, "in"), at(&p, "aside")), ==, 0);
        if (as_link)
            g_assert_cmpint(symlink("aside", at(&p, "in")), ==, 0);
        else
            make_folder(at(&p, "in"));
        g_assert_false(target_publish(t, 0, &f));
        assert_sentence(&f, as_link ? FAILURE_BAD_TARGET : FAILURE_TARGET_MISSING,
                        at(&p, "in/new.img"));
        g_assert_cmpint(rmdir(at(&p, "aside")), ==, 0);
        g_assert_cmpint(remove(at(&p, "in")), ==, 0);
    }
}

static void size_beyond_the_file_system_is_refused(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    g_autoptr(Target) t = open_new(at(&p, "new.img"));
    g_auto(Failure) f = {0};

    g_assert_false(target_publish(t, UINT64_MAX, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, NULL);
    g_assert_false(there(at(&p, "new.img")));
}

static void long_names_work_up_to_the_limit(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    g_autofree char *name = g_strnfill(255, 'n'), *too_long = g_strnfill(256, 'n');
    g_autoptr(Target) t = open_new(at(&p, name));

    publish(t, 0);
    g_assert_true(there(at(&p, name)));
    refuse(at(&p, too_long), false, FAILURE_BAD_TARGET);
    refuse(at(&p, too_long), true, FAILURE_BAD_TARGET);
}

/* ---- Existing files ---- */

static void existing_file_is_opened(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    const char *path = at(&p, "old.img");

    write_file(path, "contents");
    g_autoptr(Target) t = open_existing(path);
    g_assert_cmpint(t->kind, ==, TARGET_FILE);
    g_assert_cmpuint(t->size, ==, 8);
    g_assert_cmpint(t->dir_fd, >=, 0);
    g_assert_cmpint(image_sync_folder(t->path), ==, 0);
    g_assert_cmpint(fcntl(t->fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), ==, O_RDWR);
    publish(t, 4096);
    assert_file(path, "contents");
    autofd int direct = open(path, O_RDWR | O_DIRECT);
    g_assert_cmpint(t->direct, ==, direct >= 0);
    refuse(at(&p, "missing"), true, FAILURE_TARGET_MISSING);
    refuse(at(&p, "missing/too"), true, FAILURE_TARGET_MISSING);
    refuse(at(&p, "old.img/below"), true, FAILURE_BAD_TARGET);
}

static void what_is_no_image_is_refused(gconstpointer base) {
    g_auto(Place) p = place_new(base);

    make_folder(at(&p, "folder"));
    g_assert_cmpint(mkfifo(at(&p, "pipe"), 0600), ==, 0);
    g_assert_cmpint(mknod(at(&p, "socket"), S_IFSOCK | 0600, 0), ==, 0);
    refuse(at(&p, "folder"), true, FAILURE_BAD_TARGET);
    refuse(at(&p, "pipe"), true, FAILURE_BAD_TARGET);
    refuse(at(&p, "socket"), true, FAILURE_BAD_TARGET);
    refuse("/dev/null", true, FAILURE_BAD_TARGET);
    refuse("/dev/null", false, FAILURE_BAD_TARGET);
}

static void links_are_never_followed(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    g_auto(Failure) f = {0};
    Target *t = NULL;

    make_folder(at(&p, "real"));
    make_folder(at(&p, "real/sub"));
    write_file(at(&p, "real/sub/old.img"), "x");
    g_assert_cmpint(symlink("real", at(&p, "middle")), ==, 0);
    g_assert_cmpint(symlink("real/sub/old.img", at(&p, "last")), ==, 0);
    g_assert_cmpint(symlink("loop", at(&p, "loop")), ==, 0);
    refuse(at(&p, "middle/sub/old.img"), true, FAILURE_BAD_TARGET);
    refuse(at(&p, "middle/sub/new.img"), false, FAILURE_BAD_TARGET);
    refuse(at(&p, "middle/new.img"), false, FAILURE_BAD_TARGET);
    refuse(at(&p, "last"), true, FAILURE_BAD_TARGET);
    refuse(at(&p, "last"), false, FAILURE_BAD_TARGET);
    refuse(at(&p, "loop/x"), true, FAILURE_BAD_TARGET);
    refuse("/proc/self/cwd/x", true, FAILURE_BAD_TARGET);
    refuse("/proc/self/root/etc/passwd", true, FAILURE_BAD_TARGET);
    g_assert_false(there(at(&p, "real/sub/new.img")));
    g_assert_false(target_open(at(&p, "middle/sub/old.img"), true, 0, 0, 0, &t, &f));
    g_assert_nonnull(strstr(f.message, at(&p, "real/sub/old.img")));
    target_free(open_existing(at(&p, "real/sub/old.img")));
}

static void lease_of_another_program_is_not_waited_for(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    g_auto(Failure) f = {0};
    Target *t = NULL;

    write_file(at(&p, "old.img"), "x");
    autofd int fd = open(at(&p, "old.img"), O_RDONLY | O_CLOEXEC);
    signal(SIGIO, SIG_IGN);
    g_assert_cmpint(fcntl(fd, F_SETLEASE, F_RDLCK), ==, 0);
    g_assert_false(target_open(at(&p, "old.img"), true, 0, 0, 0, &t, &f));
    assert_sentence(&f, FAILURE_TARGET_IN_USE, at(&p, "old.img"));
}

/* ---- Identity ---- */

static void journaled_image_is_opened_again(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    const char *path = at(&p, "new.img");
    g_autoptr(Target) t = open_new(path), again = NULL, none = NULL;
    g_auto(Failure) f = {0};

    publish(t, 4096);
    g_assert_true(target_reopen(TARGET_NEW, path, &t->id, &again, &f));
    g_assert_cmpint(again->kind, ==, TARGET_NEW);
    g_assert_true(image_is_intact(again->path, &again->id, &f));
    publish(again, 4096);

    ImageId other = {t->id.device, t->id.inode + 1};
    g_assert_false(target_reopen(TARGET_NEW, path, &other, &none, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, path);
    g_assert_false(target_reopen(TARGET_BLOCK, path, &t->id, &none, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, path);
    g_assert_false(target_reopen(TARGET_NEW, path, NULL, &none, &f));
    assert_sentence(&f, FAILURE_TARGET_EXISTS, path);
    g_assert_false(target_reopen(TARGET_NEW, at(&p, "missing"), NULL, &none, &f));
    assert_sentence(&f, FAILURE_TARGET_MISSING, NULL);
    g_assert_false(target_reopen(TARGET_FD, path, &t->id, &none, &f));
    assert_sentence(&f, FAILURE_TARGET_MISSING, path);
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_false(target_reopen(TARGET_NEW, path, &t->id, &none, &f));
    assert_sentence(&f, FAILURE_TARGET_MISSING, path);
    write_file(path, "another");
    g_assert_false(target_reopen(TARGET_FILE, path, &t->id, &none, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, path);
}

static void lost_image_is_noticed(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    const char *path = at(&p, "new.img"), *aside = at(&p, "aside");
    g_autoptr(Target) t = open_new(path);
    g_auto(Failure) f = {0};

    publish(t, 0);
    g_assert_cmpint(link(path, at(&p, "second name")), ==, 0);
    g_assert_true(image_is_intact(t->path, &t->id, &f));
    g_assert_cmpint(rename(path, aside), ==, 0);
    g_assert_false(image_is_intact(t->path, &t->id, &f));
    assert_sentence(&f, FAILURE_TARGET_MISSING, path);
    g_assert_false(target_publish(t, 0, &f));
    g_assert_false(there(path));
    write_file(path, "another");
    g_assert_false(image_is_intact(t->path, &t->id, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, path);
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_cmpint(symlink(aside, path), ==, 0);
    g_assert_false(image_is_intact(t->path, &t->id, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, path);
    g_assert_cmpint(rename(aside, path), ==, 0);
    g_assert_true(image_is_intact(t->path, &t->id, &f));
}

static void hard_links_are_one_image(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    ImageId a, b;
    uid_t uid;
    gid_t gid;
    mode_t mode;

    write_file(at(&p, "a"), "x");
    g_assert_cmpint(chmod(at(&p, "a"), 0640), ==, 0);
    g_assert_cmpint(chown(at(&p, "a"), 1, 2), ==, 0);
    g_assert_cmpint(link(at(&p, "a"), at(&p, "b")), ==, 0);
    g_assert_cmpint(symlink("b", at(&p, "c")), ==, 0);
    g_assert_cmpint(image_stat(at(&p, "a"), &a, &uid, &gid, &mode), ==, 0);
    g_assert_cmpint(image_stat(at(&p, "c"), &b, &uid, &gid, &mode), ==, 0);
    g_assert_true(image_id_equal(&a, &b));
    g_assert_cmpuint(uid, ==, 1);
    g_assert_cmpuint(gid, ==, 2);
    g_assert_cmpuint(mode, ==, S_IFREG | 0640);
    g_autoptr(Target) t = open_existing(at(&p, "b"));
    g_assert_true(image_id_equal(&a, &t->id));
    g_assert_cmpint(image_delete(at(&p, "a"), &a), ==, 0);
    assert_file(at(&p, "b"), "x");
    g_assert_cmpint(image_stat(at(&p, "a"), NULL, NULL, NULL, NULL), ==, -ENOENT);
}

static void only_the_image_itself_is_deleted(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    ImageId id, folder;
    uid_t uid;
    gid_t gid;
    mode_t mode;

    make_folder(at(&p, "in"));
    write_file(at(&p, "in/a"), "x");
    g_assert_cmpint(image_stat(at(&p, "in/a"), &id, &uid, &gid, &mode), ==, 0);
    g_assert_cmpint(image_stat(at(&p, "in"), &folder, &uid, &gid, &mode), ==, 0);
    g_assert_cmpint(symlink("in", at(&p, "way")), ==, 0);
    g_assert_cmpint(symlink("in/a", at(&p, "link")), ==, 0);
    write_file(at(&p, "other"), "y");
    g_assert_cmpint(image_delete(at(&p, "way/a"), &id), ==, -ESTALE);
    g_assert_cmpint(image_delete(at(&p, "link"), &id), ==, -ESTALE);
    g_assert_cmpint(image_delete(at(&p, "other"), &id), ==, -ESTALE);
    g_assert_cmpint(image_delete(at(&p, "in/a/b"), &id), ==, -ESTALE);
    g_assert_cmpint(image_delete(at(&p, "in"), &folder), ==, -ESTALE);
    g_assert_cmpint(image_delete("relative", &id), ==, -EINVAL);
    g_assert_cmpint(image_delete(at(&p, "gone"), &id), ==, 0);
    g_assert_cmpint(image_delete(at(&p, "gone/too"), &id), ==, 0);
    g_assert_true(there(at(&p, "in/a")) && there(at(&p, "other")) && there(at(&p, "link")));
    g_assert_cmpint(image_delete(at(&p, "in/a"), &id), ==, 0);
    g_assert_cmpint(image_delete(at(&p, "in/a"), &id), ==, 0);
    g_assert_false(there(at(&p, "in/a")));
}

/* ---- Locks ---- */

static void lock_of_another_description_is_seen(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    const char *path = at(&p, "old.img");
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
    const off_t inside[] = {100, 103, 201, 299}, outside[] = {0, 99, 300};
    g_auto(Failure) f = {0};

    write_file(path, "x");
    g_autoptr(Target) t = open_existing(path);
    g_assert_true(target_check_locks(t, &f));
    for (size_t i = 0; i < G_N_ELEMENTS(inside); i++) {
        autofd int fd = open(path, O_RDWR | O_CLOEXEC);
        lock.l_start = inside[i];
        g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
        g_assert_false(target_check_locks(t, &f));
        assert_sentence(&f, FAILURE_TARGET_IN_USE, NULL);
        g_assert_nonnull(strstr(f.message, path));
    }
    autofd int fd = open(path, O_RDWR | O_CLOEXEC);
    for (size_t i = 0; i < G_N_ELEMENTS(outside); i++) {
        lock.l_start = outside[i];
        g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
        g_assert_true(target_check_locks(t, &f));
    }
    lock.l_start = 101;
    g_assert_cmpint(fcntl(t->fd, F_OFD_SETLK, &lock), ==, 0);
    g_assert_true(target_check_locks(t, &f));
}

static void image_that_qemu_has_open_is_in_use(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    const char *path = at(&p, "old.qcow2"), *pid_file = at(&p, "pid");
    g_auto(Failure) f = {0};

    run("qemu-img create -q -f qcow2 %s 1M", path);
    for (int read_only = 0; read_only < 2; read_only++) {
        g_autofree char *text = NULL;
        run("qemu-storage-daemon --daemonize --pidfile %s --blockdev "
            "driver=qcow2,node-name=a,read-only=%s,file.driver=file,file.filename=%s",
            pid_file, read_only ? "on" : "off", path);
        g_assert_true(g_file_get_contents(pid_file, &text, NULL, NULL));
        pid_t pid = (pid_t) g_ascii_strtoll(text, NULL, 10);
        g_assert_cmpint(pid, >, 1);
        g_autoptr(Target) t = open_existing(path);
        bool free = target_check_locks(t, &f);
        int process = (int) syscall(SYS_pidfd_open, pid, 0);
        g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
        GPollFD end = {.fd = process, .events = G_IO_IN};
        g_assert_cmpint(g_poll(&end, 1, 10000), ==, 1);
        fd_close(process);
        g_assert_false(free);
        assert_sentence(&f, FAILURE_TARGET_IN_USE, NULL);
        g_assert_true(target_check_locks(t, &f));
    }
}

static void classic_lock_names_its_process(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    g_auto(Failure) f = {0};
    int go[2], status;
    char c;

    write_file(at(&p, "old.img"), "x");
    g_autoptr(Target) t = open_existing(at(&p, "old.img"));
    g_assert_cmpint(pipe2(go, O_CLOEXEC), ==, 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(at(&p, "old.img"), O_RDWR);
        bool locked = fcntl(fd, F_SETLK, &lock) == 0;
        if (write(go[1], locked ? "y" : "n", 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    g_assert_cmpint(read(go[0], &c, 1), ==, 1);
    bool free = target_check_locks(t, &f);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    close(go[0]);
    close(go[1]);
    g_assert_cmpint(c, ==, 'y');
    g_assert_false(free);
    g_autofree char *expected = g_strdup_printf("Process %d ", (int) pid);
    g_assert_true(g_str_has_prefix(f.message, expected));
}

/* ---- Descriptors ---- */

static void descriptor_must_be_a_plain_read_write_one(gconstpointer base) {
    static const int bad[] = {O_RDONLY,          O_WRONLY,        O_PATH,
                              O_RDWR | O_APPEND, O_RDWR | O_SYNC, O_RDWR | O_DSYNC};
    g_auto(Place) p = place_new(base);
    const char *path = at(&p, "old.img");
    g_auto(Failure) f = {0};
    Target *none = NULL;

    write_file(path, "contents");
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        autofd int fd = open(path, bad[i] | O_CLOEXEC);
        g_assert_cmpint(fd, >=, 0);
        g_assert_false(target_from_fd(fd, "my copy", &none, &f));
        assert_sentence(&f, FAILURE_BAD_TARGET, "my copy");
    }
    autofd int null = open("/dev/null", O_RDWR | O_CLOEXEC),
               folder = open(p.dir, O_RDONLY | O_CLOEXEC);
    g_assert_false(target_from_fd(null, "null", &none, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, "null");
    g_assert_false(target_from_fd(folder, "folder", &none, &f));
    g_assert_false(target_from_fd(-1, "nothing", &none, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, NULL);

    autofd int fd = open(path, O_RDWR);
    g_autoptr(Target) t = NULL;
    g_assert_true(target_from_fd(fd, "a\nb", &t, &f));
    g_assert_cmpstr(t->path, ==, "ab");
    g_assert_cmpint(t->kind, ==, TARGET_FD);
    g_assert_cmpuint(t->size, ==, 8);
    g_assert_cmpint(t->dir_fd, ==, -1);
    g_assert_cmpint(fcntl(t->fd, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_cmpint(image_sync_folder(t->path), ==, 0);
    publish(t, 4096);
    t = target_free(t);
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, 0);

    autofd int memory = memfd_create("m", MFD_CLOEXEC);
    g_assert_true(target_from_fd(memory, NULL, &t, &f));
    g_assert_cmpstr(t->path, ==, "the descriptor");
}

static void further_descriptor_is_a_description_of_its_own(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    g_autoptr(Target) t = open_new(at(&p, "new.img"));

    if (t->fd < 0)
        g_assert_cmpint(target_dup(t, O_RDONLY), ==, -EBADF);
    publish(t, 4096);
    autofd int reader = target_dup(t, O_RDONLY), writer = target_dup(t, O_RDWR);
    g_assert_cmpint(fcntl(reader, F_GETFL) & O_ACCMODE, ==, O_RDONLY);
    g_assert_cmpint(fcntl(writer, F_GETFL) & O_ACCMODE, ==, O_RDWR);
    g_assert_cmpint(fcntl(writer, F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(lseek(writer, 100, SEEK_SET), ==, 100);
    g_assert_cmpint(lseek(t->fd, 0, SEEK_CUR), ==, 0);
}

/* As in a service without capabilities: the file is closed to it, what the caller has opened is not. */
static void descriptor_of_a_closed_file_is_shared(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    g_auto(Failure) f = {0};
    const char *path = at(&p, "closed.img");
    autofd int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    g_autoptr(Target) t = NULL;

    if (geteuid() != 0) {
        g_test_skip("only root can give its rights away");
        return;
    }
    g_assert_true(target_from_fd(fd, "closed", &t, &f));
    g_assert_cmpint(seteuid(65534), ==, 0);
    autofd int reader = target_dup(t, O_RDONLY), writer = target_dup(t, O_RDWR);
    g_assert_cmpint(seteuid(0), ==, 0);
    g_assert_cmpint(reader, ==, -EACCES);
    g_assert_cmpint(writer, >=, 0);
    g_assert_cmpint(fcntl(writer, F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(lseek(fd, 100, SEEK_SET), ==, 100);
    g_assert_cmpint(lseek(writer, 0, SEEK_CUR), ==, 100);
}

static void free_space_is_that_of_the_folder(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    g_autoptr(Target) t = open_new(at(&p, "new.img"));
    struct statvfs vfs;
    uint64_t bytes = 0;

    g_assert_cmpint(target_free_space(t, &bytes), ==, 0);
    g_assert_cmpint(statvfs(p.dir, &vfs), ==, 0);
    g_assert_cmpuint(bytes, >, 0);
    g_assert_cmpuint(bytes, <=, (uint64_t) vfs.f_blocks * vfs.f_frsize);
}

/* ---- Less privileged, less capable, less space ---- */

static void become_nobody(void) {
    g_assert_cmpint(setresgid(NOBODY, NOBODY, NOBODY), ==, 0);
    g_assert_cmpint(setresuid(NOBODY, NOBODY, NOBODY), ==, 0);
}

static void unprivileged_run(gconstpointer data) {
    Place *p = (Place *) data;
    g_autoptr(Target) own = NULL, other = NULL;
    g_auto(Failure) f = {0};

    g_assert_true(target_open(at(p, "in/own.img"), false, NOBODY, NOBODY, 0660, &own, &f));
    publish(own, 4096);
    bool opened = target_open(at(p, "in/other.img"), false, 0, 0, 0600, &other, &f);
    g_assert_false(opened && target_publish(other, 0, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, NULL);
    g_assert_nonnull(strstr(f.message, "user 0 and group 0"));
    g_assert_false(there(at(p, "in/other.img")));
    bool closed = target_open(at(p, "shut/new.img"), false, NOBODY, NOBODY, 0600, &other, &f);
    g_assert_false(closed && target_publish(other, 0, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, at(p, "shut/new.img"));
    refuse(at(p, "secret.img"), true, FAILURE_BAD_TARGET);
}

static void missing_rights_are_a_clear_failure(gconstpointer base) {
    g_auto(Place) p = place_new(base);

    make_folder(at(&p, "in"));
    g_assert_cmpint(chown(at(&p, "in"), NOBODY, NOBODY), ==, 0);
    make_folder(at(&p, "shut"));
    write_file(at(&p, "secret.img"), "x");
    g_assert_cmpint(chmod(at(&p, "secret.img"), 0600), ==, 0);
    in_child(become_nobody, unprivileged_run, &p);
}

static void full_and_read_only_run(gconstpointer data) {
    Place *p = (Place *) data;

    g_assert_cmpint(unshare(CLONE_NEWNS), ==, 0);
    g_assert_cmpint(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL), ==, 0);
    g_assert_cmpint(mount("none", at(p, "in"), "tmpfs", 0, "nr_inodes=2"), ==, 0);
    write_file(at(p, "in/last.img"), "x");
    g_auto(Failure) f = {0};
    g_autoptr(Target) t = NULL;
    bool opened = target_open(at(p, "in/new.img"), false, 0, 0, 0600, &t, &f);
    g_assert_false(opened && target_publish(t, 0, &f));
    assert_sentence(&f, FAILURE_NO_SPACE, at(p, "in/new.img"));
    target_free(open_existing(at(p, "in/last.img")));

    t = target_free(t);
    g_assert_cmpint(mount("none", at(p, "in"), NULL, MS_REMOUNT | MS_RDONLY, NULL), ==, 0);
    opened = target_open(at(p, "in/new.img"), false, 0, 0, 0600, &t, &f);
    g_assert_false(opened && target_publish(t, 0, &f));
    g_assert_nonnull(strstr(f.message, "read-only"));
    g_assert_false(target_open(at(p, "in/last.img"), true, 0, 0, 0600, &t, &f));
    assert_sentence(&f, FAILURE_BAD_TARGET, at(p, "in/last.img"));
    g_assert_nonnull(strstr(f.message, "read-only"));
}

static void full_and_read_only_file_systems_are_named(gconstpointer base) {
    g_auto(Place) p = place_new(base);

    make_folder(at(&p, "in"));
    in_child(NULL, full_and_read_only_run, &p);
}

/* From here on, openat2() fails with error; where tmpfile is false, O_TMPFILE is not supported
 * either. */
static void kernel_lacks(uint32_t error, bool tmpfile) {
    const uint32_t flag = tmpfile ? 0 : O_TMPFILE & ~(uint32_t) O_DIRECTORY;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, flag, 1, 2),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = G_N_ELEMENTS(filter), .filter = filter};

    g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), ==, 0);
    g_assert_cmpint(syscall(SYS_openat2, AT_FDCWD, "/", NULL, 0), ==, -1);
    g_assert_cmpint(errno, ==, error);
    autofd int fd = openat(AT_FDCWD, "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    g_assert_true((fd >= 0) == tmpfile);
}

static void lacks_openat2(void) {
    kernel_lacks(ENOSYS, true);
}

static void forbids_openat2(void) {
    kernel_lacks(EPERM, true);
}

static void lacks_both(void) {
    kernel_lacks(ENOSYS, false);
}

static void same_without_openat2_and_tmpfile(gconstpointer base) {
    static void (*const tests[])(gconstpointer) = {
        new_file_appears_when_it_is_published,
        unpublished_file_leaves_nothing,
        new_file_gets_owner_and_mode_of_the_source,
        name_that_is_taken_is_refused,
        name_taken_before_publishing_is_refused,
        folder_swapped_before_publishing_is_noticed,
        size_beyond_the_file_system_is_refused,
        long_names_work_up_to_the_limit,
        existing_file_is_opened,
        what_is_no_image_is_refused,
        links_are_never_followed,
        journaled_image_is_opened_again,
        lost_image_is_noticed,
        only_the_image_itself_is_deleted,
        further_descriptor_is_a_description_of_its_own,
        free_space_is_that_of_the_folder,
        missing_rights_are_a_clear_failure,
        full_and_read_only_file_systems_are_named,
    };
    void (*const kernels[])(void) = {lacks_openat2, forbids_openat2, lacks_both};

    for (size_t k = 0; k < G_N_ELEMENTS(kernels); k++)
        for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
            in_child(kernels[k], tests[i], base);
}

/* ---- Block devices ---- */

static void block_device_is_a_target(gconstpointer base) {
    g_auto(Place) p = place_new(base);
    g_autofree char *out = NULL;
    g_auto(Failure) f = {0};
    int status = -1;

    run("truncate -s 8M %s", at(&p, "disk.img"));
    run("mkfs.ext4 -q %s", at(&p, "disk.img"));
    g_autofree char *command = g_strdup_printf("losetup -f --show %s", at(&p, "disk.img"));
    if (!g_spawn_command_line_sync(command, &out, NULL, &status, NULL) || status != 0) {
        g_test_skip("losetup gives no loop device here");
        return;
    }
    const char *device = g_strstrip(out);
    g_autoptr(Target) t = open_existing(device), again = NULL, passed = NULL;
    g_assert_cmpint(t->kind, ==, TARGET_BLOCK);
    g_assert_cmpuint(t->size, ==, 8 * MIB);
    g_assert_cmpuint(t->id.inode, ==, 0);
    g_assert_cmpint(t->dir_fd, ==, -1);
    g_assert_true(target_check_locks(t, &f));
    publish(t, 16 * MIB);
    g_assert_true(target_reopen(TARGET_BLOCK, device, &t->id, &again, &f));
    g_assert_false(target_reopen(TARGET_FILE, device, &t->id, &again, &f));
    g_assert_true(target_from_fd(t->fd, "device", &passed, &f));
    g_assert_cmpuint(passed->size, ==, 8 * MIB);
    g_assert_true(image_id_equal(&passed->id, &t->id));
    refuse(device, false, FAILURE_TARGET_EXISTS);
    g_assert_cmpint(image_delete(device, &t->id), ==, -ESTALE);
    g_assert_true(there(device));

    make_folder(at(&p, "mounted"));
    bool mounted = mount(device, at(&p, "mounted"), "ext4", 0, NULL) == 0;
    bool free = target_check_locks(t, &f), passed_free = target_check_locks(passed, &f);
    umount(at(&p, "mounted"));
    run("losetup -d %s", device);
    g_assert_true(mounted);
    g_assert_false(free || passed_free);
    assert_sentence(&f, FAILURE_TARGET_IN_USE, NULL);
    g_assert_nonnull(strstr(f.message, "mounted"));
}

#define TEST(name) g_test_add_func("/target/" #name, name)
#define TEST_ON_EACH(name)                                                                         \
    do {                                                                                           \
        g_test_add_data_func("/target/disk/" #name, "/var/tmp", name);                             \
        g_test_add_data_func("/target/tmpfs/" #name, "/dev/shm", name);                            \
    } while (0)

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
    TEST(paths_are_judged_by_their_words);
    TEST(folders_contain_by_words);
    TEST(kinds_have_names);
    TEST_ON_EACH(new_file_appears_when_it_is_published);
    TEST_ON_EACH(unpublished_file_leaves_nothing);
    TEST_ON_EACH(new_file_gets_owner_and_mode_of_the_source);
    TEST_ON_EACH(name_that_is_taken_is_refused);
    TEST_ON_EACH(name_taken_before_publishing_is_refused);
    TEST_ON_EACH(folder_swapped_before_publishing_is_noticed);
    TEST_ON_EACH(size_beyond_the_file_system_is_refused);
    TEST_ON_EACH(long_names_work_up_to_the_limit);
    TEST_ON_EACH(existing_file_is_opened);
    TEST_ON_EACH(what_is_no_image_is_refused);
    TEST_ON_EACH(links_are_never_followed);
    TEST_ON_EACH(lease_of_another_program_is_not_waited_for);
    TEST_ON_EACH(journaled_image_is_opened_again);
    TEST_ON_EACH(lost_image_is_noticed);
    TEST_ON_EACH(hard_links_are_one_image);
    TEST_ON_EACH(only_the_image_itself_is_deleted);
    TEST_ON_EACH(lock_of_another_description_is_seen);
    TEST_ON_EACH(image_that_qemu_has_open_is_in_use);
    TEST_ON_EACH(classic_lock_names_its_process);
    TEST_ON_EACH(descriptor_must_be_a_plain_read_write_one);
    TEST_ON_EACH(further_descriptor_is_a_description_of_its_own);
    TEST_ON_EACH(descriptor_of_a_closed_file_is_shared);
    TEST_ON_EACH(free_space_is_that_of_the_folder);
    TEST_ON_EACH(missing_rights_are_a_clear_failure);
    TEST_ON_EACH(full_and_read_only_file_systems_are_named);
    TEST_ON_EACH(same_without_openat2_and_tmpfile);
    TEST_ON_EACH(block_device_is_a_target);
    return g_test_run();
}
