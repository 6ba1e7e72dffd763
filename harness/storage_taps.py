"""Taps: read what the storage itself holds, past every compute — WAL bytes and page versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from storage.wire.client import ConnectOptions, connect
from storage.wire.replication import XLogData, parse_from_server

PAGE_BYTES = 8192


@dataclass(frozen=True, order=True, slots=True)
class PageVersion:
    """One version of a page: the LSN it was made at, which page, SHA-256 of its 8 KiB."""

    lsn: Lsn
    page: tuple[int, int, int, int, int]
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
    reader = WalReader(start, pg_version, wal_segment_size)
    reader.feed(wal)
    for raw in reader.records():
        record = decode(raw.raw, raw.lsn, raw.end_lsn, pg_version)
        for block in record.blocks:
            yield raw.end_lsn, block


async def page_history(
    pageserver: PageserverHandle,
    timeline: TenantTimelineId,
    changes: Sequence[tuple[Lsn, BlockRef]],
) -> list[PageVersion]:
    """The page behind each change, read from the pageserver at the change's LSN."""
    client = await connect(pageserver.name, PAGESERVER_LIBPQ_PORT)
    versions = []
    try:
        for lsn, block in changes:
            page = (block.space, block.database, block.relation, block.fork, block.block)
            where = " ".join(map(str, page))
            command = f"get_page {timeline.tenant_id} {timeline.timeline_id} {where} {lsn}"
            result = await client.query(command)
            content = result.rows[0][[column.name for column in result.columns].index("page")]
            assert content is not None and len(content) == len("\\x") + 2 * PAGE_BYTES
            sha256 = hashlib.sha256(bytes.fromhex(content[2:])).hexdigest()
            versions.append(PageVersion(lsn, page, sha256))
    finally:
        await client.close()
    return versions
