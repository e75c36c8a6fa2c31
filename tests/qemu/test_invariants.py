# SPDX-License-Identifier: LGPL-2.1-or-later
"""The invariants that every test ends with: they must find what they are there for."""
from harness import *
from invariants import check_journal, check_qemu, check_signals

TAG = "bj-0123abcd-7"


def add_target(t, qemu):
    t.image("new.qcow2")
    qemu("blockdev-add", driver="file", node_name=f"{TAG}-f", filename=t.path("new.qcow2"))
    qemu("blockdev-add", driver="qcow2", node_name=f"{TAG}-t", file=f"{TAG}-f", backing=None)


def mirror(qemu):
    qemu("blockdev-mirror", job_id=TAG, device="libvirt-1-format", target=f"{TAG}-t", sync="full",
         filter_node_name=f"{TAG}-m", auto_finalize=False, auto_dismiss=False)


def test_leftovers_in_qemu_are_found(t):
    qemu = t.qemu(drives=[t.image("old.qcow2", fill="1M")])
    assert check_qemu(qemu, set()) == []
    add_target(t, qemu)
    found = check_qemu(qemu, set())
    assert len(found) == 2 and f"node {TAG}-t is left behind" in str(found), found
    assert check_qemu(qemu, {7}) == []
    mirror(qemu)
    qemu.wait_event("BLOCK_JOB_READY")
    assert check_qemu(qemu, {7}) == []
    found = str(check_qemu(qemu, set()))
    assert f"job {TAG}" in found and f"filter {TAG}-m" in found, found


def test_the_image_that_a_guest_has_moved_to_may_stay(t):
    qemu = t.qemu(drives=[t.image("old.qcow2", fill="1M")])
    add_target(t, qemu)
    mirror(qemu)
    qemu.wait_event("BLOCK_JOB_READY")
    qemu("job-complete", id=TAG)
    qemu.wait_event("BLOCK_JOB_PENDING")
    qemu("job-finalize", id=TAG)
    assert "is left behind" in str(check_qemu(qemu, set()))
    qemu("job-dismiss", id=TAG)
    assert check_qemu(qemu, set()) == []
    assert qemu.image()["node-name"] == f"{TAG}-t"
    qemu.quit()
    image_compare(t.path("old.qcow2"), t.path("new.qcow2"))


def test_descriptors_left_in_qemu_are_found(t):
    qemu = t.qemu(drives=[t.image("old.qcow2")])
    qemu("cont")  # QEMU 7.2 tidies up only then
    with open(t.path("file"), "w") as f:
        qemu("add-fd", fdset_id=9, opaque=f"{TAG}-rw", _fd=f.fileno())
    assert "fdset 9" in str(check_qemu(qemu, set())), check_qemu(qemu, set())
    assert check_qemu(qemu, {7}) == []


def test_bus_and_journal_are_compared(t):
    bus = {1: {"Kind": "copy", "State": "concluded", "Result": "pivoted"},
           2: {"Kind": "copy", "State": "running", "Result": ""},
           3: {"Kind": "foreign", "State": "running", "Result": ""}}
    rows = {1: {"result": "pivoted", "exported": 1}, 2: {"result": "", "exported": 1},
            4: {"result": "failed", "exported": 0}}
    assert check_journal(bus, rows) == []
    assert check_journal(bus, {**rows, 5: {"result": "", "exported": 1}})
    assert check_journal({1: bus[1]}, rows)
    assert check_journal(bus, {**rows, 1: {"result": "finished", "exported": 1}})
    assert check_journal({**bus, 2: {**bus[2], "State": "concluded"}}, rows)


def test_each_end_is_told_once(t):
    class Told:
        killed = 0

        def __init__(self, *ends):
            self.ends = ends

        def signals(self, _member):
            return [Signal(":1.1", ROOT, f"{PREFIX}.Manager", "JobFinished", (i, "/", r, "")) for i, r in self.ends]
    rows = {1: {"result": "pivoted"}, 2: {"result": ""}}
    assert check_signals(Told((1, "pivoted")), rows) == []
    assert check_signals(Told(), rows)
    assert check_signals(Told((1, "pivoted"), (1, "pivoted")), rows)
    assert check_signals(Told((1, "pivoted"), (2, "failed")), rows)
    assert check_signals(Told((1, "finished")), rows)
