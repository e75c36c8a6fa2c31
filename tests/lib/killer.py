# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service killed at chosen moments and started again: its caller who does not give up, and what must hold then."""
import mmap
import os
import signal
import sqlite3
import struct
import time
from xml.etree import ElementTree

from gi.repository import GLib

from bus import PREFIX, BusError
from invariants import check_definitions, check_journal, check_qemu, check_signals, journal_table
from process import BUILD, DeadlinePassed, run, wait_until
from qemu import image_check, image_compare
from service import Job

KILLAT = f"{BUILD}/tests/killat"

# What a caller sees when the service dies before it has answered, and between two lives.
DIED = {"NoReply", "ServiceUnknown", "NameHasNoOwner", "Disconnected"}
# What it may be told while a new life has not looked at QEMU yet; asking again is the remedy that the text names.
SOON = {"DomainUnresponsive", "UnknownObject", "NoSuchDisk"}

DEFINITION = """<domain type='qemu'>
  <name>{name}</name>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{path}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


class Point:
    """A moment: before (or after) the AT-th call that counts, of those whose words (name, file, data) contain MATCH
    and that come behind the first one with BEHIND. hold: the service is stopped there, not killed. See killat.c."""

    def __init__(self, at=0, match=None, behind=None, after=False, hold=False):
        self.at, self.match, self.behind, self.after, self.hold = at, match, behind, after, hold

    def held(self):
        return Point(self.at, self.match, self.behind, self.after, hold=True)

    def arguments(self, log):
        return (["--at", str(self.at), "--log", log] + ["--after"] * self.after + ["--hold"] * self.hold
                + (["--match", self.match] if self.match else []) + (["--from", self.behind] if self.behind else []))

    def __repr__(self):
        return f"{'after' if self.after else 'before'} call {self.at}" + (f" with {self.match}" if self.match else "") + (
            f" behind {self.behind}" if self.behind else "")


class Plan:
    """The memory that is shared with killat: when the service is to die, chosen while it runs; see killat.c."""

    FIELDS = ("counted", "at", "after", "reached")

    def __init__(self, path):
        self.path = path
        with open(path, "w+b") as f:
            f.truncate(mmap.PAGESIZE)
            self.memory = mmap.mmap(f.fileno(), mmap.PAGESIZE)

    def arm(self, point=None):
        """The count begins now. Without a point nothing happens."""
        for name, value in (("at", 0), ("reached", 0), ("counted", 0), ("after", int(point.after) if point else 0),
                            ("at", point.at if point else 0)):
            struct.pack_into("=Q", self.memory, 8 * self.FIELDS.index(name), value)

    def __getattr__(self, name):
        return struct.unpack_from("=Q", self.memory, 8 * self.FIELDS.index(name))[0]


class Mortal:
    """A service and its caller, who starts it again when it was killed and repeats what was not answered.

    start(point) runs the service until that moment; without a point it lives until somebody ends it, or, with a plan,
    until the moment that is chosen later."""

    def __init__(self, service, plan=None):
        self.s, self.deaths, self.calls_path, self.plan = service, 0, f"{service.folder}/calls.log", plan
        # Called when the service has died, before it is started again; and where the next lives end.
        self.at_death, self.next_points = lambda: None, []
        service.conn.subscribe(sender="org.freedesktop.DBus", member="NameOwnerChanged", callback=self._owner_changed)
        self.owner = service.bus.owner_of(PREFIX)

    def _owner_changed(self, signal):
        if signal.member == "NameOwnerChanged" and signal.args[0] == PREFIX:
            self.owner = signal.args[2]

    def start(self, point=None):
        if self.plan:
            self.plan.arm(point)
            self.s.wrap = [KILLAT, "--plan", self.plan.path, "--log", self.calls_path, "--"]
        elif point:
            if os.path.exists(self.calls_path):
                os.unlink(self.calls_path)
            self.s.wrap = [KILLAT, *point.arguments(self.calls_path), "--"]
        self.s.start(wait=False)
        self.s.wrap = []
        wait_until(lambda: self.dead or self.owner, 30, "the service's name or its end", interval=0.01)

    @property
    def dead(self):
        return not self.s.process.alive

    def calls(self):
        """What the life under killat has called so far, in order, one line each."""
        try:
            with open(self.calls_path, errors="replace") as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def reached(self):
        """The point was reached: the service is dead, or held there."""
        return "reached" in self.calls()[-3:]

    def at_hold(self, function):
        """When the point (with hold=True) is reached: calls the function, then the service goes on."""
        def look():
            if not self.reached():
                return not self.dead
            function()
            self.s.process.signal(signal.SIGUSR1)
            return False
        GLib.timeout_add(2, look)

    def revive(self):
        """Starts the service again if it was killed; an end of its own is none that it may have."""
        if not self.dead:
            return False
        status = self.s.process.returncode
        assert status == -signal.SIGKILL, f"the service has ended by itself with {status}:\n{self.s.log()[-8000:]}"
        self.deaths += 1
        self.s.killed += 1
        self.at_death()
        wait_until(lambda: not self.owner, what="the service's name to be free", interval=0.01)
        self.start(self.next_points.pop(0) if self.next_points else None)
        return True

    def stop(self):
        """Ends the service in order; it may die on the way."""
        while True:
            self.revive()
            self.s.process.terminate()
            if self.s.process.returncode == 0:
                return
            assert self.dead and self.s.process.returncode == -signal.SIGKILL, self.s.log()[-8000:]

    def until(self, condition, timeout=60, what="the condition"):
        """Waits for what condition() returns, through all deaths."""
        def look():
            self.revive()
            try:
                return condition()
            except BusError as e:
                if e.short in DIED or (self.deaths and e.short in SOON):
                    return None
                raise
        return wait_until(look, timeout, what, interval=0.005)

    def call(self, function, allow=(), soon=()):
        """Repeats the call until it is answered. allow: errors that mean, when it was repeated, that it was heard;
        soon: errors after which it is repeated."""
        repeated = False

        def go():
            nonlocal repeated
            try:
                return (function(),)
            except BusError as e:
                if repeated and e.short in allow:
                    return (None,)
                if e.short in DIED:
                    repeated = True
                    if self.s.process.alive:
                        # The bus knows of the death before the parent does.
                        time.sleep(0.001)
                    return None
                if e.short in soon or (self.deaths and e.short in SOON):
                    return None
                raise
        return self.until(go, 30, "an answer")[0]


class Stage:
    """A guest with one disk, whose machine runs but has nothing to do, its service, and jobs one after the other.

    A job moves the guest from .current to .target, or leaves it. What the guest has written must be there afterwards."""

    FILL = "1M"

    def __init__(self, t, name, definition=False, systemd=None, **options):
        """options: of every copy, beside its own."""
        self.t, self.number, self.definition, self.options = t, 0, None, options
        self.images = t.path(f"{name}-images")
        os.makedirs(self.images)
        self.current = t.image(f"{name}-images/i0.qcow2", "8M", fill=self.FILL)
        self.target = self.job = self.properties = None
        self.qemu = t.qemu(name, [self.current], idle=False)
        # Old jobs would make every start longer and move the moments.
        self.mortal = Mortal(t.service("[Jobs]\nKeepFinishedJobs=2\nKeepFinishedTime=0\n", systemd=systemd))
        self.s = self.mortal.s
        if definition:
            self.definition = f"{self.images}/{name}.xml"
            with open(self.definition, "w") as f:
                f.write(DEFINITION.format(name=name, path=self.current))
        self.domain = self.s.attach(name, self.qemu.socket,
                                    **({"definition": self.definition} if definition else {}))
        self.disk = self.domain.disk("vda")
        self.s.stop()

    # -- what the caller does --
    def next(self):
        """Another job, to another target."""
        self.number += 1
        self.target, self.job = f"{self.images}/i{self.number}.qcow2", None
        self.deaths = self.mortal.deaths
        self.stood()
        self.write(0)

    def begin(self, point=None):
        """The same, with a life of the service that begins now."""
        self.next()
        self.mortal.start(point)
        self.mortal.until(self.looked_at, 30, "the first look at the domain")

    def looked_at(self):
        return self.domain.State in ("running", "paused") and self.domain.Disks

    def copy(self, **o):
        """Ordered again with the same request-id when the answer did not come: it is the same job."""
        o = {**self.options, "request_id": f"n{self.number}", **o}
        self.job = self.mortal.call(lambda: self.disk.copy(self.target, **o))
        return self.job

    def wait(self, state, timeout=60):
        order = Job.STATES

        def reached():
            now = self.job.State
            assert now != "concluded" or state == "concluded" or self.job.Result in ("pivoted", "finished"), (
                f"concluded while waiting for {state}: {end_of(self.job.properties())}")
            return order.index(now) >= order.index(state)
        try:
            self.mortal.until(reached, timeout, f"job {self.job.path} in state {state}")
        except DeadlinePassed as e:
            raise AssertionError(f"{e}: {self.mortal.call(self.job.properties)}") from None

    def order(self, method, **o):
        self.mortal.call(lambda: getattr(self.job, method)(**o), allow=("AlreadyEnding",))

    def restarts_recorded(self):
        """Of the job, as the journal has it now; None while it cannot be read."""
        try:
            return journal_table(self.s.state_dir, "job", "id")[self.job.id]["restarts"]
        except (sqlite3.Error, AssertionError, KeyError):
            return None

    # -- the guest --
    def write(self, place):
        """The guest writes and flushes; every job has bytes of its own at three places."""
        self.qemu.io(f"write -P {self.number % 251 + 1} {place * 2 + 1}M 64k")
        self.qemu.io("flush")

    def read(self, place):
        self.qemu.io(f"read -P {self.number % 251 + 1} {place * 2 + 1}M 64k")

    def stood(self):
        """[(from, until)]: when the processors stood since this was asked last; times of QEMU's events."""
        self.qemu("query-status")
        times, since = [], None
        for e in self.qemu.qmp.events:
            at = e["timestamp"]["seconds"] + e["timestamp"]["microseconds"] / 1e6
            if e["event"] == "STOP":
                since = at
            elif e["event"] == "RESUME" and since is not None:
                times.append((since, at))
                since = None
        assert since is None, "the guest stands"
        self.qemu.qmp.events.clear()
        return times

    # -- what must hold --
    def end(self, result, written=(0, 1), source_stays=True, target_stays=None):
        """The job has that end, once; guest, images, definition, journal, QEMU and folder are as that end promises.

        written: the places that the guest has written before the end was asked for."""
        self.wait("concluded")
        self.properties = properties = self.mortal.call(self.job.properties)
        assert properties["Result"] == result, end_of(properties)
        assert properties["ErrorName"] == "" and properties["Target"] == self.target, end_of(properties)
        moved = result == "pivoted"
        old, self.current = self.current, self.target if moved else self.current
        # The last steps come after the record of the end.
        self.mortal.until(lambda: self.qemu("query-status")["running"], 10, "the guest to run")
        self.mortal.until(lambda: not check_qemu(self.qemu, set()), 10, lambda: check_qemu(self.qemu, set()))
        self.mortal.until(lambda: self.disk.Source == self.current and self.disk.Job == "/", 10,
                          lambda: f"the disk on {self.current}: {self.disk.properties()}")
        self.check_service()
        for place in written:
            self.read(place)
        self.check_images(old, result, source_stays, target_stays)
        self.write(2)
        self.read(2)

    def moved(self, thorough):
        """The job has pivoted; the service lives on. Returns for how long the guest stood, each time, in seconds."""
        self.properties = self.mortal.call(self.job.properties)
        assert self.properties["Result"] == "pivoted", end_of(self.properties)
        old, self.current = self.current, self.target
        self.mortal.until(lambda: not check_qemu(self.qemu, set()), 10, lambda: check_qemu(self.qemu, set()))
        self.mortal.until(lambda: self.disk.Source == self.current and self.disk.Job == "/", 10,
                          lambda: f"the disk on {self.current}: {self.disk.properties()}")
        self.mortal.until(lambda: self.qemu("query-status")["running"], 10, "the guest to run")
        wrong = check_definitions(self.s.domains(), self.s.disks(), set())
        assert not wrong, wrong
        self.read(0)
        if thorough:
            self.check_images(old, "pivoted", True, None)
        else:
            os.unlink(old)
        return [until - since for since, until in self.stood()]

    def end_without_qemu(self, result, places=(0,)):
        """The same when QEMU is gone; then it is started again, on the image that the definition names.

        places: what the guest has written and flushed."""
        self.wait("concluded")
        self.properties = properties = self.mortal.call(self.job.properties)
        assert properties["Result"] == result, end_of(properties)
        assert properties["ErrorName"] == ("" if result == "pivoted" else f"{PREFIX}.Error.DomainNotRunning"), (
            end_of(properties))
        old, self.current = self.current, self.target if result == "pivoted" else self.current
        named = ElementTree.parse(self.definition).find("devices/disk/source").get("file")
        assert named == self.current, f"the definition names {named}, right is {self.current}"
        # A killed QEMU may leave clusters that nobody uses; nothing else.
        found = run(["qemu-img", "check", "-f", "qcow2", "-r", "leaks", self.current])
        assert found.returncode == 0, found
        for place in places:
            found = run(["qemu-io", "-r", "-f", "qcow2", "-c",
                         f"read -P {self.number % 251 + 1} {place * 2 + 1}M 64k", self.current]).ok()
            assert "failed" not in found.stdout, f"lost: {found}"
        if result == "pivoted":
            image_compare(self.current, old)
        self.qemu.drives[0].path = self.current
        self.qemu.start()
        self.mortal.until(lambda: self.domain.State == "running" and self.disk.Source == self.current, 30,
                          lambda: f"{self.domain.properties()} on {self.current}: {self.disk.properties()}")
        self.check_service()
        wrong = check_qemu(self.qemu, set())
        assert not wrong, wrong
        self.check_images(old, result, True, result == "pivoted")

    def check_service(self):
        properties = self.properties
        jobs, domains, disks = (self.mortal.call(f) for f in (self.s.jobs, self.s.domains, self.s.disks))
        same = [p for p, j in jobs.items() if j["Target"] == self.target]
        assert same == [self.job.path], f"ordered once, and there are {same}"
        wrong = check_definitions(domains, disks, set())
        self.mortal.stop()
        rows = journal_table(self.s.state_dir, "job", "id")
        # Older jobs may leave the bus between the one look and the other.
        wrong += check_journal({self.job.id: jobs[self.job.path]}, {self.job.id: rows[self.job.id]})
        wrong += [f"job {i} has no end" for i, r in rows.items() if not r["result"]]
        wrong += check_signals(self.s, rows)
        told = [r for r in journal_table(self.s.state_dir, "transition", "seq").values() if r["job"] == self.job.id]
        ends = [r for r in told if r["state"] == "concluded"]
        recovered = [r for r in told if r["detail"] == "recovered"]
        if len(ends) != 1:
            wrong.append(f"{len(ends)} records of the end: {told}")
        if not properties["Restarts"] == len(recovered) <= self.mortal.deaths - self.deaths:
            wrong.append(f"Restarts is {properties['Restarts']}, {len(recovered)} times recovered, "
                         f"{self.mortal.deaths - self.deaths} deaths")
        assert not wrong, "\n".join(wrong)

    def check_images(self, old, result, source_stays, target_stays):
        """Nobody writes now. What is left behind is compared, and taken away."""
        if target_stays is None:
            target_stays = result != "cancelled"
        expected = {self.current} | ({self.definition} if self.definition else set())
        if result == "pivoted":
            other = old if source_stays else None
        else:
            other = self.target if target_stays else None
        expected |= {other} if other else set()
        found = {os.path.join(self.images, n) for n in os.listdir(self.images)}
        assert found == {p for p in expected if p}, f"files there: {sorted(found)}, expected: {sorted(expected)}"
        self.qemu.io("flush")
        image_check(self.current, share=True)
        if other and result != "cancelled":
            image_compare(self.current, other, share=True, formats=("qcow2", "qcow2"))
        if other:
            image_check(other)
            os.unlink(other)


def end_of(properties):
    return {k: properties[k] for k in ("State", "Result", "ErrorName", "ErrorMessage", "Restarts", "Warnings", "Target")}
