# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU, or what stands at its socket, fails in the middle of a job: what was asked of it is in the journal, what came of it
is said, and other domains go on undisturbed."""
import json
import os
import time

from harness import *
from invariants import journal_table
from process import PATIENCE
from qmp_proxy import QmpProxy
from scenes import *


def behind_proxy(t, disks=1, config="", **more):
    """(service, qemu, proxy, domain behind the proxy, another domain)."""
    s, _other, other = small(t, "other", config=config)
    qemu = t.qemu("web", [t.image(f"web{i}.qcow2", size="1M", fill="256k") for i in range(disks)], **more)
    proxy = QmpProxy(t, qemu)
    return s, qemu, proxy, s.attach("web", proxy.path), other


# ---- orders that are QEMU's to carry out ----

ORDERS = {"block-job-set-speed": lambda job: job.set_speed(2), "block-job-pause": lambda job: job.pause(),
          "block-job-resume": lambda job: job.resume(),
          "block-job-change": lambda job: job.set_copy_mode("write-blocking")}


def test_each_order_is_in_the_journal_before_qemu_hears_of_it(t):
    s, _qemu, proxy, domain, _other = behind_proxy(t)
    job = slow_job(t, domain.disk())
    found = {}

    def look(name, arguments):
        if name in ORDERS:
            rows = journal_table(s.state_dir, "transition", "seq").values()
            found[name] = [r["detail"] for r in rows if r["job"] == job.id and r["detail"].startswith(name)]
    proxy.on_command = look
    for name, order in ORDERS.items():
        if name == "block-job-change":  # not in every QEMU
            try:
                order(job)
            except BusError as e:
                assert e.short in ("NotSupported", "Qemu"), e
        else:
            order(job)
    assert set(found) == set(ORDERS) and all(len(rows) == 1 for rows in found.values()), found
    assert '"speed":2' in found["block-job-set-speed"][0], found
    job.cancel().wait_result("cancelled")


def test_orders_at_once_are_carried_out_in_their_order(t):
    _s, qemu, proxy, domain, _other = behind_proxy(t)
    job = slow_job(t, domain.disk())
    calls = [job.client.conn.call_async(job.path, job.INTERFACE, "SetSpeed", "(t)", (n,)) for n in range(2, 22)]
    for call in calls:
        call.result()
    assert [a["speed"] for n, a in proxy.commands if n == "block-job-set-speed"] == list(range(2, 22))
    assert job.SpeedLimit == qemu("query-block-jobs")[0]["speed"] == 21
    job.cancel().wait_result("cancelled")


def test_change_of_the_mode_that_was_not_answered_is_said_after_a_restart(t):
    """What QEMU has made of it is seen nowhere; the speed is."""
    s, _qemu, proxy, domain, _other = behind_proxy(t)
    job = slow_job(t, domain.disk())
    proxy.on_command = lambda name, arguments: QmpProxy.DROP if name == "block-job-change" else None
    job.client.conn.call_async(job.path, job.INTERFACE, "SetCopyMode", "(s)", ("write-blocking",))
    job.client.conn.call_async(job.path, job.INTERFACE, "SetSpeed", "(t)", (3,))
    wait_until(lambda: "block-job-change" in proxy.names())
    s.kill()
    proxy.on_command = None
    s.start()
    wait_until(lambda: job.path in s.jobs() and job.Warnings, what="a warning")
    assert [w for w in job.Warnings if "copy mode" in w], job.Warnings
    s.restart()
    wait_until(lambda: job.path in s.jobs() and job.State == "running", what="the job")
    assert len([w for w in job.Warnings if "copy mode" in w]) == 1, job.Warnings
    wait_until(lambda: domain.State == "paused", what="the domain")
    job.cancel().wait_result("cancelled")


# ---- answers that are none ----

QUICK = "[Qemu]\nCommandTimeout=800ms\nGreetingTimeout=800ms\nReconnectMax=100ms\n"


@deadline(60)
def test_unknown_events_disturb_no_copy(t):
    """Newer QEMUs say more than is known here; also in the middle of a pivot."""
    s, qemu, proxy, domain, other = behind_proxy(t)
    event = b'{"event": "NEWS_OF_2040", "data": {"a": [{}]}, "timestamp": {"seconds": 1, "microseconds": 1}}\r\n'

    def reply(name, message):
        return event * 50 + json.dumps(message).encode() + b"\r\n" + event * 50
    proxy.on_reply = reply
    with Heartbeat(other):
        domain.disk().copy(t.path("copies/new.qcow2"), on_ready="pivot").wait_result("pivoted")


@deadline(120)
def test_answers_that_come_twice_or_in_the_wrong_order_cost_the_connection_and_no_job(t):
    s, qemu, proxy, domain, other = behind_proxy(t, config=QUICK)
    job = domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")
    held, done = [], []

    def twice(name, message):
        if done or name != "query-jobs":
            return message
        done.append(name)
        return (json.dumps(message).encode() + b"\r\n") * 2

    def swapped(name, message):
        if done:
            return message
        held.append(message)
        if len(held) < 2:
            return b""
        done.append(name)
        return b"".join(json.dumps(m).encode() + b"\r\n" for m in reversed(held))

    def of_another_number(name, message):
        if done or name != "query-jobs":
            return message
        done.append(name)
        return {**message, "id": 10 ** 6}
    with Heartbeat(other):
        for wrong in twice, swapped, of_another_number:
            done.clear()
            proxy.on_reply = wrong
            wait_until(lambda: done, 20, wrong.__name__)
            proxy.on_reply = None
            wait_until(lambda: domain.State == "paused" and proxy.names()[-20:].count("query-jobs"), 20,
                       "the domain to be looked at")
            assert job.State == "ready", f"{wrong.__name__}: {job.properties()}"
        job.pivot().wait_result("pivoted")


@deadline(120)
def test_qemu_that_stands_in_the_middle_of_a_pivot_goes_on_when_it_is_let_go(t):
    """For longer than all deadlines: its domain is unresponsive meanwhile, and the pivot is neither lost nor done twice."""
    s, qemu, proxy, domain, other = behind_proxy(t, config=QUICK, idle=False)
    for number, command in enumerate(["job-complete", "job-finalize"]):
        job = domain.disk().copy(t.path(f"copies/new{number}.qcow2")).wait("ready")
        frozen = []

        def freeze(name, arguments):
            if name == command and not frozen:
                frozen.append(name)
                qemu.freeze()
        proxy.on_command = freeze
        with Heartbeat(other):
            job.pivot()
            domain.wait_state("unresponsive")
            began = time.monotonic()
            wait_until(lambda: time.monotonic() > began + 2, what="more than any deadline")
            assert job.State == "pivoting", job.properties()
            qemu.thaw()
            job.wait("concluded")
        proxy.on_command = None
        assert job.Result == "pivoted", job.properties()
        assert domain.disk().Source == t.path(f"copies/new{number}.qcow2")
        wait_until(lambda: qemu("query-status")["running"], what="the guest to go on")


@deadline(60)
def test_another_qemu_at_the_same_path_gets_no_order_of_the_old_one(t):
    """The process that had the job is gone; who listens there now is another guest, whose disk is left alone."""
    s, other, other_domain = small(t, "other")
    qemu, domain = guest(t, s, "web")
    job = domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")
    qemu.freeze()
    job.client.conn.call_async(job.path, job.INTERFACE, "Pivot", "(a{sv})", ({},))
    wait_until(lambda: job.State == "pivoting", what="the order")
    image = t.image("else.qcow2", size="1M", fill="64k")
    with Heartbeat(other_domain):
        qemu.kill()
        qemu.drives[0].path = image
        qemu.start()
        job.wait("concluded")
        assert job.Result == "lost" and job.ErrorMessage, job.properties()
        wait_until(lambda: domain.State == "paused" and domain.disk().Source == image, what="the other guest")
    assert not qemu.jobs() and qemu.image()["file"] == image
    domain.disk().copy(t.path("copies/else.qcow2"), on_ready="pivot").wait_result("pivoted")


# ---- nothing leaks ----

@deadline(180)
def test_copies_that_fail_again_and_again_leave_nothing(t):
    """Neither descriptors nor memory in the service, nor nodes, jobs and descriptors in QEMU, nor files."""
    s, qemu, proxy, domain, _other = behind_proxy(t, config="[Jobs]\nKeepFinishedJobs=1\nKeepFinishedTime=0\n")
    commands = ["add-fd", "blockdev-add", "blockdev-mirror"]

    def fail(command):
        proxy.refuse(command, times=1)
        job = domain.disk().copy(t.path("copies/new.qcow2"))
        job.wait("concluded")
        assert job.Result == "failed" and job.ErrorMessage.endswith("this was refused by the test"), job.properties()

    def descriptors():
        return len(os.listdir(f"/proc/{s.process.pid}/fd"))
    for command in commands * 2:
        fail(command)
    files, memory = descriptors(), Memory(s)
    for command in commands * 10:
        fail(command)
    wait_until(lambda: descriptors() <= files, what=lambda: f"{descriptors()} descriptors, {files} before")
    print(f"note: 30 failed copies: {memory.grown(4096)} KiB more")
    assert not os.listdir(t.path("copies"))
    assert not [n for n in qemu.block_graph()[0] if n.startswith("bj-")] and not qemu.jobs()


# ---- slow answers ----

@deadline(60)
def test_disk_is_on_its_target_when_the_end_is_told_though_another_copy_has_just_begun(t):
    """QEMU takes its time to tell its graph: what is not known yet of one disk does not keep back what is known of the
    other, so that the next copy begins where the guest is."""
    _s, _qemu, proxy, domain, _other = behind_proxy(t, disks=2)
    a, b = domain.disk("vda"), domain.disk("vdb")

    def late(name, message):
        if name == "x-debug-query-block-graph":
            time.sleep(0.2)
        return message
    for number in range(3):
        target = t.path(f"copies/a{number}.qcow2")
        job = a.copy(target).wait("ready")
        proxy.on_reply = late
        other = slow_job(t, b, f"b{number}.qcow2")
        job.pivot().wait_result("pivoted")
        assert a.Source == target, f"pivot {number} is told, and the disk is on {a.Source}"
        proxy.on_reply = None
        other.cancel().wait_result("cancelled")
