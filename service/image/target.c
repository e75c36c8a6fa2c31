/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Targets: opening image files without following links, giving new ones their name, and looking
 * whether they are still what they were. */

#include "image/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "util.h"

/* Bytes that QEMU locks, one for each permission and one for each that is not shared;
 * block/file-posix.c. */
#define LOCK_FIRST 100
#define LOCK_COUNT 200

/* Alignment of the O_DIRECT probe: no block device that Linux drives has larger sectors. */
#define DIRECT_ALIGN 4096

static const char *const kind_names[] = {
#define X(id, name) [TARGET_##id] = name,
    TARGET_KIND_LIST(X)
#undef X
};

const char *target_kind_to_string(TargetKind kind) {
    return kind < G_N_ELEMENTS(kind_names) ? kind_names[kind] : "";
}

int target_kind_from_string(const char *s) {
    return string_index(kind_names, G_N_ELEMENTS(kind_names), s);
}

bool image_id_equal(const ImageId *a, const ImageId *b) {
    return a->device == b->device && a->inode == b->inode;
}

static ImageId id_of(const struct stat *st) {
    if (S_ISBLK(st->st_mode))
        return (ImageId){.device = st->st_rdev};
    return (ImageId){.device = st->st_dev, .inode = st->st_ino};
}

static const char *base_of(const char *path) {
    return strrchr(path, '/') + 1;
}

Target *target_free(Target *t) {
    if (!t)
        return NULL;
    fd_close(t->fd);
    fd_close(t->dir_fd);
    g_free(t->path);
    g_free(t);
    return NULL;
}

static Target *target_alloc(TargetKind kind, const char *path) {
    Target *t = g_new(Target, 1);

    *t = (Target){.kind = kind,
                  .path = g_strdup(path),
                  .fd = -1,
                  .dir_fd = -1,
                  .owner = (uid_t) -1,
                  .group = (gid_t) -1,
                  .mode = 0600};
    return t;
}

/* ---- Words ---- */

bool target_check_path(const char *path, Failure *f) {
    if (strlen(path) >= PATH_MAX)
        return failure_set(f, FAILURE_BAD_TARGET, "The path is longer than %d bytes; shorten it.",
                           PATH_MAX - 1);
    if (!string_is_printable(path)) {
        g_autofree char *clean = string_sanitize(path, 256);
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "The path \"%s\" has control characters in it or is not UTF-8; use another name.",
            clean);
    }
    if (path[0] != '/')
        return failure_set(f, FAILURE_BAD_TARGET,
                           "\"%s\" is not an absolute path; give one that begins with \"/\".",
                           path);
    if (g_str_has_suffix(path, "/"))
        return failure_set(f, FAILURE_BAD_TARGET,
                           "\"%s\" names a folder; add the name of the image file.", path);

    g_auto(GStrv) parts = g_strsplit(path + 1, "/", -1);
    for (char **p = parts; *p; p++) {
        if (**p == '\0' || strcmp(*p, ".") == 0 || strcmp(*p, "..") == 0)
            return failure_set(
                f, FAILURE_BAD_TARGET,
                "\"%s\" has \"//\", \"/.\" or \"/..\" in it; give the path without detours.", path);
        if (strlen(*p) > NAME_MAX)
            return failure_set(f, FAILURE_BAD_TARGET,
                               "A name in the path \"%s\" is longer than %d bytes; shorten it.",
                               path, NAME_MAX);
    }
    return true;
}

bool target_in_folders(const char *path, char *const *folders) {
    for (; folders && *folders; folders++) {
        size_t n = strlen(*folders);
        while (n > 0 && (*folders)[n - 1] == '/')
            n--;
        if ((*folders)[0] == '/' && strncmp(path, *folders, n) == 0 && path[n] == '/' &&
            path[n + 1] != '\0')
            return true;
    }
    return false;
}

/* ---- Opening without links ---- */

/* Opens path component by component, for kernels and sandboxes without openat2(). A name that is a
 * link gives -ELOOP, also as the last component. */
