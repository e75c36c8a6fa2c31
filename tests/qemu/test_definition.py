# SPDX-License-Identifier: LGPL-2.1-or-later
"""The domain's definition is kept in step with its disks, and nothing else in it is touched."""
import os
import re
from xml.etree import ElementTree

from copying import *
from harness import *

TEXT = """<?xml version='1.0' encoding="UTF-8"?>
<!-- Kept by hand: don't reformat! -->
<domain  type='qemu' >
\t<name>web</name>
  <description>Büro &amp; Co. &#x2014; "quotes" and 'quotes'</description>
  <metadata><x:y xmlns:x="urn:x"><disk><target dev="vda"/><source file="{old}"/></disk></x:y></metadata>
  <devices>
    <disk type='file' device='disk'><!-- the first -->
      <driver name='qemu' type='qcow2'   cache="none"/>
      <source file='{old}'/>
      <target dev='vda' bus='virtio'/>
      <serial>0815</serial>
    </disk>
    <disk device="disk" type="file">
      <target bus="virtio" dev="vdb"/>
      <source file="{other}"></source>
      <driver type="qcow2" name="qemu"></driver>
    </disk>
  </devices>
</domain>

<!-- the end -->
"""


def defined(t, text=TEXT, folder=None, fill="4M", config=""):
    """(QEMU, service, domain, path of the definition) with two disks."""
    old, other = t.image("old.qcow2", fill=fill), t.image("other.qcow2", "8M")
    path = os.path.join(folder or t.folder, "web.xml")
    with open(path, "w") as f:
        f.write(text.format(old=old, other=other))
    qemu = t.qemu("web", [old, other])
    s = t.service(config)
    return qemu, s, s.attach("web", qemu.socket, definition=path), path


def read(path):
    with open(path, newline="") as f:
        return f.read()


def disk_of(text, name):
    tree = ElementTree.fromstring(text)
    return next(d for d in tree.findall("devices/disk") if d.find("target").get("dev") == name)


def leftovers(path):
    folder, base = os.path.split(path)
    return [n for n in os.listdir(folder) if n.startswith(base) and n != base]


# ---- the file ----

def test_pivot_changes_the_source_and_no_other_byte(t):
    qemu, s, domain, path = defined(t)
    before = read(path)
    os.chown(path, 1234, 2345)
    os.chmod(path, 0o640)
    assert domain.Definition == path
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))
    after = read(path)
    # The text in <metadata> is not a disk.
    head, tail = before.split("<source file='")
    assert after == head + "<source file='" + tail.replace(t.path("old.qcow2"), t.path("new.qcow2"), 1)
    st = os.stat(path)
    assert (st.st_uid, st.st_gid, st.st_mode & 0o7777) == (1234, 2345, 0o640) and leftovers(path) == []
    pivoted(domain.disk("vdb").copy(t.path("other.raw"), format="raw"))
    assert read(path) == after.replace(f'"{t.path("other.qcow2")}"', f'"{t.path("other.raw")}"').replace(
        '<driver type="qcow2"', '<driver type="raw"')


def test_pivot_to_a_block_device_changes_the_type(t):
    device = block_device(t, "device", 64 << 20)
    qemu, s, domain, path = defined(t)
    pivoted(domain.disk("vda").copy(device, existing=True, format="raw"))
    disk = disk_of(read(path), "vda")
    assert disk.get("type") == "block" and disk.find("source").attrib == {"dev": device}
    assert disk.find("driver").get("type") == "raw" and disk.find("driver").get("cache") == "none"


def test_other_ends_leave_the_definition_alone(t):
    qemu, s, domain, path = defined(t)
    before, identity = read(path), os.stat(path).st_ino
    for end in "finish", "cancel":
        job = domain.disk("vda").copy(t.path(f"{end}.qcow2")).wait("ready")
        getattr(job, end)().wait("concluded")
    lost = slow_copy(domain.disk("vda"), t.path("lost.qcow2"))
    qemu.kill()
    lost.wait_result("lost")
    assert read(path) == before and os.stat(path).st_ino == identity and leftovers(path) == []


def test_the_definition_is_replaced_whole(t):
    """Who has it open reads the old text to its end; what is there by name is the new one, never a half."""
    qemu, s, domain, path = defined(t)
    before = read(path)
    texts = set()
    with open(path) as early:
        identity = os.fstat(early.fileno()).st_ino
        job = domain.disk("vda").copy(t.path("new.qcow2")).wait("ready")
        job.pivot()
        wait_until(lambda: texts.add(read(path)) or job.State == "concluded", what="the end", interval=0.0005)
        assert early.read() == before and os.stat(path).st_ino != identity
    texts.add(read(path))
    assert texts <= {before, read(path)} and read(path) != before


def test_a_text_that_was_edited_meanwhile_is_kept(t):
    """The administrator's changes since the attach are in it after the pivot."""
    qemu, s, domain, path = defined(t)
    job = domain.disk("vda").copy(t.path("new.qcow2")).wait("ready")
    with open(path, "w") as f:
        f.write(TEXT.format(old=t.path("old.qcow2"), other=t.path("other.qcow2")).replace("0815", "4711"))
    pivoted(job)
    assert "<serial>4711</serial>" in read(path)
    assert disk_of(read(path), "vda").find("source").get("file") == t.path("new.qcow2")


