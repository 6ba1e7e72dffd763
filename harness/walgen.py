"""The deterministic compute ``walgen`` as the harness launches it, in every world."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from harness.backend import NodeSpec
from harness.compute import Launch, RunningCompute
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
STANDBY_STATUS_S = 0.2


class ComputeHandle(NodeHandle):
    """The node of a walgen or read-only compute."""

    http_port = COMPUTE_HTTP_PORT


def system_id_of(timeline: TenantTimelineId) -> int:
    """The 64-bit system identifier of a timeline's WAL: the first half of the timeline id."""
    return int(timeline.timeline_id[:16], 16)


def page_options(launch: Launch) -> dict[str, Any]:
    """Options of both roles: whose pages, and where they are."""
    return {
        "tenant_id": launch.timeline.tenant_id,
        "timeline_id": launch.timeline.timeline_id,
        "pageserver": launch.pageserver.address,
    }


def timeline_spec(cluster: Cluster, timeline: TenantTimelineId) -> TimelineSpec:
    """A walgen timeline begins with WAL segment 1, page header included, or inside of it."""
    topology = cluster.topology
    size, room = topology.wal_segment_size, topology.wal_room
    return TimelineSpec(
        start_lsn=Lsn(FIRST_SEGMENT * size + (0 if room is None else size - room)),
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
        await cluster.create_on_safekeepers(timeline, spec)

    async def branch_spec(
        self, cluster: Cluster, branch: TenantTimelineId, start_lsn: Lsn
    ) -> TimelineSpec:
        """A branch writes WAL of its own system from the branch point on."""
        return dataclasses.replace(timeline_spec(cluster, branch), start_lsn=start_lsn)

    def compute(self, cluster: Cluster, launch: Launch) -> RunningCompute:
        """One walgen node, or one that only reads."""
        if launch.feedback is not None:
            return StandbyNode(cluster, launch)
        if launch.lsn is not None:
            return ReplicaNode(cluster, launch)
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
            **page_options(launch),
            "safekeepers": self._cluster.safekeeper_addresses(),
            "proposer_id": self._proposer_id(launch),
            "system_id": system_id_of(launch.timeline),
            "pg_version": topology.pg_version,
            "wal_segment_size": topology.wal_segment_size,
            "callmemaybe": callmemaybe,
            **topology.compute_options,
            **topology.proposer_options,
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


class StandbyNode:
    """:class:`harness.compute.RunningCompute` of one process that follows the primary."""

    def __init__(self, cluster: Cluster, launch: Launch) -> None:
        self._cluster = cluster
        self.endpoint: Endpoint = KvEndpoint(launch.name, COMPUTE_LIBPQ_PORT)
        self._node = ComputeHandle(cluster.world.backend, NodeSpec(launch.name, "standby"))
        self.nodes: list[NodeHandle] = [self._node]

    async def start(self, launch: Launch) -> None:
        """Start the node; it begins where the pageserver is."""
        topology = self._cluster.topology
        options = {
            **page_options(launch),
            "safekeepers": self._cluster.safekeeper_addresses(),
            "pg_version": topology.pg_version,
            "wal_segment_size": topology.wal_segment_size,
            "hot_standby_feedback": launch.feedback,
            "status_s": STANDBY_STATUS_S,
            **topology.compute_options,
        }
        self._node.spec = NodeSpec(launch.name, "standby", options)
        await self._node.start()

    async def stop(self) -> None:
        """Stop the node gracefully."""
        await self._node.stop()

    async def kill(self) -> None:
        """Crash the node."""
        await self._node.kill()


class ReplicaNode:
    """:class:`harness.compute.RunningCompute` of one read-only process, pinned to an LSN."""

    def __init__(self, cluster: Cluster, launch: Launch) -> None:
        self._compute_options = cluster.topology.compute_options
        self.endpoint: Endpoint = KvEndpoint(launch.name, COMPUTE_LIBPQ_PORT)
        self._node = ComputeHandle(cluster.world.backend, NodeSpec(launch.name, "readonly"))
        self.nodes: list[NodeHandle] = [self._node]

    async def start(self, launch: Launch) -> None:
        """Start the node; it serves once the pageserver has reached its LSN."""
        assert launch.lsn is not None, "a replica is pinned to an LSN"
        options = {
            **page_options(launch),
            "lsn": str(launch.lsn),
            "lease": launch.lease,
            **self._compute_options,
        }
        self._node.spec = NodeSpec(launch.name, "readonly", options)
        await self._node.start()

    async def stop(self) -> None:
        """Stop the node gracefully."""
        await self._node.stop()

    async def kill(self) -> None:
        """Crash the node."""
        await self._node.kill()
