"""The cutoff of garbage collection, and what lies before it or before the timeline (D1, D2, D4).

A refusal names both LSNs, by either protocol and over HTTP, and costs nobody a connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness.checkers.pages_equal_wal import Wanted
from harness.cluster import Cluster
from harness.collecting import SMALL_LAYERS
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.nodes import PageserverHandle
from harness.patience import HttpError, when_ready
from harness.storage_taps import PageTap, ServerError, page_service
from harness.topology import Topology
from harness.world import World
from storage.errors import LsnOutOfScope
from storage.lsn import Lsn

WALGEN_ONLY = pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to ask for")

BEFORE_INITDB = Lsn(8)
NOT_DURABLE_YET = "ps-index-uploaded"


async def old_and_new(world: World) -> tuple[Cluster, EndpointHandle, Lsn]:
    """A primary with much history since an LSN, all of it in S3."""
    cluster = await world.start(Topology(pageserver_options=SMALL_LAYERS))
    primary = await cluster.endpoint("main")
    old = await primary.put(1, "old")
    assert old is not None
    for round_number in range(20):
        await primary.txn({key: f"{round_number}" for key in range(0, 640, 32)})
    await cluster.caught_up(cluster.pageserver(0), primary.timeline)
    await cluster.pageserver(0).checkpoint(primary.timeline)
    return cluster, primary, old


async def cutoff_of(home: PageserverHandle, primary: EndpointHandle) -> Lsn:
    """The cutoff that is in force."""
    return (await home.timeline(primary.timeline)).latest_gc_cutoff_lsn


@pytest.mark.row("D4.durable", "D4.checked")
@WALGEN_ONLY
async def test_cutoff_counts_once_it_is_in_s3_and_never_goes_back(world: World) -> None:
    """What was readable is, while S3 has not answered; afterwards no empty disk forgets it."""
    cluster, primary, old = await old_and_new(world)
    home, timeline = cluster.pageserver(0), primary.timeline
    before = await cutoff_of(home, primary)

    await home.arm(NOT_DURABLE_YET, "pause")
    asked = asyncio.create_task(home.collect_garbage(timeline, gc_horizon=0))
    await world.eventually(lambda: somebody_waits(home))
    assert await PageTap(home, timeline).read([Wanted(0, old)])
    assert await cutoff_of(home, primary) == before
    await home.disarm(NOT_DURABLE_YET)
    cutoff = (await asked).cutoff
    assert cutoff > old

    await home.kill(host=True)
    await home.wipe()
    await home.start()
    await when_ready(world, lambda: home.attach(timeline.tenant_id))
    await cluster.caught_up(home, timeline)
    assert await cutoff_of(home, primary) >= cutoff
    with pytest.raises(ServerError, match=f"{old} is before latest_gc_cutoff_lsn {cutoff}"):
        await PageTap(home, timeline).read([Wanted(0, old)])


async def somebody_waits(home: PageserverHandle) -> None:
    """``NotYet`` until an index is on its way that nobody knows to be stored."""
    if not (await home.failpoint(NOT_DURABLE_YET))["waiting"]:
        raise NotYet("nothing is uploaded")


@pytest.mark.row("D1.branch", "D1.basebackup", "D2.simple", "D2.extended", "C1.client")
@WALGEN_ONLY
async def test_out_of_scope_is_refused_by_both_lsns(world: World) -> None:
    """Before the timeline began and before the cutoff: no branch, no base backup, no page."""
    cluster, primary, old = await old_and_new(world)
    home, timeline = cluster.pageserver(0), primary.timeline
    cutoff = (await home.collect_garbage(timeline, gc_horizon=0)).cutoff
    initdb = (await home.timeline(timeline)).initdb_lsn
    refused = {
        BEFORE_INITDB: f"LSN {BEFORE_INITDB} is before initdb_lsn {initdb}",
        old: f"LSN {old} is before latest_gc_cutoff_lsn {cutoff}",
    }
    for lsn, message in refused.items():
        with pytest.raises(HttpError, match=message) as by_http:
            await cluster.branch(timeline, at=lsn)
        assert (by_http.value.status, by_http.value.kind) == (416, "lsn_out_of_scope")
        assert by_http.value.trace_id
    client = await page_service(home)
    names = f"{timeline.tenant_id} {timeline.timeline_id}"
    try:
        for run in (client.query, client.execute):
            for lsn, message in refused.items():
                with pytest.raises(ServerError, match=message) as by_libpq:
                    await run(f"basebackup {names} {lsn}")
                assert by_libpq.value.sqlstate == LsnOutOfScope.sqlstate
                assert (await run("status")).rows
    finally:
        await client.close()
    branch = await cluster.endpoint("branch", timeline=await cluster.branch(timeline, at=cutoff))
    assert await branch.get(1) == "old"


REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/tenant/xyz/attach", None, 400, "bad_request"),
    ("POST", "/tenant/{tenant}/attach?now=1", None, 400, "bad_request"),
    ("POST", "/tenant/{stranger}/attach", None, 404, "not_found"),
    ("POST", "/tenant/{stranger}/detach", None, 404, "not_found"),
    ("GET", "/tenant/{stranger}", None, 404, "not_found"),
    ("POST", "/tenant/{tenant}/timeline", {"timeline_id": "7"}, 400, "bad_request"),
    ("POST", "/tenant/{tenant}/timeline", {"surprise": 1}, 400, "bad_request"),
    ("PATCH", "/tenant/{tenant}", None, 405, "method_not_allowed"),
]


@pytest.mark.row("A1.errors", "P5.errors")
async def test_refusals_of_a_pageserver_are_typed(world: World) -> None:
    """Status, kind, a message and a trace id, whatever was wrong; and it goes on serving."""
    cluster = await world.start(Topology())
    primary = await cluster.endpoint("main")
    await primary.put(1, "before")
    names = {"tenant": primary.timeline.tenant_id, "stranger": "5" * 32}
    trace_ids = []
    for method, path, body, status, kind in REFUSED:
        with pytest.raises(HttpError) as refused:
            await cluster.pageserver(0).http(method, path.format(**names), body)
        told = refused.value
        assert (told.status, told.kind) == (status, kind), f"{method} {path}: {told}"
        assert told.msg
        trace_ids.append(told.trace_id)
    assert len({*trace_ids}) == len(REFUSED)
    assert await primary.get(1) == "before"
