/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A copy of ours that QEMU still makes and the journal has lost: taken up again as far as QEMU tells. The set of descriptors
 * of its target bears a witness, which is all that QEMU knows of it beside names and graph. */

#include <inttypes.h>
#include <string.h>

#include "job/internal.h"

/* TAG SYNC KIND DEVICE:INODE PATH; the path last, for it may have blanks. */
char *copy_witness(const Job *j) {
    return g_strdup_printf("%s %s %s %" PRIu64 ":%" PRIu64 " %s", j->tag, j->copy.sync,
                           target_kind_to_string(j->copy.target_kind), j->copy.target_id.device,
                           j->copy.target_id.inode, j->target);
}

/* It comes from QEMU, which may be anybody's: what is not as it was written is refused. */
static bool read_witness(Job *j, const char *witness) {
    static const char *const syncs[] = {"full", "top", "none"};
    g_auto(GStrv) words = g_strsplit(witness, " ", 5);
    Copy *c = &j->copy;
    char end;

    if (g_strv_length(words) != 5 || !g_str_equal(words[0], j->tag) ||
        string_index(syncs, G_N_ELEMENTS(syncs), words[1]) < 0)
        return false;
    int kind = target_kind_from_string(words[2]);
    if (kind < 0 || sscanf(words[3], "%" SCNu64 ":%" SCNu64 "%c", &c->target_id.device,
                           &c->target_id.inode, &end) != 2)
        return false;
    if (strlen(words[4]) >= PATH_MAX || !string_is_printable(words[4]) ||
        (kind != TARGET_FD && words[4][0] != '/'))
        return false;
    c->sync = g_strdup(words[1]);
    /* Deleting is for what the journal says that it was made for the job. */
    c->target_kind = kind == TARGET_NEW ? TARGET_FILE : (TargetKind) kind;
    c->target_known = c->target_id.inode != 0;
    g_free(j->target);
    j->target = g_strdup(words[4]);
    return true;
}

static void read_graph(Job *j, Disk *disk) {
    const View *view = domain_view(j->domain);
    g_autofree char *image = job_node_name(j, 't'), *filter = job_node_name(j, 'm');
    const QemuNode *target = view_node(view, image);
    Copy *c = &j->copy;

    copy_set_source(j, disk);
    /* What stands between the device and the source beside the mirror's own filter. */
    c->under_filter = g_strcmp0(view_child(view, filter, "backing"), disk->node) != 0;
    g_free(c->target_format);
    c->target_format = g_strdup(target ? target->driver : "");
    c->target_block = c->target_kind == TARGET_BLOCK;
    /* A path that QEMU has told may be anybody's: no file is written and none deleted for this job. */
    g_clear_pointer(&c->definition, g_free);
    c->delete_source = c->delete_target = false;
    domain_name_node(j->domain, image, j->target, c->target_format, c->target_block);
}

Job *copy_adopt(uint64_t id, Disk *disk, const QemuJob *q, const char *witness) {
    Domain *d = disk->domain;
    g_autoptr(Job) j = job_alloc(&kind_copy, id, domain_journal_identity(d));
    CopyOptions defaults;

    if (!g_str_equal(q->id, j->qemu_id) || !disk->node || !read_witness(j, witness))
        return NULL;
    copy_options_init(&defaults);
    j->domain = d;
    j->domain_name = g_strdup(domain_name(d));
    j->domain_path = g_strdup(domain_path(d));
    j->disk = g_strdup(disk->name);
    j->device = g_strdup(disk->device);
    j->instance = *domain_instance(d);
    j->created = now_realtime();
    j->state = JOB_RUNNING;
    j->speed = q->speed;
    j->pause_guest = defaults.pause_guest;
    j->max_pause = defaults.max_pause;
    j->copy.on_source_error = g_strdup("stop");
    j->copy.on_target_error = g_strdup("stop");
    j->copy.discard = g_strdup("unmap");
    j->copy.detect_zeroes = g_strdup("unmap");
    read_graph(j, disk);
    job_warn(j,
             "The journal has lost this job. It was found in QEMU and is carried on as far as "
             "QEMU tells: it belongs to root now, waits for an order, deletes nothing and leaves "
             "the domain's definition as it is.");
    if (!domain_guest_runs(d))
        job_warn(j, "The guest stands. Whether the service has stopped it for a switch, before the "
                    "journal was lost, is not known: let it go on if nobody else has stopped it.");
    return g_steal_pointer(&j);
}
