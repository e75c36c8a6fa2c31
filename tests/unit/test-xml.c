/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Domain XML: what is refused, what is read, and that an edit changes its disk and not one other
 * byte. */

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "domain/markup.h"
#include "domain/xml.h"
#include "util.h"

static const char *const samples[] = {"virt-manager.xml", "commandline.xml", "chain.xml",
                                      "inline.xml", "crlf.xml"};

static char *data_path(const char *name) {
    const char *tests = g_getenv("BLOCKJOBD_TESTS");

    return g_build_filename(tests ? tests : "tests/unit", "data", "xml", name, NULL);
}

static GString *data_read(const char *name) {
    g_autofree char *path = data_path(name);
    g_autoptr(GError) error = NULL;
    char *text = NULL;
    gsize size = 0;

    g_file_get_contents(path, &text, &size, &error);
    g_assert_no_error(error);
    GString *s = g_string_new_len(text, (gssize) size);
    g_free(text);
    return s;
}

static DomainXml *parse(const char *text) {
    g_auto(Failure) f = {0};
    DomainXml *x = NULL;

    domain_xml_parse(text, strlen(text), &x, &f);
    g_assert_cmpstr(f.message, ==, NULL);
    g_assert_nonnull(x);
    return x;
}

static DomainXml *sample(const char *name) {
    GString *text = data_read(name);
    DomainXml *x = parse(text->str);

    g_string_free(text, TRUE);
    return x;
}

/* Fails unless text is refused with a sentence that has hint in it. */
static void refuse(const char *text, size_t size, const char *hint) {
    g_auto(Failure) f = {0};
    DomainXml *x = NULL;

    g_assert_false(domain_xml_parse(text, size, &x, &f));
    g_assert_null(x);
    g_assert_cmpint(f.kind, ==, FAILURE_INVALID_ARGS);
    g_assert_nonnull(strstr(f.message, hint));
    g_assert_true(g_str_has_suffix(f.message, "."));
    g_assert_true(string_is_printable(f.message));
}

static void set(DomainXml *x, const char *target, const XmlImage *chain, size_t n, bool block,
                bool with_backing) {
    g_auto(Failure) f = {0};

    domain_xml_set_disk(x, target, chain, n, block, with_backing, &f);
    g_assert_cmpstr(f.message, ==, NULL);
}

static const XmlDisk *disk_of(GPtrArray *disks, const char *target) {
    for (guint i = 0; i < disks->len; i++) {
        const XmlDisk *disk = g_ptr_array_index(disks, i);
        if (strcmp(disk->target, target) == 0)
            return disk;
    }
    return NULL;
}

/* text with the insides of comments, CDATA and processing instructions blotted out, so that
 * strstr() finds only tags. */
static char *blotted(const char *text) {
    static const char *const pairs[][2] = {{"<!--", "-->"}, {"<![CDATA[", "]]>"}, {"<?", "?>"}};
    char *copy = g_strdup(text);

    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++)
        for (char *p = copy, *end; (p = strstr(p, pairs[i][0])) && (end = strstr(p, pairs[i][1]));
             p = end)
            memset(p, '#', (size_t) (end - p));
    return copy;
}

/* Where the disk with that target begins and ends; found without the code under test. */
static void disk_range(const char *text, const char *target, size_t *ret_start, size_t *ret_end) {
    g_autofree char *copy = blotted(text);
    g_autofree char *one = g_strdup_printf("'%s'", target),
                    *two = g_strdup_printf("\"%s\"", target);
    const char *devices = strstr(copy, "<devices");

    for (char *p = strstr(devices, "<disk"); p; p = strstr(p + 1, "<disk")) {
        char *end = strstr(p, "</disk>") + strlen("</disk>"), saved = *end;
        *end = '\0';
        bool found = strstr(p, one) || strstr(p, two);
        *end = saved;
        if (!found)
            continue;
        *ret_start = (size_t) (p - copy);
        *ret_end = (size_t) (end - copy);
        return;
    }
    g_assert_not_reached();
}

static void assert_same_outside(const char *before, const char *after, const char *target) {
    size_t start, end, start_after, end_after;

    disk_range(before, target, &start, &end);
    disk_range(after, target, &start_after, &end_after);
    g_assert_cmpuint(start, ==, start_after);
    g_assert_cmpmem(before, start, after, start);
    g_assert_cmpstr(before + end, ==, after + end_after);
}

