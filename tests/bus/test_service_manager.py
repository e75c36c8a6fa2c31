# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service under a service manager and beside logind: readiness, status, idleness, leaving, stored connections,
reload, log control, inhibitor."""
import os
import re
import signal
import socket
import threading
import time

from gi.repository import Gio, GLib
from harness import *
from qmp_proxy import QmpProxy
from scenes import *

LOG_PATH, LOG_CONTROL = "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1"
BUS, BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"


def managed(t, config="", name="web", disks=1, **more):
    """(systemd, service, qemu, domain): as small(), under a service manager."""
    systemd = t.service_manager()
    os.makedirs(t.path("copies"), exist_ok=True)
    s = t.service(f"[Service]\nTargetFolders={t.path('copies')}\n{config}", systemd=systemd, **more)
    systemd.wait("READY", "1")
    return (systemd, s, *guest(t, s, name, disks))


def by_descriptor(t, s, name="web", disks=1):
    """(qemu, domain): attached with a connected socket."""
    qemu = t.qemu(name, [t.image(f"{name}{i}.qcow2", size="1M", fill="256k") for i in range(disks)])
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(qemu.socket)
        return qemu, s.attach(name, "", fd=monitor.fileno())


def empty(t, config=""):
    """(systemd, service) without any domain."""
    systemd = t.service_manager()
    s = t.service(config, systemd=systemd)
    systemd.wait("READY", "1")
    return systemd, s


def name_changes(t):
    """The signals NameOwnerChanged about the service's name, from now on."""
    conn, found = t.bus.connect(), []
    conn.subscribe(sender=BUS, member="NameOwnerChanged",
                   callback=lambda m: found.append(m) if m.args[0] == PREFIX else None)
    return found


# ---- readiness and status ----

def test_ready_is_said_after_the_name_is_owned(t):
    systemd = t.service_manager()
    s = t.service(systemd=systemd, start=False)
    changes = name_changes(t)
    s.start()
    ready = systemd.wait("READY", "1")
    wait_until(lambda: changes)
    assert changes[0].args[2] and changes[0].time <= ready.time + 0.1
    assert systemd.messages.index(ready) > systemd.messages.index(systemd.wait("EXTEND_TIMEOUT_USEC"))
    assert systemd.values("READY") == ["1"]


def test_ready_is_said_after_jobs_of_guests_that_are_gone_have_ended(t):
    systemd, s, qemu, domain = managed(t)
    jobs = [slow_job(t, domain.disk())]
    s.kill()
    qemu.kill()
    since = len(systemd.messages)
    s.start()
    systemd.wait("READY", "1", since=since)
    assert [Job(s, job.path).State for job in jobs] == ["concluded"]


def test_status_is_a_line_for_people_and_comes_once_a_second_at_most(t):
    systemd, s, _qemu, domain = managed(t)
    systemd.wait("STATUS", "No jobs, 1 domain")
    job = domain.disk().copy(t.path("copies/new.qcow2"), speed=64 << 10)
    job.wait("ready")
    systemd.wait("STATUS", "1 job, web/vda ready")
    job.finish().wait_result("finished")
    systemd.wait("STATUS", "No jobs, 1 domain", since=len(systemd.messages) - 1)
    texts = [m for m in systemd.messages if "STATUS" in m.fields and len(m.fields) == 1]
    assert any(re.fullmatch(r"1 job, web/vda \d+ %", m.fields["STATUS"]) for m in texts), texts
    for before, after in zip(texts, texts[1:]):
        assert before.fields != after.fields, "said twice"
        assert after.time - before.time > 0.9, f"{before} {after}: {after.time - before.time:.2f} s"


def test_watchdog_is_fed(t):
    systemd = t.service_manager()
    systemd.env |= {"WATCHDOG_USEC": "500000"}
    t.service(systemd=systemd)
    for _ in range(3):
        systemd.wait("WATCHDOG", "1", since=len(systemd.messages))


# ---- leaving ----

