/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The journal: what it promises (order, grouping, ids, history) and what it does on a disk that is full, slow or
 * broken. What it makes of damaged files is in test-journal-damage.c. */

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "journal-test.h"
#include "journal-vfs.h"

/* ---- records and ids ---- */

static void records_survive_a_restart(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    g_autoptr(JournalJob) job = job_new(journal_new_id(rig->journal), "web");
    g_autoptr(JournalJob) gone = job_new(journal_new_id(rig->journal), "gone");
    g_autofree char *identity = g_strdup(journal_identity(rig->journal));

    rig_put(rig, job, "queued");
    g_clear_pointer(&job->document, g_free);
    job->document = g_strdup("{\"now\": \"ready\"}");
    job->restarts = 7;
    rig_put(rig, job, "ready");
    gone->finished = 5;
    gone->exported = false;
    rig_put(rig, gone, "concluded");
    rig_put_domain(rig, "web", "{}");
    rig_put_domain(rig, "db", "{\"a\": 1}");
    rig_put_domain(rig, "web", NULL);
    rig_flush(rig);

    rig_reopen(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
    g_assert_cmpstr(journal_identity(rig->journal), ==, identity);
    g_assert_cmpuint(strspn(identity, "0123456789abcdef"), ==, 8);
    g_assert_cmpuint(rig->jobs->len, ==, 1);
    assert_same_job(rig->jobs->pdata[0], job);
    g_assert_cmpuint(rig->domains->len, ==, 1);
    JournalDomain *domain = rig->domains->pdata[0];
    g_assert_cmpstr(domain->name, ==, "db");
    g_assert_cmpstr(domain->document, ==, "{\"a\": 1}");
}

static void ids_are_never_given_twice(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    g_autoptr(JournalJob) job = NULL;
    JournalRetention all = {.keep_age = 1};

    g_assert_cmpuint(journal_new_id(rig->journal), ==, 1);
    g_assert_cmpuint(journal_new_id(rig->journal), ==, 2);
    journal_raise_id(rig->journal, 41);
    journal_raise_id(rig->journal, 7);
    job = job_new(journal_new_id(rig->journal), "web");
    g_assert_cmpuint(job->id, ==, 42);
    job->finished = 1;
    job->exported = false;
    rig_put(rig, job, "concluded");
    rig_flush(rig);
    journal_prune(rig->journal, &all);
    rig_wait_history(rig, 0);

    rig_reopen(rig);
    g_assert_cmpuint(journal_new_id(rig->journal), ==, 43);
    /* Neither are those of a journal that is gone: the lock file knows. */
    rig_close(rig);
    g_autofree char *file = g_build_filename(rig->dir, "journal.db", NULL);
    g_assert_cmpint(unlink(file), ==, 0);
    g_autofree char *log = g_build_filename(rig->dir, "journal.db-wal", NULL);
    g_assert_cmpint(unlink(log), ==, 0);
    rig_start(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_RECOVERED);
    g_assert_cmpuint(journal_new_id(rig->journal), ==, 43);
    rig_reopen(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
}

/* ---- order and grouping ---- */

static int wait_for_gate(void *data) {
    struct pollfd p = {.fd = *(int *) data, .events = POLLIN};

    return poll(&p, 1, -1) == 1 ? 0 : -errno;
}

/* Keeps the writer busy until gate_open(), so that what is handed over meanwhile queues up. */
static int gate[2];

static void gate_close(Rig *rig) {
    g_assert_cmpint(pipe2(gate, O_CLOEXEC), ==, 0);
    journal_run(rig->journal, wait_for_gate, &gate[0], NULL, rig_count, rig, NULL);
    rig->expected++;
}

static void gate_open(Rig *rig) {
    g_assert_cmpint(write(gate[1], "", 1), ==, 1);
    rig_flush(rig);
    close(gate[0]);
    close(gate[1]);
}

static void what_queues_up_is_one_commit(void) {
    g_autoptr(Rig) rig = rig_new(NULL);

    gate_close(rig);
    for (int i = 0; i < 500; i++)
        rig_put_new(rig, "web");
    rig_put_domain(rig, "web", "{}");
    int commits = journal_faults.commits, syncs = journal_faults.syncs;
    gate_open(rig);
    g_assert_cmpint(journal_faults.commits, ==, commits + 1);
    g_assert_cmpint(journal_faults.syncs - syncs, <=, 2); /* the second when the log begins anew */
    rig_reopen(rig);
    g_assert_cmpuint(rig->jobs->len, ==, 500);
}

typedef struct {
    GArray *seen; /* int */
    Rig *rig;
    int number;
} Step;

static void step_done(int error, void *userdata) {
    Step *step = userdata;

    g_assert_cmpint(error, ==, step->number % 3 == 1 ? -step->number : 0);
    g_array_append_val(step->seen, step->number);
    rig_count(0, step->rig);
}

typedef struct {
    int base; /* commits before */
    int number;
    int freed;
} Work;

/* Commits: everything before is on disk when work runs, nothing of what comes after. */
static int work_run(void *data) {
    Work *work = data;

    g_assert_cmpint(journal_faults.commits - work->base, ==, work->number / 3 + 1);
    return -work->number;
}

static void work_freed(void *data) {
    ((Work *) data)->freed++;
}

static void work_runs_between_the_commits(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    g_autoptr(GArray) seen = g_array_new(false, false, sizeof(int));
    enum { N = 30 };
    Step steps[N];
    Work works[N] = {0};
    JournalDomain domain = {(char *) "web", (char *) "{}"};

    gate_close(rig);
    int base = journal_faults.commits;
    for (int i = 0; i < N; i++) { /* record, work, record, record, work, … */
        steps[i] = (Step){seen, rig, i};
        works[i] = (Work){base, i, 0};
        if (i % 3 == 1)
            journal_run(rig->journal, work_run, &works[i], work_freed, step_done, &steps[i], NULL);
        else
            journal_put_domain(rig->journal, &domain, step_done, &steps[i], NULL);
        rig->expected++;
    }
    gate_open(rig);
    g_assert_cmpint(journal_faults.commits - base, ==, N / 3 + 1);
    g_assert_cmpuint(seen->len, ==, N);
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(g_array_index(seen, int, i), ==, i);
        g_assert_cmpint(works[i].freed, ==, i % 3 == 1);
    }
}

/* ---- cancelling ---- */

typedef struct {
    Rig *rig;
    JournalSlot *own, *other;
    int calls;
    bool free_journal;
} Canceller;

static void canceller_done(int error, void *userdata) {
    Canceller *c = userdata;

    c->calls++;
    journal_slot_cancel(c->own);
    journal_slot_cancel(c->other);
    if (c->free_journal)
        c->rig->journal = journal_free(c->rig->journal);
}

static int work_nothing(void *data) {
    return 0;
}

static void a_cancelled_slot_stays_silent(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    g_autoptr(JournalJob) job = job_new(1, "web");
    Canceller first = {.rig = rig}, second = {.rig = rig}, third = {.rig = rig};
    Work work = {0};
    JournalFilter any = {0};
    JournalSlot *history;

    gate_close(rig);
    journal_put_job(rig->journal, job, "queued", "", "", canceller_done, &first, &first.own);
    journal_run(rig->journal, work_nothing, &work, work_freed, canceller_done, &second,
                &second.own);
    journal_put_job(rig->journal, job, "ready", "", "", canceller_done, &third, &third.own);
    journal_history(rig->journal, &any, rig_history_done, rig, &history);
    first.other = second.own; /* from a callback, while it is in the same round */
    journal_slot_cancel(third.own);
    journal_slot_cancel(history);
    gate_open(rig);
    rig_put_domain(rig, "web", "{}");
    rig_flush(rig);
    g_assert_cmpint(first.calls, ==, 1);
    g_assert_cmpint(second.calls, ==, 0);
    g_assert_cmpint(third.calls, ==, 0);
    g_assert_cmpint(work.freed, ==, 1);
    g_assert_null(rig->history);
    rig_reopen(rig);
    g_assert_cmpuint(rig->jobs->len, ==, 1);
}

static void freeing_writes_what_was_handed_over(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    Canceller c = {.rig = rig, .free_journal = true};
    JournalDomain domain = {(char *) "first", (char *) "{}"};
    Work work = {0};

    journal_put_domain(rig->journal, &domain, canceller_done, &c, NULL);
    while (rig->journal)
        g_assert_cmpint(sd_event_run(rig->event, UINT64_MAX), >=, 0);
    rig_start(rig);
    for (int i = 0; i < 100; i++)
        rig_put_new(rig, "web");
    journal_run(rig->journal, work_nothing, &work, work_freed, rig_count, rig, NULL);
    rig_close(rig);
    g_assert_cmpint(work.freed, ==, 1);
    g_assert_cmpint(rig->done, ==, 0);
    rig_start(rig);
    g_assert_cmpuint(rig->jobs->len, ==, 100);
    g_assert_cmpuint(rig->domains->len, ==, 1);
}

static int read_mask(void *data) {
    sigset_t mask;

    g_assert_cmpint(pthread_sigmask(SIG_BLOCK, NULL, &mask), ==, 0);
    return sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGCHLD) == 1 ? 0 : -EINVAL;
}

