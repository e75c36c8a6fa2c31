/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blockjobctl: the command line client of blockjobd. Finds the verb and runs it. */

#include "ctl-format.h"
#include "ctl-terminal.h"
#include "ctl-verbs.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    int min_args, max_args; /* max_args < 0: any number */
    unsigned takes;
    int (*run)(Ctl *ctl, int argc, char **argv);
    const char *arguments;
} Verb;

static const Verb verbs[] = {
    {"list", 0, 0, TAKES_ALL, verb_list, ""},
    {"status", 1, -1, 0, verb_status, "JOB..."},
    {"show", 0, -1, TAKES_PROPERTY, verb_show, "[JOB...]"},
    {"domains", 0, 0, 0, verb_domains, ""},
    {"disks", 0, 1, 0, verb_disks, "[DOMAIN]"},
    {"chain", 2, 2, 0, verb_chain, "DOMAIN DISK"},
    {"attach", 0, 2, TAKES_ATTACH, verb_attach, "[NAME] SOCKET"},
    {"detach", 1, 1, TAKES_DETACH, verb_detach, "DOMAIN"},
    {"copy", 2, -1, TAKES_COPY | TAKES_WAITING, verb_copy, "DOMAIN DISK TARGET|DISK=TARGET..."},
    {"move", 2, -1, TAKES_COPY | TAKES_WAITING, verb_move, "DOMAIN DISK TARGET|DISK=TARGET..."},
    {"check", 2, 3, TAKES_COPY, verb_check, "DOMAIN DISK TARGET"},
    {"commit", 2, 2, TAKES_COMMIT | TAKES_WAITING, verb_commit, "DOMAIN DISK"},
    {"pull", 2, 2, TAKES_PULL | TAKES_WAITING, verb_pull, "DOMAIN DISK"},
    {"wait", 1, -1, TAKES_WAITING | TAKES_GOAL, verb_wait, "JOB..."},
    {"pivot", 1, -1, TAKES_END | TAKES_WAITING, verb_pivot, "JOB..."},
    {"finish", 1, -1, TAKES_END | TAKES_WAITING, verb_finish, "JOB..."},
    {"cancel", 1, -1, TAKES_CANCEL | TAKES_WAITING, verb_cancel, "JOB..."},
    {"pause", 1, -1, 0, verb_pause, "JOB..."},
    {"resume", 1, -1, 0, verb_resume, "JOB..."},
    {"set-speed", 2, 2, 0, verb_set_speed, "JOB RATE"},
    {"set-copy-mode", 2, 2, 0, verb_set_copy_mode, "JOB MODE"},
    {"set-on-ready", 2, 2, 0, verb_set_on_ready, "JOB wait|pivot|finish"},
    {"watch", 0, 1, 0, verb_watch, "[JOB]"},
    {"history", 0, 0, TAKES_HISTORY, verb_history, ""},
    {"dismiss", 1, -1, 0, verb_dismiss, "JOB..."},
    {"xml", 1, 1, TAKES_XML, verb_xml, "DOMAIN"},
    {"permissions", 0, 0, 0, verb_permissions, ""},
    {"journal", 1, 2, 0, verb_journal, "export [FOLDER]"},
};

