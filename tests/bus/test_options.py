# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dictionaries of options: each key with a wrong type, a value out of range, unknown keys; the error names the key and
nothing has happened."""
import os
import re
import socket

from gi.repository import GLib
from harness import *
from scenes import *

V = GLib.Variant

# key → (type, values that are out of range). Booleans and descriptors cannot be out of range.
COPY = {
    "format": ("s", ["", "vmdk", "QCOW2", "raw "]),
    "existing": ("b", []),
    "fd": ("h", []),
    "sync": ("s", ["", "incremental"]),
    "backing": ("s", ["", "relative", "/a/../b", "/a\nb", "/" + "x" * 4096]),
    "backing-format": ("s", ["", "vmdk"]),
    "copy-mode": ("s", ["", "foreground"]),
    "speed": ("t", [2 ** 63, 2 ** 64 - 1]),
    "granularity": ("u", [1, 256, 511, 513, 3 << 20, 1 << 27, 2 ** 32 - 1]),
    "buf-size": ("t", [(1 << 30) + 1, 2 ** 64 - 1]),
    "on-source-error": ("s", ["", "ignore"]),
    "on-target-error": ("s", ["", "ignore"]),
    "on-ready": ("s", ["", "cancel"]),
    "cluster-size": ("u", [1, 511, 4 << 20, 65537]),
    "preallocation": ("s", ["", "on"]),
    "discard": ("s", ["", "on"]),
    "detect-zeroes": ("s", ["", "yes"]),
    "cache": ("s", ["", "none"]),
    "aio": ("s", ["", "io_uring"]),
    "pause-guest": ("b", []),
    "max-pause": ("t", [2 ** 63]),
    "delete-source": ("b", []),
    "delete-target": ("b", []),
    "force": ("b", []),
    "request-id": ("s", ["", "x" * 65, "a\nb", "ä" * 65]),
}
GROUP = {key: COPY[key] for key in ("on-ready", "pause-guest", "max-pause", "request-id")}
PULL = {
    "base": ("s", ["", "x" * 4097, "a\nb"]),
    "top": ("s", ["", "x" * 4097, "a\nb"]),
    "backing-file": ("s", ["", "x" * 1024, "x" * 4097, "a\nb"]),
    "speed": ("t", [2 ** 63, 2 ** 64 - 1]),
    "on-error": ("s", ["", "ignore"]),
    "delete-image": ("b", []),
    "request-id": ("s", ["", "x" * 65, "a\nb", "ä" * 65]),
}
COMMIT = {
    **PULL,
    "shallow": ("b", []),
    "active": ("b", []),
    "on-ready": ("s", ["", "cancel"]),
    "pause-guest": ("b", []),
    "max-pause": ("t", [2 ** 63]),
}
METHODS = {
    "AttachDomain": ("Manager", {"fd": ("h", []), "definition": ("s", ["", "x", "/a/../b", "/\u0001"])}),
    "ListHistory": ("Manager", {
        **{key: ("s", ["", "x" * 4097, "a\nb"]) for key in ("domain", "disk", "kind", "result")},
        "since": ("t", [2 ** 63]), "until": ("t", [2 ** 63]), "limit": ("u", [0, 10001, 2 ** 32 - 1])}),
    "GetXML": ("Domain", {"persistent": ("b", [])}),
    "Detach": ("Domain", {"force": ("b", [])}),
    "CopyDisks": ("Domain", GROUP),
    "Copy": ("Disk", COPY),
    "Commit": ("Disk", COMMIT),
    "Pull": ("Disk", PULL),
    "Check": ("Disk", COPY),
    "Pivot": ("Job", {"pause-guest": ("b", []), "max-pause": ("t", [2 ** 63])}),
    "Finish": ("Job", {"pause-guest": ("b", []), "max-pause": ("t", [2 ** 63])}),
    "Cancel": ("Job", {"force": ("b", []), "delete-target": ("b", [])}),
}
TYPES = {"b": V("b", True), "y": V("y", 1), "n": V("n", 1), "q": V("q", 1), "i": V("i", 1), "u": V("u", 4096),
         "x": V("x", 1), "t": V("t", 4096), "d": V("d", 1.0), "s": V("s", "x"), "o": V("o", "/x"), "g": V("g", "s"),
         "as": V("as", ["x"]), "v": V("v", V("s", "x")), "a{sv}": V("a{sv}", {}), "(s)": V("(s)", ("x",)),
         "ay": V("ay", b"x")}
LEADING = {"AttachDomain": ("ss", ("x", "/nowhere")), "Copy": ("s", ("/nowhere/x",)),
           "Check": ("ss", ("copy", "/nowhere/x")),
           "CopyDisks": ("a(ssa{sv})", ([("vda", "/nowhere/x", {})],))}


class Scene:
    def __init__(self, t):
        self.t = t
        self.service, self.qemu, self.domain = small(t)
        self.job = slow_job(t, self.domain.disk())
        self.paths = {"Manager": ROOT, "Domain": self.domain.path, "Disk": self.domain.disk().path,
                      "Job": self.job.path}
        self.before = self.snapshot()

    def snapshot(self):
        objects = self.service.objects()
        for interfaces in objects.values():
            for values in interfaces.values():
                for name in "Done", "Total", "Rate", "ExpectedEnd", "Allocated":
                    values.pop(name, None)
        return objects, sorted(os.listdir(self.t.path("copies")))

    def call(self, method, dictionary, fds=None):
        interface, _ = METHODS[method]
        signature, leading = LEADING.get(method, ("", ()))
        return self.service.conn.call(self.paths[interface], f"{PREFIX}.{interface}", method,
                                      f"({signature}a{{sv}})", (*leading, dictionary), fds=fds)

    def refused(self, method, dictionary, key):
        try:
            error = refused(lambda: self.call(method, dictionary), "InvalidArgs")
        except AssertionError as e:
            raise AssertionError(f"{method} {dictionary}: {e}") from None
        assert key in error.message, f"{method}: {key} is not named in {error.message!r}"
        return error

    def unchanged(self):
        assert self.snapshot() == self.before, "something has happened"


def test_tables_of_this_test_are_those_of_the_contract(t):
    with open(f"{REPO}/dbus-interfaces/org.blockjob1.Disk.xml") as f:
        text = f.read()
    for method, table in ("Copy", COPY), ("Commit", COMMIT):
        page = text[text.index(f"{method}:"):]
        named = dict(re.findall(r'"([a-z-]+)" ([a-z])\b', page[:page.index("<method")]))
        assert named == {key: type for key, (type, _) in table.items()}


def test_wrong_type_of_each_key_is_refused_and_named(t):
    scene = Scene(t)
    for method, (_, keys) in METHODS.items():
        for key, (type, _) in keys.items():
            for other, value in TYPES.items():
                if other != type:
                    error = scene.refused(method, {key: value}, key)
                    assert re.search(rf"\b{type}\b", error.message), f"the right type is not told: {error}"
    scene.unchanged()


def test_value_out_of_range_of_each_key_is_refused_and_named(t):
    scene = Scene(t)
    tried = 0
    for method, (_, keys) in METHODS.items():
        for key, (type, values) in keys.items():
            for value in values:
                error = scene.refused(method, {key: V(type, value)}, key)
                assert len(error.message) < 600, "the whole value is echoed"
                tried += 1
    assert tried > 100
    scene.unchanged()


def test_keys_of_a_member_are_those_of_a_copy_without_those_of_the_end(t):
    scene = Scene(t)

    def refuse(dictionary, key):
        error = refused(lambda: scene.domain.call("CopyDisks", "(a(ssa{sv})a{sv})", [("vda", "/nowhere/x", dictionary)], {}),
                        "InvalidArgs")
        assert key in error.message and '"vda"' in error.message, error.message
    for key, (type, values) in COPY.items():
        if key in GROUP:
            refuse({key: TYPES[type]}, key)
        for value in values:
            refuse({key: V(type, value)}, key)
    refuse({"no-such-key": V("b", True)}, "no-such-key")
    scene.unchanged()


def test_unknown_key_is_refused_and_named(t):
    scene = Scene(t)
    for method, (_, keys) in METHODS.items():
        for key in "no-such-key", "Force", "force ", "x" * 5000, "", "a\nb":
            error = scene.refused(method, {key: V("b", True)}, key[:20].strip("\n").split("\n")[0])
            assert len(error.message) < 1200 and "\n" not in error.message
            # What there is instead is told.
            assert all(known in error.message for known in keys), error
    scene.unchanged()


def test_good_keys_do_not_excuse_a_bad_one(t):
    scene = Scene(t)
    scene.refused("Copy", {"format": V("s", "qcow2"), "speed": V("t", 1), "colour": V("s", "red")}, "colour")
    scene.refused("Cancel", {"force": V("b", True), "delete-target": V("s", "yes")}, "delete-target")
    scene.unchanged()


def test_sixty_five_keys_are_refused(t):
    scene = Scene(t)
    for method in METHODS:
        error = scene.refused(method, {f"key{i}": V("b", True) for i in range(65)}, "64")
        assert len(error.message) < 200
        scene.refused(method, {f"key{i}": V("b", True) for i in range(64)}, "key")
    scene.unchanged()


def dictionary_with_key_twice():
    """GLib's own dictionaries would let the second one win."""
    entry = V("a{sv}", {"speed": V("t", 1)}).get_child_value(0)
    return V.new_array(entry.get_type(), [entry, entry])


