/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The journal's folder: lock, note, damaged files. */

#include "journal/folder.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "log.h"
#include "util.h"

/* The database first: should the service die in between, a log without its database is recognised as lost and set
 * aside by the next start, whereas a database without its log would look sound. */
static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};

#define NOTE_FORMAT "blockjobd-journal %8s %020" PRIu64 " %020" PRIu64 " "
#define NOTE_SUMMED (18 + 9 + 21 + 21)
#define NOTE_SIZE (NOTE_SUMMED + 9)

static void note_read(JournalFolder *f) {
    char text[NOTE_SIZE + 1] = "", expected[16];
    JournalNote note = {0};

    if (pread(f->lock_fd, text, NOTE_SIZE, 0) != NOTE_SIZE)
        return;
    snprintf(expected, sizeof expected, "%08" PRIx32 "\n", crc32_update(0, text, NOTE_SUMMED));
    if (memcmp(text + NOTE_SUMMED, expected, 9) != 0 ||
        sscanf(text, "blockjobd-journal %8[0-9a-f] %" SCNu64 " %" SCNu64, note.identity, &note.seq,
               &note.last_id) != 3 ||
        strlen(note.identity) != JOURNAL_IDENTITY_SIZE - 1) {
        log_warning("The note in \"%s/" JOURNAL_LOCK_FILE "\" is unreadable, ignoring.", f->path);
        return;
    }
    f->note = note;
}

void folder_note(JournalFolder *f, const char *identity, uint64_t seq, uint64_t last_id) {
    char text[NOTE_SIZE + 1];
    int n = snprintf(text, sizeof text, NOTE_FORMAT, identity, seq, last_id);

    g_return_if_fail(n == NOTE_SUMMED);
    snprintf(text + n, sizeof text - (size_t) n, "%08" PRIx32 "\n",
             crc32_update(0, text, (size_t) n));
    if (pwrite(f->lock_fd, text, NOTE_SIZE, 0) != NOTE_SIZE)
        log_debug("Cannot write the note in \"%s/" JOURNAL_LOCK_FILE "\", ignoring: %s", f->path,
                  g_strerror(errno));
}

int folder_open(JournalFolder *f, const char *path, Failure *ret_why) {
    *f = (JournalFolder){.path = g_strdup(path), .fd = -1, .lock_fd = -1};

    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        int r = -errno;
        failure_set(ret_why, FAILURE_JOURNAL,
                    "The folder of the journal, \"%s\", cannot be made: %s.", path, g_strerror(-r));
        return r;
    }
    f->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->fd >= 0)
        f->lock_fd =
            openat(f->fd, JOURNAL_LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->lock_fd < 0) {
        int r = -errno;
        failure_set(ret_why, FAILURE_JOURNAL,
                    "The folder of the journal, \"%s\", cannot be used: %s.", path, g_strerror(-r));
        return r;
    }
    if (flock(f->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        int r = errno == EWOULDBLOCK ? -EBUSY : -errno;
        if (r == -EBUSY)
            failure_set(
                ret_why, FAILURE_JOURNAL,
                "Another instance of blockjobd is using the journal in \"%s\"; stop it first.",
                path);
        else
            failure_set(ret_why, FAILURE_JOURNAL, "The journal in \"%s\" cannot be locked: %s.",
                        path, g_strerror(-r));
        return r;
    }
    note_read(f);
    return 0;
}

void folder_close(JournalFolder *f) {
    f->lock_fd = fd_close(f->lock_fd);
    f->fd = fd_close(f->fd);
    g_clear_pointer(&f->path, g_free);
}

/* 0 also when the file does not exist. */
static int file_size(JournalFolder *f, const char *name, off_t *ret) {
    struct stat st;

    if (fstatat(f->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            return -errno;
        st.st_size = 0;
    } else if (!S_ISREG(st.st_mode))
        return -EINVAL;
    *ret = st.st_size;
    return 0;
}

int folder_look(JournalFolder *f, FolderContent *ret) {
    off_t database = 0, wal = 0;
    int r = file_size(f, JOURNAL_FILE, &database);

    if (r >= 0)
        r = file_size(f, JOURNAL_FILE "-wal", &wal);
    if (r < 0)
        return r;
    if (database > 0)
        *ret = FOLDER_USABLE;
    else
        *ret = wal > 0 || f->note.identity[0] ? FOLDER_LOST : FOLDER_FRESH;
    return 0;
}

int folder_make_file(JournalFolder *f) {
    autofd int fd = openat(f->fd, JOURNAL_FILE, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    return fd < 0 ? -errno : 0;
}

int folder_sync(JournalFolder *f) {
    return fsync(f->fd) < 0 ? -errno : 0;
}

int folder_sync_log(JournalFolder *f) {
    autofd int fd = openat(f->fd, JOURNAL_FILE "-wal", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (fsync(fd) < 0)
        return -errno;
    return folder_sync(f);
}

/* A name that is not taken, so that no evidence is overwritten. */
static char *damaged_name(JournalFolder *f) {
    char stamp[32];
    time_t now = time(NULL);
    struct tm tm;

    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
    for (unsigned i = 1;; i++) {
        g_autofree char *name = i == 1 ? g_strdup_printf(JOURNAL_FILE ".damaged-%s", stamp)
                                       : g_strdup_printf(JOURNAL_FILE ".damaged-%s-%u", stamp, i);
        bool taken = false;
        for (size_t s = 0; s < G_N_ELEMENTS(suffixes); s++) {
            g_autofree char *with_suffix = g_strconcat(name, suffixes[s], NULL);
            taken |= faccessat(f->fd, with_suffix, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
        }
        if (!taken)
            return g_steal_pointer(&name);
    }
}

int folder_set_aside(JournalFolder *f, char **ret_name) {
    g_autofree char *name = damaged_name(f);
    bool any = false;

    for (size_t s = 0; s < G_N_ELEMENTS(suffixes); s++) {
        g_autofree char *from = g_strconcat(JOURNAL_FILE, suffixes[s], NULL);
        g_autofree char *to = g_strconcat(name, suffixes[s], NULL);
        if (renameat(f->fd, from, f->fd, to) == 0)
            any = true;
        else if (errno != ENOENT)
            return -errno;
    }
    int r = folder_sync(f);
    if (r < 0)
        return r;
    *ret_name = any ? g_steal_pointer(&name) : NULL;
    return 0;
}
