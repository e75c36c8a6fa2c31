/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The header of a qcow2 image that a caller brings, read from its descriptor before QEMU opens it; and a new, empty
 * image. Format: QEMU's docs/interop/qcow2.txt. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

typedef struct {
    uint32_t version;      /* 2 or 3 */
    uint64_t virtual_size; /* bytes */
    uint32_t cluster_size; /* bytes */
    bool encrypted, extended_l2, corrupt, dirty;
    bool external_data; /* the feature bit is set, or the name of a data file is in the header */
    uint64_t unknown_incompatible; /* feature bits that we do not know */
    char *backing_file;            /* owned; NULL if none; printable UTF-8 */
    char *backing_format;          /* owned; NULL if the header does not say; printable UTF-8 */
} Qcow2Header;

void qcow2_header_clear(Qcow2Header *h);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Qcow2Header, qcow2_header_clear)

/* Parses the first size bytes of an image (QCOW2_HEAD are enough for any header we accept).
 * FAILURE_BAD_TARGET with a sentence for what is no qcow2 header or a broken one; what is
 * well-formed and unwelcome is only reported. */
#define QCOW2_HEAD (64u * 1024)
bool qcow2_parse(const uint8_t *data, size_t size, Qcow2Header *ret, Failure *f);
/* pread()s the head of fd and parses it. */
bool qcow2_read(int fd, Qcow2Header *ret, Failure *f);

/* An empty image of version 3, byte for byte as "qemu-img create" writes it, but for its length, which is that of whole
 * clusters. */
typedef struct {
    uint64_t virtual_size;                     /* bytes */
    uint32_t cluster_size;                     /* bytes; 0 = QEMU's default */
    const char *backing_file, *backing_format; /* both or none */
} Qcow2New;
/* Fits into what we write: one cluster for the header, one block of reference counts? Else it takes QEMU's
 * blockdev-create, which also has the words for what no image can have. */
bool qcow2_can_create(const Qcow2New *n);
/* Whatever was in the file is gone. Into the page cache, does not fsync. Negative errno. */
int qcow2_create(int fd, const Qcow2New *n);
