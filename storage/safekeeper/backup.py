"""WAL offload: whole committed segments of each timeline go to S3, by one elected member.

A timeline gets a task when a whole committed segment is not in S3, and the task ends when nothing
is left to do. Members with such a task campaign in the broker; who wins claims the manifest in S3
with its fencing token, uploads, and steps down. A lease proves nothing at the bucket: whoever is
fenced off there stops, whatever it believes (see ``remote_wal.py``). What each of these
protections is for: docs/decisions/0012-what-fences-an-offloader.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from storage.errors import BrokerError, CorruptData, NotReady, PortError
from storage.events import emit
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantTimelineId
from storage.log import one_line
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.ports import Broker, Leadership, Ports
from storage.safekeeper.environment import Environment
from storage.safekeeper.remote_wal import Manifest, Superseded
from storage.safekeeper.timeline import Timeline
from storage.safekeeper.timelines import Timelines
from storage.tasks import ShutdownRequested, TaskKind, interruptible

if TYPE_CHECKING:
    import random

logger = logging.getLogger(__name__)

RESIGN_TIMEOUT_S = 2.0
"""How long giving up a lease may take; it runs out by itself otherwise."""


def election_of(timeline_id: TenantTimelineId) -> str:
    """The broker's election of a timeline's offloader (ARCHITECTURE.md)."""
    return f"seawall/election/{timeline_id.tenant_id}/{timeline_id.timeline_id}/wal-backup"


class WalBackup:
    """Launches an offloader for each timeline that needs one, and no longer."""

    def __init__(
        self, node: str, ports: Ports, environment: Environment, timelines: Timelines
    ) -> None:
        self.node = node
        self.broker: Broker = ports.broker
        self.entropy: random.Random = ports.entropy
        self._environment = environment
        self._timelines = timelines
        self._offloaders: dict[TenantTimelineId, Offloader] = {}

    def activity(self, timeline_id: TenantTimelineId) -> None:
        """A timeline's commit_lsn or backup_lsn may have moved: launch, or let go."""
        timeline = self._timelines.find(timeline_id)
        running = self._offloaders.get(timeline_id)
        if running is not None:
            running.look()
        elif timeline is not None and self.is_needed(timeline):
            offloader = Offloader(self, timeline, self._environment)
            self._offloaders[timeline_id] = offloader
            self._environment.spawn(
                TaskKind.WAL_BACKUP, "offload", self._run(offloader), timeline_id
            )

    def look_at_all(self) -> None:
        """Launch what is needed for every timeline, after they were loaded."""
        for timeline in self._timelines:
            self.activity(timeline.id)

    def is_needed(self, timeline: Timeline) -> bool:
        """Whether this member should offload something of a timeline, if it is elected."""
        acceptor = timeline.acceptor
        if self._environment.options.backup_lease_s == 0 or timeline.closing:
            return False
        return acceptor.backup_due() and acceptor.may_back_up()

    async def _run(self, offloader: Offloader) -> None:
        try:
            await offloader.run()
        finally:
            removed = self._offloaders.pop(offloader.timeline.id, None)
            assert removed is offloader, "one offloader at a time"


