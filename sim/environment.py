"""A simpy environment whose schedule also holds *alarms*: lean entries that only ring once.

Timers and packets in flight are alarms: they live in simpy's own heap, between simpy's events, but
cost one heap entry and one call. A cancelled alarm stays in the heap until it surfaces or until
cancelled entries outnumber the live ones, when the heap is rebuilt without them.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any, Protocol

import simpy

_ALARM: Any = 2
"""simpy's priority of alarms: at one instant simpy's own events (0 and 1) come first."""

_COMPACT_ABOVE = 64


class Alarm(Protocol):
    """Something that can be scheduled to ring."""

    _cancelled: bool

    def ring(self) -> None:
        """The instant has come."""
        ...


class SimEnvironment(simpy.Environment):
    """Virtual time in seconds, driven one instant after the other by the loop."""

    def __init__(self, initial_time: float) -> None:
        super().__init__(initial_time)
        self._cancelled_alarms = 0

    def ring_at(self, at_s: float, alarm: Alarm) -> None:
        """Ring ``alarm`` at ``at_s``, or now if that is past."""
        if at_s < self._now:
            at_s = self._now
        heappush(self._queue, (at_s, _ALARM, next(self._eid), alarm))  # type: ignore[misc]

    def alarm_cancelled(self) -> None:
        """Count one alarm of the heap that was cancelled; rebuild the heap when they dominate."""
        self._cancelled_alarms += 1
        queue = self._queue
        if self._cancelled_alarms > _COMPACT_ABOVE and self._cancelled_alarms * 2 > len(queue):
            live = [entry for entry in queue if entry[1] != _ALARM or not entry[3]._cancelled]  # type: ignore[attr-defined]
            queue[:] = live
            heapify(queue)
            self._cancelled_alarms = 0

    def scheduled(self) -> bool:
        """Whether anything is left to happen; forgets cancelled alarms at the head."""
        queue: Any = self._queue
        while queue and queue[0][1] == _ALARM and queue[0][3]._cancelled:
            heappop(queue)
            self._cancelled_alarms -= 1
        return bool(queue)

    def advance(self) -> float:
        """Move to the next instant and let everything due then happen; returns the new time.

        The schedule must not be empty (see :meth:`scheduled`).
        """
        queue: Any = self._queue
        now: float = queue[0][0]
        assert now >= self._now, f"time would run back from {self._now} to {now}"
        self._now = now
        while queue and queue[0][0] <= now:
            if queue[0][1] == _ALARM:
                alarm = heappop(queue)[3]
                if alarm._cancelled:
                    self._cancelled_alarms -= 1
                else:
                    alarm.ring()
            else:
                self.step()
        return now

    def __len__(self) -> int:
        """Entries of the heap, cancelled ones included (for tests of leaks)."""
        return len(self._queue)
