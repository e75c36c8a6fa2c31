# SPDX-License-Identifier: LGPL-2.1-or-later
"""A booted machine with the installed service, as its users and its administrator see it."""
import os
import shutil

from bus import Connection
from harness import *

BUS = "unix:path=/run/dbus/system_bus_socket"
UNIT = "blockjobd.service"
# uids of tests/system/prepare: whom the rules allow (domains web…), who runs QEMU, whom no rule knows.
USER, VM, OTHER = 1000, 1001, 1002
SOCKETS = "/run/blockjobd/qmp"
DROP_IN = f"/run/systemd/system/{UNIT}.d/test.conf"


def systemctl(*args):
    return run(["systemctl", "--no-ask-password", *args], timeout=90).ok().stdout.strip()


def show(name, unit=UNIT):
    """A property of the unit."""
    return systemctl("show", "--value", f"--property={name}", unit)


def main_pid():
    return int(show("MainPID"))


def busctl(*args, uid=USER, timeout=60):
    return run(["busctl", "--system", "--allow-interactive-authorization=false", *args], timeout=timeout, uid=uid)


def status_of(pid):
    """{key: value} of /proc/PID/status."""
    with open(f"/proc/{pid}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


class Machine(Client):
    """The service as root sees it, running; .user is the same for the user whom the rules allow."""

    def __init__(self, t, clear=True):
        """clear: domains go when the test ends, and those that a failed one has left go before it."""
        self.t = t
        os.chmod(t.folder, 0o711)
        t.logs["journal"] = t.path("journal")
        self.journal = Process(["journalctl", "--follow", "--lines=0", "--output=short-precise"], t.path("journal"))
        super().__init__(self._connection())
        self.start()
        if clear:
            self.clear()
            t.cleanup(self.clear)
        self.user, self.other = Client(self._connection(USER)), Client(self._connection(OTHER))

    @staticmethod
    def _connection(uid=None):
        conn = Connection(BUS, uid)
        conn.subscribe(sender=PREFIX, path_namespace=ROOT)
        return conn

    def start(self):
        systemctl("start", UNIT)
        wait_until(lambda: self.conn.owner_of(PREFIX), what="the service on the bus")

    def clear(self):
        """No QEMU of this test and no domain is left, whoever made it; those of sockets that are gone leave by themselves."""
        self.start()
        for qemu in self.t.qemus:
            qemu.kill()
            if os.path.exists(qemu.socket):
                os.unlink(qemu.socket)

        def left():
            for path in self.domains():
                try:
                    Domain(self, path).detach(force=True)
                except BusError as e:
                    assert e.short in ("UnknownObject", "NoSuchDomain", "DomainBusy"), e
            return self.domains()
        wait_until(lambda: not left(), what="no domain")

    def drop_in(self, text):
        """For this test: these lines in the unit. The service starts again with them."""
        os.makedirs(os.path.dirname(DROP_IN), exist_ok=True)
        with open(DROP_IN, "w") as f:
            f.write(text)
        self.t.cleanup(self._drop)
        systemctl("daemon-reload")
        systemctl("restart", UNIT)

    def _drop(self):
        os.unlink(DROP_IN)
        systemctl("daemon-reload")
        systemctl("restart", UNIT)

    def qemu(self, name="web", fill="4M", size="64M", **more):
        """A QEMU of user vm, whose image nobody else may read, with its socket where the service finds it."""
        folder = self.t.path(name)
        os.makedirs(folder, mode=0o700)
        image = image_create(f"{folder}/old.qcow2", size)
        image_fill(image, "qcow2", 0, fill)
        for path in folder, image:
            shutil.chown(path, VM, VM)
        os.chmod(image, 0o600)
        qemu = Qemu(folder, name, [image], socket=f"{SOCKETS}/{name}.sock", uid=VM, **more)
        self.t.qemus.append(qemu)
        self.t.logs[f"qemu {name}"] = qemu.log_path
        return qemu

    def disk(self, name="web", client=None):
        """Its first disk, once the service has found the domain by itself."""
        path = f"{ROOT}/domain/{name}/disk/vda"
        wait_until(lambda: path in self.disks(), what=path)
        return Disk(client or self.user, path)

    def slow_copy(self, name="web", **more):
        """(qemu, disk, job): a copy by the user that is in the middle until its speed is set to 0."""
        qemu = self.qemu(name, fill="16M", **more)
        disk = self.disk(name)
        job = disk.copy(self.t.path(f"{name}.qcow2"), speed=1 << 20, buf_size=1 << 20).wait("running")
        wait_until(lambda: job.Done > 0, what="a piece of the copy")
        return qemu, disk, job

    def carried_on(self, qemu, job, restarts=1):
        """After the service's end in the middle of the copy: it is the same job, and it gets to its end."""
        wait_until(lambda: self.conn.owner_of(PREFIX), 60, "the service on the bus again")
        self.disk(qemu.name)
        assert job.Restarts == restarts, job
        assert job.State == "running", job
        assert job.OwnerUid == USER, job
        job.set_speed(0)
        self.pivoted(qemu, job)

    def pivoted(self, qemu, job):
        """Pivots a copy that is to be ready soon; what was written until then, and what is written now, is on the target."""
        job.wait("ready")
        qemu.io("write -P 17 8M 64k")
        job.pivot()
        job.wait_result("pivoted")
        target = job.Target
        assert qemu.drives[0].path != target
        qemu.io("read -P 17 8M 64k")
        qemu.quit()
        # It belongs to who runs the guest, and a QEMU of that user can be started on it.
        status = os.stat(target)
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (VM, VM, 0o600), status
        image_compare(qemu.drives[0].path, target, formats=("qcow2", "qcow2"))
        image_check(target)
        qemu.drives[0].path = target
        qemu.start()
        assert qemu.image()["file"] == target
        qemu.quit()


__all__ = ["BUS", "DROP_IN", "Machine", "OTHER", "SOCKETS", "UNIT", "USER", "VM", "busctl", "main_pid", "show",
           "status_of", "systemctl"]