static int open_walk(const char *path, int flags) {
    g_auto(GStrv) parts = g_strsplit(path + 1, "/", -1);
    autofd int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    for (char **p = parts; at >= 0 && *p && **p; p++) {
        struct stat st;
        int next = openat(at, *p, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0)
            return -errno;
        fd_close(at);
        at = next;
        if (fstat(at, &st) < 0)
            return -errno;
        if (S_ISLNK(st.st_mode))
            return -ELOOP;
        if (p[1] && !S_ISDIR(st.st_mode))
            return -ENOTDIR;
    }
    if (at < 0)
        return -errno;
    if (flags & O_PATH)
        return fd_steal(&at);
    /* Only folders are opened for more than O_PATH: "." opens what was looked at, whatever its name
     * is now. */
    int fd = openat(at, ".", flags);
    return fd < 0 ? -errno : fd;
}

/* flags: O_PATH, or O_RDONLY | O_DIRECTORY; with O_CLOEXEC. A descriptor or a negative errno. */
static int open_unlinked(const char *path, int flags) {
    struct open_how how = {.flags = (uint64_t) flags,
                           .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    long fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

    if (fd >= 0)
        return (int) fd;
    /* Sandboxes that do not know the call answer EPERM; the walk tells that from a true one. */
    return errno == ENOSYS || errno == EPERM ? open_walk(path, flags) : -errno;
}

static int open_folder(const char *path) {
    g_autofree char *folder = g_path_get_dirname(path);

    return open_unlinked(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* A further description of the file behind fd, which may be O_PATH or without a name. */
static int open_again(int fd, int flags) {
    char link[64];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    int again = open(link, flags | O_CLOEXEC | O_NOCTTY);
    return again < 0 ? -errno : again;
}

/* ---- Sentences ---- */

static bool link_failure(Failure *f, const char *path) {
    g_autofree char *real = realpath(path, NULL);
    g_autofree char *folder = g_path_get_dirname(path);
    g_autofree char *real_folder = real ? NULL : realpath(folder, NULL);

    if (real && string_is_printable(real))
        return failure_set(f, FAILURE_BAD_TARGET,
                           "\"%s\" is or leads through a symbolic link, which is not followed; its "
                           "real path is \"%s\".",
                           path, real);
    if (real_folder && string_is_printable(real_folder))
        return failure_set(f, FAILURE_BAD_TARGET,
                           "\"%s\" is or leads through a symbolic link, which is not followed; the "
                           "real path of its "
                           "folder is \"%s\".",
                           path, real_folder);
    return failure_set(
        f, FAILURE_BAD_TARGET,
        "\"%s\" is or leads through a symbolic link, which is not followed; give the real path.",
        path);
}

/* What kept us from opening or making path. error is a positive errno; missing says what ENOENT
 * means. */
static bool path_failure(Failure *f, const char *path, int error, FailureKind missing) {
    g_autofree char *folder = g_path_get_dirname(path);

    switch (error) {
    case ENOENT:
        if (missing == FAILURE_TARGET_MISSING)
            return failure_set(
                f, missing, "\"%s\" does not exist; create it first or ask for a new file.", path);
        return failure_set(f, missing, "The folder \"%s\" does not exist; create it first.",
                           folder);
    case ELOOP:
        return link_failure(f, path);
    case ENOTDIR:
        return failure_set(f, FAILURE_BAD_TARGET,
                           "A part of the folder \"%s\" is not a folder; correct the path.",
                           folder);
    case EROFS:
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "\"%s\" lies on a read-only file system; choose another place or mount it for writing.",
            path);
    case EACCES:
    case EPERM:
        return failure_set(f, FAILURE_BAD_TARGET,
                           "The service may not write to \"%s\" (%s); change the permissions or "
                           "choose another place.",
                           path, g_strerror(error));
    case ENOSPC:
    case EDQUOT:
        return failure_set(
            f, FAILURE_NO_SPACE,
            "There is no space left for \"%s\" (%s); free some or choose another place.", path,
            g_strerror(error));
    case EAGAIN:
    case EBUSY:
    case ETXTBSY:
        return failure_set(
            f, FAILURE_TARGET_IN_USE,
            "\"%s\" is used by another program (%s); stop that or choose another target.", path,
            g_strerror(error));
    default:
        return failure_set(f, FAILURE_BAD_TARGET,
                           "\"%s\" cannot be used: %s; choose another place.", path,
                           g_strerror(error));
    }
}

static const char *type_name(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a folder";
    case S_IFIFO:
        return "a pipe";
    case S_IFSOCK:
        return "a socket";
    case S_IFCHR:
        return "a character device";
    case S_IFLNK:
        return "a symbolic link";
    default:
        return "of an unknown kind";
    }
}

static bool type_check(const char *path, mode_t mode, Failure *f) {
    if (S_ISREG(mode) || S_ISBLK(mode))
        return true;
    return failure_set(f, FAILURE_BAD_TARGET,
                       "\"%s\" is %s; a target is a regular file or a block device.", path,
                       type_name(mode));
}

static bool exists_failure(Failure *f, const char *path, mode_t mode) {
    if (S_ISLNK(mode))
        return link_failure(f, path);
    if (!type_check(path, mode, f))
        return false;
    return failure_set(
        f, FAILURE_TARGET_EXISTS,
        "\"%s\" exists already; choose another name, or say \"existing\" to overwrite it.", path);
}

/* ---- Looking at what is open ---- */

/* Whether O_DIRECT works: some file systems take the flag and fail at the first read. Where only the caller's own
 * description can be used, it is as the caller has it. */
static bool direct_works(int fd) {
    autofd int probe = open_again(fd, O_RDWR);
    void *buffer = NULL;

    if (probe == -EACCES)
        return fcntl(fd, F_GETFL) & O_DIRECT;
    if (probe < 0 || fcntl(probe, F_SETFL, O_DIRECT) < 0 ||
        posix_memalign(&buffer, DIRECT_ALIGN, DIRECT_ALIGN) != 0)
        return false;
    bool works = pread(probe, buffer, DIRECT_ALIGN, 0) >= 0;
    free(buffer);
    return works;
}

static bool target_examine(Target *t, Failure *f) {
    struct stat st;

    if (fstat(t->fd, &st) < 0)
        return path_failure(f, t->path, errno, FAILURE_TARGET_MISSING);
    t->id = id_of(&st);
    t->size = (uint64_t) st.st_size;
    if (S_ISBLK(st.st_mode) && ioctl(t->fd, BLKGETSIZE64, &t->size) < 0)
        return path_failure(f, t->path, errno, FAILURE_TARGET_MISSING);
    t->direct = direct_works(t->fd);
    return true;
}

/* Gives the file that we have made to the source's owner, so that a QEMU that runs as another user
 * can open it at its next start. The mode first: it can be changed by the owner only, who we are not
 * any more then, and that needs CAP_FOWNER. */
static bool target_hand_over(const Target *t, Failure *f) {
    mode_t mode = (t->mode & 0660) | 0600;
    struct stat st;

    if (fstat(t->fd, &st) < 0)
        return path_failure(f, t->path, errno, FAILURE_BAD_TARGET);
    if ((st.st_mode & 07777) != mode && fchmod(t->fd, mode) < 0)
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "The new image \"%s\" cannot be given the mode %04o (%s); choose a file system that "
            "allows it.",
            t->path, mode, g_strerror(errno));
    int error = fchown(t->fd, t->owner, t->group) < 0 ? errno : 0;
    bool owned = (t->owner == (uid_t) -1 || t->owner == st.st_uid) &&
                 (t->group == (gid_t) -1 || t->group == st.st_gid);
    if (error && (error != EPERM || !owned))
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "The new image \"%s\" cannot be given to the owner of the source, user %" PRId64
            " and group %" PRId64 " (%s); choose a file system that allows it.",
            t->path, (int64_t) (int32_t) t->owner, (int64_t) (int32_t) t->group, g_strerror(error));
    return true;
}

