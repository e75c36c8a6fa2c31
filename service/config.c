/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading the configuration: one table of keys, each with its type, range and default. */

#include "config.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "util.h"

#define FILE_SIZE_MAX (1 * MIB)
#define USEC_PER_MIN (60 * USEC_PER_SEC)
#define USEC_PER_HOUR (60 * USEC_PER_MIN)
#define USEC_PER_DAY (24 * USEC_PER_HOUR)

typedef enum { TYPE_PATH, TYPE_PATHS, TYPE_COUNT32, TYPE_COUNT, TYPE_DURATION } Type;

typedef struct {
    const char *group, *name;
    Type type;
    size_t offset;          /* of the field in Config */
    uint64_t min, max;      /* of numbers */
    bool unlimited;         /* 0 means "no limit" and may also be written as infinity */
    const char *by_default; /* as it would stand in the file */
    bool at_start;          /* a reload does not change it */
} Key;

#define FIELD(name) offsetof(Config, name)

/* docs/check-manual.py reads this table and compares the manual with it. */
static const Key keys[] = {
    {"Service", "StateDirectory", TYPE_PATH, FIELD(state_dir), .at_start = true,
     .by_default = "/var/lib/blockjobd"},
    {"Service", "SocketDirectory", TYPE_PATH, FIELD(socket_dir), .at_start = true,
     .by_default = "/run/blockjobd/qmp"},
    {"Service", "TargetFolders", TYPE_PATHS, FIELD(target_folders),
     .by_default = "/var/lib/libvirt/images"},
    {"Service", "IdleTimeout", TYPE_DURATION, FIELD(idle_timeout), USEC_PER_SEC, USEC_PER_DAY, true,
     "30s"},
    {"Limits", "MaxDomains", TYPE_COUNT32, FIELD(max_domains), 1, 65536, false, "1024"},
    {"Limits", "MaxJobs", TYPE_COUNT32, FIELD(max_jobs), 1, 65536, false, "1024"},
    {"Limits", "MaxJobsPerUser", TYPE_COUNT32, FIELD(max_jobs_per_uid), 1, 65536, false, "64"},
    {"Jobs", "KeepFinishedJobs", TYPE_COUNT32, FIELD(keep_finished), 0, 65536, false, "256"},
    {"Jobs", "KeepFinishedTime", TYPE_DURATION, FIELD(keep_finished_age), 0, 366 * USEC_PER_DAY,
     false, "1h"},
    {"Jobs", "HistoryRows", TYPE_COUNT, FIELD(history_rows), 0, 1000000000, true, "100000"},
    {"Jobs", "HistoryTime", TYPE_DURATION, FIELD(history_age), 0, 36600 * USEC_PER_DAY, true,
     "90d"},
    {"Authorization", "MaxChecks", TYPE_COUNT32, FIELD(max_checks), 1, 4096, false, "64"},
    {"Authorization", "MaxChecksPerUser", TYPE_COUNT32, FIELD(max_checks_per_uid), 1, 4096, false,
     "8"},
    {"Authorization", "Timeout", TYPE_DURATION, FIELD(check_timeout), USEC_PER_SEC, USEC_PER_DAY,
     false, "5min"},
    {"Qemu", "CommandTimeout", TYPE_DURATION, FIELD(qmp_timeout), 100 * USEC_PER_MSEC,
     USEC_PER_HOUR, false, "10s"},
    {"Qemu", "GreetingTimeout", TYPE_DURATION, FIELD(greeting_timeout), 100 * USEC_PER_MSEC,
     USEC_PER_HOUR, false, "5s"},
    {"Qemu", "ReconnectMax", TYPE_DURATION, FIELD(reconnect_max), 100 * USEC_PER_MSEC, USEC_PER_DAY,
     false, "30s"},
};

/* Digits at *s, not more than 15 of them so that no unit can make it overflow; the pointer is moved behind them. */
static bool read_number(const char **s, uint64_t *ret) {
    const char *p = *s;
    uint64_t n = 0;

    while (g_ascii_isdigit(*p) && p - *s < 15)
        n = n * 10 + (uint64_t) (*p++ - '0');
    if (p == *s || g_ascii_isdigit(*p))
        return false;
    *s = p;
    *ret = n;
    return true;
}

