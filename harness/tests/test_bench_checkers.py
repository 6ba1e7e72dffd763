"""The made histories of the benchmark: correct ones, on which each spoilt operation is seen."""

from __future__ import annotations

import random

import pytest

from harness.bench_checkers import MadeHistory, checkers_of
from harness.errors import CheckFailed
from harness.history import Kind, Outcome
from storage.lsn import Lsn


@pytest.mark.parametrize("seed", range(12))
def test_a_made_history_is_accepted_by_every_oracle(seed: int) -> None:
    for check in checkers_of(MadeHistory(600, random.Random(seed), keys=16)).values():
        check()


@pytest.mark.parametrize("seed", range(12))
def test_an_old_value_or_a_lost_write_is_seen_by_some_oracle(seed: int) -> None:
    made = MadeHistory(600, random.Random(seed), keys=16)
    history = made.history
    puts = (each for each in history if each.kind is Kind.PUT and each.outcome is Outcome.OK)
    old = next(puts)
    index = history.invoke(old.source, Kind.GET, (old.args[0],), 10.0)
    history.succeed(index, 10.1, old.args[1], Lsn(made.model.end_lsn))
    seen = set()
    for name, check in checkers_of(made).items():
        try:
            check()
        except CheckFailed as error:
            seen.add(error.checker)
            assert error.checker == name
    assert {"reads_equal_model", "linearizable", "wal_explains_history"} <= seen
    made.rows[old.args[0]] = old.args[1]
    with pytest.raises(CheckFailed, match="a write is lost or undone"):
        checkers_of(made)["acknowledged_commits"]()
