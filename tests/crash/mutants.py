# SPDX-License-Identifier: LGPL-2.1-or-later
"""Planted mistakes: mutants/NAME.patch, with what is wrong and what must find it in its first lines. The patched sources
are compiled beside the build and linked in front of its library."""
import glob
import json
import os
import re
import shlex
import shutil
import subprocess

from process import BUILD, REPO, run
from proofs import power_cuts, write_ahead
from sweeping import hunt

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mutants")
IMAGES = 240


def mutants():
    return sorted(os.path.basename(p)[:-len(".patch")] for p in glob.glob(f"{FOLDER}/*.patch"))


class Mutant:
    def __init__(self, name):
        self.path = f"{FOLDER}/{name}.patch"
        with open(self.path) as f:
            text = f.read()
        self.mistake = re.search(r"^Mistake: (.+)$", text, re.M)[1]
        self.hunter, self.scenario = re.search(r"^Caught-by: (\S+) (\S+)$", text, re.M).groups()
        self.sources = re.findall(r"^\+\+\+ b/(\S+\.c)$", text, re.M)

    def build(self, folder):
        """Returns the program's path. A patch that does not fit any more is an error."""
        shutil.copytree(f"{REPO}/service", f"{folder}/service")
        run(["patch", "-p1", "--no-backup-if-mismatch", "-i", self.path], directory=folder).ok()
        with open(f"{BUILD}/compile_commands.json") as f:
            commands = {os.path.relpath(os.path.join(c["directory"], c["file"]), REPO): c["command"]
                        for c in json.load(f)}
        objects = [compiled(commands[source], f"{folder}/{source}", f"{folder}/{number}.o")
                   for number, source in enumerate(self.sources)]
        link = subprocess.run(["ninja", "-C", BUILD, "-t", "commands", "service/blockjobd"], check=True,
                              capture_output=True, text=True).stdout.splitlines()[-1]
        words = shlex.split(link)
        at = words.index("-o") + 1
        words[at:at + 1] = [f"{folder}/blockjobd", *objects]
        run(words, directory=BUILD).ok()
        return f"{folder}/blockjobd"


def compiled(command, source, to):
    words, kept = iter(shlex.split(command)), []
    for word in words:
        if word in ("-MQ", "-MF", "-o", "-c"):
            next(words)
        elif word != "-MD":
            kept.append(word)
    run([*kept, "-c", source, "-o", to], timeout=300, directory=BUILD).ok()
    return to


def by_power_cut(t, scenario, service):
    return next(iter(power_cuts(t, scenario, IMAGES, 1, service)[2]), None)


def by_write_ahead(t, scenario, service):
    return next(iter(write_ahead(t, scenario, 1, service)[1]), None)


HUNTERS = {"sweep": hunt, "power-cut": by_power_cut, "write-ahead": by_write_ahead}


def must_be_caught(t, name):
    mutant = Mutant(name)
    folder = t.path("mutant")
    os.makedirs(folder)
    found = HUNTERS[mutant.hunter](t, mutant.scenario, mutant.build(folder))
    assert found, f"{mutant.mistake}: not seen by {mutant.hunter} {mutant.scenario}"
    print("note: 1 planted mistakes, 1 caught")
    words = [line.strip() for line in found.splitlines() if line.strip()]
    print(f"note: caught by {mutant.hunter} {mutant.scenario}: {words[0][:200]} {words[-1][:300] if len(words) > 1 else ''}")
