"""A tenant attached to this pageserver: its timelines, and what runs for them.

Loading takes the newest index of every timeline from the object store, all of them or none, and
uses local layer files only as far as an index names them. A tenant that was attached elsewhere
since (``superseded``) still serves reads, but uploads and deletes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from storage.errors import CorruptData, NotFound
from storage.events import emit
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantId, TenantTimelineId, TimelineId, is_id
from storage.log import one_line
from storage.lsn import INVALID_LSN
from storage.marks import Mark, reach
from storage.pageserver.burial import bury
from storage.pageserver.compaction import Compactor
from storage.pageserver.discovery import BrokerDiscovery
from storage.pageserver.environment import Environment
from storage.pageserver.flush import Flusher
from storage.pageserver.gc import Collector
from storage.pageserver.index import TimelineIndex
from storage.pageserver.layer_files import LayerFiles, tenant_directory
from storage.pageserver.modification import Modification
from storage.pageserver.options import Discovery
from storage.pageserver.remote import RemoteTenant
from storage.pageserver.scrub import Scrubber
from storage.pageserver.states import State, StateCell
from storage.pageserver.timeline import Timeline
from storage.pageserver.uploader import Uploader
from storage.pageserver.walreceiver import WalReceiver
from storage.tasks import ShutdownRequested, TaskKind

logger = logging.getLogger(__name__)


class Tenant:
    """One attachment of a tenant; a new attachment is a new object."""

    def __init__(self, environment: Environment, tenant_id: TenantId) -> None:
        self.tenant_id = tenant_id
        self.state = StateCell(f"tenant {tenant_id}")
        self.remote = RemoteTenant(
            tenant_id, environment.ports.objects, environment.options, environment.ports.entropy
        )
        self.generation = 0
        self.superseded = False
        self.missing: NotFound | None = None
        self.timelines: dict[TimelineId, Timeline] = {}
        self.receivers: dict[TimelineId, WalReceiver] = {}
        self.collectors: dict[TimelineId, Collector] = {}
        self.compactors: dict[TimelineId, Compactor] = {}
        self.dead: dict[TimelineId, TimelineIndex] = {}
        self.environment = environment
        self.on_spoilt: Callable[[], None] = lambda: None
        self.successor: Tenant | None = None
        self._stopped = asyncio.Event()

    def set_state(self, state: State, reason: str = "") -> None:
        """Go on to another state, and report it."""
        self.state.set(state, reason)
        emit("tenant_state", tenant=self.tenant_id, state=str(state))

    def is_superseded(self) -> bool:
        """Whether it is known that the tenant was attached elsewhere since."""
        return self.superseded or any(t.uploader.superseded for t in self.timelines.values())

    # Becoming active.

    async def load(self, generation: int, *, superseded: bool) -> None:
        """Take over what the object store holds, and serve.

        Raises ``PortError`` (an object vanished meanwhile, for one: load again) and
        ``CorruptData``; nothing serves then.
        """
        assert not self.timelines, "loaded already"
        self.generation, self.superseded = generation, superseded
        indexes = await self.remote.indexes()
        dead = [index for index in indexes.values() if is_dead(index, indexes)]
        for index in dead:
            del indexes[index.timeline_id]
        await self._remove_unknown(indexes)
        loaded: dict[TimelineId, Timeline] = {}
        settled_at_s = _now_s() + self.environment.options.lease_length_s
        for index in ancestors_first(indexes):
            timeline = await self._load_timeline(index, loaded)
            timeline.leases.settled_at_s = settled_at_s
            timeline.standbys.deaf()
            loaded[index.timeline_id] = timeline
        await failpoint(Failpoint.PS_ATTACH_LOADED)
        self.timelines = loaded
        self.dead = {index.timeline_id: index for index in dead}
        self.set_state(State.ACTIVE)
        self._bury(dead)
        self.environment.registry.spawn(
            TaskKind.SCRUB, str(self.tenant_id), Scrubber(self).run(), tenant_id=self.tenant_id
        )
        for timeline in loaded.values():
            self._activate(timeline)
            timeline.uploader.put_index(timeline.index())

    async def _remove_unknown(self, indexes: dict[TimelineId, TimelineIndex]) -> None:
        """Remove directories of timelines that have no index, and nothing else."""
        disk = self.environment.ports.disk
        directory = f"{tenant_directory(self.tenant_id)}/timelines"
        await disk.mkdir(directory)
        for name in await disk.listdir(directory):
            if is_id(name) and name not in indexes:
                logger.info("removing %s/%s: it has no index", directory, name)
                await disk.rmtree(f"{directory}/{name}")

    def _bury(self, dead: list[TimelineIndex]) -> None:
        """Go on removing what deleted timelines and failed branches left in the object store."""
        if self.superseded:
            return
        for index in dead:
            self.environment.registry.spawn(
                TaskKind.DELETION,
                str(index.timeline_id),
                bury(self.remote, index),
                tenant_id=self.tenant_id,
            )

    async def _load_timeline(
        self, index: TimelineIndex, loaded: dict[TimelineId, Timeline]
    ) -> Timeline:
        environment = self.environment
        ident = TenantTimelineId(self.tenant_id, index.timeline_id)
        files = LayerFiles(environment, ident, self.remote)
        uploader = Uploader(environment, self.remote, index.timeline_id, self.generation)
        uploader.superseded = files.keeps_all = self.superseded
        files.is_newest = uploader.is_newest
        uploader.on_spoilt = self.on_spoilt
        timeline = Timeline(environment, ident, index, files, uploader)
        timeline.layers.replace(remove=(), add=await files.load(index.layers))
        if index.ancestor_timeline_id is not None:
            timeline.ancestor = loaded[index.ancestor_timeline_id]
            timeline.ancestor.branch_points.born(index.timeline_id, timeline)
        return timeline

    def _activate(self, timeline: Timeline) -> None:
        """Let a timeline serve, and start its tasks."""
        environment = self.environment
        receiver = WalReceiver(timeline)
        timeline.on_positions = receiver.positions_moved
        self.receivers[timeline.ident.timeline_id] = receiver
        collector = self.collectors[timeline.ident.timeline_id] = Collector(timeline)
        compactor = self.compactors[timeline.ident.timeline_id] = Compactor(timeline)
        finds_wal = environment.options.discovery is Discovery.BROKER
        follower = BrokerDiscovery(environment, timeline, receiver if finds_wal else None)
        timeline.state.set(State.ACTIVE)
        work = [
            (TaskKind.LAYER_FLUSH, Flusher(timeline).run()),
            (TaskKind.UPLOAD, timeline.uploader.run()),
            (TaskKind.COMPACTION, compactor.run()),
            (TaskKind.GC, collector.run()),
            (TaskKind.WAL_RECEIVER, receiver.run()),
            (TaskKind.BROKER_SUBSCRIBER, follower.run()),
        ]
        for kind, coroutine in work:
            environment.registry.spawn(
                kind,
                str(timeline.ident),
                _or_break_down(timeline, kind, coroutine),
                tenant_id=self.tenant_id,
                timeline_id=timeline.ident.timeline_id,
            )

    def is_deleted(self, timeline_id: TimelineId) -> bool:
        """Whether a timeline was deleted for good, which a branch that failed was not."""
        return timeline_id in self.dead and self.dead[timeline_id].deleted

    def timeline(self, timeline_id: TimelineId) -> Timeline:
        """A timeline of this tenant; ``NotFound``, or ``NotReady`` while attaching."""
        timeline = self.timelines.get(timeline_id)
        if timeline is None:
            self.state.check_active()
            raise NotFound(f"tenant {self.tenant_id} has no timeline {timeline_id}")
        return timeline

    def call_me_maybe(self, timeline_id: TimelineId, safekeeper: str) -> None:
        """A safekeeper (``host:port``) says that it has WAL which this pageserver lacks."""
        self.timeline(timeline_id).state.check_active()
        memory_s = self.environment.options.callmemaybe_memory_s
        self.receivers[timeline_id].announce(
            safekeeper, INVALID_LSN, expires_at_s=_now_s() + memory_s
        )

    async def add_timeline(self, index: TimelineIndex, etag: str) -> Timeline:
        """Serve a timeline whose index was just created in the object store."""
        self.state.check_active()
        assert index.timeline_id not in self.timelines, f"{index.timeline_id} is here already"
        timeline = await self._load_timeline(index, self.timelines)
        timeline.uploader.adopt_index(etag)
        self.timelines[index.timeline_id] = timeline
        self._activate(timeline)
        return timeline

    async def import_timeline(
        self, index: TimelineIndex, fill: Callable[[Modification], Awaitable[None]]
    ) -> Timeline:
        """Make a timeline with content: it exists once all of it is in the object store.

        ``fill`` puts everything into one modification, visible at ``index.initdb_lsn``.
        """
        self.state.check_active()
        assert index.timeline_id not in self.timelines, f"{index.timeline_id} is here already"
        timeline = await self._load_timeline(index, self.timelines)
        timeline.modification.begin(INVALID_LSN, index.initdb_lsn)
        await fill(timeline.modification)
        timeline.modification.commit()
        timeline.freeze()
        await Flusher(timeline).flush_oldest()
        await timeline.uploader.drain()
        self.timelines[index.timeline_id] = timeline
        self._activate(timeline)
        return timeline

    # Ending.

    async def forget(self, timeline: Timeline) -> None:
        """Stop serving a deleted timeline; nothing of it touches a file or an object any more."""
        timeline_id = timeline.ident.timeline_id
        assert timeline.tombstone_stored.is_set(), f"{timeline_id} is not known to be deleted"
        if timeline.state.state is not State.STOPPING:
            timeline.stop_serving()
        await self.environment.registry.shutdown(
            tenant_id=self.tenant_id, timeline_id=timeline_id, within_s=1.0
        )
        await timeline.close()
        for known in (self.timelines, self.receivers, self.collectors, self.compactors):
            known.pop(timeline_id, None)
        self.dead[timeline_id] = timeline.index()
        if timeline.ancestor is not None:
            timeline.ancestor.branch_points.gone(timeline_id)

    async def stop(self, *, flush_within_s: float) -> None:
        """Stop serving and every task; tries to ship what is in memory for a limited time.

        When it returns, nothing of this attachment touches a file or an object any more. A second
        caller waits for the first one's end.
        """
        if self.state.state is State.STOPPING:
            await self._stopped.wait()
            return
        self.set_state(State.STOPPING)
        registry = self.environment.registry
        for kind in (TaskKind.ATTACH, TaskKind.BROKER_SUBSCRIBER, TaskKind.WAL_RECEIVER):
            await registry.shutdown(kind=kind, tenant_id=self.tenant_id, within_s=1.0)
        await self._ship(flush_within_s)
        for timeline in self.timelines.values():
            timeline.stop_serving()
        self.remote.close()
        await registry.shutdown(tenant_id=self.tenant_id, within_s=1.0)
        for timeline in self.timelines.values():
            await timeline.close()
        self._stopped.set()

    async def _ship(self, within_s: float) -> None:
        """Flush and upload what is in memory; gives up in time, safekeepers still have it."""
        living = [t for t in self.timelines.values() if t.state.state is State.ACTIVE]
        for timeline in living:
            timeline.freeze()
        try:
            async with asyncio.timeout(within_s):
                for timeline in living:
                    await timeline.disk_consistent.wait_for(timeline.last_record_lsn)
                    # Not "until remote_consistent": a superseded uploader never gets there.
                    await timeline.uploader.wait_idle()
        except TimeoutError:
            reach(Mark.STOPPED_UNSHIPPED)

    async def remove_files(self) -> None:
        """Remove the local copy of a stopped tenant; ``DiskError``."""
        assert self._stopped.is_set(), f"tenant {self.tenant_id} is not stopped"
        await self.environment.ports.disk.rmtree(tenant_directory(self.tenant_id))


def is_dead(index: TimelineIndex, indexes: dict[TimelineId, TimelineIndex]) -> bool:
    """Whether a timeline was deleted, or is a branch whose creation was never acknowledged and
    which its ancestor's garbage collection did not spare."""
    ancestor = indexes.get(index.ancestor_timeline_id) if index.ancestor_timeline_id else None
    is_stillborn = (
        ancestor is not None
        and index.ancestor_lsn < ancestor.latest_gc_cutoff_lsn
        and index.timeline_id not in dict(ancestor.branch_points)
    )
    return index.deleted or is_stillborn


async def _or_break_down(
    timeline: Timeline, kind: TaskKind, work: Coroutine[Any, Any, None]
) -> None:
    """A worker that the timeline cannot do without: if it fails, nothing looks as if all is well.

    What is to be expected, such as a failing disk, workers survive by themselves.
    """
    try:
        await work
    except ShutdownRequested:
        raise
    except Exception as error:
        timeline.break_down(f"its {kind} failed: {one_line(error)}")
        raise


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def ancestors_first(indexes: dict[TimelineId, TimelineIndex]) -> Iterator[TimelineIndex]:
    """The indexes so that each follows its ancestor; ``CorruptData`` if an ancestor is missing."""
    waiting = dict(indexes)
    done: set[TimelineId] = set()
    while waiting:
        ready = [
            index
            for index in waiting.values()
            if index.ancestor_timeline_id is None or index.ancestor_timeline_id in done
        ]
        if not ready:
            names = ", ".join(waiting)
            raise CorruptData(f"timelines {names} have an ancestor without index")
        for index in ready:
            done.add(index.timeline_id)
            del waiting[index.timeline_id]
            yield index
