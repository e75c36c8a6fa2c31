# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockjobctl against the real service: each verb, the exit codes, JSON, and what scripts rely on."""
import json
import os
import re
import shlex
import subprocess

from harness import *
from scenes import *

DONE, FAILED, USAGE, CANCELLED, TIMEOUT, DENIED, NO_OBJECT, WRONG_STATE, NO_SERVICE = range(9)


def ctl(t, code, *args, uid=None, text="", timeout=60):
    """Runs it; the exit code must be CODE and TEXT be somewhere in the output. Returns Finished."""
    result = t.ctl(*args, uid=uid, timeout=timeout)
    assert result.returncode == code, f"{code} was expected: {result}"
    assert text in result.stdout + result.stderr, f"{text!r} is missing: {result}"
    assert "\033" not in result.stdout + result.stderr and "\r" not in result.stdout + result.stderr, result
    if code:
        lines = result.stderr.strip().splitlines()
        assert lines and all(line.startswith("blockjobctl: ") or line.startswith("job ") for line in lines), result
    return result


def verbs():
    with open(f"{REPO}/client/ctl-main.c") as f:
        table = f.read().split("verbs[] = {")[1].split("};")[0]
    return re.findall(r'^\s*\{"([a-z-]+)"', table, re.MULTILINE)


def test_each_verb_works(t):
    s, _qemu, domain = small(t, disks=2)
    socket, tried = domain.Socket, []

    def works(verb, *args, text="", code=DONE):
        tried.append(verb)
        return ctl(t, code, verb, *args, text=text)
    works("detach", "web")
    assert not s.domains()
    works("attach", "web", socket, text="Domain web is attached: paused, QEMU 7")
    works("domains", text="web")
    assert t.path("web0.qcow2") in works("disks", "web").stdout
    assert "web1.qcow2" in works("chain", "web", "vdb").stdout
    works("check", "web", "vda", t.path("copies/a"), text="would be accepted")
    works("copy", "web", "vda", t.path("copies/a"), text="Job 1 is ready")
    assert re.search(r"^ *1 +copy +web +vda +ready", works("list").stdout, re.MULTILINE)
    works("status", "1", text="Target: " + t.path("copies/a"))
    assert "State=ready" in works("show", "1").stdout
    assert "<mirror" in works("xml", "web").stdout
    works("pivot", "1", text="Job 1 has pivoted")
    works("history", text="pivoted")
    works("dismiss", "1")
    works("move", "web", "vda", t.path("copies/b"), text="has pivoted")
    ctl(t, DONE, "copy", "web", "vdb", t.path("copies/c"), "--speed=1", "--no-block")
    Job(s, f"{ROOT}/job/j3").wait("running")
    works("pause", "3")
    assert Job(s, f"{ROOT}/job/j3").Paused
    works("resume", "j3")
    works("set-speed", f"{ROOT}/job/j3", "2M")
    assert Job(s, f"{ROOT}/job/j3").SpeedLimit == 2 << 20
    works("set-on-ready", "3", "finish")
    works("wait", "3", text="Job 3 has finished")
    ctl(t, DONE, "copy", "web", "vdb", t.path("copies/d"))
    works("finish", "4", text="consistent copy")
    ctl(t, DONE, "copy", "web", "vdb", t.path("copies/e"))
    # QEMU 7.2 cannot change it while it runs; the service says so.
    works("set-copy-mode", "5", "write-blocking", code=FAILED, text="cannot")
    works("cancel", "5", text="was cancelled")
    for verb in "commit", "pull":
        works(verb, "web", "vdb", code=FAILED, text="no backing file")
    works("permissions", text="org.blockjob1.copy ")
    assert len(json.loads(works("journal", "export").stdout)["jobs"]) == 5
    works("watch", "5", text="job 5 (web/vdb): cancelled")
    assert sorted(tried) == sorted(verbs()), set(verbs()) ^ set(tried)


def test_no_verb_lists(t):
    small(t)
    assert ctl(t, DONE).stdout == ctl(t, DONE, "list").stdout


