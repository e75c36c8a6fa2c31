/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Job: one piece of work on one disk, from the order to the record of its end.
 *
 * Life: job_new() → job_start() (durable, then announced) → steps until JOB_CONCLUDED → kept for readers → job_free().
 * A job moves in one way only: job_advance() collects the facts, job_step() says what is next, the action is
 * carried out, its end calls job_advance() again. One action at a time. Every change of state goes through the transition
 * table in job.c and is durable before it is acted on or told. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "domain/domain.h"
#include "failure.h"
#include "image/target.h"
#include "job/progress.h"
#include "job/step.h"
#include "journal/journal.h"

typedef enum { ON_READY_WAIT, ON_READY_PIVOT, ON_READY_FINISH, _ON_READY_MAX } OnReady;
const char *on_ready_to_string(OnReady o);
OnReady on_ready_from_string(const char *s); /* _ON_READY_MAX if unknown */

typedef struct Job Job;
typedef struct JobKind JobKind;

/* Which properties changed; bits. */
typedef enum {
    JOB_CHANGED_STATE = 1 << 0,    /* State, Result, Finished, Ready, GuestPaused */
    JOB_CHANGED_ERROR = 1 << 1,    /* ErrorName, ErrorMessage */
    JOB_CHANGED_IO = 1 << 2,       /* Paused, IoStatus */
    JOB_CHANGED_PROGRESS = 1 << 3, /* Done, Total, Rate, ExpectedEnd */
    JOB_CHANGED_SPEED = 1 << 4,
    JOB_CHANGED_MODE = 1 << 5, /* CopyMode */
    JOB_CHANGED_ON_READY = 1 << 6,
    JOB_CHANGED_WARNINGS = 1 << 7,
    JOB_CHANGED_RESTARTS = 1 << 8,
} JobChange;

typedef struct {
    void (*changed)(Job *j, unsigned what, void *userdata);
    /* The end is durable and was told through changed() before. Called once. */
    void (*finished)(Job *j, void *userdata);
    /* Nothing is left in QEMU and on disk: the owner may forget the domain, free the disk, … */
    void (*released)(Job *j, void *userdata);
} JobHooks;

/* What the public face reads; never NULL strings. Borrowed until the job changes. */
typedef struct {
    uint64_t id;
    const char *path, *group; /* D-Bus object paths; group: "/" for none */
    const char *kind, *domain_name, *domain_path, *disk, *target, *state, *result, *error_name,
        *error_message;
    const char *io_status, *copy_mode, *on_ready;
    uint32_t owner_uid, restarts;
    uint64_t created, ready, finished, guest_paused, speed;
    uint64_t done, total, rate, expected_end;
    bool paused;
    char *const *warnings; /* NULL-terminated */
} JobInfo;
JobInfo job_info(const Job *j);

/* Everything that a caller may say about a copy, already checked against its own range. */
typedef struct {
    char *target; /* path, or name of the descriptor */
    int fd;       /* borrowed from the message; -1 */
    bool existing, force, delete_source, delete_target, pause_guest;
    char *format, *sync, *backing, *backing_format, *copy_mode, *on_source_error, *on_target_error;
    char *preallocation, *discard, *detect_zeroes, *cache, *aio, *request_id; /* NULL = not given */
    OnReady on_ready;
    uint64_t speed, buf_size, max_pause;
    uint32_t granularity, cluster_size;
} CopyOptions;
/* Defaults; strings NULL. */
void copy_options_init(CopyOptions *o);
void copy_options_clear(CopyOptions *o);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CopyOptions, copy_options_clear)
/* Checks that need no file and no QEMU: combinations (raw + sync=top, existing without format, backing without
 * sync=top, …), ranges, the words of the path. */
bool copy_options_check(const CopyOptions *o, Failure *f);

/* Checks against disk and files (authorized by now): everything that can be refused before anything happens. On success the
 * target is open. free/needed (bytes, may be NULL) are told for a new target also when it is refused. */
bool copy_check(Disk *disk, const CopyOptions *o, Target **ret_target, uint64_t *ret_free,
                uint64_t *ret_needed, Failure *f);
/* Makes the job; target and o's contents are taken. Not durable yet. */
Job *copy_new(uint64_t id, Disk *disk, CopyOptions *o, Target *target, uint32_t owner_uid);
/* What a caller may say about a commit or a pull. base and top: an image of the disk's chain as GetChain() shows it, by index,
 * node name or file; NULL = not given. */
typedef struct {
    char *base, *top, *backing_file, *on_error, *request_id;
    bool shallow, delete_images, pause_guest;
    int active; /* 0 or 1: top must not, or must, be the active layer; -1 = either */
    OnReady on_ready;
    uint64_t speed, max_pause;
} ChainOptions;
typedef enum { CHAIN_COMMIT, CHAIN_PULL } ChainVerb;
void chain_options_init(ChainOptions *o);
void chain_options_clear(ChainOptions *o);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ChainOptions, chain_options_clear)
/* Combinations that make no sense whatever the disk is. */
bool chain_options_check(const ChainOptions *o, ChainVerb verb, Failure *f);

/* What is to be done to which images of the chain. */
typedef struct ChainPlan ChainPlan;
ChainPlan *chain_plan_free(ChainPlan *p);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ChainPlan, chain_plan_free)
/* Everything that can be refused before anything happens, as far as this disk knows. */
bool chain_check(Disk *disk, const ChainOptions *o, ChainVerb verb, ChainPlan **ret, Failure *f);
/* The files that nobody else may use meanwhile, for they are changed or deleted: paths, NULL-terminated; borrowed. The first one
 * takes the data. */
