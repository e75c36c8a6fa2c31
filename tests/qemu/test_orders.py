# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can be asked of a job while it runs and after it has ended."""
import os
import time

from copying import *
from harness import *


def block_job(qemu):
    """query-block-jobs of the only job."""
    jobs = qemu("query-block-jobs")
    assert len(jobs) == 1, jobs
    return jobs[0]


def pending(job, method, signature="()", *args, client=None, timeout=60):
    """A call to a job that is not waited for."""
    conn = (client or job.client).conn
    return conn.call_async(job.path, Job.INTERFACE, method, signature, args, timeout=timeout)


# ---- on-ready: a promise that nobody need wait for ----

def test_on_ready_pivot_is_kept_when_its_client_is_gone(t):
    qemu, s, disk = one_disk(t)
    client = s.client(0)
    job = Disk(client, disk.path).copy(t.path("new.qcow2"), on_ready="pivot", speed=64 << 10, buf_size=1 << 20)
    client.conn.close()
    job = Job(s, job.path)
    assert job.wait("running").OnReady == "pivot"
    job.set_speed(0)
    job.wait_result("pivoted")
    assert disk.Source == t.path("new.qcow2")


def test_on_ready_finish_is_kept_when_its_client_is_gone(t):
    qemu, s, disk = one_disk(t)
    client = s.client(0)
    job = Disk(client, disk.path).copy(t.path("new.qcow2"), on_ready="finish", speed=64 << 10,
                                             buf_size=1 << 20)
    client.conn.close()
    job = Job(s, job.path)
    job.wait("running").set_speed(0)
    job.wait_result("finished")
    assert disk.Source == t.path("old.qcow2")
    qemu.quit()
    image_compare(t.path("old.qcow2"), t.path("new.qcow2"))


def test_on_ready_is_kept_over_a_restart(t):
    qemu, s, disk = one_disk(t)
    slow_copy(disk, t.path("new.qcow2"), on_ready="pivot")
    s.restart()
    job = s.job(1)
    assert job.OnReady == "pivot" and job.Restarts == 1
    job.wait("running").set_speed(0)
    job.wait_result("pivoted")


def test_on_ready_can_be_set_and_taken_back(t):
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"), on_ready="pivot")
    job.set_on_ready("wait")
    assert job.OnReady == "wait"
    job.set_speed(0)
    job.wait("ready")
    s.wait_signal("PropertiesChanged", job.path, lambda x: x.args[1].get("State") == "ready")
    assert job.State == "ready"
    # A ready job acts at once.
    job.set_on_ready("finish")
    job.wait_result("finished")
    assert "on_ready" in refusal("InvalidArgs", disk.copy(t.path("b.qcow2")).set_on_ready, "explode")


# ---- pause, speed ----

def test_pause_holds_the_copy_and_resume_lets_it_go_on(t):
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"))
    job.pause()
    assert block_job(qemu)["paused"] and job.Paused
    job.set_speed(0)
    held = block_job(qemu)["offset"]
    qemu.io("write -P 1 32M 1M")
    qemu.io("read -P 1 32M 1M")
    assert job.State == "running" and block_job(qemu)["offset"] == held
    refusal("NotReady", job.pivot)
    job.resume()
    assert not job.Paused
    pivoted(job)


def test_a_ready_job_that_is_paused_is_not_pivoted(t):
    """QEMU would take the order and wait for resume without a word."""
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    job.pause()
    assert "paused" in refusal("NotReady", job.pivot)
    assert "paused" in refusal("NotReady", job.finish)
    job.resume()
    pivoted(job)


def test_a_paused_job_can_be_cancelled(t):
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"))
    job.pause()
    job.cancel().wait_result("cancelled")
    assert not os.path.exists(t.path("new.qcow2"))


def test_pause_is_kept_over_a_restart(t):
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"), on_ready="pivot")
    job.pause()
    s.restart()
    job = s.job(1)
    assert job.wait("running").Paused and block_job(qemu)["paused"]
    job.set_speed(0)
    job.resume()
    job.wait_result("pivoted")