/* The disk's own text, for comparing with what is expected. */
static char *disk_text(const DomainXml *x, const char *target) {
    g_autofree char *text = domain_xml_to_text(x);
    size_t start, end;

    disk_range(text, target, &start, &end);
    return g_strndup(text + start, end - start);
}

/* ---- Reading ---- */

static void unedited_document_comes_back_byte_for_byte(void) {
    for (size_t i = 0; i < G_N_ELEMENTS(samples); i++) {
        g_autofree char *path = data_path(samples[i]);
        g_autoptr(DomainXml) x = NULL;
        g_auto(Failure) f = {0};
        GString *text = data_read(samples[i]);
        g_assert_true(domain_xml_load(path, &x, &f));
        g_autofree char *out = domain_xml_to_text(x);
        g_assert_cmpstr(out, ==, text->str);
        g_string_free(text, TRUE);
    }
}

static void disks_are_read(void) {
    g_autoptr(DomainXml) x = sample("virt-manager.xml"), y = sample("commandline.xml");
    g_autoptr(GPtrArray) disks = domain_xml_disks(x);
    g_autoptr(GPtrArray) network = domain_xml_disks(y);

    g_assert_cmpuint(disks->len, ==, 3);
    g_assert_cmpstr(disk_of(disks, "vda")->source, ==, "/var/lib/libvirt/images/debian12.qcow2");
    g_assert_cmpstr(disk_of(disks, "vda")->format, ==, "qcow2");
    g_assert_null(disk_of(disks, "vda")->alias);
    g_assert_cmpstr(disk_of(disks, "vdb")->source, ==, "/var/lib/libvirt/images/data & more.img");
    g_assert_null(disk_of(disks, "sda")->source);

    g_assert_cmpuint(network->len, ==, 5);
    g_assert_cmpstr(disk_of(network, "vda")->source, ==, "/dev/vg0/build");
    g_assert_null(disk_of(network, "vda")->format);
    g_assert_cmpstr(disk_of(network, "vda")->alias, ==, "ua-root");
    g_assert_null(disk_of(network, "vdb")->source);
    g_assert_null(disk_of(network, "vdd")->source);
}

static void hostile_documents_are_refused(void) {
    static const struct {
        const char *name, *hint;
    } cases[] = {{"laughs.xml", "DOCTYPE"},
                 {"external-entity.xml", "DOCTYPE"},
                 {"external-dtd.xml", "DOCTYPE"},
                 {"other-root.xml", "<domain>"},
                 {"foreign-root.xml", "<domain>"},
                 {"unclosed.xml", "line 1"},
                 {"latin1.xml", "UTF-8"},
                 {"latin1-ascii.xml", "UTF-8"},
                 {"utf16.xml", "UTF-8"},
                 {"entity.xml", "undeclared"},
                 {"empty.xml", "empty"}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *name = g_build_filename("refused", cases[i].name, NULL);
        GString *text = data_read(name);
        refuse(text->str, text->len, cases[i].hint);
        g_string_free(text, TRUE);
    }
    refuse("<domain>\0</domain>", 18, "UTF-8");
    refuse("<domain><name>a</name></domain><domain/>", 40, "well-formed");
}

static void size_and_depth_are_limited(void) {
    const char *head = "<domain><name>big</name><!--", *tail = "--></domain>";
    g_autofree char *text = g_malloc(XML_SIZE_MAX + 2);
    g_auto(Failure) f = {0};
    g_autoptr(DomainXml) x = NULL;

    memset(text, 'x', XML_SIZE_MAX + 1);
    memcpy(text, head, strlen(head));
    memcpy(text + XML_SIZE_MAX + 1 - strlen(tail), tail, strlen(tail));
    text[XML_SIZE_MAX + 1] = '\0';
    refuse(text, XML_SIZE_MAX + 1, "at most");
    memmove(text + XML_SIZE_MAX - strlen(tail), tail, strlen(tail));
    g_assert_true(domain_xml_parse(text, XML_SIZE_MAX, &x, &f));

    GString *deep = g_string_new("<domain>");
    for (int i = 0; i < 1000; i++)
        g_string_append(deep, "<a>");
    for (int i = 0; i < 1000; i++)
        g_string_append(deep, "</a>");
    g_string_append(deep, "</domain>");
    refuse(deep->str, deep->len, "well-formed");
    g_string_free(deep, TRUE);
}

