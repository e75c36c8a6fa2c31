# SPDX-License-Identifier: LGPL-2.1-or-later
"""Child processes that die with the test, and waiting with a deadline."""
import ctypes
import os
import signal
import subprocess
import time

from gi.repository import GLib

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BLOCKJOBD_BUILD", os.path.join(REPO, "build"))
LIB = os.path.join(REPO, "tests", "lib")

# Under load and with sanitizers everything is slower; a deadline is there to end a hang, not to measure.
PATIENCE = float(os.environ.get("BLOCKJOBD_TEST_PATIENCE", "1"))

# What stands before a program of ours: memcheck, with tests/run --valgrind.
VALGRIND = os.environ.get("BLOCKJOBD_TEST_VALGRIND", "").split()

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class DeadlinePassed(AssertionError):
    """What was waited for has not happened in time."""


def die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def become_subreaper():
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def wait_until(condition, timeout=20, what="the condition", interval=0.02):
    """Runs the main loop (signals arrive, fake peers answer) until condition() is true; returns what it returned.

    condition() is looked at after everything that the loop dispatches, and at least every INTERVAL seconds."""
    deadline = time.monotonic() + timeout * PATIENCE
    context = GLib.MainContext.default()
    while True:
        result = condition()
        if result:
            return result
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlinePassed(f"{what() if callable(what) else what}: not within {timeout} s")
        tick = GLib.timeout_add(max(1, int(min(interval, left) * 1000)), lambda: True)
        try:
            context.iteration(True)
        finally:
            GLib.source_remove(tick)


class Process:
    """A child with its output in a file. It is killed when the test's process dies, however that happens."""

    def __init__(self, argv, log, env=None, name=None, pass_fds=(), cwd=None):
        self.argv = [str(a) for a in argv]
        self.name = name or os.path.basename(self.argv[0])
        self.log_path = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, pass_fds=pass_fds,
                env={**os.environ, **(env or {})}, preexec_fn=die_with_parent)

    @property
    def pid(self):
        return self.popen.pid

    @property
    def alive(self):
        return self.popen.poll() is None

    @property
    def returncode(self):
        return self.popen.poll()

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def wait_log(self, text, timeout=20):
        wait_until(lambda: text in self.log(), timeout, f"{text!r} in the log of {self.name}")

    def signal(self, number):
        if self.alive:
            self.popen.send_signal(number)

    def freeze(self):
        self.signal(signal.SIGSTOP)

    def thaw(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        """SIGKILL, and gone when this returns."""
        if self.alive:
            self.popen.kill()
        self.popen.wait()

    def wait(self, timeout=20):
        wait_until(lambda: not self.alive, timeout, f"end of {self.name}")
        return self.popen.returncode

    def terminate(self, timeout=20):
        """SIGTERM; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)


class Finished:
    """What run() returns."""

    def __init__(self, argv, returncode, stdout, stderr):
        self.argv, self.returncode, self.stdout, self.stderr = argv, returncode, stdout, stderr

    def __repr__(self):
        return f"{self.argv}: {self.returncode}\nstdout: {self.stdout}\nstderr: {self.stderr}"

    def ok(self):
        assert self.returncode == 0, repr(self)
        return self


def run(argv, timeout=60, env=None, uid=None, stdin=None, directory="/tmp"):
    """Runs a command to its end while the main loop goes on (fake peers in this process answer it)."""
    argv = [str(a) for a in argv]
    if uid is not None:
        argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--pdeathsig", "KILL", *argv]
    out, err = (os.memfd_create(n) for n in ("stdout", "stderr"))
    try:
        p = subprocess.Popen(argv, stdin=stdin or subprocess.DEVNULL, stdout=out, stderr=err, cwd=directory,
                             env={**os.environ, **(env or {})}, preexec_fn=die_with_parent)
        try:
            wait_until(lambda: p.poll() is not None, timeout, lambda: f"end of {argv}", interval=0.005)
        finally:
            if p.poll() is None:
                p.kill()
                p.wait()
        texts = []
        for fd in out, err:
            os.lseek(fd, 0, os.SEEK_SET)
            with os.fdopen(os.dup(fd), errors="replace") as f:
                texts.append(f.read())
        return Finished(argv, p.returncode, *texts)
    finally:
        os.close(out)
        os.close(err)
