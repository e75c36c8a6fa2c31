# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bulk: dense data copied by the service, by hand with the best settings known, and as libvirt does it, in turns."""
import os
import time

from harness import Drive, run, wait_until
from stage import MeasureError, median

INTERFACE = "org.blockjob1"
DISK, ROOT_NODE = "/org/blockjob1/domain/ours/disk/vda", "libvirt-1-format"


def source_make(path, size):
    """No zeroes, nothing to compress; in the page cache when this returns."""
    block = os.urandom(1 << 20)
    with open(path, "wb") as f:
        for n in range(size >> 20):
            f.write(n.to_bytes(8, "little") + block[8:])
    run(["sync", "-f", path], timeout=300).ok()
    return path


def settle(path, *gone):
    """What the last run has written, and what is deleted now, is off the disk's hands."""
    for name in gone:
        os.unlink(name)
    run(["sync", "-f", os.path.dirname(path)], timeout=300).ok()


class Ours:
    name = "by the service, with its defaults"

    def __init__(self, stage, qemu):
        self.stage, self.service = stage, stage.service(listen=True)
        self.service.attach("ours", qemu.socket)

    def copy(self, target):
        before = len(self.service.conn.signals)
        start = time.monotonic()
        job = self.service.domain("ours").disk("vda").copy(target)
        ready = self.service.wait_signal("PropertiesChanged", job.path,
                                         lambda s: s.args[1].get("State") in ("ready", "concluded"), 300, before)
        if ready.args[1]["State"] != "ready":
            raise MeasureError(f"the copy failed: {job.ErrorMessage}")
        return ready.time - start, job

    def end(self, job, target):
        job.cancel(delete_target=True)
        wait_until(lambda: job.State == "concluded", 120, "the job to be cancelled")
        settle(target)


class Hand:
    name = "by hand, with the best settings known"
    cache = {"direct": True, "no-flush": False}
    file = {"aio": "native", "cache": cache, "discard": "unmap"}
    image = {"cache": cache, "discard": "unmap", "detect-zeroes": "unmap"}
    mirror = {"buf-size": 64 << 20}

    def __init__(self, qemu):
        self.qemu, self.n = qemu, 0

    def copy(self, target):
        self.n += 1
        q, job, file, image = self.qemu.qmp, f"hand{self.n}", f"hand{self.n}-f", f"hand{self.n}-t"
        q.events.clear()
        start = time.monotonic()
        size = self.qemu.image()["image"]["virtual-size"]
        os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))
        q("blockdev-add", **{"driver": "file", "node-name": file, "filename": target, **self.file})
        q("blockdev-create", job_id="create", options={"driver": "qcow2", "file": file, "size": size})
        q.wait_event("JOB_STATUS_CHANGE", lambda d: d["id"] == "create" and d["status"] == "concluded")
        q("job-dismiss", id="create")
        q("blockdev-add", **{"driver": "qcow2", "node-name": image, "file": file, "backing": None, **self.image})
        q("blockdev-mirror", **{"job-id": job, "device": ROOT_NODE, "target": image, "sync": "full", **self.mirror})
        q.wait_event("BLOCK_JOB_READY", lambda d: d["device"] == job, 300)
        return time.monotonic() - start, (job, image, file)

    def end(self, names, target):
        job, image, file = names
        q = self.qemu.qmp
        q("block-job-cancel", device=job, force=True)
        q.wait_event("BLOCK_JOB_CANCELLED", lambda d: d["device"] == job)
        wait_until(lambda: not self.qemu.jobs(), what="the job to be gone")
        q("blockdev-del", node_name=image)
        q("blockdev-del", node_name=file)
        settle(target, target)


class AsLibvirt(Hand):
    name = "by hand, as libvirt sets it up"
    file = {"discard": "unmap"}
    image = {"discard": "unmap"}
    mirror = {}


def copy(report, options, stage_class):
    report.title(f"copy: {options.size} MiB of dense data, {options.runs} runs of each in turns, time to ready")
    with stage_class(options.tmpfs) as stage:
        size = options.size << 20
        drive = {n: Drive(source_make(stage.path(f"{n}.raw"), size), "raw") for n in ("ours", "hand")}
        ours, hand = (stage.test.qemu(n, [drive[n]]) for n in ("ours", "hand"))
        ways = [Ours(stage, ours), Hand(hand), AsLibvirt(hand)]
        times = {way.name: [] for way in ways}
        # The first run of each warms up.
        for n in range(options.runs + 1):
            for way in ways:
                target = stage.path("target.qcow2")
                seconds, job = way.copy(target)
                way.end(job, target)
                if n > 0:
                    times[way.name].append(seconds)
        best = median(times[Hand.name])
        for way in ways:
            report.add(f"{way.name}, median", median(times[way.name]), "s")
            report.add(f"{way.name}, fastest", min(times[way.name]), "s")
        report.add("the service takes more than the best by hand", (median(times[Ours.name]) / best - 1) * 100, "%",
                   at_most=5)
        report.add("rate by the service", options.size / median(times[Ours.name]), "MiB/s")