static void xinclude_is_text_like_any_other(void) {
    const char *text =
        "<domain><name>x</name><xi:include xmlns:xi='http://www.w3.org/2001/XInclude' "
        "href='file:///etc/passwd' parse='text'/></domain>";
    g_autoptr(DomainXml) x = parse(text);
    g_autofree char *out = domain_xml_to_text(x);

    g_assert_cmpstr(out, ==, text);
}

static void only_regular_files_are_loaded(void) {
    g_autofree char *dir = g_dir_make_tmp("blockjobd-xml-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(dir, "a.xml", NULL),
                    *link = g_build_filename(dir, "b.xml", NULL),
                    *pipe_path = g_build_filename(dir, "c.xml", NULL),
                    *big = g_build_filename(dir, "d.xml", NULL);
    g_autoptr(DomainXml) x = NULL;
    const char *const bad[] = {link, pipe_path, big, dir, "/nonexistent/x.xml"};

    g_assert_true(g_file_set_contents(file, "<domain><name>n</name></domain>", -1, NULL));
    g_assert_cmpint(symlink(file, link), ==, 0);
    g_assert_cmpint(mkfifo(pipe_path, 0600), ==, 0);
    g_assert_true(g_file_set_contents(big, "", 0, NULL));
    g_assert_cmpint(truncate(big, INT64_C(1) << 40), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_auto(Failure) f = {0};
        g_assert_false(domain_xml_load(bad[i], &x, &f));
        g_assert_cmpint(f.kind, ==, FAILURE_INVALID_ARGS);
    }
    g_auto(Failure) f = {0};
    g_assert_true(domain_xml_load(file, &x, &f));
    g_autofree char *loaded = domain_xml_to_text(x);
    g_assert_nonnull(strstr(loaded, "<name>n</name>"));
    g_unlink(file);
    g_unlink(link);
    g_unlink(pipe_path);
    g_unlink(big);
    g_rmdir(dir);
}

/* ---- Editing ---- */

static const XmlImage new_chain[] = {{"/srv/neu/Größe \"x\" & <y>'s.qcow2", "qcow2"},
                                     {"/srv/neu/base.qcow2", "qcow2"},
                                     {"/dev/vg0/lower & lower", "raw", true}};

/* Every disk of every sample, each kind of edit: the disk reads back as asked for, nothing else has
 * changed, and the same edit again changes nothing at all. */
static void edit_changes_nothing_outside_its_disk(void) {
    unsigned edits = 0;

    for (size_t s = 0; s < G_N_ELEMENTS(samples); s++) {
        g_autoptr(DomainXml) original = sample(samples[s]);
        g_autoptr(GPtrArray) disks = domain_xml_disks(original);
        for (guint i = 0; i < disks->len; i++)
            for (unsigned kind = 0; kind < 8; kind++) {
                bool block = kind & 1, with_backing = kind & 2;
                size_t n = kind & 4 ? 3 : 1;
                const XmlDisk *disk = g_ptr_array_index(disks, i);
                if (strcmp(disk->target, "sdb") == 0 && strcmp(samples[s], "commandline.xml") == 0)
                    block = true; /* the passed-through LUN */
                g_autoptr(DomainXml) x = sample(samples[s]);
                g_autofree char *before = domain_xml_to_text(x);
                set(x, disk->target, new_chain, n, block, with_backing);
                g_autofree char *after = domain_xml_to_text(x);
                assert_same_outside(before, after, disk->target);
                g_autoptr(DomainXml) again = parse(after);
                g_autoptr(GPtrArray) edited = domain_xml_disks(again);
                g_assert_cmpuint(edited->len, ==, disks->len);
                g_assert_cmpstr(disk_of(edited, disk->target)->source, ==, new_chain[0].path);
                g_assert_cmpstr(disk_of(edited, disk->target)->format, ==, "qcow2");
                g_assert_cmpstr(disk_of(edited, disk->target)->alias, ==, disk->alias);
                set(again, disk->target, new_chain, n, block, with_backing);
                g_autofree char *twice = domain_xml_to_text(again);
                g_assert_cmpstr(twice, ==, after);
                edits++;
            }
    }
    g_assert_cmpuint(edits, ==, 8 * (3 + 5 + 2 + 3 + 3));
}

static void plain_pivot_changes_two_values(void) {
    const XmlImage image = {"/srv/new.img", "raw"};
    g_autoptr(DomainXml) x = sample("virt-manager.xml");
    g_autofree char *before = disk_text(x, "vda");

    set(x, "vda", &image, 1, false, false);
    g_autofree char *after = disk_text(x, "vda");
    g_auto(GStrv) parts = g_strsplit(before, "qcow2' discard", 2);
    g_autofree char *step = g_strjoinv("raw' discard", parts);
    g_auto(GStrv) more = g_strsplit(step, "/var/lib/libvirt/images/debian12.qcow2", 2);
    g_autofree char *expected = g_strjoinv("/srv/new.img", more);
    g_assert_cmpstr(after, ==, expected);
}

static void same_image_changes_nothing(void) {
    const XmlImage image = {"/var/lib/libvirt/images/data & more.img", "raw"};
    const XmlImage chain[] = {{"/srv/images/chain.snap2", "qcow2"},
                              {"/srv/images/chain.snap1", "qcow2"},
                              {"/dev/vg0/base", "raw", true}};
    g_autoptr(DomainXml) x = sample("virt-manager.xml"), y = sample("chain.xml");
    g_autofree char *before = domain_xml_to_text(x), *chain_before = domain_xml_to_text(y);

    set(x, "vdb", &image, 1, false, false);
    set(y, "vda", chain, 3, false, true);
    set(y, "vda", chain, 1, false, false);
    g_autofree char *after = domain_xml_to_text(x), *chain_after = domain_xml_to_text(y);
    g_assert_cmpstr(before, ==, after);
    g_assert_cmpstr(chain_before, ==, chain_after);
}

static void seclabel_and_policy_stay_index_goes(void) {
    const XmlImage image = {"/srv/new.qcow2", "qcow2"};
    g_autoptr(DomainXml) x = sample("virt-manager.xml"), y = sample("crlf.xml");

    set(x, "vdb", &image, 1, false, false);
    set(y, "sdb", &image, 1, false, false);
    g_autofree char *vdb = disk_text(x, "vdb"), *sdb = disk_text(y, "sdb");
    g_assert_nonnull(strstr(vdb,
                            "      <source file='/srv/new.qcow2' startupPolicy='optional'>\n"
                            "        <seclabel model='dac' relabel='no'/>\n      </source>\n"));
    g_assert_nonnull(strstr(
        sdb, "<driver name='qemu' type='qcow2'/>\r\n            <source file='/srv/new.qcow2'\r\n"
             "                    startupPolicy='mandatory'/>\r\n"));
}

static void network_disk_becomes_a_file(void) {
    const XmlImage image = {"/srv/new.qcow2", "qcow2"};
    g_autoptr(DomainXml) x = sample("commandline.xml");

    set(x, "vdb", &image, 1, false, false);
    set(x, "vdc", &image, 1, false, false);
    set(x, "vdd", &image, 1, false, false);
    g_autofree char *vdb = disk_text(x, "vdb"), *vdc = disk_text(x, "vdc"),
                    *vdd = disk_text(x, "vdd");
    g_assert_cmpstr(vdb, ==,
                    "<disk type=\"file\" device=\"disk\">\n"
                    "\t\t\t<driver name=\"qemu\" type=\"qcow2\"/>\n"
                    "\t\t\t<source file=\"/srv/new.qcow2\"/>\n"
                    "\t\t\t<target dev=\"vdb\" bus=\"virtio\"/>\n"
                    "\t\t\t<boot order=\"2\"/>\n\t\t</disk>");
    g_assert_nonnull(strstr(vdc,
                            "<source file=\"/srv/new.qcow2\">\n\t\t\t\t<seclabel model=\"selinux\" "
                            "relabel=\"no\"/><!-- stays -->\n\t\t\t</source>"));
    g_assert_null(strstr(vdd, "encryption"));
    g_assert_nonnull(strstr(vdd, "<source file=\"/srv/new.qcow2\"/>"));
}

static void type_follows_the_storage(void) {
    const XmlImage device = {"/dev/vg0/new", "raw"}, file = {"/srv/new.img", "raw"};
    g_autoptr(DomainXml) x = sample("inline.xml"), y = sample("commandline.xml");
    g_auto(Failure) f = {0};

    set(x, "vda", &device, 1, true, false);
    g_autofree char *vda = disk_text(x, "vda");
    g_assert_cmpstr(vda, ==,
                    "<disk device=\"disk\" type=\"block\"><driver name=\"qemu\" type=\"raw\"/>"
                    "<source dev=\"/dev/vg0/new\"/><target dev=\"vda\"/></disk>");
    set(y, "vda", &file, 1, false, false);
    g_autofree char *root = disk_text(y, "vda");
    g_assert_true(g_str_has_prefix(
        root, "<disk type=\"file\" device=\"disk\" snapshot=\"no\">\n\t\t\t<driver "
              "name=\"qemu\" cache=\"none\" io=\"native\" queues='4' type=\"raw\"/>\n"
              "\t\t\t<source   file = \"/srv/new.img\"\n\t\t\t\t/>\n"));
    g_assert_false(domain_xml_set_disk(y, "sdb", &file, 1, false, false, &f));
    g_assert_cmpint(f.kind, ==, FAILURE_NOT_SUPPORTED);
    set(y, "sdb", &device, 1, true, false);
}

static void empty_drive_gets_driver_and_source(void) {
    const XmlImage image = {"/srv/new.img", "raw"};
    g_autoptr(DomainXml) x = sample("crlf.xml"), y = sample("inline.xml");

    set(x, "fda", &image, 1, false, true);
    set(y, "hdc", &image, 1, false, false);
    g_autofree char *fda = disk_text(x, "fda"), *hdc = disk_text(y, "hdc");
    g_assert_cmpstr(fda, ==,
                    "<disk type='file' device='floppy'>\r\n"
                    "            <driver name='qemu' type='raw'/>\r\n"
                    "            <source file='/srv/new.img'/>\r\n"
                    "            <backingStore/>\r\n"
                    "            <target dev='fda'/>\r\n"
                    "        </disk>");
    g_assert_cmpstr(
        hdc, ==,
        "<disk type=\"file\" ><driver name=\"qemu\" type=\"raw\"/><source file=\"/srv/new.img\"/>"
        "<target dev=\"hdc\" bus=\"ide\"/></disk>");
}

static void chain_is_written_nested(void) {
    g_autoptr(DomainXml) x = sample("virt-manager.xml"), y = sample("chain.xml");
    const XmlImage chain[] = {{"/a", "qcow2"}, {"/b", NULL}, {"/dev/c", "raw", true}};
    const XmlImage one = {"/a", "qcow2"};

    set(x, "vda", chain, 3, false, true);
    g_autofree char *vda = disk_text(x, "vda");
    g_assert_nonnull(strstr(vda, "      <source file='/a'/>\n"
                                 "      <backingStore type='file'>\n"
                                 "        <source file='/b'/>\n"
                                 "        <backingStore type='block'>\n"
                                 "          <format type='raw'/>\n"
                                 "          <source dev='/dev/c'/>\n"
                                 "          <backingStore/>\n"
                                 "        </backingStore>\n"
                                 "      </backingStore>\n"
                                 "      <target dev='vda' bus='virtio'/>\n"));
    set(y, "vda", &one, 1, false, false);
    g_autofree char *plain = disk_text(y, "vda");
    g_assert_cmpstr(
        plain, ==,
        "<disk type='file' device='disk'>\n"
        "      <driver name='qemu' type='qcow2'/>\n"
        "      <source file='/a'/>\n"
        "      <target dev='vda' bus='virtio'/>\n"
        "      <vendorext:note xmlns:vendorext='urn:example:ext'>keep <b>me</b></vendorext:note>\n"
        "      <alias name='virtio-disk0'/>\n"
        "    </disk>");
}

static void longest_chain_is_written_and_read_again(void) {
    g_autofree char *path = g_strnfill(3000, 'p');
    g_autoptr(DomainXml) x = sample("chain.xml");
    g_auto(Failure) f = {0};
    XmlImage chain[XML_CHAIN_MAX + 1];

    path[0] = '/';
    for (size_t i = 0; i < G_N_ELEMENTS(chain); i++)
        chain[i] = (XmlImage){i < 100 ? "/srv/x.qcow2" : path, "qcow2"};
    set(x, "vdb", chain, XML_CHAIN_MAX, false, true);
    g_autofree char *before = domain_xml_to_text(x);
    g_assert_false(domain_xml_set_disk(x, "vdb", chain, XML_CHAIN_MAX + 1, false, true, &f));
    g_assert_cmpint(f.kind, ==, FAILURE_NOT_SUPPORTED);
    g_autofree char *after = domain_xml_to_text(x);
    g_assert_cmpstr(before, ==, after);
}

static void refused_edit_leaves_the_document(void) {
    const XmlImage bad[] = {{"/srv/a\x01b", "raw"},
                            {"/srv/\xff", "raw"},
                            {"/srv/x", "\x02"},
                            {"/srv/\xef\xbf\xbf", "raw"}};
    const XmlImage good = {"/srv/x", "raw"};
    g_autoptr(DomainXml) x = sample("virt-manager.xml");
    g_autoptr(DomainXml) twins =
        parse("<domain><devices><disk><target dev='a'/></disk><disk><target dev='a'/></disk>"
              "</devices></domain>");
    g_autofree char *before = domain_xml_to_text(x);

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_auto(Failure) f = {0};
        g_assert_false(domain_xml_set_disk(x, "vda", &bad[i], 1, false, false, &f));
        g_assert_cmpint(f.kind, ==, FAILURE_INVALID_ARGS);
        g_assert_true(string_is_printable(f.message));
    }
    g_auto(Failure) f = {0};
    g_assert_false(domain_xml_set_disk(x, "vdc", &good, 1, false, false, &f));
    g_assert_cmpint(f.kind, ==, FAILURE_NOT_IN_CHAIN);
    g_assert_false(domain_xml_set_mirror(x, "vdc", "copy", &good, false, false, &f));
    g_assert_cmpint(f.kind, ==, FAILURE_NOT_IN_CHAIN);
    g_assert_false(domain_xml_set_disk(twins, "a", &good, 1, false, false, &f));
    g_assert_cmpint(f.kind, ==, FAILURE_NOT_IN_CHAIN);
    g_autofree char *after = domain_xml_to_text(x);
    g_assert_cmpstr(before, ==, after);
}

