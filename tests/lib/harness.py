# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a test gets: `def test_name(t)` with t a Test. Everything that it makes is ended with the test.

    from harness import *

    def test_copy_pivots_to_the_new_image(t):
        qemu = t.qemu("web", [t.image("old.qcow2", fill="16M")])
        s = t.service()
        job = s.attach("web", qemu.socket).disk("vda").copy(t.path("new.qcow2"))
        job.wait("ready").pivot()
        job.wait_result("pivoted")
        qemu.quit()
        image_compare(t.path("old.qcow2"), t.path("new.qcow2"))

A test fails with any exception; Skip(why) skips it. After a test that passed, the invariants are checked when it has
made a service, unless it has set t.invariants = False.
"""
import os
import shutil
import stat

from bus import PREFIX, Bus, BusError, Connection, FakePolkit, Polkit, Signal
from invariants import invariants, journal_rows
from process import BUILD, LIB, REPO, DeadlinePassed, Finished, Process, run, wait_until
from qemu import (Drive, FakeQmp, Guest, Qemu, Qmp, QmpError, guest_build, image_chain, image_check, image_compare,
                  image_create, image_fill, image_info, image_random, megabytes, verify_images)
from service import ROOT, Client, Disk, Domain, Job, Manager, Service, options
from systemd import ServiceManager


class Skip(Exception):
    """The test cannot run here; the words say why."""


def deadline(seconds):
    """Decorator: how long a test may take (default 120 s)."""
    def mark(function):
        function.deadline = seconds
        return function
    return mark


def tags(*words):
    """Decorator: words that tests/run can select and leave out by (-t WORD, -t -WORD)."""
    def mark(function):
        function.tags = words
        return function
    return mark


class Test:
    def __init__(self, folder):
        self.folder, self.invariants = folder, True
        self.keep_traffic = True  # of the bus, for a test that fails; thousands of jobs are too much of it
        self.buses, self.services, self.qemus, self.logs = [], [], [], {}
        self._bus = self._polkit = None
        self._cleanups = []

    # -- files --
    def path(self, name):
        """A path in the test's folder (short, so that sockets fit; open to other users)."""
        return os.path.join(self.folder, name)

    def image(self, name, size="64M", format="qcow2", fill=None, **more):
        """A new image; fill: so much of its start ("16M") gets data. Returns its path."""
        path = image_create(self.path(name), size, format, **more)
        if fill:
            image_fill(path, format, 0, fill)
        return path

    def cleanup(self, function):
        """Called at the end of the test, last one first."""
        self._cleanups.append(function)

    # -- parts; each can be made more than once --
    @property
    def bus(self):
        """The test's bus, made at first use."""
        if not self._bus:
            folder = self.path("bus")
            self._bus = Bus(folder, self.keep_traffic)
            self.logs["bus traffic"] = f"{folder}/traffic.log"
            self.logs["dbus-daemon"] = f"{folder}/dbus-daemon.log"
        return self._bus

    def polkit(self, rules=""):
        """The real polkitd; without rules the defaults of our actions decide."""
        self._polkit = Polkit(self.bus, self.path("polkit"), rules)
        self.logs["polkitd"] = self._polkit.log_path
        return self._polkit

    def fake_polkit(self, decide="yes"):
        self._polkit = FakePolkit(self.bus, decide)
        return self._polkit

    def service(self, config="", **more):
        """The service, started, on the test's bus. Root needs no polkit; make one before if other users call."""
        n = len(self.services)
        folder = self.path(f"service{n}" if n else "service")
        os.makedirs(folder)
        self.logs[os.path.basename(folder)] = f"{folder}/blockjobd.log"
        s = Service(self.bus, folder, config, **more)
        self.services.append(s)
        return s

    def service_manager(self):
        """What a service takes for systemd: t.service(systemd=t.service_manager())."""
        manager = ServiceManager(self.folder)
        self.cleanup(manager.stop)
        return manager

    def qemu(self, name="web", drives=(), **more):
        """An idle QEMU (processors never start) with these drives; see Qemu."""
        return self._keep(Qemu(self.path(name), name, drives, **more))

    def guest(self, name="web", drives=(), **more):
        """A real guest that writes to all its drives; see Guest. Up when this returns."""
        os.makedirs(self.path(name), exist_ok=True)
        self.logs[f"console of {name}"] = self.path(f"{name}/{name}.console")
        return self._keep(Guest(self.path(name), name, drives, **more)).wait_up()

    def _keep(self, qemu):
        self.qemus.append(qemu)
        self.logs[f"qemu {qemu.name}"] = qemu.log_path
        return qemu

    def fake_qmp(self, name="fake", **more):
        """A scripted QMP peer; its socket is .path."""
        fake = FakeQmp(self.path(f"{name}.qmp"), **more)
        self.cleanup(fake.stop)
        return fake

    def ctl(self, *args, uid=None, timeout=60, stdin=None):
        """blockjobctl on the test's bus; returns Finished (returncode, stdout, stderr, ok())."""
        program = f"{BUILD}/client/blockjobctl"
        if uid:
            # The build folder may be below a home that others cannot enter.
            program = self.path("blockjobctl")
            if not os.path.exists(program):
                shutil.copy(f"{BUILD}/client/blockjobctl", program)
        return run([program, *args], timeout, env=self.bus.env, uid=uid, stdin=stdin)

    # -- the end; called by the runner --
    def finish(self, passed):
        try:
            if passed:
                for s in self.services:
                    if self.invariants:
                        invariants(s, self.qemus)
                    else:
                        s.stop()
        finally:
            for function in reversed(self._cleanups):
                function()

    def evidence(self, limit=60000):
        """The ends of all logs, for a test that failed."""
        parts = [f"{s.process.name} ended by itself with {s.process.returncode}" for s in self.services
                 if s.process and not s.process.alive and s.process.returncode not in (0, -9)]
        for name, path in self.logs.items():
            if os.path.exists(path) and stat.S_ISREG(os.stat(path).st_mode) and os.path.getsize(path):
                with open(path, errors="replace") as f:
                    text = f.read()
                parts.append(f"--- {name} ---\n{'…' if len(text) > limit else ''}{text[-limit:]}")
        return "\n".join(parts)


__all__ = ["BUILD", "Bus", "BusError", "Client", "Connection", "DeadlinePassed", "Disk", "Domain", "Drive",
           "FakePolkit", "FakeQmp", "Finished", "Guest", "Job", "LIB", "Manager", "PREFIX", "Polkit", "Process",
           "Qemu", "Qmp", "QmpError", "REPO", "ROOT", "Service", "ServiceManager", "Signal", "Skip", "Test", "deadline",
           "guest_build", "image_chain", "image_check", "image_compare", "image_create", "image_fill", "image_info",
           "image_random", "invariants", "journal_rows", "megabytes", "options", "run", "tags", "verify_images",
           "wait_until"]
