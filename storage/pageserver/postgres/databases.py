"""Resource managers DBASE, TBLSPC and RELMAP: databases, tablespaces and relation maps.

Layouts: ``dbcommands_xlog.h``, ``tablespace.h``, ``relmapper.h``.
"""

from __future__ import annotations

from enum import IntEnum

from storage.errors import CorruptData
from storage.pageserver import keys
from storage.pageserver.modification import Modification
from storage.pageserver.postgres import named_files
from storage.pageserver.postgres.change import Change
from storage.pageserver.postgres.relations import FREE_SPACE_MAP
from storage.pageserver.values import Image


class DatabaseOperation(IntEnum):
    """Operations of the resource manager DBASE (``dbcommands_xlog.h``)."""

    CREATE_FILE_COPY = 0x00
    CREATE_WAL_LOG = 0x10
    DROP = 0x20


class TablespaceOperation(IntEnum):
    """Operations of the resource manager TBLSPC (``tablespace.h``)."""

    CREATE = 0x00
    DROP = 0x10


class DatabaseRecords:
    """Handler of resource manager 4."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        match change.record.info & 0xF0:
            case DatabaseOperation.CREATE_FILE_COPY:
                await self._copy(change)
            case DatabaseOperation.CREATE_WAL_LOG:
                database, space = change.unpack("<II")
                await change.modification.create_database(space, database)
            case DatabaseOperation.DROP:
                database, count = change.unpack("<Ii")
                for space in change.unpack(f"<{count}I", 8):
                    await change.modification.drop_database(space, database)
            case info:
                raise change.unsupported(f"database operation {info:#04x}")

    async def _copy(self, change: Change) -> None:
        """STRATEGY file_copy: the files were copied, so no page images of the copy follow.

        One record for each tablespace with a directory of the source; only that of the database's
        own tablespace has a relation map.
        """
        database, space, source_database, source_space = change.unpack("<4I")
        modification = change.modification
        if (source_space, source_database) not in await modification.directory.databases():
            raise CorruptData(
                f"record at {change.record.lsn} copies database {source_database} in tablespace "
                f"{source_space}, which does not exist"
            )
        await modification.create_database(space, database)
        relation_map = await modification.directory.relation_map(source_space, source_database)
        if relation_map is not None:
            modification.put_relation_map(space, database, relation_map)
        for source in await modification.directory.relations(source_space, source_database):
            if source.fork != FREE_SPACE_MAP:
                target = source._replace(space=space, database=database)
                await self._copy_relation(modification, source, target)

    async def _copy_relation(
        self, modification: Modification, source: keys.Relation, target: keys.Relation
    ) -> None:
        size = await modification.relation_size(source) or 0
        await modification.create_relation(target)
        if size:
            modification.extend_relation(target, 0, size)
        for block in range(size):
            page = await modification.get(keys.relation_block(source, block))
            if page is not None:
                modification.put(keys.relation_block(target, block), Image(page))


class TablespaceRecords:
    """Handler of resource manager 5."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        (space,) = change.unpack("<I")
        match change.record.info & 0xF0:
            case TablespaceOperation.CREATE:
                await named_files.add_tablespace(change.modification, space)
            case TablespaceOperation.DROP:
                await self._drop(change, space)
            case info:
                raise change.unsupported(f"tablespace operation {info:#04x}")

    async def _drop(self, change: Change, space: int) -> None:
        for owner, database in await change.modification.directory.databases():
            if owner == space:
                await change.modification.drop_database(space, database)
        await named_files.remove_tablespace(change.modification, space)


class RelationMapRecords:
    """Handler of resource manager 7."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        if change.record.info & 0xF0:
            raise change.unsupported(f"relation map operation {change.record.info:#04x}")
        database, space, size = change.unpack("<IIi")
        data = change.record.main_data[12:]
        if len(data) != size:
            raise CorruptData(f"relation map of {len(data)} bytes, announced as {size}")
        change.modification.put_relation_map(space, database, data)
