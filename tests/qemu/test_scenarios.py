# SPDX-License-Identifier: LGPL-2.1-or-later
"""The scenarios that every block-job service must pass, as far as they are about copies.

Scenario 2 (finish under load) needs a guest that writes: test_moving_guest.py. (qemu-io through the monitor would hang
QEMU while it holds the disk's writes.)"""
import os
import sqlite3

from copying import *
from harness import *


def finished_signals(s, job):
    return [x.args[2] for x in s.signals("JobFinished") if x.args[0] == job.id]


def test_a_copy_is_ready_only_when_it_is_in_sync(t):
    """Scenario 1: pivot is refused until then, and the job goes on unharmed."""
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"))
    for method in job.pivot, job.finish:
        message = refusal("NotReady", method)
        assert "running" in message and "Wait" in message, message
    assert (job.State, job.ErrorName) == ("running", "") and not disk.MirrorReady
    job.set_speed(0)
    job.wait("ready")
    assert disk.MirrorReady and disk.MirrorTarget == t.path("new.qcow2") and disk.Job == job.path
    job.pivot().wait_result("pivoted")
    assert not disk.MirrorReady and disk.MirrorTarget == ""


def test_a_copy_that_is_cancelled_early_leaves_what_was_asked_for(t):
    """Scenario 3: and the next copy is taken at once, also to the same name."""
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"))
    wait_until(lambda: 0 < job.Done < job.Total, what="progress")
    job.cancel().wait_result("cancelled")
    assert not os.path.exists(t.path("new.qcow2"))
    assert (job.ErrorName, disk.Job) == ("", "/")
    job = slow_copy(disk, t.path("new.qcow2"))
    job.cancel(delete_target=False).wait_result("cancelled")
    assert any("not a whole copy" in sentence(w) for w in job.Warnings), job.Warnings
    pivoted(disk.copy(t.path("second.qcow2")))


def test_a_full_target_fails_with_qemus_words_when_asked_to(t):
    """Scenario 4: no node is left behind and the disk can be used and copied again."""
    place = small_place(t, "small", "4m")
    qemu, s, disk = one_disk(t, fill="16M")
    nodes = qemu.block_graph()[0]
    job = disk.copy(f"{place}/new.qcow2", force=True, on_target_error="report")
    job.wait_result("failed")
    assert job.ErrorName == f"{PREFIX}.Error.NoSpace" and "No space left on device" in sentence(job.ErrorMessage)
    assert qemu.block_graph()[0] == nodes and os.listdir(place) == []
    assert finished_signals(s, job) == ["failed"]
    assert s.wait_signal("JobFinished").args == (job.id, job.path, "failed", job.ErrorName)
    qemu.io("write -P 1 0 64k")
    pivoted(disk.copy(t.path("new.qcow2")))


def test_a_running_copy_goes_on_when_the_service_is_started_again(t):
    """Scenario 5: the same object, progress that does not fall back, and an end."""
    qemu, s, disk = one_disk(t, fill="8M")
    job = slow_copy(disk, t.path("new.qcow2"), speed=1 << 20)
    wait_until(lambda: job.Done > 2 << 20, what="progress")
    before = job.properties()
    s.restart()
    job.wait("running")
    wait_until(lambda: job.Done > 0, what="progress after the restart")
    now = job.properties()
    assert now["Done"] >= before["Done"] and now["Restarts"] == 1
    for name in "Id", "Kind", "Domain", "Disk", "Target", "OwnerUid", "Created", "CopyMode", "SpeedLimit", "OnReady":
        assert now[name] == before[name], name
    job.set_speed(0)
    job.wait("ready").finish().wait_result("finished")
    qemu.quit()
    image_compare(t.path("old.qcow2"), t.path("new.qcow2"))


def complete_by_hand(qemu, pivot):
    """What the service would do, done through another monitor."""
    job, = qemu.jobs()
    if pivot:
        qemu("job-complete", id=job)
    else:
        qemu("block-job-cancel", device=job, force=False)
    qemu.wait_event("BLOCK_JOB_PENDING")
    qemu("job-finalize", id=job)


def test_a_pivot_that_was_done_while_the_service_was_away_is_found_in_the_graph(t):
    """Scenario 6: with finishing work done once and one signal."""
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2"), delete_source=True).wait("ready")
    s.kill()
    complete_by_hand(qemu, True)
    s.start()
    job.wait_result("pivoted")
    assert disk.Source == t.path("new.qcow2") and finished_signals(s, job) == ["pivoted"]
    assert not os.path.exists(t.path("old.qcow2"))
    dismissed(qemu)
    s.restart()
    assert job.Result == "pivoted" and finished_signals(s, job) == ["pivoted"]


