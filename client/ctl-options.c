/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line's options: one table for those that go into a dictionary, a few by hand. */

#include "ctl-options.h"
#include "ctl-format.h"
#include "ctl-terminal.h"
#include "util.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    TYPE_STRING,
    TYPE_PATH,
    TYPE_TRUE,   /* no value */
    TYPE_FALSE,  /* no value */
    TYPE_BOOL,   /* yes or no */
    TYPE_SIZE,   /* t */
    TYPE_SIZE32, /* u */
    TYPE_COUNT32,
    TYPE_RATE,
    TYPE_DURATION,
    TYPE_TIME,
    TYPE_FD,
} ValueType;

typedef struct {
    const char *name, *key;
    ValueType type;
    unsigned takes;
} DictionaryOption;

typedef struct {
    const DictionaryOption *option;
    const char *text; /* of argv, or interned */
    char *path;       /* owned; of TYPE_PATH */
    uint64_t number;
} DictionaryValue;

static const DictionaryOption dictionary_options[] = {
    {"format", "format", TYPE_STRING, TAKES_COPY},
    {"existing", "existing", TYPE_TRUE, TAKES_COPY},
    {"fd", "fd", TYPE_FD, TAKES_COPY | TAKES_ATTACH},
    {"sync", "sync", TYPE_STRING, TAKES_COPY},
    {"backing", "backing", TYPE_STRING, TAKES_COPY},
    {"backing-format", "backing-format", TYPE_STRING, TAKES_COPY},
    {"copy-mode", "copy-mode", TYPE_STRING, TAKES_COPY},
    {"top", "top", TYPE_STRING, TAKES_COMMIT | TAKES_PULL},
    {"base", "base", TYPE_STRING, TAKES_COMMIT | TAKES_PULL},
    {"shallow", "shallow", TYPE_TRUE, TAKES_COMMIT},
    {"active", "active", TYPE_TRUE, TAKES_COMMIT},
    {"inner", "active", TYPE_FALSE, TAKES_COMMIT},
    {"backing-file", "backing-file", TYPE_STRING, TAKES_COMMIT | TAKES_PULL},
    {"on-error", "on-error", TYPE_STRING, TAKES_COMMIT | TAKES_PULL},
    {"delete-image", "delete-image", TYPE_TRUE, TAKES_COMMIT | TAKES_PULL},
    {"speed", "speed", TYPE_RATE, TAKES_COPY | TAKES_COMMIT | TAKES_PULL},
    {"granularity", "granularity", TYPE_SIZE32, TAKES_COPY},
    {"buf-size", "buf-size", TYPE_SIZE, TAKES_COPY},
    {"on-source-error", "on-source-error", TYPE_STRING, TAKES_COPY},
    {"on-target-error", "on-target-error", TYPE_STRING, TAKES_COPY},
    {"on-ready", "on-ready", TYPE_STRING, TAKES_COPY | TAKES_COMMIT | TAKES_GROUP},
    {"cluster-size", "cluster-size", TYPE_SIZE32, TAKES_COPY},
    {"preallocation", "preallocation", TYPE_STRING, TAKES_COPY},
    {"discard", "discard", TYPE_STRING, TAKES_COPY},
    {"detect-zeroes", "detect-zeroes", TYPE_STRING, TAKES_COPY},
    {"cache", "cache", TYPE_STRING, TAKES_COPY},
    {"aio", "aio", TYPE_STRING, TAKES_COPY},
    {"pause-guest", "pause-guest", TYPE_BOOL, TAKES_COPY | TAKES_COMMIT | TAKES_END | TAKES_GROUP},
    {"max-pause", "max-pause", TYPE_DURATION, TAKES_COPY | TAKES_COMMIT | TAKES_END | TAKES_GROUP},
    {"delete-source", "delete-source", TYPE_TRUE, TAKES_COPY},
    {"delete-target", "delete-target", TYPE_TRUE, TAKES_COPY | TAKES_CANCEL},
    {"keep-target", "delete-target", TYPE_FALSE, TAKES_COPY | TAKES_CANCEL},
    {"force", "force", TYPE_TRUE, TAKES_COPY | TAKES_CANCEL | TAKES_DETACH},
    {"request-id", "request-id", TYPE_STRING, TAKES_COPY | TAKES_COMMIT | TAKES_PULL | TAKES_GROUP},
    {"definition", "definition", TYPE_PATH, TAKES_ATTACH},
    {"persistent", "persistent", TYPE_TRUE, TAKES_XML},
    {"domain", "domain", TYPE_STRING, TAKES_HISTORY},
    {"disk", "disk", TYPE_STRING, TAKES_HISTORY},
    {"kind", "kind", TYPE_STRING, TAKES_HISTORY},
    {"result", "result", TYPE_STRING, TAKES_HISTORY},
    {"since", "since", TYPE_TIME, TAKES_HISTORY},
    {"until", "until", TYPE_TIME, TAKES_HISTORY},
    {"limit", "limit", TYPE_COUNT32, TAKES_HISTORY},
};

