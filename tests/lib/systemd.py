# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd is to a service of Type=notify: the socket for its messages, and the file descriptor store."""
import fcntl
import os
import socket
import time

from gi.repository import GLib

from process import wait_until

# Above everything that the test has open by itself, so that moving a descriptor to its place overwrites none.
FIRST_FREE = 200
# Puts the stored descriptors at 3, 4, … and becomes the service.
SCRIPT = 'export LISTEN_PID=$$; exec "$@"'


class Message:
    def __init__(self, text):
        self.time, self.text = time.monotonic(), text
        self.fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def __repr__(self):
        return repr(self.text)


class ServiceManager:
    """t.service(systemd=t.service_manager()). .messages are those of all lives; .store is {name: [descriptor]}."""

    def __init__(self, folder):
        self.path = f"{folder}/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.messages, self.store = [], {}
        self.env = {"NOTIFY_SOCKET": self.path}
        self.watch = GLib.io_add_watch(self.socket.fileno(), GLib.IO_IN, self._readable)

    def command(self, argv):
        """(argv, descriptors to pass) of a service that finds the store as systemd passes it."""
        self._readable()  # the last words of the life before
        stored = [(name, fd) for name, fds in self.store.items() for fd in fds]
        if not stored:
            return argv, ()
        moves = "".join(f"exec {3 + n}<&{fd} {fd}<&-; " for n, (_, fd) in enumerate(stored))
        names = ":".join(name for name, _ in stored)
        script = f"export LISTEN_FDS={len(stored)} LISTEN_FDNAMES={names}; {moves}{SCRIPT}"
        return ["bash", "-c", script, "service-manager", *argv], tuple(fd for _, fd in stored)

    def _readable(self, *_):
        while True:
            try:
                data, fds, _flags, _from = socket.recv_fds(self.socket, 65536, 16)
            except BlockingIOError:
                return True
            self._received(Message(data.decode()), fds)

    def _received(self, message, fds):
        self.messages.append(message)
        name = message.fields.get("FDNAME", "stored")
        if message.fields.get("FDSTORE") == "1":
            for fd in fds:
                self.store.setdefault(name, []).append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE))
        if message.fields.get("FDSTOREREMOVE") == "1":
            for fd in self.store.pop(name, []):
                os.close(fd)
        for fd in fds:
            os.close(fd)

    def drop(self):
        """What systemd does when the service is stopped."""
        for name in list(self.store):
            for fd in self.store.pop(name):
                os.close(fd)

    def values(self, key):
        """Of that field in all messages, in order."""
        return [m.fields[key] for m in self.messages if key in m.fields]

    def wait(self, key, value=None, timeout=20, since=0):
        """The first message from index SINCE on with that field; value: its text, or a function of it."""
        def fits(m):
            return key in m.fields and (value is None or (value(m.fields[key]) if callable(value) else
                                                          m.fields[key] == value))
        return wait_until(lambda: next((m for m in self.messages[since:] if fits(m)), None), timeout,
                          lambda: f"{key}={value or '…'} to the service manager; it got {self.messages[since:]}")

    def stop(self):
        GLib.source_remove(self.watch)
        self.drop()
        self.socket.close()
