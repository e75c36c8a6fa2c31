/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs a program and kills it (SIGKILL) before or after its N-th system call that writes, syncs, names, unnames or sends:
 * one counter over all of them and over all threads. What is meant only for people (descriptors 0 to 2) and what wakes the
 * program's own threads (eventfd) does not count. With a plan, memory that is shared with the test, the moment can be
 * chosen anew while the program runs, so that one life serves from one death to the next. */

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/ptrace.h>

/* What a call says about itself: where its data is, or its path. */
typedef enum { CALL_PLAIN, CALL_BUFFER, CALL_VECTOR, CALL_MESSAGE, CALL_PATH, CALL_OPEN } CallKind;

typedef struct {
    int nr;
    const char *name;
    CallKind kind;
    unsigned char
        arg; /* index of the buffer, vector, message, path; the path's folder is the one before */
} Call;

#define CALL(name, kind, arg)                                                                      \
    { SYS_##name, #name, CALL_##kind, arg }
static const Call calls[] = {
    CALL(write, BUFFER, 1),    CALL(pwrite64, BUFFER, 1), CALL(writev, VECTOR, 1),
    CALL(pwritev, VECTOR, 1),  CALL(sendto, BUFFER, 1),   CALL(sendmsg, MESSAGE, 1),
    CALL(fsync, PLAIN, 0),     CALL(fdatasync, PLAIN, 0), CALL(sync_file_range, PLAIN, 0),
    CALL(ftruncate, PLAIN, 0), CALL(fallocate, PLAIN, 0), CALL(fchown, PLAIN, 0),
    CALL(fchmod, PLAIN, 0),    CALL(renameat, PATH, 1),   CALL(renameat2, PATH, 1),
    CALL(unlinkat, PATH, 1),   CALL(linkat, PATH, 3),     CALL(symlinkat, PATH, 2),
    CALL(mkdirat, PATH, 1),    CALL(openat, OPEN, 1),     CALL(openat2, OPEN, 1),
#ifdef SYS_rename
    CALL(rename, PATH, 0),     CALL(unlink, PATH, 0),     CALL(link, PATH, 1),
    CALL(mkdir, PATH, 0),      CALL(rmdir, PATH, 0),
#endif
};
#define N_CALLS (sizeof calls / sizeof calls[0])

#define DATA_MAX 65536
#define SHOWN_MAX 512 /* of a line in the log, name and file included */

/* tests/lib/killer.py has the same. */
typedef struct {
    uint64_t counted; /* since the test has set it to 0 */
    uint64_t at;      /* 0 = never */
    uint64_t after;   /* when the call has been done, not before */
    uint64_t reached;
} Plan;

static struct {
    bool hold;         /* stop the thread there until SIGUSR1 instead of killing */
    const char *match; /* only calls whose words (name, file, data) contain this count */
    const char *from;  /* and only behind the first one whose words contain this */
    FILE *log;
} options;

static pid_t child;
static volatile sig_atomic_t go_on;
static Plan own, *plan = &own;

__attribute__((noreturn)) static void die(const char *what) {
    fprintf(stderr, "killat: %s: %s\n", what, strerror(errno));
    if (child > 0)
        kill(child, SIGKILL);
    exit(125);
}

/* ── what a call is about ── */

static size_t memory_read(pid_t tid, uint64_t address, void *to, size_t size) {
    struct iovec local = {to, size}, remote = {(void *) (uintptr_t) address, size};
    ssize_t n = process_vm_readv(tid, &local, 1, &remote, 1, 0);

    return n < 0 ? 0 : (size_t) n;
}

static size_t vector_read(pid_t tid, uint64_t address, uint64_t count, char *to, size_t size) {
    struct iovec parts[64];
    size_t n = count > 64 ? 64 : count, got = 0;

    n = memory_read(tid, address, parts, n * sizeof *parts) / sizeof *parts;
    for (size_t i = 0; i < n && got < size; i++) {
        size_t want = parts[i].iov_len < size - got ? parts[i].iov_len : size - got;
        got += memory_read(tid, (uint64_t) (uintptr_t) parts[i].iov_base, to + got, want);
    }
    return got;
}

static size_t path_read(pid_t tid, uint64_t address, char *to, size_t size) {
    size_t got = 0;

    /* A string may end right before a page that is not there. */
    while (got < size && memory_read(tid, address + got, to + got, 1) == 1 && to[got])
        got++;
    return got;
}

static size_t data_read(pid_t tid, const Call *call, const uint64_t *args, char *to, size_t size) {
    struct msghdr message;

    switch (call->kind) {
    case CALL_BUFFER:
        return memory_read(tid, args[call->arg], to,
                           args[call->arg + 1] < size ? args[call->arg + 1] : size);
    case CALL_VECTOR:
        return vector_read(tid, args[call->arg], args[call->arg + 1], to, size);
    case CALL_MESSAGE:
        if (memory_read(tid, args[call->arg], &message, sizeof message) != sizeof message)
            return 0;
        return vector_read(tid, (uint64_t) (uintptr_t) message.msg_iov, message.msg_iovlen, to,
                           size);
    case CALL_PATH:
    case CALL_OPEN:
        return path_read(tid, args[call->arg], to, size);
    case CALL_PLAIN:
        break;
    }
    return 0;
}

/* Only an open that can make a file. */
static bool open_creates(pid_t tid, const Call *call, const uint64_t *args) {
    uint64_t flags = args[2];

    if (call->nr == SYS_openat2) {
        struct open_how how = {};
        if (memory_read(tid, args[2], &how, sizeof how) < sizeof how.flags)
            return false;
        flags = how.flags;
    }
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

static bool words_contain(const char *words, size_t size, const char *text) {
    return memmem(words, size, text, strlen(text)) != NULL;
}

/* Counts the call and notes it, unless it is none of those that are meant. */
static bool call_counts(pid_t tid, const Call *call, const uint64_t *args) {
    static char words[DATA_MAX];
    char link[64], file[256] = "";
    size_t size, limit = options.match || options.from ? sizeof words : SHOWN_MAX;

    if (call->kind == CALL_OPEN) {
        if (!open_creates(tid, call, args))
            return false;
    } else if (call->kind != CALL_PATH) {
        if (args[0] <= 2)
            return false;
        snprintf(link, sizeof link, "/proc/%d/fd/%d", (int) tid, (int) args[0]);
        ssize_t n = readlink(link, file, sizeof file - 1);
        file[n < 0 ? 0 : n] = '\0';
        if (strcmp(file, "anon_inode:[eventfd]") == 0)
            return false;
    }
    size = (size_t) snprintf(words, sizeof words, "%s %s ", call->name, file);
    size += data_read(tid, call, args, words + size, limit - size);
    if (options.from) {
        if (words_contain(words, size, options.from))
            options.from = NULL;
        return false;
    }
    if (options.match && !words_contain(words, size, options.match))
        return false;
    plan->counted++;
    if (options.log) {
        fprintf(options.log, "%" PRIu64 " ", plan->counted);
        for (size_t i = 0, shown = 0; i < size && shown < 240; i++)
            if (words[i] >= ' ' && words[i] <= '~') {
                fputc(words[i], options.log);
                shown++;
            }
        fputc('\n', options.log);
        fflush(options.log);
    }
    return true;
}

/* ── following ── */

#define LOAD(field)                                                                                \
    (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define JUMP(kind, value, yes, no)                                                                 \
    (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_##kind | BPF_K, (value), (uint8_t) (yes), (no))
#define RETURN(what) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_##what)
#define N_HEAD 6

static void filter_install(void) {
    struct sock_filter filter[N_HEAD + N_CALLS + 2] = {
        /* The log is the most of what is written: no stop for it. */
        LOAD(nr), JUMP(JEQ, SYS_write, 0, 3), LOAD(args[0]), JUMP(JGT, 2, 1, 0), RETURN(ALLOW),
        LOAD(nr)};
    struct sock_fprog program = {N_HEAD + N_CALLS + 2, filter};

    for (size_t i = 0; i < N_CALLS; i++)
        filter[N_HEAD + i] = JUMP(JEQ, (uint32_t) calls[i].nr, N_CALLS - i, 0);
    filter[N_HEAD + N_CALLS] = RETURN(ALLOW);
    filter[N_HEAD + N_CALLS + 1] = RETURN(TRACE);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        die("seccomp");
}

static void child_run(char **argv) {
    const char *asan = getenv("ASAN_OPTIONS");
    char *text = NULL;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* The leak checker wants to trace the process itself. */
    if (asprintf(&text, "%s%sdetect_leaks=0", asan ? asan : "", asan ? ":" : "") < 0)
        die("asprintf");
    setenv("ASAN_OPTIONS", text, 1);
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0)
        die("ptrace");
    raise(SIGSTOP);
    filter_install();
    execvp(argv[0], argv);
    die(argv[0]);
}

static void on_signal(int number) {
    if (number == SIGUSR1)
        go_on = 1;
    else if (child > 0)
        kill(child, number);
}

static void point_reached(void) {
    plan->reached = 1;
    if (options.log) {
        fprintf(options.log, "reached\n");
        fflush(options.log);
    }
    if (!options.hold) {
        kill(child, SIGKILL);
        return;
    }
    sigset_t waiting;
    sigprocmask(SIG_BLOCK, NULL, &waiting);
    sigdelset(&waiting, SIGUSR1);
    while (!go_on)
        sigsuspend(&waiting);
}

/* A thread stands before a call of the filter's. Returns how it goes on. */
static enum __ptrace_request call_entered(pid_t tid) {
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) <= 0)
        return PTRACE_CONT; /* killed meanwhile */
    for (size_t i = 0; i < N_CALLS; i++)
        if ((uint64_t) calls[i].nr == info.seccomp.nr) {
            const uint64_t *args = (const uint64_t *) info.seccomp.args;
            if (!call_counts(tid, &calls[i], args) || plan->counted != plan->at)
                return PTRACE_CONT;
            if (plan->after)
                return PTRACE_SYSCALL; /* stops once more, behind the call */
            point_reached();
            return PTRACE_CONT;
        }
    return PTRACE_CONT;
}

static void stopped(pid_t tid, int status) {
    int number = WSTOPSIG(status), deliver = 0;
    enum __ptrace_request how = PTRACE_CONT;

    if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8))
        how = call_entered(tid);
    else if (number == (SIGTRAP | 0x80))
        point_reached();
    else if (status >> 16 == 0 && number != SIGSTOP) /* a new thread begins with SIGSTOP */
        deliver = number;
    ptrace(how, tid, 0, deliver);
}