static void definition_cannot_outgrow_the_limit(void) {
    g_autofree char *filler = g_strnfill(XML_SIZE_MAX - 120, 'x'), *path = g_strnfill(200, 'p');
    g_autofree char *text = g_strdup_printf(
        "<domain><!--%s--><devices><disk><target dev='a'/></disk></devices></domain>", filler);
    const XmlImage image = {path, "raw"};
    g_autoptr(DomainXml) x = parse(text);
    g_auto(Failure) f = {0};

    g_assert_false(domain_xml_set_disk(x, "a", &image, 1, false, false, &f));
    g_assert_cmpint(f.kind, ==, FAILURE_INVALID_ARGS);
    set(x, "a", &image, 1, false, true);
}

static void mirror_is_written_as_libvirt_does(void) {
    const XmlImage copy = {"/srv/it's.qcow2", "qcow2"}, device = {"/dev/vg0/m", "raw"};
    g_autoptr(DomainXml) x = sample("virt-manager.xml");
    g_autofree char *before = domain_xml_to_text(x);
    g_auto(Failure) f = {0};

    g_assert_true(domain_xml_set_mirror(x, "vda", "copy", &copy, false, false, &f));
    g_autofree char *first = disk_text(x, "vda");
    g_assert_nonnull(strstr(
        first, "      <mirror type='file' file='/srv/it&apos;s.qcow2' format='qcow2' job='copy'>\n"
               "        <format type='qcow2'/>\n"
               "        <source file='/srv/it&apos;s.qcow2'/>\n"
               "      </mirror>\n"
               "      <target dev='vda' bus='virtio'/>\n"));
    g_assert_true(domain_xml_set_mirror(x, "vda", "active-commit", &device, true, true, &f));
    g_autofree char *second = disk_text(x, "vda"), *after = domain_xml_to_text(x);
    g_assert_nonnull(strstr(second, "      <mirror type='block' job='active-commit' ready='yes'>\n"
                                    "        <format type='raw'/>\n"
                                    "        <source dev='/dev/vg0/m'/>\n"
                                    "      </mirror>\n"));
    g_assert_null(strstr(second, "it&apos;s"));
    assert_same_outside(before, after, "vda");
}

