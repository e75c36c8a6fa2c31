# SPDX-License-Identifier: LGPL-2.1-or-later
"""What must hold after any test, however it went."""
import os
import re
import shutil
import sqlite3
import tempfile
from xml.etree import ElementTree

from process import wait_until
from qemu import image_check
from service import Disk, Domain, Job

# Names of what the service adds to QEMU carry the journal's identity and the job's number.
OURS = re.compile(r"^bj-(?P<identity>[0-9a-f]{8})-(?P<id>\d+)")


def journal_table(state_dir, table, key):
    """{key: row as dict}; reads a copy, because the service, if it runs, lets nobody else in."""
    with tempfile.TemporaryDirectory(prefix="bj-") as copy:
        for name in "journal.db", "journal.db-wal":
            if os.path.exists(os.path.join(state_dir, name)):
                shutil.copy(os.path.join(state_dir, name), copy)
        db = sqlite3.connect(os.path.join(copy, "journal.db"))
        db.row_factory = sqlite3.Row
        try:
            verdict = db.execute("pragma integrity_check").fetchone()[0]
            assert verdict == "ok", f"{state_dir}/journal.db: {verdict}"
            return {r[key]: dict(r) for r in db.execute(f"select * from {table}")}
        finally:
            db.close()


def journal_rows(state_dir):
    """{id: row as dict} of the journal's jobs."""
    return journal_table(state_dir, "job", "id")


def job_of(name):
    """The number of the job that a node, job or fdset of QEMU belongs to by its name, or None."""
    m = OURS.match(name or "")
    return int(m["id"]) if m else None


def check_qemu(qemu, active):
    """Nothing of ours is left in QEMU that no active job owns; the image that a device stands on may stay."""
    wrong = []
    # QEMU 7.2 dies when it is asked for its nodes while blockdev-create has one half open.
    wait_until(lambda: not any(j["type"] == "create" and j["status"] != "concluded" for j in qemu.jobs().values()))
    for name, job in qemu.jobs().items():
        if job_of(name) is not None and job_of(name) not in active:
            wrong.append(f"{qemu.name}: job {name} ({job['status']}) is left behind")
    nodes, used = qemu.block_graph()
    for name in sorted(nodes - used):
        if job_of(name) is not None and job_of(name) not in active:
            wrong.append(f"{qemu.name}: node {name} is left behind")
    for node in qemu("query-named-block-nodes", flat=True):
        if node["drv"] == "mirror_top" and job_of(node["node-name"]) is not None and job_of(
                node["node-name"]) not in active:
            wrong.append(f"{qemu.name}: filter {node['node-name']} is left behind")
    # The descriptors of an image that is in use stay with it.
    files = " ".join(n.get("file", "") + " " + n.get("image", {}).get("filename", "")
                     for n in qemu("query-named-block-nodes"))
    # QEMU 7.2 closes removed descriptors only while the guest runs; the service removes them again then.
    if qemu("query-version")["qemu"]["major"] < 10 and not qemu("query-status")["running"]:
        return wrong
    for fdset in qemu("query-fdsets"):
        for fd in fdset["fds"]:
            owner = job_of(fd.get("opaque", ""))
            if owner is not None and owner not in active and not re.search(
                    rf"/dev/fdset/{fdset['fdset-id']}\b", files):
                wrong.append(f"{qemu.name}: descriptor {fd['opaque']} (fdset {fdset['fdset-id']}) is left behind")
    return wrong


def check_journal(jobs, rows):
    """jobs: {id: properties} as they were on the bus; rows: as the stopped service left them."""
    wrong = []
    own = {i: p for i, p in jobs.items() if p["Kind"] != "foreign"}
    expected = {i for i, r in rows.items() if r.get("kind") != "foreign" and (r["exported"] or not r["result"])}
    if set(own) != expected:
        wrong.append(f"jobs on the bus: {sorted(own)}, in the journal: {sorted(expected)}")
    for i in sorted(set(own) & set(rows)):
        if own[i]["Result"] != (rows[i]["result"] or ""):
            wrong.append(f"job {i}: {own[i]['Result']!r} on the bus, {rows[i]['result']!r} in the journal")
        if (own[i]["State"] == "concluded") != bool(own[i]["Result"]):
            wrong.append(f"job {i}: state {own[i]['State']}, result {own[i]['Result']!r}")
    return wrong