char *const *chain_plan_files(const ChainPlan *p);
/* Makes the job; o's contents are taken. Not durable yet. */
Job *chain_new(uint64_t id, Disk *disk, ChainOptions *o, const ChainPlan *p, uint32_t owner_uid);

/* A disk that stood on an image of ours was unplugged: its nodes, which nobody else knows, go; QEMU refuses if they are in use. */
void copy_drop_image(Domain *d, const char *node);
/* Several jobs of one domain that end together: at one point in time, all or none. */
typedef struct {
    char *request_id; /* NULL = none */
    OnReady on_ready;
    bool pause_guest;
    uint64_t max_pause; /* µs */
} GroupOptions;
#define GROUP_MAX 64 /* members */
/* Makes the group of these jobs (at least one), which are not started yet; o's contents are taken. Not durable yet. */
Job *group_new(uint64_t id, GPtrArray *members, GroupOptions *o);
/* After a restart, before anything is resumed: puts a member back into its group, which is NULL when its record is lost; */
void group_restore_member(Job *member, Job *group);
/* and when all members of all groups are there: the group's record decides for them. Nothing for other jobs. */
void group_restore(Job *group);
/* A copy of ours that runs in QEMU and that the journal has lost; witness: as copy_witness() wrote it. NULL if that is
 * none of this job. */
Job *copy_adopt(uint64_t id, Disk *disk, const QemuJob *qjob, const char *witness);
/* A job that somebody else started in QEMU. */
Job *foreign_new(uint64_t id, Disk *disk, Domain *domain, const QemuJob *qjob);

/* From the journal. domain may be NULL when it is not known any more. -EBADMSG for a document that is none. */
int job_restore(const JournalJob *record, Domain *domain, Job **ret);
Job *job_free(Job *j);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Job, job_free)

/* Gives the job its surroundings; hands it to the journal. done(0) = durable: announce it, reply; then job_advance(). */
void job_start(Job *j, Journal *journal, sd_event *event, const JobHooks *hooks, void *userdata,
               JournalDone done, void *done_data);
/* The same for a restored job: counts the restart, becomes active with the first look. */
void job_resume_after_restart(Job *j, Journal *journal, sd_event *event, const JobHooks *hooks,
                              void *userdata);
/* Look at what is to be done, and do it. Called after each look at the domain, each own action, each order. */
void job_advance(Job *j);
/* The domain's connection or process changed. */
void job_link_changed(Job *j);

/* An event of the job for administrators: "Job N ("domain", disk "vda"): what", with fields in the journal. */
void job_log(const Job *j, int level, const char *message_id, const char *format, ...)
    G_GNUC_PRINTF(4, 5);

uint64_t job_id(const Job *j);
uint64_t job_group_id(const Job *j); /* 0 = in no group */
GPtrArray *job_parts(const Job *j);  /* Job*, borrowed: the members of a group; else itself */
JobState job_state(const Job *j);
JobResult job_result(const Job *j);
bool job_is_active(const Job *j); /* not concluded */
bool job_is_released(const Job *j);
bool job_is_exported(const Job *j); /* not dismissed yet */
Domain *job_domain(const Job *j);
const char *job_device(const Job *j);     /* qdev path of its disk */
const char *job_request_id(const Job *j); /* "" if none */
uint32_t job_owner(const Job *j);
/* Path and format of the target; for <mirror>. */
const char *job_target_path(const Job *j);
const char *job_target_format(const Job *j);
bool job_target_is_block(const Job *j);
bool job_in_sync(const Job *j); /* ready, or ending from there */
/* "copy" or "active-commit" where the guest's disk is mirrored to the target; else NULL. */
const char *job_mirror_type(const Job *j);
/* The guest's processors or writes may be held for it, or it is past the point of no return. */
bool job_is_switching(const Job *j);
/* QEMU's id of this job. */
const char *job_qemu_id(const Job *j);
/* The domain was forgotten by force: the job ends as lost. */
void job_abandon(Job *j);
/* The journal's row for it, e.g. to change what is not the job's own business (exported). Owned by the caller. */
JournalJob *job_record(const Job *j);
/* Take a concluded job off the bus: durable when done is called. */
void job_unexport(Job *j, JournalDone done, void *userdata);

typedef struct {
    int pause_guest;    /* -1 = as created */
    uint64_t max_pause; /* UINT64_MAX = as created */
    bool force;
    int delete_target; /* -1 = as created */
} EndOptions;

/* Orders. false with f: refused, nothing happened. true: done() is called with 0 when the order is durable (-ESHUTDOWN: it
 * will never be), or, for those that only ask QEMU (pause, resume, speed, mode), reply() with an empty or a filled Failure. */
bool job_order_end(Job *j, JobIntent intent, const EndOptions *o, JournalDone done, void *userdata,
                   Failure *f);
bool job_set_on_ready(Job *j, OnReady on_ready, JournalDone done, void *userdata, Failure *f);
typedef void (*JobReply)(const Failure *f, void *userdata);
bool job_pause(Job *j, JobReply reply, void *userdata, Failure *f);
bool job_unpause(Job *j, JobReply reply, void *userdata, Failure *f);
bool job_set_speed(Job *j, uint64_t bytes_per_second, JobReply reply, void *userdata, Failure *f);
bool job_set_copy_mode(Job *j, const char *mode, JobReply reply, void *userdata, Failure *f);
/* Has the job reached, or passed, that state (or concluded)? */
bool job_has_reached(const Job *j, JobState state);
