# SPDX-License-Identifier: LGPL-2.1-or-later
"""The units: what they allow, what they forbid, and what an administrator does with them."""
import os
import shutil
import socket

from harness import *
from machine import *

DOCUMENTATION = "/usr/share/doc/blockjobd"


def test_the_unit_is_exposed_as_little_as_promised(t):
    Machine(t)
    run(["systemd-analyze", "verify", "--man=no", UNIT]).ok()
    run(["systemd-analyze", "security", "--threshold=15", "--no-pager", UNIT]).ok()


def test_with_descriptors_only_it_is_exposed_even_less(t):
    m = Machine(t)
    with open(f"{DOCUMENTATION}/descriptors-only.conf") as f:
        m.drop_in(f.read())
    run(["systemd-analyze", "security", "--threshold=7", "--no-pager", UNIT]).ok()
    assert int(status_of(main_pid())["CapEff"], 16) == 0
    # Nothing but what the caller brings: a connection to QEMU and an open target.
    folder = t.path("web")
    os.makedirs(folder, mode=0o700)
    shutil.chown(folder, USER, USER)
    image = image_create(f"{folder}/old.qcow2", "64M")
    image_fill(image, "qcow2", 0, "4M")
    shutil.chown(image, USER, USER)
    qemu = Qemu(folder, "web", [image], uid=USER)
    t.qemus.append(qemu)
    with socket.socket(socket.AF_UNIX) as connection, open(f"{folder}/new.raw", "wb+") as target:
        connection.connect(qemu.socket)
        target.truncate(64 << 20)
        disk = m.user.attach("web", fd=connection).disk()
        job = disk.copy("the new one", fd=target, format="raw")
        job.wait("ready").pivot()
        job.wait_result("pivoted")
    qemu.quit()
    image_compare(image, f"{folder}/new.raw", formats=("qcow2", "raw"))


def test_what_belongs_to_the_system_cannot_be_written(t):
    m = Machine(t)
    m.qemu()
    for target in "/usr/share/new.qcow2", "/etc/new.qcow2", "/sys/kernel/new.qcow2":
        try:
            m.disk(client=m).copy(target)
            raise AssertionError(f"{target} was accepted")
        except BusError as e:
            assert e.name.startswith(f"{PREFIX}.Error."), e
        assert not os.path.exists(target)
    assert m.disk(client=m).Job == "/"


def test_the_process_cannot_leave_its_fences(t):
    """In its namespaces and with its privileges: no network, no other processes, no clock, no module, no new user."""
    Machine(t)
    pid = main_pid()
    def fenced(command):
        return run(["nsenter", f"--target={pid}", "--mount", "--net", "--", "sh", "-c", command])
    assert fenced("ls /sys/class/net").ok().stdout.split() == ["lo"]
    for command in "touch /usr/x", "touch /etc/x", "echo 1 >/proc/sys/kernel/panic", "mkdir /sys/fs/cgroup/x":
        assert "Read-only file system" in fenced(command).stderr, command
    proc = next(line for line in open(f"/proc/{pid}/mounts") if line.split()[1] == "/proc")
    assert "hidepid=invisible" in proc, proc


def test_a_disabled_service_is_not_activated_and_an_enabled_one_is(t):
    m = Machine(t)
    def call():
        return busctl("get-property", PREFIX, ROOT, f"{PREFIX}.Manager", "NJobsActive")
    t.cleanup(lambda: systemctl("--quiet", "enable", UNIT))
    systemctl("--quiet", "disable", "--now", UNIT)
    refused = call()
    assert refused.returncode != 0 and "dbus-org.blockjob1.service" in refused.stderr, refused
    assert show("ActiveState") == "inactive"
    systemctl("--quiet", "enable", UNIT)
    call().ok()
    assert show("ActiveState") == "active"


def test_a_masked_service_is_not_started(t):
    Machine(t)
    systemctl("stop", UNIT)
    def unmask():
        systemctl("--quiet", "unmask", "--runtime", UNIT)
        systemctl("start", UNIT)
    t.cleanup(unmask)
    systemctl("--quiet", "mask", "--runtime", UNIT)
    refused = busctl("get-property", PREFIX, ROOT, f"{PREFIX}.Manager", "NJobsActive")
    assert refused.returncode != 0, refused
    assert show("ActiveState") == "inactive"


def test_the_folder_for_sockets_outlives_the_service(t):
    m = Machine(t)
    qemu = m.qemu()
    m.disk()
    systemctl("stop", UNIT)
    assert os.path.exists(qemu.socket)
    status = os.stat("/var/lib/blockjobd")
    assert status.st_mode & 0o777 == 0o700, status
    m.start()
    m.disk()


def test_messages_have_an_explanation(t):
    Machine(t)
    entries = run(["journalctl", "--catalog", "--no-pager", "--unit", UNIT]).ok().stdout
    assert "Subject: A block job was accepted" in entries or "Subject: A block job has ended" in entries, entries[-4000:]
