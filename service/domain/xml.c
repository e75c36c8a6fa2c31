/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Domain XML: libxml2's tree says what is where, markup.c splices the text. The tree never becomes
 * text again, because a serializer would write other quotes, references and white space than the
 * owner of the document did. */

#include "domain/xml.h"

#include <fcntl.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <string.h>
#include <sys/stat.h>

#include "domain/markup.h"
#include "util.h"

/* A live document may outgrow the limit for definitions: each level of a chain is indented further.
 */
#define LIVE_SIZE_MAX (4 * XML_SIZE_MAX)

G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlDoc, xmlFreeDoc)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlParserCtxt, xmlFreeParserCtxt)

struct DomainXml {
    GString *text;
    xmlDoc *doc;      /* of text; each element's _private is its MarkupElement */
    GArray *elements; /* MarkupElement */
    bool live;        /* was given elements that no definition has */
};

/* ---- The tree ---- */

static bool is_element(const xmlNode *node, const char *name) {
    return node->type == XML_ELEMENT_NODE && !node->ns &&
           strcmp((const char *) node->name, name) == 0;
}

/* The next sibling of that name, node itself included. */
static xmlNode *element_next(xmlNode *node, const char *name) {
    while (node && !is_element(node, name))
        node = node->next;
    return node;
}

static xmlNode *child(const xmlNode *parent, const char *name) {
    return element_next(parent->children, name);
}

/* Owned by the caller; NULL if missing. */
static char *attribute(const xmlNode *node, const char *name) {
    xmlChar *value = xmlGetNoNsProp(node, (const xmlChar *) name);
    char *copy = g_strdup((const char *) value);

    xmlFree(value);
    return copy;
}

static bool attribute_is(const xmlNode *node, const char *name, const char *value) {
    g_autofree char *found = attribute(node, name);

    return g_strcmp0(found, value) == 0;
}

static char *child_attribute(const xmlNode *parent, const char *element, const char *name) {
    const xmlNode *node = child(parent, element);

    return node ? attribute(node, name) : NULL;
}

/* <disk> elements of the document one after the other; NULL to begin. */
static xmlNode *disk_next(const xmlDoc *doc, const xmlNode *disk) {
    xmlNode *devices = disk ? disk->parent : child(xmlDocGetRootElement(doc), "devices");
    xmlNode *next = disk ? element_next(disk->next, "disk") : NULL;

    if (!disk && devices)
        next = child(devices, "disk");
    while (!next && devices && (devices = element_next(devices->next, "devices")))
        next = child(devices, "disk");
    return next;
}

static bool disk_has_target(const xmlNode *disk, const char *target) {
    g_autofree char *dev = child_attribute(disk, "target", "dev");

    return g_strcmp0(dev, target) == 0;
}

static xmlNode *disk_find(const DomainXml *x, const char *target, Failure *f) {
    xmlNode *found = NULL;

    for (xmlNode *disk = NULL; (disk = disk_next(x->doc, disk));) {
        if (!disk_has_target(disk, target))
            continue;
        if (found) {
            failure_set(f, FAILURE_NOT_IN_CHAIN,
                        "The domain XML has more than one disk \"%s\"; name each once.", target);
            return NULL;
        }
        found = disk;
    }
    if (!found)
        failure_set(f, FAILURE_NOT_IN_CHAIN,
                    "The domain XML has no disk \"%s\"; add it to the definition.", target);
    return found;
}

static const char *storage_type(bool block) {
    return block ? "block" : "file";
}

static const char *storage_attribute(bool block) {
    return block ? "dev" : "file";
}

/* Whether a <disk> or <backingStore> is of that type and has a source there. A disk without type=
 * is a file. */
static bool stands_on(const xmlNode *node, const char *path, bool block) {
    g_autofree char *type = attribute(node, "type");
    g_autofree char *source = child_attribute(node, "source", storage_attribute(block));

    return strcmp(type ? type : "file", storage_type(block)) == 0 && g_strcmp0(source, path) == 0;
}

/* ---- Parsing ---- */

/* The parser would return a document after this all the same, hence a flag of our own. */
static void doctype_seen(void *user, const xmlChar *name, const xmlChar *external,
                         const xmlChar *system) {
    xmlParserCtxt *context = user;

    *(bool *) context->_private = true;
    xmlStopParser(context);
}

