"""Safekeepers, pageservers and histories tell one story: see the three oracles that this calls.

For timelines of the deterministic compute; what PostgreSQL's WAL means only PostgreSQL knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checkers.pages_equal_wal import check_pages
from harness.checkers.safekeepers_agree import check_safekeepers_agree
from harness.checkers.wal_explains_history import check_wal_explains
from harness.checkers.wal_model import WalModel
from harness.storage_taps import PageTap, changes, wal_bytes
from storage.http.client import HttpError

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.nodes import SafekeeperHandle
    from storage.ids import TenantTimelineId

MODELLED = "walgen"
"""The compute whose WAL has a model."""


async def check_storage(cluster: Cluster) -> None:
    """Ask every storage node that runs, and compare all of it with the history."""
    models: dict[str, WalModel] = {}
    for timeline in cluster.timelines:
        members = [each for each in cluster.safekeepers if each.running]
        members = [each for each in members if await _knows(each, timeline)]
        await check_safekeepers_agree(members, timeline)
        if members and cluster.world.compute.name == MODELLED:
            model = await _model(cluster, timeline, members, models)
            models[str(timeline)] = model
            check_wal_explains(cluster.world.history, str(timeline), model)
            await _check_pageservers(cluster, timeline, model)


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
        if not pageserver.running:
            continue
        try:
            found = await pageserver.timeline(timeline)
        except HttpError as error:
            if error.status in (404, 503):
                continue  # It is attached elsewhere, or not yet here.
            raise
        if found.superseded or found.state != "Active":
            continue
        lowest = max(found.latest_gc_cutoff_lsn, found.ancestor_lsn or model.start_lsn)
        tap = PageTap(pageserver, timeline)
        await check_pages(tap, model, (lowest, found.last_record_lsn))
