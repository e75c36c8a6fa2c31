/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A job as the client sees it: the properties of org.blockjob1.Job as one JSON object, and what is
 * said of it. Nothing here says more than the properties do: "ready" only if State says so. */

#include "ctl-bus.h"
#include "ctl-terminal.h"

/* "42", "j42" or the object path. 0 or -EINVAL. */
int job_parse(const char *s, uint64_t *ret_id);
/* As job_parse(), and says what is wrong. */
bool job_argument(const char *s, uint64_t *ret_id);
/* Owned by the caller. */
char *job_path(uint64_t id);
/* error_report() for a call to a job: says which job is not there. */
CtlExit job_error_report(Ctl *ctl, uint64_t id, int r, const sd_bus_error *error);

bool job_is_concluded(const json_t *job);
/* In state ready or beyond it, in an end that needs readiness. */
bool job_is_ready(const json_t *job);
/* In state pivoting or finishing (or pending in between). */
bool job_is_ending(const json_t *job);

/* State for people: "running, paused", "running, no space", and the result once concluded. Owned by
 * the caller. */
char *job_state_text(const json_t *job);
Color job_state_color(const json_t *job);
/* Whole percents, rounded down; 100 only when the job is or has been ready. -1 while the total is
 * not known. */
int job_percent(const json_t *job);
/* "8.6 GiB of 20 GiB"; "" while the total is not known. */
char *job_amount_text(const json_t *job);
/* How long until it is ready, "" if nobody knows. */
char *job_left_text(const json_t *job);
/* "43 %, 8.6 GiB of 20 GiB, 120 MiB/s, 1min 40s left". */
char *job_progress_text(const json_t *job);
/* A sentence about the state that is worth a line at the end of a wait. */
char *job_sentence(const json_t *job);
/* Why it was not as hoped: the error's sentence or "". */
const char *job_error(const json_t *job);

/* A record of ListHistory() in the shape of the properties. A new reference. */
json_t *job_from_history(const json_t *record);
