"""From WAL records to key changes: the dispatch by resource manager.

The key-value records of the deterministic compute are handled here; everything else goes to the
PostgreSQL support. A record that nobody understands is an alarm, never skipped: the error names it
and the timeline stops, because its pages would go stale unseen.
"""

from __future__ import annotations

from typing import Final

from storage.errors import CorruptData
from storage.kv import page as kv_page
from storage.kv.record import INFO_TRANSACTION, KV_RMGR_ID, commit_time_us
from storage.lsn import Lsn
from storage.pageserver.hooks import PostgresHooks
from storage.pageserver.keys import Key, KeyKind
from storage.pageserver.modification import Modification
from storage.pageserver.redo import OPCODE_KV, RedoTable
from storage.pageserver.timeline import Timeline
from storage.pageserver.values import Delta, Image, Value
from storage.wal.image import with_lsn
from storage.wal.reader import RawRecord
from storage.wal.record import BlockRef, WalRecord, decode

_BLOCK_KIND: Final = int(KeyKind.RELATION_BLOCK)
_RMGR_XLOG: Final = 0
_XLOG_NOOP: Final = 0x20
_XLOG_SWITCH: Final = 0x40


def register_kv_redo(table: RedoTable) -> None:
    """Add redo of the key-value pages to the vocabulary."""
    table.register(OPCODE_KV, kv_page.apply, batch=kv_page.apply_all)


class WalIngest:
    """Applies the records of one timeline, one after the other; its only writer."""

    def __init__(self, timeline: Timeline, postgres: PostgresHooks | None) -> None:
        self._timeline = timeline
        self._modification = timeline.modification
        self._postgres = postgres

    async def ingest(self, raw: RawRecord) -> None:
        """Apply one record whole, or not at all.

        Raises ``CorruptData`` for a record that cannot be understood, and what reads raise.
        """
        record = decode(raw.raw, raw.lsn, raw.end_lsn, self._timeline.pg_version)
        if record.rmid == KV_RMGR_ID:
            changes = kv_changes(record)
            committed_us = commit_time_us(record.main_data)
            if committed_us is None and self._modification.commit_known_blocks(
                raw.lsn, raw.end_lsn, changes
            ):
                return
        modification = self._modification
        modification.begin(raw.lsn, raw.end_lsn)
        try:
            if record.rmid == KV_RMGR_ID:
                for key, value in changes:
                    await modification.put_block(key.owner, key.block, value)
                if committed_us is not None:
                    await modification.put_commit_time(committed_us)
            else:
                await self._ingest_other(modification, record)
        except BaseException:
            modification.abort()
            raise
        modification.commit()

    async def _ingest_other(self, modification: Modification, record: WalRecord) -> None:
        if self._postgres is not None:
            await self._postgres.ingest(modification, record, self._timeline.pg_version)
        elif not is_filler(record):
            raise CorruptData(
                f"record at {record.lsn}: resource manager {record.rmid} is not supported here"
            )


def kv_changes(record: WalRecord) -> list[tuple[Key, Value]]:
    """What a key-value record does to its blocks, each by its key."""
    if record.info & 0xF0 != INFO_TRANSACTION or not record.blocks:
        raise CorruptData(
            f"key-value record at {record.lsn}: info {record.info:#04x} with "
            f"{len(record.blocks)} blocks is unknown"
        )
    lsn = record.end_lsn
    return [
        (
            Key(_BLOCK_KIND, ref.space, ref.database, ref.relation, ref.fork, ref.block),
            kv_value(ref, lsn),
        )
        for ref in record.blocks
    ]


def kv_value(block: BlockRef, lsn: Lsn) -> Value:
    """What a block reference of a key-value record does to its page."""
    if block.image is not None:
        return Image(with_lsn(block.image, lsn))
    if not block.data:
        raise CorruptData(f"key-value record ending at {lsn}: block {block.block} has no data")
    return Delta(OPCODE_KV, block.data, block.will_init)


def is_filler(record: WalRecord) -> bool:
    """Whether the record only takes up room: a no-op or the end of a segment."""
    return record.rmid == _RMGR_XLOG and record.info & 0xF0 in (_XLOG_NOOP, _XLOG_SWITCH)
