# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may do what: every method of every interface, as every kind of caller, against one table; and what polkit is
asked, what it may answer, and what becomes of a caller that leaves meanwhile."""
import os
import pwd
import socket

from gi.repository import GLib
from harness import *
from scenes import *

NONE, OWN = "for everybody", "own jobs need no check"


class Case:
    """One way to call a method. on: a key of the scene's objects. asks: the polkit actions that are asked, in order.
    after: what a caller that passes gets: an error name, or "" for a reply; nothing that changes the scene."""

    def __init__(self, on, signature="()", args=(), asks=(), who=NONE, after="", details=None):
        self.on, self.signature, self.args, self.asks, self.who = on, signature, args, asks, who
        self.after, self.details = after, details or {}


def a(**values):
    return options({k: v for k, v in values.items()}, [])


JOB_DETAILS = {"domain": "web", "domain-uuid": "{uuid}", "disk": "{disk}", "target": "{target}", "job": "{id}",
               "job-owner": str(OWNER)}


def job_case(method, action, signature="()", args=(), on="done", after="AlreadyEnding"):
    return Case(on, signature, args, [action], OWN, after, {"verb": method.lower(), **JOB_DETAILS})


def copy_case(target, asks, kind, after="DiskBusy", **more):
    return Case("disk", "(sa{sv})", (target, a(**more)), asks, after=after,
                details={"verb": "copy", "domain": "web", "domain-uuid": "{uuid}", "disk": "vda", "target": target,
                         "target-kind": kind})


def disks_case(disks, asks, kind):
    return Case("domain", "(a(ssa{sv})a{sv})", (disks, {}), asks, after="DiskBusy",
                details={"verb": "copy", "domain": "web", "domain-uuid": "{uuid}", "disk": disks[0][0],
                         "target": disks[0][1], "target-kind": kind})


def chain_case(verb, asks, after="DiskBusy", **more):
    return Case("disk", "(a{sv})", (a(**more),), asks, after=after,
                details={"verb": verb, "domain": "web", "domain-uuid": "{uuid}", "disk": "vda"})


# Every method that introspection finds must be here; the paths of targets begin with the test's folder, {}.
TABLE = {
    "org.blockjob1.Manager.AttachDomain": [
        Case("root", "(ssa{sv})", ("web", "{}/other.qmp", {}), ["attach"], after="DomainBusy",
             details={"verb": "attachdomain", "domain": "web", "target": "{}/other.qmp"})],
    "org.blockjob1.Manager.GetDomain": [Case("root", "(s)", ("web",))],
    "org.blockjob1.Manager.GetJob": [Case("root", "(t)", (1,))],
    "org.blockjob1.Manager.ListJobs": [Case("root")],
    "org.blockjob1.Manager.ListHistory": [Case("root", "(a{sv})", ({},))],
    "org.blockjob1.Manager.GetPermissions": [
        Case("root", asks=["attach", "copy", "copy-anywhere", "commit", "delete-image", "complete", "manage-jobs",
                            "export-journal"], who="asks")],
    "org.blockjob1.Manager.ExportJournal": [
        Case("root", "(t)", (0,), ["export-journal"], details={"verb": "exportjournal"})],
    "org.blockjob1.Domain.GetXML": [Case("domain", "(a{sv})", ({},))],
    "org.blockjob1.Domain.CopyDisks": [
        disks_case([("vda", "{}/copies/x.qcow2", {})], ["copy"], "new"),
        disks_case([("vda", "{}/elsewhere.qcow2", {})], ["copy-anywhere"], "new"),
        disks_case([("vda", "{}/copies/x.qcow2", a(delete_source=True))], ["copy", "delete-image"], "new")],
    "org.blockjob1.Domain.Detach": [
        Case("domain", "(a{sv})", ({},), ["attach"], after="DomainBusy",
             details={"verb": "detach", "domain": "web", "domain-uuid": "{uuid}"})],
    "org.blockjob1.Disk.Copy": [
        copy_case("{}/copies/x.qcow2", ["copy"], "new"),
        copy_case("{}/elsewhere.qcow2", ["copy-anywhere"], "new"),
        copy_case("{}/copies-not/x.qcow2", ["copy-anywhere"], "new"),
        copy_case("{}/copies/x.qcow2", ["copy-anywhere"], "file", existing=True, format="raw"),
        copy_case("{}/copies/x.qcow2", ["copy", "delete-image"], "new", delete_source=True),
        copy_case("{}/elsewhere.qcow2", ["copy-anywhere", "delete-image"], "new", delete_source=True)],
    "org.blockjob1.Disk.Commit": [
        chain_case("commit", ["commit"]), chain_case("commit", ["commit", "delete-image"], delete_image=True)],
    "org.blockjob1.Disk.Pull": [
        chain_case("pull", ["commit"]), chain_case("pull", ["commit", "delete-image"], delete_image=True)],
    "org.blockjob1.Disk.GetChain": [Case("disk")],
    "org.blockjob1.Disk.Check": [
        Case("disk", "(ssa{sv})", ("copy", "{}/copies/x.qcow2", {}), ["copy"],
             details={"verb": "check", "domain": "web", "domain-uuid": "{uuid}", "disk": "vda",
                      "target": "{}/copies/x.qcow2", "target-kind": "new"}),
        Case("disk", "(ssa{sv})", ("copy", "/etc/shadow", a(existing=True, format="raw")), ["copy-anywhere"],
             details={"verb": "check", "domain": "web", "domain-uuid": "{uuid}", "disk": "vda",
                      "target": "/etc/shadow", "target-kind": "file"}),
        Case("disk", "(ssa{sv})", ("commit", "", {}), ["commit"],
             details={"verb": "check", "domain": "web", "domain-uuid": "{uuid}", "disk": "vda"}),
        Case("disk", "(ssa{sv})", ("pull", "", a(delete_image=True)), ["commit", "delete-image"],
             details={"verb": "check", "domain": "web", "domain-uuid": "{uuid}", "disk": "vda"})],
    "org.blockjob1.Job.Pivot": [job_case("Pivot", "complete", "(a{sv})", ({},)),
                                job_case("Pivot", "complete", "(a{sv})", ({},), "busy", "NotReady")],
    "org.blockjob1.Job.Finish": [job_case("Finish", "complete", "(a{sv})", ({},)),
                                 job_case("Finish", "complete", "(a{sv})", ({},), "busy", "NotReady")],
    "org.blockjob1.Job.Cancel": [job_case("Cancel", "manage-jobs", "(a{sv})", ({},)),
                                 job_case("Cancel", "manage-jobs", "(a{sv})", (a(force=True),))],
    "org.blockjob1.Job.Pause": [job_case("Pause", "manage-jobs")],
    "org.blockjob1.Job.Resume": [job_case("Resume", "manage-jobs")],
    "org.blockjob1.Job.SetSpeed": [job_case("SetSpeed", "manage-jobs", "(t)", (5,))],
    "org.blockjob1.Job.SetCopyMode": [job_case("SetCopyMode", "manage-jobs", "(s)", ("write-blocking",))],
    "org.blockjob1.Job.SetOnReady": [job_case("SetOnReady", "complete", "(s)", ("pivot",))],
    "org.blockjob1.Job.Dismiss": [job_case("Dismiss", "manage-jobs", on="busy", after="NotReady")],
    "org.blockjob1.Job.WaitFor": [Case("done", "(st)", ("concluded", 0)),
                                  Case("busy", "(st)", ("concluded", 1), after="Timeout")],
    "org.freedesktop.DBus.Peer.Ping": [Case("root")],
    "org.freedesktop.DBus.Peer.GetMachineId": [Case("root")],
    "org.freedesktop.DBus.Introspectable.Introspect": [Case("root"), Case("busy")],
    "org.freedesktop.DBus.Properties.Get": [Case("busy", "(ss)", ("org.blockjob1.Job", "State"))],
    "org.freedesktop.DBus.Properties.GetAll": [Case("busy", "(s)", ("org.blockjob1.Job",))],
    "org.freedesktop.DBus.Properties.Set": [
        Case("busy", "(ssv)", ("org.blockjob1.Job", "SpeedLimit", GLib.Variant("t", 9)), after="PropertyReadOnly")],
    "org.freedesktop.DBus.ObjectManager.GetManagedObjects": [Case("root")],
}


class Scene:
    """A domain with two disks, a concluded and a running job of the user OWNER."""

    def __init__(self, t):
        self.t = t
        self.polkit = t.fake_polkit("yes")
        self.service, self.qemu, self.domain = small(t, disks=2)
        owner = t.services[0].client(OWNER)
        self.done = Disk(owner, self.domain.disk("vdb").path).copy(t.path("copies/done.qcow2"), on_ready="finish")
        self.done.wait_result("finished")
        self.busy = slow_job(t, Disk(owner, self.domain.disk().path))
        self.paths = {"root": ROOT, "domain": self.domain.path, "disk": self.domain.disk().path,
                      "done": self.done.path, "busy": self.busy.path}
        self.polkit.checks.clear()

    def fill(self, value):
        if isinstance(value, (list, tuple)):
            return type(value)(self.fill(v) for v in value)
        return value.replace("{}", self.t.folder) if isinstance(value, str) else value

    def details(self, case):
        job = {"done": self.done, "busy": self.busy}.get(case.on)
        facts = {"{uuid}": self.domain.UUID}
        if job:
            facts |= {"{disk}": job.Disk, "{target}": job.Target, "{id}": str(job.id)}
        return {k: facts.get(v, self.fill(v)) for k, v in case.details.items()}

    def call(self, conn, method, case, interactive):
        interface, member = method.rsplit(".", 1)
        args = tuple(self.fill(x) for x in case.args)
        try:
            conn.call(self.paths[case.on], interface, member, case.signature, args, interactive=interactive)
            return ""
        except BusError as e:
            return e.short


DENIALS = {("no", False): "AccessDenied", ("no", True): "AccessDenied",
           ("challenge", False): "InteractiveAuthorizationRequired", ("challenge", True): "AccessDenied"}


def expected(case, uid, verdict, interactive):
    """(outcome, names of the actions that polkit is asked about)."""
    exempt = uid == 0 or not case.asks or (case.who == OWN and uid == OWNER)
    if exempt:
        return case.after, []
    if case.who == "asks":
        return case.after, sorted(case.asks)
    if verdict == "yes":
        return case.after, case.asks
    return DENIALS[verdict, interactive], case.asks[:1]


def found_methods(s):
    return sorted({f"{interface.name}.{method}" for interfaces in walk(s.conn).values()
                   for interface in interfaces.values() for method in interface.methods})


def test_every_method_is_in_the_table(t):
    scene = Scene(t)
    found = found_methods(scene.service)
    assert set(found) == set(TABLE), f"not in the table: {sorted(set(found) - set(TABLE))}, " \
                                     f"not on the bus: {sorted(set(TABLE) - set(found))}"


def unchanged(scene):
    keep = {}
    for path, interfaces in scene.service.objects().items():
        for name, values in interfaces.items():
            keep[path, name] = {k: v for k, v in values.items()
                                if k not in ("Done", "Total", "Rate", "ExpectedEnd", "Allocated")}
    return keep


@deadline(180)
def test_matrix_of_methods_and_callers(t):
    scene = Scene(t)
    before = unchanged(scene)
    files = sorted(os.listdir(t.path("copies")))
    callers = [(uid, t.bus.connect(uid)) for uid in (0, OWNER, OTHER, NOBODY)]
    wrong, calls = [], 0
    for verdict in "yes", "no", "challenge":
        scene.polkit.set(verdict)
        for method in found_methods(scene.service):
            for number, case in enumerate(TABLE[method]):
                for uid, conn in callers:
                    for interactive in False, True:
                        scene.polkit.checks.clear()
                        outcome = scene.call(conn, method, case, interactive)
                        calls += 1
                        asked = [c.verb for c in scene.polkit.checks]
                        if case.who == "asks":
                            asked.sort()
                        if (outcome, asked) != expected(case, uid, verdict, interactive):
                            wrong.append(f"{method} #{number} by {uid}, interactive {interactive}, polkit {verdict}: "
                                         f"{outcome!r} {asked}, not {expected(case, uid, verdict, interactive)}")
                        for check in scene.polkit.checks:
                            wrong += wrong_check(scene, method, number, case, check, conn, interactive)
    wrong = list(dict.fromkeys(wrong))
    assert not wrong, f"{len(wrong)} of {calls} calls:\n" + "\n".join(wrong[:20])
    print(f"{calls} cells: {calls // 24} cases of {len(TABLE)} methods, 4 callers, interactive or not, 3 verdicts")
    assert calls == sum(len(cases) for cases in TABLE.values()) * 4 * 2 * 3
    assert unchanged(scene) == before, "a call that only asked has changed something"
    assert sorted(os.listdir(t.path("copies"))) == files


def wrong_check(scene, method, number, case, check, conn, interactive):
    wrong = []
    if check.subject != ("system-bus-name", {"name": conn.name}):
        wrong.append(f"{method} #{number}: polkit was asked about {check.subject}")
    if check.interactive != (interactive and case.who != "asks"):
        wrong.append(f"{method} #{number}: interactive is {check.interactive}")
    if check.details != scene.details(case):
        wrong.append(f"{method} #{number}: details {check.details}, not {scene.details(case)}")
    if not check.cancellation_id:
        wrong.append(f"{method} #{number}: the check cannot be cancelled")
    return wrong


def test_copy_to_a_descriptor_asks_for_copy_and_names_it(t):
    scene = Scene(t)
    other = scene.service.client(OTHER)
    scene.polkit.set("no")
    with open(t.path("mine"), "w+b") as f:
        refused(lambda: Disk(other, scene.paths["disk"]).copy("my file", fd=f, format="raw"), "AccessDenied")
        f.truncate(0)
    check, = scene.polkit.checks
    assert check.verb == "copy" and check.details["target-kind"] == "fd", check
    assert check.details["target"] == "my file"


def test_attach_by_descriptor_shows_no_socket(t):
    fake = t.fake_polkit("no")
    s = t.service()
    ours, theirs = socket.socketpair()
    refused(lambda: s.client(OTHER).attach("x", "", fd=theirs), "AccessDenied")
    ours.close()
    assert fake.checks[0].details["domain"] == "x" and "socket" not in str(fake.checks[0].details)


def test_details_are_cleaned_and_cut(t):
    scene = Scene(t)
    scene.polkit.set("no")
    other = scene.service.client(OTHER)
    refused(lambda: Disk(other, scene.paths["disk"]).copy("/x" + "/ä€" * 300), "AccessDenied")
    with open(t.path("mine"), "w+b") as f:
        refused(lambda: Disk(other, scene.paths["disk"]).copy("wörds " * 500, fd=f, format="raw"), "AccessDenied")
    assert len(scene.polkit.checks) == 2
    for check in scene.polkit.checks:
        for key, value in check.details.items():
            assert len(value.encode()) <= 256 and value.isprintable(), f"{key}: {value!r}"


def copy_as_other(scene, name="new.qcow2", **more):
    """A pending copy of the disk whose job is done, by somebody who must ask."""
    client = scene.service.client(OTHER)
    call = client.conn.call_async(scene.domain.disk("vdb").path, f"{PREFIX}.Disk", "Copy", "(sa{sv})",
                                  (scene.t.path(f"copies/{name}"), a(speed=1)), **more)
    return client, call


def test_yes_lets_the_copy_begin_and_its_owner_is_the_caller(t):
    scene = Scene(t)
    client, call = copy_as_other(scene)
    _, path = call.result()
    assert Job(client, path).OwnerUid == OTHER


def test_copy_is_authorized_once_though_it_waits_for_its_place_afterwards(t):
    """Somebody who has just typed a password is not asked again because the call was put aside once more."""
    scene = Scene(t)
    before = len(scene.polkit.checks)
    _, call = copy_as_other(scene)
    call.result()
    asked = [c.action for c in scene.polkit.checks[before:]]
    assert len(asked) == len(set(asked)) == 1, asked


def test_delayed_answer_holds_up_nobody_else(t):
    scene = Scene(t)
    scene.polkit.set(("delay", 0.5, "yes"))
    client, call = copy_as_other(scene)
    wait_until(lambda: scene.polkit.checks)
    with Heartbeat(scene.domain):
        wait_until(lambda: call.done)
    assert Job(client, call.result()[1]).wait("running")


def test_calls_of_one_connection_do_not_wait_for_its_own_check(t):
    scene = Scene(t)
    scene.polkit.set("hang")
    client, call = copy_as_other(scene)
    wait_until(lambda: scene.polkit.waiting())
    assert client.manager.NDomains == 1 and not call.done
    scene.polkit.waiting()[0].answer("no")
    refused(call.result, "AccessDenied")


def test_hanging_authority_denies_in_time_and_is_told_to_stop(t):
    fake = t.fake_polkit("hang")
    s, _qemu, domain = small(t, config="[Authorization]\nTimeout=1s\n")
    client = s.client(OTHER)
    refused(lambda: Disk(client, domain.disk().path).copy(t.path("copies/x")), "AccessDenied", text="in time")
    wait_until(lambda: fake.checks[0].cancelled, what="CancelCheckAuthorization")
    assert not s.jobs()


@deadline(120)
def test_answer_after_28_seconds_counts(t):
    """Longer than sd-bus waits by default: somebody has to find a password."""
    scene = Scene(t)
    scene.polkit.set(("delay", 28, "yes"))
    client = scene.service.client(OTHER)
    call = client.conn.call_async(scene.domain.disk("vdb").path, f"{PREFIX}.Disk", "Copy", "(sa{sv})",
                                  (t.path("copies/late.qcow2"), {}), interactive=True, timeout=60)
    path = call.result()[1]
    check, = scene.polkit.checks
    assert check.interactive and not check.cancelled
    assert Job(client, path).OwnerUid == OTHER


def test_owner_of_a_job_is_its_owner_after_a_restart(t):
    scene = Scene(t)
    scene.polkit.set("no")
    scene.service.restart()
    owner, other = scene.service.client(OWNER), scene.service.client(OTHER)
    job = Job(owner, scene.busy.path)
    job.wait("running")
    refused(lambda: Job(other, job.path).set_speed(9), "AccessDenied")
    asked = len(scene.polkit.checks)
    job.set_speed(9)
    job.cancel()
    job.wait_result("cancelled")
    assert len(scene.polkit.checks) == asked, "the owner needs no check"
    assert job.OwnerUid == OWNER


def test_nobody_is_prompted_who_did_not_ask_for_it(t):
    """A caller without the interactive flag is told that authentication would help, and no dialog opens."""
    scene = Scene(t)
    scene.polkit.set("challenge")
    other = scene.service.client(OTHER)
    job = Job(other, scene.busy.path)
    refused(lambda: job.set_speed(9), "InteractiveAuthorizationRequired", text="allow interactive authorization")
    other.manager.call("GetPermissions")
    assert scene.polkit.checks and not any(c.interactive for c in scene.polkit.checks)


def test_failing_authority_denies(t):
    scene = Scene(t)
    for verdict in "error", "dismissed":
        scene.polkit.set(verdict)
        _, call = copy_as_other(scene)
        error = refused(call.result, "AccessDenied")
        assert "out of order" not in error.message, "the caller is told polkit's inner words"
    scene.polkit.set("yes")
    assert copy_as_other(scene)[1].result()


def test_authority_that_is_not_there_or_dies_denies(t):
    scene = Scene(t)
    scene.polkit.set("hang")
    _, call = copy_as_other(scene)
    wait_until(lambda: scene.polkit.waiting())
    scene.polkit.stop()
    refused(call.result, "AccessDenied")
    _, call = copy_as_other(scene)
    refused(call.result, "AccessDenied", text="polkit is not running")
    assert len(scene.service.jobs()) == 2
    # Root and the owner need none.
    owner = scene.service.client(OWNER)
    Job(owner, scene.busy.path).cancel()
    scene.busy.wait_result("cancelled")


def test_caller_that_leaves_during_a_check_has_done_nothing(t):
    scene = Scene(t)
    scene.polkit.set("hang")
    client, _ = copy_as_other(scene, "left.qcow2")
    wait_until(lambda: scene.polkit.waiting())
    check = scene.polkit.waiting()[0]
    client.conn.close()
    wait_until(lambda: check.cancelled, what="CancelCheckAuthorization")
    scene.polkit.set("yes")
    # The next call goes through the whole of the service after the one that was given up.
    _, call = copy_as_other(scene, "next.qcow2")
    path = call.result()[1]
    assert set(scene.service.jobs()) == {scene.done.path, scene.busy.path, path}
    assert not os.path.exists(t.path("copies/left.qcow2"))


def test_object_that_goes_during_a_check_is_unknown_afterwards(t):
    scene = Scene(t)
    scene.polkit.set("hang")
    other = t.bus.connect(OTHER)
    calls = [other.call_async(scene.done.path, f"{PREFIX}.Job", "Dismiss"),
             other.call_async(scene.done.path, f"{PREFIX}.Job", "Pivot", "(a{sv})", ({},))]
    wait_until(lambda: len(scene.polkit.waiting()) == 2)
    Job(scene.service, scene.done.path).dismiss()
    for check in scene.polkit.waiting():
        check.answer("yes")
    for call in calls:
        refused(call.result, "UnknownObject", "UnknownMethod")
    assert scene.service.manager.NJobsActive == 1


def test_verdict_about_one_call_does_not_cover_the_next(t):
    scene = Scene(t)
    other = scene.service.client(OTHER)
    job = Job(other, scene.busy.path)
    job.set_speed(2)
    scene.polkit.set("no")
    refused(lambda: job.set_speed(3), "AccessDenied")
    wait_until(lambda: scene.busy.SpeedLimit == 2)


def test_state_that_changes_during_a_check_is_seen_afterwards(t):
    scene = Scene(t)
    scene.polkit.set("hang")
    other = t.bus.connect(OTHER)
    call = other.call_async(scene.busy.path, f"{PREFIX}.Job", "SetSpeed", "(t)", (7,))
    wait_until(lambda: scene.polkit.waiting())
    Job(scene.service, scene.busy.path).cancel()
    scene.busy.wait_result("cancelled")
    scene.polkit.waiting()[0].answer("yes")
    refused(call.result, "AlreadyEnding")


# ---- the real polkitd ----

def rules(text):
    return "polkit.addRule(function(action, subject) {" + text + "});"


def test_default_policy_lets_root_and_nobody_else(t):
    t.polkit()
    s, _qemu, domain = small(t)
    assert set(s.manager.call("GetPermissions").values()) == {"yes"}
    other = s.client(OTHER)
    assert set(other.manager.call("GetPermissions").values()) == {"challenge"}
    disk = Disk(other, domain.disk().path)
    refused(lambda: disk.copy(t.path("copies/x")), "InteractiveAuthorizationRequired")
    # Nobody has registered an agent that could ask.
    refused(lambda: other.conn.call(disk.path, f"{PREFIX}.Disk", "Copy", "(sa{sv})", (t.path("copies/x"), {}),
                                    interactive=True), "AccessDenied")
    assert domain.disk().copy(t.path("copies/y")).wait("ready").OwnerUid == 0


def test_rules_decide_by_user_action_and_details(t):
    t.polkit(rules(f"""
        if (subject.user != "{pwd.getpwuid(OTHER).pw_name}")
            return polkit.Result.NO;
        if (action.id == "org.blockjob1.copy" && action.lookup("disk") == "vda" && action.lookup("domain") == "web" &&
            action.lookup("verb") == "copy" && action.lookup("target-kind") == "new")
            return polkit.Result.YES;
        if (action.id == "org.blockjob1.manage-jobs" && action.lookup("job-owner") == "0")
            return polkit.Result.YES;
        return polkit.Result.NO;
    """))
    s, _qemu, domain = small(t, disks=2)
    mine = slow_job(t, domain.disk("vdb"), "roots.qcow2")
    other, nobody = s.client(OTHER), s.client(NOBODY)
    refused(lambda: Disk(other, domain.disk("vdb").path).copy(t.path("copies/x")), "AccessDenied")
    refused(lambda: Disk(nobody, domain.disk().path).copy(t.path("copies/x")), "AccessDenied")
    refused(lambda: Disk(other, domain.disk().path).copy(t.path("x")), "AccessDenied")
    theirs = Disk(other, domain.disk().path).copy(t.path("copies/x"))
    assert theirs.OwnerUid == OTHER
    refused(lambda: Job(nobody, mine.path).cancel(), "AccessDenied")
    Job(other, mine.path).cancel()
    mine.wait_result("cancelled")
    theirs.wait("ready").finish().wait_result("finished")


def test_shipped_example_of_rules_does_what_it_says(t):
    """With users and groups that every Debian has in the place of its own."""
    with open(f"{REPO}/polkit/50-blockjobd-example.rules") as f:
        text = f.read()
    assert '"vm-ops"' in text and '"backup"' in text and '"/srv/copies/"' in text
    t.polkit(text.replace('"vm-ops"', '"games"').replace('"/srv/copies/"', f'"{t.path("srv")}/"'))
    s, _qemu, web = small(t, "web-1")
    os.mkdir(t.path("srv"))
    _, mail = guest(t, s, "mail")
    games, backup = s.client(5, [60]), s.client(34, [34])
    refused(lambda: Disk(games, mail.disk().path).copy(t.path("srv/a")), "InteractiveAuthorizationRequired")
    refused(lambda: Disk(games, web.disk().path).copy(t.path("elsewhere")), "InteractiveAuthorizationRequired")
    refused(lambda: Disk(games, web.disk().path).copy(t.path("srv/a"), existing=True, format="raw"),
            "InteractiveAuthorizationRequired")
    Disk(games, web.disk().path).copy(t.path("srv/a")).wait("ready").cancel().wait_result("cancelled")
    refused(lambda: Disk(backup, web.disk().path).copy(t.path("srv/b")), "AccessDenied")
    job = Disk(backup, web.disk().path).copy(t.path("copies/b")).wait("ready")
    Job(games, job.path).finish()
    job.wait_result("finished")


def test_polkit_that_restarts_is_asked_again(t):
    polkit = t.polkit(Polkit.ALLOW_ALL)
    s, _qemu, domain = small(t)
    other = s.client(OTHER)
    job = Disk(other, domain.disk().path).copy(t.path("copies/x"), speed=1)
    polkit.stop()
    refused(lambda: s.client(NOBODY).conn.call(job.path, f"{PREFIX}.Job", "SetSpeed", "(t)", (0,)), "AccessDenied")
    polkit.start()
    s.client(NOBODY).conn.call(job.path, f"{PREFIX}.Job", "SetSpeed", "(t)", (0,))
    job.wait("ready")
