# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies from the order to the end: what is left on the disks, where the guest stands, what it reads and writes."""
import os

from copying import *
from harness import *


def chain_of_three(t):
    """base ← mid ← top, each with 1 MiB of its own. Returns their paths, base first."""
    base = t.image("base.qcow2")
    mid = t.image("mid.qcow2", None, backing=base)
    top = t.image("top.qcow2", None, backing=mid)
    for number, path in enumerate((base, mid, top)):
        image_fill(path, "qcow2", f"{number}M", "1M", 0x11 * (number + 1))
    return base, mid, top


# ---- the three ends ----

def test_pivot_moves_the_guest_and_what_it_writes_afterwards_is_on_the_target(t):
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2"))
    job.wait("ready")
    qemu.io("write -P 1 8M 64k")
    job.pivot().wait_result("pivoted")
    assert (disk.Source, disk.Format, disk.Job) == (t.path("new.qcow2"), "qcow2", "/")
    assert job.Target == t.path("new.qcow2") and (job.ErrorName, job.ErrorMessage) == ("", "")
    qemu.io("write -P 2 9M 64k")
    qemu.io("read -P 1 8M 64k")
    restarted(qemu, t.path("new.qcow2"))
    qemu.io("read -P 90 0 4M")
    qemu.io("read -P 1 8M 64k")
    qemu.io("read -P 2 9M 64k")
    qemu.quit()
    pattern_at(t.path("old.qcow2"), "qcow2", 1, "8M", "64k")
    pattern_at(t.path("old.qcow2"), "qcow2", 0, "9M", "64k")


def test_finish_leaves_the_guest_on_its_source_and_a_whole_copy(t):
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2"))
    job.wait("ready")
    qemu.io("write -P 1 8M 64k")
    job.finish().wait_result("finished")
    assert disk.Source == t.path("old.qcow2") and disk.Job == "/"
    qemu.io("write -P 2 8M 64k")
    qemu.quit()
    pattern_at(t.path("new.qcow2"), "qcow2", 1, "8M", "64k")
    pattern_at(t.path("old.qcow2"), "qcow2", 2, "8M", "64k")
    image_check(t.path("new.qcow2"))


def test_cancel_of_a_ready_copy_leaves_nothing(t):
    qemu, s, disk = one_disk(t)
    before = qemu.block_graph()[0]
    job = disk.copy(t.path("new.qcow2"))
    job.wait("ready").cancel().wait_result("cancelled")
    assert not os.path.exists(t.path("new.qcow2"))
    assert disk.Source == t.path("old.qcow2") and qemu.block_graph()[0] == before
    qemu.io("write -P 1 0 64k")


def test_states_are_signalled_in_their_order(t):
    _, s, disk = one_disk(t)
    job = pivoted(disk.copy(t.path("new.qcow2")))
    seen = job.states()
    order = [Job.STATES.index(state) for state in seen]
    assert order == sorted(order) and seen[-3:] == ["ready", "pivoting", "concluded"], seen
    new = s.wait_signal("JobNew", ROOT)
    assert new.args == (job.id, job.path)
    assert s.wait_signal("JobFinished", ROOT).args == (job.id, job.path, "pivoted", "")


def test_a_disk_can_be_copied_again_and_again(t):
    qemu, s, disk = one_disk(t)
    here = "old.qcow2"
    for n in range(4):
        pivoted(disk.copy(t.path(f"n{n}.qcow2"), delete_source=True))
        assert not os.path.exists(t.path(here)), here
        here = f"n{n}.qcow2"
        qemu.io(f"write -P {n + 1} {n}M 64k")
    restarted(qemu, t.path(here))
    for n in range(4):
        qemu.io(f"read -P {n + 1} {n}M 64k")


# ---- sync ----

def test_top_keeps_the_backing_file_and_the_guest_reads_through_it(t):
    base, mid, top = chain_of_three(t)
    qemu, s, domain = attached(t, [top])
    disk = domain.disk("vda")
    pivoted(disk.copy(t.path("new.qcow2"), sync="top"))
    assert [os.path.basename(i["file"]) for i in disk.chain()] == ["new.qcow2", "mid.qcow2", "base.qcow2"]
    qemu.io("write -P 7 3M 64k")
    restarted(qemu, t.path("new.qcow2"))
    for number in range(3):
        qemu.io(f"read -P {0x11 * (number + 1)} {number}M 1M")
    qemu.io("read -P 7 3M 64k")
    info = image_info(t.path("new.qcow2"))
    assert (info["full-backing-filename"], info["backing-filename-format"]) == (mid, "qcow2")
    # Only what the old top had was copied.
    assert allocated(t.path("new.qcow2")) < 3 << 20, allocated(t.path("new.qcow2"))
    qemu.quit()
    # The old top is what it was when the guest left it, and reads through the same files.
    pattern_at(top, "qcow2", 0, "3M", "64k")
    pattern_at(top, "qcow2", 0x33, "2M", "1M")