/* Above these the index into dictionary_options follows. */
enum {
    OPT_VERSION = 256,
    OPT_NO_PAGER,
    OPT_NO_LEGEND,
    OPT_FULL,
    OPT_JSON,
    OPT_NO_ASK_PASSWORD,
    OPT_NO_BLOCK,
    OPT_TIMEOUT,
    OPT_FOR,
    OPT_VALUE,
    OPT_DICTIONARY,
};

static const struct option fixed_options[] = {
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, OPT_VERSION},
    {"host", required_argument, NULL, 'H'},
    {"no-pager", no_argument, NULL, OPT_NO_PAGER},
    {"no-legend", no_argument, NULL, OPT_NO_LEGEND},
    {"full", no_argument, NULL, OPT_FULL},
    {"quiet", no_argument, NULL, 'q'},
    {"json", required_argument, NULL, OPT_JSON},
    {"no-ask-password", no_argument, NULL, OPT_NO_ASK_PASSWORD},
    {"all", no_argument, NULL, 'a'},
    {"no-block", no_argument, NULL, OPT_NO_BLOCK},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"for", required_argument, NULL, OPT_FOR},
    {"property", required_argument, NULL, 'p'},
    {"value", no_argument, NULL, OPT_VALUE},
};

static bool value_invalid(const char *name, const char *text, const char *wanted) {
    fprintf(stderr, "blockjobctl: \"%s\" is not a valid value for --%s: %s.\n", text, name, wanted);
    return false;
}

char *path_absolute(const char *path) {
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);

    if (!g_strv_contains((const char *const *) parts, "..")) {
        while (g_str_has_prefix(path, "./"))
            path += 2;
        if (*path == '/' || !*path)
            return g_strdup(path);
        g_autofree char *here = g_get_current_dir();
        return g_build_filename(here, path, NULL);
    }
    g_autofree char *folder = g_path_get_dirname(path), *name = g_path_get_basename(path);
    char *resolved = realpath(folder, NULL);
    if (!resolved)
        return NULL;
    char *absolute = g_build_filename(resolved, name, NULL);
    free(resolved);
    return absolute;
}

static bool fd_check(const char *text, uint64_t number) {
    if (number > INT_MAX || fcntl((int) number, F_GETFD) < 0)
        return value_invalid("fd", text, "it is not the number of an open descriptor");
    return true;
}

/* Fills value from its text; prints why it cannot. */
static bool value_parse(DictionaryValue *value) {
    const char *name = value->option->name, *text = value->text;
    uint64_t *number = &value->number;
    bool yes;

    switch (value->option->type) {
    case TYPE_STRING:
        return g_utf8_validate(text, -1, NULL) || value_invalid(name, text, "it is not UTF-8");
    case TYPE_PATH:
        value->path = path_absolute(text);
        if (!value->path || !g_utf8_validate(value->path, -1, NULL))
            return value_invalid(name, text, value->path ? "it is not UTF-8" : g_strerror(errno));
        return true;
    case TYPE_TRUE:
    case TYPE_FALSE:
        *number = value->option->type == TYPE_TRUE;
        return true;
    case TYPE_BOOL:
        if (boolean_parse(text, &yes) < 0)
            return value_invalid(name, text, "say yes or no");
        *number = yes;
        return true;
    case TYPE_SIZE:
        return size_parse(text, number) >= 0 ||
               value_invalid(name, text, "give bytes, as in 64K, 16M or 2G");
    case TYPE_SIZE32:
        return (size_parse(text, number) >= 0 && *number <= UINT32_MAX) ||
               value_invalid(name, text, "give bytes below 4G, as in 64K or 2M");
    case TYPE_COUNT32:
        return (number_parse(text, number) >= 0 && *number <= UINT32_MAX) ||
               value_invalid(name, text, "give a number");
    case TYPE_RATE:
        return rate_parse(text, number) >= 0 ||
               value_invalid(name, text, "give bytes per second, as in 100M or 1.5G/s");
    case TYPE_DURATION:
        return duration_parse(text, number) >= 0 ||
               value_invalid(name, text, "give a duration, as in 500ms, 2s or 5min");
    case TYPE_TIME:
        return timestamp_parse(text, now_realtime(), number) >= 0 ||
               value_invalid(name, text,
                             "give a time, as in \"2026-01-31 12:30\", today or \"2h ago\"");
    case TYPE_FD:
        return (number_parse(text, number) >= 0 || value_invalid(name, text, "give a number")) &&
               fd_check(text, *number);
    }
    return false;
}

