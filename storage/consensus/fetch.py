"""Reads WAL back from a safekeeper, whole records only, and never mistakes a part for the whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from storage.errors import ProtocolError
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn
from storage.wal.reader import WalReader
from storage.wire.client import ConnectOptions, connect
from storage.wire.copying import CopyStream
from storage.wire.replication import XLogData, parse_from_server


@dataclass(frozen=True, slots=True)
class Donor:
    """A safekeeper to read from, as ``reader``; ``silence_max_s`` in seconds.

    With ``term``, as the proposer of that term: its whole log; without, what is committed.
    """

    address: str
    tenant_id: TenantId
    timeline_id: TimelineId
    reader: str
    term: int | None
    system_id: int
    pg_version: int
    wal_segment_size: int
    silence_max_s: float


def host_and_port(address: str) -> tuple[str, int]:
    """Split ``"sk0:5454"``; ``ValueError`` names an address that is not of this form."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is not host:port, like sk0:5454")
    return host, int(port)


def connect_options(
    tenant_id: TenantId, timeline_id: TimelineId, timeout_s: float, *, reader: str
) -> ConnectOptions:
    """How ``reader`` introduces itself to a safekeeper."""
    return ConnectOptions(
        user=reader,
        settings={"tenant_id": tenant_id, "timeline_id": timeline_id},
        replication=True,
        application_name=reader,
        timeout_s=timeout_s,
    )


class RecordBorders:
    """Cuts a stream of WAL into pieces that end where a record ends."""

    def __init__(self, begin_lsn: Lsn, pg_version: int, wal_segment_size: int) -> None:
        self.begin_lsn = begin_lsn
        self._reader = WalReader(begin_lsn, pg_version, wal_segment_size)
        self._held = b""

    @property
    def held(self) -> int:
        """Bytes of a record that is not whole yet."""
        return len(self._held)

    def feed(self, data: bytes) -> bytes:
        """Take more WAL and return all that is whole now, maybe nothing.

        Raises ``CorruptData`` naming the LSN at the first record that is wrong.
        """
        reader = self._reader
        reader.feed(data)
        for _ in reader.records():
            pass
        held = self._held + data if self._held else data
        # The end of a segment switch is announced before its padding has arrived.
        size = reader.last_end_lsn - self.begin_lsn
        if size > len(held) or size == 0:
            self._held = held
            return b""
        self._held = held[size:]
        self.begin_lsn = reader.last_end_lsn
        return held[:size] if self._held else held


async def fetch_wal(donor: Donor, begin_lsn: Lsn, end_lsn: Lsn) -> AsyncGenerator[bytes, None]:
    """Pieces of ``[begin_lsn, end_lsn)``, each ending where a record ends; so must both ends.

    Raises ``ProtocolError`` when the donor stops early or its bytes do not end there,
    ``CorruptData`` for a wrong record, ``ServerError``, ``OSError``, ``TimeoutError``.
    """
    borders = RecordBorders(begin_lsn, donor.pg_version, donor.wal_segment_size)
    async with aclosing(fetch_bytes(donor, begin_lsn, end_lsn)) as chunks:
        async for data in chunks:
            if piece := borders.feed(data):
                yield piece
    if borders.held:
        raise ProtocolError(f"{donor.address}: {end_lsn} cuts the record at {borders.begin_lsn}")


async def fetch_bytes(donor: Donor, begin_lsn: Lsn, end_lsn: Lsn) -> AsyncGenerator[bytes, None]:
    """The bytes of ``[begin_lsn, end_lsn)``, all of them, or an error as in :func:`fetch_wal`."""
    assert begin_lsn < end_lsn, f"nothing to fetch from {begin_lsn} to {end_lsn}"
    host, port = host_and_port(donor.address)
    options = connect_options(
        donor.tenant_id, donor.timeline_id, donor.silence_max_s, reader=donor.reader
    )
    client = await connect(host, port, options=options)
    bound = "" if donor.term is None else f" (term '{donor.term}')"
    try:
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {begin_lsn} TIMELINE 1{bound}")
        position = begin_lsn
        while position < end_lsn:
            data = await _next_data(stream, donor, position)
            data = data[: end_lsn - position]
            position = Lsn(position + len(data))
            yield data
    finally:
        await client.close()


async def _next_data(stream: CopyStream, donor: Donor, position: Lsn) -> bytes:
    """The next WAL of the stream, which must begin at ``position``; keepalives are passed over."""
    while True:
        async with asyncio.timeout(donor.silence_max_s):
            message = await stream.receive()
        if message is None:
            raise ProtocolError(f"{donor.address} ended its WAL early, at {position}")
        parsed = parse_from_server(message)
        if isinstance(parsed, XLogData) and parsed.data:
            if parsed.start_lsn != position:
                raise ProtocolError(
                    f"{donor.address} sent WAL at {parsed.start_lsn}, {position} was due"
                )
            return parsed.data
