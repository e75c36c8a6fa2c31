/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The terminal, and the programs that share it: width, colours, the pager, polkit's text agent. */

#include "ctl-terminal.h"
#include "ctl-format.h"
#include "util.h"

#include <fcntl.h>
#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define AGENT_PATH "/usr/bin/pkttyagent"

static pid_t pager_pid;
static pid_t agent_pid;
/* Standard output is the pipe to the pager, but what is written there is still meant for a terminal
 * this wide. */
static size_t paged_columns;

size_t terminal_columns(int fd) {
    const char *env = g_getenv("COLUMNS");
    struct winsize size = {0};
    uint64_t columns;

    if (!isatty(fd))
        return fd == STDOUT_FILENO ? paged_columns : 0;
    if (env && number_parse(env, &columns) >= 0 && columns > 0 && columns < 10000)
        return columns;
    if (ioctl(fd, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        return 80;
    return size.ws_col;
}

size_t terminal_rows(int fd) {
    struct winsize size = {0};
    return ioctl(fd, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 ? 24 : size.ws_row;
}

static bool term_is_smart(void) {
    const char *term = g_getenv("TERM");
    return term && *term && strcmp(term, "dumb") != 0;
}

bool terminal_redraws(int fd) {
    return isatty(fd) && term_is_smart();
}

static bool colors_wanted(int fd) {
    const char *no_color = g_getenv("NO_COLOR");

    if (no_color && *no_color)
        return false;
    return term_is_smart() && (isatty(fd) || (fd == STDOUT_FILENO && paged_columns));
}

const char *color_start(int fd, Color color) {
    static const char *const sequences[] = {
        [COLOR_NONE] = "",          [COLOR_BOLD] = "\033[1m",    [COLOR_RED] = "\033[1;31m",
        [COLOR_GREEN] = "\033[32m", [COLOR_YELLOW] = "\033[33m", [COLOR_DIM] = "\033[2m",
    };
    return colors_wanted(fd) ? sequences[color] : "";
}

const char *color_end(int fd) {
    return colors_wanted(fd) ? "\033[0m" : "";
}

bool locale_is_utf8(void) {
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

/* In a new child: our blocked signals are not its business, and it does not outlive us. */
static void child_prepare(void) {
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

static void child_wait(pid_t *pid) {
    if (*pid > 0)
        while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
            ;
    *pid = 0;
}

static void pager_exec(const char *pager) {
    child_prepare();
    /* less offers a shell and the writing of files, which whoever gave us more rights did not mean
     * to give. */
    setenv("LESSSECURE", "1", 1);
    if (pager)
        execl("/bin/sh", "sh", "-c", pager, NULL);
    else {
        execlp("less", "less", "-FRSX", NULL);
        execlp("more", "more", NULL);
        execlp("cat", "cat", NULL);
    }
    _exit(EXIT_FAILURE);
}

void pager_open(void) {
    const char *pager = g_getenv("SYSTEMD_PAGER");
    int ends[2];

    if (pager_pid || !isatty(STDOUT_FILENO) || !term_is_smart())
        return;
    if (!pager)
        pager = g_getenv("PAGER");
    if (pager && (!*pager || strcmp(pager, "cat") == 0))
        return;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return;
    fflush(stdout);
    size_t columns = terminal_columns(STDOUT_FILENO);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[0], STDIN_FILENO);
        pager_exec(pager);
    }
    if (pid > 0 && dup2(ends[1], STDOUT_FILENO) >= 0) {
        pager_pid = pid;
        paged_columns = columns;
    }
    close(ends[0]);
    close(ends[1]);
}

void pager_close(void) {
    if (!pager_pid)
        return;
    fflush(stdout);
    /* The pager sees the end of its input only when no copy of the pipe is left. */
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDOUT_FILENO);
        close(null);
    } else
        close(STDOUT_FILENO);
    child_wait(&pager_pid);
}

/* The agent talks on the terminal, wherever our output goes. */
static void agent_exec(int notify) {
    char number[16];

    child_prepare();
    if (!isatty(STDOUT_FILENO) || !isatty(STDERR_FILENO)) {
        int tty = open("/dev/tty", O_WRONLY);
        if (tty < 0)
            _exit(EXIT_FAILURE);
        dup2(tty, STDOUT_FILENO);
        dup2(tty, STDERR_FILENO);
        if (tty > STDERR_FILENO)
            close(tty);
    }
    fcntl(notify, F_SETFD, 0);
    snprintf(number, sizeof(number), "%d", notify);
    execl(AGENT_PATH, AGENT_PATH, "--notify-fd", number, "--fallback", NULL);
    _exit(EXIT_FAILURE);
}

void agent_open(void) {
    int ends[2];

    if (agent_pid || geteuid() == 0 || !isatty(STDIN_FILENO) || access(AGENT_PATH, X_OK) < 0)
        return;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return;
    agent_pid = fork();
    if (agent_pid == 0)
        agent_exec(ends[1]);
    close(ends[1]);
    /* It closes its end when it is registered, or when it dies. */
    struct pollfd closed = {.fd = ends[0], .events = POLLIN};
    while (agent_pid > 0 && poll(&closed, 1, 10000) < 0 && errno == EINTR)
        ;
    close(ends[0]);
}

void agent_close(void) {
    if (agent_pid <= 0)
        return;
    kill(agent_pid, SIGTERM);
    kill(agent_pid, SIGCONT);
    child_wait(&agent_pid);
}
