"""Where a standby has replayed to, what it reads at, and how long the relation is there. Pure.

A standby that reads pages lazily keeps none, so replay has only these to move. Every statement
reads at the LSN where replay stood when it began; the oldest of them is the standby's horizon.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from storage.compute.basebackup import BaseState
from storage.kv.record import KV_RMGR_ID
from storage.lsn import Lsn
from storage.wal.reader import RawRecord
from storage.wal.record import decode


class Replay:
    """The position of one standby; it only grows."""

    def __init__(self, base: BaseState, blocks: int, pg_version: int) -> None:
        self.lsn = base.lsn
        self.prev_lsn = base.prev_lsn
        self.blocks = blocks
        self._pg_version = pg_version
        self.paused = False
        """Whether it was told to stand still (``pg_wal_replay_pause``); reads go on."""
        self._reading: dict[Lsn, int] = {}

    def apply(self, raw: RawRecord) -> None:
        """Step over one record; raises ``CorruptData`` for one that makes no sense."""
        assert raw.lsn >= self.lsn, f"record at {raw.lsn} was replayed, this is {self.lsn}"
        record = decode(raw.raw, raw.lsn, raw.end_lsn, self._pg_version)
        if record.rmid == KV_RMGR_ID:
            self.blocks = max([self.blocks, *(ref.block + 1 for ref in record.blocks)])
        self.prev_lsn, self.lsn = raw.lsn, raw.end_lsn

    @contextmanager
    def reading(self) -> Iterator[tuple[Lsn, int]]:
        """The LSN to read at while the block runs, and the relation's length there in blocks."""
        lsn = self.lsn
        self._reading[lsn] = self._reading.get(lsn, 0) + 1
        try:
            yield lsn, self.blocks
        finally:
            self._reading[lsn] -= 1
            if not self._reading[lsn]:
                del self._reading[lsn]

    @property
    def horizon(self) -> Lsn:
        """The oldest LSN that is read at, now or next."""
        return min(self._reading, default=self.lsn)
