# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every property and every method is tried once with busctl by a user who may do nothing."""
from xml.etree import ElementTree

from harness import *
from machine import *

NOBODY = 65534
# What a method is given for an argument of that type, as busctl wants it.
WORDS = {"s": ["web"], "t": ["1"], "u": ["1"], "b": ["false"], "o": ["/"], "a{sv}": ["0"], "a(ssa{sv})": ["0"], "as": ["0"]}


def members(m, path):
    """(interface, kind, name, signature of the arguments or the type) of all that is ours on that object."""
    for interface in ElementTree.fromstring(m.conn.introspect(path)).findall("interface"):
        if not interface.get("name").startswith(PREFIX):
            continue
        for p in interface.findall("property"):
            yield interface.get("name"), "property", p.get("name"), [p.get("type")]
        for method in interface.findall("method"):
            types = [a.get("type") for a in method.findall("arg") if a.get("direction", "in") == "in"]
            yield interface.get("name"), "method", method.get("name"), types


def test_every_member_answers_a_stranger(t):
    m = Machine(t)
    _qemu, disk, job = m.slow_copy()
    before, seen, wrong = main_pid(), [], []
    for path in ROOT, disk.Domain, disk.path, job.path:
        for interface, kind, name, types in members(m, path):
            if kind == "property":
                argv = ["get-property", PREFIX, path, interface, name]
            else:
                argv = ["call", PREFIX, path, interface, name]
                argv += ["".join(types), *[w for x in types for w in WORDS[x]]] if types else []
            answer = busctl("--timeout=10", *argv, uid=NOBODY)
            words = (answer.stdout or answer.stderr).strip()
            seen.append(f"{interface.removeprefix(PREFIX + '.')}.{name}: {words[:200]}")
            # A property can always be read; a method answers or says why not, in words, and at once.
            if (kind == "property" and answer.returncode) or not (words or answer.returncode == 0):
                wrong.append(seen[-1])
            if "timed out" in words or "Remote peer disconnected" in words or "did not receive a reply" in words.lower():
                wrong.append(seen[-1])
    with open("/tests/members", "w") as f:
        f.write("\n".join(seen) + "\n")
    with open("/tests/figures", "a") as f:
        print(f"{len(seen)} members tried by nobody", file=f)
    assert len(seen) > 60 and not wrong, "\n".join(wrong)
    assert main_pid() == before
    # Nobody has changed anything.
    assert job.State == "running" and job.SpeedLimit == 1 << 20 and not job.Paused, job.properties()
    assert set(m.disks()) == {disk.path}
