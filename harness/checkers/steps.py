"""What the steps of a transaction mean (:class:`harness.history.Kind`), for oracles that redo them.

It shares no code with any compute, so that an error there is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

SEPARATOR = ","

Step = tuple[Any, ...]
"""``("read", key)``, ``("append", key, element)`` or ``("add", key, amount)``."""


class Redone(NamedTuple):
    """The value of each step's key after the step, and the new value of each changed key."""

    values: list[str | None]
    changes: dict[int, str | None]


def redo(steps: Iterable[Step], row: Callable[[int], str | None]) -> Redone:
    """Redo steps on the rows that ``row`` tells; ``None`` is absent."""
    values: list[str | None] = []
    changes: dict[int, str | None] = {}
    for step in steps:
        name, key = step[0], step[1]
        value = changes[key] if key in changes else row(key)
        if name == "append":
            value = step[2] if value is None else f"{value}{SEPARATOR}{step[2]}"
        elif name == "add":
            value = str(int(value or 0) + step[2])
        if name != "read":
            changes[key] = value
        values.append(value)
    return Redone(values, changes)


def elements_of(value: str | None) -> list[str]:
    """The elements of a list."""
    return value.split(SEPARATOR) if value else []
