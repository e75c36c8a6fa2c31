# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains: how they are attached, watched, lost and found again, and forgotten."""
import os
import signal
import socket
import time

from copying import *
from harness import *

QUICK = "[Qemu]\nReconnectMax=200ms\nCommandTimeout=500ms\nGreetingTimeout=500ms\n"


def small(t, name="old.qcow2"):
    return t.image(name, "8M")


# ---- attaching ----

def test_attach_by_path_tells_what_qemu_says(t):
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    qemu = t.qemu("web", [small(t)], uuid=uuid)
    s = t.service()
    domain = s.attach("web", qemu.socket)
    assert domain.path == f"{ROOT}/domain/web"
    assert (domain.Name, domain.UUID, domain.State) == ("web", uuid, "paused")
    assert (domain.Socket, domain.Definition, domain.Jobs) == (qemu.socket, "", [])
    assert domain.QemuVersion == ".".join(map(str, qemu.version())), domain.QemuVersion
    assert s.domain("web") == s.domain(uuid) == s.domain(uuid.upper()) == domain
    assert s.manager.NDomains == 1
    disk, = domain.disks()
    assert disk.path == f"{domain.path}/disk/vda" and disk.Domain == domain.path
    assert (disk.Source, disk.Format, disk.Size) == (t.path("old.qcow2"), "qcow2", 8 << 20)
    refusal("NoSuchDomain", s.domain, "other")
    added = s.wait_signal("InterfacesAdded", ROOT, lambda x: x.args[0] == domain.path)
    assert added.args[1][Domain.INTERFACE]["Name"] == "web"


def test_the_name_can_be_qemus_own(t):
    qemu = t.qemu("the-name", [small(t)])
    s = t.service()
    domain = s.attach("", qemu.socket)
    assert domain.Name == "the-name" and domain.path.endswith("/the_2dname")
    assert s.domain("the-name") == domain
    assert domain.disks()[0].path.startswith(domain.path)


def test_a_name_that_is_none_or_taken(t):
    one, two = t.qemu("one", [small(t, "a.qcow2")]), t.qemu("two", [small(t, "b.qcow2")])
    s = t.service()
    for name in "a/b", "a\nb", "x" * 129:
        refusal("InvalidArgs", s.attach, name, one.socket)
    assert s.domains() == {}
    s.attach("one", one.socket)
    assert '"one"' in refusal("DomainBusy", s.attach, "one", two.socket)
    assert '"one"' in refusal("DomainBusy", s.attach, "two", one.socket)
    assert s.manager.NDomains == 1
    s.attach("x" * 128, two.socket)


def test_a_name_of_another_language(t):
    qemu = t.qemu("web", [small(t)])
    s = t.service()
    domain = s.attach("Büro 2 – Währung", qemu.socket)
    assert domain.Name == "Büro 2 – Währung"
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))
    assert s.job(1).DomainName == "Büro 2 – Währung"


def test_attach_where_nobody_listens(t):
    s = t.service(QUICK)
    for path in t.path("nothing.qmp"), t.folder, small(t):
        assert path in refusal("DomainNotRunning", s.attach, "web", path)
    refusal("InvalidArgs", s.attach, "web", "relative.qmp")
    refusal("InvalidArgs", s.attach, "web", "")
    assert s.domains() == {} and s.manager.NDomains == 0


def test_attach_to_a_monitor_that_is_busy(t):
    """Somebody else is connected: QEMU takes the second connection and says nothing."""
    qemu = t.qemu("web", [small(t)])
    s = t.service(QUICK)
    other = Qmp(qemu.socket)
    message = refusal("DomainUnresponsive", s.attach, "web", qemu.socket)
    assert "busy" in message or "another client" in message, message
    assert s.domains() == {}
    other.close()
    s.attach("web", qemu.socket)


def test_attach_by_descriptor(t):
    """And what is not restored after a restart is said."""
    qemu = t.qemu("web", [t.image("old.qcow2", "8M", fill="1M")])
    s = t.service()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(qemu.socket)
    domain = s.attach("web", "", fd=connection)
    connection.close()
    assert (domain.State, domain.Socket) == ("paused", "")
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))
    s.restart()
    domain.wait_state("disconnected")
    refusal("DomainBusy", s.attach, "web", qemu.socket)
    domain.detach()
    s.attach("web", qemu.socket).wait_state("paused")


