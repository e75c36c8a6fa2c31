# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service is killed before and after each of its calls, and again while it recovers: every job comes to its end."""
from harness import *
from scenarios import SCENARIOS
from sweeping import sweep


@deadline(3600)
def test_pivot(t):
    sweep(t, "pivot")


@deadline(3600)
def test_pivot_of_qcow2(t):
    sweep(t, "pivot_of_qcow2")


@deadline(3600)
def test_pivot_of_qcow2_that_qemu_makes(t):
    sweep(t, "pivot_of_qcow2_that_qemu_makes")


@deadline(3600)
def test_pivot_with_a_definition(t):
    sweep(t, "pivot_with_a_definition")


@deadline(3600)
def test_pivot_with_the_guest_running(t):
    sweep(t, "pivot_with_the_guest_running")


@deadline(3600)
def test_pivot_deleting_the_source(t):
    sweep(t, "pivot_deleting_the_source")


@deadline(3600)
def test_pivot_of_qcow2_deleting_the_source(t):
    sweep(t, "pivot_of_qcow2_deleting_the_source")


@deadline(3600)
def test_pivot_of_a_write_blocking_copy(t):
    sweep(t, "pivot_of_a_write_blocking_copy")


@deadline(3600)
def test_pivot_to_an_existing_file(t):
    sweep(t, "pivot_to_an_existing_file")


@deadline(3600)
def test_pivot_on_ready(t):
    sweep(t, "pivot_on_ready")


@deadline(3600)
def test_finish(t):
    sweep(t, "finish")


@deadline(3600)
def test_finish_of_qcow2_with_the_guest_running(t):
    sweep(t, "finish_of_qcow2_with_the_guest_running")


@deadline(3600)
def test_finish_on_ready(t):
    sweep(t, "finish_on_ready")


@deadline(3600)
def test_cancel_when_ready(t):
    sweep(t, "cancel_when_ready")


@deadline(3600)
def test_cancel_when_running(t):
    sweep(t, "cancel_when_running")


@deadline(3600)
def test_cancel_keeping_the_target(t):
    sweep(t, "cancel_keeping_the_target")


@deadline(3600)
def test_cancel_beside_a_stranger(t):
    sweep(t, "cancel_beside_a_stranger")


@deadline(3600)
def test_attach_and_detach(t):
    sweep(t, "attach_and_detach")


@deadline(3600)
def test_dismiss(t):
    sweep(t, "dismiss")


@deadline(3600)
def test_prune_the_history(t):
    sweep(t, "prune_the_history")


@deadline(3600)
def test_pivot_of_qcow2_with_a_definition(t):
    sweep(t, "pivot_of_qcow2_with_a_definition")


@deadline(3600)
def test_pivot_with_a_definition_and_the_guest_running(t):
    sweep(t, "pivot_with_a_definition_and_the_guest_running")


@deadline(3600)
def test_finish_of_qcow2(t):
    sweep(t, "finish_of_qcow2")


@deadline(3600)
def test_finish_with_a_definition(t):
    sweep(t, "finish_with_a_definition")


@deadline(3600)
def test_cancel_of_qcow2_when_ready(t):
    sweep(t, "cancel_of_qcow2_when_ready")


@deadline(3600)
def test_pivot_of_qcow2_on_ready(t):
    sweep(t, "pivot_of_qcow2_on_ready")


@deadline(3600)
def test_group_pivot(t):
    sweep(t, "group_pivot")


@deadline(3600)
def test_group_finish(t):
    sweep(t, "group_finish")


@deadline(3600)
def test_group_cancel(t):
    sweep(t, "group_cancel")


@deadline(3600)
def test_group_pivot_on_ready_with_the_guest_running(t):
    sweep(t, "group_pivot_on_ready_with_the_guest_running")


@deadline(3600)
def test_pivot_of_a_guest_that_writes(t):
    sweep(t, "pivot_of_a_guest_that_writes", full=False)


def test_every_scenario_is_swept(t):
    assert {f"test_{name}" for name in SCENARIOS} <= set(globals())
