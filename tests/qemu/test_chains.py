# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commit and pull: every part of a chain, every end, restarts and deaths in the middle, and what is refused."""
import json
import os

from chains import *
from copying import *
from harness import *
from killer import SOON, Mortal, Point


def test_commit_of_an_inner_part_ends_by_itself(t):
    chain = Chain(t)
    s, disk = chain.attached()
    job = disk.commit(top="1", base="3")
    assert (job.Kind, job.Target) == ("commit", chain.paths[1])
    ended(job, "committed")
    chain.stands(disk, 4, 1, 0)
    chain.nodes(4, 1, 0)
    dismissed(chain.qemu)
    assert job.Warnings == [] and job.Done == job.Total


def test_commit_of_the_active_layer_is_ready_and_pivots(t):
    chain = Chain(t)
    s, disk = chain.attached()
    job = disk.commit().wait("ready")
    assert disk.MirrorTarget == chain.paths[0] and disk.MirrorReady
    chain.reads()
    job.pivot()
    ended(job, "committed")
    chain.stands(disk, 0)
    chain.nodes(0)
    dismissed(chain.qemu)


def test_pull_of_everything(t):
    chain = Chain(t)
    s, disk = chain.attached()
    job = disk.pull()
    assert (job.Kind, job.Target) == ("pull", chain.paths[4])
    ended(job, "pulled")
    chain.stands(disk, 4)
    chain.nodes(4)
    dismissed(chain.qemu)


# ---- every part of a chain ----

def test_every_commit_of_a_chain_of_five(t):
    """mid to mid, top to base, top to mid, mid to base, each on a chain of its own."""
    s = None
    for n, (top, base, left) in enumerate([("1", "3", (4, 1, 0)), (None, None, (0,)), ("0", "2", (2, 1, 0)),
                                           ("2", "4", (4, 3, 0)), ("1", "2", (4, 2, 1, 0))]):
        chain = Chain(t, folder=f"c{n}", relative=n % 2 == 0)
        s, disk = chain.attached()
        job = disk.commit(**{k: v for k, v in (("top", top), ("base", base)) if v})
        if top in (None, "0"):
            job.wait("ready").pivot()
        ended(job, "committed")
        chain.stands(disk, *left)
        chain.nodes(*left)
        chain.qemu.quit()


def test_images_are_given_by_node_and_by_file(t):
    chain = Chain(t)
    s, disk = chain.attached()
    ended(disk.commit(top="n3", base=chain.paths[2]), "committed")
    chain.stands(disk, 4, 2, 1, 0)
    link = t.path("link.qcow2")
    os.symlink(chain.paths[0], link)
    ended(disk.commit(top=chain.paths[1], base=link), "committed")
    chain.stands(disk, 4, 2, 0)


def test_commit_into_a_raw_base_and_a_block_device(t):
    raw = t.image("base.raw", format="raw")
    device = block_device(t, "device", 64 << 20)
    for n, path in enumerate((raw, device)):
        chain = Chain(t, 3, base=(path, "raw"), folder=f"b{n}")
        s, disk = chain.attached()
        ended(disk.commit(top="1"), "committed")
        chain.stands(disk, 2, 0)
        disk.commit(on_ready="pivot").wait_result("committed")
        chain.stands(disk, 0)
        assert disk.Format == "raw"
        chain.qemu.quit()
        pattern_at(path, "raw", 3, "2M", "1M")


def test_shallow_commit_takes_one_image(t):
    chain = Chain(t)
    s, disk = chain.attached()
    job = disk.commit(shallow=True).wait("ready")
    assert job.Target == chain.paths[3]
    job.pivot()
    ended(job, "committed")
    chain.stands(disk, 3, 2, 1, 0)


def test_pull_down_to_a_base_and_into_an_inner_layer(t):
    chain = Chain(t, relative=True)
    s, disk = chain.attached()
    ended(disk.pull(base="2"), "pulled")
    chain.stands(disk, 4, 2, 1, 0)
    chain.nodes(4, 2, 1, 0)
    ended(disk.pull(top="1"), "pulled")
    chain.stands(disk, 4, 2)
    chain.nodes(4, 2)