static void value_clear(void *value) {
    g_free(((DictionaryValue *) value)->path);
}

static bool dictionary_set(Options *options, const DictionaryOption *option, const char *text) {
    DictionaryValue value = {.option = option, .text = text};

    if (!value_parse(&value)) {
        value_clear(&value);
        return false;
    }
    /* The last one given for a key is the one that counts. */
    for (guint i = 0; i < options->dictionary->len; i++)
        if (strcmp(g_array_index(options->dictionary, DictionaryValue, i).option->key,
                   option->key) == 0) {
            g_array_remove_index(options->dictionary, i);
            break;
        }
    g_array_append_val(options->dictionary, value);
    return true;
}

void options_set(Options *options, const char *name, const char *text) {
    for (size_t i = 0; i < G_N_ELEMENTS(dictionary_options); i++)
        if (strcmp(dictionary_options[i].name, name) == 0) {
            dictionary_set(options, &dictionary_options[i], g_intern_string(text));
            return;
        }
    g_assert_not_reached();
}

static bool json_parse_mode(Options *options, const char *text) {
    static const char *const modes[] = {
        [JSON_OFF] = "off", [JSON_SHORT] = "short", [JSON_PRETTY] = "pretty"};
    int mode = string_index(modes, G_N_ELEMENTS(modes), text);

    if (mode < 0)
        return value_invalid("json", text, "say short, pretty or off");
    options->json = (JsonMode) mode;
    return true;
}

static bool goal_parse(Options *options, const char *text) {
    if (strcmp(text, "ready") != 0 && strcmp(text, "concluded") != 0)
        return value_invalid("for", text, "say ready or concluded");
    options->goal = *text == 'r' ? GOAL_READY : GOAL_CONCLUDED;
    return true;
}

static bool option_apply(Options *options, int code, const char *text) {
    switch (code) {
    case 'h':
        options->help = true;
        return true;
    case OPT_VERSION:
        options->version = true;
        return true;
    case 'H':
        options->host = text;
        return true;
    case 'q':
        options->quiet = true;
        return true;
    case 'a':
        options->all = true;
        return true;
    case 'j':
        options->json = isatty(STDOUT_FILENO) ? JSON_PRETTY : JSON_SHORT;
        return true;
    case 'p':
        g_ptr_array_add(options->property, (char *) text);
        return true;
    case 'l':
    case OPT_FULL:
        options->full = true;
        return true;
    case OPT_NO_PAGER:
        options->no_pager = true;
        return true;
    case OPT_NO_LEGEND:
        options->no_legend = true;
        return true;
    case OPT_NO_ASK_PASSWORD:
        options->no_ask_password = true;
        return true;
    case OPT_NO_BLOCK:
        options->no_block = true;
        return true;
    case OPT_VALUE:
        options->value_only = true;
        return true;
    case OPT_JSON:
        return json_parse_mode(options, text);
    case OPT_FOR:
        return goal_parse(options, text);
    case OPT_TIMEOUT:
        return duration_parse(text, &options->timeout) >= 0 ||
               value_invalid("timeout", text, "give a duration, as in 500ms, 2s or 5min");
    default:
        return dictionary_set(options, &dictionary_options[code - OPT_DICTIONARY], text);
    }
}

static bool option_unknown(const struct option *table, const char *given) {
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    const char *name = given + strspn(given, "-");
    g_autofree char *word = g_strndup(name, strcspn(name, "="));

    for (; table->name; table++)
        g_ptr_array_add(names, (char *) table->name);
    g_ptr_array_add(names, NULL);
    const char *near = g_str_has_prefix(given, "--")
                           ? word_nearest(word, (const char *const *) names->pdata)
                           : NULL;
    fprintf(stderr, "blockjobctl: There is no option \"%s\"%s%s%s.\n", given,
            near ? "; did you mean --" : "", near ? near : "",
            near ? "?" : "; see blockjobctl --help");
    return false;
}

static struct option *long_options_new(void) {
    size_t n_fixed = G_N_ELEMENTS(fixed_options), n = G_N_ELEMENTS(dictionary_options);
    struct option *table = g_new0(struct option, n_fixed + n + 1);

    memcpy(table, fixed_options, sizeof(fixed_options));
    for (size_t i = 0; i < n; i++) {
        ValueType type = dictionary_options[i].type;
        table[n_fixed + i] = (struct option){
            .name = dictionary_options[i].name,
            .has_arg = type == TYPE_TRUE || type == TYPE_FALSE ? no_argument : required_argument,
            .val = OPT_DICTIONARY + (int) i,
        };
    }
    return table;
}

