#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the translations in polkit/po belong to the policy: each is of a text that polkit shows, and names the same details
of the call. A text without a translation is shown in English. Fails with a line for each mistake."""

import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

here = pathlib.Path(__file__).parent
complaints = []


def entries(path):
    """[(msgid, msgstr)] of a .po file."""
    unwrapped = subprocess.run(["msgcat", "--no-wrap", "--no-location", path], capture_output=True, text=True, check=True)
    pairs = re.findall(r'^msgid "(.+)"\nmsgstr "(.*)"$', unwrapped.stdout, re.MULTILINE)
    return [tuple(re.sub(r"\\(.)", r"\1", text) for text in pair) for pair in pairs]


shown = set()
for action in ElementTree.parse(here / "org.blockjob1.policy").findall("action"):
    for tag in "description", "message":
        element = action.find(tag)
        shown.add(element.text)
        if element.get("gettext-domain") != "blockjobd":
            complaints.append(f"{action.get('id')}: its {tag} is not marked for translation")
languages = [l for l in (here / "po" / "LINGUAS").read_text(encoding="utf-8").splitlines() if not l.startswith("#")]
if sorted(languages) != sorted(p.stem for p in (here / "po").glob("*.po")):
    complaints.append("LINGUAS does not list the files in po/")
for language in languages:
    path = here / "po" / f"{language}.po"
    checked = subprocess.run(["msgfmt", "--check", "-o", "/dev/null", path], capture_output=True, text=True, check=False)
    if checked.returncode:
        complaints.append(checked.stderr)
    found = entries(path)
    if not found:
        complaints.append(f"{language}: nothing is translated")
    for text, translation in found:
        if text not in shown:
            complaints.append(f"{language}: polkit never shows {text!r}")
        details = [sorted(re.findall(r"\$\([a-z-]+\)", s)) for s in (text, translation)]
        if translation and details[0] != details[1]:
            complaints.append(f"{language}: {translation!r} does not name {details[0]}")
for complaint in complaints:
    print(complaint)
sys.exit(1 if complaints else 0)
