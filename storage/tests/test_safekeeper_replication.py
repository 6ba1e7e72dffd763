"""Streaming WAL out: who sees how much, what wakes a stream, what ends it, stock commands."""

from __future__ import annotations

import asyncio
import json

import pytest

from storage.errors import BadRequest
from storage.http.client import call
from storage.lsn import Lsn
from storage.safekeeper.commands import (
    IdentifySystem,
    ReadSlot,
    ShowSegmentSize,
    StartReplication,
    StartWalPush,
    TimelineStatus,
    parse_command,
)
from storage.safekeeper.wal_service import END_WITHIN_S
from storage.tests.safekeeper_cluster import (
    SEGMENT,
    START,
    SYSTEM_ID,
    TENANT,
    TIMELINE,
    Cluster,
    Writer,
    run_cluster,
)
from storage.wire.client import Client, ConnectOptions, connect
from storage.wire.copying import CopyStream
from storage.wire.errors import ServerError
from storage.wire.replication import (
    StandbyStatus,
    XLogData,
    parse_from_server,
    standby_status,
)


@pytest.mark.row("P2.commands", worlds=("sim",))
@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("START_WAL_PUSH", StartWalPush(None)),
        ("start_wal_push (pageserver 'ps0:6400');", StartWalPush("ps0:6400")),
        ("START_REPLICATION PHYSICAL 0/10", StartReplication(Lsn(16), None)),
        ("START_REPLICATION 1/A TIMELINE 1", StartReplication(Lsn(0x10000000A), None)),
        ('START_REPLICATION SLOT "my slot" 0/8 TIMELINE 1', StartReplication(Lsn(8), None)),
        ("START_REPLICATION SLOT s PHYSICAL 0/8", StartReplication(Lsn(8), None)),
        ("START_REPLICATION PHYSICAL 0/8 (term '7')", StartReplication(Lsn(8), 7)),
        ("IDENTIFY_SYSTEM", IdentifySystem()),
        ("TIMELINE_STATUS", TimelineStatus()),
        ("SHOW wal_segment_size", ShowSegmentSize()),
        ("READ_REPLICATION_SLOT s", ReadSlot("s")),
    ],
)
def test_commands_are_understood(text, command):
    assert parse_command(text) == command


@pytest.mark.parametrize(
    "text",
    [
        "", "SELECT 1", "START_REPLICATION PHYSICAL 0/8 TIMELINE 2", "START_REPLICATION 12",
        "START_WAL_PUSH (pageserver ps0)", "CREATE_REPLICATION_SLOT s PHYSICAL",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text):
    with pytest.raises(BadRequest):
        parse_command(text)


async def session(node: str, name: str = "reader", **changes: str) -> Client:
    settings = {"tenant_id": TENANT, "timeline_id": TIMELINE, **changes}
    options = ConnectOptions(settings=settings, replication=True, application_name=name)
    return await connect(node, 5454, options=options)


async def read(stream: CopyStream, begin: Lsn, end: Lsn, within_s: float = 20) -> bytes:
    """Exactly the WAL of ``[begin, end)`` from a stream that stands at ``begin``."""
    found = b""
    async with asyncio.timeout(within_s):
        while len(found) < end - begin:
            message = await stream.receive()
            assert message is not None, "the stream ended"
            parsed = parse_from_server(message)
            if isinstance(parsed, XLogData):
                assert parsed.start_lsn == begin + len(found)
                found += parsed.data
            elif parsed.reply_requested:
                await stream.send(standby_status(StandbyStatus(begin, begin, Lsn(0), 0)))
    assert len(found) == end - begin, "more than was asked for"
    return found


async def leader(cluster: Cluster) -> Writer:
    proposer = cluster.proposer()
    return Writer(proposer, (await proposer.elect()).start_lsn)


@pytest.mark.row("P2.commands", worlds=("sim",))
def test_stock_clients_questions():
    async def story(cluster: Cluster):
        writer = await leader(cluster)
        end = await writer.commit(b"x")
        await cluster.level(end)
        client = await session("sk0")
        identity = (await client.query("IDENTIFY_SYSTEM")).rows
        assert identity == [(str(SYSTEM_ID), "1", str(end), None)]
        assert (await client.query("SHOW wal_segment_size")).rows == [("1MB",)]
        slot = (await client.query("READ_REPLICATION_SLOT s")).rows
        assert slot == [("physical", str(START), "1")]
        status = dict((await client.query("TIMELINE_STATUS")).rows)
        told = await cluster.status("sk0")
        assert status == {name: str(told[name]) for name in status}
        assert {*told} - {*status} == {"subscriptions"}
        with pytest.raises(ServerError, match="does not understand"):
            await client.query("SELECT 1")
        with pytest.raises(ServerError, match="begins at 0/1000000"):
            await client.copy_both("START_REPLICATION PHYSICAL 0/FFFFF8")
        await client.close()

    run_cluster(story)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"tenant_id": "x"}, "is not a TenantId"), ({"timeline_id": "9" * 32}, "does not exist")],
)
def test_a_timeline_must_be_named_and_exist(changes, complaint):
    async def story(cluster: Cluster):
        client = await session("sk0", **changes)
        for command in ("IDENTIFY_SYSTEM", "START_WAL_PUSH"):
            with pytest.raises(ServerError, match=complaint):
                await client.query(command)

    run_cluster(story, count=1)