static void document_is_made_from_nothing(void) {
    const XmlImage chain[] = {{"/srv/<a>.qcow2", "qcow2"}, {"/srv/b.img", "raw"}};
    g_autoptr(DomainXml) x = domain_xml_new("we\"b & <co>\x01", NULL);
    g_autoptr(DomainXml) y = domain_xml_new("vm", "4f1c1d2e-6a53-4b5e-9f0c-8a1b2c3d4e5f");

    g_autofree char *named = domain_xml_to_text(x);
    g_assert_nonnull(strstr(named, "<name>we&quot;b &amp; &lt;co&gt;"));
    g_assert_null(strstr(named, "uuid"));
    domain_xml_add_disk(x, "vda", "virtio", false);
    domain_xml_add_disk(y, "vda", "virtio", false);
    domain_xml_add_disk(y, "s'da", NULL, true);
    set(y, "vda", chain, 2, false, true);
    set(y, "s'da", &chain[1], 1, true, false);
    g_autofree char *text = domain_xml_to_text(y);
    g_assert_cmpstr(text, ==,
                    "<domain type='qemu'>\n"
                    "  <name>vm</name>\n"
                    "  <uuid>4f1c1d2e-6a53-4b5e-9f0c-8a1b2c3d4e5f</uuid>\n"
                    "  <devices>\n"
                    "    <disk type='file' device='disk'>\n"
                    "      <driver name='qemu' type='qcow2'/>\n"
                    "      <source file='/srv/&lt;a&gt;.qcow2'/>\n"
                    "      <backingStore type='file'>\n"
                    "        <format type='raw'/>\n"
                    "        <source file='/srv/b.img'/>\n"
                    "        <backingStore/>\n"
                    "      </backingStore>\n"
                    "      <target dev='vda' bus='virtio'/>\n"
                    "    </disk>\n"
                    "    <disk type='block' device='disk'>\n"
                    "      <driver name='qemu' type='raw'/>\n"
                    "      <source dev='/srv/b.img'/>\n"
                    "      <target dev='s&apos;da'/>\n"
                    "      <readonly/>\n"
                    "    </disk>\n"
                    "  </devices>\n"
                    "</domain>\n");
    g_autoptr(DomainXml) bare = parse("<domain><devices/></domain>");
    domain_xml_add_disk(bare, "vda", NULL, false);
    set(bare, "vda", chain, 1, false, false);
}

