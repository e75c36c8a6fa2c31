/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Explores the small world breadth first: every world that can be reached is checked, and from each every way on that
 * has no further trouble in it must end in the release of the job. */

#include "step-model.h"

#include <string.h>

#include "step-world.h"

typedef struct {
    World world;
    uint32_t parent;
    const char *move;
} Place;

struct Explorer {
    const ModelRules *rules;
    GArray *places; /* Place */
    GArray *edges;  /* uint32_t pairs: moves that need no trouble */
    uint32_t *slots;
    size_t n_slots, moves, ends;
    uint32_t here;
    const char *harm;
    const char *harm_move;
    World harm_world;
};

static uint64_t mix(const World *w) {
    uint64_t h = w->words[0] * UINT64_C(0x9e3779b97f4a7c15) ^ (w->words[1] + (w->words[0] >> 29));

    h *= UINT64_C(0xbf58476d1ce4e5b9);
    return h ^ (h >> 31);
}

static void slots_grow(Explorer *e) {
    size_t n = e->n_slots ? e->n_slots * 2 : 1 << 16;

    g_free(e->slots);
    e->slots = g_new(uint32_t, n);
    memset(e->slots, 0xff, n * sizeof(uint32_t));
    e->n_slots = n;
    for (uint32_t i = 0; i < e->places->len; i++) {
        size_t at = mix(&g_array_index(e->places, Place, i).world) & (n - 1);
        while (e->slots[at] != UINT32_MAX)
            at = (at + 1) & (n - 1);
        e->slots[at] = i;
    }
}

static uint32_t place_of(Explorer *e, const World *w, const char *move) {
    if (e->places->len * 2 >= e->n_slots)
        slots_grow(e);
    size_t at = mix(w) & (e->n_slots - 1);
    for (; e->slots[at] != UINT32_MAX; at = (at + 1) & (e->n_slots - 1))
        if (memcmp(&g_array_index(e->places, Place, e->slots[at]).world, w, sizeof(*w)) == 0)
            return e->slots[at];
    Place p = {*w, e->here, move};
    e->slots[at] = e->places->len;
    g_array_append_val(e->places, p);
    return e->places->len - 1;
}

const ModelRules *explorer_rules(const Explorer *e) {
    return e->rules;
}

void explorer_harm(Explorer *e, const char *what, const char *move, const World *w) {
    if (e->harm)
        return;
    e->harm = what;
    e->harm_move = move;
    e->harm_world = *w;
}

/* ── what the guest's writes do to the images ── */

/* The guest writes whenever it can. */
static void guest_writes(World *w) {
    if (!w->alive || w->guest != GUEST_RUNS || w->phase == QJOB_PENDING)
        return;
    if (w->one_phase) /* into the layer that both chains have */
        return;
    if (w->root == ROOT_TARGET)
        w->source_current = 0;
    else
        w->target_current = 0;
}

static const char *world_check(const World *w) {
    bool on_target = w->root == ROOT_TARGET;

    if (w->alive && !(on_target ? w->target_file : w->source_file))
        return "the image under the device was deleted";
    if (w->alive && !(on_target ? w->target_current : w->source_current))
        return "the image under the device lacks writes";
    if (!w->source_file && !w->target_file)
        return "no image is left";
    if (!w->unknowable && !(w->source_current && w->source_file) &&
        !(w->target_current && w->target_file))
        return "no image with all writes is left";
    return NULL;
}

