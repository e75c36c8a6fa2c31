/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A default VFS for SQLite that forges what a disk does on bad days: slow, failing and refused writes and syncs. */

#include <stdatomic.h>
#include <stdbool.h>

typedef struct {
    _Atomic int sync_delay; /* µs added to each sync */
    _Atomic bool fail_sync; /* SQLITE_IOERR_FSYNC */
    _Atomic int fail_write; /* SQLITE_IOERR_WRITE with this errno; 0 = none */
    _Atomic bool full;      /* SQLITE_FULL */
    _Atomic int room;       /* writes that succeed until the disk is full; 0 = no end of them */
    _Atomic int syncs;      /* counted */
    _Atomic int commits;    /* counted: frames of the log that end a transaction */
} JournalFaults;

extern JournalFaults journal_faults;

void journal_vfs_install(void);
void journal_vfs_reset(void);
