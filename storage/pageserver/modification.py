"""All changes of one WAL record, made visible together at the record's end LSN.

A timeline has one writer, and that writer one Modification, used again for record after record:
``begin`` → reads and puts → ``commit`` (or ``abort``: nothing of the record happened). Reads see
the pending changes first, then the timeline at its last record. Sizes and directories of the tip
are cached here, so the common record (one block of a known relation) needs no await at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from storage.errors import CorruptData
from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver import keys
from storage.pageserver.datadir import (
    DATABASE_ENTRY,
    RELATION_ENTRY,
    SEGMENT_ENTRY,
    XID_ENTRY,
    DataDirectory,
    encode_size,
)
from storage.pageserver.keys import Key, KeyKind, Relation, Slru
from storage.pageserver.newest_commit import NewestCommit
from storage.pageserver.redo import (
    OPCODE_DIRECTORY_ADD,
    OPCODE_DIRECTORY_REMOVE,
    RedoTable,
)
from storage.pageserver.values import Delta, Image, Removed, Value

_SIZE_KIND = int(KeyKind.RELATION_SIZE)


class RecordTarget(Protocol):
    """What a Modification writes to: the tip of a timeline."""

    redo: RedoTable

    @property
    def last_record_lsn(self) -> Lsn:
        """End of the last record whose changes are visible."""
        ...

    async def get(self, key: Key, lsn: Lsn) -> bytes | None:
        """Value of a key at an LSN ≤ last_record_lsn."""
        ...

    def apply_record(
        self, start_lsn: Lsn, end_lsn: Lsn, changes: Iterable[tuple[Key, Value]]
    ) -> None:
        """Take a whole record: its changes become readable at ``end_lsn``, all at once."""
        ...


class Modification:
    """See the module. Not safe for two writers; every put asserts that a record is open."""

    def __init__(self, target: RecordTarget) -> None:
        self._target = target
        self._start_lsn = INVALID_LSN
        self._end_lsn = INVALID_LSN
        self._open = False
        self._pending: dict[Key, list[Value]] = {}
        self._sizes: dict[Key, int | None] = {}
        self._directories: dict[Key, set[bytes]] = {}
        self._commit_us: int | None = None
        self.directory = DataDirectory(self.get)

    @property
    def end_lsn(self) -> Lsn:
        """LSN at which the open record's changes become visible (a page's new ``pd_lsn``)."""
        return self._end_lsn

    def begin(self, start_lsn: Lsn, end_lsn: Lsn) -> None:
        """Open a record that begins at ``start_lsn`` (0 for an import) and ends at ``end_lsn``."""
        assert not self._open, f"record at {self._start_lsn} is still open"
        assert end_lsn > self._target.last_record_lsn, f"{end_lsn} was ingested already"
        self._start_lsn = start_lsn
        self._end_lsn = end_lsn
        self._open = True

    def commit(self) -> None:
        """Make the record's changes visible and advance the timeline to its end."""
        assert self._open, "no record is open"
        pending = self._pending
        fold = self._target.redo.fold
        lsn = self._end_lsn
        self._target.apply_record(
            self._start_lsn,
            lsn,
            [
                (key, values[0] if len(values) == 1 else fold(values, lsn))
                for key, values in pending.items()
            ],
        )
        pending.clear()
        self._open = False

    def commit_known_blocks(
        self, start_lsn: Lsn, end_lsn: Lsn, changes: Sequence[tuple[Key, Value]]
    ) -> bool:
        """Fast path: a whole record that only changes different blocks of known relations.

        ``changes`` are by ``RELATION_BLOCK`` keys. ``False`` (and no effect) if any of them lies
        outside what the cached sizes cover.
        """
        assert not self._open, f"record at {self._start_lsn} is still open"
        sizes = self._sizes
        for key, _ in changes:
            size = sizes.get(Key(_SIZE_KIND, *key[1:5], 0))
            if size is None or key[5] >= size:
                return False
        self._target.apply_record(start_lsn, end_lsn, changes)
        return True

    def abort(self) -> None:
        """Forget the open record and everything it had changed."""
        self._pending.clear()
        self._sizes.clear()
        self._directories.clear()
        self._commit_us = None
        self._open = False

    def put(self, key: Key, value: Value) -> None:
        """Change one key. Sizes and directories have their own methods below: use those."""
        assert self._open, f"{key} is changed outside a record"
        values = self._pending.get(key)
        if values is None:
            self._pending[key] = [value]
        else:
            values.append(value)

    async def get(self, key: Key) -> bytes | None:
        """Value of a key as the open record leaves it so far; ``None`` if it does not exist."""
        pending = self._pending.get(key)
        if pending is None:
            return await self._target.get(key, self._target.last_record_lsn)
        base = None
        if isinstance(pending[0], Delta) and not pending[0].initial:
            base = await self._target.get(key, self._target.last_record_lsn)
        redo = self._target.redo
        return redo.reconstruct(base, ((self._end_lsn, value) for value in pending))

    # Relations.

    def put_known_block(self, relation: Relation, block: int, value: Value) -> bool:
        """Change a block of a relation whose cached size covers it; ``False`` if not so."""
        size = self._sizes.get(Key(_SIZE_KIND, *relation, 0))
        if size is None or block >= size:
            return False
        self.put(Key(KeyKind.RELATION_BLOCK, *relation, block), value)
        return True

    async def put_block(self, relation: Relation, block: int, value: Value) -> None:
        """Change one block; creates or extends the relation as far as the block needs.

        Blocks skipped by the extension read as zeros, whatever they held before a truncation; a
        delta to a new block starts from nothing.
        """
        size = await self.relation_size(relation)
        if size is None:
            await self.create_relation(relation)
            size = 0
        if block >= size:
            self.extend_relation(relation, size, block + 1)
            if isinstance(value, Delta):
                value = Delta(value.opcode, value.data, True)
        self.put(keys.relation_block(relation, block), value)

    async def relation_size(self, relation: Relation) -> int | None:
        """Length in blocks as the open record leaves it; ``None`` when it does not exist."""
        return await self._size(keys.relation_size(relation))

    async def create_relation(self, relation: Relation) -> None:
        """Make an empty relation fork, and its database; harmless when it exists."""
        if await self.relation_size(relation) is not None:
            return
        await self.create_database(relation.space, relation.database)
        self._put_size(keys.relation_size(relation), 0)
        entry = RELATION_ENTRY.pack(relation.relation, relation.fork)
        await self._add_entry(keys.relation_directory(relation.space, relation.database), entry)

    def extend_relation(self, relation: Relation, size: int, new_size: int) -> None:
        """Grow an existing relation from ``size`` to ``new_size`` blocks of zeros."""
        assert new_size > size, f"{relation} has {size} blocks, not fewer than {new_size}"
        for block in range(size, new_size):
            self.put(keys.relation_block(relation, block), Removed())
        self._put_size(keys.relation_size(relation), new_size)

    async def truncate_relation(self, relation: Relation, blocks: int) -> None:
        """Cut to ``blocks``; harmless when the relation is shorter or missing."""
        size = await self.relation_size(relation)
        if size is not None and size > blocks:
            self._put_size(keys.relation_size(relation), blocks)

    async def drop_relation(self, relation: Relation) -> None:
        """Remove a relation fork; harmless when it does not exist."""
        if await self.relation_size(relation) is None:
            return
        self._put_size(keys.relation_size(relation), None)
        entry = RELATION_ENTRY.pack(relation.relation, relation.fork)
        await self._remove_entry(keys.relation_directory(relation.space, relation.database), entry)

    # Databases.

    async def create_database(self, space: int, database: int) -> None:
        """Add a database without relations; harmless when it exists."""
        await self._add_entry(keys.database_directory(), DATABASE_ENTRY.pack(space, database))

    async def drop_database(self, space: int, database: int) -> None:
        """Remove a database with its relations and its relation map."""
        for relation in await self.directory.relations(space, database):
            await self.drop_relation(relation)
        self.put(keys.relation_map(space, database), Removed())
        await self._remove_entry(keys.database_directory(), DATABASE_ENTRY.pack(space, database))

    def put_relation_map(self, space: int, database: int, data: bytes) -> None:
        """Replace a ``pg_filenode.map``."""
        self.put(keys.relation_map(space, database), Image(data))

    # SLRUs and single files.

    async def put_slru_block(self, slru: Slru, segment: int, block: int, value: Value) -> None:
        """Change one SLRU page; creates or extends the segment as far as the block needs."""
        key = keys.slru_size(slru, segment)
        size = await self._size(key)
        if size is None:
            await self._add_entry(keys.slru_directory(slru), SEGMENT_ENTRY.pack(segment))
            size = 0
        if block >= size:
            for skipped in range(size, block):
                self.put(keys.slru_block(slru, segment, skipped), Removed())
            self._put_size(key, block + 1)
            if isinstance(value, Delta):
                value = Delta(value.opcode, value.data, True)
        self.put(keys.slru_block(slru, segment, block), value)

    async def drop_slru_segment(self, slru: Slru, segment: int) -> None:
        """Remove a segment; harmless when it does not exist."""
        key = keys.slru_size(slru, segment)
        if await self._size(key) is None:
            return
        self._put_size(key, None)
        await self._remove_entry(keys.slru_directory(slru), SEGMENT_ENTRY.pack(segment))

    async def put_twophase_file(self, xid: int, data: bytes) -> None:
        """Store the state file of a prepared transaction."""
        self.put(keys.twophase_file(xid), Image(data))
        await self._add_entry(keys.twophase_directory(), XID_ENTRY.pack(xid))

    async def drop_twophase_file(self, xid: int) -> None:
        """Remove the state file of a prepared transaction; harmless when there is none."""
        self.put(keys.twophase_file(xid), Removed())
        await self._remove_entry(keys.twophase_directory(), XID_ENTRY.pack(xid))

    def put_control_file(self, data: bytes) -> None:
        """Replace ``pg_control``."""
        self.put(keys.control_file(), Image(data))

    def put_checkpoint(self, data: bytes) -> None:
        """Replace the running ``CheckPoint`` structure."""
        self.put(keys.checkpoint(), Image(data))

    async def put_commit_time(self, time_us: int) -> None:
        """The open record is a commit of this time (microseconds of the Postgres epoch)."""
        if self._commit_us is None:
            data = await self.get(keys.commit_time())
            self._commit_us = time_us if data is None else NewestCommit.decode(data).time_us
        self._commit_us = max(self._commit_us, time_us)
        newest = NewestCommit(self._commit_us, self._end_lsn)
        self.put(keys.commit_time(), Image(newest.encode()))

    # Caches of the tip.

    async def _size(self, key: Key) -> int | None:
        if key in self._sizes:
            return self._sizes[key]
        if key.kind == KeyKind.RELATION_SIZE:
            size = await self.directory.relation_size(key.owner)
        else:
            size = await self.directory.slru_segment_size(Slru(key.space), key.relation)
        self._sizes[key] = size
        return size

    def _put_size(self, key: Key, blocks: int | None) -> None:
        self._sizes[key] = blocks
        self.put(key, Removed() if blocks is None else Image(encode_size(blocks)))

    async def _entries(self, key: Key, entry_size: int) -> set[bytes]:
        entries = self._directories.get(key)
        if entries is None:
            data = await self.get(key) or b""
            if len(data) % entry_size:
                raise CorruptData(f"{key} holds {len(data)} bytes: not entries of {entry_size}")
            entries = {data[i : i + entry_size] for i in range(0, len(data), entry_size)}
            self._directories[key] = entries
        return entries

    async def _add_entry(self, key: Key, entry: bytes) -> None:
        entries = await self._entries(key, len(entry))
        if entry not in entries:
            entries.add(entry)
            self.put(key, Delta(OPCODE_DIRECTORY_ADD, entry))

    async def _remove_entry(self, key: Key, entry: bytes) -> None:
        entries = await self._entries(key, len(entry))
        if entry in entries:
            entries.remove(entry)
            self.put(key, Delta(OPCODE_DIRECTORY_REMOVE, entry))
