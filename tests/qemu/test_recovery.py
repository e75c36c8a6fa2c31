# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service is killed at named moments and at random ones, and QEMU with it: each job comes to the end that was promised.

Every moment there is has its turn in the sweeps of tests/crash."""
import os
import random
import statistics
import threading
import time
from xml.etree import ElementTree

from harness import *
from killer import Point, Stage, end_of
from process import PATIENCE

def pivot(stage):
    stage.copy()
    stage.wait("ready")
    stage.write(1)
    stage.order("pivot")
    stage.end("pivoted")


def finish(stage):
    stage.copy()
    stage.wait("ready")
    stage.write(1)
    stage.order("finish")
    stage.end("finished")


# ---- named moments: what the death leaves in QEMU, and what the next life makes of it ----

# What was sent right before a death has reached QEMU or not, or in part: what belongs together leaves in one write.
SENT = "sent"
# (words, point, status of the job in QEMU when the service has died, does the guest run then, restarts survived)
BEFORE_THE_PIVOT = [
    ("nothing is in QEMU", Point(1, '"add-fd"'), None, True, 1),
    ("one descriptor is there, the rest was not sent", Point(1, '"blockdev-mirror"'), None, True, 1),
    ("the mirror is sent", Point(1, '"blockdev-mirror"', after=True), SENT, True, 1),
]
UNDECIDED = [
    ("the intent is recorded", Point(1, '"execute":"stop"'), "ready", True, 1),
    ("stop and completion are sent", Point(1, '"job-complete"', after=True), SENT, None, 1),
    ("pending", Point(1, "journal.db-wal", behind='"job-complete"'), "pending", False, 1),
]
DECIDED = [
    ("decided", Point(1, '"job-finalize"'), "pending", False, 1),
    ("finalize, cont and what follows are sent", Point(1, '"job-finalize"', after=True), SENT, None, 1),
    ("the definition is old", Point(1, "renameat"), "concluded", True, 1),
    ("the definition is new", Point(1, "renameat", after=True), "concluded", True, 1),
    ("the end is not recorded", Point(1, "journal.db-wal", behind="renameat"), "concluded", True, 1),
    ("the end is not told", Point(1, "JobFinished"), "concluded", True, 0),
    ("not dismissed", Point(1, '"job-dismiss"'), "concluded", True, 0),
]


def named(t, **more):
    """aio=threads: where native AIO is exhausted, a second try would move the moments."""
    return Stage(t, "web", aio="threads", **more)


class Witness:
    """Looks at QEMU when the service has died."""

    def __init__(self, stage, then=lambda: None):
        self.stage, self.then, self.phase, self.runs = stage, then, None, None
        stage.mortal.at_death = self

    def __call__(self):
        own = [j for n, j in self.stage.qemu.jobs().items() if j["type"] == "mirror"]
        # Small as it is, a mirror may not be ready yet when the service dies right behind its start.
        if own and own[0]["status"] in ("created", "running"):
            wait_until(lambda: self.stage.qemu.jobs()[own[0]["id"]]["status"] == "ready")
        self.phase = self.stage.qemu.jobs()[own[0]["id"]]["status"] if own else None
        self.runs = self.stage.qemu("query-status")["running"]
        self.then()


@deadline(180)
def test_pivot_goes_on_from_each_phase_in_which_the_service_died(t):
    stage = named(t, definition=True)
    for words, point, phase, runs, restarts in BEFORE_THE_PIVOT + UNDECIDED + DECIDED:
        witness = Witness(stage)
        stage.begin(point)
        try:
            pivot(stage)
            assert stage.mortal.deaths == stage.deaths + 1, "the moment was not reached"
            assert phase in (SENT, witness.phase) and runs in (None, witness.runs), (
                f"QEMU: {witness.phase}, runs: {witness.runs}")
            assert stage.properties["Restarts"] == restarts, end_of(stage.properties)
        except AssertionError as e:
            raise AssertionError(f"killed when {words} ({point}): {e}") from e


def killed_again(stage, number):
    """One more death, and the new life has recorded that it goes on."""
    stage.s.process.kill()
    stage.mortal.revive()
    wait_until(lambda: stage.restarts_recorded() == number, what=lambda: f"restart {number} in the journal")


@deadline(120)
def test_copy_that_runs_or_is_ready_survives_many_deaths(t):
    stage = named(t)
    stage.begin()
    stage.copy(speed=2 << 20)
    stage.wait("running")
    for number in range(1, 4):
        killed_again(stage, number)
    stage.wait("ready")
    for number in range(4, 7):
        killed_again(stage, number)
    stage.write(1)
    stage.order("pivot")
    stage.end("pivoted")
    assert stage.properties["Restarts"] == 6, stage.properties


FINISH = [
    ("the intent is recorded", Point(1, '"execute":"stop"'), "ready", True),
    ("stop and the soft cancel are sent", Point(1, '"block-job-cancel"', after=True), SENT, None),
    ("pending", Point(1, "journal.db-wal", behind='"block-job-cancel"'), "pending", False),
    ("decided", Point(1, '"job-finalize"'), "pending", False),
    ("finalize, cont and what follows are sent", Point(1, '"job-finalize"', after=True), SENT, None),
    ("not dismissed", Point(1, '"job-dismiss"'), "concluded", True),
]


@deadline(120)
def test_finish_goes_on_from_each_phase_in_which_the_service_died(t):
    stage = named(t)
    for words, point, phase, runs in FINISH:
        # The nodes of the copy are removed when it has begun, and before, if there may be leftovers.
        witness = Witness(stage)
        stage.begin(point)
        try:
            finish(stage)
            assert stage.mortal.deaths == stage.deaths + 1, "the moment was not reached"
            assert phase in (SENT, witness.phase) and runs in (None, witness.runs), (
                f"QEMU: {witness.phase}, runs: {witness.runs}")
        except AssertionError as e:
            raise AssertionError(f"killed when {words} ({point}): {e}") from e


# ---- many, at random ----

KILLS = int(os.environ.get("BLOCKJOBD_KILLS", "200"))
SEED = int(os.environ.get("BLOCKJOBD_SEED") or int.from_bytes(os.urandom(4), "big"))


@deadline(240)
def test_pivots_survive_two_hundred_kills_at_random_moments(t):
    """The service lives on from job to job; only every fifth job's images are compared in full."""
    print(f"note: BLOCKJOBD_SEED={SEED}")
    rng, stage, took, held, survived = random.Random(SEED), Stage(t, "web", definition=True), 0.1, [], 0
    stage.mortal.start()
    for number in range(KILLS):
        stage.next()
        began, deaths = time.monotonic(), stage.mortal.deaths
        timer = threading.Timer(rng.uniform(0, took), stage.s.process.popen.kill)
        timer.start()
        stage.copy(pause_guest=bool(number % 3))
        stage.wait("ready")
        stage.order("pivot")
        stage.wait("concluded")
        # How long it takes in peace, as far as that can be seen.
        if stage.mortal.deaths == deaths:
            took = 0.5 * took + 0.5 * (time.monotonic() - began)
        timer.join()
        stage.mortal.revive()
        try:
            held += stage.moved(thorough=number % 5 == 4)
        except AssertionError as e:
            raise AssertionError(f"kill {number}: {e}") from e
        survived += stage.properties["Restarts"]
    print(f"note: {stage.mortal.deaths} kills, {survived} with the job under way; the guest stood "
          f"{statistics.median(held) * 1e3:.1f} ms (median), {max(held) * 1e3:.0f} ms (worst)")
    assert stage.mortal.deaths == KILLS and survived > KILLS / 3, f"{stage.mortal.deaths} kills, {survived} survived"
    assert max(held) < 2 * PATIENCE, f"the guest stood for {max(held)} s"


