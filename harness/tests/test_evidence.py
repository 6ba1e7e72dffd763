"""A run whose evidence is missing is an error of ours, whatever the other oracles say."""

from __future__ import annotations

import dataclasses

import pytest

from harness.backend import Event, LogLine
from harness.checkers.evidence import Expected, check_evidence
from harness.errors import HarnessError
from storage.ids import TenantId, TenantTimelineId, TimelineId

TIMELINE = TenantTimelineId(TenantId("a" * 32), TimelineId("b" * 32))
IDS = {"tenant": str(TIMELINE.tenant_id), "timeline": str(TIMELINE.timeline_id)}
EXPECTED = Expected(nodes=["sk0", "sk1"], timelines=[TIMELINE], reporters=2)
LOGS = [LogLine(0.0, node, "INFO", "ready") for node in ("sk0", "sk1")]


def events() -> list[Event]:
    """All that a healthy run reports at least."""
    found = [Event(1.0, "main", "elected", {**IDS, "term": 1, "proposer": 7})]
    for node in ("sk0", "sk1"):
        found += [
            Event(0.0, node, "process", {"state": "ready"}),
            Event(1.0, node, "vote", {**IDS, "term": 1, "proposer": 7}),
            Event(2.0, node, "lsn", {**IDS, "name": "flush_lsn", "value": 8}),
        ]
    return [*found, Event(3.0, "sk1", "lsn", {**IDS, "name": "commit_lsn", "value": 8})]


def test_a_healthy_run_has_it_all() -> None:
    check_evidence(events(), LOGS, EXPECTED)


@pytest.mark.parametrize("missing", range(len(events())))
def test_any_report_that_is_missing_is_noticed(missing: int) -> None:
    left = events()
    del left[missing]
    with pytest.raises(HarnessError, match=r"no event says|committed, but only"):
        check_evidence(left, LOGS, EXPECTED)


def test_reports_of_another_timeline_do_not_count() -> None:
    other = TenantTimelineId(TIMELINE.tenant_id, TimelineId("c" * 32))
    with pytest.raises(HarnessError, match="only 0 nodes of at least 1 reported elected: nobody"):
        check_evidence(events(), LOGS, dataclasses.replace(EXPECTED, timelines=[other]))


def test_where_the_dead_take_reports_along_one_reporter_is_enough() -> None:
    left = [event for event in events() if event.kind != "vote" or event.node == "sk0"]
    check_evidence(left, LOGS, dataclasses.replace(EXPECTED, reporters=1))


def test_an_empty_log_is_noticed() -> None:
    with pytest.raises(HarnessError, match="the log of sk1 is empty"):
        check_evidence(events(), LOGS[:1], EXPECTED)
