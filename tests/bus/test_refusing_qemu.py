# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real QEMU that refuses single commands of a copy: the job ends or waits as jobs.md says, its error has QEMU's
words, and other domains notice nothing."""
import os
import time

from harness import *
from killer import Mortal, Point
from qmp_proxy import QmpProxy
from scenes import *

WORDS = "the test has refused this: №7"


def scene(t, disks=1, **more):
    """(service, qemu, proxy, domain behind the proxy, another domain)."""
    s, _other, other = small(t, "other")
    qemu = t.qemu("web", [t.image(f"web{i}.qcow2", size="1M", fill="256k") for i in range(disks)], **more)
    proxy = QmpProxy(t, qemu)
    return s, qemu, proxy, s.attach("web", proxy.path), other


def ends_with_words(job, result="failed"):
    job.wait("concluded")
    assert job.Result == result, job.properties()
    assert job.ErrorName == "org.blockjob1.Error.Qemu", job.properties()
    assert job.ErrorMessage.endswith(WORDS), job.ErrorMessage


def refuses_to_begin(t, command, match=lambda arguments: True, **more):
    s, qemu, proxy, domain, other = scene(t)
    proxy.refuse(command, text=WORDS, match=match)
    target = t.path("copies/new.qcow2")
    with Heartbeat(other):
        job = domain.disk().copy(target, **more)
        ends_with_words(job)
    assert command in proxy.names()
    assert not os.path.exists(target), "what the job created and is worthless was to be deleted"
    assert domain.disk().Source == t.path("web0.qcow2") and domain.disk().Job == "/"
    # Nothing is in the way of the next one.
    proxy.on_command = None
    domain.disk().copy(target, **more).wait("ready").pivot().wait_result("pivoted")


def test_refused_add_fd_ends_the_job(t):
    refuses_to_begin(t, "add-fd")


# QEMU makes the image only where that takes more than a header.
BY_QEMU = {"preallocation": "metadata"}


def test_refused_protocol_node_ends_the_job(t):
    refuses_to_begin(t, "blockdev-add", lambda a: a["node-name"].endswith("-f"), **BY_QEMU)


def test_refused_image_node_ends_the_job(t):
    refuses_to_begin(t, "blockdev-add", lambda a: a["node-name"].endswith("-t"))


def test_refused_blockdev_create_ends_the_job(t):
    refuses_to_begin(t, "blockdev-create", **BY_QEMU)


def test_refused_dismissal_of_the_creation_ends_the_job(t):
    times = iter([True])
    refuses_to_begin(t, "job-dismiss", lambda a: a["id"].endswith("-c") and next(times, False), **BY_QEMU)


def test_refused_mirror_ends_the_job(t):
    refuses_to_begin(t, "blockdev-mirror")


def test_refused_mirror_of_a_raw_copy_ends_the_job(t):
    refuses_to_begin(t, "blockdev-mirror", format="raw")


def test_creation_that_fails_in_qemu_ends_the_job_with_its_words(t):
    """blockdev-create is accepted and its job fails: QEMU is told a size that no image can have."""
    s, _qemu, proxy, domain, other = scene(t)

    def reply(name, message):
        for job in message["return"] if name == "query-jobs" else ():
            if job["id"].endswith("-c") and job["status"] == "concluded":
                job["error"] = WORDS
        return message
    proxy.on_reply = reply
    with Heartbeat(other):
        ends_with_words(domain.disk().copy(t.path("copies/new.qcow2"), **BY_QEMU))
    assert not os.path.exists(t.path("copies/new.qcow2"))


def ready_job(t, **more):
    s, qemu, proxy, domain, other = scene(t)
    job = domain.disk().copy(t.path("copies/new.qcow2"), **more)
    return s, qemu, proxy, domain, other, job.wait("ready")


def test_refused_job_complete_leaves_the_job_ready_and_the_pivot_can_be_repeated(t):
    _s, qemu, proxy, _domain, other, job = ready_job(t)
    proxy.refuse("job-complete", text=WORDS, times=1)
    with Heartbeat(other):
        job.pivot()
        wait_until(lambda: job.ErrorMessage and job.State == "ready", what="an error")
    assert job.ErrorMessage.endswith(WORDS), job.properties()
    assert job.OnReady == "wait", "a promise that failed is not tried again and again"
    job.pivot().wait_result("pivoted")
    assert job.ErrorMessage == "", "the old error is still there"
    assert qemu.image()["file"].startswith("/dev/fdset/"), qemu.image()["file"]


def test_refused_soft_cancel_leaves_the_job_ready_and_it_can_be_finished_later(t):
    _s, _qemu, proxy, _domain, other, job = ready_job(t)
    proxy.refuse("block-job-cancel", text=WORDS, times=1)
    with Heartbeat(other):
        job.finish()
        wait_until(lambda: job.ErrorMessage and job.State == "ready", what="an error")
    assert job.ErrorMessage.endswith(WORDS), job.properties()
    job.finish().wait_result("finished")


def test_promised_pivot_that_is_refused_waits_for_people(t):
    s, _qemu, proxy, domain, other = scene(t)
    proxy.refuse("job-complete", text=WORDS)
    with Heartbeat(other):
        job = domain.disk().copy(t.path("copies/new.qcow2"), on_ready="pivot")
        wait_until(lambda: job.ErrorMessage and job.State == "ready", what="an error")
    assert job.OnReady == "wait", job.properties()
    assert proxy.names().count("job-complete") == 1
    job.cancel().wait_result("cancelled")


def test_refused_job_finalize_is_repeated_because_it_is_decided(t):
    _s, _qemu, proxy, _domain, other, job = ready_job(t)
    proxy.refuse("job-finalize", text=WORDS)
    with Heartbeat(other):
        job.pivot()
        wait_until(lambda: proxy.names().count("job-finalize") >= 2, what="another attempt")
    assert job.State == "pivoting"
    refused(lambda: job.cancel(force=True), "AlreadyEnding", text="no return")
    # A refusal is answered with patience: about once a second, not as fast as QEMU can refuse.
    before, started = proxy.names().count("job-finalize"), time.monotonic()
    wait_until(lambda: proxy.names().count("job-finalize") >= before + 2)
    assert time.monotonic() - started > 0.8, "hammering a QEMU that refuses"
    proxy.on_command = None
    job.wait_result("pivoted")


def test_refusal_is_repeated_although_another_job_runs(t):
    _s, _qemu, proxy, domain, _other = scene(t, disks=2)
    job = domain.disk().copy(t.path("copies/a.qcow2")).wait("ready")
    slow = slow_job(t, domain.disk("vdb"), "b.qcow2")
    proxy.refuse("job-finalize", text=WORDS, times=1)
    job.pivot().wait_result("pivoted", timeout=8)
    slow.cancel().wait_result("cancelled")


def count_in_a_second(proxy, name):
    """How often the service sends a command within one second of patience."""
    before, started = proxy.names().count(name), time.monotonic()
    wait_until(lambda: time.monotonic() > started + 1)
    return proxy.names().count(name) - before


def test_refused_dismissal_leaves_the_result_as_it_is_and_is_repeated_with_patience(t):
    s, qemu, proxy, domain, other, job = ready_job(t)
    proxy.refuse("job-dismiss", text=WORDS)
    with Heartbeat(other):
        job.pivot().wait_result("pivoted")
        assert job.ErrorMessage == ""
        wait_until(lambda: "job-dismiss" in proxy.names()[-30:])
        assert count_in_a_second(proxy, "job-dismiss") <= 5, "hammering a QEMU that refuses"
    # The job may leave the bus; QEMU's part of it is not forgotten by that.
    dismissed(job)
    proxy.on_command = None
    wait_until(lambda: not qemu.jobs(), what="job-dismiss")
    assert len(s.signals("JobFinished")) == 1


def test_refused_cancel_is_repeated_with_patience(t):
    _s, qemu, proxy, _domain, other, job = ready_job(t)
    proxy.refuse("job-cancel", text=WORDS)
    with Heartbeat(other):
        job.cancel()
        wait_until(lambda: "job-cancel" in proxy.names())
        assert count_in_a_second(proxy, "job-cancel") <= 5, "hammering a QEMU that refuses"
    assert job.State == "cancelling"
    proxy.on_command = None
    job.wait_result("cancelled", timeout=30)
    wait_until(lambda: not qemu.jobs())


def test_refused_orders_say_so_in_the_reply(t):
    _s, _qemu, proxy, domain, other = scene(t)
    job = slow_job(t, domain.disk())
    proxy.refuse("block-job-pause", "block-job-resume", "block-job-set-speed", "block-job-change", text=WORDS)
    with Heartbeat(other):
        for order in job.pause, job.resume, lambda: job.set_speed(9), lambda: job.set_copy_mode("write-blocking"):
            error = refused(order, "Qemu")
            assert error.message.endswith(WORDS), error
    assert job.SpeedLimit == 1 and not job.Paused and job.CopyMode == "background"
    proxy.on_command = None
    job.cancel().wait_result("cancelled")


def test_refused_queries_do_not_end_a_job(t):
    s, _qemu, proxy, domain, other = scene(t)
    job = slow_job(t, domain.disk())
    for command in "query-jobs", "query-block-jobs", "query-status":
        proxy.refuse(command, text=WORDS)
        with Heartbeat(other):
            before = proxy.names().count(command)
            wait_until(lambda: proxy.names().count(command) >= before + 2, what=f"{command} once more")
        assert job.State == "running", f"{command}: {job.properties()}"
    proxy.on_command = None
    job.set_speed(0)
    job.wait("ready").pivot().wait_result("pivoted")


def test_answers_that_never_come_make_the_job_wait(t):
    """Also in the middle of a pivot: with the connection new and QEMU answering again, it goes on."""
    s, _other, other = small(t, "other", config="[Qemu]\nCommandTimeout=500ms\nReconnectMax=200ms\n")
    qemu = t.qemu("web", [t.image("web0.qcow2", size="1M", fill="256k")])
    proxy = QmpProxy(t, qemu)
    domain = s.attach("web", proxy.path)
    job = domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")
    proxy.on_command = lambda name, arguments: QmpProxy.DROP if name == "job-complete" else None
    with Heartbeat(other):
        job.pivot()
        wait_until(lambda: "job-complete" in proxy.names())
        proxy.on_command = lambda name, arguments: QmpProxy.DROP
        domain.wait_state("unresponsive")
        assert job.State == "pivoting"
        proxy.on_command = None
        proxy.disconnect()
        domain.wait_state("paused")
        job.wait_result("pivoted")


def test_connection_that_breaks_at_each_command_of_a_copy_costs_nothing(t):
    """One copy from beginning to end; each of QEMU's commands breaks the connection once before and once after it."""
    s, _other, other = small(t, "other", config="[Qemu]\nReconnectMax=100ms\n")
    qemu = t.qemu("web", [t.image("web0.qcow2", size="1M", fill="256k")])
    proxy = QmpProxy(t, qemu)
    seen = set()

    def before(name, arguments):
        if "query" not in name and ("before", name) not in seen:
            seen.add(("before", name))
            return QmpProxy.CLOSE
        return None

    def after(name, reply):
        if "query" not in name and ("after", name) not in seen:
            seen.add(("after", name))
            proxy.disconnect()
            return b""
        return reply
    domain = s.attach("web", proxy.path)
    proxy.on_command, proxy.on_reply = before, after
    with Heartbeat(other):
        job = domain.disk().copy(t.path("copies/new.qcow2"), on_ready="pivot", **BY_QEMU)
        job.wait_result("pivoted", timeout=60)
    assert {"add-fd", "blockdev-add", "blockdev-create", "blockdev-mirror", "job-complete", "job-finalize"} <= {
        name for _, name in seen}, seen


