/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The small world itself: what it is made of, and the moves that lead from one world to the next ones. */

#include <assert.h>
#include <stdint.h>

#include "job/step.h"
#include "step-model.h"

/* Commands under way to QEMU, or work under way in the journal's thread. */
typedef enum {
    FLIGHT_NONE,
    FLIGHT_SETUP,
    FLIGHT_PIVOT,
    FLIGHT_FINISH,
    FLIGHT_FINALIZE,
    FLIGHT_CONTINUE,
    FLIGHT_ABORT,
    FLIGHT_DISMISS,
    FLIGHT_NODES,
    FLIGHT_PREPARE,
    FLIGHT_FILES,
} Flight;

typedef enum {
    DO_CLEAR,
    DO_ADD,
    DO_MIRROR,
    DO_STOP,
    DO_PIVOT,
    DO_FINISH,
    DO_FINALIZE,
    DO_CONT,
    DO_CANCEL,
    DO_DISMISS,
    DO_DELETE_NODES,
    DO_PREPARE,
    DO_FILES,
    DO_END,
} Command;

typedef enum { GUEST_RUNS, STOPPED_BY_US, STOPPED_BY_OTHERS } Guest;

typedef union {
    struct {
        /* the service */
        uint64_t state : 4, intent : 2, decided : 1, halted : 1, result : 3, on_ready : 2;
        uint64_t d_state : 4, d_intent : 2, d_decided : 1, d_halted : 1, d_result : 3,
            d_on_ready : 2; /* the same, durable */
        uint64_t committing : 1, up : 1, released : 1;
        uint64_t clean : 1, asked : 1, aborting : 1, prepared : 1, stopped : 1, refused : 1;
        uint64_t connected : 1, fresh : 1, view_phase : 3, view_root : 1, view_runs : 1;
        uint64_t flight : 4, step : 2, error : 1, owned : 1, with_guest : 1;
        /* how it was ordered */
        uint64_t must_stop : 1, definition : 1, wanted : 2;
        uint64_t : 0;
        /* QEMU */
        uint64_t alive : 1, phase : 3, completing : 2, root : 1, guest : 2, node : 1, old_node : 1;
        /* the disks of the host; current: has all writes; whole: one instant of the disk */
        uint64_t source_current : 1, target_current : 1, target_whole : 1, source_file : 1,
            target_file : 1, new_definition : 1, prepared_file : 1;
        /* for the checks */
        uint64_t meddling : 1, trouble : 1, finalize_failed : 1, meddled : 1, unknowable : 1,
            one_phase : 1;
    };
    uint64_t words[2];
} World;
static_assert(sizeof(World) == 16, "a world fits into two words");

bool phase_is_there(unsigned phase);
bool phase_is_over(unsigned phase);

typedef struct Explorer Explorer;
const ModelRules *explorer_rules(const Explorer *e);
/* The move leads to w. smooth: it needs no trouble, somebody will make it. */
void explorer_go(Explorer *e, World *w, const char *move, bool smooth);
void explorer_harm(Explorer *e, const char *what, const char *move, const World *w);
/* All moves from there, each by explorer_go(). */
void world_move(Explorer *e, const World *from);