static void the_thread_takes_no_signals(void) {
    g_autoptr(Rig) rig = rig_new(NULL);

    journal_run(rig->journal, read_mask, NULL, NULL, rig_count, rig, NULL);
    rig->expected++;
    rig_flush(rig);
}

/* ---- history ---- */

static void fill_history(Rig *rig, unsigned n) {
    for (unsigned i = 1; i <= n; i++) {
        g_autoptr(JournalJob) job = job_new(journal_new_id(rig->journal), i % 2 ? "web" : "db");
        g_free(job->result);
        job->result = g_strdup(i % 5 ? "pivoted" : "failed");
        job->finished = 1000 * i;
        job->exported = i > n - 3;
        rig_put(rig, job, "concluded");
    }
    rig_put_new(rig, "web"); /* active: no part of it */
    rig_flush(rig);
}

static void assert_history(Rig *rig, const JournalFilter *filter, unsigned n, uint64_t first) {
    rig_read_history(rig, filter);
    g_assert_cmpuint(rig->history->len, ==, n);
    for (unsigned i = 0; i < n; i++) {
        JournalJob *job = rig->history->pdata[i];
        if (i == 0)
            g_assert_cmpuint(job->finished, ==, first);
        else
            g_assert_cmpuint(job->finished, <,
                             ((JournalJob *) rig->history->pdata[i - 1])->finished);
    }
}

