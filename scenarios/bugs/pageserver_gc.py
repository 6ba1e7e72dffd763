"""Bugs of garbage collection: who is asked what is still needed, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from harness.bug import Bug, Replacement, Standing
from storage.ids import TimelineId
from storage.lsn import Lsn
from storage.pageserver import garbage, retention
from storage.pageserver.branch_points import BranchPoints
from storage.pageserver.gc_cutoff import GcCutoff
from storage.pageserver.layer_name import LayerName
from storage.pageserver.retention import Plan, Reason

FAMILY = "pageserver-gc"

_plan_of = retention.plan_of


def _needed_only_around_the_branch_point(name: LayerName, point: Lsn, image_lsn: Lsn) -> bool:
    return name.start_lsn <= point < name.end_lsn


@contextmanager
def _hold_nothing(self: GcCutoff) -> Iterator[Lsn]:
    yield self.lsn


def _children_that_did_something(self: BranchPoints) -> dict[TimelineId, Lsn]:
    return {
        timeline_id: child.ancestor_lsn
        for timeline_id, child in self._children.items()
        if getattr(child, "last_record_lsn", child.ancestor_lsn) > child.ancestor_lsn
    }


def _only_the_horizon(limits: Mapping[Reason, Lsn | None]) -> Plan:
    return _plan_of({reason: lsn for reason, lsn in limits.items() if reason is not Reason.PITR})


BUGS = (
    Bug("gc-child-needs-older-layers", FAMILY, "medium", ("O6",), "6f7ebe6e01",
        replacements=(
            Replacement(garbage, "is_needed_by_branch", _needed_only_around_the_branch_point),
        ),
        applies="a branch in the past, then garbage collection of its ancestor"),
    Bug("gc-removes-tombstone", FAMILY, "medium", ("O6",), "a4fc6da57b",
        standing=Standing.INEXPRESSIBLE,
        reason="there are no tombstone layers: an image takes the place of everything below it and "
        "says by omission what does not exist, so no layer that only says it was dropped can go "
        "alone; and the deterministic compute never drops or truncates a relation"),
    Bug("gc-cutoff-check-not-held", FAMILY, "hard", ("O6",),
        "79f0e44a20 = PR #1139 (issue #1047); recurrence 19b74b8837 = PR #12743",
        replacements=(Replacement(GcCutoff, "hold", _hold_nothing),),
        applies="reads in the past while garbage collection passes them"),
    Bug("gc-ignores-inactive-children", FAMILY, "hard", ("O6",),
        "32d14403bd; offloaded twin f54e3e9147 = PR #9308, 7880c246f1 = PR #9760",
        replacements=(Replacement(BranchPoints, "lsns", _children_that_did_something),),
        applies="garbage collection of a timeline with a branch that nothing was written to; all "
        "timelines of a tenant become active in one step here, so \"inactive\" means idle"),
    Bug("gc-horizon-pitr-not-min", FAMILY, "easy", ("O13",), "aa7c601eca",
        replacements=(Replacement(retention, "plan_of", _only_the_horizon),),
        applies="branches and replicas of what the retention time promises to keep"),
)  # fmt: skip
