/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The writer thread: group commit, work in between, waiting for space, and housekeeping when there is nothing to do. */

#include "journal/writer.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <time.h>

#include "journal/export.h"
#include "journal/rows.h"
#include "log.h"
#include "util.h"

#define RETRY_SECONDS 1
/* Pages in the log from which it is copied into the database as soon as nothing waits, and from which it is copied
 * even though something does: beyond its reserve it would have to grow. */
#define CHECKPOINT_WHEN_IDLE 512
#define CHECKPOINT_IN_ANY_CASE (4 * STORE_RESERVE / STORE_PAGE_SIZE)
/* Commits in a row after which housekeeping gets its turn although the queue never was empty. */
#define BUSY_ROUNDS 256

struct Writer {
    Store *store;
    pthread_t thread;
    int event_fd;

    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t wake;  /* queue, reads, prune or stop */
    EntryList queue;      /* in order */
    EntryList reads;      /* histories and exports: only ever wait for the queue while it moves */
    EntryList done;
    JournalRetention retention;
    bool prune, stop;
    bool corked;    /* the queue is being filled: not taken yet */
    uint64_t corks; /* counted: what is pushed under one of them belongs together */
    bool notified;  /* the eventfd was written since the last collection */

    /* The thread's own. */
    JournalState base, state; /* base: what state is when nothing is wrong now */
    size_t group;             /* records in a transaction at most: halved while the disk is full */
    unsigned busy_rounds;
    bool tidied; /* housekeeping has nothing to do until the next commit */
};

/* ---- entries ---- */

JournalSlot *journal_slot_free(JournalSlot *slot) {
    if (!slot)
        return NULL;
    if (slot->free_data)
        slot->free_data(slot->data);
    journal_job_free(slot->job);
    journal_domain_free(slot->domain);
    g_free(slot->state);
    g_free(slot->intent);
    g_free(slot->detail);
    journal_filter_clear(&slot->filter);
    g_clear_pointer(&slot->jobs, g_ptr_array_unref);
    g_free(slot->text);
    g_free(slot);
    return NULL;
}

void entry_list_append(EntryList *list, JournalSlot *entry) {
    entry->next = NULL;
    if (list->tail)
        list->tail->next = entry;
    else
        list->head = entry;
    list->tail = entry;
}

JournalSlot *entry_list_pop(EntryList *list) {
    JournalSlot *entry = list->head;

    if (!entry)
        return NULL;
    list->head = entry->next;
    if (!list->head)
        list->tail = NULL;
    entry->next = NULL;
    return entry;
}

static void entry_list_join(EntryList *list, EntryList *more) {
    if (!more->head)
        return;
    if (list->tail)
        list->tail->next = more->head;
    else
        list->head = more->head;
    list->tail = more->tail;
    *more = (EntryList){0};
}

static EntryList entry_list_take(EntryList *list) {
    EntryList taken = *list;

    *list = (EntryList){0};
    return taken;
}

static void entry_list_clear(EntryList *list) {
    JournalSlot *entry;

    while ((entry = entry_list_pop(list)))
        journal_slot_free(entry);
}

/* ---- the thread's side ---- */

static void publish(Writer *w, EntryList *list) {
    bool notify;

    if (!list->head)
        return;
    pthread_mutex_lock(&w->lock);
    entry_list_join(&w->done, list);
    notify = !w->notified;
    w->notified = true;
    pthread_mutex_unlock(&w->lock);
    if (notify)
        (void) eventfd_write(w->event_fd, 1);
}

static void set_state(Writer *w, JournalState state) {
    EntryList list = {0};

    if (w->state == state)
        return;
    w->state = state;
    JournalSlot *entry = g_new0(JournalSlot, 1);
    entry->type = ENTRY_STATE;
    entry->new_state = state;
    entry_list_append(&list, entry);
    publish(w, &list);
}

static void give_up(Writer *w, int r) {
    if (w->state == JOURNAL_FAILED)
        return;
    log_event(LOG_CRIT, MESSAGE_JOURNAL_FAILED,
              "Writing the journal in \"%s\" failed (%s: %s); nothing that depends on it will be "
              "done any more.",
              w->store->folder.path, g_strerror(-r), sqlite3_errmsg(w->store->db));
    store_rollback(w->store);
    store_abandon(w->store);
    set_state(w, JOURNAL_FAILED);
}

static bool is_record(const JournalSlot *entry) {
    return entry->type == ENTRY_JOB || entry->type == ENTRY_DOMAIN;
}

static int write_record(Store *s, const JournalSlot *entry) {
    return entry->type == ENTRY_JOB ? rows_put_job(s, entry->job, entry->time, entry->state,
                                                   entry->intent, entry->detail)
                                    : rows_put_domain(s, entry->domain);
}

/* However small transactions have to be: what was corked together is durable together. */
static bool belong_together(const JournalSlot *before, const JournalSlot *e) {
    return before && e->cork != 0 && e->cork == before->cork;
}

