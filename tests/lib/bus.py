# SPDX-License-Identifier: LGPL-2.1-or-later
"""A private system bus, connections to it as any user, and the two authorities: the real polkitd and a scripted one."""
import os
import time

from gi.repository import Gio, GLib

from process import LIB, PATIENCE, DeadlinePassed, Process, wait_until

PREFIX = "org.blockjob1"
POLKIT = "org.freedesktop.PolicyKit1"


class BusError(Exception):
    """An error reply: .name is the D-Bus error's name, .message its text."""

    def __init__(self, name, message):
        super().__init__(f"{name}: {message}")
        self.name, self.message = name, message

    @property
    def short(self):
        """NoSuchDisk of org.blockjob1.Error.NoSuchDisk, AccessDenied of org.freedesktop.DBus.Error.AccessDenied."""
        return self.name.rsplit(".", 1)[-1]


class Signal:
    def __init__(self, sender, path, interface, member, args):
        self.time = time.monotonic()
        self.sender, self.path, self.interface, self.member, self.args = sender, path, interface, member, args

    def __repr__(self):
        return f"{self.path} {self.interface}.{self.member}{self.args}"


class Connection:
    """One connection to the bus. uid: whom the bus (and polkit) takes the caller for."""

    def __init__(self, address, uid=None, gids=()):
        flags = (Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION)
        if uid is None:
            self.gio = Gio.DBusConnection.new_for_address_sync(address, flags, None, None)
        else:
            # The kernel notes the credentials at connect(), so only the connecting is done as that user.
            groups, gid = os.getgroups(), os.getegid()
            try:
                os.setgroups(list(gids))
                os.setegid(gids[0] if gids else uid)
                os.seteuid(uid)
                self.gio = Gio.DBusConnection.new_for_address_sync(address, flags, None, None)
            finally:
                os.seteuid(0)
                os.setegid(gid)
                os.setgroups(groups)
        self.gio.set_exit_on_close(False)
        self.uid = os.geteuid() if uid is None else uid
        self.name = self.gio.get_unique_name()
        self.signals = []

    def close(self):
        """The bus knows at once that this caller has left."""
        if not self.gio.is_closed():
            self.gio.close_sync(None)

    def call_async(self, path, interface, method, signature="()", args=(), destination=PREFIX, timeout=25,
                   interactive=False, fds=None):
        """Sends a call; returns an object whose done is True when the reply is there, and result() gives it."""
        return PendingCall(self, destination, path, interface, method, signature, args, timeout, interactive, fds)

    def call(self, path, interface, method, signature="()", args=(), **more):
        """Returns the reply's values: None, the one value, or a tuple. Raises BusError. SIGNATURE as "(sa{sv})"."""
        return self.call_async(path, interface, method, signature, args, **more).result()

    def get(self, path, interface, name, **more):
        return self.call(path, "org.freedesktop.DBus.Properties", "Get", "(ss)", (interface, name), **more)

    def get_all(self, path, interface, **more):
        return self.call(path, "org.freedesktop.DBus.Properties", "GetAll", "(s)", (interface,), **more)

    def introspect(self, path, **more):
        return self.call(path, "org.freedesktop.DBus.Introspectable", "Introspect", **more)

    def owner_of(self, name):
        """Unique name of a name's owner, or None."""
        try:
            return self.call("/org/freedesktop/DBus", "org.freedesktop.DBus", "GetNameOwner", "(s)", (name,),
                             destination="org.freedesktop.DBus")
        except BusError:
            return None

    def subscribe(self, sender=None, interface=None, member=None, path=None, path_namespace=None, callback=None):
        """Collects matching signals in .signals (and calls callback(signal)); in force on the bus on return."""
        flags, arg0 = Gio.DBusSignalFlags.NO_MATCH_RULE, None
        rule = ["type='signal'"]
        for key, value in (("sender", sender), ("interface", interface), ("member", member), ("path", path),
                           ("path_namespace", path_namespace)):
            if value:
                rule.append(f"{key}='{value}'")

        def arrived(_conn, from_, at, iface, name, params):
            if path_namespace and not (at == path_namespace or at.startswith(path_namespace + "/")):
                return
            signal = Signal(from_, at, iface, name, params.unpack())
            self.signals.append(signal)
            if callback:
                callback(signal)

        # The sender of a signal is a unique name, which changes when the service starts again: the bus filters.
        self.gio.signal_subscribe(None, interface, member, path, arg0, flags, arrived)
        self.call("/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "(s)", (",".join(rule),),
                  destination="org.freedesktop.DBus")

    def wait_signal(self, member, path=None, match=lambda s: True, timeout=20, since=0):
        """The first signal of that name, from index SINCE in .signals on; arrived ones count."""
        def find():
            return next((s for s in self.signals[since:]
                         if s.member == member and path in (None, s.path) and match(s)), None)
        return wait_until(find, timeout, lambda: f"signal {member} of {path or 'any object'}")