static void history_is_filtered(void) {
    g_autoptr(Rig) rig = rig_new(NULL);

    fill_history(rig, 20);
    assert_history(rig, &(JournalFilter){0}, 20, 20000);
    assert_history(rig, &(JournalFilter){.limit = 3}, 3, 20000);
    assert_history(rig, &(JournalFilter){.domain = (char *) "web"}, 10, 19000);
    assert_history(rig, &(JournalFilter){.result = (char *) "failed"}, 4, 20000);
    assert_history(rig, &(JournalFilter){.domain = (char *) "web", .result = (char *) "failed"}, 2,
                   15000);
    assert_history(rig, &(JournalFilter){.since = 5000, .until = 7000}, 3, 7000);
    assert_history(rig, &(JournalFilter){.since = UINT64_MAX}, 0, 0);
    assert_history(rig, &(JournalFilter){.disk = (char *) "vda", .kind = (char *) "copy"}, 20,
                   20000);
    assert_history(rig, &(JournalFilter){.disk = (char *) "vdb"}, 0, 0);
    assert_history(rig, &(JournalFilter){.kind = (char *) "' OR 1 --"}, 0, 0);
}

static void pruning_keeps_what_it_must(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    JournalRetention rows = {.keep_rows = 600}, age = {.keep_age = 1}, none = {0};

    fill_history(rig, 1500);
    journal_prune(rig->journal, &none);
    rig_put_domain(rig, "web", "{}");
    rig_flush(rig);
    rig_wait_history(rig, 1500);
    journal_prune(rig->journal, &rows);
    rig_wait_history(rig, 600);
    assert_history(rig, &(JournalFilter){0}, 600, 1500000);
    journal_prune(rig->journal, &age);
    rig_wait_history(rig, 3); /* still exported */
    rig_reopen(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
    g_assert_cmpuint(rig->jobs->len, ==, 4);
    rig_close(rig);
    g_assert_cmpint(rig_sql_int(rig, "SELECT count(*) FROM transition"), ==, 4);
}

/* ---- bad days ---- */

static void a_second_instance_is_kept_out(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    g_auto(Failure) why = {0};
    g_autoptr(Journal) second = NULL;

    g_assert_cmpint(journal_open(rig->event, rig->dir, NULL, NULL, &why, &second), ==, -EBUSY);
    g_assert_nonnull(strstr(why.message, "Another instance"));
    rig_put_new(rig, "web");
    rig_flush(rig);
    /* Neither does another program get in. */
    g_autofree char *path = g_build_filename(rig->dir, "journal.db", NULL);
    sqlite3 *db = NULL;
    g_assert_cmpint(sqlite3_open(path, &db), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_exec(db, "SELECT * FROM job", NULL, NULL, NULL), ==, SQLITE_BUSY);
    sqlite3_close(db);
}

static void assert_everything_is_released(Rig *rig, int error) {
    rig->error = 0;
    rig->count_errors = true;
    rig_put_new(rig, "web");
    journal_run(rig->journal, work_nothing, NULL, NULL, rig_count, rig, NULL);
    rig->expected++;
    rig_flush(rig);
    g_assert_cmpint(rig->error, ==, 2 * error);
}

static void nothing_is_released_after_a_failed_sync(void) {
    g_autoptr(Rig) rig = rig_new(NULL);

    rig_put_new(rig, "web");
    rig_flush(rig);
    journal_faults.fail_sync = true;
    assert_everything_is_released(rig, -ESHUTDOWN);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_FAILED);
    g_assert_cmpint(rig->changes, ==, 1);
    /* A sync that would succeed now proves nothing. */
    journal_faults.fail_sync = false;
    int syncs = journal_faults.syncs;
    assert_everything_is_released(rig, -ESHUTDOWN);
    rig_read_history(rig, &(JournalFilter){0});
    g_assert_cmpint(rig->error, ==, -ESHUTDOWN);
    g_assert_null(rig->history);
    rig_close(rig);
    g_assert_cmpint(journal_faults.syncs, ==, syncs);
    rig->error = 0;
    rig_start(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
    g_assert_cmpuint(rig->jobs->len, >=, 1);
    assert_everything_is_released(rig, 0);
}

static void a_write_error_is_final(void) {
    g_autoptr(Rig) rig = rig_new(NULL);

    journal_faults.fail_write = EIO;
    assert_everything_is_released(rig, -ESHUTDOWN);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_FAILED);
    journal_faults.fail_write = 0;
    rig_reopen(rig);
    g_assert_cmpuint(rig->jobs->len, ==, 0);
}

