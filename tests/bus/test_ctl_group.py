# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockjobctl with several disks together."""
from harness import *
from scenes import *


def trio(t):
    """(service, domain, {disk: target})."""
    s, _, domain = small(t, disks=3)
    return s, domain, {d: t.path(f"copies/{d}.qcow2") for d in ("vda", "vdb", "vdc")}


def words(targets):
    return [f"{d}={p}" for d, p in targets.items()]


def test_move_takes_several_disks_together(t):
    s, domain, targets = trio(t)
    done = t.ctl("move", "web", *words(targets)).ok()
    assert "pivoted" in done.stdout + done.stderr, done
    assert [domain.disk(d).Source for d in targets] == list(targets.values())
    kinds = [j["Kind"] for _, j in sorted(s.jobs().items())]
    assert kinds == ["group", "copy", "copy", "copy"], kinds


def test_group_is_listed_and_ended_by_its_number(t):
    s, domain, targets = trio(t)
    number = t.ctl("copy", "--no-block", "--speed=100M", "--pause-guest=no", "web", *words(targets)).ok().stdout.strip()
    t.ctl("wait", "--for=ready", number).ok()
    lines = [line.split() for line in t.ctl("list", "--no-legend").ok().stdout.splitlines()]
    assert [line[:4] for line in lines] == [
        [number, "group", "web", "vda,vdb,vdc"], *([str(int(number) + 1 + i), "copy", "web", d] for i, d in enumerate(targets))]
    members = s.job(int(number)).members()
    assert all(m.SpeedLimit == 100 << 20 for m in members)
    refused = t.ctl("pivot", str(members[0].id))
    assert refused.returncode == 1, refused
    assert f"job {number}" in refused.stderr, refused
    t.ctl("finish", number).ok()
    assert t.ctl("history", "--kind=group", "--no-legend").ok().stdout.split()[4] == "finished"
    t.ctl("dismiss", number).ok()
    assert not s.jobs()


def test_words_that_are_no_disk_and_target_are_refused(t):
    s, _, targets = trio(t)
    for arguments, says in ((["vda=/x", "vdb"], "DISK=TARGET"), (["vda=", "vdb=/x"], "DISK=TARGET"),
                            (["vda", "/x", "/y"], "DISK=TARGET"), (["--fd=0", "vda=/x"], "--fd")):
        refused = t.ctl("copy", "web", *arguments)
        assert refused.returncode == 2 and says in refused.stderr, refused
    assert not s.jobs()
