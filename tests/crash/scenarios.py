# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is played: each function takes a scene through one job, or one order, and checks how it ended."""
import os

from group_scene import GroupScene
from scene import HISTORY_ROWS, SIZE, Scene, journal_now
from service import Job


def end_when_ready(scene, method, result, **more):
    scene.arm()
    scene.copy()
    scene.wait("ready")
    scene.write(1)
    scene.order(method)
    scene.end(result, **more)


def pivot(scene):
    end_when_ready(scene, "pivot", "pivoted")


def pivot_deleting_the_source(scene):
    end_when_ready(scene, "pivot", "pivoted", source_stays=False)


def pivot_to_an_existing_file(scene):
    with open(scene.target, "wb") as f:
        f.truncate(SIZE)
    end_when_ready(scene, "pivot", "pivoted")


def finish(scene):
    end_when_ready(scene, "finish", "finished")


def cancel_when_ready(scene):
    end_when_ready(scene, "cancel", "cancelled")


def cancel_when_running(scene):
    scene.arm()
    scene.copy()
    scene.wait("running")
    scene.order("cancel")
    scene.end("cancelled", written=(0,))


def cancel_beside_a_stranger(scene):
    """Somebody puts a file of his own in the target's place: it is not the service's to delete."""
    scene.copy()
    scene.wait("ready")
    os.unlink(scene.target)
    with open(scene.target, "wb") as f:
        f.write(b"a stranger's")
    scene.arm()
    scene.order("cancel")
    scene.expected_warnings = 1
    scene.end("cancelled", written=(0,), target_stays=True)


def cancel_keeping_the_target(scene):
    scene.expected_warnings = 1
    end_when_ready(scene, "cancel", "cancelled", target_stays=True)


def pivot_on_ready(scene):
    end_on_ready(scene, "pivot", "pivoted")


def finish_on_ready(scene):
    end_on_ready(scene, "finish", "finished")


def end_on_ready(scene, method, result):
    """The client orders the copy with its end and leaves the bus."""
    scene.arm()
    client = scene.s.client(0)

    def order():
        o = {**scene.options, "request_id": f"n{scene.number}", "on_ready": method}
        return client.domain(scene.qemu.name).disk("vda").copy(scene.target, **o)
    job = scene.mortal.call(order)
    client.conn.close()
    scene.job = Job(scene.s, job.path)
    scene.end(result, written=(0,))


def attach_and_detach(scene):
    """The domain is forgotten, and known again with all that was said of it."""
    scene.arm()
    scene.mortal.call(scene.domain.detach, allow=("NoSuchDomain", "UnknownObject"), soon=("DomainBusy",))
    gone = [d["name"] for d in journal_now(scene.s.state_dir, "select name from domain")]
    assert gone == [], f"detached, and the journal has {gone}"
    scene.mortal.call(lambda: scene.s.attach(scene.qemu.name, scene.socket, **scene.attach_options()),
                      allow=("DomainBusy",))
    scene.settle(lambda: look_at_domain(scene))
    scene.played()


def look_at_domain(scene):
    domains = {p["Name"]: p for p in scene.s.domains().values()}
    if list(domains) != [scene.qemu.name]:
        return [f"domains: {sorted(domains)}"]
    p = domains[scene.qemu.name]
    wrong = [f"{scene.domain.path}: {p}"] if (p["Socket"], p["Definition"]) != (
        scene.socket, scene.definition) or p["State"] != "running" else []
    known = [d["name"] for d in journal_now(scene.s.state_dir, "select name from domain")]
    return wrong + ([] if known == [scene.qemu.name] else [f"the journal has {known}"])


def cancelled_job(scene):
    """A job that is over, shown still."""
    scene.copy()
    scene.order("cancel")
    scene.wait("concluded")
    scene.settle(lambda: scene.look("cancelled"))
    assert scene.job.id > scene.last_id
    scene.last_id = scene.job.id


def look_at_history(scene):
    """The job is off the bus; the newest are kept whole, whatever was deleted."""
    job = scene.job
    shown = [p for p in scene.s.jobs() if p == job.path]
    kept = journal_now(scene.s.state_dir, "select id, exported from job where finished > 0 order by id desc")
    told = {r["job"] for r in journal_now(scene.s.state_dir, "select distinct job from transition")}
    newest = [job.id - n for n in range(min(HISTORY_ROWS, job.id))]
    wrong = [f"dismissed, and on the bus: {shown}"] if shown else []
    if [r["id"] for r in kept][:HISTORY_ROWS] != newest or kept[0]["exported"]:
        wrong.append(f"history: {kept}")
    if told != {r["id"] for r in kept}:
        wrong.append(f"transitions of jobs {told}, history: {kept}")
    return wrong, kept