def test_a_copy_that_was_ended_by_somebody_else_while_the_service_was_away_is_no_success(t):
    """Scenario 6: the guest stands on its source, and nobody has decided that this is the end."""
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2"), delete_source=True).wait("ready")
    s.kill()
    complete_by_hand(qemu, False)
    s.start()
    job.wait_result("failed")
    assert disk.Source == t.path("old.qcow2") and os.path.exists(t.path("old.qcow2"))
    assert sentence(job.ErrorMessage) and finished_signals(s, job) == ["failed"]


def test_refusals_while_a_copy_runs_are_distinct_and_leave_it_alone(t):
    """Scenario 13."""
    images = [t.image("a.qcow2", fill="4M"), t.image("b.qcow2")]
    qemu, s, domain = attached(t, images)
    disk, other = domain.disk("vda"), domain.disk("vdb")
    job = slow_copy(disk, t.path("new.qcow2"))
    before = {k: v for k, v in job.properties().items() if k not in ("Done", "Total", "Rate", "ExpectedEnd")}
    # The target of the running copy grows.
    messages = {
        refusal("DiskBusy", disk.copy, t.path("c.qcow2")),
        refusal("TargetInUse", other.copy, t.path("new.qcow2")),
        refusal("TargetExists", other.copy, images[0]),
        refusal("SameImage", other.copy, images[1], existing=True, format="qcow2"),
        refusal("TargetInUse", other.copy, images[0], existing=True, format="qcow2"),
        refusal("TargetMissing", other.copy, t.path("none"), existing=True, format="raw"),
        refusal("BadTarget", other.copy, "new.qcow2"),
        refusal("InvalidArgs", other.copy, t.path("d.qcow2"), granularity=3),
        refusal("NotReady", job.pivot),
        refusal("NotReady", job.dismiss),
        refusal("DomainBusy", domain.detach),
    }
    assert len(messages) == 11, messages
    now = job.properties()
    assert {k: now[k] for k in before} == before
    job.set_speed(0)
    pivoted(job)


def test_three_clients_see_the_same_end(t):
    """Scenario 15: one that was there before, one that came in the middle, one that comes afterwards."""
    qemu, s, disk = one_disk(t)
    early = s.client(0)
    job = slow_copy(disk, t.path("new.qcow2"))
    middle = s.client(1000)
    mine = Job(middle, job.path)
    assert mine.State == "running"
    job.set_speed(0)
    pivoted(job)
    late = s.client(65534)

    def end(client):
        signals = [x for x in client.conn.signals if x.member == "PropertiesChanged" and x.path == job.path]
        told = {}
        for x in signals:
            told.update(x.args[1])
        return told["State"], told["Result"]
    for client in early, middle:
        client.conn.wait_signal("JobFinished", ROOT)
        assert end(client) == ("concluded", "pivoted")
        assert [x.args[2] for x in client.conn.signals if x.member == "JobFinished"] == ["pivoted"]
    seen = [Job(c, job.path).properties() for c in (s, early, middle, late)]
    assert seen[0]["Result"] == "pivoted" and all(x == seen[0] for x in seen)
    assert late.manager.history()[0]["result"] == "pivoted"


def test_a_foreign_job_is_shown_and_not_touched(t):
    """Scenario 16."""
    qemu = t.qemu(drives=[t.image("old.qcow2", fill="4M"), t.image("other.qcow2")])
    t.image("theirs.qcow2")
    qemu("blockdev-add", driver="qcow2", node_name="theirs",
         file={"driver": "file", "filename": t.path("theirs.qcow2")})
    qemu("blockdev-mirror", job_id="theirs", device="libvirt-1-format", target="theirs", sync="full", speed=1,
         buf_size=1 << 20)
    s = t.service()
    domain = s.attach("web", qemu.socket)
    disk = domain.disk("vda")
    job = Job(s, wait_until(lambda: disk.Job != "/" and disk.Job, what="the foreign job"))
    assert (job.Kind, job.State, job.Disk) == ("foreign", "running", "vda")
    assert "busy" in refusal("DiskBusy", disk.copy, t.path("new.qcow2"))
    for method in job.pivot, job.finish, job.cancel, job.pause, job.resume:
        assert "somebody else" in refusal("NotSupported", method)
    refusal("NotSupported", job.set_speed, 5)
    assert qemu("query-block-jobs")[0]["speed"] == 1
    # Other disks are free, and a restart changes nothing.
    pivoted(domain.disk("vdb").copy(t.path("new.qcow2")))
    s.restart()
    back(s, disk)
    job = Job(s, wait_until(lambda: disk.Job != "/" and disk.Job, what="the foreign job"))
    assert job.Kind == "foreign"
    qemu("block-job-set-speed", device="theirs", speed=0)
    job.wait("ready")
    assert [j["status"] for j in qemu.jobs().values()] == ["ready"]
    qemu("job-complete", id="theirs")
    job.wait_result("finished")
    wait_until(lambda: disk.Source == t.path("theirs.qcow2"), what="the disk on its new image")


