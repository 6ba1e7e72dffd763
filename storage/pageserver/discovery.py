"""Follows what safekeepers publish in the broker about a timeline: their WAL and their standbys."""

from __future__ import annotations

import asyncio
import json
import logging

from storage.errors import BrokerError
from storage.ids import TenantTimelineId
from storage.lsn import Lsn
from storage.pageserver.backoff import Backoff
from storage.pageserver.environment import Environment
from storage.pageserver.timeline import Timeline
from storage.pageserver.walreceiver import WalReceiver
from storage.ports import BrokerUpdate
from storage.tasks import interruptible

logger = logging.getLogger(__name__)


def status_prefix(ident: TenantTimelineId) -> str:
    """Under which keys the safekeepers of a timeline publish (ARCHITECTURE.md, "Broker keys")."""
    return f"seawall/timeline/{ident.tenant_id}/{ident.timeline_id}/safekeeper/"


class BrokerDiscovery:
    """Feeds one timeline from the broker; survives the broker's absence.

    Without a ``receiver`` WAL is found otherwise, and only standbys are listened for.
    """

    def __init__(
        self, environment: Environment, timeline: Timeline, receiver: WalReceiver | None
    ) -> None:
        self._broker = environment.ports.broker
        self._backoff = Backoff(environment.ports.entropy)
        self._ident = timeline.ident
        self._standbys = timeline.standbys
        self._receiver = receiver
        self._addresses: dict[str, str] = {}

    async def run(self) -> None:
        """Follow until the task is asked to stop; subscribe again whenever the stream breaks."""
        async with interruptible():
            while True:
                try:
                    await self._follow()
                except BrokerError as error:
                    logger.info("broker, timeline %s: %s", self._ident, error)
                self._standbys.deaf()
                await asyncio.sleep(self._backoff.next_delay_s())

    async def _follow(self) -> None:
        async with self._broker.subscribe(status_prefix(self._ident)) as updates:
            self._standbys.listening(_now_s())
            async for update in updates:
                self._backoff.reset()
                self.take(update)

    def take(self, update: BrokerUpdate) -> None:
        """Pass one update on; what is no status is ignored with a line in the log."""
        if update.value is None:
            self._withdraw(update.key)
            return
        try:
            status = json.loads(update.value)
            address = str(status["pg_addr"])
            commit_lsn = Lsn.parse(status["commit_lsn"])
            idle = not status["active"]
            standby_horizon = Lsn.parse(status["standby_horizon"])
        except (ValueError, KeyError, TypeError) as error:
            logger.info("broker key %s holds no safekeeper status: %r", update.key, error)
            return
        self._standbys.heard(standby_horizon, _now_s())
        if self._receiver is not None:
            self._addresses[update.key] = address
            self._receiver.announce(address, commit_lsn, idle=idle)

    def _withdraw(self, key: str) -> None:
        address = self._addresses.pop(key, None)
        if address is not None and self._receiver is not None:
            self._receiver.withdraw(address)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
