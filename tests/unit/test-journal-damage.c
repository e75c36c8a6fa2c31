/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the journal makes of damaged files: it never crashes, never gives out wrong data as good, keeps the evidence,
 * and always runs on. */

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "journal-test.h"

enum { N_LIVE = 12, N_FINISHED = 12, N_DOMAINS = 6 };

typedef struct {
    char *bytes;
    size_t size;
} Content;

/* The files of a journal whose service was killed: the log is needed. */
typedef struct {
    Content database, log, lock;
    size_t log_used; /* bytes of it that count */
} Sample;

static Sample sample;

static const char *const file_names[] = {"journal.db", "journal.db-wal", "journal.lock"};

static Content *sample_content(Sample *s, size_t i) {
    Content *const contents[] = {&s->database, &s->log, &s->lock};

    return contents[i];
}

/* ---- what is in the sample ---- */

static JournalJob *expected_job(uint64_t id) {
    g_autofree char *domain = g_strdup_printf("domain-%u", (unsigned) id);
    JournalJob *job = job_new(id, domain);

    g_free(job->document);
    job->document =
        g_strnfill(id % 4 == 0 ? 9000 : 40 * id, (char) ('a' + id % 26)); /* overflow pages, too */
    job->restarts = 3;
    if (id > N_LIVE) {
        job->finished = 1000 * id;
        job->exported = false;
    }
    return job;
}

static char *expected_document(unsigned i) {
    return g_strnfill(i == 3 ? 6000 : 50, (char) ('A' + i));
}

static void write_sample(Rig *rig) {
    for (unsigned restarts = 1; restarts <= 3; restarts++) {
        for (uint64_t id = 1; id <= N_LIVE + N_FINISHED; id++) {
            g_autoptr(JournalJob) job = expected_job(id);
            job->restarts = restarts;
            if (restarts == 1)
                (void) journal_new_id(rig->journal);
            rig_put(rig, job, restarts == 3 ? "ready" : "queued");
            if (id % 8 == 0)
                rig_flush(rig);
        }
        for (unsigned i = 0; i < N_DOMAINS; i++) {
            g_autofree char *name = g_strdup_printf("domain-%u", i);
            g_autofree char *document = restarts == 3 ? expected_document(i) : g_strdup("{}");
            rig_put_domain(rig, name, document);
            rig_flush(rig);
        }
    }
}

static const JournalJob *find_job(const GPtrArray *jobs, uint64_t id) {
    for (unsigned i = 0; i < jobs->len; i++)
        if (((JournalJob *) jobs->pdata[i])->id == id)
            return jobs->pdata[i];
    return NULL;
}

/* What is given out is what was written, as of some commit; and everything as of the last one unless it is said that
 * something is wrong. */
static void check_jobs(const GPtrArray *jobs, uint64_t first, uint64_t last, bool complete) {
    for (unsigned i = 0; i < jobs->len; i++) {
        const JournalJob *job = jobs->pdata[i];
        g_autoptr(JournalJob) expected = expected_job(job->id);
        g_assert_cmpuint(job->id, >=, first);
        g_assert_cmpuint(job->id, <=, last);
        if (!complete)
            expected->restarts = CLAMP(job->restarts, 1, 3);
        assert_same_job(job, expected);
    }
    for (uint64_t id = first; id <= last && complete; id++)
        g_assert_nonnull(find_job(jobs, id));
    if (complete)
        g_assert_cmpuint(jobs->len, ==, last - first + 1);
}

static void check_domains(const GPtrArray *domains, bool complete) {
    for (unsigned i = 0; i < domains->len; i++) {
        const JournalDomain *domain = domains->pdata[i];
        unsigned n = (unsigned) g_ascii_strtoull(domain->name + strlen("domain-"), NULL, 10);
        g_autofree char *document = expected_document(n);
        g_assert_cmpuint(n, <, N_DOMAINS);
        if (complete || strcmp(domain->document, "{}") != 0)
            g_assert_cmpstr(domain->document, ==, document);
    }
    if (complete)
        g_assert_cmpuint(domains->len, ==, N_DOMAINS);
}

