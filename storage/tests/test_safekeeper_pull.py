"""Copies over HTTP: what is refused and how, and that nothing is left of a failure."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from storage.consensus.messages import (
    PROTOCOL_VERSION,
    ProposerGreeting,
    VoteRequest,
    VoteResponse,
    decode_acceptor,
    encode,
)
from storage.http.client import HttpError, call
from storage.lsn import Lsn
from storage.tests.safekeeper_cluster import (
    PATH,
    SEGMENT,
    START,
    SYSTEM_ID,
    TENANT,
    TIMELINE,
    VERSION,
    Cluster,
    Writer,
    run_cluster,
)
from storage.tests.test_safekeeper_replication import session

NEW = "sk3"
OTHER = PATH[:-1] + "9"
NOWHERE = "nowhere:5454"
LISTED = "/v1/failpoints/sk-snapshot-listed"
COMMIT = "/v1/failpoints/sk-pull-before-commit"
QUICK = {"silence_max_s": 3.0, "heartbeat_s": 1.0}


async def pull(*donors: str, path: str = PATH) -> dict[str, Any]:
    """Have the newcomer copy a timeline from these nodes."""
    addresses = [each if ":" in each else f"{each}:5454" for each in donors]
    found: dict[str, Any] = await call("POST", NEW, 7676, f"{path}/pull", {"donors": addresses})
    return found


async def refused(work: Awaitable[Any]) -> tuple[int, str, str]:
    """Status, kind and message of a refusal."""
    with pytest.raises(HttpError) as told:
        await work
    return told.value.status, told.value.kind, str(told.value)


async def nothing_is_left(cluster: Cluster) -> None:
    """The newcomer neither has the timeline nor any part of it on its disk."""
    status, kind, _ = await refused(call("GET", NEW, 7676, PATH))
    assert (status, kind) == (404, "not_found")
    image = cluster.backend.disk(NEW).snapshot()
    timeline = PATH.rpartition("/")[2]
    found = [path for path in (*image.files, *image.directories) if timeline in path]
    assert [path for path in found if not path.startswith("tombstones/")] == []


def with_newcomer(story: Callable[[Cluster, Lsn], Awaitable[None]]) -> None:
    """Run a story on three members, who have some WAL, and an empty fourth node."""

    async def whole(cluster: Cluster) -> None:
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        end = await writer.commit(bytes(700_000))
        end = await writer.commit(bytes(700_000))
        await cluster.level(end)
        await proposer.close()
        await cluster.start(NEW)
        await story(cluster, end)
        await cluster.backend.stop(NEW, within_s=15)
        assert cluster.backend.died(NEW) is None

    run_cluster(whole, **QUICK)


def test_addresses_that_are_none_are_refused():
    async def story(cluster: Cluster, end: Lsn) -> None:
        for donors in ([], ["sk0"], ["sk0:"], [":5454"], ["sk0:http"], ["sk0:5454", ""]):
            body = {"donors": donors}
            told = await refused(call("POST", NEW, 7676, f"{PATH}/pull", body))
            assert told[:2] == (400, "bad_request"), f"{donors}: {told}"
            assert "like sk0:5454" in told[2]
        for body in ({}, {"donors": "sk0:5454"}, {"donors": [7]}, {"donors": [], "force": True}):
            told = await refused(call("POST", NEW, 7676, f"{PATH}/pull", body))
            assert told[:2] == (400, "bad_request"), f"{body}: {told}"
        await nothing_is_left(cluster)

    with_newcomer(story)


def test_donors_that_are_unknown_or_know_nothing_are_told_apart_from_good_ones():
    async def story(cluster: Cluster, end: Lsn) -> None:
        for donors in ([NOWHERE], ["sk0:1"], [NEW], [NOWHERE, NEW]):
            told = await refused(pull(*donors))
            assert told[:2] == (503, "not_ready"), f"{donors}: {told}"
            assert "none of the donors" in told[2]
            await nothing_is_left(cluster)
        assert (await refused(pull("sk0", path=OTHER)))[:2] == (503, "not_ready")
        assert (await pull(NOWHERE, "sk1"))["flush_lsn"] == str(end)
        assert len(await cluster.digests(end, "sk1", NEW)) == 1

    with_newcomer(story)


async def vote(node: str, term: int) -> None:
    """Ask one member alone for its vote."""
    client = await session(node, "candidate")
    stream = await client.copy_both("START_WAL_PUSH")
    identity = (SYSTEM_ID, VERSION, SEGMENT)
    await stream.send(encode(ProposerGreeting(PROTOCOL_VERSION, TENANT, TIMELINE, 9, *identity)))
    await stream.receive()
    await stream.send(encode(VoteRequest(term, 9)))
    answer = await stream.receive()
    assert answer is not None
    response = decode_acceptor(answer)
    assert isinstance(response, VoteResponse)
    assert response.given
    await client.close()


def test_the_best_log_is_copied_with_the_highest_term_that_any_donor_knows():
    async def story(cluster: Cluster, end: Lsn) -> None:
        await vote("sk0", 7)
        voted, plain = await cluster.status("sk0"), await cluster.status("sk1")
        assert (voted["term"], plain["term"]) == (7, 1), "sk0 alone has voted"

        copied = await pull("sk1", "sk0", "sk2")

        assert copied["term"] == voted["term"], "a vote that any donor gave binds the copy"
        assert copied["last_log_term"] == 1
        assert copied["term_history"] == plain["term_history"]
        assert len(await cluster.digests(end, "sk0", NEW)) == 1

    with_newcomer(story)


def test_what_is_here_already_stays_and_what_was_deleted_does_not_come_back():
    async def story(cluster: Cluster, end: Lsn) -> None:
        copied = await pull("sk0")
        assert await pull(NOWHERE) == copied, "nobody is asked for what is here"
        await call("DELETE", NEW, 7676, PATH)
        for donors in (["sk0"], [NOWHERE]):
            told = await refused(pull(*donors))
            assert told[:2] == (409, "conflict")
            assert "was deleted here" in told[2]
        await nothing_is_left(cluster)
        await cluster.backend.kill(NEW)
        await cluster.start(NEW)
        assert (await refused(pull("sk0")))[0] == 409, "also after a restart"

    with_newcomer(story)


async def interrupted(cluster: Cluster, donor: str, end_it: Callable[[], Awaitable[None]]) -> float:
    """A copy is refused after its donor was stopped in the middle; returns how long that took."""
    await call("PUT", donor, 7676, LISTED, {"action": "pause"})
    copying = asyncio.ensure_future(refused(pull(donor)))

    async def waits() -> bool:
        points = await call("GET", donor, 7676, "/v1/failpoints")
        return any(point["waiting"] for point in points)

    await cluster.eventually(waits)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await end_it()
    told = await copying
    assert told[:2] == (503, "not_ready"), told
    await nothing_is_left(cluster)
    return loop.time() - began_s


@pytest.mark.parametrize("host", [False, True])
def test_a_donor_that_dies_in_the_middle_leaves_nothing_and_another_one_serves(host):
    """A machine that dies sends no reset; its silence must not last for ever."""

    async def story(cluster: Cluster, end: Lsn) -> None:
        took_s = await interrupted(cluster, "sk0", lambda: cluster.backend.kill("sk0", host=host))
        assert took_s < 2 * QUICK["silence_max_s"]
        assert (await pull("sk0", "sk1"))["flush_lsn"] == str(end)
        assert len(await cluster.digests(end, "sk1", NEW)) == 1

    with_newcomer(story)


def test_a_copy_that_hangs_keeps_other_timelines_neither_from_coming_nor_from_going():
    async def story(cluster: Cluster, end: Lsn) -> None:
        async def others_come_and_go() -> None:
            cluster.backend.network.cut("sk0", NEW)
            body = {
                "start_lsn": str(START), "system_id": 1, "pg_version": 16,
                "wal_segment_size": 1 << 20, "safekeepers": [f"{NEW}:5454"],
            }  # fmt: skip
            async with asyncio.timeout(1):
                await call("POST", NEW, 7676, OTHER, body)
                await call("DELETE", NEW, 7676, OTHER)
            assert (await refused(call("GET", NEW, 7676, OTHER)))[0] == 404

        await interrupted(cluster, "sk0", others_come_and_go)

    with_newcomer(story)


def test_a_newcomer_that_dies_before_its_copy_counts_begins_again():
    async def story(cluster: Cluster, end: Lsn) -> None:
        await call("PUT", NEW, 7676, COMMIT, {"action": "exit"})
        with pytest.raises((OSError, EOFError, TimeoutError)):
            await pull("sk0")
        await cluster.start(NEW)
        await nothing_is_left(cluster)
        assert (await pull("sk0"))["flush_lsn"] == str(end)

    with_newcomer(story)


def test_copies_at_once_give_one_timeline_and_a_deletion_has_the_last_word():
    async def story(cluster: Cluster, end: Lsn) -> None:
        first, second = await asyncio.gather(pull("sk0"), pull("sk1"))
        assert first["flush_lsn"] == second["flush_lsn"] == str(end)
        assert len(await cluster.digests(end, "sk2", NEW)) == 1

    async def deleted(cluster: Cluster, end: Lsn) -> None:
        await call("PUT", NEW, 7676, COMMIT, {"action": "sleep", "delay_s": 1.0})
        copying = asyncio.ensure_future(pull("sk0"))
        await asyncio.sleep(0.5)
        await call("DELETE", NEW, 7676, PATH)
        assert (await copying)["flush_lsn"] == str(end), "it was whole before it was deleted"
        await nothing_is_left(cluster)
        assert (await refused(pull("sk0")))[:2] == (409, "conflict")

    with_newcomer(story)
    with_newcomer(deleted)


def test_a_digest_is_of_exactly_the_bytes_that_are_asked_for_or_of_none():
    async def story(cluster: Cluster, end: Lsn) -> None:
        async def digest(begin: str, until: str, node: str = "sk0") -> str:
            path = f"{PATH}/digest?from_lsn={begin}&until_lsn={until}"
            return str((await call("GET", node, 7676, path))["sha256"])

        assert await digest(str(START), str(START)) == hashlib.sha256().hexdigest()
        assert await digest(str(end), str(end)) == hashlib.sha256().hexdigest()
        whole = await digest(str(START), str(end))
        assert await digest(str(START).lower(), str(end).lower()) == whole
        parts = {await digest(str(Lsn(START + 1)), str(Lsn(end - 3)), n) for n in cluster.names}
        assert len(parts) == 1, "any byte may be the first"
        assert whole not in parts
        for begin, until in (
            (str(Lsn(START - 1)), str(end)),
            ("0/0", str(end)),
            (str(START), str(Lsn(end + 1))),
            (str(end), "FFFFFFFF/FFFFFFFF"),
            (str(end), str(START)),
            ("", str(end)),
            (str(START), "zero"),
            (str(START), "0/1/2"),
            (str(START), "0/123456789"),
            (str(START), "-1/0"),
            ("0x1/0", str(end)),
            (str(int(START)), str(end)),
        ):
            told = await refused(digest(begin, until))
            assert told[:2] == (400, "bad_request"), f"{begin}..{until}: {told}"
        assert (await refused(digest(str(START), str(end), NEW)))[:2] == (404, "not_found")

    with_newcomer(story)
