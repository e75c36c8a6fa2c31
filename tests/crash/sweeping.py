# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sweeps: a scenario is played again and again, and each time the service dies at another of its calls."""
import os

from killer import Point
from scenarios import scenes

FULL = os.environ.get("BLOCKJOBD_CRASH") == "full"
# What a scenario gets in the sample, so that the suite stays within minutes.
SAMPLE_POINTS, SAMPLE_DOUBLES = 24, 10
# First deaths of the full sweep, each followed by one at every call of the life that recovers.
FIRSTS = 4
# So many moments in a row that were not reached are behind the end: the number of calls varies a little.
BEHIND_THE_END = 4
VIOLATIONS_MAX = 3


class Violation(Exception):
    """A play has not come to the end that was promised."""

    def __init__(self, where, error, scene):
        calls = "\n  ".join(line[:200] for line in scene.mortal.calls()[-6:])
        super().__init__(f"killed {where}:\n  {calls}\n{type(error).__name__}: {error}")
        self.log = scene.s.log()[-8000:] if scene.s.process else ""


def play(scene, scenario, point=None, recovery=None):
    """Returns how often the service died."""
    before = scene.mortal.deaths
    try:
        scene.begin(point, recovery)
        scenario(scene)
        return scene.mortal.deaths - before
    except Exception as e:  # whatever it was, it is this moment's
        where = (f"{point}" if point else "never") + (f", then {recovery}" if recovery else "")
        raise Violation(where, e, scene) from e


def spread(total, points):
    """About POINTS numbers from 1 to TOTAL, evenly."""
    points = min(points, total)
    return [1 + i * (total - 1) // max(1, points - 1) for i in range(points)]


class Sweep:
    """make() gives a new scene; scenario(scene) plays one job and calls scene.arm() where the moments begin."""

    def __init__(self, make, scenario):
        self.make, self.scenario, self.scene = make, scenario, make()
        self.points, self.doubles, self.violations = 0, 0, []

    def play(self, point, recovery=None):
        """Returns how often the service died. After a violation the next play has a new scene."""
        try:
            return play(self.scene, self.scenario, point, recovery)
        except Violation as v:
            self.violations.append(f"{v}\n{v.log}")
            if len(self.violations) >= VIOLATIONS_MAX:
                raise
            self.scene.kill()
            self.scene = self.make()
            return 1 + bool(recovery)

    def count(self):
        """How many calls there are when nobody dies."""
        self.play(None)
        return self.scene.calls

    def once(self, moments):
        """One death, before and after each of these calls, until they are not reached any more."""
        missed = 0
        for at in moments:
            for after in False, True:
                died = self.play(Point(at, after=after))
                self.points += died
                missed = 0 if died else missed + 1
            if missed >= BEHIND_THE_END:
                break

    def twice(self, first, moments):
        """A first death there, and one at each of these calls of the life that follows."""
        missed = 0
        for at in moments:
            died = self.play(first, Point(at, after=bool(at % 2)))
            self.doubles += died == 2
            missed = 0 if died == 2 else missed + 1
            if missed >= BEHIND_THE_END:
                break

    def run(self, full):
        total = self.count()
        if full:
            self.once(range(1, 10 * total))
            for at in spread(total, FIRSTS):
                self.twice(Point(at), range(1, 10 * total))
        else:
            self.once(spread(total, SAMPLE_POINTS // 2))
            for number, at in enumerate(spread(total, SAMPLE_DOUBLES)):
                self.twice(Point(at), [1 + 4 * number])

    def verdict(self):
        print(f"note: {self.points} points, {self.doubles} double kills, {len(self.violations)} violations")
        assert not self.violations, "\n\n".join(self.violations)
        assert self.points >= SAMPLE_POINTS // 2, f"only {self.points} moments were reached"


def sweep(t, name, full=FULL):
    s = Sweep(*scenes(t, name))
    try:
        s.run(full)
        s.scene.finish()
    finally:
        s.verdict()


def hunt(t, name, service):
    """What is wrong with that service, as soon as something is; None when a whole sweep finds nothing."""
    make, scenario = scenes(t, name, service=service)
    scene = make()
    try:
        play(scene, scenario)
        total = scene.calls
        # All over the play from the beginning.
        for at in sorted(range(1, total + 1), key=lambda n: n * 37 % total):
            for after in False, True:
                play(scene, scenario, Point(at, after=after))
    except Violation as v:
        return str(v)
    return None