def test_idle_service_says_so_gives_its_name_back_and_leaves(t):
    systemd, s = empty(t, "[Service]\nIdleTimeout=1s\n")
    owners = name_changes(t)
    s.manager.properties()
    asked = time.monotonic()
    stopping = systemd.wait("STOPPING", "1")
    assert s.process.wait() == 0
    assert stopping.time - asked > 0.9, "it left before it was idle for long enough"
    wait_until(lambda: owners)
    assert not owners[0].args[2] and stopping.time <= owners[0].time + 0.1
    s.start()
    assert s.manager.NDomains == 0


def test_attached_domain_and_waiting_check_keep_the_service(t):
    fake = t.fake_polkit("hang")
    systemd = t.service_manager()
    s = t.service("[Service]\nIdleTimeout=1s\n", systemd=systemd)
    systemd.wait("READY", "1")
    call = s.client(OTHER).conn.call_async(ROOT, f"{PREFIX}.Manager", "AttachDomain", "(ssa{sv})", ("x", "/x", {}))
    wait_until(lambda: fake.waiting())
    busy = time.monotonic() + 3
    wait_until(lambda: time.monotonic() > busy)
    assert not systemd.values("STOPPING") and not call.done
    fake.waiting()[0].answer("no")
    refused(call.result, "AccessDenied")
    qemu, domain = guest(t, s, "web")
    busy = time.monotonic() + 3
    wait_until(lambda: time.monotonic() > busy)
    assert not systemd.values("STOPPING") and domain.State == "paused"
    # Not connected: there is nothing to be told, and what is to be known will be found by the next life.
    qemu.quit()
    assert s.process.wait() == 0 and systemd.values("STOPPING") == ["1"]
    assert s.start().manager.NDomains == 1


def test_service_that_nobody_would_start_again_stays(t):
    s = t.service("[Service]\nIdleTimeout=1s\n")
    busy = time.monotonic() + 3
    wait_until(lambda: time.monotonic() > busy)
    assert s.process.alive and s.manager.NDomains == 0


def test_idle_timeout_of_zero_is_for_ever(t):
    systemd, s = empty(t, "[Service]\nIdleTimeout=0\n")
    busy = time.monotonic() + 2
    wait_until(lambda: time.monotonic() > busy)
    assert s.process.alive and not systemd.values("STOPPING")


@deadline(180)
def test_every_call_that_reaches_a_leaving_service_is_answered(t):
    """Clients call without pause while the service is ended again and again. The bus may say that nobody owns the name,
    when it did not; it never says that the service left a call behind."""
    s = t.service()
    clients = [t.bus.connect() for _ in range(4)]
    answered = refused_calls = 0
    for _ in range(12):
        calls, terminated = [], False
        deadline_at = time.monotonic() + 20
        while s.process.alive and time.monotonic() < deadline_at:
            calls += [c.call_async(ROOT, f"{PREFIX}.Manager", "ListJobs", timeout=10) for c in clients]
            if len(calls) > 20 and not terminated:
                s.process.signal(signal.SIGTERM)
                terminated = True
            wait_until(lambda: sum(not c.done for c in calls) < 16, interval=0.001)
        assert s.process.wait() == 0
        for call in calls:
            try:
                call.result()
                answered += 1
            except BusError as e:
                assert e.short in ("ServiceUnknown", "NameHasNoOwner"), e
                refused_calls += 1
        s.start()
    assert answered > 150 and refused_calls, f"{answered} answered, {refused_calls} when nobody was there"


def test_service_that_is_given_something_to_do_while_it_leaves_comes_back(t):
    """The call is with the bus before the release of the name is: it stands still while both are sent."""
    systemd, s = empty(t, "[Service]\nIdleTimeout=2s\n")
    qemu = t.qemu("web", [t.image("web0.qcow2", size="1M")])
    s.manager.properties()
    t.bus.daemon.freeze()
    t.cleanup(t.bus.daemon.thaw)
    call = s.conn.call_async(ROOT, f"{PREFIX}.Manager", "AttachDomain", "(ssa{sv})", ("web", qemu.socket, {}))
    systemd.wait("STOPPING", "1")
    t.bus.daemon.thaw()
    assert call.result().endswith("/domain/web")
    assert s.process.wait() == 75
    domain = s.start().domain("web")
    wait_until(lambda: domain.State == "paused")