def test_descriptors_that_are_no_monitors(t):
    s = t.service(QUICK)
    silent, other = socket.socketpair()
    with open("/dev/null", "r+b") as null:
        assert refusal("BadTarget", s.attach, "web", "", fd=null)
    message = refusal("DomainUnresponsive", s.attach, "web", "", fd=silent)
    assert message and s.domains() == {}
    other.close()
    refusal("DomainNotRunning", s.attach, "web", "", fd=silent)


def test_only_so_many_domains(t):
    one, two = t.qemu("one", [small(t, "a.qcow2")]), t.qemu("two", [small(t, "b.qcow2")])
    s = t.service("[Limits]\nMaxDomains=1\n")
    domain = s.attach("one", one.socket)
    assert "1" in refusal("LimitReached", s.attach, "two", two.socket)
    domain.detach()
    s.attach("two", two.socket)


def test_one_qemu_is_one_domain(t):
    """Under a second name its jobs would be strangers there, and be taken for lost ones of ours."""
    second = t.path("second.qmp")
    qemu = t.qemu("web", [t.image("old.qcow2", fill="4M")], args=["-qmp", f"unix:{second},server=on,wait=off"])
    s = t.service()
    domain = s.attach("web", qemu.socket)
    job = slow_copy(domain.disk("vda"), t.path("new.qcow2"))
    assert '"web"' in refusal("DomainBusy", s.attach, "again", second)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(second)
    assert '"web"' in refusal("DomainBusy", s.attach, "again", "", fd=connection)
    connection.close()
    assert list(s.domains()) == [domain.path] and list(s.jobs()) == [job.path]
    job.set_speed(0)
    pivoted(job)


# ---- the folder of sockets ----

def test_a_socket_in_the_folder_is_attached_within_a_second_and_forgotten_when_it_is_gone(t):
    s = t.service()
    qemu = t.qemu("web", [small(t)], socket=f"{s.socket_dir}/web.sock")
    started = time.monotonic()
    wait_until(lambda: f"{ROOT}/domain/web/disk/vda" in s.disks(), 5, "the domain and its disk")
    assert time.monotonic() - started < 1
    domain = s.domain("web")
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))
    refusal("DomainBusy", s.attach, "web", qemu.socket)
    qemu.quit()
    # QEMU takes its socket along when it ends in order.
    assert not os.path.exists(qemu.socket)
    gone = s.wait_signal("InterfacesRemoved", ROOT, lambda x: x.args[0] == domain.path)
    assert Domain.INTERFACE in gone.args[1]
    assert s.domains() == {} == s.disks()
    s.restart()
    assert s.domains() == {}
    assert [j["Result"] for j in s.jobs().values()] == ["pivoted"]


def test_sockets_that_were_there_before_the_service(t):
    s = t.service(start=False)
    qemu = t.qemu("web", [small(t)], socket=f"{s.socket_dir}/web.sock")
    # What is no socket, or has another name, is none of our business.
    open(f"{s.socket_dir}/file.sock", "w").close()
    other = t.qemu("other", [small(t, "b.qcow2")], socket=f"{s.socket_dir}/other.qmp")
    s.start()
    wait_until(lambda: f"{ROOT}/domain/web/disk/vda" in s.disks(), what="the domain and its disk")
    assert list(s.domains()) == [f"{ROOT}/domain/web"]
    assert other.alive and qemu.alive


def test_a_socket_that_is_renamed_into_the_folder(t):
    s = t.service()
    qemu = t.qemu("web", [small(t)])
    os.rename(qemu.socket, f"{s.socket_dir}/web.sock")
    wait_until(lambda: f"{ROOT}/domain/web/disk/vda" in s.disks(), what="the domain and its disk")


