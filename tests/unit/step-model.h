/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A world in small: one copy job, its record, the service, QEMU, two images and a definition. job_step() drives it; every
 * order of deaths, lost connections, refusals and orders is tried. */

#include <stdbool.h>
#include <stddef.h>

/* How the service around job_step() behaves. All true is how it has to be; each one that is false must be seen to do harm. */
typedef struct {
    bool settle_is_durable;    /* the result is in the record before finishing work begins */
    bool failure_is_durable;   /* also that of a setup, which nothing tells afterwards */
    bool withdrawn_is_gone;    /* a decision that is taken back will never be durable */
    bool refusal_is_looked_at; /* a refused completion is given up only after a fresh look */
    bool halt_is_kept;         /* a new order does not forget that the guest is stopped by us */
    bool stop_is_kept;   /* nor does it, or a restart, forget that our stop may have been sent */
    bool halt_is_let_go; /* a guest that runs, or that others stopped, is not ours to let go on */
    bool cont_is_looked_at; /* after job-finalize and cont a look says whether the guest goes on */
} ModelRules;

typedef struct {
    size_t worlds, moves, ends;
    char *harm; /* the way to the first harm; NULL if there is none; owned */
} ModelReport;

/* Walks everything that can be reached. one_phase: instead of the copy a job inside the disk's chain that ends by itself.
 * meddling: somebody else's commands, too. */
void model_explore(const ModelRules *rules, bool one_phase, bool meddling, ModelReport *ret);
void model_report_clear(ModelReport *r);