class PendingCall:
    def __init__(self, conn, destination, path, interface, method, signature, args, timeout, interactive, fds):
        self.what = f"{interface}.{method}() on {path}"
        self.done, self._value, self._error, self.timeout = False, None, None, timeout
        self.cancellable = Gio.Cancellable()
        flags = Gio.DBusCallFlags.NO_AUTO_START
        if interactive:
            flags |= Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION
        if not isinstance(args, tuple):
            args = (args,)
        fd_list = None
        if fds is not None:
            fd_list = Gio.UnixFDList.new()
            for fd in fds:
                fd_list.append(fd)

        def finished(gio, result):
            try:
                value, _ = gio.call_with_unix_fd_list_finish(result)
                self._value = value.unpack()
            except GLib.Error as e:
                name = Gio.DBusError.get_remote_error(e) or f"local.{e.domain}.{e.code}"
                # strip_remote_error() would change a copy only.
                self._error = BusError(name, e.message.removeprefix(f"GDBus.Error:{name}: "))
            self.done = True

        conn.gio.call_with_unix_fd_list(destination, path, interface, method, GLib.Variant(signature, args), None,
                                        flags, int(timeout * PATIENCE * 1000), fd_list, self.cancellable, finished)

    def result(self, timeout=None):
        wait_until(lambda: self.done, timeout or self.timeout + 5, self.what, interval=1)
        if self._error:
            raise self._error
        return None if not self._value else self._value[0] if len(self._value) == 1 else self._value


class Bus:
    """dbus-daemon of type system in a folder of its own, with the shipped policy file. monitor: keep its traffic."""

    def __init__(self, folder, monitor=True):
        os.makedirs(folder, mode=0o755, exist_ok=True)
        self.address = f"unix:path={folder}/bus"
        self.env = {"DBUS_SYSTEM_BUS_ADDRESS": self.address}
        self.daemon = Process([f"{LIB}/private-bus", folder], f"{folder}/dbus-daemon.log", name="dbus-daemon")
        wait_until(self._ready, what=lambda: f"dbus-daemon: {self.daemon.log()}")
        self._own = self.connect()
        self.monitor = None
        if monitor:
            self.monitor = Process(["dbus-monitor", "--address", self.address], f"{folder}/traffic.log",
                                   name="bus traffic")
            # A monitor says that it listens with the NameLost of its own unique name.
            self.monitor.wait_log("member=NameLost")

    def _ready(self):
        if not self.daemon.alive:
            raise AssertionError(f"dbus-daemon has ended: {self.daemon.log()}")
        try:
            self.connect().close()
            return True
        except GLib.Error:
            return False

    def connect(self, uid=None, gids=()):
        return Connection(self.address, uid, gids)

    def owner_of(self, name):
        return self._own.owner_of(name)

    def wait_name(self, name, process=None, timeout=20):
        """Waits until somebody owns the name; process: give up when it ends."""
        def owned():
            if process and not process.alive:
                raise AssertionError(f"{process.name} has ended with {process.returncode}:\n{process.log()}")
            return self.owner_of(name)
        return wait_until(owned, timeout, f"owner of {name}")

    def stop(self):
        self.daemon.kill()
        if self.monitor:
            self.monitor.kill()


