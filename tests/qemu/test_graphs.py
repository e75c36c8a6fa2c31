# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disks as they are found in the wild: filters, chains, other controllers, media, and disks that come and go."""
import json
import os

from copying import *
from harness import *


def names(domain):
    return [d.Name for d in domain.disks()]


def own(**more):
    """Arguments of a -blockdev."""
    return ["-blockdev", json.dumps({k.replace("_", "-"): v for k, v in more.items()})]


# ---- how a disk was given to QEMU ----

def test_disk_of_a_drive_argument(t):
    """An older way, with a monitor-owned backend that has a name of its own."""
    for cache in None, "none", "unsafe":
        name = f"with-{cache}"
        path = t.image(f"{name}.qcow2", fill="4M")
        qemu = t.qemu(name, [Drive(path, style="drive", cache=cache)])
        s = t.services[0] if t.services else t.service()
        disk = s.attach(name, qemu.socket).disk("vda")
        assert disk.Source == path
        pivoted(disk.copy(t.path(f"{name}.new")))
        qemu.io("write -P 1 8M 64k")
        qemu.quit()
        pattern_at(t.path(f"{name}.new"), "qcow2", 90, 0, "4M")
        pattern_at(t.path(f"{name}.new"), "qcow2", 1, "8M", "64k")


def test_raw_disk(t):
    qemu, s, domain = attached(t, [Drive(t.image("old.raw", format="raw", fill="4M"), "raw")])
    disk = domain.disk("vda")
    assert disk.Format == "raw"
    pivoted(disk.copy(t.path("new.raw"), format="raw"))
    pivoted(disk.copy(t.path("new.qcow2")))
    qemu.quit()
    image_compare(t.path("old.raw"), t.path("new.qcow2"), formats=("raw", "qcow2"))


def test_disk_on_a_block_device(t):
    """A new image beside it is root's, not the device's group's."""
    device = block_device(t, "device", 8 << 20)
    image_fill(device, "raw", 0, "1M")
    args = own(driver="host_device", node_name="bottom", filename=device) + own(
        driver="raw", node_name="disk", file="bottom") + ["-device", "virtio-blk-pci,drive=disk,id=vd"]
    qemu, s, domain = attached(t, [], args=args)
    disk = domain.disk("vda")
    assert (disk.Source, disk.Size) == (device, 8 << 20)
    pivoted(disk.copy(t.path("new.qcow2"), delete_source=True))
    assert os.path.exists(device)
    qemu.quit()
    image_compare(device, t.path("new.qcow2"), formats=("raw", "qcow2"))


def test_disks_of_every_controller_get_their_names(t):
    paths = [t.image(f"{n}.qcow2", "8M", fill="1M") for n in range(4)]
    ide = own(driver="qcow2", node_name="ide", file={"driver": "file", "filename": paths[3]}) + [
        "-device", "ide-hd,drive=ide,id=ide0"]
    drives = [Drive(paths[0]), Drive(paths[1], bus="scsi"), Drive(paths[2], iothread=True)]
    qemu, s, domain = attached(t, drives, args=ide)
    assert {d.Name: d.Source for d in domain.disks()} == {
        "vda": paths[0], "sda": paths[1], "vdb": paths[2], "sdb": paths[3]}
    jobs = [d.copy(f"{d.Source}.new", on_ready="pivot") for d in domain.disks()]
    for job in jobs:
        job.wait_result("pivoted")
    assert {d.Source for d in domain.disks()} == {f"{p}.new" for p in paths}
    qemu.quit()
    for path in paths:
        image_compare(path, f"{path}.new")


