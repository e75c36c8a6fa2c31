# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several disks, one point in time, all or nothing."""
import os

from copying import *
from harness import *

DISKS = ["vda", "vdb", "vdc"]


def three_disks(t, name="web", fill="1M", config="", **more):
    """(QEMU, service, domain, {disk: target}): an idle QEMU with three qcow2 images of 16 MiB, attached."""
    old = [t.image(f"{name}-{d}.qcow2", "16M", fill=fill) for d in DISKS]
    qemu, s, domain = attached(t, old, config, name=name, **more)
    return qemu, s, domain, {d: t.path(f"{name}-{d}-new.qcow2") for d in DISKS}


def test_group_pivots_all_disks(t):
    qemu, s, domain, targets = three_disks(t)
    group = domain.copy_disks(targets)
    members = group.members()
    assert [m.Disk for m in members] == DISKS and all(m.Kind == "copy" for m in members)
    assert group.Kind == "group" and group.Disk == "vda,vdb,vdc" and group.Group == "/"
    group.wait("ready")
    assert all(m.State == "ready" for m in members)
    assert group.Total == sum(m.Total for m in members) and group.Done == group.Total
    group.pivot()
    group.wait_result("pivoted")
    for m, d in zip(members, DISKS):
        assert m.Result == "pivoted" and domain.disk(d).Source == targets[d], m.properties()
        assert m.states()[-2:] == ["pending", "concluded"], m.states()
    assert group.states()[-2:] == ["pivoting", "concluded"], group.states()
    qemu.quit()
    for d in DISKS:
        image_compare(t.path(f"web-{d}.qcow2"), targets[d])


def cut_of(guest, drives, floor):
    """The images, which nobody writes any more, are one moment of the guest's sequence, and not before FLOOR."""
    return verify_images([(d, "qcow2") for d in drives], None, guest.folder, guest.lanes * guest.ring,
                         ["--layout", f"{guest.lanes},{guest.ring}", "--floor", str(floor)])


def stays_on_sources(t, domain, name="web"):
    for d in DISKS:
        assert domain.disk(d).Source == t.path(f"{name}-{d}.qcow2"), domain.disk(d).properties()
        assert domain.disk(d).Job == "/", domain.disk(d).properties()


def test_group_finishes_at_one_point_in_time(t):
    images = [t.image(f"{d}.qcow2", "16M") for d in DISKS]
    guest = t.guest(drives=images, ring=256)
    domain = t.service().attach("web", guest.socket)
    targets = {d: t.path(f"{d}-copy.qcow2") for d in DISKS}
    group = domain.copy_disks(targets).wait("ready")
    guest.wait_writes(50)
    before = guest.written()
    group.finish()
    group.wait_result("finished")
    assert all(m.Result == "finished" for m in group.members())
    guest.wait_writes(50)
    words = cut_of(guest, targets.values(), before)
    guest.quit()
    guest.verify()
    assert "nothing lost" in words, words
    assert group.GuestPaused > 0


def test_group_pivots_under_load_to_and_fro(t):
    sets = [[t.image(f"{d}-{n}.qcow2", "16M") for d in DISKS] for n in range(2)]
    guest = t.guest(drives=sets[0], ring=256)
    domain = t.service().attach("web", guest.socket)
    for n in range(1, 7):
        group = domain.copy_disks(dict(zip(DISKS, sets[n % 2])), pause_guest=bool(n % 2),
                                  members={d: {"existing": True, "format": "qcow2"} for d in DISKS}).wait("ready")
        guest.wait_writes(20)
        before = guest.written()
        group.pivot()
        group.wait_result("pivoted")
        for drive, path in zip(guest.drives, sets[n % 2]):
            drive.path = path
        guest.wait_writes(20)
        cut_of(guest, sets[1 - n % 2], before)
    guest.quit()
    guest.verify()


def test_group_cancel_takes_all_back(t):
    _, s, domain, targets = three_disks(t)
    group = domain.copy_disks(targets).wait("ready")
    group.cancel()
    group.wait_result("cancelled")
    assert [m.Result for m in group.members()] == ["cancelled"] * 3
    stays_on_sources(t, domain)
    assert not any(os.path.exists(p) for p in targets.values())


def test_members_leave_their_ends_to_the_group(t):
    _, s, domain, targets = three_disks(t)
    group = domain.copy_disks(targets).wait("ready")
    member = group.members()[1]
    for order in (member.pivot, member.finish, member.cancel, member.dismiss, lambda: member.set_on_ready("pivot")):
        words = refusal("NotSupported" if order != member.dismiss else "NotReady", order)
        assert order == member.dismiss or f"job {group.id}" in words, words
    group.pivot()
    group.wait_result("pivoted")
    assert f"job {group.id}" in refusal("NotSupported", member.dismiss)
    group.dismiss()
    wait_until(lambda: not s.jobs(), what=lambda: s.jobs())


def test_orders_of_the_group_reach_all_members(t):
    _, s, domain, targets = three_disks(t, fill="8M")
    group = domain.copy_disks(targets, members={d: {"speed": 64 << 10, "buf_size": 1 << 20} for d in DISKS})
    group.wait("running")
    members = group.members()
    group.pause()
    assert group.Paused and all(m.Paused for m in members)
    group.resume()
    assert not group.Paused and not any(m.Paused for m in members)
    assert "paused" in refusal("NotReady", group.resume)
    members[0].pause()
    wait_until(lambda: group.Paused, what=lambda: group.properties())
    group.resume()
    group.set_speed(1 << 20)
    assert group.SpeedLimit == 1 << 20 and all(m.SpeedLimit == 1 << 20 for m in members)
    group.set_on_ready("finish")
    group.set_speed(0)
    group.wait_result("finished")


def test_group_on_ready_pivots_by_itself(t):
    _, s, domain, targets = three_disks(t)
    domain.copy_disks(targets, on_ready="pivot").wait_result("pivoted")


def test_nothing_is_made_when_one_disk_is_refused(t):
    qemu, s, domain, targets = three_disks(t)
    nothing = Untouched(t, s, qemu)
    t.image("web-there.qcow2")
    nothing = Untouched(t, s, qemu)
    nothing.refuses("TargetExists", 'Disk "vdc"', domain.copy_disks, {**targets, "vdc": t.path("web-there.qcow2")})
    nothing.refuses("TargetInUse", '"vdb"', domain.copy_disks, {**targets, "vdc": targets["vdb"]})
    nothing.refuses("NoSuchDisk", '"vdx"', domain.copy_disks, {**targets, "vdx": t.path("x.qcow2")})
    nothing.refuses("InvalidArgs", "No disk", domain.copy_disks, {})
    nothing.refuses("InvalidArgs", "on-ready", domain.copy_disks, targets, members={"vdb": {"sync": "none"}},
                    on_ready="pivot")
    words = nothing.refuses("InvalidArgs", "twice", lambda: domain.call(
        "CopyDisks", "(a(ssa{sv})a{sv})", [("vda", t.path("1"), {}), ("vda", t.path("2"), {})], {}))
    assert '"vda"' in words


def test_same_request_id_is_the_same_group(t):
    _, s, domain, targets = three_disks(t)
    group = domain.copy_disks(targets, request_id="r")
    assert domain.copy_disks(targets, request_id="r") == group
    group.wait("ready").cancel()
    group.wait_result("cancelled")
