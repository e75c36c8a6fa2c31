/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The verbs. Each gets its arguments without its own name, their number checked, and returns the
 * exit code; each connects for itself, after it has read its arguments. */

#include "ctl-bus.h"

/* ctl-verbs-list.c */
int verb_list(Ctl *ctl, int argc, char **argv);
int verb_domains(Ctl *ctl, int argc, char **argv);
int verb_disks(Ctl *ctl, int argc, char **argv);
int verb_chain(Ctl *ctl, int argc, char **argv);
int verb_history(Ctl *ctl, int argc, char **argv);
int verb_permissions(Ctl *ctl, int argc, char **argv);
/* ctl-verbs-show.c */
int verb_status(Ctl *ctl, int argc, char **argv);
int verb_show(Ctl *ctl, int argc, char **argv);
/* ctl-verbs-copy.c */
int verb_copy(Ctl *ctl, int argc, char **argv);
int verb_move(Ctl *ctl, int argc, char **argv);
int verb_check(Ctl *ctl, int argc, char **argv);
/* ctl-verbs-chain.c */
int verb_commit(Ctl *ctl, int argc, char **argv);
int verb_pull(Ctl *ctl, int argc, char **argv);
/* ctl-verbs-job.c */
int verb_wait(Ctl *ctl, int argc, char **argv);
int verb_pivot(Ctl *ctl, int argc, char **argv);
int verb_finish(Ctl *ctl, int argc, char **argv);
int verb_cancel(Ctl *ctl, int argc, char **argv);
int verb_pause(Ctl *ctl, int argc, char **argv);
int verb_resume(Ctl *ctl, int argc, char **argv);
int verb_dismiss(Ctl *ctl, int argc, char **argv);
int verb_set_speed(Ctl *ctl, int argc, char **argv);
int verb_set_copy_mode(Ctl *ctl, int argc, char **argv);
int verb_set_on_ready(Ctl *ctl, int argc, char **argv);
/* ctl-verbs-domain.c */
int verb_attach(Ctl *ctl, int argc, char **argv);
int verb_detach(Ctl *ctl, int argc, char **argv);
int verb_xml(Ctl *ctl, int argc, char **argv);
/* ctl-verbs-journal.c */
int verb_journal(Ctl *ctl, int argc, char **argv);
/* ctl-verbs-watch.c */
int verb_watch(Ctl *ctl, int argc, char **argv);

/* The object of a domain by name or UUID, and of one of its disks. 0, or the exit code after the
 * reason was printed. */
int domain_find(Ctl *ctl, const char *domain, char **ret_path);
int disk_find(Ctl *ctl, const char *domain, const char *disk, char **ret_path);
/* Makes a job by the call that message puts together, surely once. 0, or the exit code after the reason was printed. */
int job_make(Ctl *ctl, CallMaker message, void *request, uint64_t *ret_id);
/* Waits for a job that was made just now, to that goal, or with --no-block prints its number. Returns the exit code. */
int job_follow(Ctl *ctl, uint64_t id, Goal goal);
