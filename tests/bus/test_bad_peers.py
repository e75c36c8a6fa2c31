# SPDX-License-Identifier: LGPL-2.1-or-later
"""Peers that are no QEMU, or one that has gone mad: garbage, silence, wrong types, floods, breaks at every byte. The
service lives, what it publishes stays readable, and other domains notice nothing."""
import json
import os

from gi.repository import GLib
from harness import *
from scenes import *

QUICK = "[Qemu]\nCommandTimeout=800ms\nGreetingTimeout=800ms\nReconnectMax=100ms\n"


def scene(t, **more):
    """(service, fake peer, its domain, a domain that has nothing to do with it)."""
    s = t.service(QUICK)
    other = s.attach("other", t.fake_qmp("other").path)
    fake = t.fake_qmp("bad", **more)
    return s, fake, s.attach("bad", fake.path), other


def works(s, domain, state="running"):
    """Everything can be read, and the domain is what it should be."""
    domain.wait_state(state)
    assert domain.path in s.objects()
    domain.xml()
    for disk in domain.disks():
        disk.chain()


JUNK = {
    "no JSON": b"hello, I am a mail server\r\n",
    "half a line and then another message": b'{"return": {}, "id"\n{"return": {}}\r\n',
    "an array": b"[]\r\n", "a number": b"5\r\n", "a string": b'"x"\r\n', "an empty object": b"{}\r\n",
    "zero bytes": b"\0" * 100 + b"\n",
    "no UTF-8": b'{"return": "\xff\xfe\xc0"}\r\n',
    "a lone surrogate": b'{"return": "\\ud800"}\r\n',
    "a zero in a string": b'{"event": "A\\u0000B", "timestamp": {"seconds": 1, "microseconds": 1}}\r\n',
    "nesting": b'{"return": ' + b"[" * 100000 + b"]" * 100000 + b"}\r\n",
    "a reply to nothing": b'{"return": {}, "id": 123456789}\r\n',
    "a reply without an id": b'{"return": {}}\r\n',
    "an error without an id": b'{"error": {"class": "GenericError", "desc": "no"}}\r\n',
    "an error without a class": b'{"error": {}}\r\n',
    "an error of another type": b'{"error": 5, "id": 5}\r\n',
    "a second greeting": json.dumps(FakeQmp.GREETING).encode() + b"\r\n",
    "an event without a name": b'{"event": 5}\r\n',
    "two keys of one name": b'{"return": {}, "return": {}, "id": 1, "id": 2}\r\n',
    "an id of another type": b'{"return": {}, "id": "x"}\r\n',
    "a number that no machine can hold": b'{"return": 1e999999, "id": 1}\r\n',
    "a huge whole number": b'{"return": {}, "id": ' + b"9" * 4000 + b"}\r\n",
}


@deadline(180)
def test_junk_on_the_line_costs_the_peer_its_connection_and_nobody_else_anything(t):
    s, fake, domain, other = scene(t)
    with Heartbeat(other):
        for what, line in JUNK.items():
            try:
                before = fake.connections
                fake.send_raw(line)
                # Either it is disconnected and comes back, or it was harmless and a look works.
                fake.event("DEVICE_DELETED")
                seen = len(fake.commands())
                wait_until(lambda: fake.connections > before or len(fake.commands()) > seen, 10)
                works(s, domain)
            except AssertionError as e:
                raise AssertionError(f"{what}: {e}") from e
    assert other.State == "running"
    assert s.process.alive