def test_a_found_domain_is_not_forgotten_while_its_job_runs(t):
    """The socket's name is gone, QEMU is not: the job goes on over the connection that there is."""
    s = t.service()
    qemu = t.qemu("web", [t.image("old.qcow2", "8M", fill="4M")], socket=f"{s.socket_dir}/web.sock")
    wait_until(lambda: f"{ROOT}/domain/web/disk/vda" in s.disks(), what="the domain and its disk")
    job = slow_copy(s.domain("web").disk("vda"), t.path("new.qcow2"))
    os.unlink(qemu.socket)
    job.set_speed(0)
    pivoted(job)
    assert s.domain("web").disk("vda").Source == t.path("new.qcow2")
    qemu.quit()
    wait_until(lambda: s.domains() == {}, what="the domain to be forgotten")


# ---- over restarts, of either side ----

def test_domains_and_names_of_disks_are_remembered(t):
    """Also the image that a disk was moved to, which QEMU knows as a descriptor only."""
    qemu, s, domain = attached(t, [small(t, "a.qcow2"), Drive(small(t, "b.qcow2"), bus="scsi")])
    pivoted(domain.disk("sda").copy(t.path("new.qcow2")))
    before = s.objects()
    s.restart()
    wait_until(lambda: domain.path in s.domains() and domain.State == "paused", what="the domain")
    after = s.objects()
    assert after.keys() == before.keys()
    for path in after:
        for interface, properties in after[path].items():
            assert properties == before[path][interface], (path, interface)
    assert domain.disk("sda").Source == t.path("new.qcow2")


def test_a_qemu_that_is_started_again_at_the_same_path_is_found(t):
    qemu, s, domain = attached(t, [small(t)], QUICK)
    disk = domain.disk("vda")
    pivoted(disk.copy(t.path("new.qcow2")))
    qemu.kill()
    domain.wait_state("disconnected")
    assert disk.path in s.disks(), "the disks of a domain that is away stay"
    qemu.drives[0].path = t.path("new.qcow2")
    qemu.start()
    domain.wait_state("paused")
    assert disk.Source == t.path("new.qcow2")
    # Names in the new process are its own.
    pivoted(disk.copy(t.path("newer.qcow2")))
    assert disk.Source == t.path("newer.qcow2")


def test_a_qemu_that_was_started_again_while_the_service_was_away(t):
    """Its job is lost; the domain is there."""
    qemu, s, domain = attached(t, [t.image("old.qcow2", fill="4M")], QUICK)
    job = slow_copy(domain.disk("vda"), t.path("new.qcow2"))
    s.kill()
    qemu.kill()
    qemu.start()
    s.start()
    job.wait_result("lost")
    domain.wait_state("paused")
    assert not os.path.exists(t.path("new.qcow2"))
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))


def test_a_monitor_that_is_closed_and_opened_again_loses_no_job(t):
    """Its jobs are in QEMU, not in the connection. Closing is done to the service's end."""
    qemu, s, domain = attached(t, [t.image("old.qcow2", fill="4M")], QUICK)
    job = slow_copy(domain.disk("vda"), t.path("new.qcow2"))
    s.kill()
    other = Qmp(qemu.socket)
    s.start()
    wait_until(lambda: domain.path in s.domains(), what="the domain")
    domain.wait_state("unresponsive")
    assert job.State == "running" and refusal("DomainUnresponsive", job.set_speed, 0)
    other.close()
    domain.wait_state("paused")
    job.set_speed(0)
    pivoted(job)


# ---- a QEMU that does not answer ----

def test_a_qemu_that_does_not_answer_harms_nobody_else(t):
    """Its own calls come back with a sentence, everybody else's are as quick as ever."""
    ill, well = t.qemu("ill", [t.image("a.qcow2", fill="4M")]), t.qemu("well", [t.image("b.qcow2", fill="4M")])
    s = t.service(QUICK)
    a, b = s.attach("ill", ill.socket), s.attach("well", well.socket)
    job = slow_copy(a.disk("vda"), t.path("a.new"))
    ill.freeze()
    slowest = 0
    for n in range(3):
        started = time.monotonic()
        pivoted(b.disk("vda").copy(t.path(f"b{n}.qcow2")))
        slowest = max(slowest, time.monotonic() - started)
        s.objects()
        a.properties()
    assert slowest < 2, slowest
    a.wait_state("unresponsive")
    assert "does not answer" in refusal("DomainUnresponsive", job.pause)
    assert (job.State, b.State) == ("running", "paused")
    # New orders are taken where they can wait.
    job.set_on_ready("pivot")
    ill.thaw()
    a.wait_state("paused")
    job.set_speed(0)
    job.wait_result("pivoted")


