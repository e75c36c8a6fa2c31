# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real QEMU processes, the real writing guest, images, and a scripted QMP peer."""
import json
import os
import socket
import subprocess
import threading
import time

from process import BUILD, PATIENCE, REPO, DeadlinePassed, Process, die_with_parent, run, wait_until

GUEST_DIR = os.environ.get("BLOCKJOBD_GUEST", os.path.join(BUILD, "tests", "guest"))
EMULATOR = os.environ.get("BLOCKJOBD_QEMU", "qemu-system-x86_64")


def megabytes(n):
    return n * 1024 * 1024


# ---- images ----

def image_create(path, size="64M", format="qcow2", backing=None, backing_format="qcow2", options=None):
    argv = ["qemu-img", "create", "-q", "-f", format]
    if backing:
        argv += ["-b", backing, "-F", backing_format]
    if options:
        argv += ["-o", options]
    run(argv + [path] + ([] if backing and size is None else [str(size)])).ok()
    return path


def image_fill(path, format="qcow2", offset=0, length="32M", pattern=0x5A):
    """Data that is there before QEMU starts."""
    run(["qemu-io", "-f", format, "-c", f"write -P {pattern} {offset} {length}", path]).ok()
    return path


def image_random(path, size, format="qcow2", offset=0, length=None):
    """An image of SIZE bytes with LENGTH bytes (default: to the end) that neither compress nor repeat."""
    raw = f"{path}.random"
    length = size - offset if length is None else length
    with open(raw, "wb") as f:
        f.truncate(size)
        f.seek(offset)
        while length > 0:
            length -= f.write(os.urandom(min(length, 1 << 20)))
    run(["qemu-img", "convert", "-f", "raw", "-O", format, raw, path]).ok()
    os.unlink(raw)
    return path


def image_compare(a, b, share=False, formats=(None, None)):
    """Raises unless both hold the same bytes. share: also while a QEMU has them open (then stop its guest first)."""
    argv = ["qemu-img", "compare"] + (["-U"] if share else [])
    for flag, format in zip(("-f", "-F"), formats):
        argv += [flag, format] if format else []
    result = run(argv + [a, b], timeout=120)
    assert result.returncode == 0, f"images differ: {a} {b}: {result.stdout}{result.stderr}"


def image_check(path, format="qcow2", share=False):
    """qemu-img check: raises on errors and on leaks; a raw image has nothing to check."""
    if format == "raw":
        return
    result = run(["qemu-img", "check", "-f", format] + (["-U"] if share else []) + [path], timeout=120)
    assert result.returncode == 0, f"qemu-img check {path}: {result.stdout}{result.stderr}"


def image_info(path, share=True):
    return json.loads(run(["qemu-img", "info", "--output=json"] + (["-U"] if share else []) + [path]).ok().stdout)


def image_chain(path, share=True):
    return json.loads(run(["qemu-img", "info", "--output=json", "--backing-chain"] + (["-U"] if share else []) +
                          [path]).ok().stdout)


# ---- QMP ----

class QmpError(Exception):
    def __init__(self, error):
        super().__init__(f"{error.get('class')}: {error.get('desc')}")
        self.kind, self.desc = error.get("class"), error.get("desc")