def check_signals(service, rows):
    """Each end was told once. A life that was killed may have taken its last words with it."""
    wrong = []
    told = {}
    for s in service.signals("JobFinished"):
        told.setdefault(s.args[0], []).append(s.args[2])
    for i, row in rows.items():
        results = told.get(i, [])
        if not row["result"]:
            if results:
                wrong.append(f"job {i} has not concluded and JobFinished was sent: {results}")
        elif len(results) > 1 or (not results and not service.killed):
            wrong.append(f"job {i} ({row['result']}): JobFinished was sent {len(results)} times")
        if results and row["result"] and results[0] != row["result"]:
            wrong.append(f"job {i}: JobFinished said {results[0]}, the journal says {row['result']}")
    return wrong


def check_definitions(domains, disks, active_disks):
    """A definition names the image that is under the device. Arguments as {path: properties}."""
    wrong = []
    for path, domain in domains.items():
        if not domain["Definition"]:
            continue
        try:
            tree = ElementTree.parse(domain["Definition"])
        except (OSError, ElementTree.ParseError) as e:
            wrong.append(f"{domain['Name']}: the definition cannot be read: {e}")
            continue
        for element in tree.findall("devices/disk"):
            target, source = element.find("target"), element.find("source")
            disk = disks.get(f"{path}/disk/{target.get('dev')}") if target is not None else None
            if disk is None or source is None or f"{path}/disk/{target.get('dev')}" in active_disks:
                continue
            named = source.get("file") or source.get("dev") or ""
            if os.path.realpath(named) != os.path.realpath(disk["Source"]):
                wrong.append(f"{domain['Name']}: {disk['Name']} is on {disk['Source']}, its definition says {named}")
    return wrong


def invariants(service, qemus=(), stop=True):
    """Raises AssertionError with all that is wrong.

    stop: end the service (in order) and the QEMUs, which is the strictest: all images are then closed and checked.
    Without it, guests are stopped for a moment and their images checked while they are open."""
    if not service.process.alive:
        service.start()
    def settled():
        # A job on its way into QEMU has a node half open, which QEMU 7.2 must not be asked for.
        return not [i for i in service.objects().values() if i.get(Job.INTERFACE, {}).get("State") == "preparing"]
    try:
        wait_until(settled, 10, "no job is being prepared")
    except AssertionError:
        pass
    objects = service.objects()
    jobs = {int(p.rsplit("/j", 1)[1]): i[Job.INTERFACE] for p, i in objects.items() if Job.INTERFACE in i}
    disks = {p: i[Disk.INTERFACE] for p, i in objects.items() if Disk.INTERFACE in i}
    active = {i for i, p in jobs.items() if p["State"] != "concluded"}
    domains = {p: i[Domain.INTERFACE] for p, i in objects.items() if Domain.INTERFACE in i}
    wrong = check_definitions(domains, disks, {p for p, d in disks.items() if d["Job"] != "/"})
    for qemu in qemus:
        if qemu.alive:
            # Dismissing comes last, after the end was told.
            try:
                wait_until(lambda: not [j for j in qemu("query-jobs") if job_of(j["id"]) is not None
                                        and job_of(j["id"]) not in active], 10, "finished jobs are dismissed")
            except AssertionError:
                pass  # check_qemu() says which
            wrong += check_qemu(qemu, active)
    if stop:
        service.stop()
    rows = journal_rows(service.state_dir)
    wrong += check_journal(jobs, rows)
    lost = set(journal_table(service.state_dir, "domain", "name")) - {d["Name"] for d in domains.values()}
    if lost:
        wrong.append(f"domains that the journal knows and the bus does not: {sorted(lost)}")
    wrong += check_signals(service, rows)
    images = {(d["Source"], d["Format"]) for d in disks.values() if not d["ReadOnly"] and os.path.isfile(d["Source"])}
    images |= {(d.path, d.format) for q in qemus for d in q.drives if os.path.isfile(d.path)}
    stopped = []
    for qemu in qemus:
        if stop:
            qemu.quit()
        elif qemu.alive and qemu("query-status")["running"]:
            qemu("stop")
            stopped.append(qemu)
    try:
        for path, format in sorted(images):
            try:
                image_check(path, format, share=not stop)
            except AssertionError as e:
                wrong.append(str(e))
    finally:
        for qemu in stopped:
            qemu("cont")
    assert not wrong, "invariants are broken:\n  " + "\n  ".join(wrong)
