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
        queue: Any = self._queue
        if self._cancelled_alarms > _COMPACT_ABOVE and self._cancelled_alarms * 2 > len(queue):
            queue[:] = [each for each in queue if each[1] != _ALARM or not each[3]._cancelled]
            heapify(queue)
            self._cancelled_alarms = 0

    def scheduled(self) -> bool:
        """Whether anything is left to happen."""
        queue: Any = self._queue
        return any(kind != _ALARM or not alarm._cancelled for _, kind, _, alarm in queue)

    def advance(self) -> bool:
        """Move to the next instant and let everything due then happen; false if nothing is."""
        queue: Any = self._queue
        while queue:
            at_s, kind, _, alarm = queue[0]
            if kind != _ALARM:
                self.step()
                break
            heappop(queue)
            if not alarm._cancelled:
                self._now = at_s
                alarm.ring()
                break
            self._cancelled_alarms -= 1
        else:
            return False
        while queue and queue[0][0] <= at_s:
            if queue[0][1] != _ALARM:
                self.step()
                continue
            alarm = heappop(queue)[3]
            if alarm._cancelled:
                self._cancelled_alarms -= 1
            else:
                alarm.ring()
        return True

    def __len__(self) -> int:
        """Entries of the heap, cancelled ones included (for tests of leaks)."""
        return len(self._queue)
