# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine goes down without a word in the middle of copies, and comes back with the journal but without QEMUs."""
import os
import shutil
import subprocess

from harness import *
from machine import *

KEPT = "/tests/kept"
# As blockjobd(8) says: what starts guests is ordered behind the recovery. It asks how many jobs are undecided then.
GUEST_AT_BOOT = f"""[Unit]
Wants=blockjobd-recovered.target
After=blockjobd-recovered.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'busctl get-property {PREFIX} {ROOT} {PREFIX}.Manager NJobsActive >{KEPT}/at-boot'
[Install]
WantedBy=multi-user.target
"""


def guest(m, name):
    """A QEMU that outlives the test, with a definition. Returns (qemu's image, path of the definition)."""
    folder = f"{KEPT}/{name}"
    run(["systemctl", "stop", f"guest-{name}"])  # of a first try
    os.makedirs(folder)
    shutil.chown(folder, VM, VM)
    image = image_create(f"{folder}/old.qcow2", "64M")
    image_fill(image, "qcow2", 0, "4M")
    shutil.chown(image, VM, VM)
    with open(f"{folder}/definition.xml", "w") as f:
        f.write(f"""<domain type='qemu'><name>{name}</name><devices><disk type='file' device='disk'>
  <driver name='qemu' type='qcow2'/><source file='{image}'/><target dev='vda' bus='virtio'/>
  <alias name='virtio-disk0'/></disk></devices></domain>""")
    socket = f"{folder}/qmp"
    subprocess.run(["systemd-run", "--quiet", "--collect", f"--unit=guest-{name}", "--uid=vm", "--gid=vm-ops",
                    "qemu-system-x86_64", "-name", name, "-nodefaults", "-display", "none", "-accel", "tcg", "-S",
                    "-machine", "q35", "-m", "32", "-qmp", f"unix:{socket},server=on,wait=off",
                    "-blockdev", f"driver=qcow2,node-name=disk,file.driver=file,file.filename={image}",
                    "-device", "virtio-blk-pci,drive=disk,id=virtio-disk0"], check=True)
    wait_until(lambda: os.path.exists(socket), what="QEMU's socket")
    return m.attach(name, socket, definition=f"{folder}/definition.xml").disk()


@tags("reboot")
def test_copies_are_left_in_the_middle(t):
    m = Machine(t, clear=False)
    m.clear()
    shutil.rmtree(KEPT, ignore_errors=True)
    os.makedirs(KEPT, mode=0o711)
    running = guest(m, "web-running").copy(f"{KEPT}/running.qcow2", speed=1 << 16, buf_size=1 << 20).wait("running")
    ready = guest(m, "web-ready").copy(f"{KEPT}/ready.qcow2").wait("ready")
    pivoted = guest(m, "web-pivoted").copy(f"{KEPT}/pivoted.qcow2").wait("ready").pivot()
    pivoted.wait_result("pivoted")
    with open("/etc/systemd/system/guest-at-boot.service", "w") as f:
        f.write(GUEST_AT_BOOT)
    systemctl("--quiet", "enable", "guest-at-boot.service")
    with open(f"{KEPT}/jobs", "w") as f:
        f.write(f"{running.id} {ready.id} {pivoted.id}")


@tags("rebooted")
def test_what_was_decided_stands_and_what_was_not_is_lost(t):
    m = Machine(t, clear=False)
    with open(f"{KEPT}/jobs") as f:
        ids = [int(word) for word in f.read().split()]
    for id, result in zip(ids, ("lost", "lost", "pivoted")):
        m.job(id).wait_result(result)
    for name, source in (("running", f"{KEPT}/web-running/old.qcow2"), ("ready", f"{KEPT}/web-ready/old.qcow2"),
                         ("pivoted", f"{KEPT}/pivoted.qcow2")):
        with open(f"{KEPT}/web-{name}/definition.xml") as f:
            assert f"<source file='{source}'" in f.read().replace('"', "'"), name
    assert m.manager.NJobsActive == 0


@tags("rebooted")
def test_nothing_was_undecided_when_guests_could_start(t):
    with open(f"{KEPT}/at-boot") as f:
        assert f.read() == "u 0\n"


@tags("rebooted")
def test_a_copy_and_a_pivot_after_the_reboot(t):
    m = Machine(t)
    broker = os.environ["BLOCKJOBD_RELEASE"] == "trixie"
    assert show("Id", "dbus.service") == ("dbus-broker.service" if broker else "dbus.service")
    qemu, _disk, job = m.slow_copy("web")
    systemctl("restart", UNIT)
    m.carried_on(qemu, job)


@tags("rebooted")
def test_activation_after_the_reboot(t):
    Machine(t)
    systemctl("stop", UNIT)
    busctl("get-property", PREFIX, ROOT, f"{PREFIX}.Manager", "NJobsActive").ok()
    assert show("ActiveState") == "active"