/* ---- Opening ---- */

static bool target_open_new(const char *path, uid_t owner, gid_t group, mode_t mode, Target **ret,
                            Failure *f) {
    g_autoptr(Target) t = target_alloc(TARGET_NEW, path);
    struct stat st;

    t->owner = owner;
    t->group = group;
    t->mode = mode;
    t->dir_fd = open_folder(path);
    if (t->dir_fd < 0)
        return path_failure(f, path, -t->dir_fd, FAILURE_BAD_TARGET);
    if (fstatat(t->dir_fd, base_of(path), &st, AT_SYMLINK_NOFOLLOW) == 0)
        return exists_failure(f, path, st.st_mode);
    if (errno != ENOENT)
        return path_failure(f, path, errno, FAILURE_BAD_TARGET);

    t->fd = openat(t->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (t->fd < 0) {
        /* EISDIR comes from kernels, EOPNOTSUPP from file systems that do not know the flag. */
        if (errno != EOPNOTSUPP && errno != EISDIR)
            return path_failure(f, path, errno, FAILURE_BAD_TARGET);
        *ret = g_steal_pointer(&t);
        return true;
    }
    if (!target_hand_over(t, f) || !target_examine(t, f))
        return false;
    *ret = g_steal_pointer(&t);
    return true;
}

static bool target_open_existing(const char *path, Target **ret, Failure *f) {
    struct stat st;
    /* O_PATH first: opening a pipe, tape or watchdog for real would already do something. */
    autofd int at = open_unlinked(path, O_PATH | O_CLOEXEC);

    if (at < 0)
        return path_failure(f, path, -at, FAILURE_TARGET_MISSING);
    if (fstat(at, &st) < 0)
        return path_failure(f, path, errno, FAILURE_TARGET_MISSING);
    if (!type_check(path, st.st_mode, f))
        return false;

    g_autoptr(Target) t = target_alloc(S_ISBLK(st.st_mode) ? TARGET_BLOCK : TARGET_FILE, path);
    /* O_NONBLOCK only for the opening: it must not wait for the holder of a lease. */
    t->fd = open_again(at, O_RDWR | O_NONBLOCK);
    if (t->fd < 0)
        return path_failure(f, path, -t->fd, FAILURE_TARGET_MISSING);
    if (fcntl(t->fd, F_SETFL, 0) < 0)
        return path_failure(f, path, errno, FAILURE_TARGET_MISSING);
    if (t->kind == TARGET_FILE && (t->dir_fd = open_folder(path)) < 0)
        return path_failure(f, path, -t->dir_fd, FAILURE_TARGET_MISSING);
    if (!target_examine(t, f))
        return false;
    *ret = g_steal_pointer(&t);
    return true;
}

bool target_open(const char *path, bool existing, uid_t owner, gid_t group, mode_t mode,
                 Target **ret, Failure *f) {
    if (!target_check_path(path, f))
        return false;
    return existing ? target_open_existing(path, ret, f)
                    : target_open_new(path, owner, group, mode, ret, f);
}

bool target_from_fd(int fd, const char *name, Target **ret, Failure *f) {
    g_autofree char *clean = string_sanitize(name && *name ? name : "the descriptor", PATH_MAX - 1);
    struct stat st;

    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) < 0)
        return failure_set(f, FAILURE_BAD_TARGET,
                           "The descriptor for \"%s\" is not open; pass an open one.", clean);
    if ((flags & O_ACCMODE) != O_RDWR || flags & O_PATH)
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "The descriptor for \"%s\" is not open for reading and writing; open it with O_RDWR.",
            clean);
    if (flags & (O_APPEND | O_SYNC))
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "The descriptor for \"%s\" has O_APPEND, O_SYNC or O_DSYNC set; open it without them.",
            clean);
    if (!type_check(clean, st.st_mode, f))
        return false;

    g_autoptr(Target) t = target_alloc(TARGET_FD, clean);
    t->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (t->fd < 0)
        return failure_set(f, FAILURE_BAD_TARGET,
                           "The descriptor for \"%s\" cannot be kept: %s; try again later.", clean,
                           g_strerror(errno));
    if (!target_examine(t, f))
        return false;
    *ret = g_steal_pointer(&t);
    return true;
}

