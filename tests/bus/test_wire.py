# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes over the bus and in which order, as a monitor records it."""
import re
import time

from harness import *
from scenes import *

PROPERTIES, MANAGER, OBJECTS = f"{STANDARD}Properties", f"{PREFIX}.Manager", f"{STANDARD}ObjectManager"


class Message:
    """One message of dbus-monitor's record: its header's fields, and the strings and paths in it."""

    HEADER = re.compile(r"^(method call|method return|signal|error) time=(\d+\.\d+) sender=(\S+) -> "
                        r"destination=(.*?) serial=(\d+)(.*)$")

    def __init__(self, match):
        self.kind, self.time, self.sender, self.destination = match[1], float(match[2]), match[3], match[4]
        self.serial = int(match[5])
        rest = match[6]
        self.reply_serial = int((re.search(r"reply_serial=(\d+)", rest) or [0, 0])[1])
        self.path = (re.search(r"path=([^;]*)", rest) or [0, ""])[1]
        self.interface = (re.search(r"interface=([^;]*)", rest) or [0, ""])[1]
        self.member = (re.search(r"member=(\S*)", rest) or [0, ""])[1]
        self.lines = []

    @property
    def strings(self):
        return re.findall(r'(?:string|object path) "(.*)"', "\n".join(self.lines))

    def value(self, name):
        """What a PropertiesChanged says about a property, as text; None if nothing."""
        for i, line in enumerate(self.lines):
            if line.strip() == f'string "{name}"':
                return self.lines[i + 1].split("variant", 1)[-1].strip()
        return None

    def __repr__(self):
        return f"{self.kind} {self.path} {self.interface}.{self.member} {self.strings[:6]}"


def record(t):
    """All messages so far. The monitor has seen what was sent before a call of ours that it has seen as well."""
    marker = f"/marker/m{time.monotonic_ns()}"
    try:
        t.bus._own.call(marker, "org.example.Marker", "Mark", destination="org.freedesktop.DBus")
    except BusError:
        pass
    t.bus.monitor.wait_log(marker)
    messages = []
    for line in t.bus.monitor.log().splitlines():
        match = Message.HEADER.match(line)
        if match:
            messages.append(Message(match))
        elif messages and line.startswith(" "):
            messages[-1].lines.append(line)
    return messages


def index(messages, what, condition):
    found = [i for i, m in enumerate(messages) if condition(m)]
    assert len(found) == 1, f"{what}: {len(found)} times"
    return found[0]


def about(path, member):
    return lambda m: m.kind == "signal" and m.member == member and path in [m.path, *m.strings[:1]]


def state_change(path, state):
    return lambda m: m.member == "PropertiesChanged" and m.path == path and m.value("State") == f'string "{state}"'


def test_new_job_is_announced_then_told_then_replied(t):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")
    messages = record(t)
    call = next(m for m in messages if m.kind == "method call" and m.member == "Copy")
    added = index(messages, "InterfacesAdded", about(job.path, "InterfacesAdded"))
    new = index(messages, "JobNew", about(job.path, "JobNew"))
    reply = index(messages, "reply", lambda m: m.kind == "method return" and m.reply_serial == call.serial
                  and m.destination == call.sender)
    assert messages.index(call) < added < new < reply
    assert f"{PREFIX}.Job" in messages[added].strings
    assert messages[reply].strings == [job.path]
    first = next(i for i, m in enumerate(messages) if m.member == "PropertiesChanged" and m.path == job.path)
    assert added < first, "a change of something that was not announced"
    assert s.jobs()


def test_refused_copy_announces_nothing(t):
    s, _qemu, domain = small(t)
    with open(t.path("copies/there"), "w"):
        pass
    refused(lambda: domain.disk().copy(t.path("copies/there")), "TargetExists")
    assert not [m for m in record(t) if m.member == "JobNew" or (m.member == "InterfacesAdded"
                                                                 and "/job/" in "".join(m.strings[:1]))]
    assert not s.jobs()


def end_of(t, end):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")
    result = end(job)
    job.wait("concluded")
    s.wait_signal("JobFinished")
    # The domain has let go of the job too; whatever comes late would be here.
    wait_until(lambda: dismissed(job))
    messages = record(t)
    last = index(messages, "State=concluded", state_change(job.path, "concluded"))
    finished = index(messages, "JobFinished", about_job_finished(job))
    removed = index(messages, "InterfacesRemoved", about(job.path, "InterfacesRemoved"))
    assert last < finished < removed
    assert messages[last].value("Result") == f'string "{result}"'
    assert messages[last].value("Finished") and messages[last].value("Finished") != "uint64 0"
    assert messages[finished].strings == [job.path, result, ""]
    assert f"{PREFIX}.Job" in messages[removed].strings[1:], messages[removed]
    late = [m for m in messages[finished:removed] if m.member == "PropertiesChanged" and m.path == job.path]
    assert not late, f"changes of a job that has ended: {late}"


