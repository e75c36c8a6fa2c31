/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes that may be met again: alive, ended, reused, and hidden by /proc. */

#include <glib.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "domain/instance.h"

static pid_t child_start(void) {
    pid_t pid = fork();

    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        pause();
        _exit(0);
    }
    return pid;
}

static void child_end(pid_t pid) {
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
}

static void a_process_is_gone_when_it_has_ended(void) {
    pid_t pid = child_start();
    siginfo_t info;
    Instance i;

    g_assert_cmpint(instance_read(pid, &i), ==, 0);
    g_assert_cmpuint(i.start, >, 0);
    g_assert_false(instance_is_gone(&i));
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitid(P_PID, (id_t) pid, &info, WEXITED | WNOWAIT), ==, 0);
    g_assert_true(instance_is_gone(&i)); /* a zombie */
    child_end(pid);
    g_assert_true(instance_is_gone(&i));
    g_assert_cmpint(instance_read(pid, &i), ==, -ESRCH);
}

static void another_start_or_boot_is_another_process(void) {
    pid_t pid = child_start();
    Instance i, other;

    g_assert_cmpint(instance_read(pid, &i), ==, 0);
    other = i;
    g_assert_true(instance_equal(&i, &other));
    other.start--;
    g_assert_false(instance_equal(&i, &other));
    g_assert_true(instance_is_gone(&other));
    other = i;
    other.boot[0] = other.boot[0] == '0' ? '1' : '0';
    g_assert_false(instance_equal(&i, &other));
    g_assert_true(instance_is_gone(&other));
    child_end(pid);
}

static void nothing_known_is_never_gone(void) {
    const Instance none = {0};

    g_assert_false(instance_is_gone(&none));
}

/* In a child of its own: a /proc that hides others, looked at as another user. Exit status: what was wrong. */
static int look_at_hidden(pid_t pid, const Instance *visible) {
    Instance hidden;

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("proc", "/proc", "proc", 0, "hidepid=invisible") < 0)
        return 77;
    if (setgid(65534) < 0 || setuid(65534) < 0)
        return 1;
    if (instance_read(pid, &hidden) < 0 || hidden.start != 0)
        return 2;
    if (instance_is_gone(&hidden) || instance_is_gone(visible))
        return 3; /* it lives */
    if (!instance_equal(&hidden, visible))
        return 4;
    return 0;
}

static void a_hidden_process_is_not_taken_for_gone(void) {
    pid_t pid = child_start();
    Instance visible;
    int status;

    g_assert_cmpint(instance_read(pid, &visible), ==, 0);
    pid_t looker = fork();
    g_assert_cmpint(looker, >=, 0);
    if (looker == 0)
        _exit(look_at_hidden(pid, &visible));
    g_assert_cmpint(waitpid(looker, &status, 0), ==, looker);
    child_end(pid);
    g_assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        g_test_skip("no mount namespace, or no proc to mount in it");
    else
        g_assert_cmpint(WEXITSTATUS(status), ==, 0);
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
#define TEST(name) g_test_add_func("/instance/" #name, name)
    TEST(a_process_is_gone_when_it_has_ended);
    TEST(another_start_or_boot_is_another_process);
    TEST(nothing_known_is_never_gone);
    TEST(a_hidden_process_is_not_taken_for_gone);
    return g_test_run();
}
