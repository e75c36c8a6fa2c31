# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service is killed before and after each of its calls, and again while it recovers: every job comes to its end."""
from harness import *
from scenarios import *
from sweeping import sweep


@deadline(3600)
def test_pivot(t):
    sweep(scenes(t), pivot)


@deadline(3600)
def test_pivot_of_qcow2(t):
    sweep(scenes(t, format="qcow2"), pivot)


@deadline(3600)
def test_pivot_with_a_definition(t):
    sweep(scenes(t, definition=True), pivot)


@deadline(3600)
def test_pivot_with_the_guest_running(t):
    sweep(scenes(t, pause_guest=False), pivot)


@deadline(3600)
def test_pivot_that_deletes_its_source(t):
    sweep(scenes(t, definition=True, delete_source=True), pivot_deleting_the_source)


@deadline(3600)
def test_pivot_to_an_existing_file(t):
    sweep(scenes(t, existing=True), pivot_to_an_existing_file)


@deadline(3600)
def test_pivot_promised_to_a_client_that_leaves(t):
    sweep(scenes(t, definition=True), pivot_on_ready)


@deadline(3600)
def test_finish(t):
    sweep(scenes(t), finish)


@deadline(3600)
def test_cancel_of_a_ready_copy(t):
    sweep(scenes(t), cancel_when_ready)


@deadline(3600)
def test_cancel_of_a_running_copy(t):
    sweep(scenes(t, format="qcow2", speed=65536), cancel_when_running)


@deadline(3600)
def test_cancel_beside_a_stranger(t):
    sweep(scenes(t), cancel_beside_a_stranger)


@deadline(3600)
def test_attach_and_detach(t):
    sweep(scenes(t, definition=True), attach_and_detach)


@deadline(3600)
def test_dismiss(t):
    sweep(scenes(t), dismiss)


@deadline(3600)
def test_start_and_pruned_history(t):
    sweep(scenes(t, definition=True), prune_the_history)


@deadline(3600)
def test_pivot_of_qcow2_that_deletes_its_source(t):
    sweep(scenes(t, format="qcow2", definition=True, delete_source=True), pivot_deleting_the_source)


@deadline(3600)
def test_pivot_of_a_write_blocking_copy(t):
    sweep(scenes(t, definition=True, copy_mode="write-blocking"), pivot)


@deadline(3600)
def test_finish_of_qcow2_with_the_guest_running(t):
    sweep(scenes(t, format="qcow2", pause_guest=False), finish)


@deadline(3600)
def test_finish_promised_to_a_client_that_leaves(t):
    sweep(scenes(t), finish_on_ready)


@deadline(3600)
def test_cancel_that_keeps_the_target(t):
    sweep(scenes(t, format="qcow2", delete_target=False), cancel_keeping_the_target)


@deadline(3600)
def test_pivot_of_a_guest_that_writes(t):
    sweep(scenes(t, guest=True), pivot, full=False)
