/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Byte ranges of the elements and attributes of an XML text, and replacing some of them without
 * touching any other byte. Only for texts that an XML parser has accepted and that have no DOCTYPE:
 * this room finds, it does not validate. */

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct {
    size_t start;       /* of "<" of the start tag */
    size_t name_end;    /* behind the name in the start tag */
    size_t open_end;    /* behind ">" of the start tag */
    size_t close_start; /* of "</"; open_end for <x/> */
    size_t end;         /* behind ">" of the end tag */
    bool empty;         /* <x/> */
} MarkupElement;

typedef struct {
    size_t start, name_end; /* the name */
    size_t value, end;      /* between the quotes; behind the second quote */
    char quote;
} MarkupAttribute;

/* MarkupElement, in the order of their start tags; owned by the caller. NULL if text is not what it
 * should be. */
GArray *markup_scan(const char *text, size_t size);
/* MarkupAttribute of a start tag, in their order; owned by the caller. */
GArray *markup_attributes(const char *text, const MarkupElement *e);

/* Where the white space before offset begins: with the last line break in it, or all of it if there
 * is none. The bytes from there to offset put an element on its own line; taking them away with it
 * leaves no empty line. */
size_t markup_lead(const char *text, size_t offset);
/* s with what a quoted attribute value or a text cannot hold written as references; bytes that are
 * no UTF-8 and characters that XML has not are replaced. Owned by the caller. */
char *markup_escape(const char *s);
/* Whether XML can hold s as it is. */
bool markup_holds(const char *s);

/* A list of replacements in one text, made in any order. Insertions (start == end) at one place
 * keep theirs and come before a replacement that begins there; ranges must not overlap. */
typedef struct MarkupEdits MarkupEdits;
MarkupEdits *markup_edits_new(void);
MarkupEdits *markup_edits_free(MarkupEdits *edits);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MarkupEdits, markup_edits_free)
/* Replaces [start, end) by with, which is taken; NULL removes. */
void markup_replace(MarkupEdits *edits, size_t start, size_t end, char *with);
bool markup_edits_empty(const MarkupEdits *edits);
/* The text with the replacements made; owned by the caller. */
GString *markup_apply(const char *text, size_t size, MarkupEdits *edits);
