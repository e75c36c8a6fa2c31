#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares the manual and the installed lists with what they describe: interface files, configuration keys, polkit
actions, error names, message ids. Prints what is missing; fails if anything is."""

import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
complaints = []


def read(name):
    return (root / name).read_text(encoding="utf-8")


def plain(troff):
    """Text of a manual page without the marks that can stand inside a name."""
    return troff.replace("\\-", "-").replace("\\(->", "->")


def complain_unless(condition, what):
    if not condition:
        complaints.append(what)


def arguments(element, direction):
    return ", ".join(
        f"{arg.get('type')} {arg.get('name')}"
        for arg in element.findall("arg")
        if element.tag == "signal" or arg.get("direction") == direction
    )


def signature(element):
    text = f".B {element.get('name')}({arguments(element, 'in')})"
    if element.tag == "method" and arguments(element, "out"):
        text += f" -> ({arguments(element, 'out')})"
    return text


def property_mark(element):
    words = [element.get("type")]
    for annotation in element.findall("annotation"):
        if annotation.get("name") == "org.freedesktop.DBus.Property.EmitsChangedSignal":
            words.append(annotation.get("value"))
    return re.compile(rf"[ \"]{element.get('name')}[ \"]+\({', '.join(words)}\)")


def check_interfaces():
    sections = re.split(r"^\.SH ", plain(read("docs/org.blockjob1.5")), flags=re.MULTILINE)
    for path in sorted((root / "dbus-interfaces").glob("*.xml")):
        text = path.read_text(encoding="utf-8")
        interface = ElementTree.fromstring(text).find("interface")
        name = interface.get("name")
        page = next((s for s in sections if s.startswith(name.upper() + "\n")), "")
        for element in interface:
            if element.tag == "property":
                found = property_mark(element).search(page)
            else:
                found = signature(element) in page.splitlines()
            complain_unless(found, f"org.blockjob1.5: {name}.{element.get('name')} is missing or differs")
        for option in set(re.findall(r"\"([a-z][a-z-]+)\" [a-z]\b", text)):
            complain_unless(option in page, f"org.blockjob1.5: {name}: option {option} is missing")


def check_errors():
    page = plain(read("docs/org.blockjob1.5")).split(".SH ERRORS", 1)[1]
    for name in re.findall(r"Error\.(\w+)\"\)", read("service/failure.h")):
        complain_unless(re.search(rf"\b{name}\b", page), f"org.blockjob1.5: error {name} is missing")


def check_configuration():
    page = plain(read("docs/blockjobd.conf.5"))
    sample = read("units/blockjobd.conf")
    key = re.compile(r"\{\"(\w+)\", \"(\w+)\", TYPE_[^{}]*?\"([^\"]*)\"\}", re.DOTALL)
    keys = key.findall(read("service/config.c"))
    complain_unless(keys, "service/config.c: no keys found")
    for group, name, default in keys:
        section = page.split(f'.SH "[{group.upper()}]"', 1)[-1].split(".SH", 1)[0]
        entry = re.search(rf"^\.B {name}=$(.*?)(?=^\.TP|\Z)", section, re.MULTILINE | re.DOTALL)
        complain_unless(entry, f"blockjobd.conf.5: [{group}] {name}= is missing")
        documented = re.search(r"Default:\s+(?:\.IR )?(.*?) ?\.$", entry.group(1), re.MULTILINE) if entry else None
        complain_unless(
            documented and documented.group(1) == default,
            f"blockjobd.conf.5: the default of {name}= is not {default}",
        )
        section = sample.split(f"[{group}]", 1)[-1].split("\n[", 1)[0]
        complain_unless(
            f"\n#{name}={default}\n" in section + "\n", f"blockjobd.conf: #{name}={default} is missing"
        )
    names = {name for _, name, _ in keys}
    for name in re.findall(r"^#(\w+)=", sample, re.MULTILINE):
        complain_unless(name in names, f"blockjobd.conf: there is no key {name}=")
    for name in re.findall(r"^\.B (\w+)=$", page, re.MULTILINE):
        complain_unless(name in names, f"blockjobd.conf.5: there is no key {name}=")


def check_actions():
    actions = re.findall(r"X\(\w+, \"(org\.blockjob1\.[\w-]+)\"\)", read("service/auth/auth.h"))
    policy = ElementTree.fromstring(read("polkit/org.blockjob1.policy")).findall("action")
    complain_unless(
        sorted(actions) == sorted(a.get("id") for a in policy),
        "org.blockjob1.policy: the actions are not those of auth.h",
    )
    page = plain(read("docs/blockjobd.8"))
    for action in policy:
        name = action.get("id")
        owner = [a.text for a in action.findall("annotate") if a.get("key") == "org.freedesktop.policykit.owner"]
        complain_unless(owner == ["unix-user:blockjobd"], f"org.blockjob1.policy: {name} has no owner")
        complain_unless(f".B {name}\n" in page, f"blockjobd.8: action {name} is missing")


def check_catalog():
    ids = re.findall(r"#define MESSAGE_\w+ \"([0-9a-f]{32})\"", read("service/log.h"))
    catalog = re.findall(r"^-- ([0-9a-f]{32})$", read("units/blockjobd.catalog"), re.MULTILINE)
    complain_unless(sorted(ids) == sorted(catalog), "blockjobd.catalog: the ids are not those of log.h")


check_interfaces()
check_errors()
check_configuration()
check_actions()
check_catalog()
for complaint in complaints:
    print(complaint)
sys.exit(1 if complaints else 0)
