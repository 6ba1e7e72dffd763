"""A cluster: handles of its nodes, its tenants and its endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from harness.admin_log import AdminLog
from harness.backend import NodeSpec
from harness.compute import Launch
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.history import BranchPoint
from harness.nodes import NodeHandle, PageserverHandle, SafekeeperHandle, TimelineSpec
from harness.standby import StandbyHandle
from harness.topology import Topology
from storage.http.client import HttpError
from storage.ids import TenantId, TenantTimelineId, TimelineId
from storage.lsn import Lsn

if TYPE_CHECKING:
    from harness.world import World

QUICK_PAGESERVERS: Mapping[str, Mapping[str, Any]] = {"real": {"scrub_period_s": 2.0}}
"""Options by world: every run ends by waiting for a clean bucket, and real seconds are dear."""


class Cluster:
    """Safekeepers ``sk0`` …, pageservers ``ps0`` …, and what runs on them."""

    def __init__(self, world: World, topology: Topology) -> None:
        self.world = world
        self.topology = topology
        backend = world.backend
        self.admin = AdminLog(world.now_s)
        self.safekeepers = [
            SafekeeperHandle(
                backend, NodeSpec(f"sk{i}", "safekeeper", self._safekeeper_options(i)), self.admin
            )
            for i in range(topology.safekeepers)
        ]
        self.pageservers = [
            PageserverHandle(
                backend, NodeSpec(f"ps{i}", "pageserver", self._pageserver_options(i)), self.admin
            )
            for i in range(topology.pageservers)
        ]
        self.timelines: list[TenantTimelineId] = []
        self.endpoints: dict[str, EndpointHandle] = {}

    def _safekeeper_options(self, index: int) -> dict[str, Any]:
        return {"node_id": index + 1, **self.topology.safekeeper_options}

    def _pageserver_options(self, index: int) -> dict[str, Any]:
        return {
            "node_id": index + 1,
            "discovery": self.topology.discovery,
            **QUICK_PAGESERVERS.get(self.world.name, {}),
            **self.topology.pageserver_options,
        }

    @property
    def nodes(self) -> list[NodeHandle]:
        """Every storage node."""
        return [*self.safekeepers, *self.pageservers]

    def safekeeper(self, index: int) -> SafekeeperHandle:
        """Safekeeper ``sk<index>``."""
        return self.safekeepers[index]

    def pageserver(self, index: int) -> PageserverHandle:
        """Pageserver ``ps<index>``."""
        return self.pageservers[index]

    def safekeeper_addresses(self) -> list[str]:
        """``host:port`` of every safekeeper's WAL service."""
        return [safekeeper.address for safekeeper in self.safekeepers]

    async def start(self) -> None:
        """Start every node, at once."""
        await asyncio.gather(*(node.start() for node in self.nodes))

    async def create_tenant(self, pageserver: PageserverHandle | None = None) -> TenantTimelineId:
        """Create a tenant with one timeline, attached to ``pageserver`` (``ps0`` by default)."""
        generator = self.world.generator(f"tenant {len(self.timelines)}")
        timeline = TenantTimelineId(TenantId.draw(generator), TimelineId.draw(generator))
        home = pageserver or self.pageservers[0]
        await home.create_tenant(timeline.tenant_id)
        await self.world.compute.create_timeline(self, timeline, home)
        self.timelines.append(timeline)
        return timeline

    async def endpoint(
        self,
        name: str,
        *,
        timeline: TenantTimelineId | None = None,
        pageserver: PageserverHandle | None = None,
    ) -> EndpointHandle:
        """Start an endpoint, on the first timeline (created if there is none) and ``ps0``."""
        if timeline is None:
            timeline = self.timelines[0] if self.timelines else await self.create_tenant(pageserver)
        return await self._launch(Launch(name, timeline, pageserver or self.pageservers[0]))

    async def replica(
        self, name: str, lsn: Lsn, *, of: EndpointHandle, lease: bool = True
    ) -> EndpointHandle:
        """Start a compute that reads the timeline of another as of ``lsn`` and changes nothing.

        It leases that LSN from the pageserver, without ``lease`` it trusts to luck.
        """
        return await self._launch(Launch(name, of.timeline, of.pageserver, lsn, lease))

    async def standby(
        self, name: str, *, of: EndpointHandle, feedback: bool = True
    ) -> StandbyHandle:
        """Start a compute that follows another and reads pages where it has replayed to.

        By hot standby ``feedback`` it has them kept, without it trusts to luck.
        """
        launch = Launch(name, of.timeline, of.pageserver, feedback=feedback)
        handle = self.endpoints[name] = StandbyHandle(self, launch)
        await handle.start()
        return handle

    async def _launch(self, launch: Launch) -> EndpointHandle:
        handle = EndpointHandle(self, launch)
        self.endpoints[launch.name] = handle
        await handle.start()
        return handle

    async def branch(
        self,
        ancestor: TenantTimelineId,
        *,
        at: Lsn | None = None,
        pageserver: PageserverHandle | None = None,
    ) -> TenantTimelineId:
        """Branch a timeline at an LSN, or where the pageserver (``ps0`` by default) has got to."""
        home = pageserver or self.pageservers[0]
        generator = self.world.generator(f"branch {len(self.timelines)}")
        branch = TenantTimelineId(ancestor.tenant_id, TimelineId.draw(generator))
        await home.branch(ancestor, branch.timeline_id, at)
        lsn = (await home.timeline(branch)).ancestor_lsn
        assert lsn is not None, f"branch {branch} has no ancestor_lsn"
        spec = await self.world.compute.branch_spec(self, branch, lsn)
        await self.create_on_safekeepers(branch, spec)
        point = BranchPoint(str(ancestor), lsn, self.world.now_s())
        self.world.history.branched(str(branch), point)
        self.timelines.append(branch)
        return branch

    async def create_on_safekeepers(self, timeline: TenantTimelineId, spec: TimelineSpec) -> None:
        """Begin a timeline's WAL on every running safekeeper, at once."""
        members = self.safekeeper_addresses()
        running = [safekeeper for safekeeper in self.safekeepers if safekeeper.running]
        await asyncio.gather(*(each.create_timeline(timeline, spec, members) for each in running))

    async def subscribe(self, timeline: TenantTimelineId, pageserver: PageserverHandle) -> None:
        """Have every running safekeeper call ``pageserver`` for this timeline (callmemaybe)."""
        if self.topology.discovery != "callmemaybe":
            return  # The pageserver finds the safekeepers through the broker by itself.
        for safekeeper in self.safekeepers:
            if safekeeper.running:
                await safekeeper.subscribe(timeline, pageserver.address)

    async def caught_up(
        self, pageserver: PageserverHandle, timeline: TenantTimelineId, *, within_s: float = 60.0
    ) -> Lsn:
        """Wait until the pageserver has all that is committed or acknowledged by now.

        Returns that LSN. A safekeeper may learn of the last commit later than the client did.
        """
        committed = await self._committed_lsn(timeline)

        async def reached() -> Lsn:
            try:
                found = await pageserver.timeline(timeline)
            except HttpError as error:
                if error.status in (404, 503):
                    raise NotYet(f"{pageserver.name}: {error}") from error
                raise
            if found.last_record_lsn < committed:
                raise NotYet(f"{pageserver.name} is at {found.last_record_lsn} of {committed}")
            return committed

        what = f"{pageserver.name} catches up with {committed}"
        return await self.world.eventually(reached, within_s=within_s, what=what)

    async def _committed_lsn(self, timeline: TenantTimelineId) -> Lsn:
        """At least everything that was acknowledged to a client by now."""
        known = []
        for safekeeper in self.safekeepers:
            if safekeeper.running:
                try:
                    known.append((await safekeeper.timeline(timeline)).commit_lsn)
                except HttpError as error:
                    if error.status != HTTPStatus.NOT_FOUND:  # It may be gone from some members.
                        raise
        acknowledged = self.world.history.acknowledged_lsn(str(timeline))
        if not acknowledged:  # PostgreSQL tells its clients no LSN, but its proposer knows.
            for each in self.endpoints.values():
                if each.running and not each.pinned and each.timeline == timeline:
                    known.append(Lsn.parse((await each.endpoint.status())["commit_lsn"]))
        return max([acknowledged, *known])

    async def absent(self, pageserver: PageserverHandle, tenant_id: TenantId) -> None:
        """Wait until the pageserver does not know the tenant any more."""

        async def gone() -> None:
            try:
                state = await pageserver.tenant_state(tenant_id)
            except HttpError as error:
                if error.status == 404:
                    return
                raise
            raise NotYet(f"tenant is {state} on {pageserver.name}")

        await self.world.eventually(gone, what=f"{pageserver.name} forgets tenant {tenant_id}")
