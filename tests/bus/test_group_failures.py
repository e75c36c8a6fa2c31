# SPDX-License-Identifier: LGPL-2.1-or-later
"""A group whose QEMU refuses, or whose service dies, between one disk and the next: all or none, and nothing is lost."""
import os
import signal
import time

from harness import *
from invariants import check_qemu
from process import PATIENCE
from qmp_proxy import QmpProxy
from scenes import *

DISKS = ["vda", "vdb", "vdc"]
WORDS = "the test has refused this: №7"


class Trio:
    """A machine with three disks behind a proxy, its service, and a group that is ready."""

    def __init__(self, t, definition=False, **options):
        self.t = t
        self.old = {d: t.image(f"{d}.qcow2", "16M", fill="1M") for d in DISKS}
        self.new = {d: t.path(f"{d}-new.qcow2") for d in DISKS}
        self.qemu = t.qemu("web", list(self.old.values()), idle=False)
        self.proxy = QmpProxy(t, self.qemu)
        self.s = t.service()
        self.domain = self.s.attach("web", self.proxy.path)
        self.group = self.domain.copy_disks(self.new, **options).wait("ready")
        self.members = self.group.members()
        self.write(1)

    def write(self, place):
        for i in range(3):
            self.qemu.io(f"write -P {place + i} {place}M 64k", i)
            self.qemu.io("flush", i)

    def read(self, place):
        for i in range(3):
            self.qemu.io(f"read -P {place + i} {place}M 64k", i)

    def at(self, command, number, do):
        """do(arguments) decides about the NUMBER-th such command of a member from now on."""
        seen = []

        def decide(name, arguments):
            if name != command:
                return None
            seen.append(arguments)
            return do(arguments) if len(seen) == number else None
        self.proxy.on_command = decide

    def all_on(self, images, result):
        """Every disk stands there, with all that was written; the guest runs and nothing is left behind."""
        wait_until(lambda: self.qemu("query-status")["running"], what="the guest to run")
        wait_until(lambda: not check_qemu(self.qemu, set()), what=lambda: check_qemu(self.qemu, set()))
        wait_until(lambda: all(self.domain.disk(d).Source == images[d] for d in DISKS),
                   what=lambda: [self.domain.disk(d).properties() for d in DISKS])
        assert [m.Result for m in self.members] == [result] * 3, [m.properties() for m in self.members]
        self.read(1)
        self.write(2)
        self.read(2)
        self.proxy.on_command = None


def rolls_back(t, command, number, answer, **options):
    trio = Trio(t, **options)
    trio.at(command, number, lambda arguments: answer)
    trio.group.pivot()
    trio.group.wait_result("failed", 30)
    trio.all_on(trio.old, "failed")
    assert all(m.ErrorMessage for m in trio.members)
    return trio


def refused_once(t, number, **options):
    trio = rolls_back(t, "job-complete", number, {"class": "GenericError", "desc": WORDS}, **options)
    assert trio.group.ErrorMessage.endswith(WORDS), trio.group.ErrorMessage
    # Nothing is in the way of the next one.
    trio.domain.copy_disks(trio.new).wait("ready").pivot().wait_result("pivoted")


def test_refused_completion_of_the_first_disk_takes_all_back(t):
    refused_once(t, 1)


def test_refused_completion_of_the_last_disk_takes_all_back(t):
    refused_once(t, 3)


def test_refused_completion_takes_all_back_while_the_processors_run(t):
    refused_once(t, 2, pause_guest=False)


def test_disk_that_does_not_come_to_the_point_in_time_takes_all_back(t):
    """QEMU has said yes and does nothing: after two seconds the guest's writes go on, on the sources."""
    began = time.monotonic()
    trio = rolls_back(t, "job-complete", 2, QmpProxy.YES)
    assert time.monotonic() - began < 8 * PATIENCE and trio.group.GuestPaused < 4e6 * PATIENCE, trio.group.properties()
    assert "common point" in trio.group.ErrorMessage, trio.group.ErrorMessage


