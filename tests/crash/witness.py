# SPDX-License-Identifier: LGPL-2.1-or-later
"""A scene on a logged disk: what its caller was told and when, and which commands went to QEMU and when, in positions of
the log; and whether what is on the disk at a position is what had to be there."""
import json
import os
import re
import sqlite3
import sys
from contextlib import closing

from process import REPO
from scene import Scene
from service import Job

sys.path.insert(0, f"{REPO}/tests/bus")
from qmp_proxy import QmpProxy  # noqa: E402

FDSET_BASE, FDSET_MASK = 0x62000000, 0x0FFFFFFF  # service/job/nodes.c
# What changes nothing, by its first word.
LOOKS = ("query-", "x-debug-query-", "qmp_capabilities", "human-monitor-command")


class LoggedScene(Scene):
    """.told: (position, job, what, value); .commands: (position, name, arguments); .definitions: all texts there were."""

    def __init__(self, t, name, disk, **more):
        self.log, self.told, self.commands, self.definitions = disk, [], [], []
        super().__init__(t, name, folder=disk.folder, through=self.proxy, **more)
        self.note_definition()

    def proxy(self, qemu):
        proxy = QmpProxy(self.t, qemu)

        def on_command(name, arguments):
            if not name.startswith(LOOKS):
                self.commands.append((self.log.position(), name, arguments))
        proxy.on_command = on_command
        return proxy.path

    def note(self, what, value):
        self.told.append((self.log.position(), self.job.id, what, value))

    def note_definition(self):
        if self.definition:
            with open(self.definition) as f:
                self.definitions.append(f.read())

    def copy(self, **o):
        job = super().copy(**o)
        self.note("target", self.target)
        return job

    def wait(self, state, timeout=60):
        super().wait(state, timeout)
        self.note("state", state)

    def order(self, method, **o):
        super().order(method, **o)
        self.note("intent", method)

    def end(self, result, **more):
        self.wait("concluded")
        self.note("result", result)
        self.note_definition()
        super().end(result, **more)


class Disk:
    """The journal and the files that are found in a folder where the scene's disk is mounted."""

    def __init__(self, folder, scene):
        self.folder, self.scene, self.wrong = folder, scene, []
        path = f"{folder}/state/journal.db"
        self.rows, self.states = {}, {}
        if os.path.exists(path) and os.path.getsize(path):
            with closing(sqlite3.connect(path)) as db:
                db.row_factory = sqlite3.Row
                verdict = db.execute("pragma quick_check").fetchone()[0]
                if verdict != "ok":
                    self.wrong.append(f"the journal: {verdict}")
                for r in db.execute("select * from job"):
                    self.rows[r["id"]] = {**dict(r), **json.loads(r["document"])}
        self.files = set(os.listdir(f"{folder}/images")) if os.path.isdir(f"{folder}/images") else set()

    def here(self, path):
        return self.folder + path.removeprefix(self.scene.log.folder)

    # -- what was told --
    def check(self, told):
        """told: what had been said before the power went."""
        for position, job, what, value in told:
            row = self.rows.get(job)
            if row is None:
                self.wrong.append(f"job {job} is lost; at {position} the caller was told {what}: {value}")
            elif not self.holds(row, what, value):
                self.wrong.append(f"at {position} the caller was told {what} of job {job}: {value}; on disk: "
                                  f"{row['state']}, {row['intent']!r}, {row['result']!r}")
        self.check_definition()
        for row in self.rows.values():
            self.check_images(row)
        names = {os.path.basename(r["target"]) for r in self.rows.values()} | {"i0"}
        names |= {os.path.basename(self.scene.definition)} if self.scene.definition else set()
        for name in self.files:
            if name not in names and ".blockjobd-" not in name:
                self.wrong.append(f"{name} is there, and no record says why")
        return self.wrong

    def holds(self, row, what, value):
        if what == "state":
            order = Job.STATES
            return order.index(row["state"]) >= order.index(value)
        if what == "result":
            return row["result"] == value
        return row[what] == value

    def check_definition(self):
        scene = self.scene
        if not scene.definition or not os.path.exists(self.here(os.path.dirname(scene.definition))):
            return
        over = max((r["id"] for r in self.rows.values() if r["result"] == "pivoted"), default=0)
        # A later job that is decided may have got as far as the definition.
        named = {r["target"] for r in self.rows.values() if r["id"] >= over and r["intent"] == "pivot" and r["decided"]}
        try:
            with open(self.here(scene.definition)) as f:
                text = f.read()
        except FileNotFoundError:
            text = ""
        if over and (text not in scene.definitions or not any(f"'{target}'" in text for target in named)):
            self.wrong.append(f"job {over} has pivoted, the definition: {text!r}")
        elif text and self.rows and text not in scene.definitions:
            self.wrong.append(f"the definition is neither old nor new: {text!r}")

    def check_images(self, row):
        """The record decides which image is right: that one is there, under its name."""
        target, source = (os.path.basename(row[k]) for k in ("target", "source-path"))
        whole = row["decided"] and row["result"] in ("", "pivoted", "finished")
        replaced = any(r["id"] > row["id"] and r["source-path"] == row["target"] and r["decided"]
                       for r in self.rows.values())
        if whole and not replaced:
            path = self.here(row["target"])
            if target not in self.files:
                # Left by a play that is over: the scene has deleted it.
                if not (row["result"] and row["target"] in self.scene.deleted):
                    self.wrong.append(f"job {row['id']} is decided, and its target {target} has no name")
            elif os.stat(path).st_ino != row["target-inode"]:
                self.wrong.append(f"job {row['id']}: {target} is another file")
        if row["result"] == "cancelled" and row["delete-target"] and target in self.files:
            self.wrong.append(f"job {row['id']} is cancelled, and its target {target} is there again")
        if row["result"] == "pivoted" and row["delete-source"] and source in self.files:
            self.wrong.append(f"job {row['id']} has pivoted, and its source {source} is there again")
        if not row["decided"] and not row["result"] and source not in self.files:
            self.wrong.append(f"job {row['id']} is not decided, and its source {source} is gone")

    # -- what was commanded --
    def covers(self, name, arguments):
        """Does the journal say why that command is sent?"""
        text = json.dumps(arguments)
        tags = {int(n) for n in re.findall(r"bj-[0-9a-f]{8}-(\d+)", text)}
        if "fdset-id" in arguments:
            tags.add(arguments["fdset-id"] - FDSET_BASE & FDSET_MASK)
        active = [r for r in self.rows.values() if not r["result"]]
        leaving = [n for r in self.rows.values() if r["decided"] for n in r["old-nodes"]]
        if name in ("stop", "cont"):
            return any(r["halted"] for r in active)
        if name == "blockdev-del" and arguments["node-name"] in leaving:
            return True
        # The device may stand on the image of an earlier job.
        row = self.rows.get(max(tags, default=0))
        if not row:
            return False
        if name == "remove-fd" and any(f"-{row['id']}-f" in n for n in leaving):
            return True
        if name in ("add-fd", "blockdev-add", "blockdev-create"):
            return row["state"] == "preparing" and row["target-known"]
        if name == "blockdev-mirror":
            return row["state"] == "preparing" and row["target"] in self.scene.targets
        if name == "job-dismiss":
            return arguments["id"].endswith("-c") or bool(row["result"])
        if name in ("blockdev-del", "remove-fd"):
            return row["decided"] or row["intent"] == "cancel" or bool(row["result"])
        wanted = {"job-complete": "pivot", "block-job-cancel": "finish", "job-cancel": "cancel"}
        if name == "job-finalize":
            return row["decided"]
        return name in wanted and row["intent"] == wanted[name]