/* ---- files ---- */

static Content content_read(const char *dir, const char *name) {
    g_autofree char *path = g_build_filename(dir, name, NULL);
    Content content = {0};

    g_assert_true(g_file_get_contents(path, &content.bytes, &content.size, NULL));
    return content;
}

/* Holes for the zeros: most of a journal is reserve. */
static void content_write(const char *dir, const char *name, const Content *content) {
    static const char zeros[4096];
    g_autofree char *path = g_build_filename(dir, name, NULL);
    autofd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, (off_t) content->size), ==, 0);
    for (size_t offset = 0; offset < content->size; offset += sizeof zeros) {
        size_t n = MIN(sizeof zeros, content->size - offset);
        if (memcmp(content->bytes + offset, zeros, n) != 0)
            g_assert_cmpint(pwrite(fd, content->bytes + offset, n, (off_t) offset), ==,
                            (ssize_t) n);
    }
}

static void place_sample(Rig *rig) {
    rig_close(rig);
    dir_empty(rig->dir);
    for (size_t i = 0; i < G_N_ELEMENTS(file_names); i++)
        content_write(rig->dir, file_names[i], sample_content(&sample, i));
}

static void patch(Rig *rig, const char *name, size_t offset, const void *bytes, size_t size) {
    g_autofree char *path = g_build_filename(rig->dir, name, NULL);
    autofd int fd = open(path, O_WRONLY | O_CLOEXEC);

    g_assert_cmpint(pwrite(fd, bytes, size, (off_t) offset), ==, (ssize_t) size);
}

static void cut(Rig *rig, const char *name, size_t size) {
    g_autofree char *path = g_build_filename(rig->dir, name, NULL);

    g_assert_cmpint(truncate(path, (off_t) size), ==, 0);
}

static void drop(Rig *rig, const char *name) {
    g_autofree char *path = g_build_filename(rig->dir, name, NULL);

    g_assert_cmpint(unlink(path), ==, 0);
}

static unsigned count_files(Rig *rig, const char *prefix) {
    g_autoptr(GDir) dir = g_dir_open(rig->dir, 0, NULL);
    const char *name;
    unsigned n = 0;

    while ((name = g_dir_read_name(dir)))
        n += g_str_has_prefix(name, prefix);
    return n;
}

/* The child dies as if it had been killed. In memory, where a sync costs nothing. */
static Rig *sample_rig(void) {
    Rig *rig = rig_new_dir();

    if (access("/dev/shm", W_OK) == 0) {
        g_rmdir(rig->dir);
        g_free(rig->dir);
        rig->dir = g_strdup("/dev/shm/journal-XXXXXX");
        g_assert_nonnull(g_mkdtemp(rig->dir));
    }
    if (sample.database.bytes)
        return rig;
    pid_t pid = fork();
    if (pid == 0) {
        write_sample(rig_new(rig->dir)); /* with a loop of its own: one cannot be inherited */
        _exit(0);
    }
    int status = -1;
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_cmpint(status, ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(file_names); i++)
        *sample_content(&sample, i) = content_read(rig->dir, file_names[i]);
    /* The frames that count have the salt of the log's header. */
    for (sample.log_used = 32; sample.log_used < sample.log.size; sample.log_used += 24 + 4096)
        if (memcmp(sample.log.bytes + sample.log_used + 8, sample.log.bytes + 16, 8) != 0)
            break;
    return rig;
}

static void sample_free(void) {
    for (size_t i = 0; i < G_N_ELEMENTS(file_names); i++)
        g_clear_pointer(&sample_content(&sample, i)->bytes, g_free);
}

static unsigned variants; /* opened by check_journal() */

static char *read_if_there(const char *dir, const char *name, size_t *ret_size) {
    g_autofree char *path = g_build_filename(dir, name, NULL);
    char *bytes = NULL;

    return g_file_get_contents(path, &bytes, ret_size, NULL) ? bytes : NULL;
}