/* A quota that is used up, and a disk that was made read-only, may get well again. */
static void what_passes_is_waited_for(void) {
    static const int errors[] = {EDQUOT, EROFS, ENOSPC};
    g_autoptr(Rig) rig = rig_new(NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(errors); i++) {
        journal_faults.fail_write = errors[i];
        rig_put_new(rig, "web");
        while (journal_state(rig->journal) != JOURNAL_FULL)
            rig_run_once(rig);
        g_assert_cmpuint(rig->done, ==, i);
        journal_faults.fail_write = 0;
        rig_flush(rig);
        while (journal_state(rig->journal) != JOURNAL_OK) /* told behind the record */
            rig_run_once(rig);
    }
    rig_reopen(rig);
    g_assert_cmpuint(rig->jobs->len, ==, G_N_ELEMENTS(errors));
}

/* The tables are made in one transaction: wherever it ends, the next start begins it again. */
static void a_creation_that_finds_no_room_is_begun_again(void) {
    unsigned refused = 0;
    int r = -ENOSPC;

    for (int room = 1; r < 0; room++) {
        g_autoptr(Rig) rig = rig_new_dir();
        g_auto(Failure) why = {0};
        journal_faults.room = room;
        r = journal_open(rig->event, rig->dir, NULL, NULL, &why, &rig->journal);
        journal_vfs_reset();
        if (r >= 0)
            break;
        refused++;
        g_assert_cmpint(r, ==, -ENOSPC);
        g_assert_nonnull(strstr(why.message, "full or read-only"));
        rig_start(rig);
        g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
        rig_put_new(rig, "web");
        rig_flush(rig);
        rig_reopen(rig);
        g_assert_cmpuint(rig->jobs->len, ==, 1);
    }
    g_test_message("no room in %u places", refused);
    g_assert_cmpuint(refused, >=, 3);
}