def test_a_stream_from_the_beginning_of_the_segment_shows_the_hole_before_the_start():
    async def story(cluster: Cluster):
        writer = await leader(cluster)
        end = await writer.commit(bytes(range(200)))
        await cluster.level(end)
        client = await session("sk0")
        stream = await client.copy_both("START_REPLICATION 0/1000000 TIMELINE 1")
        assert len(await read(stream, START, end)) == end - START

    run_cluster(story)


def test_the_hole_before_a_start_in_mid_segment_reads_as_zeros():
    async def story(cluster: Cluster):
        start = Lsn(START + 3 * 8192 + 24)
        timeline = "7" * 32
        path = f"/v1/tenant/{TENANT}/timeline/{timeline}"
        body = {
            "start_lsn": str(start),
            "system_id": SYSTEM_ID,
            "pg_version": 16,
            "wal_segment_size": SEGMENT,
            "safekeepers": cluster.addresses,
        }
        await call("POST", "sk0", 7676, path, body)
        client = await session("sk0", timeline_id=timeline)
        stream = await client.copy_both(f"START_REPLICATION {START} TIMELINE 1")
        assert await read(stream, START, start) == bytes(start - START)
        other = await session("sk0", timeline_id=timeline)
        slot = (await other.query("READ_REPLICATION_SLOT s")).rows
        assert slot == [("physical", str(START), "1")], "stock clients begin with a segment"

    run_cluster(story)


def test_ordinary_readers_see_commits_and_the_recovering_proposer_all_that_is_flushed():
    async def story(cluster: Cluster):
        writer = await leader(cluster)
        committed = await writer.commit(b"committed")
        await cluster.level(committed)
        for name in ("sk1", "sk2"):
            await cluster.backend.kill(name)
        tail = writer.write(b"tail")

        async def flushed() -> bool:
            return (await cluster.status("sk0"))["flush_lsn"] == str(tail)

        await cluster.eventually(flushed)
        ordinary, bound = await session("sk0"), await session("sk0")
        ((*_, told, _),) = (await ordinary.query("IDENTIFY_SYSTEM")).rows
        assert told == str(committed), "a stock client may begin where it is told WAL ends"
        stream = await ordinary.copy_both(f"START_REPLICATION PHYSICAL {START}")
        await read(stream, START, committed)
        with pytest.raises(TimeoutError):
            await read(stream, committed, tail, within_s=5)
        stream = await bound.copy_both(f"START_REPLICATION PHYSICAL {START} (term '1')")
        assert b"tail" in await read(stream, START, tail)
        with pytest.raises(ServerError, match="went to term 1, not 2"):
            await (await session("sk0")).copy_both(f"START_REPLICATION PHYSICAL {START} (term '2')")

    run_cluster(story)


def test_a_vote_for_a_higher_term_ends_the_stream_of_the_old_one():
    async def story(cluster: Cluster):
        writer = await leader(cluster)
        end = await writer.commit(b"x")
        client = await session("sk0")
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {START} (term '1')")
        await read(stream, START, end)
        await cluster.proposer(2).elect()
        with pytest.raises(ServerError, match="term 1 is over here"):
            await read(stream, end, Lsn(end + 1))

    run_cluster(story)


def test_a_commit_heard_from_a_peer_wakes_the_stream():
    """The writer dies before it can tell a safekeeper what is committed; its peers know."""

    async def story(cluster: Cluster):
        writer = await leader(cluster)
        first = await writer.commit(b"first")
        await cluster.level(first)
        client = await session("sk2")
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {START}")
        await read(stream, START, first)
        end = writer.write(b"second")
        await writer.proposer.wait_committed(end)
        # What is known of the commit reaches sk0 and sk1 only.
        for name in ("sk0", "sk1"):
            writer.proposer._links[f"{name}:5454"].announce()
        await asyncio.sleep(0.0015)
        await writer.proposer.close()
        async with asyncio.timeout(10):
            await read(stream, first, end)

    # Heartbeats would wake the stream as well, later.
    run_cluster(story, heartbeat_s=100.0, silence_max_s=300.0)