static bool identity_failure(Failure *f, const char *path) {
    return failure_set(
        f, FAILURE_BAD_TARGET,
        "Another file has taken the place of the image \"%s\"; put the image back under its name.",
        path);
}

bool target_reopen(TargetKind kind, const char *path, const ImageId *id, Target **ret, Failure *f) {
    g_autoptr(Target) t = NULL;

    if (kind == TARGET_FD)
        return failure_set(
            f, FAILURE_TARGET_MISSING,
            "\"%s\" was a descriptor that the caller passed, which cannot be opened again.", path);
    if (!target_check_path(path, f) || !target_open_existing(path, &t, f))
        return false;
    if (!id)
        return failure_set(f, FAILURE_TARGET_EXISTS,
                           "\"%s\" is there, but the journal does not say whether this job has "
                           "made it; look at it "
                           "and delete it, or choose another name.",
                           path);
    if (!image_id_equal(&t->id, id) || (t->kind == TARGET_BLOCK) != (kind == TARGET_BLOCK))
        return identity_failure(f, path);
    t->kind = kind;
    *ret = g_steal_pointer(&t);
    return true;
}

int target_dup(const Target *t, int flags) {
    if (t->fd < 0)
        return -EBADF;
    int again = open_again(t->fd, flags);
    if (again != -EACCES || t->kind != TARGET_FD || (flags & O_ACCMODE) != O_RDWR)
        return again;
    /* Without CAP_DAC_OVERRIDE a caller's file may be closed to us; the caller's own description is not. */
    int shared = fcntl(t->fd, F_DUPFD_CLOEXEC, 0);
    return shared < 0 ? -errno : shared;
}