def test_several_disks_are_copied_at_once_and_end_each_for_itself(t):
    qemu, s, domain = attached(t, [t.image(f"{n}.qcow2", fill="4M") for n in "abc"])
    a, b, c = (d.copy(t.path(f"{d.Name}.new")) for d in domain.disks())
    for job in a, b, c:
        job.wait("ready")
    assert sorted(domain.Jobs) == sorted(j.path for j in (a, b, c)) and s.manager.NJobsActive == 3
    b.finish().wait_result("finished")
    c.cancel().wait_result("cancelled")
    a.pivot().wait_result("pivoted")
    assert [d.Source for d in domain.disks()] == [t.path("vda.new"), t.path("b.qcow2"), t.path("c.qcow2")]
    assert domain.Jobs == [] and s.manager.NJobsActive == 0


# ---- filters ----

def path_to_image(qemu, disk=0):
    """Drivers from the device's root down to the file, along the graph."""
    graph = qemu("x-debug-query-block-graph")
    nodes = {n["id"]: n for n in graph["nodes"]}
    drivers = {n["node-name"]: n["drv"] for n in qemu("query-named-block-nodes", flat=True)}
    at = next(n["id"] for n in graph["nodes"]
              if n["type"] == "block-backend" and n["name"] == qemu.blocks()[disk]["qdev"])
    found = []
    while True:
        below = [e["child"] for e in graph["edges"] if e["parent"] == at and e["name"] in ("root", "file")]
        if not below:
            return found
        at = below[0]
        found.append(drivers[nodes[at]["name"]])


def filtered(t, **filter):
    """(QEMU, disk) with a filter between the device and the image."""
    path = t.image("old.qcow2", fill="4M")
    args = own(driver="qcow2", node_name="image", discard="unmap", file={"driver": "file", "filename": path}) + own(
        node_name="filter", file="image", **filter) + ["-device", "virtio-blk-pci,drive=filter,id=vd"]
    if filter["driver"] == "throttle":
        args = ["-object", "throttle-group,id=limits,x-iops-total=1000000"] + args
    qemu, s, domain = attached(t, [], args=args)
    disk = domain.disk("vda")
    assert (disk.Source, disk.Format, disk.Node) == (path, "qcow2", "image")
    return qemu, disk


def moved_under_its_filter(t, qemu, disk, driver):
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    qemu.io("write -P 1 8M 64k")
    job.pivot().wait_result("pivoted")
    assert disk.Source == t.path("new.qcow2")
    # The limit that the administrator has set is still in force, and below it there is the new image.
    assert path_to_image(qemu)[:2] == [driver, "qcow2"], path_to_image(qemu)
    qemu.io("write -P 2 9M 64k")
    assert not [n for n in qemu("query-named-block-nodes", flat=True) if n["file"] == t.path("old.qcow2")]
    qemu.quit()
    for pattern, offset in (1, "8M"), (2, "9M"):
        pattern_at(t.path("new.qcow2"), "qcow2", pattern, offset, "64k")


def test_pivot_keeps_a_throttle_filter_over_the_disk(t):
    qemu, disk = filtered(t, driver="throttle", throttle_group="limits")
    moved_under_its_filter(t, qemu, disk, "throttle")


def test_pivot_keeps_a_copy_on_read_filter_over_the_disk(t):
    qemu, disk = filtered(t, driver="copy-on-read")
    moved_under_its_filter(t, qemu, disk, "copy-on-read")


def test_cancel_under_a_filter_leaves_the_disk_as_it_was(t):
    qemu, disk = filtered(t, driver="throttle", throttle_group="limits")
    before = path_to_image(qemu)
    for end in "cancel", "finish":
        job = disk.copy(t.path(f"{end}.qcow2")).wait("ready")
        getattr(job, end)().wait("concluded")
        assert path_to_image(qemu) == before and disk.Source == t.path("old.qcow2")
    qemu.io("write -P 1 0 64k")


def test_filters_below_the_format_go_with_the_old_image(t):
    path = t.image("old.qcow2", fill="4M")
    qemu, s, domain = attached(t, [Drive(path, throttle=1 << 30)])
    disk = domain.disk("vda")
    assert disk.Source == path
    pivoted(disk.copy(t.path("new.qcow2")))
    assert path_to_image(qemu) == ["qcow2", "file"]
    assert not [n for n in qemu("query-named-block-nodes", flat=True) if n["node-name"].startswith("libvirt-1")]