def test_nodes_are_not_asked_for_while_an_image_is_created(t):
    """QEMU 7.2 ends itself when it is asked for its nodes while blockdev-create has one half open."""
    s, qemu, proxy, domain, _other = scene(t, disks=2)
    ending = domain.disk("vdb").copy(t.path("copies/b.qcow2")).wait("ready")
    creating, asked, ended = [], [], []

    def watch(name, arguments):
        if name == "blockdev-create":
            creating.append(arguments["job-id"])
        if name == "query-named-block-nodes" and creating and not ended:
            asked.append(name)
        return None

    def reply(name, message):
        # The creation is shown as running for as long as the other job needs to end.
        for job in message["return"] if name == "query-jobs" else ():
            if job["id"] in creating and not ended:
                job["status"] = "running"
        return message
    proxy.on_command, proxy.on_reply = watch, reply
    job = domain.disk().copy(t.path("copies/a.qcow2"), **BY_QEMU)
    wait_until(lambda: creating)
    ending.finish().wait_result("finished")
    wait_until(lambda: not any(name.endswith(f"-{ending.id}") for name in qemu.jobs()), what="job-dismiss")
    before = proxy.names().count("query-jobs")
    wait_until(lambda: proxy.names().count("query-jobs") > before, what="a look behind it")
    ended.append(True)
    job.wait("ready").finish().wait_result("finished")
    assert not asked, f"asked for the nodes while {creating} was at work"
    assert qemu.alive


def test_why_a_copy_failed_is_recorded_before_its_target_is_deleted(t):
    """The service dies right behind the deletion: the copy has failed all the same, and is not made a second time."""
    s, qemu, proxy, domain, _other = scene(t)
    s.stop()
    mortal = Mortal(s)
    mortal.start(Point(1, "unlinkat", behind='"blockdev-mirror"', after=True))
    mortal.until(lambda: domain.State == "paused" and domain.Disks, 30, "the first look at the domain")
    proxy.refuse("blockdev-mirror", text=WORDS)
    target = t.path("copies/new.qcow2")
    job = domain.disk().copy(target)
    wait_until(lambda: mortal.dead, what="the death of the service")
    proxy.on_command = None
    mirrors = proxy.names().count("blockdev-mirror")
    mortal.until(lambda: job.State == "concluded", 30, "the end of the job")
    ends_with_words(job)
    assert not os.path.exists(target) and proxy.names().count("blockdev-mirror") == mirrors
    assert not [j for j in qemu.jobs() if "-c" not in j], qemu.jobs()