static bool doc_parse(const char *text, size_t size, xmlDoc **ret, Failure *f) {
    static gsize initialized = 0;
    /* Before the first context, and only once: documents are parsed in more than one thread. */
    if (g_once_init_enter(&initialized)) {
        xmlInitParser();
        g_once_init_leave(&initialized, 1);
    }
    g_autoptr(xmlParserCtxt) context = xmlNewParserCtxt();
    bool doctype = false;

    if (!context)
        g_error("no memory for an XML parser");
    context->_private = &doctype;
    context->sax->internalSubset = doctype_seen;
    g_autoptr(xmlDoc) doc =
        xmlCtxtReadMemory(context, text, (int) size, NULL, NULL,
                          XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (doctype)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The domain XML has a DOCTYPE, which is not accepted; remove it.");
    if (!doc || !xmlDocGetRootElement(doc)) {
        const xmlError *error = xmlCtxtGetLastError(context);
        g_autofree char *why =
            string_sanitize(error && error->message ? error->message : "it is empty", 200);
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The domain XML is not well-formed (line %d: %s); correct it.",
                           error ? error->line : 0, why);
    }
    if (doc->encoding && g_ascii_strcasecmp((const char *) doc->encoding, "UTF-8") != 0)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The domain XML is not encoded in UTF-8; convert it.");
    if (!is_element(xmlDocGetRootElement(doc), "domain"))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The root of the domain XML is not <domain>; give a definition as "
                           "\"virsh dumpxml\" writes it.");
    *ret = g_steal_pointer(&doc);
    return true;
}

/* Ties the elements of the tree, which are in the order of their start tags, to their places in the
 * text. The depth is limited by the parser. */
static bool elements_tie(xmlNode *node, const char *text, GArray *elements, guint *next) {
    for (; node; node = node->next) {
        if (node->type != XML_ELEMENT_NODE)
            continue;
        if (*next >= elements->len)
            return false;
        MarkupElement *e = &g_array_index(elements, MarkupElement, (*next)++);
        const char *prefix = node->ns ? (const char *) node->ns->prefix : NULL;
        g_autofree char *name =
            g_strconcat(prefix ? prefix : "", prefix ? ":" : "", node->name, NULL);
        size_t length = e->name_end - e->start - 1;
        if (strlen(name) != length || memcmp(name, text + e->start + 1, length) != 0)
            return false;
        node->_private = e;
        if (!elements_tie(node->children, text, elements, next))
            return false;
    }
    return true;
}

DomainXml *domain_xml_free(DomainXml *x) {
    if (!x)
        return NULL;
    if (x->text)
        g_string_free(x->text, TRUE);
    if (x->doc)
        xmlFreeDoc(x->doc);
    if (x->elements)
        g_array_unref(x->elements);
    g_free(x);
    return NULL;
}

static bool text_parse(const char *text, size_t size, size_t max, DomainXml **ret, Failure *f) {
    g_autoptr(DomainXml) x = g_new0(DomainXml, 1);
    guint next = 0;

    if (size > max)
        return failure_set(
            f, FAILURE_INVALID_ARGS,
            "The domain XML has %zu bytes; at most %zu are accepted: remove what it does not need.",
            size, max);
    if (!g_utf8_validate_len(text, size, NULL))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The domain XML is not encoded in UTF-8; convert it.");
    if (!doc_parse(text, size, &x->doc, f))
        return false;
    x->text = g_string_new_len(text, (gssize) size);
    x->elements = markup_scan(x->text->str, size);
    if (!x->elements ||
        !elements_tie(xmlDocGetRootElement(x->doc), x->text->str, x->elements, &next) ||
        next != x->elements->len)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The domain XML is written in a way that is not understood; format it "
                           "with \"xmllint\".");
    *ret = g_steal_pointer(&x);
    return true;
}

bool domain_xml_parse(const char *text, size_t size, DomainXml **ret, Failure *f) {
    return text_parse(text, size, XML_SIZE_MAX, ret, f);
}

