# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stands between the service and a real QEMU's monitor: passes everything on, descriptors too, and can refuse, hold,
change or swallow what it is told to."""
import json
import os
import socket
import threading


class QmpProxy:
    """on_command(name, arguments) → None (pass it on), a dict (QEMU's error: {"class", "desc"}), DROP (no answer),
    YES (an empty answer, though QEMU was not asked), CLOSE (break off), or bytes (sent in place of an answer). on_reply(name, reply) → the reply to pass on.
    Both run in the proxy's thread. .commands lists (name, arguments) in the order of arrival."""

    DROP, YES, CLOSE = object(), object(), object()

    def __init__(self, t, qemu, name=None):
        self.upstream_path, self.path = qemu.socket, t.path(f"{name or qemu.name}.proxy")
        self.on_command = self.on_reply = None
        self.commands, self.answers, self._pairs = [], 0, []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(4)
        threading.Thread(target=self._accept, daemon=True).start()
        t.cleanup(self.stop)

    def refuse(self, *names, text="this was refused by the test", times=None, match=lambda arguments: True):
        """From now on these commands fail with QEMU's words TEXT; at most TIMES."""
        left = [times]

        def decide(name, arguments):
            if name not in names or left[0] == 0 or not match(arguments):
                return None
            if left[0]:
                left[0] -= 1
            return {"class": "GenericError", "desc": text}
        self.on_command = decide

    def names(self):
        return [name for name, _ in list(self.commands)]

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            try:
                upstream.connect(self.upstream_path)
            except OSError:
                client.close()
                continue
            _Pair(self, client, upstream).start()

    def disconnect(self):
        for pair in list(self._pairs):
            pair.close()

    def stop(self):
        self._listener.close()
        self.disconnect()


class _Pair:
    def __init__(self, proxy, client, upstream):
        self.proxy, self.client, self.upstream = proxy, client, upstream
        self.write_lock, self.replies = threading.Condition(), {}
        self.closed = False
        proxy._pairs.append(self)

    def start(self):
        threading.Thread(target=self._down, daemon=True).start()
        threading.Thread(target=self._up, daemon=True).start()

    def close(self):
        with self.write_lock:
            if self.closed:
                return
            self.closed = True
            self.write_lock.notify_all()
        self.proxy._pairs.remove(self)
        for s in self.client, self.upstream:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _send(self, message):
        data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\r\n"
        self.client.sendall(data)

    def _down(self):
        """QEMU's words: replies are handed to the thread that waits for them, the rest goes straight through."""
        try:
            for line in self.upstream.makefile("rb"):
                message = json.loads(line)
                if "return" in message or "error" in message:
                    with self.write_lock:
                        self.replies[message.get("id")] = message
                        self.write_lock.notify_all()
                else:
                    with self.write_lock:
                        self._send(message)
        except (OSError, ValueError):
            pass
        self.close()

    def _up(self):
        """The service's commands, one after the other as QEMU does them."""
        buffer, fds = b"", []
        try:
            while not self.closed:
                data, new, _, _ = socket.recv_fds(self.client, 1 << 16, 8)
                if not data:
                    break
                fds += new
                buffer += data
                while b"\n" in buffer:
                    line, buffer = buffer.split(b"\n", 1)
                    if line.strip():
                        self._command(line + b"\n", fds)
        except (OSError, ValueError):
            pass
        for fd in fds:
            os.close(fd)
        self.close()

    def _command(self, line, fds):
        command = json.loads(line)
        name, arguments, number = command["execute"], command.get("arguments", {}), command.get("id")
        fd = fds.pop(0) if name in ("add-fd", "getfd") and fds else -1
        self.proxy.commands.append((name, arguments))
        decision = self.proxy.on_command(name, arguments) if self.proxy.on_command else None
        try:
            if decision is None:
                self._pass(name, line, number, fd)
            elif decision is QmpProxy.CLOSE:
                self.close()
            elif decision is QmpProxy.YES:
                self._reply({"return": {}, "id": number})
            elif decision is not QmpProxy.DROP:
                self._reply(decision if isinstance(decision, bytes) else {"error": decision, "id": number})
        finally:
            if fd >= 0:
                os.close(fd)

    def _pass(self, name, line, number, fd):
        if fd >= 0:
            socket.send_fds(self.upstream, [line], [fd])
        else:
            self.upstream.sendall(line)
        with self.write_lock:
            while number not in self.replies and not self.closed:
                self.write_lock.wait()
            reply = self.replies.pop(number, None)
        if reply is not None:
            self._reply(self.proxy.on_reply(name, reply) if self.proxy.on_reply else reply)

    def _reply(self, reply):
        with self.write_lock:
            self._send(reply)
        self.proxy.answers += 1
