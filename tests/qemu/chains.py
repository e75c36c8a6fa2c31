# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of commits and pulls share: chains whose every image has left its mark, and what must be true of them."""
import json
import os

from copying import *
from harness import *

MIB = 1 << 20


class Chain:
    """Images 0 (the base) to N-1 (the active layer) in a folder, and a QEMU on the top. Image i has written the byte i + 1 to
    the i-th MiB, and its lower half once more with 0x40 + i to the MiB 32, so that the youngest shows there.

    relative: the headers name the images below by their bare names. base: (path, format) of a base that is there."""

    def __init__(self, t, n=5, relative=False, base=None, start=True, blockdev=True, folder="chain", size="64M", **more):
        self.t, self.relative, self.folder = t, relative, t.path(folder)
        os.makedirs(self.folder, exist_ok=True)
        self.formats = [base[1] if base else "qcow2"] + ["qcow2"] * (n - 1)
        self.paths = [base[0] if base else f"{self.folder}/i0.qcow2"]
        self.paths += [f"{self.folder}/i{i}.qcow2" for i in range(1, n)]
        for i, path in enumerate(self.paths):
            if i:
                below = os.path.basename(self.paths[i - 1]) if relative else self.paths[i - 1]
                image_create(path, None, backing=below, backing_format=self.formats[i - 1])
            elif not base:
                image_create(path, size)
            image_fill(path, self.formats[i], f"{i}M", "1M", i + 1)
            image_fill(path, self.formats[i], "32M", "512k", 0x40 + i)
        self.n, self.more, self.blockdev = n, more, blockdev
        if start:
            self.qemu = t.qemu(folder, [] if blockdev else [self.paths[-1]],
                               args=self.arguments() if blockdev else (), **more)

    def arguments(self):
        """Every node with a name, as libvirt does it."""
        args = []
        for i, path in enumerate(self.paths):
            driver = "host_device" if path.startswith("/dev/") else "file"
            args += ["-blockdev", json.dumps({"driver": driver, "node-name": f"f{i}", "filename": path,
                                              "auto-read-only": True, "discard": "unmap"})]
            node = {"driver": self.formats[i], "node-name": f"n{i}", "file": f"f{i}", "read-only": i < self.n - 1}
            if i:
                node["backing"] = f"n{i - 1}"
            args += ["-blockdev", json.dumps(node)]
        return args + ["-device", f"virtio-blk-pci,drive=n{self.n - 1},id=virtio-disk0"]

    def attached(self, config="", **o):
        """(service, disk)"""
        s = self.t.services[0] if self.t.services else self.t.service(config)
        return s, s.attach(self.qemu.name, self.qemu.socket, **o).disk("vda")

    def reads(self):
        """The disk reads as it did in the beginning, through its device."""
        for i in range(self.n):
            text = self.qemu.io(f"read -P {i + 1} {i}M 1M")
            assert "verification" not in text, f"MiB {i}: {text}"
        assert "verification" not in self.qemu.io(f"read -P {0x40 + self.n - 1} 32M 512k")

    def files(self, disk):
        return [image["file"] for image in disk.chain()]

    def stands(self, disk, *images):
        """The disk's chain is these images, active layer first: for QEMU, for the service, in the headers."""
        expected = [self.paths[i] for i in images]
        wait_until(lambda: self.files(disk) == expected, what=lambda: f"{expected}, it is {self.files(disk)}")
        assert disk.Source == expected[0]
        headers = [os.path.realpath(i["filename"] if i["filename"][0] == "/" else f"{self.folder}/{i['filename']}")
                   for i in image_chain(expected[0])]
        assert headers == [os.path.realpath(p) for p in expected], headers
        self.reads()

    def nodes(self, *images):
        """Only these images are open in QEMU."""
        if self.blockdev:
            expected = {f"{kind}{i}" for i in images for kind in "nf"}
            wait_until(lambda: self.qemu.block_graph()[0] == expected,
                       what=lambda: f"nodes {expected}, there are {self.qemu.block_graph()[0]}")


def ended(job, result):
    job.wait_result(result)
    return job


def slow(disk, verb, **o):
    """A commit or pull that will not end before it is let go; running when this returns."""
    return getattr(disk, verb)(**{"speed": 64 << 10, **o}).wait("running")


__all__ = ["Chain", "MIB", "ended", "slow"]