def test_speed_can_be_set_while_running_and_counts_bytes(t):
    """Scenario 26."""
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2"), speed=100_000, buf_size=1 << 20).wait("running")
    assert job.SpeedLimit == block_job(qemu)["speed"] == 100_000
    job.set_speed(123_456)
    assert job.SpeedLimit == block_job(qemu)["speed"] == 123_456
    assert "bytes" in refusal("InvalidArgs", job.set_speed, 1 << 63)
    assert job.SpeedLimit == block_job(qemu)["speed"] == 123_456
    job.set_speed((1 << 63) - 1)
    assert block_job(qemu)["speed"] == (1 << 63) - 1
    job.set_speed(0)
    assert job.wait("ready").SpeedLimit == block_job(qemu)["speed"] == 0


def test_copy_mode_cannot_be_changed_where_qemu_cannot(t):
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"))
    assert refusal("InvalidArgs", job.set_copy_mode, "background")
    if qemu.version() >= (8, 2, 0):
        job.set_copy_mode("write-blocking")
        assert job.CopyMode == "write-blocking"
    else:
        refusal("NotSupported", job.set_copy_mode, "write-blocking")
        assert job.CopyMode == "background"


# ---- progress ----

def test_progress_is_bytes_and_never_goes_back(t):
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2"), speed=2 << 20, buf_size=1 << 20)
    pivoted(job)
    done = [x.args[1]["Done"] for x in s.signals("PropertiesChanged")
            if x.path == job.path and "Done" in x.args[1]]
    assert done == sorted(done) and len(done) >= 3, done
    assert job.Total >= 4 << 20 and job.Done == job.Total, (job.Done, job.Total)
    times = [job.Created, job.Ready, job.Finished]
    assert times == sorted(times) and times[0] > (time.time() - 300) * 1e6, times


# ---- WaitFor ----

def test_wait_for_answers_at_once_when_it_is_reached_or_passed(t):
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2"))
    assert job.call("WaitFor", "(st)", "ready", 0) == ("ready", "")
    assert job.call("WaitFor", "(st)", "ready", 1) == ("ready", "")
    pivoted(job)
    for state in "ready", "pending", "concluded":
        assert job.call("WaitFor", "(st)", state, 1) == ("concluded", "pivoted")
    assert refusal("InvalidArgs", job.call, "WaitFor", "(st)", "running", 1)


def test_wait_for_ready_answers_when_the_job_ends_otherwise(t):
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"))
    waiting = pending(job, "WaitFor", "(st)", "ready", 0)
    # The same connection's calls are handled in order: it waits when this is answered.
    assert job.State == "running" and not waiting.done
    job.cancel()
    assert waiting.result() == ("concluded", "cancelled")


def test_wait_for_says_when_its_time_is_over(t):
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"))
    assert "wait again" in refusal("Timeout", job.call, "WaitFor", "(st)", "ready", 50_000)
    assert job.State == "running"


def test_only_so_many_calls_wait_for_one_user(t):
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"))
    waiting = [pending(job, "WaitFor", "(st)", "concluded", 0) for _ in range(64)]
    assert "64" in refusal("LimitsExceeded", job.call, "WaitFor", "(st)", "concluded", 0)
    job.cancel()
    assert [w.result() for w in waiting] == [("concluded", "cancelled")] * 64


# ---- request-id ----

def test_a_request_that_is_repeated_gets_the_same_job(t):
    qemu, s, disk = one_disk(t)
    one = slow_copy(disk, t.path("new.qcow2"), request_id="move 1")
    assert disk.copy(t.path("new.qcow2"), request_id="move 1") == one
    s.restart()
    assert back(s, disk).copy(t.path("new.qcow2"), request_id="move 1") == one
    one.wait("running").cancel().wait_result("cancelled")
    # Also when it is over: the caller did not know.
    assert disk.copy(t.path("new.qcow2"), request_id="move 1") == one
    assert list(s.jobs()) == [one.path]
    two = disk.copy(t.path("new.qcow2"), request_id="move 2")
    assert two != one
    pivoted(two)


def test_two_requests_at_once_make_one_job(t):
    qemu, s, disk = one_disk(t)
    fds = []
    calls = [s.conn.call_async(disk.path, Disk.INTERFACE, "Copy", "(sa{sv})",
                               (t.path("new.qcow2"), options({"request-id": "x"}, fds))) for _ in range(5)]
    assert len({c.result() for c in calls}) == 1
    pivoted(s.job(1))
    assert len(s.jobs()) == 1