bool domain_xml_load(const char *path, DomainXml **ret, Failure *f) {
    g_autofree char *name = string_sanitize(path, 1024);
    g_autofree char *text = g_malloc(XML_SIZE_MAX + 1);
    /* O_NONBLOCK: a pipe must not hold us up. */
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    size_t size = 0;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The definition \"%s\" cannot be opened: %s; give its real path.", name,
                           errno == ELOOP ? "it is a symbolic link" : g_strerror(errno));
    if (!S_ISREG(st.st_mode))
        return failure_set(f, FAILURE_INVALID_ARGS,
                           "The definition \"%s\" is not a regular file; give one.", name);
    while (size <= XML_SIZE_MAX) {
        ssize_t n = read(fd, text + size, XML_SIZE_MAX + 1 - size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failure_set(f, FAILURE_INVALID_ARGS,
                               "The definition \"%s\" cannot be read: %s; check its storage.", name,
                               g_strerror(errno));
        if (n == 0)
            break;
        size += (size_t) n;
    }
    return domain_xml_parse(text, size, ret, f);
}

DomainXml *domain_xml_new(const char *name, const char *uuid) {
    g_autofree char *name_text = markup_escape(name);
    g_autofree char *uuid_text = uuid && *uuid ? markup_escape(uuid) : NULL;
    g_autofree char *text =
        g_strconcat("<domain type='qemu'>\n  <name>", name_text, "</name>\n",
                    uuid_text ? "  <uuid>" : "", uuid_text ? uuid_text : "",
                    uuid_text ? "</uuid>\n" : "", "  <devices>\n  </devices>\n</domain>\n", NULL);
    g_auto(Failure) why = {0};
    DomainXml *x = NULL;

    /* Escaped text always parses; name and uuid are far shorter than the limit. */
    if (!text_parse(text, strlen(text), LIVE_SIZE_MAX, &x, &why))
        g_error("a minimal domain XML does not parse: %s", why.message);
    x->live = true;
    return x;
}

/* ---- Reading ---- */

char *domain_xml_to_text(const DomainXml *x) {
    return g_strndup(x->text->str, x->text->len);
}

static void disk_free(gpointer data) {
    XmlDisk *disk = data;

    g_free(disk->target);
    g_free(disk->source);
    g_free(disk->format);
    g_free(disk->alias);
    g_free(disk);
}

GPtrArray *domain_xml_disks(const DomainXml *x) {
    GPtrArray *disks = g_ptr_array_new_with_free_func(disk_free);

    for (xmlNode *node = NULL; (node = disk_next(x->doc, node));) {
        g_autofree char *target = child_attribute(node, "target", "dev");
        g_autofree char *type = attribute(node, "type");
        if (!target || !*target)
            continue;
        XmlDisk *disk = g_new0(XmlDisk, 1);
        disk->target = g_steal_pointer(&target);
        if (!type || strcmp(type, "file") == 0)
            disk->source = child_attribute(node, "source", "file");
        else if (strcmp(type, "block") == 0)
            disk->source = child_attribute(node, "source", "dev");
        if (disk->source && !*disk->source)
            g_clear_pointer(&disk->source, g_free);
        disk->format = child_attribute(node, "driver", "type");
        disk->alias = child_attribute(node, "alias", "name");
        g_ptr_array_add(disks, disk);
    }
    return disks;
}

/* ---- Editing one disk ---- */

typedef struct {
    const char *text;
    xmlNode *disk;
    MarkupEdits *edits;
    char quote;       /* as the disk's <target> has it */
    GString *lead;    /* line break and indentation of the disk's children */
    const char *unit; /* one more step of indentation; borrowed from lead, or constant */
} DiskEdit;

