#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs suites of tests and counts test cases: runner.py --build FOLDER [-k PATTERN] [-t TAG] [-j N] [--keep] SUITE…

unit: what meson.build declares in suite unit (cases of TAP programs are counted one by one) and the sources' format. fuzz: each target with the
inputs of its folder of seeds, then with new ones for some seconds. Any other suite SUITE: the
functions test_* of tests/SUITE/test_*.py, each in a process of its own with a folder of its own under a short path.
The last line is "N passed, N failed" (", N skipped" if any); the exit status is 1 when something failed.
"""
import argparse
import ast
import ctypes
import fnmatch
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed

LIB = os.path.dirname(os.path.abspath(__file__))
TESTS = os.environ.get("BLOCKJOBD_TEST_DIR", os.path.dirname(LIB))
REPO = os.path.dirname(os.path.dirname(LIB))
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
DEADLINE = 120  # seconds for one test, unless it says otherwise
OUTPUT_MAX = 200000  # bytes printed of one failed test

FOLDERS = os.environ.get("BLOCKJOBD_TEST_FOLDERS", "/tmp")
REPORT = "/tests/report"  # of the tests in a container: one JSON object a line

OK, FAIL, SKIP = "ok", "FAIL", "skip"

folders = set()  # of tests that run
stopping = threading.Event()


class Result:
    def __init__(self, name, verdict, output="", seconds=0.0):
        self.name, self.verdict, self.output, self.seconds = name, verdict, output, seconds


# ---- one test: the keeper process ends whatever the test has left behind ----

def descendants(pid):
    """Process ids of all children, theirs included."""
    found = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as f:
                children = [int(c) for c in f.read().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def kill_descendants():
    """Until there are none; a process that is killed hands its children to us."""
    for _ in range(100):
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def keep(argv, folder, seconds):
    """Runs in the keeper: the command with a deadline, then the end of everything that came of it. Prints JSON."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)

    def stop(*_):
        kill_descendants()
        os._exit(1)
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        signal.signal(number, stop)
    started = time.monotonic()
    with open(os.path.join(folder, "output"), "wb") as out:
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        try:
            status = p.wait(seconds)
        except subprocess.TimeoutExpired:
            status = "deadline"
            # The test's own words about where it hangs; then it has a moment to collect its logs.
            p.send_signal(signal.SIGALRM)
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                pass
    kill_descendants()
    print(json.dumps({"status": status, "seconds": time.monotonic() - started}))


