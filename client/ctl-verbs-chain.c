/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Verbs that merge images of a disk's chain: commit, pull. */

#include "ctl-verbs.h"

#include <string.h>

typedef struct {
    const char *method;
    char *disk; /* object path */
} ChainRequest;

static void chain_request_clear(ChainRequest *request) {
    g_free(request->disk);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ChainRequest, chain_request_clear)

static int chain_message(Ctl *ctl, void *userdata, sd_bus_message **ret) {
    const ChainRequest *request = userdata;
    int r = bus_call_new(ctl, request->disk, CTL_DISK, request->method, ret);

    return r < 0 ? r : options_append(ctl->options, *ret);
}

static int chain_run(Ctl *ctl, char **argv, const char *method, Goal goal) {
    g_auto(ChainRequest) request = {.method = method};
    uint64_t id = 0;
    int r = bus_connect(ctl);

    if (r == 0)
        r = bus_track_owner(ctl);
    if (r == 0)
        r = disk_find(ctl, argv[0], argv[1], &request.disk);
    if (r == 0)
        r = job_make(ctl, chain_message, &request, &id);
    return r != 0 ? r : job_follow(ctl, id, goal);
}

/* Ready comes before the end where there are two phases, and never where there is one. */
int verb_commit(Ctl *ctl, int argc, char **argv) {
    const char *on_ready = options_get(ctl->options, "on-ready");
    bool wait = !on_ready || strcmp(on_ready, "wait") == 0;

    return chain_run(ctl, argv, "Commit", wait ? GOAL_READY : GOAL_CONCLUDED);
}

int verb_pull(Ctl *ctl, int argc, char **argv) {
    return chain_run(ctl, argv, "Pull", GOAL_CONCLUDED);
}
