"""Transactions as a whole: no cycle among their dependencies, so some order explains all of them.

Each operation is a transaction: a ``txn`` writes several keys at once, a scan reads several.
Versions of a key are in the order of their LSNs; without LSNs, in that of real time as far as that
is certain. Edges and the names of cycles: :mod:`harness.checkers.cycles`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise

from harness.checkers.cycles import Edge, check_acyclic
from harness.checkers.registers import KeyRead, KeyWrite, Register, registers_of
from harness.history import History
from storage.lsn import Lsn

CHECKER = "dependency_cycles"


def check_dependency_cycles(history: History) -> int:
    """Check every timeline; returns how many dependencies there were."""
    dependencies = 0
    for timeline in history.timelines():
        registers = registers_of(history, timeline)
        dependencies += check_acyclic(
            partial(edges_of, registers),
            lambda number: str(history[number]),
            checker=CHECKER,
        )
    return dependencies


def edges_of(registers: Iterable[Register]) -> Iterator[Edge]:
    """Every dependency between operations that the registers show; the initial state is none."""
    for register in registers:
        versions = _versions(register)
        found = _by_real_time(register) if versions is None else _by_versions(register, versions)
        for edge in found:
            if edge.before >= 0 and edge.after >= 0:
                yield edge


def _versions(register: Register) -> list[KeyWrite] | None:
    """The writes of a key in order, those of unknown outcome as far as a read proves them, and at
    the LSN where they were read first; ``None`` when an acknowledged write tells no LSN."""
    writes = register.placed_writes()
    if writes is None:
        return None
    known, unknown = writes
    placed = [(write.position, write) for write in known]
    if unknown:
        acknowledged = {write.value for write in known}
        for value, lsn in _first_seen(register.reads, unknown).items():
            if len(unknown[value]) == 1 and value not in acknowledged:
                placed.append((lsn, unknown[value][0]._replace(lsn=lsn)))
    versions: list[KeyWrite] = []
    for _, write in sorted(placed, key=lambda each: each[0]):
        # Deleting what is absent makes no version.
        if not versions or write.value is not None or versions[-1].value is not None:
            versions.append(write)
    return versions


def _first_seen(reads: Iterable[KeyRead], values: Container[str | None]) -> dict[str | None, Lsn]:
    """The lowest LSN at which each of the values was read: it was newest there, so of two the one
    seen first is the older, and an acknowledged write at or below that LSN is older too."""
    seen: dict[str | None, Lsn] = {}
    for read in reads:
        if read.lsn is not None and read.value in values:
            seen[read.value] = min(seen.get(read.value, read.lsn), read.lsn)
    return seen


def _by_versions(register: Register, versions: Sequence[KeyWrite]) -> Iterator[Edge]:
    key = register.key
    following: dict[int, KeyWrite] = {}
    for before, after in pairwise(versions):
        yield Edge(before.number, after.number, "ww", key)
        following[before.number] = after
    writers = _Writers(register, versions)
    for read in register.reads:
        writer = writers.of(read)
        if writer is not None:
            yield Edge(writer.number, read.number, "wr", key)
            if writer.number in following:
                yield Edge(read.number, following[writer.number].number, "rw", key)


class _Writers:
    """Tells whose version a read saw, where that is certain."""

    def __init__(self, register: Register, versions: Sequence[KeyWrite]) -> None:
        self._by_value: dict[str | None, list[KeyWrite]] = {}
        for write in (register.initial, *register.writes):
            self._by_value.setdefault(write.value, []).append(write)
        self._versions = versions
        self._lsns = [write.position for write in versions]
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


def _by_real_time(register: Register) -> Iterator[Edge]:
    """Only what is certain: a write that ended before another began is an earlier version."""
    key = register.key
    writes = sorted((register.initial, *register.writes), key=lambda write: write.invoked_at_s)
    following = {write.number: after for write, after in _certain_successors(writes)}
    writers: dict[str | None, list[KeyWrite]] = {}
    for write in writes:
        writers.setdefault(write.value, []).append(write)
        if write.number in following:
            yield Edge(write.number, following[write.number].number, "ww", key)
    for read in register.reads:
        candidates = writers.get(read.value, [])
        if len(candidates) == 1:
            yield Edge(candidates[0].number, read.number, "wr", key)
            after = following.get(candidates[0].number)
            if after is not None:
                yield Edge(read.number, after.number, "rw", key)


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
