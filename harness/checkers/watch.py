"""Oracles that follow a run while it happens: the first broken promise ends it, there and then.

They look at events and at operations in the order in which these come about, so they run online
where that order is exact (:attr:`harness.backend.Backend.clock_error_s` is 0). Where events come
late and from many clocks, the oracles of events are shown them in order of time at the end;
operations have one clock, the harness's own, in every world.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from harness.backend import Event
from harness.errors import CheckFailed, HarnessError


class EventOracle(Protocol):
    """Looks at one event after the other."""

    def observe(self, event: Event) -> bool:
        """Compare an event with those before it; whether there was anything to compare. Raises
        ``CheckFailed``."""
        ...


class OperationOracle(Protocol):
    """Looks at operations as they begin and end; ``index`` is their place in the history."""

    def invoked(self, index: int) -> None:
        """An operation was sent."""
        ...

    def completed(self, index: int) -> bool:
        """An operation ended; whether there was anything to compare. Raises ``CheckFailed``."""
        ...


class RulesByKind:
    """An oracle of events with one rule for each kind of event; other kinds mean nothing to it."""

    def __init__(self, rules: Mapping[str, Callable[[Event], None]]) -> None:
        self._rules = rules

    def observe(self, event: Event) -> bool:
        """Compare one event with those before it; whether any rule knows its kind."""
        rule = self._rules.get(event.kind)
        if rule is None:
            return False
        rule(event)
        return True


class Watch:
    """The oracles of one run that follow it, and how much each compared (``judged``)."""

    def __init__(self, judged: Counter[str]) -> None:
        self.judged = judged
        self.failure: CheckFailed | HarnessError | None = None
        self._of_events: dict[str, EventOracle] = {}
        self._of_operations: dict[str, OperationOracle] = {}
        self._end_run: Callable[[], object] | None = None

    def add(
        self,
        of_events: Mapping[str, EventOracle] | None = None,
        of_operations: Mapping[str, OperationOracle] | None = None,
    ) -> None:
        """Have oracles follow, by name."""
        self._of_events.update(of_events or {})
        self._of_operations.update(of_operations or {})

    def drop(self, name: str) -> None:
        """Have an oracle of events follow no longer."""
        self._of_events.pop(name, None)

    def take(self, event: Event) -> None:
        """Show an event to every oracle of events; never raises."""
        if self.failure is not None:
            return
        try:
            for name, oracle in self._of_events.items():
                if oracle.observe(event):
                    self.judged[name] += 1
        except CheckFailed as failure:
            self._fail(failure)

    def invoked(self, index: int) -> None:
        """See :meth:`OperationOracle.invoked`."""
        for oracle in self._of_operations.values():
            oracle.invoked(index)

    def completed(self, index: int) -> None:
        """See :meth:`OperationOracle.completed`; never raises."""
        if self.failure is not None:
            return
        try:
            for name, oracle in self._of_operations.items():
                if oracle.completed(index):
                    self.judged[name] += 1
        except CheckFailed as failure:
            self._fail(failure)

    def listen(self, name: str, take: Callable[[bytes], int]) -> Callable[[bytes], None]:
        """A reader of bytes for an oracle that tells how much it compared; it never raises: what
        breaks in an oracle must not pass for a fault of the network."""

        def sink(data: bytes) -> None:
            if self.failure is None:
                try:
                    self.judged[name] += take(data)
                except CheckFailed as failure:
                    self._fail(failure)
                except Exception as error:
                    broken = HarnessError(f"oracle {name} broke: {type(error).__name__}: {error}")
                    broken.__cause__ = error
                    self._fail(broken)

        return sink

    def _fail(self, failure: CheckFailed | HarnessError) -> None:
        self.failure = failure
        if self._end_run is not None:
            self._end_run()

    def judge(self, events: Iterable[Event]) -> None:
        """Show events that nobody showed while they happened; raises what is wrong with them."""
        for event in events:
            self.take(event)
        self.check()

    def check(self) -> None:
        """Raise what some oracle found."""
        if self.failure is not None:
            raise self.failure

    @contextmanager
    def over_run(self) -> Iterator[None]:
        """A broken promise cancels the task inside this block, which then raises ``CheckFailed``,
        whatever else goes wrong meanwhile."""
        task = asyncio.current_task()
        assert task is not None, "a run is a task"
        self._end_run = task.cancel
        try:
            yield
        except BaseException as error:
            if self.failure is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            task.uncancel()
            raise self.failure from (None if isinstance(error, asyncio.CancelledError) else error)
        finally:
            self._end_run = None
        self.check()