def test_a_cancel_waits_for_a_qemu_that_does_not_answer(t):
    qemu, s, domain = attached(t, [t.image("old.qcow2", fill="4M")], QUICK)
    job = slow_copy(domain.disk("vda"), t.path("new.qcow2"))
    qemu.freeze()
    domain.wait_state("unresponsive")
    job.cancel()
    assert job.State == "cancelling"
    s.restart()
    qemu.thaw()
    job.wait_result("cancelled")
    assert not os.path.exists(t.path("new.qcow2"))
    dismissed(qemu)


def test_a_qemu_that_dies_while_it_does_not_answer(t):
    qemu, s, domain = attached(t, [t.image("old.qcow2", fill="4M")], QUICK)
    job = slow_copy(domain.disk("vda"), t.path("new.qcow2"))
    qemu.freeze()
    domain.wait_state("unresponsive")
    qemu.process.signal(signal.SIGKILL)
    job.wait_result("lost")
    domain.wait_state("disconnected")


# ---- states ----

def test_states_of_the_guest(t):
    qemu, s, domain = attached(t, [small(t)], args=["-no-shutdown"])
    assert domain.State == "paused"
    qemu("cont")
    domain.wait_state("running")
    qemu("stop")
    domain.wait_state("paused")
    qemu("cont")
    domain.wait_state("running")
    states = [x.args[1]["State"] for x in s.signals("PropertiesChanged")
              if x.path == domain.path and "State" in x.args[1]]
    assert states[-3:] == ["running", "paused", "running"], states


# ---- detaching ----

def test_detach_forgets_a_domain_and_leaves_qemu_alone(t):
    qemu, s, domain = attached(t, [small(t)])
    pivoted(domain.disk("vda").copy(t.path("new.qcow2")))
    domain.detach()
    assert s.domains() == {} == s.disks() and s.manager.NDomains == 0
    refusal("NoSuchDomain", s.domain, "web")
    assert qemu.alive and qemu.image()["node-name"].endswith("-t")
    qemu.io("write -P 1 0 64k")
    # Its jobs are history, and its objects were taken away with all their interfaces.
    assert [j["Result"] for j in s.jobs().values()] == ["pivoted"]
    removed = {x.args[0]: x.args[1] for x in s.signals("InterfacesRemoved")}
    assert Domain.INTERFACE in removed[domain.path] and Disk.INTERFACE in removed[domain.path + "/disk/vda"]
    s.restart()
    assert s.domains() == {}
    again = s.attach("web", qemu.socket)
    assert again.disk("vda").Source.endswith(("new.qcow2", "/dev/fdset/1644167169")), again.disk("vda").Source


def test_detach_is_refused_while_a_job_is_active(t):
    qemu, s, domain = attached(t, [t.image("old.qcow2", fill="4M")])
    job = slow_copy(domain.disk("vda"), t.path("new.qcow2"))
    message = refusal("DomainBusy", domain.detach)
    assert f"Job {job.id} " in message and "force" in message
    assert job.State == "running" and domain.path in s.domains()
    job.cancel().wait_result("cancelled")
    domain.detach()


def test_detach_with_force_leaves_the_job_to_qemu(t):
    """And says that nobody looks after it."""
    qemu, s, domain = attached(t, [t.image("old.qcow2", fill="4M")])
    job = slow_copy(domain.disk("vda"), t.path("new.qcow2"))
    domain.detach(force=True)
    job.wait_result("lost")
    assert sentence(job.ErrorMessage)
    assert [j["status"] for j in qemu.jobs().values()] == ["running"]
    # QEMU writes to it.
    assert os.path.exists(t.path("new.qcow2"))
    again = s.attach("web", qemu.socket)
    foreign = Job(s, wait_until(lambda: again.disk("vda").Job != "/" and again.disk("vda").Job, what="the job"))
    assert foreign.Kind == "foreign" and foreign.id > job.id
    name, = qemu.jobs()
    qemu("job-cancel", id=name)
    foreign.wait("concluded")
    t.invariants = False
