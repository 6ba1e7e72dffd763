"""The least that PostgreSQL support needs of a timeline: every version of every key, in memory."""

from __future__ import annotations

import io
import tarfile
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.datadir import DataDirectory
from storage.pageserver.hooks import DirectoryRequest
from storage.pageserver.keys import Key
from storage.pageserver.modification import Modification
from storage.pageserver.postgres.support import PostgresSupport
from storage.pageserver.redo import RedoTable
from storage.pageserver.values import Delta, Value
from storage.wal.record import WalRecord


def is_base(value: Value) -> bool:
    """Whether reconstruction may stop here: nothing older can show through."""
    return not isinstance(value, Delta) or value.initial


class VersionStore:
    """A :class:`~storage.pageserver.modification.RecordTarget` that keeps everything."""

    def __init__(self, pg_version: int) -> None:
        self.pg_version = pg_version
        self.support = PostgresSupport()
        self.redo = RedoTable()
        self.support.register_redo(self.redo)
        self.last_record_lsn = INVALID_LSN
        self.versions: dict[Key, list[tuple[Lsn, Value]]] = {}
        self.record_starts: dict[Lsn, Lsn] = {}
        self.modification = Modification(self)

    async def get(self, key: Key, lsn: Lsn) -> bytes | None:
        versions = self.versions.get(key, [])
        end = bisect_right(versions, lsn, key=lambda version: version[0])
        begin = end
        while begin > 0:
            begin -= 1
            if is_base(versions[begin][1]):
                break
        return self.redo.reconstruct(None, versions[begin:end])

    def apply_record(
        self, start_lsn: Lsn, end_lsn: Lsn, changes: Iterable[tuple[Key, Value]]
    ) -> None:
        for key, value in changes:
            self.versions.setdefault(key, []).append((end_lsn, value))
        self.last_record_lsn = end_lsn
        self.record_starts[end_lsn] = start_lsn

    async def import_directory(self, tar: AsyncIterator[bytes], lsn: Lsn) -> None:
        self.modification.begin(INVALID_LSN, lsn)
        try:
            await self.support.import_directory(self.modification, tar, self.pg_version)
        except BaseException:
            self.modification.abort()
            raise
        self.modification.commit()

    async def ingest(self, record: WalRecord) -> None:
        self.modification.begin(record.lsn, record.end_lsn)
        try:
            await self.support.ingest(self.modification, record, self.pg_version)
        except BaseException:
            self.modification.abort()
            raise
        self.modification.commit()

    def directory(self, lsn: Lsn) -> DataDirectory:
        return DataDirectory(lambda key: self.get(key, lsn))

    async def build(self, lsn: Lsn, *, full: bool = True) -> bytes:
        """The whole archive; ``lsn`` is the end of a record."""
        request = DirectoryRequest(lsn, self.record_starts[lsn], self.pg_version, full)
        pieces = self.support.build_directory(self.directory(lsn), request)
        return b"".join([piece async for piece in pieces])


async def tar_of(data: Path, chunk: int = 100_000) -> AsyncIterator[bytes]:
    """A data directory as an archive in chunks, as ``tar`` makes it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(data, arcname=".")
    whole = archive.getvalue()
    for at in range(0, len(whole), chunk):
        yield whole[at : at + chunk]
