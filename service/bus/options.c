/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One reader for all option dictionaries, and the tables of their keys. */

#include "bus/options.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "util.h"

#define PATH_LENGTH_MAX 4095
#define HISTORY_LIMIT_DEFAULT 100
#define HISTORY_LIMIT_MAX 10000

/* ── sentences ── */

/* What a caller wrote, fit to be quoted. */
static char *quotable(const char *s) {
    return string_sanitize(s, 64);
}

/* "a", "b" or "c" */
static char *words_to_text(const char *const *words) {
    GString *s = g_string_new(NULL);

    for (size_t i = 0; words[i]; i++) {
        if (i > 0)
            g_string_append(s, words[i + 1] ? ", " : " or ");
        g_string_append_printf(s, "\"%s\"", words[i]);
    }
    return g_string_free(s, FALSE);
}

static bool fail_unknown(const Option *table, size_t n, const char *key, Failure *f) {
    g_autofree char *quoted = quotable(key);
    GString *known = g_string_new(NULL);

    for (size_t i = 0; i < n; i++)
        g_string_append_printf(known, "%s%s", i ? ", " : "", table[i].key);
    failure_set(f, FAILURE_INVALID_ARGS, "There is no option \"%s\" here; the options are: %s.",
                quoted, known->str);
    g_string_free(known, TRUE);
    return false;
}

/* what: `option "key"` or the name of an argument. */
static bool check_word(const char *what, const char *word, const char *const *words, size_t *ret,
                       Failure *f) {
    int i = string_index(words, g_strv_length((char **) words), word);

    if (i < 0) {
        g_autofree char *quoted = quotable(word), *allowed = words_to_text(words);
        return failure_set(f, FAILURE_INVALID_ARGS, "The %s must be %s, not \"%s\".", what, allowed,
                           quoted);
    }
    *ret = (size_t) i;
    return true;
}

bool option_check_word(const char *what, const char *word, const char *const *words, Failure *f) {
    size_t index;

    return check_word(what, word, words, &index, f);
}

bool option_check_path(const char *what, const char *path, Failure *f) {
    bool fit = path[0] == '/' && strlen(path) <= PATH_LENGTH_MAX && string_is_printable(path);

    for (const char *p = path; fit && (p = strstr(p, "/..")); p += 3)
        fit = p[3] != '/' && p[3] != '\0';
    if (!fit)
        return failure_set(
            f, FAILURE_INVALID_ARGS,
            "The %s must be an absolute path of at most %d bytes, without \"..\" and "
            "without control characters.",
            what, PATH_LENGTH_MAX);
    return true;
}

/* ── one value ── */

static const char *const kind_types[_OPTION_MAX] = {
    [OPTION_STRING] = "s", [OPTION_WORD] = "s",   [OPTION_INDEX] = "s", [OPTION_PATH] = "s",
    [OPTION_UINT32] = "u", [OPTION_UINT64] = "t", [OPTION_POWER] = "u", [OPTION_BOOL] = "b",
    [OPTION_CHOICE] = "b", [OPTION_FD] = "h",
};

static bool take_string(const Option *option, const char *value, void *field, Failure *f) {
    g_autofree char *what = g_strdup_printf("option \"%s\"", option->key);
    size_t index = 0, length = strlen(value);

    if (option->words) {
        if (!check_word(what, value, option->words, &index, f))
            return false;
    } else if (option->kind == OPTION_PATH) {
        if (!option_check_path(what, value, f))
            return false;
    } else if (length == 0 || length > OPTION_STRING_MAX || !string_is_printable(value) ||
               (uint64_t) g_utf8_strlen(value, -1) > option->max) {
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The %s must have 1 to %" PRIu64
                           " characters in at most %d bytes, and no control characters.",
                           what, option->max, OPTION_STRING_MAX);
    }
    if (option->kind == OPTION_INDEX)
        *(int *) field = (int) index;
    else
        *(char **) field = g_strdup(value);
    return true;
}

static bool take_number(const Option *option, uint64_t value, void *field, Failure *f) {
    const char *unit = option->unit ? option->unit : "";
    const char *space = option->unit ? " " : "";
    bool power = option->kind == OPTION_POWER;
    bool fit = value >= option->min && value <= option->max;

    if (power)
        fit = value == 0 || (fit && (value & (value - 1)) == 0);
    if (!fit)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The option \"%s\" must be %sfrom %" PRIu64 " to %" PRIu64
                           "%s%s, not %" PRIu64 ".",
                           option->key, power ? "0 or a power of two " : "", option->min,
                           option->max, space, unit, value);
    if (option->kind == OPTION_UINT64)
        *(uint64_t *) field = value;
    else
        *(uint32_t *) field = (uint32_t) value;
    return true;
}

