/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Target: the image that a job writes to, as a file on this host. Opened by us or brought by the
 * caller as a descriptor, so that QEMU never gets a path that somebody checked before.
 *
 * A new file is made without a name (O_TMPFILE), so that its device and inode can be journaled
 * before it is there, and is linked to its name when the journal has them: target_publish(). Where
 * the file system has no O_TMPFILE it is created under its name with O_EXCL by target_publish(),
 * and the identity is known only from then on. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "failure.h"

#define TARGET_KIND_LIST(X)                                                                        \
    X(NEW, "new")                                                                                  \
    X(FILE, "file")                                                                                \
    X(BLOCK, "block")                                                                              \
    X(FD, "fd")

typedef enum {
#define X(id, name) TARGET_##id,
    TARGET_KIND_LIST(X)
#undef X
} TargetKind;
const char *target_kind_to_string(TargetKind kind);
int target_kind_from_string(const char *s); /* a TargetKind; -1 if unknown */

typedef struct {
    uint64_t device, inode; /* st_dev, st_ino; for a block device device = st_rdev and inode = 0 */
} ImageId;
bool image_id_equal(const ImageId *a, const ImageId *b);

typedef struct {
    TargetKind kind;
    char *path;    /* absolute; for TARGET_FD a name for people */
    int fd;        /* O_RDWR; owned; without a name, or -1, for a NEW before target_publish() */
    int dir_fd;    /* folder of a NEW or FILE, not O_PATH, so that fsync works; owned; else -1 */
    ImageId id;    /* valid when fd >= 0 */
    uint64_t size; /* bytes: file size, or size of the block device */
    bool direct;   /* O_DIRECT works on fd */

    /* What a TARGET_NEW is given when it is made; see target_open(). */
    uid_t owner;
    gid_t group;
    mode_t mode;
} Target;
Target *target_free(Target *t);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Target, target_free)

/* Words only, touches no file: absolute, UTF-8, no control characters, no "..", no empty or "."
 * component, not ending in "/", at most 4095 bytes, no component over 255; a sentence with what to
 * do. FAILURE_BAD_TARGET. */
bool target_check_path(const char *path, Failure *f);
/* Whether path lies inside one of the NULL-terminated folders (by words; folders absolute). */
bool target_in_folders(const char *path, char *const *folders);

/* Opens without following any symbolic link (openat2 RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
 * or an equivalent walk). Checks the words of path, too.
 * existing=false: TargetExists for a file or block device that is there, also an empty one;
 * BadTarget for anything else that is there and for a folder that is missing or closed to us.
 * existing=true: TargetMissing; BadTarget for a folder, fifo, socket or character device. Locks are
 * not looked at here, leases are: TargetInUse.
 * owner, group and mode (of the source image) are given to a new file; mode is masked with 0660,
 * and the owner may always read and write; (uid_t)-1 = leave. */
bool target_open(const char *path, bool existing, uid_t owner, gid_t group, mode_t mode,
                 Target **ret, Failure *f);
/* Takes a caller's descriptor (dup'ed with CLOEXEC; the caller's stays): O_RDWR, not O_PATH, not
 * O_APPEND, not O_SYNC (QEMU does not take that from a set), regular file or block device. name is
 * shown to people, cleaned. */
bool target_from_fd(int fd, const char *name, Target **ret, Failure *f);
/* Opens again what the journal knows: same path, same identity, or BadTarget / TargetMissing with a
 * sentence. The descriptor of a caller cannot be opened again: always TargetMissing. id NULL, never
 * recorded: TargetExists if anything is there, because it may be somebody else's. */
bool target_reopen(TargetKind kind, const char *path, const ImageId *id, Target **ret, Failure *f);
/* A further descriptor of the same file with its own file description: flags O_RDONLY or O_RDWR,
 * with O_DIRECT where that works. Negative errno. A caller's file that we may not open shares the caller's description
 * for O_RDWR, and is -EACCES for O_RDONLY. */
int target_dup(const Target *t, int flags);

/* Gives a new file its name (linkat of the O_TMPFILE; EEXIST → TargetExists), at least size bytes
 * long (raw; 0 for others). Harmless when it has that name already, and never makes a file shorter.
 * Does not fsync. */
bool target_publish(Target *t, uint64_t size, Failure *f);
/* Takes the blocks for size bytes (fallocate); blocks. Negative errno. */
int target_preallocate(const Target *t, uint64_t size);
/* fsync of the folder of path, which makes its name last over a power cut; blocks. Negative errno. */
int image_sync_folder(const char *path);
/* fsync of an image (symbolic links followed): what other processes have written to it lasts; blocks. Negative errno. */
int image_sync(const char *path);
/* Still there under its name, a regular file with that identity? Opens nothing, reads nothing. */
bool image_is_intact(const char *path, const ImageId *id, Failure *f);

/* Does another process hold an image lock on it (QEMU's OFD byte-range locks: file-posix.c,
 * RAW_LOCK_PERM_BASE 100, RAW_LOCK_SHARED_BASE 200), or the host use the block device (mounted,
 * swap, part of an array)? TargetInUse. For before the descriptor is given to QEMU: locks that were
 * taken through fd itself are not seen. */
bool target_check_locks(const Target *t, Failure *f);
/* Free bytes of the file system of the folder; 0 and negative errno in return on failure. For a new
 * target. */
int target_free_space(const Target *t, uint64_t *ret_bytes);

/* Unlinks path if it is a regular file with that identity and nothing else; for files that a job
 * created. Blocks a little. 0 when it was deleted or is gone already, -ESTALE when something else
 * stands there (also a link on the way), other negative errno. Syncs the folder. */
int image_delete(const char *path, const ImageId *id);
/* Identity, owner, group and mode (with the file type) of an image that QEMU names by path
 * (symbolic links followed); each may be NULL. Negative errno. */
int image_stat(const char *path, ImageId *ret_id, uid_t *ret_uid, gid_t *ret_gid, mode_t *ret_mode);