static const char *end_check(const World *w) {
    bool pivoted = w->d_result == RESULT_PIVOTED;
    bool header = w->one_phase && w->root == ROOT_TARGET;

    if (w->d_state != JOB_CONCLUDED || w->d_result == RESULT_NONE)
        return "released before the end was durable";
    if (w->alive && w->phase != QJOB_ABSENT)
        return "released, but QEMU still has the job";
    if (w->alive && w->guest == STOPPED_BY_US)
        return "the guest was left stopped";
    if ((w->alive || w->one_phase) && pivoted != (w->root == ROOT_TARGET))
        return "the result does not say where the guest stands";
    if (w->definition && pivoted != w->new_definition)
        return "the definition does not fit to the result";
    if (!(pivoted ? w->target_file : w->source_file))
        return "the image that the record calls right was deleted";
    if (w->unknowable)
        return NULL;
    if (pivoted ? !w->target_current || !w->target_file : !w->source_current || !w->source_file)
        return "the image that the record calls right lacks writes";
    if (w->d_result == RESULT_FINISHED && (!w->target_whole || !w->target_file))
        return "the finished copy is not whole";
    if (w->meddled || w->finalize_failed || header)
        return NULL;
    if (w->one_phase && w->d_decided)
        return w->d_result == RESULT_LOST && !w->alive ? NULL : "decided, and not done";
    if (w->d_intent == INTENT_CANCEL)
        return w->d_result == RESULT_CANCELLED || (w->trouble && w->d_result == RESULT_FAILED)
                   ? NULL
                   : "it was to be cancelled";
    if (w->d_decided || (!w->trouble && w->alive)) {
        JobResult promised = w->d_intent == INTENT_PIVOT ? RESULT_PIVOTED : RESULT_FINISHED;
        return w->d_result == promised ? NULL : "the promised end was not brought about";
    }
    if (!w->alive && !w->trouble && w->d_result != RESULT_LOST)
        return "QEMU died undecided, and it is not called lost";
    return w->d_result == RESULT_LOST || w->d_result == RESULT_FAILED ? NULL : "an odd result";
}

void explorer_go(Explorer *e, World *w, const char *move, bool smooth) {
    const char *what;

    e->moves++;
    guest_writes(w);
    what = world_check(w);
    if (!what && w->released)
        what = end_check(w);
    if (what)
        explorer_harm(e, what, move, w);
    uint32_t from = e->here, to = place_of(e, w, move);
    if (smooth && to != from) {
        g_array_append_val(e->edges, from);
        g_array_append_val(e->edges, to);
    }
}

/* ── the walk ── */

static void add_beginnings(Explorer *e, bool one_phase, bool meddling) {
    for (unsigned i = 0; i < 16; i++) {
        if (one_phase && (i & ~4u)) /* nothing can be ordered but cancel */
            continue;
        World w = {0};
        unsigned wanted = i & 1 ? INTENT_PIVOT : INTENT_FINISH;
        w.state = w.d_state = JOB_PREPARING;
        w.up = 1;
        w.must_stop = (i & 2) != 0;
        w.definition = (i & 4) != 0;
        w.wanted = wanted;
        w.on_ready = w.d_on_ready = i & 8 ? wanted : 0;
        w.alive = w.old_node = 1;
        w.source_current = w.source_file = 1;
        w.meddling = meddling;
        w.one_phase = w.target_file = one_phase; /* all images are there from the beginning */
        place_of(e, &w, "begin");
    }
}

/* Every way on without trouble ends, and ends in a release: the moves without trouble make no circle (Kahn), and only
 * released worlds have none. */
static void check_ends(Explorer *e) {
    size_t n = e->places->len, n_edges = e->edges->len / 2, done = 0, head = 0;
    const uint32_t *edges = (const uint32_t *) (const void *) e->edges->data;
    g_autofree uint32_t *first = g_new0(uint32_t, n + 1), *to = g_new(uint32_t, n_edges + 1);
    g_autofree uint32_t *incoming = g_new0(uint32_t, n), *queue = g_new(uint32_t, n);

    for (size_t i = 0; i < n_edges; i++) {
        first[edges[2 * i] + 1]++;
        incoming[edges[2 * i + 1]]++;
    }
    for (size_t i = 0; i < n; i++) {
        const Place *p = &g_array_index(e->places, Place, i);
        if (first[i + 1] == 0 && !p->world.released)
            explorer_harm(e, "nothing goes on any more", p->move, &p->world);
        e->ends += p->world.released;
        first[i + 1] += first[i];
    }
    g_autofree uint32_t *fill = g_memdup2(first, (n + 1) * sizeof(uint32_t));
    for (size_t i = 0; i < n_edges; i++)
        to[fill[edges[2 * i]]++] = edges[2 * i + 1];
    for (size_t i = 0; i < n; i++)
        if (incoming[i] == 0)
            queue[done++] = (uint32_t) i;
    for (; head < done; head++)
        for (uint32_t k = first[queue[head]]; k < first[queue[head] + 1]; k++)
            if (--incoming[to[k]] == 0)
                queue[done++] = to[k];
    for (size_t i = 0; i < n && done < n; i++)
        if (incoming[i] > 0) {
            const Place *p = &g_array_index(e->places, Place, i);
            explorer_harm(e, "it goes round in a circle", p->move, &p->world);
            return;
        }
}

