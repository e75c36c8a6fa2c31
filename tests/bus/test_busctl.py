# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lines of README.md with busctl do what it says, as they stand there."""
import os
import shutil

from harness import *
from scenes import *


def lines_of_readme():
    """The commands in the code block behind <!-- busctl -->, continued lines joined."""
    with open(f"{REPO}/README.md") as f:
        text = f.read()
    assert text.count("<!-- busctl -->\n") == 1
    block = text.split("<!-- busctl -->\n", 1)[1].split("```", 2)[1]
    body = block.split("\n", 1)[1].replace("\\\n", " ")
    return [line.strip() for line in body.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_five_lines_with_busctl_copy_a_disk_and_pivot(t):
    assert shutil.which("busctl"), "busctl is missing"
    s = t.service()
    os.mkdir(t.path("fast"))
    qemu = t.qemu("web", [t.image("old.qcow2", size="4M", fill="2M")])
    lines = lines_of_readme()
    assert len(lines) == 5 and all(line.startswith("busctl ") for line in lines), lines
    expected = ['o "/org/blockjob1/domain/web"\n', 'to 1 "/org/blockjob1/job/j1"\n', 'ss "ready" ""\n', "",
                'ss "concluded" "pivoted"\n']
    for line, output in zip(lines, expected):
        assert "--address" not in line
        command = line.replace("/run/web.sock", qemu.socket).replace("/srv/fast", t.path("fast"))
        result = run(["bash", "-c", command], env=t.bus.env)
        assert result.returncode == 0 and result.stdout == output, f"{line}: {result}"
    target = t.path("fast/web.qcow2")
    assert s.domain("web").disk().Source == target
    assert s.manager.history()[0]["result"] == "pivoted"
    qemu.quit()
    image_compare(t.path("old.qcow2"), target)


def test_busctl_introspects_every_object_in_whole_lines(t):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/x")).wait("ready")
    for path, interface in ((ROOT, "Manager"), (domain.path, "Domain"), (domain.disk().path, "Disk"),
                            (job.path, "Job")):
        result = run(["busctl", "introspect", PREFIX, path, f"{PREFIX}.{interface}"], env=t.bus.env).ok()
        live = s.conn.get_all(path, f"{PREFIX}.{interface}")
        assert all(any(line.startswith(f".{name} ") for line in result.stdout.splitlines()) for name in live), result
    tree = run(["busctl", "tree", "--list", PREFIX], env=t.bus.env).ok()
    assert {domain.path, domain.disk().path, job.path} <= set(tree.stdout.split()), tree
