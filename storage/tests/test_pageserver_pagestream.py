"""Page streams: pipelined requests, refusals inside the stream, encodings."""

from __future__ import annotations

import pytest

from storage.lsn import Lsn
from storage.pageserver.keys import Relation, Slru
from storage.pageserver.page_protocol import (
    Count,
    DatabaseSize,
    Exists,
    GetPage,
    Page,
    PageRequest,
    PageResponse,
    Refused,
    RelationBlocks,
    Segment,
    SlruSegment,
    parse_request,
    parse_response,
)
from storage.pageserver.page_service import PageService
from storage.pageserver.values import Image
from storage.tests.pageserver_node import IDS, Node, play
from storage.tests.pageserver_world import KV, START, TENANT, Rig
from storage.tests.pageserver_world import play as play_rig
from storage.wire.client import Client, connect
from storage.wire.server import serve


async def ask(client: Client, *requests: PageRequest) -> list[PageResponse]:
    """Send everything at once, then take the answers."""
    stream = await client.copy_both(f"pagestream {IDS}")
    for request in requests:
        await stream.send(request.encode())
    answers = []
    for _ in requests:
        message = await stream.receive()
        assert message is not None
        answers.append(parse_response(message))
    await stream.done()
    return answers


def test_requests_are_answered_in_order() -> None:
    async def story(stage: Node) -> None:
        await stage.timeline(30)
        history, end = stage.history, stage.history.end
        client = await stage.client()
        lsn = history.ends[12]
        nobody = Relation(1, 2, 3, 0)
        answers = await ask(
            client,
            GetPage(KV, 2, request_id=7),
            GetPage(KV, 2, 8, lsn, lsn),
            Exists(KV, request_id=9),
            Exists(nobody, request_id=10),
            RelationBlocks(KV, request_id=11),
            DatabaseSize(KV, request_id=12),
            RelationBlocks(nobody, request_id=13),
            GetPage(KV, 999, request_id=14),
            GetPage(KV, 0, 15, Lsn(START - 8), Lsn(START - 8)),
            GetPage(KV, 0, 16, lsn, end),
            GetPage(KV, 1, 17),
        )
        pages = {number: history.page(number, end) for number in range(4)}
        assert answers[0] == Page(7, end, pages[2] or b"")
        assert answers[1] == Page(8, lsn, history.page(2, lsn) or b"")
        assert answers[2:6] == [
            Count(9, end, 1),
            Count(10, end, 0),
            Count(11, end, 4),
            Count(12, end, 4 * 8192),
        ]
        refusals = [a for a in answers[6:10] if isinstance(a, Refused)]
        assert [(a.request_id, a.sqlstate) for a in refusals] == [
            (13, "42704"),
            (14, "42704"),
            (15, "22003"),
            (16, "22023"),
        ]
        assert answers[10] == Page(17, end, pages[1] or b"")
        assert (await client.query("status")).tag == "SELECT 1"
        await client.close()

    play(story)


def clog_segment(number: int) -> Relation:
    """How a request names a segment of the commit log."""
    return Relation(Slru.CLOG, 0, number, 0)


def test_slru_segments_are_served_whole_at_their_lsn() -> None:
    """Two pages, one of which was never written, then a drop: each as of its LSN."""
    page = bytes(range(256)) * 32

    async def story(rig: Rig) -> None:
        timeline, _ = await rig.written(3)
        service = PageService(rig.environment, rig.tenants)
        rig.loop.nodes.start("ps0")
        with rig.loop.nodes.acting_as("ps0"):
            served = serve("ps0", 6400, service.query, rig.environment.registry)
            rig.servers.append(await rig.loop.create_task(served))
        first, record = timeline.last_record_lsn, timeline.modification
        written, dropped = Lsn(first + 8), Lsn(first + 16)
        record.begin(first, written)
        await record.put_slru_block(Slru.CLOG, 2, 1, Image(page))
        record.commit()
        record.begin(written, dropped)
        await record.drop_slru_segment(Slru.CLOG, 2)
        record.commit()
        timeline.finish_batch()

        client = await connect("ps0", 6400)
        answers = await ask(
            client,
            SlruSegment(clog_segment(2), 0, 1, written, written),
            SlruSegment(clog_segment(2), 0, 2),
            SlruSegment(clog_segment(3), 0, 3, written, written),
            SlruSegment(Relation(9, 0, 0, 0), 0, 4),
        )
        assert answers[0] == Segment(1, written, bytes(8192) + page)
        refusals = [a for a in answers[1:] if isinstance(a, Refused)]
        assert [(a.request_id, a.sqlstate) for a in refusals] == [
            (2, "42704"), (3, "42704"), (4, "22023"),
        ]  # fmt: skip
        assert "2 MULTIXACT_MEMBERS" in refusals[2].message
        await client.close()

    play_rig(story)


def test_a_stream_outlives_a_detach_and_attach() -> None:
    async def story(stage: Node) -> None:
        await stage.timeline(30)
        client = await stage.client()
        stream = await client.copy_both(f"pagestream {IDS}")

        async def once() -> PageResponse:
            await stream.send(GetPage(KV, 1).encode())
            message = await stream.receive()
            assert message is not None
            return parse_response(message)

        page = await once()
        assert isinstance(page, Page)
        await stage.http("POST", f"/tenant/{TENANT}/detach")
        refused = await once()
        assert isinstance(refused, Refused)
        assert refused.sqlstate == "42704"
        await stage.http("POST", f"/tenant/{TENANT}/attach")
        assert await once() == page
        await stream.done()
        await client.close()

    play(story)


def test_requests_survive_their_encoding() -> None:
    for kind in (GetPage, Exists, RelationBlocks, DatabaseSize, SlruSegment):
        request = kind(KV, 5, 6, Lsn(80), Lsn(7))
        assert parse_request(request.encode()) == request
        assert type(parse_request(request.encode())) is kind
    for message in (b"", b"\x09" + bytes(41), GetPage(KV).encode()[:-1]):
        with pytest.raises(Exception, match="not a page request"):
            parse_request(message)
        with pytest.raises(Exception, match="not a page response"):
            parse_response(message)
