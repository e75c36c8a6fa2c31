# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service ends in the middle of a copy, in every way that systemd knows, and the job goes on."""
import os

from harness import *
from machine import *


def test_sigkill_in_the_middle(t):
    m = Machine(t)
    qemu, _disk, job = m.slow_copy()
    before = main_pid()
    systemctl("kill", "--signal=KILL", UNIT)
    wait_until(lambda: main_pid() not in (0, before), what="another process")
    m.carried_on(qemu, job)


def test_sigkill_again_and_again(t):
    """As often as it likes to fail: systemd does not give up on it."""
    m = Machine(t)
    qemu, disk, job = m.slow_copy()
    for n in range(8):
        before = main_pid()
        systemctl("kill", "--signal=KILL", UNIT)
        wait_until(lambda b=before: main_pid() not in (0, b) and show("ActiveState") == "active", what="another process")
    m.carried_on(qemu, job, restarts=8)


def test_the_watchdog_in_the_middle(t):
    m = Machine(t)
    assert show("WatchdogUSec") == "1min"
    m.drop_in("[Service]\nWatchdogSec=2s\n")
    qemu, _disk, job = m.slow_copy()
    restarts = int(show("NRestarts"))
    systemctl("kill", "--signal=STOP", UNIT)
    wait_until(lambda: int(show("NRestarts")) > restarts and show("ActiveState") == "active", 60,
               "the watchdog's restart")
    m.carried_on(qemu, job)


def test_restart_in_the_middle(t):
    m = Machine(t)
    qemu, _disk, job = m.slow_copy()
    systemctl("restart", UNIT)
    m.carried_on(qemu, job)


def test_stop_and_start_in_the_middle(t):
    m = Machine(t)
    qemu, _disk, job = m.slow_copy()
    systemctl("stop", UNIT)
    assert show("Result") == "success" and show("ActiveState") == "inactive"
    m.start()
    m.carried_on(qemu, job)


def test_stop_and_a_call_in_the_middle(t):
    """Whoever asks next gets the service back, and with it the job."""
    m = Machine(t)
    qemu, _disk, job = m.slow_copy()
    systemctl("stop", UNIT)
    answer = busctl("get-property", PREFIX, job.path, f"{PREFIX}.Job", "Id").ok()
    assert answer.stdout == f"t {job.id}\n", answer
    m.carried_on(qemu, job)


def test_a_guest_that_ends_while_the_service_is_away(t):
    """It runs as another user, whose processes the unit's /proc does not show."""
    m = Machine(t)
    qemu, _disk, job = m.slow_copy()
    systemctl("stop", UNIT)
    qemu.kill()
    m.start()
    job.wait_result("lost")
    assert job.Restarts == 1 and not os.path.exists(job.Target), job.properties()


def test_a_socket_that_appears_starts_the_service(t):
    m = Machine(t)
    systemctl("stop", UNIT)
    wait_until(lambda: show("ActiveState") == "inactive", what="its end")
    m.qemu()
    wait_until(lambda: show("ActiveState") == "active", what="the service")
    m.disk()
