# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service is killed at every kind of moment and started again: each job comes to the end that was promised."""
import os

from harness import *
from killer import Mortal, Point, Stage, sweep

# BLOCKJOBD_CRASH=full: every moment instead of some; needs BLOCKJOBD_TEST_PATIENCE=5 as well.
FULL = os.environ.get("BLOCKJOBD_CRASH") == "full"


def stages(t, **more):
    """A function that makes a new stage with each call."""
    made = []

    def make():
        made.append(Stage(t, f"web{len(made)}", **more))
        return made[-1]
    return make


# ---- swept: a kill at moments spread over all calls of the service ----

def pivot(stage):
    stage.copy()
    stage.wait("ready")
    stage.write(1)
    stage.order("pivot")
    stage.end("pivoted")


def pivot_deleting_the_source(stage):
    stage.copy(delete_source=True)
    stage.wait("ready")
    stage.write(1)
    stage.order("pivot")
    stage.end("pivoted", source_stays=False)


def finish(stage):
    stage.copy()
    stage.wait("ready")
    stage.write(1)
    stage.order("finish")
    stage.end("finished")


def cancel_when_ready(stage):
    stage.copy()
    stage.wait("ready")
    stage.write(1)
    stage.order("cancel")
    stage.end("cancelled")


def cancel_when_running(stage):
    stage.copy(speed=65536)
    stage.wait("running")
    stage.order("cancel")
    stage.end("cancelled", written=(0,))


def pivot_on_ready(stage):
    """The client orders the copy with its end and leaves the bus."""
    client = stage.s.client(0)

    def order():
        return client.domain(stage.qemu.name).disk("vda").copy(stage.target, request_id=f"n{stage.number}",
                                                                on_ready="pivot", speed=4 << 20)
    job = stage.mortal.call(order)
    client.conn.close()
    stage.job = Job(stage.s, job.path)
    stage.end("pivoted", written=(0,))


@deadline(300)
def test_pivot_survives_a_kill_at_any_call(t):
    sweep(stages(t), pivot, 60, FULL)


@deadline(300)
def test_pivot_with_a_definition_survives_a_kill_at_any_call(t):
    sweep(stages(t, definition=True), pivot, 60, FULL)


@deadline(300)
def test_pivot_that_deletes_its_source_survives_a_kill_at_any_call(t):
    sweep(stages(t, definition=True), pivot_deleting_the_source, 50, FULL)


@deadline(300)
def test_finish_survives_a_kill_at_any_call(t):
    sweep(stages(t), finish, 50, FULL)


@deadline(300)
def test_cancel_of_a_ready_copy_survives_a_kill_at_any_call(t):
    sweep(stages(t), cancel_when_ready, 40, FULL)


@deadline(300)
def test_cancel_of_a_running_copy_survives_a_kill_at_any_call(t):
    sweep(stages(t), cancel_when_running, 40, FULL)


@deadline(300)
def test_promised_pivot_is_kept_without_the_client_after_a_kill_at_any_call(t):
    sweep(stages(t, definition=True), pivot_on_ready, 50, FULL)
