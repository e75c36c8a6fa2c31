# SPDX-License-Identifier: LGPL-2.1-or-later
"""A scene with three disks, whose jobs are groups: all disks come to the same end."""
import os
from xml.etree import ElementTree

from invariants import check_definitions, check_qemu
from killer import end_of
from qemu import Drive, image_create
from scene import Scene, journal_now
from service import Disk, Domain, Job

DISKS = ("vda", "vdb", "vdc")
DISK = """<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>
<target dev='{name}' bus='virtio'/></disk>"""


class GroupScene(Scene):
    """.current and .target name an image for each disk, .job is the group."""

    # A group and its members of an earlier play may still be there.
    CONFIG = "[Jobs]\nKeepFinishedJobs=4\nKeepFinishedTime=0\nHistoryRows=8\n"

    def make_machine(self, name):
        self.current = {d: image_create(f"{self.images}/{d}-0", self.size, self.format) for d in DISKS}
        self.qemu = self.t.qemu(name, [Drive(p, self.format) for p in self.current.values()], idle=False)

    def first_definition(self, name):
        disks = "".join(DISK.format(name=d, path=self.current[d]) for d in DISKS)
        return f"<domain type='qemu'><name>{name}</name><devices>{disks}</devices></domain>"

    def looked_at(self):
        return self.domain.State == "running" and len(self.domain.Disks) == len(DISKS)

    def name_target(self):
        self.target = {d: f"{self.images}/{d}-{self.number}" for d in DISKS}
        self.roots = {d: self.qemu.image(i)["node-name"] for i, d in enumerate(DISKS)}

    def copy(self, **o):
        members = {d: self.images_options for d in DISKS}
        more = {k: v for k, v in self.options.items() if k not in self.images_options}
        more.update(request_id=f"n{self.number}", **o)
        self.job = self.mortal.call(lambda: self.domain.copy_disks(self.target, members, **more))
        return self.job

    # -- the guest: each disk has bytes of its own --
    def write(self, place):
        for i in range(len(DISKS)):
            self.qemu.io(f"write -P {(self.pattern() + i) % 256} {self.offset(place)} 4k", i)
            self.qemu.io("flush", i)

    def read(self, place):
        for i, d in enumerate(DISKS):
            with open(self.current[d], "rb") as f:
                f.seek(self.offset(place))
                expected = bytes([(self.pattern() + i) % 256]) * 4096
                assert f.read(4096) == expected, f"lost: what the guest has written to {d} ({place})"

    # -- what must hold --
    def look_at_death(self):
        named = {}
        if self.definition:
            tree = ElementTree.parse(self.definition)
            named = {e.find("target").get("dev"): e.find("source").get("file") for e in tree.findall("devices/disk")}
        for i, d in enumerate(DISKS):
            node = self.qemu.image(i)["node-name"]
            moved = node != self.roots[d] and not node.endswith("-m")
            assert moved or os.path.exists(self.current[d]), f"{self.current[d]} is gone, and the guest stands on it"
            assert named.get(d, self.current[d]) == self.current[d] or (moved and named[d] == self.target[d]), (
                f"the definition names {named[d]}, the guest stands on {node}")

    def look(self, result):
        objects = self.s.objects()
        jobs = {p: i[Job.INTERFACE] for p, i in objects.items() if Job.INTERFACE in i}
        disks = {p: i[Disk.INTERFACE] for p, i in objects.items() if Disk.INTERFACE in i}
        domains = {p: i[Domain.INTERFACE] for p, i in objects.items() if Domain.INTERFACE in i}
        wrong = check_qemu(self.qemu, set()) + check_definitions(domains, disks, set())
        if not self.qemu("query-status")["running"]:
            wrong.append("the guest stands")
        for d in DISKS:
            disk = disks.get(self.domain.disk(d).path)
            if not disk or disk["Source"] != self.current[d] or disk["Job"] != "/":
                wrong.append(f"{d} is not on {self.current[d]}, or busy: {disk}")
        members = {p: j for p, j in jobs.items() if j["Group"] == self.job.path}
        if sorted(j["Target"] for j in members.values()) != sorted(self.target.values()) or self.job.path not in jobs:
            return wrong + [f"ordered once, and its members are {members}"]
        self.members, self.properties = [int(p.rsplit("/j", 1)[1]) for p in members], jobs[self.job.path]
        for p in [self.properties, *members.values()]:
            if (p["State"], p["Result"], p["ErrorName"], p["Warnings"]) != ("concluded", result, "", []):
                wrong.append(f"{end_of(p)}")
        return wrong

    def look_at_journal(self, result):
        wrong = super().look_at_journal(result)
        for member in self.members:
            told = journal_now(self.s.state_dir, "select * from transition where job = ?", member)
            if sum(r["state"] == "concluded" and r["detail"] != "dismissed" for r in told) != 1:
                wrong.append(f"not one record of the end of {member}: {told}")
        return wrong

    def end(self, result, written=(0, 1)):
        self.wait("concluded")
        old, self.current = self.current, self.target if result == "pivoted" else self.current
        self.settle(lambda: self.look(result))
        self.settle(lambda: self.look_at_journal(result))
        self.played()
        self.check_signals(result)
        for place in written:
            self.read(place)
        others = {} if result == "cancelled" else old if result == "pivoted" else self.target
        expected = {*self.current.values(), *others.values(), *({self.definition} if self.definition else ())}
        found = {os.path.join(self.images, n) for n in os.listdir(self.images)}
        assert found == expected, f"files there: {sorted(found)}, expected: {sorted(expected)}"
        for d, other in others.items():
            with open(self.current[d], "rb") as a, open(other, "rb") as b:
                assert a.read() == b.read(), f"images differ: {self.current[d]} {other}"
            os.unlink(other)
        self.write(2)
        self.read(2)
