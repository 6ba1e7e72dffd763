"""Appends to some timelines of a safekeeper, through its real write path but no network.

Each timeline has one proposer that appends ``APPEND_BYTES`` of WAL, waits until it is durable, and
goes on. For benchmarks of disks; measures with the loop's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from storage.consensus.messages import (
    AcceptorMessage,
    AppendRequest,
    AppendResponse,
    ProposerElected,
    VoteRequest,
)
from storage.consensus.term_history import TermHistory, TermSwitch
from storage.ids import TenantId, TimelineId
from storage.lsn import INVALID_LSN, Lsn
from storage.ports import Ports
from storage.safekeeper.control_state import TimelineIdentity
from storage.safekeeper.environment import Environment
from storage.safekeeper.fuse import Fuse
from storage.safekeeper.options import SafekeeperOptions
from storage.safekeeper.timeline import Timeline
from storage.safekeeper.timelines import Timelines
from storage.tasks import TaskRegistry

APPEND_BYTES = 8192
_START = Lsn(0x1000000)
_SEGMENT = 1 << 20
_TICK_S = 0.001
_HISTORY = TermHistory((TermSwitch(0, _START), TermSwitch(1, _START)))


class Proposer:
    """Appends to one timeline and notes how long each append took to become durable."""

    def __init__(self, timeline: Timeline) -> None:
        self.latencies_s: list[float] = []
        self._timeline = timeline
        self._flushed = asyncio.Event()
        self._flush_lsn = INVALID_LSN

    def post(self, message: AcceptorMessage) -> None:
        """An answer of the timeline."""
        if isinstance(message, AppendResponse):
            self._flush_lsn = message.flush_lsn
            self._flushed.set()

    def hang_up(self, reason: str) -> None:
        """The disk has failed."""
        raise AssertionError(reason)

    def tick(self) -> None:
        """Time passes."""

    async def elect(self) -> None:
        """Become the only proposer there ever was, and have the first segment made."""
        await self._timeline.handle(self, VoteRequest(1, 1))
        await self._timeline.handle(self, ProposerElected(1, _START, _HISTORY))
        await self.run(asyncio.get_running_loop().time() + _TICK_S)
        self.latencies_s.clear()

    async def run(self, end_s: float) -> None:
        """Append until ``end_s`` on the loop's clock."""
        loop = asyncio.get_running_loop()
        handle = self._timeline.handle
        data, lsn = bytes(APPEND_BYTES), self._timeline.acceptor.flush_lsn
        while (started_s := loop.time()) < end_s:
            self._flushed.clear()
            await handle(self, AppendRequest(1, lsn, lsn, _START, False, data))
            lsn = Lsn(lsn + len(data))
            while self._flush_lsn < lsn:
                await self._flushed.wait()
                self._flushed.clear()
            self.latencies_s.append(loop.time() - started_s)


@dataclass(frozen=True, slots=True)
class Appends:
    """What was measured in ``took_s`` seconds: how long each append took until it was durable, and
    how much too late the loop woke somebody else, in seconds."""

    took_s: float
    latencies_s: Sequence[float]
    loop_lags_s: Sequence[float]


async def append_for(ports: Ports, count: int, duration_s: float) -> Appends:
    """Append to ``count`` new timelines at once, on ports whose disk has none."""
    registry = TaskRegistry("bench")
    environment = Environment(ports, registry, SafekeeperOptions(node_id=1), Fuse())
    timelines = Timelines(environment)
    await timelines.load_all()
    for number in range(count):
        await timelines.create(_identity(number))
    proposers = [Proposer(timeline) for timeline in timelines]
    for proposer in proposers:
        await proposer.elect()
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    end_s = started_s + duration_s
    ticking = asyncio.create_task(_tick(end_s))
    await asyncio.gather(*(proposer.run(end_s) for proposer in proposers))
    lags_s = await ticking
    took_s = loop.time() - started_s
    for timeline in timelines:
        await timeline.close()
    await registry.shutdown()
    latencies_s = [each for proposer in proposers for each in proposer.latencies_s]
    return Appends(took_s, latencies_s, lags_s)


def _identity(number: int) -> TimelineIdentity:
    return TimelineIdentity(
        tenant_id=TenantId("1" * 32),
        timeline_id=TimelineId(f"{number:032x}"),
        start_lsn=_START,
        system_id=1,
        pg_version=16,
        wal_segment_size=_SEGMENT,
        safekeepers=("sk0:5454",),
    )


async def _tick(end_s: float) -> list[float]:
    """How much too late the loop wakes somebody who wants to be woken every millisecond."""
    loop = asyncio.get_running_loop()
    lags_s = []
    while (asked_s := loop.time()) < end_s:
        await asyncio.sleep(_TICK_S)
        lags_s.append(max(0.0, loop.time() - asked_s - _TICK_S))
    return lags_s