def test_key_that_is_given_twice_is_refused(t):
    scene = Scene(t)
    args = V.new_tuple(V("s", "/nowhere/x"), dictionary_with_key_twice())
    try:
        scene.service.conn.gio.call_sync(PREFIX, scene.paths["Disk"], f"{PREFIX}.Disk", "Copy", args, None, 0, 10000,
                                         None)
    except GLib.Error as e:
        assert "InvalidArgs" in e.message and "speed" in e.message and "twice" in e.message, e.message
    else:
        raise AssertionError("accepted")
    scene.unchanged()


def test_combinations_that_make_no_sense_are_refused_and_name_a_key(t):
    scene = Scene(t)
    cases = [
        ({"format": "raw", "cluster-size": 65536}, "cluster-size"),
        ({"format": "raw", "preallocation": "metadata"}, "preallocation"),
        ({"format": "raw", "sync": "top"}, "sync"),
        ({"existing": True}, "format"),
        ({"existing": True, "format": "raw", "preallocation": "falloc"}, "preallocation"),
        ({"existing": True, "format": "qcow2", "cluster-size": 65536}, "cluster-size"),
        ({"existing": True, "format": "qcow2", "sync": "top"}, "backing"),
        ({"backing": "/x", "backing-format": "raw"}, "backing"),
        ({"sync": "top", "backing": "/x"}, "backing"),
        ({"sync": "top", "existing": True, "format": "qcow2", "backing": "/x"}, "backing-format"),
        ({"backing-format": "raw"}, "backing-format"),
        ({"sync": "none", "on-ready": "pivot"}, "on-ready"),
        ({"aio": "native", "cache": "writeback"}, "aio"),
        ({"detect-zeroes": "unmap", "discard": "ignore"}, "detect-zeroes"),
        ({"granularity": 1 << 20, "buf-size": 4096}, "buf-size"),
    ]
    for values, key in cases:
        scene.refused("Copy", {k: V(COPY[k][0], v) for k, v in values.items()}, key)
        scene.refused("Check", {k: V(COPY[k][0], v) for k, v in values.items()}, key)
    scene.unchanged()