/* If the database was set aside, it is what lay there, byte for byte. */
static void check_evidence(Rig *rig, unsigned before, const char *bytes, size_t size) {
    g_autoptr(GDir) dir = g_dir_open(rig->dir, 0, NULL);
    bool kept = count_files(rig, "journal.db.damaged-") == before || !bytes;
    const char *name;

    while (!kept && (name = g_dir_read_name(dir))) {
        size_t found_size = 0;
        g_autofree char *found = g_str_has_prefix(name, "journal.db.damaged-")
                                     ? read_if_there(rig->dir, name, &found_size)
                                     : NULL;
        kept = found && found_size == size && memcmp(found, bytes, size) == 0;
    }
    g_assert_true(kept);
}

/* Opens what lies there, checks what is given out, that it works, and that the next start finds it in order. Returns
 * whether damage was reported. */
static bool check_journal(Rig *rig) {
    size_t size = 0;
    unsigned before = count_files(rig, "journal.db.damaged-");
    g_autofree char *bytes = read_if_there(rig->dir, "journal.db", &size);

    variants++;
    rig_start(rig);
    check_evidence(rig, before, bytes, size);
    JournalState state = journal_state(rig->journal);
    g_assert_true(state == JOURNAL_OK || state == JOURNAL_RECOVERED);
    check_jobs(rig->jobs, 1, N_LIVE, state == JOURNAL_OK);
    check_domains(rig->domains, state == JOURNAL_OK);
    rig_read_history(rig, &(JournalFilter){0});
    g_assert_nonnull(rig->history);
    check_jobs(rig->history, N_LIVE + 1, N_LIVE + N_FINISHED, false);
    uint64_t id = journal_new_id(rig->journal);
    g_assert_cmpuint(id, >, N_LIVE + N_FINISHED);
    g_assert_cmpuint(id, <, N_LIVE + N_FINISHED + 20); /* neither counted from a damaged number */
    rig_put_new(rig, "after");
    rig_flush(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, state);

    rig_reopen(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
    const JournalJob *job = find_job(rig->jobs, id + 1);
    g_assert_nonnull(job);
    g_assert_cmpstr(job->domain, ==, "after");
    rig_close(rig);
    return state == JOURNAL_RECOVERED;
}

/* The pages of a database that are more than reserve: that is zeros behind the number of the next page. */
static GArray *pages_in_use(const Content *database) {
    GArray *pages = g_array_new(false, false, sizeof(size_t));

    for (size_t page = 0; page < database->size / 4096; page++)
        if (memcmp(database->bytes + page * 4096 + 4, (char[4092]){0}, 4092) != 0)
            g_array_append_val(pages, page);
    return pages;
}

/* ---- tests ---- */

static void a_killed_journal_is_whole(void) {
    g_autoptr(Rig) rig = sample_rig();

    place_sample(rig);
    g_assert_false(check_journal(rig));
    g_assert_cmpuint(count_files(rig, "journal.db.damaged-"), ==, 0);
}

static void garbage_is_set_aside(void) {
    g_autoptr(Rig) rig = sample_rig();
    static const char garbage[4096] = "This is not what you are looking for.";

    place_sample(rig);
    drop(rig, "journal.db-wal");
    patch(rig, "journal.db", 0, garbage, sizeof garbage);
    g_assert_true(check_journal(rig));
    g_assert_cmpuint(count_files(rig, "journal.db.damaged-"), ==, 1);
    /* With the log, and without overwriting what was set aside in the same second. */
    for (unsigned n = 2; n < 5; n++) {
        content_write(rig->dir, "journal.db", &sample.database);
        content_write(rig->dir, "journal.db-wal", &sample.log);
        patch(rig, "journal.db", 0, garbage, sizeof garbage);
        patch(rig, "journal.db-wal", 0, garbage, sizeof garbage);
        g_assert_true(check_journal(rig));
        g_assert_cmpuint(count_files(rig, "journal.db.damaged-"), ==, 1 + 2 * (n - 1));
    }
}

static void a_foreign_database_is_set_aside(void) {
    g_autoptr(Rig) rig = sample_rig();
    g_autofree char *path = g_build_filename(rig->dir, "journal.db", NULL);
    sqlite3 *db = NULL;

    place_sample(rig);
    drop(rig, "journal.db");
    drop(rig, "journal.db-wal");
    g_assert_cmpint(sqlite3_open(path, &db), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_exec(db, "CREATE TABLE job (id)", NULL, NULL, NULL), ==, SQLITE_OK);
    sqlite3_close(db);
    g_assert_true(check_journal(rig));
    g_assert_cmpuint(count_files(rig, "journal.db.damaged-"), ==, 1);
}

/* With BLOCKJOBD_TEST_FULL=1 at every length of the log and of the pages in use, which takes hours; else at some. */
static void truncated_files_are_noticed(void) {
    g_autoptr(Rig) rig = sample_rig();
    bool full = g_getenv("BLOCKJOBD_TEST_FULL") != NULL;

    for (size_t size = 0; size < sample.database.size; size = full && size < 512 * 1024 ? size + 1
                                                              : size < 64 ? size * 2 + 1
                                                                          : size + size / 5) {
        place_sample(rig);
        cut(rig, "journal.db", size);
        (void) check_journal(rig);
        place_sample(rig);
        drop(rig, "journal.db-wal");
        cut(rig, "journal.db", size);
        g_assert_true(check_journal(rig));
    }
    for (size_t size = 0; size <= sample.log_used; size += full                 ? 1
                                                           : size % 4120 < 2000 ? 1777
                                                                                : 2343) {
        place_sample(rig);
        cut(rig, "journal.db-wal", size);
        g_assert_true(check_journal(rig));
    }
}

static void a_missing_file_is_noticed(void) {
    g_autoptr(Rig) rig = sample_rig();

    for (size_t i = 0; i < 2; i++) {
        place_sample(rig);
        drop(rig, file_names[i]);
        g_assert_true(check_journal(rig));
    }
    /* Without the lock file nothing is wrong, there is only one witness less. */
    place_sample(rig);
    drop(rig, "journal.lock");
    g_assert_false(check_journal(rig));
}

/* The log of another journal, noise in its place, and beside it what SQLite makes in other modes than ours. */
static void foreign_files_beside_it_are_noticed(void) {
    g_autoptr(Rig) rig = sample_rig(), other = rig_new(NULL);
    char noise[32768];

    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char) g_test_rand_int();
    for (int i = 0; i < 20; i++)
        rig_put_new(other, "foreign");
    rig_flush(other);
    Content log = content_read(other->dir, "journal.db-wal");
    place_sample(rig);
    content_write(rig->dir, "journal.db-wal", &log);
    g_free(log.bytes);
    rig_start(rig); /* its rows are sound, but they end before the number in the note */
    variants++;
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_RECOVERED);
    g_assert_cmpuint(journal_new_id(rig->journal), >, N_LIVE + N_FINISHED);
    place_sample(rig);
    content_write(rig->dir, "journal.db-wal", &(Content){noise, sizeof noise});
    g_assert_true(check_journal(rig));
    for (size_t size = 0; size <= sizeof noise; size += sizeof noise / 2) {
        place_sample(rig);
        content_write(rig->dir, "journal.db-shm", &(Content){noise, size});
        g_assert_false(check_journal(rig));
        place_sample(rig);
        content_write(rig->dir, "journal.db-journal", &(Content){noise, size});
        g_assert_false(check_journal(rig));
    }
}