/* Whatever a damaged document parses to, an edit either works or leaves it as it was. */
static void damaged_documents_never_crash(void) {
    for (size_t s = 0; s < G_N_ELEMENTS(samples); s++) {
        GString *text = data_read(samples[s]);
        g_autofree char *copy = g_malloc(text->len);
        for (size_t i = 0; i < text->len; i++) {
            g_auto(Failure) f = {0};
            g_autoptr(DomainXml) x = NULL, cut = NULL;
            memcpy(copy, text->str, text->len);
            copy[i] ^= (char) (1 << (i * 5 % 8));
            if (domain_xml_parse(copy, text->len, &x, &f)) {
                g_autofree char *before = domain_xml_to_text(x);
                bool edited = domain_xml_set_disk(x, "vda", new_chain, 3, i & 1, i & 2, &f);
                g_autofree char *after = domain_xml_to_text(x);
                g_assert_true(edited || strcmp(before, after) == 0);
            }
            if (i % 7 == 0)
                domain_xml_parse(text->str, i, &cut, &f);
        }
        g_string_free(text, TRUE);
    }
}

static void scanner_refuses_what_it_does_not_know(void) {
    const char *const bad[] = {"<a>",          "</a>",     "<a",         "<!DOCTYPE a><a/>",
                               "<a><!-- </a>", "<?x <a/>", "<a b='></a>"};

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_null(markup_scan(bad[i], strlen(bad[i])));
    g_autoptr(GArray) some = markup_scan("<a b='>' c=\"/\"><d/></a >", 24);
    g_assert_cmpuint(some->len, ==, 2);
    g_assert_cmpuint(g_array_index(some, MarkupElement, 0).open_end, ==, 15);
    g_assert_true(g_array_index(some, MarkupElement, 1).empty);
}

