# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Copy refuses: each with its own error and a sentence; and nothing has happened then: no file, node or job."""
import os
import struct

from copying import *
from gi.repository import GLib
from harness import *


def refusing(t, size="8M", **more):
    """(what must not change, QEMU, service, disk)"""
    qemu, s, disk = one_disk(t, fill="1M", size=size, **more)
    return Untouched(t, s, qemu), qemu, s, disk


# ---- words ----

# Options for a new target, and words of the sentence.
NEW = [
    ({"colour": "red"}, '"colour"'),
    ({"speed": "fast"}, '"speed" must have the D-Bus type t'),
    ({"speed": GLib.Variant("u", 1)}, '"speed" must have the D-Bus type t'),
    ({"speed": 1 << 63}, "speed"),
    ({"force": "yes"}, '"force" must have the D-Bus type b'),
    ({"format": "vmdk"}, '"qcow2" or "raw"'),
    ({"sync": "some"}, '"full", "top" or "none"'),
    ({"format": "raw", "sync": "top"}, "raw image cannot have a backing file"),
    ({"sync": "none", "on_ready": "pivot"}, "only new writes"),
    ({"backing": "/base", "backing_format": "raw"}, 'only with sync "top"'),
    ({"sync": "top", "backing": "/base", "backing_format": "raw"}, "the source's own backing file"),
    ({"sync": "top", "backing": "base"}, "absolute path"),
    ({"backing_format": "raw"}, 'only together with "backing"'),
    ({"copy_mode": "sideways"}, '"background" or "write-blocking"'),
    ({"granularity": 3}, "granularity"),
    ({"granularity": 256}, "granularity"),
    ({"granularity": 128 << 20}, "granularity"),
    ({"granularity": 4 << 20, "buf_size": 1 << 20}, "at least the granularity"),
    ({"buf_size": (1 << 30) + 1}, "buf-size"),
    ({"cluster_size": 1000}, "cluster-size"),
    ({"cluster_size": 4 << 20}, "cluster-size"),
    ({"cluster_size": 65536, "format": "raw"}, "no clusters"),
    ({"preallocation": "some"}, "preallocation"),
    ({"preallocation": "metadata", "format": "raw"}, "raw image can have"),
    ({"on_source_error": "ignore"}, "on-source-error"),
    ({"on_target_error": "ignore"}, "on-target-error"),
    ({"on_ready": "explode"}, '"wait", "pivot" or "finish"'),
    ({"discard": "maybe"}, '"unmap" or "ignore"'),
    ({"detect_zeroes": "maybe"}, "detect-zeroes"),
    ({"detect_zeroes": "unmap", "discard": "ignore"}, 'needs discard "unmap"'),
    ({"cache": "none"}, '"direct" or "writeback"'),
    ({"aio": "io_uring"}, '"native" or "threads"'),
    ({"aio": "native", "cache": "writeback"}, 'needs cache "direct"'),
    ({"max_pause": 1 << 63}, "max-pause"),
    ({"request_id": "x" * 65}, "64 characters"),
    ({"request_id": ""}, "1 to 64 characters"),
    ({"request_id": "a\nb"}, "no control characters"),
]

# The same for a target that is there.
EXISTING = [
    ({"format": None}, "never guessed"),
    ({"preallocation": "metadata"}, "preallocation: only for a new target"),
    ({"cluster_size": 65536}, "cluster-size: only for a new target"),
    ({"sync": "top"}, "name the backing file"),
    ({"sync": "top", "backing": "/base"}, "say the format of the backing file"),
]


def test_options_that_make_no_sense_name_the_key(t):
    nothing, qemu, s, disk = refusing(t)
    messages = {nothing.refuses("InvalidArgs", words, disk.copy, t.path("new.qcow2"), **o) for o, words in NEW}
    many = {f"key{n}": True for n in range(65)}
    messages.add(nothing.refuses("InvalidArgs", "At most 64", disk.copy, t.path("new.qcow2"), **many))
    # A number out of range and a word that is none are told with their own sentence each.
    assert len(messages) >= len(NEW) - 2, sorted(messages)


