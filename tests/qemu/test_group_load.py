# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that writes one ordered sequence over three disks without pause, whose disks go to and fro together: what is left
behind at each switch is one moment of that sequence."""
import os
import statistics

from harness import *

DISKS = ["vda", "vdb", "vdc"]
RING = 128
# Rounds with the guest's processors stopped, and as many without.
ROUNDS = int(os.environ.get("BLOCKJOBD_GROUP_ROUNDS", "8"))


class Load:
    def __init__(self, t):
        self.sets = [[t.image(f"{d}-{n}.qcow2", "8M") for d in DISKS] for n in range(2)]
        self.number = 0
        self.guest = t.guest(drives=self.sets[0], ring=RING)
        self.domain = t.service().attach("web", self.guest.socket)

    def switch(self, **o):
        """One group pivot. The images that the guest has left are one prefix of its sequence, and nothing that it was told
        to have written before is missing. Returns for how long it was held, in seconds."""
        self.number += 1
        left, taken = self.sets[1 - self.number % 2], self.sets[self.number % 2]
        group = self.domain.copy_disks(dict(zip(DISKS, taken)), members={d: {"existing": True, "format": "qcow2"} for d in DISKS},
                                       **o).wait("ready")
        self.guest.wait_writes(3)
        before = self.guest.written()
        group.pivot()
        group.wait_result("pivoted")
        for drive, path in zip(self.guest.drives, taken):
            drive.path = path
        verify_images([(path, "qcow2") for path in left], None, self.guest.folder, RING,
                      ["--layout", f"1,{RING}", "--floor", str(before)])
        assert not group.Warnings, group.Warnings
        held = group.GuestPaused / 1e6
        group.dismiss()
        return held

    def rounds(self, words, **o):
        held = [self.switch(**o) for _ in range(ROUNDS)]
        print(f"note: {ROUNDS} group pivots of 3 disks {words}: held {statistics.median(held) * 1e3:.1f} ms (median), "
              f"{max(held) * 1e3:.1f} ms (worst), each one prefix of the sequence")
        return held

    def end(self):
        self.guest.wait_writes(RING)
        self.guest.quit()
        for drive in self.guest.drives:
            image_check(drive.path)
        print(f"note: {self.guest.verify().splitlines()[0]}")


@deadline(1500)
def test_what_is_left_behind_is_one_moment_of_what_the_guest_writes(t):
    load = Load(t)
    held = load.rounds("with the guest stopped")
    assert all(h > 0 for h in held), held
    load.end()


@deadline(1500)
def test_what_is_left_behind_is_one_moment_also_while_the_processors_run(t):
    load = Load(t)
    load.rounds("while its processors run", pause_guest=False)
    assert not [e for e in load.guest.qmp.events if e["event"] == "STOP"]
    load.end()