static const char *skip_blanks(const char *s) {
    while (g_ascii_isspace(*s))
        s++;
    return s;
}

static bool read_unit(const char **s, uint64_t *ret) {
    static const struct {
        const char *name;
        uint64_t usec;
    } units[] = {
        {"us", 1},
        {"ms", USEC_PER_MSEC},
        {"s", USEC_PER_SEC},
        {"", USEC_PER_SEC},
        {"min", USEC_PER_MIN},
        {"m", USEC_PER_MIN},
        {"h", USEC_PER_HOUR},
        {"d", USEC_PER_DAY},
    };
    size_t n = 0;

    while (g_ascii_isalpha((*s)[n]))
        n++;
    for (size_t i = 0; i < G_N_ELEMENTS(units); i++)
        if (strlen(units[i].name) == n && strncmp(units[i].name, *s, n) == 0) {
            *s += n;
            *ret = units[i].usec;
            return true;
        }
    return false;
}

bool config_parse_duration(const char *s, uint64_t *ret) {
    uint64_t total = 0, n, unit;

    s = skip_blanks(s);
    if (g_str_equal(s, "infinity")) {
        *ret = UINT64_MAX;
        return true;
    }
    do {
        if (!read_number(&s, &n))
            return false;
        s = skip_blanks(s);
        if (!read_unit(&s, &unit) || n > (UINT64_MAX - 1 - total) / unit)
            return false;
        total += n * unit;
        s = skip_blanks(s);
    } while (*s);
    *ret = total;
    return true;
}

static bool parse_count(const char *s, uint64_t *ret) {
    if (g_str_equal(s, "infinity")) {
        *ret = UINT64_MAX;
        return true;
    }
    return read_number(&s, ret) && !*s;
}

/* An absolute path without "/" at its end, or NULL. */
static char *parse_path(const char *s) {
    g_auto(GStrv) parts = NULL;
    char *path;

    if (s[0] != '/' || !string_is_printable(s) || strlen(s) >= 4096)
        return NULL;
    parts = g_strsplit(s, "/", -1);
    if (g_strv_contains((const char *const *) parts, "..") ||
        g_strv_contains((const char *const *) parts, "."))
        return NULL;
    path = g_strdup(s);
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = 0;
    return path;
}

static unsigned warn(const Key *key, const char *file, const char *value, const char *why) {
    g_autofree char *shown = string_sanitize(value, 256);

    log_warning("%s: [%s] %s=: \"%s\" %s", file, key->group, key->name, shown, why);
    return 1;
}

static unsigned set_path(Config *c, const Key *key, const char *file, const char *value) {
    char **field = (char **) ((char *) c + key->offset);
    char *path = parse_path(value);

    if (!path)
        return warn(key, file, value, "is not an absolute path, ignoring it");
    g_free(*field);
    *field = path;
    return 0;
}

/* What is wrong is left out and the rest is taken: it must not open a folder that the administrator has not named. */
static unsigned set_paths(Config *c, const Key *key, const char *file, const char *value) {
    char ***field = (char ***) ((char *) c + key->offset);
    g_auto(GStrv) parts = g_strsplit(value, ":", -1);
    GPtrArray *paths = g_ptr_array_new();
    unsigned warnings = 0;

    for (char **p = parts; *p; p++) {
        char *path;

        if (!*g_strstrip(*p))
            continue;
        path = parse_path(*p);
        if (path)
            g_ptr_array_add(paths, path);
        else
            warnings += warn(key, file, *p, "is not an absolute path, leaving it out");
    }
    g_ptr_array_add(paths, NULL);
    g_strfreev(*field);
    *field = (char **) g_ptr_array_free(paths, FALSE);
    return warnings;
}

