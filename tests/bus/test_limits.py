# SPDX-License-Identifier: LGPL-2.1-or-later
"""Limits: checks that wait, jobs, domains, long texts. What is over a limit is refused and says so."""
import os
import pwd

from harness import *
from scenes import *


def pending(t, client, disk, n):
    return [client.conn.call_async(disk.path, f"{PREFIX}.Disk", "Copy", "(sa{sv})", (t.path(f"copies/x{i}"), {}))
            for i in range(n)]


def test_eight_checks_of_a_user_and_64_in_all_may_wait(t):
    fake = t.fake_polkit("hang")
    s, _qemu, domain = small(t)
    # The bus takes only users that have a name.
    clients = [s.client(p.pw_uid) for p in pwd.getpwall() if 0 < p.pw_uid < 1000][:10]
    assert len(clients) == 10
    calls = {}
    for n, client in enumerate(clients):
        calls[client] = pending(t, client, domain.disk(), 10)
        allowed = min(8, 64 - 8 * n) if n < 8 else 0
        wait_until(lambda: sum(c.done for c in calls[client]) == 10 - allowed)
        for call in calls[client]:
            if call.done:
                refused(call.result, "LimitsExceeded")
        wait_until(lambda: len(fake.waiting()) == min(8 * (n + 1), 64))
    # Those who need no check are not touched by it.
    assert s.manager.NDomains == 1
    assert domain.disk().check(t.path("copies/y"))["ok"]
    # Who leaves makes room.
    clients[0].conn.close()
    wait_until(lambda: len(fake.waiting()) == 56)
    late = pending(t, clients[9], domain.disk(), 1)
    wait_until(lambda: len(fake.waiting()) == 57)
    for check in fake.waiting():
        check.answer("no")
    for call in [c for client in clients[1:8] for c in calls[client] if not c.done] + late:
        refused(call.result, "AccessDenied")
    assert not s.jobs()


def test_limits_of_checks_can_be_configured(t):
    fake = t.fake_polkit("hang")
    s, _qemu, domain = small(t, config="[Authorization]\nMaxChecks=3\nMaxChecksPerUser=2\n")
    for uid, expected in ((OWNER, 2), (OTHER, 3)):
        client = s.client(uid)
        calls = pending(t, client, domain.disk(), 5)
        wait_until(lambda: len(fake.waiting()) == expected and sum(c.done for c in calls) >= 3)
        for call in calls:
            if call.done:
                refused(call.result, "LimitsExceeded")


def test_jobs_of_a_user_and_in_all_are_limited(t):
    t.fake_polkit("yes")
    s, _qemu, domain = small(t, disks=5, config="[Limits]\nMaxJobs=3\nMaxJobsPerUser=2\n")
    disks = domain.disks()
    one, two = s.client(OWNER), s.client(OTHER)

    def copy(client, n):
        return Disk(client, disks[n].path).copy(t.path(f"copies/c{n}.qcow2"), speed=1)
    first, second = copy(one, 0), copy(one, 1)
    refused(lambda: copy(one, 2), "LimitReached")
    result = Disk(one, disks[2].path).check(t.path("copies/x"))
    assert not result["ok"] and result["error-name"].endswith("LimitReached"), result
    third = copy(two, 2)
    refused(lambda: copy(two, 3), "LimitReached")
    assert s.manager.NJobsActive == 3
    for job in first, second, third:
        job.cancel()
    for job in first, second, third:
        job.wait_result("cancelled")
    wait_until(lambda: s.manager.NJobsActive == 0)
    last = copy(two, 4)
    last.wait("running")
    last.cancel().wait_result("cancelled")


def test_domains_are_limited(t):
    s = t.service("[Limits]\nMaxDomains=2\n")
    fakes = [t.fake_qmp(f"f{i}") for i in range(3)]
    first = s.attach("a", fakes[0].path)
    s.attach("b", fakes[1].path)
    refused(lambda: s.attach("c", fakes[2].path), "LimitReached")
    first.detach()
    s.attach("c", fakes[2].path)
    # Sockets that appear by themselves count as well.
    os.symlink(fakes[0].path, f"{s.socket_dir}/d.sock")
    s.restart(kill=False)
    wait_until(lambda: s.manager.NDomains == 2)
    assert sorted(d["Name"] for d in s.domains().values()) == ["b", "c"]


