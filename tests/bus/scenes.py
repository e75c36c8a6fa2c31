# SPDX-License-Identifier: LGPL-2.1-or-later
"""What several files of this suite use: a service with small idle guests, jobs that stay as they are, a heartbeat."""
import os
import time
from xml.etree import ElementTree

from gi.repository import GLib
from harness import *
from process import PATIENCE

# Users of every Debian: they need a name for polkit's rules.
OWNER, OTHER, NOBODY = 1, 2, 65534
OURS = f"{PREFIX}."
STANDARD = "org.freedesktop.DBus."
EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


def small(t, name="web", disks=1, config="", fill="256k"):
    """(service, qemu, domain): an idle guest with disks of 1 MiB. t.path("copies") is one of the TargetFolders."""
    os.makedirs(t.path("copies"), exist_ok=True)
    s = t.services[0] if t.services else t.service(f"[Service]\nTargetFolders={t.path('copies')}\n{config}")
    return (s, *guest(t, s, name, disks, fill))


def guest(t, s, name, disks=1, fill="256k"):
    """(qemu, domain): one more idle guest."""
    qemu = t.qemu(name, [t.image(f"{name}{i}.qcow2", size="1M", fill=fill) for i in range(disks)])
    return qemu, s.attach(name, qemu.socket)


def slow_job(t, disk, name="slow.qcow2", **more):
    """A job that stays in state running."""
    job = disk.copy(t.path(f"copies/{name}"), speed=1, **more)
    job.wait("running")
    return job


def refused(function, *names, text=""):
    """function() fails with one of these error names (the last parts); returns the error."""
    try:
        result = function()
    except BusError as e:
        assert e.short in names, f"{e}, not {names}"
        assert text.lower() in e.message.lower(), f"{text!r} is not in {e.message!r}"
        assert e.message.strip() and len(e.message.encode()) <= 4096, e
        return e
    raise AssertionError(f"it was not refused with {names}: {result}")


class Interface:
    """An interface of introspection data: methods {name: [(direction, name, type)]}, signals {name: [(name, type)]},
    properties {name: (type, access, EmitsChangedSignal)}."""

    def __init__(self, element):
        self.name = element.get("name")
        self.methods = {m.get("name"): [(a.get("direction", "in"), a.get("name"), a.get("type"))
                                        for a in m.findall("arg")] for m in element.findall("method")}
        self.signals = {s.get("name"): [(a.get("name"), a.get("type")) for a in s.findall("arg")]
                        for s in element.findall("signal")}
        self.properties = {}
        for p in element.findall("property"):
            emits = [a.get("value") for a in p.findall("annotation") if a.get("name") == EMITS]
            self.properties[p.get("name")] = (p.get("type"), p.get("access"), emits[0] if emits else "true")
        self.annotations = sorted({a.get("name") for a in element.iter("annotation")} - {EMITS})

    def signature(self, method, direction="in"):
        return "".join(type for d, _, type in self.methods[method] if d == direction)


def interfaces_of(text):
    """{name: Interface} of an introspection document."""
    return {e.get("name"): Interface(e) for e in ElementTree.fromstring(text).findall("interface")}


def walk(conn, path="/"):
    """{path: {name: Interface}} of every node that introspection leads to."""
    found, todo = {}, [path]
    while todo:
        at = todo.pop()
        text = conn.introspect(at)
        found[at] = interfaces_of(text)
        todo += [f"{at.rstrip('/')}/{n.get('name')}" for n in ElementTree.fromstring(text).findall("node")]
    return found


class Heartbeat:
    """Calls to objects that have nothing to do with a disturbance, one after the other, each of them timed. The time
    that a process wanted to run and another had the processor is not counted: other tests run at the same time.

        with Heartbeat(domain):
            ...
    """

    def __init__(self, domain, limit=0.1, interval=0.01):
        service = domain.client
        self.gio, self.pids = service.conn.gio, [os.getpid(), service.process.pid, service.bus.daemon.pid]
        self.calls = [(domain.path, domain.INTERFACE, "State"), (domain.path, domain.INTERFACE, "Disks"),
                      (ROOT, f"{PREFIX}.Manager", "NJobsActive")]
        self.limit, self.interval = limit * PATIENCE, interval
        self.times, self.errors, self.going = [], [], False

    def __enter__(self):
        self.going = True
        self._call()
        return self

    def clock(self):
        """Seconds, without those that the processes of a call have spent in the queue for a processor."""
        queued = 0
        for pid in self.pids:
            with open(f"/proc/{pid}/schedstat") as f:
                queued += int(f.read().split()[1])
        return time.monotonic() - queued / 1e9

    def _call(self):
        if not self.going:
            return False
        path, interface, name = self.calls[len(self.times) % len(self.calls)]
        started = self.clock()

        def answered(gio, result):
            self.times.append(self.clock() - started)
            try:
                gio.call_finish(result)
            except GLib.Error as e:
                self.errors.append(str(e))
            GLib.timeout_add(int(self.interval * 1000), self._call)
        self.gio.call(PREFIX, path, f"{STANDARD}Properties", "Get", GLib.Variant("(ss)", (interface, name)), None, 0,
                      60000, None, answered)
        return False

    def __exit__(self, kind, *_):
        self.going = False
        if kind:
            return
        assert not self.errors, self.errors[:3]
        # One in twenty may be late, and one at least: there are other reasons to wait than a processor.
        times, allowed = sorted(self.times), max(1, len(self.times) // 20)
        late = times[-1 - allowed] if len(times) > allowed else 0
        assert late < self.limit, f"other domains were disturbed: {late:.3f} s, of {len(times)} calls"


class Memory:
    """What the service's memory grows by from now on; a sanitizer keeps what was freed, so it may have more then."""

    def __init__(self, s):
        self.s = s
        self.before = self._resident()

    def _resident(self):
        with open(f"/proc/{self.s.process.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))

    def grown(self, at_most):
        """KiB; raises when they are more than AT_MOST."""
        grown = self._resident() - self.before
        with open(f"/proc/{self.s.process.pid}/maps") as f:
            at_most *= 32 if "libasan" in f.read() else 1
        assert grown < at_most, f"the service has grown by {grown} KiB"
        return grown


def dismissed(job):
    """Whether the job could be dismissed; for wait_until()."""
    try:
        job.dismiss()
        return True
    except BusError as e:
        assert e.short == "NotReady", e
        return False
