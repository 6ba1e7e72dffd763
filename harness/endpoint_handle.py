"""An endpoint as a scenario holds it: operations on it, and the life of the compute behind it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from harness.compute import Launch
from harness.endpoint import Client, Recording
from harness.errors import HarnessError
from storage.ids import TenantTimelineId

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.nodes import NodeHandle, PageserverHandle


class EndpointHandle(Client):
    """A :class:`harness.endpoint.Client` whose compute can be started, stopped, killed and moved.

    A compute keeps nothing of its own: every start builds it anew from the storage.
    """

    def __init__(self, cluster: Cluster, launch: Launch) -> None:
        world = cluster.world
        self._compute = world.compute.compute(cluster, launch)
        self._launch = launch
        timeless = launch.reads_only
        recording = Recording(world.history, world.now_s, str(launch.timeline), timeless)
        super().__init__(self._compute.endpoint, recording, launch.name)

    @property
    def name(self) -> str:
        """The endpoint's name, which is its host name."""
        return self._launch.name

    @property
    def timeline(self) -> TenantTimelineId:
        """The timeline it works on."""
        return self._launch.timeline

    @property
    def pinned(self) -> bool:
        """Whether it reads at an LSN of its own, and changes nothing."""
        return self._launch.reads_only

    @property
    def pageserver(self) -> PageserverHandle:
        """Where its pages come from."""
        return self._launch.pageserver

    @property
    def nodes(self) -> list[NodeHandle]:
        """The nodes the compute consists of."""
        return self._compute.nodes

    @property
    def running(self) -> bool:
        """Whether any of its nodes runs."""
        return any(node.running for node in self.nodes)

    async def start(self) -> None:
        """Start the compute from the storage; returns when it serves."""
        if self.running:
            raise HarnessError(f"endpoint {self.name!r} runs already; stop or kill it first")
        if self._launch.reads_only:
            await self._compute.start(self._launch)
            return
        life = self._history.compute_began(str(self.timeline), self.name, self.now_s())
        await self._compute.start(self._launch)
        self._history.compute_serves(life, self.now_s())

    async def stop(self) -> None:
        """Stop the compute gracefully."""
        await self.disconnect()
        await self._compute.stop()

    async def kill(self) -> None:
        """Crash the compute: clients that wait for an answer never learn the outcome."""
        await self._compute.kill()
        await self.disconnect()

    async def restart(self) -> None:
        """Stop, then start from the storage."""
        await self.stop()
        await self.start()

    def assign(self, pageserver: PageserverHandle) -> None:
        """Take pages from another pageserver at every later start."""
        self._launch = dataclasses.replace(self._launch, pageserver=pageserver)

    async def move(self, pageserver: PageserverHandle) -> None:
        """Take pages from another pageserver, now and at every later start."""
        self.assign(pageserver)
        await self.endpoint.move(pageserver.address)

    async def sql(self, statement: str) -> list[tuple[str | None, ...]]:
        """Run SQL text, not recorded in the history; PostgreSQL only."""
        return await self.endpoint.sql(statement)

    async def disconnect(self) -> None:
        """Close this side's connections."""
        await self.endpoint.disconnect()
