# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service and systemd have to do with each other: leaving and coming back, stored connections, reload, log."""
import os
import random
import re
import shutil
import signal
import socket
import statistics
import time

from gi.repository import Gio, GLib
from harness import *
from machine import *

CONFIG = "/etc/blockjobd/blockjobd.conf.d/test.conf"


def configured(t, text, how="restart"):
    """For this test: these lines in the configuration."""
    def write(text):
        os.makedirs(os.path.dirname(CONFIG), exist_ok=True)
        with open(CONFIG, "w") as f:
            f.write(text)
    def back():
        os.unlink(CONFIG)
        systemctl("restart", UNIT)
    if not os.path.exists(CONFIG):
        t.cleanup(back)
    write(text)
    systemctl(how, UNIT)


class Caller:
    """Calls that start the service when it is not there, and what they took."""

    def __init__(self, t):
        self.gio = Connection(BUS, USER).gio
        self.watch = Connection(BUS)
        self.owner, self.times, self.activations = self.watch.owner_of(PREFIX), [], 0

    def call(self):
        began = time.monotonic()
        answer = self.gio.call_sync(PREFIX, ROOT, "org.freedesktop.DBus.Properties", "Get",
                                    GLib.Variant("(ss)", (f"{PREFIX}.Manager", "NJobsActive")), None,
                                    Gio.DBusCallFlags.NONE, 20000, None)
        took = time.monotonic() - began
        assert answer.unpack() == (0,), answer
        owner = self.watch.owner_of(PREFIX)
        if owner != self.owner:
            self.activations += 1
            self.times.append(took)
            self.owner = owner

    def pid(self):
        """Of the process that has the name, if any."""
        try:
            return self.watch.call("/org/freedesktop/DBus", "org.freedesktop.DBus", "GetConnectionUnixProcessID", "(s)",
                                   (PREFIX,), destination="org.freedesktop.DBus")
        except BusError:
            return None

    def figures(self, what):
        assert self.times
        with open("/tests/figures", "a") as f:
            print(f"{what}: {self.activations} activating calls, none lost, median {statistics.median(self.times) * 1000:.0f}"
                  f" ms, worst {max(self.times) * 1000:.0f} ms", file=f)


def at(moment):
    """Calls are to hit the moment of leaving from both sides, which no signal announces."""
    wait_until(lambda: time.monotonic() >= moment, what="the moment", interval=0.001)


@deadline(240)
def test_a_service_that_leaves_loses_no_call(t):
    """It is told to leave as it does when it is idle, and called at that very moment."""
    Machine(t)
    dice, caller, calls = random.Random(4), Caller(t), 0
    told = None
    while caller.activations < 150:
        pid = caller.pid()
        if pid and pid != told:  # a second signal would end it at once
            os.kill(pid, signal.SIGTERM)
            told = pid
            at(time.monotonic() + dice.uniform(0, 0.03))
        caller.call()
        calls += 1
        assert calls < 600, f"{caller.activations} of {calls} calls were activating"
    caller.figures("leaving")


@deadline(480)
def test_an_idle_service_leaves_and_loses_no_call(t):
    Machine(t)
    configured(t, "[Service]\nIdleTimeout=1s\n")
    dice, caller = random.Random(5), Caller(t)
    wait_until(lambda: show("ActiveState") == "inactive", what="its leaving")
    assert show("Result") == "success"
    while caller.activations < 150:
        caller.call()
        # Just before it leaves, while it leaves, and right behind.
        at(time.monotonic() + 1 + dice.uniform(0, 0.15))
    caller.figures("idle")


def test_it_stays_while_a_guest_is_connected(t):
    m = Machine(t)
    configured(t, "[Service]\nIdleTimeout=1s\n")
    qemu = m.qemu()
    m.disk()
    before = main_pid()
    at(time.monotonic() + 3)
    assert main_pid() == before and before
    qemu.quit()
    wait_until(lambda: show("ActiveState") == "inactive", what="its leaving")