def test_options_that_make_no_sense_for_a_target_that_is_there(t):
    path = t.image("new.qcow2", "8M")
    nothing, qemu, s, disk = refusing(t)
    for more, words in EXISTING:
        o = {k: v for k, v in {"format": "qcow2", **more}.items() if v is not None}
        nothing.refuses("InvalidArgs", words, disk.copy, path, existing=True, **o)
        with open(path, "r+b") as f:
            nothing.refuses("InvalidArgs", words, disk.copy, "it", fd=f, **o)
    with open(path, "r+b") as f:
        nothing.refuses("InvalidArgs", "existing target anyway", disk.copy, path, fd=f, existing=True, format="raw")


def test_a_key_that_is_given_twice(t):
    nothing, qemu, s, disk = refusing(t)
    builder = GLib.VariantBuilder.new(GLib.VariantType("a{sv}"))
    for value in True, False:
        builder.add_value(GLib.Variant.new_dict_entry(GLib.Variant("s", "force"),
                                                      GLib.Variant.new_variant(GLib.Variant("b", value))))

    def copy():
        args = GLib.Variant.new_tuple(GLib.Variant("s", t.path("new.qcow2")), builder.end())
        try:
            s.conn.gio.call_sync(PREFIX, disk.path, Disk.INTERFACE, "Copy", args, None, 0, 20000, None)
        except GLib.Error as e:
            raise BusError(*e.message.removeprefix("GDBus.Error:").split(": ", 1)) from None
    nothing.refuses("InvalidArgs", "given twice", copy)


# ---- paths ----

def test_paths_that_are_none(t):
    nothing, qemu, s, disk = refusing(t)
    for path, words in (
            ("", "not an absolute path"),
            ("new.qcow2", "not an absolute path"),
            ("nbd://host/export", "not an absolute path"),
            ('json:{"driver":"nbd"}', "not an absolute path"),
            ("fat:rw:/etc", "not an absolute path"),
            (t.folder + "/", "names a folder"),
            (f"{t.folder}/a/../new.qcow2", "without detours"),
            (f"{t.folder}//new.qcow2", "without detours"),
            (f"{t.folder}/new\n.qcow2", "control characters"),
            (t.path("x" * 256), "longer than 255"),
            ("/x" * 2048, "longer than"),
            (t.path("none/new.qcow2"), "The folder"),
            (t.path("old.qcow2/new.qcow2"), "not a folder")):
        nothing.refuses("BadTarget", words, disk.copy, path)
    nothing.refuses("InvalidArgs", "at most 4096 bytes", disk.copy, "/x" * 3000)


def test_things_that_are_no_files(t):
    os.mkfifo(t.path("pipe"))
    os.mkdir(t.path("folder"))
    os.symlink(t.path("nowhere"), t.path("link"))
    os.symlink(t.folder, t.path("linked-folder"))
    t.image("real.qcow2", "8M")
    nothing, qemu, s, disk = refusing(t)
    for path, words in (
            (t.path("folder"), "is a folder"),
            (t.path("pipe"), "is a pipe"),
            ("/dev/null", "is a character device"),
            (t.path("link"), "symbolic link"),
            (t.path("linked-folder/real.qcow2"), "symbolic link")):
        for more in {}, {"existing": True, "format": "qcow2"}:
            message = nothing.refuses("BadTarget", words, disk.copy, path, **more)
    # It says what the path should have been.
    assert t.path("real.qcow2") in message
    nothing.refuses("BadTarget", "symbolic link", disk.copy, t.path("linked-folder/new.qcow2"))


def test_files_that_are_there_or_not(t):
    path = t.image("there.qcow2", "8M")
    open(t.path("empty"), "w").close()
    nothing, qemu, s, disk = refusing(t)
    for name in path, t.path("empty"):
        nothing.refuses("TargetExists", "exists already", disk.copy, name)
    for name in t.path("missing"), t.path("none/missing"):
        nothing.refuses("TargetMissing", "does not exist", disk.copy, name, existing=True, format="raw")


