# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service killed at chosen moments and started again: its caller who does not give up, and what must hold then."""
import os
import signal
import time

from bus import PREFIX, BusError
from invariants import check_definitions, check_journal, check_qemu, check_signals, journal_table
from process import BUILD, DeadlinePassed, wait_until
from qemu import image_check, image_compare
from service import Job

KILLAT = f"{BUILD}/tests/killat"

# What a caller sees when the service dies before it has answered, and between two lives.
DIED = {"NoReply", "ServiceUnknown", "NameHasNoOwner", "Disconnected"}
# What it may be told while a new life has not looked at QEMU yet; asking again is the remedy that the text names.
SOON = {"DomainUnresponsive", "UnknownObject", "NoSuchDisk"}

DEFINITION = """<domain type='qemu'>
  <name>{name}</name>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{path}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


class Point:
    """A moment: before (or after) the AT-th call that counts, of those whose data contain MATCH. See killat.c."""

    def __init__(self, at=0, after=False, match=None, hold=False):
        self.at, self.after, self.match, self.hold = at, after, match, hold

    def arguments(self, log):
        return (["--at", str(self.at), "--log", log] + ["--after"] * self.after + ["--hold"] * self.hold
                + (["--match", self.match] if self.match else []))

    def __repr__(self):
        return f"{'after' if self.after else 'before'} call {self.at}" + (f" with {self.match}" if self.match else "")


class Mortal:
    """A service and its caller, who starts it again when it was killed and repeats what was not answered.

    start(point) runs the service until that moment; without a point it lives until somebody ends it."""

    def __init__(self, service):
        self.s, self.deaths, self.calls_path = service, 0, f"{service.folder}/calls.log"
        # Called when the service has died, before it is started again.
        self.at_death = lambda: None

    def start(self, point=None):
        if point and os.path.exists(self.calls_path):
            os.unlink(self.calls_path)
        self.s.wrap = [KILLAT, *point.arguments(self.calls_path), "--"] if point else []
        self.s.start(wait=False)
        self.s.wrap = []
        wait_until(lambda: self.dead or self.s.bus.owner_of(PREFIX), 30, "the service's name or its end", interval=0.002)

    @property
    def dead(self):
        return not self.s.process.alive

    def calls(self):
        """What the life under killat has called so far, in order, one line each."""
        try:
            with open(self.calls_path, errors="replace") as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def reached(self):
        """The point was reached: the service is dead, or held there."""
        return "reached" in self.calls()[-3:]

    def let_go(self):
        """Goes on after a point with hold=True."""
        self.s.process.signal(signal.SIGUSR1)

    def revive(self):
        """Starts the service again if it was killed; an end of its own is none that it may have."""
        if not self.dead:
            return False
        status = self.s.process.returncode
        assert status == -signal.SIGKILL, f"the service has ended by itself with {status}:\n{self.s.log()[-8000:]}"
        self.deaths += 1
        self.s.killed += 1
        self.at_death()
        wait_until(lambda: not self.s.bus.owner_of(PREFIX), what="the service's name to be free", interval=0.002)
        self.start()
        return True

    def stop(self):
        """Ends the service in order; it may die on the way."""
        while True:
            self.revive()
            self.s.process.terminate()
            if self.s.process.returncode == 0:
                return
            assert self.dead and self.s.process.returncode == -signal.SIGKILL, self.s.log()[-8000:]

    def until(self, condition, timeout=60, what="the condition"):
        """Waits for what condition() returns, through all deaths."""
        def look():
            self.revive()
            try:
                return condition()
            except BusError as e:
                if e.short in DIED or (self.deaths and e.short in SOON):
                    return None
                raise
        return wait_until(look, timeout, what, interval=0.005)

    def call(self, function, allow=()):
        """Repeats the call until it is answered. allow: errors that mean, when it was repeated, that it was heard."""
        repeated = False

        def go():
            nonlocal repeated
            try:
                return (function(),)
            except BusError as e:
                if repeated and e.short in allow:
                    return (None,)
                if e.short in DIED:
                    repeated = True
                    if self.s.process.alive:
                        # The bus knows of the death before the parent does.
                        time.sleep(0.001)
                    return None
                if self.deaths and e.short in SOON:
                    return None
                raise
        return self.until(go, 30, "an answer")[0]


class Stage:
    """A guest with one disk, whose machine runs but has nothing to do, its service, and jobs one after the other.

    A job moves the guest from .current to .target, or leaves it. What the guest has written must be there afterwards."""

    FILL = "1M"

    def __init__(self, t, name, definition=False):
        self.t, self.number, self.definition = t, 0, None
        self.images = t.path(f"{name}-images")
        os.makedirs(self.images)
        self.current = t.image(f"{name}-images/i0.qcow2", "8M", fill=self.FILL)
        self.target = self.job = None
        self.qemu = t.qemu(name, [self.current], idle=False)
        # Old jobs would make every start longer and move the moments.
        self.mortal = Mortal(t.service("[Jobs]\nKeepFinishedJobs=2\nKeepFinishedTime=0\n"))
        self.s = self.mortal.s
        if definition:
            self.definition = f"{self.images}/{name}.xml"
            with open(self.definition, "w") as f:
                f.write(DEFINITION.format(name=name, path=self.current))
        self.domain = self.s.attach(name, self.qemu.socket,
                                    **({"definition": self.definition} if definition else {}))
        self.disk = self.domain.disk("vda")
        self.s.stop()

    # -- what the caller does --
    def begin(self, point=None):
        self.number += 1
        self.target, self.job = f"{self.images}/i{self.number}.qcow2", None
        self.deaths = self.mortal.deaths
        self.write(0)
        self.mortal.start(point)
        # The disks are there when the domain has been looked at.
        self.mortal.until(lambda: self.domain.Disks, 30, "the domain's disks")

    def copy(self, **o):
        """Ordered again with the same request-id when the answer did not come: it is the same job."""
        self.job = self.mortal.call(lambda: self.disk.copy(self.target, request_id=f"n{self.number}", **o))
        return self.job

    def wait(self, state, timeout=60):
        order = Job.STATES

        def reached():
            now = self.job.State
            assert now != "concluded" or state == "concluded" or self.job.Result in ("pivoted", "finished"), (
                f"concluded while waiting for {state}: {self.job.properties()}")
            return order.index(now) >= order.index(state)
        try:
            self.mortal.until(reached, timeout, f"job {self.job.path} in state {state}")
        except DeadlinePassed as e:
            raise AssertionError(f"{e}: {self.mortal.call(self.job.properties)}") from None

    def order(self, method, **o):
        self.mortal.call(lambda: getattr(self.job, method)(**o), allow=("AlreadyEnding",))

    # -- the guest --
    def write(self, place):
        """The guest writes; every job has bytes of its own at three places."""
        self.qemu.io(f"write -P {self.number % 251 + 1} {place * 2 + 1}M 64k")

    def read(self, place):
        self.qemu.io(f"read -P {self.number % 251 + 1} {place * 2 + 1}M 64k")

    # -- what must hold --
    def end(self, result, written=(0, 1), source_stays=True, target_stays=None):
        """The job has that end, once; guest, images, definition, journal, QEMU and folder are as that end promises.

        written: the places that the guest has written before the end was asked for."""
        self.wait("concluded")
        properties = self.mortal.call(self.job.properties)
        assert properties["Result"] == result, properties
        assert properties["ErrorName"] == "" and properties["Target"] == self.target, properties
        moved = result == "pivoted"
        old, self.current = self.current, self.target if moved else self.current
        # The last steps come after the record of the end.
        self.mortal.until(lambda: self.qemu("query-status")["running"], 10, "the guest to run")
        self.mortal.until(lambda: not check_qemu(self.qemu, set()), 10, lambda: check_qemu(self.qemu, set()))
        self.mortal.until(lambda: self.disk.Source == self.current and self.disk.Job == "/", 10,
                          lambda: f"the disk on {self.current}: {self.disk.properties()}")
        self.check_service(properties)
        for place in written:
            self.read(place)
        self.check_images(old, result, source_stays, target_stays)
        self.write(2)
        self.read(2)

    def check_service(self, properties):
        jobs, domains, disks = (self.mortal.call(f) for f in (self.s.jobs, self.s.domains, self.s.disks))
        same = [p for p, j in jobs.items() if j["Target"] == self.target]
        assert same == [self.job.path], f"ordered once, and there are {same}"
        wrong = check_definitions(domains, disks, set())
        self.mortal.stop()
        rows = journal_table(self.s.state_dir, "job", "id")
        # Older jobs may leave the bus between the one look and the other.
        wrong += check_journal({self.job.id: jobs[self.job.path]}, {self.job.id: rows[self.job.id]})
        wrong += [f"job {i} has no end" for i, r in rows.items() if not r["result"]]
        wrong += check_signals(self.s, rows)
        told = [r for r in journal_table(self.s.state_dir, "transition", "seq").values() if r["job"] == self.job.id]
        ends = [r for r in told if r["state"] == "concluded"]
        recovered = [r for r in told if r["detail"] == "recovered"]
        if len(ends) != 1:
            wrong.append(f"{len(ends)} records of the end: {told}")
        if not properties["Restarts"] == len(recovered) <= self.mortal.deaths - self.deaths:
            wrong.append(f"Restarts is {properties['Restarts']}, {len(recovered)} times recovered, "
                         f"{self.mortal.deaths - self.deaths} deaths")
        assert not wrong, "\n".join(wrong)

    def check_images(self, old, result, source_stays, target_stays):
        """Nobody writes now. What is left behind is compared, and taken away."""
        if target_stays is None:
            target_stays = result != "cancelled"
        expected = {self.current} | ({self.definition} if self.definition else set())
        if result == "pivoted":
            other = old if source_stays else None
        else:
            other = self.target if target_stays else None
        expected |= {other} if other else set()
        found = {os.path.join(self.images, n) for n in os.listdir(self.images)}
        assert found == {p for p in expected if p}, f"files there: {sorted(found)}, expected: {sorted(expected)}"
        self.qemu.io("flush")
        image_check(self.current, share=True)
        if other and result != "cancelled":
            image_compare(self.current, other, share=True, formats=("qcow2", "qcow2"))
        if other:
            image_check(other)
            os.unlink(other)


def sweep(make, scenario, points, full=False):
    """Plays SCENARIO(stage) once in peace, then with a kill at about POINTS moments spread over all of its calls.

    full: at every call, until the end is not reached any more. make() gives a new stage. Returns how many were killed."""
    stage = make()

    def play(point):
        stage.begin(point)
        scenario(stage)

    play(Point())
    total = sum(1 for line in stage.mortal.calls() if line[:1].isdigit())
    moments = range(1, total + 40) if full else spread(total, points)
    failures, killed, missed = [], 0, 0
    for at in moments:
        point = Point(at)
        try:
            play(point)
        except Exception as e:  # the next moments are of interest all the same
            calls = "\n  ".join(line[:200] for line in stage.mortal.calls()[-4:])
            failures.append(f"killed {point} of about {total}:\n  {calls}\n{type(e).__name__}: {e}\n"
                            f"{stage.s.log()[-6000:]}")
            if len(failures) >= 3:
                break
            stage.s.process.kill()
            stage.qemu.kill()
            stage = make()
            continue
        killed += stage.mortal.deaths - stage.deaths
        missed = 0 if stage.mortal.deaths > stage.deaths else missed + 1
        if missed >= 5:
            break
    assert not failures, "\n\n".join(failures)
    assert killed >= 0.8 * min(points, total), f"only {killed} of {points} moments were reached (of {total} calls)"
    return killed


def spread(total, points):
    """About POINTS numbers from 1 to TOTAL, evenly."""
    points = min(points, total)
    return [1 + i * (total - 1) // max(1, points - 1) for i in range(points)]