def test_full_copy_of_a_chain_stands_on_its_own(t):
    base, mid, top = chain_of_three(t)
    qemu, s, domain = attached(t, [top])
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))
    assert [os.path.basename(i["file"]) for i in domain.disk("vda").chain()] == ["new.qcow2"]
    # Nothing of the old chain is open any more.
    assert not [n for n in qemu("query-named-block-nodes", flat=True) if n["file"] in (base, mid, top)]
    qemu.quit()
    image_compare(top, t.path("new.qcow2"))
    assert len(image_chain(t.path("new.qcow2"))) == 1


def test_top_of_a_disk_without_backing_is_a_full_copy(t):
    qemu, s, disk = one_disk(t)
    pivoted(disk.copy(t.path("new.qcow2"), sync="top"))
    qemu.quit()
    image_compare(t.path("old.qcow2"), t.path("new.qcow2"))


def test_none_takes_new_writes_only_and_can_be_finished(t):
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2"), sync="none")
    job.wait("ready")
    qemu.io("write -P 1 8M 64k")
    job.finish().wait_result("finished")
    qemu.quit()
    pattern_at(t.path("new.qcow2"), "qcow2", 1, "8M", "64k")
    pattern_at(t.path("new.qcow2"), "qcow2", 0, "0", "4M")


def test_a_copy_of_new_writes_only_is_never_pivoted_to(t):
    """The guest would lose all that it had."""
    qemu, s, disk = one_disk(t)
    job = disk.copy(t.path("new.qcow2"), sync="none")
    job.wait("ready")
    assert "none" in refusal("NotSupported", job.pivot)
    assert "none" in refusal("NotSupported", job.set_on_ready, "pivot")
    job.finish().wait_result("finished")
    assert disk.Source == t.path("old.qcow2")


# ---- targets that are there already ----

def test_descriptor_of_a_file_as_target(t):
    qemu, s, disk = one_disk(t)
    path = t.image("new.qcow2")
    with open(path, "r+b") as f:
        job = disk.copy("a name for people", fd=f, format="qcow2")
    assert job.Target == "a name for people"
    pivoted(job)
    assert disk.Source == "a name for people"
    qemu.io("write -P 1 8M 64k")
    restarted(qemu, path)
    qemu.io("read -P 90 0 4M")
    qemu.io("read -P 1 8M 64k")


def test_descriptor_of_a_block_device_as_target(t):
    device = block_device(t, "device", 64 << 20)
    qemu, s, disk = one_disk(t)
    with open(device, "r+b") as f:
        job = disk.copy("the device", fd=f, format="raw")
    job.wait("ready").finish().wait_result("finished")
    qemu.quit()
    image_compare(t.path("old.qcow2"), device, formats=("qcow2", "raw"))


def test_existing_block_device_as_target(t):
    """It may be larger than the disk: the guest sees the size that it had."""
    device = block_device(t, "device", 80 << 20)
    qemu, s, disk = one_disk(t)
    pivoted(disk.copy(device, existing=True, format="raw"))
    assert (disk.Source, disk.Size) == (device, 64 << 20)
    assert qemu.image()["image"]["virtual-size"] == 64 << 20
    qemu.io("write -P 1 8M 64k")
    qemu.quit()
    pattern_at(device, "raw", 90, 0, "4M")
    pattern_at(device, "raw", 1, "8M", "64k")


def test_existing_qcow2_on_a_block_device_as_target(t):
    device = block_device(t, "device", 80 << 20)
    run(["qemu-img", "create", "-q", "-f", "qcow2", device, "64M"]).ok()
    qemu, s, disk = one_disk(t)
    pivoted(disk.copy(device, existing=True, format="qcow2"))
    qemu.quit()
    image_compare(t.path("old.qcow2"), device, formats=("qcow2", "qcow2"))


def test_existing_qcow2_keeps_its_own_features(t):
    qemu, s, disk = one_disk(t)
    image_create(t.path("new.qcow2"), "64M", options="cluster_size=4k,lazy_refcounts=on")
    pivoted(disk.copy(t.path("new.qcow2"), existing=True, format="qcow2"))
    qemu.quit()
    info = image_info(t.path("new.qcow2"))
    assert info["cluster-size"] == 4096 and info["format-specific"]["data"]["lazy-refcounts"], info
    image_compare(t.path("old.qcow2"), t.path("new.qcow2"))


def test_existing_raw_file_with_old_data_is_overwritten(t):
    """Also where the source has zeroes only: nothing of the old data may shine through."""
    qemu, s, disk = one_disk(t)
    path = t.image("new.raw", format="raw", fill="64M")
    pivoted(disk.copy(path, existing=True, format="raw"))
    qemu.quit()
    image_compare(t.path("old.qcow2"), path, formats=("qcow2", "raw"))


