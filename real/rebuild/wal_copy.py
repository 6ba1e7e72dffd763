"""The source's WAL, from the safekeepers: its transactions' ends, and files for stock recovery."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from real.postgres.template import Template
from real.postgres.wal_prefix import PrefixRequest, fetch, segment_file
from storage.lsn import Lsn
from storage.wal.reader import WalReader
from storage.wal.record import decode

_TRANSACTION: Final = 1
_COMMITS: Final = (0x00, 0x30)
_OPERATION_MASK: Final = 0x70
_PIECE_BYTES: Final = 4 << 20
_PIECE_S_MAX: Final = 30.0


@dataclass
class WalCopy:
    """All WAL of a timeline from ``start_lsn``; ``kinds`` counts records by (manager, info)."""

    start_lsn: Lsn
    end_lsn: Lsn
    data: bytes
    commits: list[Lsn] = field(default_factory=list)
    """Ends of the commit records (those of prepared transactions too), ascending."""
    kinds: Counter[tuple[int, int]] = field(default_factory=Counter)
    records: int = 0

    def read(self, source: Template) -> None:
        """Go through all records once."""
        reader = WalReader(
            self.start_lsn, source.pg_version, source.wal_segment_size, source.system_id
        )
        reader.feed(self.data)
        for raw in reader.records():
            record = decode(raw.raw, raw.lsn, raw.end_lsn, source.pg_version)
            self.records += 1
            self.kinds[record.rmid, record.info & 0xF0] += 1
            if record.rmid == _TRANSACTION and record.info & _OPERATION_MASK in _COMMITS:
                self.commits.append(raw.end_lsn)
        assert self.commits, "a source commits something"

    def write_segments(self, source: Template, directory: Path) -> None:
        """Files as a server's archive has them; the first begins with the template's own WAL."""
        size = source.wal_segment_size
        first = self.start_lsn - self.start_lsn % size
        name = segment_file(first, size)
        prefix = (source.path / "pg_wal" / name).read_bytes()[: self.start_lsn - first]
        whole = prefix + self.data
        for at in range(0, len(whole), size):
            path = directory / segment_file(first + at, size)
            path.write_bytes(whole[at : at + size].ljust(size, b"\0"))
            path.chmod(0o644)


async def copy_wal(request: PrefixRequest, begin: Lsn, end: Lsn) -> WalCopy:
    """Fetch WAL from the first safekeeper, piece by piece: it hangs up on silent readers."""
    host, _, port = request.safekeepers[0].rpartition(":")
    data = bytearray()
    while (at := Lsn(begin + len(data))) < end:
        piece_end = Lsn(min(end, at + _PIECE_BYTES))
        async with asyncio.timeout(_PIECE_S_MAX):
            data += await fetch(request, (host, int(port)), at, piece_end)
    return WalCopy(begin, end, bytes(data))