static int follow(void) {
    int status;

    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
        die("waitpid");
    if (ptrace(PTRACE_SETOPTIONS, child, 0,
               PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                   PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD |
                   PTRACE_O_EXITKILL) < 0)
        die("ptrace");
    ptrace(PTRACE_CONT, child, 0, 0);
    for (;;) {
        pid_t tid = waitpid(-1, &status, __WALL);
        if (tid < 0 && errno == EINTR)
            continue;
        if (tid < 0)
            die("waitpid");
        if (WIFSTOPPED(status))
            stopped(tid, status);
        else if (tid == child)
            return status;
    }
}

static void plan_map(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        die(path);
    plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (plan == MAP_FAILED)
        die(path);
    close(fd);
}

static int usage(void) {
    fputs("killat [OPTION…] -- PROGRAM ARGUMENT…\n"
          "--plan FILE    at, after and the count in shared memory, see Plan\n"
          "--at N         at the N-th call (default: never, which counts only)\n"
          "--after        when it has been done\n"
          "--match TEXT   only calls whose words (name, file, data) contain it\n"
          "--from TEXT    only calls behind the first one whose words contain it\n"
          "--hold         wait for SIGUSR1 there, do not kill\n"
          "--log FILE     a line for each call\n",
          stderr);
    return 125;
}