/* m stands at a variant of the right type. */
static int take_value(sd_bus_message *m, const Option *option, void *field, Failure *f) {
    const char *type = kind_types[option->kind];
    union {
        const char *s;
        uint32_t u;
        uint64_t t;
        int i; /* b and h */
    } value = {0};
    int r = sd_bus_message_read(m, "v", type, &value);

    if (r < 0)
        return r;
    switch (option->kind) {
    case OPTION_UINT32:
    case OPTION_POWER:
        return take_number(option, value.u, field, f);
    case OPTION_UINT64:
        return take_number(option, value.t, field, f);
    case OPTION_BOOL:
        *(bool *) field = value.i;
        return 1;
    case OPTION_CHOICE:
    case OPTION_FD:
        *(int *) field = value.i;
        return 1;
    default:
        return take_string(option, value.s, field, f);
    }
}

/* ── the dictionary ── */

/* More than OPTIONS_MAX entries? m stands in the array, and does so afterwards. Negative errno. */
static int is_too_long(sd_bus_message *m) {
    int r;

    for (unsigned i = 0; i <= OPTIONS_MAX; i++) {
        r = sd_bus_message_at_end(m, false);
        if (r < 0)
            return r;
        if (r > 0) {
            r = sd_bus_message_rewind(m, false);
            return r < 0 ? r : 0;
        }
        r = sd_bus_message_skip(m, "{sv}");
        if (r < 0)
            return r;
    }
    return 1;
}

/* One entry, m stands in it. 1: taken; 0: refused, f says why; negative errno. seen: bits of the
 * keys read so far. */
static int read_entry(sd_bus_message *m, const Option *table, size_t n, uint64_t *seen, void *into,
                      Failure *f) {
    const char *key, *type;
    size_t i = 0;
    int r = sd_bus_message_read(m, "s", &key);

    if (r < 0)
        return r;
    while (i < n && strcmp(table[i].key, key) != 0)
        i++;
    if (i == n)
        return fail_unknown(table, n, key, f);
    if (*seen & UINT64_C(1) << i)
        return failure_set(f, FAILURE_INVALID_ARGS, "The option \"%s\" is given twice.", key);
    *seen |= UINT64_C(1) << i;

    r = sd_bus_message_peek_type(m, NULL, &type);
    if (r < 0)
        return r;
    if (strcmp(type, kind_types[table[i].kind]) != 0)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The option \"%s\" must have the D-Bus type %s, not %.16s%s.", key,
                           kind_types[table[i].kind], type, strlen(type) > 16 ? "…" : "");
    return take_value(m, &table[i], (uint8_t *) into + table[i].offset, f);
}

/* As options_read(), with a negative errno for a message that cannot be parsed. */
static int read_dictionary(sd_bus_message *m, const Option *table, size_t n, void *into,
                           Failure *f) {
    uint64_t seen = 0;
    int r = sd_bus_message_enter_container(m, 'a', "{sv}");

    if (r < 0)
        return r;
    r = is_too_long(m);
    if (r < 0)
        return r;
    if (r > 0)
        return failure_set(f, FAILURE_INVALID_ARGS, "At most %d options can be given.",
                           OPTIONS_MAX);
    while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = read_entry(m, table, n, &seen, into, f);
        if (r <= 0)
            return r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
            return r;
    }
    if (r < 0)
        return r;
    r = sd_bus_message_exit_container(m);
    return r < 0 ? r : 1;
}

bool options_read(sd_bus_message *m, const Option *table, size_t n, void *into, Failure *f) {
    g_assert(n < OPTIONS_MAX);
    int r = read_dictionary(m, table, n, into, f);

    if (r < 0)
        return failure_set(f, FAILURE_INVALID_ARGS, "The options cannot be read: %s.",
                           g_strerror(-r));
    return r > 0;
}

/* ── the tables: dbus-interfaces/ says what each key means ── */

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

const char *const on_ready_words[] = {
    [ON_READY_WAIT] = "wait", [ON_READY_PIVOT] = "pivot", [ON_READY_FINISH] = "finish", NULL};
static_assert(G_N_ELEMENTS(on_ready_words) == _ON_READY_MAX + 1, "a word for each OnReady");
static_assert(sizeof(OnReady) == sizeof(int), "OPTION_INDEX writes an int");
const char *const copy_mode_words[] = {"background", "write-blocking", NULL};