def about_job_finished(job):
    return lambda m: m.kind == "signal" and m.member == "JobFinished" and job.path in m.strings


def test_pivoted_job_ends_in_order_and_once(t):
    end_of(t, lambda job: job.pivot() and "pivoted")


def test_finished_job_ends_in_order_and_once(t):
    end_of(t, lambda job: job.finish() and "finished")


def test_cancelled_job_ends_in_order_and_once(t):
    end_of(t, lambda job: job.cancel() and "cancelled")


def test_waiting_call_is_answered_after_the_signals(t):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")
    waiting = s.conn.call_async(job.path, job.INTERFACE, "WaitFor", "(st)", ("concluded", 0))
    job.pivot()
    assert waiting.result() == ("concluded", "pivoted")
    messages = record(t)
    call = next(m for m in messages if m.member == "WaitFor")
    reply = index(messages, "reply", lambda m: m.reply_serial == call.serial and m.destination == call.sender)
    assert index(messages, "JobFinished", about_job_finished(job)) < reply
    assert index(messages, "concluded", state_change(job.path, "concluded")) < reply


def test_states_come_in_the_order_of_the_contract(t):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/new.qcow2"), on_ready="pivot")
    job.wait_result("pivoted")
    s.wait_signal("JobFinished")
    states = job.states()
    assert [x for x in states if x != "pending"] in (["running", "ready", "pivoting", "concluded"],
                                                     ["preparing", "running", "ready", "pivoting", "concluded"]), states


def test_progress_is_told_at_most_four_times_a_second(t):
    s, _qemu, domain = small(t, fill="1M")
    qemu = t.qemu("big", [t.image("big.qcow2", size="16M", fill="16M")])
    disk = s.attach("big", qemu.socket).disk()
    started = time.monotonic()
    job = disk.copy(t.path("copies/new.qcow2"), speed=4 << 20)
    job.wait("ready")
    took = time.monotonic() - started
    job.cancel().wait_result("cancelled")
    told = [m for m in s.conn.signals if m.path == job.path and m.member == "PropertiesChanged"
            and "Done" in m.args[1] and "State" not in m.args[1]]
    assert took > 2 and told, f"{took:.1f} s, {len(told)}"
    assert len(told) <= took * 4.5 + 2, f"{len(told)} times in {took:.1f} s"
    for signal in told:
        assert {"Done", "Total", "Rate", "ExpectedEnd"} <= set(signal.args[1]), "progress comes as one"
    done = [m.args[1]["Done"] for m in told]
    assert done == sorted(done)


def test_idle_service_is_silent(t):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")
    before = len([m for m in record(t) if m.sender == s.conn.owner_of(PREFIX)])
    end = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > end)
    signals = [m for m in record(t) if m.sender == s.conn.owner_of(PREFIX)][before:]
    # The rate goes to nothing once; then there is no news.
    assert len([m for m in signals if m.kind == "signal"]) <= 1, f"a ready job of an idle guest tells news: {signals}"
    job.cancel().wait_result("cancelled")


def test_detached_domain_takes_its_interfaces_along(t):
    s, _qemu, domain = small(t, disks=2)
    domain.detach()
    messages = record(t)
    for path, interface in ((f"{domain.path}/disk/vda", "Disk"), (f"{domain.path}/disk/vdb", "Disk"),
                            (domain.path, "Domain")):
        removed = index(messages, path, about(path, "InterfacesRemoved"))
        assert f"{PREFIX}.{interface}" in messages[removed].strings[1:], messages[removed]
    reply = [i for i, m in enumerate(messages) if m.member == "Detach"]
    assert reply and not s.domains()


def test_restored_objects_are_announced_after_the_name_is_owned(t):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")
    s.restart()
    wait_until(lambda: domain.disk().Job == job.path)
    owner = s.conn.owner_of(PREFIX)
    messages = record(t)
    owned = index(messages, "name", lambda m: m.member == "NameOwnerChanged" and m.strings == [PREFIX, "", owner])
    for path in job.path, domain.path:
        added = index(messages, path, lambda m: about(path, "InterfacesAdded")(m) and m.sender == owner)
        assert owned < added
    assert not [m for m in messages if m.member == "JobNew" and m.sender == owner], "a restored job is not new"
    job.cancel().wait_result("cancelled")


