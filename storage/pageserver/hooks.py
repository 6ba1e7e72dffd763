"""What ``storage.pageserver.postgres`` plugs into the pageserver core; ``node.py`` joins the two.

The core knows the deterministic key-value compute only. Everything a stock PostgreSQL needs
(records beyond page images, base import, data directories) goes through this protocol.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from storage.lsn import Lsn
from storage.pageserver.datadir import DataDirectory
from storage.pageserver.modification import Modification
from storage.pageserver.redo import RedoTable
from storage.wal.record import WalRecord


@dataclass(frozen=True, slots=True)
class DirectoryRequest:
    """A data directory wanted at an LSN.

    ``lsn`` is a record boundary, ``prev_lsn`` the start of the record that ends there (0 when it
    is not known). A full backup is complete: a server starts from it without a pageserver.
    """

    lsn: Lsn
    prev_lsn: Lsn
    pg_version: int
    full: bool


class PostgresHooks(Protocol):
    """Implemented once, by ``storage.pageserver.postgres``."""

    def register_redo(self, table: RedoTable) -> None:
        """Add the opcodes this support uses (``OPCODE_POSTGRES_FIRST`` and up)."""
        ...

    async def ingest(self, modification: Modification, record: WalRecord, pg_version: int) -> None:
        """Put one record's changes into an open modification (the core begins and commits it).

        Raises ``CorruptData`` for a record it does not understand: the timeline then stops.
        """
        ...

    def build_directory(
        self, directory: DataDirectory, request: DirectoryRequest
    ) -> AsyncIterator[bytes]:
        """A tar stream of the data directory."""
        ...

    async def import_directory(
        self, modification: Modification, tar: AsyncIterator[bytes], pg_version: int
    ) -> None:
        """Put a whole data directory into an open modification; ``BadRequest`` if it is unfit."""
        ...
