# SPDX-License-Identifier: LGPL-2.1-or-later
"""The peers of the tests themselves: the private bus, the real and the scripted authority, the scripted QMP server."""
import os
import subprocess

from gi.repository import GLib
from harness import *

AUTHORITY = ("/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority")


def check(conn, who, action="org.blockjob1.copy", details=None, flags=0, cancellation="", **more):
    subject = ("system-bus-name", {"name": GLib.Variant("s", who.name)})
    return conn.call_async(*AUTHORITY, "CheckAuthorization", "((sa{sv})sa{ss}us)",
                           (subject, action, details or {}, flags, cancellation),
                           destination="org.freedesktop.PolicyKit1", **more)


def test_bus_takes_a_caller_for_the_user_it_is(t):
    nobody = t.bus.connect(65534)
    credentials = nobody.call("/org/freedesktop/DBus", "org.freedesktop.DBus", "GetConnectionUnixUser", "(s)",
                              (nobody.name,), destination="org.freedesktop.DBus")
    assert credentials == 65534
    try:
        nobody.call("/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "(su)", (PREFIX, 4),
                    destination="org.freedesktop.DBus")
    except BusError as e:
        assert e.short == "AccessDenied", e
    else:
        raise AssertionError("anybody may own the service's name")


def test_polkitd_answers_by_rules_and_details(t):
    t.polkit("""polkit.addRule(function(action, subject) {
        if (action.id == "org.blockjob1.copy" && subject.user == "nobody" && action.lookup("disk") == "vda")
            return polkit.Result.YES;
    });""")
    root, nobody = t.bus.connect(), t.bus.connect(65534)
    assert check(root, nobody, details={"disk": "vda"}).result()[0]
    assert not check(root, nobody, details={"disk": "vdb"}).result()[0]
    t._polkit.restart(Polkit.ALLOW_ALL)
    assert check(root, nobody).result()[0]
    t._polkit.restart(Polkit.DENY_ALL)
    assert not check(root, nobody).result()[0]


def test_polkitd_leaves_nothing_on_the_machine(t):
    t.polkit(Polkit.ALLOW_ALL)
    with open("/proc/self/mounts") as f:
        assert "polkit" not in f.read()
    assert not os.path.exists("/etc/polkit-1/rules.d/50-test.rules")
    t._polkit.stop()


def test_scripted_authority_delays_hangs_and_fails(t):
    fake = t.fake_polkit("challenge")
    root, nobody = t.bus.connect(), t.bus.connect(65534)
    assert check(root, nobody).result()[:2] == (False, True)
    fake.set(("delay", 0.05, "yes"))
    assert check(root, nobody).result()[0]
    fake.set("error")
    try:
        check(root, nobody).result()
        raise AssertionError("no error")
    except BusError as e:
        assert e.short == "Failed", e
    fake.set("hang")
    pending = check(root, nobody, cancellation="c1", flags=1)
    wait_until(lambda: fake.waiting())
    assert fake.waiting()[0].verb == "copy" and fake.waiting()[0].interactive
    root.call(*AUTHORITY, "CancelCheckAuthorization", "(s)", ("c1",), destination="org.freedesktop.PolicyKit1")
    wait_until(lambda: pending.done)
    assert fake.checks[-1].cancelled


def test_scripted_qmp_greets_answers_and_breaks_off(t):
    fake = t.fake_qmp(replies={"stop": FakeQmp.ERROR, "cont": FakeQmp.CLOSE})
    qmp = Qmp(fake.path)
    assert qmp("query-status")["status"] == "running"
    fake.event("STOP")
    assert qmp.wait_event("STOP") == {}
    try:
        qmp("stop")
        raise AssertionError("no error")
    except QmpError as e:
        assert e.kind == "GenericError"
    try:
        qmp("cont")
        raise AssertionError("still connected")
    except ConnectionError:
        pass
    assert fake.commands() == ["qmp_capabilities", "query-status", "stop", "cont"]
    fake.close_at = 5
    try:
        Qmp(fake.path)
        raise AssertionError("a whole greeting")
    except ConnectionError:
        pass


def runner(t, *args, folder):
    return run([f"{LIB}/runner.py", "--build", folder, *args], env={"BLOCKJOBD_TEST_DIR": folder})


def test_runner_counts_cases_and_ends_what_tests_leave(t):
    os.makedirs(t.path("some"))
    with open(t.path("some/test_it.py"), "w") as f:
        f.write(f'''
import os, subprocess, time
from harness import *
def test_good(t):
    pass
def test_bad(t):
    print("words of the bad one")
    assert 1 == 2
@deadline(1)
def test_hangs(t):
    subprocess.Popen(["setsid", "sh", "-c", "echo $$ > {t.path('pid')}; exec sleep 1000"])
    time.sleep(600)
@tags("slow")
def test_good_too(t):
    os.mkfifo(t.path("fifo"))
''')
    result = runner(t, "some", folder=t.folder)
    lines = result.stdout.splitlines()
    assert result.returncode == 1 and lines[-1] == "2 passed, 2 failed", result
    assert "words of the bad one" in result.stdout and "deadline" in result.stdout, result
    with open(t.path("pid")) as f:
        assert not os.path.exists(f"/proc/{f.read().strip()}")
    result = runner(t, "some", "-t", "slow", folder=t.folder)
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == "1 passed, 0 failed", result
    result = runner(t, "some", "-k", "good", folder=t.folder)
    assert result.stdout.splitlines()[-1] == "2 passed, 0 failed", result


def test_runner_reads_tap(t):
    folder = t.path("tests/unit")
    os.makedirs(folder)

    def program(name, text, status):
        with open(f"{folder}/test-{name}", "w") as f:
            f.write(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
        os.chmod(f"{folder}/test-{name}", 0o755)
    program("good", "TAP version 13\nok 1 /a/b\nok 2 /a/c\n1..2", 0)
    program("bad", "1..3\nok 1 /a\nnot ok 2 /b\nok 3 /c", 1)
    program("crash", "1..3\nok 1 /a", 134)
    result = runner(t, "unit", "-k", "unit/[gbc]*", folder=t.folder)
    assert result.stdout.splitlines()[-1] == "5 passed, 2 failed", result
    assert "FAIL unit/crash/runs_to_its_end" in result.stdout and "FAIL unit/bad/b" in result.stdout, result
    subprocess.run(["true"], check=True)
