# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that writes without pause is moved to and fro between two images, and the service is killed in each move."""
import os
import random
import statistics
import time

from harness import *
from killer import Mortal

RING = 512
LANES = 4
ROUNDS = int(os.environ.get("BLOCKJOBD_LOAD_ROUNDS", "50"))
SEED = int(os.environ.get("BLOCKJOBD_SEED") or int.from_bytes(os.urandom(4), "big"))


class Killer:
    """Kills the service once, at a random moment of the next SPAN seconds."""

    def __init__(self, mortal, random, span):
        self.mortal, self.at, self.done = mortal, time.monotonic() + random.uniform(0, 0.8 * span), False

    def __call__(self):
        if not self.done and time.monotonic() >= self.at:
            self.done = True
            self.mortal.s.process.kill()


def moved(mortal, disk, target, span, random, number):
    """One pivot with one kill; returns (the job, seconds)."""
    began, killer = time.monotonic(), Killer(mortal, random, span)

    def until(condition, what):
        def look():
            killer()
            return condition()
        return mortal.until(look, 60, what)
    job = mortal.call(lambda: disk.copy(target, existing=True, format="qcow2", request_id=f"n{number}"))
    until(lambda: job.State == "ready", f"{job.path} ready")
    # Every third time only the writes are held, not the processors.
    mortal.call(lambda: job.pivot(pause_guest=bool(number % 3)), allow=("AlreadyEnding",))
    until(lambda: job.State == "concluded", f"{job.path} concluded")
    took = time.monotonic() - began
    until(lambda: killer.done, "the kill")
    mortal.revive()
    return job, took


@deadline(240)
def test_fifty_pivots_under_load_with_a_kill_in_each_lose_nothing(t):
    print(f"note: BLOCKJOBD_SEED={SEED}")
    rng = random.Random(SEED)
    images = [t.image("a.qcow2", "64M"), t.image("b.qcow2", "64M")]
    guest = t.guest(drives=[images[0]], lanes=LANES, ring=RING)
    mortal = Mortal(t.service())
    disk = mortal.s.attach("web", guest.socket).disk("vda")
    span, paused, restarts, seen = 0.3, [], 0, 0
    for n in range(1, ROUNDS + 1):
        target = images[n % 2]
        deaths = mortal.deaths
        job, took = moved(mortal, disk, target, span, rng, n)
        job = mortal.until(job.properties, what="the job's properties")
        assert job["Result"] == "pivoted", job
        assert mortal.deaths == deaths + 1 and job["Restarts"] in (0, 1), job
        mortal.until(lambda: disk.Source == target, 10, lambda: disk.properties())
        assert [p for p, j in mortal.s.jobs().items() if j["State"] != "concluded"] == []
        guest.drives[0].path = target
        # What the guest saw, not what the service says: from the stop of its processors until they run again.
        held, seen = stood(guest, seen)
        paused += [held] if n % 3 else []
        restarts += job["Restarts"]
        span = 0.8 * span + 0.2 * took
        guest.wait_writes(8)
    guest.wait_writes(4 * RING)
    guest.quit()
    image_check(guest.drives[0].path)
    print(guest.verify())
    print(f"note: {ROUNDS} pivots, {restarts} killed with the job under way; the guest stood "
          f"{statistics.median(paused) * 1e3:.1f} ms (median), {max(paused) * 1e3:.1f} ms (worst)")


def stood(guest, seen):
    """(seconds for which the processors stood since event SEEN, number of events now)."""
    guest("query-status")
    events = [(e["event"], e["timestamp"]["seconds"] + e["timestamp"]["microseconds"] / 1e6)
              for e in guest.qmp.events if e["event"] in ("STOP", "RESUME")]
    held, since = 0.0, None
    for event, at in events[seen:]:
        if event == "STOP":
            since = at
        elif since is not None:
            held, since = held + at - since, None
    assert since is None, "the guest stands"
    return held, len(events)
