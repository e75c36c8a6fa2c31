/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Verbs that print a table: list, domains, disks, chain, history, permissions. */

#include "ctl-format.h"
#include "ctl-job.h"
#include "ctl-table.h"
#include "ctl-verbs.h"

#include <stdio.h>
#include <string.h>

static void table_show(const Ctl *ctl, const Table *table, const char *noun) {
    const Options *options = ctl->options;

    if (!options->no_pager)
        pager_open();
    if (table_rows(table) > 0)
        table_print(table, stdout, options->full ? 0 : terminal_columns(STDOUT_FILENO),
                    !options->no_legend);
    if (!options->no_legend && !options->quiet)
        printf("%s%zu %s%s.\n", table_rows(table) ? "\n" : "", table_rows(table), noun,
               table_rows(table) == 1 ? "" : "s");
    pager_close();
}

static void cell_size(Table *table, uint64_t size) {
    g_autofree char *text = size ? format_bytes(size) : g_strdup("");
    table_cell(table, "%s", text);
}

static void cell_time(Table *table, uint64_t usec) {
    g_autofree char *text = timestamp_format(usec);
    table_cell(table, "%s", text);
}

/* All objects with the interface as one array of their properties, in the order of their paths;
 * null if the service cannot be asked, *ret_code then says why. */
static json_t *objects_of(Ctl *ctl, const char *interface, int *ret_code) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(json_t) objects = NULL;
    json_t *found = json_array(), *interfaces;
    const char *path;
    int r = bus_objects(ctl, &objects, &error);

    *ret_code = r < 0 ? (int) error_report(ctl, r, &error) : 0;
    json_object_foreach (objects, path, interfaces) {
        json_t *properties = json_object_get(interfaces, interface);
        if (!json_is_object(properties))
            continue;
        json_object_set_new(properties, "Path", json_string(path));
        json_array_append(found, properties);
    }
    return found;
}

static int job_compare(const void *a, const void *b) {
    uint64_t first = value_u64(*(json_t *const *) a, "Id");
    uint64_t second = value_u64(*(json_t *const *) b, "Id");
    return first < second ? -1 : first > second;
}

static int path_compare(const void *a, const void *b) {
    return strcmp(value_string(*(json_t *const *) a, "Path"),
                  value_string(*(json_t *const *) b, "Path"));
}

/* The items of array that keep() wants, sorted. Takes array. */
static json_t *array_select(json_t *array_taken, bool (*keep)(const json_t *, const void *),
                            const void *userdata, int (*compare)(const void *, const void *)) {
    g_autoptr(GPtrArray) items = g_ptr_array_new();
    json_t *selected = json_array(), *item;
    size_t i;

    json_array_foreach (array_taken, i, item) {
        if (keep(item, userdata))
            g_ptr_array_add(items, item);
    }
    if (items->len > 0)
        qsort(items->pdata, items->len, sizeof(void *), compare);
    for (guint k = 0; k < items->len; k++)
        json_array_append(selected, items->pdata[k]);
    json_decref(array_taken);
    return selected;
}

static bool job_wanted(const json_t *job, const void *userdata) {
    const Options *options = userdata;
    return options->all || !job_is_concluded(job);
}

static void job_row(Table *table, const json_t *job) {
    g_autofree char *state = job_state_text(job), *left = job_left_text(job);
    bool running = strcmp(value_string(job, "State"), "running") == 0;
    g_autofree char *rate = running ? rate_format(value_u64(job, "Rate")) : g_strdup("");
    int percent = job_percent(job);

    table_cell(table, "%" PRIu64, value_u64(job, "Id"));
    table_cell(table, "%s", value_string(job, "Kind"));
    table_cell(table, "%s", value_string(job, "DomainName"));
    table_cell(table, "%s", value_string(job, "Disk"));
    table_cell(table, "%s", state);
    table_color(table, job_state_color(job));
    if (percent >= 0)
        table_cell(table, "%d %%", percent);
    else
        table_cell(table, "-");
    cell_size(table, value_u64(job, "Total"));
    table_cell(table, "%s", rate);
    table_cell(table, "%s", left);
    table_cell(table, "%s", value_string(job, "Target"));
}

int verb_list(Ctl *ctl, int argc, char **argv) {
    static const TableColumn columns[] = {
        {"JOB", .right = true},
        {"KIND"},
        {"DOMAIN"},
        {"DISK"},
        {"STATE"},
        {"DONE", .right = true},
        {"SIZE", .right = true},
        {"RATE", .right = true},
        {"LEFT", .right = true},
        {"TARGET", .shrink = true},
    };
    g_autoptr(Table) table = table_new(columns, G_N_ELEMENTS(columns));
    json_t *job;
    size_t i;
    int code = bus_connect(ctl);

    if (code != 0)
        return code;
    g_autoptr(json_t) jobs = objects_of(ctl, CTL_JOB, &code);
    if (code != 0)
        return code;
    jobs = array_select(jobs, job_wanted, ctl->options, job_compare);
    if (ctl->options->json) {
        json_print(ctl, jobs);
        return 0;
    }
    json_array_foreach (jobs, i, job) {
        job_row(table, job);
    }
    table_show(ctl, table, ctl->options->all ? "job" : "active job");
    return 0;
}