def test_relative_names_stay_relative(t):
    chain = Chain(t, relative=True)
    s, disk = chain.attached()
    ended(disk.commit(top="1", base="3"), "committed")
    assert image_info(chain.paths[4])["backing-filename"] == "i1.qcow2"
    ended(disk.pull(base="2"), "pulled")
    assert image_info(chain.paths[4])["backing-filename"] == "i0.qcow2"
    assert image_info(chain.paths[4])["backing-filename-format"] == "qcow2"


def test_name_of_the_backing_file_is_as_given(t):
    chain = Chain(t)
    s, disk = chain.attached()
    ended(disk.commit(top="1", base="3", backing_file="../chain/i1.qcow2"), "committed")
    assert image_info(chain.paths[4])["backing-filename"] == "../chain/i1.qcow2"
    chain.stands(disk, 4, 1, 0)


def test_chain_that_qemu_opened_by_itself(t):
    """Only the active layer was named; the images below have names of QEMU's making."""
    chain = Chain(t, 4, blockdev=False)
    s, disk = chain.attached()
    ended(disk.commit(top="1", base="2"), "committed")
    chain.stands(disk, 3, 1, 0)
    ended(disk.pull(), "pulled")
    chain.stands(disk, 3)


# ---- ends ----

def test_finish_leaves_the_guest_on_top_and_a_copy_in_the_base(t):
    chain = Chain(t, 3)
    s, disk = chain.attached()
    job = disk.commit().wait("ready")
    chain.qemu.io("write -P 7 40M 64k")
    job.finish()
    ended(job, "finished")
    chain.stands(disk, 2, 1, 0)
    chain.qemu.io("write -P 8 40M 64k")
    chain.qemu.quit()
    pattern_at(chain.paths[0], "qcow2", 7, "40M", "64k")
    pattern_at(chain.paths[2], "qcow2", 8, "40M", "64k")


def test_cancelled_commits_say_what_became_of_the_base(t):
    chain = Chain(t)
    s, disk = chain.attached()
    for o in {}, {"top": "1"}:
        job = slow(disk, "commit", **o)
        refusal("InvalidArgs", job.cancel, delete_target=True)
        job.cancel()
        ended(job, "cancelled")
        assert any(chain.paths[0] in w and "wrong now" in w for w in job.Warnings), job.Warnings
        chain.stands(disk, 4, 3, 2, 1, 0)
    ended(disk.commit(top="1"), "committed")
    chain.stands(disk, 4, 0)


def test_pull_cancelled_at_half_is_started_again(t):
    chain = Chain(t)
    s, disk = chain.attached()
    job = slow(disk, "pull", speed=1 << 20)
    wait_until(lambda: job.Done > 0, what="some of it to be pulled")
    job.cancel()
    ended(job, "cancelled")
    chain.stands(disk, 4, 3, 2, 1, 0)
    ended(disk.pull(), "pulled")
    chain.stands(disk, 4)


def test_jobs_of_one_phase_have_no_pivot_and_no_finish(t):
    chain = Chain(t)
    s, disk = chain.attached()
    for verb, o in ("commit", {"top": "1"}), ("pull", {}):
        job = slow(disk, verb, **o)
        for order in job.pivot, job.finish, lambda: job.set_on_ready("pivot"):
            try:
                order()
                raise AssertionError("it was not refused")
            except BusError as e:
                assert e.short == "NotTwoPhase", e
        assert disk.MirrorTarget == "" and not disk.MirrorReady
        assert "<mirror" not in s.domain(chain.qemu.name).xml()
        job.set_speed(0)
        job.wait_result("committed" if verb == "commit" else "pulled")