def test_call_that_waits_for_qemu_is_answered_by_a_leaving_service(t):
    s = t.service()
    qemu = t.qemu("web", [t.image("web0.qcow2", size="1M")])
    qemu.freeze()
    call = s.conn.call_async(ROOT, f"{PREFIX}.Manager", "AttachDomain", "(ssa{sv})", ("web", qemu.socket, {}))
    s.manager.properties()
    s.process.signal(signal.SIGTERM)
    wait_until(lambda: not t.bus.owner_of(PREFIX))
    qemu.thaw()
    assert call.result().endswith("/domain/web")
    assert s.process.wait() == 0
    assert list(s.start().domains()) == ["/org/blockjob1/domain/web"]


def test_answer_that_does_not_come_holds_up_the_end_for_a_second_only(t):
    s = t.service()
    fake = t.fake_qmp(greeting=None)
    call = s.conn.call_async(ROOT, f"{PREFIX}.Manager", "AttachDomain", "(ssa{sv})", ("web", fake.path, {}))
    s.manager.properties()
    asked = time.monotonic()
    s.stop()
    assert time.monotonic() - asked < 4
    refused(call.result, "NoReply")


# ---- stored connections ----

def test_domain_of_a_descriptor_survives_kills_with_its_jobs(t):
    systemd, s = empty(t)
    os.makedirs(t.path("copies"))
    qemu, domain = by_descriptor(t, s)
    assert len(systemd.store) == 1
    version = domain.QemuVersion
    assert version
    job = domain.disk().copy(t.path("copies/new.qcow2"), speed=16 << 10)
    job.wait("running")
    for _ in range(4):
        s.restart()
        wait_until(lambda: domain.State == "paused", what="the stored connection to be used")
        assert domain.QemuVersion == version and domain.Socket == ""
    job.set_speed(0)
    job.wait("ready").pivot().wait_result("pivoted")
    assert domain.disk().Source == t.path("copies/new.qcow2")


def test_domain_of_a_descriptor_survives_a_restart_in_order(t):
    systemd, s = empty(t)
    _qemu, domain = by_descriptor(t, s)
    s.restart(kill=False)
    wait_until(lambda: domain.State == "paused")
    assert len(systemd.store) == 1
    # Stop and start: systemd has dropped what it stored.
    s.stop()
    systemd.drop()
    s.start()
    wait_until(lambda: domain.State == "disconnected")
    refused(lambda: domain.disk().copy(t.path("x.qcow2")), "DomainNotRunning", "DomainUnresponsive")


def test_domain_of_a_path_goes_on_with_its_stored_connection(t):
    systemd, s, _qemu, domain = managed(t)
    name, = systemd.store
    inode = os.fstat(systemd.store[name][0]).st_ino
    s.restart()
    wait_until(lambda: domain.State == "paused")
    assert [os.fstat(fd).st_ino for fd in systemd.store[name]] == [inode], "it was connected anew"
    assert domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")


def test_stored_connection_that_is_dead_is_replaced(t):
    systemd, s, qemu, domain = managed(t)
    name, = systemd.store
    s.kill()
    qemu.kill()
    qemu.start()
    s.start()
    wait_until(lambda: domain.State == "paused")
    wait_until(lambda: len(systemd.store.get(name, [])) == 1)
    assert domain.disk().copy(t.path("copies/new.qcow2")).wait("ready")


def test_store_holds_what_is_attached_and_nothing_else(t):
    systemd, s, qemu, domain = managed(t)
    other = t.qemu("other", [t.image("other.qcow2", size="1M")])
    s.attach("a name: " + "ä" * 60, other.socket)
    wait_until(lambda: len(systemd.store) == 2)
    assert all(re.fullmatch(r"qmp-[A-Za-z0-9._-]{1,200}", n) for n in systemd.store), systemd.store
    domain.detach()
    wait_until(lambda: len(systemd.store) == 1)
    other.quit()
    wait_until(lambda: not systemd.store)


