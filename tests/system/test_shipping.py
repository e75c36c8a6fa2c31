# SPDX-License-Identifier: LGPL-2.1-or-later
"""An older build is replaced by this one in the middle of a copy; the Debian package is built, installed and removed."""
import glob
import os
import re
import shutil

from harness import *
from machine import *

STATE = "/var/lib/blockjobd"
INSTALLED = os.environ["BLOCKJOBD_INSTALLED"]


def install(folder):
    run([f"{REPO}/tests/system/install", folder]).ok()
    systemctl("daemon-reload")


@tags("rebooted", "only-bookworm")
def test_an_upgrade_in_the_middle(t):
    older = "/tests/older"
    assert os.path.isdir(older), "there was no history to build an older version from"
    m = Machine(t)

    def back():
        systemctl("stop", UNIT)
        install(INSTALLED)
        shutil.rmtree(STATE)
        os.rename(f"{STATE}.kept", STATE)
        systemctl("start", UNIT)
    # The older one must not meet a journal that it does not know.
    systemctl("stop", UNIT)
    os.rename(STATE, f"{STATE}.kept")
    t.cleanup(back)
    install(older)
    m.start()
    qemu, _disk, job = m.slow_copy()
    with open(f"/proc/{main_pid()}/exe", "rb") as running, open(f"{older}/usr/libexec/blockjobd", "rb") as f:
        assert running.read() == f.read()
    install(INSTALLED)
    systemctl("restart", UNIT)
    with open(f"/proc/{main_pid()}/exe", "rb") as running, open(f"{INSTALLED}/usr/libexec/blockjobd", "rb") as f:
        assert running.read() == f.read()
    m.carried_on(qemu, job)


@tags("rebooted", "only-bookworm")
@deadline(300)
def test_the_package_builds_and_lintian_has_no_error(t):
    os.makedirs("/tests/package", exist_ok=True)
    run([f"{REPO}/units/package", "/tests/package"], timeout=290, env={"DEB_BUILD_OPTIONS": "nocheck"}).ok()
    assert glob.glob("/tests/package/blockjobd_*.deb")


def uninstall(folder):
    """Takes away what install() has brought."""
    for at, _folders, files in os.walk(folder):
        for name in files:
            path = os.path.join("/", os.path.relpath(os.path.join(at, name), folder))
            if os.path.exists(path):
                os.unlink(path)


@tags("rebooted", "only-bookworm")
def test_the_package_installs_works_and_goes(t):
    package, = glob.glob("/tests/package/blockjobd_*.deb")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["dpkg", "--purge", "blockjobd"])  # of a first try
    run(["systemctl", "disable", "--now", UNIT])
    uninstall(INSTALLED)
    shutil.rmtree(STATE, ignore_errors=True)
    systemctl("daemon-reload")
    run(["dpkg", "--install", package], env=quiet).ok()
    assert show("ActiveState") == "active" and show("UnitFileState") == "enabled"
    # The roots are made without manuals and translations.
    changed = run(["dpkg", "--verify", "blockjobd"]).stdout.splitlines()
    assert all(re.search(r" /usr/share/(man|locale)/", line) for line in changed), changed
    m = Machine(t, clear=False)
    qemu, _disk, job = m.slow_copy()
    # The same package once more is an upgrade: the service starts again, the job goes on.
    run(["dpkg", "--install", package], env=quiet).ok()
    m.carried_on(qemu, job)
    run(["dpkg", "--remove", "blockjobd"], env=quiet).ok()
    assert show("LoadState") == "not-found" and m.conn.owner_of(PREFIX) is None
    assert os.path.exists(f"{STATE}/journal.db") and os.path.exists("/etc/blockjobd/blockjobd.conf")
    run(["dpkg", "--purge", "blockjobd"], env=quiet).ok()
    assert not os.path.exists(STATE) and not os.path.exists("/etc/blockjobd/blockjobd.conf")
