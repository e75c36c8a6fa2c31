# SPDX-License-Identifier: LGPL-2.1-or-later
"""Deaths of a service whose connection to QEMU outlives it: what was sent is carried out, maybe half a command is in QEMU's
parser, and the answers to a dead service come to the next one."""
import random

from harness import *
from killer import Point, Stage
from test_recovery import BEFORE_THE_PIVOT, DECIDED, UNDECIDED, pivot


def stored(t, **more):
    systemd = t.service_manager()
    return systemd, Stage(t, "web", systemd=systemd, aio="threads", **more)


def sockets(systemd):
    return sum(len(fds) for fds in systemd.store.values())


@deadline(180)
def test_pivot_goes_on_over_the_stored_connection_from_each_phase(t):
    systemd, stage = stored(t, definition=True)
    for words, point, _phase, _runs, _restarts in BEFORE_THE_PIVOT + UNDECIDED + DECIDED:
        kept = []
        stage.mortal.at_death = lambda: kept.append(systemd._readable() and sockets(systemd))
        stage.begin(point)
        try:
            pivot(stage)
            assert kept == [1], f"connections in the store when the service had died: {kept}"
        except AssertionError as e:
            raise AssertionError(f"killed when {words} ({point}): {e}") from e


@deadline(240)
def test_pivot_survives_deaths_before_and_after_every_few_writes_to_qemu(t):
    systemd, stage = stored(t, definition=True)
    chosen = random.Random(4)
    for at in range(1, 15):
        stage.begin(Point(at, match='"execute"', after=chosen.random() < 0.5))
        try:
            pivot(stage)
        except AssertionError as e:
            raise AssertionError(f"killed at write {at} to QEMU: {e}") from e
    assert stage.mortal.deaths >= 10, f"{stage.mortal.deaths} deaths"