def test_mirror_of_an_active_commit_is_in_the_xml(t):
    chain = Chain(t, 3)
    s, disk = chain.attached()
    job = disk.commit().wait("ready")
    xml = s.domain(chain.qemu.name).xml()
    assert "job='active-commit'" in xml and "ready='yes'" in xml and chain.paths[0] in xml, xml
    job.pivot()
    ended(job, "committed")
    assert "<mirror" not in s.domain(chain.qemu.name).xml()


def test_smaller_base_is_grown_and_that_is_said(t):
    chain = Chain(t, 2, start=False)
    run(["qemu-img", "resize", "-q", chain.paths[1], "80M"]).ok()
    chain.qemu = t.qemu("grown", args=chain.arguments())
    s, disk = chain.attached()
    job = disk.commit(on_ready="pivot")
    ended(job, "committed")
    assert any("grown" in w for w in job.Warnings), job.Warnings
    assert image_info(chain.paths[0])["virtual-size"] == 80 << 20


# ---- deleting ----

def test_merged_images_are_deleted_where_asked_for(t):
    chain = Chain(t)
    s, disk = chain.attached()
    ended(disk.commit(top="1", base="2", delete_image=True), "committed")
    assert not os.path.exists(chain.paths[3])
    job = disk.commit(delete_image=True).wait("ready")
    job.pivot()
    ended(job, "committed")
    assert [os.path.exists(p) for p in chain.paths] == [True] + 4 * [False], job.Warnings
    chain.stands(disk, 0)


def test_cancelled_commit_deletes_nothing(t):
    chain = Chain(t, 3)
    s, disk = chain.attached()
    job = disk.commit(delete_image=True).wait("ready")
    job.cancel()
    ended(job, "cancelled")
    assert all(os.path.exists(p) for p in chain.paths)


# ---- the definition ----

DEFINITION = """<domain type='kvm'>
  <name>chain</name>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{top}'/>{backing}
      <target dev='vda' bus='virtio'/>
      <alias name='virtio-disk0'/>
    </disk>
  </devices>
</domain>
"""


def test_definition_follows_commits_and_pulls(t):
    chain = Chain(t, 4)
    path = t.path("chain.xml")
    backing = "\n      <backingStore/>"
    for p in chain.paths[:3]:
        inner = backing.strip() if p != chain.paths[0] else "<backingStore/>"
        backing = (f"<backingStore type='file'><format type='qcow2'/><source file='{p}'/>{inner}</backingStore>")
    with open(path, "w") as f:
        f.write(DEFINITION.format(top=chain.paths[3], backing=backing))
    s, disk = chain.attached(definition=path)

    def named():
        with open(path) as f:
            text = f.read()
        return [p for p in chain.paths if f"'{p}'" in text]
    assert named() == chain.paths
    ended(disk.commit(top="1", base="2"), "committed")
    assert named() == [chain.paths[i] for i in (0, 1, 3)]
    ended(disk.pull(base="2"), "pulled")
    assert named() == [chain.paths[i] for i in (0, 3)]
    job = disk.commit().wait("ready")
    job.pivot()
    ended(job, "committed")
    assert named() == [chain.paths[0]]
    assert not [n for n in os.listdir(t.folder) if "blockjobd-" in n]


# ---- refusals ----

