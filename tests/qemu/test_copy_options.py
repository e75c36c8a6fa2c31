# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every option of Copy has the effect that the interface promises: in what QEMU is told, and in what comes of it."""
import os
import re

from copying import *
from harness import *


def traced_disk(t, **more):
    """(QEMU, disk); told() knows what this QEMU was told."""
    qemu, s, disk = one_disk(t, args=TRACE, **more)
    return qemu, disk


def node(qemu, end):
    """query-named-block-nodes of the only node of ours with that end: f file, t image."""
    found = [n for n in qemu("query-named-block-nodes", flat=True)
             if n["node-name"].startswith("bj-") and n["node-name"].endswith(f"-{end}")]
    assert len(found) == 1, found
    return found[0]


def added(qemu):
    """The image that was added last, its protocol node in it."""
    return told(qemu, "blockdev-add")[-1]


def mirrored(qemu):
    found = told(qemu, "blockdev-mirror")
    assert len(found) == 1, found
    return found[0]


# ---- the image ----

def test_cluster_size(t):
    qemu, disk = traced_disk(t)
    pivoted(disk.copy(t.path("a.qcow2"), cluster_size=16384))
    assert image_info(t.path("a.qcow2"))["cluster-size"] == 16384
    pivoted(disk.copy(t.path("b.qcow2")))
    assert image_info(t.path("b.qcow2"))["cluster-size"] == 65536