def test_line_that_is_too_long_ends_the_connection_and_takes_little_memory(t):
    s, fake, domain, other = scene(t)

    def resident():
        with open(f"/proc/{s.process.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
    before, connections = resident(), fake.connections
    line = b'{"return": [' + b"1," * (16 << 20) + b"1]}\r\n"
    fake.replies["query-jobs"] = lambda _: line
    with Heartbeat(other):
        fake.event("DEVICE_DELETED")
        wait_until(lambda: fake.connections > connections, what="a new connection")
    fake.replies["query-jobs"] = []
    works(s, domain)
    assert resident() - before < 64 * 1024, f"{resident() - before} KiB more"


def test_line_without_an_end_ends_the_connection(t):
    s, fake, domain, other = scene(t)
    connections = fake.connections
    fake.replies["query-jobs"] = lambda _: b"x" * (5 << 20)
    with Heartbeat(other):
        fake.event("DEVICE_DELETED")
        wait_until(lambda: fake.connections > connections, what="a new connection")
    fake.replies["query-jobs"] = []
    works(s, domain)


def test_silent_peer_is_unresponsive_until_it_answers_again(t):
    s, fake, domain, other = scene(t)
    for command in "query-status", "query-jobs", "query-block":
        old = fake.replies[command]
        fake.replies[command] = FakeQmp.SILENCE
        with Heartbeat(other):
            fake.event("DEVICE_DELETED")
            domain.wait_state("unresponsive")
            disk = domain.disk()
            refused(lambda: disk.copy(t.path("x")), "DomainUnresponsive")
            fake.replies[command] = old
            works(s, domain)


def test_peer_without_a_greeting_is_refused_in_time(t):
    s = t.service(QUICK)
    other = s.attach("other", t.fake_qmp("other").path)
    fake = t.fake_qmp("mute", greeting=None)
    with Heartbeat(other):
        refused(lambda: s.attach("mute", fake.path), "DomainUnresponsive", text="greeting")
    refused(lambda: s.domain("mute"), "NoSuchDomain")


def test_peer_that_stays_silent_after_its_greeting_is_refused_in_time(t):
    s = t.service(QUICK)
    for command in "qmp_capabilities", "query-status", "query-block":
        fake = t.fake_qmp(command, replies={command: FakeQmp.SILENCE})
        refused(lambda: s.attach("mute", fake.path), "DomainUnresponsive")
    refused(lambda: s.domain("mute"), "NoSuchDomain")


def test_peer_that_refuses_a_query_is_refused_with_its_words(t):
    s = t.service(QUICK)
    for command in "query-status", "query-jobs", "query-block":
        fake = t.fake_qmp(command, replies={command: FakeQmp.ERROR})
        error = refused(lambda: s.attach("refuses", fake.path), "Qemu", "NotSupported", "DomainUnresponsive")
        assert error.message.endswith(f"{command} was told to fail"), error
    # What only newer or larger QEMUs have is not missed.
    for command in "x-debug-query-block-graph", "query-block-exports", "query-iothreads":
        fake = t.fake_qmp(command, replies={command: None})
        works(s, s.attach(command, fake.path))


def dialogue_length(fake):
    """Bytes that the peer sends until it was looked at for the first time."""
    size = len(json.dumps(fake.greeting)) + 2
    for number, name in enumerate(fake.commands()):
        size += len(json.dumps({"return": fake.replies[name], "id": number + 1})) + 2
        if name == "query-named-block-nodes":  # the last one of the first look
            break
    return size


@deadline(240)
def test_connection_that_breaks_at_any_byte_of_a_dialogue_is_refused_or_made_again(t):
    s = t.service(QUICK)
    other = s.attach("other", t.fake_qmp("other").path)
    fake = t.fake_qmp("bad")
    s.attach("bad", fake.path).detach()
    total = dialogue_length(fake) - 2  # a reply is whole without the end of its line
    assert total > 500
    # Every byte of greeting and negotiation, then those around the ends of replies and every 29th of the long ones.
    cuts = sorted(set(range(0, 200)) | set(range(200, total, 29)) | set(range(total - 3, total)))
    with Heartbeat(other):
        for cut in cuts:
            fake.close_at = cut
            try:
                refused(lambda: s.attach("bad", fake.path), "DomainNotRunning", "DomainUnresponsive")
            except AssertionError as e:
                raise AssertionError(f"closed after {cut} of {total} bytes: {e}") from e
    fake.close_at = None
    works(s, s.attach("bad", fake.path))


def test_domain_whose_connection_breaks_at_any_byte_comes_back(t):
    s, fake, domain, other = scene(t)
    total = dialogue_length(fake)
    with Heartbeat(other):
        for cut in range(1, total, 97):
            fake.close_at = cut
            connections = fake.connections
            fake.disconnect()
            wait_until(lambda: fake.connections > connections + 1, what="another attempt")
        fake.close_at = None
        works(s, domain)


WRONG = [None, True, 5, -1, 2 ** 63 - 1, 1.5, "", "x", "\u0001\u0007", "\ufffe", [], {}, [None], [5], ["x"], [[]], [{}],
         {"status": 5}, {"status": "x" * 5000, "running": "yes"}, [{"id": 5}], [{"id": "a", "type": [], "status": {}}],
         [{"device": None, "qdev": None, "inserted": 5}], [{"qdev": "x" * 5000, "inserted": {}}],
         [{"qdev": "a", "inserted": {"node-name": {}, "image": [], "drv": None}}],
         [{"qdev": "a", "removable": 7, "inserted": {"node-name": "n", "file": "\u0001", "drv": "\ufdd0", "ro": 3,
                                     "image": {"filename": 5, "virtual-size": -1, "actual-size": "many"}}}],
         [{"id": "j", "type": "mirror", "status": "no such status", "current-progress": -5, "total-progress": 1e300}],
         [{"device": "j", "type": "mirror", "len": "x", "offset": [], "io-status": 7, "ready": 1, "speed": -9}],
         {"nodes": 5, "edges": {}}, {"nodes": [{"id": 1, "type": "block-driver", "name": "a"}], "edges": [
             {"parent": 1, "child": 1}, {"parent": 1, "child": 99}, {"parent": "x"}]},
         {"UUID": 5}, {"UUID": "x" * 100000}, {"name": []}, {"name": "\u0000"}, [[[[[[[[[[]]]]]]]]]]]


@deadline(240)
def test_wrong_types_in_any_reply_leave_the_service_readable(t):
    s, fake, domain, other = scene(t)
    good = dict(fake.replies)
    commands = ["query-status", "query-jobs", "query-block-jobs", "query-block", "query-named-block-nodes",
                "x-debug-query-block-graph", "query-uuid", "query-name"]
    with Heartbeat(other):
        for command in commands:
            for value in WRONG:
                # A falsy reply would be taken for "unknown command" by the scripted peer.
                fake.replies[command] = lambda _, value=value: json.dumps(
                    {"return": value, "id": number(fake)}).encode() + b"\r\n"
                before = len(fake.received)
                if command in ("query-uuid", "query-name"):
                    fake.disconnect()  # asked only once on a connection
                else:
                    fake.event("DEVICE_DELETED")
                wait_until(lambda: any(n == command for n, _ in fake.received[before:]), 10, f"{command} {value}")
                fake.replies[command] = good[command]
                try:
                    s.objects()
                    fake.event("DEVICE_DELETED")
                    works(s, domain)
                except (AssertionError, BusError) as e:
                    raise AssertionError(f"{command} answered with {json.dumps(value)[:200]}: {e}") from e


def number(fake):
    """The id of the command that is being answered: the service counts on each connection from 1."""
    commands = fake.commands()
    last = len(commands) - 1 - commands[::-1].index("qmp_capabilities")
    return len(commands) - last


def test_flood_of_events_delays_no_other_domain(t):
    s, fake, domain, other = scene(t)
    event = b'{"event": "DEVICE_DELETED", "data": {}, "timestamp": {"seconds": 1, "microseconds": 1}}\r\n'
    with Heartbeat(other):
        for _ in range(40):
            fake.send_raw(event * 1000)
            GLib.MainContext.default().iteration(False)
        before = len(fake.commands())
        fake.event("DEVICE_DELETED")
        wait_until(lambda: len(fake.commands()) > before)
    works(s, domain)
    # Events are hints to look; many of them are one hint.
    assert len(fake.commands()) < 4000, f"{len(fake.commands())} commands for 40000 events"


def test_frozen_qemu_disturbs_no_other_domain(t):
    s, qemu, domain = small(t, config=QUICK)
    _, other = guest(t, s, "other")
    job = domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")
    qemu.freeze()
    with Heartbeat(other):
        domain.wait_state("unresponsive")
        refused(job.pivot, "DomainUnresponsive")
        job.cancel()
        copy = other.disk().copy(t.path("copies/o.qcow2"), on_ready="pivot")
        copy.wait_result("pivoted")
        assert job.State == "cancelling"
        qemu.thaw()
        job.wait_result("cancelled")


def test_qemu_that_is_killed_loses_its_job_and_no_other_one(t):
    s, qemu, domain = small(t, config=QUICK)
    _, other = guest(t, s, "other")
    theirs = slow_job(t, other.disk(), "o.qcow2")
    job = slow_job(t, domain.disk(), "new.qcow2")
    with Heartbeat(other):
        qemu.kill()
        job.wait_result("lost")
    domain.wait_state("disconnected")
    assert theirs.State == "running"
    theirs.cancel().wait_result("cancelled")


def test_hundred_domains_that_come_and_go_leave_no_descriptors(t):
    s = t.service(QUICK)
    fakes = [t.fake_qmp(f"f{i}") for i in range(10)]

    def descriptors():
        return len(os.listdir(f"/proc/{s.process.pid}/fd"))
    for i, fake in enumerate(fakes):
        s.attach(f"d{i}", fake.path).detach()
    before = descriptors()
    for _ in range(9):
        domains = [s.attach(f"d{i}", fake.path) for i, fake in enumerate(fakes)]
        for fake, domain in zip(fakes, domains):
            fake.disconnect()
            domain.detach()
    assert descriptors() <= before, "descriptors leak"
    assert s.manager.NDomains == 0


def test_names_that_qemu_reports_are_checked(t):
    s = t.service(QUICK)
    for name in "", "x" * 200, "a/b", "a\nb", "\u0001", 5, None:
        fake = t.fake_qmp("named", replies={"query-name": {"name": name}})
        try:
            domain = s.attach("", fake.path)
            shown = domain.Name
            assert shown and "/" not in shown and shown.isprintable() and len(shown.encode()) <= 128, repr(shown)
            domain.detach()
        except BusError as e:
            assert e.short == "InvalidArgs", f"{name!r}: {e}"
        fake.stop()
    s.objects()


def test_images_under_a_disk_that_was_switched_just_now_are_waited_for(t):
    """The device's new root is known already, the graph under it is not: whoever asks for it waits for the next look."""
    _, fake, domain, _ = scene(t)
    disk = domain.disks()[0]
    old, new = fake.DISK["inserted"]["node-name"], "switched"

    def renamed(value):
        return json.loads(json.dumps(value).replace(old, new))

    fake.replies["x-debug-query-block-graph"] = {"nodes": [], "edges": []}
    fake.replies["query-named-block-nodes"] = []
    fake.replies["query-block"] = [renamed(fake.DISK)]
    wait_until(lambda: disk.Node != old, timeout=15, what="the switched disk")
    assert disk.chain() == [], "what cannot be read after a complete look either is not waited for any longer"
    fake.replies["x-debug-query-block-graph"] = renamed(fake.GRAPH)
    fake.replies["query-named-block-nodes"] = [renamed(fake.DISK["inserted"])]
    assert [image["node"] for image in disk.chain()] == [new]
