"""Transactions as a whole: no cycle among their dependencies, so some order explains all of them.

Each operation is a transaction: a ``txn`` writes several keys at once, a scan reads several. An
edge says that one comes before the other: it wrote the version before (``ww``), the version that
the other read (``wr``), or it read the version before the other's (``rw``). Versions of a key are
in the order of their LSNs; without LSNs, in that of real time as far as that is certain. A cycle
is named by its edges, after Adya: G0 (only ww), G1c (ww and wr), G-single (one rw), G2 (more). Two
readers that see two writes in opposite orders are a G2 known as long fork.
Sources: Adya, "Weak Consistency" (PhD thesis, MIT, 1999), chapter 3; Kingsbury and Alvaro, "Elle",
VLDB 14 (2020), section 4.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import pairwise

from harness.checkers.registers import KeyRead, KeyWrite, Register, registers_of
from harness.errors import CheckFailed
from harness.history import History

CHECKER = "dependency_cycles"

Edges = dict[int, dict[int, tuple[str, int]]]
"""Operation → operations that come after it, each with why (``ww``, ``wr``, ``rw``) and the key."""


def check_dependency_cycles(history: History) -> int:
    """Check every timeline; returns how many dependencies there were."""
    dependencies = 0
    for timeline in history.timelines():
        edges = edges_of(registers_of(history, timeline))
        dependencies += sum(map(len, edges.values()))
        for component in components(edges):
            raise _failure(history, edges, shortest_cycle(edges, component))
    return dependencies


def edges_of(registers: Iterable[Register]) -> Edges:
    """Every dependency between operations that the registers show."""
    edges: Edges = {}
    for register in registers:
        versions = _versions(register)
        if versions is None:
            _by_real_time(register, edges)
        else:
            _by_versions(register, versions, edges)
    return edges


def _versions(register: Register) -> list[KeyWrite] | None:
    """The writes of a key in order, those of unknown outcome as far as a read proves them;
    ``None`` when an acknowledged write tells no LSN."""
    known = [register.initial]
    unknown: dict[str | None, list[KeyWrite]] = {}
    for write in register.writes:
        if not write.acknowledged:
            unknown.setdefault(write.value, []).append(write)
        elif write.lsn is None:
            return None
        else:
            known.append(write)
    placed = [(_position(write), write) for write in known]
    if unknown:
        acknowledged = {write.value for write in known}
        for value, lsn in _first_seen(register.reads, unknown).items():
            if len(unknown[value]) == 1 and value not in acknowledged:
                placed.append((lsn, unknown[value][0]))
    versions: list[KeyWrite] = []
    for _, write in sorted(placed, key=lambda each: each[0]):
        # Deleting what is absent makes no version.
        if not versions or write.value is not None or versions[-1].value is not None:
            versions.append(write)
    return versions


def _position(write: KeyWrite) -> int:
    assert write.lsn is not None
    return int(write.lsn)


def _first_seen(reads: Iterable[KeyRead], values: Container[str | None]) -> dict[str | None, int]:
    """The lowest LSN at which each of the values was read: it was newest there, so of two the one
    seen first is the older, and an acknowledged write at or below that LSN is older too."""
    seen: dict[str | None, int] = {}
    for read in reads:
        if read.lsn is not None and read.value in values:
            seen[read.value] = min(seen.get(read.value, read.lsn), read.lsn)
    return seen


def _by_versions(register: Register, versions: Sequence[KeyWrite], edges: Edges) -> None:
    key = register.key
    following: dict[int, KeyWrite] = {}
    for before, after in pairwise(versions):
        _add(edges, before.number, after.number, ("ww", key))
        following[before.number] = after
    writers = _Writers(register, versions)
    for read in register.reads:
        writer = writers.of(read)
        if writer is not None:
            _add(edges, writer.number, read.number, ("wr", key))
            if writer.number in following:
                _add(edges, read.number, following[writer.number].number, ("rw", key))


class _Writers:
    """Tells whose version a read saw, where that is certain."""

    def __init__(self, register: Register, versions: Sequence[KeyWrite]) -> None:
        self._by_value: dict[str | None, list[KeyWrite]] = {}
        for write in (register.initial, *register.writes):
            self._by_value.setdefault(write.value, []).append(write)
        self._versions = [write for write in versions if write.lsn is not None]
        self._lsns = [_position(write) for write in self._versions]
        self._numbers = {write.number for write in versions}

    def of(self, read: KeyRead) -> KeyWrite | None:
        """The only write of the value; or, of several, the one newest at the read's LSN, if all are
        acknowledged or no other version is newer there. Had one of unknown outcome come after that
        and written the same, it would do as well: both come before the read and after what is
        older."""
        candidates = self._by_value.get(read.value, [])
        if len(candidates) == 1:
            return candidates[0] if candidates[0].number in self._numbers else None
        if read.lsn is None:
            return None
        position = bisect_right(self._lsns, read.lsn) - 1
        if all(write.acknowledged for write in candidates):
            while position >= 0 and self._versions[position].value != read.value:
                position -= 1
        newest = self._versions[position] if position >= 0 else None
        return newest if newest is not None and newest.value == read.value else None


def _by_real_time(register: Register, edges: Edges) -> None:
    """Only what is certain: a write that ended before another began is an earlier version."""
    key = register.key
    writes = sorted((register.initial, *register.writes), key=lambda write: write.invoked_at_s)
    following = {write.number: after for write, after in _certain_successors(writes)}
    writers: dict[str | None, list[KeyWrite]] = {}
    for write in writes:
        writers.setdefault(write.value, []).append(write)
        if write.number in following:
            _add(edges, write.number, following[write.number].number, ("ww", key))
    for read in register.reads:
        candidates = writers.get(read.value, [])
        if len(candidates) == 1:
            _add(edges, candidates[0].number, read.number, ("wr", key))
            after = following.get(candidates[0].number)
            if after is not None:
                _add(edges, read.number, after.number, ("rw", key))


def _certain_successors(writes: Sequence[KeyWrite]) -> Iterator[tuple[KeyWrite, KeyWrite]]:
    """For each write the first acknowledged one that began after it ended."""
    position = 0
    acknowledged = [write for write in writes if write.acknowledged]
    for write in sorted(acknowledged, key=lambda each: each.completed_at_s):
        while (
            position < len(acknowledged)
            and acknowledged[position].invoked_at_s <= write.completed_at_s
        ):
            position += 1
        if position < len(acknowledged):
            yield write, acknowledged[position]


def _add(edges: Edges, before: int, after: int, why: tuple[str, int]) -> None:
    if before >= 0 and after >= 0 and before != after:
        edges.setdefault(before, {}).setdefault(after, why)


def components(edges: Edges) -> Iterator[list[int]]:
    """Strongly connected components of more than one operation (Tarjan's algorithm)."""
    numbers: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in edges:
        if root in numbers:
            continue
        work = [(root, iter(edges[root]))]
        numbers[root] = low[root] = len(numbers)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in numbers:
                    numbers[successor] = low[successor] = len(numbers)
                    stack.append(successor)
                    on_stack.add(successor)
                    work.append((successor, iter(edges.get(successor, ()))))
                    break
                if successor in on_stack:
                    low[node] = min(low[node], numbers[successor])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == numbers[node]:
                    component = _pop_until(stack, node)
                    on_stack.difference_update(component)
                    if len(component) > 1:
                        yield component


def _pop_until(stack: list[int], node: int) -> list[int]:
    component = [stack.pop()]
    while component[-1] != node:
        component.append(stack.pop())
    return component


def shortest_cycle(edges: Edges, component: Sequence[int]) -> list[int]:
    """A shortest cycle through some operation of a component, the first not repeated."""
    inside = set(component)
    best: list[int] = []
    for start in sorted(inside)[:64]:
        previous: dict[int, int] = {}
        queue = deque([start])
        while queue and start not in previous:
            node = queue.popleft()
            for successor in edges.get(node, ()):
                if successor in inside and successor not in previous:
                    previous[successor] = node
                    queue.append(successor)
        cycle = [start]
        while previous[cycle[-1]] != start:
            cycle.append(previous[cycle[-1]])
        if not best or len(cycle) < len(best):
            best = cycle
    return [best[0], *reversed(best[1:])]


def name_of(kinds: Sequence[str]) -> str:
    """What a cycle with these edges is called."""
    reads_before = kinds.count("rw")
    if reads_before > 1:
        return "long fork (G2)" if set(kinds) == {"wr", "rw"} else "G2"
    if reads_before == 1:
        return "G-single"
    return "G1c" if "wr" in kinds else "G0"


def _failure(history: History, edges: Edges, cycle: Sequence[int]) -> CheckFailed:
    steps = [
        (before, after, *edges[before][after]) for before, after in pairwise([*cycle, cycle[0]])
    ]
    story = "\n".join(
        f"  {history[before]}\n    {kind} on key {key} →" for before, _, kind, key in steps
    )
    name = name_of([kind for _, _, kind, _ in steps])
    return CheckFailed(
        f"{name}: no order explains these {len(cycle)} operations:\n{story} the first of them",
        checker=CHECKER,
    )