/* The records at the head of the batch, up to the first work, in one transaction with one fsync. */
static int commit_records(Writer *w, const EntryList *batch, size_t *ret_n) {
    size_t n = 0;
    int r = store_begin(w->store);

    for (const JournalSlot *e = batch->head, *before = NULL;
         e && is_record(e) && (n < w->group || belong_together(before, e)) && r >= 0;
         before = e, e = e->next) {
        r = write_record(w->store, e);
        n++;
    }
    if (r >= 0)
        r = store_commit(w->store);
    if (r < 0)
        return r;
    w->tidied = false;
    *ret_n = n;
    return 0;
}

static void publish_first(Writer *w, EntryList *batch, size_t n, int error) {
    EntryList list = {0};

    while (n-- > 0 && batch->head) {
        JournalSlot *entry = entry_list_pop(batch);
        entry->error = error;
        entry_list_append(&list, entry);
    }
    publish(w, &list);
}

static int serve_read(Writer *w, JournalSlot *entry) {
    if (w->state == JOURNAL_FAILED)
        return -ESHUTDOWN;
    if (entry->type == ENTRY_EXPORT)
        return export_part(w->store, entry->after, &entry->text, &entry->behind);
    return rows_history(w->store, &entry->filter, &entry->jobs);
}

static void serve_reads(Writer *w) {
    EntryList reads, list = {0};
    JournalSlot *entry;

    pthread_mutex_lock(&w->lock);
    reads = entry_list_take(&w->reads);
    pthread_mutex_unlock(&w->lock);
    while ((entry = entry_list_pop(&reads))) {
        entry->error = serve_read(w, entry);
        entry_list_append(&list, entry);
    }
    if (list.head && w->state != JOURNAL_FAILED)
        sqlite3_db_release_memory(w->store->db);
    publish(w, &list);
}

/* What the loop is still filling is taken whole or not at all. */
static void take_queued(Writer *w, EntryList *batch) {
    pthread_mutex_lock(&w->lock);
    while (w->corked && !w->stop)
        pthread_cond_wait(&w->wake, &w->lock);
    entry_list_join(batch, &w->queue);
    pthread_mutex_unlock(&w->lock);
}

/* False: the service is stopping, no use in waiting. Reads are answered meanwhile, and what waits is in the queue again,
 * where it can be withdrawn. */
static bool wait_for_space(Writer *w, EntryList *batch) {
    struct timespec until;
    bool stop;
    int r = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += RETRY_SECONDS;
    pthread_mutex_lock(&w->lock);
    entry_list_join(batch, &w->queue);
    w->queue = entry_list_take(batch);
    pthread_mutex_unlock(&w->lock);
    do {
        serve_reads(w);
        pthread_mutex_lock(&w->lock);
        while (!w->stop && !w->reads.head && r == 0)
            r = pthread_cond_timedwait(&w->wake, &w->lock, &until);
        stop = w->stop;
        pthread_mutex_unlock(&w->lock);
    } while (!stop && r == 0);
    take_queued(w, batch);
    return !stop;
}

/* What the log holds is copied into the database, whose free pages are the reserve, so that the log can begin anew in
 * the blocks it has; and smaller transactions get by with fewer of them. True: try again. */
static bool make_space(Writer *w, EntryList *batch, bool *stopping) {
    int r;

    store_rollback(w->store);
    r = store_checkpoint(w->store);
    if (r < 0 && r != -ENOSPC) {
        give_up(w, r);
        return true;
    }
    if (w->group > 1) {
        w->group = w->group > 4096 ? 64 : w->group / 2;
        return true;
    }
    if (w->state != JOURNAL_FULL)
        log_event(LOG_ERR, MESSAGE_JOURNAL_FAILED,
                  "The journal in \"%s\" cannot be written: the disk is full or read-only. Jobs "
                  "wait; trying "
                  "again every second.",
                  w->store->folder.path);
    set_state(w, JOURNAL_FULL);
    if (*stopping)
        return false;
    *stopping = !wait_for_space(w, batch);
    return true;
}

static void process_batch(Writer *w, EntryList *batch) {
    bool stopping = false;

    while (batch->head) {
        size_t n = 1;
        if (w->state == JOURNAL_FAILED) {
            publish_first(w, batch, 1, -ESHUTDOWN);
            continue;
        }
        if (batch->head->type == ENTRY_WORK) {
            publish_first(w, batch, 1, batch->head->work(batch->head->data));
            take_queued(
                w,
                batch); /* it may have taken long: what came meanwhile belongs to the next commit */
            continue;
        }
        int r = commit_records(w, batch, &n);
        if (r >= 0) {
            if (w->state == JOURNAL_FULL)
                log_notice("The journal in \"%s\" can be written again.", w->store->folder.path);
            set_state(w, w->base); /* before the continuations, which may go by it */
            publish_first(w, batch, n, 0);
            w->group = MIN(w->group * 2, SIZE_MAX / 4);
        } else if (r != -ENOSPC)
            give_up(w, r);
        else if (!make_space(w, batch, &stopping))
            return;
    }
}