/* ---- Names ---- */

/* Unlinks name if it is the regular file id. The look and the unlinking are two steps: who can put
 * something else there in between may write to the folder, and could as well delete it himself. */
static int unlink_exact(int dir_fd, const char *name, const ImageId *id) {
    struct stat st;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    ImageId found = id_of(&st);
    if (!S_ISREG(st.st_mode) || !image_id_equal(&found, id))
        return -ESTALE;
    return unlinkat(dir_fd, name, 0) < 0 ? -errno : 0;
}

static bool target_grow(Target *t, uint64_t size, Failure *f) {
    if (t->size >= size)
        return true;
    if (size > INT64_MAX || ftruncate(t->fd, (off_t) size) < 0) {
        g_autofree char *text = format_bytes(size);
        if (size <= INT64_MAX && (errno == ENOSPC || errno == EDQUOT))
            return path_failure(f, t->path, errno, FAILURE_BAD_TARGET);
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "The file system of \"%s\" cannot hold a file of %s; choose another place.", t->path,
            text);
    }
    t->size = size;
    return true;
}

static bool taken_failure(Failure *f, const Target *t) {
    return failure_set(
        f, FAILURE_TARGET_EXISTS,
        "\"%s\" has been created by somebody else in the meantime; choose another name.", t->path);
}

bool image_is_intact(const char *path, const ImageId *id, Failure *f) {
    struct stat st;
    autofd int at = open_unlinked(path, O_PATH | O_CLOEXEC);

    if (at == -ENOENT)
        return failure_set(
            f, FAILURE_TARGET_MISSING,
            "The image \"%s\" is not there any more: it or its folder was deleted or moved.", path);
    if (at < 0)
        return path_failure(f, path, -at, FAILURE_TARGET_MISSING);
    if (fstat(at, &st) < 0)
        return path_failure(f, path, errno, FAILURE_TARGET_MISSING);
    ImageId found = id_of(&st);
    return (S_ISREG(st.st_mode) && image_id_equal(&found, id)) || identity_failure(f, path);
}

static bool target_is_intact(const Target *t, Failure *f) {
    return image_is_intact(t->path, &t->id, f);
}

/* For file systems without O_TMPFILE. */
static bool target_create(Target *t, uint64_t size, Failure *f) {
    t->fd = openat(t->dir_fd, base_of(t->path), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                   0600);
    if (t->fd < 0)
        return errno == EEXIST ? taken_failure(f, t)
                               : path_failure(f, t->path, errno, FAILURE_BAD_TARGET);
    bool known = target_examine(t, f);
    if (known && target_hand_over(t, f) && target_grow(t, size, f) && target_is_intact(t, f))
        return true;
    if (known)
        unlink_exact(t->dir_fd, base_of(t->path), &t->id);
    t->fd = fd_close(t->fd);
    return false;
}

