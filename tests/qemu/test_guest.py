# SPDX-License-Identifier: LGPL-2.1-or-later
"""The writing guest and its verifier: they must be believed before they prove anything."""
import os
import struct

from harness import *

BLOCK = 4096


def written_raw(t, lanes=1, ring=256, disks=1, writes=700):
    """Raw images that a guest has written more than once over, and its acknowledgements."""
    drives = [Drive(t.image(f"disk{i}.raw", "8M", "raw"), "raw") for i in range(disks)]
    guest = t.guest(drives=drives, lanes=lanes, ring=ring)
    guest.wait_writes(writes)
    guest.quit()
    return guest


def damaged(guest, needle, change, disk=0):
    """change(bytearray) plants a mistake; the verifier must find it and say so in these words."""
    path = guest.drives[disk].path
    with open(path, "rb") as f:
        good = f.read()
    bad = bytearray(good)
    change(bad)
    with open(path, "wb") as f:
        f.write(bad)
    try:
        guest.verify()
    except AssertionError as e:
        assert needle in str(e), f"{needle!r} is not in: {e}"
    else:
        raise AssertionError(f"a planted mistake was not found: {needle}")
    finally:
        with open(path, "wb") as f:
            f.write(good)


def number_at(data, slot):
    return struct.unpack_from("<Q", data, slot * BLOCK + 8)[0]


def copy_block(data, source, destination):
    data[destination * BLOCK:(destination + 1) * BLOCK] = data[source * BLOCK:(source + 1) * BLOCK]


def test_guest_writes_and_every_number_is_found(t):
    guest = t.guest(drives=[t.image("a.qcow2", "64M")], ring=128)
    guest.wait_writes(400)
    guest("stop")
    image_check(guest.drives[0].path, share=True)
    assert "nothing lost" in guest.verify()
    guest("cont")
    guest.wait_writes(100)
    guest.quit()
    image_check(guest.drives[0].path)
    guest.verify()


def test_guest_carries_on_after_a_crash_of_qemu(t):
    guest = t.guest(drives=[t.image("a.qcow2", "64M")], ring=128, lanes=2)
    before = guest.wait_writes(300)
    guest.kill()
    guest.start()
    wait_until(lambda: guest.acks()[1] == 2, 60, guest.console)
    assert guest.wait_writes(100) > before
    guest.quit()
    guest.verify()


def test_guest_orders_one_sequence_over_several_disks(t):
    guest = written_raw(t, lanes=2, disks=3, ring=64)
    words = guest.verify()
    assert "lane 1" in words, words

    # A number that reached one disk while an earlier one did not reach the other: no point in time.
    def lose_on_one_disk(data):
        data[0:BLOCK] = bytes(BLOCK)
    damaged(guest, "is lost", lose_on_one_disk, disk=1)


def test_guest_sees_an_injected_error(t):
    rule = [{"event": "write_aio", "errno": 5, "sector": 64, "once": True, "immediately": True}]
    drive = Drive(t.image("a.raw", "8M", "raw"), "raw", errors=rule)
    guest = t.guest(drives=[drive], ring=256, args=["-global", "virtio-blk-device.werror=report"])
    wait_until(lambda: guest.acks()[2], 60, guest.console)
    assert "Input/output error" in guest.acks()[2][0], guest.acks()[2]


def test_guest_writes_to_scsi_and_iothread_disks(t):
    guest = t.guest(drives=[Drive(t.image("a.qcow2"), bus="scsi"), Drive(t.image("b.qcow2"), bus="scsi", iothread=True),
                            Drive(t.image("c.qcow2"), style="drive")], ring=32)
    guest.wait_writes(200)
    guest.quit()
    guest.verify()


def test_verifier_finds_planted_mistakes(t):
    guest = written_raw(t)
    guest.verify()

    def lose(data):
        data[7 * BLOCK:8 * BLOCK] = bytes(BLOCK)

    def tear(data):
        data[9 * BLOCK + 512:9 * BLOCK + 1024] = data[10 * BLOCK + 512:10 * BLOCK + 1024]

    def flip(data):
        data[11 * BLOCK + 2000] ^= 1

    def twice(data):
        copy_block(data, 12, 13)

    def swap(data):
        first = bytes(data[14 * BLOCK:15 * BLOCK])
        copy_block(data, 15, 14)
        data[15 * BLOCK:16 * BLOCK] = first

    def foreign(data):
        data[16 * BLOCK:17 * BLOCK] = os.urandom(BLOCK)

    damaged(guest, "is lost", lose)
    damaged(guest, "torn", tear)
    damaged(guest, "torn", flip)
    damaged(guest, "second time", twice)
    damaged(guest, "wrong place", swap)
    damaged(guest, "torn", foreign)


def test_verifier_finds_an_image_of_an_earlier_moment(t):
    guest = t.guest(drives=[Drive(t.image("a.raw", "8M", "raw"), "raw")], ring=256)
    guest.wait_writes(600)
    guest("stop")
    path = guest.drives[0].path
    with open(path, "rb") as f:
        early = f.read()
    guest("cont")
    guest.wait_writes(50)
    guest.quit()
    guest.verify()

    # All of it older: consistent in itself, but what was acknowledged since is missing.
    damaged(guest, "was acknowledged and the highest", lambda data: data.__setitem__(slice(None), early))

    # One block of it older: a single lost write.
    def one_old(data):
        newest = max(range(256), key=lambda s: number_at(data, s))
        slot = (newest - 20) % 256
        data[slot * BLOCK:(slot + 1) * BLOCK] = early[slot * BLOCK:(slot + 1) * BLOCK]
    damaged(guest, "still holds", one_old)


def test_guest_finds_a_lost_write_itself(t):
    """What is overwritten before the end would be proved by nobody, if the guest did not read it back."""
    guest = t.guest(drives=[Drive(t.image("a.raw", "8M", "raw"), "raw")], ring=256)
    guest.wait_writes(600)
    guest("stop")
    guest.io("write -P 0 40960 4096")
    guest("cont")
    wait_until(lambda: guest.acks()[2], 60, guest.console)
    assert "torn" in guest.acks()[2][0] or "lost" in guest.acks()[2][0], guest.acks()[2]
