# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every planted mistake is caught by the sweep or the proof that it names."""
from harness import *
from mutants import must_be_caught, mutants


@deadline(900)
@tags("full")
def test_acknowledged_before_durable(t):
    must_be_caught(t, "acknowledged-before-durable")


@deadline(900)
@tags("full")
def test_acted_before_intent(t):
    must_be_caught(t, "acted-before-intent")


@deadline(900)
@tags("full")
def test_decided_and_cancelled(t):
    must_be_caught(t, "decided-and-cancelled")


@deadline(900)
@tags("full")
def test_definition_before_switch(t):
    must_be_caught(t, "definition-before-switch")


@deadline(900)
@tags("full")
def test_dismissed_before_durable(t):
    must_be_caught(t, "dismissed-before-durable")


@deadline(900)
@tags("full")
def test_dismissed_before_recorded(t):
    must_be_caught(t, "dismissed-before-recorded")


@deadline(900)
@tags("full")
def test_finalized_before_decided(t):
    must_be_caught(t, "finalized-before-decided")


@deadline(900)
@tags("full")
def test_guest_not_let_go_on(t):
    must_be_caught(t, "guest-not-let-go-on")


@deadline(900)
@tags("full")
def test_identity_not_checked(t):
    must_be_caught(t, "identity-not-checked")


@deadline(900)
def test_no_fdatasync(t):
    must_be_caught(t, "no-fdatasync")


@deadline(900)
@tags("full")
def test_no_sync_of_the_definitions_folder(t):
    must_be_caught(t, "no-sync-of-the-definitions-folder")


@deadline(900)
@tags("full")
def test_no_sync_after_deleting(t):
    must_be_caught(t, "no-sync-after-deleting")


@deadline(900)
@tags("full")
def test_promise_not_recorded(t):
    must_be_caught(t, "promise-not-recorded")


@deadline(900)
@tags("full")
def test_source_deleted_before_decided(t):
    must_be_caught(t, "source-deleted-before-decided")


@deadline(900)
@tags("full")
def test_stop_not_recorded(t):
    must_be_caught(t, "stop-not-recorded")


@deadline(900)
def test_target_before_record(t):
    must_be_caught(t, "target-before-record")


@deadline(900)
@tags("full")
def test_told_before_durable(t):
    must_be_caught(t, "told-before-durable")


def test_every_planted_mistake_has_its_test(t):
    assert {f"test_{name.replace('-', '_')}" for name in mutants()} <= set(globals())
