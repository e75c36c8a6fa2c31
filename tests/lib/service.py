# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service under test, and its objects as a client sees them."""
import os
import signal

from gi.repository import GLib

from bus import PREFIX, BusError
from process import BUILD, VALGRIND, Process, wait_until

ROOT = "/org/blockjob1"
# Options of the interface that are not what Python's type says: bool → b, int → t, str → s.
U32_OPTIONS = {"granularity", "cluster-size", "limit"}


def options(values, fds):
    """a{sv} of Python values; "_" in a key means "-". A GLib.Variant goes as it is; fd= is passed along as "h"."""
    result = {}
    for key, value in values.items():
        key = key.replace("_", "-")
        if isinstance(value, GLib.Variant):
            result[key] = value
        elif key == "fd":
            result[key] = GLib.Variant("h", len(fds))
            fds.append(value if isinstance(value, int) else value.fileno())
        elif isinstance(value, bool):
            result[key] = GLib.Variant("b", value)
        elif isinstance(value, int):
            result[key] = GLib.Variant("u" if key in U32_OPTIONS else "t", value)
        else:
            result[key] = GLib.Variant("s", str(value))
    return result


class Remote:
    """A D-Bus object. Properties as attributes in the interface's spelling: job.State; methods through call()."""

    INTERFACE = ""

    def __init__(self, client, path):
        self.client, self.path = client, path

    def __getattr__(self, name):
        if not name[:1].isupper():
            raise AttributeError(name)
        return self.client.conn.get(self.path, self.INTERFACE, name)

    def __repr__(self):
        return f"<{self.path}>"

    def __eq__(self, other):
        return isinstance(other, Remote) and other.path == self.path

    def __hash__(self):
        return hash(self.path)

    def properties(self):
        return self.client.conn.get_all(self.path, self.INTERFACE)

    def call(self, method, signature="()", *args, **more):
        return self.client.conn.call(self.path, self.INTERFACE, method, signature, args, **more)


class Job(Remote):
    INTERFACE = f"{PREFIX}.Job"
    STATES = ["queued", "preparing", "running", "ready", "pending", "pivoting", "finishing", "cancelling", "concluded"]

    def __init__(self, client, path):
        super().__init__(client, path)
        self.id = int(path.rsplit("/j", 1)[1])

    def _end(self, method, values):
        self.call(method, "(a{sv})", options(values, []))
        return self

    def pivot(self, **o):
        return self._end("Pivot", o)

    def finish(self, **o):
        return self._end("Finish", o)

    def cancel(self, **o):
        return self._end("Cancel", o)

    def pause(self):
        self.call("Pause")

    def resume(self):
        self.call("Resume")

    def set_speed(self, bytes_per_second):
        self.call("SetSpeed", "(t)", bytes_per_second)

    def set_on_ready(self, what):
        self.call("SetOnReady", "(s)", what)

    def set_copy_mode(self, what):
        self.call("SetCopyMode", "(s)", what)

    def dismiss(self):
        self.call("Dismiss")

    def wait(self, state, timeout=60):
        """Until the job is in that state or has passed it. "concluded" returns the result; other states raise
        AssertionError when the job concludes without having passed them. The service may die and come back meanwhile.

        It looks at the property, so a state that lasts for a moment only is to be found in states()."""
        def reached():
            try:
                now = self.State
                result = self.Result if now == "concluded" else ""
            except BusError as e:
                # Between two lives of the service there is nobody to ask.
                if e.short in ("ServiceUnknown", "NameHasNoOwner", "NoReply", "UnknownObject", "Disconnected"):
                    return None
                raise
            if state == "concluded":
                return now == "concluded"
            if now == "concluded" and result not in ("pivoted", "finished"):
                raise AssertionError(f"{self.path} concluded while waiting for {state}: {result} "
                                     f"{self.ErrorName} {self.ErrorMessage}")
            return now == state or (now != "cancelling" and self.STATES.index(now) > self.STATES.index(state))
        try:
            wait_until(reached, timeout, f"{self.path} in state {state}")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self._last_words()}") from None
        return self.Result if state == "concluded" else self

    def wait_result(self, expected, timeout=60):
        result = self.wait("concluded", timeout)
        assert result == expected, f"{self.path}: {result}, not {expected}: {self.ErrorName} {self.ErrorMessage}"
        return self

    def members(self):
        """Of a group, by the numbers of the jobs."""
        found = [p for p, j in self.client.jobs().items() if j["Group"] == self.path]
        return sorted((Job(self.client, p) for p in found), key=lambda j: j.id)

    def states(self):
        """The states that were signalled, in order, each once in a row; from the connection's beginning on."""
        seen = []
        for s in self.client.conn.signals:
            if s.path == self.path and s.member == "PropertiesChanged" and s.args[0] == self.INTERFACE:
                state = s.args[1].get("State")
                if state and seen[-1:] != [state]:
                    seen.append(state)
        return seen

    def _last_words(self):
        try:
            return f"it is {self.properties()}"
        except BusError as e:
            return f"it cannot be read: {e}"


class Disk(Remote):
    INTERFACE = f"{PREFIX}.Disk"

    def copy(self, target, **o):
        """Starts a copy; options by keyword (copy_mode="background", on_ready="pivot", speed=1 << 20, fd=file, …)."""
        fds = []
        _, path = self.call("Copy", "(sa{sv})", target, options(o, fds), fds=fds)
        return Job(self.client, path)

    def commit(self, **o):
        """Commits images of the chain into one below them: base="2", top="1", shallow=True, delete_image=True, …"""
        _, path = self.call("Commit", "(a{sv})", options(o, []))
        return Job(self.client, path)

    def pull(self, **o):
        _, path = self.call("Pull", "(a{sv})", options(o, []))
        return Job(self.client, path)

    def chain(self):
        return self.call("GetChain")

    def check(self, target, verb="copy", **o):
        fds = []
        return self.call("Check", "(ssa{sv})", verb, target, options(o, fds), fds=fds)