# ---- chains ----

def chain(t, n=3):
    """n images of 1 MiB each, one above the other; top last."""
    paths = [t.image("0.qcow2")]
    for number in range(1, n):
        paths.append(t.image(f"{number}.qcow2", None, backing=paths[-1]))
    for number, path in enumerate(paths):
        image_fill(path, "qcow2", f"{number}M", "1M", number + 1)
    return paths


def test_chain_is_told_from_the_top(t):
    base, mid, top = chain(t)
    qemu, s, domain = attached(t, [top])
    images = domain.disk("vda").chain()
    assert [(i["index"], i["file"], i["format"], i["backing"]) for i in images] == [
        (0, top, "qcow2", mid), (1, mid, "qcow2", base), (2, base, "qcow2", "")]
    assert [i["read-only"] for i in images] == [False, True, True]
    for image in images:
        assert image["size"] == 64 << 20 and 1 << 20 <= image["allocated"] < 2 << 20, image
    assert images[0]["node"] == domain.disk("vda").Node
    assert domain.disk("vda").Allocated == images[0]["allocated"]


def test_chain_with_nodes_named_one_by_one_can_be_copied_at_the_top(t):
    """As libvirt does it: every node has a name and is a child by reference."""
    base, mid, top = chain(t)
    args = []
    for number, path in enumerate((base, mid, top)):
        read_only = number < 2
        args += own(driver="file", node_name=f"n{number}-storage", filename=path, auto_read_only=True)
        args += own(driver="qcow2", node_name=f"n{number}-format", file=f"n{number}-storage", read_only=read_only,
                    backing=f"n{number - 1}-format" if number else None)
    qemu, s, domain = attached(t, [], args=args + ["-device", "virtio-blk-pci,drive=n2-format,id=vd"])
    disk = domain.disk("vda")
    pivoted(disk.copy(t.path("new.qcow2"), sync="top"))
    assert [i["file"] for i in disk.chain()] == [t.path("new.qcow2"), mid, base]
    left = {n["node-name"] for n in qemu("query-named-block-nodes", flat=True)}
    assert {"n0-format", "n0-storage", "n1-format", "n1-storage"} <= left and not left & {"n2-format", "n2-storage"}
    for number in range(3):
        qemu.io(f"read -P {number + 1} {number}M 1M")
    # And the rest of them with a full copy.
    pivoted(disk.copy(t.path("whole.qcow2")))
    assert [i["file"] for i in disk.chain()] == [t.path("whole.qcow2")]
    assert not {n["node-name"] for n in qemu("query-named-block-nodes", flat=True)} & left
    for number in range(3):
        qemu.io(f"read -P {number + 1} {number}M 1M")


def test_base_that_two_disks_share_stays_with_the_other(t):
    base = t.image("base.qcow2", fill="1M")
    tops = [t.image(f"{n}.qcow2", None, backing=base) for n in "ab"]
    qemu, s, domain = attached(t, tops)
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))
    assert [os.path.basename(i["file"]) for i in domain.disk("vdb").chain()] == ["b.qcow2", "base.qcow2"]
    qemu.io("read -P 90 0 1M", 0)
    qemu.io("read -P 90 0 1M", 1)


