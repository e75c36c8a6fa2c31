# SPDX-License-Identifier: LGPL-2.1-or-later
"""Latency: from the call to the signal, beside the same work by hand in the same minute."""
import os
import shutil

from harness import image_create, run, wait_until
from stage import median, percentile

SIZE = 1 << 20

# A boot sector that writes the disk's second sector through the firmware, 200 times a second, and sleeps in between:
# xor ax,ax; mov ds,ax; mov es,ax; the timer: mov al,0x34; out 0x43,al; mov al,0x4e; out 0x40,al; mov al,0x17;
# out 0x40,al; again: sti; hlt; mov ax,0x301; mov bx,0x7c00; mov cx,2; mov dx,0x80; int 0x13; jmp again
WRITER = bytes.fromhex("31c0 8ed8 8ec0 b034 e643 b04e e640 b017 e640 fb f4 b80103 bb007c b90200 ba8000 cd13 ebee")


def disk_make(path, guest):
    if not guest:
        return image_create(path, SIZE)
    raw = f"{path}.raw"
    with open(raw, "wb") as f:
        f.write(WRITER.ljust(510, b"\0") + b"\x55\xaa")
        f.truncate(SIZE)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path]).ok()
    os.unlink(raw)
    return path


def writes(qemu):
    return qemu("query-blockstats")[0]["stats"]["wr_operations"]


def start(stage, name, guest):
    qemu = stage.test.qemu(name, [disk_make(stage.path(f"{name}-0.qcow2"), guest)], idle=not guest)
    if guest:
        wait_until(lambda: writes(qemu) > 20, 120, "the guest to write")
    return qemu


def rounds_run(stage, rounds, guest, wrap=()):
    service_qemu, hand_qemu = start(stage, "ours", guest), start(stage, "hand", guest)
    service = stage.service(wrap)
    stage.test.bus.connect().call("/org/blockjob1", "org.blockjob1.Manager", "AttachDomain", "(ssa{sv})",
                                  ("ours", service_qemu.socket, {}))
    result = stage.measure("latency", rounds, stage.folder, stage.state_dir,
                           "/org/blockjob1/domain/ours/disk/vda", hand_qemu.socket, "libvirt-1-format",
                           SIZE, int(guest))
    service.process.terminate()
    service_qemu.kill()
    hand_qemu.kill()
    return result


def syncs_between(trace, begins, ends):
    """How many syncs of the journal fell into each span; those of a target's file go on beside QEMU's work."""
    with open(trace) as f:
        times = [float(line.split()[1]) for line in f if "sync(" in line and "/journal.db" in line]
    return [sum(b <= t <= e for t in times) for b, e in zip(begins, ends)]


def count_syncs(stage_class, guest, tmpfs):
    """(of a copy, of a pivot), counted by strace in a run of its own."""
    if not shutil.which("strace"):
        return None
    with stage_class(tmpfs) as stage:
        trace = stage.path("trace")
        r = rounds_run(stage, 5, guest,
                       ["strace", "-D", "-f", "-qq", "-y", "-ttt", "-e", "trace=fdatasync,fsync", "-o", trace])
        return (median(syncs_between(trace, r["clock copy"], r["clock running"])),
                median(syncs_between(trace, r["clock pivot"], r["clock finished"])))


def show(report, r, syncs, guest):
    sync = median(r["fdatasync"]) / 1000
    for n in r.values():
        n[:] = [x / 1000 for x in n]
    report.add("fdatasync of 4 KiB beside the journal, median", sync, "ms")
    report.add("fdatasync of 4 KiB at the end of a growing file, median", median(r["fdatasync growing"]), "ms")
    for what, ours, hand, step, commits, most in (
            ("Pivot() to JobFinished", "pivot finished", "hand pivot", "step pivot", syncs[1], 1),
            ("Copy() to running", "copy running", "hand copy", "step copy", syncs[0], 3)):
        verb = what.split()[0]
        report.add(f"{what}, median", median(r[ours]), "ms")
        report.add(f"{what}, p99", percentile(r[ours], 99), "ms")
        report.add("  the same by hand, all commands that can be in one write, median", median(r[hand]), "ms")
        report.add("  the same by hand, p99", percentile(r[hand], 99), "ms")
        report.add("  the same by hand, one command after the other, median", median(r[step]), "ms")
        report.add(f"  fdatasyncs of the service in between", commits, "")
        extra = median(r[ours]) - median(r[hand])
        report.add(f"{verb} more than by hand", extra, "ms")
        report.add(f"{verb} more than by hand and the fdatasyncs", extra - commits * sync, "ms", at_most=most)
    report.add("Copy() to its reply, median", median(r["copy reply"]), "ms")
    report.add("Copy() to ready, median", median(r["copy ready"]), "ms")
    report.add("Pivot() to its reply, median", median(r["pivot reply"]), "ms")
    if guest:
        report.add("the guest stood (GuestPaused), median", median(r["pivot pause"]), "ms")
        report.add("the guest stood, worst", max(r["pivot pause"]), "ms")
        report.add("  by hand, median", median(r["hand pause"]), "ms")
        report.add("  by hand, worst", max(r["hand pause"]), "ms")


def latency(report, options, stage_class):
    for guest in (False, True):
        where = "tmpfs" if options.tmpfs else "disk"
        report.title(f"latency: {SIZE >> 20} MiB, {options.rounds} rounds in turns, state on {where}, "
                     f"{'a guest that writes' if guest else 'processors stopped'}")
        syncs = count_syncs(stage_class, guest, options.tmpfs)
        if syncs is None:
            report.note("fdatasyncs are assumed, strace is not installed")
            syncs = (2, 3)
        with stage_class(options.tmpfs) as stage:
            show(report, rounds_run(stage, options.rounds, guest), syncs, guest)
