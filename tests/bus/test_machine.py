# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine under the service is out of order: its disk is full or slow, its clock is wrong, descriptors or memory are
short. No guest waits for it longer than was promised, and what was promised is kept."""
import os
import time

from faults import Faults
from harness import *
from process import PATIENCE
from qmp_proxy import QmpProxy
from scenes import *


def full_in_pending(t, **more):
    """(service, faults, qemu, proxy, job): a pivot whose decision finds no room in the journal; the guest runs."""
    os.makedirs(t.path("copies"))
    faults = Faults(t)
    s = t.service(wrap=faults.wrap)
    qemu = t.qemu("web", [t.image("web0.qcow2", size="1M", fill="256k")], idle=False)
    proxy = QmpProxy(t, qemu)
    job = s.attach("web", proxy.path).disk().copy(t.path("copies/new.qcow2"), **more).wait("ready")
    proxy.on_command = lambda name, arguments: faults.set("full") if name == "job-complete" else None
    return s, faults, qemu, proxy, job


def rolled_back(qemu):
    """QEMU has its disk on the source and its guest goes on, while nothing can be written yet."""
    wait_until(lambda: [j["status"] for j in qemu.jobs().values()] == ["concluded"], 10, "the job to be rolled back")
    wait_until(lambda: qemu("query-status")["running"], 10, "the guest to go on")
    qemu.io("write -P 1 0 64k")
    assert qemu.image()["file"] == qemu.drives[0].path, qemu.image()


@deadline(60)
def test_decision_that_finds_no_room_is_taken_back_and_the_guest_goes_on(t):
    s, faults, qemu, proxy, job = full_in_pending(t)
    began = time.monotonic()
    job.pivot()
    wait_until(lambda: "pending" in [j["status"] for j in qemu.jobs().values()], 10, "pending", interval=0.005)
    rolled_back(qemu)
    held = time.monotonic() - began
    print(f"note: the guest's writes waited for {held:.1f} s")
    assert held < 4 * PATIENCE, f"the guest's writes waited for {held:.1f} s"
    assert s.manager.JournalState == "full" and job.State == "pivoting", (s.manager.JournalState, job.State)
    proxy.on_command = None
    faults.clear("full")
    job.wait_result("failed")
    assert job.ErrorName == f"{PREFIX}.Error.Journal" and "source" in job.ErrorMessage, job.properties()
    assert s.manager.JournalState == "ok"
    # Nothing of the decision has reached the disk, and the next copy is as good as any.
    domain = s.domain("web")
    domain.disk().copy(t.path("copies/again.qcow2"), on_ready="pivot").wait_result("pivoted")


@deadline(60)
def test_service_that_dies_with_a_decision_that_found_no_room_rolls_back_or_goes_on(t):
    """The record never was on disk: the next life decides anew, with the journal writable again."""
    s, faults, qemu, proxy, job = full_in_pending(t)
    job.pivot()
    wait_until(lambda: s.manager.JournalState == "full", 10, "the full journal")
    s.kill()
    proxy.on_command = None
    faults.clear("full")
    s.start()
    job.wait("concluded")
    assert job.Result in ("pivoted", "failed"), job.properties()
    on_target = qemu.image()["file"].startswith("/dev/fdset/")
    assert on_target == (job.Result == "pivoted"), (qemu.image(), job.properties())
    wait_until(lambda: qemu("query-status")["running"], 10, "the guest to go on")
