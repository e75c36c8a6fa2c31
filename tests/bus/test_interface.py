# SPDX-License-Identifier: LGPL-2.1-or-later
"""The contract: live introspection, the files in dbus-interfaces/, the polkit policy, the code and the manual agree."""
import glob
import re
import sys
from xml.etree import ElementTree

from gi.repository import GLib
from harness import *
from scenes import *

POLICY = f"{REPO}/polkit/org.blockjob1.policy"


# A standard of systemd's; see org.freedesktop.LogControl1(5).
LOG_CONTROL, LOG_PATH = "org.freedesktop.LogControl1", "/org/freedesktop/LogControl1"


def documented():
    files = sorted(glob.glob(f"{REPO}/dbus-interfaces/*.xml"))
    found = {}
    for path in files:
        with open(path) as f:
            found.update(interfaces_of(f.read()))
    assert found
    return found


def all_objects(t):
    s, _qemu, domain = small(t)
    job = domain.disk().copy(t.path("copies/new.qcow2"))
    job.wait("ready")
    return s, walk(s.conn)


def test_introspection_of_every_object_is_the_contract(t):
    s, objects = all_objects(t)
    files = documented()
    seen = set()
    for path, interfaces in objects.items():
        for name, live in interfaces.items():
            if not name.startswith(OURS):
                assert name.startswith(STANDARD) or (name, path) == (LOG_CONTROL, LOG_PATH), f"{path}: {name}"
                continue
            seen.add(name)
            wanted = files[name]
            assert live.methods == wanted.methods, f"{path} {name}: methods differ"
            assert live.signals == wanted.signals, f"{path} {name}: signals differ"
            assert live.properties == wanted.properties, f"{path} {name}: properties differ"
            assert not live.annotations, f"{path} {name}: annotations {live.annotations}"
            assert list(live.methods) == list(wanted.methods), f"{path} {name}: another order of methods"
    assert seen == set(files), "interfaces without an object, or objects without a file"


def test_every_object_has_its_one_interface(t):
    _s, objects = all_objects(t)
    kinds = {ROOT: "Manager", r"/domain/\w+": "Domain", r"/domain/\w+/disk/\w+": "Disk", r"/job/j\d+": "Job"}
    for path, interfaces in objects.items():
        ours = {n for n in interfaces if n.startswith(OURS)}
        kind = next((k for r, k in kinds.items() if re.fullmatch(r if r == ROOT else ROOT + r, path)), None)
        assert ours == ({OURS + kind} if kind else set()), f"{path}: {ours}"


def test_members_of_the_contract_have_the_forms_that_it_promises(t):
    for name, interface in documented().items():
        for method, args in interface.methods.items():
            assert re.fullmatch(r"[A-Z][A-Za-z]+", method), method
            assert all(a and re.fullmatch(r"[a-z][a-z_]*", a) for _, a, _ in args), f"{name}.{method}: {args}"
            assert not any("ay" in type for _, _, type in args), f"{name}.{method} speaks of bytes"
        for prop, (type, access, emits) in interface.properties.items():
            assert access == "read", f"{name}.{prop} can be written"
            assert emits in ("true", "const", "invalidates"), f"{name}.{prop}: {emits}"
            assert type in ("s", "o", "t", "u", "b", "as", "ao"), f"{name}.{prop} is not a scalar or a list"


def test_get_all_has_every_property_with_its_type(t):
    s, objects = all_objects(t)
    for path, interfaces in objects.items():
        for name, interface in interfaces.items():
            if not name.startswith(OURS):
                continue
            reply = s.conn.gio.call_sync(PREFIX, path, f"{STANDARD}Properties", "GetAll",
                                         GLib.Variant("(s)", (name,)), None, 0, 10000, None)
            values = reply.get_child_value(0)
            live = {values.get_child_value(i).get_child_value(0).get_string():
                    values.get_child_value(i).get_child_value(1).get_variant().get_type_string()
                    for i in range(values.n_children())}
            assert live == {p: d[0] for p, d in interface.properties.items()}, path


