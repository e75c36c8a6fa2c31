/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file descriptor store of the service manager. */

#include "fdstore.h"

#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "log.h"
#include "util.h"

#define NAME_PREFIX "qmp-"
#define READABLE_BYTES 40
#define HASH_DIGITS 32

static GHashTable *stored;   /* name → descriptor + 1 whose copy is in the store */
static GHashTable *restored; /* name → descriptor + 1, not taken yet */

/* A name in the store is ASCII without ":" and has at most 255 bytes; a key may be longer and of any letters. */
static char *name_of(const char *key) {
    g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, key, -1);
    g_autofree char *readable = g_strndup(key, READABLE_BYTES);

    for (char *p = readable; *p; p++)
        if (!g_ascii_isalnum(*p) && *p != '-' && *p != '_' && *p != '.')
            *p = '_';
    return g_strdup_printf(NAME_PREFIX "%s-%.*s", readable, HASH_DIGITS, hash);
}

static void tables_make(void) {
    if (stored)
        return;
    stored = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    restored = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

static void notify_remove(const char *name) {
    (void) sd_notifyf(false, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

void fdstore_restore(void) {
    g_auto(GStrv) names = NULL;
    int n = sd_listen_fds_with_names(true, &names);

    tables_make();
    for (int i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + i;
        int old = GPOINTER_TO_INT(g_hash_table_lookup(restored, names[i]));

        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || !g_str_has_prefix(names[i], NAME_PREFIX)) {
            log_warning("The service manager passed a descriptor \"%s\" that is none of ours.",
                        names[i]);
            fd_close(fd);
            continue;
        }
        if (old > 0) /* stored anew while the first had not left yet: the later one is in use */
            fd_close(old - 1);
        g_hash_table_insert(restored, g_strdup(names[i]), GINT_TO_POINTER(fd + 1));
        g_hash_table_insert(stored, g_strdup(names[i]), GINT_TO_POINTER(fd + 1));
    }
}

int fdstore_take(const char *key) {
    g_autofree char *name = name_of(key);

    tables_make();
    int fd = GPOINTER_TO_INT(g_hash_table_lookup(restored, name)) - 1;
    g_hash_table_remove(restored, name);
    return fd;
}

void fdstore_put(const char *key, int fd) {
    g_autofree char *name = name_of(key);
    g_autofree char *state = g_strdup_printf("FDSTORE=1\nFDNAME=%s", name);

    tables_make();
    int old = GPOINTER_TO_INT(g_hash_table_lookup(stored, name)) - 1;
    if (old == fd)
        return;
    if (old >= 0)
        notify_remove(name);
    int r = sd_pid_notify_with_fds(0, false, state, &fd, 1);
    if (r < 0)
        log_warning("The connection \"%s\" cannot be stored, a restart will connect anew: %s", name,
                    g_strerror(-r));
    else if (r > 0)
        g_hash_table_insert(stored, g_steal_pointer(&name), GINT_TO_POINTER(fd + 1));
}

void fdstore_remove(const char *key) {
    g_autofree char *name = name_of(key);

    if (stored && g_hash_table_remove(stored, name))
        notify_remove(name);
}

void fdstore_drop_rest(void) {
    GHashTableIter iter;
    void *name, *fd;

    tables_make();
    g_hash_table_iter_init(&iter, restored);
    while (g_hash_table_iter_next(&iter, &name, &fd)) {
        fd_close(GPOINTER_TO_INT(fd) - 1);
        notify_remove(name);
        g_hash_table_remove(stored, name);
        g_hash_table_iter_remove(&iter);
    }
}

void fdstore_clear(void) {
    g_clear_pointer(&stored, g_hash_table_unref);
    g_clear_pointer(&restored, g_hash_table_unref);
}
