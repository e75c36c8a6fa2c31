# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls every method that introspection finds with random arguments, of the right and of wrong signatures; the service
stays alive, answers each call, and works afterwards."""
import random
import re
import time

from gi.repository import GLib
from harness import *
from scenes import *

SEED, SECONDS, AT_ONCE = 20240229, 8, 24
V = GLib.Variant
SIGNATURES = ["", "s", "t", "u", "b", "o", "ss", "st", "a{sv}", "sa{sv}", "ssa{sv}", "as", "v", "(sv)", "aa{sv}", "ay",
              "d", "g", "h", "a{ss}", "sss", "tt", "ax", "(((s)))", "a{sa{sv}}"]
# What may leave the service: its own errors, and those of sd-bus itself.
ERRORS = {"InvalidArgs", "AccessDenied", "InteractiveAuthorizationRequired", "LimitsExceeded", "Timeout",
          "UnknownObject", "UnknownMethod", "UnknownInterface", "UnknownProperty", "PropertyReadOnly",
          "InconsistentMessage", "NoReply"}


class Random:
    """Values by signature. Every absolute path leads into the test's folder or nowhere: calls come from root."""

    def __init__(self, t, seed):
        self.random, self.folder = random.Random(seed), t.folder
        with open(f"{REPO}/dbus-interfaces/org.blockjob1.Disk.xml") as f:
            keys = re.findall(r'"([a-z-]+)" [a-z]\b', f.read())
        self.keys = [*keys, "definition", "persistent", "limit", "domain", "since", "no-such-key", ""]
        self.words = ["", "x", "web", "bad", "vda", "copy", "ready", "pending", "concluded", "pivot", "finish", "wait",
                      "write-blocking", "background", "qcow2", "raw", "full", "top", "none", "stop", "direct", "native",
                      "org.blockjob1.Job", "org.blockjob1.Disk", "State", "ä" * 300, "\u0001\u001b[31m", "%s%n",
                      "x" * 70000, "../../x", "json:{}", "nbd:x", "/", "/nowhere/x", "\U0001f600"]

    def text(self):
        r = self.random
        if r.random() < 0.35:
            return f"{self.folder}/copies/f{r.randrange(40)}"
        if r.random() < 0.1:
            return f"{self.folder}/{r.choice(['bad.qmp', 'nothing.qmp', 'web/web.qmp', 'copies'])}"
        return r.choice(self.words)

    def number(self, bits):
        r = self.random
        edge = r.choice([0, 1, 2, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2 ** bits - 1, 512, 4096, 65536])
        return (edge if r.random() < 0.7 else r.getrandbits(bits)) % 2 ** bits

    def value(self, signature, depth=0):
        r = self.random
        if signature == "s":
            return V("s", self.text())
        if signature == "o":
            return V("o", r.choice(["/", ROOT, f"{ROOT}/job/j1", "/a/b"]))
        if signature == "g":
            return V("g", r.choice(["", "s", "a{sv}"]))
        if signature == "b":
            return V("b", r.random() < 0.5)
        if signature == "d":
            return V("d", r.choice([0.0, -1.5, 1e308, float("inf")]))
        if signature in "ynqiuxth":
            bits = {"y": 8, "n": 16, "q": 16, "i": 32, "u": 32, "h": 32, "x": 64, "t": 64}[signature]
            number = self.number(bits)
            if signature == "h":
                return V("h", 0)
            if signature in "nix":
                number -= 2 ** (bits - 1)
            return V(signature, number)
        if signature == "v":
            inner = r.choice(["s", "s", "t", "u", "b", "b", "d", "as", "a{sv}" if depth < 3 else "s", "(su)"])
            return V.new_variant(self.value(inner, depth + 1))
        return self.container(signature, depth)

    def container(self, signature, depth):
        r = self.random
        if signature.startswith("a{"):
            key, value = signature[2], signature[3:-1]
            entries = [V.new_dict_entry(V("s", r.choice(self.keys)) if key == "s" and value == "v"
                                        else self.value(key, depth + 1), self.value(value, depth + 1))
                       for _ in range(r.choice([0, 0, 1, 1, 2, 3, 70 if depth == 0 else 1]))]
            return V.new_array(GLib.VariantType.new(signature[1:]), entries)
        if signature.startswith("a"):
            return V.new_array(GLib.VariantType.new(signature[1:]),
                               [self.value(signature[1:], depth + 1) for _ in range(r.choice([0, 1, 3]))])
        return V.new_tuple(*[self.value(s, depth + 1) for s in split(signature[1:-1])])

    def arguments(self, signature):
        return V.new_tuple(*[self.value(s) for s in split(signature)])