/* Every page that is in use, in the log and after the log was copied into the database, and some of the reserve. */
static void every_overwritten_page_is_noticed(void) {
    g_autoptr(Rig) rig = sample_rig();
    char noise[4096];
    unsigned noticed = 0, opened = 0;

    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char) g_test_rand_int();
    for (size_t offset = 32; offset < sample.log_used; offset += 24 + 4096) {
        place_sample(rig);
        patch(rig, "journal.db-wal", offset + 24, noise, sizeof noise);
        g_assert_true(check_journal(rig));
    }
    place_sample(rig);
    rig_start(rig);
    rig_close(rig);
    drop(rig, "journal.db-wal");
    Sample whole = {content_read(rig->dir, "journal.db"),
                    {g_strdup(""), 0},
                    content_read(rig->dir, "journal.lock"),
                    0};
    Sample kept = sample;
    sample = whole;
    g_autoptr(GArray) pages = pages_in_use(&whole.database);
    for (size_t page = 20; page < whole.database.size / 4096; page += 100)
        g_array_append_val(pages, page);
    for (unsigned i = 0; i < pages->len; i++)
        for (int how = 0; how < 3; how++) { /* noise, zeros, another page of the same file */
            size_t page = g_array_index(pages, size_t, i);
            size_t other = g_array_index(pages, size_t, (i + 1) % pages->len);
            const char *const with[] = {noise, (char[4096]){0},
                                        whole.database.bytes + other * 4096};
            place_sample(rig);
            patch(rig, "journal.db", page * 4096, with[how], 4096);
            noticed += check_journal(rig);
            opened++;
        }
    g_test_message("%u of %u overwritten pages were in use and noticed", noticed, opened);
    g_assert_cmpuint(noticed, >=, 60);
    for (size_t i = 0; i < G_N_ELEMENTS(file_names); i++)
        g_clear_pointer(&sample_content(&whole, i)->bytes, g_free);
    sample = kept;
}

