"""Wakes everybody who waits for progress; in order of their subscription."""

from __future__ import annotations

import asyncio


class Wakeups:
    """Subscribe, look at the present state, then wait: no progress is missed in between."""

    def __init__(self) -> None:
        self._events: dict[int, asyncio.Event] = {}
        self._added = 0

    def subscribe(self) -> tuple[int, asyncio.Event]:
        """An event that is set at every progress; clear it before looking at the state."""
        self._added += 1
        event = asyncio.Event()
        self._events[self._added] = event
        return self._added, event

    def unsubscribe(self, number: int) -> None:
        """Forget a subscription."""
        removed = self._events.pop(number, None)
        assert removed is not None, f"subscription {number} is ended twice"

    def notify(self) -> None:
        """There was progress."""
        for event in self._events.values():
            event.set()