# ---- a pivot that cannot be written down is none ----

def stays_ready(job, disk, source, words):
    """The order is taken, cannot be carried out, and the job is what it was."""
    before = job.states().count("pivoting")
    job.pivot()
    wait_until(lambda: job.states().count("pivoting") == before + 1 and job.states()[-1] == "ready",
               what=lambda: f"the job to be ready again: {job.states()}")
    assert job.State == "ready" and job.ErrorName
    assert words in sentence(job.ErrorMessage), job.ErrorMessage
    assert "stays on its source" in job.ErrorMessage and disk.Source == source


def test_a_definition_that_cannot_be_written_any_more(t):
    place = small_place(t, "etc", "1m")
    qemu, s, domain, path = defined(t, folder=place)
    before = read(path)
    disk = domain.disk("vda")
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    run(["mount", "-o", "remount,ro", place]).ok()
    stays_ready(job, disk, t.path("old.qcow2"), "Read-only file system")
    assert read(path) == before and job.ErrorName == f"{PREFIX}.Error.Journal"
    qemu.io("write -P 1 8M 64k")
    run(["mount", "-o", "remount,rw", place]).ok()
    pivoted(job)
    assert job.ErrorName == "" and disk_of(read(path), "vda").find("source").get("file") == t.path("new.qcow2")
    assert leftovers(path) == []