class Polkit:
    """The real polkitd, with our actions and only these rules.

    rules: the text of a rules file (JavaScript), e.g. ALLOW_ALL; "" leaves the defaults of the actions."""

    ALLOW_ALL = "polkit.addRule(function(action, subject) { return polkit.Result.YES; });"
    DENY_ALL = "polkit.addRule(function(action, subject) { return polkit.Result.NO; });"

    def __init__(self, bus, folder, rules=""):
        self.bus, self.rules_dir = bus, os.path.join(folder, "rules.d")
        os.makedirs(self.rules_dir, mode=0o755, exist_ok=True)
        self.log_path = os.path.join(folder, "polkitd.log")
        self.set_rules(rules)
        self.start()

    def set_rules(self, rules):
        """Takes effect with the next start() or restart()."""
        with open(os.path.join(self.rules_dir, "50-test.rules"), "w") as f:
            f.write(rules)

    def start(self):
        self.process = Process([f"{LIB}/private-polkitd", self.rules_dir], self.log_path, env=self.bus.env,
                               name="polkitd")
        self.bus.wait_name(POLKIT, self.process)

    def restart(self, rules=None):
        self.stop()
        if rules is not None:
            self.set_rules(rules)
        self.start()

    def freeze(self):
        self.process.freeze()

    def thaw(self):
        self.process.thaw()

    def stop(self):
        self.process.kill()
        wait_until(lambda: not self.bus.owner_of(POLKIT), what="polkitd's name to be free")


class Check:
    """One CheckAuthorization that the service has made."""

    def __init__(self, subject, action, details, flags, cancellation_id, invocation):
        self.subject, self.action, self.details, self.flags = subject, action, details, flags
        self.cancellation_id, self.invocation = cancellation_id, invocation
        self.verb = action.rsplit(".", 1)[-1]
        self.interactive = bool(flags & 1)
        self.answered = self.cancelled = False

    def answer(self, verdict):
        """yes, no, challenge, dismissed, or error."""
        if self.answered:
            return
        self.answered = True
        if verdict == "error":
            self.invocation.return_dbus_error(f"{POLKIT}.Error.Failed", "the authority is out of order")
            return
        details = {"polkit.dismissed": "true"} if verdict == "dismissed" else {}
        self.invocation.return_value(GLib.Variant("((bba{ss}))",
                                                  ((verdict == "yes", verdict == "challenge", details),)))

    def __repr__(self):
        return f"{self.action} {self.details} by {self.subject}"


class FakePolkit:
    """A scripted authority in this process: .decide(check) returns yes, no, challenge, dismissed, error, hang, or
    ("delay", SECONDS, verdict). .checks holds all checks, .waiting() those without an answer."""

    XML = f"""<node><interface name="{POLKIT}.Authority">
      <method name="CheckAuthorization">
        <arg name="subject" type="(sa{{sv}})" direction="in"/><arg name="action_id" type="s" direction="in"/>
        <arg name="details" type="a{{ss}}" direction="in"/><arg name="flags" type="u" direction="in"/>
        <arg name="cancellation_id" type="s" direction="in"/><arg name="result" type="(bba{{ss}})" direction="out"/>
      </method>
      <method name="CancelCheckAuthorization"><arg name="cancellation_id" type="s" direction="in"/></method>
      <signal name="Changed"/>
    </interface></node>"""

    def __init__(self, bus, decide="yes"):
        self.bus, self.checks = bus, []
        self.set(decide)
        self.conn = bus.connect()
        info = Gio.DBusNodeInfo.new_for_xml(self.XML).interfaces[0]
        self.conn.gio.register_object(f"/{POLKIT.replace('.', '/')}/Authority", info, self._called, None, None)
        got = self.conn.call("/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "(su)", (POLKIT, 4),
                             destination="org.freedesktop.DBus")
        assert got == 1, "the polkit name is taken"

    def set(self, decide):
        """A verdict for every check, or a function of the check."""
        self.decide = decide if callable(decide) else lambda check: decide

    def waiting(self):
        return [c for c in self.checks if not c.answered and not c.cancelled]

    def _called(self, _conn, _sender, _path, _interface, method, params, invocation):
        args = params.unpack()
        if method == "CancelCheckAuthorization":
            for check in self.waiting():
                if check.cancellation_id == args[0]:
                    check.cancelled = check.answered = True
                    check.invocation.return_dbus_error(f"{POLKIT}.Error.Cancelled", "cancelled")
            invocation.return_value(None)
            return
        check = Check(*args, invocation)
        self.checks.append(check)
        verdict = self.decide(check)
        if isinstance(verdict, tuple):
            GLib.timeout_add(int(verdict[1] * 1000), lambda: check.answer(verdict[2]))
        elif verdict != "hang":
            check.answer(verdict)

    def stop(self):
        self.conn.close()


__all__ = ["Bus", "BusError", "Check", "Connection", "DeadlinePassed", "FakePolkit", "POLKIT", "PREFIX",
           "PendingCall", "Polkit", "Signal"]
