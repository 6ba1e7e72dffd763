"""A known bug as data: what it was, and how to put it back into the real code for a while.

A bug is put back by replacing methods (or functions) of the code under test; nothing in that code
knows of it. ``scenarios/bugs`` holds the records, :mod:`harness.bug_hunt` runs under them.
"""

from __future__ import annotations

import enum
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from harness.errors import HarnessError

OWN_FAMILY = "own"
"""Slips of our own making, beside the families of historical bugs."""


class Standing(enum.StrEnum):
    """What can be done about a bug here and now."""

    EXPRESSED = "expressed"
    WAITING = "waiting"
    INEXPRESSIBLE = "inexpressible"


@dataclass(frozen=True)
class Replacement:
    """``body`` takes the place of ``owner.name``; a function is replaced wherever its package
    imported it by name."""

    owner: type | ModuleType
    name: str
    body: Callable[..., Any]

    def __post_init__(self) -> None:
        if self.name not in vars(self.owner):
            raise HarnessError(
                f"{self.owner.__name__} itself has no {self.name!r}; a renamed method renames the "
                "target of its bug"
            )

    def __str__(self) -> str:
        if isinstance(self.owner, ModuleType):
            return f"{self.owner.__name__}.{self.name}"
        return f"{self.owner.__module__}.{self.owner.__name__}.{self.name}"

    def places(self) -> list[type | ModuleType]:
        """Every namespace that holds the original now."""
        if not isinstance(self.owner, ModuleType):
            return [self.owner]
        package = self.owner.__name__.partition(".")[0]
        original = vars(self.owner)[self.name]
        return [
            module
            for name, module in sorted(sys.modules.items())
            if name.partition(".")[0] == package and vars(module).get(self.name) is original
        ]

    @contextmanager
    def applied(self, calls: Counter[str]) -> Iterator[None]:
        """Within the block the replacement is in place, and ``calls`` counts, by its name, how
        often it is called; afterwards the original is in place, everywhere."""
        original = vars(self.owner)[self.name]
        places = self.places()
        assert self.owner in places, f"{self} is not where it is defined"
        counted = self._counted(calls)
        for place in places:
            setattr(place, self.name, counted)
        try:
            yield
        finally:
            for place in places:
                setattr(place, self.name, original)

    def _counted(self, calls: Counter[str]) -> Callable[..., Any]:
        name = str(self)
        calls[name] = 0

        @functools.wraps(self.body)
        def counted(*arguments: Any, **keywords: Any) -> Any:
            calls[name] += 1
            return self.body(*arguments, **keywords)

        return counted


@dataclass(frozen=True)
class Bug:
    """A bug that a storage system of this kind had; the fields are those of ``docs/bug-bank.md``.

    ``oracles`` are expected to see it (``O1`` …), ``applies`` says in which runs it can bite, and
    ``reason`` why it cannot be put back, when it cannot.
    """

    id: str
    family: str
    difficulty: str
    oracles: tuple[str, ...]
    source: str
    standing: Standing = Standing.EXPRESSED
    replacements: tuple[Replacement, ...] = ()
    applies: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.standing is Standing.EXPRESSED) != bool(self.replacements):
            raise HarnessError(f"bug {self.id} is {self.standing}: with replacements or without?")
        if (self.standing is Standing.EXPRESSED) == bool(self.reason):
            raise HarnessError(f"bug {self.id} is {self.standing}: give a reason exactly if not")

    @contextmanager
    def put_back(self) -> Iterator[Counter[str]]:
        """Within the block the code has the bug again; yields how often each replacement was
        called so far. One that never is proves nothing, whatever the runs showed."""
        if self.standing is not Standing.EXPRESSED:
            raise HarnessError(f"bug {self.id} is {self.standing}: {self.reason}")
        calls: Counter[str] = Counter()
        with ExitStack() as stack:
            for replacement in self.replacements:
                stack.enter_context(replacement.applied(calls))
            yield calls
