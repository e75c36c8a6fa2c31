/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The journal's document of a job: every field by one table, so that writing and reading cannot disagree. */

#include <stddef.h>
#include <string.h>

#include "job/internal.h"

typedef enum { FIELD_STRING, FIELD_U64, FIELD_U32, FIELD_BOOL, FIELD_STRV } FieldType;

typedef struct {
    const char *key;
    FieldType type;
    size_t offset;
    bool later; /* documents of earlier versions do not have it */
} Field;

#define F(key, type, member)                                                                       \
    { key, FIELD_##type, offsetof(Job, member), false }
#define LATER(key, type, member)                                                                   \
    { key, FIELD_##type, offsetof(Job, member), true }
static const Field fields[] = {
    F("device", STRING, device),
    F("qemu-id", STRING, qemu_id),
    F("tag", STRING, tag),
    F("domain-path", STRING, domain_path),
    F("decided", BOOL, decided),
    F("halted", BOOL, halted),
    F("halt-time", U64, halt_time),
    F("pause-guest", BOOL, pause_guest),
    F("paused", BOOL, paused),
    F("max-pause", U64, max_pause),
    F("ready", U64, ready),
    F("guest-paused", U64, guest_paused),
    F("done", U64, progress.done),
    F("total", U64, progress.total),
    F("speed", U64, speed),
    F("copy-mode", STRING, copy_mode),
    LATER("mode-asked", BOOL, mode_asked),
    F("start", U64, instance.start),
    F("source-node", STRING, copy.source_node),
    F("source-path", STRING, copy.source_path),
    F("source-format", STRING, copy.source_format),
    F("source-device", U64, copy.source_id.device),
    F("source-inode", U64, copy.source_id.inode),
    F("old-nodes", STRV, copy.old_nodes),
    F("under-filter", BOOL, copy.under_filter),
    F("source-block", BOOL, copy.source_block),
    F("definition", STRING, copy.definition),
    F("size", U64, copy.size),
    F("target-device", U64, copy.target_id.device),
    F("target-inode", U64, copy.target_id.inode),
    F("target-known", BOOL, copy.target_known),
    F("target-block", BOOL, copy.target_block),
    F("target-format", STRING, copy.target_format),
    F("direct", BOOL, copy.direct),
    F("backing-node", STRING, copy.backing_node),
    F("backing-path", STRING, copy.backing_path),
    F("backing-format", STRING, copy.backing_format),
    F("sync", STRING, copy.sync),
    F("on-source-error", STRING, copy.on_source_error),
    F("on-target-error", STRING, copy.on_target_error),
    F("preallocation", STRING, copy.preallocation),
    F("discard", STRING, copy.discard),
    F("detect-zeroes", STRING, copy.detect_zeroes),
    F("cache", STRING, copy.cache),
    F("aio", STRING, copy.aio),
    F("buf-size", U64, copy.buf_size),
    F("granularity", U32, copy.granularity),
    F("cluster-size", U32, copy.cluster_size),
    F("delete-source", BOOL, copy.delete_source),
    F("delete-target", BOOL, copy.delete_target),
    LATER("group", U64, group_id),
    LATER("members", U32, n_members),
    LATER("redone", BOOL, redone),
};

/* Only of kinds that work inside a disk's chain. */
static const Field chain_fields[] = {
    F("one-phase", BOOL, chain.one_phase),     F("delete-images", BOOL, chain.delete_images),
    F("top-node", STRING, chain.top_node),     F("base-node", STRING, chain.base_node),
    F("layer-node", STRING, chain.layer_node), F("layer-path", STRING, chain.layer_path),
    F("gone-node", STRING, chain.gone_node),   F("gone-device", U64, chain.gone_id.device),
    F("gone-inode", U64, chain.gone_id.inode), F("base-device", U64, chain.base_id.device),
    F("base-inode", U64, chain.base_id.inode), F("backing-file", STRING, chain.backing_file),
    F("images-after", STRV, chain.after),      F("superfluous", STRV, chain.superfluous),
};
#undef F
#undef LATER

static json_t *strv_to_json(char *const *strv) {
    json_t *array = json_array();

    for (char *const *s = strv; s && *s; s++)
        json_array_append_new(array, json_string(*s));
    return array;
}

static json_t *field_to_json(const Job *j, const Field *f) {
    const void *p = (const char *) j + f->offset;

    switch (f->type) {
    case FIELD_STRING: {
        const char *s = *(char *const *) p;
        return s ? json_string(s) : json_null();
    }
    case FIELD_U64:
        return json_integer((json_int_t) * (const uint64_t *) p);
    case FIELD_U32:
        return json_integer(*(const uint32_t *) p);
    case FIELD_BOOL:
        return json_boolean(*(const bool *) p);
    case FIELD_STRV:
        return strv_to_json(*(char *const *const *) p);
    }
    return json_null();
}

char *job_document(const Job *j) {
    json_t *o = json_object();
    json_t *warnings = strv_to_json((char *const *) j->warnings->pdata);

    json_object_set_new(o, "state", json_string(job_state_to_string(j->state)));
    json_object_set_new(o, "intent", json_string(job_intent_to_string(j->intent)));
    json_object_set_new(o, "settled", json_string(job_result_to_string(j->result)));
    json_object_set_new(o, "on-ready", json_string(on_ready_to_string(j->on_ready)));
    json_object_set_new(o, "target-kind", json_string(target_kind_to_string(j->copy.target_kind)));
    json_object_set_new(o, "pid", json_integer(j->instance.pid));
    json_object_set_new(o, "boot", json_string(j->instance.boot));
    json_object_set_new(o, "warnings", warnings);
    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++)
        json_object_set_new(o, fields[i].key, field_to_json(j, &fields[i]));
    for (size_t i = 0; j->kind->of_chain && i < G_N_ELEMENTS(chain_fields); i++)
        json_object_set_new(o, chain_fields[i].key, field_to_json(j, &chain_fields[i]));
    char *text = json_dumps(o, JSON_COMPACT);
    char *owned = g_strdup(text); /* one allocator for everybody who frees it */
    free(text);
    json_decref(o);
    return owned;
}

static bool string_from_json(const json_t *value, char **slot) {
    if (!json_is_string(value) && !json_is_null(value))
        return false;
    g_free(*slot);
    *slot = g_strdup(json_string_value(value));
    return true;
}

static bool strv_from_json(const json_t *value, char ***slot) {
    g_autoptr(GPtrArray) out = g_ptr_array_new_with_free_func(g_free);
    const json_t *item;
    size_t i;

    if (!json_is_array(value))
        return false;
    json_array_foreach (value, i, item) {
        if (!json_is_string(item))
            return false;
        g_ptr_array_add(out, g_strdup(json_string_value(item)));
    }
    g_ptr_array_add(out, NULL);
    g_strfreev(*slot);
    *slot = (char **) g_ptr_array_free(g_steal_pointer(&out), FALSE);
    return true;
}

static bool field_from_json(Job *j, const Field *f, const json_t *value) {
    void *p = (char *) j + f->offset;

    switch (f->type) {
    case FIELD_STRING:
        return string_from_json(value, p);
    case FIELD_U64:
        *(uint64_t *) p = (uint64_t) json_integer_value(value);
        return json_is_integer(value);
    case FIELD_U32:
        *(uint32_t *) p = (uint32_t) json_integer_value(value);
        return json_is_integer(value) && json_integer_value(value) >= 0 &&
               json_integer_value(value) <= UINT32_MAX;
    case FIELD_BOOL:
        *(bool *) p = json_is_true(value);
        return json_is_boolean(value);
    case FIELD_STRV:
        return strv_from_json(value, p);
    }
    return false;
}

static bool parse_words(Job *j, const json_t *o) {
    const char *state, *intent, *settled, *on_ready, *target_kind, *boot;
    json_int_t pid;
    json_t *warnings;
    char **list = NULL;

    if (json_unpack((json_t *) o, "{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:o}", "state", &state,
                    "intent", &intent, "settled", &settled, "on-ready", &on_ready, "target-kind",
                    &target_kind, "boot", &boot, "pid", &pid, "warnings", &warnings) < 0)
        return false;
    j->state = job_state_from_string(state);
    j->intent = job_intent_from_string(intent);
    j->on_ready = on_ready_from_string(on_ready);
    j->result = job_result_from_string(settled);
    int kind = (int) target_kind_from_string(target_kind);
    if (j->state == _JOB_STATE_MAX || j->intent == _INTENT_MAX || j->result == _RESULT_MAX ||
        j->on_ready == _ON_READY_MAX || kind < 0 || !strv_from_json(warnings, &list))
        return false;
    j->copy.target_kind = (TargetKind) kind;
    j->instance.pid = pid;
    g_strlcpy(j->instance.boot, boot, sizeof(j->instance.boot));
    g_ptr_array_set_size(j->warnings, 0);
    for (char **w = list; *w; w++)
        g_ptr_array_add(j->warnings, *w);
    g_ptr_array_add(j->warnings, NULL);
    g_free(list);
    return true;
}

bool job_document_parse(Job *j, const char *document) {
    json_t *o = json_loads(document, JSON_REJECT_DUPLICATES, NULL);
    bool ok = json_is_object(o) && parse_words(j, o);

    for (size_t i = 0; ok && i < G_N_ELEMENTS(fields); i++) {
        const json_t *value = json_object_get(o, fields[i].key);
        ok = value ? field_from_json(j, &fields[i], value) : fields[i].later;
    }
    for (size_t i = 0; ok && j->kind->of_chain && i < G_N_ELEMENTS(chain_fields); i++)
        ok = field_from_json(j, &chain_fields[i], json_object_get(o, chain_fields[i].key));
    json_decref(o);
    return ok && j->device && j->qemu_id && j->tag && j->copy_mode && j->domain_path &&
           j->copy.target_format;
}

const JobKind *job_kind_find(const char *name) {
    static const JobKind *const kinds[] = {&kind_copy, &kind_commit, &kind_pull, &kind_foreign,
                                           &kind_group};

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++)
        if (g_str_equal(name, kinds[i]->name))
            return kinds[i];
    return NULL;
}