# ---- QEMU dies as well ----

def pivot_if_qemu_lives(stage):
    """Returns what the guest has written and flushed."""
    mortal, places = stage.mortal, (0,)
    stage.copy()
    mortal.until(lambda: stage.job.State in ("ready", "concluded"), what="ready or over")
    if stage.qemu.alive:
        stage.write(1)
        places = (0, 1)
        mortal.call(stage.job.pivot, allow=("AlreadyEnding", "DomainNotRunning"))
    return places


def by_the_record(stage, hold):
    """QEMU dies at each moment: before the decision the source is right, after it the target; the definition says so."""
    for moments, result in ((BEFORE_THE_PIVOT + UNDECIDED, "lost"), (DECIDED, "pivoted")):
        for words, point, *_ in moments:
            if words == "stop and completion are sent":
                continue  # QEMU's last word may have been "pending", and been decided on: either end is right
            try:
                if hold:
                    stage.begin(point.held())
                    stage.mortal.at_hold(stage.qemu.kill)
                    # The decision is on its way to the disk already.
                    result = "pivoted" if words == "pending" else result
                else:
                    Witness(stage, stage.qemu.kill)
                    stage.begin(point)
                stage.end_without_qemu(result, pivot_if_qemu_lives(stage))
                assert hold or stage.mortal.deaths == stage.deaths + 1, "the moment was not reached"
            except AssertionError as e:
                raise AssertionError(f"killed when {words} ({point}): {e}") from e
    stage.mortal.at_death = lambda: None
    stage.begin()
    pivot(stage)


