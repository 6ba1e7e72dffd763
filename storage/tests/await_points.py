"""Every place where a node's tasks wait, one after the other, as places to strike at."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any

import pytest

from storage.tasks import TaskKind, TaskRegistry

Strike = Callable[[TaskRegistry], None]
"""What happens at a point: told of the node's registry, called by the task that waits there."""


@dataclass
class Points:
    """Counts suspensions while ``active``; ``strike`` is called at number ``target``.

    With ``both_ends`` the moment when a task is about to go on is a point as well: what it waited
    for has happened, and nobody knows.
    """

    strike: Strike
    both_ends: bool = False
    target: int | None = None
    seen: int = 0
    active: bool = False
    where: str = ""
    names: list[str] = field(default_factory=list)

    def begin(self, target: int | None) -> None:
        """Get ready for another run."""
        self.target, self.seen, self.active, self.where, self.names = target, 0, False, "", []

    def suspended(self, name: str, registry: TaskRegistry) -> None:
        """A task is at a point."""
        if not self.active:
            return
        self.names.append(name)
        if self.seen == self.target:
            self.where = name
            self.strike(registry)
        self.seen += 1


@types.coroutine
def counted(
    work: Coroutine[Any, Any, None], name: str, points: Points, registry: TaskRegistry
) -> Generator[Any, Any, None]:
    """Run ``work``; each of its suspensions is a point."""
    step: Callable[[], Any] = lambda: work.send(None)  # noqa: E731
    while True:
        try:
            waited_for = step()
        except StopIteration:
            return
        points.suspended(name, registry)
        try:
            yield waited_for
        except BaseException as error:
            thrown = error
            step = lambda: work.throw(thrown)  # noqa: B023, E731
        else:
            step = lambda: work.send(None)  # noqa: E731
        if points.both_ends:
            points.suspended(f"{name}, going on", registry)


def count_tasks(
    monkeypatch: pytest.MonkeyPatch,
    points: Points,
    is_counted: Callable[[str], bool],
    kinds: Collection[TaskKind],
) -> None:
    """From now on tasks of some kinds are counted on nodes of which ``is_counted`` is true."""
    spawn = TaskRegistry.spawn

    def spawn_counted(self: TaskRegistry, kind: TaskKind, name: str, work: Any, **more: Any) -> Any:
        if is_counted(self.node) and kind in kinds:
            work = counted(work, f"{kind}:{name}", points, self)
        return spawn(self, kind, name, work, **more)

    monkeypatch.setattr(TaskRegistry, "spawn", spawn_counted)
