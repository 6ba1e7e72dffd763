"""Tells the broker how far this safekeeper is, and hears from it how far its peers are.

Active timelines, and those that a standby reads, are published again and again; an idle one once
more when something changed, or when a peer turns out to know less, because otherwise that peer
would never become idle. The broker may be absent for any time: then others find less, and nothing
else happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from functools import partial

from storage.errors import BrokerError
from storage.ids import TenantId, TenantTimelineId, TimelineId
from storage.log import one_line
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.ports import Broker, BrokerUpdate
from storage.safekeeper.catch_up import CatchUp, PeerStatus
from storage.safekeeper.options import HTTP_PORT, WIRE_PORT
from storage.safekeeper.timeline import Timeline
from storage.safekeeper.timelines import Timelines
from storage.services import Service
from storage.tasks import interruptible

logger = logging.getLogger(__name__)

PREFIX = "seawall/timeline/"
PUBLISH_TIMEOUT_S = 5.0


def broker_key(timeline_id: TenantTimelineId, node: str) -> str:
    """Where a safekeeper publishes its status of a timeline (ARCHITECTURE.md)."""
    return f"{PREFIX}{timeline_id.tenant_id}/{timeline_id.timeline_id}/safekeeper/{node}"


def parse_key(key: str) -> tuple[TenantTimelineId, str] | None:
    """Timeline and node of a key; ``None`` for a key of something else."""
    parts = key.removeprefix(PREFIX).split("/")
    if len(parts) != 4 or parts[2] != "safekeeper":
        return None
    try:
        return TenantTimelineId(TenantId(parts[0]), TimelineId(parts[1])), parts[3]
    except ValueError:
        return None


@dataclass(frozen=True)
class BrokerServices:
    """Where it runs: the tasks on ``broker``, what touches timelines on ``wal``."""

    broker: Service
    wal: Service


class BrokerStatus:
    """Publishes active timelines and listens to peers; two tasks."""

    def __init__(
        self,
        broker: Broker,
        node: str,
        timelines: Timelines,
        catch_up: CatchUp,
        services: BrokerServices,
    ) -> None:
        self._broker = broker
        self._node = node
        self._timelines = timelines
        self._catch_up = catch_up
        self._options = catch_up.options
        self._services = services
        self._news = asyncio.Event()
        self._published: dict[TenantTimelineId, dict[str, str | int]] = {}
        self._commits: dict[TenantTimelineId, dict[str, Lsn]] = {}

    def activity(self, _timeline_id: TenantTimelineId) -> None:
        """A timeline may have become active: do not make pageservers wait for the next round."""
        self._services.broker.runtime.post(self._news.set)

    async def publish_always(self) -> None:
        """Publish every active timeline, again and again, until the task is asked to stop."""
        async with interruptible():
            while True:
                self._news.clear()
                try:
                    async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                        await self._publish_all()
                except (BrokerError, TimeoutError) as error:
                    reach(Mark.BROKER_LOST)
                    logger.info("publishing to the broker: %s", one_line(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._options.broker_publish_s):
                        await self._news.wait()

    async def _publish_all(self) -> None:
        due = await self._services.wal.runtime.call(self._due)
        for timeline_id, status in due:
            await self._broker.publish(
                broker_key(timeline_id, self._node),
                json.dumps(status).encode(),
                ttl_s=max(3 * self._options.broker_publish_s, 3.0),
            )
            self._published[timeline_id] = status

    async def _due(self) -> list[tuple[TenantTimelineId, dict[str, str | int]]]:
        """What others should know; on the WAL service."""
        found = [(timeline, self._status(timeline)) for timeline in self._timelines]
        return [
            (timeline.id, status)
            for timeline, status in found
            if timeline.active
            or timeline.connections.standby_horizon()
            or self._published.get(timeline.id) != status
        ]

    def _status(self, timeline: Timeline) -> dict[str, str | int]:
        acceptor = timeline.acceptor
        return {
            "node": self._node,
            "pg_addr": f"{self._node}:{WIRE_PORT}",
            "http_addr": f"{self._node}:{HTTP_PORT}",
            "term": acceptor.term,
            "last_log_term": acceptor.last_log_term,
            "flush_lsn": str(acceptor.flush_lsn),
            "commit_lsn": str(acceptor.commit_lsn),
            "backup_lsn": str(acceptor.backup_lsn),
            "remote_consistent_lsn": str(acceptor.remote_consistent_lsn),
            "peer_horizon_lsn": str(acceptor.peer_horizon_lsn),
            "active": timeline.active,
            "standby_horizon": str(timeline.connections.standby_horizon()),
            "local_start_lsn": str(acceptor.local_start_lsn),
        }

    async def listen_always(self) -> None:
        """Hear peers until the task is asked to stop; subscribe again when the stream breaks."""
        async with interruptible():
            while True:
                try:
                    async with self._broker.subscribe(PREFIX) as updates:
                        # Whoever knows more than we do answers by publishing again.
                        self._published.clear()
                        self._news.set()
                        async for update in updates:
                            await self._services.wal.runtime.call(partial(self._take, update))
                except BrokerError as error:
                    reach(Mark.BROKER_LOST)
                    logger.info("listening to the broker: %s", one_line(error))
                await asyncio.sleep(self._options.broker_retry_s)

    async def _take(self, update: BrokerUpdate) -> None:
        self.hear(update)

    def hear(self, update: BrokerUpdate) -> None:
        """Take a peer's status of a timeline that is here too; on the WAL service."""
        found = parse_key(update.key)
        if found is None or update.value is None or found[1] == self._node:
            return
        timeline = self._timelines.find(found[0])
        if timeline is None:
            return
        try:
            peer = _parse_status(update.value)
        except (ValueError, KeyError, TypeError) as error:
            logger.info("broker key %s holds no status: %r", update.key, error)
            return
        timeline.hear_peer(peer.last_log_term, peer.commit_lsn)
        timeline.hear_remote_consistent(peer.remote_consistent_lsn)
        timeline.hear_backup(peer.backup_lsn)
        self._hear_horizon(timeline, peer)
        self._catch_up.heard(timeline, peer)
        acceptor = timeline.acceptor
        if (
            peer.commit_lsn < acceptor.commit_lsn
            or peer.remote_consistent_lsn < acceptor.remote_consistent_lsn
            or peer.backup_lsn < acceptor.backup_lsn
            or peer.peer_horizon_lsn < acceptor.peer_horizon_lsn
        ):
            self._published.pop(timeline.id, None)

    def _hear_horizon(self, timeline: Timeline, peer: PeerStatus) -> None:
        """What every member knows to be committed is on every member's disk. A proposer tells that
        too, but WAL must not stay for ever where there is none."""
        commits = self._commits.setdefault(timeline.id, {})
        commits[peer.pg_addr] = peer.commit_lsn
        own = f"{self._node}:{WIRE_PORT}"
        others = [each for each in timeline.acceptor.identity.safekeepers if each != own]
        if all(each in commits for each in others):
            timeline.hear_horizon(min([commits[each] for each in others], default=peer.commit_lsn))


def _parse_status(value: bytes) -> PeerStatus:
    status = json.loads(value)
    return PeerStatus(
        node=str(status["node"]),
        pg_addr=str(status["pg_addr"]),
        http_addr=str(status["http_addr"]),
        last_log_term=int(status["last_log_term"]),
        commit_lsn=Lsn.parse(status["commit_lsn"]),
        backup_lsn=Lsn.parse(status["backup_lsn"]),
        remote_consistent_lsn=Lsn.parse(status["remote_consistent_lsn"]),
        peer_horizon_lsn=Lsn.parse(status["peer_horizon_lsn"]),
    )
