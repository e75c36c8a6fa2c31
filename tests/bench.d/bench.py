#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The performance of the service, measured beside what it is compared with, in the same run on the same machine."""
import argparse
import json
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "lib")]

from bulk import copy  # noqa: E402
from latency import latency  # noqa: E402
from scale import scale  # noqa: E402
from stage import MeasureError, Report, Stage  # noqa: E402


def main():
    p = argparse.ArgumentParser(prog="tests/bench", description=__doc__)
    p.add_argument("what", nargs="+", choices=["latency", "copy", "scale"])
    p.add_argument("--rounds", type=int, default=100, metavar="N", help="latency: rounds (100)")
    p.add_argument("--tmpfs", action="store_true", help="the service's state on a tmpfs, the images stay on the disk")
    p.add_argument("--size", type=int, default=1024, metavar="MIB", help="copy: dense data (1024)")
    p.add_argument("--runs", type=int, default=5, metavar="N", help="copy: of each kind, in turns (5)")
    p.add_argument("--domains", type=int, default=100, metavar="N", help="scale: idle QEMUs with one disk each (100)")
    p.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    options = p.parse_args()
    # So that nothing is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report(quiet=options.json)
    try:
        for what in options.what:
            {"latency": latency, "copy": copy, "scale": scale}[what](report, options, Stage)
    except MeasureError as e:
        print(e, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"figures": report.figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
