"""What takes a quorum had one: by what safekeepers reported before, in exact order of time.

* Nobody calls an LSN committed, and no pageserver ingests it, before a quorum flushed it.
* Nobody is elected before a quorum voted for it in that term.

Reports of a killed process may be lost, so this is for worlds that lose none.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.backend import Event
from harness.errors import CheckFailed
from storage.lsn import Lsn

CHECKER = "quorum_order"
COMMITTED = frozenset({"commit_lsn", "last_record_lsn"})
"""Reports that say: this is committed."""

Timeline = tuple[str, str]
"""Tenant and timeline id."""


def check_quorum_order(events: Iterable[Event], *, safekeepers: int) -> int:
    """Check the events of a run, in order of time; returns how many mattered.

    ``safekeepers``: how many each timeline has.
    """
    order = QuorumOrder(safekeepers // 2 + 1)
    return sum(order.observe(event) for event in events)


class QuorumOrder:
    """How far each disk was reported to be flushed, and who voted for whom.

    Nothing is known of what was flushed before the first report (the timeline's start), so commits
    at or below the lowest first report pass. A log that is cut has flushed less; a wiped disk
    counts on as it was, for its bytes had a copy on it when they were committed.
    """

    def __init__(self, quorum: int) -> None:
        assert quorum >= 1, f"a quorum of {quorum}"
        self._quorum = quorum
        self._flushed: dict[Timeline, dict[tuple[str, int], int]] = {}
        self._first: dict[Timeline, int] = {}
        self._wipes: dict[str, int] = {}
        self._votes: dict[tuple[Timeline, int, object], set[str]] = {}

    def observe(self, event: Event) -> bool:
        """Take a report of a flush or a vote, or check one of a commit or an election."""
        fields = event.fields
        if event.kind == "process":
            if fields["state"] == "wiped":
                node = str(fields.get("node") or event.node)
                self._wipes[node] = self._wipes.get(node, 0) + 1
            return False
        if event.kind not in ("lsn", "vote", "elected"):
            return False
        timeline = (str(fields["tenant"]), str(fields["timeline"]))
        if event.kind == "lsn":
            if fields["name"] == "flush_lsn":
                self._take_flush(timeline, event)
            elif fields["name"] in COMMITTED:
                self._check_commit(timeline, event)
            return True
        term = fields["term"]
        assert isinstance(term, int), f"{event} has no term"
        votes = self._votes.setdefault((timeline, term, fields["proposer"]), set())
        if event.kind == "vote":
            votes.add(event.node)
        elif len(votes) < self._quorum:
            raise _failure(
                event,
                f"proposer {fields['proposer']} is elected in term {term} by "
                f"{', '.join(sorted(votes)) or 'nobody'}; {self._quorum} votes are needed",
            )
        return True

    def _take_flush(self, timeline: Timeline, event: Event) -> None:
        value = _value(event)
        disk = (event.node, self._wipes.get(event.node, 0))
        self._flushed.setdefault(timeline, {})[disk] = value
        self._first[timeline] = min(self._first.get(timeline, value), value)

    def _check_commit(self, timeline: Timeline, event: Event) -> None:
        value = _value(event)
        if value <= self._first.get(timeline, value):
            return
        flushed = self._flushed[timeline]
        holders = {node for (node, _), lsn in flushed.items() if lsn >= value}
        if len(holders) < self._quorum:
            shown = ", ".join(f"{node} {Lsn(lsn)}" for (node, _), lsn in sorted(flushed.items()))
            raise _failure(
                event,
                f"{event.fields['name']} {Lsn(value)} takes a quorum of {self._quorum}, but was "
                f"flushed only by {len(holders)} ({shown})",
            )


def _value(event: Event) -> int:
    value = event.fields["value"]
    assert isinstance(value, int), f"{event} has no number"
    return value


def _failure(event: Event, what: str) -> CheckFailed:
    timeline = event.fields.get("timeline")
    return CheckFailed(
        f"at {event.at_s:.6f} s on {event.node}, timeline {timeline}: {what}", checker=CHECKER
    )
