# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest, its service and one job after the other, made so that one play costs little: QEMU and the service live on from
play to play, the service until it is killed at the moment that was chosen."""
import os
import sqlite3
import tempfile
from contextlib import closing
from xml.etree import ElementTree

from invariants import check_definitions, check_qemu, journal_table
from killer import DEFINITION, Mortal, Plan, Stage, end_of
from qemu import Drive, image_check, image_compare, image_create, verify_images
from service import Disk, Domain, Job

SIZE = 1 << 20
HISTORY_ROWS = 3


def journal_now(state_dir, question, *values):
    """Rows of the journal as it is on disk while the service has it, which lets nobody else in: read without locks.

    Under other names, because a reader that finds nothing in the log deletes it. Raises sqlite3.Error when it was written
    meanwhile."""
    with tempfile.TemporaryDirectory(prefix="look-", dir=os.path.dirname(state_dir)) as folder:
        for name in "journal.db", "journal.db-wal":
            os.link(f"{state_dir}/{name}", f"{folder}/{name}")
        with closing(sqlite3.connect(f"file:{folder}/journal.db?mode=ro&vfs=unix-none", uri=True)) as db:
            db.row_factory = sqlite3.Row
            db.execute("pragma locking_mode=exclusive")
            return [dict(r) for r in db.execute(question, values)]


class Scene(Stage):
    """format: of all images. guest: a real one that writes all the time, in place of a machine that has nothing to do.

    service: a program in place of the service that was built. folder: for journal, definition and images; through(qemu):
    gives the socket by which the service reaches QEMU. Other options are those of every copy."""

    # As few old jobs as can be: they make every start longer.
    CONFIG = f"[Jobs]\nKeepFinishedJobs=2\nKeepFinishedTime=0\nHistoryRows={HISTORY_ROWS}\n"

    def __init__(self, t, name, format="raw", definition=False, guest=False, service=None, folder=None, through=None,
                 **options):
        self.t, self.number, self.definition = t, 0, None
        # Where native AIO is exhausted, a second try would move the moments, and there is a warning.
        self.images_options = {"format": format, "aio": "threads"}
        self.options = {**self.images_options, **options}
        self.format, self.guest = format, guest
        self.images = f"{folder}/images" if folder else t.path(f"{name}-images")
        self.targets, self.deleted = set(), set()
        os.makedirs(self.images)
        self.size = (16 << 20) if guest else SIZE
        self.target = self.job = self.properties = None
        self.make_machine(name)
        # The sweep has invariants of its own.
        t.keep_traffic = t.invariants = False
        s = t.service(self.CONFIG, start=False)
        s.binary, s.state_dir = service or s.binary, f"{folder}/state" if folder else s.state_dir
        self.socket = through(self.qemu) if through else self.qemu.socket
        self.mortal = Mortal(s, Plan(f"{s.folder}/plan"))
        self.mortal.at_death = self.look_at_death
        self.s, self.last_id, self.point, self.calls = s, 0, None, 0
        if definition:
            self.definition = f"{self.images}/{name}.xml"
            with open(self.definition, "w") as f:
                f.write(self.first_definition(name).replace("'qcow2'", f"'{format}'"))
        self.mortal.start()
        self.domain = self.s.attach(name, self.socket, **self.attach_options())
        self.disk = self.domain.disk("vda")
        self.mortal.until(self.looked_at, 30, "the first look at the domain")

    def make_machine(self, name):
        self.current = image_create(f"{self.images}/i0", self.size, self.format)
        drives = [Drive(self.current, self.format)]
        self.qemu = self.t.guest(name, drives, ring=256) if self.guest else self.t.qemu(name, drives, idle=False)

    def first_definition(self, name):
        return DEFINITION.format(name=name, path=self.current)

    def attach_options(self):
        return {"definition": self.definition} if self.definition else {}

    # -- one play --
    def begin(self, point=None, recovery=None):
        """point: where the service dies once arm() was called; recovery: where the life after that does."""
        self.s.conn.signals.clear()
        if self.mortal.dead:
            self.mortal.start()
        self.next()
        self.name_target()
        self.point, self.mortal.next_points = point, [recovery] if recovery else []

    def name_target(self):
        self.target = f"{self.images}/i{self.number}"
        self.targets.add(self.target)
        self.root = self.qemu.image()["node-name"]

    def next(self):
        self.number += 1
        self.job, self.deaths, self.expected_warnings = None, self.mortal.deaths, 0
        self.stood()
        self.write(0)

    def arm(self):
        self.mortal.plan.arm(self.point)

    def played(self):
        """What is to be swept is over."""
        self.calls = self.mortal.plan.counted
        self.mortal.plan.arm()

    def wait(self, state, timeout=60):
        if state not in ("ready", "concluded"):
            super().wait(state, timeout)
            return
        now, result = self.mortal.call(lambda: self.job.call("WaitFor", "(st)", state, timeout * 1000000,
                                                             timeout=timeout + 5))
        assert state == now or result in ("", "pivoted", "finished"), (
            f"{now}, {result}, while waiting for {state}: {end_of(self.job.properties())}")

    # -- the guest --
    def offset(self, place):
        return (self.size if self.guest else 0) // 2 + (64 + 320 * place) * 1024

    def pattern(self):
        return self.number % 251 + 1

    def write(self, place):
        self.qemu.io(f"write -P {self.pattern()} {self.offset(place)} 4k")
        self.qemu.io("flush")

    def read(self, place):
        if self.format == "raw":
            with open(self.current, "rb") as f:
                f.seek(self.offset(place))
                assert f.read(4096) == bytes([self.pattern()]) * 4096, f"lost: what the guest has written ({place})"
        else:
            self.qemu.io(f"read -P {self.pattern()} {self.offset(place)} 4k")

    # -- what must hold --
    def look_at_death(self):
        """The service has died. Whoever looks at the machine now finds what the guest can go on with."""
        node = self.qemu.image()["node-name"]
        moved = node != self.root and not node.endswith("-m")
        assert moved or os.path.exists(self.current), f"{self.current} is gone, and the guest stands on it"
        if self.definition:
            named = ElementTree.parse(self.definition).find("devices/disk/source").get("file")
            assert named == self.current or (moved and named == self.target), (
                f"the definition names {named}, the guest stands on {self.target if moved else self.current} ({node})")

    def look(self, result):
        """What is not yet, or never will be, as that end promises; looked at from outside."""
        objects = self.s.objects()
        jobs = {p: i[Job.INTERFACE] for p, i in objects.items() if Job.INTERFACE in i}
        disks = {p: i[Disk.INTERFACE] for p, i in objects.items() if Disk.INTERFACE in i}
        domains = {p: i[Domain.INTERFACE] for p, i in objects.items() if Domain.INTERFACE in i}
        wrong = check_qemu(self.qemu, set()) + check_definitions(domains, disks, set())
        if not self.qemu("query-status")["running"]:
            wrong.append("the guest stands")
        disk = disks.get(self.disk.path)
        if not disk or disk["Source"] != self.current or disk["Job"] != "/":
            wrong.append(f"the disk is not on {self.current}, or busy: {disk}")
        same = [p for p, j in jobs.items() if j["Target"] == self.target]
        if same != [self.job.path]:
            return wrong + [f"ordered once, and there are {same}"]
        self.properties = p = jobs[self.job.path]
        if (p["State"], p["Result"], p["ErrorName"], len(p["Warnings"])) != (
                "concluded", result, "", self.expected_warnings):
            wrong.append(f"{end_of(p)}")
        return wrong

    def settle(self, look):
        """Until LOOK() finds nothing wrong: the last steps come after the record of the end."""
        wrong = [[]]

        def settled():
            try:
                wrong[0] = look()
            except sqlite3.Error as e:  # it is being written
                wrong[0] = [f"the journal: {e}"]
            return not wrong[0]
        self.mortal.until(settled, 15, lambda: "\n".join(wrong[0]))

    def end(self, result, written=(0, 1), source_stays=True, target_stays=None):
        self.wait("concluded")
        moved = result == "pivoted"
        old, self.current = self.current, self.target if moved else self.current
        self.settle(lambda: self.look(result))
        self.settle(lambda: self.look_at_journal(result))
        self.played()
        self.check_signals(result)
        for place in written:
            self.read(place)
        other = (old if source_stays else None) if moved else self.target
        if target_stays is False or (target_stays is None and result == "cancelled"):
            other = None
        self.check_files(other)
        if other and result != "cancelled":
            self.compare(other)
        if other:
            self.deleted.add(other)
            os.unlink(other)
        self.write(2)
        self.read(2)

    def look_at_journal(self, result):
        """One record of the end, and a record for each life that went on with it."""
        rows = journal_now(self.s.state_dir, "select * from job where id = ? or result = ''", self.job.id)
        told = journal_now(self.s.state_dir, "select * from transition where job = ?", self.job.id)
        wrong = [f"job {r['id']} has no end in the journal" for r in rows if not r["result"]]
        own = [r for r in rows if r["id"] == self.job.id]
        if [r["result"] for r in own] != [result] or not own[0]["exported"]:
            wrong.append(f"in the journal: {own}")
        recovered = sum(r["detail"] == "recovered" for r in told)
        if sum(r["state"] == "concluded" and r["detail"] != "dismissed" for r in told) != 1:
            wrong.append(f"not one record of the end: {told}")
        if not self.properties["Restarts"] == recovered <= self.mortal.deaths - self.deaths:
            wrong.append(f"Restarts is {self.properties['Restarts']}, {recovered} times recovered, "
                         f"{self.mortal.deaths - self.deaths} deaths")
        return wrong

    def check_signals(self, result):
        """The end was told once. A life that was killed may have taken its last words with it."""
        told = [s.args for s in self.s.conn.signals if s.member == "JobFinished" and s.args[0] == self.job.id]
        died = self.mortal.deaths > self.deaths
        assert len(told) <= 1 and (told or died), f"JobFinished was sent {len(told)} times"
        assert not told or told[0][2] == result, f"JobFinished: {told}"
        assert self.job.id > self.last_id, f"job {self.job.id} comes after {self.last_id}"
        self.last_id = self.job.id

    def check_files(self, other):
        expected = {p for p in (self.current, self.definition, other) if p}
        found = {os.path.join(self.images, n) for n in os.listdir(self.images)}
        assert found == expected, f"files there: {sorted(found)}, expected: {sorted(expected)}"

    def compare(self, other):
        """The image that the guest stands on and the one that was left hold the same; the real guest stands meanwhile."""
        if self.guest:
            self.qemu("stop")
            # It has gone on since; what was acknowledged is on its own image, and a copy has had all up to its moment.
            verify_images([(self.current, self.format)], self.qemu.acks_path, self.qemu.folder, 256)
            self.qemu("cont")
            self.stood()
        elif self.format == "raw":
            with open(self.current, "rb") as a, open(other, "rb") as b:
                assert a.read() == b.read(), f"images differ: {self.current} {other}"
        else:
            image_check(self.current, share=True)
            image_compare(self.current, other, share=True, formats=("qcow2", "qcow2"))
            image_check(other)

    def finish(self):
        """The service ends in order, and its journal is whole."""
        self.mortal.plan.arm()
        self.mortal.stop()
        journal_table(self.s.state_dir, "job", "id")

    def kill(self):
        """After a play that failed: nothing of it is used again."""
        if self.s.process:
            self.s.process.kill()
        self.qemu.kill()