def test_help_and_version_need_no_service(t):
    assert all(re.search(rf"^  .*\b{v}\b", ctl(t, DONE, "--help").stdout, re.MULTILINE) for v in verbs())
    assert re.fullmatch(r"blockjobctl \S+\n", ctl(t, DONE, "--version").stdout)


def test_code_1_a_job_that_fails_or_is_lost(t):
    s, qemu, domain = small(t)
    slow_job(t, domain.disk())
    process = start(t, "wait", "1")
    qemu.kill()
    assert process.wait() == FAILED and "lost" in process.log(), process.log()
    ctl(t, FAILED, "wait", "1", text="lost")
    ctl(t, WRONG_STATE, "copy", "web", "vda", t.path("copies/x"), text="not running")


def test_code_2_wrong_usage(t):
    s, _qemu, _domain = small(t)
    for args, text in [
            (["lits"], 'did you mean "list"'), (["list", "x"], "Say blockjobctl list"), (["--colour"], "no option"),
            (["list", "--for=ready"], "does not go with"), (["wait"], "Say blockjobctl wait"), (["wait", "x"], "x"),
            (["copy", "web", "vda"], "Say where to"), (["copy", "web", "vda", "/x", "--speed=fast"], "fast"),
            (["copy", "web", "vda", "/x", "--format"], "needs a value"), (["wait", "1", "--for=lunch"], "lunch"),
            (["copy", "web", "vda", t.path("copies/x"), "--format=vmdk"], "format"),
            (["copy", "web", "vda", t.path("copies/x"), "--granularity=3"], "granularity"),
            (["set-speed", "1", "much"], "no rate"), (["list", "--json=xml"], "xml"), (["attach"], "socket"),
            (["show", "-p"], "needs a value"), (["wait", "1", "--timeout=soon"], "soon"),
            (["copy", "web", "vda", "--fd=99"], "descriptor"),
            (["move", "web", "vda", "/x", "--on-ready=finish"], "move")]:
        ctl(t, USAGE, *args, text=text)
    assert not s.jobs()


def test_code_3_cancelled_by_somebody(t):
    s, _qemu, domain = small(t, disks=2)
    job = slow_job(t, domain.disk())
    waiting = start(t, "wait", "1")
    copying = start(t, "copy", "web", "vdb", t.path("copies/b"), "--speed=1")
    wait_until(lambda: len(s.jobs()) == 2)
    second = Job(s, f"{ROOT}/job/j2").wait("running")
    wait_until(lambda: "job 2" in copying.log() and "job 1" in waiting.log())
    job.cancel()
    second.cancel()
    for process in waiting, copying:
        assert process.wait() == CANCELLED and "cancelled" in process.log(), process.log()
    ctl(t, CANCELLED, "wait", "1")


