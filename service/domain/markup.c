/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A tag scanner over XML that is known to be well-formed, and splicing by byte ranges. */

#include "domain/markup.h"

#include <string.h>

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* ---- Finding ---- */

/* The functions below give an offset behind what they find, and size + 1 if its end is missing. */

/* Behind the next occurrence of mark at or after at. */
static size_t behind(const char *text, size_t size, size_t at, const char *mark) {
    const char *found = at < size ? g_strstr_len(text + at, (gssize) (size - at), mark) : NULL;

    return found ? (size_t) (found - text) + strlen(mark) : size + 1;
}

static bool begins(const char *text, size_t size, size_t at, const char *mark) {
    size_t n = strlen(mark);

    return size - at >= n && memcmp(text + at, mark, n) == 0;
}

/* Behind the ">" of the tag that begins at at; a ">" between quotes does not count. */
static size_t tag_end(const char *text, size_t size, size_t at) {
    char quote = 0;

    for (; at < size; at++) {
        char c = text[at];
        if (quote)
            quote = c == quote ? 0 : quote;
        else if (c == '"' || c == '\'')
            quote = c;
        else if (c == '>')
            return at + 1;
    }
    return size + 1;
}

static size_t name_end(const char *text, size_t size, size_t at) {
    while (at < size && !is_space(text[at]) && text[at] != '/' && text[at] != '>' &&
           text[at] != '=')
        at++;
    return at;
}

/* Behind the comment, CDATA section or processing instruction at at; at itself if it is none. */
static size_t skip_other(const char *text, size_t size, size_t at) {
    static const char *const pairs[][2] = {{"<!--", "-->"}, {"<![CDATA[", "]]>"}, {"<?", "?>"}};

    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++)
        if (begins(text, size, at, pairs[i][0]))
            return behind(text, size, at + strlen(pairs[i][0]), pairs[i][1]);
    return at;
}

GArray *markup_scan(const char *text, size_t size) {
    g_autoptr(GArray) elements = g_array_new(FALSE, FALSE, sizeof(MarkupElement));
    g_autoptr(GArray) open = g_array_new(FALSE, FALSE, sizeof(guint));
    const char *next;

    for (size_t at = 0; at < size && (next = memchr(text + at, '<', size - at));) {
        at = (size_t) (next - text);
        size_t end = skip_other(text, size, at);
        if (end == at) {
            end = tag_end(text, size, at);
            if (end > size || begins(text, size, at, "<!"))
                return NULL;
            if (begins(text, size, at, "</")) {
                if (open->len == 0)
                    return NULL;
                guint index = g_array_index(open, guint, open->len - 1);
                MarkupElement *e = &g_array_index(elements, MarkupElement, index);
                e->close_start = at;
                e->end = end;
                g_array_set_size(open, open->len - 1);
            } else {
                bool empty = text[end - 2] == '/';
                MarkupElement e = {.start = at,
                                   .name_end = name_end(text, size, at + 1),
                                   .open_end = end,
                                   .close_start = end,
                                   .end = end,
                                   .empty = empty};
                if (!empty)
                    g_array_append_val(open, elements->len);
                g_array_append_val(elements, e);
            }
        }
        if (end > size)
            return NULL;
        at = end;
    }
    return open->len == 0 ? g_steal_pointer(&elements) : NULL;
}

GArray *markup_attributes(const char *text, const MarkupElement *e) {
    GArray *attributes = g_array_new(FALSE, FALSE, sizeof(MarkupAttribute));

    for (size_t at = e->name_end; at < e->open_end;) {
        if (is_space(text[at]) || text[at] == '/' || text[at] == '>') {
            at++;
            continue;
        }
        MarkupAttribute a = {.start = at, .name_end = name_end(text, e->open_end, at)};
        for (at = a.name_end; at < e->open_end && text[at] != '"' && text[at] != '\'';)
            at++;
        if (at >= e->open_end)
            break;
        a.quote = text[at];
        a.value = at + 1;
        const char *close = memchr(text + a.value, a.quote, e->open_end - a.value);
        if (!close)
            break;
        at = a.end = (size_t) (close - text) + 1;
        g_array_append_val(attributes, a);
    }
    return attributes;
}

size_t markup_lead(const char *text, size_t offset) {
    size_t start = offset;

    while (start > 0 && is_space(text[start - 1])) {
        start--;
        if (text[start] == '\n')
            return start > 0 && text[start - 1] == '\r' ? start - 1 : start;
    }
    return start;
}

/* ---- Characters ---- */

/* XML 1.0, production 2 (Char). */
static bool is_xml_char(gunichar c) {
    return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c <= 0xd7ff) ||
           (c >= 0xe000 && c <= 0xfffd) || (c >= 0x10000 && c <= 0x10ffff);
}

bool markup_holds(const char *s) {
    if (!g_utf8_validate(s, -1, NULL))
        return false;
    for (; *s; s = g_utf8_next_char(s))
        if (!is_xml_char(g_utf8_get_char(s)))
            return false;
    return true;
}

char *markup_escape(const char *s) {
    g_autofree char *valid = g_utf8_make_valid(s, -1);
    GString *out = g_string_new(NULL);

    for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);
        if (c == '&')
            g_string_append(out, "&amp;");
        else if (c == '<')
            g_string_append(out, "&lt;");
        else if (c == '>')
            g_string_append(out, "&gt;");
        else if (c == '\'')
            g_string_append(out, "&apos;");
        else if (c == '"')
            g_string_append(out, "&quot;");
        else if (c == '\t' || c == '\n' || c == '\r')
            g_string_append_printf(out, "&#%u;", c);
        else
            g_string_append_unichar(out, is_xml_char(c) ? c : 0xfffd);
    }
    return g_string_free(out, FALSE);
}

/* ---- Replacing ---- */

typedef struct {
    size_t start, end;
    char *with;
} Edit;

struct MarkupEdits {
    GArray *list; /* Edit */
};

static void edit_clear(gpointer data) {
    g_free(((Edit *) data)->with);
}

MarkupEdits *markup_edits_new(void) {
    MarkupEdits *edits = g_new(MarkupEdits, 1);

    edits->list = g_array_new(FALSE, FALSE, sizeof(Edit));
    g_array_set_clear_func(edits->list, edit_clear);
    return edits;
}

MarkupEdits *markup_edits_free(MarkupEdits *edits) {
    if (!edits)
        return NULL;
    g_array_unref(edits->list);
    g_free(edits);
    return NULL;
}

void markup_replace(MarkupEdits *edits, size_t start, size_t end, char *with) {
    Edit edit = {.start = start, .end = end, .with = with};

    g_array_append_val(edits->list, edit);
}

bool markup_edits_empty(const MarkupEdits *edits) {
    return edits->list->len == 0;
}

/* g_array_sort() is stable: insertions at one place stay in the order in which they were made. */
static gint edit_compare(gconstpointer a, gconstpointer b) {
    const Edit *x = a, *y = b;

    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

GString *markup_apply(const char *text, size_t size, MarkupEdits *edits) {
    GString *out = g_string_sized_new(size + 256);
    size_t at = 0;

    g_array_sort(edits->list, edit_compare);
    for (guint i = 0; i < edits->list->len; i++) {
        const Edit *edit = &g_array_index(edits->list, Edit, i);
        g_assert(edit->start >= at && edit->end >= edit->start && edit->end <= size);
        g_string_append_len(out, text + at, (gssize) (edit->start - at));
        if (edit->with)
            g_string_append(out, edit->with);
        at = edit->end;
    }
    g_string_append_len(out, text + at, (gssize) (size - at));
    return out;
}
