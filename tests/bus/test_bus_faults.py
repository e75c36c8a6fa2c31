# SPDX-License-Identifier: LGPL-2.1-or-later
"""The message bus and its clients fail: the bus restarts or hangs, clients leave in the middle of a call or never read.
Jobs go on, nobody else waits, and nothing is left behind."""
import os
import time

from faults import Faults
from harness import *
from process import PATIENCE
from scenes import *
from test_wait_for import send_without_reading


def descriptors(s):
    return len(os.listdir(f"/proc/{s.process.pid}/fd"))


def other_bus(t, s):
    """A new dbus-daemon at the old address; the service is started on it, as systemd does."""
    folder = t.path("bus")
    os.unlink(f"{folder}/bus")
    t._bus = s.bus = Bus(folder)
    s.conn = t.bus.connect()
    s.conn.subscribe(sender=PREFIX, path_namespace=ROOT)
    return s.start()


@deadline(60)
def test_bus_that_restarts_ends_the_service_and_no_job(t):
    """The service exits, so that systemd starts it again; the promise to pivot is kept without the bus and over it."""
    s, qemu, domain = small(t, disks=2)
    job = slow_job(t, domain.disk(), on_ready="pivot")
    ready = domain.disk("vdb").copy(t.path("copies/b.qcow2")).wait("ready")
    t.bus.stop()
    assert s.process.wait() == 1, "systemd would not start it again"
    assert "The message bus has closed the connection" in s.log()
    s.killed += 1  # what it had to tell at that moment was lost with the bus
    qemu("block-job-set-speed", device=list(j for j in qemu.jobs() if j.endswith(f"-{job.id}"))[0], speed=0)
    other_bus(t, s)
    job.wait_result("pivoted")
    wait_until(lambda: s.domain("web").State == "paused", what="the domain")
    ready.pivot().wait_result("pivoted")
    assert job.Restarts == ready.Restarts == 1


@deadline(60)
def test_service_without_a_bus_says_so_and_exits(t):
    s = t.service(start=False)
    t.bus.stop()
    s.start(wait=False)
    assert s.process.wait() != 0
    assert "bus" in s.log(), s.log()
    t.invariants = False  # there is nothing to look at


@deadline(60)
def test_bus_that_hangs_holds_up_no_job(t):
    s, qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/new.qcow2"), speed=1 << 18, on_ready="pivot")
    t.bus.daemon.freeze()
    try:
        wait_until(lambda: qemu.image()["file"].startswith("/dev/fdset/"), 30, "the pivot in QEMU")
        wait_until(lambda: not qemu.jobs(), 30, "the dismissal in QEMU")
    finally:
        t.bus.daemon.thaw()
    job.wait_result("pivoted")
    assert len(s.signals("JobFinished")) == 1


@deadline(120)
def test_clients_that_leave_in_the_middle_of_any_call_leave_nothing_behind(t):
    s, _qemu, domain = small(t, disks=2)
    job = slow_job(t, domain.disk())
    calls = [("AttachDomain", ROOT, f"{PREFIX}.Manager", "(ssa{sv})", ("x", t.path("nobody.sock"), {})),
             ("WaitFor", job.path, job.INTERFACE, "(st)", ("concluded", 0)),
             ("Pause", job.path, job.INTERFACE, "()", ()),
             ("SetOnReady", job.path, job.INTERFACE, "(s)", ("wait",)),
             ("ListHistory", ROOT, f"{PREFIX}.Manager", "(a{sv})", ({},)),
             ("Check", domain.disk("vdb").path, Disk.INTERFACE, "(ssa{sv})", ("copy", t.path("copies/c"), {})),
             ("Pivot", job.path, job.INTERFACE, "(a{sv})", ({},))]

    def round_of_calls():
        for method, path, interface, signature, arguments in calls:
            for _ in range(5):
                conn = t.bus.connect()
                conn.call_async(path, interface, method, signature, arguments)
                conn.gio.flush_sync(None)
                conn.close()
    with Heartbeat(domain):
        round_of_calls()
        assert s.manager.NDomains == 1
        before, memory = descriptors(s), Memory(s)
        for _ in range(5):
            round_of_calls()
        assert s.manager.NDomains == 1
    assert descriptors(s) <= before, f"{descriptors(s)} descriptors, {before} before"
    memory.grown(2048)
    job.cancel().wait_result("cancelled")


@deadline(60)
def test_copy_whose_client_left_before_the_answer_is_a_job_like_any_other(t):
    """It was ordered; who asks again with its request-id is told which job it is."""
    faults = Faults(t)
    s = t.service(wrap=faults.wrap)
    _qemu, domain = guest(t, s, "web")
    os.makedirs(t.path("copies"))
    conn = t.bus.connect()
    disk, target = domain.disk(), t.path("copies/new.qcow2")
    o = options({"on_ready": "pivot", "request_id": "once"}, [])
    conn.call_async(disk.path, disk.INTERFACE, "Copy", "(sa{sv})", (target, o))
    # It leaves when it is past its authorization, while its order is being made durable.
    faults.set("slow", 1000)
    conn.gio.flush_sync(None)
    wait_until(lambda: "ordered by uid" in s.process.log(), what="the order")
    conn.close()
    faults.clear("slow")
    new = s.wait_signal("JobNew")
    again = disk.copy(target, on_ready="pivot", request_id="once")
    assert again.path == new.args[1] and len(s.signals("JobNew")) == 1
    again.wait_result("pivoted")


@deadline(120)
def test_clients_that_never_read_do_not_make_the_service_grow(t):
    s, _qemu, domain = small(t)
    for _ in range(20):
        s.objects()
    memory = Memory(s)
    for _ in range(4):
        raw = send_without_reading(t, 3000)
        t.cleanup(raw.close)
    with Heartbeat(domain, limit=0.5):
        domain.disk().copy(t.path("copies/x"), on_ready="pivot").wait_result("pivoted")
    print(f"note: 12000 answers that nobody reads: {memory.grown(16 * 1024)} KiB more")


@deadline(60)
def test_thousand_orders_at_once_from_one_client_are_all_answered(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    conns = [t.bus.connect() for _ in range(10)]
    began = time.monotonic()
    calls = [conn.call_async(job.path, job.INTERFACE, "SetOnReady", "(s)", (word,))
             for conn in conns for word in ["pivot", "wait"] * 50]
    with Heartbeat(domain, limit=0.5):
        for call in calls:
            call.result()
    print(f"note: 1000 recorded orders in {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 20 * PATIENCE
    assert job.OnReady == "wait"
    job.cancel().wait_result("cancelled")