def test_new_image_is_that_of_qemu_img(t):
    """Whoever writes it, us or (too many clusters for one block of reference counts) QEMU."""
    size = (1 << 30) + 512
    base = t.image("base.raw", "1G", "raw")
    overlay = t.path("old.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay, str(size)]).ok()
    _qemu, _s, domain = attached(t, [overlay])
    for cluster_size, more in (None, {}), (512, {}), (8192, {}), (2 << 20, {}), (65536, {"sync": "top"}):
        ours, theirs = t.path(f"{cluster_size}.qcow2"), t.path(f"{cluster_size}-theirs.qcow2")
        o = {"cluster_size": cluster_size} if cluster_size else {}
        domain.disk().copy(ours, **{"sync": "none", **o, **more}).wait("ready").finish().wait_result("finished")
        run(["qemu-img", "create", "-q", "-f", "qcow2", *(["-o", f"cluster_size={cluster_size}"] if cluster_size else []),
             *(["-b", base, "-F", "raw"] if more else []), theirs, str(size)]).ok()
        a, b = (image_info(path) for path in (ours, theirs))
        for info in a, b:
            del info["filename"], info["actual-size"]
        assert a == b
        run(["qemu-img", "check", "-f", "qcow2", ours]).ok()


def test_preallocation_of_qcow2(t):
    qemu, disk = traced_disk(t)
    sizes = {}
    for word in "off", "metadata", "falloc", "full":
        path = t.path(f"{word}.qcow2")
        disk.copy(path, preallocation=word, sync="none").wait("ready").finish().wait_result("finished")
        sizes[word] = allocated(path)
    assert [a["options"].get("preallocation") for a in told(qemu, "blockdev-create")] == list(sizes)[1:], \
        "QEMU makes what takes more than a header"
    assert sizes["off"] < 1 << 20 and sizes["metadata"] < 4 << 20, sizes
    assert sizes["falloc"] >= 64 << 20 and sizes["full"] >= 64 << 20, sizes
    assert os.path.getsize(t.path("metadata.qcow2")) >= 64 << 20 > os.path.getsize(t.path("off.qcow2"))


def test_preallocation_of_raw(t):
    qemu, disk = traced_disk(t)
    for word in "off", "falloc":
        disk.copy(t.path(word), format="raw", preallocation=word, sync="none").wait("ready").finish() \
            .wait_result("finished")
    assert allocated(t.path("off")) < 1 << 20
    assert allocated(t.path("falloc")) >= 64 << 20


def test_raw_without_preallocation_stays_sparse(t):
    qemu, disk = traced_disk(t)
    pivoted(disk.copy(t.path("new.raw"), format="raw"))
    assert 4 << 20 <= allocated(t.path("new.raw")) < 5 << 20
    assert os.path.getsize(t.path("new.raw")) == 64 << 20


# ---- zeroes ----

def test_zeroes_that_are_written_as_data_become_holes(t):
    path = t.image("old.qcow2")
    image_fill(path, "qcow2", 0, "16M", 0)
    image_fill(path, "qcow2", "16M", "4M", 1)
    assert allocated(path) >= 20 << 20
    qemu, s, domain = attached(t, [path])
    disk = domain.disk("vda")
    sizes = {}
    for word, more in (("unmap", {}), ("on", {"detect_zeroes": "on"}), ("off", {"detect_zeroes": "off"})):
        job = disk.copy(t.path(word), format="raw", **more)
        job.wait("ready")
        assert node(qemu, "t")["detect_zeroes"] == word
        job.finish().wait_result("finished")
        sizes[word] = allocated(t.path(word))
    assert sizes["unmap"] < 6 << 20, sizes
    assert sizes["off"] >= 20 << 20, sizes
    qemu.quit()
    for word in sizes:
        image_compare(path, t.path(word), formats=("qcow2", "raw"))


def test_discard_of_the_guest_reaches_the_target_or_not(t):
    for word in "unmap", "ignore":
        t.image(f"{word}-old.qcow2", fill="8M")
    qemu, s, domain = attached(t, [t.path("unmap-old.qcow2"), t.path("ignore-old.qcow2")], args=TRACE)
    for name, word in ("vda", "unmap"), ("vdb", "ignore"):
        pivoted(domain.disk(name).copy(t.path(word), format="raw", discard=word))
    qemu.io("discard 0 8M", 0)
    qemu.io("discard 0 8M", 1)
    assert allocated(t.path("unmap")) < 1 << 20
    assert allocated(t.path("ignore")) >= 8 << 20
    # detect-zeroes follows: QEMU refuses "unmap" with discard "ignore".
    assert [(a["discard"], a["detect-zeroes"]) for a in told(qemu, "blockdev-add")] == [("unmap", "unmap"), ("ignore", "on")]


# ---- how it is copied ----

def test_copy_mode(t):
    qemu, disk = traced_disk(t)
    job = disk.copy(t.path("a.qcow2"), copy_mode="write-blocking")
    job.wait("ready")
    assert job.CopyMode == "write-blocking" and mirrored(qemu)["copy-mode"] == "write-blocking"
    # A write is on the target when the guest has its answer, before any further copying.
    qemu.io("write -P 1 40M 64k")
    job.pivot().wait_result("pivoted")
    job = disk.copy(t.path("b.qcow2"))
    assert job.CopyMode == "background" and job.wait("ready")
    assert told(qemu, "blockdev-mirror")[1]["copy-mode"] == "background"


def test_speed(t):
    qemu, disk = traced_disk(t)
    job = disk.copy(t.path("new.qcow2"), speed=1_000_001, buf_size=1 << 20).wait("running")
    assert qemu("query-block-jobs")[0]["speed"] == job.SpeedLimit == 1_000_001


def test_granularity(t):
    qemu, disk = traced_disk(t)
    for size in 4096, 0:
        job = disk.copy(t.path(f"{size}.qcow2"), granularity=size)
        job.wait("ready")
        bitmaps = [b for n in qemu("query-named-block-nodes", flat=True) for b in n.get("dirty-bitmaps", [])]
        assert [b["granularity"] for b in bitmaps] == [size or 65536], bitmaps
        job.cancel().wait_result("cancelled")


def test_buffer_size(t):
    qemu, disk = traced_disk(t)
    for size in 2 << 20, 0:
        disk.copy(t.path("new.qcow2"), buf_size=size).wait("ready").cancel().wait_result("cancelled")
    assert [m["buf-size"] for m in told(qemu, "blockdev-mirror")] == [2 << 20, 64 << 20]


def test_cache_and_aio_of_a_target_that_can_do_without_the_page_cache(t):
    qemu, disk = traced_disk(t)
    for more, direct, aio in (({}, True, "native"), ({"cache": "direct", "aio": "threads"}, True, "threads"),
                              ({"cache": "writeback"}, False, "threads")):
        job = disk.copy(t.path("new.qcow2"), **more)
        job.wait("ready")
        assert node(qemu, "f")["cache"]["direct"] == node(qemu, "t")["cache"]["direct"] == direct
        assert not node(qemu, "f")["cache"]["no-flush"]
        assert (opened_directly(qemu, t.path("new.qcow2")), added(qemu)["file"]["aio"]) == (direct, aio)
        job.cancel().wait_result("cancelled")


def opened_directly(qemu, path):
    """Has QEMU the file open with O_DIRECT for writing?"""
    flags, identity = [], os.stat(path).st_ino
    for fd in os.listdir(f"/proc/{qemu.pid}/fd"):
        if os.stat(f"/proc/{qemu.pid}/fd/{fd}").st_ino == identity:
            with open(f"/proc/{qemu.pid}/fdinfo/{fd}") as f:
                flags.append(int(f.read().split("flags:")[1].split()[0], 8))
    assert flags, f"{path} is not open"
    return any(f & os.O_DIRECT and f & os.O_RDWR for f in flags)


def test_where_the_page_cache_is_needed_it_is_used_and_said(t):
    private_mounts()
    place = t.path("ram")
    os.makedirs(place)
    # It cannot do O_DIRECT and does not know its size.
    run(["mount", "-t", "ramfs", "ramfs", place]).ok()
    qemu, disk = traced_disk(t)
    job = disk.copy(f"{place}/a.qcow2", force=True)
    job.wait("ready")
    assert not node(qemu, "f")["cache"]["direct"] and job.Warnings == []
    job.cancel().wait_result("cancelled")
    job = disk.copy(f"{place}/b.qcow2", force=True, cache="direct")
    job.wait("ready")
    assert len(job.Warnings) == 1 and "O_DIRECT" in sentence(job.Warnings[0])


def test_error_policies(t):
    qemu, disk = traced_disk(t)
    for source, target in (("report", "enospc"), ("enospc", "report")):
        disk.copy(t.path("new.qcow2"), on_source_error=source, on_target_error=target) \
            .wait("ready").cancel().wait_result("cancelled")
    disk.copy(t.path("new.qcow2")).wait("ready")
    assert [(m["on-source-error"], m["on-target-error"]) for m in told(qemu, "blockdev-mirror")] == [
        ("report", "enospc"), ("enospc", "report"), ("stop", "stop")]


def test_what_every_copy_tells_qemu(t):
    """Nothing is left to QEMU's own defaults that would take the decision out of our hands."""
    qemu, disk = traced_disk(t)
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    m = mirrored(qemu)
    assert m["auto-finalize"] is False and m["auto-dismiss"] is False and m["sync"] == "full"
    assert m["job-id"].endswith(f"-{job.id}") and m["filter-node-name"].startswith(m["job-id"])
    assert all(len(n) <= 31 for n in (m["job-id"], m["filter-node-name"], m["target"]))
    image = added(qemu)
    assert image["driver"] == "qcow2" and image["backing"] is None
    assert image["file"]["filename"].startswith("/dev/fdset/")
    # No string of the caller has reached QEMU, but as a note that it keeps and never reads: what the set's files are.
    for line in qemu.process.log().splitlines():
        assert "new.qcow2" not in re.sub(r'"opaque": "[^"]*"', "", line), line


# ---- the switch ----

def running_guest(t):
    """A QEMU whose processors run (they find nothing to boot)."""
    qemu, disk = traced_disk(t, fill="1M")
    qemu("cont")
    return qemu, disk


def test_the_guest_stands_for_a_moment_while_it_is_switched(t):
    qemu, disk = running_guest(t)
    job = pivoted(disk.copy(t.path("a.qcow2")))
    assert len(told(qemu, "stop")) == 1 and len(told(qemu, "cont")) == 2
    assert 0 < job.GuestPaused < 5_000_000 and qemu("query-status")["running"]


def test_pause_guest_no_leaves_it_running(t):
    qemu, disk = running_guest(t)
    job = pivoted(disk.copy(t.path("a.qcow2"), pause_guest=False))
    assert told(qemu, "stop") == [] and job.GuestPaused < 5_000_000  # for so long its writes waited
    # What is said with the order is the last word.
    job = disk.copy(t.path("b.qcow2"), pause_guest=False).wait("ready").pivot(pause_guest=True)
    job.wait_result("pivoted")
    assert len(told(qemu, "stop")) == 1 and job.GuestPaused > 0
    job = disk.copy(t.path("c.qcow2")).wait("ready").finish(pause_guest=False).wait_result("finished")
    assert len(told(qemu, "stop")) == 1
    assert qemu("query-status")["running"]


def test_a_guest_that_stands_is_not_let_go_on(t):
    """Somebody has stopped it, and that is none of our business."""
    qemu, disk = traced_disk(t)
    pivoted(disk.copy(t.path("a.qcow2")))
    assert told(qemu, "stop") == told(qemu, "cont") == []
    assert qemu("query-status")["status"] == "prelaunch"


def test_max_pause_holds_the_switch_back_while_much_is_left(t):
    """The source is slow to read, so that what the guest has written since would take long."""
    qemu, s, domain = attached(t, [Drive(t.image("old.qcow2", fill="1M"), throttle=1 << 40)], args=TRACE)
    qemu("cont")
    job = domain.disk("vda").copy(t.path("a.qcow2"), max_pause=10_000).wait("ready")
    qemu("qom-set", path="/objects/slow0", property="limits", value={"bps-total": 0, "bps-read": 1 << 20})
    qemu.io("write -P 1 8M 16M")
    # A ready mirror looks for new writes ten times a second.
    wait_until(lambda: [j for j in qemu("query-block-jobs") if j["len"] - j["offset"] > 1 << 20],
               what="the writes seen")
    job.pivot()
    wait_until(lambda: any("pause would be longer" in sentence(w) for w in job.Warnings), what="the warning")
    assert job.State == "pivoting" and qemu("query-status")["running"] and told(qemu, "stop") == []
    qemu("qom-set", path="/objects/slow0", property="limits", value={"bps-total": 0, "bps-read": 0})
    job.wait_result("pivoted")
    assert len(told(qemu, "stop")) == 1 and qemu("query-status")["running"]
    qemu.io("read -P 1 8M 16M")


# ---- the dry run ----

def test_check_says_what_copy_would_say_and_does_nothing(t):
    qemu, s, disk = one_disk(t)
    t.image("there.qcow2")
    nothing = Untouched(t, s, qemu)
    answer = disk.check(t.path("new.qcow2"))
    assert answer["ok"] is True and "error-name" not in answer
    assert answer["free"] > answer["needed"] >= 4 << 20, answer
    nothing.check()
    answer = disk.check(t.path("there.qcow2"))
    assert answer["ok"] is False and answer["error-name"] == f"{PREFIX}.Error.TargetExists"
    assert "exists already" in sentence(answer["error-message"])
    assert disk.check("relative")["error-name"] == f"{PREFIX}.Error.BadTarget"
    assert disk.check(t.path("there.qcow2"), existing=True, format="qcow2")["ok"] is True
    refusal("InvalidArgs", disk.check, t.path("new.qcow2"), granularity=3)
    refusal("InvalidArgs", disk.check, t.path("new.qcow2"), verb="destroy")
    nothing.check()
    busy = slow_copy(disk, t.path("new.qcow2"))
    answer = disk.check(t.path("other.qcow2"))
    assert answer["error-name"] == f"{PREFIX}.Error.DiskBusy" and f"job {busy.id} " in answer["error-message"]


def test_needed_space_is_what_the_chain_takes(t):
    base = t.image("base.qcow2", fill="8M")
    top = t.image("top.qcow2", None, backing=base)
    image_fill(top, "qcow2", "8M", "2M")
    qemu, s, domain = attached(t, [top])
    disk = domain.disk("vda")

    def needed(**o):
        return disk.check(t.path("new.qcow2"), **o)["needed"] >> 20
    assert 10 <= needed() < 13, needed()
    assert 2 <= needed(sync="top") < 5
    assert needed(sync="none") < 2
    assert needed(format="raw", preallocation="falloc") >= 64