def test_a_damaged_record_is_said_and_the_guest_is_not_touched(t):
    """Scenario 17: QEMU still runs the job, so it is carried on; nothing is done to it without an order."""
    qemu, s, disk = one_disk(t)
    slow_copy(disk, t.path("new.qcow2"))
    s.kill()
    db = sqlite3.connect(f"{s.state_dir}/journal.db")
    # Bits that flip do not know of the CRC.
    assert db.execute("update job set target = ?", (t.path("old.qcow2"),)).rowcount == 1
    db.commit()
    db.close()
    jobs = qemu.jobs()
    s.start()
    assert s.manager.JournalState == "recovered"
    assert "The row of job 1 is set aside" in s.log()
    back(s, disk)
    wait_until(lambda: disk.Job != "/", what="the job that QEMU runs")
    job = Job(s, disk.Job)
    assert (job.Kind, job.id, job.State) == ("copy", 1, "running") and qemu.jobs().keys() == jobs.keys()
    assert "The journal has lost this job" in job.Warnings[0], job.Warnings
    qemu.io("write -P 1 0 64k")
    assert disk.Source == t.path("old.qcow2") and os.path.exists(t.path("new.qcow2"))
    # The record was forged, QEMU knows the target: nothing is deleted for a job that the journal has lost.
    assert job.Target == t.path("new.qcow2")
    job.cancel().wait_result("cancelled")
    assert os.path.exists(t.path("old.qcow2")) and os.path.exists(t.path("new.qcow2"))


def test_a_guest_that_ends_in_the_middle_leaves_a_lost_job(t):
    """Scenario 18: and says what the target is worth."""
    for end in "quit", "kill":
        name = end
        qemu = t.qemu(name, [t.image(f"{name}-old.qcow2", fill="4M")])
        s = t.services[0] if t.services else t.service()
        domain = s.attach(name, qemu.socket)
        job = slow_copy(domain.disk("vda"), t.path(f"{name}-new.qcow2"))
        getattr(qemu, end)()
        job.wait_result("lost")
        assert job.ErrorName == f"{PREFIX}.Error.DomainNotRunning"
        assert "not a whole copy" in sentence(job.ErrorMessage)
        assert not os.path.exists(t.path(f"{name}-new.qcow2"))
        image_check(t.path(f"{name}-old.qcow2"))
        assert domain.State == "disconnected" and domain.Jobs == []


def test_a_lost_job_leaves_its_target_when_asked_to(t):
    """Scenario 18, with delete-target=no; and a ready copy is no better than a running one."""
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2"), delete_target=False).wait("ready")
    qemu.kill()
    job.wait_result("lost")
    assert os.path.exists(t.path("new.qcow2"))


def test_a_target_that_qemu_refuses_leaves_no_half_state(t):
    """Scenario 20: QEMU may not lock it, because somebody took it after it was looked at."""
    qemu, s, disk = one_disk(t)
    path = t.image("new.qcow2")
    nothing = Untouched(t, s, qemu)
    qemu.freeze()
    job = disk.copy(path, existing=True, format="qcow2")
    other = t.qemu("other", [path])
    qemu.thaw()
    job.wait_result("failed")
    assert job.ErrorName == f"{PREFIX}.Error.Qemu" and "lock" in sentence(job.ErrorMessage), job.ErrorMessage
    assert qemu.block_graph()[0] == set(nothing.before["QEMU"]["web"][0])
    dismissed(qemu)
    other.quit()
    pivoted(disk.copy(path, existing=True, format="qcow2"))


def test_a_qemu_of_another_user_can_write_where_that_user_may_not(t):
    """Scenario 20: it gets descriptors, never paths."""
    path = t.image("old.qcow2", fill="4M")
    folder = t.path("secret")
    os.mkdir(folder, 0o700)
    os.chown(path, 1000, 1000)
    os.makedirs(t.path("web"))
    os.chown(t.path("web"), 1000, 1000)
    qemu, s, domain = attached(t, [path], uid=1000)
    pivoted(domain.disk("vda").copy(f"{folder}/new.qcow2"))
    qemu.io("write -P 1 0 64k")
    assert os.stat(f"{folder}/new.qcow2").st_uid == 1000