/* One piece of what can wait; nothing that takes longer than a few commits. Called without the lock. */
static void tidy(Writer *w) {
    Store *s = w->store;
    JournalRetention retention;
    bool prune, more = false;
    int r = 0;

    pthread_mutex_lock(&w->lock);
    prune = w->prune;
    retention = w->retention;
    w->prune = false;
    pthread_mutex_unlock(&w->lock);
    w->busy_rounds = 0;
    w->tidied = true;
    if (w->state == JOURNAL_FAILED)
        return;
    if (prune)
        r = rows_prune(s, &retention, &more);
    if (r >= 0 && s->wal_pages >= CHECKPOINT_WHEN_IDLE) {
        r = store_checkpoint(s);
        if (r >= 0)
            r = store_reserve(s);
    }
    if (r < 0 && r != -ENOSPC)
        give_up(w, r);
    else if (r == -ENOSPC && !sqlite3_get_autocommit(s->db))
        store_rollback(s);
    if (more) {
        pthread_mutex_lock(&w->lock);
        w->prune = true; /* with the retention that is newest by then */
        pthread_mutex_unlock(&w->lock);
    }
}

static bool must_tidy(const Writer *w) {
    return w->busy_rounds >= BUSY_ROUNDS || w->store->wal_pages >= CHECKPOINT_IN_ANY_CASE;
}

/* False: stopped, and nothing is left. */
static bool wait_for_entries(Writer *w, EntryList *ret_batch) {
    bool go_on;

    if (must_tidy(w))
        tidy(w);
    pthread_mutex_lock(&w->lock);
    while ((!w->queue.head || w->corked) && !w->reads.head && !w->stop) {
        if (w->tidied && !w->prune) {
            pthread_cond_wait(&w->wake, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        tidy(w);
        pthread_mutex_lock(&w->lock);
    }
    *ret_batch = w->corked && !w->stop ? (EntryList){0} : entry_list_take(&w->queue);
    go_on = ret_batch->head || !w->stop;
    pthread_mutex_unlock(&w->lock);
    w->busy_rounds++;
    return go_on;
}

static void *writer_main(void *userdata) {
    Writer *w = userdata;
    EntryList batch;
    size_t left = 0;

    pthread_setname_np(pthread_self(), "journal");
    while (wait_for_entries(w, &batch)) {
        process_batch(w, &batch);
        for (const JournalSlot *e = batch.head; e; e = e->next)
            left++;
        publish(w, &batch);
        serve_reads(w);
    }
    if (left > 0)
        log_error("The service stops while the journal in \"%s\" cannot be written: %zu entries "
                  "are lost.",
                  w->store->folder.path, left);
    return NULL;
}

/* ---- the loop's side ---- */

static int writer_start(Writer *w) {
    pthread_condattr_t attr;
    sigset_t all, old;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&w->lock, NULL);
    /* Signals are the loop's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&w->thread, NULL, writer_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0) {
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
    }
    return -r;
}

int writer_new(Store *store, JournalState state, Writer **ret) {
    Writer *w = g_new0(Writer, 1);
    int r;

    w->store = store;
    w->base = w->state = state;
    w->group = SIZE_MAX / 4;
    w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = w->event_fd < 0 ? -errno : writer_start(w);
    if (r < 0) {
        store_free(w->store);
        w->event_fd = fd_close(w->event_fd);
        g_free(w);
        return r;
    }
    *ret = w;
    return 0;
}

Writer *writer_free(Writer *w) {
    if (!w)
        return NULL;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    store_free(w->store);
    entry_list_clear(&w->queue);
    entry_list_clear(&w->reads);
    entry_list_clear(&w->done);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    w->event_fd = fd_close(w->event_fd);
    g_free(w);
    return NULL;
}

int writer_fd(const Writer *w) {
    return w->event_fd;
}

void writer_push(Writer *w, JournalSlot *entry) {
    bool reads = entry->type == ENTRY_HISTORY || entry->type == ENTRY_EXPORT;

    pthread_mutex_lock(&w->lock);
    entry->cork = w->corked ? w->corks : 0;
    entry_list_append(reads ? &w->reads : &w->queue, entry);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

bool writer_withdraw(Writer *w, JournalSlot *entry) {
    JournalSlot *before = NULL, *at;

    pthread_mutex_lock(&w->lock);
    for (at = w->queue.head; at && at != entry; at = at->next)
        before = at;
    if (at && before)
        before->next = at->next;
    else if (at)
        w->queue.head = at->next;
    if (at && w->queue.tail == at)
        w->queue.tail = before;
    pthread_mutex_unlock(&w->lock);
    return at;
}

void writer_cork(Writer *w, bool corked) {
    pthread_mutex_lock(&w->lock);
    w->corked = corked;
    if (corked)
        w->corks++;
    else
        pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

void writer_prune(Writer *w, const JournalRetention *retention) {
    pthread_mutex_lock(&w->lock);
    w->retention = *retention;
    w->prune = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

EntryList writer_collect(Writer *w) {
    eventfd_t count;
    EntryList list;

    (void) eventfd_read(w->event_fd, &count);
    pthread_mutex_lock(&w->lock);
    list = entry_list_take(&w->done);
    w->notified = false;
    pthread_mutex_unlock(&w->lock);
    return list;
}
