"""Which LSN belongs to a time: by the timestamps of commit records, which are data like any other.

The time of the newest commit is a key with a version at every commit, so it is as durable as the
pages, is inherited by branches and knows nothing of when WAL arrived here. Clocks go back: the time
of a commit counts as no earlier than that of any commit before it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from storage.lsn import Lsn
from storage.pageserver import keys
from storage.pageserver.newest_commit import NewestCommit
from storage.pageserver.timeline import Timeline


class FoundKind(enum.StrEnum):
    """How a time lies to the commits that can be read. The names are part of the HTTP API."""

    PRESENT = "present"
    FUTURE = "future"
    PAST = "past"
    NODATA = "nodata"


class Found(NamedTuple):
    """``present``: the last commit that is not younger is at ``lsn``. ``future``: no commit is
    younger, ``lsn`` is the head. ``past``: every commit is younger, ``nodata``: there is none;
    ``lsn`` is then the oldest that can be read."""

    kind: FoundKind
    lsn: Lsn


async def lsn_by_timestamp(timeline: Timeline, time_us: int) -> Found:
    """Where the timeline was at a time (microseconds of the Postgres epoch).

    Only what can be read and branched from counts: from the cutoff, and for a branch from its
    branch point, up to the last record. Raises what reads raise.
    """
    with timeline.gc_cutoff.hold() as cutoff:
        oldest = max(cutoff, timeline.ancestor_lsn, timeline.initdb_lsn)
        head = timeline.last_record_lsn
        newest = await _newest_commit(timeline, head)
        if newest is None:
            return Found(FoundKind.NODATA, oldest)
        if newest.time_us <= time_us:
            return Found(FoundKind.FUTURE, head)
        last_older = await _last_older(timeline, time_us, (oldest, head))
        if last_older is None:
            return Found(FoundKind.PAST, oldest)
        return Found(FoundKind.PRESENT, max(oldest, last_older.lsn))


async def _last_older(
    timeline: Timeline, time_us: int, between: tuple[Lsn, Lsn]
) -> NewestCommit | None:
    """The last commit that is not younger, if there is one; at the second LSN one is younger."""
    low, high = between
    found = await _newest_commit(timeline, low)
    if found is not None and found.time_us > time_us:
        return None
    while high - low > 1:
        middle = Lsn((low + high) // 2)
        newest = await _newest_commit(timeline, middle)
        if newest is None or newest.time_us <= time_us:
            low, found = middle, newest
        else:
            high = middle
    return found


async def _newest_commit(timeline: Timeline, lsn: Lsn) -> NewestCommit | None:
    data = await timeline.get(keys.commit_time(), lsn)
    return None if data is None else NewestCommit.decode(data)
