"""Commits, ingests and elections without a quorum."""

from __future__ import annotations

import pytest

from harness.checkers.quorum_order import check_quorum_order
from harness.errors import CheckFailed
from harness.tests.reports import Reports


def flushed() -> Reports:
    reports = Reports().lsn("sk0", "commit_lsn", 8)
    for node in ("sk0", "sk1", "sk2"):
        reports.lsn(node, "flush_lsn", 16)
    return reports.lsn("sk0", "flush_lsn", 32).lsn("sk1", "flush_lsn", 24)


def voted() -> Reports:
    return Reports().vote("sk0", 2, 7).vote("sk1", 2, 8).vote("sk0", 3, 9)


GOOD = {
    "a commit": flushed().lsn("sk2", "commit_lsn", 24),
    "an ingest": flushed().lsn("ps0", "last_record_lsn", 24),
    "from before the first report": flushed().lsn("sk2", "commit_lsn", 16),
    "another timeline": flushed().lsn("sk2", "commit_lsn", 99, "other"),
    "a holder that was wiped": flushed().process("sk1", "wiped").lsn("sk1", "flush_lsn", 16)
        .lsn("sk2", "commit_lsn", 24),
    "an election": voted().vote("sk2", 2, 7).elected("main", 2, 7),
    "an election by one that was wiped": voted().process("sk0", "wiped").vote("sk1", 3, 9)
        .elected("main", 3, 9),
}  # fmt: skip

BAD = {
    "commit_lsn 0/20 takes a quorum of 2, but was flushed only by 1":
        flushed().lsn("sk2", "commit_lsn", 32),
    "last_record_lsn 0/20": flushed().lsn("ps0", "last_record_lsn", 32),
    "commit_lsn 0/18 .* only by 1": flushed().lsn("sk1", "flush_lsn", 16)
        .lsn("sk2", "commit_lsn", 24),
    "commit_lsn 0/19": flushed().process("sk0", "wiped").lsn("sk0", "flush_lsn", 32)
        .lsn("sk2", "commit_lsn", 25),
    "proposer 7 is elected in term 2 by sk0; 2 votes": voted().elected("main", 2, 7),
    "proposer 7 is elected in term 3 by nobody": voted().elected("main", 3, 7),
    "elected in term 2 by sk0": voted().vote("sk0", 2, 7).elected("main", 2, 7),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_with_a_quorum(name: str) -> None:
    check_quorum_order(GOOD[name].events, safekeepers=3)


@pytest.mark.parametrize("says", BAD)
def test_without_a_quorum(says: str) -> None:
    with pytest.raises(CheckFailed, match=says):
        check_quorum_order(BAD[says].events, safekeepers=3)
