# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where it is measured: a bus without a listener, the service as it is installed, and the measuring client."""
import json
import os
import shutil
import statistics
import subprocess
import tempfile

from harness import BUILD, Test
from process import become_subreaper, die_with_parent

CONFIG = "[Limits]\nMaxDomains=4096\nMaxJobs=4096\nMaxJobsPerUser=4096\n"


class MeasureError(Exception):
    """A measurement has failed; the words say how."""


class Stage:
    """A folder on the disk, and everything that runs in it; all of it is gone afterwards."""

    def __init__(self, tmpfs=False):
        self.tmpfs = tmpfs

    def __enter__(self):
        become_subreaper()
        self.folder = tempfile.mkdtemp(prefix="bj-", dir=os.environ.get("BLOCKJOBD_BENCH_FOLDER", "/var/tmp"))
        os.chmod(self.folder, 0o755)
        self.state_dir = tempfile.mkdtemp(prefix="bj-", dir="/dev/shm") if self.tmpfs else f"{self.folder}/state"
        os.makedirs(self.state_dir, exist_ok=True)
        self.test = Test(self.folder)
        # The harness's bus notes all traffic for a test that fails: that would cost more than what is measured.
        self.test.bus.monitor.kill()
        return self

    def __exit__(self, *_):
        for qemu in self.test.qemus:
            qemu.kill()
        for service in self.test.services:
            if service.process:
                service.process.kill()
        self.test.bus.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.tmpfs:
            shutil.rmtree(self.state_dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def service(self, wrap=(), listen=False):
        """The service as it is installed: its log at the usual level, nobody listening but the one who measures.

        listen: this process is a client, too, and hears all signals."""
        s = self.test.service(config=CONFIG, wrap=wrap, args=["--log-level=info"], start=False)
        s.state_dir = self.state_dir
        if not listen:
            s.conn.close()
        s.start()
        return s

    def measure(self, *args, lines=(), environment=None):
        """Runs the measuring client; returns its result."""
        p = subprocess.run([f"{BUILD}/tests/bench.d/bench-measure", *map(str, args)], input="\n".join(lines), text=True,
                           capture_output=True, env={**os.environ, **self.test.bus.env, **(environment or {})},
                           preexec_fn=die_with_parent, timeout=600)
        if p.returncode != 0:
            raise MeasureError(p.stderr.strip() + self._last_words())
        return json.loads(p.stdout)

    def _last_words(self):
        return "".join(f"\n{s.process.name} ({'runs' if s.process.alive else f'ended with {s.process.returncode}'}): "
                       f"{s.log()[-3000:]}" for s in self.test.services if s.process)


def median(values):
    return statistics.median(values)


def percentile(values, p):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]


class Report:
    """Figures with their limits, printed as a table as they come."""

    def __init__(self, quiet):
        self.quiet, self.figures = quiet, []

    def title(self, text):
        if not self.quiet:
            print(f"\n{text}\n{'':2}{'figure':60}{'value':>14}  {'limit':>14}", flush=True)

    def note(self, text):
        if not self.quiet:
            print(f"{'':2}{text}", flush=True)

    def add(self, name, value, unit, at_most=None, at_least=None):
        limit = at_most if at_most is not None else at_least
        ok = None if limit is None else value <= limit if at_most is not None else value >= limit
        self.figures.append({"name": name, "value": round(value, 3), "unit": unit, "limit": limit,
                             "kind": None if limit is None else "at most" if at_most is not None else "at least",
                             "ok": ok})
        if not self.quiet:
            bound = "" if limit is None else f"{'≤' if at_most is not None else '≥'} {number(limit)} {unit}"
            verdict = "" if ok is None else "ok" if ok else "MISS"
            print(f"{'':2}{name:60}{f'{number(value)} {unit}':>14}  {bound:>14}  {verdict}".rstrip(), flush=True)


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 10 else f"{value:.2f}"
