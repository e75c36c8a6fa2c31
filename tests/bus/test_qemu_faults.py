# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU, or what stands at its socket, fails in the middle of a job: what was asked of it is in the journal, what came of it
is said, and other domains go on undisturbed."""
import os
import time

from harness import *
from invariants import journal_table
from process import PATIENCE
from qmp_proxy import QmpProxy
from scenes import *


def behind_proxy(t, disks=1, config="", **more):
    """(service, qemu, proxy, domain behind the proxy, another domain)."""
    s, _other, other = small(t, "other", config=config)
    qemu = t.qemu("web", [t.image(f"web{i}.qcow2", size="1M", fill="256k") for i in range(disks)], **more)
    proxy = QmpProxy(t, qemu)
    return s, qemu, proxy, s.attach("web", proxy.path), other


# ---- orders that are QEMU's to carry out ----

ORDERS = {"block-job-set-speed": lambda job: job.set_speed(2), "block-job-pause": lambda job: job.pause(),
          "block-job-resume": lambda job: job.resume(),
          "block-job-change": lambda job: job.set_copy_mode("write-blocking")}


def test_each_order_is_in_the_journal_before_qemu_hears_of_it(t):
    s, _qemu, proxy, domain, _other = behind_proxy(t)
    job = slow_job(t, domain.disk())
    found = {}

    def look(name, arguments):
        if name in ORDERS:
            rows = journal_table(s.state_dir, "transition", "seq").values()
            found[name] = [r["detail"] for r in rows if r["job"] == job.id and r["detail"].startswith(name)]
    proxy.on_command = look
    for name, order in ORDERS.items():
        if name == "block-job-change":  # not in every QEMU
            try:
                order(job)
            except BusError as e:
                assert e.short in ("NotSupported", "Qemu"), e
        else:
            order(job)
    assert set(found) == set(ORDERS) and all(len(rows) == 1 for rows in found.values()), found
    assert '"speed":2' in found["block-job-set-speed"][0], found
    job.cancel().wait_result("cancelled")


def test_orders_at_once_are_carried_out_in_their_order(t):
    _s, qemu, proxy, domain, _other = behind_proxy(t)
    job = slow_job(t, domain.disk())
    calls = [job.client.conn.call_async(job.path, job.INTERFACE, "SetSpeed", "(t)", (n,)) for n in range(2, 22)]
    for call in calls:
        call.result()
    assert [a["speed"] for n, a in proxy.commands if n == "block-job-set-speed"] == list(range(2, 22))
    assert job.SpeedLimit == qemu("query-block-jobs")[0]["speed"] == 21
    job.cancel().wait_result("cancelled")


def test_change_of_the_mode_that_was_not_answered_is_said_after_a_restart(t):
    """What QEMU has made of it is seen nowhere; the speed is."""
    s, _qemu, proxy, domain, _other = behind_proxy(t)
    job = slow_job(t, domain.disk())
    proxy.on_command = lambda name, arguments: QmpProxy.DROP if name == "block-job-change" else None
    job.client.conn.call_async(job.path, job.INTERFACE, "SetCopyMode", "(s)", ("write-blocking",))
    job.client.conn.call_async(job.path, job.INTERFACE, "SetSpeed", "(t)", (3,))
    wait_until(lambda: "block-job-change" in proxy.names())
    s.kill()
    proxy.on_command = None
    s.start()
    wait_until(lambda: job.path in s.jobs() and job.Warnings, what="a warning")
    assert [w for w in job.Warnings if "copy mode" in w], job.Warnings
    s.restart()
    wait_until(lambda: job.path in s.jobs() and job.State == "running", what="the job")
    assert len([w for w in job.Warnings if "copy mode" in w]) == 1, job.Warnings
    wait_until(lambda: domain.State == "paused", what="the domain")
    job.cancel().wait_result("cancelled")