static bool any_wanted(const json_t *item, const void *userdata) {
    return true;
}

int verb_domains(Ctl *ctl, int argc, char **argv) {
    static const TableColumn columns[] = {
        {"NAME"},
        {"STATE"},
        {"DISKS", .right = true},
        {"JOBS", .right = true},
        {"QEMU"},
        {"SOCKET", .shrink = true},
        {"DEFINITION", .shrink = true},
    };
    g_autoptr(Table) table = table_new(columns, G_N_ELEMENTS(columns));
    json_t *domain;
    size_t i;
    int code = bus_connect(ctl);

    if (code != 0)
        return code;
    g_autoptr(json_t) domains = objects_of(ctl, CTL_DOMAIN, &code);
    if (code != 0)
        return code;
    domains = array_select(domains, any_wanted, NULL, path_compare);
    if (ctl->options->json) {
        json_print(ctl, domains);
        return 0;
    }
    json_array_foreach (domains, i, domain) {
        table_cell(table, "%s", value_string(domain, "Name"));
        table_cell(table, "%s", value_string(domain, "State"));
        table_cell(table, "%zu", json_array_size(json_object_get(domain, "Disks")));
        table_cell(table, "%zu", json_array_size(json_object_get(domain, "Jobs")));
        table_cell(table, "%s", value_string(domain, "QemuVersion"));
        table_cell(table, "%s", value_string(domain, "Socket"));
        table_cell(table, "%s", value_string(domain, "Definition"));
    }
    table_show(ctl, table, "domain");
    return 0;
}

/* The domain's name, out of the object path. */
static char *domain_name(const json_t *disk) {
    char *decoded = NULL;

    if (sd_bus_path_decode(value_string(disk, "Domain"), CTL_ROOT "/domain", &decoded) <= 0)
        return g_strdup("");
    char *name = g_strdup(decoded);
    free(decoded);
    return name;
}

static bool disk_wanted(const json_t *disk, const void *userdata) {
    const char *domain_path = userdata;
    return !domain_path || strcmp(value_string(disk, "Domain"), domain_path) == 0;
}

static void disk_row(Table *table, const json_t *disk) {
    g_autofree char *domain = domain_name(disk);
    const char *job = value_string(disk, "Job");
    uint64_t id;

    table_cell(table, "%s", domain);
    table_cell(table, "%s", value_string(disk, "Name"));
    cell_size(table, value_u64(disk, "Size"));
    cell_size(table, value_u64(disk, "Allocated"));
    table_cell(table, "%s", value_string(disk, "Format"));
    table_cell(table, "%s", value_bool(disk, "ReadOnly") ? "ro" : "rw");
    if (job_parse(job, &id) >= 0)
        table_cell(table, "%" PRIu64, id);
    else
        table_cell(table, "-");
    table_cell(table, "%s", value_string(disk, "Source"));
}

int verb_disks(Ctl *ctl, int argc, char **argv) {
    static const TableColumn columns[] = {
        {"DOMAIN"}, {"DISK"},   {"SIZE", .right = true}, {"ALLOCATED", .right = true},
        {"FORMAT"}, {"ACCESS"}, {"JOB", .right = true},  {"SOURCE", .shrink = true},
    };
    g_autoptr(Table) table = table_new(columns, G_N_ELEMENTS(columns));
    g_autofree char *domain_path = NULL;
    json_t *disk;
    size_t i;
    int code = bus_connect(ctl);

    if (code == 0 && argc > 0)
        code = domain_find(ctl, argv[0], &domain_path);
    if (code != 0)
        return code;
    g_autoptr(json_t) disks = objects_of(ctl, CTL_DISK, &code);
    if (code != 0)
        return code;
    disks = array_select(disks, disk_wanted, domain_path, path_compare);
    if (ctl->options->json) {
        json_print(ctl, disks);
        return 0;
    }
    json_array_foreach (disks, i, disk) {
        disk_row(table, disk);
    }
    table_show(ctl, table, "disk");
    return 0;
}

/* Calls a method that answers with one aa{sv}. */
static int records_get(Ctl *ctl, sd_bus_message *m, json_t **ret) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(sd_bus_message) reply = NULL;
    int r = bus_call(ctl, m, false, &reply, &error);

    if (r >= 0)
        r = value_read(reply, ret);
    return r < 0 ? (int) error_report(ctl, r, &error) : 0;
}

