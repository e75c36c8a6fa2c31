/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Domain XML in libvirt's form: the definition file that is kept in step, and the live document of
 * GetXML().
 *
 * Definitions come from users: size capped before parsing, UTF-8 only, no network, no entities, a
 * DOCTYPE is refused. The tree of libxml2 is only read. Edits replace byte ranges of the text:
 * <source>, <driver type=>, <backingStore> and <mirror> of the disk in question, its type=, and an
 * <auth> or <encryption> of its own, which belong to the old storage. Every other byte stays,
 * quotes, entities, indentation and the XML declaration included; the edited text is parsed again
 * and compared with the old tree before it is taken. */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

#define XML_SIZE_MAX (256u * 1024)
/* Longest chain that domain_xml_set_disk() writes; libxml2 refuses documents deeper than 256. */
#define XML_CHAIN_MAX 200

/* Belongs to one thread at a time; two threads may work on two documents. */
typedef struct DomainXml DomainXml;

/* Parses text. FAILURE_INVALID_ARGS with a sentence (not well-formed, not UTF-8, DOCTYPE, too
 * large, root is not <domain>). */
bool domain_xml_parse(const char *text, size_t size, DomainXml **ret, Failure *f);
/* Reads a file (regular, at most XML_SIZE_MAX; symbolic links not followed in the last component);
 * blocks. */
bool domain_xml_load(const char *path, DomainXml **ret, Failure *f);
/* A minimal document for a domain without definition: <name>, <uuid> (may be NULL) and <devices> in
 * <domain type='qemu'>. */
DomainXml *domain_xml_new(const char *name, const char *uuid);
DomainXml *domain_xml_free(DomainXml *x);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DomainXml, domain_xml_free)
/* The document as text; owned by the caller. A document that was not edited comes back byte for
 * byte. */
char *domain_xml_to_text(const DomainXml *x);

typedef struct {
    char *target; /* <target dev=>, e.g. "vda"; owned */
    char *source; /* file or dev of <source>; NULL if empty or of another kind */
    char *format; /* <driver type=>; NULL if missing */
    char *alias;  /* <alias name=>; NULL if missing */
} XmlDisk;
/* XmlDisk*, in document order; owned by the caller. */
GPtrArray *domain_xml_disks(const DomainXml *x);

typedef struct {
    const char *path, *format; /* borrowed; format may be NULL: unknown, not written */
    bool block;                /* path is a block device; only looked at for backing images */
} XmlImage;
/* The disk with that target dev now stands on chain[0], backed by chain[1] …; 1 <= n <=
 * XML_CHAIN_MAX. block: chain[0] is a block device (type='block', dev= instead of file=).
 * with_backing: write nested <backingStore> elements ending in an empty one; else an existing
 * <backingStore> is only taken away when the source changes.
 * On failure the document is as before: FAILURE_NOT_IN_CHAIN if there is no such disk, or more than
 * one; FAILURE_NOT_SUPPORTED for a passed-through LUN that would become a file;
 * FAILURE_INVALID_ARGS if a path cannot be written in XML or a document that was not given backing
 * or mirror elements would exceed XML_SIZE_MAX. */
bool domain_xml_set_disk(DomainXml *x, const char *target, const XmlImage *chain, size_t n,
                         bool block, bool with_backing, Failure *f);
/* Does the document say what lies under that disk's image (<backingStore>)? */
bool domain_xml_has_backing(const DomainXml *x, const char *target);
/* Adds a <disk type='file' device='disk'> with that target dev; for domain_xml_new(). bus may be
 * NULL. */
void domain_xml_add_disk(DomainXml *x, const char *target, const char *bus, bool readonly);
/* Live only: <mirror type='file|block' job='copy' ready='yes'?> with format and source, as libvirt
 * writes it (file= and format= once more as attributes where it is a copy to a file); replaces an
 * older one. */
bool domain_xml_set_mirror(DomainXml *x, const char *target, const char *job, const XmlImage *image,
                           bool block, bool ready, Failure *f);

/* Replacing a definition in two steps. These block and belong into the journal's thread; they give
 * a negative errno.
 * definition_prepare(): PATH.blockjobd-TAG beside it, with the owner, group and mode of PATH, which
 * must be a regular file and no link; extended attributes are left alone; fsync of it and of the
 * folder. Replaces one that an earlier try has left. -EFBIG for a text that domain_xml_load() would
 * refuse.
 * definition_commit(): rename over PATH, fsync of the folder; 0 also when it was done before (the
 * prepared file is gone).
 * definition_discard(): unlinks the prepared file; 0 when there is none. */
int definition_prepare(const char *path, const char *tag, const char *text);
int definition_commit(const char *path, const char *tag);
int definition_discard(const char *path, const char *tag);