#define FIELD(name) offsetof(CopyOptions, name)
static const Option copy_table[] = {
    {"format", OPTION_WORD, FIELD(format), .words = WORDS("qcow2", "raw")},
    {"existing", OPTION_BOOL, FIELD(existing)},
    {"fd", OPTION_FD, FIELD(fd)},
    {"sync", OPTION_WORD, FIELD(sync), .words = WORDS("full", "top", "none")},
    {"backing", OPTION_PATH, FIELD(backing)},
    {"backing-format", OPTION_WORD, FIELD(backing_format), .words = WORDS("qcow2", "raw")},
    {"copy-mode", OPTION_WORD, FIELD(copy_mode), .words = copy_mode_words},
    {"speed", OPTION_UINT64, FIELD(speed), 0, SPEED_MAX, "bytes per second"},
    {"granularity", OPTION_POWER, FIELD(granularity), 512, 64 * MIB, "bytes"},
    {"buf-size", OPTION_UINT64, FIELD(buf_size), 0, 1 * GIB, "bytes"},
    {"on-source-error", OPTION_WORD, FIELD(on_source_error),
     .words = WORDS("stop", "report", "enospc")},
    {"on-target-error", OPTION_WORD, FIELD(on_target_error),
     .words = WORDS("stop", "report", "enospc")},
    {"cluster-size", OPTION_POWER, FIELD(cluster_size), 512, 2 * MIB, "bytes"},
    {"preallocation", OPTION_WORD, FIELD(preallocation),
     .words = WORDS("off", "metadata", "falloc", "full")},
    {"discard", OPTION_WORD, FIELD(discard), .words = WORDS("unmap", "ignore")},
    {"detect-zeroes", OPTION_WORD, FIELD(detect_zeroes), .words = WORDS("unmap", "on", "off")},
    {"cache", OPTION_WORD, FIELD(cache), .words = WORDS("direct", "writeback")},
    {"aio", OPTION_WORD, FIELD(aio), .words = WORDS("native", "threads")},
    {"delete-source", OPTION_BOOL, FIELD(delete_source)},
    {"delete-target", OPTION_BOOL, FIELD(delete_target)},
    {"force", OPTION_BOOL, FIELD(force)},
    /* of the end; in a group, the group's */
    {"on-ready", OPTION_INDEX, FIELD(on_ready), .words = on_ready_words},
    {"pause-guest", OPTION_BOOL, FIELD(pause_guest)},
    {"max-pause", OPTION_UINT64, FIELD(max_pause), 0, INT64_MAX, "microseconds"},
    {"request-id", OPTION_STRING, FIELD(request_id), .max = 64},
};
#undef FIELD
#define N_MEMBER_OPTIONS (G_N_ELEMENTS(copy_table) - 4)

static bool target_options_read(sd_bus_message *m, size_t n, const char *target, CopyOptions *o,
                                Failure *f) {
    /* A path has 4095 bytes at most; job/ says the rest about it. */
    if (strlen(target) > OPTION_STRING_MAX)
        return failure_set(f, FAILURE_INVALID_ARGS, "The target must have at most %d bytes.",
                           OPTION_STRING_MAX);
    o->target = g_strdup(target);
    return options_read(m, copy_table, n, o, f);
}

bool copy_options_read(sd_bus_message *m, const char *target, CopyOptions *o, Failure *f) {
    return target_options_read(m, G_N_ELEMENTS(copy_table), target, o, f);
}

bool member_options_read(sd_bus_message *m, const char *target, CopyOptions *o, Failure *f) {
    return target_options_read(m, N_MEMBER_OPTIONS, target, o, f);
}

bool group_options_read(sd_bus_message *m, GroupOptions *o, Failure *f) {
#define FIELD(name) offsetof(GroupOptions, name)
    static const Option table[] = {
        {"on-ready", OPTION_INDEX, FIELD(on_ready), .words = on_ready_words},
        {"pause-guest", OPTION_BOOL, FIELD(pause_guest)},
        {"max-pause", OPTION_UINT64, FIELD(max_pause), 0, INT64_MAX, "microseconds"},
        {"request-id", OPTION_STRING, FIELD(request_id), .max = 64},
    };
#undef FIELD

    *o = (GroupOptions){.pause_guest = true, .max_pause = USEC_PER_SEC};
    return options_read(m, table, G_N_ELEMENTS(table), o, f);
}

void group_options_clear(GroupOptions *o) {
    g_clear_pointer(&o->request_id, g_free);
}

