"""Import: the tar of a stopped server's data directory becomes the first version of every key.

Refused with ``BadRequest``: a server that was not shut down, another major version, settings we
cannot follow, pages with wrong checksums, tablespaces behind symbolic links, an LSN that is not the
end of the directory's last checkpoint record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from storage.errors import BadRequest
from storage.lsn import Lsn
from storage.pageserver import keys
from storage.pageserver.keys import BLOCK_SIZE, Relation
from storage.pageserver.modification import Modification
from storage.pageserver.postgres import named_files, origins, paths
from storage.pageserver.postgres.checksum import has_right_checksum
from storage.pageserver.postgres.control import CHECKPOINT, STATE_SHUT_DOWN, ControlFile
from storage.pageserver.postgres.relations import FREE_SPACE_MAP
from storage.pageserver.postgres.tar_stream import TarEntry, TarReader
from storage.pageserver.values import Image
from storage.wal.format import RECORD_HEADER_SIZE, record_end

CHECKPOINT_RECORD_SIZE: Final = RECORD_HEADER_SIZE + 2 + CHECKPOINT.size
"""Header, short main data header, the checkpoint: 114 bytes."""

_BLOCKS_PER_READ: Final = 64
_ZERO_PAGE: Final = bytes(BLOCK_SIZE)


def end_of_checkpoint(control: ControlFile) -> Lsn:
    """Where WAL continues after the checkpoint that a shut-down server's control file names."""
    end = record_end(control.checkpoint_lsn, CHECKPOINT_RECORD_SIZE, control["wal_segment_size"])
    return Lsn(end)


