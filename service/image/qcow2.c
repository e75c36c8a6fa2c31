/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading a qcow2 header without trusting one byte of it, and writing that of a new image. Numbers in the header are
 * big-endian; offsets and limits are those of QEMU's docs/interop/qcow2.txt and block/qcow2.c. */

#include "image/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util.h"

#define MAGIC UINT32_C(0x514649fb) /* "QFI\xfb" */
#define HEADER_V2 72
#define HEADER_V3 104
#define CLUSTER_BITS_MIN 9
#define CLUSTER_BITS_MAX 21
#define CLUSTER_BITS_EXTENDED 14 /* least for extended L2 entries: 32 subclusters of 512 bytes */
#define BACKING_MAX 1023
#define BACKING_FORMAT_MAX 15

enum {
    INCOMPATIBLE_DIRTY,
    INCOMPATIBLE_CORRUPT,
    INCOMPATIBLE_DATA_FILE,
    INCOMPATIBLE_COMPRESSION,
    INCOMPATIBLE_EXTENDED_L2
};
#define INCOMPATIBLE_KNOWN UINT64_C(0x1f)

#define EXTENSION_END UINT32_C(0)
#define EXTENSION_BACKING_FORMAT UINT32_C(0xe2792aca)
#define EXTENSION_DATA_FILE UINT32_C(0x44415441)
#define EXTENSION_CRYPTO UINT32_C(0x0537be77)
#define EXTENSION_FEATURES UINT32_C(0x6803f857)

/* A new image: header, table of reference counts, their one block, L1 table; a cluster each, the last more. */
enum { AT_HEADER, AT_REFCOUNT_TABLE, AT_REFCOUNT_BLOCK, AT_L1 };
#define NEW_HEADER 112u /* with the type of compression and its padding */
#define NEW_CLUSTER_SIZE (64u * 1024)
#define REFCOUNT_ORDER 4u /* 16 bits each */
/* QEMU leaves the names of the features out where clusters are not larger. */
#define FEATURES_FROM 4096u
#define FEATURE_NAME 46
#define L1_MAX (32 * MIB) /* bytes; QCOW_MAX_L1_SIZE */
#define SECTOR 512u

static uint32_t be32(const uint8_t *p) {
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return GUINT32_FROM_BE(v);
}

static uint64_t be64(const uint8_t *p) {
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return GUINT64_FROM_BE(v);
}

void qcow2_header_clear(Qcow2Header *h) {
    g_free(h->backing_file);
    g_free(h->backing_format);
    *h = (Qcow2Header){0};
}

static bool broken(Failure *f, const char *what) {
    return failure_set(
        f, FAILURE_BAD_TARGET,
        "The qcow2 header of the image is damaged (%s); make the image anew with qemu-img create.",
        what);
}

/* A string of the header, for which what stands in sentences. NUL bytes would make QEMU read
 * another string than we. */
static bool text_parse(const uint8_t *data, size_t size, const char *what, char **ret, Failure *f) {
    g_autofree char *text = g_strndup((const char *) data, size);

    if (strlen(text) != size || !string_is_printable(text))
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "The %s in the qcow2 header has control characters in it or is not UTF-8; "
            "name it otherwise.",
            what);
    g_free(*ret);
    *ret = g_steal_pointer(&text);
    return true;
}

static bool features_parse(const uint8_t *data, size_t header_length, Qcow2Header *h, Failure *f) {
    uint64_t incompatible = be64(data + 72);

    if (header_length < HEADER_V3 || header_length % 8 != 0 || header_length > h->cluster_size)
        return broken(f, "length of the header");
    if (be32(data + 96) > 6)
        return broken(f, "width of the reference counts");
    h->dirty = incompatible >> INCOMPATIBLE_DIRTY & 1;
    h->corrupt = incompatible >> INCOMPATIBLE_CORRUPT & 1;
    h->external_data = incompatible >> INCOMPATIBLE_DATA_FILE & 1;
    h->extended_l2 = incompatible >> INCOMPATIBLE_EXTENDED_L2 & 1;
    h->unknown_incompatible = incompatible & ~INCOMPATIBLE_KNOWN;
    if (h->extended_l2 && h->cluster_size < 1u << CLUSTER_BITS_EXTENDED)
        return broken(f, "size of the clusters");
    return true;
}

/* The header extensions in data[at, end): type, length, the data, padded to 8 bytes. */
static bool extensions_parse(const uint8_t *data, size_t at, size_t end, Qcow2Header *h,
                             Failure *f) {
    while (end - at >= 8) {
        uint32_t type = be32(data + at);
        size_t length = be32(data + at + 4);

        at += 8;
        if (type == EXTENSION_END)
            return true;
        if (length > end - at)
            return broken(f, "length of a header extension");
        if (type == EXTENSION_BACKING_FORMAT) {
            if (length > BACKING_FORMAT_MAX)
                return broken(f, "format of the backing file");
            if (!text_parse(data + at, length, "format of the backing file", &h->backing_format, f))
                return false;
        } else if (type == EXTENSION_DATA_FILE)
            h->external_data = true;
        else if (type == EXTENSION_CRYPTO)
            h->encrypted = true;
        at += MIN((length + 7) & ~(size_t) 7, end - at);
    }
    return true;
}