class Offloader:
    """One timeline's task on one member: campaigns, leads, steps down, while there is need."""

    def __init__(self, backup: WalBackup, timeline: Timeline, environment: Environment) -> None:
        self.timeline = timeline
        self._backup = backup
        self._environment = environment
        self._options = environment.options
        self._campaign_end: asyncio.Timeout | None = None

    def look(self) -> None:
        """Something has changed: a campaign that is needed no more ends."""
        end = self._campaign_end
        if end is not None and not end.expired() and not self._is_needed():
            end.reschedule(asyncio.get_running_loop().time())

    def _is_needed(self) -> bool:
        return self._backup.is_needed(self.timeline)

    async def run(self) -> None:
        """Until nothing is left to offload, or the task is asked to stop."""
        with contextlib.suppress(ShutdownRequested):
            async with interruptible():
                while self._is_needed():
                    try:
                        await self._attend()
                    except (PortError, NotReady) as error:
                        logger.info("offload of %s: %s", self.timeline.id, one_line(error))
                    except CorruptData as error:
                        self._alarm(error)
                        return
                    await self._pause()

    async def _pause(self) -> None:
        if self._is_needed():
            retry_s = self._options.backup_retry_s
            await asyncio.sleep(retry_s * self._backup.entropy.uniform(0.5, 1.5))

    def _alarm(self, error: CorruptData) -> None:
        """S3 has other WAL than this member: nobody may overwrite either."""
        logger.error("offload of %s stops: %s", self.timeline.id, error)
        emit("alarm", reason="wal-backup", message=str(error))

    async def _attend(self) -> None:
        leadership = await self._campaign()
        if leadership is None:
            return
        try:
            await self._lead(leadership)
        finally:
            await self._step_down(leadership)

    async def _campaign(self) -> Leadership | None:
        """Wait for the leadership; ``None`` when there is nothing to do with it any more."""
        election = election_of(self.timeline.id)
        try:
            async with asyncio.timeout(None) as self._campaign_end:
                self.look()
                return await self._backup.broker.campaign(
                    election, self._backup.node, ttl_s=self._options.backup_lease_s
                )
        except TimeoutError:
            return None
        finally:
            self._campaign_end = None

    async def _step_down(self, leadership: Leadership) -> None:
        """End the lease, so that another is elected at once and nothing keeps it alive."""
        try:
            async with asyncio.timeout(RESIGN_TIMEOUT_S):
                await leadership.resign()
        except (BrokerError, TimeoutError) as error:
            logger.info("resigning as offloader of %s: %s", self.timeline.id, one_line(error))

    async def _lead(self, leadership: Leadership) -> None:
        """Offload until nothing is left or the lease is lost."""
        emit("offloader", **self._ids(), node=self._backup.node, token=leadership.fencing_token)
        try:
            async with asyncio.timeout(None) as reign:
                watcher = self._environment.spawn(
                    TaskKind.WAL_BACKUP, "lease", _watch(leadership, reign), self.timeline.id
                )
                try:
                    await self._offload(leadership.fencing_token)
                finally:
                    watcher.cancel()
                    await asyncio.wait([watcher])
        except TimeoutError:
            raise BrokerError("the lease of the offloader is lost") from None

    def _ids(self) -> dict[str, str]:
        return {"tenant": self.timeline.id.tenant_id, "timeline": self.timeline.id.timeline_id}

    async def _offload(self, token: int) -> None:
        manifest, etag = await self._claim(token)
        self.timeline.hear_backup(manifest.backup_lsn)
        while self._is_needed():
            manifest, etag = await self._offload_segment(manifest, etag)
            self.timeline.hear_backup(manifest.backup_lsn)

    async def _claim(self, token: int) -> tuple[Manifest, str]:
        """Fence off every offloader before this one; ``Superseded`` if a later one was here."""
        await failpoint(Failpoint.SK_BEFORE_BACKUP_CLAIM)
        remote, acceptor = self.timeline.remote, self.timeline.acceptor
        found = await remote.manifest()
        manifest, etag = found or (Manifest.created(acceptor.identity), None)
        if manifest.fencing_token >= token:
            await self._check_still_leading(manifest)
            token = manifest.fencing_token + 1
        manifest = manifest.claimed(token, self._backup.node)
        return manifest, await remote.replace_manifest(manifest, etag)

    async def _check_still_leading(self, manifest: Manifest) -> None:
        """A manifest whose token is not below ours: is a later offloader's, ``Superseded``, or of
        a broker that has lost its memory since, and so counts from the beginning again.

        Asked after the manifest was read: whoever is elected after the answer claims after that
        reading, and then ours is refused, or before it, and then ours is the etag that is stale.
        """
        if await self._backup.broker.leader(election_of(self.timeline.id)) != self._backup.node:
            reach(Mark.OFFLOADER_FENCED)
            raise Superseded(f"offloader {manifest.node} came after ours: {manifest.fencing_token}")

    async def _offload_segment(self, manifest: Manifest, etag: str) -> tuple[Manifest, str]:
        """The next segment, then the manifest that says so."""
        timeline = self.timeline
        size = timeline.segments.segment_size
        segment = timeline.acceptor.backup_lsn // size
        end_lsn = Lsn((segment + 1) * size)
        assert end_lsn <= timeline.acceptor.commit_lsn, "only what is committed is offloaded"
        data = await timeline.segments.read_segment(segment, 0, size)
        if len(data) != size:
            raise CorruptData(f"segment {segment} of {timeline.id} has {len(data)} of {size} bytes")
        await failpoint(Failpoint.SK_BEFORE_BACKUP_PUT)
        await timeline.remote.put_segment(segment, data)
        await failpoint(Failpoint.SK_AFTER_BACKUP_PUT)
        history = timeline.acceptor.term_history.up_to(end_lsn)
        manifest = manifest.advanced(end_lsn, history)
        etag = await timeline.remote.replace_manifest(manifest, etag)
        reach(Mark.SEGMENT_OFFLOADED)
        logger.info("offloaded segment %s of %s", segment, timeline.id)
        return manifest, etag


async def _watch(leadership: Leadership, reign: asyncio.Timeout) -> None:
    """End the reign when the lease is lost."""
    with contextlib.suppress(ShutdownRequested):
        async with interruptible():
            await leadership.lost()
            reign.reschedule(asyncio.get_running_loop().time())