static void disk_edit_clear(DiskEdit *d) {
    markup_edits_free(d->edits);
    if (d->lead)
        g_string_free(d->lead, TRUE);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(DiskEdit, disk_edit_clear)

static const MarkupElement *place(const xmlNode *node) {
    return node->_private;
}

/* Where an element goes that is to stand before node, on a line of its own. */
static size_t place_before(const DiskEdit *d, const xmlNode *node) {
    return markup_lead(d->text, place(node)->start);
}

static void disk_edit_begin(DiskEdit *d, const DomainXml *x, xmlNode *disk) {
    const MarkupElement *target = place(child(disk, "target"));
    g_autoptr(GArray) attributes = markup_attributes(x->text->str, target);

    d->text = x->text->str;
    d->disk = disk;
    d->edits = markup_edits_new();
    d->quote = attributes->len > 0 ? g_array_index(attributes, MarkupAttribute, 0).quote : '\'';
    size_t inner = markup_lead(d->text, target->start),
           outer = markup_lead(d->text, place(disk)->start);
    size_t inner_length = target->start - inner, outer_length = place(disk)->start - outer;
    d->lead = g_string_new_len(d->text + inner, (gssize) inner_length);
    if (!strchr(d->lead->str, '\n'))
        d->unit = "";
    else if (inner_length > outer_length &&
             memcmp(d->text + inner, d->text + outer, outer_length) == 0)
        d->unit = d->lead->str + outer_length;
    else
        d->unit = "  ";
}

/* Appends NAME='VALUE' with a space before it. */
static void attribute_write(const DiskEdit *d, GString *out, const char *name, const char *value) {
    g_autofree char *escaped = markup_escape(value);

    g_string_append_printf(out, " %s=%c%s%c", name, d->quote, escaped, d->quote);
}

static void attribute_set(DiskEdit *d, const xmlNode *node, const char *name, const char *value) {
    g_autoptr(GArray) attributes = markup_attributes(d->text, place(node));
    size_t behind = place(node)->name_end;

    if (attribute_is(node, name, value))
        return;
    for (guint i = 0; i < attributes->len; i++) {
        const MarkupAttribute *a = &g_array_index(attributes, MarkupAttribute, i);
        if (a->name_end - a->start == strlen(name) &&
            memcmp(d->text + a->start, name, strlen(name)) == 0) {
            markup_replace(d->edits, a->value, a->end - 1, markup_escape(value));
            return;
        }
        behind = a->end;
    }
    GString *out = g_string_new(NULL);
    attribute_write(d, out, name, value);
    markup_replace(d->edits, behind, behind, g_string_free(out, FALSE));
}

/* Takes all child elements of that name away, each with its line. */
static void children_remove(DiskEdit *d, const char *name) {
    for (xmlNode *node = child(d->disk, name); node; node = element_next(node->next, name))
        markup_replace(d->edits, place_before(d, node), place(node)->end, NULL);
}

static void driver_edit(DiskEdit *d, const char *format) {
    xmlNode *driver = child(d->disk, "driver"), *anchor = child(d->disk, "source");

    if (!format)
        return;
    if (driver) {
        attribute_set(d, driver, "type", format);
        return;
    }
    if (!anchor)
        anchor = xmlFirstElementChild(d->disk);
    GString *out = g_string_new(d->lead->str);
    g_string_append(out, "<driver");
    attribute_write(d, out, "name", "qemu");
    attribute_write(d, out, "type", format);
    g_string_append(out, "/>");
    size_t at = place_before(d, anchor);
    markup_replace(d->edits, at, at, g_string_free(out, FALSE));
}

/* What in a <source> says where and how the old storage is; everything else (startupPolicy,
 * seclabel, comments, what we do not know) stays. From libvirt's formatdomain, "Hard drives, floppy
 * disks, CDROMs". */
static const char *const tied_attributes[] = {
    "file",    "dev",       "dir",   "protocol", "name",        "pool",  "volume", "mode",   "type",
    "managed", "namespace", "index", "tls",      "tlsHostname", "query", "path",   "fdgroup"};
static const char *const tied_children[] = {
    "host",      "snapshot",   "config", "auth",      "encryption",  "reservations", "slices",
    "initiator", "address",    "ssl",    "cookies",   "readahead",   "timeout",      "reconnect",
    "identity",  "knownHosts", "nfs",    "dataStore", "privateData", "format"};

static bool is_tied_attribute(const DiskEdit *d, const MarkupAttribute *a) {
    g_autofree char *name = g_strndup(d->text + a->start, a->name_end - a->start);

    return string_index(tied_attributes, G_N_ELEMENTS(tied_attributes), name) >= 0;
}

static bool is_tied_child(const xmlNode *node) {
    return node->type == XML_ELEMENT_NODE && !node->ns &&
           string_index(tied_children, G_N_ELEMENTS(tied_children), (const char *) node->name) >= 0;
}

/* The first attribute that is tied to the old storage becomes the new one, the others go. */
static void source_attributes_edit(DiskEdit *d, const xmlNode *source, const char *path,
                                   bool block) {
    const char *name = storage_attribute(block);
    g_autoptr(GArray) attributes = markup_attributes(d->text, place(source));
    const MarkupAttribute *keep = NULL;

    for (guint i = 0; i < attributes->len; i++) {
        const MarkupAttribute *a = &g_array_index(attributes, MarkupAttribute, i);
        bool same = a->name_end - a->start == strlen(name) &&
                    memcmp(d->text + a->start, name, strlen(name)) == 0;
        if (same || (!keep && is_tied_attribute(d, a)))
            keep = a;
    }
    for (guint i = 0; i < attributes->len; i++) {
        const MarkupAttribute *a = &g_array_index(attributes, MarkupAttribute, i);
        size_t behind = i > 0 ? a[-1].end : place(source)->name_end;
        if (a == keep)
            markup_replace(d->edits, a->start, a->name_end, g_strdup(name));
        if (a == keep)
            markup_replace(d->edits, a->value, a->end - 1, markup_escape(path));
        else if (is_tied_attribute(d, a))
            markup_replace(d->edits, behind, a->end, NULL);
    }
    if (!keep) {
        GString *out = g_string_new(NULL);
        attribute_write(d, out, name, path);
        markup_replace(d->edits, place(source)->name_end, place(source)->name_end,
                       g_string_free(out, FALSE));
    }
}

static void source_children_edit(DiskEdit *d, const xmlNode *source) {
    bool kept = false, removed = false;

    for (const xmlNode *node = source->children; node; node = node->next) {
        removed = removed || is_tied_child(node);
        kept = kept || !(is_tied_child(node) || xmlIsBlankNode(node));
    }
    if (removed && !kept) {
        markup_replace(d->edits, place(source)->open_end - 1, place(source)->end, g_strdup("/>"));
        return;
    }
    for (const xmlNode *node = source->children; node; node = node->next)
        if (is_tied_child(node))
            markup_replace(d->edits, place_before(d, node), place(node)->end, NULL);
}

/* Where an element goes that is to follow the disk's source, also where the source itself is only
 * being inserted. */
static size_t behind_source(const DiskEdit *d) {
    const xmlNode *anchor = child(d->disk, "source");

    if (!anchor)
        anchor = child(d->disk, "driver");
    return anchor ? place(anchor)->end : place_before(d, xmlFirstElementChild(d->disk));
}

static void source_edit(DiskEdit *d, const char *path, bool block) {
    const xmlNode *source = child(d->disk, "source");

    if (source) {
        source_attributes_edit(d, source, path, block);
        source_children_edit(d, source);
        return;
    }
    GString *out = g_string_new(d->lead->str);
    g_string_append(out, "<source");
    attribute_write(d, out, storage_attribute(block), path);
    g_string_append(out, "/>");
    markup_replace(d->edits, behind_source(d), behind_source(d), g_string_free(out, FALSE));
}

/* <format> and <source> of an image, each on its line. */
static void image_write(const DiskEdit *d, GString *out, const char *lead, const XmlImage *image,
                        bool block) {
    if (image->format) {
        g_string_append_printf(out, "%s<format", lead);
        attribute_write(d, out, "type", image->format);
        g_string_append(out, "/>");
    }
    g_string_append_printf(out, "%s<source", lead);
    attribute_write(d, out, storage_attribute(block), image->path);
    g_string_append(out, "/>");
}

static void backing_write(const DiskEdit *d, GString *out, const char *lead, const XmlImage *chain,
                          size_t n) {
    if (n == 0) {
        g_string_append(out, "<backingStore/>");
        return;
    }
    g_autofree char *inner = g_strconcat(lead, d->unit, NULL);
    g_string_append(out, "<backingStore");
    attribute_write(d, out, "type", storage_type(chain->block));
    g_string_append_c(out, '>');
    image_write(d, out, inner, chain, chain->block);
    g_string_append(out, inner);
    backing_write(d, out, inner, chain + 1, n - 1);
    g_string_append_printf(out, "%s</backingStore>", lead);
}

/* Whether the document already says that node (a <backingStore> or NULL) is that chain. */
static bool backing_is(const xmlNode *node, const XmlImage *chain, size_t n) {
    for (; node && n > 0; chain++, n--) {
        g_autofree char *format = child_attribute(node, "format", "type");
        if (!stands_on(node, chain->path, chain->block) || g_strcmp0(format, chain->format) != 0)
            return false;
        node = child(node, "backingStore");
    }
    return node && !xmlFirstElementChild((xmlNode *) node);
}

static void backing_edit(DiskEdit *d, const XmlImage *backing, size_t n) {
    const xmlNode *old = child(d->disk, "backingStore");
    GString *out = g_string_new(NULL);

    if (backing_is(old, backing, n)) {
        g_string_free(out, TRUE);
        return;
    }
    if (!old)
        g_string_append(out, d->lead->str);
    backing_write(d, out, d->lead->str, backing, n);
    markup_replace(d->edits, old ? place(old)->start : behind_source(d),
                   old ? place(old)->end : behind_source(d), g_string_free(out, FALSE));
}

/* ---- Taking an edit ---- */

/* Removes from a copy of the tree what an edit of that disk may change. */
static void disk_strip(xmlNode *disk) {
    static const char *const editable[] = {"source", "backingStore", "mirror", "auth",
                                           "encryption"};

    xmlUnsetProp(disk, (const xmlChar *) "type");
    for (xmlNode *node = disk->children, *next; node; node = next) {
        next = node->next;
        bool drop = xmlIsBlankNode(node);
        for (size_t i = 0; i < G_N_ELEMENTS(editable); i++)
            drop = drop || is_element(node, editable[i]);
        if (is_element(node, "driver")) {
            xmlUnsetProp(node, (const xmlChar *) "type");
            /* One like this may have been added; another must be as it was. */
            drop = !node->children && node->properties && !node->properties->next &&
                   attribute_is(node, "name", "qemu");
        }
        if (!drop)
            continue;
        xmlUnlinkNode(node);
        xmlFreeNode(node);
    }
}

/* The document without what an edit of target may change, for comparing; owned by the caller. */
static char *skeleton(const DomainXml *x, const char *target) {
    g_autoptr(xmlDoc) copy = xmlCopyDoc(x->doc, 1);
    xmlChar *dump = NULL;
    int size = 0;

    for (xmlNode *disk = NULL; (disk = disk_next(copy, disk));)
        if (disk_has_target(disk, target))
            disk_strip(disk);
    xmlDocDumpMemory(copy, &dump, &size);
    char *text = g_strndup((const char *) dump, (size_t) size);
    xmlFree(dump);
    return text;
}

/* x becomes next, which is the same document after an edit. */
static void take(DomainXml *x, DomainXml *next) {
    DomainXml old = *x;

    x->text = next->text;
    x->doc = next->doc;
    x->elements = next->elements;
    next->text = old.text;
    next->doc = old.doc;
    next->elements = old.elements;
}

/* The document after the edits; NULL on failure. */
static DomainXml *edits_parse(const DomainXml *x, MarkupEdits *edits, Failure *f) {
    GString *text = markup_apply(x->text->str, x->text->len, edits);
    DomainXml *next = NULL;

    text_parse(text->str, text->len, x->live ? LIVE_SIZE_MAX : XML_SIZE_MAX, &next, f);
    g_string_free(text, TRUE);
    return next;
}

/* active (or NULL) is what the disk must stand on afterwards. */
static bool disk_edit_finish(DiskEdit *d, DomainXml *x, const char *target, const XmlImage *active,
                             bool block, Failure *f) {
    if (markup_edits_empty(d->edits))
        return true;
    g_autoptr(DomainXml) next = edits_parse(x, d->edits, f);
    if (!next)
        return false;
    g_autofree char *before = skeleton(x, target), *after = skeleton(next, target);
    xmlNode *disk = disk_find(next, target, f);
    if (!disk || strcmp(before, after) != 0 || (active && !stands_on(disk, active->path, block)))
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "The disk \"%s\" of the domain XML is written in a way that cannot be "
                           "edited; write it as "
                           "\"virsh dumpxml\" does.",
                           target);
    take(x, next);
    return true;
}

