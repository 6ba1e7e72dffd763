"""The order of reported LSNs, terms, leaders and votes."""

from __future__ import annotations

import pytest

from harness.backend import Event
from harness.checkers.lsn_order import check_lsn_order
from harness.errors import CheckFailed
from storage.events import Field


class Reports:
    """Builds a run's events, one second apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, node: str, kind: str, /, **fields: Field) -> Reports:
        self.events.append(Event(float(len(self.events)), node, kind, fields))
        return self

    def lsn(self, node: str, name: str, value: int, timeline: str = "l") -> Reports:
        return self.add(node, "lsn", tenant="t", timeline=timeline, name=name, value=value)

    def elected(self, node: str, term: int, proposer: int = 1, timeline: str = "l") -> Reports:
        return self.add(
            node, "elected", tenant="t", timeline=timeline, term=term, proposer=proposer
        )

    def vote(self, node: str, term: int, proposer: int) -> Reports:
        return self.add(node, "vote", tenant="t", timeline="l", term=term, proposer=proposer)

    def term(self, node: str, term: int) -> Reports:
        return self.add(node, "term", tenant="t", timeline="l", term=term)

    def process(self, node: str, state: str) -> Reports:
        return self.add(node, "process", node=node, state=state)

    def tenant(self, node: str, state: str) -> Reports:
        return self.add(node, "tenant_state", tenant="t", state=state)


GOOD = {
    "growing": Reports().lsn("sk0", "commit_lsn", 8).lsn("sk0", "commit_lsn", 8)
        .lsn("sk0", "commit_lsn", 16),
    "nodes and timelines apart": Reports().lsn("sk0", "commit_lsn", 16)
        .lsn("sk1", "commit_lsn", 8).lsn("sk0", "commit_lsn", 8, "other"),
    "a log that is cut": Reports().lsn("sk0", "flush_lsn", 16).lsn("sk0", "flush_lsn", 8),
    "a new incarnation": Reports().lsn("sk0", "commit_lsn", 16).process("sk0", "started")
        .lsn("sk0", "commit_lsn", 8),
    "a new attachment": Reports().lsn("ps0", "last_record_lsn", 16).tenant("ps0", "Stopping")
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
        .process("ps1", "started").tenant("ps1", "Stopping").lsn("ps0", "last_record_lsn", 8),
    "disk_consistent_lsn 0/18 exceeds last_record_lsn 0/10":
        Reports().lsn("ps0", "last_record_lsn", 16).lsn("ps0", "disk_consistent_lsn", 24),
    "remote_consistent_lsn 0/10 exceeds": Reports().lsn("ps0", "disk_consistent_lsn", 8)
        .lsn("ps0", "remote_consistent_lsn", 16),
    "backup_lsn 0/10 exceeds": Reports().lsn("sk0", "commit_lsn", 8).lsn("sk0", "backup_lsn", 16),
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


def quorum_story() -> Reports:
    reports = Reports().lsn("sk0", "commit_lsn", 8)
    for node in ("sk0", "sk1", "sk2"):
        reports.lsn(node, "flush_lsn", 16)
    return reports.lsn("sk0", "flush_lsn", 32).lsn("sk1", "flush_lsn", 24)


def test_what_a_quorum_flushed_may_be_called_committed() -> None:
    reports = quorum_story().lsn("sk2", "commit_lsn", 24)
    check_lsn_order(reports.events, safekeepers=3)


def test_what_a_minority_flushed_may_not_be_called_committed() -> None:
    reports = quorum_story().lsn("sk2", "commit_lsn", 32)
    check_lsn_order(reports.events)
    with pytest.raises(CheckFailed, match="flushed only by 1 of the 2 needed"):
        check_lsn_order(reports.events, safekeepers=3)


def test_a_flush_dated_a_little_late_is_forgiven_where_clocks_err() -> None:
    reports = quorum_story().lsn("sk2", "commit_lsn", 32).lsn("sk2", "flush_lsn", 32)
    with pytest.raises(CheckFailed):
        check_lsn_order(reports.events, safekeepers=3)
    with pytest.raises(CheckFailed):
        check_lsn_order(reports.events, safekeepers=3, clock_error_s=0.5)
    check_lsn_order(reports.events, safekeepers=3, clock_error_s=1.5)


def test_reports_of_a_dead_incarnation_are_not_carried_into_the_next_by_clock_error():
    reports = Reports().lsn("sk0", "commit_lsn", 16).process("sk0", "started")
    reports = reports.lsn("sk0", "commit_lsn", 8)
    assert check_lsn_order(reports.events, clock_error_s=5.0) == 3