def test_a_request_id_belongs_to_its_user(t):
    t.fake_polkit()
    qemu, s, domain = attached(t, [t.image("a.qcow2"), t.image("b.qcow2")])
    other = s.client(1000)
    mine = domain.disk("vda").copy(t.path("new.qcow2"), request_id="x")
    theirs = Disk(other, domain.disk("vdb").path).copy(t.path("other.qcow2"), request_id="x")
    assert theirs.path != mine.path and theirs.OwnerUid == 1000 and mine.OwnerUid == 0


# ---- orders at any time ----

def test_a_copy_can_be_cancelled_at_any_time(t):
    """From the very beginning on, with nothing left of it."""
    qemu, s, disk = one_disk(t, fill="1M")
    nodes = qemu.block_graph()[0]
    for n in range(24):
        job = disk.copy(t.path(f"{n}.qcow2"))
        # A little later each time: the calls are answered while the copy is made.
        for _ in range(n):
            assert job.State in ("preparing", "running", "ready")
        job.cancel()
        job.wait_result("cancelled")
        assert not os.path.exists(t.path(f"{n}.qcow2"))
    assert qemu.block_graph()[0] == nodes
    pivoted(disk.copy(t.path("new.qcow2")))


def test_a_copy_that_is_not_running_yet_says_so(t):
    """QEMU does not answer, so it cannot come further."""
    qemu, s, disk = one_disk(t)
    qemu.freeze()
    job = disk.copy(t.path("new.qcow2"))
    assert job.State == "preparing"
    for method in job.pause, job.pivot, job.finish:
        assert "preparing" in refusal("NotReady", method)
    assert "preparing" in refusal("NotReady", job.set_speed, 1)
    job.set_on_ready("pivot")
    qemu.thaw()
    job.wait_result("pivoted")


def test_several_disks_are_switched_at_once_and_the_guest_runs_afterwards(t):
    """Each switch stops it for a moment; whoever is last lets it go on, and only then."""
    qemu, s, domain = attached(t, [t.image(f"{n}.qcow2", "8M", fill="1M") for n in range(3)])
    qemu("cont")
    for n in range(4):
        jobs = [d.copy(t.path(f"{d.Name}-{n}.qcow2")) for d in domain.disks()]
        for job in jobs:
            job.wait("ready")
        empty = options({}, [])
        for call in [pending(job, "Pivot" if n % 2 else "Finish", "(a{sv})", empty) for job in jobs]:
            call.result()
        for job in jobs:
            job.wait_result("pivoted" if n % 2 else "finished")
        assert qemu("query-status")["running"], n
    qemu("stop")
    for job in [d.copy(t.path(f"{d.Name}-last.qcow2"), on_ready="pivot") for d in domain.disks()]:
        job.wait_result("pivoted")
    assert not qemu("query-status")["running"]


# ---- ends that cannot be ----

def test_an_end_is_refused_when_there_is_one_already(t):
    qemu, s, disk = one_disk(t)
    job = pivoted(disk.copy(t.path("new.qcow2")))
    for method in job.pivot, job.finish, job.cancel, job.pause, job.resume:
        assert "over" in refusal("AlreadyEnding", method)
    refusal("AlreadyEnding", job.set_speed, 1)
    refusal("AlreadyEnding", job.set_on_ready, "pivot")
    assert (job.State, job.Result) == ("concluded", "pivoted")


def test_orders_at_once_make_one_end(t):
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    empty = options({}, [])
    calls = [pending(job, m, "(a{sv})", empty) for m in ("Finish", "Pivot", "Finish", "Cancel")]
    answers = []
    for call in calls:
        try:
            call.result()
            answers.append("ok")
        except BusError as e:
            answers.append(e.short)
    assert answers == ["ok"] + ["AlreadyEnding"] * 3, answers
    job.wait_result("finished")


