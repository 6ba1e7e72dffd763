"""Failpoints: named places in node code where a test can make something happen.

Every name is declared in :class:`Failpoint`. A node's points are armed over HTTP
(``PUT /v1/failpoints/{name}``) and looked up through the running task's registration, so a place
costs one line and, while nothing is armed, next to nothing. Whether a hit fires depends only on
the plan and the number of the hit, never on a clock or a shared generator: two runs fire alike.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from storage.errors import BadRequest, PortError
from storage.events import emit
from storage.registration import Registration, current


class Failpoint(StrEnum):
    """Every failpoint there is; the value is its name over HTTP, the prefix names the role."""

    PS_ATTACH_NOTED = "ps-attach-noted"
    PS_ATTACH_CLAIMED = "ps-attach-claimed"
    PS_ATTACH_LOADED = "ps-attach-loaded"
    PS_DETACH_STOPPED = "ps-detach-stopped"
    PS_DETACH_NOTED = "ps-detach-noted"
    PS_BRANCH_CHOSEN = "ps-branch-chosen"
    PS_TIMELINE_STORED = "ps-timeline-stored"
    PS_TIMELINE_LOADED = "ps-timeline-loaded"
    PS_DELETION_BEGUN = "ps-deletion-begun"
    PS_DELETION_STORED = "ps-deletion-stored"
    PS_DELETION_FORGOTTEN = "ps-deletion-forgotten"
    PS_GC_PLANNED = "ps-gc-planned"
    PS_GC_DURABLE = "ps-gc-durable"
    PS_GC_REPLACED = "ps-gc-replaced"
    PS_COMPACTION_WRITTEN = "ps-compaction-written"
    PS_COMPACTION_REPLACED = "ps-compaction-replaced"
    PS_BASEBACKUP_SENT = "ps-basebackup-sent"
    PS_READ_ADMITTED = "ps-read-admitted"
    PS_FLUSH_WRITTEN = "ps-flush-written"
    PS_LAYER_UPLOADED = "ps-layer-uploaded"
    PS_INDEX_UPLOADED = "ps-index-uploaded"
    SK_BEFORE_FLUSH = "sk-before-flush"
    SK_AFTER_WRITE = "sk-after-write"
    SK_BEFORE_CONTROL_SAVE = "sk-before-control-save"
    SK_CONTROL_FILES_ROUND = "sk-control-files-round"
    SK_BEFORE_TRUNCATE = "sk-before-truncate"
    SK_WITHIN_TRUNCATE = "sk-within-truncate"
    SK_AFTER_TRUNCATE = "sk-after-truncate"
    SK_BEFORE_BACKUP_PUT = "sk-before-backup-put"
    SK_AFTER_BACKUP_PUT = "sk-after-backup-put"
    SK_BEFORE_BACKUP_CLAIM = "sk-before-backup-claim"
    SK_BEFORE_WAL_REMOVAL = "sk-before-wal-removal"
    SK_SNAPSHOT_LISTED = "sk-snapshot-listed"
    SK_PULL_BEFORE_COMMIT = "sk-pull-before-commit"
    SK_DELETE_AFTER_TOMBSTONE = "sk-delete-after-tombstone"


class Action(StrEnum):
    """What happens when a point fires. ``RETURN`` raises :class:`InjectedFailure`, ``PAUSE`` waits
    until the point is armed anew or disarmed, ``EXIT`` ends the process as ``kill -9`` would."""

    OFF = "off"
    RETURN = "return"
    SLEEP = "sleep"
    PAUSE = "pause"
    EXIT = "exit"


class InjectedFailure(PortError):
    """What an armed failpoint raises: to the code around it, its environment failed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an armed point does. ``skip`` hits pass, then at most ``count`` fire (``None``: all),
    each with ``probability``, drawn from ``draw`` and the number of the hit."""

    action: Action
    message: str = "injected by a failpoint"
    delay_s: float = 0.0
    skip: int = 0
    count: int | None = None
    probability: float = 1.0
    draw: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise BadRequest(f"probability {self.probability} is not between 0 and 1")
        if self.delay_s < 0 or self.skip < 0 or (self.count is not None and self.count < 0):
            raise BadRequest(f"delay_s, skip and count must not be negative: {self}")
        if self.action is Action.SLEEP and self.delay_s == 0:
            raise BadRequest("action sleep needs delay_s, in seconds")

    def chosen(self, name: str, hit: int) -> bool:
        """Whether chance lets this hit (counted from 1) fire."""
        if self.probability >= 1.0:
            return True
        digest = hashlib.sha256(f"{name}/{self.draw}/{hit}".encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64 < self.probability


@dataclass(frozen=True, slots=True)
class PointState:
    """One row of ``GET /v1/failpoints``: ``hits`` and ``fired`` count from the last arming on."""

    name: str
    plan: Plan | None
    hits: int
    fired: int
    waiting: int


@dataclass(slots=True)
class _Point:
    plan: Plan
    released: asyncio.Event
    hits: int = 0
    fired: int = 0
    waiting: int = 0


class Failpoints:
    """The points of one incarnation of a node; ``die`` ends its process at once."""

    def __init__(self, die: Callable[[str], None] | None = None) -> None:
        self._die = die
        self._points: dict[Failpoint, _Point] = {}

    def arm(self, name: Failpoint, plan: Plan) -> None:
        """Have a point act from its next hit on; who is paused at it goes on."""
        self.disarm(name)
        if plan.action is not Action.OFF:
            self._points[name] = _Point(plan, asyncio.Event())

    def disarm(self, name: Failpoint) -> None:
        """Have a point do nothing; who is paused at it goes on. Harmless if it does nothing."""
        point = self._points.pop(name, None)
        if point is not None:
            point.released.set()

    def snapshot(self) -> list[PointState]:
        """Every declared point in order of declaration."""
        return [self._state(name) for name in Failpoint]

    def _state(self, name: Failpoint) -> PointState:
        point = self._points.get(name)
        if point is None:
            return PointState(name.value, None, 0, 0, 0)
        return PointState(name.value, replace(point.plan), point.hits, point.fired, point.waiting)

    def is_armed(self, name: Failpoint) -> bool:
        """Whether a hit of the point would be looked at."""
        return name in self._points

    async def hit(self, name: Failpoint, entry: Registration) -> None:
        """The task of ``entry`` has come to an armed point: do what its plan says."""
        point = self._points[name]
        if not self._fires(name, point):
            return
        point.fired += 1
        emit("failpoint", name=name.value, action=point.plan.action.value)
        match point.plan.action:
            case Action.RETURN:
                raise InjectedFailure(f"{name.value}: {point.plan.message}")
            case Action.SLEEP:
                await _wait(point, entry, point.plan.delay_s)
            case Action.PAUSE:
                await _wait(point, entry, None)
            case Action.EXIT:
                await self._exit(name)

    def _fires(self, name: Failpoint, point: _Point) -> bool:
        plan = point.plan
        point.hits += 1
        if point.hits <= plan.skip or (plan.count is not None and point.fired >= plan.count):
            return False
        return plan.chosen(name.value, point.hits)

    async def _exit(self, name: Failpoint) -> None:
        assert self._die is not None, f"{name.value}: this node was not told how to die"
        self._die(f"failpoint {name.value}")
        # A simulated process is dead from its next wait on, a real one does not come here.
        await asyncio.get_running_loop().create_future()


async def _wait(point: _Point, entry: Registration, delay_s: float | None) -> None:
    """Until the point is released, the time is over, or the task is asked to stop."""
    forget = entry.on_shutdown(point.released.set)
    point.waiting += 1
    try:
        async with asyncio.timeout(delay_s):
            await point.released.wait()
    except TimeoutError:
        pass
    finally:
        point.waiting -= 1
        forget()


async def failpoint(name: Failpoint) -> None:
    """A place where a test may interfere; raises ``InjectedFailure`` if it is told to.

    Does nothing outside of a node's registered tasks.
    """
    entry = current.get()
    if entry is None or entry.failpoints is None or not entry.failpoints.is_armed(name):
        return
    await entry.failpoints.hit(name, entry)


def parse_failpoint(name: str) -> Failpoint:
    """The failpoint of this name; ``BadRequest`` lists those there are."""
    try:
        return Failpoint(name)
    except ValueError:
        known = ", ".join(point.value for point in Failpoint)
        raise BadRequest(f"no failpoint {name!r}; there are: {known}") from None