static void flipped_bits_are_noticed(void) {
    g_autoptr(Rig) rig = sample_rig();
    unsigned noticed = 0;

    place_sample(rig);
    rig_start(rig);
    rig_close(rig);
    Content whole = content_read(rig->dir, "journal.db");
    g_autoptr(GArray) pages = pages_in_use(&whole);
    for (int i = 0; i < 300; i++) {
        bool in_log = i % 3 == 0;
        size_t page = g_array_index(pages, size_t, g_test_rand_int_range(0, (int) pages->len));
        size_t offset = in_log ? (size_t) g_test_rand_int_range(0, (int) sample.log_used)
                               : page * 4096 + (size_t) g_test_rand_int_range(0, 4096);
        if (!in_log && offset >= 60 && offset < 64)
            continue; /* the version: a higher one is left alone */
        char byte = (in_log ? sample.log : whole).bytes[offset];
        byte = (char) (byte ^ (1 << g_test_rand_int_range(0, 8)));
        place_sample(rig);
        if (!in_log) {
            drop(rig, "journal.db-wal"); /* else it would hide the page */
            content_write(rig->dir, "journal.db", &whole);
        }
        patch(rig, file_names[in_log], offset, &byte, 1);
        noticed += check_journal(rig);
    }
    g_test_message("%u of 300 flipped bits were noticed at once", noticed);
    g_assert_cmpuint(noticed, >=, 100);
    g_free(whole.bytes);
}