static void a_full_disk_is_waited_for(void) {
    g_autoptr(Rig) rig = rig_new(NULL);

    fill_history(rig, 5);
    journal_faults.full = true;
    for (int i = 0; i < 10; i++)
        rig_put_new(rig, "web");
    while (journal_state(rig->journal) != JOURNAL_FULL)
        rig_run_once(rig);
    unsigned done = rig->done;
    assert_history(rig, &(JournalFilter){0}, 5, 5000); /* reading goes on */
    g_assert_cmpuint(rig->done, ==, done);
    journal_faults.full = false;
    rig_flush(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
    g_assert_cmpint(rig->changes, ==, 2);
    journal_faults.full = true; /* stopping does not wait for ever */
    rig_put_new(rig, "lost");
    rig_close(rig);
    journal_vfs_reset();
    rig_start(rig);
    g_assert_cmpuint(rig->jobs->len, ==, 3 + 1 + 10);
}

/* A full disk makes transactions small, but never splits what has to be durable together. */
static void what_is_corked_is_one_commit_on_a_full_disk_too(void) {
    g_autoptr(Rig) rig = rig_new(NULL);

    journal_faults.full = true;
    rig_put_new(rig, "web");
    while (journal_state(rig->journal) != JOURNAL_FULL)
        rig_run_once(rig);
    journal_cork(rig->journal);
    for (int i = 0; i < 7; i++)
        rig_put_new(rig, "db");
    journal_uncork(rig->journal);
    int commits = journal_faults.commits;
    journal_faults.full = false;
    rig_flush(rig);
    g_assert_cmpint(journal_faults.commits - commits, ==, 2);
    rig_reopen(rig);
    g_assert_cmpuint(rig->jobs->len, ==, 8);
}

/* What waits for space, or behind other work, can be taken back; then it is in no file and no continuation comes. */
static void a_record_that_waits_can_be_withdrawn(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    JournalSlot *slots[4] = {0};

    journal_faults.full = true;
    for (uint64_t i = 0; i < G_N_ELEMENTS(slots); i++) {
        g_autoptr(JournalJob) job = job_new(i + 1, "web");
        journal_put_job(rig->journal, job, "pivoting", "pivot", "", rig_count, rig, &slots[i]);
    }
    while (journal_state(rig->journal) != JOURNAL_FULL)
        rig_run_once(rig);
    /* The first and the last of those that wait, and one in the middle; the thread tries again now and then. */
    uint64_t deadline = now_monotonic() + 20 * USEC_PER_SEC;
    for (unsigned i = 0; i < G_N_ELEMENTS(slots); i++) {
        if (i == 1)
            continue;
        while (!journal_slot_withdraw(rig->journal, slots[i]))
            g_assert_cmpuint(now_monotonic(), <, deadline);
    }
    g_assert_cmpint(rig->done, ==, 0);
    journal_faults.full = false;
    rig->expected += 1;
    rig_flush(rig);
    while (journal_state(rig->journal) != JOURNAL_OK) /* told right behind the record */
        rig_run_once(rig);
    rig_reopen(rig);
    g_assert_cmpuint(rig->jobs->len, ==, 1);
    g_assert_cmpuint(((JournalJob *) rig->jobs->pdata[0])->id, ==, 2);

    gate_close(rig);
    g_autoptr(JournalJob) job = job_new(9, "web");
    journal_put_job(rig->journal, job, "pivoting", "pivot", "", rig_count, rig, &slots[0]);
    g_assert_true(journal_slot_withdraw(rig->journal, slots[0]));
    gate_open(rig);
    rig_reopen(rig);
    g_assert_cmpuint(rig->jobs->len, ==, 1);
}

/* What is written already is past that. */
static void a_record_that_is_written_cannot_be_withdrawn(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    g_autoptr(JournalJob) job = job_new(1, "web");
    JournalSlot *slot;
    int commits = journal_faults.commits;

    journal_put_job(rig->journal, job, "pivoting", "pivot", "", rig_count, rig, &slot);
    rig->expected++;
    uint64_t deadline = now_monotonic() + 20 * USEC_PER_SEC;
    while (journal_faults.commits == commits)
        g_assert_cmpuint(now_monotonic(), <, deadline);
    g_assert_false(journal_slot_withdraw(rig->journal, slot));
    rig_flush(rig);
    rig_reopen(rig);
    g_assert_cmpuint(rig->jobs->len, ==, 1);
}

static void fill_disk(const char *dir) {
    g_autofree char *path = g_build_filename(dir, "ballast", NULL);
    autofd int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND, 0600);
    static const char block[4096] = "x";

    g_assert_cmpint(fd, >=, 0);
    while (write(fd, block, sizeof block) > 0)
        ;
    g_assert_cmpint(errno, ==, ENOSPC);
}