def test_restored_disks_are_there_as_soon_as_the_name_is_owned(t):
    s, _qemu, domain = small(t, disks=2)
    job = domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")
    for _ in range(3):
        before = {p: (d["Job"], d["Source"], d["Size"]) for p, d in s.disks().items()}
        s.restart()
        after = {p: (d["Job"], d["Source"], d["Size"]) for p, d in s.disks().items()}
        assert after == before, f"{after}, not {before}"
    job.cancel().wait_result("cancelled")


class Mirror:
    """What a client knows that reads everything once and then only listens."""

    def __init__(self, service):
        self.objects = {}
        self.service, self.start = service, len(service.conn.signals)
        for path, interfaces in service.objects().items():
            self.objects[path] = {n: dict(v) for n, v in interfaces.items() if n.startswith(OURS)}

    def apply(self):
        consts = []
        for signal in self.service.conn.signals[self.start:]:
            if signal.member == "InterfacesAdded":
                path, interfaces = signal.args
                self.objects[path] = {n: dict(v) for n, v in interfaces.items() if n.startswith(OURS)}
            elif signal.member == "InterfacesRemoved":
                path, interfaces = signal.args
                for name in interfaces:
                    self.objects.get(path, {}).pop(name, None)
                if not self.objects.get(path):
                    self.objects.pop(path, None)
            elif signal.member == "PropertiesChanged" and signal.path != ROOT:
                name, changed, invalidated = signal.args
                known = self.objects[signal.path][name]
                known.update(changed)
                for gone in invalidated:
                    known.pop(gone, None)
                consts += [(name, p) for p in changed]
        self.start = len(self.service.conn.signals)
        return consts


def test_client_that_only_listens_knows_everything(t):
    """PropertiesChanged is told for each property that changes, with its value, and for none that is const."""
    s, _, _ = small(t, "other")
    qemu = t.qemu("web", [t.image("a.qcow2", size="1M", fill="256k"),
                          Drive(t.image("b.qcow2", size="1M", fill="256k"), bus="scsi")])
    domain = s.attach("web", qemu.socket)
    names = {d.Source[-7]: d for d in domain.disks()}
    interface = {}
    for interfaces in walk(s.conn).values():
        interface.update({n: i for n, i in interfaces.items() if n.startswith(OURS)})
    mirror = Mirror(s)

    def compare(when):
        # The reply of GetManagedObjects comes behind all signals that were sent before it.
        live = s.objects()
        changed = mirror.apply()
        ours = {p: {n: v for n, v in i.items() if n.startswith(OURS)} for p, i in live.items()}
        ours = {p: i for p, i in ours.items() if i}
        assert set(ours) == set(mirror.objects), when
        for path, interfaces in ours.items():
            for name, values in interfaces.items():
                known = mirror.objects[path][name]
                wrong = {k: (known.get(k), v) for k, v in values.items() if k in known and known[k] != v}
                assert not wrong, f"{when}: {path}: {wrong} (listened, read)"
                missing = set(values) - set(known)
                assert all(interface[name].properties[k][2] == "invalidates" for k in missing), f"{when}: {missing}"
        for name, prop in changed:
            wanted = job_interface.properties if name == job_interface.name else interface[name].properties
            assert wanted[prop][2] == "true", f"{when}: {name}.{prop} is {wanted[prop][2]} and was told"

    job = names["a"].copy(t.path("copies/a.qcow2")).wait("ready")
    job_interface = interfaces_of(s.conn.introspect(job.path))[f"{PREFIX}.Job"]
    interface[job_interface.name] = job_interface
    compare("ready")
    job.pivot().wait_result("pivoted")
    s.wait_signal("JobFinished")
    wait_until(lambda: names["a"].Source == t.path("copies/a.qcow2"))
    compare("pivoted")
    slow = slow_job(t, names["b"], "b.qcow2")
    slow.set_speed(2)
    slow.pause()
    slow.set_on_ready("finish")
    compare("changed")
    slow.set_speed(0)
    slow.resume()
    slow.wait_result("finished")
    s.wait_signal("JobFinished", match=lambda m: m.args[1] == slow.path)
    compare("finished")
    qemu("device_del", id="scsi-disk1")
    wait_until(lambda: names["b"].path not in s.objects(), what="the unplugged disk gone")
    compare("unplugged")
    wait_until(lambda: dismissed(job))
    compare("dismissed")
    wait_until(lambda: dismissed(slow))
    domain.detach()
    compare("detached")