def test_member_that_somebody_cancels_ends_the_group(t):
    trio = Trio(t)
    trio.qemu("job-cancel", id=next(i for i in trio.qemu.jobs() if i.endswith(f"-{trio.members[1].id}")))
    trio.group.wait_result("failed")
    trio.all_on(trio.old, "failed")
    assert 'Disk "vdb"' in trio.group.ErrorMessage, trio.group.ErrorMessage
    assert f"job {trio.group.id}" in trio.members[0].ErrorMessage, trio.members[0].ErrorMessage


def test_target_that_was_deleted_keeps_all_on_their_sources(t):
    trio = Trio(t)
    os.unlink(trio.new["vdc"])
    error = refused(trio.group.pivot, "BadTarget")
    assert '"vdc"' in error.message, error.message
    assert trio.group.State == "ready"
    trio.group.cancel()
    trio.group.wait_result("cancelled")
    trio.all_on(trio.old, "cancelled")


def dies_at(t, command, number, end, result, **options):
    """The service dies when QEMU has done all that came before the NUMBER-th such command, and nothing after it."""
    trio = Trio(t, **options)

    def die(arguments):
        trio.s.process.signal(signal.SIGKILL)
        return QmpProxy.CLOSE
    trio.at(command, number, die)
    try:
        end(trio.group)
    except BusError as e:
        assert e.short in ("NoReply", "Disconnected", "ServiceUnknown"), e
    wait_until(lambda: not trio.s.process.alive, what="the service's death")
    trio.s.process.wait(10)
    trio.s.killed += 1
    wait_until(lambda: not trio.s.bus.owner_of(PREFIX), what="the service's name to be free")
    trio.proxy.on_command = None
    trio.s.start()
    trio.group.wait_result(result, 30)
    trio.all_on(trio.new if result == "pivoted" else trio.old, result)
    assert trio.group.Restarts == 1 and all(m.Restarts == 1 for m in trio.members)


def test_pivot_goes_on_when_the_service_dies_between_two_completions(t):
    dies_at(t, "job-complete", 2, lambda g: g.pivot(), "pivoted")


def test_pivot_without_a_pause_goes_on_when_the_service_dies_between_two_completions(t):
    dies_at(t, "job-complete", 3, lambda g: g.pivot(), "pivoted", pause_guest=False)


def test_pivot_goes_forward_when_the_service_dies_between_two_finalizations(t):
    dies_at(t, "job-finalize", 2, lambda g: g.pivot(), "pivoted")


def test_pivot_goes_forward_when_the_service_dies_before_the_last_finalization(t):
    dies_at(t, "job-finalize", 3, lambda g: g.pivot(), "pivoted", pause_guest=False)


def test_finish_goes_forward_when_the_service_dies_between_two_finalizations(t):
    dies_at(t, "job-finalize", 2, lambda g: g.finish(), "finished")


def test_finish_goes_on_when_the_service_dies_between_two_completions(t):
    dies_at(t, "block-job-cancel", 2, lambda g: g.finish(), "finished")


def test_cancel_goes_on_when_the_service_dies_between_two_cancellations(t):
    dies_at(t, "job-cancel", 2, lambda g: g.cancel(), "cancelled")


# ---- under a guest that writes one sequence over all disks ----

ROUNDS = int(os.environ.get("BLOCKJOBD_GROUP_ROUNDS", "6"))