def test_a_read_only_place(t):
    place = small_place(t, "ro", "16m")
    image_create(f"{place}/there.raw", "8M", "raw")
    run(["mount", "-o", "remount,ro", place]).ok()
    nothing, qemu, s, disk = refusing(t)
    nothing.refuses("BadTarget", "read-only file system", disk.copy, f"{place}/new.qcow2")
    nothing.refuses("BadTarget", "read-only file system", disk.copy, f"{place}/there.raw", existing=True, format="raw")


def test_descriptors_that_cannot_be_written(t):
    path = t.image("new.raw", "8M", "raw")
    reader, writer = os.pipe()
    nothing, qemu, s, disk = refusing(t)
    for flags, words in ((os.O_RDONLY, "not open for reading and writing"), (os.O_WRONLY, "not open for reading"),
                         (os.O_PATH, "not open for reading"), (os.O_RDWR | os.O_APPEND, "O_APPEND"),
                         (os.O_RDWR | os.O_SYNC, "O_SYNC")):
        fd = os.open(path, flags)
        nothing.refuses("BadTarget", words, disk.copy, "it", fd=fd, format="raw")
        os.close(fd)
    for fd in reader, writer, os.open(t.folder, os.O_RDONLY), os.open("/dev/null", os.O_RDWR):
        assert refusal("BadTarget", disk.copy, "it", fd=fd, format="raw")
    nothing.check()


# ---- images ----

def test_images_of_another_size(t):
    device = block_device(t, "device", 7 << 20)
    for name, size in ("small", "7M"), ("large", "9M"):
        t.image(f"{name}.raw", size, "raw")
        t.image(f"{name}.qcow2", size)
    nothing, qemu, s, disk = refusing(t)
    for name, format in (("small.raw", "raw"), ("small.qcow2", "qcow2")):
        nothing.refuses("TargetTooSmall", "7340032 bytes", disk.copy, t.path(name), existing=True, format=format)
        with open(t.path(name), "r+b") as f:
            nothing.refuses("TargetTooSmall", "7340032 bytes", disk.copy, name, fd=f, format=format)
    nothing.refuses("TargetTooSmall", "7340032 bytes", disk.copy, device, existing=True, format="raw")
    for name, format in (("large.raw", "raw"), ("large.qcow2", "qcow2")):
        nothing.refuses("BadTarget", "must have the same size", disk.copy, t.path(name), existing=True, format=format)


def changed_header(path, offset, form, value):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(struct.pack(form, value))
    return path


def test_images_that_are_not_what_they_should_be(t):
    """QEMU would open another file for each of these, or write into it what is not meant."""
    base = t.image("base.qcow2", "8M")
    images = [
        (t.image("zeroes.qcow2", "8M", "raw"), "BadTarget", "qcow2"),
        (t.image("data.qcow2", "8M", options=f"data_file={t.path('data.raw')},data_file_raw=on"), "BadTarget",
         "keeps its data in another file"),
        (t.image("backed.qcow2", "8M", backing=base), "BadTarget", "has a backing file"),
        # Incompatible features: bit 1 corrupt, bit 40 nobody knows.
        (changed_header(t.image("corrupt.qcow2", "8M"), 72, ">Q", 2), "BadTarget", "marked corrupt"),
        (changed_header(t.image("newer.qcow2", "8M"), 72, ">Q", 1 << 40), "BadTarget", "unknown newer kind"),
        (changed_header(t.image("version.qcow2", "8M"), 4, ">I", 9), "BadTarget", "version"),
        (changed_header(t.image("encrypted.qcow2", "8M"), 32, ">I", 2), "NotSupported", "encrypted"),
    ]
    nothing, qemu, s, disk = refusing(t)
    for path, error, words in images:
        nothing.refuses(error, words, disk.copy, path, existing=True, format="qcow2")
        with open(path, "r+b") as f:
            nothing.refuses(error, words, disk.copy, os.path.basename(path), fd=f, format="qcow2")


