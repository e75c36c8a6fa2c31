# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may start the service, and what its callers may do, with the real polkitd and the shipped unit."""
import os

from harness import *
from machine import *


def test_activation_by_an_unprivileged_call(t):
    Machine(t)
    systemctl("stop", UNIT)
    assert show("ActiveState") == "inactive"
    answer = busctl("get-property", PREFIX, ROOT, f"{PREFIX}.Manager", "NJobsActive").ok()
    assert answer.stdout == "u 0\n", answer
    assert show("ActiveState") == "active" and main_pid() > 0


def test_copy_and_pivot_by_a_user_whom_a_rule_allows(t):
    m = Machine(t)
    qemu = m.qemu()
    disk = m.disk()
    m.pivoted(qemu, disk.copy(t.path("new.qcow2")))


def test_blockjobctl_moves_a_disk_for_that_user(t):
    m = Machine(t)
    qemu = m.qemu()
    disk = m.disk()
    run(["blockjobctl", "move", "web", "vda", t.path("new.qcow2")], uid=USER).ok()
    assert disk.Source == t.path("new.qcow2") and qemu.image()["drv"] == "qcow2"


def test_another_user_is_denied_and_nothing_has_happened(t):
    m = Machine(t)
    m.qemu()
    m.disk()
    path = f"{ROOT}/domain/web/disk/vda"
    copy = busctl("call", PREFIX, path, f"{PREFIX}.Disk", "Copy", "sa{sv}", t.path("new.qcow2"), "0", uid=OTHER)
    assert copy.returncode != 0 and "uthoriz" in copy.stderr, copy
    pivot = run(["blockjobctl", "move", "web", "vda", t.path("new.qcow2")], uid=OTHER)
    assert pivot.returncode != 0, pivot
    assert not os.path.exists(t.path("new.qcow2")) and m.disk().Job == "/"


def test_a_rule_sees_the_domain(t):
    m = Machine(t)
    m.qemu("mail")
    try:
        m.disk("mail").copy(t.path("new.qcow2"))
        raise AssertionError("the rule is for domains web… only")
    except BusError as e:
        assert e.short in ("InteractiveAuthorizationRequired", "AccessDenied"), e


def test_permissions_are_those_of_polkit(t):
    m = Machine(t)
    for client in m.user, m.other:
        answer = client.manager.call("GetPermissions")
        # The rule needs a domain, which this question has none of; so it is the defaults' answer, for want of a session
        # that of "any".
        assert answer and set(answer.values()) <= {"challenge", "no"}, answer
    assert set(m.manager.call("GetPermissions").values()) == {"yes"}


def test_the_process_has_two_capabilities_and_a_user_of_its_own(t):
    Machine(t)
    status = status_of(main_pid())
    name = run(["id", "--name", "--user", status["Uid"].split("\t")[1]]).ok().stdout.strip()
    assert name == "blockjobd", status
    wanted = 1 << 0 | 1 << 1  # CAP_CHOWN, CAP_DAC_OVERRIDE
    for kind in "CapEff", "CapPrm", "CapBnd", "CapAmb":
        assert int(status[kind], 16) == wanted, (kind, status[kind])
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
