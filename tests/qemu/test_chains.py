# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commit and pull: every part of a chain, every end, restarts and deaths in the middle, and what is refused."""
import os

from chains import *
from copying import *
from harness import *


def test_commit_of_an_inner_part_ends_by_itself(t):
    chain = Chain(t)
    s, disk = chain.attached()
    job = disk.commit(top="1", base="3")
    assert (job.Kind, job.Target) == ("commit", chain.paths[1])
    ended(job, "committed")
    chain.stands(disk, 4, 1, 0)
    chain.nodes(4, 1, 0)
    dismissed(chain.qemu)
    assert job.Warnings == [] and job.Done == job.Total


def test_commit_of_the_active_layer_is_ready_and_pivots(t):
    chain = Chain(t)
    s, disk = chain.attached()
    job = disk.commit().wait("ready")
    assert disk.MirrorTarget == chain.paths[0] and disk.MirrorReady
    chain.reads()
    job.pivot()
    ended(job, "committed")
    chain.stands(disk, 0)
    chain.nodes(0)
    dismissed(chain.qemu)


def test_pull_of_everything(t):
    chain = Chain(t)
    s, disk = chain.attached()
    job = disk.pull()
    assert (job.Kind, job.Target) == ("pull", chain.paths[4])
    ended(job, "pulled")
    chain.stands(disk, 4)
    chain.nodes(4)
    dismissed(chain.qemu)
