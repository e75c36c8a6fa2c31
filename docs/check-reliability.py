#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks that docs/reliability.md names at least forty faults, and that every test that it names is there."""

import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
AT_LEAST = 40


def test_exists(name):
    suite, file, test = name.split("/")
    if suite == "unit":
        path = root / "tests" / "unit" / f"test-{file}.c"
        pattern = rf"^\s*(?:TEST|ADD)\({test}\);"
    else:
        path = root / "tests" / suite / f"test_{file}.py"
        pattern = rf"^def test_{test}\(t\):"
    return path.exists() and re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)


complaints, rows = [], 0
for line in (root / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines():
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    if not line.startswith("|") or cells[0] == "What fails" or set(line) <= set("|-"):
        continue
    rows += 1
    names = re.findall(r"`([^`]*)`", cells[-1])
    if len(cells) != 3 or not all(cells) or not names:
        complaints.append(f"a line needs a fault, what happens, and a test: {line}")
    for name in names:
        if not re.fullmatch(r"[a-z]+/[\w-]+/\w+", name) or not test_exists(name):
            complaints.append(f"there is no test {name}")
if rows < AT_LEAST:
    complaints.append(f"{rows} lines, at least {AT_LEAST} are promised")
for complaint in complaints:
    print(complaint)
sys.exit(1 if complaints else 0)