def test_stored_connection_of_nobody_is_closed(t):
    systemd = t.service_manager()
    ours, theirs = socket.socketpair()
    systemd.store = {"qmp-nobody-0": [os.dup(theirs.fileno())], "strange": [os.dup(theirs.fileno())]}
    theirs.close()
    s = t.service(systemd=systemd, wrap=())
    systemd.wait("FDSTOREREMOVE", "1")
    s.process.wait_log("none of ours")
    systemd.drop()
    ours.settimeout(10)
    assert ours.recv(10) == b"", "the service has kept it"


# ---- reload ----

def reload(systemd, s):
    since = len(systemd.messages)
    s.process.signal(signal.SIGHUP)
    ready = systemd.wait("READY", "1", since=since)
    reloading = systemd.wait("RELOADING", "1", since=since)
    assert systemd.messages.index(reloading) < systemd.messages.index(ready)
    assert int(reloading.fields["MONOTONIC_USEC"]) <= time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6


def test_reload_changes_what_does_not_need_a_start(t):
    systemd, s, _qemu, domain = managed(t, disks=3, config="[Limits]\nMaxJobs=1\n")
    slow_job(t, domain.disk())
    refused(lambda: domain.disk("vdb").copy(t.path("copies/b.qcow2")), "LimitReached")
    s.configure(f"[Service]\nTargetFolders={t.path('copies')}\nStateDirectory=/srv/elsewhere\n[Limits]\nMaxJobs=2\n")
    reload(systemd, s)
    slow_job(t, domain.disk("vdb"), "b.qcow2")
    refused(lambda: domain.disk("vdc").copy(t.path("copies/c.qcow2")), "LimitReached")
    assert "StateDirectory= has changed" not in s.log(), "the command line sets it"
    assert "1 key changed" in s.log()


def test_reload_of_authorization_and_folders(t):
    fake = t.fake_polkit("hang")
    systemd, s, _qemu, domain = managed(t, config="[Authorization]\nMaxChecksPerUser=1\n")
    other = s.client(OTHER)
    def call(name):
        return other.conn.call_async(domain.disk().path, f"{PREFIX}.Disk", "Copy", "(sa{sv})", (t.path(name), {}))
    call("copies/a")
    wait_until(lambda: len(fake.waiting()) == 1)
    refused(call("copies/b").result, "LimitsExceeded")
    s.configure(f"[Service]\nTargetFolders={t.path('other')}\n[Authorization]\nMaxChecksPerUser=2\n")
    reload(systemd, s)
    call("other/b")
    wait_until(lambda: len(fake.waiting()) == 2)
    assert [c.verb for c in fake.checks] == ["copy", "copy"]
    call("copies/c")
    wait_until(lambda: "refused by a limit" in s.log())


def test_reload_of_a_bad_file_keeps_what_was_read_before(t):
    systemd, s, _qemu, domain = managed(t, disks=2, config="[Limits]\nMaxJobs=1\n")
    slow_job(t, domain.disk())
    s.configure("[Limits]\nMaxJobs=2\nMaxDomains=many\n")
    reload(systemd, s)
    refused(lambda: domain.disk("vdb").copy(t.path("copies/b.qcow2")), "LimitReached")
    assert "1 mistake, see above; the one that was read before stays in force" in s.log()
    os.unlink(s.config_path)
    reload(systemd, s)
    assert "The configuration that was read before stays in force." in s.log()
    assert systemd.values("RELOADING") == ["1", "1"]


# ---- log control ----

