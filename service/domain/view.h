/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* View: what QEMU said at the last look: jobs, devices and the block graph. Pure: JSON in,
 * structures out; everything in it came from a peer that is not trusted, so missing or odd members
 * are skipped, never asserted. Sources: qapi/block-core.json, qapi/job.json of QEMU 7.2 and 10.0.
 * */

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* What a job in QEMU is to us; several statuses of JobStatus mean the same. */
typedef enum {
    QJOB_ABSENT,    /* not in query-jobs */
    QJOB_RUNNING,   /* created, running, paused: not in sync */
    QJOB_READY,     /* in sync, also while paused (standby): completion can be asked for */
    QJOB_PENDING,   /* stopped before finalize, guest writes held */
    QJOB_ENDING,    /* waiting, aborting: on its way, look again */
    QJOB_CONCLUDED, /* over without error */
    QJOB_FAILED,    /* over with error */
    _QJOB_MAX
} QemuJobPhase;
const char *qemu_job_phase_to_string(QemuJobPhase phase);

typedef enum { IO_OK, IO_NO_SPACE, IO_FAILED, _IO_MAX } IoStatus;
/* "ok", "no-space", "failed". */
const char *io_status_to_string(IoStatus s);

typedef struct {
    char *id, *type; /* owned */
    QemuJobPhase phase;
    char *error;          /* QEMU's words of a FAILED one, printable; owned; NULL otherwise */
    uint64_t done, total; /* bytes */
    uint64_t speed;       /* bytes per second, 0 = no limit */
    bool block;           /* it is in query-block-jobs: the following are known */
    bool paused;          /* by a user, or by an error policy */
    IoStatus io;
    int actively_synced; /* -1 unknown (8.2+), 0, 1 */
    char *device;        /* "device" of query-block-jobs; owned; NULL if it is not in there */
} QemuJob;

typedef struct {
    char *qdev;    /* stable while the device is plugged; "" for a drive without device */
    char *backend; /* name of the BlockBackend (-drive id=), "" for -blockdev */
    char *root;    /* node directly under the device; NULL for an empty drive */
    bool removable, read_only;
} QemuDevice;

typedef struct {
    char *name, *driver, *file; /* file: QEMU's filename, may be json: or /dev/fdset/N */
    char *backing_file;         /* as the image's header says; NULL if none */
    char *bitmap;               /* name of a dirty bitmap that it has; NULL if none */
    uint64_t size, allocated;   /* bytes; allocated 0 = unknown */
    bool read_only;
} QemuNode;

typedef struct View View;
View *view_new(void);
View *view_free(View *v);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(View, view_free)

/* Each replaces what the view had of that sort with the "return" of the command named. */
void view_set_jobs(View *v, const json_t *query_jobs, const json_t *query_block_jobs);
void view_set_block(View *v, const json_t *query_block);
void view_set_graph(View *v, const json_t *x_debug_query_block_graph);
void view_set_nodes(View *v, const json_t *query_named_block_nodes);
void view_set_exports(View *v, const json_t *query_block_exports);
/* Nothing is known any more (connection lost). */
void view_clear(View *v);

const QemuJob *view_job(const View *v, const char *id);
GPtrArray *view_jobs(const View *v);    /* QemuJob*, borrowed */
GPtrArray *view_devices(const View *v); /* QemuDevice*, borrowed */
const QemuDevice *view_device(const View *v, const char *qdev);
/* What is known of a node: of those directly under devices as fresh as the devices are, of others
 * from the last query-named-block-nodes. driver and file are "" when QEMU did not say. */
const QemuNode *view_node(const View *v, const char *name);
/* Has there been an answer to query-named-block-nodes? */
bool view_knows_nodes(const View *v);
/* Is there a concluded job of that type that nobody has dismissed? QEMU 7.2 crashes in
 * query-named-block-nodes while it is a "stream". */
bool view_has_concluded(const View *v, const char *type);

/* The child of node through an edge of that name ("file", "backing"), or NULL. */
const char *view_child(const View *v, const char *node, const char *edge);
/* Is the node, or something above it, exported (NBD, FUSE, vhost-user)? */
bool view_is_exported(const View *v, const char *node);
/* May others write to the node together with the guest (share-rw=on)? */
bool view_is_shared(const View *v, const char *node);
/* Does the block job with that id work on the node, or on something above it? */
bool view_job_uses(const View *v, const char *job_id, const char *node);
/* node or, under filters (throttle, copy-on-read, mirror_top, commit_top, preallocate, blkdebug,
 * compress, …), the first node that is an image; NULL if the graph ends before or does not have
 * node. While its driver is not known only what hangs over an image by "backing" alone, as jobs'
 * filters do, counts as a filter. */
const char *view_skip_filters(const View *v, const char *node);
/* First of a and b (either may be NULL) that is met on the way down from root
 * through filters only, as it was given; NULL if neither. */
const char *view_first_of(const View *v, const char *root, const char *a, const char *b);
/* Names of the images under (and with) node: filters skipped, active layer first; at most 201.
 * Owned by the caller. */
GPtrArray *view_chain(const View *v, const char *node);
/* All nodes that hang under node (itself first, parents before children), each once; backing=false
 * stops where an image has another as "backing" (a filter's "backing" is the image itself). Owned
 * by the caller. */
GPtrArray *view_subtree(const View *v, const char *node, bool backing);