class Qmp:
    """A blocking QMP client: qmp("query-jobs"), qmp("stop"); "-" in argument names as "_"."""

    def __init__(self, path, timeout=30):
        self.timeout, self.events, self._buffer = timeout * PATIENCE, [], b""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(self.timeout)
        self.socket.connect(path)
        self.greeting = self._read(time.monotonic() + self.timeout)
        self("qmp_capabilities")

    def _read(self, deadline):
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlinePassed("QEMU has not answered in time")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionError("QEMU has closed the connection")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    def __call__(self, command, /, _fd=None, **arguments):
        """_fd: a descriptor that goes along, for add-fd and getfd."""
        message = {"execute": command}
        if arguments:
            message["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        data = json.dumps(message).encode() + b"\n"
        if _fd is None:
            self.socket.sendall(data)
        else:
            socket.send_fds(self.socket, [data], [_fd])
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self._read(deadline)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QmpError(answer["error"])
            else:
                return answer["return"]

    def wait_event(self, name, match=lambda data: True, timeout=30):
        """The data of the first such event; events that came before count. Events before it stay in .events."""
        deadline = time.monotonic() + timeout * PATIENCE
        seen = 0
        while True:
            for i in range(seen, len(self.events)):
                if self.events[i]["event"] == name and match(self.events[i].get("data", {})):
                    return self.events.pop(i).get("data", {})
            seen = len(self.events)
            try:
                answer = self._read(deadline)
            except DeadlinePassed:
                raise DeadlinePassed(f"no event {name}; there were {[e['event'] for e in self.events]}") from None
            if "event" in answer:
                self.events.append(answer)

    def close(self):
        self.socket.close()


# ---- QEMU ----

class Drive:
    """One disk of a Qemu. style: "blockdev" (as libvirt does it), "drive" (-drive if=none), or "raw-args" (only
    extra arguments, given to Qemu, make it). Below format and file, filters may be named: read_error / write_error are
    blkdebug rules [{"event": "write_aio", "errno": 28, "once": True, "immediately": True}, …]; throttle is bytes a second."""

    def __init__(self, path, format="qcow2", bus="virtio", iothread=False, style="blockdev", read_only=False,
                 throttle=0, errors=None, cache=None, serial=None):
        self.path, self.format, self.bus, self.iothread, self.style = path, format, bus, iothread, style
        self.read_only, self.throttle, self.errors, self.cache, self.serial = read_only, throttle, errors, cache, serial

    def arguments(self, index):
        node, args = f"libvirt-{index + 1}-format", []
        ro = "on" if self.read_only else "off"
        if self.style == "drive":
            node = f"drive-virtio-disk{index}"
            args += ["-drive", f"file={self.path},format={self.format},if=none,id={node},readonly={ro}"
                     + (f",cache={self.cache}" if self.cache else "")]
        else:
            file = {"driver": "file", "filename": self.path, "node-name": f"libvirt-{index + 1}-storage",
                    "auto-read-only": True, "discard": "unmap"}
            top = {"driver": self.format, "node-name": node, "read-only": self.read_only, "discard": "unmap"}
            if self.cache == "none":
                file["cache"] = top["cache"] = {"direct": True, "no-flush": False}
            child = file
            if self.errors:
                child = {"driver": "blkdebug", "node-name": f"libvirt-{index + 1}-blkdebug", "image": child,
                         "inject-error": self.errors}
            if self.throttle:
                args += ["-object", f"throttle-group,id=slow{index},x-bps-total={self.throttle}"]
                child = {"driver": "throttle", "node-name": f"libvirt-{index + 1}-slow",
                         "throttle-group": f"slow{index}", "file": child}
            top["file"] = child
            args += ["-blockdev", json.dumps(top)]
        more = f",serial={self.serial}" if self.serial else ""
        if self.iothread:
            args += ["-object", f"iothread,id=iothread{index}"]
        if self.bus == "scsi":
            args += ["-device", f"virtio-scsi-pci,id=scsi{index}" + (f",iothread=iothread{index}" if self.iothread else ""),
                     "-device", f"scsi-hd,bus=scsi{index}.0,drive={node},id=scsi-disk{index}{more}"]
        else:
            args += ["-device", f"virtio-blk-pci,drive={node},id=virtio-disk{index}{more}"
                     + (f",iothread=iothread{index}" if self.iothread else "")]
        return args


class Qemu:
    """A real QEMU. By default idle: its processors never start, which is enough for every block job.

    drives: paths of qcow2 images, or Drive objects. .socket is for the service, qemu(...) commands go through a second
    monitor. uuid: text. args: more command line."""

    def __init__(self, folder, name, drives=(), socket=None, idle=True, memory=32, uuid=None, args=(), uid=None):
        self.name, self.folder = name, folder
        os.makedirs(folder, exist_ok=True)
        self.drives = [d if isinstance(d, Drive) else Drive(d) for d in drives]
        self.socket = socket or f"{folder}/{name}.qmp"
        self.test_socket = f"{folder}/{name}.test"
        self.log_path = f"{folder}/{name}.log"
        self.idle, self.memory, self.uuid, self.uid, self.extra = idle, memory, uuid, uid, list(args)
        self.process = self.qmp = None
        self.start()

    def command_line(self):
        argv = [EMULATOR, "-name", self.name, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg",
                "-machine", "q35", "-m", str(self.memory),
                "-chardev", f"socket,id=service,path={self.socket},server=on,wait=off",
                "-mon", "chardev=service,mode=control",
                "-chardev", f"socket,id=test,path={self.test_socket},server=on,wait=off",
                "-mon", "chardev=test,mode=control"]
        if self.idle:
            argv.append("-S")
        if self.uuid:
            argv += ["-uuid", self.uuid]
        for index, drive in enumerate(self.drives):
            argv += drive.arguments(index)
        if self.uid is not None:
            argv = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--pdeathsig", "KILL",
                    *argv]
        return argv + self.extra

    def start(self):
        """Also after kill(): a new process on the same images and sockets."""
        for path in self.socket, self.test_socket:
            if os.path.exists(path):
                os.unlink(path)
        self.process = Process(self.command_line(), self.log_path, name=f"qemu {self.name}")

        def listening():
            if not self.process.alive:
                raise AssertionError(f"QEMU has ended: {self.process.log()}")
            try:
                self.qmp = Qmp(self.test_socket)
                return True
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        wait_until(listening, 30, lambda: f"QEMU's monitor: {self.process.log()}", interval=0.005)

    def __call__(self, command, /, **arguments):
        return self.qmp(command, **arguments)

    @property
    def pid(self):
        return self.process.pid

    @property
    def alive(self):
        return self.process.alive

    def wait_event(self, name, match=lambda data: True, timeout=30):
        return self.qmp.wait_event(name, match, timeout)

    def hmp(self, line):
        return self.qmp("human-monitor-command", command_line=line)

    def io(self, line, disk=0):
        """A qemu-io command on the node under a disk's device: io("write -P 1 0 64k"). Not while the disk is pending."""
        text = self.hmp(f'qemu-io -d {self.device(disk)} "{line}"')
        assert "rror" not in text and "failed" not in text, text
        return text

    def device(self, disk=0):
        """QOM path of the device, as query-block's "qdev" has it."""
        return self.blocks()[disk]["qdev"]

    def blocks(self):
        return [b for b in self.qmp("query-block") if b.get("qdev")]

    def image(self, disk=0):
        """query-block's "inserted" of a disk: node-name, drv, file, image."""
        return self.blocks()[disk].get("inserted", {})

    def version(self):
        v = self.qmp.greeting["QMP"]["version"]["qemu"]
        return v["major"], v["minor"], v["micro"]

    def jobs(self):
        return {j["id"]: j for j in self.qmp("query-jobs")}

    def block_graph(self):
        """(names of all nodes, names of those that a device reaches)."""
        graph = self.qmp("x-debug-query-block-graph")
        names = {n["id"]: n["name"] for n in graph["nodes"] if n["type"] == "block-driver"}
        children = {}
        for edge in graph["edges"]:
            children.setdefault(edge["parent"], []).append(edge["child"])
        seen, todo = set(), [n["id"] for n in graph["nodes"] if n["type"] == "block-backend"]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += children.get(at, [])
        return set(names.values()), {names[i] for i in seen if i in names}

    def freeze(self):
        """SIGSTOP: QEMU answers nobody any more."""
        self.process.freeze()

    def thaw(self):
        self.process.thaw()

    def kill(self):
        """SIGKILL, as a crash of the host's or QEMU's own."""
        self.process.kill()

    def quit(self, timeout=60):
        """Ends QEMU in order; its images are closed and flushed when this returns."""
        if self.alive:
            self.thaw()
            try:
                self.qmp("quit")
            except (ConnectionError, OSError):
                pass
            self.process.wait(timeout)
        return self.process.returncode


