"""Resource managers SMGR, HEAP and HEAP2: relation sizes, and the map bits that heap records clear.

The visibility map's page is not registered in the heap's records (``heapam_xlog.h``), so no image
of it comes along: the flags in the main data are the only sign.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from storage.pageserver import keys
from storage.pageserver.keys import Relation
from storage.pageserver.postgres import visibility_map
from storage.pageserver.postgres.change import Change
from storage.wal.record import BlockRef

MAIN: Final = 0
FREE_SPACE_MAP: Final = 1
VISIBILITY_MAP: Final = 2
INIT: Final = 3

_OPERATION_MASK: Final = 0x70
_TRUNCATE_HEAP: Final = 1
_TRUNCATE_MAP: Final = 2


class StorageOperation(IntEnum):
    """Operations of the resource manager SMGR (``storage_xlog.h``)."""

    CREATE = 0x10
    TRUNCATE = 0x20


class HeapOperation(IntEnum):
    """Those operations of the resource manager HEAP that clear map bits (``heapam_xlog.h``)."""

    INSERT = 0x00
    DELETE = 0x10
    UPDATE = 0x20
    HOT_UPDATE = 0x40
    LOCK = 0x60


class Heap2Operation(IntEnum):
    """Those operations of the resource manager HEAP2 that clear map bits."""

    MULTI_INSERT = 0x50
    LOCK_UPDATED = 0x60


class StorageRecords:
    """Handler of resource manager 2: relation files appear and shrink."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        match change.record.info & 0xF0:
            case StorageOperation.CREATE:
                space, database, relation, fork = change.unpack("<IIIi")
                if fork != FREE_SPACE_MAP:
                    target = Relation(space, database, relation, fork)
                    await change.modification.create_relation(target)
            case StorageOperation.TRUNCATE:
                await self._truncate(change)
            case info:
                raise change.unsupported(f"storage operation {info:#04x}")

    async def _truncate(self, change: Change) -> None:
        blocks, space, database, relation, flags = change.unpack("<IIIIi")
        if flags & _TRUNCATE_HEAP:
            heap = Relation(space, database, relation, MAIN)
            await change.modification.truncate_relation(heap, blocks)
        if flags & _TRUNCATE_MAP:
            await self._truncate_map(
                change, Relation(space, database, relation, VISIBILITY_MAP), blocks
            )

    async def _truncate_map(self, change: Change, relation: Relation, heap_blocks: int) -> None:
        size = await change.modification.relation_size(relation)
        cut = visibility_map.truncation(heap_blocks)
        if size is None or size < cut.pages:
            return
        await change.modification.truncate_relation(relation, cut.pages)
        if cut.keep is not None:
            last = keys.relation_block(relation, cut.pages - 1)
            change.modification.put(last, visibility_map.truncate_delta(cut.keep))


async def clear_map_bits(change: Change, heap: BlockRef, bits: int) -> None:
    """Clear a heap block's bits, if the map has a page for it at all."""
    relation = Relation(heap.space, heap.database, heap.relation, VISIBILITY_MAP)
    page, delta = visibility_map.clear_delta(heap.block, bits)
    if page < (await change.modification.relation_size(relation) or 0):
        change.modification.put(keys.relation_block(relation, page), delta)


class HeapRecords:
    """Handler of resource manager 10."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        match change.record.info & _OPERATION_MASK:
            case HeapOperation.INSERT:
                await self._clear_if(change, 2, visibility_map.BOTH)
            case HeapOperation.DELETE:
                await self._clear_if(change, 7, visibility_map.BOTH)
            case HeapOperation.UPDATE | HeapOperation.HOT_UPDATE:
                await self._update(change)
            case HeapOperation.LOCK:
                await self._clear_if(change, 7, visibility_map.ALL_FROZEN)
            case operation:
                raise change.unsupported(f"heap operation {operation:#04x}")

    async def _clear_if(self, change: Change, flags_offset: int, bits: int) -> None:
        """Clear the bits of block 0 when the lowest flag says that they were cleared."""
        (flags,) = change.unpack("<B", flags_offset)
        if flags & 1:
            await clear_map_bits(change, change.block(0), bits)

    async def _update(self, change: Change) -> None:
        """Block 0 holds the new tuple, block 1 the old one if that is another block."""
        (flags,) = change.unpack("<B", 7)
        if flags & 1:
            await clear_map_bits(change, change.block(-1), visibility_map.BOTH)
        if flags & 2:
            await clear_map_bits(change, change.block(0), visibility_map.BOTH)


class Heap2Records:
    """Handler of resource manager 9."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        match change.record.info & _OPERATION_MASK:
            case Heap2Operation.MULTI_INSERT:
                await self._clear_if(change, 0, visibility_map.BOTH)
            case Heap2Operation.LOCK_UPDATED:
                await self._clear_if(change, 7, visibility_map.ALL_FROZEN)
            case operation:
                raise change.unsupported(f"heap operation {operation:#04x}")

    async def _clear_if(self, change: Change, flags_offset: int, bits: int) -> None:
        (flags,) = change.unpack("<B", flags_offset)
        if flags & 1:
            await clear_map_bits(change, change.block(0), bits)