def test_disks_of_odd_sizes(t):
    """Scenario 24: nothing at all, one sector, no multiple of the cluster, no multiple of the sector."""
    sizes = [0, 512, (1 << 20) + 512, (2 << 20) + 100]
    drives = []
    for size in sizes:
        path = t.path(f"{size}.raw")
        with open(path, "wb") as f:
            f.write(os.urandom(size))
        drives.append(Drive(path, "raw"))
    qemu, s, domain = attached(t, drives)
    for size, disk in zip(sizes, domain.disks()):
        assert disk.Size == (size + 511) // 512 * 512
        for format in "raw", "qcow2":
            disk.copy(t.path(f"{size}.{format}.copy"), format=format, on_ready="finish").wait_result("finished")
            assert image_info(t.path(f"{size}.{format}.copy"))["virtual-size"] == disk.Size
        disk.copy(t.path(f"{size}.new"), on_ready="pivot").wait_result("pivoted")
        assert disk.Source == t.path(f"{size}.new")
    qemu.quit()
    for size in sizes:
        source = t.path(f"{size}.raw")
        image_compare(source, t.path(f"{size}.raw.copy"), formats=("raw", "raw"))
        image_compare(source, t.path(f"{size}.qcow2.copy"), formats=("raw", "qcow2"))
        image_compare(source, t.path(f"{size}.new"), formats=("raw", "qcow2"))


def test_speed_in_bytes_holds_the_copy_to_it(t):
    """Scenario 26: the rate that is published is what was asked for, in bytes a second."""
    qemu, s, disk = one_disk(t, fill="16M")
    job = disk.copy(t.path("new.qcow2"), speed=2 << 20, buf_size=1 << 20).wait("running")
    wait_until(lambda: 3 << 19 < job.Rate < 5 << 19, what=lambda: f"a rate near 2 MiB a second (it is {job.Rate})")
    assert job.State == "running"
    job.set_speed(0)
    job.wait("ready")


def test_a_target_that_was_deleted_is_not_pivoted_to(t):
    """Scenario 27: QEMU would go onto the deleted file without a word."""
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    os.unlink(t.path("new.qcow2"))
    assert "not there any more" in refusal("BadTarget", job.pivot)
    assert job.State == "ready" and disk.Source == t.path("old.qcow2")
    # Another file under the same name is not it either.
    t.image("new.qcow2")
    assert "another" in refusal("BadTarget", job.pivot).lower()
    assert refusal("BadTarget", job.finish)
    job.cancel().wait_result("cancelled")
    assert os.path.exists(t.path("new.qcow2")), "the file of somebody else was deleted"
    qemu.io("write -P 1 0 64k")


def test_a_promised_pivot_is_not_kept_onto_a_deleted_target(t):
    """Scenario 27, with nobody there to be refused."""
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"), on_ready="pivot")
    os.unlink(t.path("new.qcow2"))
    job.set_speed(0)
    wait_until(lambda: job.ErrorName, what="the error")
    assert (job.State, job.OnReady, job.ErrorName) == ("ready", "wait", f"{PREFIX}.Error.BadTarget")
    assert sentence(job.ErrorMessage) and disk.Source == t.path("old.qcow2")


def test_two_copies_to_one_target_are_one(t):
    """Scenario 28: by name while the first is being made, by lock and identity however the second names it."""
    qemu, s, domain = attached(t, [t.image("a.qcow2", fill="4M"), t.image("b.qcow2", fill="4M")])
    fds = []
    calls = [s.conn.call_async(d.path, Disk.INTERFACE, "Copy", "(sa{sv})", (t.path("new.qcow2"), options({}, fds)))
             for d in domain.disks()]
    calls[0].result()
    refusal("TargetInUse", calls[1].result)
    job = s.job(1).wait("ready")
    os.link(t.path("new.qcow2"), t.path("alias.qcow2"))
    refusal("TargetInUse", domain.disk("vdb").copy, t.path("alias.qcow2"), existing=True, format="qcow2")
    with open(t.path("new.qcow2"), "r+b") as f:
        refusal("TargetInUse", domain.disk("vdb").copy, "it", fd=f, format="qcow2")
    pivoted(job)
    # It is an image of the domain now.
    refusal("TargetInUse", domain.disk("vdb").copy, t.path("new.qcow2"), existing=True, format="qcow2")


def test_a_disk_that_is_resized_while_it_is_copied_is_not_copied_wrongly(t):
    """Scenario 30: QEMU refuses, and the job goes on."""
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    try:
        qemu("block_resize", node_name="libvirt-1-format", size=128 << 20)
        raise AssertionError("QEMU resizes a disk that is being copied")
    except QmpError as e:
        assert "busy" in e.desc or "in use" in e.desc or "permission" in e.desc.lower(), e
    job.pivot().wait_result("pivoted")
    qemu("block_resize", node_name=qemu.image()["node-name"], size=128 << 20)
    wait_until(lambda: disk.Size == 128 << 20, what="the new size")
    pivoted(disk.copy(t.path("larger.qcow2")))
    assert image_info(t.path("larger.qcow2"))["virtual-size"] == 128 << 20