static void describe(GString *out, const World *w) {
    static const char *const flights[] = {"",         "setup",    "pivot", "finish",
                                          "finalize", "continue", "abort", "dismiss",
                                          "nodes",    "prepare",  "files"};

    g_string_append_printf(
        out,
        "%s/%s%s%s%s%s [durable %s/%s%s%s%s%s]%s%s%s%s%s%s%s%s flight %s:%u%s%s | view %s %s%s%s "
        "| ",
        job_state_to_string(w->state), job_intent_to_string(w->intent),
        w->decided ? " decided" : "", w->halted ? " halted " : " ", job_result_to_string(w->result),
        w->on_ready ? " on-ready" : "", job_state_to_string(w->d_state),
        job_intent_to_string(w->d_intent), w->d_decided ? " decided" : "",
        w->d_halted ? " halted " : " ", job_result_to_string(w->d_result),
        w->d_on_ready ? " on-ready" : "", w->up ? "" : " down", w->committing ? " committing" : "",
        w->clean ? " clean" : "", w->asked ? " asked" : "", w->aborting ? " aborting" : "",
        w->prepared ? " prepared" : "", w->stopped ? " stopped" : "", w->refused ? " refused" : "",
        flights[w->flight], (unsigned) w->step, w->error ? " error" : "", w->owned ? " owned" : "",
        w->connected ? qemu_job_phase_to_string(w->view_phase) : "none",
        w->view_root == ROOT_TARGET ? "target" : "source", w->view_runs ? " runs" : "",
        w->fresh ? " fresh" : "");
    g_string_append_printf(
        out, "QEMU %s %s for %s, on %s, guest %u%s%s | images:%s%s%s%s%s%s%s%s%s%s\n",
        w->alive ? "lives" : "dead", qemu_job_phase_to_string(w->phase),
        job_intent_to_string(w->completing), w->root == ROOT_TARGET ? "target" : "source",
        (unsigned) w->guest, w->node ? " node" : "", w->old_node ? " old-node" : "",
        w->source_file ? " source" : "", w->source_current ? " (current)" : "",
        w->target_file ? " target" : "", w->target_current ? " (current)" : "",
        w->target_whole ? " (whole)" : "", w->new_definition ? " new-definition" : "",
        w->must_stop ? " must-stop" : "", w->definition ? " with-definition" : "",
        w->trouble ? " trouble" : "", w->meddled ? " meddled" : "");
}

static char *explain(Explorer *e) {
    GString *out = g_string_new(NULL);
    GPtrArray *way = g_ptr_array_new();

    for (uint32_t at = place_of(e, &e->harm_world, e->harm_move);;) {
        Place *p = &g_array_index(e->places, Place, at);
        g_ptr_array_add(way, p);
        if (p->parent == UINT32_MAX)
            break;
        at = p->parent;
    }
    for (guint i = way->len; i-- > 0;) {
        const Place *p = way->pdata[i];
        g_string_append_printf(out, "\n# %-60s ", p->move);
        describe(out, &p->world);
    }
    g_string_append_printf(out, "# %s (%s)", e->harm, e->harm_move);
    g_ptr_array_unref(way);
    return g_string_free(out, FALSE);
}

void model_explore(const ModelRules *rules, bool one_phase, bool meddling, ModelReport *ret) {
    Explorer e = {
        .rules = rules,
        .places = g_array_new(FALSE, FALSE, sizeof(Place)),
        .edges = g_array_new(FALSE, FALSE, sizeof(uint32_t)),
        .here = UINT32_MAX,
    };

    add_beginnings(&e, one_phase, meddling);
    for (uint32_t i = 0; i < e.places->len && !e.harm; i++) {
        World w = g_array_index(e.places, Place, i).world;
        e.here = i;
        if (w.released)
            continue;
        world_move(&e, &w);
    }
    if (!e.harm)
        check_ends(&e);
    *ret = (ModelReport){
        .worlds = e.places->len,
        .moves = e.moves,
        .ends = e.ends,
        .harm = e.harm ? explain(&e) : NULL,
    };
    g_free(e.slots);
    g_array_unref(e.places);
    g_array_unref(e.edges);
}

void model_report_clear(ModelReport *r) {
    g_free(r->harm);
    *r = (ModelReport){0};
}