class Writing:
    """A real guest that writes one ordered sequence over three disks, behind a proxy."""

    def __init__(self, t):
        self.t, self.number = t, 0
        self.old = {d: t.image(f"{d}.qcow2", "8M") for d in DISKS}
        self.guest = t.guest(drives=list(self.old.values()), ring=128)
        self.proxy = QmpProxy(t, self.guest)
        self.domain = t.service().attach("web", self.proxy.path)

    def ready(self, **o):
        self.number += 1
        self.new = {d: self.t.path(f"{d}-{self.number}.qcow2") for d in DISKS}
        group = self.domain.copy_disks(self.new, **o).wait("ready")
        self.guest.wait_writes(3)
        return group

    def stays(self):
        assert [self.domain.disk(d).Source for d in DISKS] == list(self.old.values())
        assert not any(os.path.exists(p) for p in self.new.values()), "what is worthless was to be deleted"
        self.proxy.on_command = None

    def end(self):
        self.guest.wait_writes(50)
        self.guest.quit()
        for drive in self.guest.drives:
            image_check(drive.path)
        print(f"note: {self.guest.verify().splitlines()[0]}")


@deadline(1500)
def test_every_rollback_leaves_the_guest_with_all_that_it_has_written(t):
    """Another disk is made to fail each time, in turn by a refusal, by a completion that does nothing, by a cancellation."""
    w = Writing(t)
    for n in range(ROUNDS):
        group = w.ready(pause_guest=n % 2 == 0)
        seen = []

        def decide(name, arguments):
            if name != "job-complete":
                return None
            seen.append(arguments)
            if len(seen) != n % 3 + 1:
                return None
            if n % 9 >= 6:
                w.guest("job-cancel", id=arguments["id"])
                return None
            return QmpProxy.YES if n % 9 == 5 else {"class": "GenericError", "desc": WORDS}
        w.proxy.on_command = decide
        group.pivot()
        group.wait_result("failed", 30)
        w.stays()
        w.guest.wait_writes(3)
    print(f"note: {ROUNDS} of {ROUNDS} rolled back")
    w.end()


@deadline(300)
def test_reset_of_the_guest_in_the_middle_of_the_switch_does_no_harm(t):
    w = Writing(t)
    group = w.ready()
    resets = []

    def decide(name, arguments):
        if name == "job-finalize" and not resets:
            resets.append(w.guest("system_reset"))
    w.proxy.on_command = decide
    group.pivot()
    group.wait_result("pivoted")
    assert resets and [w.domain.disk(d).Source for d in DISKS] == list(w.new.values())
    w.proxy.on_command = None
    for drive, path in zip(w.guest.drives, w.new.values()):
        drive.path = path
    wait_until(lambda: w.guest.acks()[1] == 2, 180, w.guest.console)
    w.end()


# ---- after the decision only forward ----

def finalizing_fails(t, times, **options):
    """QEMU cannot finalize the second disk's job: it ends, as with an error of its own, and the disk stands on its source."""
    trio = Trio(t, **options)
    failed = []

    def decide(name, arguments):
        if name != "job-finalize" or not arguments["id"].endswith(f"-{trio.members[1].id}") or len(failed) == times:
            return None
        failed.append(arguments)
        trio.qemu("job-cancel", id=arguments["id"])
        return QmpProxy.YES
    trio.proxy.on_command = decide
    trio.group.pivot()
    return trio


def test_disk_that_could_not_be_switched_with_the_others_follows_later(t):
    trio = finalizing_fails(t, 1)
    trio.group.wait_result("pivoted", 60)
    trio.all_on(trio.new, "pivoted")
    assert any('"vdb"' in w and "later" in w for w in trio.group.Warnings), trio.group.Warnings


def test_disk_that_can_never_be_switched_is_named_with_where_all_stand(t):
    trio = finalizing_fails(t, 2, pause_guest=False)
    trio.group.wait_result("failed", 60)
    assert [m.Result for m in trio.members] == ["pivoted", "failed", "pivoted"]
    for d in DISKS:
        where = (trio.old if d == "vdb" else trio.new)[d]
        assert f'Disk "{d}" stands on "{where}"' in trio.group.ErrorMessage, trio.group.ErrorMessage
        assert trio.domain.disk(d).Source == where
    trio.read(1)