@deadline(180)
def test_record_decides_when_qemu_dies_while_the_service_is_down(t):
    by_the_record(named(t, definition=True), False)


@deadline(180)
def test_record_decides_when_qemu_dies_under_the_service(t):
    by_the_record(named(t, definition=True), True)


def decided_and_dead(t):
    """The pivot was decided, then service and QEMU died: the target is right, and the definition names the source still."""
    stage = named(t, definition=True)
    stage.begin(Point(1, '"job-finalize"'))
    stage.copy()
    stage.wait("ready")
    stage.write(1)
    try:
        stage.job.pivot()
    except BusError:
        pass
    wait_until(lambda: stage.mortal.dead)
    stage.qemu.kill()
    return stage


@deadline(60)
def test_definition_is_in_line_before_anybody_answers_for_the_domain(t):
    """What starts domains may ask for the bus name, or be ordered after the service: then the definition is right."""
    stage = decided_and_dead(t)
    stage.mortal.revive()
    wait_until(lambda: stage.job.State == "concluded", 5, lambda: end_of(stage.job.properties()))
    stage.end_without_qemu("pivoted", (0, 1))


@deadline(60)
def test_definition_follows_a_guest_that_was_started_on_its_source_again(t):
    """Nobody waited for the service: the guest writes to the source now, so that is the image that is right."""
    stage = decided_and_dead(t)
    stage.qemu.start()
    stage.write(2)
    stage.mortal.revive()
    stage.wait("concluded")
    stage.mortal.until(lambda: stage.domain.State == "running" and stage.disk.Job == "/", 30, "the domain")
    assert stage.disk.Source == stage.current, stage.disk.properties()
    named = ElementTree.parse(stage.definition).find("devices/disk/source").get("file")
    assert named == stage.current, (f"the guest runs on {stage.current}, its definition says {named}: "
                                    f"{end_of(stage.job.properties())}")


@deadline(60)
def test_time_that_the_guest_stood_is_told_also_after_a_death(t):
    stage = named(t)
    stage.begin(Point(1, "journal.db-wal", behind='"job-complete"'))
    pivot(stage)
    (stop, resume), = stage.stood()
    told = stage.properties["GuestPaused"] / 1e6
    assert abs(told - (resume - stop)) < 0.05 * PATIENCE, f"{told} s are told, it stood for {resume - stop} s"
