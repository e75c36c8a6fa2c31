/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A table of texts, printed with aligned columns. */

#include "ctl-table.h"
#include "ctl-format.h"
#include "util.h"

#include <stdarg.h>

#define COLUMN_GAP 2
#define COLUMN_MIN 8

typedef struct {
    char *text;
    Color color;
} Cell;

struct Table {
    const TableColumn *columns;
    size_t n_columns;
    GArray *cells;
};

static void cell_clear(void *cell) {
    g_free(((Cell *) cell)->text);
}

Table *table_new(const TableColumn *columns, size_t n_columns) {
    Table *table = g_new0(Table, 1);

    table->columns = columns;
    table->n_columns = n_columns;
    table->cells = g_array_new(FALSE, TRUE, sizeof(Cell));
    g_array_set_clear_func(table->cells, cell_clear);
    return table;
}

Table *table_free(Table *table) {
    if (table) {
        g_array_unref(table->cells);
        g_free(table);
    }
    return NULL;
}

void table_cell(Table *table, const char *format, ...) {
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    Cell cell = {.text = string_sanitize(text, 4096)};
    if (!*cell.text) {
        g_free(cell.text);
        cell.text = g_strdup("-");
    }
    g_array_append_val(table->cells, cell);
}

void table_color(Table *table, Color color) {
    if (table->cells->len > 0)
        g_array_index(table->cells, Cell, table->cells->len - 1).color = color;
}

size_t table_rows(const Table *table) {
    return table->cells->len / table->n_columns;
}

static const Cell *table_at(const Table *table, size_t row, size_t column) {
    return &g_array_index(table->cells, Cell, row * table->n_columns + column);
}

/* Takes from the widest column that may shrink, one by one, until the line fits or nothing is left
 * to take. */
static void widths_fit(const Table *table, size_t *widths, size_t width) {
    size_t total = COLUMN_GAP * (table->n_columns - 1);

    for (size_t c = 0; c < table->n_columns; c++)
        total += widths[c];
    while (total > width) {
        size_t widest = SIZE_MAX;
        for (size_t c = 0; c < table->n_columns; c++)
            if (table->columns[c].shrink && widths[c] > COLUMN_MIN &&
                (widest == SIZE_MAX || widths[c] > widths[widest]))
                widest = c;
        if (widest == SIZE_MAX)
            return;
        widths[widest]--;
        total--;
    }
}

static void cell_print(FILE *file, const TableColumn *column, const char *text, Color color,
                       size_t width, bool last) {
    g_autofree char *shown = text_ellipsize(text, width, locale_is_utf8());
    int pad = (int) (width - text_width(shown));
    int fd = fileno(file);

    fprintf(file, "%*s%s%s%s", column->right ? pad : 0, "", color_start(fd, color), shown,
            color ? color_end(fd) : "");
    fprintf(file, "%*s", last ? 0 : (column->right ? 0 : pad) + COLUMN_GAP, "");
}

void table_print(const Table *table, FILE *file, size_t width, bool title) {
    g_autofree size_t *widths = g_new0(size_t, table->n_columns);

    for (size_t c = 0; c < table->n_columns; c++) {
        widths[c] = title ? text_width(table->columns[c].title) : 0;
        for (size_t r = 0; r < table_rows(table); r++)
            widths[c] = MAX(widths[c], text_width(table_at(table, r, c)->text));
    }
    if (width > 0)
        widths_fit(table, widths, width);
    for (size_t c = 0; title && c < table->n_columns; c++)
        cell_print(file, &table->columns[c], table->columns[c].title, COLOR_BOLD, widths[c],
                   c + 1 == table->n_columns);
    if (title)
        fputc('\n', file);
    for (size_t r = 0; r < table_rows(table); r++) {
        for (size_t c = 0; c < table->n_columns; c++)
            cell_print(file, &table->columns[c], table_at(table, r, c)->text,
                       table_at(table, r, c)->color, widths[c], c + 1 == table->n_columns);
        fputc('\n', file);
    }
}