static unsigned set_number(Config *c, const Key *key, const char *file, const char *value) {
    void *field = (char *) c + key->offset;
    bool duration = key->type == TYPE_DURATION;
    uint64_t n;

    if (!(duration ? config_parse_duration(value, &n) : parse_count(value, &n)))
        return warn(key, file, value,
                    duration ? "is not a duration such as 90s, 5min, 1h or 30d, ignoring it"
                             : "is not a number, ignoring it");
    if (n == UINT64_MAX && key->unlimited)
        n = 0;
    if (!(n == 0 && key->unlimited) && (n < key->min || n > key->max))
        return warn(key, file, value, "is out of range, ignoring it; see blockjobd.conf(5)");
    if (key->type == TYPE_COUNT32)
        *(uint32_t *) field = (uint32_t) n;
    else
        *(uint64_t *) field = n;
    return 0;
}

static unsigned set_key(Config *c, const Key *key, const char *file, const char *value) {
    switch (key->type) {
    case TYPE_PATH:
        return set_path(c, key, file, value);
    case TYPE_PATHS:
        return set_paths(c, key, file, value);
    case TYPE_COUNT32:
    case TYPE_COUNT:
    case TYPE_DURATION:
        break;
    }
    return set_number(c, key, file, value);
}

static const Key *find_key(const char *group, const char *name) {
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
        if (g_str_equal(keys[i].group, group) && g_str_equal(keys[i].name, name))
            return &keys[i];
    return NULL;
}

static bool is_group(const char *line) {
    size_t n = strlen(line);
    return n > 2 && line[0] == '[' && line[n - 1] == ']' && strcspn(line + 1, "[]") == n - 2;
}

static bool is_assignment(const char *line) {
    size_t n = 0;

    while (g_ascii_isalnum(line[n]) || line[n] == '-')
        n++;
    return n > 0 && *skip_blanks(line + n) == '=';
}

/* GKeyFile refuses a whole file for one line that it cannot read. Such lines are left out here, so that the rest of the
 * file keeps its meaning. */
static char *filter_lines(const char *name, const char *text, unsigned *warnings) {
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    GString *out = g_string_new(NULL);
    bool in_group = false;
    unsigned number = 0;

    for (char **l = lines; *l; l++) {
        const char *line = g_strstrip(g_strdelimit(*l, "\t", ' '));

        number++;
        if (!*line || line[0] == '#' || line[0] == ';')
            continue;
        if (!string_is_printable(line) || !(is_group(line) || (in_group && is_assignment(line)))) {
            log_warning("%s:%u: this is neither [Group] nor Key=value in a group, ignoring it",
                        name, number);
            ++*warnings;
            continue;
        }
        in_group = true;
        g_string_append_printf(out, "%s\n", line);
    }
    return g_string_free(out, FALSE);
}

unsigned config_parse(Config *c, const char *name, const char *text, size_t size) {
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) error = NULL;
    g_autofree char *copy = g_strndup(text, size), *filtered = NULL;
    g_auto(GStrv) groups = NULL;
    unsigned warnings = 0;

    if (size > FILE_SIZE_MAX || strlen(copy) != size) {
        log_warning("%s: this is not a configuration file, ignoring it", name);
        return 1;
    }
    filtered = filter_lines(name, copy, &warnings);
    if (!g_key_file_load_from_data(file, filtered, strlen(filtered), G_KEY_FILE_NONE, &error) &&
        *filtered) {
        log_warning("%s: %s, ignoring the file", name, error->message);
        return warnings + 1;
    }
    groups = g_key_file_get_groups(file, NULL);
    for (char **g = groups; *g; g++) {
        g_auto(GStrv) names = g_key_file_get_keys(file, *g, NULL, NULL);

        for (char **k = names; k && *k; k++) {
            const Key *key = find_key(*g, *k);
            g_autofree char *value = g_key_file_get_value(file, *g, *k, NULL);

            if (key && value)
                warnings += set_key(c, key, name, value);
            else {
                log_warning("%s: [%s] %s=: there is no such key, ignoring it", name, *g, *k);
                warnings++;
            }
        }
    }
    return warnings;
}

