"""Copies a timeline from a peer: a member that never had it becomes one with the peer's log.

The copy is built beside the timelines and gets its place, durably and at once, when it is whole.
It is for new members: one whose disk was lost has forgotten its votes, and may join only as
another member. The term is the highest that any donor knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast

from storage.consensus.fetch import connect_options, host_and_port
from storage.errors import BadRequest, NotReady, ProtocolError, SeawallError
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantTimelineId
from storage.log import one_line
from storage.lsn import Lsn
from storage.safekeeper.control import ControlFile
from storage.safekeeper.environment import Environment
from storage.safekeeper.segments import WalSegments
from storage.safekeeper.snapshot import TRAILER, Snapshot
from storage.safekeeper.timeline import Timeline
from storage.safekeeper.timelines import Timelines
from storage.wire.client import connect

logger = logging.getLogger(__name__)

EXPECTED_FAILURES = (OSError, TimeoutError, EOFError, SeawallError)


@dataclass(frozen=True, slots=True)
class DonorStatus:
    """A donor (``host:port`` of its WAL service) and how far it is."""

    address: str
    term: int
    last_log_term: int
    flush_lsn: Lsn


class Puller:
    """Pulls timelines to one node, one at a time for each."""

    def __init__(self, node: str, environment: Environment, timelines: Timelines) -> None:
        self._node = node
        self._environment = environment
        self._timelines = timelines

    async def pull(self, timeline_id: TenantTimelineId, donors: Sequence[str]) -> Timeline:
        """Copy the timeline from the best of ``donors``; one that is here already is harmless.

        ``BadRequest`` for what are no addresses, ``Conflict`` if it was deleted here, ``NotReady``
        if no donor gave all of it.
        """
        if not donors:
            raise BadRequest("donors is empty; name members that have it, like sk0:5454")
        for address in donors:
            _check_address(address)
        existing = self._timelines.find(timeline_id)
        if existing is not None:
            return existing
        await self._timelines.check_not_deleted(timeline_id)
        statuses = [s for s in [await self._ask(timeline_id, a) for a in donors] if s is not None]
        if not statuses:
            raise NotReady(f"none of the donors {', '.join(donors)} has {timeline_id}")
        best = max(statuses, key=lambda status: (status.last_log_term, status.flush_lsn))
        term = max(status.term for status in statuses)
        try:
            return await self._copy(timeline_id, best, term)
        except EXPECTED_FAILURES as error:
            raise NotReady(
                f"copying {timeline_id} from {best.address}: {one_line(error)}"
            ) from error

    async def _ask(self, timeline_id: TenantTimelineId, address: str) -> DonorStatus | None:
        host, port = host_and_port(address)
        try:
            client = await connect(host, port, options=self._options(timeline_id))
            try:
                result = await client.query("TIMELINE_STATUS")
            finally:
                await client.close()
            rows: dict[str, Any] = dict(cast(list[tuple[str, str]], result.rows))
            return DonorStatus(
                address, int(rows["term"]), int(rows["last_log_term"]), Lsn.parse(rows["flush_lsn"])
            )
        except EXPECTED_FAILURES as error:
            logger.info("%s cannot give %s: %s", address, timeline_id, one_line(error))
            return None

    def _options(self, timeline_id: TenantTimelineId) -> Any:
        silence_max_s = self._environment.options.silence_max_s
        return connect_options(*timeline_id, silence_max_s, reader=self._node)

    async def _copy(self, timeline_id: TenantTimelineId, donor: DonorStatus, term: int) -> Timeline:
        async with self._timelines.staging(timeline_id) as directory:
            if directory is None:
                return self._timelines.get(timeline_id)
            host, port = host_and_port(donor.address)
            client = await connect(host, port, options=self._options(timeline_id))
            try:
                chunks = client.copy_out("START_SNAPSHOT")
                async with aclosing(cast(Any, chunks)) as stream:
                    await self._receive(directory, stream, timeline_id, term)
            finally:
                await client.close()
            await failpoint(Failpoint.SK_PULL_BEFORE_COMMIT)
            return await self._timelines.adopt(timeline_id, directory)

    async def _receive(
        self,
        directory: str,
        stream: AsyncIterator[bytes],
        timeline_id: TenantTimelineId,
        term: int,
    ) -> None:
        """Header, WAL and trailer; ``ProtocolError`` if anything is missing."""
        snapshot = Snapshot.decode(await self._next(stream), f"the donor of {timeline_id}")
        identity = snapshot.control.identity
        if TenantTimelineId(identity.tenant_id, identity.timeline_id) != timeline_id:
            raise ProtocolError(f"the donor of {timeline_id} sends {identity.timeline_id}")
        disk = self._environment.disk
        segments = WalSegments(disk, directory, identity.wal_segment_size)
        position, last = snapshot.begin_lsn, b""
        while chunk := await self._next(stream):
            last = chunk
            if position < snapshot.end_lsn:
                await segments.write(position, [last])
                position = Lsn(position + len(last))
        await segments.close()
        if position != snapshot.end_lsn or last != TRAILER:
            raise ProtocolError(f"the copy of {timeline_id} ends at {position} without its trailer")
        control = replace(snapshot.control, term=max(term, snapshot.control.term))
        await ControlFile(disk, directory, control).save(control)

    async def _next(self, stream: AsyncIterator[bytes]) -> bytes:
        """What the donor sends next, nothing at its end; ``TimeoutError`` when it has gone."""
        async with asyncio.timeout(self._environment.options.silence_max_s):
            return await anext(stream, b"")


def _check_address(address: str) -> None:
    try:
        host_and_port(address)
    except ValueError as error:
        raise BadRequest(f"donor {error}") from None
