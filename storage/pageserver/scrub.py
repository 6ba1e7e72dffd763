"""Looks again and again for objects that nothing needs: the store may carry out a request late.

A put whose answer was lost is repeated, and what it made may be deleted, before the first attempt
takes effect; an attachment that does not know its end yet goes on writing. So no clean-up is the
last one, and one listing of the whole tenant finds what is to be done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from storage.errors import PortError, RequestError
from storage.ids import TenantId, TimelineId
from storage.pageserver.environment import Environment
from storage.pageserver.index import TimelineIndex
from storage.pageserver.remote import RemoteTenant, StoredObject
from storage.pageserver.timeline import Timeline
from storage.tasks import interruptible, sleep_unless_shutdown

logger = logging.getLogger(__name__)


class Scrubbed(Protocol):
    """An attached tenant, as far as its leftovers are concerned."""

    tenant_id: TenantId
    environment: Environment
    remote: RemoteTenant
    timelines: dict[TimelineId, Timeline]
    dead: dict[TimelineId, TimelineIndex]

    def is_superseded(self) -> bool:
        """Whether it is known that the tenant was attached elsewhere since."""


class Scrubber:
    """The scrub of one attachment; :meth:`run` is its only worker."""

    def __init__(self, tenant: Scrubbed) -> None:
        self._tenant = tenant

    async def run(self) -> None:
        """Scrub once in a while until the task is asked to stop."""
        while not await sleep_unless_shutdown(self._tenant.environment.options.scrub_period_s):
            try:
                async with interruptible():
                    await self.scrub()
            except (PortError, RequestError) as error:
                logger.info("scrubbing tenant %s: %s", self._tenant.tenant_id, error)

    async def scrub(self) -> None:
        """Remove whatever no index names; ``PortError``, ``NotReady`` while the tenant stops."""
        for timeline_id, found in by_timeline(await self._tenant.remote.objects()).items():
            timeline = self._tenant.timelines.get(timeline_id)
            dead = self._tenant.dead.get(timeline_id)
            if timeline is not None:
                await timeline.uploader.scrub(found)
            elif dead is not None and not self._tenant.is_superseded():
                await self._tenant.remote.remove_dead(dead, found)


def by_timeline(found: list[StoredObject]) -> Mapping[TimelineId, list[StoredObject]]:
    """A listing, cut into timelines."""
    parts: dict[TimelineId, list[StoredObject]] = {}
    for each in found:
        parts.setdefault(each.timeline_id, []).append(each)
    return parts
