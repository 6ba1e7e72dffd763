"""Reading a data directory out of the key space: relations, databases, SLRUs and single files.

A :class:`DataDirectory` sees one LSN of one timeline (or a record that is being ingested); it
turns keys into answers and knows nothing of layers. Directories are sorted runs of fixed-size
big-endian entries; sizes are 4 bytes little endian, in blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

from storage.errors import CorruptData, NotFound
from storage.pageserver import keys
from storage.pageserver.keys import BLOCK_SIZE, Key, Relation, Slru

RELATION_ENTRY = struct.Struct(">IB")
"""(relation, fork) in a relation directory."""
DATABASE_ENTRY = struct.Struct(">II")
"""(space, database) in the database directory."""
SEGMENT_ENTRY = struct.Struct(">I")
"""Segment number in an SLRU directory."""
XID_ENTRY = struct.Struct(">Q")
"""Full transaction id in the two-phase directory."""

ZERO_PAGE = bytes(BLOCK_SIZE)
"""What a block inside a relation holds that was never written: extension leaves zeros."""

_SIZE = struct.Struct("<I")

KeyReader = Callable[[Key], Awaitable[bytes | None]]
"""Value of a key at one fixed LSN, ``None`` when the key does not exist there."""


def encode_size(blocks: int) -> bytes:
    """A relation or segment size as stored."""
    return _SIZE.pack(blocks)


def decode_size(data: bytes) -> int:
    """Inverse of :func:`encode_size`; ``CorruptData`` unless it is 4 bytes."""
    if len(data) != _SIZE.size:
        raise CorruptData(f"a stored size has {len(data)} bytes instead of {_SIZE.size}")
    return int(_SIZE.unpack(data)[0])


class DataDirectory:
    """What exists at one LSN. Every method raises what its key reader raises, besides its own."""

    def __init__(self, read: KeyReader) -> None:
        self._read = read

    async def value(self, key: Key) -> bytes | None:
        """Any key's value, for those that have no method of their own."""
        return await self._read(key)

    async def relation_size(self, relation: Relation) -> int | None:
        """Length in blocks, or ``None`` when the relation fork does not exist."""
        data = await self._read(keys.relation_size(relation))
        return None if data is None else decode_size(data)

    async def relation_exists(self, relation: Relation) -> bool:
        """Whether the relation fork exists, possibly with no blocks."""
        return await self.relation_size(relation) is not None

    async def relation_block(self, relation: Relation, block: int) -> bytes:
        """One page; zeros when it was never written. ``NotFound`` beyond the relation's end."""
        size = await self.relation_size(relation)
        if size is None or block >= size:
            raise NotFound(f"block {block} of relation {relation} does not exist: size {size}")
        page = await self._read(keys.relation_block(relation, block))
        return ZERO_PAGE if page is None else page

    async def relations(self, space: int, database: int) -> list[Relation]:
        """Every relation fork of a database, in order of (relation, fork)."""
        data = await self._read(keys.relation_directory(space, database)) or b""
        return [Relation(space, database, *e) for e in RELATION_ENTRY.iter_unpack(data)]

    async def databases(self) -> list[tuple[int, int]]:
        """Every (space, database), in order."""
        data = await self._read(keys.database_directory()) or b""
        return [(space, database) for space, database in DATABASE_ENTRY.iter_unpack(data)]

    async def database_blocks(self, space: int, database: int) -> int:
        """Total length in blocks of the main forks of a database."""
        total = 0
        for relation in await self.relations(space, database):
            if relation.fork == 0:
                total += await self.relation_size(relation) or 0
        return total

    async def slru_segments(self, slru: Slru) -> list[int]:
        """Numbers of the segments that exist, ascending."""
        data = await self._read(keys.slru_directory(slru)) or b""
        return [number for (number,) in SEGMENT_ENTRY.iter_unpack(data)]

    async def slru_segment_size(self, slru: Slru, segment: int) -> int | None:
        """Length of a segment in blocks, or ``None`` when it does not exist."""
        data = await self._read(keys.slru_size(slru, segment))
        return None if data is None else decode_size(data)

    async def slru_block(self, slru: Slru, segment: int, block: int) -> bytes:
        """One SLRU page; zeros when it was never written. ``NotFound`` beyond the end."""
        size = await self.slru_segment_size(slru, segment)
        if size is None or block >= size:
            raise NotFound(f"block {block} of {slru.name} segment {segment:04X}: size {size}")
        page = await self._read(keys.slru_block(slru, segment, block))
        return ZERO_PAGE if page is None else page

    async def relation_map(self, space: int, database: int) -> bytes | None:
        """Contents of ``pg_filenode.map``."""
        return await self._read(keys.relation_map(space, database))

    async def twophase_xids(self) -> list[int]:
        """Prepared transactions, ascending."""
        data = await self._read(keys.twophase_directory()) or b""
        return [xid for (xid,) in XID_ENTRY.iter_unpack(data)]

    async def twophase_file(self, xid: int) -> bytes | None:
        """State file of a prepared transaction."""
        return await self._read(keys.twophase_file(xid))

    async def control_file(self) -> bytes | None:
        """Contents of ``pg_control``."""
        return await self._read(keys.control_file())

    async def checkpoint(self) -> bytes | None:
        """The running ``CheckPoint`` structure."""
        return await self._read(keys.checkpoint())