def dismiss(scene):
    """What was dismissed does not come back, and stays in the history."""
    cancelled_job(scene)
    scene.arm()
    scene.mortal.call(scene.job.dismiss, allow=("UnknownObject", "NoSuchJob"))
    scene.settle(lambda: look_at_history(scene)[0])
    scene.played()
    scene.check_files(None)


def prune_the_history(scene):
    """A life begins with a history that is too long: just what is too old goes."""
    cancelled_job(scene)
    scene.mortal.call(scene.job.dismiss, allow=("UnknownObject", "NoSuchJob"))
    scene.mortal.stop()
    scene.mortal.start(scene.point)

    def look():
        wrong, kept = look_at_history(scene)
        return wrong + ([f"not pruned: {kept}"] if len(kept) > HISTORY_ROWS else [])
    scene.settle(look)
    scene.played()
    scene.settle(lambda: look_at_domain(scene))


def group_pivot_on_ready(scene):
    scene.arm()
    scene.copy(on_ready="pivot")
    scene.end("pivoted", written=(0,))


# What is played, by name: options of the scene, and the play.
SCENARIOS = {
    "pivot": ({}, pivot),
    "pivot_of_qcow2": ({"format": "qcow2"}, pivot),
    "pivot_of_qcow2_that_qemu_makes": ({"format": "qcow2", "preallocation": "metadata"}, pivot),
    "pivot_with_a_definition": ({"definition": True}, pivot),
    "pivot_of_qcow2_with_a_definition": ({"format": "qcow2", "definition": True}, pivot),
    "pivot_with_the_guest_running": ({"pause_guest": False}, pivot),
    "pivot_with_a_definition_and_the_guest_running": ({"definition": True, "pause_guest": False}, pivot),
    "pivot_deleting_the_source": ({"definition": True, "delete_source": True}, pivot_deleting_the_source),
    "pivot_of_qcow2_deleting_the_source": ({"format": "qcow2", "definition": True, "delete_source": True},
                                           pivot_deleting_the_source),
    "pivot_of_a_write_blocking_copy": ({"definition": True, "copy_mode": "write-blocking"}, pivot),
    "pivot_of_a_guest_that_writes": ({"guest": True}, pivot),
    "pivot_to_an_existing_file": ({"existing": True}, pivot_to_an_existing_file),
    "pivot_on_ready": ({"definition": True}, pivot_on_ready),
    "pivot_of_qcow2_on_ready": ({"format": "qcow2"}, pivot_on_ready),
    "finish": ({}, finish),
    "finish_of_qcow2": ({"format": "qcow2"}, finish),
    "finish_with_a_definition": ({"definition": True}, finish),
    "finish_of_qcow2_with_the_guest_running": ({"format": "qcow2", "pause_guest": False}, finish),
    "finish_on_ready": ({}, finish_on_ready),
    "cancel_when_ready": ({}, cancel_when_ready),
    "cancel_of_qcow2_when_ready": ({"format": "qcow2", "definition": True}, cancel_when_ready),
    "cancel_when_running": ({"format": "qcow2", "speed": 65536}, cancel_when_running),
    "cancel_keeping_the_target": ({"format": "qcow2", "delete_target": False}, cancel_keeping_the_target),
    "cancel_beside_a_stranger": ({}, cancel_beside_a_stranger),
    "attach_and_detach": ({"definition": True}, attach_and_detach),
    "group_pivot": ({"kind": GroupScene, "definition": True}, pivot),
    "group_finish": ({"kind": GroupScene}, finish),
    "group_cancel": ({"kind": GroupScene}, cancel_when_ready),
    "group_pivot_on_ready_with_the_guest_running": ({"kind": GroupScene, "definition": True, "pause_guest": False},
                                                    group_pivot_on_ready),
    "dismiss": ({}, dismiss),
    "prune_the_history": ({"definition": True}, prune_the_history),
}


def scenes(t, name, **more):
    """(a function that makes a new scene with each call, the play)."""
    options, function = SCENARIOS[name]
    options, made = dict(options), []
    kind = options.pop("kind", Scene)

    def make():
        made.append(kind(t, f"web{len(made)}", **options, **more))
        return made[-1]
    return make, function
