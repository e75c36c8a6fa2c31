# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of copies share: a disk that can be copied, places to copy to, and what must not have happened."""
import ctypes
import json
import os
import re

from harness import *
from invariants import journal_table

CLONE_NEWNS = 0x00020000


def attached(t, drives, config="", name="web", **more):
    """(QEMU, service, domain): an idle QEMU with these drives, attached."""
    qemu = t.qemu(name, drives, **more)
    s = t.service(config)
    return qemu, s, s.attach(name, qemu.socket)


def one_disk(t, fill="4M", config="", size="64M", **more):
    """(QEMU, service, disk): the same with one qcow2 image, old.qcow2."""
    qemu, s, domain = attached(t, [t.image("old.qcow2", size, fill=fill)], config, **more)
    return qemu, s, domain.disk("vda")


def slow_copy(disk, target, **o):
    """A copy that cannot become ready before it is let go: a first piece of 1 MiB (so much for one operation, with the
    smallest buffer), then 64 KiB a second. Running when this returns."""
    return disk.copy(target, **{"speed": 64 << 10, "buf_size": 1 << 20, **o}).wait("running")


def back(s, disk):
    """The disk of a service that has started again and has looked at QEMU."""
    wait_until(lambda: disk.path in s.disks(), what=disk.path)
    return disk


def pivoted(job):
    job.wait("ready").pivot()
    return job.wait_result("pivoted")


# What QEMU takes when it is not told; INSIDE: in a protocol node that is said inside its image.
DEFAULTS = {"blockdev-add": {"discard": "ignore", "detect-zeroes": "off", "aio": "threads"},
            "blockdev-mirror": {"copy-mode": "background", "speed": 0, "on-source-error": "report",
                                "on-target-error": "report"}}
INSIDE = {"discard": "unmap", "aio": "threads"}


def told(qemu, command):
    """Arguments of each such command that QEMU was given, with its defaults; it must have been started with TRACE."""
    found = []
    for line in qemu.process.log().splitlines():
        m = re.match(r"handle_qmp_command mon \S+ req: (.*)$", line)
        if m:
            message = json.loads(m[1])
            if message.get("execute") == command:
                arguments = message.get("arguments", {})
                if isinstance(arguments.get("file"), dict):
                    arguments["file"] = {**INSIDE, **arguments["file"]}
                found.append({**DEFAULTS.get(command, {}), **arguments})
    return found


TRACE = ["-trace", "handle_qmp_command"]


def allocated(path):
    """Bytes that the file takes on its storage."""
    return os.stat(path).st_blocks * 512


def pattern_at(path, format, pattern, offset, length):
    """Raises unless those bytes of an image that nobody has open are all PATTERN."""
    result = run(["qemu-io", "-r", "-f", format, "-c", f"read -P {pattern} {offset} {length}", path]).ok()
    assert "Pattern verification failed" not in result.stdout + result.stderr, result


def restarted(qemu, path, format="qcow2"):
    """QEMU ends and starts again with that image as its first disk, as after the definition was changed."""
    qemu.quit()
    qemu.drives[0].path, qemu.drives[0].format = path, format
    qemu.start()
    return qemu


def dismissed(qemu):
    """QEMU has forgotten its jobs: that is the very last step, after the end was told."""
    wait_until(lambda: not qemu.jobs(), what=lambda: f"no job in QEMU: {qemu.jobs()}")


# ---- places ----

def private_mounts():
    """From here on mounts are seen by this test and its children alone, and end with them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    run(["mount", "--make-rprivate", "/"]).ok()


def small_place(t, name, size):
    """A folder with SIZE (as mount has it: "16m") of space; before anything is started that shall see it."""
    private_mounts()
    folder = t.path(name)
    os.makedirs(folder, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", folder]).ok()
    return folder


def block_device(t, name, size):
    """A loop device over a file of SIZE bytes; it is given back when the test's process has ended."""
    path = t.path(name)
    with open(path, "wb") as f:
        f.truncate(size)
    device = run(["losetup", "--find", "--show", path]).ok().stdout.strip()
    holder = os.open(device, os.O_RDONLY)
    t.cleanup(lambda: os.close(holder))
    # While it is open this only marks it: the last one who closes it takes it away.
    run(["losetup", "--detach", device]).ok()
    return device


# ---- refusals ----

def sentence(message):
    """A whole sentence, perhaps after the name of the option that it is about, or ending in QEMU's own words."""
    assert re.match(r'^([a-z_-]+: .|["A-Z0-9])', message), message
    assert message.endswith(".") or re.search(r"QEMU[^.]*: .", message), message
    assert "(null)" not in message and "  " not in message, message
    return message


def refusal(error, function, *args, **o):
    """The sentence with which a call is refused; it must be that error."""
    try:
        result = function(*args, **o)
    except BusError as e:
        assert e.short == error, f"refused with {e}, not with {error}"
        return sentence(e.message)
    raise AssertionError(f"{function.__name__}{args}{o} was not refused: {result}")


class Untouched:
    """What there is now must be there afterwards, and nothing else: files, nodes, descriptors, jobs.

        nothing = Untouched(t, s, qemu)
        nothing.refuses("TargetExists", "exists already", disk.copy, path)
    """

    def __init__(self, t, s, *qemus):
        self.t, self.s, self.qemus = t, s, qemus
        self.before = self._look()

    def _files(self):
        """All files that are not the services' or QEMU's own, with identity, size and time of the last change."""
        found = {}
        own = {q.folder for q in self.t.qemus} | {x.folder for x in self.t.services} | {self.t.path("bus")}
        for folder, folders, names in os.walk(self.t.folder):
            folders[:] = [f for f in folders if os.path.join(folder, f) not in own]
            for name in names + folders:
                path = os.path.join(folder, name)
                st = os.lstat(path)
                found[path] = (st.st_ino, st.st_mode, st.st_size, st.st_mtime_ns if name in names else 0)
        return found

    def _look(self):
        graphs = {}
        for q in self.qemus:
            if q.alive:
                graphs[q.name] = (sorted(q.block_graph()[0]), q("query-fdsets"), sorted(q.jobs()),
                                  [b.get("inserted", {}).get("node-name") for b in q.blocks()])
        jobs = {p: (j["State"], j["Kind"]) for p, j in self.s.jobs().items()}
        return {"files": self._files(), "QEMU": graphs, "jobs": jobs, "active": self.s.manager.NJobsActive,
                "journal": sorted(journal_rows(self.s.state_dir)),
                "domains": sorted(journal_table(self.s.state_dir, "domain", "name"))}

    def check(self):
        now = self._look()
        for what, then in self.before.items():
            assert now[what] == then, f"{what} has changed from {then} to {now[what]}"

    def refuses(self, error, words, function, *args, **o):
        """The call is refused with that error, its sentence has these words, and nothing has happened."""
        message = refusal(error, function, *args, **o)
        assert words in message, f"{words!r} is not in: {message}"
        self.check()
        return message


__all__ = ["TRACE", "Untouched", "allocated", "attached", "back", "block_device", "dismissed", "one_disk",
           "pattern_at", "pivoted", "private_mounts", "refusal", "restarted", "sentence", "slow_copy", "small_place",
           "told"]
