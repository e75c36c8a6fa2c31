/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The terminal, and the programs that share it: width, colours, the pager, polkit's text agent. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef enum { COLOR_NONE, COLOR_BOLD, COLOR_RED, COLOR_GREEN, COLOR_YELLOW, COLOR_DIM } Color;

/* Columns of the terminal at fd ($COLUMNS has precedence), 0 if it is none: no limit then. */
size_t terminal_columns(int fd);
/* Rows of the terminal at fd, 24 if unknown. */
size_t terminal_rows(int fd);
/* Whether lines at fd can be redrawn: a terminal, and $TERM is neither unset nor "dumb". */
bool terminal_redraws(int fd);
/* The escape sequence that starts color at fd, "" when fd is no terminal, is dumb, or $NO_COLOR is
 * set. */
const char *color_start(int fd, Color color);
const char *color_end(int fd);
/* Whether the locale's character set is UTF-8. */
bool locale_is_utf8(void);

/* Sends standard output through a pager if it is a terminal ($SYSTEMD_PAGER, $PAGER, less). Does
 * nothing if there is none. */
void pager_open(void);
/* Flushes and waits for the reader to leave the pager; harmless without pager_open(). */
void pager_close(void);

/* Starts polkit's text agent for this process if somebody sits at a terminal who is not root;
 * returns when it is registered. Without the program, polkit refuses. */
void agent_open(void);
void agent_close(void);
