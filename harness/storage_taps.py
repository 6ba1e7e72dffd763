"""Taps: read what the storage itself holds, past every compute — WAL bytes and page versions."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.checkers.pages_equal_wal import Wanted
from harness.checkers.wal_model import KV_RELATION
from harness.errors import CheckFailed
from harness.nodes import (
    PAGESERVER_LIBPQ_PORT,
    SAFEKEEPER_LIBPQ_PORT,
    PageserverHandle,
    SafekeeperHandle,
)
from storage.ids import TenantTimelineId
from storage.lsn import Lsn
from storage.wal.reader import WalReader
from storage.wal.record import BlockRef, decode
from storage.wire.client import Client, ConnectOptions, ServerError, connect
from storage.wire.replication import POSTGRES_EPOCH_US, XLogData, parse_from_server

__all__ = [
    "Page",
    "PageTap",
    "PageVersion",
    "ServerError",
    "base_backup",
    "changed_blocks",
    "changes",
    "commit_times",
    "page_history",
    "page_service",
    "wal_bytes",
]

PAGE_BYTES = 8192
_COMMIT_TIME = struct.Struct("<q")


Page = tuple[int, int, int, int, int]
"""Space, database, relation, fork, block."""


@dataclass(frozen=True, order=True, slots=True)
class PageVersion:
    """One version of a page: the LSN it was made at, which page, SHA-256 of its 8 KiB."""

    lsn: Lsn
    page: Page
    sha256: str


async def wal_bytes(
    safekeeper: SafekeeperHandle, timeline: TenantTimelineId, start: Lsn, end: Lsn
) -> bytes:
    """The WAL in [start, end), as the safekeeper streams it; both must be committed."""
    settings = {"tenant_id": timeline.tenant_id, "timeline_id": timeline.timeline_id}
    options = ConnectOptions(settings=settings, replication=True)
    client = await connect(safekeeper.name, SAFEKEEPER_LIBPQ_PORT, options=options)
    collected = bytearray()
    try:
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {start} TIMELINE 1")
        while len(collected) < end - start:
            message = await stream.receive()
            if message is None:
                got = Lsn(start + len(collected))
                text = f"{safekeeper.name} ended its stream at {got}, before {end}"
                raise CheckFailed(text, checker="wal tap")
            parsed = parse_from_server(message)
            if isinstance(parsed, XLogData):
                assert parsed.start_lsn == start + len(collected), "the stream has a hole"
                collected += parsed.data
    finally:
        await client.close()
    return bytes(collected[: end - start])


def changed_blocks(
    wal: bytes, start: Lsn, *, pg_version: int, wal_segment_size: int
) -> Iterator[tuple[Lsn, BlockRef]]:
    """Every (end LSN of the record, block it changes) in a piece of WAL that begins with one."""
    for end_lsn, blocks in changes(
        wal, start, pg_version=pg_version, wal_segment_size=wal_segment_size
    ):
        for block in blocks:
            yield end_lsn, block


def changes(
    wal: bytes, start: Lsn, *, pg_version: int, wal_segment_size: int
) -> Iterator[tuple[Lsn, tuple[BlockRef, ...]]]:
    """Each whole record of a piece of WAL that begins with one: its end, the blocks it changes."""
    reader = WalReader(start, pg_version, wal_segment_size)
    reader.feed(wal)
    for raw in reader.records():
        yield raw.end_lsn, decode(raw.raw, raw.lsn, raw.end_lsn, pg_version).blocks


def commit_times(
    wal: bytes, start: Lsn, *, pg_version: int, wal_segment_size: int
) -> Iterator[tuple[Lsn, int]]:
    """(end LSN, microseconds since 1970) of every commit of walgen that tells its time."""
    reader = WalReader(start, pg_version, wal_segment_size)
    reader.feed(wal)
    for raw in reader.records():
        data = decode(raw.raw, raw.lsn, raw.end_lsn, pg_version).main_data
        if len(data) == _COMMIT_TIME.size:
            yield raw.end_lsn, POSTGRES_EPOCH_US + _COMMIT_TIME.unpack(data)[0]


class PageTap:
    """Reads pages of one timeline from one pageserver, over the page service's ``get_page``."""

    def __init__(self, pageserver: PageserverHandle, timeline: TenantTimelineId) -> None:
        self.name = pageserver.name
        self._command = f"get_page {timeline.tenant_id} {timeline.timeline_id}"

    async def read(self, wanted: Sequence[Wanted]) -> list[bytes]:
        """Blocks of the key-value relation, each as of its LSN."""
        return await self.read_any([((*KV_RELATION, block), lsn) for block, lsn in wanted])

    async def read_any(self, wanted: Sequence[tuple[Page, Lsn]]) -> list[bytes]:
        """Any pages, each as of its LSN."""
        client = await connect(self.name, PAGESERVER_LIBPQ_PORT)
        pages = []
        try:
            for page, lsn in wanted:
                where = " ".join(map(str, page))
                result = await client.query(f"{self._command} {where} {lsn}")
                content = result.rows[0][[column.name for column in result.columns].index("page")]
                assert content is not None and len(content) == len("\\x") + 2 * PAGE_BYTES
                pages.append(bytes.fromhex(content[2:]))
        finally:
            await client.close()
        return pages


async def page_service(pageserver: PageserverHandle) -> Client:
    """A session with a pageserver, for any command; whoever opens it closes it."""
    return await connect(pageserver.name, PAGESERVER_LIBPQ_PORT)


async def base_backup(pageserver: PageserverHandle, timeline: TenantTimelineId, lsn: Lsn) -> bytes:
    """The tar of a base backup at an LSN; ``ServerError`` if it is refused."""
    client = await page_service(pageserver)
    try:
        command = f"basebackup {timeline.tenant_id} {timeline.timeline_id} {lsn}"
        return b"".join([chunk async for chunk in client.copy_out(command)])
    finally:
        await client.close()


async def page_history(
    pageserver: PageserverHandle,
    timeline: TenantTimelineId,
    changes: Sequence[tuple[Lsn, BlockRef]],
) -> list[PageVersion]:
    """The page behind each change, read from the pageserver at the change's LSN."""
    wanted: list[tuple[Page, Lsn]] = [
        ((block.space, block.database, block.relation, block.fork, block.block), lsn)
        for lsn, block in changes
    ]
    pages = await PageTap(pageserver, timeline).read_any(wanted)
    return [
        PageVersion(lsn, page, hashlib.sha256(content).hexdigest())
        for (page, lsn), content in zip(wanted, pages, strict=True)
    ]
