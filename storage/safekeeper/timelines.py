"""All timelines of one safekeeper: loaded before anything is served, made and deleted on request.

A deleted timeline leaves a tombstone, so that no late request brings it to life again as an empty
one that has forgotten its votes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from storage.durable import TEMPORARY_SUFFIX, replace_file
from storage.errors import BadRequest, Conflict, CorruptData, NotFound
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantId, TenantTimelineId, TimelineId
from storage.safekeeper.control import CONTROL_FILE, ControlFile
from storage.safekeeper.control_state import ControlState, TimelineIdentity
from storage.safekeeper.environment import Environment
from storage.safekeeper.flush_counts import FlushCounts
from storage.safekeeper.timeline import Timeline
from storage.wal.format import check_segment_size, page_magic

logger = logging.getLogger(__name__)

ROOT = "timelines"
STAGING = "staging"
"""Where copies from peers are built."""
TOMBSTONES = "tombstones"


class Timelines:
    """Timelines by id, in order of their creation."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._timelines: dict[TenantTimelineId, Timeline] = {}
        self._deleted: set[str] = set()
        self._changing: dict[TenantTimelineId, asyncio.Lock] = {}

    @property
    def flushes(self) -> FlushCounts:
        """What all of them have flushed."""
        return self._environment.flushes

    def __iter__(self) -> Iterator[Timeline]:
        return iter(list(self._timelines.values()))

    async def load_all(self) -> None:
        """Open every timeline on the disk. ``CorruptData`` or ``DiskError`` names the culprit.

        A directory without a control file holds a timeline whose creation was never confirmed.
        """
        disk = self._environment.disk
        for root in (ROOT, STAGING, TOMBSTONES):
            await disk.mkdir(root)
        await disk.rmtree(STAGING)
        await disk.sync_dir("")
        self._deleted = set(await disk.listdir(TOMBSTONES))
        for tenant in await disk.listdir(ROOT):
            for name in await disk.listdir(f"{ROOT}/{tenant}"):
                directory = f"{ROOT}/{tenant}/{name}"
                if (
                    _tombstone(TenantTimelineId(TenantId(tenant), TimelineId(name)))
                    in self._deleted
                ):
                    await disk.rmtree(directory)
                    continue
                names = await disk.listdir(directory)
                if CONTROL_FILE in names:
                    self._add(await Timeline.load(directory, self._environment), directory)
                elif all(found.endswith(TEMPORARY_SUFFIX) for found in names):
                    logger.info("%s: creation was never finished; ignored", directory)
                else:
                    raise CorruptData(f"{directory} has WAL but no {CONTROL_FILE}")

    def _change(self, timeline_id: TenantTimelineId) -> asyncio.Lock:
        """Held while a timeline comes or goes: a copy that takes long keeps no other waiting."""
        return self._changing.setdefault(timeline_id, asyncio.Lock())

    def _add(self, timeline: Timeline, directory: str) -> None:
        if directory != _directory(timeline.id):
            raise CorruptData(f"{directory} holds timeline {timeline.id}")
        self._timelines[timeline.id] = timeline

    def get(self, timeline_id: TenantTimelineId) -> Timeline:
        """The timeline; ``NotFound`` tells how to create it."""
        timeline = self._timelines.get(timeline_id)
        if timeline is None and self._is_deleted(timeline_id):
            raise NotFound(f"timeline {timeline_id} was deleted from this safekeeper")
        if timeline is None:
            raise NotFound(
                f"timeline {timeline_id} does not exist on this safekeeper; "
                f"POST /v1/tenant/{timeline_id.tenant_id}/timeline/{timeline_id.timeline_id} first"
            )
        return timeline

    def find(self, timeline_id: TenantTimelineId) -> Timeline | None:
        """The timeline, if it exists."""
        return self._timelines.get(timeline_id)

    async def create(self, identity: TimelineIdentity) -> Timeline:
        """Create a timeline durably; the same parameters again are harmless.

        ``Conflict`` names what differs, ``BadRequest`` what is impossible. ``DiskError``.
        """
        _check(identity)
        timeline_id = TenantTimelineId(identity.tenant_id, identity.timeline_id)
        async with self._change(timeline_id):
            existing = self._timelines.get(timeline_id)
            if existing is not None:
                _check_same(existing.acceptor.identity, identity)
                return existing
            await self.check_not_deleted(timeline_id)
            directory = _directory(timeline_id)
            disk = self._environment.disk
            await disk.mkdir(directory)
            await self._sync_parents(timeline_id)
            control = ControlState.created(identity)
            await ControlFile(disk, directory, control).save(control)
            timeline = await Timeline.load(directory, self._environment)
            self._add(timeline, directory)
            return timeline

    async def _sync_parents(self, timeline_id: TenantTimelineId) -> None:
        await self._environment.disk.sync_dir(ROOT)
        await self._environment.disk.sync_dir(f"{ROOT}/{timeline_id.tenant_id}")

    # ---- copies from peers

    @asynccontextmanager
    async def staging(self, timeline_id: TenantTimelineId) -> AsyncIterator[str | None]:
        """An empty directory to build a timeline in, removed at the end of the block unless it
        was adopted; ``None`` if the timeline exists by now. One at a time for each timeline.
        ``DiskError``."""
        disk = self._environment.disk
        directory = f"{STAGING}/{timeline_id.tenant_id}-{timeline_id.timeline_id}"
        async with self._change(timeline_id):
            if timeline_id in self._timelines:
                yield None
                return
            await self.check_not_deleted(timeline_id)
            await disk.rmtree(directory)
            await disk.mkdir(directory)
            try:
                yield directory
            finally:
                await disk.rmtree(directory)

    async def adopt(self, timeline_id: TenantTimelineId, staged: str) -> Timeline:
        """Give a timeline that was built in ``staged`` its place, durably and at once, and load it.

        Only within :meth:`staging`. ``CorruptData``, ``DiskError``.
        """
        assert self._change(timeline_id).locked(), "a timeline is adopted while it is staged"
        disk, directory = self._environment.disk, _directory(timeline_id)
        await disk.sync_dir(staged)
        await disk.mkdir(f"{ROOT}/{timeline_id.tenant_id}")
        await disk.rmtree(directory)
        await disk.rename(staged, directory)
        await self._sync_parents(timeline_id)
        timeline = await Timeline.load(directory, self._environment)
        self._add(timeline, directory)
        return timeline

    # ---- deletion

    def _is_deleted(self, timeline_id: TenantTimelineId) -> bool:
        return _tombstone(timeline_id) in self._deleted

    async def check_not_deleted(self, timeline_id: TenantTimelineId) -> None:
        """``Conflict`` if the timeline was deleted here: it cannot come back."""
        if self._is_deleted(timeline_id):
            raise Conflict(f"timeline {timeline_id} was deleted here; it cannot be made again")

    async def delete(self, timeline_id: TenantTimelineId) -> None:
        """Delete a timeline for good, durably; harmless if it is gone. ``DiskError``: try again.

        The tombstone comes first; then whatever works for the timeline is stopped, and only when
        nothing of it runs any more do its files go (BUGBANK ``delete-ignores-running-handlers``).
        """
        disk = self._environment.disk
        async with self._change(timeline_id):
            name = _tombstone(timeline_id)
            await replace_file(disk, f"{TOMBSTONES}/{name}", b"")
            self._deleted.add(name)
            await failpoint(Failpoint.SK_DELETE_AFTER_TOMBSTONE)
            timeline = self._timelines.pop(timeline_id, None)
            if timeline is not None:
                timeline.closing = True
                await self._stop_work(timeline_id)
            await disk.rmtree(_directory(timeline_id))
            await disk.sync_dir(ROOT)

    async def _stop_work(self, timeline_id: TenantTimelineId) -> None:
        """Return when no task but the caller's works for the timeline."""
        await self._environment.registry.shutdown(
            tenant_id=timeline_id.tenant_id, timeline_id=timeline_id.timeline_id
        )


