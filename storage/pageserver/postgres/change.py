"""One record on its way in: the record, the open modification, the running checkpoint."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from storage.errors import CorruptData
from storage.pageserver.keys import Slru
from storage.pageserver.modification import Modification
from storage.pageserver.postgres.control import Checkpoint
from storage.pageserver.postgres.slru_pages import SlruPage
from storage.pageserver.values import Value
from storage.wal.record import BlockRef, WalRecord


class ImageMissing(CorruptData):
    """A record changes a page without carrying its image: the page would silently go stale."""


class UnsupportedRecord(CorruptData):
    """A record whose effect on a data directory is not known here."""


@dataclass(slots=True)
class Change:
    """What the handler of a resource manager works on."""

    record: WalRecord
    modification: Modification
    checkpoint: Checkpoint
    pg_version: int
    checkpoint_changed: bool = False

    def unpack(self, layout: str, offset: int = 0) -> tuple[int, ...]:
        """Fields of the main data; ``CorruptData`` when it is too short."""
        try:
            return struct.unpack_from(layout, self.record.main_data, offset)
        except struct.error:
            raise CorruptData(
                f"record at {self.record.lsn} (rmgr {self.record.rmid}, info "
                f"{self.record.info:#04x}) has {len(self.record.main_data)} bytes of main data"
            ) from None

    def block(self, index: int) -> BlockRef:
        """A block reference by its place among the record's; ``CorruptData`` if it has none."""
        if not self.record.blocks:
            raise CorruptData(f"record at {self.record.lsn} names no block")
        return self.record.blocks[index]

    def note(self, changed: bool) -> None:
        """Remember that the running checkpoint must be stored."""
        self.checkpoint_changed |= changed

    def unsupported(self, what: str) -> UnsupportedRecord:
        """The error for a record that must not be ignored."""
        record = self.record
        return UnsupportedRecord(
            f"record at {record.lsn} (rmgr {record.rmid}, info {record.info:#04x}): {what}"
        )

    async def put_slru_page(self, slru: Slru, page: int, value: Value) -> None:
        """Change the SLRU page with a number."""
        await self.modification.put_slru_block(slru, *SlruPage.of(page), value)


class RecordHandler(Protocol):
    """The effect of one resource manager's records besides their page images."""

    async def apply(self, change: Change) -> None:
        """Put the record's effect into the modification; ``UnsupportedRecord`` for unknown ones."""
        ...
