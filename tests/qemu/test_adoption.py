# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies that QEMU still makes and the journal has lost: carried on as far as QEMU tells, and said."""
import os
from xml.etree import ElementTree

from copying import *
from harness import *
from killer import DEFINITION


def lost(t, idle=True, **o):
    """(QEMU, service, disk, job): a copy under way whose service has died and found its journal gone."""
    path = t.image("old.qcow2", "8M", fill="4M")
    with open(t.path("web.xml"), "w") as f:
        f.write(DEFINITION.format(name="web", path=path))
    qemu = t.qemu("web", [path], idle=idle)
    s = t.service()
    job = slow_copy(s.attach("web", qemu.socket, definition=t.path("web.xml")).disk(), t.path("new one.qcow2"), **o)
    s.kill()
    for name in "journal.db", "journal.db-wal":
        os.unlink(f"{s.state_dir}/{name}")
    s.start()
    assert s.manager.JournalState == "recovered"
    disk = s.attach("web", qemu.socket, definition=t.path("web.xml")).disk()
    wait_until(lambda: disk.Job != "/", what="the job that QEMU makes")
    found = Job(s, disk.Job)
    assert found.id == job.id and found.Kind == "copy", found.properties()
    assert found.Target == t.path("new one.qcow2") and found.OwnerUid == 0, found.properties()
    assert "The journal has lost this job" in found.Warnings[0], found.Warnings
    assert "which the journal has lost; it is carried on as job" in s.log()
    return qemu, s, disk, found


def named_by_definition(t):
    return ElementTree.parse(t.path("web.xml")).find("devices/disk/source").get("file")


def test_lost_copy_can_be_pivoted(t):
    qemu, s, disk, job = lost(t, idle=False, on_ready="pivot")
    assert job.OnReady == "wait", "a promise that nobody remembers"
    job.set_speed(0)
    job.wait("ready")
    qemu.io("write -P 7 1M 64k")
    job.pivot().wait_result("pivoted")
    wait_until(lambda: disk.Source == t.path("new one.qcow2"), what="the disk on its new image")
    qemu.io("read -P 7 1M 64k")
    # What QEMU tells is not written into files.
    assert named_by_definition(t) == t.path("old.qcow2")
    assert os.path.exists(t.path("old.qcow2"))
    dismissed(qemu)
    # It is a job like any other from now on.
    s.restart()
    wait_until(lambda: job.path in s.jobs(), what="the job")
    assert job.Result == "pivoted" and "The journal has lost this job" in job.Warnings[0]
    back(s, disk)
    pivoted(disk.copy(t.path("next.qcow2")))
    t.invariants = False  # the definition is behind, as was said


def test_lost_copy_can_be_finished(t):
    qemu, s, disk, job = lost(t)
    job.set_speed(0)
    job.wait("ready").finish().wait_result("finished")
    dismissed(qemu)
    qemu.quit()
    image_compare(t.path("old.qcow2"), t.path("new one.qcow2"))


def test_lost_copy_can_be_cancelled_and_its_target_stays(t):
    qemu, s, disk, job = lost(t)
    assert [w for w in job.Warnings if "The guest stands" in w], job.Warnings
    job.cancel(delete_target=True).wait_result("cancelled")
    assert os.path.exists(t.path("new one.qcow2")), "deleted, though no record says that the job has made it"
    assert disk.Source == t.path("old.qcow2")
    pivoted(disk.copy(t.path("next.qcow2")))


def test_lost_copy_of_new_writes_only_is_not_pivoted_to(t):
    """QEMU does not tell that it copies new writes only; what it was told along with the descriptors does."""
    qemu, s, disk, job = lost(t, sync="none")
    assert "only new writes" in refusal("NotSupported", job.pivot)
    refusal("NotSupported", job.set_on_ready, "pivot")
    job.cancel().wait_result("cancelled")


