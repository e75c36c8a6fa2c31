/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The loop's side of the journal: handing over, continuations, what was found at opening. */

#include "journal/journal.h"

#include <string.h>

#include "journal/store.h"
#include "journal/writer.h"
#include "log.h"
#include "util.h"

struct Journal {
    Writer *writer;
    sd_event_source *source;
    void (*changed)(Journal *j, void *userdata);
    void *userdata;
    JournalState state;
    char identity[JOURNAL_IDENTITY_SIZE];
    uint64_t last_id;
    GPtrArray *jobs, *domains; /* until they are taken */
    EntryList ready;           /* continuations that are still to be called */
    unsigned under_way;        /* handed over and not come back */
    bool dispatching, freed;
};

/* ---- records ---- */

JournalJob *journal_job_copy(const JournalJob *job) {
    JournalJob *copy = g_new(JournalJob, 1);
    char **const strings[] = {&copy->domain,        &copy->disk,       &copy->kind,
                              &copy->target,        &copy->result,     &copy->error_name,
                              &copy->error_message, &copy->request_id, &copy->document};

    *copy = *job;
    for (size_t i = 0; i < G_N_ELEMENTS(strings); i++)
        *strings[i] = g_strdup(*strings[i] ? *strings[i] : "");
    return copy;
}

void journal_job_clear(JournalJob *job) {
    g_free(job->domain);
    g_free(job->disk);
    g_free(job->kind);
    g_free(job->target);
    g_free(job->result);
    g_free(job->error_name);
    g_free(job->error_message);
    g_free(job->request_id);
    g_free(job->document);
    *job = (JournalJob){0};
}

JournalJob *journal_job_free(JournalJob *job) {
    if (job)
        journal_job_clear(job);
    g_free(job);
    return NULL;
}

JournalDomain *journal_domain_free(JournalDomain *domain) {
    if (!domain)
        return NULL;
    g_free(domain->name);
    g_free(domain->document);
    g_free(domain);
    return NULL;
}

void journal_filter_clear(JournalFilter *f) {
    g_free(f->domain);
    g_free(f->disk);
    g_free(f->kind);
    g_free(f->result);
    *f = (JournalFilter){0};
}

const char *journal_state_to_string(JournalState state) {
    static const char *const names[] = {[JOURNAL_OK] = "ok",
                                        [JOURNAL_RECOVERED] = "recovered",
                                        [JOURNAL_FULL] = "full",
                                        [JOURNAL_FAILED] = "failed"};

    return names[state];
}

/* ---- continuations ---- */

/* The slot stays valid while its continuation runs, so that its owner may cancel it from there. */
static void run_continuation(Journal *j, JournalSlot *entry) {
    j->under_way -= entry->type != ENTRY_STATE;
    if (entry->type == ENTRY_STATE) {
        j->state = entry->new_state;
        if (j->changed)
            j->changed(j, j->userdata);
    } else if (entry->history_done)
        entry->history_done(entry->error, entry->error < 0 ? NULL : entry->jobs, entry->userdata);
    else if (entry->export_done)
        entry->export_done(entry->error, entry->text, entry->behind, entry->userdata);
    else if (entry->done)
        entry->done(entry->error, entry->userdata);
}

static int on_writer(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
    Journal *j = userdata;
    JournalSlot *entry;

    j->ready = writer_collect(j->writer);
    j->dispatching = true;
    /* A continuation may free the journal: then the list is empty, and the rest is for us to free. */
    while ((entry = entry_list_pop(&j->ready))) {
        run_continuation(j, entry);
        journal_slot_free(entry);
    }
    j->dispatching = false;
    if (j->freed)
        g_free(j);
    return 0;
}

void journal_slot_cancel(JournalSlot *slot) {
    if (!slot)
        return;
    slot->done = NULL;
    slot->history_done = NULL;
    slot->export_done = NULL;
}

bool journal_slot_withdraw(Journal *j, JournalSlot *slot) {
    if (!writer_withdraw(j->writer, slot))
        return false;
    j->under_way--;
    journal_slot_free(slot);
    return true;
}

/* ---- life ---- */

int journal_open(sd_event *event, const char *dir, void (*changed)(Journal *j, void *userdata),
                 void *userdata, Failure *ret_why, Journal **ret) {
    g_autoptr(Journal) j = g_new0(Journal, 1);
    Store *store = NULL;
    int r = store_open(dir, &j->jobs, &j->domains, ret_why, &store);

    if (r < 0)
        return r;
    j->changed = changed;
    j->userdata = userdata;
    j->state = store->findings > 0 ? JOURNAL_RECOVERED : JOURNAL_OK;
    j->last_id = store->position.last_id;
    g_strlcpy(j->identity, store->identity, sizeof j->identity);
    r = writer_new(store, j->state, &j->writer);
    if (r >= 0)
        r = sd_event_add_io(event, &j->source, writer_fd(j->writer), EPOLLIN, on_writer, j);
    if (r >= 0)
        r = sd_event_source_set_priority(j->source, SD_EVENT_PRIORITY_IMPORTANT);
    if (r < 0) {
        failure_set(ret_why, FAILURE_JOURNAL, "The writer of the journal cannot be started: %s.",
                    g_strerror(-r));
        return r;
    }
    (void) sd_event_source_set_description(j->source, "journal");
    *ret = g_steal_pointer(&j);
    return 0;
}

