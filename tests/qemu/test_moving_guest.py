# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real guest that never stops writing is moved from image to image: nothing that it was told is lost."""
import os

from harness import *

RING = 512


def moving(t, lanes=4, **more):
    guest = t.guest(drives=[t.image("n0.qcow2", "64M")], lanes=lanes, ring=RING, **more)
    s = t.service()
    return guest, s, s.attach("web", guest.socket).disk("vda")


def moved(guest, path):
    """The guest stands on that image now, and it is the one that is checked in the end."""
    old, guest.drives[0].path = guest.drives[0].path, path
    os.unlink(old)


@deadline(240)
def test_fifty_pivots_in_a_row_under_load_lose_nothing(t):
    guest, _, disk = moving(t)
    for n in range(1, 51):
        job = disk.copy(t.path(f"n{n}.qcow2"))
        job.wait("ready")
        guest.wait_writes(20)
        job.pivot()
        job.wait_result("pivoted")
        assert disk.Source == t.path(f"n{n}.qcow2")
        moved(guest, disk.Source)
    guest.wait_writes(4 * RING)
    guest.quit()
    guest.verify()


@deadline(240)
def test_pivots_survive_kills_at_any_time_under_load(t):
    guest, s, disk = moving(t)
    for n in range(1, 11):
        job = disk.copy(t.path(f"n{n}.qcow2"), speed=0 if n % 2 else 20 << 20)
        s.restart()
        job.wait("ready")
        job.pivot()
        s.restart()
        job.wait_result("pivoted")
        assert job.Restarts == 2 or job.states()[-1:] == ["concluded"], job.properties()
        moved(guest, disk.Source)
        guest.wait_writes(20)
    guest.quit()
    guest.verify()


def test_finish_leaves_a_consistent_copy_and_the_guest_where_it_was(t):
    guest, _, disk = moving(t)
    copy = t.path("copy.qcow2")
    job = disk.copy(copy)
    job.wait("ready")
    guest.wait_writes(200)
    job.finish()
    job.wait_result("finished")
    assert disk.Source == guest.drives[0].path
    guest.wait_writes(200)
    guest.quit()
    guest.verify()
    image_check(copy)
    # A cut of one instant: unbroken up to its own last number, which is before the guest's.
    verify_images([(copy, "qcow2")], None, guest.folder, guest.lanes * RING, ["--layout", f"{guest.lanes},{RING}"])
