"""The one object that joins this package to the pageserver core (``hooks.PostgresHooks``)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from storage.pageserver.datadir import DataDirectory
from storage.pageserver.hooks import DirectoryRequest
from storage.pageserver.modification import Modification
from storage.pageserver.postgres import slru_pages, visibility_map
from storage.pageserver.postgres.build_directory import DirectoryBuild
from storage.pageserver.postgres.import_directory import DirectoryImport
from storage.pageserver.postgres.ingest import RecordIngest
from storage.pageserver.redo import RedoTable
from storage.wal.record import WalRecord


class PostgresSupport:
    """Implements ``PostgresHooks``; one for a whole pageserver."""

    def __init__(self) -> None:
        self._ingest = RecordIngest()

    def register_redo(self, table: RedoTable) -> None:
        """Add the opcodes of SLRU pages and of the visibility map."""
        slru_pages.register(table)
        visibility_map.register(table)

    async def ingest(self, modification: Modification, record: WalRecord, pg_version: int) -> None:
        """Put one record's changes into an open modification; see :class:`RecordIngest`."""
        await self._ingest.ingest(modification, record, pg_version)

    def build_directory(
        self, directory: DataDirectory, request: DirectoryRequest
    ) -> AsyncIterator[bytes]:
        """A tar stream of the data directory; see :class:`DirectoryBuild`."""
        return DirectoryBuild(directory, request).tar()

    async def import_directory(
        self, modification: Modification, tar: AsyncIterator[bytes], pg_version: int
    ) -> None:
        """Put a whole data directory into an open modification; see :class:`DirectoryImport`."""
        await DirectoryImport(modification, tar, pg_version).run()
