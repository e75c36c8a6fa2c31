# SPDX-License-Identifier: LGPL-2.1-or-later
"""A disk whose writes are logged, and what a power cut leaves of it: journal, definition and images stand on it.

qemu-storage-daemon logs (blklogwrites, the format of the kernel's dm-log-writes) and exports through FUSE; a loop device
makes a block device of the export, which holds an ext4."""
import ctypes
import fcntl
import os
import random
import struct

from process import Process, run, wait_until

SECTOR = 512
FLUSH, FUA, DISCARD = 1, 2, 4  # flags of an entry
BLKFLSBUF = 0x1261
CLONE_NEWNS = 0x20000
DEVICE_SIZE = 24 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)


def mount(source, target, kind="ext4"):
    _checked(_libc.mount(source.encode(), target.encode(), kind.encode(), 0, None), f"mount {target}")


def umount(target):
    _checked(_libc.umount2(target.encode(), 0), f"umount {target}")


def mounts_of_our_own():
    """What is mounted from now on goes away with this process and its children, however they end."""
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    run(["mount", "--make-rprivate", "/"]).ok()


class Entry:
    __slots__ = ("offset", "size", "flags", "data")  # data: where it is in the log

    def __init__(self, offset, size, flags, data):
        self.offset, self.size, self.flags, self.data = offset, size, flags, data


class LoggedDisk:
    """.folder is the mounted file system, .position() how many entries of the log have been flushed by now.

    pace: writes to the log in a second at most, which are what every write to the disk waits for; 0 for no limit."""

    def __init__(self, t, pace=0):
        mounts_of_our_own()
        self.t, self.folder = t, t.path("disk")
        os.makedirs(self.folder)
        device, export, socket = t.path("device"), t.path("export"), t.path("storage.qmp")
        self.log_path = t.path("log")
        for path, size in (device, DEVICE_SIZE), (self.log_path, 4 << 30), (export, 0):
            with open(path, "wb") as f:
                f.truncate(size)
        self.daemon = Process(
            ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=device,filename={device}",
             "--object", f"throttle-group,id=pace,x-iops-write={pace}",
             "--blockdev", f"driver=file,node-name=file,filename={self.log_path}",
             "--blockdev", "driver=throttle,node-name=log,throttle-group=pace,file=file",
             "--blockdev", "driver=blklogwrites,node-name=both,file=device,log=log,log-sector-size=512",
             "--chardev", f"socket,id=monitor,path={socket},server=on,wait=off", "--monitor", "chardev=monitor",
             "--export", f"type=fuse,id=export,node-name=both,mountpoint={export},writable=on"],
            t.path("storage.log"), name="qemu-storage-daemon")

        def exported():
            assert self.daemon.alive, self.daemon.log()
            return os.path.getsize(export) == DEVICE_SIZE
        wait_until(exported, 20, lambda: f"the export: {self.daemon.log()}")
        loop, fd = loop_attach(export)
        run(["mkfs.ext4", "-q", "-F", "-b", "1024", "-J", "size=1", "-m", "0", loop]).ok()
        mount(loop, self.folder)
        os.close(fd)
        t.cleanup(self.close)

    def position(self):
        with open(self.log_path, "rb") as f:
            return struct.unpack("<QQQI", f.read(28))[2]

    def close(self):
        if self.daemon.alive:
            umount(self.folder)
            self.daemon.terminate()

    def entries(self):
        """The whole log, when everything is closed."""
        found = []
        with open(self.log_path, "rb") as f:
            count, size = struct.unpack("<QQQI", f.read(28))[2:]
            at = size
            for _ in range(count):
                f.seek(at)
                sector, sectors, flags, _ = struct.unpack("<4Q", f.read(32))
                found.append(Entry(sector * size, sectors * size, flags, at + size))
                at += size + (0 if flags & DISCARD else sectors * size)
        return found


def loop_attach(path):
    """(a loop device, a descriptor of it): the device goes when nobody has it open or mounted any more."""
    device = run(["losetup", "-f", "--show", path]).ok().stdout.strip()
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    run(["losetup", "-d", device]).ok()
    return device, fd


class Images:
    """Rebuilds what is on the disk when the power goes at some entry of the log; at(…) mounts it and gives the folder."""

    IN_ORDER, FLUSHED, HALF = "in order", "only what was flushed", "what was flushed and half of the rest"
    WAYS = (IN_ORDER, FLUSHED, HALF)

    def __init__(self, disk, seed):
        self.entries, self.log_path = disk.entries(), disk.log_path
        self.random, self.seed = random.Random(seed), seed
        self.path, self.folder = disk.t.path("cut"), disk.t.path("cut-mounted")
        os.makedirs(self.folder, exist_ok=True)
        self.flushed, self.done = bytearray(DEVICE_SIZE), 0  # the first .done entries, the last of them a flush
        with open(self.path, "wb") as f:
            f.truncate(DEVICE_SIZE)
        self.log = open(self.log_path, "rb")
        self.loop, self.loop_fd = loop_attach(self.path)

    def apply(self, image, entry):
        if entry.size == 0:
            return
        if entry.flags & DISCARD:
            image[entry.offset:entry.offset + entry.size] = bytes(entry.size)
            return
        self.log.seek(entry.data)
        image[entry.offset:entry.offset + entry.size] = self.log.read(entry.size)

    def advance(self, cut):
        """.flushed is the device at the last flush among the first CUT entries; CUT must not go back."""
        last = max((i + 1 for i in range(self.done, cut) if self.entries[i].flags & FLUSH), default=self.done)
        for entry in self.entries[self.done:last]:
            self.apply(self.flushed, entry)
        self.done = last

    def at(self, cut, way):
        self.advance(cut)
        image = bytearray(self.flushed) if way != self.FLUSHED else self.flushed
        for entry in self.entries[self.done:cut] if way != self.FLUSHED else []:
            if way == self.IN_ORDER or self.random.random() < 0.5 or entry.flags & FUA:
                self.apply(image, entry)
        with open(self.path, "r+b") as f:
            f.write(image)
        fcntl.ioctl(self.loop_fd, BLKFLSBUF)  # what the last image has left in the cache
        mount(self.loop, self.folder)
        return self.folder

    def leave(self):
        umount(self.folder)

    def close(self):
        self.log.close()
        os.close(self.loop_fd)