static bool mount_small(const char *dir) {
    if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", dir, "tmpfs", 0, "size=24m") < 0) {
        g_test_skip("A small file system cannot be mounted: not root, or not allowed to.");
        return false;
    }
    return true;
}

static void the_reserve_helps_on_a_full_disk(void) {
    g_autoptr(Rig) rig = rig_new_dir();
    g_autofree char *dir = g_strdup(rig->dir);
    g_autoptr(JournalJob) job = job_new(1, "web");

    if (!mount_small(dir))
        return;
    rig_start(rig);
    rig_put(rig, job, "queued");
    rig_flush(rig);
    fill_disk(dir);
    for (int round = 0; round < 2; round++) { /* also after a restart with the disk still full */
        for (int i = 0; i < 1000; i++) {
            rig_put_new(rig, "web");
            if (i % 50 == 0)
                rig_flush(rig);
        }
        for (int i = 0; i < 5000; i++) {
            job->restarts++;
            rig_put(rig, job, "running");
            if (i % 10 == 0)
                rig_flush(rig);
        }
        rig_flush(rig);
        g_assert_cmpint(rig->changes, ==, 0);
        rig_reopen(rig);
        g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
        g_assert_cmpuint(rig->jobs->len, ==, 1 + 1000 * (unsigned) (round + 1));
        assert_same_job(rig->jobs->pdata[0], job);
    }
    /* In the end it is used up; what then waits is written when there is room again, and nothing is lost. */
    unsigned before = 2001;
    while (journal_state(rig->journal) != JOURNAL_FULL) {
        for (int i = 0; i < 200; i++, before++)
            rig_put_new(rig, "web");
        while (rig->done < rig->expected && journal_state(rig->journal) != JOURNAL_FULL)
            rig_run_once(rig);
    }
    g_test_message("full after %u jobs", before);
    g_autofree char *ballast = g_build_filename(dir, "ballast", NULL);
    g_assert_cmpint(unlink(ballast), ==, 0);
    rig_flush(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
    rig_reopen(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
    g_assert_cmpuint(rig->jobs->len, ==, before);
    rig_close(rig);
    g_assert_cmpint(umount2(dir, MNT_DETACH), ==, 0);
}

static void a_slow_disk_does_not_block_the_loop(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    uint64_t longest = 0;

    rig_put_new(rig, "web");
    rig_flush(rig);
    int commits = journal_faults.commits;
    journal_faults.sync_delay = 50 * 1000;
    uint64_t begin = now_monotonic();
    for (int i = 0; i < 1000; i++)
        rig_put_new(rig, "web");
    uint64_t handed_over = now_monotonic() - begin;
    while (rig->done < rig->expected) {
        uint64_t t;
        g_assert_cmpint(sd_event_prepare(rig->event) ?: sd_event_wait(rig->event, UINT64_MAX), >=,
                        0);
        t = now_monotonic();
        g_assert_cmpint(sd_event_dispatch(rig->event), >=, 0);
        longest = MAX(longest, now_monotonic() - t);
    }
    g_test_message(
        "1000 records handed over in %u us, longest dispatch %u us, all durable after %u us",
        (unsigned) handed_over, (unsigned) longest, (unsigned) (now_monotonic() - begin));
    g_assert_cmpint(journal_faults.commits - commits, <=, 5);
    g_assert_cmpuint(longest, <, 40 * 1000); /* less than one sync */
}

/* ---- death ---- */

static void report_durable(int error, void *userdata) {
    uint64_t id = GPOINTER_TO_SIZE(userdata);

    if (error == 0)
        g_assert_cmpint(write(gate[1], &id, sizeof id), ==, sizeof id);
}

static G_NORETURN void write_until_killed(const char *dir) {
    g_autoptr(Rig) rig = rig_new(dir);

    for (;;) {
        for (int i = 0; i < 5; i++) {
            g_autoptr(JournalJob) job = job_new(journal_new_id(rig->journal), "web");
            journal_put_job(rig->journal, job, "queued", "", "", report_durable,
                            GSIZE_TO_POINTER(job->id), NULL);
        }
        rig_run_once(rig);
    }
}

static uint64_t kill_after(const char *dir, int records) {
    uint64_t id = 0, highest = 0;

    g_assert_cmpint(pipe2(gate, O_CLOEXEC), ==, 0);
    pid_t pid = fork();
    if (pid == 0)
        write_until_killed(dir);
    close(gate[1]);
    for (int i = 0; read(gate[0], &id, sizeof id) == sizeof id; i++) {
        g_assert_cmpuint(id, >, highest);
        highest = id;
        if (i == records)
            kill(pid, SIGKILL);
    }
    close(gate[0]);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    return highest;
}

static void what_was_acknowledged_survives_a_kill(void) {
    g_autoptr(Rig) rig = rig_new_dir();
    uint64_t highest = 0;

    for (int round = 0; round < 15; round++) {
        highest = kill_after(rig->dir, round * 17);
        rig_start(rig);
        g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
        g_assert_cmpuint(rig->jobs->len, >=, highest);
        for (unsigned i = 0; i < rig->jobs->len; i++)
            g_assert_cmpuint(((JournalJob *) rig->jobs->pdata[i])->id, ==, i + 1);
        g_assert_cmpuint(journal_new_id(rig->journal), ==, rig->jobs->len + 1);
        rig_close(rig);
    }
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
    log_set_max_level(g_test_verbose() ? LOG_DEBUG : -1);
    journal_vfs_install();
#define ADD(name) g_test_add_func("/journal/" #name, name)
    ADD(records_survive_a_restart);
    ADD(ids_are_never_given_twice);
    ADD(what_queues_up_is_one_commit);
    ADD(work_runs_between_the_commits);
    ADD(a_cancelled_slot_stays_silent);
    ADD(freeing_writes_what_was_handed_over);
    ADD(the_thread_takes_no_signals);
    ADD(history_is_filtered);
    ADD(pruning_keeps_what_it_must);
    ADD(a_second_instance_is_kept_out);
    ADD(nothing_is_released_after_a_failed_sync);
    ADD(a_write_error_is_final);
    ADD(what_passes_is_waited_for);
    ADD(a_creation_that_finds_no_room_is_begun_again);
    ADD(a_full_disk_is_waited_for);
    ADD(what_is_corked_is_one_commit_on_a_full_disk_too);
    ADD(a_record_that_waits_can_be_withdrawn);
    ADD(a_record_that_is_written_cannot_be_withdrawn);
    ADD(the_reserve_helps_on_a_full_disk);
    ADD(a_slow_disk_does_not_block_the_loop);
    ADD(what_was_acknowledged_survives_a_kill);
    return g_test_run();
}