def test_base_node_that_two_disks_share_is_not_taken_away(t):
    base = t.image("base.qcow2", fill="1M")
    tops = [t.image(f"{n}.qcow2", None, backing=base) for n in "ab"]
    args = own(driver="qcow2", node_name="base", read_only=True, file={"driver": "file", "filename": base})
    for number, path in enumerate(tops):
        args += own(driver="qcow2", node_name=f"top{number}", file={"driver": "file", "filename": path},
                    backing="base") + ["-device", f"virtio-blk-pci,drive=top{number},id=vd{number}"]
    qemu, s, domain = attached(t, [], args=args)
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))
    qemu.io("read -P 90 0 1M", 1)
    assert [i["node"] for i in domain.disk("vdb").chain()] == ["top1", "base"]
    pivoted(domain.disk("vdb").copy(t.path("newer.qcow2")))
    assert "base" not in qemu.block_graph()[0]


# ---- names of files ----

def test_relative_file_names_are_seen_from_qemus_folder(t):
    """QEMU was started in the images' folder and knows them by name only."""
    folder = t.path("images")
    os.mkdir(folder)
    base = image_fill(image_create(f"{folder}/base.qcow2"), "qcow2", 0, "1M")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"],
        directory=folder).ok()
    here = os.getcwd()
    os.chdir(folder)
    try:
        qemu = t.qemu("web", [Drive("top.qcow2")])
    finally:
        os.chdir(here)
    # The other one is in the service's way, where the name would lead to.
    s = t.service()
    disk = s.attach("web", qemu.socket).disk("vda")
    assert disk.Source == f"{folder}/top.qcow2"
    assert [i["file"] for i in disk.chain()] == [f"{folder}/top.qcow2", base]
    refusal("SameImage", disk.copy, f"{folder}/top.qcow2", existing=True, format="qcow2")
    # What stands in a header in another folder is to lead to the same file.
    pivoted(disk.copy(t.path("new.qcow2"), sync="top", delete_source=True))
    assert not os.path.exists(f"{folder}/top.qcow2") and os.path.exists(base)
    qemu.drives[0].path = t.path("new.qcow2")
    restarted(qemu, t.path("new.qcow2"))
    qemu.io("read -P 90 0 1M")


def test_names_that_are_not_easy(t):
    """Blanks, quotes, commas, and what would be a prefix, an option or markup somewhere."""
    folder = t.path('a "b" & <c>')
    os.mkdir(folder)
    for name in "json:{}", "file:x,y=z", "-f", "ü – ß.qcow2":
        qemu = t.qemu(f"q{len(t.qemus)}", [t.image(f"old{len(t.qemus)}.qcow2", "8M", fill="1M")])
        s = t.services[0] if t.services else t.service()
        domain = s.attach(qemu.name, qemu.socket)
        pivoted(domain.disk("vda").copy(f"{folder}/{name}"))
        assert domain.disk("vda").Source == f"{folder}/{name}"
        assert domain.disk("vda").chain()[0]["file"] == f"{folder}/{name}"
        qemu.quit()
        pattern_at(f"{folder}/{name}" if name[0] == "-" else f"file:{folder}/{name}", "qcow2", 90, 0, "1M")


# ---- media, read-only disks ----

def test_cdrom_comes_and_goes(t):
    image = t.image("cd.raw", "8M", "raw", fill="1M")
    args = ["-device", "virtio-scsi-pci,id=bus", "-device", "scsi-cd,bus=bus.0,id=cdrom"]
    qemu, s, domain = attached(t, [t.image("old.qcow2", "8M")], args=args)
    cd = domain.disk("sda")
    assert (cd.Removable, cd.Source, cd.Node, cd.Size, cd.chain()) == (True, "", "", 0, [])
    qemu("blockdev-add", driver="raw", node_name="medium", read_only=True,
         file={"driver": "file", "filename": image})
    qemu("blockdev-open-tray", id="cdrom", force=True)
    qemu("blockdev-insert-medium", id="cdrom", node_name="medium")
    qemu("blockdev-close-tray", id="cdrom")
    wait_until(lambda: cd.Source == image, what="the medium")
    assert (cd.ReadOnly, cd.Size, cd.Format) == (True, 8 << 20, "raw")
    cd.copy(t.path("copy.raw"), format="raw").wait("ready").finish().wait_result("finished")
    qemu("blockdev-open-tray", id="cdrom", force=True)
    qemu("blockdev-remove-medium", id="cdrom")
    wait_until(lambda: cd.Source == "" and cd.Node == "", what="the empty drive")
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))
    qemu.quit()
    image_compare(image, t.path("copy.raw"), formats=("raw", "raw"))