def test_lost_copy_that_has_ended_leaves_nothing_in_qemu(t):
    qemu, s, disk = one_disk(t)
    slow_copy(disk, t.path("new.qcow2"))
    s.kill()
    for name in "journal.db", "journal.db-wal":
        os.unlink(f"{s.state_dir}/{name}")
    qemu("job-cancel", id=list(qemu.jobs())[0])
    wait_until(lambda: [j["status"] for j in qemu.jobs().values()] == ["concluded"], what="the end of the job")
    s.start()
    disk = s.attach("web", qemu.socket).disk()
    dismissed(qemu)
    wait_until(lambda: not [n for n in qemu.block_graph()[0] if n.startswith("bj-")], what="no node of the copy")
    assert not s.jobs()
    pivoted(disk.copy(t.path("next.qcow2")))


class Forger:
    """A QEMU that makes jobs under names like ours, one after the other, and says of them what it likes."""

    def __init__(self, t):
        self.t, self.qemu, self.sets = t, t.qemu("web", [t.image("old.qcow2", "8M", fill="4M")]), 0
        self.s = t.service()
        self.disk = self.s.attach("web", self.qemu.socket).disk()
        job = slow_copy(self.disk, t.path("first.qcow2"))
        self.identity = list(self.qemu.jobs())[0].split("-")[1]
        job.cancel().wait_result("cancelled")
        dismissed(self.qemu)
        t.image("theirs.qcow2", "8M")
        self.qemu("blockdev-add", driver="qcow2", node_name="theirs",
                  file={"driver": "file", "filename": t.path("theirs.qcow2")})
        t.invariants = False  # nodes and jobs with names like ours, which are not

    def job(self, number, witness=None):
        self.name = f"bj-{self.identity}-{number}"
        if witness is not None:
            with open(self.t.path("theirs.qcow2"), "r+b") as f:
                self.sets += 1
                self.qemu("add-fd", fdset_id=self.sets, opaque=witness.replace("NAME", self.name), _fd=f.fileno())
        self.qemu("blockdev-mirror", job_id=self.name, device="libvirt-1-format", target="theirs", sync="full",
                  speed=1, buf_size=1 << 20, auto_dismiss=False)
        # What was lost is found with the first look of a new life.
        self.s.restart(kill=False)
        back(self.s, self.disk)
        return Job(self.s, wait_until(lambda: self.disk.Job != "/" and self.disk.Job, what="the job"))

    def end(self, job):
        self.qemu("job-cancel", id=self.name)
        job.wait("concluded")
        self.qemu("job-dismiss", id=self.name)


def test_job_with_our_name_and_no_good_witness_is_watched_only(t):
    f = Forger(t)
    witnesses = [None, "NAME full new 1:1 relative", "NAME some new 1:1 /a", "NAME full new 1:1x /a",
                 "NAME full new 1:1 /a\nb", "NAMEx full new 1:1 /a"]
    for number, witness in enumerate(witnesses):
        job = f.job(70 + number, witness)
        assert job.Kind == "foreign" and job.Target == "", f"{witness}: {job.properties()}"
        refusal("NotSupported", job.cancel)
        f.end(job)


def test_number_that_qemu_tells_is_believed_within_reason(t):
    """Numbers are never given again: one that is too high would leave none."""
    f = Forger(t)
    for number in "99999999999999999999", "2000000", "-1":
        job = f.job(number, "NAME full new 1:1 /a")
        assert job.Kind == "foreign" and job.id < 20, f"{number}: {job.properties()}"
        f.end(job)


def test_forged_witness_makes_the_service_touch_no_file(t):
    with open(t.path("secret"), "w") as secret:
        secret.write("precious")
    st = os.stat(t.path("secret"))
    f = Forger(t)
    job = f.job(77, f"NAME full new {st.st_dev}:{st.st_ino} {t.path('secret')}")
    assert (job.Kind, job.id, job.Target) == ("copy", 77, t.path("secret"))
    job.cancel(delete_target=True).wait_result("cancelled")
    with open(t.path("secret")) as secret:
        assert secret.read() == "precious"
