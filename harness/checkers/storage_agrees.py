"""Safekeepers, pageservers, bucket and histories tell one story: see the oracles that this calls.

WAL is redone for timelines of the deterministic compute only: what PostgreSQL's WAL means, only
PostgreSQL knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.checkers.bucket import check_bucket, read_bucket
from harness.checkers.offloaded_wal import check_offloaded_wal
from harness.checkers.pages_equal_wal import CHECKER as PAGES
from harness.checkers.pages_equal_wal import check_pages
from harness.checkers.safekeepers_agree import check_safekeepers_agree
from harness.checkers.wal_explains_history import check_wal_explains
from harness.checkers.wal_model import WalModel
from harness.errors import CheckFailed, NotYet
from harness.storage_taps import PageTap, changes, wal_bytes
from storage.errors import LsnOutOfScope
from storage.http.client import HttpError
from storage.lsn import Lsn
from storage.wire.client import ServerError

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.nodes import PageserverHandle, SafekeeperHandle
    from harness.world import World
    from storage.ids import TenantTimelineId

MODELLED = "walgen"
"""The compute whose WAL has a model."""

LEFTOVERS_S_MAX = 30.0


Models = Mapping[str, WalModel]
"""What the WAL of a timeline says, by timeline."""


async def check_storage(cluster: Cluster) -> Models:
    """Ask every storage node that runs, and compare all of it with the history."""
    models: dict[str, WalModel] = {}
    for timeline in cluster.timelines:
        members = [each for each in cluster.safekeepers if each.running]
        members = [each for each in members if await _knows(each, timeline)]
        await _check_safekeepers(cluster, timeline, members)
        if members and cluster.world.compute.name == MODELLED:
            model = await _model(cluster, timeline, members, models)
            models[str(timeline)] = model
            explained = check_wal_explains(cluster.world.history, str(timeline), model)
            cluster.world.judged["wal_explains_history"] += explained
            await _check_pageservers(cluster, timeline, model)
    return models


async def _check_safekeepers(
    cluster: Cluster, timeline: TenantTimelineId, members: list[SafekeeperHandle]
) -> None:
    until = await check_safekeepers_agree(members, timeline)
    if len(members) > 1:
        start = (await members[0].timeline(timeline)).timeline_start_lsn
        cluster.world.judged["safekeepers_agree"] += -(-max(0, until - start) // 1024)
    if not _is_patched(cluster, timeline):
        objects = cluster.world.backend.admin_objects()
        compared = await check_offloaded_wal(objects, members, timeline)
        cluster.world.judged["offloaded_wal"] += compared


def _is_patched(cluster: Cluster, timeline: TenantTimelineId) -> bool:
    """Whether a scenario told a safekeeper of WAL in S3 that is not there."""
    path = f"/tenant/{timeline.tenant_id}/timeline/{timeline.timeline_id}/patch"
    return any(request.path == path for request in cluster.admin.requests)


async def check_remote(world: World) -> None:
    """Once every node has stopped: the bucket is whole, and has what was reported to be there."""
    reported: dict[tuple[str, str], Lsn] = {}
    for event in world.backend.observations():
        fields = event.fields
        if event.kind == "lsn" and fields["name"] == "remote_consistent_lsn":
            timeline = (str(fields["tenant"]), str(fields["timeline"]))
            value = fields["value"]
            assert isinstance(value, int), f"{event} has no number"
            reported[timeline] = max(reported.get(timeline, Lsn(0)), Lsn(value))
    bucket = await read_bucket(world.backend.admin_objects())
    world.judged["bucket"] += check_bucket(bucket, reported)


async def check_leftovers(cluster: Cluster) -> int:
    """A tenant's pageserver removes what no index needs any more, within a bound; returns how many
    tenants were looked at."""
    tenants = 0
    for pageserver in cluster.pageservers:
        if pageserver.running:
            for tenant in await pageserver.http("GET", "/tenant"):
                if tenant["state"] == "Active" and not tenant["superseded"]:
                    await _leaves_nothing(cluster.world, pageserver.name, tenant)
                    tenants += 1
    return tenants


async def _leaves_nothing(world: World, node: str, tenant: Mapping[str, Any]) -> None:
    async def clean() -> None:
        bucket = await read_bucket(world.backend.admin_objects())
        found = bucket.leftovers(tenant["tenant_id"], tenant["generation"])
        if found:
            raise NotYet(f"{len(found)} objects that no index names, such as {found[0]}")

    what = f"{node} cleans the bucket of tenant {tenant['tenant_id']}"
    await world.eventually(clean, within_s=LEFTOVERS_S_MAX, what=what)


async def _knows(safekeeper: SafekeeperHandle, timeline: TenantTimelineId) -> bool:
    """Whether a safekeeper has the timeline: one that was down or wiped may not."""
    try:
        await safekeeper.timeline(timeline)
    except HttpError as error:
        if error.status == 404:
            return False
        raise
    return True


async def _model(
    cluster: Cluster,
    timeline: TenantTimelineId,
    members: list[SafekeeperHandle],
    models: dict[str, WalModel],
) -> WalModel:
    """Redo everything that any member knows to be committed, by that member's WAL."""
    states = [(await member.timeline(timeline), member) for member in members]
    state, donor = max(states, key=lambda each: each[0].commit_lsn)
    branch = cluster.world.history.branches.get(str(timeline))
    start_lsn, end_lsn = state.timeline_start_lsn, state.commit_lsn
    model = WalModel(start_lsn, None if branch is None else models[branch.parent])
    if end_lsn > start_lsn:
        wal = await wal_bytes(donor, timeline, start_lsn, end_lsn)
        topology = cluster.topology
        for record_end_lsn, blocks in changes(
            wal,
            start_lsn,
            pg_version=topology.pg_version,
            wal_segment_size=topology.wal_segment_size,
        ):
            model.take(record_end_lsn, blocks)
    model.end_lsn = end_lsn
    return model


