/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A table of texts, printed with aligned columns; columns that may shrink do so when the terminal
 * is too narrow. */

#include "ctl-terminal.h"

#include <glib.h>
#include <stdio.h>

typedef struct {
    const char *title;
    bool right;  /* aligned to the right: numbers */
    bool shrink; /* may be ellipsized: paths and names */
} TableColumn;

typedef struct Table Table;

Table *table_new(const TableColumn *columns, size_t n_columns);
Table *table_free(Table *table);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Table, table_free)

/* The next cell; rows follow from the number of columns. Control characters are removed. */
void table_cell(Table *table, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Colours the last cell. */
void table_color(Table *table, Color color);
size_t table_rows(const Table *table);

/* Prints to file; width 0 = no limit, with title row or not. */
void table_print(const Table *table, FILE *file, size_t width, bool title);
