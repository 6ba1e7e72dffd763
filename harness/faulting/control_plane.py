"""The control plane of a campaign: brings the tenant to its home, however often it must ask.

It wants one thing, that the tenant lives on ``home`` and the primary reads there, and repeats its
requests until that is so, as any reconciling control plane does. Faults only change its mind.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from harness.errors import NotLive, NotYet
from harness.nodes import PageserverHandle
from storage.http.client import HttpError
from storage.ids import TenantTimelineId

if TYPE_CHECKING:
    from harness.faulting.stage import Stage

RETRY_S = 0.5
LOOK_S = 1.0
ASK_S_MAX = 5.0
SUBSCRIBE_S_MAX = 1.0
ASKING = (HttpError, OSError, TimeoutError, NotLive, NotYet)
"""How asking a node that is struck may fail."""


class ControlPlane:
    """Where one tenant is meant to live; :meth:`run` makes it so."""

    def __init__(self, stage: Stage, timeline: TenantTimelineId, home: PageserverHandle) -> None:
        self.home = home
        self.settled = asyncio.Event()
        self.settled.set()
        self._stage = stage
        self._timeline = timeline
        self._changed = asyncio.Event()
        self._wishes = 0

    def move_to(self, home: PageserverHandle) -> None:
        """Want the tenant on ``home`` from now on."""
        self.home = home
        self._wishes += 1
        self.settled.clear()
        self._changed.set()

    def forgot(self, name: str) -> None:
        """A pageserver lost its disk, and with it what it knew of its tenants."""
        if name == self.home.name:
            self.move_to(self.home)

    async def run(self) -> None:
        """Reconcile for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            self._changed.clear()
            if self.settled.is_set() and await self._is_superseded(self.home):
                self.settled.clear()
            while not self.settled.is_set():
                await self._reconcile(self.home)

    async def _is_superseded(self, home: PageserverHandle) -> bool:
        """Whether somebody attached the tenant elsewhere, such as a request that came late."""
        try:
            async with asyncio.timeout(ASK_S_MAX):
                return (await home.timeline(self._timeline)).superseded
        except ASKING:
            return False

    async def _reconcile(self, home: PageserverHandle) -> None:
        wish = self._wishes
        try:
            async with asyncio.timeout(ASK_S_MAX):
                await self._settle(home)
        except ASKING:
            self._stage.counts["admin.requests_failed"] += 1
            await asyncio.sleep(RETRY_S)
        else:
            # A home that lost its disk meanwhile is the same home, and must be asked once more.
            if wish == self._wishes:
                self.settled.set()

    async def _settle(self, home: PageserverHandle) -> None:
        """Attach, wait for the WAL, move the primary, detach everywhere else."""
        tenant_id = self._timeline.tenant_id
        if await self._is_superseded(home):
            await home.detach(tenant_id)
        await home.attach(tenant_id)
        deaf = await self._subscribe(home)
        committed = self._stage.world.history.acknowledged_lsn(str(self._timeline))
        if (await home.timeline(self._timeline)).last_record_lsn < committed:
            raise NotYet(f"{home.name} lacks WAL")
        primary = self._stage.traffic.primary
        primary.assign(home)
        if primary.running:
            await primary.move(home)
        for other in self._stage.cluster.pageservers:
            if other is not home and other.running:
                await self._detach(other)
        if deaf:
            raise NotYet(f"{', '.join(deaf)} did not take the subscription")

    async def _subscribe(self, home: PageserverHandle) -> list[str]:
        """Have safekeepers call ``home``; returns those that did not hear of it."""
        cluster = self._stage.cluster
        if cluster.topology.discovery != "callmemaybe":
            return []
        deaf = []
        for safekeeper in cluster.safekeepers:
            if safekeeper.name in self._stage.lost:
                continue
            try:
                async with asyncio.timeout(SUBSCRIBE_S_MAX):
                    await safekeeper.subscribe(self._timeline, home.address)
            except ASKING:
                deaf.append(safekeeper.name)
        return deaf

    async def _detach(self, other: PageserverHandle) -> None:
        try:
            await other.detach(self._timeline.tenant_id)
        except HttpError as error:
            if error.status != 404:
                raise