/* ---- Definition files ---- */

typedef struct {
    char *dir, *path, *prepared;
} Place;

static void place_clear(Place *p) {
    g_unlink(p->prepared);
    g_unlink(p->path);
    g_rmdir(p->dir);
    g_free(p->dir);
    g_free(p->path);
    g_free(p->prepared);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Place, place_clear)

static Place place_new(void) {
    Place p = {.dir = g_dir_make_tmp("blockjobd-definition-XXXXXX", NULL)};

    p.path = g_build_filename(p.dir, "vm.xml", NULL);
    p.prepared = g_build_filename(p.dir, "vm.xml.blockjobd-j42", NULL);
    g_assert_true(g_file_set_contents(p.path, "old", -1, NULL));
    return p;
}

static void assert_contents(const char *path, const char *expected) {
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, expected);
}

static void definition_is_replaced_in_two_steps(void) {
    g_auto(Place) p = place_new();
    struct stat st;

    g_assert_cmpint(chmod(p.path, 0640), ==, 0);
    g_assert_cmpint(chown(p.path, 12, 34), ==, 0);
    g_assert_cmpint(definition_prepare(p.path, "j42", "first"), ==, 0);
    g_assert_cmpint(definition_prepare(p.path, "j42", "new"), ==, 0);
    assert_contents(p.path, "old");
    assert_contents(p.prepared, "new");
    g_assert_cmpint(definition_commit(p.path, "j42"), ==, 0);
    assert_contents(p.path, "new");
    g_assert_cmpint(access(p.prepared, F_OK), <, 0);
    g_assert_cmpint(stat(p.path, &st), ==, 0);
    g_assert_cmpuint(st.st_mode & 07777, ==, 0640);
    g_assert_cmpuint(st.st_uid, ==, 12);
    g_assert_cmpuint(st.st_gid, ==, 34);
    g_assert_cmpint(definition_commit(p.path, "j42"), ==, 0);
    assert_contents(p.path, "new");
}

