"""The order of reported LSNs, terms, leaders and votes."""

from __future__ import annotations

import pytest

from harness.checkers.lsn_order import check_lsn_order
from harness.errors import CheckFailed
from harness.tests.reports import Reports

GOOD = {
    "growing": Reports().lsn("sk0", "commit_lsn", 8).lsn("sk0", "commit_lsn", 8)
        .lsn("sk0", "commit_lsn", 16),
    "nodes and timelines apart": Reports().lsn("sk0", "commit_lsn", 16)
        .lsn("sk1", "commit_lsn", 8).lsn("sk0", "commit_lsn", 8, "other"),
    "a log that is cut": Reports().lsn("sk0", "flush_lsn", 16).lsn("sk0", "flush_lsn", 8),
    "a log that is cut to its commit": Reports().lsn("sk0", "flush_lsn", 16)
        .lsn("sk0", "commit_lsn", 8).lsn("sk0", "flush_lsn", 8),
    "a new incarnation": Reports().lsn("sk0", "commit_lsn", 16).process("sk0", "started")
        .lsn("sk0", "commit_lsn", 8),
    "a new attachment": Reports().lsn("ps0", "last_record_lsn", 16).tenant("ps0", "Stopping")
        .lsn("ps0", "disk_consistent_lsn", 16).tenant("ps0", "Attaching")
        .lsn("ps0", "last_record_lsn", 8),
    "the chain": Reports().lsn("ps0", "last_record_lsn", 16).lsn("ps0", "disk_consistent_lsn", 16)
        .lsn("ps0", "remote_consistent_lsn", 8),
    "unknown limits": Reports().lsn("ps0", "remote_consistent_lsn", 8).lsn("sk0", "backup_lsn", 8),
    "one leader per term": Reports().elected("main", 1).elected("main", 2, 2)
        .elected("other", 1, 9, "branch"),
    "one vote per term": Reports().vote("sk0", 1, 1).vote("sk0", 1, 1).vote("sk1", 1, 2),
    "terms grow": Reports().term("sk0", 1).term("sk0", 3).process("sk0", "started").term("sk0", 3),
    "terms of an emptied disk": Reports().term("sk0", 3).vote("sk0", 3, 1).process("sk0", "wiped")
        .term("sk0", 1).vote("sk0", 3, 2),
}  # fmt: skip

BAD = {
    "commit_lsn falls from 0/10 to 0/8": Reports().lsn("sk0", "commit_lsn", 16)
        .lsn("sk0", "commit_lsn", 8),
    "last_record_lsn falls": Reports().lsn("ps0", "last_record_lsn", 16)
        .process("ps1", "started").tenant("ps1", "Attaching").lsn("ps0", "last_record_lsn", 8),
    "last_record_lsn falls from 0/10 to 0/8": Reports().lsn("ps0", "last_record_lsn", 16)
        .tenant("ps0", "Stopping").lsn("ps0", "last_record_lsn", 8),
    "disk_consistent_lsn 0/18 exceeds last_record_lsn 0/10":
        Reports().lsn("ps0", "last_record_lsn", 16).lsn("ps0", "disk_consistent_lsn", 24),
    "remote_consistent_lsn 0/10 exceeds": Reports().lsn("ps0", "disk_consistent_lsn", 8)
        .lsn("ps0", "remote_consistent_lsn", 16),
    "commit_lsn 0/10 exceeds flush_lsn 0/8": Reports().lsn("sk0", "flush_lsn", 32)
        .lsn("sk0", "flush_lsn", 8).lsn("sk0", "commit_lsn", 16),
    "truncate_lsn 0/10 exceeds flush_lsn": Reports().lsn("sk0", "flush_lsn", 8)
        .lsn("sk0", "truncate_lsn", 16),
    "remote_consistent_lsn 0/18 exceeds commit_lsn": Reports().lsn("sk0", "commit_lsn", 16)
        .lsn("sk0", "remote_consistent_lsn", 24),
    "backup_lsn 0/10 exceeds": Reports().lsn("sk0", "commit_lsn", 8).lsn("sk0", "backup_lsn", 16),
    "flush_lsn 0/8 is below commit_lsn 0/10": Reports().lsn("sk0", "flush_lsn", 32)
        .lsn("sk0", "commit_lsn", 16).lsn("sk0", "flush_lsn", 8),
    "term 1 has two leaders": Reports().elected("main", 1).elected("main", 1, 2),
    "votes in term 1 for 1 and for 2": Reports().vote("sk0", 1, 1).process("sk0", "started")
        .vote("sk0", 1, 2),
    "term falls from 3 to 2": Reports().term("sk0", 3).process("sk0", "started").term("sk0", 2),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_reports_in_order(name: str) -> None:
    assert check_lsn_order(GOOD[name].events) == len(GOOD[name].events)


@pytest.mark.parametrize("says", BAD)
def test_reports_out_of_order(says: str) -> None:
    with pytest.raises(CheckFailed, match=says):
        check_lsn_order(BAD[says].events)


def test_reports_of_a_dead_incarnation_do_not_bind_the_next() -> None:
    reports = Reports().lsn("sk0", "commit_lsn", 16).process("sk0", "started")
    reports = reports.lsn("sk0", "commit_lsn", 8)
    assert check_lsn_order(reports.events) == 3
