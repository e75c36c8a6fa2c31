# SPDX-License-Identifier: LGPL-2.1-or-later
"""Scale: many domains with a mirror each; reading, restarting, switching, and one QEMU that hangs."""
import json
import os
import re
import subprocess

from harness import BUILD, Process, image_create, wait_until
from process import die_with_parent
from qemu import EMULATOR, Drive
from stage import MeasureError, median, percentile

DOMAIN = "/org/blockjob1/domain"
BATCH = 8  # QEMUs that start at the same time
CLIENTS = 8


class Crowd:
    """Idle QEMUs in the service's socket folder, which attaches them by itself."""

    def __init__(self, stage, service, count):
        self.stage, self.sockets = stage, service.socket_dir
        self.names = [f"d{n}" for n in range(count)]
        self.processes = []
        for at in range(0, count, BATCH):
            batch = self.names[at:at + BATCH]
            self.processes += [self._start(name) for name in batch]
            wait_until(lambda: all(os.path.exists(f"{self.sockets}/{name}.sock") for name in batch), 60,
                       "the sockets of QEMU")

    def _start(self, name):
        image = image_create(self.stage.path(f"{name}.qcow2"), 1 << 20)
        return Process([EMULATOR, "-name", name, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg",
                        "-machine", "pc", "-m", "8", "-S", "-qmp", f"unix:{self.sockets}/{name}.sock,server=on,wait=off",
                        *Drive(image).arguments(0)], self.stage.path(f"{name}.log"))

    def wait_attached(self, connection):
        def attached():
            return all(connection.get(f"{DOMAIN}/{n}", "org.blockjob1.Domain", "State") == "paused" for n in self.names)
        wait_until(attached, 60, "all domains to be connected", interval=0.1)

    def copies(self, generation):
        return [f"{DOMAIN}/{n}/disk/vda {self.stage.path(f'{n}-{generation}.qcow2')}" for n in self.names]

    def kill(self):
        for p in self.processes:
            p.kill()


def private_memory(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return sum(int(n) for n in re.findall(r"^Private_\w+: *(\d+) kB", f.read(), re.M)) / 1024


def processor_time(pid):
    """Of the loop's thread, in ms."""
    with open(f"/proc/{pid}/task/{pid}/schedstat") as f:
        return int(f.read().split()[0]) / 1e6


def start_all(report, stage, crowd, generation):
    r = stage.measure("copy", lines=crowd.copies(generation))
    ms = {k: max(v) / 1000 for k, v in r.items() if k != "jobs"}
    report.add("all Copy() calls answered", ms["replied"], "ms")
    report.add("all jobs running", ms["running"], "ms", at_most=400)
    report.add("all jobs ready", ms["ready"], "ms")
    return r["jobs"]


def memory_and_objects(report, stage, pid, jobs):
    report.add("private memory of the service", private_memory(pid), "MiB", at_most=5)
    rounds, before = 50, processor_time(pid)
    r = stage.measure("managed", rounds)
    if r["jobs"] != len(jobs):
        raise MeasureError(f"GetManagedObjects() has {r['jobs']} jobs, not {len(jobs)}")
    report.add("GetManagedObjects() at the client, median", median(r["managed"]) / 1000, "ms", at_most=2)
    report.add("GetManagedObjects() in the service, processor time", (processor_time(pid) - before) / (rounds + 1), "ms",
               at_most=2)


def reads(report, stage, jobs):
    for what, how, depth, least in (("Get(State), one after the other", "get", 1, None),
                                    ("Get(State), 32 calls under way", "get", 32, 25000),
                                    ("GetAll(), 32 calls under way", "getall", 32, None),
                                    ("GetManagedObjects()", "managed", 1, None)):
        r = stage.measure("reads", how, CLIENTS, depth, 2, lines=jobs)
        report.add(f"job reads by {CLIENTS} clients with {what}", r["per second"], "/s", at_least=least)


def hanging(report, stage, crowd, jobs):
    """The calls to the others while one QEMU is stopped and callers of its job wait."""
    rounds = 1000
    before = stage.measure("calls", rounds, lines=jobs[1:])
    crowd.processes[0].freeze()
    during = stage.measure("calls", rounds, jobs[0], 50, lines=jobs[1:])
    crowd.processes[0].thaw()
    for what, key in (("Get(State)", "get"), ("SetSpeed(), through QEMU and journal", "set")):
        p = [percentile(r[key], 99) / 1000 for r in (before, during)]
        report.add(f"{what}, p99", p[0], "ms")
        report.add("  while another QEMU hangs and 50 calls wait for it, p99", p[1], "ms", at_most=max(p[0] * 1.5, p[0] + 0.5))
        report.add("  worst", max(during[key]) / 1000, "ms")


class Restarted:
    """The service, killed and started again by the measuring client, whose child it then is."""

    def __init__(self, stage, service, domains, jobs):
        log = stage.path("restarted.log")
        self.client = subprocess.Popen(
            [f"{BUILD}/tests/bench.d/bench-measure", "restart", str(service.process.pid), str(len(jobs)), log,
             *service.process.argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **stage.test.bus.env}, preexec_fn=die_with_parent)
        self.client.stdin.write("".join(f"{d}\n" for d in domains) + "\n")
        self.client.stdin.flush()
        line = self.client.stdout.readline()
        if not line:
            raise MeasureError("the service did not come back")
        self.result = json.loads(line)
        self.pid = self.result["pid"]

    def kill(self):
        self.client.kill()
        self.client.wait()


def restart(report, stage, service, crowd, jobs):
    back = Restarted(stage, service, [f"{DOMAIN}/{n}" for n in crowd.names], jobs)
    report.add("SIGKILL to dead", back.result["dead"][0] / 1000, "ms")
    report.add("SIGKILL to owning the name", back.result["owned"][0] / 1000, "ms")
    report.add("SIGKILL to all jobs on the bus again", back.result["answered"][0] / 1000, "ms", at_most=100)
    report.add("SIGKILL to all QEMUs looked at", back.result["connected"][0] / 1000, "ms")
    return back


def switch_all(report, stage, jobs):
    r = stage.measure("pivot", lines=jobs)
    report.add("all Pivot() calls answered", max(r["replied"]) / 1000, "ms")
    report.add("all jobs pivoted", max(r["finished"]) / 1000, "ms", at_most=150)


def scale(report, options, stage_class):
    report.title(f"scale: {options.domains} idle domains, one disk each, state on {'tmpfs' if options.tmpfs else 'disk'}")
    with stage_class(options.tmpfs) as stage:
        service = stage.service()
        crowd = Crowd(stage, service, options.domains)
        try:
            crowd.wait_attached(stage.test.bus.connect())
            report.add("private memory of the service without jobs", private_memory(service.process.pid), "MiB")
            jobs = start_all(report, stage, crowd, 1)
            memory_and_objects(report, stage, service.process.pid, jobs)
            reads(report, stage, jobs)
            hanging(report, stage, crowd, jobs)
            back = restart(report, stage, service, crowd, jobs)
            try:
                report.add("private memory of the service then", private_memory(back.pid), "MiB", at_most=5)
                switch_all(report, stage, jobs)
            finally:
                back.kill()
        finally:
            crowd.kill()