static const char help_text[] =
    "Usage: blockjobctl [OPTION...] [VERB [ARGUMENT...]]\n"
    "\n"
    "Copy the disks of running guests, and watch and end such jobs.\n"
    "JOB is a number as in 42, also j42 or the object path.\n"
    "\n"
    "Looking:\n"
    "  list                       The active jobs; with --all also those that have ended lately\n"
    "  status JOB...              What is known of a job, for people\n"
    "  show [JOB...]              The properties of a job, or of the service, as NAME=VALUE\n"
    "  domains                    The attached domains\n"
    "  disks [DOMAIN]             Their disks\n"
    "  chain DOMAIN DISK          The images under a disk, the active layer first\n"
    "  history                    Jobs that have ended, the newest first\n"
    "  watch [JOB]                A line for each event of the jobs, until Ctrl-C\n"
    "  xml DOMAIN                 The domain's XML\n"
    "  permissions                What polkit would say to you\n"
    "  journal export [FOLDER]    The whole journal as JSON, from the service or from its files\n"
    "\n"
    "Copying:\n"
    "  copy DOMAIN DISK TARGET    Mirror a disk to a new image, wait until it is ready\n"
    "  move DOMAIN DISK TARGET    As copy --on-ready=pivot: go over to the new image\n"
    "  copy DOMAIN DISK=TARGET... Several disks to one point in time, all or none; move likewise\n"
    "  check DOMAIN DISK TARGET   Say what would be refused; change nothing\n"
    "  commit DOMAIN DISK         Merge the active layer, or with --top= another image, down\n"
    "  pull DOMAIN DISK           Copy what lies below the active layer, or --top=, into it\n"
    "  wait JOB...                Wait until a job has ended, or with --for=ready is ready\n"
    "  pivot JOB...               Switch the guest to the target\n"
    "  finish JOB...              Stay on the source; the target is a consistent copy\n"
    "  cancel JOB...              Abandon the copy\n"
    "  pause JOB..., resume JOB...\n"
    "  set-speed JOB RATE         Bytes per second, as in 100M; 0 is no limit\n"
    "  set-copy-mode JOB MODE, set-on-ready JOB wait|pivot|finish\n"
    "  dismiss JOB...             Take a job that has ended off the bus\n"
    "\n"
    "Domains:\n"
    "  attach [NAME] SOCKET       Connect to a running QEMU by its QMP socket [--definition=FILE]\n"
    "  detach DOMAIN              Forget a domain [--force]\n"
    "\n"
    "Options:\n"
    "  -h --help, --version\n"
    "  -H --host=[USER@]HOST      Talk to the service on another host, over ssh\n"
    "  -a --all                   List jobs that have ended, too\n"
    "  -j, --json=short|pretty    Print JSON\n"
    "  -p --property=NAME, --value\n"
    "                             Of show: only this property; only its value\n"
    "     --no-block              Do not wait; what makes a job prints its number\n"
    "     --timeout=DURATION      Wait no longer than this (exit code 4); the job goes on\n"
    "     --for=ready|concluded   What wait waits for\n"
    "  -l --full                  Do not shorten columns\n"
    "     --no-pager, --no-legend, -q --quiet, --no-ask-password\n"
    "\n"
    "Options of copy, move and check (and pivot, finish: 1; cancel: 2):\n"
    "     --format=qcow2|raw --existing --fd=N --sync=full|top|none --backing=FILE\n"
    "     --backing-format=FORMAT --copy-mode=background|write-blocking --speed=RATE\n"
    "     --granularity=SIZE --buf-size=SIZE --on-source-error=stop|report|enospc\n"
    "     --on-target-error=stop|report|enospc --on-ready=wait|pivot|finish\n"
    "     --cluster-size=SIZE --preallocation=off|metadata|falloc|full\n"
    "     --discard=unmap|ignore --detect-zeroes=unmap|on|off --cache=direct|writeback\n"
    "     --aio=native|threads --pause-guest=yes|no (1) --max-pause=DURATION (1)\n"
    "     --delete-source --keep-target (2) --delete-target (2) --force (2)\n"
    "     --request-id=TEXT\n"
    "Options of commit and pull (only commit: 3):\n"
    "     --top=IMAGE --base=IMAGE (by index, node or file, see chain) --backing-file=NAME\n"
    "     --speed=RATE --on-error=stop|report|enospc --delete-image --request-id=TEXT\n"
    "     --shallow (3) --active (3) --inner (3) --on-ready=wait|pivot|finish (3)\n"
    "     --pause-guest=yes|no (3) --max-pause=DURATION (3)\n"
    "Options of history:\n"
    "     --domain=NAME --disk=NAME --kind=KIND --result=RESULT --since=TIME --until=TIME\n"
    "     --limit=N\n"
    "Option of xml: --persistent\n"
    "\n"
    "Exit code: 0 done, 1 failed, 2 wrong usage, 3 cancelled by somebody, 4 time-out, 5 access\n"
    "denied, 6 no such object, 7 wrong state, 8 no service, 130 detached by Ctrl-C.\n"
    "More in blockjobctl(1).\n";

static const Verb *verb_find(const char *name) {
    const char *names[G_N_ELEMENTS(verbs) + 1] = {NULL};

    for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
        names[i] = verbs[i].name;
    }
    const char *near = word_nearest(name, names);
    complain("There is no verb \"%s\"%s%s%s", name, near ? "; did you mean \"" : "",
             near ? near : "", near ? "\"?" : "; see blockjobctl --help.");
    return NULL;
}

static bool arguments_check(const Verb *verb, int argc, char **argv) {
    bool fits = argc >= verb->min_args && (verb->max_args < 0 || argc <= verb->max_args);

    if (!fits)
        complain("Say blockjobctl %s%s%s.", verb->name, *verb->arguments ? " " : "",
                 verb->arguments);
    for (int i = 0; fits && i < argc; i++)
        if (!g_utf8_validate(argv[i], -1, NULL)) {
            complain("An argument of \"%s\" is not UTF-8.", verb->name);
            return false;
        }
    return fits;
}

static int verb_run(Options *options, int argc, char **argv) {
    const Verb *verb = argc > 0 ? verb_find(argv[0]) : &verbs[0];
    g_auto(Ctl) ctl = {.options = options};

    if (argc > 0) {
        argc--;
        argv++;
    }
    if (!verb || !arguments_check(verb, argc, argv) ||
        !options_check(options, verb->name, verb->takes))
        return CTL_USAGE;
    return verb->run(&ctl, argc, argv);
}

static int command_run(int argc, char **argv) {
    g_auto(Options) options = {0};
    int n_args;
    char **args;

    if (!options_parse(&options, argc, argv, &n_args, &args))
        return CTL_USAGE;
    if (options.help)
        fputs(help_text, stdout);
    else if (options.version)
        puts("blockjobctl " VERSION);
    else
        return verb_run(&options, n_args, args);
    return CTL_DONE;
}

int main(int argc, char **argv) {
    setlocale(LC_ALL, "");
    int code = command_run(argc, argv);
    pager_close();
    agent_close();
    /* What could not be written (a full disk) must not look like success. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == CTL_DONE) {
        complain("The output could not be written.");
        code = CTL_FAILED;
    }
    return code;
}
