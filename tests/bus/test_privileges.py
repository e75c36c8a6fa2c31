# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service can do with the two capabilities of its unit, and what without any."""
import os
import stat

from harness import *
from scenes import *

# As root, for root may own the bus name; what counts is that its files are not the callers' files.
TWO = ["setpriv", "--bounding-set", "-all,+dac_override,+chown", "--inh-caps", "-all"]
NONE = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]


def owned(path, uid, gid, mode):
    os.chown(path, uid, gid)
    os.chmod(path, mode)
    return path


def facts(path):
    st = os.stat(path)
    return st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)


def of_another_user(t, wrap, **more):
    """(service, domain): a guest of the user OTHER whose image is the group's, too."""
    os.makedirs(t.path("copies"))
    s = t.service(f"[Service]\nTargetFolders={t.path('copies')}\n", wrap=wrap)
    image = owned(t.image("web.qcow2", size="1M", fill="256k"), OTHER, OWNER, 0o660)
    os.makedirs(t.path("web"))
    os.chown(t.path("web"), OTHER, OTHER)
    os.chmod(t.path("web"), 0o700)
    qemu = t.qemu("web", [image], uid=OTHER)
    return s, s.attach("web", qemu.socket, **more)


def test_effective_capabilities_are_the_two(t):
    s = t.service(wrap=TWO)
    with open(f"/proc/{s.process.pid}/status") as f:
        sets = dict(line.split(":\t") for line in f.read().splitlines() if line.startswith("Cap"))
    assert int(sets["CapEff"], 16) == 1 << 0 | 1 << 1, sets  # CAP_CHOWN, CAP_DAC_OVERRIDE


def test_copy_gets_owner_and_mode_of_its_source_with_two_capabilities(t):
    s, domain = of_another_user(t, TWO)
    target = t.path("copies/new.qcow2")
    job = domain.disk().copy(target)
    job.wait("ready")
    assert facts(target) == (OTHER, OWNER, 0o660)
    job.pivot().wait_result("pivoted")
    assert domain.disk().Source == target and facts(target) == (OTHER, OWNER, 0o660)


def test_cancelled_copy_of_another_user_is_deleted_with_two_capabilities(t):
    s, domain = of_another_user(t, TWO)
    target = t.path("copies/new.qcow2")
    job = domain.disk().copy(target)
    job.wait("ready").cancel(delete_target=True).wait_result("cancelled")
    assert not os.path.exists(target)


def test_definition_keeps_owner_and_mode_with_two_capabilities(t):
    image = t.path("web.qcow2")
    definition = t.path("web.xml")
    with open(definition, "w") as f:
        f.write(f"<domain type='qemu'><name>web</name><devices><disk type='file' device='disk'>"
                f"<driver name='qemu' type='qcow2'/><source file='{image}'/><target dev='vda' bus='virtio'/>"
                f"</disk></devices></domain>")
    owned(definition, OTHER, OWNER, 0o664)
    s, domain = of_another_user(t, TWO, definition=definition)
    domain.disk().copy(t.path("copies/new.qcow2")).wait("ready").pivot().wait_result("pivoted")
    with open(definition) as f:
        assert t.path("copies/new.qcow2") in f.read()
    assert facts(definition) == (OTHER, OWNER, 0o664)


def test_without_capabilities_a_copy_for_another_user_is_refused_and_one_to_a_descriptor_is_made(t):
    os.makedirs(t.path("copies"))
    s = t.service(f"[Service]\nTargetFolders={t.path('copies')}\n", wrap=NONE)
    image = owned(t.image("web.qcow2", size="1M", fill="256k"), OTHER, OTHER, 0o644)
    qemu = t.qemu("web", [image])
    domain = s.attach("web", qemu.socket)
    refused(lambda: domain.disk().copy(t.path("copies/new.qcow2")), "BadTarget", text="cannot be given to the owner")
    assert not os.listdir(t.path("copies"))
    with open(t.image("mine.raw", size="1M", format="raw"), "r+b") as f:
        domain.disk().copy("mine", fd=f, format="raw").wait("ready").finish().wait_result("finished")