def test_backing_files_that_are_not_the_disks_own(t):
    base = t.image("base.qcow2", "8M")
    other = t.image("other.qcow2", "8M")
    top = t.image("top.qcow2", None, backing=base)
    t.image("good.qcow2", None, backing=base)
    t.image("bad.qcow2", None, backing=other)
    t.image("alone.qcow2", "8M")
    qemu, s, domain = attached(t, [top, t.image("single.qcow2", "8M")])
    disk, single = domain.disks()
    nothing = Untouched(t, s, qemu)
    o = {"existing": True, "format": "qcow2", "sync": "top", "backing_format": "qcow2"}
    nothing.refuses("NotInChain", base, disk.copy, t.path("bad.qcow2"), backing=other, **o)
    nothing.refuses("BadTarget", "names", disk.copy, t.path("bad.qcow2"), backing=base, **o)
    nothing.refuses("BadTarget", "nothing", disk.copy, t.path("alone.qcow2"), backing=base, **o)
    nothing.refuses("NotInChain", "no backing file", single.copy, t.path("good.qcow2"), backing=base, **o)
    # A format that is not the one that runs would be opened wrongly at the next start.
    nothing.refuses("NotInChain", "qcow2", disk.copy, t.path("good.qcow2"), backing=base,
                    **{**o, "backing_format": "raw"})


def test_images_of_the_disk_itself(t):
    base = t.image("base.qcow2", "8M")
    top = t.image("top.qcow2", None, backing=base)
    os.link(top, t.path("alias.qcow2"))
    qemu, s, domain = attached(t, [top])
    disk = domain.disk("vda")
    nothing = Untouched(t, s, qemu)
    for path in top, t.path("alias.qcow2"), base:
        nothing.refuses("SameImage", "disk \"vda\" itself", disk.copy, path, existing=True, format="qcow2")
        with open(path, "r+b") as f:
            nothing.refuses("SameImage", "disk \"vda\" itself", disk.copy, "it", fd=f, format="qcow2")


def test_images_that_somebody_uses(t):
    """Another machine, also one that the service does not know, and the host itself."""
    device = block_device(t, "device", 8 << 20)
    private_mounts()
    run(["mkfs.ext4", "-q", device]).ok()
    os.mkdir(t.path("mounted"))
    run(["mount", "-o", "ro", device, t.path("mounted")]).ok()
    used = t.qemu("other", [t.image("used.qcow2", "8M")])
    nothing, qemu, s, disk = refusing(t)
    nothing.refuses("TargetInUse", "another target", disk.copy, t.path("used.qcow2"), existing=True, format="qcow2")
    with open(t.path("used.qcow2"), "r+b") as f:
        nothing.refuses("TargetInUse", "another target", disk.copy, "it", fd=f, format="qcow2")
    nothing.refuses("TargetInUse", "mounted", disk.copy, device, existing=True, format="raw")
    run(["umount", t.path("mounted")]).ok()
    used.quit()
    pivoted(disk.copy(t.path("used.qcow2"), existing=True, format="qcow2"))


def test_a_place_that_is_too_small(t):
    place = small_place(t, "small", "1m")
    nothing, qemu, s, disk = refusing(t)
    message = nothing.refuses("NoSpace", "force", disk.copy, f"{place}/new.qcow2")
    assert "free" in message and "need" in message
    nothing.refuses("NoSpace", "force", disk.copy, f"{place}/new.raw", format="raw", preallocation="falloc")
    # It looked too small, and it is.
    job = disk.copy(f"{place}/new.qcow2", force=True)
    wait_until(lambda: job.IoStatus == "no-space", what="the full target")
    job.cancel().wait_result("cancelled")


# ---- the disk and its domain ----

