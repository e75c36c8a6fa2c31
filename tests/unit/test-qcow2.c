/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2 headers as qemu-img writes them, cut off at every length, with every bit flipped, and made
 * up; and new images of our own, which are those of qemu-img. */

#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "image/qcow2.h"
#include "util.h"

typedef struct {
    char *dir;
} Fixture;

static void fixture_clear(Fixture *x) {
    g_autoptr(GDir) dir = g_dir_open(x->dir, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(x->dir, name, NULL);
        g_unlink(path);
    }
    g_rmdir(x->dir);
    g_free(x->dir);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Fixture, fixture_clear)

static Fixture fixture_new(void) {
    Fixture x = {.dir = g_dir_make_tmp("blockjobd-qcow2-XXXXXX", NULL)};

    g_assert_nonnull(x.dir);
    return x;
}

/* An image made by qemu-img with the arguments in arguments (separated by spaces; "@" is the
 * folder). */
static int image(const Fixture *x, const char *name, const char *arguments) {
    g_autofree char *path = g_build_filename(x->dir, name, NULL);
    g_auto(GStrv) parts = g_strsplit(arguments, "@", -1);
    g_autofree char *joined = g_strjoinv(x->dir, parts);
    g_autofree char *command =
        g_strdup_printf("qemu-img create -q -f qcow2 %s %s 3M", joined, path);
    g_autoptr(GError) error = NULL;
    g_autofree char *messages = NULL;
    int status = 0;

    /* On a busy machine qemu-img cannot measure how long LUKS's key derivation takes, and gives up. */
    for (unsigned i = 0; i < 10; i++) {
        g_clear_pointer(&messages, g_free);
        g_spawn_command_line_sync(command, NULL, &messages, &status, &error);
        g_assert_no_error(error);
        if (status == 0)
            break;
    }
    if (status != 0)
        g_test_message("%s: %s", command, messages);
    g_assert_cmpint(status, ==, 0);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static void header_of(const Fixture *x, const char *arguments, Qcow2Header *ret) {
    autofd int fd = image(x, "image.qcow2", arguments);
    g_auto(Failure) f = {0};

    qcow2_header_clear(ret);
    qcow2_read(fd, ret, &f);
    g_assert_cmpstr(f.message, ==, NULL);
}

static const char luks[] = "--object secret,id=s,data=abc -o "
                           "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";

static void headers_of_qemu_img_are_read(void) {
    g_auto(Fixture) x = fixture_new();
    g_auto(Qcow2Header) h = {0};
    g_autofree char *base = g_build_filename(x.dir, "base.qcow2", NULL);

    header_of(&x, "-o compat=0.10", &h);
    g_assert_cmpuint(h.version, ==, 2);
    g_assert_cmpuint(h.virtual_size, ==, 3 * MIB);
    g_assert_cmpuint(h.cluster_size, ==, 64 * KIB);
    g_assert_null(h.backing_file);

    header_of(&x, "-o cluster_size=2M,compression_type=zstd,lazy_refcounts=on", &h);
    g_assert_cmpuint(h.version, ==, 3);
    g_assert_cmpuint(h.cluster_size, ==, 2 * MIB);
    g_assert_false(h.encrypted || h.external_data || h.extended_l2 || h.corrupt || h.dirty);
    g_assert_cmpuint(h.unknown_incompatible, ==, 0);

    header_of(&x, "-o cluster_size=512", &h);
    g_assert_cmpuint(h.cluster_size, ==, 512);

    header_of(&x, "-o extended_l2=on", &h);
    g_assert_true(h.extended_l2);

    header_of(&x, luks, &h);
    g_assert_true(h.encrypted);

    header_of(&x, "-o data_file=@/outside.raw", &h);
    g_assert_true(h.external_data);

    fd_close(image(&x, "base.qcow2", ""));
    header_of(&x, "-b @/base.qcow2 -F qcow2", &h);
    g_assert_cmpstr(h.backing_file, ==, base);
    g_assert_cmpstr(h.backing_format, ==, "qcow2");
    header_of(&x, "-o compat=0.10 -b @/base.qcow2 -F qcow2", &h);
    g_assert_cmpstr(h.backing_file, ==, base);
    g_assert_cmpstr(h.backing_format, ==, "qcow2");
    header_of(&x, "-u -b json:{\"driver\":\"nbd\"} -F raw", &h);
    g_assert_nonnull(h.backing_file);
}

/* What qemu-img writes for each of these is the seed of the two tests that follow. */
static const char *const seeds[] = {"-o compat=0.10 -u -b /some/base.img -F raw",
                                    "-u -b /some/base.qcow2 -F qcow2", "-o data_file=@/outside.raw",
                                    "-o extended_l2=on,compression_type=zstd", luks};

static void check_parse(const uint8_t *data, size_t size) {
    g_auto(Qcow2Header) h = {0};
    g_auto(Failure) f = {0};
    /* A copy of exactly that size, so that a read beyond it is seen. */
    g_autofree uint8_t *copy = g_memdup2(data, size);

    if (qcow2_parse(copy, size, &h, &f)) {
        g_assert_true(!h.backing_file || string_is_printable(h.backing_file));
        g_assert_true(!h.backing_format || string_is_printable(h.backing_format));
        g_assert_true(h.version == 2 || h.version == 3);
        return;
    }
    g_assert_cmpint(f.kind, ==, FAILURE_BAD_TARGET);
    g_assert_true(string_is_printable(f.message));
    g_assert_null(h.backing_file);
}

static size_t seed_read(const Fixture *x, size_t i, uint8_t *data, size_t size) {
    autofd int fd = image(x, "seed.qcow2", seeds[i]);
    ssize_t n = pread(fd, data, size, 0);

    g_assert_cmpint(n, >=, 4096);
    return (size_t) n;
}

static void header_cut_off_anywhere_is_refused_or_read(void) {
    g_auto(Fixture) x = fixture_new();

    for (size_t i = 0; i < G_N_ELEMENTS(seeds); i++) {
        uint8_t data[8192];
        size_t n = seed_read(&x, i, data, sizeof(data));
        for (size_t size = 0; size <= n; size++)
            check_parse(data, size);
        for (size_t size = 0; size < 72; size++) {
            g_auto(Qcow2Header) h = {0};
            g_auto(Failure) f = {0};
            g_assert_false(qcow2_parse(data, size, &h, &f));
        }
    }
}

static void header_with_any_bit_flipped_is_refused_or_read(void) {
    g_auto(Fixture) x = fixture_new();

    for (size_t i = 0; i < G_N_ELEMENTS(seeds); i++) {
        uint8_t data[4096];
        seed_read(&x, i, data, sizeof(data));
        for (size_t bit = 0; bit < sizeof(data) * 8; bit++) {
            data[bit / 8] ^= (uint8_t) (1 << bit % 8);
            check_parse(data, sizeof(data));
            data[bit / 8] ^= (uint8_t) (1 << bit % 8);
        }
    }
}

static void put32(uint8_t *p, uint32_t v) {
    v = GUINT32_TO_BE(v);
    memcpy(p, &v, sizeof(v));
}

/* A version 3 header with a backing file "/base" at 200 and, at 104, room for extensions. */
static void header_make(uint8_t *data, size_t size) {
    memset(data, 0, size);
    memcpy(data, "QFI\xfb", 4);
    put32(data + 4, 3);
    put32(data + 12, 200);
    put32(data + 16, 5);
    put32(data + 20, 16);
    put32(data + 28, 1u << 20);
    put32(data + 96, 4);
    put32(data + 100, 104);
    memcpy(data + 200, "/base", 5);
}

static void made_up_headers_are_refused(void) {
    static const struct {
        size_t at;
        uint32_t value;
        const char *hint;
    } cases[] = {
        {0, 0x514649fa, "does not begin"},
        {4, 1, "version 1"},
        {4, 4, "version 4"},
        {8, 1, "backing file's name"},
        {12, 50, "backing file's name"},
        {12, 65533, "backing file's name"},
        {12, 5000, "cut off"},
        {16, 0, "backing file's name"},
        {16, 1024, "backing file's name"},
        {16, UINT32_MAX, "backing file's name"},
        {20, 8, "clusters"},
        {20, 22, "clusters"},
        {20, UINT32_MAX, "clusters"},
        {24, UINT32_MAX, "virtual size"},
        {32, 3, "encryption"},
        {96, 7, "reference counts"},
        {100, 96, "header"},
        {100, 108, "header"},
        {100, UINT32_MAX & ~7u, "header"},
        {100, 8192, "backing file's name"},
        {200, 0x2f000000, "control characters"},
        {200, 0x2f0a6173, "control characters"},
        {200, 0xff6261ff, "control characters"},
        {108, UINT32_MAX, "extension"},
        {108, 96, "extension"},
    };
    uint8_t data[4096];

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(Qcow2Header) h = {0};
        g_auto(Failure) f = {0};
        header_make(data, sizeof(data));
        put32(data + 104, 0x6803f857);
        put32(data + cases[i].at, cases[i].value);
        g_assert_false(qcow2_parse(data, sizeof(data), &h, &f));
        if (!strstr(f.message, cases[i].hint))
            g_test_message("case %zu: %s", i, f.message);
        g_assert_nonnull(strstr(f.message, cases[i].hint));
    }
}