/* Nothing that the kind relies on is missing: the record was written by somebody. */
static bool is_complete(const Job *j) {
    const Copy *c = &j->copy;
    const Chain *chain = &j->chain;

    if (j->kind == &kind_copy)
        return c->source_node && c->source_path && c->sync && c->discard && c->detect_zeroes &&
               c->on_source_error && c->on_target_error;
    if (!j->kind->of_chain)
        return true;
    return c->source_node && c->source_path && c->on_source_error && chain->top_node &&
           chain->gone_node && g_strv_length(chain->after) >= 3 &&
           g_strv_length(chain->after) % 3 == 0 && g_strv_length(chain->superfluous) % 3 == 0 &&
           (!chain->one_phase || (chain->layer_node && chain->layer_path)) &&
           (chain->base_node || j->kind == &kind_pull);
}

int job_restore(const JournalJob *r, Domain *domain, Job **ret) {
    const JobKind *kind = job_kind_find(r->kind);

    if (!kind)
        return -EBADMSG;
    g_autoptr(Job) j = job_alloc(kind, r->id, "");

    if (!job_document_parse(j, r->document))
        return -EBADMSG;
    if (!is_complete(j))
        return -EBADMSG;
    JobResult result = job_result_from_string(r->result);
    bool over = j->state == JOB_CONCLUDED;
    if (over ? result != j->result || result == RESULT_NONE : result != RESULT_NONE)
        return -EBADMSG;
    j->domain = domain;
    j->domain_name = g_strdup(r->domain);
    j->disk = g_strdup(r->disk);
    g_free(j->target);
    j->target = g_strdup(r->target);
    g_free(j->request_id);
    j->request_id = g_strdup(r->request_id);
    g_free(j->error_message);
    j->error_message = g_strdup(r->error_message);
    j->error = failure_kind_from_name(r->error_name);
    j->owner = r->owner_uid;
    j->created = r->created;
    j->finished = r->finished;
    j->restarts = r->restarts;
    j->exported = r->exported;
    *ret = g_steal_pointer(&j);
    return 0;
}
