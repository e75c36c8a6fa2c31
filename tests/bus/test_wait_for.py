# SPDX-License-Identifier: LGPL-2.1-or-later
"""WaitFor(): reached, passed, over, too late, and callers that leave, flood or never read."""
import socket
import time

from harness import *
from scenes import *


def wait_for(client, job, state, timeout=0):
    return client.conn.call_async(job.path, f"{PREFIX}.Job", "WaitFor", "(st)", (state, timeout))


def test_returns_at_once_when_the_state_is_there_or_passed(t):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/x")).wait("ready")
    assert wait_for(s, job, "ready").result() == ("ready", "")
    job.finish().wait_result("finished")
    for state in "ready", "pending", "concluded":
        assert wait_for(s, job, state).result() == ("concluded", "finished")


def test_returns_when_the_state_comes(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    calls = [wait_for(s, job, "ready"), wait_for(s, job, "concluded")]
    job.set_speed(0)
    assert calls[0].result() == ("ready", "")
    assert not calls[1].done
    job.pivot()
    assert calls[1].result() == ("concluded", "pivoted")


def test_job_that_ends_otherwise_also_answers(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    calls = [wait_for(s, job, state) for state in ("ready", "pending", "concluded")]
    job.cancel()
    for call in calls:
        assert call.result() == ("concluded", "cancelled")


def test_job_whose_qemu_dies_answers(t):
    s, qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    call = wait_for(s, job, "ready")
    qemu.kill()
    assert call.result() == ("concluded", "lost")


def test_time_that_is_over_is_an_error_and_the_job_goes_on(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    started = time.monotonic()
    refused(lambda: wait_for(s, job, "ready", 300000).result(), "Timeout")
    assert 0.25 < time.monotonic() - started < 5
    refused(lambda: wait_for(s, job, "ready", 1).result(), "Timeout")
    # Later than any clock can tell is as long as it takes.
    calls = [wait_for(s, job, "ready", n) for n in (2 ** 64 - 1, 2 ** 63, 10 ** 15)]
    assert job.State == "running"
    job.set_speed(0)
    for call in calls:
        assert call.result() == ("ready", "")
    job.cancel().wait_result("cancelled")


def test_other_words_are_refused_and_named(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    for word in "", "running", "Ready", "ready ", "x" * 100000, "\u0001":
        error = refused(lambda: wait_for(s, job, word).result(), "InvalidArgs", text="state")
        assert len(error.message) < 400
    job.cancel().wait_result("cancelled")


def test_everybody_may_wait_without_polkit(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    call = wait_for(s.client(NOBODY), job, "concluded")
    job.cancel()
    assert call.result() == ("concluded", "cancelled")


def test_dismissed_job_leaves_no_waiter(t):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/x"), on_ready="finish").wait_result("finished")
    s.wait_signal("JobFinished")
    wait_until(lambda: dismissed(job))
    refused(lambda: wait_for(s, job, "ready").result(), "UnknownObject", "UnknownMethod")


def test_thousand_calls_at_once_are_all_answered_and_64_of_a_user_may_wait(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    # The bus itself lets 128 calls of one connection be unanswered.
    clients = [s.client(NOBODY) for _ in range(10)]
    calls = [wait_for(client, job, "concluded") for client in clients for _ in range(100)]
    with Heartbeat(domain):
        wait_until(lambda: sum(c.done for c in calls) >= 1000 - 64)
        # Others are not touched by one user's limit.
        other = wait_for(s.client(OTHER), job, "concluded")
        assert job.State == "running" and not other.done
    for call in calls:
        if call.done:
            refused(call.result, "LimitsExceeded", text="wait")
    waiting = [c for c in calls if not c.done]
    assert len(waiting) == 64, len(waiting)
    job.cancel()
    for call in [*waiting, other]:
        assert call.result() == ("concluded", "cancelled")


def test_caller_that_leaves_makes_room_for_others(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    gone = s.client(NOBODY)
    gone.manager.NDomains
    calls = [wait_for(gone, job, "concluded") for _ in range(70)]
    wait_until(lambda: sum(c.done for c in calls) == 6)
    gone.conn.close()
    again = s.client(NOBODY)

    def taken():
        call = wait_for(again, job, "concluded", 1)
        try:
            call.result()
        except BusError as e:
            return e.short == "Timeout"
    wait_until(taken, what="room for another caller of the same user")
    job.cancel().wait_result("cancelled")


def test_thousand_reads_at_once_are_all_answered(t):
    s, _qemu, domain = small(t)
    conns = [t.bus.connect() for _ in range(10)]
    calls = [conn.call_async(domain.path, f"{STANDARD}Properties", "Get", "(ss)", (domain.INTERFACE, "State"))
             for conn in conns for _ in range(100)]
    assert all(call.result() == "paused" for call in calls)


def send_without_reading(t, count):
    """A raw connection that authenticates as root, sends calls of GetManagedObjects and never reads an answer."""
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(t.bus.address.split("path=")[1])
    raw.sendall(b"\0AUTH EXTERNAL 30\r\n")
    assert raw.recv(1000).startswith(b"OK")
    raw.sendall(b"BEGIN\r\n")
    raw.sendall(message(1, "/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus", "Hello"))
    raw.settimeout(5)
    data = b"".join(message(i + 2, ROOT, f"{STANDARD}ObjectManager", PREFIX, "GetManagedObjects")
                    for i in range(count))
    try:
        raw.sendall(data)
    except (TimeoutError, OSError):
        pass  # the bus may stop reading from it
    return raw


def message(serial, path, interface, destination, member):
    """A method call without arguments, on the wire."""
    fields = b""
    for code, type, text in ((1, b"o", path), (2, b"s", interface), (3, b"s", member), (6, b"s", destination)):
        while len(fields) % 8:
            fields += b"\0"
        fields += bytes([code, 1]) + type + b"\0" + len(text).to_bytes(4, "little") + text.encode() + b"\0"
    header = b"l\1\0\1" + (0).to_bytes(4, "little") + serial.to_bytes(4, "little") + len(fields).to_bytes(4, "little")
    data = header + fields
    return data + b"\0" * (-len(data) % 8)


def test_client_that_never_reads_harms_nobody(t):
    s, _qemu, domain = small(t)
    raw = send_without_reading(t, 3000)
    t.cleanup(raw.close)
    with Heartbeat(domain, limit=0.5):
        job = domain.disk().copy(t.path("copies/x"), on_ready="pivot").wait_result("pivoted")
    assert s.manager.NDomains == 1 and job.Result == "pivoted"

    def resident():
        with open(f"/proc/{s.process.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
    assert resident() < 200 * 1024, f"{resident()} KiB"