def run_kept(argv, seconds, keep_folder=False, parent=FOLDERS):
    """Returns (exit status or "deadline", output, seconds). {} in argv stands for the test's folder, below PARENT."""
    if stopping.is_set():
        return "interrupted", "", 0
    folder = tempfile.mkdtemp(prefix="bj-", dir=parent)
    os.chmod(folder, 0o711)
    folders.add(folder)
    try:
        work = os.path.join(folder, "t")
        os.mkdir(work, 0o755)
        keeper = subprocess.run([sys.executable, os.path.abspath(__file__), "--keeper", folder, str(seconds), "--",
                                 *[work if a == "{}" else a for a in argv]],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
        with open(os.path.join(folder, "output"), errors="replace") as f:
            output = f.read()
        try:
            answer = json.loads(keeper.stdout)
        except ValueError:
            return "keeper", output + keeper.stdout, 0
        if keep_folder:
            output += f"\nthe test's folder is kept: {folder}"
        return answer["status"], output, answer["seconds"]
    finally:
        folders.discard(folder)
        if not keep_folder:
            shutil.rmtree(folder, ignore_errors=True)


def interrupted(number, _frame):
    """The keepers end their tests; then nothing is left of them."""
    stopping.set()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        children = descendants(os.getpid())
        if not children:
            break
        for pid in children:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        time.sleep(0.1)
    for folder in list(folders):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(128 + number)


def run_one(path, function, folder):
    """Runs in the test's process: one function of one file."""
    sys.path.insert(0, LIB)
    import faulthandler
    faulthandler.enable()
    import harness
    test = harness.Test(folder)
    status = 0

    def late(*_):
        raise harness.DeadlinePassed("the test's deadline has passed")
    signal.signal(signal.SIGALRM, late)
    sys.path.insert(0, os.path.dirname(path))
    try:
        name = os.path.basename(path)[:-3]
        module = __import__(name)
        getattr(module, function)(test)
        test.finish(True)
    except harness.Skip as e:
        print(f"skipped: {e}")
        status = 77
    except BaseException:  # whatever it was, the logs are wanted
        traceback.print_exc()
        status = 1
        try:
            test.finish(False)
        except Exception:
            traceback.print_exc()
        print(test.evidence())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # no destructors: the keeper ends what is left


# ---- suites ----

def tap_results(name, status, output):
    """The cases of one TAP program; a crash or a wrong count is one more that failed."""
    results, plan, after, depth = [], None, "", -1
    for line in output.splitlines():
        m = re.match(r"^(\s*)(ok|not ok)\b *\d* *-? *(.*)$", line)
        n = re.match(r"^1\.\.(\d+)", line)
        if n:
            plan = int(n[1])
        if m:
            indent = len(m[1])
            # A line further out than the one before sums up what was inside.
            if indent >= depth and "(-s option)" not in m[3]:
                text, _, directive = m[3].partition(" # ")
                verdict = FAIL if m[2] != "ok" and "TODO" not in directive else OK
                if directive.upper().startswith("SKIP"):
                    verdict = SKIP
                # GLib's paths begin with the program's own subject more often than not.
                case = text.strip("/").removeprefix(os.path.basename(name) + "/")
                results.append(Result(f"{name}/{case}", verdict,
                                      after + "\n" + line if verdict != OK else ""))
            depth, after = indent, ""
        elif not n:
            after += line + "\n"
    failed = any(r.verdict == FAIL for r in results)
    top_level = len(re.findall(r"^(?:ok|not ok)\b", output, re.M))
    if (status not in (0, 1) or (status == 1 and not failed) or "Bail out!" in output
            or (plan is None and not results) or (plan is not None and plan != top_level)):
        results.append(Result(f"{name}/runs_to_its_end", FAIL, f"exit status {status}\n{output[-OUTPUT_MAX:]}"))
    return results


def unit_programs(build):
    """(name, command, environment, speaks TAP) of what meson.build declares in suite unit."""
    try:
        with open(os.path.join(build, "meson-info", "intro-tests.json")) as f:
            tests = json.load(f)
    except FileNotFoundError:
        for path in sorted(glob.glob(os.path.join(build, "tests", "unit", "test-*"))):
            if os.path.isfile(path) and os.access(path, os.X_OK):
                yield os.path.basename(path)[len("test-"):], [path], {}, True
        return
    for t in tests:
        if any(s.rsplit(":", 1)[-1] == "unit" for s in t["suite"]):
            yield t["name"], t["cmd"], t["env"], t["protocol"] == "tap"


# Cases that measure time, or would take hours: left out under memcheck, which is some thirty times as slow.
NOT_UNDER_VALGRIND = ["/journal/a_slow_disk_does_not_block_the_loop", "/view/lying_peer_costs_little_time",
                      "/view/damaged_answers_are_survived", "/auth/more_callers_than_are_remembered",
                      "/auth/a_flood_before_the_uid_is_known_is_bounded", "/qmp/late_reply_is_dropped"]


def under_valgrind():
    """What stands before a program, and what comes behind it."""
    tool = os.environ.get("BLOCKJOBD_TEST_VALGRIND", "").split()
    return tool, [word for case in NOT_UNDER_VALGRIND for word in ("-s", case)] if tool else []


def unit_jobs(args):
    """(name, callable → [Result], suite) for each program, and the checks of the sources."""
    jobs = []
    tool, left_out = under_valgrind()
    for program, command, env, tap in unit_programs(args.build):
        name = f"unit/{program}"

        def go(name=name, command=command, env=env, tap=tap):
            argv = ["env", *[f"{k}={v}" for k, v in env.items()],
                    *(tool if tap else []), *command, *(["--tap", *left_out] if tap else [])]
            status, output, took = run_kept(argv, DEADLINE * patience(), args.keep)
            if tap:
                results = tap_results(name, status, output)
            else:
                results = [Result(name, {0: OK, 77: SKIP}.get(status, FAIL), f"exit status {status}\n{output}")]
            for r in results:
                r.seconds = took / len(results)
            return [r for r in results if not args.pattern or matches(r.name, args.pattern) or r.verdict == FAIL]
        # Cases are known only when the program has run: a pattern with a case's name runs them all.
        if not args.pattern or any(matches(n, args.pattern) for n in (name, f"{name}/")) or args.pattern.count("/") != 1:
            jobs.append((name, go, "unit"))
    for name, go in (("unit/sources_are_formatted", sources_are_formatted),
                     ("unit/every_test_is_built", lambda: every_test_is_built(args))):
        if not args.pattern or matches(name, args.pattern):
            jobs.append((name, go, "unit"))
    return jobs


def every_test_is_built(args):
    """A test that is missing in meson.build would never fail."""
    missing = [s for s in sorted(glob.glob(os.path.join(TESTS, "unit", "test-*.c")))
               if not os.path.exists(os.path.join(args.build, "tests", "unit", os.path.basename(s)[:-2]))]
    return [Result("unit/every_test_is_built", FAIL if missing else OK, f"not built: {missing}")]


def sources_are_formatted():
    files = [f for folder in ("service", "client", "tests") for end in ("c", "h")
             for f in glob.glob(os.path.join(REPO, folder, "**", f"*.{end}"), recursive=True)]
    p = subprocess.run(["clang-format", "--dry-run", "-Werror", *sorted(files)], capture_output=True, text=True)
    return [Result("unit/sources_are_formatted", FAIL if p.returncode else OK, p.stderr[:8000])]


def literal(node, default):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return default


def functions_of(path):
    """(name, deadline, tags) of the tests in a file; read, not run."""
    with open(path) as f:
        tree = ast.parse(f.read(), path)
    for node in tree.body:
        if not (isinstance(node, ast.FunctionDef) and node.name.startswith("test_")):
            continue
        seconds, words = DEADLINE, ()
        for d in node.decorator_list:
            if isinstance(d, ast.Call) and isinstance(d.func, ast.Name):
                if d.func.id == "deadline":
                    seconds = literal(d.args[0], DEADLINE)
                elif d.func.id == "tags":
                    words = tuple(literal(a, "") for a in d.args)
        yield node.name, seconds, words


AGAIN = threading.Lock()  # second tries are made one at a time
FIRST_TRY_MAX = 4000


def python_jobs(suite, args):
    folder = os.path.join(TESTS, suite)
    # A kill does not see what is on disk and what is not: the sweeps need not wait for one.
    parent = "/dev/shm" if suite == "crash" and os.path.isdir("/dev/shm") else FOLDERS
    jobs = []
    for path in sorted(glob.glob(os.path.join(folder, "test_*.py"))):
        file = os.path.basename(path)[len("test_"):-3]
        try:
            functions = list(functions_of(path))
        except SyntaxError as e:
            jobs.append((f"{suite}/{file}", lambda e=e, n=f"{suite}/{file}": [Result(n, FAIL, str(e))], suite))
            continue
        for function, seconds, words in functions:
            name = f"{suite}/{args.inside + '/' if args.inside else ''}{file}/{function[len('test_'):]}"
            if args.pattern and not matches(name, args.pattern):
                continue
            if args.inside and any(w.startswith("only-") and w != f"only-{args.inside}" for w in words):
                continue
            if any((t[1:] in words) if t.startswith("-") else (t not in words) for t in args.tag):
                continue

            def once(path=path, function=function, seconds=seconds, name=name):
                limit = seconds * patience()
                status, output, took = run_kept([sys.executable, os.path.abspath(__file__), "--one", path, function,
                                                 "{}"], limit, args.keep, parent)
                verdict = {0: OK, 77: SKIP}.get(status, FAIL)
                if status not in (0, 1, 77):
                    output += f"\nended with: {status}" + (f" ({limit:.0f} s)" if status == "deadline" else "")
                notes = "\n".join(line for line in output.splitlines() if line.startswith("note: "))
                return Result(name, verdict, output if verdict != OK else notes, took)

            def go(once=once, name=name):
                """Real QEMUs on a busy machine miss a deadline now and then: a failure counts when it comes twice. The
                first one is shown all the same."""
                first = once()
                if first.verdict != FAIL or suite == "crash":  # what a sweep finds once is there
                    return [first]
                with AGAIN:
                    second = once()
                if second.verdict == OK:
                    second.output = f"(failed at the first try)\n{first.output[:FIRST_TRY_MAX]}"
                else:
                    second.output += f"\n(at the first try)\n{first.output[:FIRST_TRY_MAX]}"
                return [second]
            jobs.append((name, go, suite))
    return jobs


# ---- the suite in containers ----

RELEASES = ("bookworm", "trixie")
# From this version on, a journal that is there is carried on with: the one to upgrade from, until there is a release.
OLDER = "6a77bc61814e7f7c2c013884ccec82118c980da3"
CONTAINER = 900  # seconds for the build, two boots and all tests of one


def system_jobs(args):
    """One job for each release: a container is booted, the tests of tests/system run in it as the suite system of
    another runner.py, and every one of them has to be heard of."""
    jobs = []
    for release in RELEASES:
        inside = argparse.Namespace(**{**vars(args), "inside": release})
        expected = [name for name, _, _ in python_jobs("system", inside)]
        if expected:
            jobs.append((f"system/{release}", lambda r=release, e=expected: run_container(r, e, args), "system"))
    return jobs


def unpack_older(build):
    """The sources of OLDER, for the test of an upgrade; a clone without history has none."""
    folder = os.path.join(build, f"source-{OLDER[:12]}")
    archive = subprocess.run(["git", "-C", REPO, "archive", OLDER], capture_output=True, check=False)
    if archive.returncode == 0 and not os.path.exists(folder):
        os.makedirs(folder)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder if os.path.exists(folder) else ""


def run_container(release, expected, args):
    build = os.path.join(args.build, f"system-{release}")
    os.makedirs(build, exist_ok=True)
    older = unpack_older(build) if release == "bookworm" else ""
    ready = subprocess.run([os.path.join(LIB, "root"), "path", release], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, check=False)
    if ready.returncode:
        return [Result(name, FAIL, ready.stderr) for name in expected[:1]]
    with tempfile.TemporaryDirectory(prefix="bj-", dir="/tmp") as folder:
        os.chmod(folder, 0o711)
        if args.pattern:
            with open(os.path.join(folder, "pattern"), "w") as f:
                f.write(args.pattern)
        command = [os.path.join(LIB, "root"), "boot", release, folder, "tests/system/prepare", release, older]
        status, output, took = run_kept(["env", f"BLOCKJOBD_BUILD={build}", *command], CONTAINER * patience())
        results, words = [], [f"the container has ended with {status} after {took:.0f} s", output]
        for name in "report", "output", "journal", "figures":
            try:
                with open(os.path.join(folder, name), errors="replace") as f:
                    text = f.read()
            except OSError:
                text = ""
            if name == "report":
                results = [Result(**json.loads(line)) for line in text.splitlines()]
            elif name == "figures":
                figures = text.splitlines()
            else:
                words.append(f"--- {name} ---\n{text[-OUTPUT_MAX // 4:]}")
    missing = sorted(set(expected) - {r.name for r in results})
    results += [Result(name, FAIL, "\n".join(words) if i == 0 else "nothing was heard of it")
                for i, name in enumerate(missing)]
    for line in [f"{len(expected)} tests, {took:.0f} s with building and booting", *figures]:
        print(f"     {release}: {line}")
    return results


# ---- fuzz ----

FUZZ_SECONDS = 3  # for each target, unless --long says otherwise


def fuzz_seeds(name):
    """The folders with inputs of a target; some are samples of the unit tests."""
    more = {"view": ["qmp"], "xml": ["xml", "xml/refused"]}.get(name, [])
    return [os.path.join(TESTS, "fuzz", "seeds", name), *[os.path.join(TESTS, "unit", "data", m) for m in more]]


def fuzz_jobs(args):
    """Known inputs (one run each) and new ones. With --long the inputs that reached something new are kept in the build's folder, and
    so are those that failed; libFuzzer prints short ones in base64 anyhow."""
    build = os.environ.get("BLOCKJOBD_FUZZ_BUILD", os.path.join(REPO, "build-fuzz"))
    seconds = args.long or FUZZ_SECONDS
    jobs = []
    for source in sorted(glob.glob(os.path.join(TESTS, "fuzz", "fuzz-*.c"))):
        target = os.path.basename(source)[:-2]
        name, program = target.removeprefix("fuzz-"), os.path.join(build, "tests", "fuzz", target)
        seeds = fuzz_seeds(name)
        inputs = sorted(f for folder in seeds for f in glob.glob(os.path.join(folder, "*")) if os.path.isfile(f))
        corpus = os.path.join(build, "corpus", name) if args.long else "{}"
        if args.long:
            os.makedirs(corpus, exist_ok=True)
        argv = [program, "-timeout=20", "-rss_limit_mb=2500", "-print_final_stats=1",
                f"-artifact_prefix={build}/found-{name}-"]
        for what, more, limit in (("known_inputs_pass", inputs, DEADLINE),
                                  ("new_inputs_pass", [f"-max_total_time={seconds}", corpus, *seeds], seconds + DEADLINE)):
            case = f"fuzz/{name}/{what}"

            def go(case=case, command=[*argv, *more], limit=limit):
                status, output, took = run_kept(command, limit * patience(), args.keep)
                if status != 0:
                    return [Result(case, FAIL, f"exit status {status}\n{output}", took)]
                runs = re.search(r"^#\d+\s+DONE.*$", output, re.M)
                return [Result(case, OK, runs[0] if runs else "", took)]
            if not args.pattern or matches(case, args.pattern):
                jobs.append((case, go, "fuzz"))
    return jobs


def patience():
    return float(os.environ.get("BLOCKJOBD_TEST_PATIENCE", "1"))


def matches(name, pattern):
    return pattern in name or fnmatch.fnmatch(name, pattern)


def skips_are_failures():
    """On Debian 12 as root everything can be installed and run."""
    try:
        with open("/etc/os-release") as f:
            text = f.read()
    except OSError:
        return False
    return os.geteuid() == 0 and bool(re.search(r'^VERSION_ID="?12"?$', text, re.M)) and "ID=debian" in text


def report(result, strict, file=None):
    if result.verdict == SKIP and strict:
        result.verdict = FAIL
        result.output += "\n(a test that is skipped on Debian 12 as root counts as failed)"
    if file:
        with open(file, "a") as f:
            print(json.dumps(vars(result)), file=f)
    slow = f" ({result.seconds:.1f} s)" if result.seconds >= 1 else ""
    print(f"{result.verdict:4} {result.name}{slow}")
    if result.output.strip():
        text = result.output.strip("\n")
        if len(text) > OUTPUT_MAX:
            text = text[:OUTPUT_MAX // 2] + "\n…\n" + text[-OUTPUT_MAX // 2:]
        print("\n".join("     " + line for line in text.splitlines()))
    sys.stdout.flush()


def run_jobs(jobs, parallel, strict, file=None):
    """Returns the verdicts counted, and what the tests' notes have counted ("note: 5 points, 2 violations"), summed up."""
    counts, sums = {OK: 0, FAIL: 0, SKIP: 0}, {}
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        futures = {pool.submit(go): name for name, go, _ in jobs}
        for future in as_completed(futures):
            try:
                results = future.result()
            except Exception:
                results = [Result(futures[future], FAIL, traceback.format_exc())]
            for result in results:
                report(result, strict, file)
                counts[result.verdict] += 1
                for note in re.findall(r"^note: ((?:\d+ [a-z -]+(?:, |$))+)$", result.output, re.M):
                    for n, what in re.findall(r"(\d+) ([a-z -]+)", note):
                        sums[what] = sums.get(what, 0) + int(n)
    return counts, sums


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--keeper":
        keep(sys.argv[5:], sys.argv[2], float(sys.argv[3]))
        return 0
    if len(sys.argv) > 1 and sys.argv[1] == "--one":
        run_one(*sys.argv[2:5])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("-k", dest="pattern", help="only tests whose name contains (or matches) this")
    parser.add_argument("-t", dest="tag", action="append", default=[], help="only tests with this tag; -t=-TAG: without")
    parser.add_argument("-j", dest="jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--long", type=int, metavar="SECONDS", help="fuzz each target for so long")
    parser.add_argument("--keep", action="store_true", help="keep the tests' folders")
    parser.add_argument("--inside", metavar="RELEASE", help="the tests of suite system themselves, in their container")
    parser.add_argument("suite", nargs="+")
    args = parser.parse_intermixed_args()
    args.build = os.path.abspath(args.build)
    os.environ["BLOCKJOBD_BUILD"] = args.build
    os.environ["BLOCKJOBD_TESTS"] = os.path.join(TESTS, "unit")
    os.environ.setdefault("G_SLICE", "always-malloc")  # else neither sanitizers nor memcheck see what is in slices
    os.environ.setdefault("ASAN_OPTIONS", "abort_on_error=1:detect_leaks=1:strict_string_checks=1")
    os.environ.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1:abort_on_error=1")
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        signal.signal(number, interrupted)

    strict, total = skips_are_failures(), {OK: 0, FAIL: 0, SKIP: 0}
    for suite in args.suite:
        if suite != "unit" and not os.path.isdir(os.path.join(TESTS, suite)):
            parser.error(f"there is no suite {suite}")
        jobs = {"unit": unit_jobs, "fuzz": fuzz_jobs}.get(suite)
        if not jobs:
            jobs = system_jobs if suite == "system" and not args.inside else lambda a, s=suite: python_jobs(s, a)
        jobs = jobs(args)
        if suite == "qemu" and jobs:
            # Once before, so that parallel tests need not wait for each other.
            subprocess.run([os.path.join(TESTS, "guest", "build"), os.path.join(args.build, "tests", "guest")],
                           stdin=subprocess.DEVNULL, check=False)
        counts, sums = run_jobs(jobs, max(1, args.jobs), strict, REPORT if args.inside else None)
        for verdict, n in counts.items():
            total[verdict] += n
        if sums:
            print(f"{suite}: " + ", ".join(f"{n} {what}" for what, n in sums.items()))
    skipped = f", {total[SKIP]} skipped" if total[SKIP] else ""
    if sum(total.values()) == 0:
        print("no test was found")
    print(f"{total[OK]} passed, {total[FAIL]} failed{skipped}")
    return 1 if total[FAIL] or sum(total.values()) == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