static void features_and_extensions_are_reported(void) {
    g_auto(Qcow2Header) h = {0};
    g_auto(Failure) f = {0};
    uint8_t data[4096];

    header_make(data, sizeof(data));
    put32(data + 76, 0x80000003);
    put32(data + 72, 1);
    g_assert_true(qcow2_parse(data, sizeof(data), &h, &f));
    g_assert_true(h.dirty && h.corrupt && !h.external_data);
    g_assert_cmpuint(h.unknown_incompatible, ==, UINT64_C(0x180000000));
    g_assert_cmpstr(h.backing_file, ==, "/base");
    g_assert_null(h.backing_format);
    qcow2_header_clear(&h);

    /* The last backing format counts, as in QEMU; a data file's name counts without its feature
     * bit. */
    header_make(data, sizeof(data));
    put32(data + 104, 0xe2792aca);
    put32(data + 108, 3);
    memcpy(data + 112, "raw", 3);
    put32(data + 120, 0xe2792aca);
    put32(data + 124, 5);
    memcpy(data + 128, "qcow2", 5);
    put32(data + 136, 0x44415441);
    put32(data + 140, 1);
    g_assert_true(qcow2_parse(data, sizeof(data), &h, &f));
    g_assert_cmpstr(h.backing_format, ==, "qcow2");
    g_assert_true(h.external_data);
    qcow2_header_clear(&h);

    put32(data + 124, 16);
    g_assert_false(qcow2_parse(data, sizeof(data), &h, &f));
    header_make(data, sizeof(data));
    put32(data + 20, 13);
    put32(data + 76, 1 << 4);
    g_assert_false(qcow2_parse(data, sizeof(data), &h, &f));
}

