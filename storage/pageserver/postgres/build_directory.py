"""A data directory at an LSN, as a tar stream that an unmodified server starts from.

The directory looks like that of a server which was shut down exactly there: its WAL ends with a
``CHECKPOINT_SHUTDOWN`` record at the LSN, made here, which the server continues. Nobody else has
that record yet; the server streams it to the safekeepers like any other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final

from storage.errors import BadRequest, NotFound
from storage.lsn import Lsn
from storage.pageserver.datadir import DataDirectory
from storage.pageserver.hooks import DirectoryRequest
from storage.pageserver.keys import BLOCK_SIZE, Relation, Slru
from storage.pageserver.postgres import named_files, origins, paths, tar_stream
from storage.pageserver.postgres.checksum import with_checksum
from storage.pageserver.postgres.control import STATE_SHUT_DOWN, Checkpoint, ControlFile
from storage.pageserver.postgres.import_directory import end_of_checkpoint
from storage.pageserver.postgres.relations import FREE_SPACE_MAP, INIT, MAIN, VISIBILITY_MAP
from storage.pageserver.postgres.slru_pages import (
    MEMBERS_PER_PAGE,
    OFFSETS_PER_PAGE,
    SEGMENT_PAGES,
    XIDS_PER_PAGE,
    SlruPage,
)
from storage.wal.format import PAGE_SIZE, RMGR_XLOG, segment_name
from storage.wal.record import RecordSpec
from storage.wal.writer import WalWriter, WriterOptions, page_header

CHECKPOINT_SHUTDOWN: Final = 0x00
_TIMELINE: Final = 1
_BLOCKS_PER_CHUNK: Final = 32
_ZEROS_PER_CHUNK: Final = 1 << 20


class DirectoryBuild:
    """One data directory on its way out."""

    def __init__(self, directory: DataDirectory, request: DirectoryRequest) -> None:
        self._directory = directory
        self._request = request

    async def tar(self) -> AsyncIterator[bytes]:
        """The archive, in pieces of up to a megabyte. ``NotFound`` where nothing was imported."""
        control, checkpoint = await self._load()
        for part in (self._skeleton(control), self._databases(control)):
            async for piece in part:
                yield piece
        for slru in Slru:
            async for piece in self._slru(slru, checkpoint):
                yield piece
        async for piece in self._twophase_files():
            yield piece
        writer = WalWriter(self._writer_options(control), self._request.lsn, self._prev(control))
        start = self._append_checkpoint(writer, checkpoint)
        for piece in wal_files(writer, self._writer_options(control)):
            yield piece
        yield tar_stream.whole_file(
            paths.CONTROL_FILE, self._control_file(control, checkpoint, start)
        )
        yield tar_stream.END_OF_ARCHIVE

    async def _load(self) -> tuple[ControlFile, Checkpoint]:
        data = await self._directory.control_file()
        running = await self._directory.checkpoint()
        if data is None or running is None:
            raise NotFound(
                f"no data directory at {self._request.lsn}: none was imported into this timeline"
            )
        return ControlFile(data, self._request.pg_version), Checkpoint.unpack(running)

    async def _skeleton(self, control: ControlFile) -> AsyncIterator[bytes]:
        version = self._request.pg_version
        newer = paths.DIRECTORIES_SINCE_17 if version >= 17 else ()
        for path in (*paths.DIRECTORIES, *newer):
            yield tar_stream.directory_header(path)
        yield tar_stream.whole_file("PG_VERSION", self._version_file())
        for name, key in named_files.CONFIGURATION.items():
            data = await self._directory.value(key)
            yield tar_stream.whole_file(name, data or b"")
        if entries := await self._directory.value(origins.ORIGINS):
            yield tar_stream.whole_file(origins.PATH, origins.to_file(entries))
        spaces = named_files.decode_tablespaces(
            await self._directory.value(named_files.TABLESPACES)
        )
        for space in spaces:
            yield tar_stream.directory_header(f"pg_tblspc/{space}")
            yield tar_stream.directory_header(
                paths.tablespace_directory(space, version, control["catalog_version"])
            )

    def _version_file(self) -> bytes:
        return f"{self._request.pg_version}\n".encode()

    async def _databases(self, control: ControlFile) -> AsyncIterator[bytes]:
        catalog_version = control["catalog_version"]
        for space, database in await self._directory.databases():
            path = paths.database_directory(
                space, database, self._request.pg_version, catalog_version
            )
            if space != paths.GLOBAL_SPACE:
                yield tar_stream.directory_header(path)
            relation_map = await self._directory.relation_map(space, database)
            if relation_map is not None:
                yield tar_stream.whole_file(f"{path}/{paths.RELATION_MAP}", relation_map)
                if space != paths.GLOBAL_SPACE:
                    yield tar_stream.whole_file(f"{path}/PG_VERSION", self._version_file())
            if self._request.full:
                with_checksums = bool(control["data_checksum_version"])
                async for piece in self._relations(space, database, path, with_checksums):
                    yield piece

    async def _relations(
        self, space: int, database: int, path: str, with_checksums: bool
    ) -> AsyncIterator[bytes]:
        """All relation files of a database.

        An unlogged relation starts from its init fork: a server that finds itself shut down
        cleanly does not reset unlogged relations, so it is done here.
        """
        relations = await self._directory.relations(space, database)
        unlogged = {relation.relation for relation in relations if relation.fork == INIT}
        for relation in relations:
            if relation.fork == FREE_SPACE_MAP:
                continue
            if relation.relation in unlogged and relation.fork in (MAIN, VISIBILITY_MAP):
                continue
            targets = [relation]
            if relation.fork == INIT:
                targets.append(relation._replace(fork=MAIN))
            for target in targets:
                async for piece in self._relation(relation, target, path, with_checksums):
                    yield piece

    async def _relation(
        self, source: Relation, target: Relation, path: str, with_checksums: bool
    ) -> AsyncIterator[bytes]:
        """One fork, written under the name of ``target``, in files of 1 GiB."""
        size = await self._directory.relation_size(source) or 0
        for first in range(0, max(size, 1), paths.SEGMENT_BLOCKS):
            end = min(first + paths.SEGMENT_BLOCKS, size)
            name = paths.relation_name(target, first // paths.SEGMENT_BLOCKS)
            yield tar_stream.file_header(f"{path}/{name}", (end - first) * BLOCK_SIZE)
            for begin in range(first, end, _BLOCKS_PER_CHUNK):
                blocks = range(begin, min(begin + _BLOCKS_PER_CHUNK, end))
                pages = [await self._directory.relation_block(source, block) for block in blocks]
                if with_checksums:
                    pages = [with_checksum(*pair) for pair in zip(pages, blocks, strict=True)]
                yield b"".join(pages)

    async def _slru(self, slru: Slru, checkpoint: Checkpoint) -> AsyncIterator[bytes]:
        """All segments of an SLRU; the page that the next id goes to exists, if only as zeros."""
        last = SlruPage.of(self._last_page(slru, checkpoint))
        segments = await self._directory.slru_segments(slru)
        for segment in sorted({*segments, last.segment}):
            size = await self._directory.slru_segment_size(slru, segment) or 0
            pages = [
                await self._directory.slru_block(slru, segment, block) for block in range(size)
            ]
            if segment == last.segment and size <= last.block:
                pages += [bytes(BLOCK_SIZE)] * (last.block + 1 - size)
            assert len(pages) <= SEGMENT_PAGES, f"{slru.name} segment {segment} is too long"
            yield tar_stream.whole_file(paths.slru_path(slru, segment), b"".join(pages))

    def _last_page(self, slru: Slru, checkpoint: Checkpoint) -> int:
        match slru:
            case Slru.CLOG:
                return (checkpoint.next_xid & 0xFFFFFFFF) // XIDS_PER_PAGE
            case Slru.MULTIXACT_OFFSETS:
                return checkpoint.next_multi // OFFSETS_PER_PAGE
            case Slru.MULTIXACT_MEMBERS:
                return checkpoint.next_multi_offset // MEMBERS_PER_PAGE

    async def _twophase_files(self) -> AsyncIterator[bytes]:
        for xid in await self._directory.twophase_xids():
            data = await self._directory.twophase_file(xid)
            assert data is not None, f"prepared transaction {xid} is listed without its file"
            yield tar_stream.whole_file(paths.twophase_path(xid, self._request.pg_version), data)

    def _writer_options(self, control: ControlFile) -> WriterOptions:
        return WriterOptions(
            self._request.pg_version, control["wal_segment_size"], control["system_id"], _TIMELINE
        )

    def _prev(self, control: ControlFile) -> Lsn:
        """What the checkpoint record links back to: the record that ends at the LSN."""
        if self._request.lsn == end_of_checkpoint(control):
            return control.checkpoint_lsn
        return self._request.prev_lsn

    def _append_checkpoint(self, writer: WalWriter, checkpoint: Checkpoint) -> Lsn:
        """Write the shutdown checkpoint, whose redo position is its own start; returns that."""
        if self._request.lsn % 8:
            raise BadRequest(f"{self._request.lsn} is not the end of a WAL record")
        start = writer.next_record_lsn
        checkpoint.redo = start
        checkpoint.timeline = checkpoint.previous_timeline = _TIMELINE
        checkpoint.oldest_active_xid = 0
        spec = RecordSpec(RMGR_XLOG, CHECKPOINT_SHUTDOWN, 0, checkpoint.pack())
        assert writer.append(spec)[0] == start, "the checkpoint names its own start"
        return start

    def _control_file(self, control: ControlFile, checkpoint: Checkpoint, start: Lsn) -> bytes:
        values = {
            "state": STATE_SHUT_DOWN,
            "checkpoint_lsn": start,
            "min_recovery_lsn": 0,
            "min_recovery_timeline": 0,
            "backup_start_lsn": 0,
            "backup_end_lsn": 0,
            "backup_end_required": 0,
        }
        return control.replace(values, checkpoint).data


def wal_files(writer: WalWriter, options: WriterOptions) -> Iterator[bytes]:
    """The segments that the bytes in ``writer`` lie in, as tar pieces; zeros around them.

    Of the WAL before them only page headers are made: a server reads nothing else of it, and
    streams from there on.
    """
    begin, data = writer.take()
    first = begin - begin % options.segment_size
    for start in range(first, begin + len(data), options.segment_size):
        end = start + options.segment_size
        extents = [
            (page - start, page_header(options, page))
            for page in sorted({start, begin - begin % PAGE_SIZE})
            if start <= page < begin
        ]
        low, high = max(start, begin), min(end, begin + len(data))
        extents.append((low - start, data[low - begin : high - begin]))
        name = segment_name(options.timeline, start // options.segment_size, options.segment_size)
        yield tar_stream.file_header(f"pg_wal/{name}", options.segment_size)
        yield from _sparse(extents, options.segment_size)


def _sparse(extents: list[tuple[int, bytes]], size: int) -> Iterator[bytes]:
    """``size`` bytes: the extents (offset, bytes), in order, and zeros everywhere else."""
    at = 0
    for offset, data in [*extents, (size, b"")]:
        while at < offset:
            zeros = min(offset - at, _ZEROS_PER_CHUNK)
            yield bytes(zeros)
            at += zeros
        yield data
        at += len(data)