def _directory(timeline_id: TenantTimelineId) -> str:
    return f"{ROOT}/{timeline_id.tenant_id}/{timeline_id.timeline_id}"


def _tombstone(timeline_id: TenantTimelineId) -> str:
    return f"{timeline_id.tenant_id}-{timeline_id.timeline_id}"


def timeline_id_of(tenant_id: str | None, timeline_id: str | None) -> TenantTimelineId:
    """A timeline's id from the settings of a connection; ``BadRequest`` says how to give them."""
    if tenant_id is None or timeline_id is None:
        raise BadRequest("no timeline: connect with options='-c tenant_id=… -c timeline_id=…'")
    try:
        return TenantTimelineId(TenantId(tenant_id), TimelineId(timeline_id))
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _check(identity: TimelineIdentity) -> None:
    page_magic(identity.pg_version)
    check_segment_size(identity.wal_segment_size)
    if identity.start_lsn == 0 or identity.start_lsn % 8:
        raise BadRequest(f"start_lsn {identity.start_lsn} is not a place where a record can begin")
    if not identity.safekeepers:
        raise BadRequest("safekeepers is empty; name the members, like sk0:5454")


def _check_same(ours: TimelineIdentity, theirs: TimelineIdentity) -> None:
    for name in TimelineIdentity.__dataclass_fields__:
        if getattr(ours, name) != getattr(theirs, name):
            raise Conflict(
                f"timeline {ours.tenant_id}/{ours.timeline_id} exists with {name} "
                f"{getattr(ours, name)}, not {getattr(theirs, name)}"
            )
