"""What nodes report of themselves obeys the order of the protocols (SYSTEM.md, "Consensus").

* An LSN that only grows does so within one incarnation, or one attachment of a tenant.
* Pageserver: latest_gc_cutoff ≤ remote_consistent ≤ disk_consistent ≤ last_record. Safekeeper:
  backup ≤ commit ≤ flush, remote_consistent ≤ commit, truncate ≤ flush. WAL is removed from its
  disk only up to the lowest of remote_consistent, truncate and backup: pageserver, peers and S3
  have it.
* Terms only grow, a term has one leader, and a safekeeper votes once per term.

An event is compared with what was reported before it; what was never reported is not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from harness.backend import Event
from harness.checkers.watch import RulesByKind
from harness.errors import CheckFailed
from storage.lsn import Lsn

CHECKER = "lsn_order"

GROWING = frozenset(
    {
        "commit_lsn",
        "truncate_lsn",
        "backup_lsn",
        "removed_lsn",
        "last_record_lsn",
        "disk_consistent_lsn",
        "remote_consistent_lsn",
        "latest_gc_cutoff_lsn",
    }
)
"""Not flush_lsn: a new leader may cut a log."""

AT_MOST = {
    "latest_gc_cutoff_lsn": ("remote_consistent_lsn",),
    "remote_consistent_lsn": ("disk_consistent_lsn", "commit_lsn"),
    "disk_consistent_lsn": ("last_record_lsn",),
    "backup_lsn": ("commit_lsn",),
    "commit_lsn": ("flush_lsn",),
    "truncate_lsn": ("flush_lsn",),
    "removed_lsn": ("remote_consistent_lsn", "truncate_lsn", "backup_lsn"),
}
"""On one node, the first never exceeds any of the others that the node reports."""

AT_LEAST = {
    limit: tuple(name for name, limits in AT_MOST.items() if limit in limits)
    for limit in sorted({limit for limits in AT_MOST.values() for limit in limits})
}
"""The same the other way round: a log is never cut below what was committed."""


class Position(NamedTuple):
    """A kind of LSN on one node and timeline."""

    node: str
    tenant: str
    timeline: str
    name: str


def check_lsn_order(events: Iterable[Event]) -> int:
    """Check the events of a run, in order of time; returns how many mattered.

    Each rule but that of one leader compares what one node reported itself, so that clocks which
    differ between nodes do no harm.
    """
    order = LsnOrder()
    return sum(order.observe(event) for event in events)


class LsnOrder(RulesByKind):
    """The newest report of each position, and who led and voted in each term."""

    def __init__(self) -> None:
        self._newest: dict[Position, int] = {}
        self._terms: dict[tuple[str, str, str], int] = {}
        self._leaders: dict[tuple[str, str, int], object] = {}
        self._votes: dict[tuple[str, str, str, int], object] = {}
        super().__init__(
            {
                "lsn": self._lsn,
                "term": self._term,
                "elected": self._elected,
                "vote": self._vote,
                "process": self._process,
                "tenant_state": self._tenant_state,
            }
        )

    def _lsn(self, event: Event) -> None:
        position = _position(event)
        value = _number(event, "value")
        newest = self._newest.get(position)
        if position.name in GROWING and newest is not None and value < newest:
            raise _failure(event, f"{position.name} falls from {Lsn(newest)} to {Lsn(value)}")
        for limit_name in AT_MOST.get(position.name, ()):
            limit = self._newest.get(position._replace(name=limit_name))
            if limit is not None and value > limit:
                raise _failure(
                    event, f"{position.name} {Lsn(value)} exceeds {limit_name} {Lsn(limit)}"
                )
        for bound_name in AT_LEAST.get(position.name, ()):
            bound = self._newest.get(position._replace(name=bound_name))
            if bound is not None and value < bound:
                raise _failure(
                    event, f"{position.name} {Lsn(value)} is below {bound_name} {Lsn(bound)}"
                )
        self._newest[position] = value

    def _term(self, event: Event) -> None:
        key = (event.node, str(event.fields["tenant"]), str(event.fields["timeline"]))
        term, before = _number(event, "term"), self._terms.get(key, 0)
        if term < before:
            raise _failure(event, f"term falls from {before} to {term}")
        self._terms[key] = term

    def _elected(self, event: Event) -> None:
        term = _number(event, "term")
        key = (str(event.fields["tenant"]), str(event.fields["timeline"]), term)
        who = (event.node, event.fields["proposer"])
        leader = self._leaders.setdefault(key, who)
        if leader != who:
            raise _failure(event, f"term {term} has two leaders: {leader} and {who}")

    def _vote(self, event: Event) -> None:
        term = _number(event, "term")
        tenant, timeline = str(event.fields["tenant"]), str(event.fields["timeline"])
        given = event.fields["proposer"]
        before = self._votes.setdefault((event.node, tenant, timeline, term), given)
        if before != given:
            raise _failure(event, f"votes in term {term} for {before} and for {given}")

    def _process(self, event: Event) -> None:
        """A new incarnation may start behind what the last one said; an empty disk anywhere."""
        node = event.fields.get("node") or event.node
        state = event.fields["state"]
        if state in ("started", "wiped"):
            self._forget(lambda position: position.node == node)
        if state == "wiped":
            self._terms = {key: term for key, term in self._terms.items() if key[0] != node}
            self._votes = {key: who for key, who in self._votes.items() if key[0] != node}

    def _tenant_state(self, event: Event) -> None:
        """A tenant that is attached again starts from what is in remote storage; while it stops,
        it may still flush what it has."""
        if event.fields["state"] == "Attaching":
            tenant = event.fields["tenant"]
            self._forget(lambda p: p.node == event.node and p.tenant == tenant)

    def _forget(self, covers: Callable[[Position], bool]) -> None:
        self._newest = {
            position: value for position, value in self._newest.items() if not covers(position)
        }


def _position(event: Event) -> Position:
    fields = event.fields
    return Position(event.node, str(fields["tenant"]), str(fields["timeline"]), str(fields["name"]))


def _number(event: Event, name: str) -> int:
    value = event.fields[name]
    assert isinstance(value, int), f"{event} has no number {name!r}"
    return value


def _failure(event: Event, what: str) -> CheckFailed:
    timeline = event.fields.get("timeline")
    return CheckFailed(
        f"at {event.at_s:.6f} s on {event.node}, timeline {timeline}: {what}", checker=CHECKER
    )
