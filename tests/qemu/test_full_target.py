# SPDX-License-Identifier: LGPL-2.1-or-later
"""Errors while copying: a target that is full or gone, a source that cannot be read, and what can be done then."""
import json
import os

from copying import *
from harness import *


def full(t, **o):
    """(QEMU, service, disk, job, place): 16 MiB are copied to where there is room for 6."""
    place = small_place(t, "small", "16m")
    with open(f"{place}/ballast", "wb") as f:
        f.write(bytes(10 << 20))
    qemu, s, disk = one_disk(t, fill="16M")
    job = disk.copy(f"{place}/new.qcow2", force=True, **o)
    wait_until(lambda: job.State == "running" and job.IoStatus != "ok", what="the full target")
    return qemu, s, disk, job, place


def make_room(place):
    os.truncate(f"{place}/ballast", 0)
    run(["mount", "-o", "remount,size=64m", place]).ok()


def test_a_full_target_holds_the_copy_until_there_is_room(t):
    qemu, s, disk, job, place = full(t)
    assert (job.State, job.IoStatus) == ("running", "no-space"), job.properties()
    assert job.ErrorName == f"{PREFIX}.Error.NoSpace" and f"{place}/new.qcow2" in sentence(job.ErrorMessage)
    changed = s.wait_signal("PropertiesChanged", job.path, lambda x: x.args[1].get("IoStatus") == "no-space")
    assert changed.args[1]["ErrorName"] == job.ErrorName
    # The guest does not notice.
    qemu.io("write -P 1 32M 64k")
    refusal("NotReady", job.pivot)
    # Nothing is won by going on too early.
    job.resume()
    wait_until(lambda: job.IoStatus == "no-space", what="the full target again")
    make_room(place)
    job.resume()
    job.wait("ready")
    assert (job.IoStatus, job.ErrorName, job.ErrorMessage) == ("ok", "", "")
    pivoted(job)
    qemu.quit()
    image_compare(t.path("old.qcow2"), f"{place}/new.qcow2")


def test_a_full_target_can_be_given_up(t):
    qemu, s, disk, job, place = full(t)
    job.cancel().wait_result("cancelled")
    assert os.listdir(place) == ["ballast"]
    assert disk.Source == t.path("old.qcow2")
    pivoted(disk.copy(t.path("new.qcow2")))


def test_a_full_target_keeps_a_promise(t):
    """The pivot that was promised comes when there is room, also over a restart."""
    qemu, s, disk, job, place = full(t, on_ready="pivot")
    s.restart()
    wait_until(lambda: back(s, disk) and job.State == "running" and job.IoStatus == "no-space", what="the full target")
    make_room(place)
    job.resume()
    job.wait_result("pivoted")
    assert job.Restarts == 1


def test_speed_can_be_set_while_a_full_target_holds_the_copy(t):
    qemu, s, disk, job, place = full(t)
    job.set_speed(5 << 20)
    assert job.SpeedLimit == qemu("query-block-jobs")[0]["speed"] == 5 << 20
    assert job.IoStatus == "no-space"


def test_a_target_that_becomes_full_when_the_copy_is_ready(t):
    """The guest writes on, the copy falls behind, and a pivot waits for room."""
    place = small_place(t, "small", "8m")
    qemu, s, disk = one_disk(t)
    job = disk.copy(f"{place}/new.qcow2", force=True).wait("ready")
    qemu.io("write -P 1 32M 16M")
    wait_until(lambda: job.IoStatus == "no-space", what="the full target")
    assert job.State == "ready" and "paused" in refusal("NotReady", job.pivot)
    run(["mount", "-o", "remount,size=64m", place]).ok()
    job.resume()
    wait_until(lambda: job.IoStatus == "ok", what="the copy to go on")
    pivoted(job)
    qemu.io("read -P 1 32M 16M")


def broken(t, once, **o):
    """(QEMU, disk, job) of a source whose second MiB cannot be read."""
    path = t.image("old.raw", "8M", "raw", fill="8M")
    errors = [{"event": "read_aio", "errno": 5, "once": once, "sector": (1 << 20) // 512}]
    args = ["-blockdev", "driver=file,node-name=bottom,filename=" + path,
            "-blockdev", blkdebug(errors), "-blockdev", "driver=raw,node-name=disk,file=ill",
            "-device", "virtio-blk-pci,drive=disk,id=vd"]
    qemu, s, domain = attached(t, [], args=args)
    disk = domain.disk("vda")
    assert disk.Source == path, disk.Source
    return qemu, disk, disk.copy(t.path("new.qcow2"), **o)


def blkdebug(errors):
    return json.dumps({"driver": "blkdebug", "node-name": "ill", "image": "bottom", "inject-error": errors})


def test_a_source_that_cannot_be_read_holds_the_copy(t):
    """The error goes away with the second try, as with a cable that was loose."""
    qemu, disk, job = broken(t, once=True)
    wait_until(lambda: job.IoStatus == "failed", what="the error")
    assert (job.State, job.ErrorName) == ("running", f"{PREFIX}.Error.Qemu")
    assert "I/O error" in sentence(job.ErrorMessage), job.ErrorMessage
    job.resume()
    job.wait("ready")
    assert (job.IoStatus, job.ErrorName) == ("ok", "")
    pivoted(job)


def test_a_source_that_cannot_be_read_ends_the_copy_when_asked_to(t):
    qemu, disk, job = broken(t, once=False, on_source_error="report")
    job.wait_result("failed")
    assert job.ErrorName == f"{PREFIX}.Error.Qemu" and "Input/output error" in sentence(job.ErrorMessage)
    assert not os.path.exists(t.path("new.qcow2")) and disk.Source == t.path("old.raw")


def test_enospc_policy_reports_other_errors(t):
    qemu, disk, job = broken(t, once=False, on_source_error="enospc")
    job.wait_result("failed")


def test_enospc_policy_holds_a_full_target(t):
    qemu, s, disk, job, place = full(t, on_target_error="enospc")
    assert (job.State, job.IoStatus) == ("running", "no-space"), job.properties()


def test_a_target_whose_place_disappears_is_not_pivoted_to(t):
    """Its file system is unmounted under it; QEMU still writes into it without a word."""
    place = small_place(t, "place", "64m")
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, f"{place}/new.qcow2", on_ready="pivot")
    run(["umount", "-l", place]).ok()
    job.set_speed(0)
    wait_until(lambda: job.ErrorName, what="the error")
    assert (job.State, job.OnReady, job.ErrorName) == ("ready", "wait", f"{PREFIX}.Error.BadTarget"), job.properties()
    assert "not there any more" in refusal("BadTarget", job.pivot)
    assert refusal("BadTarget", job.finish)
    assert disk.Source == t.path("old.qcow2")
    job.cancel().wait_result("cancelled")
    assert os.listdir(place) == []
    qemu.io("write -P 1 0 64k")
    pivoted(disk.copy(t.path("other.qcow2")))
