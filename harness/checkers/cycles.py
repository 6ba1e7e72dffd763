"""Cycles among dependencies: finding one, the shortest, and what it is called.

An edge says that one operation comes before another: it wrote the version before (``ww``), the
version that the other read (``wr``), it read the version before the other's (``rw``), or it ended
before the other began (``rt``). After Adya, a cycle is G0 (only ww), G1c (ww and wr), G-single (one
rw) or G2 (more); two readers that see two writes in opposite orders are a G2 known as long fork;
one that needs real time is so marked. Negative nodes are instants: :func:`real_time_edges`.
Sources: Adya, "Weak Consistency" (PhD thesis, MIT, 1999), chapter 3; Kingsbury and Alvaro, "Elle",
VLDB 14 (2020), sections 4 and 5.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from harness.errors import CheckFailed
from harness.history import Operation, Outcome

Successors = dict[int, list[int]]

SHORTEST_FROM_MAX = 64
"""From how many operations of a component a shortest cycle is looked for."""


class Edge(NamedTuple):
    """``before`` comes before ``after``, both numbers of operations, because of a key (if any)."""

    before: int
    after: int
    kind: str
    key: int | None = None


def check_acyclic(
    edges: Callable[[], Iterable[Edge]], describe: Callable[[int], str], *, checker: str
) -> int:
    """Raise ``CheckFailed`` that tells a shortest cycle; returns how many edges there are.

    ``edges`` is called again only to tell why: so a graph costs no more than its numbers.
    """
    successors: Successors = {}
    count = 0
    for before, after, _, _ in edges():
        if before != after:
            count += 1
            if before in successors:
                successors[before].append(after)
            else:
                successors[before] = [after]
    knotted = knot(successors)
    if knotted:
        raise _failure(edges, shortest_cycle(knotted), describe, checker)
    return count


def knot(successors: Successors) -> Successors:
    """What is left of a graph once everything without a predecessor is taken away, again and
    again: its cycles and what they lead to; empty when there is no cycle (Kahn's algorithm)."""
    waiting: dict[int, int] = {}
    for after in successors.values():
        for node in after:
            waiting[node] = waiting.get(node, 0) + 1
    free = [node for node in successors if node not in waiting]
    while free:
        for node in successors.get(free.pop(), ()):
            waiting[node] -= 1
            if not waiting[node]:
                del waiting[node]
                free.append(node)
    return {node: successors[node] for node in waiting if node in successors}


def shortest_cycle(successors: Successors) -> list[int]:
    """A shortest cycle through one of the first operations that lie on any; the first node is not
    repeated. There must be one."""
    best: list[int] = []
    tried = 0
    for start in sorted(successors):
        cycle = _cycle_through(successors, start)
        if cycle:
            tried += 1
            if not best or len(cycle) < len(best):
                best = cycle
        if tried == SHORTEST_FROM_MAX:
            break
    assert best, "no cycle in what holds one"
    return best


def _cycle_through(successors: Successors, start: int) -> list[int]:
    """A shortest cycle through a node, by breadth; empty if there is none."""
    previous: dict[int, int] = {}
    queue = deque([start])
    while queue and start not in previous:
        node = queue.popleft()
        for successor in successors.get(node, ()):
            if successor not in previous:
                previous[successor] = node
                queue.append(successor)
    if start not in previous:
        return []
    cycle = [start]
    while previous[cycle[-1]] != start:
        cycle.append(previous[cycle[-1]])
    return [cycle[0], *reversed(cycle[1:])]


def real_time_edges(operations: Sequence[Operation], *, timeless: Iterable[int]) -> Iterator[Edge]:
    """What ended before another began comes before it; ``timeless`` operations are left out.

    A chain of instants, one for each end, stands between, so there are few edges: an operation
    leads to the instant of its end, and the last instant before it began leads to it.
    """
    excused = set(timeless)
    bound = [each for each in operations if each.number not in excused]
    ends = sorted(
        (each.completed_at_s, each.number)
        for each in bound
        if each.outcome is Outcome.OK and each.completed_at_s is not None
    )
    for position, (_, number) in enumerate(ends):
        yield Edge(number, -1 - position, "rt")
        if position:
            yield Edge(-position, -1 - position, "rt")
    ends_at_s = [end_s for end_s, _ in ends]
    for operation in bound:
        position = bisect_left(ends_at_s, operation.invoked_at_s)
        if position and operation.outcome is not Outcome.FAILED:
            yield Edge(-position, operation.number, "rt")


def name_of(kinds: Sequence[str]) -> str:
    """What a cycle with these edges is called."""
    reads_before = kinds.count("rw")
    suffix = " by real time" if "rt" in kinds else ""
    dependencies = set(kinds) - {"rt"}
    if reads_before > 1:
        is_fork = sorted(kinds) == ["rw", "rw", "wr", "wr"] and kinds[0] == kinds[2]
        return "long fork (G2)" if is_fork else "G2" + suffix
    if reads_before == 1:
        return "G-single" + suffix
    return ("G1c" if "wr" in dependencies else "G0") + suffix


def _failure(
    edges: Callable[[], Iterable[Edge]],
    cycle: Sequence[int],
    describe: Callable[[int], str],
    checker: str,
) -> CheckFailed:
    steps = dict.fromkeys(pairwise([*cycle, cycle[0]]))
    why = {(edge.before, edge.after): edge for edge in edges() if (edge[0], edge[1]) in steps}
    told = [why[step] for step in steps]
    kinds = [edge.kind for edge in told if edge.kind != "rt" or edge.before >= 0]
    story = "\n".join(
        f"  {describe(edge.before)}\n    "
        + ("ended before the next began →" if edge.kind == "rt" else f"{edge.kind} {edge.key} →")
        for edge in told
        if edge.before >= 0
    )
    count = sum(node >= 0 for node in cycle)
    return CheckFailed(
        f"{name_of(kinds)}: no order explains these {count} operations:\n{story} the first of them",
        checker=checker,
    )