/* False: it is not there. */
static bool read_file(Config *c, const char *path) {
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    size_t size;

    if (g_file_get_contents(path, &text, &size, &error)) {
        c->warnings += config_parse(c, path, text, size);
        return true;
    }
    if (g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOENT))
        return false;
    log_warning("%s, ignoring the file", error->message);
    c->warnings++;
    return true;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The drop-ins of all folders in the order of their names; of two with one name that of the first folder. */
static void read_drop_ins(Config *c, const char *const *folders) {
    g_autoptr(GHashTable) paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autofree char **names = NULL;
    unsigned n;

    for (; *folders; folders++) {
        g_autofree char *folder = g_build_filename(*folders, "blockjobd.conf.d", NULL);
        g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
        const char *name;

        while (dir && (name = g_dir_read_name(dir)))
            if (name[0] != '.' && g_str_has_suffix(name, ".conf") &&
                !g_hash_table_contains(paths, name))
                g_hash_table_insert(paths, g_strdup(name), g_build_filename(folder, name, NULL));
    }
    names = (char **) g_hash_table_get_keys_as_array(paths, &n);
    qsort(names, n, sizeof *names, compare_names);
    for (unsigned i = 0; i < n; i++)
        (void) read_file(c, g_hash_table_lookup(paths, names[i]));
}

Config *config_new(void) {
    Config *c = g_new0(Config, 1);

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        unsigned warnings = set_key(c, &keys[i], "default", keys[i].by_default);
        g_assert(warnings == 0);
    }
    return c;
}

Config *config_load_from(const char *const *folders) {
    Config *c = config_new();

    for (const char *const *folder = folders; *folder; folder++) {
        g_autofree char *path = g_build_filename(*folder, "blockjobd.conf", NULL);
        if (read_file(c, path))
            break;
    }
    read_drop_ins(c, folders);
    return c;
}

bool config_load(const char *file, Config **ret, Failure *f) {
    static const char *const folders[] = {"/etc/blockjobd", "/run/blockjobd", "/usr/lib/blockjobd",
                                          NULL};
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    size_t size;

    if (!file) {
        *ret = config_load_from(folders);
        return true;
    }
    if (!g_file_get_contents(file, &text, &size, &error))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The configuration cannot be read: %s. Name a file that exists.",
                           error->message);
    *ret = config_new();
    (*ret)->warnings = config_parse(*ret, file, text, size);
    return true;
}

static size_t key_size(const Key *key) {
    return key->type == TYPE_COUNT32 ? sizeof(uint32_t) : sizeof(uint64_t);
}

static bool key_is_equal(const Key *key, const void *a, const void *b) {
    switch (key->type) {
    case TYPE_PATH:
        return g_str_equal(*(char *const *) a, *(char *const *) b);
    case TYPE_PATHS:
        return g_strv_equal(*(const char *const *const *) a, *(const char *const *const *) b);
    case TYPE_COUNT32:
    case TYPE_COUNT:
    case TYPE_DURATION:
        break;
    }
    return memcmp(a, b, key_size(key)) == 0;
}

static void key_copy(const Key *key, void *to, const void *from) {
    if (key->type == TYPE_PATH) {
        g_free(*(char **) to);
        *(char **) to = g_strdup(*(char *const *) from);
    } else if (key->type == TYPE_PATHS) {
        g_strfreev(*(char ***) to);
        *(char ***) to = g_strdupv(*(char **const *) from);
    } else
        memcpy(to, from, key_size(key));
}

unsigned config_update(Config *c, const Config *fresh) {
    unsigned changed = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        void *to = (char *) c + keys[i].offset;
        const void *from = (const char *) fresh + keys[i].offset;

        if (key_is_equal(&keys[i], to, from))
            continue;
        if (keys[i].at_start) {
            log_notice("[%s] %s= has changed, which takes effect at the next start of the service.",
                       keys[i].group, keys[i].name);
            continue;
        }
        key_copy(&keys[i], to, from);
        changed++;
    }
    return changed;
}

Config *config_free(Config *c) {
    if (!c)
        return NULL;
    g_free(c->state_dir);
    g_free(c->socket_dir);
    g_strfreev(c->target_folders);
    g_free(c);
    return NULL;
}