int main(int argc, char **argv) {
    static const struct option known[] = {
        {"plan", required_argument, NULL, 'p'},  {"at", required_argument, NULL, 'n'},
        {"after", no_argument, NULL, 'a'},       {"hold", no_argument, NULL, 'h'},
        {"match", required_argument, NULL, 'm'}, {"from", required_argument, NULL, 'f'},
        {"log", required_argument, NULL, 'l'},   {}};
    static const int forwarded[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    int c, status;

    while ((c = getopt_long(argc, argv, "+", known, NULL)) != -1)
        switch (c) {
        case 'n':
            own.at = strtoul(optarg, NULL, 10);
            break;
        case 'a':
            own.after = true;
            break;
        case 'p':
            plan_map(optarg);
            break;
        case 'h':
            options.hold = true;
            break;
        case 'm':
            options.match = optarg;
            break;
        case 'f':
            options.from = optarg;
            break;
        case 'l':
            if (!(options.log = fopen(optarg, "we")))
                die(optarg);
            break;
        default:
            return usage();
        }
    if (optind >= argc)
        return usage();
    child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        child_run(argv + optind);
    for (size_t i = 0; i < sizeof forwarded / sizeof forwarded[0]; i++)
        sigaction(forwarded[i], &(struct sigaction){.sa_handler = on_signal}, NULL);
    status = follow();
    if (WIFSIGNALED(status)) {
        /* The caller is to see what it would see without us. */
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