def test_commits_and_pulls_are_refused_with_a_sentence(t):
    chain = Chain(t)
    s, disk = chain.attached()
    nothing = Untouched(t, s, chain.qemu)
    for error, words, verb, o in (
            ("NotInChain", "no image", "commit", {"base": "/nowhere"}),
            ("NotInChain", "no image", "commit", {"top": "17"}),
            ("NotInChain", "not below", "commit", {"top": "2", "base": "1"}),
            ("NotInChain", "not below", "commit", {"top": "2", "base": "n2"}),
            ("NotInChain", "no backing file", "commit", {"top": "4"}),
            ("NotInChain", "not directly below", "commit", {"shallow": True, "base": "3"}),
            ("InvalidArgs", "active layer", "commit", {"active": False}),
            ("NotTwoPhase", "not the active layer", "commit", {"active": True, "top": "1"}),
            ("NotTwoPhase", "on-ready", "commit", {"on_ready": "pivot", "top": "1"}),
            ("NotSupported", "backing-file", "commit", {"backing_file": chain.paths[0]}),
            ("NotInChain", "is not the base", "commit", {"top": "1", "backing_file": "i0.raw"}),
            ("NotInChain", "not below", "pull", {"base": "0"}),
            ("NotInChain", "nothing lies between", "pull", {"base": "1"}),
            ("NotInChain", "no backing file", "pull", {"top": "4"}),
            ("InvalidArgs", "base", "pull", {"backing_file": "x"}),
            ("InvalidArgs", "shallow", "pull", {"shallow": True})):
        nothing.refuses(error, words, getattr(disk, verb), **o)
        if error != "InvalidArgs" or words == "active layer":
            answer = disk.check("", verb, **o)
            assert not answer["ok"] and answer["error-name"].endswith(error), (verb, o, answer)
    assert disk.check("", "commit")["ok"] and disk.check("", "pull", base="3")["ok"]
    nothing.refuses("InvalidArgs", "empty", disk.check, "/x", "commit")
    nothing.check()


def test_busy_disk_is_refused(t):
    chain = Chain(t)
    s, disk = chain.attached()
    job = slow(disk, "pull")
    nothing = Untouched(t, s, chain.qemu)
    nothing.refuses("DiskBusy", f"job {job.id}", disk.commit)
    nothing.refuses("DiskBusy", f"job {job.id}", disk.pull)
    nothing.refuses("DiskBusy", f"job {job.id}", disk.copy, t.path("x.qcow2"))
    job.cancel()
    ended(job, "cancelled")


def test_images_with_bitmaps_are_kept(t):
    chain = Chain(t, 3, start=False)
    run(["qemu-img", "bitmap", "--add", chain.paths[1], "since-monday"]).ok()
    chain.qemu = t.qemu("bitmaps", args=chain.arguments())
    s, disk = chain.attached()
    nothing = Untouched(t, s, chain.qemu)
    nothing.refuses("NotSupported", "since-monday", disk.commit)
    nothing.refuses("NotSupported", "since-monday", disk.commit, top="1")
    nothing.refuses("NotSupported", "since-monday", disk.pull)
    ended(disk.commit(on_ready="pivot", shallow=True), "committed")
    chain.stands(disk, 1, 0)


def test_base_that_another_domain_reads_is_not_changed(t):
    chain = Chain(t, 3)
    s, disk = chain.attached()
    overlay = image_create(t.path("overlay.qcow2"), None, backing=chain.paths[0])
    other = t.qemu("other", [overlay])
    s.attach("other", other.socket)
    nothing = Untouched(t, s, chain.qemu, other)
    nothing.refuses("TargetInUse", "other", disk.commit)
    nothing.refuses("TargetInUse", "other", disk.pull, delete_image=True)
    ended(disk.commit(base="1", on_ready="pivot"), "committed")
    chain.stands(disk, 1, 0)


def test_foreign_job_in_the_chain_is_respected(t):
    chain = Chain(t)
    s, disk = chain.attached()
    chain.qemu("block-stream", job_id="theirs", device="n4", base_node="n1", speed=65536)
    wait_until(lambda: any(j["Kind"] == "foreign" for j in s.jobs().values()), what="the foreign job")
    refusal("DiskBusy", disk.commit, top="1")
    chain.qemu("job-cancel", id="theirs")
    wait_until(lambda: not chain.qemu.jobs(), what="its end")
    wait_until(lambda: disk.Job == "/", what="the disk to be idle")
    ended(disk.pull(), "pulled")
    chain.stands(disk, 4)