bool target_publish(Target *t, uint64_t size, Failure *f) {
    char link[64];
    struct stat st;

    if (t->kind != TARGET_NEW)
        return true;
    if (t->fd < 0)
        return target_create(t, size, f);
    if (fstat(t->fd, &st) < 0)
        return path_failure(f, t->path, errno, FAILURE_BAD_TARGET);
    t->size = (uint64_t) st.st_size;
    if (st.st_nlink > 0)
        return target_is_intact(t, f) && target_grow(t, size, f);
    /* Grown first: who sees the name sees a whole raw image. */
    if (!target_grow(t, size, f))
        return false;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", t->fd);
    if (linkat(AT_FDCWD, link, t->dir_fd, base_of(t->path), AT_SYMLINK_FOLLOW) < 0)
        return errno == EEXIST ? taken_failure(f, t)
                               : path_failure(f, t->path, errno, FAILURE_BAD_TARGET);
    if (target_is_intact(t, f))
        return true;
    /* The folder was moved away under us: the file has a name, but not the one that was asked for.
     */
    unlink_exact(t->dir_fd, base_of(t->path), &t->id);
    return false;
}

int target_preallocate(const Target *t, uint64_t size) {
    int r = posix_fallocate(t->fd, 0, (off_t) size);

    return -r;
}

int image_sync_folder(const char *path) {
    g_autofree char *folder = g_path_get_dirname(path);
    autofd int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int image_sync(const char *path) {
    autofd int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* ---- Who else ---- */

static bool host_uses(int fd) {
    /* O_EXCL without O_CREAT on a block device asks for the claim that mounts, swap, LVM and md
     * hold. */
    autofd int claim = open_again(fd, O_RDONLY | O_EXCL | O_NONBLOCK);

    return claim == -EBUSY;
}

bool target_check_locks(const Target *t, Failure *f) {
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_FIRST, .l_len = LOCK_COUNT};
    struct stat st;

    if (t->fd < 0)
        return true;
    if (fstat(t->fd, &st) == 0 && S_ISBLK(st.st_mode) && host_uses(t->fd))
        return failure_set(f, FAILURE_TARGET_IN_USE,
                           "The host itself uses the block device \"%s\" (mounted, swap, or part "
                           "of an array or volume "
                           "group); release it or choose another target.",
                           t->path);
    /* A file system without locks: QEMU does not lock there either. */
    if (fcntl(t->fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
        return true;
    if (lock.l_pid > 0)
        return failure_set(f, FAILURE_TARGET_IN_USE,
                           "Process %d holds a lock on \"%s\"; stop it or choose another target.",
                           (int) lock.l_pid, t->path);
    return failure_set(
        f, FAILURE_TARGET_IN_USE,
        "Another process has the image \"%s\" open (a running QEMU or qemu-img); stop it or choose "
        "another target.",
        t->path);
}

int target_free_space(const Target *t, uint64_t *ret_bytes) {
    struct statvfs vfs;

    *ret_bytes = 0;
    if (fstatvfs(t->dir_fd >= 0 ? t->dir_fd : t->fd, &vfs) < 0)
        return -errno;
    if (__builtin_mul_overflow((uint64_t) vfs.f_bavail, (uint64_t) vfs.f_frsize, ret_bytes))
        *ret_bytes = UINT64_MAX;
    return 0;
}

/* ---- Images by path ---- */

int image_delete(const char *path, const ImageId *id) {
    g_auto(Failure) why = {0};

    if (!target_check_path(path, &why))
        return -EINVAL;
    autofd int folder = open_folder(path);
    if (folder == -ENOENT)
        return 0;
    if (folder < 0)
        return folder == -ELOOP || folder == -ENOTDIR ? -ESTALE : folder;
    int r = unlink_exact(folder, base_of(path), id);
    if (r < 0 && r != -ENOENT)
        return r;
    /* Also when it is gone already: the one who unlinked it may have died before the folder was on
     * disk. */
    return fsync(folder) < 0 ? -errno : 0;
}

int image_stat(const char *path, ImageId *ret_id, uid_t *ret_uid, gid_t *ret_gid,
               mode_t *ret_mode) {
    struct stat st;

    if (stat(path, &st) < 0)
        return -errno;
    if (ret_id)
        *ret_id = id_of(&st);
    if (ret_uid)
        *ret_uid = st.st_uid;
    if (ret_gid)
        *ret_gid = st.st_gid;
    if (ret_mode)
        *ret_mode = st.st_mode;
    return 0;
}