def test_same_name_or_socket_is_attached_once(t):
    s = t.service()
    fakes = [t.fake_qmp(f"f{i}") for i in range(2)]
    s.attach("a", fakes[0].path)
    refused(lambda: s.attach("a", fakes[1].path), "DomainBusy")
    refused(lambda: s.attach("b", fakes[0].path), "DomainBusy")
    # At the same time, too: the one that is refused leaves nothing behind.
    calls = [s.conn.call_async(ROOT, f"{PREFIX}.Manager", "AttachDomain", "(ssa{sv})", ("c", fake.path, {}))
             for fake in (fakes[1], t.fake_qmp("f9"))]
    wait_until(lambda: all(c.done for c in calls))
    outcomes = []
    for call in calls:
        try:
            outcomes.append(call.result())
        except BusError as e:
            outcomes.append(e.short)
    assert sorted(outcomes) == ["/org/blockjob1/domain/c", "DomainBusy"], outcomes
    winner = s.domain("c").Socket
    s.restart(kill=False)
    assert s.domain("c").Socket == winner


def test_same_target_is_written_by_one_job(t):
    s, _qemu, domain = small(t, disks=2)
    job = slow_job(t, domain.disk(), "same.qcow2")
    refused(lambda: domain.disk("vdb").copy(t.path("copies/same.qcow2")), "TargetInUse", "TargetExists")
    refused(lambda: domain.disk("vdb").copy(t.path("copies/same.qcow2"), existing=True, format="qcow2"), "TargetInUse",
            "BadTarget")
    job.cancel().wait_result("cancelled")


def test_long_texts_are_cut_or_refused_and_never_echoed_whole(t):
    s, _qemu, domain = small(t)
    long = "ä" * 500000
    errors = [
        refused(lambda: s.domain(long), "NoSuchDomain"),
        refused(lambda: s.attach(long, "/x"), "InvalidArgs"),
        refused(lambda: s.attach("x", "/" + long), "InvalidArgs"),
        refused(lambda: domain.disk().copy("/" + long), "InvalidArgs", "BadTarget"),
        refused(lambda: domain.disk().copy("/x", request_id=long), "InvalidArgs"),
        refused(lambda: domain.disk().copy("/x", format=long), "InvalidArgs"),
        refused(lambda: s.manager.history(domain=long), "InvalidArgs"),
        refused(lambda: domain.disk().check("/x", verb=long), "InvalidArgs"),
    ]
    for error in errors:
        assert len(error.message.encode()) < 1000, f"{len(error.message)} characters: {error.message[:80]}"
        assert "\n" not in error.message
    longest = "x" * 64
    job = domain.disk().copy(t.path("copies/n"), request_id=longest, speed=1)
    assert domain.disk().copy(t.path("copies/n"), request_id=longest) == job, "the same request is the same job"
    job.wait("running")
    job.cancel().wait_result("cancelled")


def test_name_of_128_bytes_becomes_a_path(t):
    s = t.service()
    name = "ä-. " * 25 + "abc"
    assert len(name.encode()) == 128
    domain = s.attach(name, t.fake_qmp().path)
    assert domain.Name == name and s.domain(name) == domain
    assert all(c.isalnum() or c in "/_" for c in domain.path)
    assert domain.path in s.domains()


def test_limit_that_is_hit_is_logged_once_for_many_calls(t):
    t.fake_polkit("yes")
    s, _qemu, domain = small(t, disks=2, config="[Limits]\nMaxJobs=1\n")
    slow_job(t, domain.disk())
    for _ in range(50):
        refused(lambda: domain.disk("vdb").copy(t.path("copies/x")), "LimitReached")
    assert s.log().count("A call was refused by a limit") == 1, s.log()
