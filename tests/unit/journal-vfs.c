/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The forging VFS: every call goes to the real one, except when a fault is asked for. */

#include "journal-vfs.h"

#include <errno.h>
#include <glib.h>
#include <sqlite3.h>
#include <string.h>

JournalFaults journal_faults;

typedef struct {
    sqlite3_file base;
    sqlite3_file real[]; /* of the real VFS, as long as that says */
} File;

static sqlite3_vfs *real_vfs;
static sqlite3_vfs vfs;

static sqlite3_file *real(sqlite3_file *file) {
    return ((File *) file)->real;
}

static int file_close(sqlite3_file *file) {
    return real(file)->pMethods->xClose(real(file));
}

static int file_read(sqlite3_file *file, void *data, int size, sqlite3_int64 offset) {
    return real(file)->pMethods->xRead(real(file), data, size, offset);
}

/* The header of a frame of the log: the size of the database behind a commit, else zero
 * (sqlite.org/fileformat2.html, "WAL Frames"). A frame's page is written on its own. */
static bool ends_transaction(const char *data, int size, sqlite3_int64 offset) {
    return size == 24 && offset >= 32 && memcmp(data + 4, (char[4]){0}, 4) != 0;
}

static int file_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset) {
    if (journal_faults.room > 0 && --journal_faults.room == 0)
        journal_faults.full = true;
    if (journal_faults.full)
        return SQLITE_FULL;
    if (journal_faults.fail_write) {
        errno = journal_faults.fail_write;
        return SQLITE_IOERR_WRITE;
    }
    journal_faults.commits += ends_transaction(data, size, offset);
    return real(file)->pMethods->xWrite(real(file), data, size, offset);
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size) {
    return real(file)->pMethods->xTruncate(real(file), size);
}

static int file_sync(sqlite3_file *file, int flags) {
    journal_faults.syncs++;
    if (journal_faults.sync_delay > 0)
        g_usleep((gulong) journal_faults.sync_delay);
    if (journal_faults.fail_sync)
        return SQLITE_IOERR_FSYNC;
    return real(file)->pMethods->xSync(real(file), flags);
}

static int file_size(sqlite3_file *file, sqlite3_int64 *ret) {
    return real(file)->pMethods->xFileSize(real(file), ret);
}

static int file_lock(sqlite3_file *file, int level) {
    return real(file)->pMethods->xLock(real(file), level);
}

static int file_unlock(sqlite3_file *file, int level) {
    return real(file)->pMethods->xUnlock(real(file), level);
}

static int file_check_lock(sqlite3_file *file, int *ret) {
    return real(file)->pMethods->xCheckReservedLock(real(file), ret);
}

static int file_control(sqlite3_file *file, int op, void *arg) {
    return real(file)->pMethods->xFileControl(real(file), op, arg);
}

static int file_sector_size(sqlite3_file *file) {
    return real(file)->pMethods->xSectorSize(real(file));
}

static int file_characteristics(sqlite3_file *file) {
    return real(file)->pMethods->xDeviceCharacteristics(real(file));
}

static int vfs_open(sqlite3_vfs *self, const char *name, sqlite3_file *file, int flags,
                    int *ret_flags) {
    /* Version 1: no shared memory; a journal in exclusive mode needs none. */
    static const sqlite3_io_methods methods = {.iVersion = 1,
                                               .xClose = file_close,
                                               .xRead = file_read,
                                               .xWrite = file_write,
                                               .xTruncate = file_truncate,
                                               .xSync = file_sync,
                                               .xFileSize = file_size,
                                               .xLock = file_lock,
                                               .xUnlock = file_unlock,
                                               .xCheckReservedLock = file_check_lock,
                                               .xFileControl = file_control,
                                               .xSectorSize = file_sector_size,
                                               .xDeviceCharacteristics = file_characteristics};
    int code = real_vfs->xOpen(real_vfs, name, real(file), flags, ret_flags);

    file->pMethods = code == SQLITE_OK ? &methods : NULL;
    return code;
}

void journal_vfs_install(void) {
    real_vfs = sqlite3_vfs_find(NULL);
    vfs = *real_vfs;
    vfs.zName = "journal-faults";
    vfs.szOsFile = (int) sizeof(File) + real_vfs->szOsFile;
    vfs.xOpen = vfs_open;
    sqlite3_vfs_register(&vfs, 1);
}

void journal_vfs_reset(void) {
    journal_faults.sync_delay = 0;
    journal_faults.fail_sync = journal_faults.full = false;
    journal_faults.fail_write = journal_faults.room = 0;
    journal_faults.syncs = journal_faults.commits = 0;
}
