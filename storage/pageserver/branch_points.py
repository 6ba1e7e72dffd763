"""Where other timelines branch off: what garbage collection of their ancestor must keep.

Every child counts from the moment its branch point was chosen, whatever state it is in and whether
or not its creation is known to have succeeded (BUGBANK ``gc-ignores-inactive-children``). A
creation of unknown outcome counts until this attachment ends; the next one finds its index or not.
"""

from __future__ import annotations

from typing import Protocol

from storage.ids import TimelineId
from storage.lsn import Lsn
from storage.pageserver.states import StateCell


class Child(Protocol):
    """A timeline that was branched off another."""

    ancestor_lsn: Lsn
    state: StateCell


class BranchPoints:
    """The children of one timeline, born or expected."""

    def __init__(self) -> None:
        self._expected: dict[TimelineId, Lsn] = {}
        self._children: dict[TimelineId, Child] = {}

    def expect(self, timeline_id: TimelineId, lsn: Lsn) -> None:
        """A branch is about to be made at ``lsn``; one asked for before may come true as well."""
        self._expected[timeline_id] = min(lsn, self._expected.get(timeline_id, lsn))

    def born(self, timeline_id: TimelineId, child: Child) -> None:
        """The branch exists now."""
        expected = self._expected.pop(timeline_id, child.ancestor_lsn)
        assert expected <= child.ancestor_lsn, f"{child.ancestor_lsn} was not held, but {expected}"
        self._children[timeline_id] = child

    def gone(self, timeline_id: TimelineId) -> None:
        """The branch does not exist, and never will under this request."""
        self._expected.pop(timeline_id, None)
        self._children.pop(timeline_id, None)

    def children(self) -> list[TimelineId]:
        """Every timeline that exists, or may come to exist."""
        return sorted({*self._children, *self._expected})

    def lsns(self) -> dict[TimelineId, Lsn]:
        """The branch point of each."""
        return dict(sorted((self._expected | self._born_lsns()).items()))

    def _born_lsns(self) -> dict[TimelineId, Lsn]:
        return {timeline_id: child.ancestor_lsn for timeline_id, child in self._children.items()}
