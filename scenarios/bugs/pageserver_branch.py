"""Bugs of branches: where they begin and how reads descend to their ancestors."""

from __future__ import annotations

from contextvars import ContextVar

from harness.bug import Bug, Replacement
from storage.lsn import Lsn
from storage.pageserver import creation
from storage.pageserver.creation import NewBranch, check_in_scope
from storage.pageserver.keys import Key
from storage.pageserver.timeline import Timeline

FAMILY = "pageserver-branch"

_descending: ContextVar[bool] = ContextVar("descending", default=False)


async def _read_without_waiting(
    self: Timeline, ancestor: Timeline, key: Key, lsn: Lsn
) -> bytes | None:
    return await ancestor.get(key, min(lsn, self.ancestor_lsn))


async def _limit_by_the_first_branch_point(
    self: Timeline, ancestor: Timeline, key: Key, lsn: Lsn
) -> bytes | None:
    """Further hops keep the LSN limited by the timeline where the read began."""
    lsn_there = lsn if _descending.get() else min(lsn, self.ancestor_lsn)
    token = _descending.set(True)
    try:
        return await ancestor.get(key, lsn_there)
    finally:
        _descending.reset(token)


async def _head_before_the_lock(ancestor: Timeline, request: NewBranch) -> Lsn:
    lsn = request.ancestor_start_lsn or ancestor.last_record_lsn
    async with ancestor.layers_changing:
        check_in_scope(ancestor, lsn)
        ancestor.branch_points.expect(request.timeline_id, lsn)
        return lsn


BUGS = (
    Bug(
        "branch-head-read-before-lock", FAMILY, "medium", ("O13",),
        "1f5918b36d = PR #2053; regression ddceb9e6cd = PR #5535, issue #5531",
        replacements=(Replacement(creation, "choose_branch_point", _head_before_the_lock),),
        applies="a branch at the head while garbage collection removes layers",
    ),
    Bug(
        "branch-ancestor-not-caught-up", FAMILY, "hard", ("O6",),
        "2855c73990 = PR #4170 (follow-up issue #4218)",
        replacements=(Replacement(Timeline, "_read_ancestor", _read_without_waiting),),
        applies="a branch is read after its pageserver came back",
    ),
    Bug(
        "branch-grandchild-wrong-ancestor-lsn", FAMILY, "easy", ("O6",), "b2e35fffa6 = PR #1484",
        replacements=(Replacement(Timeline, "_read_ancestor", _limit_by_the_first_branch_point),),
        applies="a branch of a branch, its grandparent written to after the first branch point",
    ),
)  # fmt: skip
