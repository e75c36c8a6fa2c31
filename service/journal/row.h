/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* One row of the journal on its way to or from a statement, with the CRC that it carries: over the name of its table
 * and its columns in the order of the parameters, numbers as 8 bytes, little-endian, texts after their length. */

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    sqlite3_stmt *stmt;
    int column; /* next; parameters count from 1, columns from 0 */
    uint32_t crc;
} Row;

Row row_begin(sqlite3_stmt *stmt, const char *table);
void row_put_uint(Row *row, uint64_t value);
/* text must stay until the statement has run; NULL is "". */
void row_put_text(Row *row, const char *text);
/* Ends the row. */
void row_put_crc(Row *row);

uint64_t row_get_uint(Row *row);
/* Borrowed from the statement, never NULL. */
const char *row_get_text(Row *row);
/* Reads the CRC, the column after those that were read: true = it is right. */
bool row_check_crc(Row *row);