static bool images_check(const XmlImage *images, size_t n, Failure *f) {
    for (size_t i = 0; i < n; i++) {
        if (markup_holds(images[i].path) && (!images[i].format || markup_holds(images[i].format)))
            continue;
        g_autofree char *clean = string_sanitize(images[i].path, 256);
        return failure_set(
            f, FAILURE_INVALID_ARGS,
            "The image \"%s\" has characters in its name that XML cannot hold; rename it.", clean);
    }
    return true;
}

bool domain_xml_has_backing(const DomainXml *x, const char *target) {
    g_auto(Failure) f = {0};
    const xmlNode *disk = disk_find(x, target, &f);

    return disk && child(disk, "backingStore");
}

bool domain_xml_set_disk(DomainXml *x, const char *target, const XmlImage *chain, size_t n,
                         bool block, bool with_backing, Failure *f) {
    g_auto(DiskEdit) d = {0};

    g_assert(n >= 1);
    if (n > XML_CHAIN_MAX)
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "The disk \"%s\" has a chain of %zu images; at most %d can be written "
                           "down: commit some.",
                           target, n, XML_CHAIN_MAX);
    xmlNode *disk = disk_find(x, target, f);
    if (!disk || !images_check(chain, n, f))
        return false;
    if (!block && attribute_is(disk, "device", "lun"))
        return failure_set(f, FAILURE_NOT_SUPPORTED,
                           "The disk \"%s\" is a SCSI LUN that is passed through; it can only "
                           "stand on a block device.",
                           target);

    disk_edit_begin(&d, x, disk);
    bool moved = !stands_on(disk, chain[0].path, block);
    if (block || xmlHasProp(disk, (const xmlChar *) "type"))
        attribute_set(&d, disk, "type", storage_type(block));
    driver_edit(&d, chain[0].format);
    if (moved) {
        source_edit(&d, chain[0].path, block);
        children_remove(&d, "auth");
        children_remove(&d, "encryption");
        children_remove(&d, "mirror");
    }
    if (with_backing) {
        x->live = true;
        backing_edit(&d, chain + 1, n - 1);
    } else if (moved)
        children_remove(&d, "backingStore");
    return disk_edit_finish(&d, x, target, &chain[0], block, f);
}