def test_code_4_time_is_over_and_the_job_goes_on(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    result = ctl(t, TIMEOUT, "wait", "1", "--timeout=200ms", text="job 1 goes on")
    assert "blockjobctl wait 1 / cancel 1" in result.stderr
    assert job.State == "running"
    ctl(t, TIMEOUT, "wait", "1", "--for=ready", "--timeout=1ms")
    job.cancel().wait_result("cancelled")
    ctl(t, TIMEOUT, "copy", "web", "vda", t.path("copies/y"), "--speed=1", "--timeout=300ms", text="job 2 goes on")
    Job(s, f"{ROOT}/job/j2").cancel().wait_result("cancelled")


def test_code_5_access_denied(t):
    t.polkit()
    _s, _qemu, domain = small(t)
    slow_job(t, domain.disk())
    for args in (["cancel", "1"], ["pause", "1"], ["detach", "web"], ["set-speed", "1", "0"], ["dismiss", "1"],
                 ["check", "web", "vda", t.path("copies/x")], ["copy", "web", "vda", t.path("copies/x")]):
        ctl(t, DENIED, *args, "--no-ask-password", uid=OTHER, text="org.blockjob1.")
    assert ctl(t, DONE, "list", uid=OTHER).stdout and ctl(t, DONE, "status", "1", uid=OTHER)
    assert "challenge" in ctl(t, DONE, "permissions", uid=OTHER).stdout
    domain.client.job(1).cancel().wait_result("cancelled")


def test_code_6_no_such_object(t):
    small(t)
    for args in (["status", "99"], ["show", "99"], ["wait", "99"], ["pivot", "99"], ["cancel", "99"], ["pause", "99"],
                 ["watch", "99"], ["dismiss", "99"], ["set-speed", "99", "1M"], ["disks", "mail"],
                 ["detach", "mail"], ["xml", "mail"], ["copy", "mail", "vda", t.path("copies/x")],
                 ["copy", "web", "vdz", t.path("copies/x")], ["chain", "web", "vdz"]):
        result = ctl(t, NO_OBJECT, *args)
        assert not result.stdout, result


def test_code_7_wrong_state(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    ctl(t, WRONG_STATE, "pivot", "1", text="wait --for=ready 1")
    ctl(t, WRONG_STATE, "finish", "1")
    ctl(t, WRONG_STATE, "copy", "web", "vda", t.path("copies/x"), text="busy")
    ctl(t, WRONG_STATE, "check", "web", "vda", t.path("copies/x"), text="busy")
    ctl(t, WRONG_STATE, "dismiss", "1")
    ctl(t, WRONG_STATE, "detach", "web")
    ctl(t, WRONG_STATE, "attach", "web", t.path("other.qmp"))
    job.cancel().wait_result("cancelled")
    ctl(t, WRONG_STATE, "cancel", "1")


def test_code_8_no_service_or_no_bus(t):
    t.bus
    for args in ["list"], ["status", "1"], ["wait", "1"], ["pivot", "1"], ["domains"], ["watch", "1"]:
        ctl(t, NO_SERVICE, *args, text="blockjobd does not run")
    t.bus.stop()
    ctl(t, NO_SERVICE, "list", text="bus")


def start(t, *args, uid=None):
    """blockjobctl in the background, both outputs in one log that is no terminal."""
    n = len([k for k in t.logs if k.startswith("ctl")])
    log = t.path(f"ctl{n}.log")
    t.logs[f"ctl {n}: {args}"] = log
    return Process([f"{BUILD}/client/blockjobctl", *args], log, env=t.bus.env, name=f"blockjobctl {args}")


# ---- output for programs ----

def test_json_is_what_is_on_the_bus(t):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/x")).wait("ready")
    for mode in "short", "pretty":
        text = ctl(t, DONE, "list", f"--json={mode}").stdout
        listed, = json.loads(text)
        assert (text.count("\n") == 1) == (mode == "short")
        live = job.properties()
        assert {k: v for k, v in listed.items() if k in live} == live
    assert json.loads(ctl(t, DONE, "show", "1", "-j").stdout)["Id"] == 1
    assert json.loads(ctl(t, DONE, "show", "1", "-j", "-p", "State").stdout) == "ready"
    assert json.loads(ctl(t, DONE, "domains", "-j").stdout)[0]["Name"] == "web"
    assert json.loads(ctl(t, DONE, "disks", "web", "-j").stdout)[0]["Job"] == job.path
    assert json.loads(ctl(t, DONE, "chain", "web", "vda", "-j").stdout)[0]["file"] == t.path("web0.qcow2")
    assert json.loads(ctl(t, DONE, "permissions", "-j").stdout)["org.blockjob1.copy"] == "yes"
    refusal = t.ctl("check", "web", "vda", t.path("copies/y"), "-j")
    assert refusal.returncode == WRONG_STATE and not refusal.stderr, refusal
    check = json.loads(refusal.stdout)
    assert check["ok"] is False and check["error-name"].endswith("DiskBusy")
    ended = json.loads(ctl(t, DONE, "finish", "1", "-j").stdout)
    assert (ended["State"], ended["Result"], ended["Target"]) == ("concluded", "finished", t.path("copies/x"))
    history, = json.loads(ctl(t, DONE, "history", "-j").stdout)
    assert history["result"] == "finished" and history["id"] == 1
    assert json.loads(ctl(t, DONE, "list", "-j").stdout) == []
    assert s.manager.NJobsActive == 0


def test_show_prints_values_for_scripts(t):
    _s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/x")).wait("ready")
    lines = ctl(t, DONE, "show", "1").stdout.splitlines()
    names = {line.split("=", 1)[0] for line in lines}
    assert names == set(job.properties())
    assert ctl(t, DONE, "show", "1", "-p", "State", "--value").stdout == "ready\n"
    assert ctl(t, DONE, "show", "1", "-p", "State", "-p", "Paused").stdout == "State=ready\nPaused=no\n"
    assert "NJobsActive=1" in ctl(t, DONE, "show").stdout
    ctl(t, USAGE, "show", "1", "-p", "Colour", text="Colour")
    job.cancel().wait_result("cancelled")


def test_no_block_prints_the_number_and_nothing_else(t):
    s, _qemu, _domain = small(t)
    result = ctl(t, DONE, "copy", "web", "vda", t.path("copies/x"), "--no-block")
    assert result.stdout == "1\n" and not result.stderr
    ctl(t, DONE, "wait", "1", "--for=ready")
    result = ctl(t, DONE, "finish", "1", "--no-block")
    assert not result.stdout and not result.stderr
    ctl(t, DONE, "wait", "1", text="has finished")
    assert s.jobs()


def test_output_that_is_no_terminal_has_lines_only(t):
    _s, _qemu, _domain = small(t)
    # Native AIO may be used up by others on the machine, about which there would be a warning.
    result = ctl(t, DONE, "move", "web", "vda", t.path("copies/x"), "--aio=threads")
    assert re.fullmatch(r"Job 1 has pivoted: web/vda is on .*\.\n", result.stdout), result
    lines = result.stderr.splitlines()
    assert lines and all(line.startswith("job 1 (web/vda): ") for line in lines), result
    assert any("running" in line or "ready" in line or "pivoting" in line for line in lines), result
    quiet = ctl(t, DONE, "move", "web", "vda", t.path("copies/y"), "--quiet", "--aio=threads")
    assert not quiet.stdout and not quiet.stderr, quiet


def test_tables_are_not_cut_when_nobody_looks(t):
    _s, _qemu, domain = small(t)
    long = t.path("copies/" + "x" * 150)
    domain.disk().copy(long).wait("ready").cancel().wait_result("cancelled")
    assert long in ctl(t, DONE, "list", "--all").stdout
    assert len(ctl(t, DONE, "list", "--all", "--no-legend").stdout.splitlines()) == 1


def test_terminal_gets_a_bar_and_is_left_clean(t):
    s, _qemu, domain = small(t)
    main, terminal = os.openpty()
    slow_job(t, domain.disk(), aio="threads")
    with os.fdopen(terminal, "wb", buffering=0) as out:
        p = subprocess.Popen([f"{BUILD}/client/blockjobctl", "wait", "1"], stdin=subprocess.DEVNULL, stdout=out,
                             stderr=out, env={**os.environ, **t.bus.env, "TERM": "xterm", "COLUMNS": "120",
                                              "LC_ALL": "C.UTF-8"})
    t.cleanup(p.kill)
    os.set_blocking(main, False)
    shown = bytearray()

    def read():
        try:
            shown.extend(os.read(main, 65536))
        except OSError:
            pass
        return shown
    wait_until(lambda: b"job 1  web/vda  running" in read(), what=lambda: f"the bar in {bytes(shown)}")
    Job(s, f"{ROOT}/job/j1").set_speed(0)
    Job(s, f"{ROOT}/job/j1").set_on_ready("pivot")
    wait_until(lambda: read() and p.poll() is not None)
    text = read().decode()
    os.close(main)
    assert p.returncode == 0 and "Job 1 has pivoted" in text, text
    assert "\033[J" in text.split("Job 1 has pivoted")[0][-40:], "the bar is wiped before the last word"


def test_texts_of_others_cannot_speak_to_the_terminal(t):
    s = t.service()
    evil = "/nowhere/\u001b[31mred\u0007\u009b2J.qcow2"
    fake = t.fake_qmp()
    block = json.loads(json.dumps(FakeQmp.DISK))
    block["inserted"]["file"] = block["inserted"]["image"]["filename"] = evil
    fake.replies["query-block"] = [block]
    s.attach("web", fake.path)
    for args in ["disks"], ["chain", "web", "vda"], ["disks", "--full"]:
        out = ctl(t, DONE, *args).stdout
        assert "red" in out and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", out), repr(out)


def test_target_is_found_from_the_folder_where_one_is(t):
    _s, _qemu, _domain = small(t)
    result = run([f"{BUILD}/client/blockjobctl", "copy", "web", "vda", "x.qcow2", "--on-ready=finish"],
                 env=t.bus.env, directory=t.path("copies"))
    assert result.returncode == 0 and os.path.exists(t.path("copies/x.qcow2")), result
    result = run([f"{BUILD}/client/blockjobctl", "copy", "web", "vda", "../y.qcow2", "--on-ready=finish"],
                 env=t.bus.env, directory=t.path("copies"))
    assert result.returncode == 0 and os.path.exists(t.path("y.qcow2")), result


def test_descriptor_is_passed_along(t):
    _s, _qemu, _domain = small(t)
    good = t.image("good.qcow2", size="1M")
    result = run(["bash", "-c", f"{shlex.quote(BUILD)}/client/blockjobctl copy web vda --fd=7 --format=qcow2 "
                  f"--on-ready=finish 7<>{shlex.quote(good)}"], env=t.bus.env)
    assert result.returncode == 0, result
    image_compare(good, t.path("web0.qcow2"), share=True)


# ---- completion ----

def complete(t, line):
    """What bash would offer behind LINE."""
    script = f"""
        PATH={shlex.quote(BUILD)}/client:$PATH
        source {shlex.quote(REPO)}/client/completion/blockjobctl
        compopt() {{ :; }}
        COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}
        read -ra COMP_WORDS <<<"$COMP_LINE"; [[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _blockjobctl blockjobctl "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    result = run(["bash", "--norc", "-c", script], env=t.bus.env)
    assert result.returncode == 0 and not result.stderr, result
    return [w.rstrip() for w in result.stdout.splitlines() if w]


def test_completion_offers_what_is_on_the_bus(t):
    s, _qemu, domain = small(t, disks=2)
    s.attach("my mail", t.fake_qmp().path)
    slow_job(t, domain.disk())
    domain.disk("vdb").copy(t.path("copies/b")).wait("ready")
    ended = Disk(s, domain.disk("vdb").path)
    assert sorted(complete(t, "blockjobctl ")) == sorted(verbs())
    assert complete(t, "blockjobctl cop") == ["copy"]
    assert sorted(complete(t, "blockjobctl disks ")) == ["my\\ mail", "web"]
    assert complete(t, "blockjobctl copy w") == ["web"]
    assert sorted(complete(t, "blockjobctl copy web ")) == ["vda", "vdb"]
    assert sorted(complete(t, "blockjobctl cancel ")) == ["1", "2"]
    assert complete(t, "blockjobctl pivot ") == ["2"]
    assert complete(t, "blockjobctl dismiss ") == []
    assert sorted(complete(t, "blockjobctl copy web vda /x --format=")) == ["qcow2", "raw"]
    assert "--no-block" in complete(t, "blockjobctl copy --no")
    assert complete(t, "blockjobctl set-on-ready 1 p") == ["pivot"]
    Job(s, f"{ROOT}/job/j2").finish().wait_result("finished")
    assert complete(t, "blockjobctl dismiss ") == ["2"]
    assert sorted(complete(t, "blockjobctl status ")) == ["1", "2"]
    assert ended.Job == "/"


def test_completion_knows_every_option(t):
    t.service()
    with open(f"{REPO}/client/ctl-options.c") as f:
        text = f.read()
    known = set(re.findall(r'^\s+\{"([a-z-]+)", ', text, re.MULTILINE))
    offered = set()
    for verb in ["", *verbs()]:
        offered |= {o.strip("=").removeprefix("--") for o in complete(t, f"blockjobctl {verb} --".replace("  ", " "))}
    assert offered == known, f"not offered: {known - offered}, unknown: {offered - known}"


def test_completion_is_quick_and_silent_without_a_service(t):
    t.bus
    assert complete(t, "blockjobctl pivot ") == []
    assert complete(t, "blockjobctl copy ") == []
