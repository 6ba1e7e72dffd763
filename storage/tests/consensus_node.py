"""One acceptor core with a model of its disk, for random schedules.

Records are 8 bytes (term, number, author). The disk keeps slots; slots written since the last
flush survive a crash one by one, by chance.
"""

from __future__ import annotations

import random
import struct

from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn
from storage.safekeeper import state as sk
from storage.safekeeper.control_state import ControlState, TimelineIdentity

START = Lsn(0x1000)
RECORD = struct.Struct(">HIH")
TENANT, TIMELINE = TenantId("a" * 32), TimelineId("b" * 32)


class LawBroken(AssertionError):
    """An invariant of the protocol does not hold."""


def require(condition: bool, law: str) -> None:
    if not condition:
        raise LawBroken(law)


class Node:
    """One acceptor with its disk."""

    def __init__(self, number: int, members: tuple[str, ...]) -> None:
        identity = TimelineIdentity(TENANT, TIMELINE, START, 7, 16, 1 << 20, members)
        self.number = number
        self.control = ControlState.created(identity)
        self.platter: dict[int, bytes] = {}
        self.cache: dict[int, bytes] = {}
        self.boot()

    def boot(self) -> None:
        end = int(self.control.commit_lsn)
        while end in self.platter:
            end += RECORD.size
        self.core = sk.Acceptor(self.number, self.control, Lsn(end))
        self.commit_seen = self.core.commit_lsn

    def crash(self, chance: random.Random) -> None:
        for lsn, record in self.cache.items():
            if chance.random() < 0.5:
                self.platter[lsn] = record
        self.cache.clear()
        self.boot()

    def write(self, batch: sk.WriteBatch) -> None:
        lsn = int(batch.begin_lsn)
        data = b"".join(batch.pieces)
        for offset in range(0, len(data), RECORD.size):
            self.cache[lsn + offset] = data[offset : offset + RECORD.size]

    def sync(self) -> None:
        self.platter.update(self.cache)
        self.cache.clear()

    def truncate(self, end: int) -> None:
        for slots in (self.platter, self.cache):
            for lsn in [lsn for lsn in slots if lsn >= end]:
                del slots[lsn]

    def flush(self) -> None:
        batch = self.core.take_batch()
        if batch is not None:
            self.write(batch)
            self.sync()
            self.core.flushed(batch)

    def read(self, begin: int, end: int) -> bytes:
        return b"".join(self.platter[lsn] for lsn in range(begin, end, RECORD.size))
