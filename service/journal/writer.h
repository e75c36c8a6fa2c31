/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Writer: the one thread that may wait for a disk. It owns the store from writer_new() until writer_free().
 *
 * Entries are handed over with writer_push(), done ones come back in the same order with writer_collect() after the
 * eventfd became readable. What the thread touches of an entry is in its first half; the loop keeps the rest. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "journal/journal.h"
#include "journal/store.h"

typedef enum {
    ENTRY_JOB,
    ENTRY_DOMAIN,
    ENTRY_WORK,
    ENTRY_HISTORY,
    ENTRY_EXPORT,
    ENTRY_STATE, /* made by the thread: the state has changed here */
} EntryType;

/* One thing handed over; what a JournalSlot points to. */
struct JournalSlot {
    JournalSlot *next; /* in the list that it is in */
    EntryType type;
    int error;                     /* what came of it */
    uint64_t cork;                 /* those with the same number are one transaction; 0 = alone */
    uint64_t time;                 /* of a transition, CLOCK_REALTIME µs */
    JournalJob *job;               /* owned */
    JournalDomain *domain;         /* owned */
    char *state, *intent, *detail; /* owned */
    int (*work)(void *data);
    void *data;
    JournalFilter filter;
    GPtrArray *jobs;        /* owned: the history that was read */
    uint64_t after, behind; /* of an export: where the part begins, and the next one */
    char *text;             /* owned: the part of the export */
    JournalState new_state;

    /* The loop's. */
    GDestroyNotify free_data;
    JournalDone done; /* NULL when cancelled */
    JournalHistoryDone history_done;
    JournalExportDone export_done;
    void *userdata;
};

/* Calls free_data. */
JournalSlot *journal_slot_free(JournalSlot *slot);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JournalSlot, journal_slot_free)

typedef struct {
    JournalSlot *head, *tail;
} EntryList;

void entry_list_append(EntryList *list, JournalSlot *entry);
JournalSlot *entry_list_pop(EntryList *list);

typedef struct Writer Writer;

/* Takes over the store, also when it fails. state: JOURNAL_OK or JOURNAL_RECOVERED. */
int writer_new(Store *store, JournalState state, Writer **ret);
/* Writes what is queued, closes the store, frees what was not collected. */
Writer *writer_free(Writer *w);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Writer, writer_free)

int writer_fd(const Writer *w);
void writer_push(Writer *w, JournalSlot *entry);
/* Takes an entry back that the thread has not begun with, also one that waits for space. True: it is the caller's again. */
bool writer_withdraw(Writer *w, JournalSlot *entry);
/* While corked nothing that is pushed is taken: what is pushed until then is one transaction, also when the disk is full. */
void writer_cork(Writer *w, bool corked);
void writer_prune(Writer *w, const JournalRetention *retention);
/* Takes what is done. */
EntryList writer_collect(Writer *w);
