"""Reading WAL back: whole records only, every byte, or an error that names the donor."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from harness.backend import NodeSpec
from storage.consensus.fetch import Donor, RecordBorders, fetch_wal, host_and_port
from storage.errors import CorruptData, ProtocolError
from storage.lsn import Lsn
from storage.node import NodeContext
from storage.tasks import TaskRegistry
from storage.tests.safekeeper_cluster import (
    SEGMENT,
    START,
    SYSTEM_ID,
    TENANT,
    TIMELINE,
    VERSION,
    Cluster,
    run_cluster,
)
from storage.wal.record import RecordSpec
from storage.wal.writer import WalWriter, WriterOptions
from storage.wire.copying import CopyStream
from storage.wire.errors import ServerError
from storage.wire.replication import keepalive, xlog_data_header
from storage.wire.server import serve
from storage.wire.session import Session


def wal(*sizes: int, switch_after: int | None = None) -> tuple[bytes, list[Lsn]]:
    """WAL from START with records of these sizes, and where each ends."""
    writer = WalWriter(WriterOptions(VERSION, SEGMENT, SYSTEM_ID), START, Lsn(0))
    ends = []
    for index, size in enumerate(sizes):
        spec = RecordSpec(rmid=203, info=0, xid=0, main_data=bytes(size))
        ends.append(writer.append(spec)[1])
        if index == switch_after:
            ends.append(writer.switch()[1])
    return writer.take()[1], ends


@pytest.mark.parametrize("seed", range(10))
def test_whatever_the_chunks_pieces_end_where_records_end(seed):
    chance = random.Random(seed)
    data, ends = wal(*(chance.choice((1, 50, 3000, 9000)) for _ in range(60)))
    borders = RecordBorders(START, VERSION, SEGMENT)
    found, position = b"", 0
    while position < len(data):
        size = chance.randint(1, 5000)
        found += borders.feed(data[position : position + size])
        position += size
        assert borders.begin_lsn == START + len(found)
        assert not found or borders.begin_lsn in ends
        reached = START + min(position, len(data))
        assert borders.begin_lsn == max((end for end in ends if end <= reached), default=START)
        assert borders.held == reached - borders.begin_lsn
    assert found == data
    assert borders.held == 0


def test_a_switch_is_whole_when_its_padding_has_come():
    data, ends = wal(100, 100, switch_after=0)
    assert ends[1] % SEGMENT == 0
    borders = RecordBorders(START, VERSION, SEGMENT)
    first = borders.feed(data[: ends[0] - START + 500])
    assert first == data[: ends[0] - START] or first == b""
    rest = borders.feed(data[ends[0] - START + 500 :])
    assert first + rest == data


def test_a_wrong_byte_is_named():
    data, ends = wal(100, 100, 100)
    at = ends[0] - START + 40
    borders = RecordBorders(START, VERSION, SEGMENT)
    with pytest.raises(CorruptData, match=str(ends[0])):
        borders.feed(data[:at] + b"\xff" + data[at + 1 :])


@pytest.mark.parametrize("address", ["sk0", ":5454", "sk0:", "sk0:x"])
def test_addresses(address):
    assert host_and_port("sk0:5454") == ("sk0", 5454)
    with pytest.raises(ValueError, match="is not host:port"):
        host_and_port(address)


def fetch_from(behave: Callable[[Session, CopyStream, bytes, list[Lsn]], Any]) -> bytes:
    """Fetch three records from a donor that behaves like this."""
    data, ends = wal(100, 20_000, 300)

    async def donor_main(context: NodeContext) -> None:
        async def handle(session: Session, text: str) -> None:
            assert text == f"START_REPLICATION PHYSICAL {START} TIMELINE 1 (term '4')"
            assert session.settings == {"tenant_id": TENANT, "timeline_id": TIMELINE}
            stream = await session.copy_both()
            await behave(session, stream, data, ends)

        server = await serve(context.name, 5454, handle, TaskRegistry(context.name))
        context.ready.set()
        await context.stopping.wait()
        await server.close(within_s=0.1)

    async def story(cluster: Cluster) -> bytes:
        await cluster.backend.spawn(NodeSpec("donor", "donor"))
        await cluster.backend.wait_ready("donor", within_s=5)
        donor = Donor(
            "donor:5454", TENANT, TIMELINE, "proposer", 4, SYSTEM_ID, VERSION, SEGMENT, 3.0
        )
        pieces = [piece async for piece in fetch_wal(donor, START, ends[-1])]
        await cluster.backend.stop("donor", within_s=5)
        return b"".join(pieces)

    found = run_cluster(story, count=1, roles={"donor": donor_main})
    assert found == data
    return found


def test_every_byte_arrives_and_what_comes_after_is_left():
    async def behave(session: Session, stream: CopyStream, data: bytes, ends: list[Lsn]) -> None:
        await stream.send(keepalive(START, 0, reply_requested=False))
        await stream.send(xlog_data_header(START, ends[-1], 0), data[:5])
        rest = data[5:] + b"not yours"
        await stream.send(xlog_data_header(START + 5, ends[-1], 0), rest)
        await stream.done()

    fetch_from(behave)


@pytest.mark.parametrize("missing", [1, 400, 20_000, 20_600])
def test_a_donor_that_ends_early_is_no_donor(missing):
    async def behave(session: Session, stream: CopyStream, data: bytes, ends: list[Lsn]) -> None:
        await stream.send(xlog_data_header(START, ends[-1], 0), data[: len(data) - missing])
        await stream.done()

    with pytest.raises(ProtocolError, match="donor:5454 ended its WAL early"):
        fetch_from(behave)


def test_a_gap_is_refused():
    async def behave(session: Session, stream: CopyStream, data: bytes, ends: list[Lsn]) -> None:
        await stream.send(xlog_data_header(START, ends[-1], 0), data[:50])
        await stream.send(xlog_data_header(START + 51, ends[-1], 0), data[51:])
        await stream.receive()

    with pytest.raises(ProtocolError, match="was due"):
        fetch_from(behave)


def test_silence_and_errors_end_the_wait():
    async def silent(session: Session, stream: CopyStream, data: bytes, ends: list[Lsn]) -> None:
        await stream.receive()

    async def failing(session: Session, stream: CopyStream, data: bytes, ends: list[Lsn]) -> None:
        raise ProtocolError("term 4 is over")

    with pytest.raises(TimeoutError):
        fetch_from(silent)
    with pytest.raises(ServerError, match="term 4 is over"):
        fetch_from(failing)


def test_an_end_in_the_middle_of_a_record_is_refused():
    data, ends = wal(100, 200)

    async def donor_main(context: NodeContext) -> None:
        async def handle(session: Session, text: str) -> None:
            stream = await session.copy_both()
            await stream.send(xlog_data_header(START, ends[-1], 0), data)
            await stream.receive()

        await serve(context.name, 5454, handle, TaskRegistry(context.name))
        context.ready.set()
        await context.stopping.wait()

    async def story(cluster: Cluster) -> None:
        await cluster.backend.spawn(NodeSpec("donor", "donor"))
        await cluster.backend.wait_ready("donor", within_s=5)
        donor = Donor(
            "donor:5454", TENANT, TIMELINE, "proposer", 4, SYSTEM_ID, VERSION, SEGMENT, 3.0
        )
        with pytest.raises(ProtocolError, match=f"cuts the record at {ends[0]}"):
            async for _ in fetch_wal(donor, START, Lsn(ends[-1] - 8)):
                await asyncio.sleep(0)

    run_cluster(story, count=1, roles={"donor": donor_main})
