/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Verbs about domains: attach, detach, xml; and finding domains and disks by name. */

#include "ctl-verbs.h"

#include <stdio.h>
#include <string.h>

int domain_find(Ctl *ctl, const char *domain, char **ret_path) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(sd_bus_message) reply = NULL;
    const char *path;
    int r =
        bus_request(ctl, CTL_ROOT, CTL_MANAGER, "GetDomain", false, &reply, &error, "s", domain);

    if (r >= 0)
        r = sd_bus_message_read(reply, "o", &path);
    if (r < 0)
        return (int) error_report(ctl, r, &error);
    *ret_path = g_strdup(path);
    return 0;
}

static void disk_complain(const char *domain, const char *folder, const char *disk,
                          const json_t *disks) {
    GString *names = g_string_new(NULL);
    json_t *path;
    size_t i;

    json_array_foreach (disks, i, path) {
        char *name = NULL;
        if (sd_bus_path_decode(json_string_value(path), folder, &name) > 0)
            g_string_append_printf(names, "%s%s", names->len ? ", " : "", name);
        free(name);
    }
    complain("The domain \"%s\" has no disk \"%s\"; it has %s.", domain, disk,
             names->len ? names->str : "none");
    g_string_free(names, TRUE);
}

int disk_find(Ctl *ctl, const char *domain, const char *disk, char **ret_path) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(json_t) properties = NULL;
    g_autofree char *domain_path = NULL;
    json_t *path;
    size_t i;
    int code = domain_find(ctl, domain, &domain_path);

    if (code != 0)
        return code;
    int r = bus_properties(ctl, domain_path, CTL_DOMAIN, &properties, &error);
    if (r < 0)
        return (int) error_report(ctl, r, &error);
    const json_t *disks = json_object_get(properties, "Disks");
    g_autofree char *folder = g_strdup_printf("%s/disk", domain_path);
    json_array_foreach (disks, i, path) {
        char *name = NULL;
        bool same = sd_bus_path_decode(json_string_value(path), folder, &name) > 0 &&
                    strcmp(name, disk) == 0;
        free(name);
        if (same) {
            *ret_path = g_strdup(json_string_value(path));
            return 0;
        }
    }
    disk_complain(domain, folder, disk, disks);
    return CTL_NO_OBJECT;
}

/* The socket's path for the service; NULL after a complaint. */
static char *socket_absolute(const Ctl *ctl, const char *socket) {
    if (ctl->options->host && *socket != '/') {
        complain("\"%s\" is a path on another host; give an absolute one.", socket);
        return NULL;
    }
    char *path = path_absolute(socket);
    if (!path)
        complain("The folder of \"%s\" cannot be found: %s.", socket, g_strerror(errno));
    return path;
}

static int attached_print(Ctl *ctl, const char *path) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(json_t) properties = NULL;
    int r;

    if (ctl->options->quiet)
        return 0;
    r = bus_properties(ctl, path, CTL_DOMAIN, &properties, &error);
    if (r < 0)
        return (int) error_report(ctl, r, &error);
    if (ctl->options->json)
        json_print(ctl, properties);
    else
        printf("Domain %s is attached: %s, QEMU %s, disks: %zu.\n",
               value_string(properties, "Name"), value_string(properties, "State"),
               value_string(properties, "QemuVersion"),
               json_array_size(json_object_get(properties, "Disks")));
    return 0;
}

int verb_attach(Ctl *ctl, int argc, char **argv) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(sd_bus_message) m = NULL, reply = NULL;
    bool by_fd = options_fd(ctl->options) >= 0;
    const char *path;

    if (by_fd ? argc > 1 : argc < 1) {
        complain(by_fd ? "With --fd there is no socket to name; say blockjobctl attach NAME --fd=N."
                       : "Say which socket: blockjobctl attach [NAME] SOCKET.");
        return CTL_USAGE;
    }
    const char *name = by_fd ? (argc == 1 ? argv[0] : "") : argc == 2 ? argv[0] : "";
    g_autofree char *socket = by_fd ? g_strdup("") : socket_absolute(ctl, argv[argc - 1]);
    if (!socket)
        return CTL_USAGE;
    int r = bus_connect(ctl);
    if (r != 0)
        return r;
    r = bus_call_new(ctl, CTL_ROOT, CTL_MANAGER, "AttachDomain", &m);
    if (r >= 0)
        r = sd_bus_message_append(m, "ss", name, socket);
    if (r >= 0)
        r = options_append(ctl->options, m);
    if (r >= 0)
        r = bus_call(ctl, m, true, &reply, &error);
    if (r >= 0)
        r = sd_bus_message_read(reply, "o", &path);
    return r < 0 ? (int) error_report(ctl, r, &error) : attached_print(ctl, path);
}

int verb_detach(Ctl *ctl, int argc, char **argv) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(sd_bus_message) m = NULL;
    g_autofree char *path = NULL;
    int r = bus_connect(ctl);

    if (r == 0)
        r = domain_find(ctl, argv[0], &path);
    if (r != 0)
        return r;
    r = bus_call_new(ctl, path, CTL_DOMAIN, "Detach", &m);
    if (r >= 0)
        r = options_append(ctl->options, m);
    if (r >= 0)
        r = bus_call(ctl, m, true, NULL, &error);
    return r < 0 ? (int) error_report(ctl, r, &error) : 0;
}

int verb_xml(Ctl *ctl, int argc, char **argv) {
    g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
    g_autoptr(sd_bus_message) m = NULL, reply = NULL;
    g_autofree char *path = NULL;
    const char *xml;
    int r = bus_connect(ctl);

    if (r == 0)
        r = domain_find(ctl, argv[0], &path);
    if (r != 0)
        return r;
    r = bus_call_new(ctl, path, CTL_DOMAIN, "GetXML", &m);
    if (r >= 0)
        r = options_append(ctl->options, m);
    if (r >= 0)
        r = bus_call(ctl, m, false, &reply, &error);
    if (r >= 0)
        r = sd_bus_message_read(reply, "s", &xml);
    if (r < 0)
        return (int) error_report(ctl, r, &error);
    fputs(xml, stdout);
    if (!g_str_has_suffix(xml, "\n"))
        putchar('\n');
    return 0;
}