def descriptor_domain(t, m):
    """(qemu, disk) of a guest of the user whose socket nobody can find again."""
    folder = t.path("fd")
    os.makedirs(folder, mode=0o700)
    shutil.chown(folder, USER, USER)
    image = image_create(f"{folder}/old.qcow2", "64M")
    image_fill(image, "qcow2", 0, "16M")
    shutil.chown(image, USER, USER)
    qemu = Qemu(folder, "webfd", [image], uid=USER)
    t.qemus.append(qemu)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(qemu.socket)
        domain = m.user.attach("webfd", fd=connection)
    os.unlink(qemu.socket)
    return qemu, domain.disk()


def carried_on_through_the_store(t, again):
    m = Machine(t)
    qemu, disk = descriptor_domain(t, m)
    job = disk.copy(t.path("new.qcow2"), speed=1 << 20, buf_size=1 << 20).wait("running")
    wait_until(lambda: int(show("NFileDescriptorStore")) == 1, what="a stored connection")
    again()
    m.disk("webfd")
    wait_until(lambda: job.State == "running" and job.Restarts == 1, what="the job")
    job.set_speed(0)
    job.wait("ready").pivot()
    job.wait_result("pivoted")
    Domain(m, f"{ROOT}/domain/webfd").detach()
    wait_until(lambda: int(show("NFileDescriptorStore")) == 0, what="an empty store")
    qemu.quit()
    image_compare(qemu.drives[0].path, t.path("new.qcow2"))


def test_a_connection_that_was_passed_survives_a_restart(t):
    carried_on_through_the_store(t, lambda: systemctl("restart", UNIT))


def test_a_connection_that_was_passed_survives_sigkill(t):
    def kill():
        before = main_pid()
        systemctl("kill", "--signal=KILL", UNIT)
        wait_until(lambda: main_pid() not in (0, before) and show("ActiveState") == "active", what="another process")
    carried_on_through_the_store(t, kill)


def test_reload_takes_a_good_configuration_and_leaves_a_bad_one(t):
    m = Machine(t)
    m.qemu()
    before = main_pid()
    configured(t, "[Limits]\nMaxJobsPerUser=1\n", "reload")
    disk = m.disk()
    m.qemu("web2")
    first = disk.copy(t.path("first.qcow2"), speed=1)
    def second():
        try:
            m.disk("web2").copy(t.path("second.qcow2"))
        except BusError as e:
            return e.short
        return "accepted"
    assert second() == "LimitReached"
    configured(t, "[Limits]\nMaxJobsPerUser=many\n", "reload")
    assert second() == "LimitReached"
    m.journal.wait_log("MaxJobsPerUser")
    configured(t, "[Limits]\nMaxJobsPerUser=2\n", "reload")
    assert second() == "accepted"
    assert main_pid() == before
    first.cancel()


def test_the_log_level_is_set_with_systemctl(t):
    Machine(t)
    t.cleanup(lambda: systemctl("service-log-level", UNIT, "info"))
    assert systemctl("service-log-level", UNIT) == "info"
    systemctl("service-log-level", UNIT, "debug")
    assert systemctl("service-log-level", UNIT) == "debug"
    refused = run(["systemctl", "--no-ask-password", "service-log-level", UNIT, "err"], uid=USER)
    assert refused.returncode != 0 and systemctl("service-log-level", UNIT) == "debug", refused


def test_status_is_a_sentence(t):
    m = Machine(t)
    _qemu, _disk, job = m.slow_copy()
    wait_until(lambda: re.fullmatch(r"1 job, web/vda \d+ %", show("StatusText")), what=lambda: show("StatusText"))
    job.cancel()
    wait_until(lambda: show("StatusText").startswith("No jobs, 1 domain"), what=lambda: show("StatusText"))


def test_entries_of_the_journal_have_fields(t):
    m = Machine(t)
    qemu = m.qemu()
    job = m.disk().copy(t.path("new.qcow2"))
    m.pivoted(qemu, job)
    fields = run(["journalctl", "--output=json", f"BLOCKJOB_JOB={job.id}", "BLOCKJOB_DOMAIN=web", "--no-pager",
                  "--output-fields=MESSAGE,MESSAGE_ID,BLOCKJOB_RESULT", f"_PID={main_pid()}"]).ok().stdout
    assert '"BLOCKJOB_RESULT":"pivoted"' in fields and "MESSAGE_ID" in fields, fields
