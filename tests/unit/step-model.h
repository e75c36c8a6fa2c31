/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A world in small: one copy job, its record, the service, QEMU, two images and a definition. job_step() drives it; every
 * order of deaths, lost connections, refusals and orders is tried. */

#include <stdbool.h>
#include <stddef.h>

/* How the service around job_step() behaves. All true is how it has to be; each one that is false must be seen to do harm. */
typedef struct {
    bool settle_is_durable; /* the result is in the record before finishing work begins */
    bool
        refusal_is_looked_at; /* completion refused: given up only when a look shows the job still ready */
    bool halt_is_kept;        /* a new order does not forget that the guest is stopped by us */
    bool halt_is_let_go;      /* a guest that is seen to run is not ours to let go on any more */
    bool cont_is_looked_at;   /* after job-finalize the look says whether the guest goes on */
} ModelRules;

typedef struct {
    size_t worlds, moves, ends;
    char *harm; /* the way to the first harm; NULL if there is none; owned */
} ModelReport;

/* Walks everything that can be reached. meddling: somebody else's commands, too. */
void model_explore(const ModelRules *rules, bool meddling, ModelReport *ret);
void model_report_clear(ModelReport *r);