static bool parse(const uint8_t *data, size_t size, Qcow2Header *h, Failure *f) {
    if (size < HEADER_V2 || be32(data) != MAGIC)
        return failure_set(
            f, FAILURE_BAD_TARGET,
            "The image does not begin with a qcow2 header; say its true format, or make it with "
            "qemu-img create -f qcow2.");
    h->version = be32(data + 4);
    if (h->version != 2 && h->version != 3)
        return failure_set(f, FAILURE_BAD_TARGET,
                           "The image is qcow2 of version %u; only 2 and 3 are supported.",
                           h->version);
    uint32_t cluster_bits = be32(data + 20);
    if (cluster_bits < CLUSTER_BITS_MIN || cluster_bits > CLUSTER_BITS_MAX)
        return broken(f, "size of the clusters");
    h->cluster_size = 1u << cluster_bits;
    h->virtual_size = be64(data + 24);
    if (h->virtual_size > INT64_MAX)
        return broken(f, "virtual size");
    uint32_t crypt_method = be32(data + 32);
    if (crypt_method > 2)
        return broken(f, "method of encryption");
    h->encrypted = crypt_method != 0;

    size_t header_length = HEADER_V2;
    if (h->version == 3) {
        if (size < HEADER_V3)
            return broken(f, "cut off");
        header_length = be32(data + 100);
        if (!features_parse(data, header_length, h, f))
            return false;
    }

    /* The backing file's name stands in the first cluster, behind the extensions. */
    uint64_t backing_at = be64(data + 8);
    size_t backing_length = be32(data + 16), end = h->cluster_size;
    if (backing_at != 0) {
        if (backing_length == 0 || backing_length > BACKING_MAX || backing_at < header_length ||
            backing_at > end || backing_length > end - backing_at)
            return broken(f, "place of the backing file's name");
        end = (size_t) backing_at;
        if (backing_at > size || backing_length > size - backing_at)
            return broken(f, "cut off in the backing file's name");
        if (!text_parse(data + backing_at, backing_length, "backing file's name", &h->backing_file,
                        f))
            return false;
    }
    if (header_length > size)
        return broken(f, "cut off");
    return extensions_parse(data, header_length, MIN(end, size), h, f);
}

bool qcow2_parse(const uint8_t *data, size_t size, Qcow2Header *ret, Failure *f) {
    g_auto(Qcow2Header) h = {0};

    if (!parse(data, size, &h, f))
        return false;
    *ret = h;
    h = (Qcow2Header){0};
    return true;
}