def test_an_empty_drive(t):
    cdrom = ["-drive", "if=none,id=cd", "-device", "ide-cd,drive=cd,id=cdrom"]
    qemu, s, domain = attached(t, [t.image("old.qcow2", "8M")], args=cdrom)
    nothing = Untouched(t, s, qemu)
    empty, = [d for d in domain.disks() if d.Removable]
    nothing.refuses("NoSuchDisk", "empty drive", empty.copy, t.path("new.qcow2"))


def test_a_disk_that_is_not_there(t):
    nothing, qemu, s, disk = refusing(t)
    missing = Disk(s, disk.path.replace("vda", "vdz"))
    try:
        missing.copy(t.path("new.qcow2"))
        raise AssertionError("a copy of nothing")
    except BusError as e:
        assert e.short in ("UnknownObject", "NoSuchDisk"), e
    nothing.check()


def test_a_chain_that_is_too_long(t):
    """201 images: their headers differ in the name of the backing file only."""
    os.mkdir(t.path("c"))
    first = image_create(t.path("c/000"), "8M")
    with open(image_create(t.path("c/001"), None, backing=first), "rb") as f:
        header = f.read()
    for n in range(2, 201):
        with open(t.path(f"c/{n:03}"), "wb") as f:
            f.write(header.replace(b"c/000", f"c/{n - 1:03}".encode()))
    qemu, s, domain = attached(t, [t.path("c/200")])
    nothing = Untouched(t, s, qemu)
    nothing.refuses("NotSupported", "more than 200", domain.disk("vda").copy, t.path("new.qcow2"))


def test_a_disk_that_is_busy(t):
    qemu, s, disk = one_disk(t)
    job = slow_copy(disk, t.path("new.qcow2"))
    message = refusal("DiskBusy", disk.copy, t.path("other.qcow2"))
    assert f"job {job.id} " in message and "vda" in message
    assert not os.path.exists(t.path("other.qcow2")) and len(s.jobs()) == 1 and len(qemu.jobs()) == 1


def test_a_disk_that_is_shared(t):
    """Another machine may write to it; of a qcow2 only one may do that."""
    args = ["-blockdev", f"driver=raw,node-name=disk,file.driver=file,file.filename={t.image('old.raw', '8M', 'raw')}",
            "-device", "virtio-blk-pci,drive=disk,id=vd,share-rw=on"]
    qemu, s, domain = attached(t, [], args=args)
    nothing = Untouched(t, s, qemu)
    nothing.refuses("NotSupported", "shared", domain.disk("vda").copy, t.path("new.qcow2"))


def test_a_mode_that_would_kill_qemu(t):
    """7.2 crashes when the writes of an iothread's disk wait for the copy."""
    qemu, s, domain = attached(t, [Drive(t.image("old.qcow2", "8M"), iothread=True)])
    disk = domain.disk("vda")
    if qemu.version() < (8, 2, 0):
        nothing = Untouched(t, s, qemu)
        nothing.refuses("NotSupported", "background", disk.copy, t.path("new.qcow2"), copy_mode="write-blocking")
    else:
        disk.copy(t.path("new.qcow2"), copy_mode="write-blocking").wait("ready").cancel().wait_result("cancelled")
    pivoted(disk.copy(t.path("new.qcow2"), copy_mode="background"))


def test_a_pivot_of_a_disk_that_is_exported(t):
    """A client that connects in the middle of the switch gets past the hold that makes both images the same."""
    qemu, s, disk = one_disk(t)
    qemu("nbd-server-start", addr={"type": "unix", "data": {"path": t.path("nbd")}})
    qemu("block-export-add", type="nbd", id="export", node_name="libvirt-1-format", name="disk")
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    # An export that the service has not heard of when the order comes is seen before anything is switched.
    try:
        job.pivot()
    except BusError as e:
        assert e.short == "NotSupported" and "export" in e.message
    else:
        wait_until(lambda: job.ErrorName.endswith(".NotSupported") and "export" in job.ErrorMessage, what="backed out")
    wait_until(lambda: job.State == "ready", what="ready again")
    assert disk.Source != t.path("new.qcow2")
    qemu("block-export-del", id="export")
    qemu.wait_event("BLOCK_EXPORT_DELETED")

    def allowed():
        try:
            return job.pivot()
        except BusError as e:  # the service hears of it a moment later
            assert e.short == "NotSupported"
    wait_until(allowed, what="the pivot allowed")
    job.wait_result("pivoted")