bool domain_xml_set_mirror(DomainXml *x, const char *target, const char *job, const XmlImage *image,
                           bool block, bool ready, Failure *f) {
    g_auto(DiskEdit) d = {0};
    xmlNode *disk = disk_find(x, target, f);

    if (!disk || !images_check(image, 1, f))
        return false;
    disk_edit_begin(&d, x, disk);
    x->live = true;
    const xmlNode *old = child(disk, "mirror");
    size_t at = place_before(&d, child(disk, "target"));
    g_autofree char *inner = g_strconcat(d.lead->str, d.unit, NULL);
    GString *out = g_string_new(old ? NULL : d.lead->str);
    g_string_append(out, "<mirror");
    attribute_write(&d, out, "type", storage_type(block));
    if (!block && strcmp(job, "copy") == 0) {
        attribute_write(&d, out, "file", image->path);
        if (image->format)
            attribute_write(&d, out, "format", image->format);
    }
    attribute_write(&d, out, "job", job);
    if (ready)
        attribute_write(&d, out, "ready", "yes");
    g_string_append_c(out, '>');
    image_write(&d, out, inner, image, block);
    g_string_append_printf(out, "%s</mirror>", d.lead->str);
    markup_replace(d.edits, old ? place(old)->start : at, old ? place(old)->end : at,
                   g_string_free(out, FALSE));
    return disk_edit_finish(&d, x, target, NULL, block, f);
}

void domain_xml_add_disk(DomainXml *x, const char *target, const char *bus, bool readonly) {
    const xmlNode *devices = child(xmlDocGetRootElement(x->doc), "devices");
    g_autofree char *dev = markup_escape(target), *on = bus ? markup_escape(bus) : NULL;
    g_autoptr(MarkupEdits) edits = markup_edits_new();
    g_auto(Failure) why = {0};

    if (!devices)
        return;
    char *text =
        g_strconcat(place(devices)->empty ? ">" : "",
                    "\n    <disk type='file' device='disk'>\n      <target dev='", dev,
                    on ? "' bus='" : "", on ? on : "", "'/>", readonly ? "\n      <readonly/>" : "",
                    "\n    </disk>", place(devices)->empty ? "\n  </devices>" : "", NULL);
    size_t end = place(devices)->end;
    size_t at =
        place(devices)->empty ? end - 2 : markup_lead(x->text->str, place(devices)->close_start);
    markup_replace(edits, at, place(devices)->empty ? end : at, text);
    g_autoptr(DomainXml) next = edits_parse(x, edits, &why);
    if (next)
        take(x, next);
}