def test_pageservers_feedback_is_told_to_everybody_and_ends_an_idle_stream():
    async def story(cluster: Cluster):
        writer = await leader(cluster)
        end = await writer.commit(b"x" * 100)
        await cluster.level(end)
        client = await session("sk0", "ps0")
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {START}")
        await read(stream, START, end)
        await stream.send(feedback(start=end, remote=Lsn(end - 8)))

        async def proposer_knows() -> bool:
            return writer.proposer.remote_consistent_lsn == end - 8

        await cluster.eventually(proposer_knows)
        status = await cluster.status("sk0")
        assert status["active"]
        assert status["readers"][0]["remote_consistent_lsn"] == str(Lsn(end - 8))
        await writer.proposer.close()
        await asyncio.sleep(3)
        assert (await cluster.status("sk0"))["active"], "the pageserver has not got everything"
        await stream.send(feedback(start=end, remote=end))
        async with asyncio.timeout(5):
            while await stream.receive() is not None:
                pass
            await stream.done()
        for name in cluster.names:
            await cluster.eventually(lambda name=name: idle(cluster, name))

    async def idle(cluster: Cluster, name: str) -> bool:
        status = await cluster.status(name)
        return not status["active"] and not status["readers"]

    run_cluster(story)


def test_the_remote_position_survives_a_restart_of_an_idle_timeline():
    async def story(cluster: Cluster):
        writer = await leader(cluster)
        end = await writer.commit(b"x" * 100)
        await cluster.level(end)
        client = await session("sk0", "ps0")
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {START}")
        await read(stream, START, end)
        await stream.send(feedback(start=end, remote=end))
        await writer.proposer.close()
        await asyncio.sleep(8)
        for name in cluster.names:
            await cluster.backend.kill(name, host=True)
        await cluster.start()
        for name in cluster.names:
            status = await cluster.status(name)
            assert status["remote_consistent_lsn"] == str(end)
            assert not status["active"]

    run_cluster(story)


async def connections(node: str) -> list[str]:
    """Who a node's task registry says it serves."""
    tasks = await call("GET", node, 7676, "/v1/tasks")
    return [task["name"] for task in tasks if task["kind"] == "wire_connection"]


@pytest.mark.parametrize("backlog", [0, 40], ids=["idle", "in the middle of a send"])
def test_a_reader_that_falls_silent_is_hung_up_on_and_leaves_nothing(backlog):
    """Its machine may be dead: nobody will ever close the connection or read what is sent."""

    async def story(cluster: Cluster):
        writer = await leader(cluster)
        with asyncio.get_running_loop().nodes.acting_as("far"):
            client = await session("sk0")
            await client.copy_both(f"START_REPLICATION PHYSICAL {START}")
        before = [name for name in await connections("sk0") if name.startswith("far:")]
        assert len(before) == 1
        cluster.backend.network.cut("far", "sk0")
        for _ in range(backlog):
            await writer.commit(bytes(100_000))
        await asyncio.sleep(9)
        assert (await cluster.status("sk0"))["readers"]
        await asyncio.sleep(4)

        assert not (await cluster.status("sk0"))["readers"]
        assert not [name for name in await connections("sk0") if name.startswith("far:")]

    run_cluster(story)


def test_a_reader_that_never_confirms_the_end_of_its_stream_is_hung_up_on(caplog):
    """Found by a campaign: a partition at the moment when the pageserver has got everything."""

    async def story(cluster: Cluster):
        writer = await leader(cluster)
        end = await writer.commit(b"x" * 100)
        await cluster.level(end)
        with asyncio.get_running_loop().nodes.acting_as("far"):
            client = await session("sk0", "ps0")
            stream = await client.copy_both(f"START_REPLICATION PHYSICAL {START}")
            await read(stream, START, end)
            await stream.send(feedback(start=end, remote=end))
        await writer.proposer.close()
        cluster.backend.network.cut("sk0", "far", both=False)
        await asyncio.sleep(END_WITHIN_S + 4)
        assert not [name for name in await connections("sk0") if name.startswith("far:")]

    run_cluster(story)
    assert "has not ended its half of the stream" in caplog.text
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


def test_a_reader_that_ends_its_copy_gets_its_completion():
    async def story(cluster: Cluster):
        writer = await leader(cluster)
        await writer.commit(b"x")
        client = await session("sk0")
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {START}")
        async with asyncio.timeout(5):
            await stream.done()
        assert (await client.query("SHOW wal_segment_size")).rows == [("1MB",)]

    run_cluster(story)


def feedback(start: Lsn, remote: Lsn) -> bytes:
    body = {
        "last_received_lsn": str(start),
        "disk_consistent_lsn": str(start),
        "remote_consistent_lsn": str(remote),
    }
    return b"z" + json.dumps(body).encode()


def test_a_big_stream_crosses_segments_and_equals_what_is_on_disk():
    async def story(cluster: Cluster):
        writer = await leader(cluster)
        for _ in range(30):
            end = await writer.commit(bytes(100_000))
        await cluster.level(end)
        assert end - START > 2 * SEGMENT
        client = await session("sk1")
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {START}")
        data = await read(stream, START, end)
        disk = cluster.backend.disk("sk1").view()
        file = await disk.open(f"timelines/{TENANT}/{TIMELINE}/000000010000000000000011")
        assert await file.pread(0, SEGMENT) == data[SEGMENT : 2 * SEGMENT]

    run_cluster(story)