/* Rows changed by somebody else, in a file whose structure is sound. */
static void changed_rows_are_set_aside(void) {
    static const struct {
        const char *sql;
        unsigned jobs, domains, damaged;
    } cases[] = {
        {"UPDATE job SET document = replace(document, 'd', 'e') WHERE id = 3", N_LIVE - 1,
         N_DOMAINS, 1},
        {"UPDATE job SET restarts = restarts + 1 WHERE id IN (4, 5)", N_LIVE - 2, N_DOMAINS, 2},
        {"UPDATE job SET finished = 0, exported = 1 WHERE id = 20", N_LIVE, N_DOMAINS, 1},
        {"UPDATE job SET domain = disk, disk = domain WHERE id = 1", N_LIVE - 1, N_DOMAINS, 1},
        {"UPDATE domain SET document = '{}' WHERE name = 'domain-2'", N_LIVE, N_DOMAINS - 1, 1},
        {"UPDATE domain SET name = 'domain-9' WHERE name = 'domain-2'", N_LIVE, N_DOMAINS - 1, 1},
        {"UPDATE transition SET state = 'lost' WHERE job = 2 AND seq = (SELECT max(seq) FROM "
         "transition WHERE "
         "job = 2)",
         N_LIVE, N_DOMAINS, 1},
        {"DELETE FROM transition WHERE job = 2 AND seq = (SELECT max(seq) FROM transition WHERE "
         "job = 2)",
         N_LIVE, N_DOMAINS, 0},
        {"DELETE FROM job WHERE id = 7", N_LIVE - 1, N_DOMAINS, 0},
        {"DELETE FROM job WHERE id = 22", N_LIVE, N_DOMAINS, 0},
        {"DELETE FROM domain WHERE name = 'domain-0'", N_LIVE, N_DOMAINS - 1, 0},
        {"UPDATE position SET seq = seq - 1", N_LIVE, N_DOMAINS, 0},
        {"DELETE FROM position", N_LIVE, N_DOMAINS, 0},
        {"UPDATE meta SET value = '00000000' WHERE name = 'identity'", N_LIVE, N_DOMAINS, 0},
        {"UPDATE sqlite_sequence SET seq = 9223372036854775807", N_LIVE, N_DOMAINS, 0},
        {"UPDATE sqlite_sequence SET seq = 1", N_LIVE, N_DOMAINS, 0},
        {"DROP INDEX job_finished", 0, 0, 0},
        {"CREATE TRIGGER t AFTER UPDATE ON job BEGIN DELETE FROM job; END", 0, 0, 0},
    };
    g_autoptr(Rig) rig = sample_rig();

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        place_sample(rig);
        (void) rig_sql_int(rig, cases[i].sql);
        rig_start(rig);
        g_test_message("%s: %u jobs, %u domains", cases[i].sql, rig->jobs->len, rig->domains->len);
        g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_RECOVERED);
        g_assert_cmpuint(rig->jobs->len, ==, cases[i].jobs);
        g_assert_cmpuint(rig->domains->len, ==, cases[i].domains);
        rig_close(rig);
        g_assert_cmpint(rig_sql_int(rig, "SELECT count(*) FROM damaged"), ==, cases[i].damaged);
        rig_start(rig); /* said once */
        g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
        g_assert_cmpuint(journal_new_id(rig->journal), ==, N_LIVE + N_FINISHED + 1);
    }
}

/* A page of the table that went back to what it was before the last transition, with sound rows on it. */
static void an_outdated_row_is_set_aside(void) {
    g_autoptr(Rig) rig = rig_new(NULL);
    g_autoptr(JournalJob) job = job_new(1, "web");

    rig_put(rig, job, "running");
    rig_close(rig);
    size_t root =
        (size_t) rig_sql_int(rig, "SELECT rootpage FROM sqlite_schema WHERE name = 'job'");
    Content old = content_read(rig->dir, "journal.db");
    rig_start(rig);
    rig_put(rig, job, "ready");
    rig_close(rig);
    (void) rig_sql_int(rig, "PRAGMA wal_checkpoint");
    patch(rig, "journal.db", (root - 1) * 4096, old.bytes + (root - 1) * 4096, 4096);
    g_free(old.bytes);
    rig_start(rig);
    g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_RECOVERED);
    g_assert_cmpuint(rig->jobs->len, ==, 0);
}

static void history_leaves_damaged_rows_out(void) {
    g_autoptr(Rig) rig = sample_rig();

    place_sample(rig);
    (void) rig_sql_int(rig, "UPDATE job SET result = 'pivoted' WHERE id IN (15, 16)");
    rig_start(rig);
    rig_read_history(rig, &(JournalFilter){0});
    g_assert_cmpuint(rig->history->len, ==, N_FINISHED - 2);
    check_jobs(rig->history, N_LIVE + 1, N_LIVE + N_FINISHED, false);
}

/* An entry of the index of finished jobs that leads nowhere, or to a row with another time. SQLite's own check sees
 * neither; reading, dismissing and pruning by such an index would fail. */
