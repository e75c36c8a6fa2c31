/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Replacing a domain's definition file so that after a power cut either the old or the new text is
 * there, whole. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "domain/xml.h"
#include "util.h"

static char *prepared_name(const char *path, const char *tag) {
    const char *slash = strrchr(path, '/');

    return g_strdup_printf("%s.blockjobd-%s", slash ? slash + 1 : path, tag);
}

static int folder_open(const char *path) {
    g_autofree char *folder = g_path_get_dirname(path);

    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const char *text, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, text, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        size -= (size_t) n;
    }
    return 0;
}

/* Fills the new file; st is that of the old one. Nobody else may read it before it has its owner, and its mode can be
 * changed, without CAP_FOWNER, only before that: so it is empty until it has both. */
static int prepared_fill(int fd, const struct stat *st, const char *text) {
    if (fchmod(fd, st->st_mode & 0777) < 0 || fchown(fd, st->st_uid, st->st_gid) < 0)
        return -errno;
    int r = write_all(fd, text, strlen(text));
    if (r < 0)
        return r;
    return fsync(fd) < 0 ? -errno : 0;
}

int definition_prepare(const char *path, const char *tag, const char *text) {
    g_autofree char *base = g_path_get_basename(path);
    g_autofree char *name = prepared_name(path, tag);
    autofd int folder = folder_open(path);
    struct stat st;

    if (strlen(text) > XML_SIZE_MAX)
        return -EFBIG;
    if (folder < 0)
        return folder;
    if (fstatat(folder, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return S_ISLNK(st.st_mode) ? -ELOOP : -EINVAL;
    if (unlinkat(folder, name, 0) < 0 && errno != ENOENT)
        return -errno;
    autofd int fd =
        openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int r = prepared_fill(fd, &st, text);
    if (r == 0 && fsync(folder) < 0)
        r = -errno;
    if (r < 0)
        unlinkat(folder, name, 0);
    return r;
}

int definition_commit(const char *path, const char *tag) {
    g_autofree char *base = g_path_get_basename(path);
    g_autofree char *name = prepared_name(path, tag);
    autofd int folder = folder_open(path);

    if (folder < 0)
        return folder;
    if (renameat(folder, name, folder, base) < 0 && errno != ENOENT)
        return -errno;
    /* Also when it was renamed before: who did it may have died before the folder was on disk. */
    return fsync(folder) < 0 ? -errno : 0;
}

int definition_discard(const char *path, const char *tag) {
    g_autofree char *name = prepared_name(path, tag);
    autofd int folder = folder_open(path);

    if (folder < 0)
        return folder == -ENOENT ? 0 : folder;
    return unlinkat(folder, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}
