"""A member that lags while no proposer feeds it fetches committed WAL from S3 and from peers.

Only what a peer knows to be committed is taken: that WAL is in the log of every later leader, so
taking it can neither change an election nor contradict one (``Acceptor.begin_catching_up``).
Whole segments come from S3 as far as it has them, which spares the peers; the rest from the peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.consensus.fetch import Donor, RecordBorders, fetch_wal, host_and_port
from storage.consensus.term_history import TermHistory, TermSwitch
from storage.errors import ObjectStoreError, ProtocolError, SeawallError
from storage.http.client import call
from storage.ids import TenantTimelineId
from storage.log import one_line
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.safekeeper.environment import Environment
from storage.safekeeper.state import Acceptor
from storage.safekeeper.timeline import Timeline
from storage.tasks import ShutdownRequested, TaskKind, interruptible

if TYPE_CHECKING:
    import random

logger = logging.getLogger(__name__)

_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What a peer tells of a timeline through the broker; addresses are ``host:port``."""

    node: str
    pg_addr: str
    http_addr: str
    last_log_term: int
    commit_lsn: Lsn
    backup_lsn: Lsn
    remote_consistent_lsn: Lsn
    peer_horizon_lsn: Lsn


class CatchUp:
    """Catches up each timeline of one node that needs it; one task for each."""

    def __init__(self, node: str, environment: Environment, entropy: random.Random) -> None:
        self._node = node
        self._environment = environment
        self.options = environment.options
        self._entropy = entropy
        self._ahead: dict[TenantTimelineId, PeerStatus] = {}

    def heard(self, timeline: Timeline, peer: PeerStatus) -> None:
        """A peer's newest status: remember who is furthest ahead, and begin if nobody else will."""
        if not lags(timeline, peer.commit_lsn):
            return
        known = self._ahead.get(timeline.id)
        if known is None:
            self._ahead[timeline.id] = peer
            self._environment.spawn(
                TaskKind.WAL_RECOVERY, "catch up", self._run(timeline), timeline.id
            )
        elif peer.commit_lsn >= known.commit_lsn:
            self._ahead[timeline.id] = peer

    async def _run(self, timeline: Timeline) -> None:
        try:
            async with interruptible():
                while lags(timeline, self._ahead[timeline.id].commit_lsn):
                    # A proposer that comes meanwhile brings the WAL itself.
                    await asyncio.sleep(self.options.catch_up_s * self._entropy.uniform(0.5, 1.5))
                    await self._try(timeline)
        except ShutdownRequested:
            return
        finally:
            del self._ahead[timeline.id]

    async def _try(self, timeline: Timeline) -> None:
        try:
            await self._catch_up(timeline)
        except ShutdownRequested:
            raise
        except (OSError, TimeoutError, EOFError, SeawallError) as error:
            logger.info("catching up of %s: %s", timeline.id, one_line(error))

    async def _catch_up(self, timeline: Timeline) -> None:
        peer = self._ahead[timeline.id]
        if lags(timeline, peer.commit_lsn) and peer.backup_lsn > timeline.acceptor.flush_lsn:
            try:
                await self._from_remote(timeline)
            except ObjectStoreError as error:
                logger.info("%s: S3 does not help: %s", timeline.id, one_line(error))
        peer = self._ahead[timeline.id]
        if lags(timeline, peer.commit_lsn):
            await self._from_peer(timeline, peer)

    async def _from_remote(self, timeline: Timeline) -> None:
        found = await timeline.remote.manifest()
        if found is None:
            return
        manifest = found[0]
        until_lsn = manifest.backup_lsn
        begin_lsn = await timeline.begin_catching_up(manifest.term_history, until_lsn)
        if begin_lsn >= until_lsn:
            return
        reach(Mark.CAUGHT_UP_FROM_REMOTE)
        logger.info("%s: catching up %s..%s from S3", timeline.id, begin_lsn, until_lsn)
        borders = _borders(timeline, begin_lsn)
        async with aclosing(_remote_bytes(timeline, begin_lsn, until_lsn)) as chunks:
            async for data in chunks:
                at_lsn = borders.begin_lsn
                if piece := borders.feed(data):
                    await timeline.catch_up(at_lsn, piece)

    async def _from_peer(self, timeline: Timeline, peer: PeerStatus) -> None:
        history, until_lsn = await _history_of(timeline.id, peer)
        begin_lsn = await timeline.begin_catching_up(history, until_lsn)
        if begin_lsn >= until_lsn:
            return
        reach(Mark.CAUGHT_UP_FROM_PEER)
        logger.info("%s: catching up %s..%s from %s", timeline.id, begin_lsn, until_lsn, peer.node)
        identity = timeline.acceptor.identity
        donor = Donor(
            address=peer.pg_addr,
            tenant_id=identity.tenant_id,
            timeline_id=identity.timeline_id,
            reader=self._node,
            term=None,
            system_id=identity.system_id,
            pg_version=identity.pg_version,
            wal_segment_size=identity.wal_segment_size,
            silence_max_s=self._environment.options.silence_max_s,
        )
        async with aclosing(fetch_wal(donor, begin_lsn, until_lsn)) as pieces:
            async for piece in pieces:
                await timeline.catch_up(begin_lsn, piece)
                begin_lsn = Lsn(begin_lsn + len(piece))


def lags(timeline: Timeline, commit_lsn: Lsn) -> bool:
    """Whether WAL up to ``commit_lsn`` must be fetched: nobody who writes is connected."""
    acceptor: Acceptor = timeline.acceptor
    return timeline.connections.pushers == 0 and acceptor.commit_lsn < commit_lsn


def _borders(timeline: Timeline, begin_lsn: Lsn) -> RecordBorders:
    identity = timeline.acceptor.identity
    return RecordBorders(begin_lsn, identity.pg_version, identity.wal_segment_size)


async def _remote_bytes(
    timeline: Timeline, begin_lsn: Lsn, end_lsn: Lsn
) -> AsyncGenerator[bytes, None]:
    size = timeline.segments.segment_size
    while begin_lsn < end_lsn:
        segment_end_lsn = begin_lsn - begin_lsn % size + size
        piece_end_lsn = Lsn(min(end_lsn, segment_end_lsn, begin_lsn + _PIECE_BYTES))
        yield await timeline.remote.read(begin_lsn, piece_end_lsn)
        begin_lsn = piece_end_lsn


async def _history_of(timeline_id: TenantTimelineId, peer: PeerStatus) -> tuple[TermHistory, Lsn]:
    """A peer's term history and commit_lsn, of one moment."""
    host, port = host_and_port(peer.http_addr)
    path = f"/v1/tenant/{timeline_id.tenant_id}/timeline/{timeline_id.timeline_id}"
    status = await call("GET", host, port, path)
    try:
        switches = tuple(TermSwitch(s["term"], Lsn.parse(s["lsn"])) for s in status["term_history"])
        return TermHistory(switches), Lsn.parse(status["commit_lsn"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"{peer.node} tells no history of its WAL: {error!r}") from error