def test_a_domain_that_does_not_answer(t):
    images = [t.image("a.qcow2", "8M"), t.image("b.qcow2", "8M")]
    qemu, s, domain = attached(t, images, "[Qemu]\nCommandTimeout=300ms\n")
    one, two = domain.disks()
    qemu.freeze()
    # It is noticed with the first command that stays without an answer: at the latest with that of a job.
    job = one.copy(t.path("a.new"))
    domain.wait_state("unresponsive")
    nothing = Untouched(t, s)
    nothing.refuses("DomainUnresponsive", "does not answer", two.copy, t.path("b.new"))
    qemu.thaw()
    pivoted(job)
    pivoted(two.copy(t.path("b.new")))


def test_a_domain_that_is_gone(t):
    nothing, qemu, s, disk = refusing(t)
    qemu.kill()
    Domain(s, disk.Domain).wait_state("disconnected")
    del nothing.before["QEMU"]
    nothing.refuses("DomainNotRunning", "not running", disk.copy, t.path("new.qcow2"))


# ---- the service ----

def fill_up(place):
    fd = os.open(f"{place}/ballast", os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(fd, bytes(4096)):
            pass
    except OSError:
        os.close(fd)


def test_too_many_jobs(t):
    images = [t.image(f"{n}.qcow2", fill="2M") for n in range(3)]
    qemu, s, domain = attached(t, images, "[Limits]\nMaxJobsPerUser=1\nMaxJobs=2\n")
    t.fake_polkit()
    a, b, c = domain.disks()
    first = slow_copy(a, t.path("a.new"))
    assert "1 of yours" in refusal("LimitReached", b.copy, t.path("b.new"))
    other = s.client(1000)
    second = Disk(other, b.path).copy(t.path("b.new"), speed=1, buf_size=1 << 20)
    third = s.client(65534)
    assert "2 in all" in refusal("LimitReached", Disk(third, c.path).copy, t.path("c.new"))
    assert not os.path.exists(t.path("c.new"))
    first.cancel().wait_result("cancelled")
    pivoted(a.copy(t.path("a.new")))
    Job(s, second.path).wait("running")


def test_a_journal_that_is_full(t):
    """New jobs are refused; what was asked for before waits until there is room, and the running copy goes on."""
    place = small_place(t, "state", "2m")
    qemu = t.qemu("web", [t.image("old.qcow2", fill="4M"), t.image("other.qcow2", "8M")])
    s = t.service(args=[f"--state-dir={place}"])
    s.state_dir = place
    domain = s.attach("web", qemu.socket)
    one, two = domain.disks()
    job = slow_copy(one, t.path("a.new"))
    fill_up(place)
    calls = []

    def write_on():
        """What room there is inside the journal's own files is written over until there is none."""
        if not calls or calls[-1].done:
            word = "finish" if len(calls) % 2 else "wait"
            calls.append(s.conn.call_async(job.path, Job.INTERFACE, "SetOnReady", "(s)", (word,), timeout=60))
        return s.manager.JournalState == "full"
    wait_until(write_on, 60, "the full journal", interval=0.001)
    assert not calls[-1].done
    assert place in refusal("Journal", two.copy, t.path("b.new"))
    assert not os.path.exists(t.path("b.new")) and len(qemu.jobs()) == 1
    run(["mount", "-o", "remount,size=32m", place]).ok()
    calls[-1].result()
    wait_until(lambda: s.manager.JournalState != "full", what="the journal that can be written again")
    pivoted(two.copy(t.path("b.new")))
    job.set_on_ready("wait")
    job.set_speed(0)
    pivoted(job)
