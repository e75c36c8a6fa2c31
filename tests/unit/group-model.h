/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A world in small with a group of two, in which every order of deaths between any two commands is tried: all disks come to
 * the same end, or it is known that one could not. job_step() drives it. */

#include <glib.h>
#include <stdbool.h>

/* How the service around the table behaves; each that is false must be seen to do harm. */
typedef struct {
    bool decision_is_of_all;  /* one transaction */
    bool all_must_be_pending; /* before the decision */
    bool failure_is_of_all;   /* a member that is over before the decision ends the others */
    bool members_wait;        /* none ends by itself */
} GroupRules;

/* Walks everything that can be reached. Returns the way to the first harm, or NULL; owned by the caller. */
char *group_explore(GroupRules rules);