#define FIELD(name) offsetof(ChainOptions, name)
/* Those of a pull first. */
static const Option chain_table[] = {
    {"base", OPTION_STRING, FIELD(base), .max = OPTION_STRING_MAX},
    {"top", OPTION_STRING, FIELD(top), .max = OPTION_STRING_MAX},
    {"backing-file", OPTION_STRING, FIELD(backing_file), .max = OPTION_STRING_MAX},
    {"speed", OPTION_UINT64, FIELD(speed), 0, SPEED_MAX, "bytes per second"},
    {"on-error", OPTION_WORD, FIELD(on_error), .words = WORDS("stop", "report", "enospc")},
    {"delete-image", OPTION_BOOL, FIELD(delete_images)},
    {"request-id", OPTION_STRING, FIELD(request_id), .max = 64},
    {"shallow", OPTION_BOOL, FIELD(shallow)},
    {"active", OPTION_CHOICE, FIELD(active)},
    {"on-ready", OPTION_INDEX, FIELD(on_ready), .words = on_ready_words},
    {"pause-guest", OPTION_BOOL, FIELD(pause_guest)},
    {"max-pause", OPTION_UINT64, FIELD(max_pause), 0, INT64_MAX, "microseconds"},
};
#undef FIELD
enum { PULL_OPTIONS = 7 };

bool chain_options_read(sd_bus_message *m, ChainVerb verb, ChainOptions *o, Failure *f) {
    size_t n = verb == CHAIN_PULL ? PULL_OPTIONS : G_N_ELEMENTS(chain_table);

    return options_read(m, chain_table, n, o, f);
}

static const EndOptions end_defaults = {
    .pause_guest = -1, .max_pause = UINT64_MAX, .delete_target = -1};

bool end_options_read(sd_bus_message *m, EndOptions *o, Failure *f) {
    static const Option table[] = {
        {"pause-guest", OPTION_CHOICE, offsetof(EndOptions, pause_guest)},
        {"max-pause", OPTION_UINT64, offsetof(EndOptions, max_pause), 0, INT64_MAX, "microseconds"},
    };

    *o = end_defaults;
    return options_read(m, table, G_N_ELEMENTS(table), o, f);
}

bool cancel_options_read(sd_bus_message *m, EndOptions *o, Failure *f) {
    static const Option table[] = {
        {"force", OPTION_BOOL, offsetof(EndOptions, force)},
        {"delete-target", OPTION_CHOICE, offsetof(EndOptions, delete_target)},
    };

    *o = end_defaults;
    return options_read(m, table, G_N_ELEMENTS(table), o, f);
}

void attach_options_clear(AttachOptions *o) {
    g_clear_pointer(&o->definition, g_free);
    o->fd = -1;
}

bool attach_options_read(sd_bus_message *m, AttachOptions *o, Failure *f) {
    static const Option table[] = {
        {"fd", OPTION_FD, offsetof(AttachOptions, fd)},
        {"definition", OPTION_PATH, offsetof(AttachOptions, definition)},
    };

    *o = (AttachOptions){.fd = -1};
    return options_read(m, table, G_N_ELEMENTS(table), o, f);
}

bool detach_options_read(sd_bus_message *m, bool *ret_force, Failure *f) {
    static const Option table[] = {{"force", OPTION_BOOL, 0}};

    *ret_force = false;
    return options_read(m, table, G_N_ELEMENTS(table), ret_force, f);
}

bool xml_options_read(sd_bus_message *m, bool *ret_persistent, Failure *f) {
    static const Option table[] = {{"persistent", OPTION_BOOL, 0}};

    *ret_persistent = false;
    return options_read(m, table, G_N_ELEMENTS(table), ret_persistent, f);
}

bool history_filter_read(sd_bus_message *m, JournalFilter *filter, Failure *f) {
#define FIELD(name) offsetof(JournalFilter, name)
    static const Option table[] = {
        {"domain", OPTION_STRING, FIELD(domain), .max = OPTION_STRING_MAX},
        {"disk", OPTION_STRING, FIELD(disk), .max = OPTION_STRING_MAX},
        {"kind", OPTION_STRING, FIELD(kind), .max = OPTION_STRING_MAX},
        {"result", OPTION_STRING, FIELD(result), .max = OPTION_STRING_MAX},
        {"since", OPTION_UINT64, FIELD(since), 0, INT64_MAX, "microseconds"},
        {"until", OPTION_UINT64, FIELD(until), 0, INT64_MAX, "microseconds"},
        {"limit", OPTION_UINT32, FIELD(limit), 1, HISTORY_LIMIT_MAX, "jobs"},
    };
#undef FIELD

    *filter = (JournalFilter){.limit = HISTORY_LIMIT_DEFAULT};
    return options_read(m, table, G_N_ELEMENTS(table), filter, f);
}