bool qcow2_read(int fd, Qcow2Header *ret, Failure *f) {
    g_autofree void *buffer = NULL;
    ssize_t n;

    /* Aligned and in one piece: the caller's descriptor may have O_DIRECT set. */
    if (posix_memalign(&buffer, 4096, QCOW2_HEAD) != 0)
        return failure_set(f, FAILURE_BAD_TARGET,
                           "There is no memory to read the header of the image.");
    do
        n = pread(fd, buffer, QCOW2_HEAD, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return failure_set(f, FAILURE_BAD_TARGET,
                           "The header of the image cannot be read: %s; check its storage.",
                           g_strerror(errno));
    return qcow2_parse(buffer, (size_t) n, ret, f);
}

/* ── a new image ── */

static const struct {
    uint8_t type, bit; /* type: 0 incompatible, 1 compatible, 2 autoclear */
    const char *name;
} features[] = {
    {0, INCOMPATIBLE_DIRTY, "dirty bit"},
    {0, INCOMPATIBLE_CORRUPT, "corrupt bit"},
    {0, INCOMPATIBLE_DATA_FILE, "external data file"},
    {0, INCOMPATIBLE_COMPRESSION, "compression type"},
    {0, INCOMPATIBLE_EXTENDED_L2, "extended L2 entries"},
    {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},
    {2, 1, "raw external data"},
};

static void append32(GByteArray *a, uint32_t v) {
    uint32_t be = GUINT32_TO_BE(v);

    g_byte_array_append(a, (const uint8_t *) &be, sizeof(be));
}

static void append64(GByteArray *a, uint64_t v) {
    uint64_t be = GUINT64_TO_BE(v);

    g_byte_array_append(a, (const uint8_t *) &be, sizeof(be));
}

static void append_zeros(GByteArray *a, size_t count) {
    guint at = a->len;

    g_byte_array_set_size(a, (guint) (at + count));
    memset(a->data + at, 0, count);
}

static uint32_t new_cluster_size(const Qcow2New *n) {
    return n->cluster_size ? n->cluster_size : NEW_CLUSTER_SIZE;
}

/* Each entry of the L1 table leads to a cluster of 8-byte entries of a cluster each. */
static uint64_t l1_entries(const Qcow2New *n) {
    uint64_t cluster = new_cluster_size(n), covered = cluster / 8 * cluster;

    return n->virtual_size / covered + (n->virtual_size % covered != 0);
}

static uint64_t clusters_used(const Qcow2New *n) {
    uint64_t cluster = new_cluster_size(n), bytes = l1_entries(n) * 8;

    return AT_L1 + MAX(1, (bytes + cluster - 1) / cluster);
}

static void append_extensions(GByteArray *a, const Qcow2New *n) {
    if (n->backing_file) {
        size_t length = strlen(n->backing_format);
        append32(a, EXTENSION_BACKING_FORMAT);
        append32(a, (uint32_t) length);
        g_byte_array_append(a, (const uint8_t *) n->backing_format, (guint) length);
        append_zeros(a, -length & 7);
    }
    if (new_cluster_size(n) > FEATURES_FROM) {
        append32(a, EXTENSION_FEATURES);
        append32(a, G_N_ELEMENTS(features) * (2 + FEATURE_NAME));
        for (size_t i = 0; i < G_N_ELEMENTS(features); i++) {
            uint8_t entry[2 + FEATURE_NAME] = {features[i].type, features[i].bit};
            memcpy(entry + 2, features[i].name, strlen(features[i].name));
            g_byte_array_append(a, entry, sizeof(entry));
        }
    }
    append32(a, EXTENSION_END);
    append32(a, 0);
}

static GByteArray *header_new(const Qcow2New *n) {
    GByteArray *a = g_byte_array_new();
    uint64_t cluster = new_cluster_size(n);
    size_t backing = n->backing_file ? strlen(n->backing_file) : 0;

    append32(a, MAGIC);
    append32(a, 3);
    append64(a, 0); /* where the backing file's name is; below */
    append32(a, (uint32_t) backing);
    append32(a, (uint32_t) g_bit_nth_lsf(cluster, -1));
    append64(a, n->virtual_size);
    append32(a, 0); /* not encrypted */
    append32(a, (uint32_t) l1_entries(n));
    append64(a, AT_L1 * cluster);
    append64(a, AT_REFCOUNT_TABLE * cluster);
    append32(a, 1);                 /* cluster of the table of reference counts */
    append_zeros(a, 4 + 8 + 3 * 8); /* no snapshots, no features in use */
    append32(a, REFCOUNT_ORDER);
    append32(a, NEW_HEADER);
    append_zeros(a, NEW_HEADER - a->len);
    append_extensions(a, n);
    if (backing) {
        uint64_t at = GUINT64_TO_BE((uint64_t) a->len);
        memcpy(a->data + 8, &at, sizeof(at));
        g_byte_array_append(a, (const uint8_t *) n->backing_file, (guint) backing);
    }
    return a;
}

bool qcow2_can_create(const Qcow2New *n) {
    uint32_t cluster = new_cluster_size(n);

    if (n->virtual_size == 0 || n->virtual_size > INT64_MAX || n->virtual_size % SECTOR != 0 ||
        l1_entries(n) > L1_MAX / 8 || clusters_used(n) > cluster / (1u << REFCOUNT_ORDER) * 8)
        return false;
    if (n->backing_file && (!n->backing_format || strlen(n->backing_file) > BACKING_MAX ||
                            strlen(n->backing_format) > BACKING_FORMAT_MAX))
        return false;
    g_autoptr(GByteArray) header = header_new(n);
    return header->len <= cluster;
}

static int write_at(int fd, const void *data, size_t size, uint64_t offset) {
    while (size > 0) {
        ssize_t written = pwrite(fd, data, size, (off_t) offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? -errno : -EIO;
        data = (const uint8_t *) data + written;
        offset += (uint64_t) written;
        size -= (size_t) written;
    }
    return 0;
}

int qcow2_create(int fd, const Qcow2New *n) {
    uint64_t cluster = new_cluster_size(n), used = clusters_used(n);
    g_autoptr(GByteArray) header = header_new(n), table = g_byte_array_new(),
                          counts = g_byte_array_new();
    int r;

    append64(table, AT_REFCOUNT_BLOCK * cluster);
    for (uint64_t i = 0; i < used; i++)
        g_byte_array_append(counts, (const uint8_t[]){0, 1}, 2);
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t) (used * cluster)) < 0)
        return -errno;
    r = write_at(fd, table->data, table->len, AT_REFCOUNT_TABLE * cluster);
    if (r >= 0)
        r = write_at(fd, counts->data, counts->len, AT_REFCOUNT_BLOCK * cluster);
    /* Last, so that what has a header is whole. */
    return r < 0 ? r : write_at(fd, header->data, header->len, AT_HEADER);
}