def test_a_definition_whose_place_is_full(t):
    place = small_place(t, "etc", "1m")
    qemu, s, domain, path = defined(t, folder=place)
    disk = domain.disk("vda")
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    fd = os.open(f"{place}/ballast", os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(fd, bytes(4096)):
            pass
    except OSError:
        os.close(fd)
    stays_ready(job, disk, t.path("old.qcow2"), "No space left")
    assert leftovers(path) == []
    os.unlink(f"{place}/ballast")
    pivoted(job)


def test_a_definition_that_has_become_something_else(t):
    qemu, s, domain, path = defined(t)
    disk, text = domain.disk("vda"), read(path)
    job = disk.copy(t.path("new.qcow2")).wait("ready")
    os.rename(path, t.path("away.xml"))
    stays_ready(job, disk, t.path("old.qcow2"), path)
    os.symlink(t.path("away.xml"), path)
    stays_ready(job, disk, t.path("old.qcow2"), path)
    os.unlink(path)
    os.mkdir(path)
    stays_ready(job, disk, t.path("old.qcow2"), path)
    os.rmdir(path)
    for broken in text.replace("</devices>", ""), text.replace('dev=\'vda\'', 'dev=\'vdz\''), "<network/>":
        with open(path, "w") as f:
            f.write(broken)
        stays_ready(job, disk, t.path("old.qcow2"), "")
        assert read(path) == broken
    with open(path, "w") as f:
        f.write(text)
    pivoted(job)


def test_a_promised_pivot_that_cannot_be_written_down_is_said(t):
    qemu, s, domain, path = defined(t)
    text = read(path)
    job = slow_copy(domain.disk("vda"), t.path("new.qcow2"), on_ready="pivot")
    os.unlink(path)
    job.set_speed(0)
    wait_until(lambda: job.ErrorName and job.State == "ready", what="the error")
    # It is not tried again and again: whoever has put it right says so.
    assert job.OnReady == "wait"
    with open(path, "w") as f:
        f.write(text)
    job.set_on_ready("pivot")
    job.wait_result("pivoted")


def test_definitions_that_are_none_are_refused_at_once(t):
    qemu = t.qemu("web", [t.image("old.qcow2", "8M")])
    s = t.service()
    for name, text in (("empty", ""), ("other", "<network/>"), ("entity", '<!DOCTYPE d [<!ENTITY e "x">]><domain/>'),
                       ("large", f"<domain>{' ' * (256 << 10)}</domain>"), ("open", "<domain>")):
        with open(t.path(name), "w") as f:
            f.write(text)
        assert refusal("InvalidArgs", s.attach, "web", qemu.socket, definition=t.path(name)), name
    os.symlink(t.path("open"), t.path("link"))
    for name in "missing", "link":
        assert refusal("InvalidArgs", s.attach, "web", qemu.socket, definition=t.path(name))
    refusal("InvalidArgs", s.attach, "web", qemu.socket, definition="relative.xml")
    assert s.domains() == {}


# ---- names from the definition ----

def test_disks_have_the_names_of_the_definition(t):
    """By alias or by source; the order of the devices counts for nothing."""
    old, other = t.image("old.qcow2", "8M"), t.image("other.qcow2", "8M")
    os.symlink(other, t.path("link.qcow2"))
    path = t.path("web.xml")
    with open(path, "w") as f:
        f.write(f"""<domain><devices>
<disk type='file'><source file='{old}'/><target dev='hdx'/></disk>
<disk type='file'><source file='{t.path("link.qcow2")}'/><target dev='xvda'/><alias name='virtio-disk1'/></disk>
</devices></domain>""")
    qemu = t.qemu("web", [old, other])
    s = t.service()
    domain = s.attach("web", qemu.socket, definition=path)
    assert {d.Name: d.Source for d in domain.disks()} == {"hdx": old, "xvda": other}
    pivoted(domain.disk("hdx").copy(t.path("new.qcow2")))
    s.restart()
    wait_until(lambda: domain.path in s.domains() and domain.State == "paused", what="the domain")
    assert {d.Name: d.Source for d in domain.disks()} == {"hdx": t.path("new.qcow2"), "xvda": other}


# ---- GetXML ----

def mirror(domain, name="vda"):
    element = disk_of(domain.xml(), name).find("mirror")
    return None if element is None else element


def test_live_xml_tells_of_the_copy_before_while_and_after(t):
    qemu, s, domain, path = defined(t)
    before = read(path)
    disk = domain.disk("vda")
    assert mirror(domain) is None
    job = slow_copy(disk, t.path("new.qcow2"))
    element = mirror(domain)
    assert element.get("type") == "file" and element.get("job") == "copy" and element.get("ready") is None
    assert element.find("source").get("file") == t.path("new.qcow2")
    assert element.find("format").get("type") == "qcow2"
    assert disk_of(domain.xml(), "vda").find("source").get("file") == t.path("old.qcow2")
    assert mirror(domain, "vdb") is None
    job.set_speed(0)
    job.wait("ready")
    assert mirror(domain).get("ready") == "yes"
    # What is live is nowhere in the definition.
    assert domain.xml(persistent=True) == read(path) == before
    job.pivot().wait_result("pivoted")
    assert mirror(domain) is None
    assert disk_of(domain.xml(), "vda").find("source").get("file") == t.path("new.qcow2")
    assert domain.xml(persistent=True) == read(path) != before


def test_live_xml_never_disagrees_with_the_job(t):
    """Read again and again while it is pivoted: the mirror goes when the source changes, not before and not after."""
    qemu, s, domain, path = defined(t)
    job = domain.disk("vda").copy(t.path("new.qcow2")).wait("ready")
    job.pivot()
    seen = set()

    def look():
        disk = disk_of(domain.xml(), "vda")
        seen.add((os.path.basename(disk.find("source").get("file")), disk.find("mirror") is not None))
        return job.State == "concluded"
    wait_until(look, what="the end", interval=0.0005)
    look()
    assert seen <= {("old.qcow2", True), ("new.qcow2", False), ("new.qcow2", True)} and ("new.qcow2", False) in seen
    assert ("old.qcow2", False) not in seen, seen


def test_live_xml_has_the_chain(t):
    base = t.image("base.qcow2", "8M")
    mid = t.image("mid.qcow2", None, backing=base)
    top = t.image("top.qcow2", None, backing=mid)
    qemu, s, domain = attached(t, [top])
    names = []
    element = disk_of(domain.xml(), "vda")
    names.append(element.find("source").get("file"))
    while (element := element.find("backingStore")) is not None and element.find("source") is not None:
        names.append(element.find("source").get("file"))
        assert element.find("format").get("type") == "qcow2"
    assert names == [top, mid, base] and element is not None and len(element) == 0


def test_live_xml_without_a_definition(t):
    """And there is no persistent one then."""
    qemu = t.qemu("web", [t.image("old.qcow2", "8M"), Drive(t.image("b.qcow2", "8M"), bus="scsi", read_only=True)],
                  uuid="01234567-89ab-cdef-0123-456789abcdef")
    s = t.service()
    domain = s.attach("web", qemu.socket)
    tree = ElementTree.fromstring(domain.xml())
    assert (tree.find("name").text, tree.find("uuid").text) == ("web", "01234567-89ab-cdef-0123-456789abcdef")
    assert disk_of(domain.xml(), "sda").find("readonly") is not None
    assert disk_of(domain.xml(), "vda").find("readonly") is None
    job = slow_copy(domain.disk("vda"), t.path('a "b" & <c>.qcow2'))
    assert mirror(domain).find("source").get("file") == job.Target
    assert "definition" in refusal("NotSupported", domain.xml, persistent=True)
    assert "persistent" in refusal("InvalidArgs", domain.xml, persistent="yes")
    assert re.match(r"<(\?xml|domain)", domain.xml())


def test_a_pivot_that_is_found_after_a_restart_is_written_down(t):
    """Nobody had written the new text beforehand: the switch was done while the service was away."""
    qemu, s, domain, path = defined(t)
    job = domain.disk("vda").copy(t.path("new.qcow2")).wait("ready")
    s.kill()
    other, = qemu.jobs()
    qemu("job-complete", id=other)
    qemu.wait_event("BLOCK_JOB_PENDING")
    qemu("job-finalize", id=other)
    s.start()
    job.wait_result("pivoted")
    assert disk_of(read(path), "vda").find("source").get("file") == t.path("new.qcow2") and leftovers(path) == []