def test_read_only_disk_stays_read_only(t):
    path = t.image("old.qcow2", fill="4M")
    qemu, s, domain = attached(t, [Drive(path, read_only=True)])
    disk = domain.disk("vda")
    assert disk.ReadOnly
    disk.copy(t.path("copy.qcow2")).wait("ready").finish().wait_result("finished")
    pivoted(disk.copy(t.path("new.qcow2")))
    assert disk.ReadOnly and disk.Source == t.path("new.qcow2")
    restarted(qemu, t.path("new.qcow2"))
    qemu.quit()
    image_compare(path, t.path("new.qcow2"))
    image_compare(path, t.path("copy.qcow2"))


# ---- disks that come and go ----

def plug(qemu, path, name):
    qemu("blockdev-add", driver="qcow2", node_name=name, file={"driver": "file", "filename": path})
    qemu("device_add", driver="virtio-blk-pci", id=f"dev-{name}", drive=name, bus="port0")


def test_hot_plugged_disk_is_seen_copied_and_unplugged(t):
    """Scenario 29."""
    port = ["-device", "pcie-root-port,id=port0,chassis=1"]
    qemu, s, domain = attached(t, [t.image("old.qcow2", "8M")], args=port)
    plug(qemu, t.image("hot.qcow2", fill="4M"), "hot")
    path = f"{domain.path}/disk/vdb"
    s.wait_signal("InterfacesAdded", ROOT, lambda x: x.args[0] == path)
    wait_until(lambda: names(domain) == ["vda", "vdb"], what="two disks")
    disk = domain.disk("vdb")
    assert disk.Source == t.path("hot.qcow2")
    pivoted(disk.copy(t.path("new.qcow2")))
    qemu("device_del", id="dev-hot")
    # The guest's part in it: there is none, so it is gone with the next reset.
    qemu("system_reset")
    gone = s.wait_signal("InterfacesRemoved", ROOT, lambda x: x.args[0] == path)
    assert Disk.INTERFACE in gone.args[1] and names(domain) == ["vda"]
    # Nobody else knows the names of what it stood on, and who wants the image finds it unlocked.
    wait_until(lambda: not [n for n in qemu.block_graph()[0] if n.startswith("bj-")], what="our nodes to go")
    image_fill(t.path("new.qcow2"), "qcow2", 0, "64k")
    # Its name is free for the next one.
    plug(qemu, t.image("again.qcow2", "8M"), "again")
    wait_until(lambda: names(domain) == ["vda", "vdb"] and disk.Source == t.path("again.qcow2"), what="the third disk")


def test_disk_that_is_unplugged_while_it_is_copied(t):
    """Scenario 29: QEMU lets the device go, and the job with its image stays: it is the copy's own end that counts."""
    port = ["-device", "pcie-root-port,id=port0,chassis=1"]
    qemu, s, domain = attached(t, [t.image("old.qcow2", "8M")], args=port)
    plug(qemu, t.image("hot.qcow2", fill="4M"), "hot")
    wait_until(lambda: names(domain) == ["vda", "vdb"], what="two disks")
    job = slow_copy(domain.disk("vdb"), t.path("new.qcow2"))
    qemu("device_del", id="dev-hot")
    qemu("system_reset")
    wait_until(lambda: names(domain) == ["vda"], what="one disk")
    assert job.State == "running" and job.path in domain.Jobs
    job.cancel().wait_result("cancelled")
    assert not os.path.exists(t.path("new.qcow2"))
    pivoted(domain.disk("vda").copy(t.path("a.qcow2")))