# ---- the writing guest ----

def guest_build():
    """Kernel, initramfs and verifier; returns the folder. Quick when they are there."""
    subprocess.run([f"{REPO}/tests/guest/build", GUEST_DIR], check=True, stdin=subprocess.DEVNULL)
    return GUEST_DIR


class Guest(Qemu):
    """A real guest that writes ordered numbers to all its disks without pause (tests/guest/writer.c).

    lanes: how many writes are in flight. ring: 4 KiB blocks for each lane on each disk; they are the first
    lanes * ring blocks of every image and must be blank at the first start. read_back: before a number overwrites an
    older one, the guest proves that the older one is still there.
    The guest sees SCSI disks before virtio disks: give the drives in that order."""

    def __init__(self, folder, name, drives, lanes=1, ring=2048, read_back=True, write=True, **more):
        self.lanes, self.ring, self.read_back, self.write = lanes, ring, read_back, write
        self.acks_path, self.console_path = f"{folder}/{name}.acks", f"{folder}/{name}.console"
        guest_build()
        super().__init__(folder, name, drives, idle=False, memory=more.pop("memory", 96), **more)

    def command_line(self):
        words = (f"console=ttyS0 quiet panic=-1 bj.lanes={self.lanes} bj.ring={self.ring} "
                 f"bj.readback={int(self.read_back)} bj.disks={len(self.drives)} bj.idle={int(not self.write)}")
        return super().command_line() + [
            "-kernel", f"{GUEST_DIR}/vmlinuz", "-initrd", f"{GUEST_DIR}/initrd", "-append", words,
            "-serial", f"file:{self.console_path}", "-device", "virtio-serial-pci",
            "-chardev", f"file,id=acks,path={self.acks_path},append=on",
            "-device", "virtserialport,chardev=acks,name=org.blockjob1.test"]

    def acks(self):
        """What the port has brought so far: ({lane: last number}, number of starts, [errors])."""
        last, starts, errors = {}, 0, []
        try:
            with open(self.acks_path) as f:
                text = f.read()
        except FileNotFoundError:
            return last, starts, errors
        for line in text[:text.rfind("\n") + 1].splitlines():
            first, _, rest = line.partition(" ")
            if first == "start":
                starts += 1
            elif first == "error":
                errors.append(rest)
            else:
                last[int(first)] = int(rest)
        return last, starts, errors

    def written(self):
        """How many writes the guest has had acknowledged, over all lanes. Raises when it has seen an error."""
        last, _, errors = self.acks()
        assert not errors, f"the guest has seen an error: {errors}"
        return sum(n + 1 for n in last.values())

    def wait_up(self, timeout=60):
        wait_until(lambda: self.acks()[1], timeout, lambda: f"the guest: {self.console()}")
        return self

    def wait_writes(self, more, timeout=60):
        """Until MORE writes have been acknowledged from now on: the guest lives and can write."""
        goal = self.written() + more
        wait_until(lambda: self.written() >= goal, timeout,
                   lambda: f"{more} more writes of the guest (it has {self.written()}, wants {goal})", interval=0.05)
        return self.written()

    def console(self):
        try:
            with open(self.console_path, errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def verify(self, images=None):
        """Proves that the images hold what was acknowledged. images: [(path, format), …], default: the drives'.

        The guest must be stopped (QMP "stop", which flushes) or QEMU gone."""
        return verify_images(images or [(d.path, d.format) for d in self.drives], self.acks_path, self.folder,
                             self.lanes * self.ring)


def verify_images(images, acks_path, folder, blocks=None, arguments=()):
    """See Guest.verify(). Returns the verifier's words; raises AssertionError with them when the images are damaged."""
    raws = []
    for index, (path, format) in enumerate(images):
        raw = f"{folder}/verify-{os.getpid()}-{index}.raw"
        run(["qemu-img", "dd", "-U", "-f", format, "-O", "raw", "bs=4096", f"count={blocks}", f"if={path}",
             f"of={raw}"], timeout=120).ok()
        raws.append(raw)
    try:
        result = run([f"{GUEST_DIR}/verify", *arguments] + (["--acks", acks_path] if acks_path else []) + raws,
                     timeout=120)
        assert result.returncode == 0, f"{result.stdout}{result.stderr}"
        return result.stdout
    finally:
        for raw in raws:
            os.unlink(raw)


# ---- a scripted peer ----

class FakeQmp:
    """A QMP server that does what real QEMU will not do on demand.

    replies: {command: value | FakeQmp.ERROR | FakeQmp.SILENCE | FakeQmp.CLOSE | bytes (sent as they are) | callable(arguments)}.
    Unknown commands get CommandNotFound. greeting: a dict, bytes, or None for none. close_at: the connection is closed
    after so many bytes were sent on it (counted for each connection). .received lists (command, arguments)."""

    ERROR, SILENCE, CLOSE = object(), object(), object()
    GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}, "capabilities": []}}
    DISK = {"device": "", "qdev": "/machine/peripheral/virtio-disk0/virtio-backend", "type": "unknown", "locked": False,
            "removable": False, "inserted": {
                "node-name": "libvirt-1-format", "drv": "qcow2", "file": "/nowhere/disk.qcow2", "ro": False,
                "backing_file_depth": 0, "encrypted": False, "detect_zeroes": "off", "write_threshold": 0,
                "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0,
                "cache": {"no-flush": False, "direct": False, "writeback": True},
                "image": {"filename": "/nowhere/disk.qcow2", "format": "qcow2", "virtual-size": 67108864,
                          "actual-size": 200704, "dirty-flag": False}}}

    GRAPH = {"nodes": [{"id": 1, "type": "block-backend", "name": DISK["qdev"]},
                       {"id": 2, "type": "block-driver", "name": "libvirt-1-format"}],
             "edges": [{"parent": 1, "child": 2, "name": "root", "perm": ["consistent-read", "write"],
                        "shared-perm": ["consistent-read"]}]}

    def __init__(self, path, replies=None, greeting=GREETING, close_at=None):
        node = dict(self.DISK["inserted"])
        self.replies = {
            "qmp_capabilities": {}, "query-status": {"status": "running", "running": True, "singlestep": False},
            "query-jobs": [], "query-block-jobs": [], "query-block": [self.DISK], "query-named-block-nodes": [node],
            "x-debug-query-block-graph": self.GRAPH, "query-fdsets": [], "query-migrate": {}, "query-block-exports": [],
            "query-iothreads": [], "query-qmp-schema": [], "query-name": {"name": "fake"},
            "query-uuid": {"UUID": "11111111-2222-3333-4444-555555555555"}, **(replies or {})}
        self.path, self.greeting, self.close_at = path, greeting, close_at
        self.received, self.connections = [], 0
        self._lock, self._clients = threading.Lock(), []
        self._listener = socket.socket(socket.AF_UNIX)
        if os.path.exists(path):
            os.unlink(path)
        self._listener.bind(path)
        os.chmod(path, 0o666)
        # The peer of a socket is who called listen(): a process of its own for each, as for real QEMUs.
        self._process = subprocess.Popen(["sleep", "infinity"], stdin=subprocess.DEVNULL, preexec_fn=self._listen)
        threading.Thread(target=self._accept, daemon=True).start()

    def _listen(self):
        die_with_parent()
        self._listener.listen(8)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        sent = 0

        def send(message):
            nonlocal sent
            data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\r\n"
            if self.close_at is not None and sent + len(data) >= self.close_at:
                client.sendall(data[:self.close_at - sent])
                client.shutdown(socket.SHUT_RDWR)
                raise ConnectionError
            client.sendall(data)
            sent += len(data)

        try:
            if self.greeting is not None:
                send(self.greeting)
            for line in client.makefile("rb"):
                # A client that resynchronises sends 0xFF first; real QEMU answers the broken input with an error.
                if line.startswith(b"\xff"):
                    send({"error": {"class": "GenericError", "desc": "JSON parse error"}})
                    line = line.lstrip(b"\xff")
                    if not line.strip():
                        continue
                command = json.loads(line)
                self._answer(send, client, command)
        except (ConnectionError, OSError, ValueError):
            pass
        finally:
            client.close()

    def _answer(self, send, client, command):
        name, arguments = command.get("execute"), command.get("arguments", {})
        with self._lock:
            self.received.append((name, arguments))
        identity = {"id": command["id"]} if "id" in command else {}
        reply = self.replies.get(name, None)
        if callable(reply):
            reply = reply(arguments)
        if reply is self.SILENCE:
            return
        if reply is self.CLOSE:
            client.shutdown(socket.SHUT_RDWR)
            raise ConnectionError
        if isinstance(reply, bytes):
            send(reply)
        elif reply is self.ERROR:
            send({"error": {"class": "GenericError", "desc": f"{name} was told to fail"}, **identity})
        elif reply is None:
            send({"error": {"class": "CommandNotFound", "desc": f"The command {name} has not been found"}, **identity})
        else:
            send({"return": reply, **identity})

    def commands(self):
        with self._lock:
            return [name for name, _ in self.received]

    def event(self, name, data=None):
        """Sends an event to every connected client."""
        now = time.time()
        message = {"event": name, "data": data or {},
                   "timestamp": {"seconds": int(now), "microseconds": int(now % 1 * 1e6)}}
        self.send_raw(json.dumps(message).encode() + b"\r\n")

    def send_raw(self, data):
        for client in list(self._clients):
            try:
                client.sendall(data)
            except OSError:
                self._clients.remove(client)

    def disconnect(self):
        """Closes every connection; new ones are accepted."""
        for client in self._clients:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._clients = []

    def stop(self):
        self._listener.close()
        self.disconnect()
        self._process.kill()
        self._process.wait()
        if os.path.exists(self.path):
            os.unlink(self.path)
