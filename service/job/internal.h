/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The Job itself, for the files of this room: job.c (life, transitions), facts.c, act.c (carrying out steps), record.c (the
 * journal's document), kind-*.c. Nobody else includes this. */

#include "job/job.h"
#include "qmp/batch.h"
#include "util.h"

/* A kind is data and a few functions. Functions end by calling job_action_done(). */
struct JobKind {
    const char *name;
    JobResult done;        /* how its end is called when the guest's disk has been switched */
    const char *unchanged; /* what is as it was when it fails */
    bool of_chain;         /* it works inside the disk's own chain: Job.chain is recorded, too */
    /* Makes everything in QEMU, from nothing or from leftovers of an earlier try. */
    void (*setup)(Job *j);
    /* The view has changed while setup waits. May be NULL. */
    void (*setup_look)(Job *j);
    /* Which images are under the device: from the view (the process is connected), or without it. */
    StepRoot (*root)(const Job *j);
    /* Puts behind job-finalize what can be removed from QEMU when it has succeeded; not for a job of one phase. */
    void (*finalize)(Job *j, QmpBatch *b);
    /* Puts before job-dismiss what nobody waits for. May be NULL. */
    void (*dismiss)(Job *j, QmpBatch *b);
    /* The images that the definition is to name when the end has been brought about, active layer first: job_image_add(). */
    void (*images_after)(const Job *j, GPtrArray *images);
    /* By result: the files that are to be deleted, and a warning where one is left that is of no use. May be NULL. */
    void (*doomed)(Job *j, GPtrArray *images);
    /* QEMU is gone, and the job with it: sets the error. */
    void (*lost)(Job *j);
    /* Finishing work by result: nodes, then files_clean(); idempotent. */
    void (*clean)(Job *j);
    /* An active job came back from the journal; before the first look. May be NULL. */
    void (*restored)(Job *j);
    /* Still possible to decide? E.g. the target is still there. Of a group: for all members. */
    bool (*may_decide)(const Job *j, Failure *f);
};
extern const JobKind kind_copy, kind_commit, kind_pull, kind_foreign, kind_group;
/* By name; NULL if unknown. */
const JobKind *job_kind_find(const char *name);

/* What a copy needs to know over restarts. */
typedef struct {
    char *source_node, *source_path, *source_format;
    ImageId source_id;
    char **old_nodes;  /* nodes under the source that go after a pivot, parents first */
    bool under_filter; /* the source is not directly under the device: pivot by "replaces" */
    uint64_t size;     /* bytes, virtual */
    TargetKind target_kind;
    ImageId target_id;
    bool target_known; /* target_id is valid */
    bool target_block;
    bool direct; /* O_DIRECT works there */
    char *target_format;
    char *backing_node, *backing_path, *backing_format; /* sync=top; NULL otherwise */
    char *sync, *on_source_error, *on_target_error, *preallocation, *discard, *detect_zeroes,
        *cache, *aio;
    uint64_t buf_size;
    uint32_t granularity, cluster_size;
    char *definition; /* domain XML to be kept in step; NULL if none */
    bool source_block, delete_source, delete_target;
    /* this run's */
    Target *target; /* open while needed */
    struct CopySync *sync_owed;
    bool unsynced; /* the new image could not be made to last */
} Copy;

/* What a job inside the disk's own chain needs beside that: top, what lies between, base. In Copy it has source_node (a
 * commit's top if that is the active layer, else the active layer), old_nodes, definition, size, target_id and target_block (of
 * the image that takes the data), on_source_error. */
typedef struct {
    bool one_phase, delete_images;
    char *top_node,
        *base_node; /* the command's; a pull's top takes the data; base NULL: everything is pulled */
    char *layer_node, *layer_path; /* one phase: the image whose backing file changes */
    char *gone_node;               /* the first of the images that are superfluous afterwards */
    ImageId gone_id, base_id;
    char
        *backing_file; /* what the layer's header is to name; NULL: nothing, or it is not changed */
    char **
        after; /* the disk's images then, active layer first: path, format, "file" or "block" of each */
    char **superfluous; /* regular files among them: path, device, inode of each */
} Chain;

typedef enum {
    SETUP_IDLE,
    SETUP_LEFTOVER, /* an earlier blockdev-create has to end first */
    SETUP_CLEARING,
    SETUP_CREATING,
    SETUP_WAITING,
    SETUP_STARTING
} SetupStage;

struct Job {
    const JobKind *kind;
    uint64_t id;
    Domain *domain;             /* NULL when it was forgotten */
    char *path, *qemu_id, *tag; /* tag: "bj-IDENTITY-ID", the beginning of all names in QEMU */
    char *domain_name, *domain_path, *disk, *device, *target, *request_id;
    JobState state;
    JobIntent intent;
    JobResult result;
    bool decided, halted, clean, exported, released;
    bool
        redone; /* of a member: its switch has failed after the decision, it is mirrored again by itself */
    FailureKind error;
    char *error_message;
    OnReady on_ready;
    bool pause_guest;
    uint64_t max_pause; /* µs */
    uint32_t owner, restarts;
    uint64_t created, ready, finished, guest_paused, speed;
    char *copy_mode;
    bool mode_asked;     /* QEMU was, or may have been, asked to change it, and has not answered */
    GPtrArray *warnings; /* char*, NULL-terminated */
    Instance instance;
    uint64_t group_id;  /* 0 = in none */
    uint32_t n_members; /* of a group, as it was made */
    Copy copy;
    Chain chain;

    /* this run's */
    Job *group; /* NULL = in none; alive as long as this */
    GPtrArray
        *parts; /* Job*, borrowed: whose block jobs QEMU has: itself; of a group its members */
    struct {
        JobState state;
        JobResult result;
        uint64_t ready, finished;
    } shown; /* what is durable, and all that anybody gets to read */
    Journal *journal;
    sd_event *event;
    JobHooks hooks;
    void *userdata;
    Progress progress;
    IoStatus io;
    bool paused;
    bool busy;          /* an action is under way */
    bool advancing;     /* job_advance() is on the stack */
    bool again;         /* … and was called meanwhile */
    GPtrArray *commits; /* JobCommit*, not durable yet */
    GPtrArray *asks;    /* JobAsk*, being recorded, or sent and not answered */
    uint64_t fresh;     /* the look from which on the view can be relied on */
    bool asked, aborting, stopped, prepared;
    bool leftover_gone; /* with redone: QEMU was told to forget the job that failed */
    /* CLOCK_MONOTONIC: the guest's writes wait since then for a decision that is handed over and not durable yet. */
    uint64_t deciding;
    uint64_t
        hold_since; /* CLOCK_MONOTONIC: pending or halted since, as seen by this run; 0 = not */
    uint64_t
        halt_time; /* CLOCK_REALTIME: halted was recorded; tells how long the guest stood over a restart */
    uint64_t halt_since;  /* CLOCK_MONOTONIC: our `stop` was sent; 0 = not */
    uint64_t pause_since; /* CLOCK_MONOTONIC: QEMU's "paused" is not ours since; 0 = it is */
    uint64_t retry_at;    /* CLOCK_MONOTONIC: when a refused action is looked at again */
    sd_event_source *timer;
    QmpBatch *batch;
    QmpSlot *slot;
    JournalSlot *file_work; /* with work: what the journal's thread does for this job */
    JournalSlot *target_sync;
    void *work;
    SetupStage stage;
    bool fresh_setup; /* nothing of this job can be in QEMU yet */
    char *refused;    /* QEMU's words to the command that asks for the end; NULL = not refused */
    bool finalized;   /* our job-finalize, and what was sent behind it, has been answered */
    bool end_looked;  /* the graph was looked at since the job was seen to be over */
    unsigned changed; /* what is to be told when the next commit is durable */
};

#define PAUSE_LASTS USEC_PER_SEC             /* a pause, not a drain */
#define DECISION_DEADLINE (2 * USEC_PER_SEC) /* in pending without a decision */

/* job.c */
Job *job_alloc(const JobKind *kind, uint64_t id, const char *identity);
/* The transition table's word: state after event, or a logged refusal. */
typedef enum {
    EVENT_PREPARE,
    EVENT_STARTED,
    EVENT_IN_SYNC,
    EVENT_PIVOT,
    EVENT_FINISH,
    EVENT_BACK_OUT,
    EVENT_DECIDE, /* a member stands at the common point, or a job of one phase ends by itself */
    EVENT_CANCEL,
    EVENT_CONCLUDE,
    _EVENT_MAX
} JobEvent;
bool job_transition(Job *j, JobEvent event);
/* Records the job as it is now; then(j) (may be NULL) runs when that is durable, after changed() has told. */
void job_commit(Job *j, unsigned changed, const char *detail, void (*then)(Job *j));
void job_commit_order(Job *j, unsigned changed, const char *detail, JournalDone done,
                      void *userdata);
/* The decision's record has waited for too long and is not begun with: as if it had not been made. */
void job_take_back_decision(Job *j);
/* The action under way has ended. */
void job_action_done(Job *j);
/* It ended badly: looked at and tried again in a second. */
void job_action_retry(Job *j);
/* From now on only a look that contains everything sent so far counts. */
void job_look_again(Job *j, unsigned scope);
void job_warn(Job *j, const char *format, ...) G_GNUC_PRINTF(2, 3);
void job_set_error(Job *j, FailureKind kind, const char *format, ...) G_GNUC_PRINTF(3, 4);
const QemuJob *job_in_qemu(const Job *j);
/* Records the intent to pivot or to finish, and whether the guest will be stopped for it. */
void job_record_end(Job *j, JobIntent intent, JournalDone done, void *userdata);
bool job_check_exports(const Job *j, JobIntent intent, Failure *f);

/* facts.c */
StepFacts job_facts(const Job *j);
/* Is the pause that copying the rest takes short enough? Of a group: of every member. */
bool job_may_stop(const Job *j);
/* Is the process in which the job runs (or ran) known to be gone? */
StepLink job_link(const Job *j);
/* Does QEMU hold writes of the guest until we have decided? */
bool job_holds(const Job *j);

/* orders.c */
/* The domain goes: callers that wait for QEMU are told so. */
void job_asks_give_up(Job *j);

/* The disk stands on what it was to be switched to. */
bool job_is_switched(const Job *j);

/* act.c */
/* An end that cannot be had is given up before anything was decided: ready again, with the error. */
void job_back_out(Job *j, FailureKind kind, const char *message);
void job_act(Job *j, const Step *step);
/* The result is known: made durable before finishing work, where a restart would not come to the same. */
void job_record_result(Job *j);
/* Records the end of one job; the caller corks the journal. */
void job_conclude(Job *j);
/* Our stop is over, whoever has ended it. */
void job_guest_goes_on(Job *j);

/* nodes.c */
/* Names in QEMU: tag-f protocol node, -t image, -m the job's filter, -c the job of blockdev-create. Owned by the caller. */
char *job_node_name(const Job *j, char part);
json_t *node_arg(const char *node);
json_int_t fdset_of(uint64_t id);
/* Begins a batch of setup's, in j->batch; false: not connected, and setup has ended. */
bool setup_batch(Job *j);
void setup_send(Job *j, QmpBatchDone done);
/* A batch of setup's is answered: true = go on. Else the job is on its way to where the look will show it. */
bool setup_answered(Job *j, const QmpBatchResult *result);
/* Setup has ended for now: looked at, and begun again from there. */
void setup_left(Job *j, unsigned scope);
/* Setup has ended for good. */
void setup_failed(Job *j, FailureKind kind, const char *message);
void add_fdset_removal(Job *j, QmpBatch *b, uint64_t id);
/* The nodes that stood under the guest's disk and go after the switch, and their sets of descriptors. */
void add_old_nodes(Job *j, QmpBatch *b);
void add_old_images(Job *j, QmpBatch *b);
void add_old_fdsets(Job *j, QmpBatch *b);
void forget_old_nodes(Job *j);
/* The QEMU in which the job ran is connected. */
bool job_qemu_is_there(const Job *j);
/* Sends the removals that finishing work has put together; files_clean() when they are answered. */
void nodes_clean(Job *j, QmpBatch *b);

/* files.c */
typedef struct {
    char *path, *format;
    bool block;
    ImageId id; /* of those that are to be deleted */
} JobImage;
void job_image_add(GPtrArray *images, const char *path, const char *format, bool block,
                   const ImageId *id);
/* Writes the new definition beside the old one, before the guest is held; job_action_done() or job_back_out(). */
void files_prepare(Job *j);
/* Replaces or discards it, deletes what is doomed; the job is clean then. */
void files_clean(Job *j);

/* group.c */
static inline bool job_is_group(const Job *j) {
    return j->kind == &kind_group;
}
/* Is this part brought to its end with the whole? Not one that is mirrored again. */
static inline bool job_part_follows(const Job *j, const Job *part) {
    return part == j || !part->redone;
}
/* The group whose business the job's end is; NULL when it has none, or has ended. */
Job *job_active_group(const Job *j);
/* What the members are, in the facts of their group. */
void group_facts(const Job *g, StepFacts *f);
/* Takes over what the members count. */
void group_observe(Job *g);
/* All or nothing: a member that is over before the decision ends the group. Returns whether the facts are others now. */
bool group_note_members(Job *g);
/* The members make the event, with the group's intent and decision, and are recorded; the caller corks the journal and
 * records the group behind them. Nothing for a job that is no group. */
void group_follow(Job *g, JobEvent event, const char *detail);
/* After the decision only forward: a member that QEMU could not switch begins anew and ends by itself. */
void group_mirror_again(Job *m);
/* Words of what went wrong in the members, for the group's own error. */
void group_set_error(Job *g);
/* An order that only the group takes. */
bool check_no_member(const Job *j, const char *verb, Failure *f);

/* record.c */
char *job_document(const Job *j);
bool job_document_parse(Job *j, const char *document);

/* adopt.c */
/* What QEMU is told with the target's descriptors, so that it can tell it again. */
char *copy_witness(const Job *j);

/* copy-check.c */
/* The source and what stands under it, from the disk as it is. */
void copy_set_source(Job *j, Disk *disk);
void copy_clear(Copy *c);
/* The domain answers and the disk has a medium. */
bool job_check_disk(const Disk *disk, Failure *f);
/* No job of somebody else's works on that node. */
bool job_check_foreign(const Disk *disk, const char *node, Failure *f);

/* chain.c: what commit and pull share */
void chain_clear(Chain *c);
/* The file that an image's header names as backing file; relative names count from the image. Owned by the caller. */
char *chain_resolve(const char *image, const char *backing);
/* What the header of the layer says, without QEMU. */
StepRoot chain_root_by_header(const Job *j);
StepRoot chain_root(const Job *j);
void chain_start(Job *j, const char *command, json_t *arguments);
void chain_images_after(const Job *j, GPtrArray *images);
void chain_doomed(Job *j, GPtrArray *images);
void chain_clean(Job *j);

/* copy-target.c */
/* Opens the target again if it is not open. */
bool copy_target_open(Job *j, Failure *f);
/* Is the image made by QEMU's blockdev-create? */
bool copy_target_by_qemu(const Job *j);
/* Else: writes the header of a new image; whatever was in the file is gone. Negative errno. */
int copy_target_write(const Job *j);
/* A new target's folder, and what was written to the file if content, is synced in the journal's thread, which works in
 * order: both last before any decision can be recorded. QEMU would not flush a header that it has not written.
 * may_wait: not while others' records wait for that thread; copy_target_sync_now() is called at leisure, and before the
 * order for an end is recorded. */
void copy_target_sync(Job *j, bool content, bool may_wait);
void copy_target_sync_now(Job *j);
typedef struct CopySync CopySync;
CopySync *copy_sync_free(CopySync *s);
