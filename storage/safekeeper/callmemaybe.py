"""Calls pageservers that lack WAL until a stream exists (SYSTEM.md A2).

A subscription (timeline, pageserver) is durable. It pauses while that pageserver streams, resumes
when the stream breaks, and goes when the pageserver answers that the tenant is not attached there,
or on request. Nobody is called for a timeline that is idle: no proposer writes and a pageserver
has made everything committed remotely consistent, so that a restart cannot make it lack WAL again.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from storage import checked_json
from storage.durable import read_settled, replace_file
from storage.errors import BadRequest, CorruptData, DiskError, FileMissing, NotFound, SeawallError
from storage.ids import TenantId, TenantTimelineId, TimelineId
from storage.log import one_line
from storage.marks import Mark, reach
from storage.safekeeper.environment import Environment
from storage.safekeeper.timelines import Timelines
from storage.tasks import (
    ShutdownRequested,
    TaskKind,
    current_registration,
    shutdown_requested,
    sleep_unless_shutdown,
)
from storage.wire.client import ConnectOptions, connect
from storage.wire.errors import ServerError

if TYPE_CHECKING:
    import random

logger = logging.getLogger(__name__)

FILE = "callmemaybe.json"
FORMAT_VERSION = 1
CALL_TIMEOUT_S = 5.0

Key = tuple[TenantTimelineId, str]


@dataclass
class Subscription:
    """One pageserver to call; ``wishes`` grows whenever somebody asks for it again."""

    timeline_id: TenantTimelineId
    pageserver: str
    wishes: int = 1
    failures: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class CallMeMaybe:
    """All subscriptions of one safekeeper, and the tasks that call."""

    def __init__(
        self,
        environment: Environment,
        timelines: Timelines,
        own_address: str,
        entropy: random.Random,
    ) -> None:
        self._environment = environment
        self._timelines = timelines
        self._own_address = own_address
        self._entropy = entropy
        self._subscriptions: dict[Key, Subscription] = {}
        self._saving = asyncio.Lock()

    async def load(self) -> None:
        """Read what was saved and start calling. ``CorruptData`` or ``DiskError``."""
        try:
            data = await read_settled(self._environment.disk, FILE)
        except FileMissing:
            return
        try:
            body = checked_json.decode(data, FORMAT_VERSION, FILE)
            for tenant_id, timeline_id, pageserver in body["subscriptions"]:
                ids = TenantTimelineId(TenantId(tenant_id), TimelineId(timeline_id))
                self._add(ids, pageserver)
        except (CorruptData, BadRequest, ValueError, KeyError, TypeError) as error:
            raise CorruptData(f"{FILE}: {error}; remove it to forget subscriptions") from error

    async def _save(self) -> None:
        async with self._saving:
            rows = [[*key[0], key[1]] for key in self._subscriptions]
            data = checked_json.encode({"subscriptions": rows}, FORMAT_VERSION)
            try:
                await replace_file(self._environment.disk, FILE, data)
            except DiskError as error:
                logger.info("subscriptions are not saved: %s", one_line(error))

    def subscriptions(self, timeline_id: TenantTimelineId) -> list[dict[str, str | bool]]:
        """The pageservers subscribed to a timeline, and whether they stream now."""
        return [
            {"pageserver": s.pageserver, "paused": self._is_paused(s)}
            for s in self._subscriptions.values()
            if s.timeline_id == timeline_id
        ]

    async def subscribe(self, timeline_id: TenantTimelineId, pageserver: str) -> None:
        """Call a pageserver, ``host:port``, whenever it lacks WAL; durable on return.

        A ``DiskError`` is logged, not raised: the calls begin all the same.
        """
        if self._add(timeline_id, pageserver):
            await self._save()

    async def unsubscribe(self, timeline_id: TenantTimelineId, pageserver: str) -> None:
        """Call it no more; harmless if it is not subscribed."""
        subscription = self._subscriptions.pop((timeline_id, pageserver), None)
        if subscription is not None:
            subscription.wake.set()
            await self._save()

    async def forget(self, timeline_id: TenantTimelineId) -> None:
        """The timeline was deleted: nobody is called for it any more."""
        for key in [key for key in self._subscriptions if key[0] == timeline_id]:
            await self.unsubscribe(*key)

    def _add(self, timeline_id: TenantTimelineId, pageserver: str) -> bool:
        """Whether the subscription is a new one."""
        _host_and_port(pageserver)
        existing = self._subscriptions.get((timeline_id, pageserver))
        if existing is not None:
            existing.wishes += 1
            existing.wake.set()
            return False
        subscription = Subscription(timeline_id, pageserver)
        self._subscriptions[(timeline_id, pageserver)] = subscription
        self._environment.spawn(
            TaskKind.CALLMEMAYBE, pageserver, self._call_always(subscription), timeline_id
        )
        return True

    def activity(self, timeline_id: TenantTimelineId) -> None:
        """The timeline may have become active."""
        for subscription in self._subscriptions.values():
            if subscription.timeline_id == timeline_id:
                subscription.wake.set()

    def _is_paused(self, subscription: Subscription) -> bool:
        """Whether that pageserver streams from here now."""
        timeline = self._timelines.find(subscription.timeline_id)
        host, _ = _host_and_port(subscription.pageserver)
        return timeline is not None and timeline.connections.has_reader(host)

    def _is_wanted(self, subscription: Subscription) -> bool:
        """Whether to call now."""
        timeline = self._timelines.find(subscription.timeline_id)
        return timeline is not None and timeline.active and not self._is_paused(subscription)

    def _is_live(self, subscription: Subscription) -> bool:
        key = (subscription.timeline_id, subscription.pageserver)
        return self._subscriptions.get(key) is subscription

    async def _call_always(self, subscription: Subscription) -> None:
        """Call while it is wanted, with growing pauses, until unsubscribed or asked to stop."""
        options = self._environment.options
        entry = current_registration()
        assert entry is not None, "the caller is a registered task"
        entry.on_shutdown(subscription.wake.set)
        while self._is_live(subscription) and not shutdown_requested():
            subscription.wake.clear()
            if self._is_wanted(subscription):
                await self._call(subscription)
                pause_s = min(options.recall_s * 2**subscription.failures, options.recall_max_s)
                await sleep_unless_shutdown(pause_s * self._entropy.uniform(0.5, 1.5))
            else:
                subscription.failures = 0
                await subscription.wake.wait()

    async def _call(self, subscription: Subscription) -> None:
        wishes = subscription.wishes
        host, port = _host_and_port(subscription.pageserver)
        tenant_id, timeline_id = subscription.timeline_id
        try:
            client = await connect(host, port, options=ConnectOptions(timeout_s=CALL_TIMEOUT_S))
            try:
                await client.query(f"callmemaybe {tenant_id} {timeline_id} {self._own_address}")
            finally:
                await client.close()
            subscription.failures = 0
        except ShutdownRequested:
            raise
        except ServerError as error:
            await self._refused(subscription, wishes, error)
        except (OSError, TimeoutError, EOFError, SeawallError) as error:
            subscription.failures += 1
            logger.info("calling %s: %s", subscription.pageserver, one_line(error))

    async def _refused(self, subscription: Subscription, wishes: int, error: ServerError) -> None:
        """Not attached there: forget it, unless somebody asked for it again meanwhile."""
        subscription.failures += 1
        logger.info("%s refuses to be called: %s", subscription.pageserver, error.message)
        if error.sqlstate == NotFound.sqlstate and subscription.wishes == wishes:
            reach(Mark.SUBSCRIPTION_REFUSED)
            await self.unsubscribe(subscription.timeline_id, subscription.pageserver)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise BadRequest(f"pageserver {address!r} is not host:port, like ps0:6400")
    return host, int(port)
