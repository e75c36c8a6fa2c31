/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verb journal: the whole journal as one document, from the service, or from its files when it does not run. */

#include "config.h"
#include "ctl-verbs.h"
#include "journal/export.h"

#include <stdio.h>
#include <string.h>

static int export_files(const char *folder) {
    g_auto(Failure) f = {0};
    g_autofree char *path = path_absolute(folder);

    if (export_closed(path ? path : folder, stdout, &f) >= 0)
        return CTL_DONE;
    complain("%s", f.message);
    return CTL_FAILED;
}

static int export_default(void) {
    g_autoptr(Config) config = NULL;
    g_auto(Failure) f = {0};

    if (config_load(NULL, &config, &f))
        return export_files(config->state_dir);
    complain("%s", f.message);
    return CTL_FAILED;
}

static int export_from_service(Ctl *ctl) {
    uint64_t next = 0;

    do {
        g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
        g_autoptr(sd_bus_message) reply = NULL;
        const char *part = "";
        int r = bus_request(ctl, CTL_ROOT, CTL_MANAGER, "ExportJournal", true, &reply, &error, "t",
                            next);
        if (r >= 0)
            r = sd_bus_message_read(reply, "st", &part, &next);
        if (r < 0)
            return error_report(ctl, r, &error);
        fputs(part, stdout);
    } while (next > 0);
    return CTL_DONE;
}

int verb_journal(Ctl *ctl, int argc, char **argv) {
    if (strcmp(argv[0], "export") != 0) {
        complain("Say blockjobctl journal export [FOLDER].");
        return CTL_USAGE;
    }
    if (argc == 2)
        return export_files(argv[1]);
    int code = bus_connect(ctl);
    if (code == 0)
        code = bus_track_owner(ctl);
    if (code != 0)
        return code;
    /* A service that was only started to be asked might find what is damaged, and mend it. */
    return ctl->owner || ctl->options->host ? export_from_service(ctl) : export_default();
}