static void a_damaged_index_is_made_anew(void) {
    static const char entry[] = {0x4e, 0x20, 20}; /* finished 20000, job 20 */
    static const char *const wrong[] = {"\x4e\x20\x7f", "\x4e\x21\x14"};
    g_autoptr(Rig) rig = sample_rig();

    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        place_sample(rig);
        rig_start(rig);
        rig_close(rig);
        size_t page = (size_t) rig_sql_int(
            rig, "SELECT rootpage FROM sqlite_schema WHERE name = 'job_finished'");
        g_assert_cmpint(rig_sql_int(rig, "PRAGMA wal_checkpoint(TRUNCATE)"), ==, 0);
        Content whole = content_read(rig->dir, "journal.db");
        const char *begin = whole.bytes + (page - 1) * 4096;
        const char *at = memmem(begin, 4096, entry, sizeof entry);
        g_assert_nonnull(at);
        patch(rig, "journal.db", (size_t) (at - whole.bytes), wrong[i], sizeof entry);
        g_free(whole.bytes);

        rig_start(rig);
        g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_RECOVERED);
        rig_read_history(rig, &(JournalFilter){0});
        check_jobs(rig->history, N_LIVE + 1, N_LIVE + N_FINISHED, true);
        g_autoptr(JournalJob) job = expected_job(20);
        job->finished++;
        rig_put(rig, job, "concluded");
        journal_prune(rig->journal, &(JournalRetention){.keep_age = 1});
        rig_wait_history(rig, 0);
        rig_reopen(rig);
        g_assert_cmpint(journal_state(rig->journal), ==, JOURNAL_OK);
        g_assert_cmpuint(count_files(rig, "journal.db.damaged-"), ==, 0);
    }
}

static void assert_refused_untouched(Rig *rig) {
    g_auto(Failure) why = {0};
    g_autoptr(Journal) journal = NULL;
    Content before[3];

    for (size_t i = 0; i < 3; i++)
        before[i] = content_read(rig->dir, file_names[i]);
    g_assert_cmpint(journal_open(rig->event, rig->dir, NULL, NULL, &why, &journal), ==,
                    -EPROTONOSUPPORT);
    g_assert_nonnull(strstr(why.message, "newer version"));
    for (size_t i = 0; i < 3; i++) {
        Content after = content_read(rig->dir, file_names[i]);
        g_assert_cmpmem(before[i].bytes, before[i].size, after.bytes, after.size);
        g_free(before[i].bytes);
        g_free(after.bytes);
    }
    g_assert_cmpuint(count_files(rig, "journal"), ==, 3);
}

static void a_newer_version_is_left_alone(void) {
    g_autoptr(Rig) rig = sample_rig();

    /* Its number still in the log, as after a kill, and in the database. */
    place_sample(rig);
    pid_t pid = fork();
    if (pid == 0) {
        g_autofree char *path = g_build_filename(rig->dir, "journal.db", NULL);
        sqlite3 *db = NULL;
        if (sqlite3_open(path, &db) == SQLITE_OK)
            sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA user_version = 2", NULL, NULL,
                         NULL);
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    assert_refused_untouched(rig);

    (void) rig_sql_int(rig, "PRAGMA journal_mode = DELETE");
    content_write(rig->dir, "journal.db-wal", &(Content){(char *) "", 0});
    assert_refused_untouched(rig);
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
    log_set_max_level(g_test_verbose() ? LOG_DEBUG : -1);
#define ADD(name) g_test_add_func("/journal-damage/" #name, name)
    ADD(a_killed_journal_is_whole);
    ADD(garbage_is_set_aside);
    ADD(a_foreign_database_is_set_aside);
    ADD(truncated_files_are_noticed);
    ADD(a_missing_file_is_noticed);
    ADD(foreign_files_beside_it_are_noticed);
    ADD(every_overwritten_page_is_noticed);
    ADD(flipped_bits_are_noticed);
    ADD(changed_rows_are_set_aside);
    ADD(an_outdated_row_is_set_aside);
    ADD(history_leaves_damaged_rows_out);
    ADD(a_damaged_index_is_made_anew);
    ADD(a_newer_version_is_left_alone);
    int r = g_test_run();
    g_test_message("%u variants of a journal were opened", variants);
    sample_free();
    return r;
}
