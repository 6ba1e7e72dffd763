"""The made histories of the benchmark: correct ones, on which each spoilt operation is seen."""

from __future__ import annotations

import random

import pytest

from harness.bench_checkers import checkers_of, checkers_of_steps
from harness.checkers.linearizable import check_linearizable
from harness.errors import CheckFailed
from harness.history import Kind, Outcome
from harness.made_histories import MadeRegisters, MadeTransactions
from storage.lsn import Lsn


@pytest.mark.parametrize("seed", range(12))
def test_a_made_history_is_accepted_by_every_oracle(seed: int) -> None:
    for check in checkers_of(MadeRegisters(600, random.Random(seed), keys=16)).values():
        check()


@pytest.mark.parametrize("seed", range(12))
def test_an_old_value_or_a_lost_write_is_seen_by_some_oracle(seed: int) -> None:
    made = MadeRegisters(600, random.Random(seed), keys=16)
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


@pytest.mark.parametrize("seed", range(6))
def test_made_transactions_are_accepted_and_a_lost_append_is_seen(seed: int) -> None:
    made = MadeTransactions(600, random.Random(seed))
    checks = checkers_of_steps(made)
    assert all(int(str(check())) > 30 for check in checks.values())
    history = made.history
    last = next(e for e in reversed(list(history)) if e.kind is Kind.SCAN and e.args[0] >= 4096)
    shorter = [(key, value.rpartition(",")[0]) for key, value in last.result if "," in value]
    index = history.invoke(last.source, Kind.SCAN, last.args, 10.0)
    history.succeed(index, 10.1, shorter, last.lsn)
    with pytest.raises(CheckFailed, match="no order explains"):
        checks["list_append"]()


def test_values_that_repeat_are_searched_and_decided() -> None:
    made = MadeRegisters(600, random.Random(1), keys=16, values=3)
    decided = check_linearizable(made.history)
    assert decided.keys > 10
    assert decided.undecided == 0