static void definition_can_be_discarded_twice(void) {
    g_auto(Place) p = place_new();

    g_assert_cmpint(definition_prepare(p.path, "j42", "new"), ==, 0);
    g_assert_cmpint(definition_discard(p.path, "j42"), ==, 0);
    g_assert_cmpint(definition_discard(p.path, "j42"), ==, 0);
    assert_contents(p.path, "old");
    g_assert_cmpint(definition_commit(p.path, "j42"), ==, 0);
    assert_contents(p.path, "old");
    g_assert_cmpint(definition_discard("/nonexistent/vm.xml", "j42"), ==, 0);
}

static void definition_refuses_what_it_could_not_keep(void) {
    g_auto(Place) p = place_new();
    g_autofree char *link = g_build_filename(p.dir, "link.xml", NULL);
    g_autofree char *big = g_strnfill(XML_SIZE_MAX + 1, 'x');

    g_assert_cmpint(symlink(p.path, link), ==, 0);
    g_assert_cmpint(definition_prepare(link, "j42", "new"), ==, -ELOOP);
    g_assert_cmpint(definition_prepare(p.dir, "j42", "new"), ==, -EINVAL);
    g_assert_cmpint(definition_prepare("/nonexistent/vm.xml", "j42", "new"), ==, -ENOENT);
    g_assert_cmpint(definition_prepare(p.path, "j42", big), ==, -EFBIG);
    g_assert_cmpint(definition_commit("/nonexistent/vm.xml", "j42"), ==, -ENOENT);
    /* What stands under the prepared name is not followed. */
    g_assert_cmpint(symlink(p.path, p.prepared), ==, 0);
    g_assert_cmpint(definition_prepare(p.path, "j42", "new"), ==, 0);
    assert_contents(p.path, "old");
    g_unlink(link);
}

#define TEST(name) g_test_add_func("/xml/" #name, name)

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
    TEST(unedited_document_comes_back_byte_for_byte);
    TEST(disks_are_read);
    TEST(hostile_documents_are_refused);
    TEST(size_and_depth_are_limited);
    TEST(xinclude_is_text_like_any_other);
    TEST(only_regular_files_are_loaded);
    TEST(edit_changes_nothing_outside_its_disk);
    TEST(plain_pivot_changes_two_values);
    TEST(same_image_changes_nothing);
    TEST(seclabel_and_policy_stay_index_goes);
    TEST(network_disk_becomes_a_file);
    TEST(type_follows_the_storage);
    TEST(empty_drive_gets_driver_and_source);
    TEST(chain_is_written_nested);
    TEST(longest_chain_is_written_and_read_again);
    TEST(refused_edit_leaves_the_document);
    TEST(definition_cannot_outgrow_the_limit);
    TEST(mirror_is_written_as_libvirt_does);
    TEST(document_is_made_from_nothing);
    TEST(damaged_documents_never_crash);
    TEST(scanner_refuses_what_it_does_not_know);
    TEST(definition_is_replaced_in_two_steps);
    TEST(definition_can_be_discarded_twice);
    TEST(definition_refuses_what_it_could_not_keep);
    return g_test_run();
}
