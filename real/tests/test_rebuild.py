"""At commits drawn from a varied life, the pageserver's directories equal stock recovery."""

from __future__ import annotations

import pytest

from real.postgres import binaries
from real.rebuild.check import RebuildCheck
from real.rebuild.figures import RebuildOptions
from real.rebuild.run import play
from storage.pageserver.postgres.record_kinds import Handling, kind_of, kinds_of

MAJORS = tuple(found.major for found in binaries.find_all())[:1]
"""``python -m real rebuild`` checks the other versions, with more commits; it takes minutes."""

LSNS = 2
SELDOM = {
    "XLOG/CHECKPOINT_SHUTDOWN",  # The source is stopped after its WAL was copied.
    "XLOG/END_OF_RECOVERY",
    "XLOG/NEXTOID",
    "CLOG/TRUNCATE",
    "MultiXact/TRUNCATE_ID",
    "Heap/UPDATE+INIT",
    "Heap/HOT_UPDATE+INIT",
    "Heap2/LOCK_UPDATED",
}
"""Kinds with an effect that this workload need not reach; others have tests for them."""


@pytest.mark.parametrize("major", MAJORS)
def test_rebuilt_directories_equal_stock_recovery(major: int) -> None:
    check = RebuildCheck(RebuildOptions(major, seed=major, lsns=LSNS), say=print)
    play(check)
    assert check.figures.lsns == LSNS
    assert check.figures.pages > 1000
    seen = {kind_of(rmid, info, major) for rmid, info in check.figures.kinds}
    effects = {kind for kind in kinds_of(major) if kind.handling is Handling.EFFECT}
    assert {str(kind) for kind in effects - seen} - SELDOM == set()
