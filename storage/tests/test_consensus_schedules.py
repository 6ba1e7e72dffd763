"""Random schedules of both cores keep every law, commit something, and notice broken rules."""

from __future__ import annotations

from collections import Counter

import pytest

from storage.safekeeper.state import Acceptor
from storage.tests.consensus_schedule import run_schedule
from storage.walproposer.state import Campaign

STEPS = 350


@pytest.mark.parametrize("members", [3, 5])
def test_random_schedules_keep_the_laws_and_commit(members):
    seen: Counter[str] = Counter()
    seeds = 40
    for seed in range(seeds):
        world = run_schedule(seed, members, STEPS)
        seen.update(world.seen)
    # Each schedule commits once it heals; a fair share must before, or chaos proves little.
    assert seen["committed_in_chaos"] >= seeds * 0.25
    kinds = ("won", "lost", "crash", "refused", "superseded", "short_recovery", "read_back")
    for what in (*kinds, "failed effect", "caught_up"):
        assert seen[what] > 0, what


MUTATIONS = {
    "vote twice in a term": (Acceptor, "_may_vote", lambda self, r: r.term >= self.term),
    "vote without flush": (Acceptor, "must_flush_before", lambda self, message: False),
    "a late cut is obeyed": (Acceptor, "_check_cut", lambda self, elected: None),
    "truncate skipped after restart": (
        Acceptor,
        "_must_truncate",
        lambda self, start_lsn: start_lsn < self.flush_lsn,
    ),
    "a failed cut is claimed": (
        Acceptor,
        "election_failed",
        lambda self, history: self.write_failed(),
    ),
    "a minority commits": (
        Campaign,
        "_quorum_flush_lsn",
        lambda self: max(peer.flush_lsn for peer in self.peers.values()),
    ),
    "short recovery accepted": (Campaign, "_check_recovery_complete", lambda self: None),
    "catching up keeps the own tail": (
        Acceptor,
        "_common_point",
        lambda self, theirs: self.flush_lsn,
    ),
    "a minority elects": (Campaign, "_is_quorum", lambda self, count: count >= self._quorum - 1),
}


NOTICED_NEAR = {"a late cut is obeyed": 60, "a failed cut is claimed": 130}
"""Rare ones: where to begin looking, to save time."""


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_noticed(monkeypatch, name):
    owner, method, broken = MUTATIONS[name]
    monkeypatch.setattr(owner, method, broken)
    first = NOTICED_NEAR.get(name, 0)
    for seed in range(first, first + 300):
        try:
            run_schedule(seed, 3, STEPS)
        except (AssertionError, KeyError):
            return
    pytest.fail(f"{name!r} went unnoticed in 300 seeds")
