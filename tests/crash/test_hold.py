# SPDX-License-Identifier: LGPL-2.1-or-later
"""For how long the guest cannot write while its disk is switched: in peace, and when the service dies right there."""
import statistics
import time

from harness import *
from killer import Point
from process import PATIENCE
from scene import Scene
from sweeping import FULL

PIVOTS, KILLED = (200, 50) if FULL else (30, 10)


def seconds(event):
    return event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6


def held_times(scene):
    """[(from, until)] for each time that writes were held since this was asked last: pending, or processors that stood."""
    scene.qemu("query-status")
    held, since, stopped, pending = [], None, False, False
    for e in scene.qemu.qmp.events:
        status = e.get("data", {}).get("status") if e["event"] == "JOB_STATUS_CHANGE" else None
        stopped = e["event"] == "STOP" or (stopped and e["event"] != "RESUME")
        pending = status == "pending" or (pending and status != "concluded")
        if (stopped or pending) and since is None:
            since = seconds(e)
        elif not stopped and not pending and since is not None:
            held.append((since, seconds(e)))
            since = None
    assert since is None, "the guest's writes are held"
    scene.qemu.qmp.events.clear()
    return held


def pivot(scene, point=None, **options):
    """Returns when the guest's writes were held: (from, until)."""
    scene.begin(point)
    scene.copy(**options)
    scene.wait("ready")
    scene.write(1)
    held_times(scene)
    scene.arm()
    scene.order("pivot")
    scene.wait("concluded")
    scene.settle(lambda: [] if scene.qemu("query-status")["running"] else ["the guest stands"])
    held, = held_times(scene)
    scene.end("pivoted")
    return held


def pivots(scene, number, **options):
    """For how long, each time."""
    return [until - since for since, until in (pivot(scene, **options) for _ in range(number))]


def told(what, times):
    print(f"note: {what}: held for {statistics.median(times) * 1e3:.1f} ms (median), {max(times) * 1e3:.1f} ms (worst), "
          f"{len(times)} times")


@deadline(900)
def test_guest_is_held_for_a_moment_by_a_pivot(t):
    scene = Scene(t, "web")
    times = pivots(scene, PIVOTS)
    told("pivots, the guest's processors stopped", times)
    assert statistics.median(times) < 0.5 * PATIENCE, times
    scene.finish()


@deadline(900)
def test_writes_are_held_for_a_moment_by_a_pivot_of_a_running_guest(t):
    scene = Scene(t, "web")
    times = pivots(scene, PIVOTS, pause_guest=False)
    told("pivots, the guest running", times)
    assert statistics.median(times) < 0.5 * PATIENCE, times
    scene.finish()


@deadline(900)
def test_guest_can_write_again_soon_after_the_service_died_in_pending(t):
    """Killed before the decision is on disk, and started again at once."""
    scene = Scene(t, "web")
    scene.begin()
    scene.copy()
    scene.wait("ready")
    scene.arm()
    scene.order("pivot")
    scene.end("pivoted", written=(0,))
    calls = scene.mortal.calls()
    last = max(i for i, line in enumerate(calls) if "job-complete" in line)
    number = next(int(line.split()[0]) for line in calls[last + 1:] if "journal.db-wal" in line)
    died, times = [0.0], []

    def at_death():
        died[0] = time.time()
        scene.look_at_death()
    scene.mortal.at_death = at_death
    for _ in range(3 * KILLED):
        since, until = pivot(scene, Point(number))
        if since <= died[0] <= until:
            times.append(until - since)
        if len(times) == KILLED:
            break
    assert len(times) == KILLED, f"only {len(times)} deaths were right there"
    told("pivots with the service killed in pending and started again", times)
    assert statistics.median(times) < 1 * PATIENCE, times
    scene.finish()
