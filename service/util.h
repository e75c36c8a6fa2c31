/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Small helpers that every room may use. */

#include <errno.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_PER_SEC UINT64_C(1000000)
#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)
#define GIB (UINT64_C(1024) * MIB)

/* A file descriptor that closes itself: `autofd int fd = -1;`. fd_close() keeps errno and returns -1. */
static inline int fd_close(int fd) {
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
    return -1;
}
static inline void fd_closep(int *fd) {
    *fd = fd_close(*fd);
}
#define autofd __attribute__((cleanup(fd_closep)))
/* Takes the descriptor out of its variable, which is then -1. */
static inline int fd_steal(int *fd) {
    int taken = *fd;
    *fd = -1;
    return taken;
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(sd_bus_message, sd_bus_message_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(sd_bus_creds, sd_bus_creds_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(sd_bus_slot, sd_bus_slot_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(sd_event_source, sd_event_source_disable_unref)
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(sd_bus_error, sd_bus_error_free)

/* Microseconds of CLOCK_REALTIME, CLOCK_MONOTONIC. */
uint64_t now_realtime(void);
uint64_t now_monotonic(void);

/* Whether s is valid UTF-8 without control characters (tab and newline included). */
bool string_is_printable(const char *s);
/* s without control characters and cut to at most max bytes at a character's border. Owned by the caller. */
char *string_sanitize(const char *s, size_t max);
/* Index of s in the n strings of table, or -1. */
int string_index(const char *const *table, size_t n, const char *s);
/* IEC text of a byte count: "20 MiB", "1.4 GiB". Owned by the caller. */
char *format_bytes(uint64_t bytes);
/* CRC-32 (IEEE 802.3) of data, going on from crc (0 to start). */
uint32_t crc32_update(uint32_t crc, const void *data, size_t size);
