/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several QMP commands sent in one go, answered once. */

#include "qmp/batch.h"

#include "util.h"

typedef struct {
    QmpBatch *batch;
    char *name;
    json_t *arguments; /* until sent */
    int fd;            /* until sent */
    bool may_fail;
    QmpSlot *slot;
} BatchCommand;

struct QmpBatch {
    QmpClient *client;
    uint64_t timeout;
    GPtrArray *commands; /* BatchCommand* */
    unsigned outstanding;
    int error;
    char *failed, *text;
    QmpBatchDone done;
    void *userdata;
    sd_event_source *defer;
};

static void command_free(void *data) {
    BatchCommand *c = data;

    qmp_slot_cancel(c->slot);
    json_decref(c->arguments);
    fd_close(c->fd);
    g_free(c->name);
    g_free(c);
}

QmpBatch *qmp_batch_new(QmpClient *client, uint64_t timeout) {
    QmpBatch *b = g_new0(QmpBatch, 1);

    b->client = client;
    b->timeout = timeout;
    b->commands = g_ptr_array_new_with_free_func(command_free);
    return b;
}

QmpBatch *qmp_batch_free(QmpBatch *b) {
    if (!b)
        return NULL;
    sd_event_source_disable_unref(b->defer);
    g_ptr_array_unref(b->commands);
    g_free(b->failed);
    g_free(b->text);
    g_free(b);
    return NULL;
}

void qmp_batch_add(QmpBatch *b, bool may_fail, const char *command, json_t *arguments, int fd) {
    BatchCommand *c = g_new0(BatchCommand, 1);

    c->batch = b;
    c->name = g_strdup(command);
    c->arguments = arguments;
    c->fd = fd;
    c->may_fail = may_fail;
    g_ptr_array_add(b->commands, c);
}

static void batch_finish(QmpBatch *owned) {
    g_autoptr(QmpBatch) b = owned;
    QmpBatchResult result = {
        .error = b->error,
        .command = b->failed ? b->failed : "",
        .text = b->text ? b->text : "",
    };

    b->done(&result, b->userdata);
}

static void on_reply(QmpClient *client, json_t *result, const QmpError *error, void *userdata) {
    BatchCommand *c = userdata;
    QmpBatch *b = c->batch;

    c->slot = NULL;
    if (error && (error->error != 0 || !c->may_fail) && b->error == 0) {
        b->error = error->error != 0 ? error->error : -EREMOTEIO;
        b->failed = g_strdup(c->name);
        b->text = g_strdup(error->text);
    }
    if (--b->outstanding == 0)
        batch_finish(b);
}

static int on_defer(sd_event_source *source, void *userdata) {
    batch_finish(userdata);
    return 0;
}

static int batch_queue(QmpBatch *b) {
    int r = 0;

    qmp_cork(b->client);
    for (guint i = 0; r >= 0 && i < b->commands->len; i++) {
        BatchCommand *c = b->commands->pdata[i];
        r = qmp_send(b->client, &c->slot, c->name, g_steal_pointer(&c->arguments), fd_steal(&c->fd),
                     b->timeout, on_reply, c);
        if (r >= 0)
            b->outstanding++;
    }
    qmp_uncork(b->client);
    return r;
}

int qmp_batch_send(QmpBatch *owned, sd_event *event, QmpBatchDone done, void *userdata) {
    g_autoptr(QmpBatch) b = owned;
    int r;

    b->done = done;
    b->userdata = userdata;
    r = batch_queue(b);
    if (r < 0)
        return r;
    if (b->outstanding == 0) {
        r = sd_event_add_defer(event, &b->defer, on_defer, b);
        if (r < 0)
            return r;
    }
    g_steal_pointer(&b);
    return 0;
}