bool options_parse(Options *options, int argc, char **argv, int *ret_argc, char ***ret_argv) {
    g_autofree struct option *table = long_options_new();
    int code;

    *options = (Options){
        .property = g_ptr_array_new(),
        .dictionary = g_array_new(FALSE, TRUE, sizeof(DictionaryValue)),
    };
    g_array_set_clear_func(options->dictionary, value_clear);
    opterr = 0;
    optind = 0;
    while ((code = getopt_long(argc, argv, ":hH:qajp:l", table, NULL)) >= 0) {
        if (code == ':') {
            fprintf(stderr, "blockjobctl: The option \"%s\" needs a value.\n", argv[optind - 1]);
            return false;
        }
        if (code == '?') {
            char letter[] = {'-', (char) optopt, 0};
            bool is_letter = optopt > 0 && optopt < 256;
            return option_unknown(table, is_letter ? letter : argv[optind - 1]);
        }
        if (!option_apply(options, code, optarg))
            return false;
    }
    *ret_argc = argc - optind;
    *ret_argv = argv + optind;
    return true;
}

bool options_check(const Options *options, const char *verb, unsigned takes) {
    const char *wrong = NULL;

    for (guint i = 0; i < options->dictionary->len && !wrong; i++) {
        const DictionaryOption *option =
            g_array_index(options->dictionary, DictionaryValue, i).option;
        if (!(option->takes & takes))
            wrong = option->name;
    }
    if (options->all && !(takes & TAKES_ALL))
        wrong = "all";
    if (options->no_block && (!(takes & TAKES_WAITING) || (takes & TAKES_GOAL)))
        wrong = "no-block";
    if (options->timeout && !(takes & TAKES_WAITING))
        wrong = "timeout";
    if (options->goal != GOAL_CONCLUDED && !(takes & TAKES_GOAL))
        wrong = "for";
    if ((options->property->len > 0 || options->value_only) && !(takes & TAKES_PROPERTY))
        wrong = options->value_only ? "value" : "property";
    if (wrong)
        fprintf(stderr,
                "blockjobctl: The option --%s does not go with \"%s\"; see blockjobctl --help.\n",
                wrong, verb);
    return !wrong;
}

void options_clear(Options *options) {
    g_clear_pointer(&options->property, g_ptr_array_unref);
    g_clear_pointer(&options->dictionary, g_array_unref);
}

static const DictionaryValue *value_find(const Options *options, const char *name) {
    for (guint i = 0; i < options->dictionary->len; i++) {
        const DictionaryValue *value = &g_array_index(options->dictionary, DictionaryValue, i);
        if (strcmp(value->option->name, name) == 0)
            return value;
    }
    return NULL;
}

const char *options_get(const Options *options, const char *name) {
    const DictionaryValue *value = value_find(options, name);
    return value ? value->text : NULL;
}

int options_fd(const Options *options) {
    const DictionaryValue *value = value_find(options, "fd");
    return value ? (int) value->number : -1;
}

static int value_append(const DictionaryValue *value, sd_bus_message *m) {
    const char *key = value->option->key;

    switch (value->option->type) {
    case TYPE_STRING:
        return sd_bus_message_append(m, "{sv}", key, "s", value->text);
    case TYPE_PATH:
        return sd_bus_message_append(m, "{sv}", key, "s", value->path);
    case TYPE_TRUE:
    case TYPE_FALSE:
    case TYPE_BOOL:
        return sd_bus_message_append(m, "{sv}", key, "b", (int) value->number);
    case TYPE_SIZE32:
    case TYPE_COUNT32:
        return sd_bus_message_append(m, "{sv}", key, "u", (uint32_t) value->number);
    case TYPE_FD:
        return sd_bus_message_append(m, "{sv}", key, "h", (int) value->number);
    default:
        return sd_bus_message_append(m, "{sv}", key, "t", value->number);
    }
}

/* Those of which the options' `takes` has a bit of `with`, and none of `without`. */
static int append_some(const Options *options, sd_bus_message *m, unsigned with, unsigned without) {
    int r = sd_bus_message_open_container(m, 'a', "{sv}");

    for (guint i = 0; r >= 0 && i < options->dictionary->len; i++) {
        const DictionaryValue *value = &g_array_index(options->dictionary, DictionaryValue, i);
        if (value->option->takes & with && !(value->option->takes & without))
            r = value_append(value, m);
    }
    return r < 0 ? r : sd_bus_message_close_container(m);
}

int options_append(const Options *options, sd_bus_message *m) {
    return append_some(options, m, ~0u, 0);
}

int options_append_part(const Options *options, sd_bus_message *m, bool group) {
    return append_some(options, m, group ? TAKES_GROUP : ~0u, group ? 0 : TAKES_GROUP);
}
