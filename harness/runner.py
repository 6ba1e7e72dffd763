"""Running one scenario once in one world, and judging how it ended.

``sim/runner.py`` and ``real/runner.py`` build loop and backend; what happens between is here, so
that both worlds are judged alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, overload

from harness.backend import Event, LogLine
from harness.checkers.suite import check_after_stop, check_world
from harness.errors import (
    CheckFailed,
    HarnessError,
    Inconclusive,
    ScenarioFailed,
    UnsupportedFault,
)
from harness.orderly_stop import stop_everything
from harness.verdict import RunSettings, Verdict
from harness.world import World

Scenario = Callable[[World], Awaitable[None]]
"""A scenario: an ``async def`` that takes a world."""


class DeferredEvents(Sequence[Event]):
    """The events of a run that is over, put together when somebody wants to see them: few do."""

    def __init__(self, collect: Callable[[], Sequence[Event]]) -> None:
        self._collect = collect
        self._events: Sequence[Event] | None = None

    def _all(self) -> Sequence[Event]:
        if self._events is None:
            self._events = self._collect()
        return self._events

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Event]: ...

    def __getitem__(self, index: int | slice) -> Event | Sequence[Event]:
        return self._all()[index]


@dataclass
class Evidence:
    """What a run leaves for its readers."""

    logs: Sequence[LogLine] = ()
    events: Sequence[Event] = ()
    effects: Mapping[str, int] = field(default_factory=dict)
    judged: Mapping[str, int] = field(default_factory=dict)
    """How much each oracle compared, and what it had to leave undecided."""
    marks: Mapping[str, int] = field(default_factory=dict)
    """Rare states that were reached, and how often."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """Faults of the plan that had an effect, and how often."""
    trace: Callable[[], Sequence[object]] = tuple
    """Puts together what the digest was made of, as far as it is kept: more than events."""
    commits_under_faults: int | None = None
    """Writes acknowledged while the faults of a plan lasted, if it had one."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the scenario measured, by name."""


@dataclass
class RunResult:
    """How one run ended. ``error`` is ``None`` exactly when it passed; times in seconds."""

    settings: RunSettings
    verdict: Verdict
    error: BaseException | None
    digest: str
    events: int
    commits: int
    virtual_s: float
    wall_s: float
    evidence: Evidence

    @classmethod
    def without_run(cls, settings: RunSettings, error: BaseException) -> Self:
        """What is known of a run before it begins, or when it cannot begin."""
        return cls(settings, verdict_of(error), error, "", 0, 0, 0.0, 0.0, Evidence())


class WorldRunner(Protocol):
    """A world that can run scenarios. Keeps shared services until :meth:`close`."""

    world: str
    computes: tuple[str, ...]

    def run(self, scenario: Scenario, settings: RunSettings) -> RunResult:
        """Run a scenario once, from an empty world; never raises for what the scenario does."""
        ...

    def close(self) -> None:
        """Stop shared services; nothing of this runner is left on the machine."""
        ...


async def play(world: World, scenario: Scenario) -> None:
    """The scenario, then every check that holds at the end of any run; closes the backend.

    A promise that is broken meanwhile ends the scenario there and then.
    """
    try:
        with world.watch.over_run():
            await scenario(world)
            if not world.history.commits():
                raise Inconclusive("the scenario ended without one acknowledged commit")
            models = await check_world(world)
            await stop_everything(world, models)
    finally:
        for cluster in world.clusters:
            for endpoint in cluster.endpoints.values():
                await endpoint.disconnect()
        await world.backend.close()
    check_after_stop(world)


def verdict_of(error: BaseException | None) -> Verdict:
    """Whose fault the end of a run is."""
    if error is None:
        return Verdict.PASSED
    if isinstance(error, Inconclusive):
        return Verdict.INCONCLUSIVE
    if isinstance(error, (CheckFailed, AssertionError)):
        return Verdict.FAILED
    if isinstance(error, ScenarioFailed) and error.__cause__ is not None:
        return verdict_of(error.__cause__)
    if isinstance(error, HarnessError):
        return Verdict.ERROR
    return Verdict.FAILED


__all__ = [
    "Evidence",
    "Inconclusive",
    "RunResult",
    "Scenario",
    "UnsupportedFault",
    "WorldRunner",
    "play",
    "verdict_of",
]