async def _check_pageservers(cluster: Cluster, timeline: TenantTimelineId, model: WalModel) -> None:
    for pageserver in cluster.pageservers:
        if pageserver.running:
            compared = await check_pageserver(pageserver, timeline, model, cluster.world.pages_max)
            cluster.world.judged["pages_equal_wal"] += compared


async def check_pageserver(
    pageserver: PageserverHandle, timeline: TenantTimelineId, model: WalModel, pages_max: int
) -> int:
    """Compare up to ``pages_max`` page versions of one pageserver; returns how many, none if it is
    not their home."""
    try:
        found = await pageserver.timeline(timeline)
    except HttpError as error:
        if error.status in (404, 503):
            return 0  # It is attached elsewhere, or not yet here.
        raise
    if found.superseded or found.state != "Active":
        return 0
    lowest = max(found.latest_gc_cutoff_lsn, found.ancestor_lsn or model.start_lsn)
    span = (lowest, found.last_record_lsn)
    try:
        tap = PageTap(pageserver, timeline)
        return await check_pages(tap, model, span, pages_max=pages_max)
    except ServerError as error:
        if await _was_collected_meanwhile(pageserver, timeline, lowest, error):
            return await check_pageserver(pageserver, timeline, model, pages_max)
        raise CheckFailed(
            f"{pageserver.name} refuses pages of {timeline} between {span[0]} and {span[1]}, which "
            f"it has: {error}",
            checker=PAGES,
        ) from error


async def _was_collected_meanwhile(
    pageserver: PageserverHandle, timeline: TenantTimelineId, lowest: Lsn, error: ServerError
) -> bool:
    """Whether a pass that was still under way has raised the cutoff, and that is the refusal."""
    if error.sqlstate != LsnOutOfScope.sqlstate:
        return False
    return (await pageserver.timeline(timeline)).latest_gc_cutoff_lsn > lowest