def split(signature):
    """The complete types in a signature."""
    found, at = [], 0
    while at < len(signature):
        end = type_end(signature, at)
        found.append(signature[at:end])
        at = end
    return found


def type_end(signature, at):
    if signature[at] == "a":
        return type_end(signature, at + 1)
    if signature[at] in "({":
        depth = 0
        for i in range(at, len(signature)):
            depth += (signature[i] in "({") - (signature[i] in ")}")
            if depth == 0:
                return i + 1
    return at + 1


class Fuzzer:
    def __init__(self, t, conns, methods, seed=SEED):
        self.random, self.values = random.Random(seed), Random(t, seed)
        self.conns, self.methods = conns, methods
        self.sent = self.answered = self.accepted = 0
        self.wrong, self.errors = [], {}

    def one(self):
        r = self.random
        path, interface, method, signature = r.choice(self.methods)
        right = r.random() < 0.75
        chosen = signature if right else r.choice([s for s in SIGNATURES if s != signature])
        conn, args = r.choice(self.conns), self.values.arguments(chosen)
        what = f"{path} {interface}.{method}{args.print_(True)[:300]}"
        self.sent += 1

        def answered(gio, result):
            self.answered += 1
            try:
                gio.call_finish(result)
                self.accepted += 1
                # sd-bus itself is not strict about its own interfaces.
                if not right and interface.startswith(OURS):
                    self.wrong.append(f"accepted with {chosen!r}: {what}")
            except GLib.Error as e:
                self.error(e, what)
        conn.gio.call(PREFIX, path, interface, method, args, None, 0, 60000, None, answered)

    def error(self, e, what):
        from gi.repository import Gio
        name = Gio.DBusError.get_remote_error(e) or f"local: {e.message}"
        short = name.rsplit(".", 1)[-1]
        self.errors[short] = self.errors.get(short, 0) + 1
        if not (name.startswith("org.blockjob1.Error.") or (name.startswith("org.freedesktop.DBus.Error.")
                                                            and short in ERRORS)):
            self.wrong.append(f"{name}: {e.message[:300]} of {what}")

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.wrong:
            while self.sent - self.answered < AT_ONCE:
                self.one()
            # WaitFor may wait; the others go on.
            wait_until(lambda: self.sent - self.answered < AT_ONCE // 2 or time.monotonic() > end, 30)


def methods_of(s):
    found = set()
    for path, interfaces in walk(s.conn, ROOT).items():
        for interface in interfaces.values():
            for method in interface.methods:
                found.add((path, interface.name, method, interface.signature(method)))
    return sorted(found)


@deadline(180)
def test_random_calls_are_answered_and_leave_the_service_working(t):
    t.fake_polkit("yes")
    s, qemu, domain = small(t, disks=3, config="[Qemu]\nGreetingTimeout=200ms\n")
    _, good = guest(t, s, "good")
    t.fake_qmp("bad")
    s.attach("fake", t.fake_qmp("fake").path)
    slow_job(t, domain.disk(), "a.qcow2")
    domain.disk("vdb").copy(t.path("copies/b.qcow2")).wait("ready")
    # The guest that is to be worked with afterwards is left alone.
    methods = [m for m in methods_of(s) if not m[0].startswith(good.path)]
    assert len({m[2] for m in methods if m[1].startswith(OURS)}) > 15
    conns = [t.bus.connect(), t.bus.connect(OTHER)]
    fuzzer = Fuzzer(t, conns, methods)
    fuzzer.run(SECONDS)
    assert not fuzzer.wrong, "\n".join(fuzzer.wrong[:5])
    assert s.process.alive, s.log()[-3000:]
    for conn in conns:
        conn.close()
    print(f"{fuzzer.sent} calls, {fuzzer.accepted} accepted, {fuzzer.errors}")
    assert fuzzer.accepted > 100 and len(fuzzer.errors) >= 5, fuzzer.errors
    s.objects()
    good.disk().copy(t.path("copies/good.qcow2"), on_ready="pivot").wait_result("pivoted")
    assert "assert" not in s.log().lower()
    for path, job in s.jobs().items():
        if job["State"] != "concluded" and job["Kind"] == "copy":
            end_it(Job(s, path))
    # What the calls have left in the folder is the test's.
    t.invariants = qemu.alive


def end_it(job):
    try:
        job.cancel(force=True)
    except BusError as e:
        assert e.short in ("AlreadyEnding", "UnknownObject"), e
    if job.path in job.client.jobs():
        job.wait("concluded")