def test_force_takes_back_a_pivot_that_is_not_decided(t):
    """QEMU does not answer, so nothing can be decided; when it does, the cancel is in force."""
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    qemu.freeze()
    job.pivot()
    assert "force" in refusal("AlreadyEnding", job.cancel)
    job.cancel(force=True)
    qemu.thaw()
    job.wait_result("cancelled")
    assert disk.Source == t.path("old.qcow2")
    qemu.io("write -P 1 0 64k")


# ---- afterwards ----

def test_dismiss_takes_a_job_off_the_bus_and_leaves_it_in_the_history(t):
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    assert "ready" in refusal("NotReady", job.dismiss)
    job.pivot().wait_result("pivoted")
    dismissed(qemu)
    job.dismiss()
    gone = s.wait_signal("InterfacesRemoved", ROOT)
    assert gone.args[0] == job.path and Job.INTERFACE in gone.args[1]
    refusal("NoSuchJob", s.job, job.id)
    assert s.jobs() == {}
    assert [row["id"] for row in s.manager.history()] == [job.id]
    s.restart()
    assert s.jobs() == {} and [row["id"] for row in s.manager.history()] == [job.id]


def test_a_concluded_job_is_the_same_after_a_restart(t):
    qemu, s, disk = one_disk(t)
    qemu("cont")
    disk.copy(t.path("a.qcow2"), delete_target=False).wait("ready").cancel().wait_result("cancelled")
    pivoted(disk.copy(t.path("b.qcow2"), speed=1 << 30, copy_mode="write-blocking"))
    lost = slow_copy(disk, t.path("c.qcow2"), on_ready="finish")
    qemu.kill()
    lost.wait_result("lost")
    before = s.jobs()
    s.restart()
    now = s.jobs()
    assert now == before, [(p, k, before[p][k], v) for p in now for k, v in now[p].items() if v != before[p][k]]


def test_history_tells_how_jobs_ended(t):
    qemu, s, disk = one_disk(t)
    disk.copy(t.path("a.qcow2")).wait("ready").cancel().wait_result("cancelled")
    disk.copy(t.path("b.qcow2")).wait("ready").finish().wait_result("finished")
    last = pivoted(disk.copy(t.path("c.qcow2")))
    running = slow_copy(disk, t.path("d.qcow2"))
    rows = s.manager.history()
    assert [(r["id"], r["result"], r["target"]) for r in rows] == [
        (3, "pivoted", t.path("c.qcow2")), (2, "finished", t.path("b.qcow2")), (1, "cancelled", t.path("a.qcow2"))]
    properties = last.properties()
    for key, name in (("domain", "DomainName"), ("disk", "Disk"), ("kind", "Kind"), ("created", "Created"),
                      ("finished", "Finished"), ("owner-uid", "OwnerUid"), ("error-name", "ErrorName"),
                      ("error-message", "ErrorMessage"), ("restarts", "Restarts")):
        assert rows[0][key] == properties[name], key

    def ids(**filter):
        return [r["id"] for r in s.manager.history(**filter)]
    assert ids(result="finished") == [2] and ids(limit=1) == [3] and ids(disk="vdb") == []
    assert ids(domain="web", kind="copy") == [3, 2, 1] and ids(domain="other") == []
    assert ids(since=rows[1]["finished"]) == [3, 2] and ids(until=rows[1]["finished"]) == [2, 1]
    refusal("InvalidArgs", s.manager.history, limit=0)
    refusal("InvalidArgs", s.manager.history, limit=10001)
    assert "colour" in refusal("InvalidArgs", s.manager.history, colour="red")
    running.cancel().wait_result("cancelled")
    assert ids() == [4, 3, 2, 1]


def test_finished_jobs_leave_the_bus_by_number_and_age(t):
    qemu, s, disk = one_disk(t, config="[Jobs]\nKeepFinishedJobs=2\nKeepFinishedTime=0\n")
    for n in range(4):
        disk.copy(t.path(f"{n}.qcow2")).wait("ready").cancel()
        wait_until(lambda: s.manager.NJobsActive == 0, what="no active job")
    wait_until(lambda: len(s.jobs()) == 2, what="two jobs on the bus")
    assert sorted(s.jobs()) == [f"{ROOT}/job/j3", f"{ROOT}/job/j4"]
    assert len(s.manager.history()) == 4