int verb_chain(Ctl *ctl, int argc, char **argv) {
    static const TableColumn columns[] = {
        {"LAYER", .right = true},
        {"NODE"},
        {"FORMAT"},
        {"SIZE", .right = true},
        {"ALLOCATED", .right = true},
        {"ACCESS"},
        {"FILE", .shrink = true},
    };
    g_autoptr(Table) table = table_new(columns, G_N_ELEMENTS(columns));
    g_autoptr(sd_bus_message) m = NULL;
    g_autoptr(json_t) chain = NULL;
    g_autofree char *path = NULL;
    json_t *image;
    size_t i;
    int code = bus_connect(ctl);

    if (code == 0)
        code = disk_find(ctl, argv[0], argv[1], &path);
    if (code != 0)
        return code;
    int r = bus_call_new(ctl, path, CTL_DISK, "GetChain", &m);
    code = r < 0 ? (int) error_report(ctl, r, NULL) : records_get(ctl, m, &chain);
    if (code != 0)
        return code;
    if (ctl->options->json) {
        json_print(ctl, chain);
        return 0;
    }
    json_array_foreach (chain, i, image) {
        table_cell(table, "%" PRIu64, value_u64(image, "index"));
        table_cell(table, "%s", value_string(image, "node"));
        table_cell(table, "%s", value_string(image, "format"));
        cell_size(table, value_u64(image, "size"));
        cell_size(table, value_u64(image, "allocated"));
        table_cell(table, "%s", value_bool(image, "read-only") ? "ro" : "rw");
        table_cell(table, "%s", value_string(image, "file"));
    }
    table_show(ctl, table, "image");
    return 0;
}

static void history_row(Table *table, const json_t *record) {
    g_autoptr(json_t) job = job_from_history(record);
    uint64_t created = value_u64(record, "created"), finished = value_u64(record, "finished");
    g_autofree char *took = finished > created ? duration_format(finished - created) : g_strdup("");

    table_cell(table, "%" PRIu64, value_u64(record, "id"));
    table_cell(table, "%s", value_string(record, "kind"));
    table_cell(table, "%s", value_string(record, "domain"));
    table_cell(table, "%s", value_string(record, "disk"));
    table_cell(table, "%s", value_string(record, "result"));
    table_color(table, job_state_color(job));
    cell_time(table, finished);
    table_cell(table, "%s", took);
    table_cell(table, "%s", value_string(record, "target"));
    table_cell(table, "%s", job_error(job));
}

int verb_history(Ctl *ctl, int argc, char **argv) {
    static const TableColumn columns[] = {
        {"JOB", .right = true},
        {"KIND"},
        {"DOMAIN"},
        {"DISK"},
        {"RESULT"},
        {"FINISHED"},
        {"TOOK", .right = true},
        {"TARGET", .shrink = true},
        {"ERROR", .shrink = true},
    };
    g_autoptr(Table) table = table_new(columns, G_N_ELEMENTS(columns));
    g_autoptr(sd_bus_message) m = NULL;
    g_autoptr(json_t) records = NULL;
    json_t *record;
    size_t i;
    int code = bus_connect(ctl);

    if (code != 0)
        return code;
    int r = bus_call_new(ctl, CTL_ROOT, CTL_MANAGER, "ListHistory", &m);
    if (r >= 0)
        r = options_append(ctl->options, m);
    code = r < 0 ? (int) error_report(ctl, r, NULL) : records_get(ctl, m, &records);
    if (code != 0)
        return code;
    if (ctl->options->json) {
        json_print(ctl, records);
        return 0;
    }
    json_array_foreach (records, i, record) {
        history_row(table, record);
    }
    table_show(ctl, table, "finished job");
    return 0;
}

int verb_permissions(Ctl *ctl, int argc, char **argv) {
    static const TableColumn columns[] = {{"ACTION"}, {"ANSWER"}};
    g_autoptr(Table) table = table_new(columns, G_N_ELEMENTS(columns));
    g_autoptr(sd_bus_message) m = NULL;
    g_autoptr(json_t) permissions = NULL;
    const char *action;
    json_t *answer;
    int code = bus_connect(ctl);

    if (code != 0)
        return code;
    int r = bus_call_new(ctl, CTL_ROOT, CTL_MANAGER, "GetPermissions", &m);
    code = r < 0 ? (int) error_report(ctl, r, NULL) : records_get(ctl, m, &permissions);
    if (code != 0)
        return code;
    if (ctl->options->json) {
        json_print(ctl, permissions);
        return 0;
    }
    json_object_foreach (permissions, action, answer) {
        const char *text = json_string_value(answer);
        table_cell(table, "%s", action);
        table_cell(table, "%s", text ? text : "");
    }
    table_show(ctl, table, "action");
    return 0;
}
