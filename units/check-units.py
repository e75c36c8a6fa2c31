#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether systemd understands the units without a word, and how much the service could do if it were taken over:
check-units.py BUILT-UNITS SOURCES. Prints what is wrong; fails if anything is."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

# In tenths of what systemd-analyze prints; promised by blockjobd(8).
THRESHOLD, THRESHOLD_DESCRIPTORS = 15, 7
SERVICE = "blockjobd.service"

built, sources = map(pathlib.Path, sys.argv[1:3])
complaints = []


def complain(what, finished):
    complaints.append(f"{what}:\n{finished.stdout}{finished.stderr}")


def run(*argv, folder):
    return subprocess.run(["systemd-analyze", *argv], cwd=folder, capture_output=True, text=True, check=False,
                          env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:", "LC_ALL": "C.UTF-8"})


def security(folder, threshold, what):
    finished = run("security", "--offline=yes", "--no-pager", f"--threshold={threshold}", f"./{SERVICE}", folder=folder)
    print(f"{what}: {finished.stdout.strip().splitlines()[-1]}")
    if finished.returncode:
        complain(f"{what}: more than {threshold / 10}", finished)


def verify(folder, *units):
    finished = run("verify", "--man=no", "--recursive-errors=no", *(f"./{u}" for u in units), folder=folder)
    words = [line for line in finished.stderr.splitlines() if "blockjobd" in line]
    if finished.returncode or words:
        complain("systemd-analyze verify", finished)


if not shutil.which("systemd-analyze"):
    sys.exit("systemd-analyze is missing; it is in Debian's package systemd")
with tempfile.TemporaryDirectory(prefix="bj-units-") as name:
    folder = pathlib.Path(name)
    text = (built / SERVICE).read_text(encoding="utf-8")
    # What is not installed yet cannot be executed.
    lines = ["ExecStart=/bin/true" if line.startswith("ExecStart=") else line for line in text.splitlines()]
    (folder / SERVICE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(built / "blockjobd.path", folder)
    shutil.copy(sources / "blockjobd-recovered.target", folder)
    verify(folder, SERVICE, "blockjobd.path", "blockjobd-recovered.target")
    security(folder, THRESHOLD, SERVICE)
    drop_ins = folder / f"{SERVICE}.d"
    drop_ins.mkdir()
    shutil.copy(sources / "descriptors-only.conf", drop_ins)
    verify(folder, SERVICE)
    security(folder, THRESHOLD_DESCRIPTORS, "descriptors-only.conf")
for complaint in complaints:
    print(complaint)
sys.exit(1 if complaints else 0)