def test_managed_objects_are_those_of_introspection(t):
    s, objects = all_objects(t)
    managed = s.objects()
    ours = {p for p, i in objects.items() if any(n.startswith(OURS) for n in i)} - {ROOT}
    assert {p for p, i in managed.items() if any(n.startswith(OURS) for n in i)} == ours
    for path in ours:
        name = next(n for n in managed[path] if n.startswith(OURS))
        # What counts up while it is read is left out.
        differing = {k for k, v in s.conn.get_all(path, name).items() if managed[path][name][k] != v}
        assert differing <= {"Done", "Total", "Rate", "ExpectedEnd", "Allocated"}, f"{path}: {differing}"


def test_properties_cannot_be_written(t):
    s, objects = all_objects(t)
    for path, interfaces in objects.items():
        for name, interface in interfaces.items():
            for prop, (type, _, _) in interface.properties.items() if name.startswith(OURS) else ():
                value = s.conn.gio.call_sync(PREFIX, path, f"{STANDARD}Properties", "Get",
                                             GLib.Variant("(ss)", (name, prop)), None, 0, 10000, None)
                same = value.get_child_value(0).get_variant()
                refused(lambda: s.conn.call(path, f"{STANDARD}Properties", "Set", "(ssv)", (name, prop, same)),
                        "PropertyReadOnly", "AccessDenied")


def policy_actions():
    tree = ElementTree.parse(POLICY)
    return {a.get("id"): a for a in tree.findall("action")}


def code_actions():
    with open(f"{REPO}/service/auth/auth.h") as f:
        return re.findall(r'X\((\w+), "(org\.blockjob1\.[a-z-]+)"\)', f.read())


def test_policy_and_code_and_service_name_the_same_actions(t):
    s = t.service()
    actions = policy_actions()
    names = {name for _, name in code_actions()}
    assert names and names == set(actions)
    assert set(s.manager.call("GetPermissions")) == names
    for identifier, name in code_actions():
        assert name == f"{PREFIX}.{identifier.lower().replace('_', '-')}"


def test_policy_keeps_nothing_where_damage_is_done(t):
    for name, action in policy_actions().items():
        defaults = [action.findtext(f"defaults/{k}") for k in ("allow_any", "allow_inactive", "allow_active")]
        harm = name.rsplit(".", 1)[1] in ("copy-anywhere", "delete-image")
        assert defaults == ["auth_admin", "auth_admin", "auth_admin" if harm else "auth_admin_keep"], name
        owner = [a.text for a in action.findall("annotate") if a.get("key") == "org.freedesktop.policykit.owner"]
        assert owner == ["unix-user:blockjobd"], f"{name}: the service could not ask with details"
        assert action.findtext("description") and action.findtext("message"), name


def test_contract_and_manual_name_every_action_and_no_other(t):
    names = set(policy_actions())
    for path in [f"{REPO}/docs/org.blockjob1.5", f"{REPO}/docs/blockjobd.8",
                 *glob.glob(f"{REPO}/dbus-interfaces/*.xml"), f"{REPO}/polkit/50-blockjobd-example.rules"]:
        with open(path) as f:
            text = f.read().replace("\\-", "-")
        # Interfaces and the name itself have a capital or nothing behind the dot.
        said = set(re.findall(r"org\.blockjob1\.[a-z][a-z-]+", text)) - {"org.blockjob1.conf",
                                                                                "org.blockjob1.service"}
        assert said <= names, f"{path}: {said - names}"
        if path.endswith("blockjobd.8"):
            assert said == names, f"{path} leaves out {names - said}"


def test_manual_describes_what_there_is(t):
    result = run([sys.executable, f"{REPO}/docs/check-manual.py", REPO])
    assert result.returncode == 0, result


def test_only_documented_errors_leave_the_service(t):
    """Every error name that the code can send is in the manual."""
    with open(f"{REPO}/service/failure.h") as f:
        names = re.findall(r'X\(\w+, "(?:org\.blockjob1\.Error|org\.freedesktop\.DBus\.Error)\.(\w+)"\)', f.read())
    with open(f"{REPO}/docs/org.blockjob1.5") as f:
        text = f.read()
    assert len(names) > 20
    missing = [n for n in names if not re.search(rf"\b{n}\b", text)]
    assert not missing, missing
