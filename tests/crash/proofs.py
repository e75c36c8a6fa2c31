# SPDX-License-Identifier: LGPL-2.1-or-later
"""Scenarios played on a logged disk, and then looked at as of the moments of the log."""
import os
import sqlite3

from power import Images, LoggedDisk
from scenarios import SCENARIOS
from sweeping import spread
from witness import Disk, LoggedScene

# One is enough for whoever reads it, and some more show what they have in common.
WRONG_MAX = 5
# So slow that a command and the end of its record cannot be mistaken for one moment.
PACE = 100


def played(t, name, times, service, pace=0):
    """(a scene that has played it, its disk, closed, where the plays begin in the log)."""
    options, function = SCENARIOS[name]
    disk = LoggedDisk(t, pace)
    scene = LoggedScene(t, "web", disk, service=service, **options)
    os.sync()
    first = disk.position()
    for _ in range(times):
        scene.begin()
        function(scene)
    scene.mortal.stop()
    scene.qemu.kill()
    disk.close()
    return scene, disk, first


def power_cuts(t, name, images, times=1, service=None):
    """Cuts the power at about IMAGES / 3 moments, in three ways. Returns (images, promises looked for, [what is wrong])."""
    scene, disk, first = played(t, name, times, service)
    seed = int.from_bytes(os.urandom(4), "big")
    cutter, looked, promises, wrong = Images(disk, seed), 0, 0, []
    total = len(cutter.entries) - first
    for moment in spread(total, images // len(Images.WAYS)):
        cut = first + moment
        told = [x for x in scene.told if x[0] <= cut]
        for way in Images.WAYS:
            try:
                folder = cutter.at(cut, way)
                try:
                    found = Disk(folder, scene).check(told)
                finally:
                    cutter.leave()
            except (OSError, sqlite3.Error) as e:
                found = [f"{type(e).__name__}: {e}"]
            looked += 1
            promises += len(told)
            wrong += [f"{name}: power cut at entry {cut} of {len(cutter.entries)} ({way}, seed {seed}): {w}" for w in found]
        if len(wrong) >= WRONG_MAX:
            break
    cutter.close()
    return looked, promises, wrong


def write_ahead(t, name, times=1, service=None):
    """Returns (commands that change QEMU's state, [those that no record on disk covered when they were sent])."""
    scene, disk, _ = played(t, name, times, service, PACE)
    cutter, wrong, at, found = Images(disk, 0), [], None, None
    for position, command, arguments in scene.commands:
        if position != at:
            at, found = position, Disk(cutter.at(position, Images.IN_ORDER), scene)
            cutter.leave()
        if not found.covers(command, arguments):
            rows = [{k: r[k] for k in ("id", "state", "intent", "decided", "halted", "result")} for r in found.rows.values()]
            wrong.append(f"{name}: {command} {arguments} at entry {position}; on disk: {rows}")
    cutter.close()
    return len(scene.commands), wrong
