"""The deterministic compute ``walgen`` as the harness launches it, in every world."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from harness.backend import NodeSpec
from harness.compute import Launch
from harness.endpoint import Endpoint
from harness.kv_endpoint import KvEndpoint
from harness.nodes import (
    COMPUTE_HTTP_PORT,
    COMPUTE_LIBPQ_PORT,
    NodeHandle,
    PageserverHandle,
    TimelineSpec,
)
from storage.ids import TenantTimelineId
from storage.lsn import Lsn

if TYPE_CHECKING:
    from harness.cluster import Cluster

FIRST_SEGMENT = 1


class ComputeHandle(NodeHandle):
    """The node of a walgen or read-only compute."""

    http_port = COMPUTE_HTTP_PORT


def system_id_of(timeline: TenantTimelineId) -> int:
    """The 64-bit system identifier of a timeline's WAL: the first half of the timeline id."""
    return int(timeline.timeline_id[:16], 16)


def timeline_spec(cluster: Cluster, timeline: TenantTimelineId) -> TimelineSpec:
    """A walgen timeline begins with WAL segment 1, page header included."""
    topology = cluster.topology
    return TimelineSpec(
        start_lsn=Lsn(FIRST_SEGMENT * topology.wal_segment_size),
        system_id=system_id_of(timeline),
        pg_version=topology.pg_version,
        wal_segment_size=topology.wal_segment_size,
    )


class WalgenCompute:
    """:class:`harness.compute.Compute` for walgen."""

    name = "walgen"

    async def create_timeline(
        self, cluster: Cluster, timeline: TenantTimelineId, pageserver: PageserverHandle
    ) -> None:
        """Create the empty timeline on the pageserver and on every running safekeeper."""
        spec = timeline_spec(cluster, timeline)
        await pageserver.create_timeline(timeline, spec)
        members = cluster.safekeeper_addresses()
        await asyncio.gather(
            *(
                safekeeper.create_timeline(timeline, spec, members)
                for safekeeper in cluster.safekeepers
                if safekeeper.running
            )
        )

    def compute(self, cluster: Cluster, launch: Launch) -> WalgenNode:
        """One walgen node."""
        return WalgenNode(cluster, launch)


class WalgenNode:
    """:class:`harness.compute.RunningCompute` of one walgen process."""

    def __init__(self, cluster: Cluster, launch: Launch) -> None:
        self._cluster = cluster
        self._starts = 0
        self.endpoint: Endpoint = KvEndpoint(launch.name, COMPUTE_LIBPQ_PORT)
        self._node = ComputeHandle(cluster.world.backend, NodeSpec(launch.name, "walgen"))
        self.nodes: list[NodeHandle] = [self._node]

    async def start(self, launch: Launch) -> None:
        """Start the node; each start is a new proposer."""
        self._starts += 1
        self._node.spec = NodeSpec(launch.name, "walgen", self._options(launch))
        await self._node.start()

    def _options(self, launch: Launch) -> dict[str, Any]:
        topology = self._cluster.topology
        callmemaybe = topology.discovery == "callmemaybe"
        return {
            "tenant_id": launch.timeline.tenant_id,
            "timeline_id": launch.timeline.timeline_id,
            "pageserver": launch.pageserver.address,
            "safekeepers": self._cluster.safekeeper_addresses(),
            "proposer_id": self._proposer_id(launch),
            "system_id": system_id_of(launch.timeline),
            "pg_version": topology.pg_version,
            "wal_segment_size": topology.wal_segment_size,
            "callmemaybe": callmemaybe,
            **topology.compute_options,
        }

    def _proposer_id(self, launch: Launch) -> int:
        """Every start of every endpoint campaigns under an id of its own."""
        name = f"proposer {launch.name} {self._starts}"
        return self._cluster.world.generator(name).getrandbits(63)

    async def stop(self) -> None:
        """Stop the node gracefully."""
        await self._node.stop()

    async def kill(self) -> None:
        """Crash the node."""
        await self._node.kill()
