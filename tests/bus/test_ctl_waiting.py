# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockjobctl that waits: Ctrl-C, a service that is killed meanwhile, several jobs, watch."""
import json
import signal

from harness import *
from scenes import *
from test_ctl import start


def waiting(process, text="running"):
    process.wait_log(text)
    return process


def test_ctrl_c_detaches_and_the_job_goes_on(t):
    s, _qemu, domain = small(t)
    for number, signum in enumerate((signal.SIGINT, signal.SIGTERM), 1):
        process = waiting(start(t, "copy", "web", "vda", t.path(f"copies/x{number}"), "--speed=1"))
        process.signal(signum)
        assert process.wait() == 130, process.log()
        assert f"job {number} goes on; blockjobctl wait {number} / cancel {number}" in process.log(), process.log()
        job = s.job(number)
        assert job.State == "running"
        job.cancel().wait_result("cancelled")
    job = slow_job(t, domain.disk())
    process = waiting(start(t, "wait", "3"))
    process.signal(signal.SIGINT)
    assert process.wait() == 130 and job.State == "running"
    job.cancel().wait_result("cancelled")


def test_ctrl_c_during_a_pivot_does_not_take_it_back(t):
    s, qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/x")).wait("ready")
    qemu.freeze()
    process = start(t, "pivot", "1")
    wait_until(lambda: job.State == "pivoting")
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    qemu.thaw()
    job.wait_result("pivoted")
    assert s.jobs()[job.path]["Result"] == "pivoted"


def test_waiting_survives_a_kill_of_the_service(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    process = waiting(start(t, "wait", "1"))
    for n in 1, 2:
        s.kill()
        wait_until(lambda: process.log().count("the service has stopped") == n)
        s.start()
        wait_until(lambda: process.log().count("service restarted, job goes on") == n)
    assert process.alive
    domain.wait_state("paused")
    s.job(1).set_speed(0)
    s.job(1).set_on_ready("pivot")
    assert process.wait() == 0 and "has pivoted" in process.log(), process.log()
    assert job.Restarts >= 1


def test_move_survives_a_kill_of_the_service(t):
    s, _qemu, domain = small(t)
    process = waiting(start(t, "move", "web", "vda", t.path("copies/x"), "--speed=64K"))
    s.kill()
    s.start()
    domain.wait_state("paused")
    s.job(1).set_speed(0)
    assert process.wait() == 0 and "has pivoted" in process.log(), process.log()
    assert domain.disk().Source == t.path("copies/x")


def test_job_that_ends_while_the_service_is_down_is_told(t):
    s, qemu, domain = small(t)
    slow_job(t, domain.disk())
    process = waiting(start(t, "wait", "1"))
    s.kill()
    qemu.kill()
    s.start()
    assert process.wait() == 1 and "lost" in process.log(), process.log()


def test_order_that_the_service_dies_over_is_given_again(t):
    """The service is killed while the order waits for it: blockjobctl asks the next one."""
    s, _qemu, domain = small(t)
    domain.disk().copy(t.path("copies/x")).wait("ready")
    process = start(t, "pivot", "1")
    t.bus.monitor.wait_log("member=GetAll")
    s.process.freeze()
    s.kill()
    s.start()
    assert process.wait() == 0 and "has pivoted" in process.log(), process.log()
    assert domain.disk().Source == t.path("copies/x")


def test_copy_that_the_service_dies_over_is_one_copy(t):
    s, _qemu, domain = small(t)
    process = start(t, "copy", "web", "vda", t.path("copies/x"), "--speed=1")
    wait_until(lambda: "member=Copy" in t.bus.monitor.log(), interval=0.001)
    s.kill()
    s.start()
    process.wait_log("job 1 (web/vda): running")
    assert len(s.jobs()) == 1
    domain.wait_state("paused")
    s.job(1).wait("running").set_speed(0)
    assert process.wait() == 0, process.log()
    assert list(s.jobs()) == [f"{ROOT}/job/j1"]


def test_several_jobs_are_waited_for_together(t):
    s, _qemu, domain = small(t, disks=3)
    jobs = [slow_job(t, domain.disk(f"vd{c}"), c) for c in "abc"]
    process = waiting(start(t, "wait", "1", "2", "3"))
    jobs[0].cancel()
    jobs[1].set_on_ready("finish")
    jobs[1].set_speed(0)
    wait_until(lambda: jobs[1].State == "concluded")
    assert process.alive
    jobs[2].set_on_ready("pivot")
    jobs[2].set_speed(0)
    assert process.wait() == 3, process.log()
    for text in "was cancelled", "has finished", "has pivoted":
        assert text in process.log(), process.log()
    assert s.manager.NJobsActive == 0


def test_pivot_of_several_jobs_ends_all_of_them(t):
    _s, _qemu, domain = small(t, disks=2)
    for c in "ab":
        domain.disk(f"vd{c}").copy(t.path(f"copies/{c}")).wait("ready")
    result = t.ctl("pivot", "1", "2").ok()
    assert result.stdout.count("has pivoted") == 2
    assert [d.Source for d in domain.disks()] == [t.path("copies/a"), t.path("copies/b")]


def test_job_that_is_ready_and_waits_is_explained(t):
    _s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/x")).wait("ready")
    process = start(t, "wait", "1")
    process.wait_log("blockjobctl pivot, finish or cancel 1")
    job.finish()
    assert process.wait() == 0


def test_watch_tells_each_event_and_goes_on_after_a_restart(t):
    s, _qemu, domain = small(t, disks=2)
    process = start(t, "watch", "--json=short")
    # It listens before it reads.
    t.bus.monitor.wait_log("member=GetManagedObjects")
    job = domain.disk().copy(t.path("copies/x"))
    process.wait_log('"new"')
    job.wait("ready")
    process.wait_log('"State":"ready"')
    s.restart()
    process.wait_log("service-started")
    domain.wait_state("paused")
    job.finish().wait_result("finished")
    process.wait_log('"concluded"')
    second = domain.disk("vdb").copy(t.path("copies/y")).wait("ready")
    process.wait_log('"Id":2')
    second.cancel().wait_result("cancelled")
    process.signal(signal.SIGINT)
    assert process.wait() == 0, process.log()
    events = [json.loads(line) for line in process.log().splitlines()]
    kinds = [e["event"] for e in events]
    assert kinds.index("new") < kinds.index("service-stopped") < kinds.index("service-started")
    first = [e["event"] for e in events if e.get("job", {}).get("Id") == 1]
    assert first.count("new") == 1 and first.count("concluded") == 1, first
