"""All timelines of one safekeeper: loaded before anything is served, created on request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from storage.durable import TEMPORARY_SUFFIX
from storage.errors import BadRequest, Conflict, CorruptData, NotFound
from storage.ids import TenantId, TenantTimelineId, TimelineId
from storage.safekeeper.control import CONTROL_FILE, ControlFile
from storage.safekeeper.environment import Environment
from storage.safekeeper.flush_counts import FlushCounts
from storage.safekeeper.options import SafekeeperOptions
from storage.safekeeper.state import ControlState, TimelineIdentity
from storage.safekeeper.timeline import Timeline
from storage.wal.format import check_segment_size, page_magic

logger = logging.getLogger(__name__)

ROOT = "timelines"


class Timelines:
    """Timelines by id, in order of their creation."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._timelines: dict[TenantTimelineId, Timeline] = {}
        self._creating = asyncio.Lock()

    @property
    def options(self) -> SafekeeperOptions:
        """The node's."""
        return self._environment.options

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
        await disk.mkdir(ROOT)
        await disk.sync_dir("")
        for tenant in await disk.listdir(ROOT):
            for name in await disk.listdir(f"{ROOT}/{tenant}"):
                directory = f"{ROOT}/{tenant}/{name}"
                names = await disk.listdir(directory)
                if CONTROL_FILE in names:
                    self._add(await Timeline.load(directory, self._environment), directory)
                elif all(found.endswith(TEMPORARY_SUFFIX) for found in names):
                    logger.info("%s: creation was never finished; ignored", directory)
                else:
                    raise CorruptData(f"{directory} has WAL but no {CONTROL_FILE}")

    def _add(self, timeline: Timeline, directory: str) -> None:
        if directory != _directory(timeline.id):
            raise CorruptData(f"{directory} holds timeline {timeline.id}")
        self._timelines[timeline.id] = timeline

    def get(self, timeline_id: TenantTimelineId) -> Timeline:
        """The timeline; ``NotFound`` tells how to create it."""
        timeline = self._timelines.get(timeline_id)
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
        async with self._creating:
            existing = self._timelines.get(timeline_id)
            if existing is not None:
                _check_same(existing.acceptor.identity, identity)
                return existing
            directory = _directory(timeline_id)
            disk = self._environment.disk
            await disk.mkdir(directory)
            await disk.sync_dir(ROOT)
            await disk.sync_dir(f"{ROOT}/{identity.tenant_id}")
            control = ControlState.created(identity)
            await ControlFile(disk, directory, control).save(control)
            timeline = await Timeline.load(directory, self._environment)
            self._add(timeline, directory)
            return timeline


def _directory(timeline_id: TenantTimelineId) -> str:
    return f"{ROOT}/{timeline_id.tenant_id}/{timeline_id.timeline_id}"


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
