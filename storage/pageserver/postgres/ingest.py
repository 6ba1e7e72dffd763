"""Turns records of an unmodified PostgreSQL into changes: page images, and what has no image.

Every block reference must carry an image (``wal_consistency_checking = all``); one without raises
:class:`ImageMissing` and a record that ``record_kinds`` does not list :class:`UnsupportedRecord`,
because a page left stale is noticed by nobody. The free space map is not kept: servers rebuild it.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from storage.errors import CorruptData
from storage.events import emit
from storage.lsn import Lsn
from storage.pageserver.keys import Relation
from storage.pageserver.modification import Modification
from storage.pageserver.postgres.change import (
    Change,
    ImageMissing,
    RecordHandler,
    UnsupportedRecord,
)
from storage.pageserver.postgres.control import Checkpoint
from storage.pageserver.postgres.databases import (
    DatabaseRecords,
    RelationMapRecords,
    TablespaceRecords,
)
from storage.pageserver.postgres.multixacts import CommitLogRecords, MultixactRecords
from storage.pageserver.postgres.origins import OriginRecords
from storage.pageserver.postgres.record_kinds import (
    FPI_FOR_HINT,
    SPECIAL_RELATION_UPDATE,
    Handling,
    RecordKind,
    kind_of,
)
from storage.pageserver.postgres.relations import (
    FREE_SPACE_MAP,
    Heap2Records,
    HeapRecords,
    StorageRecords,
)
from storage.pageserver.postgres.server_records import ServerRecords, StandbyRecords
from storage.pageserver.postgres.transactions import TransactionRecords
from storage.pageserver.values import Image
from storage.wal.format import RMGR_XLOG
from storage.wal.image import with_lsn
from storage.wal.record import BlockRef, WalRecord


@dataclass(slots=True)
class _Tip:
    """The running checkpoint as the record that ended at ``end_lsn`` left it."""

    end_lsn: Lsn
    checkpoint: Checkpoint


class RecordIngest:
    """Ingests the records of any number of timelines, each through its one Modification."""

    def __init__(self) -> None:
        self._handlers: dict[int, RecordHandler] = {
            0: ServerRecords(),
            1: TransactionRecords(),
            2: StorageRecords(),
            3: CommitLogRecords(),
            4: DatabaseRecords(),
            5: TablespaceRecords(),
            6: MultixactRecords(),
            7: RelationMapRecords(),
            8: StandbyRecords(),
            9: Heap2Records(),
            10: HeapRecords(),
            19: OriginRecords(),
        }
        self._tips: WeakKeyDictionary[Modification, _Tip] = WeakKeyDictionary()

    async def ingest(self, modification: Modification, record: WalRecord, pg_version: int) -> None:
        """Put one record's changes into an open modification.

        Raises ``CorruptData`` (``ImageMissing``, ``UnsupportedRecord``) for what cannot be stored
        faithfully; nothing of the record may be committed then.
        """
        kind = self._kind(record, pg_version)
        if record.xid == 0 and kind.handling is not Handling.EFFECT:
            await self._put_images(modification, record)
            return
        tip = await self._tip(modification, record.end_lsn)
        change = Change(record, modification, tip.checkpoint, pg_version)
        try:
            await self._put_images(modification, record)
            if record.xid:
                change.note(tip.checkpoint.advance_next_xid(record.xid))
            if kind.handling is Handling.EFFECT:
                await self._handlers[kind.rmid].apply(change)
        except BaseException as error:
            self._tips.pop(modification, None)  # It may know what was not committed.
            if isinstance(error, UnsupportedRecord):
                self._alarm(error)
            raise
        if change.checkpoint_changed:
            modification.put_checkpoint(tip.checkpoint.pack())
        tip.end_lsn = record.end_lsn

    def _kind(self, record: WalRecord, pg_version: int) -> RecordKind:
        """What kind of record it is; refuses those whose effects nobody would carry out."""
        kind = kind_of(record.rmid, record.info, pg_version)
        if kind is None:
            raise self._unsupported(record, f"PostgreSQL {pg_version} has no such records")
        if kind.handling is Handling.REFUSED:
            raise self._unsupported(record, f"effects of {kind} are not stored")
        if record.info & SPECIAL_RELATION_UPDATE and kind.handling is not Handling.EFFECT:
            raise self._unsupported(record, f"{kind} says that it changes relation files")
        return kind

    def _unsupported(self, record: WalRecord, why: str) -> CorruptData:
        return self._alarm(
            UnsupportedRecord(
                f"record at {record.lsn} (rmgr {record.rmid}, info {record.info:#04x}): {why}"
            )
        )

    async def _put_images(self, modification: Modification, record: WalRecord) -> None:
        end_lsn = record.end_lsn
        for block in record.blocks:
            if block.fork == FREE_SPACE_MAP:
                continue
            if block.image is None:
                self._refuse_block(record, block)
                continue
            relation = Relation(block.space, block.database, block.relation, block.fork)
            value = Image(with_lsn(block.image, end_lsn))
            if not modification.put_known_block(relation, block.block, value):
                await modification.put_block(relation, block.block, value)

    def _refuse_block(self, record: WalRecord, block: BlockRef) -> None:
        """Images are all we replay: without one the page would silently stay as it was.

        A page of which only hints changed may do so; with ``full_page_writes = off`` such records
        come without images, and replay does nothing either (``xlog_redo``).
        """
        if (record.rmid, record.info & 0xF0) == (RMGR_XLOG, FPI_FOR_HINT):
            return
        raise self._alarm(
            ImageMissing(
                f"record at {record.lsn} (rmgr {record.rmid}, info {record.info:#04x}) changes "
                f"block {block.block} of {block.space}/{block.database}/{block.relation}."
                f"{block.fork} without an image of it; the server must run with "
                "wal_consistency_checking = all in every session"
            )
        )

    async def _tip(self, modification: Modification, end_lsn: Lsn) -> _Tip:
        """The running checkpoint, from memory unless the record before was not committed."""
        tip = self._tips.get(modification)
        if tip is None or tip.end_lsn >= end_lsn:
            data = await modification.directory.checkpoint()
            if data is None:
                raise CorruptData("no checkpoint is stored: import a data directory first")
            tip = _Tip(modification.end_lsn, Checkpoint.unpack(data))
            self._tips[modification] = tip
        return tip

    def _alarm(self, error: CorruptData) -> CorruptData:
        emit("alarm", reason=type(error).__name__, message=str(error))
        return error