def test_arguments_out_of_range_are_refused_and_named(t):
    scene = Scene(t)
    job, manager = scene.job, scene.service.manager
    for name, call in {
        "bytes_per_second": lambda: job.set_speed(2 ** 63), "on_ready": lambda: job.set_on_ready("cancel"),
        "mode": lambda: job.set_copy_mode("fast"), "verb": lambda: scene.domain.disk().check("/x", verb="backup"),
        "state": lambda: job.call("WaitFor", "(st)", "done", 0),
    }.items():
        refused(call, "InvalidArgs", text=name)
    for socket in "", "relative", "/a/../b", "/\u0001", "/" + "x" * 5000:
        refused(lambda: manager.call("AttachDomain", "(ssa{sv})", "x", socket, {}), "InvalidArgs", text="qmp_socket")
    for name in "a/b", "x" * 129, "ä" * 65, "a\nb", "\u007f":
        refused(lambda: manager.call("AttachDomain", "(ssa{sv})", name, "/nowhere", {}), "InvalidArgs", text="name")
    for target in "", "relative", "/a/../b", "/a\nb", "nbd:localhost:10809", "json:{}", "/" + "x" * 5000:
        refused(lambda: scene.domain.disk().copy(target), "InvalidArgs", "BadTarget")
    refused(lambda: scene.service.job(2 ** 64 - 1), "NoSuchJob")
    for name in "", "nobody", "x" * 100000, "\u0001", "00000000-0000-0000-0000-000000000001":
        refused(lambda: scene.service.domain(name), "NoSuchDomain")
    scene.unchanged()


def test_descriptors_that_are_no_target_are_refused(t):
    s, _qemu, domain = small(t)
    disk = domain.disk()
    r, w = os.pipe()
    os.mkdir(t.path("folder"))
    with open(t.path("short"), "wb") as f:
        f.truncate(1000)
    good = t.image("good.qcow2", size="1M")
    opened = [os.open(t.path("folder"), os.O_RDONLY), os.open(good, os.O_RDONLY), os.open(good, os.O_PATH),
              os.open("/dev/null", os.O_RDWR), os.open(good, os.O_WRONLY), os.open(t.path("short"), os.O_RDWR)]
    for fd in r, w, *opened:
        refused(lambda: disk.copy("mine", fd=fd, format="qcow2"), "BadTarget", "InvalidArgs", "TargetTooSmall",
                "NotSupported")
        os.close(fd)
    refused(lambda: s.conn.call(disk.path, f"{PREFIX}.Disk", "Copy", "(sa{sv})",
                                ("x", {"fd": V("h", 7), "format": V("s", "raw")})),
            "InvalidArgs", "BadTarget", "Failed", "InconsistentMessage")
    assert not s.jobs()
    fd = os.open(good, os.O_RDWR)
    disk.copy("mine", fd=fd, format="qcow2", on_ready="finish").wait_result("finished")
    os.close(fd)


def test_socket_descriptors_that_are_no_qmp_are_refused(t):
    s = t.service("[Qemu]\nGreetingTimeout=200ms\n")
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ours, theirs = socket.socketpair()
    with open("/dev/null") as null:
        for fd in udp.fileno(), null.fileno():
            refused(lambda: s.attach("x", "", fd=fd), "InvalidArgs", "BadTarget", "NotSupported")
    refused(lambda: s.attach("x", "", fd=theirs), "DomainUnresponsive")
    refused(lambda: s.attach("x", "/somewhere", fd=theirs), "InvalidArgs", text="fd")
    ours.close()
    refused(lambda: s.domain("x"), "NoSuchDomain")
