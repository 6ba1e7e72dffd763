"""Waits for what safekeepers do with WAL by themselves: offload, remove, catch up."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from harness.errors import NotYet
from harness.nodes import SafekeeperHandle
from storage.http.client import HttpError
from storage.ids import TenantTimelineId
from storage.lsn import Lsn

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.world import World


def running_members(cluster: Cluster) -> list[SafekeeperHandle]:
    """The safekeepers that run."""
    return [each for each in cluster.safekeepers if each.running]


def whole_segments_end(cluster: Cluster, lsn: Lsn) -> Lsn:
    """Where the last segment ends that ends at or before ``lsn``."""
    return Lsn(lsn - lsn % cluster.topology.wal_segment_size)


async def backed_up(
    cluster: Cluster, timeline: TenantTimelineId, lsn: Lsn, *, within_s: float = 60.0
) -> Lsn:
    """Wait until every running safekeeper knows all whole segments below ``lsn`` to be in S3.

    Returns where they end.
    """
    until_lsn = whole_segments_end(cluster, lsn)

    async def known() -> Lsn:
        for each in running_members(cluster):
            state = await each.timeline(timeline)
            if state.backup_lsn < until_lsn:
                raise NotYet(f"{each.name} knows {state.backup_lsn} of {until_lsn} to be in S3")
        return until_lsn

    return await cluster.world.eventually(
        known, within_s=within_s, what=f"WAL up to {until_lsn} is offloaded"
    )


async def removed(
    cluster: Cluster, timeline: TenantTimelineId, lsn: Lsn, *, within_s: float = 60.0
) -> None:
    """Wait until no running safekeeper has WAL below ``lsn``, a segment's border, on its disk."""
    first = lsn // cluster.topology.wal_segment_size

    async def gone() -> None:
        for each in running_members(cluster):
            oldest = (await each.timeline(timeline)).oldest_segment
            if oldest is None or oldest < first:
                raise NotYet(f"{each.name} still has segment {oldest}, needed is {first}")

    await cluster.world.eventually(gone, within_s=within_s, what=f"WAL below {lsn} is removed")


async def level(
    cluster: Cluster,
    timeline: TenantTimelineId,
    lsn: Lsn,
    *,
    members: Sequence[SafekeeperHandle] | None = None,
    within_s: float = 60.0,
) -> None:
    """Wait until these safekeepers (all that run) know everything up to ``lsn`` as committed."""

    async def reached() -> None:
        for each in members or running_members(cluster):
            try:
                state = await each.timeline(timeline)
            except HttpError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    raise NotYet(f"{each.name} does not have the timeline") from error
                raise
            if min(state.commit_lsn, state.flush_lsn) < lsn:
                raise NotYet(f"{each.name} has {state.commit_lsn} of {lsn}")

    await cluster.world.eventually(reached, within_s=within_s, what=f"all have {lsn}")


def offloaders(world: World, timeline: TenantTimelineId) -> list[tuple[str, int]]:
    """Who led the offload of a timeline so far, in order, each with its fencing token."""
    return [
        (event.node, int(str(event.fields["token"])))
        for event in world.backend.events()
        if event.kind == "offloader" and event.fields["timeline"] == timeline.timeline_id
    ]


async def waiting_at(cluster: Cluster, failpoint: str) -> SafekeeperHandle:
    """Wait until some safekeeper is paused at a failpoint; returns it."""

    async def found() -> SafekeeperHandle:
        for each in running_members(cluster):
            if (await each.failpoint(failpoint))["waiting"]:
                return each
        raise NotYet(f"nobody is paused at {failpoint}")

    return await cluster.world.eventually(found, what=f"a safekeeper waits at {failpoint}")
