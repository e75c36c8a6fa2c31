# SPDX-License-Identifier: LGPL-2.1-or-later
"""The power goes at every write to the journal's disk: what was told is there, and what was commanded was recorded before."""
from harness import *
from proofs import power_cuts, write_ahead
from sweeping import FULL

IMAGES, PLAYS = (1860, 12) if FULL else (120, 1)


def cut(t, name):
    images, promises, wrong = power_cuts(t, name, IMAGES, PLAYS)
    print(f"note: {images} power cuts, {promises} promises looked for, {len(wrong)} broken")
    assert not wrong, "\n".join(wrong)
    assert images >= IMAGES - 6, f"the log was too short: {images}"


@deadline(3600)
def test_power_cuts_of_pivots_that_delete_the_source(t):
    cut(t, "pivot_deleting_the_source")


@deadline(3600)
def test_power_cuts_of_promised_pivots(t):
    cut(t, "pivot_on_ready")


@deadline(3600)
def test_power_cuts_of_cancelled_copies(t):
    cut(t, "cancel_when_ready")


def ahead(t, name):
    commands, wrong = write_ahead(t, name, PLAYS)
    print(f"note: {commands} commands to QEMU, {commands - len(wrong)} recorded before they were sent")
    assert not wrong, "\n".join(wrong)
    assert commands >= 7 * PLAYS, f"only {commands} commands were seen"


@deadline(600)
def test_every_command_of_a_pivot_is_recorded_before(t):
    ahead(t, "pivot_deleting_the_source")


@deadline(600)
def test_every_command_of_a_qcow2_pivot_is_recorded_before(t):
    ahead(t, "pivot_of_qcow2")


@deadline(600)
def test_every_command_of_a_finish_is_recorded_before(t):
    ahead(t, "finish")


@deadline(600)
def test_every_command_of_a_cancellation_is_recorded_before(t):
    ahead(t, "cancel_when_ready")


@deadline(600)
def test_every_command_of_a_cancelled_setup_is_recorded_before(t):
    ahead(t, "cancel_when_running")