def test_log_level_is_for_root_to_change_and_for_all_to_read(t):
    s = t.service()
    other = t.bus.connect(OTHER)
    assert other.get(LOG_PATH, LOG_CONTROL, "LogLevel") == "debug"
    assert other.get(LOG_PATH, LOG_CONTROL, "LogTarget") == "console"
    assert other.get_all(LOG_PATH, LOG_CONTROL)["SyslogIdentifier"] == "blockjobd"

    def set_property(conn, name, value):
        conn.call(LOG_PATH, f"{STANDARD}Properties", "Set", "(ssv)", (LOG_CONTROL, name, GLib.Variant("s", value)))
    for conn in other, t.bus.connect(NOBODY):
        refused(lambda: set_property(conn, "LogLevel", "info"), "AccessDenied")
        refused(lambda: set_property(conn, "LogTarget", "journal"), "AccessDenied")
    assert other.get(LOG_PATH, LOG_CONTROL, "LogLevel") == "debug"
    set_property(s.conn, "LogLevel", "notice")
    assert other.get(LOG_PATH, LOG_CONTROL, "LogLevel") == "notice"
    refused(lambda: set_property(s.conn, "LogLevel", "loud"), "InvalidArgs")
    refused(lambda: set_property(s.conn, "LogTarget", "printer"), "InvalidArgs")
    refused(lambda: set_property(s.conn, "SyslogIdentifier", "me"), "PropertyReadOnly")
    qemu, _ = guest(t, s, "web")
    assert "attached" not in s.log(), "it still logs what is for information"
    set_property(s.conn, "LogLevel", "info")
    qemu.quit()
    s.process.wait_log("disconnected")


# ---- logind ----

class FakeLogind:
    """Gives inhibitor locks: a pipe whose other end says when the lock is given back."""

    XML = """<node><interface name="org.freedesktop.login1.Manager"><method name="Inhibit">
      <arg name="what" type="s" direction="in"/><arg name="who" type="s" direction="in"/>
      <arg name="why" type="s" direction="in"/><arg name="mode" type="s" direction="in"/>
      <arg name="lock" type="h" direction="out"/></method></interface></node>"""

    def __init__(self, t):
        self.calls, self.locks = [], []
        self.conn = t.bus.connect()
        info = Gio.DBusNodeInfo.new_for_xml(self.XML).interfaces[0]
        self.conn.gio.register_object("/org/freedesktop/login1", info, self._called, None, None)
        self.conn.call(BUS_PATH, BUS, "RequestName", "(su)", ("org.freedesktop.login1", 4), destination=BUS)

    def _called(self, _conn, _sender, _path, _interface, _method, params, invocation):
        self.calls.append(params.unpack())
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.locks.append(ours)
        fds = Gio.UnixFDList.new()
        fds.append(theirs)
        os.close(theirs)
        invocation.return_value_with_unix_fd_list(GLib.Variant("(h)", (0,)), fds)

    def held(self):
        def is_held(fd):
            try:
                return os.read(fd, 1) != b""
            except BlockingIOError:
                return True
        return [fd for fd in self.locks if is_held(fd)]


def test_shutdown_is_delayed_while_a_disk_is_switched(t):
    logind = FakeLogind(t)
    s, qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/new.qcow2"))
    job.wait("ready")
    assert not logind.calls
    job.pivot().wait_result("pivoted")
    wait_until(lambda: logind.calls)
    assert logind.calls[0][:2] == ("sleep:shutdown", "blockjobd") and logind.calls[0][3] == "delay", logind.calls
    wait_until(lambda: not logind.held(), what="the lock to be given back")


def test_lock_is_held_for_as_long_as_qemu_takes(t):
    logind = FakeLogind(t)
    s, _qemu, _ = small(t, "other")
    qemu = t.qemu("web", [t.image("web0.qcow2", size="1M", fill="256k")])
    proxy = QmpProxy(t, qemu)
    job = s.attach("web", proxy.path).disk().copy(t.path("copies/new.qcow2"))
    job.wait("ready")
    let_go = threading.Event()
    t.cleanup(let_go.set)
    proxy.on_command = lambda name, _: let_go.wait(60) and None if name == "job-finalize" else None
    job.pivot()
    wait_until(lambda: "job-finalize" in proxy.names())
    wait_until(lambda: logind.held(), what="a lock")
    assert job.State == "pivoting"
    let_go.set()
    job.wait_result("pivoted")
    wait_until(lambda: not logind.held(), what="the lock to be given back")