Journal *journal_free(Journal *j) {
    JournalSlot *entry;

    if (!j)
        return NULL;
    j->source = sd_event_source_disable_unref(j->source);
    j->writer = writer_free(j->writer);
    while ((entry = entry_list_pop(&j->ready)))
        journal_slot_free(entry);
    g_clear_pointer(&j->jobs, g_ptr_array_unref);
    g_clear_pointer(&j->domains, g_ptr_array_unref);
    if (j->dispatching)
        j->freed = true;
    else
        g_free(j);
    return NULL;
}

bool journal_is_idle(const Journal *j) {
    return j->under_way == 0;
}

JournalState journal_state(const Journal *j) {
    return j->state;
}

const char *journal_identity(const Journal *j) {
    return j->identity;
}

uint64_t journal_new_id(Journal *j) {
    return ++j->last_id;
}

uint64_t journal_last_id(const Journal *j) {
    return j->last_id;
}

void journal_raise_id(Journal *j, uint64_t at_least) {
    j->last_id = MAX(j->last_id, at_least);
}

GPtrArray *journal_take_jobs(Journal *j) {
    return g_steal_pointer(&j->jobs);
}

GPtrArray *journal_take_domains(Journal *j) {
    return g_steal_pointer(&j->domains);
}

/* ---- handing over ---- */

static void hand_over(Journal *j, JournalSlot *entry, JournalSlot **ret) {
    if (ret)
        *ret = entry;
    j->under_way++;
    writer_push(j->writer, entry);
}

static JournalSlot *entry_new(EntryType type, JournalDone done, void *userdata) {
    JournalSlot *entry = g_new0(JournalSlot, 1);

    entry->type = type;
    entry->done = done;
    entry->userdata = userdata;
    return entry;
}

void journal_put_job(Journal *j, const JournalJob *job, const char *state, const char *intent,
                     const char *detail, JournalDone done, void *userdata, JournalSlot **ret) {
    JournalSlot *entry = entry_new(ENTRY_JOB, done, userdata);

    g_assert(job->id > 0);
    journal_raise_id(j, job->id);
    entry->time = now_realtime();
    entry->job = journal_job_copy(job);
    entry->state = g_strdup(state);
    entry->intent = g_strdup(intent);
    entry->detail = g_strdup(detail);
    hand_over(j, entry, ret);
}

void journal_put_domain(Journal *j, const JournalDomain *domain, JournalDone done, void *userdata,
                        JournalSlot **ret) {
    JournalSlot *entry = entry_new(ENTRY_DOMAIN, done, userdata);

    entry->domain = g_new0(JournalDomain, 1);
    entry->domain->name = g_strdup(domain->name);
    entry->domain->document = g_strdup(domain->document);
    hand_over(j, entry, ret);
}

void journal_run(Journal *j, int (*work)(void *data), void *data, GDestroyNotify free_data,
                 JournalDone done, void *userdata, JournalSlot **ret) {
    JournalSlot *entry = entry_new(ENTRY_WORK, done, userdata);

    entry->work = work;
    entry->data = data;
    entry->free_data = free_data;
    hand_over(j, entry, ret);
}

void journal_history(Journal *j, const JournalFilter *filter, JournalHistoryDone done,
                     void *userdata, JournalSlot **ret) {
    JournalSlot *entry = entry_new(ENTRY_HISTORY, NULL, userdata);

    entry->history_done = done;
    entry->filter = *filter;
    entry->filter.domain = g_strdup(filter->domain);
    entry->filter.disk = g_strdup(filter->disk);
    entry->filter.kind = g_strdup(filter->kind);
    entry->filter.result = g_strdup(filter->result);
    hand_over(j, entry, ret);
}

void journal_export(Journal *j, uint64_t after, JournalExportDone done, void *userdata,
                    JournalSlot **ret) {
    JournalSlot *entry = entry_new(ENTRY_EXPORT, NULL, userdata);

    entry->export_done = done;
    entry->after = after;
    hand_over(j, entry, ret);
}

void journal_cork(Journal *j) {
    writer_cork(j->writer, true);
}

void journal_uncork(Journal *j) {
    writer_cork(j->writer, false);
}

void journal_prune(Journal *j, const JournalRetention *retention) {
    writer_prune(j->writer, retention);
}
