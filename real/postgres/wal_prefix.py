"""The WAL just before a rebuilt directory's LSN, fetched from the safekeepers.

The pageserver keeps no WAL: of the segment that a directory begins in, it makes page headers only.
The real bytes let anybody compare this server's WAL with the quorum's, as the sidecar does before
it streams, and make segment files equal to the safekeepers'.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.nodes import SAFEKEEPER_HTTP_PORT
from storage.errors import SeawallError
from storage.http.client import call
from storage.lsn import Lsn
from storage.wire.client import ConnectOptions, connect
from storage.wire.replication import XLogData, parse_from_server

FETCH_S_MAX = 5.0
_SEGMENTS_PER_LOG_BYTES = 1 << 32


@dataclass(frozen=True)
class PrefixRequest:
    """Whose WAL: a timeline, its safekeepers (``host:port``), its segment size in bytes."""

    tenant_id: str
    timeline_id: str
    safekeepers: Sequence[str]
    wal_segment_size: int


def segment_file(lsn: int, wal_segment_size: int) -> str:
    """Name of the segment file of the byte at ``lsn``, on PostgreSQL timeline 1."""
    log, segment = divmod(lsn // wal_segment_size, _SEGMENTS_PER_LOG_BYTES // wal_segment_size)
    return f"00000001{log:08X}{segment:08X}"


async def write_prefix(request: PrefixRequest, lsn: Lsn, wal_directory: Path) -> Lsn:
    """Write the WAL before ``lsn`` from the beginning of its last byte's segment, or of the
    timeline if that is later; returns from where.

    Raises what the last safekeeper failed with when none could give it.
    """
    failure: Exception | None = None
    for address in request.safekeepers:
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(FETCH_S_MAX):
                begin_lsn = await _begin(request, host, lsn)
                data = await fetch(request, (host, int(port)), begin_lsn, lsn)
        except (OSError, TimeoutError, EOFError, SeawallError) as error:
            failure = error
            continue
        _write(wal_directory, begin_lsn, data, request.wal_segment_size)
        return begin_lsn
    assert failure is not None, "a timeline has safekeepers"
    raise failure


async def _begin(request: PrefixRequest, host: str, lsn: Lsn) -> Lsn:
    path = f"/v1/tenant/{request.tenant_id}/timeline/{request.timeline_id}"
    status: Mapping[str, str] = await call("GET", host, SAFEKEEPER_HTTP_PORT, path)
    start_lsn = Lsn.parse(status["timeline_start_lsn"])
    last_byte = max(int(lsn) - 1, 0)
    segment_start = last_byte - last_byte % request.wal_segment_size
    return Lsn(min(lsn, max(start_lsn, segment_start)))


async def fetch(request: PrefixRequest, where: tuple[str, int], begin: Lsn, end: Lsn) -> bytes:
    """The WAL from ``begin`` to ``end``, from the safekeeper at (host, port)."""
    if begin == end:
        return b""
    settings = {"tenant_id": request.tenant_id, "timeline_id": request.timeline_id}
    options = ConnectOptions(settings=settings, replication=True, timeout_s=FETCH_S_MAX)
    client = await connect(*where, options=options)
    try:
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {begin} TIMELINE 1")
        data = bytearray()
        while len(data) < end - begin:
            message = await stream.receive()
            if message is None:
                raise EOFError(f"{where[0]} ended its WAL at {Lsn(begin + len(data))}, not {end}")
            parsed = parse_from_server(message)
            if isinstance(parsed, XLogData):
                assert parsed.start_lsn == begin + len(data), "a stream has no gaps"
                data += parsed.data
        return bytes(data[: end - begin])
    finally:
        await client.close()


def _write(directory: Path, begin: Lsn, data: bytes, wal_segment_size: int) -> None:
    """All of ``data`` lies in one segment; the file is made if the directory begins later."""
    if not data:
        return
    path = directory / segment_file(begin, wal_segment_size)
    assert begin % wal_segment_size + len(data) <= wal_segment_size, "more than one segment"
    owner = directory.stat()
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(wal_segment_size)
        file.seek(begin % wal_segment_size)
        file.write(data)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)
