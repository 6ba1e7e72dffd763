"""Lists that transactions append to: every list has one order, and transactions one that explains
all lists, real time included: strict serialisability, on every compute.

An element names the transaction that appended it, so each list read tells whole versions of its
past. Found: an element nobody appended, or only one that failed (G1a); one appended twice; lists of
which neither begins the other (history was forked or rewritten); a state in the middle of a
transaction (G1b); steps that do not see each other; an order that LSNs contradict; and cycles
(:mod:`harness.checkers.cycles`), such as a long fork between a primary and pinned readers. A lost
append is a cycle with real time. Reads at a pinned LSN or through a primary that may have been
deposed are old on purpose: they take part, but not in real time.
Source: Kingsbury and Alvaro, "Elle", VLDB 14 (2020), sections 4 and 5.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from harness.checkers.cycles import Edge, check_acyclic, real_time_edges
from harness.checkers.deposed import Deposed
from harness.checkers.steps import SEPARATOR, Step, elements_of, redo
from harness.errors import CheckFailed
from harness.history import History, Kind, Operation, Outcome

CHECKER = "list_append"


@dataclass(slots=True)
class ListKey:
    """What a history says of one list. Operations are named by number.

    ``writers``: who asked for an element; ``final``: the last element that an operation appends
    here; ``seen``: each answer with the list, in order; ``reads``: those of them that tell what the
    operation found before it changed anything.
    """

    key: int
    writers: dict[str, int] = field(default_factory=dict)
    final: dict[int, str] = field(default_factory=dict)
    aborted: set[str] = field(default_factory=set)
    seen: list[tuple[int, str | None]] = field(default_factory=list)
    reads: list[tuple[int, str | None]] = field(default_factory=list)
    longest: str | None = None
    elements: list[str] = field(default_factory=list)


def check_list_append(history: History) -> int:
    """Check every timeline; returns how many lists were read or changed, once for each answer."""
    return sum(_check_timeline(history, timeline) for timeline in history.timelines())


def _check_timeline(history: History, timeline: str) -> int:
    operations = history.of(timeline)
    lists = _lists_of(history, timeline, operations)
    if not lists:
        return 0
    for each in lists.values():
        _check_versions(each, history)
    deposed = Deposed(history.lives.get(timeline, []))
    timeless = [
        each.number
        for each in operations
        if each.source.pinned or (not each.is_write and deposed.possible(each))
    ]
    involved = {number for each in lists.values() for number in each.final}
    involved.update(number for each in lists.values() for number, _ in each.seen)
    relevant = [each for each in operations if each.number in involved]

    def edges() -> Iterator[Edge]:
        for each in lists.values():
            yield from _edges_of(each)
        yield from real_time_edges(relevant, timeless=timeless)

    check_acyclic(edges, lambda number: str(history[number]), checker=CHECKER)
    return sum(len(each.seen) for each in lists.values())


def _lists_of(
    history: History, timeline: str, operations: Sequence[Operation]
) -> dict[int, ListKey]:
    """Every list of a timeline, by key, with all that was asked and answered."""
    lists: dict[int, ListKey] = {}
    for operation in _inherited(history, timeline):
        _take_asked(lists, operation)
    for operation in operations:
        if operation.kind is Kind.TRANSACT:
            _take_asked(lists, operation)
    keys = sorted(lists)
    for operation in operations:
        if operation.outcome is Outcome.OK:
            if operation.kind is Kind.TRANSACT:
                _take_steps(lists, operation)
            elif not operation.is_write and operation.kind is not Kind.SUM:
                _take_rows(lists, keys, operation)
    return lists


def _inherited(history: History, timeline: str) -> Iterator[Operation]:
    """Transactions of the timelines that one was branched from, as far as it may have them."""
    point = history.branches.get(timeline)
    while point is not None:
        for operation in history.of(point.parent):
            if operation.kind is Kind.TRANSACT and operation.invoked_at_s <= point.at_s:
                yield operation
        point = history.branches.get(point.parent)


def _take_asked(lists: dict[int, ListKey], operation: Operation) -> None:
    for step in operation.args[0]:
        if step[0] == "append":
            each = lists.setdefault(step[1], ListKey(step[1]))
            if operation.outcome is Outcome.FAILED:
                each.aborted.add(step[2])
            else:
                each.writers[step[2]] = operation.number
                each.final[operation.number] = step[2]


def _take_steps(lists: dict[int, ListKey], operation: Operation) -> None:
    steps: Sequence[Step] = operation.args[0]
    try:
        found = _found_before(operation)
        redone = redo(steps, found.get)
    except ValueError as error:
        raise _failure(f"{operation}: what it added to is no number: {error}") from error
    if redone.values != operation.result:
        raise _failure(f"{operation}: its steps do not see each other, which is {redone.values}")
    for key, value in found.items():
        if key in lists:
            last = redone.changes.get(key, value)
            _see(lists[key], operation.number, last)
            if _first_step(steps, key)[0] == "read":
                lists[key].reads.append((operation.number, value))


def _found_before(operation: Operation) -> dict[int, str | None]:
    """What the first step on each key tells of its value before the transaction."""
    found: dict[int, str | None] = {}
    for step, value in zip(operation.args[0], operation.result, strict=True):
        name, key = step[0], step[1]
        if key in found:
            continue
        if name == "append":
            before, separator, element = (value or "").rpartition(SEPARATOR)
            if element != step[2]:
                raise _failure(f"{operation}: its list {value!r} does not end with {step[2]!r}")
            found[key] = before if separator else None
        elif name == "add":
            found[key] = str(int(value or 0) - step[2])
        else:
            found[key] = value
    return found


def _first_step(steps: Iterable[Step], key: int) -> Step:
    return next(step for step in steps if step[1] == key)


def _take_rows(lists: dict[int, ListKey], keys: Sequence[int], operation: Operation) -> None:
    """A read of one key, or of a range, in which lists that are not there are empty."""
    if operation.kind is Kind.GET:
        rows = {operation.args[0]: operation.result}
        covered: Sequence[int] = operation.args
    else:
        first, end = operation.args
        rows = dict(operation.result)
        covered = keys[bisect_left(keys, first) : bisect_left(keys, end)]
    for key in covered:
        if key in lists:
            _see(lists[key], operation.number, rows.get(key))
            lists[key].reads.append((operation.number, rows.get(key)))


def _see(each: ListKey, number: int, value: str | None) -> None:
    each.seen.append((number, value))
    if value is not None and len(value) > len(each.longest or ""):
        each.longest = value


def _check_versions(each: ListKey, history: History) -> None:
    """One order of elements, each appended once, by somebody who did not fail."""
    each.elements = elements_of(each.longest)
    if len(set(each.elements)) < len(each.elements):
        twice = next(e for e in each.elements if each.elements.count(e) > 1)
        raise _failure(f"list {each.key} holds {twice!r} twice: {each.longest!r}")
    for element in each.elements:
        if element not in each.writers:
            why = "was refused (G1a)" if element in each.aborted else "nobody asked for"
            raise _failure(f"list {each.key} holds {element!r}, which {why}: {each.longest!r}")
    for number, value in each.seen:
        if not begins(each.longest, value):
            raise _failure(
                f"list {each.key} has no order: {history[number]} saw {value!r}, "
                f"another operation {each.longest!r}"
            )
    for number, value in each.reads:
        last = (value or "").rpartition(SEPARATOR)[2]
        if last and each.final[each.writers[last]] != last:
            raise _failure(
                f"{history[number]} saw list {each.key} as {value!r}, in the middle of "
                f"{history[each.writers[last]]} (G1b)"
            )
    _check_lsns(each, history)


def begins(longest: str | None, value: str | None) -> bool:
    """Whether a list is one of those that ``longest`` was before."""
    if value is None or value == longest:
        return True
    return longest is not None and longest.startswith(value + SEPARATOR)


def _check_lsns(each: ListKey, history: History) -> None:
    """Where the compute tells LSNs, elements stand in their order."""
    newest = -1
    for element in each.elements:
        writer = history[each.writers[element]]
        if writer.lsn is not None:
            if writer.lsn < newest:
                raise _failure(
                    f"list {each.key} is {each.longest!r}, but {element!r} was appended at "
                    f"{writer.lsn}, below an element before it"
                )
            newest = writer.lsn


def _edges_of(each: ListKey) -> Iterator[Edge]:
    key = each.key
    writers = [each.writers[element] for element in each.elements]
    for before, after in pairwise(writers):
        yield Edge(before, after, "ww", key)
    for number, value in each.reads:
        length = 0 if value is None else value.count(SEPARATOR) + 1
        if length:
            yield Edge(writers[length - 1], number, "wr", key)
        if length < len(writers):
            yield Edge(number, writers[length], "rw", key)


def _failure(what: str) -> CheckFailed:
    return CheckFailed(what, checker=CHECKER)