def test_base_that_qemu_cannot_write_fails_with_its_words(t):
    chain = Chain(t, 3, start=False)
    args = chain.arguments()
    first = json.loads(args[1])
    first["read-only"] = True
    del first["auto-read-only"], first["discard"]
    args[1] = json.dumps(first)
    chain.qemu = t.qemu("fixed", args=args)
    s, disk = chain.attached()
    job = disk.commit()
    ended(job, "failed")
    assert "read-only" in job.ErrorMessage and job.Warnings == [], job.properties()
    chain.stands(disk, 2, 1, 0)


# ---- restarts and deaths ----

def finalized_while_away(t, verb, result, *left, **o):
    """The service is away while its job goes into pending; what it has decided it carries out afterwards."""
    chain = Chain(t, folder=verb)
    s, disk = chain.attached()
    job = slow(disk, verb, **o)
    s.kill()
    chain.qemu("block-job-set-speed", device=next(iter(chain.qemu.jobs())), speed=0)
    chain.qemu.wait_event("BLOCK_JOB_PENDING")
    s.start()
    job = s.job(job.id)
    ended(job, result)
    assert job.Restarts == 1
    chain.stands(disk, *left)
    chain.nodes(*left)
    dismissed(chain.qemu)
    chain.qemu.quit()


def test_commit_that_is_pending_while_the_service_is_away(t):
    finalized_while_away(t, "commit", "committed", 4, 0, top="1")


def test_pull_that_is_pending_while_the_service_is_away(t):
    finalized_while_away(t, "pull", "pulled", 4, 0, base="4")


def test_service_killed_while_a_commit_runs(t):
    chain = Chain(t, 3)
    s, disk = chain.attached()
    job = slow(disk, "commit")
    s.restart()
    job = s.job(job.id)
    wait_until(lambda: job.State == "running", what="the job to run")
    job.set_speed(0)
    job.wait("ready")
    s.restart()
    job.wait("ready").pivot()
    ended(job, "committed")
    chain.stands(disk, 0)


def test_qemu_killed_while_a_pull_runs(t):
    chain = Chain(t, 3)
    s, disk = chain.attached()
    for verb in "pull", "commit":
        job = slow(disk, verb, **({"top": "1"} if verb == "commit" else {}))
        chain.qemu.kill()
        ended(job, "lost")
        assert "as it was" in job.ErrorMessage, job.ErrorMessage
        assert bool(job.Warnings) == (verb == "commit"), job.Warnings
        chain.qemu.start()
        wait_until(lambda: s.domain(chain.qemu.name).State != "disconnected", what="the domain")
        chain.stands(disk, 2, 1, 0)


# ---- the command line ----

def test_verbs_of_the_command_line(t):
    chain = Chain(t)
    s, disk = chain.attached()
    name = chain.qemu.name
    done = t.ctl("commit", name, "vda", "--top=1", "--base=3", "--inner").ok()
    assert "has committed" in done.stdout + done.stderr, done
    chain.stands(disk, 4, 1, 0)
    done = t.ctl("pull", name, "vda", f"--base={chain.paths[0]}", "--delete-image").ok()
    assert "has pulled" in done.stdout + done.stderr, done
    chain.stands(disk, 4, 0)
    assert not os.path.exists(chain.paths[1])
    done = t.ctl("commit", name, "vda", "--shallow").ok()
    assert "is ready" in done.stdout + done.stderr, done
    job = next(j["Id"] for j in s.jobs().values() if j["State"] == "ready")
    done = t.ctl("pivot", str(job)).ok()
    assert "has committed" in done.stdout + done.stderr, done
    chain.stands(disk, 0)
    done = t.ctl("pull", name, "vda")
    assert done.returncode != 0 and "no backing file" in done.stderr, done
    done = t.ctl("pull", name, "vda", "--shallow")
    assert done.returncode == 2 and "shallow" in done.stderr, done


# ---- kills at chosen moments ----

