/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One row of the journal: binding, reading and the CRC. */

#include "journal/row.h"

#include <string.h>

#include "util.h"

Row row_begin(sqlite3_stmt *stmt, const char *table) {
    return (Row){.stmt = stmt, .crc = crc32_update(0, table, strlen(table))};
}

static void row_sum_uint(Row *row, uint64_t value) {
    uint64_t bytes = GUINT64_TO_LE(value);

    row->crc = crc32_update(row->crc, &bytes, sizeof bytes);
}

/* With its length, so that no byte can move from one column to the next unnoticed. */
static void row_sum_text(Row *row, const char *text, size_t size) {
    row_sum_uint(row, size);
    row->crc = crc32_update(row->crc, text, size);
}

void row_put_uint(Row *row, uint64_t value) {
    row_sum_uint(row, value);
    sqlite3_bind_int64(row->stmt, ++row->column, (sqlite3_int64) value);
}

void row_put_text(Row *row, const char *text) {
    const char *s = text ? text : "";
    size_t size = strlen(s);

    row_sum_text(row, s, size);
    sqlite3_bind_text(row->stmt, ++row->column, s, (int) size, SQLITE_STATIC);
}

void row_put_crc(Row *row) {
    sqlite3_bind_int64(row->stmt, ++row->column, row->crc);
}

uint64_t row_get_uint(Row *row) {
    uint64_t value = (uint64_t) sqlite3_column_int64(row->stmt, row->column++);

    row_sum_uint(row, value);
    return value;
}

const char *row_get_text(Row *row) {
    const char *text = (const char *) sqlite3_column_text(row->stmt, row->column);
    int size = sqlite3_column_bytes(row->stmt, row->column++);

    row_sum_text(row, text ? text : "", (size_t) size);
    return text ? text : "";
}

bool row_check_crc(Row *row) {
    return sqlite3_column_int64(row->stmt, row->column++) == row->crc;
}
