"""Admits readers: waits for the LSN they need, refuses what is gone, holds the cutoff meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from storage.errors import BadRequest, NotReady
from storage.failpoints import Failpoint, failpoint
from storage.lsn import INVALID_LSN, Lsn
from storage.marks import Mark, reach
from storage.pageserver.datadir import DataDirectory
from storage.pageserver.page_protocol import LATEST_LSN
from storage.pageserver.states import State
from storage.pageserver.timeline import Timeline


@dataclass(frozen=True, slots=True)
class ReadPoint:
    """Where a reader wants to read.

    With ``request_lsn`` = :data:`LATEST_LSN` the answer is as of the last record;
    ``not_modified_since`` is only what must have been ingested before (the page has not changed
    between it and ``request_lsn``), never where to look (BUGBANK ``latest-read-uses-hint-lsn``).
    """

    request_lsn: Lsn = LATEST_LSN
    not_modified_since: Lsn = INVALID_LSN

    def __post_init__(self) -> None:
        if self.not_modified_since > self.request_lsn:
            raise BadRequest(
                f"not_modified_since {self.not_modified_since} is after "
                f"request_lsn {self.request_lsn}"
            )

    @classmethod
    def at(cls, lsn: Lsn) -> ReadPoint:
        """Exactly at an LSN, once it is ingested."""
        return cls(lsn, lsn)


@dataclass(frozen=True, slots=True)
class ReadView:
    """An admitted reader: everything in ``directory`` is as of ``lsn``."""

    lsn: Lsn
    directory: DataDirectory


@asynccontextmanager
async def read_view(timeline: Timeline, point: ReadPoint) -> AsyncIterator[ReadView]:
    """Admit a reader for the duration of the block.

    Raises ``NotReady`` when the LSN does not arrive within ``wait_lsn_timeout_s``,
    ``LsnOutOfScope`` when it lies before the cutoff, ``Broken`` when the timeline is.
    """
    needed = _needed_lsn(timeline, point)
    if timeline.state.state is State.ATTACHING or needed > timeline.last_record_lsn:
        await _wait(timeline, needed)
    timeline.state.check_active()
    with timeline.gc_cutoff.hold() as cutoff:
        lsn = view_lsn(timeline, point)
        timeline.gc_cutoff.check(lsn, cutoff)
        await failpoint(Failpoint.PS_READ_ADMITTED)
        yield ReadView(lsn, DataDirectory(lambda key: timeline.get(key, lsn)))


def view_lsn(timeline: Timeline, point: ReadPoint) -> Lsn:
    """Where to read: as asked, or the newest there is (BUGBANK ``latest-read-uses-hint-lsn``)."""
    return min(point.request_lsn, timeline.last_record_lsn)


def _needed_lsn(timeline: Timeline, point: ReadPoint) -> Lsn:
    """What must have been ingested before the answer is right."""
    if point.request_lsn <= timeline.last_record_lsn:
        return point.request_lsn
    return point.not_modified_since


async def _wait(timeline: Timeline, needed: Lsn) -> None:
    timeout_s = timeline.environment.options.wait_lsn_timeout_s
    reach(Mark.READ_WAITED)
    try:
        async with asyncio.timeout(timeout_s):
            await timeline.wait_readable(needed)
    except TimeoutError as error:
        reach(Mark.READ_WAIT_TIMED_OUT)
        raise NotReady(
            f"timeline {timeline.ident} did not reach LSN {needed} within {timeout_s} s: "
            f"last_record_lsn is {timeline.last_record_lsn}"
        ) from error