static void descriptors_of_any_kind_are_read(void) {
    g_auto(Fixture) x = fixture_new();
    g_auto(Qcow2Header) h = {0};
    g_auto(Failure) f = {0};
    g_autofree char *path = g_build_filename(x.dir, "image.qcow2", NULL);
    autofd int fd = image(&x, "image.qcow2", "");
    autofd int direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC),
               null = open("/dev/null", O_RDWR | O_CLOEXEC);
    autofd int writing = open(path, O_WRONLY | O_CLOEXEC);

    g_assert_cmpint(direct, >=, 0);
    g_assert_true(qcow2_read(direct, &h, &f));
    qcow2_header_clear(&h);
    g_assert_cmpint(ftruncate(fd, 1000), ==, 0);
    g_assert_true(qcow2_read(direct, &h, &f));
    g_assert_false(qcow2_read(null, &h, &f));
    g_assert_nonnull(strstr(f.message, "does not begin"));
    g_assert_false(qcow2_read(writing, &h, &f));
    g_assert_nonnull(strstr(f.message, "cannot be read"));
}

/* ── new images ── */

static void command_succeeds(const char *command) {
    g_autoptr(GError) error = NULL;
    g_autofree char *output = NULL, *messages = NULL;
    int status = 0;

    g_spawn_command_line_sync(command, &output, &messages, &status, &error);
    g_assert_no_error(error);
    if (status != 0)
        g_test_message("%s: %s%s", command, output, messages);
    g_assert_cmpint(status, ==, 0);
}

