"""What was durable outlives crashes: what a node told before it died it still has afterwards.

* A safekeeper's log never ends below a commit that it reported, whoever restarted or cut it.
* A pageserver that attaches a tenant begins with everything that any pageserver had reported to
  be in the object store, on whatever node.

A wiped disk has lost what it had, and one that a fault damaged promises nothing until it is wiped.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.backend import Event
from harness.checkers.watch import RulesByKind
from harness.errors import CheckFailed
from storage.lsn import Lsn

CHECKER = "crash_order"
PAGESERVER_LSNS = frozenset({"last_record_lsn", "disk_consistent_lsn"})

Timeline = tuple[str, str]
"""Tenant and timeline id."""


def check_crash_order(events: Iterable[Event]) -> int:
    """Check the events of a run, in order of time; returns how many mattered."""
    order = CrashOrder()
    return sum(order.observe(event) for event in events)


class CrashOrder(RulesByKind):
    """What each node is bound by."""

    def __init__(self) -> None:
        self._committed: dict[tuple[str, Timeline], int] = {}
        self._remote: dict[Timeline, int] = {}
        self._floors: dict[tuple[str, Timeline], int] = {}
        self._damaged: set[str] = set()
        super().__init__(
            {
                "lsn": self._lsn,
                "process": self._process,
                "tenant_state": self._tenant_state,
                "fault": self._fault,
            }
        )

    def _lsn(self, event: Event) -> None:
        fields = event.fields
        name, value = fields["name"], fields["value"]
        assert isinstance(value, int), f"{event} has no number"
        timeline = (str(fields["tenant"]), str(fields["timeline"]))
        here = (event.node, timeline)
        if name == "commit_lsn":
            self._committed[here] = max(self._committed.get(here, 0), value)
        elif name == "flush_lsn":
            self._at_least(event, value, self._committed.get(here, 0), "a commit reported here")
        elif name == "remote_consistent_lsn":
            self._remote[timeline] = max(self._remote.get(timeline, 0), value)
        elif name in PAGESERVER_LSNS:
            floor = self._floors.get(here, 0)
            self._at_least(event, value, floor, "what was reported to be in the object store")

    def _at_least(self, event: Event, value: int, floor: int, what: str) -> None:
        if value < floor and event.node not in self._damaged:
            raise CheckFailed(
                f"at {event.at_s:.6f} s {event.node} has {event.fields['name']} {Lsn(value)} of "
                f"timeline {event.fields['timeline']}, below {Lsn(floor)}, {what} earlier",
                checker=CHECKER,
            )

    def _tenant_state(self, event: Event) -> None:
        """An attachment reads the object store after it began."""
        if event.fields["state"] == "Attaching":
            tenant = str(event.fields["tenant"])
            for timeline, value in self._remote.items():
                if timeline[0] == tenant:
                    self._floors[event.node, timeline] = value

    def _process(self, event: Event) -> None:
        if event.fields["state"] == "wiped":
            node = event.fields.get("node") or event.node
            self._damaged.discard(str(node))
            for bound in (self._committed, self._floors):
                for here in [here for here in bound if here[0] == node]:
                    del bound[here]

    def _fault(self, event: Event) -> None:
        """A fault says of itself whether it damages its targets' disks; a wipe ends the damage."""
        if event.fields.get("damage") and event.fields["verb"] != "end":
            self._damaged.update(str(event.fields.get("target", "")).split())