def test_existing_overlay_as_target_of_top(t):
    base, mid, top = chain_of_three(t)
    qemu, s, domain = attached(t, [top])
    image_create(t.path("new.qcow2"), None, backing=mid)
    pivoted(domain.disk("vda").copy(t.path("new.qcow2"), existing=True, format="qcow2", sync="top", backing=mid,
                                    backing_format="qcow2"))
    restarted(qemu, t.path("new.qcow2"))
    for number in range(3):
        qemu.io(f"read -P {0x11 * (number + 1)} {number}M 1M")


def test_new_raw_file(t):
    qemu, s, disk = one_disk(t)
    pivoted(disk.copy(t.path("new.raw"), format="raw"))
    assert disk.Format == "raw"
    qemu.io("write -P 1 63M 1M")
    restarted(qemu, t.path("new.raw"), "raw")
    qemu.io("read -P 90 0 4M")
    qemu.io("read -P 1 63M 1M")


def test_new_image_gets_owner_and_mode_of_the_source(t):
    path = t.image("old.qcow2")
    os.chown(path, 1234, 2345)
    os.chmod(path, 0o640)
    qemu, s, domain = attached(t, [path])
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))
    st = os.stat(t.path("new.qcow2"))
    assert (st.st_uid, st.st_gid, st.st_mode & 0o7777) == (1234, 2345, 0o640)


# ---- what is deleted ----

def test_delete_source_deletes_the_old_image_after_a_pivot_only(t):
    qemu, s, disk = one_disk(t)
    disk.copy(t.path("a.qcow2"), delete_source=True).wait("ready").finish().wait_result("finished")
    assert os.path.exists(t.path("old.qcow2"))
    disk.copy(t.path("b.qcow2"), delete_source=True).wait("ready").cancel().wait_result("cancelled")
    assert os.path.exists(t.path("old.qcow2"))
    pivoted(disk.copy(t.path("c.qcow2"), delete_source=True))
    assert not os.path.exists(t.path("old.qcow2"))
    assert os.path.exists(t.path("a.qcow2")) and os.path.exists(t.path("c.qcow2"))


def test_delete_source_leaves_the_backing_files(t):
    base, mid, top = chain_of_three(t)
    qemu, s, domain = attached(t, [top])
    pivoted(domain.disk("vda").copy(t.path("new.qcow2"), delete_source=True))
    assert not os.path.exists(top) and os.path.exists(mid) and os.path.exists(base)


def test_delete_source_leaves_an_image_that_another_process_uses(t):
    """Another machine has it open for reading, as it may with a shared base."""
    qemu, s, disk = one_disk(t)
    run(["cp", t.path("old.qcow2"), t.path("other.qcow2")]).ok()
    job = disk.copy(t.path("new.qcow2"), delete_source=True)
    job.wait("ready")
    reader = Process(["qemu-io", "-U", "-r", "-f", "qcow2", "-c", "sleep 60000", t.path("old.qcow2")],
                     t.path("reader.log"))
    wait_until(lambda: locks_of(reader.pid), what="the reader's lock")
    job.pivot().wait_result("pivoted")
    assert os.path.exists(t.path("old.qcow2"))
    assert any("was not deleted" in w for w in job.Warnings), job.Warnings
    reader.kill()


def locks_of(pid):
    """QEMU's locks of a process on image files."""
    for fd in os.listdir(f"/proc/{pid}/fdinfo"):
        with open(f"/proc/{pid}/fdinfo/{fd}") as f:
            if "OFDLCK" in f.read():
                return True
    return False


def test_delete_target_decides_what_a_cancel_leaves(t):
    qemu, s, disk = one_disk(t)
    disk.copy(t.path("a.qcow2"), delete_target=False).wait("ready").cancel().wait_result("cancelled")
    assert os.path.exists(t.path("a.qcow2"))
    # What is said with the cancel is the last word.
    disk.copy(t.path("b.qcow2"), delete_target=False).wait("ready").cancel(delete_target=True) \
        .wait_result("cancelled")
    assert not os.path.exists(t.path("b.qcow2"))
    disk.copy(t.path("c.qcow2")).wait("ready").cancel(delete_target=False).wait_result("cancelled")
    assert os.path.exists(t.path("c.qcow2"))


def test_cancel_never_deletes_what_was_there_before(t):
    qemu, s, disk = one_disk(t)
    path = t.image("new.qcow2")
    disk.copy(path, existing=True, format="qcow2").wait("ready").cancel(delete_target=True).wait_result("cancelled")
    with open(path, "r+b") as f:
        job = disk.copy(path, fd=f, format="qcow2")
    job.wait("ready").cancel(delete_target=True).wait_result("cancelled")
    assert os.path.exists(path)
