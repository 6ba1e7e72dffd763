"""PostgreSQL as the harness launches it: :class:`harness.compute.Compute` for real processes."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backend import NodeSpec
from harness.compute import Launch
from harness.endpoint import Endpoint
from harness.errors import HarnessError, UnsupportedFault
from harness.nodes import COMPUTE_LIBPQ_PORT, NodeHandle, PageserverHandle, TimelineSpec
from harness.walgen import ComputeHandle
from real.backend import RealBackend
from real.postgres import binaries, template
from real.postgres.endpoint import PostgresEndpoint
from storage.ids import TenantTimelineId
from storage.lsn import Lsn
from storage.wire.client import ConnectOptions, connect

if TYPE_CHECKING:
    from harness.cluster import Cluster

IMPORT_S_MAX = 60.0


def template_cache(session_directory: Path) -> Path:
    """Where templates are kept: ``SEAWALL_CACHE_DIR``, which outlives the session, if it is set."""
    named = os.environ.get("SEAWALL_CACHE_DIR")
    return Path(named) if named else session_directory / "templates"


class PostgresCompute:
    """Timelines and endpoints of PostgreSQL; ``major`` chooses the version (default: first found).

    ``cache`` keeps the initialised template between timelines and sessions.
    """

    name = "postgres"

    def __init__(self, cache: Path, major: int | None = None) -> None:
        self._cache = cache
        self._major = major

    @functools.cached_property
    def binaries(self) -> binaries.Binaries:
        """The programs to run; ``HarnessError`` if there are none."""
        return binaries.find(self._major).for_server_user(self._cache)

    @functools.cache  # noqa: B019 - lives as long as the session
    def template(self, wal_segment_size: int) -> template.Template:
        """The data directory that new timelines begin with; blocks while it is initialised."""
        return template.template(self.binaries, wal_segment_size, self._cache)

    async def create_timeline(
        self, cluster: Cluster, timeline: TenantTimelineId, pageserver: PageserverHandle
    ) -> None:
        """Import the template into the pageserver, and begin its WAL on every safekeeper."""
        source = await asyncio.to_thread(self.template, cluster.topology.wal_segment_size)
        await _import(source, timeline, pageserver)
        spec = _spec(source, source.start_lsn)
        await cluster.create_on_safekeepers(timeline, spec)

    async def branch_spec(
        self, cluster: Cluster, branch: TenantTimelineId, start_lsn: Lsn
    ) -> TimelineSpec:
        """A branch goes on writing the WAL of the template's system."""
        source = await asyncio.to_thread(self.template, cluster.topology.wal_segment_size)
        return _spec(source, start_lsn)

    def compute(self, cluster: Cluster, launch: Launch) -> PostgresNodes:
        """A PostgreSQL with its sidecar."""
        if launch.lsn is not None:
            raise UnsupportedFault("a PostgreSQL that reads at a pinned LSN is not supported")
        return PostgresNodes(self, cluster, launch)


def _spec(source: template.Template, start_lsn: Lsn) -> TimelineSpec:
    return TimelineSpec(
        start_lsn=start_lsn,
        system_id=source.system_id,
        pg_version=source.pg_version,
        wal_segment_size=source.wal_segment_size,
    )


async def _import(
    source: template.Template, timeline: TenantTimelineId, pageserver: PageserverHandle
) -> None:
    """``import basebackup`` of a template."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in template.tar(source):
            yield piece

    host, _, port = pageserver.address.rpartition(":")
    client = await connect(host, int(port), options=ConnectOptions(timeout_s=IMPORT_S_MAX))
    try:
        command = (
            f"import basebackup {timeline.tenant_id} {timeline.timeline_id} "
            f"{source.start_lsn} {source.pg_version}"
        )
        await client.copy_in(command, pieces())
    finally:
        await client.close()


class PostgresNodes:
    """:class:`harness.compute.RunningCompute`: ``<name>`` and its sidecar ``<name>-wp``."""

    def __init__(self, compute: PostgresCompute, cluster: Cluster, launch: Launch) -> None:
        backend = cluster.world.backend
        if not isinstance(backend, RealBackend):
            raise HarnessError(f"PostgreSQL is a real process; world {backend.world!r} has none")
        self._compute = compute
        self._cluster = cluster
        self._backend = backend
        self._starts = 0
        self._directory = backend.short_directory / f"{launch.name}.pg"
        backend.assign(
            launch.name, COMPUTE_LIBPQ_PORT, self._directory / f".s.PGSQL.{COMPUTE_LIBPQ_PORT}"
        )
        self._sidecar = ComputeHandle(backend, NodeSpec(f"{launch.name}-wp", "walproposer"))
        self._server = NodeHandle(backend, NodeSpec(launch.name, "postgres"))
        self.nodes: list[NodeHandle] = [self._server, self._sidecar]
        self.endpoint: Endpoint = PostgresEndpoint(backend, launch.name, self._sidecar.name)

    async def start(self, launch: Launch) -> None:
        """Start the sidecar and PostgreSQL side by side; PostgreSQL waits for the election."""
        self._starts += 1
        self._sidecar.spec = NodeSpec(self._sidecar.name, "walproposer", self._sidecar_of(launch))
        self._server.spec = NodeSpec(launch.name, "postgres", self._server_of(launch))
        await asyncio.gather(self._sidecar.start(), self._server.start(within_s=60.0))

    def _sidecar_of(self, launch: Launch) -> dict[str, Any]:
        topology = self._cluster.topology
        source = self._compute.template(topology.wal_segment_size)
        return {
            "tenant_id": launch.timeline.tenant_id,
            "timeline_id": launch.timeline.timeline_id,
            "pageserver": launch.pageserver.address,
            "safekeepers": self._cluster.safekeeper_addresses(),
            "proposer_id": self._starts,
            "system_id": source.system_id,
            "pg_version": source.pg_version,
            "wal_segment_size": source.wal_segment_size,
            "callmemaybe": topology.discovery == "callmemaybe",
        }

    def _server_of(self, launch: Launch) -> dict[str, Any]:
        found = self._compute.template(self._cluster.topology.wal_segment_size)
        return {
            "tenant_id": launch.timeline.tenant_id,
            "timeline_id": launch.timeline.timeline_id,
            "pageserver": launch.pageserver.address,
            "safekeepers": self._cluster.safekeeper_addresses(),
            "sidecar": self._sidecar.name,
            "wal_segment_size": found.wal_segment_size,
            "bin_directory": str(self._compute.binaries.directory),
            "directory": str(self._directory),
            "settings": {},
        }

    async def stop(self) -> None:
        """Stop PostgreSQL while its standby still acknowledges, then the sidecar."""
        await self._server.stop()
        await self._sidecar.stop()

    async def kill(self) -> None:
        """Crash both at once."""
        await asyncio.gather(self._server.kill(), self._sidecar.kill())
