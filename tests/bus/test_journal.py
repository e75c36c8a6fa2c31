# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal as the service's own: exporting it, and starts that must not be: a second one, one on the journal of a newer
version, one where nothing can be written. The guests never notice."""
import json
import os
import sqlite3

from harness import *
from scenes import *


def content(folder):
    """{name: bytes} of the journal's files, but for the note in the lock, and a log with nothing in it."""
    files = {name: open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))}
    return {name: data for name, data in files.items() if data and not name.endswith(".lock")}


def end_of(s, words):
    """s is started and must give up with a sentence that has these words in it."""
    s.start(wait=False)
    wait_until(lambda: not s.process.alive, 20, "the end of the service")
    assert s.process.returncode == 1, (s.process.returncode, s.log())
    assert words in s.log(), s.log()


def test_export_is_the_same_with_and_without_the_service(t):
    s, _qemu, domain = small(t, disks=2)
    domain.disk().copy(t.path("copies/a"), on_ready="pivot").wait_result("pivoted")
    domain.disk("vdb").copy(t.path("copies/b"), on_ready="finish", request_id="r").wait_result("finished")
    wait_until(lambda: not domain.Jobs, what="the end of the jobs")
    running = json.loads(t.ctl("journal", "export").stdout)
    assert [(j["id"], j["disk"], j["result"], j["request_id"]) for j in running["jobs"]] == [
        (1, "vda", "pivoted", ""), (2, "vdb", "finished", "r")], running
    assert [d["name"] for d in running["domains"]] == ["web"] and running["damaged"] == []
    states = [x["state"] for x in running["jobs"][0]["transitions"]]
    assert states[-1] == "concluded" and "ready" in states, states
    assert running["jobs"][0]["document"]["state"] == "concluded"
    s.stop()
    before = content(s.state_dir)
    stopped = json.loads(t.ctl("journal", "export", s.state_dir).stdout)
    assert content(s.state_dir) == before
    for document in running, stopped:
        document.pop("exported")
    assert stopped["jobs"] == running["jobs"], (stopped, running)
    # Nobody runs: the folder of the configuration is meant, and the service is not started for it.
    result = t.ctl("journal", "export")
    assert result.returncode == (0 if os.path.exists("/var/lib/blockjobd/journal.db") else 1), result
    assert not t.bus.owner_of(PREFIX)
    s.start()


def test_export_of_a_journal_in_use_goes_through_the_service(t):
    s, _qemu, _domain = small(t)
    result = t.ctl("journal", "export", s.state_dir)
    assert result.returncode == 1 and "Another instance" in result.stderr, result
    result = t.ctl("journal", "import")
    assert result.returncode == 2, result


def test_second_service_says_so_and_goes(t):
    s, _qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    second = t.service(start=False)
    second.state_dir = s.state_dir
    end_of(second, "Another instance of blockjobd is using the journal")
    assert job.State == "running" and s.manager.JournalState == "ok"
    t.services.remove(second)


def test_journal_of_a_newer_version_is_left_alone(t):
    s, qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    s.kill()
    db = sqlite3.connect(f"{s.state_dir}/journal.db")
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    version, = db.execute("PRAGMA user_version").fetchone()
    db.execute(f"PRAGMA user_version = {version + 1}")
    db.close()
    before = content(s.state_dir)
    end_of(s, "written by a newer version of blockjobd")
    assert content(s.state_dir) == before
    assert [j["status"] for j in qemu.jobs().values()] == ["running"], "the guest's job goes on"
    db = sqlite3.connect(f"{s.state_dir}/journal.db")
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    s.start()
    wait_until(lambda: job.State == "running", what="the job")
    job.cancel().wait_result("cancelled")


def test_start_on_a_read_only_disk_touches_no_guest(t):
    s, qemu, domain = small(t)
    job = slow_job(t, domain.disk())
    s.kill()
    before = content(s.state_dir)
    run(["mount", "--bind", s.state_dir, s.state_dir]).ok()
    t.cleanup(lambda: run(["umount", "-l", s.state_dir]))
    run(["mount", "-o", "remount,bind,ro", s.state_dir]).ok()
    end_of(s, "Read-only file system")
    assert content(s.state_dir) == before
    assert [j["status"] for j in qemu.jobs().values()] == ["running"], "the guest's job goes on"
    run(["mount", "-o", "remount,bind,rw", s.state_dir]).ok()
    s.start()
    wait_until(lambda: job.State == "running", what="the job")
    job.cancel().wait_result("cancelled")


def test_damaged_journal_is_kept_and_what_qemu_runs_is_found(t):
    s, qemu, domain = small(t)
    slow_job(t, domain.disk())
    s.kill()
    before = content(s.state_dir)
    for name in "journal.db", "journal.db-wal":
        with open(f"{s.state_dir}/{name}", "r+b") as f:
            f.write(bytes(range(256)) * 64)
    s.start()
    assert s.manager.JournalState == "recovered"
    kept = [name for name in os.listdir(s.state_dir) if name.startswith("journal.db.damaged-")]
    assert any(len(open(f"{s.state_dir}/{name}", "rb").read()) == len(before["journal.db"]) for name in kept), kept
    assert [j["status"] for j in qemu.jobs().values()] == ["running"], "the guest's job goes on"
    qemu.quit()
    t.invariants = False  # the job was the lost journal's
