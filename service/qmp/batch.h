/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* QmpBatch: several commands sent in one go, answered once. QEMU executes them in order, so a chain of dependent
 * commands needs one wait instead of one for each; a later one that depended on a failed one fails by itself. */

#include <glib.h>

#include "qmp/qmp.h"

typedef struct QmpBatch QmpBatch;

typedef struct {
    int error; /* 0 = all that matter succeeded; -EREMOTEIO: QEMU refused one; -ENOTCONN, -ETIMEDOUT */
    const char *command; /* the first that failed */
    const char *text;    /* QEMU's own words; valid during the callback */
} QmpBatchResult;
typedef void (*QmpBatchDone)(const QmpBatchResult *result, void *userdata);

QmpBatch *qmp_batch_new(QmpClient *client, uint64_t timeout);
/* Queues a command; arguments and fd as for qmp_send(). may_fail: an error of QEMU is not an error of the batch. */
void qmp_batch_add(QmpBatch *b, bool may_fail, const char *command, json_t *arguments, int fd);
/* Sends everything; done is called once from the loop, then the batch is gone. An empty batch is answered as well.
 * Returns -ENOTCONN (batch freed, done not called) when nothing can be sent. */
int qmp_batch_send(QmpBatch *b, sd_event *event, QmpBatchDone done, void *userdata);
/* Before sending: frees. After sending: done will not be called; the commands go on. NULL is fine. */
QmpBatch *qmp_batch_free(QmpBatch *b);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QmpBatch, qmp_batch_free)
