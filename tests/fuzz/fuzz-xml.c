/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A domain XML: refused with a sentence, or read, edited for each of its disks, and still well-formed, with the change
 * in that disk and nowhere else. The sum of the input chooses the edit, so that the input is a document and no more. */

#include "domain/xml.h"
#include "fuzz.h"

static const char *const paths[] = {"/srv/new.qcow2", "/srv/a&b <\"c'>.qcow2",
                                    "/srv/\xc3\xa4\xe2\x82\xac.raw", "/dev/vg/lv]]>", "/srv/ x "};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    fuzz_init();
    return 0;
}

static DomainXml *reparse(const char *text) {
    g_auto(Failure) f = {0};
    DomainXml *x = NULL;

    if (!domain_xml_parse(text, strlen(text), &x, &f))
        g_error("What was edited is refused: %s\n%s", f.message, text);
    return x;
}

static void check_same_disk(const XmlDisk *a, const XmlDisk *b) {
    g_assert_cmpstr(a->target, ==, b->target);
    g_assert_cmpstr(a->source, ==, b->source);
    g_assert_cmpstr(a->format, ==, b->format);
    g_assert_cmpstr(a->alias, ==, b->alias);
}

/* Disk number changed of before stands on image in after; NULL: nothing may have changed. */
static void check_disks(const GPtrArray *before, const char *text, unsigned changed,
                        const XmlImage *image) {
    g_autoptr(DomainXml) x = reparse(text);
    g_autoptr(GPtrArray) after = domain_xml_disks(x);

    g_assert_cmpuint(after->len, ==, before->len);
    for (unsigned i = 0; i < after->len; i++) {
        const XmlDisk *disk = after->pdata[i], *old = before->pdata[i];
        if (!image || i != changed) {
            check_same_disk(disk, old);
            continue;
        }
        g_assert_cmpstr(disk->target, ==, old->target);
        g_assert_cmpstr(disk->source, ==, image->path);
        g_assert_cmpstr(disk->alias, ==, old->alias);
        if (image->format)
            g_assert_cmpstr(disk->format, ==, image->format);
    }
}

static void edit(DomainXml *x, const GPtrArray *before, unsigned which, uint32_t sum) {
    const XmlDisk *disk = before->pdata[which];
    const XmlImage chain[] = {{paths[sum % G_N_ELEMENTS(paths)], sum & 8 ? "qcow2" : NULL, false},
                              {"/srv/base.raw", "raw", (sum & 16) != 0},
                              {"/srv/floor.qcow2", NULL, false}};
    g_autofree char *target = g_strdup(disk->target), *untouched = domain_xml_to_text(x);
    g_auto(Failure) f = {0};

    if (domain_xml_set_disk(x, target, chain, 1 + sum / 32 % 3, sum & 256, sum & 512, &f)) {
        g_autofree char *text = domain_xml_to_text(x);
        fuzz_check_success(&f);
        check_disks(before, text, which, &chain[0]);
    } else {
        g_autofree char *text = domain_xml_to_text(x);
        g_assert_cmpstr(text, ==, untouched);
        g_assert_true(string_is_printable(f.message));
    }
}

static void mirror(DomainXml *x, const GPtrArray *before, unsigned which, uint32_t sum) {
    const XmlImage image = {paths[sum % G_N_ELEMENTS(paths)], sum & 8 ? "raw" : NULL, false};
    g_autofree char *target = g_strdup(((const XmlDisk *) before->pdata[which])->target);
    g_auto(Failure) f = {0};

    for (int i = 0; i < 2; i++) /* the second replaces the first */
        if (domain_xml_set_mirror(x, target, "copy", &image, sum & 16, i == 1, &f)) {
            g_autofree char *text = domain_xml_to_text(x);
            check_disks(before, text, 0, NULL);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t sum = crc32_update(0, data, size);
    g_autoptr(DomainXml) x = NULL;
    g_auto(Failure) f = {0};

    if (!domain_xml_parse((const char *) data, size, &x, &f)) {
        g_assert_null(x);
        fuzz_check_failure(&f, FAILURE_INVALID_ARGS);
        return 0;
    }
    fuzz_check_success(&f);
    g_autofree char *text = domain_xml_to_text(x);
    g_assert_cmpmem(text, strlen(text), data, size);
    g_autoptr(GPtrArray) disks = domain_xml_disks(x);
    if (disks->len == 0)
        return 0;
    /* The limit of the size is not what is looked for. */
    if (size + 4096 < XML_SIZE_MAX) {
        mirror(x, disks, sum % disks->len, sum >> 8);
        g_autoptr(DomainXml) y = reparse(text);
        edit(y, disks, sum % disks->len, sum >> 8);
    }
    return 0;
}
