# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU killed in the middle of a group's switch: all disks come to the same end.

The service has its deaths in the sweeps of tests/crash."""
import os
from xml.etree import ElementTree

from harness import *
from killer import Mortal, Point

DISKS = ["vda", "vdb", "vdc"]
DISK = """<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>
<target dev='{name}' bus='virtio'/></disk>"""


class GroupStage:
    """A machine with three disks and a definition, its service, and groups one after the other; as killer.Stage."""

    def __init__(self, t, name):
        self.t, self.number = t, 0
        self.images = t.path(f"{name}-images")
        os.makedirs(self.images)
        self.current = {d: t.image(f"{name}-images/{d}-0.qcow2", "8M", fill="1M") for d in DISKS}
        self.target = self.group = None
        self.qemu = t.qemu(name, list(self.current.values()), idle=False)
        self.mortal = Mortal(t.service("[Jobs]\nKeepFinishedJobs=2\nKeepFinishedTime=0\n"))
        self.s = self.mortal.s
        self.definition = f"{self.images}/{name}.xml"
        with open(self.definition, "w") as f:
            disks = "".join(DISK.format(name=d, path=self.current[d]) for d in DISKS)
            f.write(f"<domain type='qemu'><name>{name}</name><devices>{disks}</devices></domain>")
        self.domain = self.s.attach(name, self.qemu.socket, definition=self.definition)
        self.s.stop()

    def begin(self, point=None):
        self.number += 1
        self.target, self.group = {d: f"{self.images}/{d}-{self.number}.qcow2" for d in DISKS}, None
        self.deaths = self.mortal.deaths
        self.write(0)
        self.mortal.start(point)
        self.mortal.until(lambda: self.domain.State == "running" and len(self.domain.Disks) == 3, 30, "the first look")

    def copy(self, **o):
        self.group = self.mortal.call(lambda: self.domain.copy_disks(self.target, request_id=f"n{self.number}", **o))

    def ready(self):
        self.mortal.until(lambda: self.group.State in ("ready", "concluded"), 60, "the group to be ready")

    # -- the guest: each disk has bytes of its own --
    def _each(self, line, place):
        for i in range(3):
            self.qemu.io(line.format(pattern=(self.number * 3 + i) % 251 + 1, at=place * 2 + 1), i)

    def write(self, place):
        self._each("write -P {pattern} {at}M 64k", place)
        self._each("flush", place)

    def read(self, place):
        self._each("read -P {pattern} {at}M 64k", place)


# ---- QEMU dies: the record decides for all disks alike ----

def without_qemu(stage, results):
    """The end of a group whose QEMU is gone; then QEMU is started on what the definition names."""
    stage.mortal.until(lambda: stage.group.State == "concluded", 60, "the end")
    result = stage.mortal.call(lambda: stage.group.Result)
    members = [stage.mortal.call(lambda j=j: j.Result) for j in stage.mortal.call(stage.group.members)]
    assert result in results and members == [result] * 3, (result, members)
    old, stage.current = stage.current, stage.target if result == "pivoted" else stage.current
    tree = ElementTree.parse(stage.definition)
    named = {e.find("target").get("dev"): e.find("source").get("file") for e in tree.findall("devices/disk")}
    assert named == stage.current, (named, stage.current)
    for path in stage.current.values():
        run(["qemu-img", "check", "-q", "-f", "qcow2", "-r", "leaks", path])
    for drive, path in zip(stage.qemu.drives, stage.current.values()):
        drive.path = path
    stage.qemu.start()
    stage.mortal.until(lambda: stage.domain.State == "running" and all(
        stage.domain.disk(d).Source == stage.current[d] for d in DISKS), 30, "the domain is back")
    stage.read(0)
    for d in DISKS:
        other = old[d] if result == "pivoted" else stage.target[d]
        if os.path.exists(other):
            os.unlink(other)
    return result


@deadline(300)
def test_record_decides_for_all_disks_when_qemu_dies(t):
    stage, met = GroupStage(t, "web"), []
    moments = [(Point(1, '"job-complete"'), {"lost"}), (Point(1, '"job-complete"', after=True), {"lost", "pivoted"}),
               (Point(1, '"job-finalize"'), {"pivoted"})]
    moments += 8 * [(Point(1, '"job-finalize"', after=True), {"pivoted"})]
    for point, results in moments:
        stage.begin(point.held())
        stage.mortal.at_hold(stage.qemu.kill)
        stage.copy()
        stage.ready()
        stage.mortal.call(stage.group.pivot, allow=("AlreadyEnding",))
        met.append(without_qemu(stage, results))
        stage.mortal.stop()
    assert "lost" in met and "pivoted" in met, met
