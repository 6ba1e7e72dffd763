"""Transactions that read what they change: steps that take effect in order, all or none.

    read KEY           the value as the steps before left it
    append KEY TEXT    the value becomes "old,TEXT", or TEXT where there was none
    add KEY NUMBER     the value, an integer (0 where there was none), grows by NUMBER

Pure: :func:`run_steps` looks at rows and says what would change, it changes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from storage.errors import BadRequest
from storage.kv.page import check_value

SEPARATOR = b","


class Read(NamedTuple):
    """Look at a key."""

    key: int


class Append(NamedTuple):
    """Put an element at the end of a key's list."""

    key: int
    element: bytes


class Add(NamedTuple):
    """Add an amount, which may be negative, to a key's number."""

    key: int
    amount: int


Step = Read | Append | Add


class Executed(NamedTuple):
    """The value of each step's key after the step, and the new value of each changed key."""

    values: list[bytes | None]
    changes: dict[int, bytes | None]


def run_steps(steps: Sequence[Step], row: Callable[[int], bytes | None]) -> Executed:
    """Run steps on the rows that ``row`` tells (``None``: there is none).

    ``BadRequest`` for a list that outgrows a value, and for adding to what is no integer.
    """
    values: list[bytes | None] = []
    changes: dict[int, bytes | None] = {}
    for step in steps:
        value = changes[step.key] if step.key in changes else row(step.key)
        if isinstance(step, Append):
            value = appended(value, step.element)
        elif isinstance(step, Add):
            value = added(value, step)
        if not isinstance(step, Read):
            changes[step.key] = value
        values.append(value)
    return Executed(values, changes)


def appended(value: bytes | None, element: bytes) -> bytes:
    """The list with one more element."""
    return check_value(element if value is None else value + SEPARATOR + element)


def added(value: bytes | None, step: Add) -> bytes:
    """The number with the amount added, in decimal."""
    try:
        return check_value(b"%d" % (int(value or 0) + step.amount))
    except ValueError as error:
        raise BadRequest(
            f"add: value {(value or b'')[:40]!r} of key {step.key} is not an integer"
        ) from error


def parse_steps(data: object, key_of: Callable[[str], int]) -> list[Step]:
    """Steps from JSON, such as ``[["append", 7, "x"], ["read", 8]]``; ``BadRequest`` names the
    first that is none. ``key_of`` checks a key."""
    if not isinstance(data, list) or not data:
        raise BadRequest('transact: write transact [["append", KEY, "TEXT"], ["read", KEY]]')
    steps = [_parse_step(each, key_of) for each in data]
    if all(isinstance(step, Read) for step in steps):
        raise BadRequest("transact: nothing would change; use get or scan to read only")
    return steps


def _parse_step(data: object, key_of: Callable[[str], int]) -> Step:
    match data:
        case ["read", int(key)]:
            return Read(key_of(str(key)))
        case ["append", int(key), str(element)] if element and "," not in element:
            return Append(key_of(str(key)), element.encode())
        case ["add", int(key), int(amount)]:
            return Add(key_of(str(key)), amount)
    raise BadRequest(
        f'transact: {str(data)[:40]!r} is no step; write ["read", KEY], ["append", KEY, "TEXT"] '
        'with a text without commas, or ["add", KEY, NUMBER]'
    )


def rows_of(
    steps: Sequence[Step], values: Sequence[bytes | None]
) -> list[tuple[int, bytes | None]]:
    """One row (key, value after the step) for each step."""
    return [(step.key, value) for step, value in zip(steps, values, strict=True)]


def keys_of(steps: Sequence[Step]) -> Mapping[int, None]:
    """Every key that steps touch, each once, in order of first use."""
    return dict.fromkeys(step.key for step in steps)