class DirectoryImport:
    """One import into an open modification."""

    def __init__(self, modification: Modification, tar: AsyncIterator[bytes], pg_version: int):
        self._modification = modification
        self._tar = TarReader(tar)
        self._pg_version = pg_version
        self._control: ControlFile | None = None
        self._wrong_checksums: list[tuple[Relation, int]] = []
        self._twophase: list[tuple[int, bytes]] = []

    async def run(self) -> None:
        """Read the whole archive; ``BadRequest`` if it is no usable data directory."""
        async for entry in self._tar.entries():
            if entry.is_link and entry.path.startswith("pg_tblspc/"):
                raise BadRequest(
                    f"{entry.path} is a symbolic link to a tablespace elsewhere; only tablespaces "
                    "in place (CREATE TABLESPACE … LOCATION '') can be imported"
                )
            if entry.is_file:
                await self._take_file(entry)
            elif not entry.is_link:
                await self._take_directory(entry.path)
        await self._finish()

    async def _take_file(self, entry: TarEntry) -> None:
        path = entry.path
        if path == "backup_label":
            raise BadRequest("the archive is an online backup; stop the server and copy its files")
        if path == "PG_VERSION":
            self._check_version(await self._tar.read(entry.size))
        elif path == paths.CONTROL_FILE:
            self._control = ControlFile.load(await self._tar.read(entry.size), self._pg_version)
        elif path in named_files.CONFIGURATION:
            key = named_files.CONFIGURATION[path]
            self._modification.put(key, Image(await self._tar.read(entry.size)))
        elif path == origins.PATH:
            image = origins.from_file(await self._tar.read(entry.size))
            self._modification.put(origins.ORIGINS, image)
        elif (in_database := paths.parse_database_file(path)) is not None:
            await self._take_database_file(entry, in_database)
        elif (slru_file := paths.parse_slru_file(path)) is not None:
            await self._take_slru(entry, slru_file)
        elif (xid := paths.parse_twophase_file(path)) is not None:
            self._twophase.append((xid, await self._tar.read(entry.size)))

    async def _take_directory(self, path: str) -> None:
        match path.split("/"):
            case ["base", database] if database.isdigit():
                await self._modification.create_database(paths.DEFAULT_SPACE, int(database))
            case ["pg_tblspc", space] if space.isdigit():
                await named_files.add_tablespace(self._modification, int(space))

    async def _take_database_file(self, entry: TarEntry, file: paths.InDatabase) -> None:
        if file.name == paths.RELATION_MAP:
            data = await self._tar.read(entry.size)
            await self._modification.create_database(file.space, file.database)
            self._modification.put_relation_map(file.space, file.database, data)
            return
        relation_file = paths.parse_relation_file(file)
        if relation_file is not None and relation_file.relation.fork != FREE_SPACE_MAP:
            await self._take_relation(entry, relation_file)

    async def _take_relation(self, entry: TarEntry, file: paths.RelationFile) -> None:
        modification, relation = self._modification, file.relation
        first = file.segment * paths.SEGMENT_BLOCKS
        end = first + self._blocks(entry)
        await modification.create_relation(relation)
        size = await modification.relation_size(relation) or 0
        if end > size:
            modification.extend_relation(relation, size, end)
        async for block, page in self._pages(first):
            if not self._wrong_checksums and not has_right_checksum(page, block):
                self._wrong_checksums.append((relation, block))
            if page != _ZERO_PAGE:
                modification.put(keys.relation_block(relation, block), Image(page))

    async def _take_slru(self, entry: TarEntry, file: paths.SlruFile) -> None:
        self._blocks(entry)
        async for block, page in self._pages(0):
            await self._modification.put_slru_block(*file, block, Image(page))

    def _blocks(self, entry: TarEntry) -> int:
        blocks, rest = divmod(entry.size, BLOCK_SIZE)
        if rest:
            raise BadRequest(f"{entry.path} has {entry.size} bytes: not a multiple of {BLOCK_SIZE}")
        return blocks

    async def _pages(self, first: int) -> AsyncIterator[tuple[int, bytes]]:
        block = first
        while data := await self._tar.read(_BLOCKS_PER_READ * BLOCK_SIZE):
            for at in range(0, len(data), BLOCK_SIZE):
                yield block, data[at : at + BLOCK_SIZE]
                block += 1

    def _check_version(self, data: bytes) -> None:
        found = data.decode("ascii", "replace").strip()
        if found != str(self._pg_version):
            raise BadRequest(f"the data directory is of version {found}, not {self._pg_version}")

    async def _finish(self) -> None:
        control = self._control
        if control is None:
            raise BadRequest(f"the archive has no {paths.CONTROL_FILE}: not a data directory")
        self._check_control(control)
        checkpoint = control.checkpoint
        for xid, data in self._twophase:
            await self._modification.put_twophase_file(checkpoint.full_xid(xid), data)
        self._modification.put_control_file(control.data)
        self._modification.put_checkpoint(checkpoint.pack())

    def _check_control(self, control: ControlFile) -> None:
        if control["state"] != STATE_SHUT_DOWN:
            raise BadRequest(
                f"the server was not shut down (state {control['state']} in pg_control); "
                "stop it in mode fast or smart and copy the directory again"
            )
        if control["block_size"] != BLOCK_SIZE or control["segment_blocks"] != paths.SEGMENT_BLOCKS:
            raise BadRequest(
                f"block size {control['block_size']} and {control['segment_blocks']} blocks a "
                f"file are not {BLOCK_SIZE} and {paths.SEGMENT_BLOCKS}"
            )
        if control["track_commit_timestamp"]:
            raise BadRequest("track_commit_timestamp is on; its files are not kept: turn it off")
        if control["data_checksum_version"] and self._wrong_checksums:
            relation, block = self._wrong_checksums[0]
            raise BadRequest(f"block {block} of {relation} does not match its checksum")
        end_lsn = end_of_checkpoint(control)
        if self._modification.end_lsn != end_lsn:
            raise BadRequest(
                f"import at {self._modification.end_lsn}, but WAL continues at {end_lsn}, the end "
                f"of the checkpoint at {control.checkpoint_lsn}; import at {end_lsn}"
            )