def killed_at_any_call(t, verb, result, left, points=10, **o):
    """Once in peace, then with a kill at moments spread over all calls of the service, the definition included."""
    s = t.service()
    mortal = Mortal(s)

    def play(name, point):
        chain = Chain(t, 4, folder=name)
        path = t.path(f"{name}.xml")
        with open(path, "w") as f:
            f.write(DEFINITION.format(top=chain.paths[3], backing=""))
        _, disk = chain.attached(definition=path)
        mortal.stop()
        mortal.start(point)
        job = mortal.call(lambda: getattr(disk, verb)(request_id=name, delete_image=True, **o), soon=SOON)
        if verb == "commit" and "top" not in o:
            mortal.until(lambda: job.State in ("ready", "pivoting", "concluded"), what="the job to be ready")
            mortal.call(job.pivot, allow={"AlreadyEnding"}, soon=SOON)
        mortal.until(lambda: job.State == "concluded", what=lambda: f"its end: {job.properties()}")
        mortal.until(lambda: not chain.qemu.jobs(), what="QEMU to have forgotten it")
        mortal.stop()
        calls = sum(1 for line in mortal.calls() if line[:1].isdigit())
        mortal.start()
        mortal.until(lambda: disk.Source == chain.paths[left[0]], what="the disk")
        assert job.Result == result, (point, job.properties())
        chain.stands(disk, *left)
        chain.nodes(*left)
        assert [os.path.exists(p) for p in chain.paths] == [i in left for i in range(4)], (point, job.Warnings)
        with open(path) as f:
            assert f"'{chain.paths[left[0]]}'" in f.read(), point
        chain.qemu.quit()
        return calls

    total = play("peace", Point())
    for n, at in enumerate(1 + i * (total - 1) // (points - 1) for i in range(points)):
        play(f"k{n}", Point(at))
    assert mortal.deaths >= 0.8 * points, f"{mortal.deaths} deaths of {points}, {total} calls"


@deadline(300)
def test_inner_commit_survives_a_kill_at_any_call(t):
    killed_at_any_call(t, "commit", "committed", (3, 0), top="1")


@deadline(300)
def test_active_commit_survives_a_kill_at_any_call(t):
    killed_at_any_call(t, "commit", "committed", (1, 0), base="2")


@deadline(300)
def test_pull_survives_a_kill_at_any_call(t):
    killed_at_any_call(t, "pull", "pulled", (3,))


def both_killed_at_finalize(t, name, verb, after, **o):
    """The service dies before or after it sends job-finalize, and QEMU right then: only headers and record are left."""
    chain = Chain(t, 4, folder=name)
    s, disk = chain.attached()
    mortal = Mortal(s)
    mortal.stop()
    mortal.start(Point(1, match="job-finalize", after=after))
    job = mortal.call(lambda: getattr(disk, verb)(delete_image=True, **o), soon=SOON)
    wait_until(lambda: mortal.dead, what="the service's death")
    if after:
        wait_until(lambda: [j["status"] for j in chain.qemu.jobs().values()] == ["concluded"], what="QEMU to be done")
    chain.qemu.kill()
    mortal.until(lambda: job.State == "concluded", what="the end of the job")
    properties, there = job.properties(), [os.path.exists(p) for p in chain.paths]
    return chain, properties, there


def test_header_decides_when_both_died_before_the_end(t):
    for verb, o in ("commit", {"top": "1"}), ("pull", {}):
        chain, job, there = both_killed_at_finalize(t, f"b-{verb}", verb, False, **o)
        assert job["Result"] == "lost" and there == 4 * [True], (job, there)
        assert [i["filename"] for i in image_chain(chain.paths[3])] == chain.paths[::-1]


def test_header_decides_when_both_died_behind_the_end(t):
    for verb, o, left in ("commit", {"top": "1"}, [3, 0]), ("pull", {"base": "2"}, [3, 1, 0]):
        chain, job, there = both_killed_at_finalize(t, f"a-{verb}", verb, True, **o)
        assert job["Result"] == {"commit": "committed", "pull": "pulled"}[verb], job
        assert there == [i in left for i in range(4)], there
        assert [i["filename"] for i in image_chain(chain.paths[3])] == [chain.paths[i] for i in left]