class Domain(Remote):
    INTERFACE = f"{PREFIX}.Domain"

    def disk(self, name="vda"):
        return Disk(self.client, f"{self.path}/disk/{name}")

    def disks(self):
        return [Disk(self.client, p) for p in self.Disks]

    def copy_disks(self, targets, members=None, **o):
        """Starts a group: targets is {disk: path}; members: {disk: options of its own}; options of the group by keyword."""
        fds, members = [], members or {}
        disks = [(disk, target, options(members.get(disk, {}), fds)) for disk, target in targets.items()]
        _, path = self.call("CopyDisks", "(a(ssa{sv})a{sv})", disks, options(o, fds), fds=fds)
        return Job(self.client, path)

    def xml(self, **o):
        return self.call("GetXML", "(a{sv})", options(o, []))

    def detach(self, **o):
        self.call("Detach", "(a{sv})", options(o, []))

    def wait_state(self, state, timeout=30):
        wait_until(lambda: self.State == state, timeout, lambda: f"{self.path} {state} (it is {self.State})")
        return self


class Manager(Remote):
    INTERFACE = f"{PREFIX}.Manager"

    def history(self, **o):
        return self.call("ListHistory", "(a{sv})", options(o, []))


class Client:
    """The service as one caller sees it; service.client(uid=1000) makes one for another user."""

    def __init__(self, conn):
        self.conn = conn
        self.manager = Manager(self, ROOT)

    def attach(self, name, qmp_socket="", **o):
        fds = []
        path = self.manager.call("AttachDomain", "(ssa{sv})", name, str(qmp_socket), options(o, fds), fds=fds)
        return Domain(self, path)

    def domain(self, name):
        return Domain(self, self.manager.call("GetDomain", "(s)", name))

    def job(self, id):
        return Job(self, self.manager.call("GetJob", "(t)", id))

    def objects(self):
        """GetManagedObjects: {path: {interface: {property: value}}}."""
        return self.conn.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")

    def jobs(self):
        """{path: properties} of all jobs on the bus."""
        return {p: i[Job.INTERFACE] for p, i in self.objects().items() if Job.INTERFACE in i}

    def domains(self):
        return {p: i[Domain.INTERFACE] for p, i in self.objects().items() if Domain.INTERFACE in i}

    def disks(self):
        return {p: i[Disk.INTERFACE] for p, i in self.objects().items() if Disk.INTERFACE in i}


class Service(Client):
    """blockjobd on a private bus; also a client of it as root.

    config: text of a configuration file. wrap: a command to put in front that becomes the service or leaves it the
    direct child of the test, e.g. ["strace", "-D", …]. systemd: a ServiceManager that starts it."""

    def __init__(self, bus, folder, config="", wrap=(), args=(), start=True, systemd=None):
        self.bus, self.folder, self.wrap, self.args = bus, folder, list(wrap), list(args)
        self.systemd = systemd
        self.state_dir, self.socket_dir = f"{folder}/state", f"{folder}/qmp"
        self.config_path, self.log_path = f"{folder}/blockjobd.conf", f"{folder}/blockjobd.log"
        for path in self.state_dir, self.socket_dir:
            os.makedirs(path, mode=0o700, exist_ok=True)
        self.configure(config)
        self.binary = f"{BUILD}/service/blockjobd"
        self.process, self.killed, self.started = None, 0, 0
        super().__init__(bus.connect())
        # Every signal of every life, for the invariants and for wait_signal().
        self.conn.subscribe(sender=PREFIX, path_namespace=ROOT)
        if start:
            self.start()

    def configure(self, text):
        """In force from the next start on."""
        with open(self.config_path, "w") as f:
            f.write(text)

    def start(self, wait=True):
        argv = [*VALGRIND, self.binary, f"--state-dir={self.state_dir}", f"--socket-dir={self.socket_dir}",
                f"--config={self.config_path}", "--log-level=debug", *self.args]
        env, fds = dict(self.bus.env), ()
        if self.systemd:
            argv, fds = self.systemd.command(argv)
            env |= self.systemd.env
        self.process = Process([*self.wrap, *argv], self.log_path, env=env, name="blockjobd", pass_fds=fds)
        self.started += 1
        if wait:
            self.bus.wait_name(PREFIX, self.process)
        return self

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.killed += 1
        wait_until(lambda: not self.bus.owner_of(PREFIX), what="the service's name to be free")

    def stop(self, timeout=30):
        """SIGTERM; an exit status other than 0 (also the sanitizers') is a failure."""
        if self.process.alive:
            self.process.signal(signal.SIGCONT)
            status = self.process.terminate(timeout)
            assert status == 0, f"blockjobd ended with {status}:\n{self.log()[-20000:]}"

    def restart(self, kill=True):
        self.kill() if kill else self.stop()
        return self.start()

    def log(self):
        return self.process.log() if self.process else ""

    def client(self, uid, gids=()):
        """The service as another user sees it."""
        client = Client(self.bus.connect(uid, gids))
        client.conn.subscribe(sender=PREFIX, path_namespace=ROOT)
        return client

    def signals(self, member=None):
        return [s for s in self.conn.signals if member in (None, s.member)]

    def wait_signal(self, member, path=None, match=lambda s: True, timeout=20, since=0):
        return self.conn.wait_signal(member, path, match, timeout, since)