/* What qemu-img makes of the same: its bytes, and behind them only zeros up to whole clusters. */
static void same_as_qemu_img(const Fixture *x, const Qcow2New *n) {
    g_autofree char *ours = g_build_filename(x->dir, "ours.qcow2", NULL);
    g_autofree char *theirs = g_build_filename(x->dir, "theirs.qcow2", NULL);
    uint32_t cluster = n->cluster_size ? n->cluster_size : 65536;
    g_autofree char *backing =
        n->backing_file ? g_strdup_printf("-u -b %s -F %s", n->backing_file, n->backing_format)
                        : g_strdup("");
    g_autofree char *create =
        g_strdup_printf("qemu-img create -q -f qcow2 -o cluster_size=%u %s %s %" G_GUINT64_FORMAT,
                        cluster, backing, theirs, n->virtual_size);
    g_autofree char *check = g_strdup_printf("qemu-img check -q -f qcow2 %s", ours);
    g_autofree char *a = NULL, *b = NULL;
    gsize a_size, b_size;

    g_assert_true(qcow2_can_create(n));
    g_assert_true(g_file_set_contents(ours, "what was there before", -1, NULL));
    autofd int fd = open(ours, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(qcow2_create(fd, n), ==, 0);
    command_succeeds(create);
    g_assert_true(g_file_get_contents(ours, &a, &a_size, NULL));
    g_assert_true(g_file_get_contents(theirs, &b, &b_size, NULL));
    g_assert_cmpuint(a_size, >=, b_size);
    g_assert_cmpuint(a_size, ==, (b_size + cluster - 1) / cluster * cluster);
    g_assert_cmpmem(a, b_size, b, b_size);
    for (gsize i = b_size; i < a_size; i++)
        g_assert_cmpint(a[i], ==, 0);
    if (!n->backing_file)
        command_succeeds(check);
}

static void new_images_are_those_of_qemu_img(void) {
    static const struct {
        uint32_t cluster_size;
        uint64_t size;
    } cases[] = {
        {0, 512},
        {0, MIB},
        {0, 3 * MIB + 512},
        {0, 512 * MIB},
        {0, 513 * MIB},
        {0, 20 * 1024 * GIB},
        {512, 512},
        {512, 500 * MIB},
        {1024, 3 * GIB},
        {4096, 8 * MIB},
        {8192, 64 * MIB + 1536},
        {16384, GIB},
        {1u << 20, 1024 * GIB},
        {2u << 20, 64 * MIB},
    };
    g_auto(Fixture) x = fixture_new();
    g_autofree char *longest = g_strnfill(1023, 'b');

    longest[0] = '/';
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Qcow2New n = {.virtual_size = cases[i].size, .cluster_size = cases[i].cluster_size};
        same_as_qemu_img(&x, &n);
    }
    for (size_t i = 0; i < 3; i++) {
        const char *const names[] = {"/b", "/some/base.img", longest};
        Qcow2New n = {MIB, i == 0 ? 512 : 0, names[i], i == 1 ? "raw" : "qcow2"};
        same_as_qemu_img(&x, &n);
    }
}

static void what_takes_more_than_a_header_is_left_to_qemu(void) {
    g_autofree char *too_long = g_strnfill(1024, 'b'), *long_name = g_strnfill(500, 'b');
    const Qcow2New cases[] = {
        {.virtual_size = 0},
        {.virtual_size = 513},
        {.virtual_size = UINT64_MAX},
        {.virtual_size = UINT64_C(1) << 63},
        {.virtual_size = GIB, .cluster_size = 512},                    /* reference counts */
        {.virtual_size = UINT64_C(1) << 62, .cluster_size = 2u << 20}, /* L1 table */
        {MIB, 0, too_long, "raw"},
        {MIB, 512, long_name, "raw"},
        {MIB, 0, "/b", "a format of 16 b"},
        {MIB, 0, "/b", NULL},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        g_assert_false(qcow2_can_create(&cases[i]));
}

static void image_that_cannot_be_written_is_an_error(void) {
    const Qcow2New n = {.virtual_size = MIB};
    autofd int null = open("/dev/full", O_RDWR | O_CLOEXEC);
    autofd int readable = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(qcow2_create(null, &n), <, 0);
    g_assert_cmpint(qcow2_create(readable, &n), <, 0);
}

#define TEST(name) g_test_add_func("/qcow2/" #name, name)

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
    TEST(headers_of_qemu_img_are_read);
    TEST(header_cut_off_anywhere_is_refused_or_read);
    TEST(header_with_any_bit_flipped_is_refused_or_read);
    TEST(made_up_headers_are_refused);
    TEST(features_and_extensions_are_reported);
    TEST(descriptors_of_any_kind_are_read);
    TEST(new_images_are_those_of_qemu_img);
    TEST(what_takes_more_than_a_header_is_left_to_qemu);
    TEST(image_that_cannot_be_written_is_an_error);
    return g_test_run();
}
