"""A timeline: the tip that ingest writes, and reads of any key at any LSN.

``last_record_lsn`` is the end of the last record whose changes are visible; versions carry the end
LSN of their record. Layers from new to old: the open in-memory layer, frozen ones, the layer map;
below them the ancestor, at the branch point. The other rules live beside: ``flush.py`` writes
frozen layers, ``compaction.py`` merges, ``uploader.py`` ships, ``read_view.py`` admits readers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import pairwise

from storage.errors import Conflict, CorruptData, NotReady
from storage.events import emit
from storage.ids import TenantTimelineId
from storage.lsn import INVALID_LSN, Lsn
from storage.marks import Mark, reach
from storage.pageserver.branch_points import BranchPoints
from storage.pageserver.environment import Environment
from storage.pageserver.gc_cutoff import GcCutoff
from storage.pageserver.index import TimelineIndex
from storage.pageserver.keys import Key
from storage.pageserver.layer import Layer, pinned
from storage.pageserver.layer_files import LayerFiles
from storage.pageserver.layer_map import LayerMap
from storage.pageserver.layer_name import LayerName
from storage.pageserver.leases import Leases
from storage.pageserver.memory_layer import MemoryLayer, Version
from storage.pageserver.modification import Modification
from storage.pageserver.standbys import Standbys
from storage.pageserver.states import Broken, State, StateCell
from storage.pageserver.uploader import Uploader
from storage.pageserver.values import Value
from storage.pageserver.wal_times import WalTimes
from storage.pageserver.watermark import Watermark


class Timeline:
    """One branch of a tenant's history on this pageserver. Made by ``Tenant``, which owns it."""

    def __init__(
        self,
        environment: Environment,
        ident: TenantTimelineId,
        index: TimelineIndex,
        files: LayerFiles,
        uploader: Uploader,
    ) -> None:
        self.environment = environment
        self.ident = ident
        self.files = files
        self.uploader = uploader
        self.redo = environment.redo
        self.pg_version = index.pg_version
        self.initdb_lsn = index.initdb_lsn
        self.ancestor: Timeline | None = None
        self.ancestor_lsn = index.ancestor_lsn
        self.generation = uploader.generation
        self.state = StateCell(f"timeline {ident}")
        self.gate = files.gate
        self.gc_cutoff = GcCutoff(index.latest_gc_cutoff_lsn)
        self.durable_cutoff = Watermark("durable gc cutoff", index.latest_gc_cutoff_lsn)
        self.branch_points = BranchPoints()
        self.leases = Leases(asyncio.get_running_loop().time())
        self.standbys = Standbys(environment.options.lease_length_s)
        self.times = WalTimes(index.times)
        self.layers_changing = asyncio.Lock()
        self.deleting = False
        self.tombstone_stored = asyncio.Event()
        self.deleted = asyncio.Event()
        consistent = index.disk_consistent_lsn
        self.last_record = Watermark("last_record_lsn", consistent)
        self.disk_consistent = Watermark("disk_consistent_lsn", consistent)
        self.remote_consistent = Watermark("remote_consistent_lsn", consistent)
        self.prev_record_lsn = index.prev_record_lsn
        self.durable_prev_record_lsn = index.prev_record_lsn
        self.layers: LayerMap[Layer] = LayerMap()
        self.open_layer = MemoryLayer(Lsn(consistent + 1))
        self.open_since_s: float | None = None
        self._announced_lsn = consistent
        self.frozen: list[FrozenLayer] = []
        self.flush_wanted = asyncio.Event()
        self.flush_done = asyncio.Event()
        self.modification = Modification(self)
        self.on_positions: Callable[[], None] = lambda: None
        self._number = environment.next_timeline_number()
        uploader.on_uploaded = self._index_uploaded
        uploader.on_superseded = self._superseded

    @property
    def last_record_lsn(self) -> Lsn:
        """End of the last record whose changes are visible."""
        return self.last_record.value

    # The writing side: called by ingest only.

    def apply_record(
        self, start_lsn: Lsn, end_lsn: Lsn, changes: Iterable[tuple[Key, Value]]
    ) -> None:
        """Take a whole record; readers are woken by :meth:`finish_batch`."""
        self.open_layer.put(end_lsn, changes)
        self.prev_record_lsn = start_lsn
        self.last_record.advance_quietly(end_lsn)

    def finish_batch(self) -> None:
        """Wake readers, report the position, freeze the open layer when it is large enough."""
        self._announce()
        if self.open_since_s is None and self.is_dirty():
            self.open_since_s = asyncio.get_running_loop().time()
            self.flush_wanted.set()
        if self.open_layer.size_bytes >= self.environment.options.checkpoint_distance:
            self.freeze()

    def _announce(self) -> None:
        """Wake readers and report the position, before anything reports what follows from it."""
        if self.last_record_lsn > self._announced_lsn:
            self._announced_lsn = self.last_record_lsn
            self.last_record.notify()
            self._emit("last_record_lsn", self.last_record_lsn)

    def is_dirty(self) -> bool:
        """Whether records were ingested since the open layer began."""
        return self.last_record_lsn >= self.open_layer.start_lsn

    def freeze(self) -> None:
        """Close the open layer at the last record and hand it to the flush; harmless if clean."""
        if not self.is_dirty():
            return
        self._announce()
        end_lsn = Lsn(self.last_record_lsn + 1)
        self.open_layer.freeze(end_lsn)
        self.frozen.append(FrozenLayer(self.open_layer, self.prev_record_lsn))
        self.open_layer = MemoryLayer(end_lsn)
        self.open_since_s = None
        self.flush_wanted.set()

    @property
    def has_room(self) -> bool:
        """Whether few enough frozen layers wait for the disk."""
        return len(self.frozen) <= self.environment.options.frozen_layers_max

    async def wait_for_room(self) -> None:
        """Hold ingest back while too many frozen layers wait for the disk."""
        while not self.has_room:
            reach(Mark.INGEST_HELD_BACK)
            self.flush_done.clear()
            await self.flush_done.wait()

    def break_down(self, reason: str) -> None:
        """Stop for good: what was read cannot be trusted, so nothing may look up to date."""
        if self.state.state in (State.STOPPING, State.BROKEN):
            return
        reach(Mark.TIMELINE_BROKEN)
        self.state.set(State.BROKEN, reason)
        self.last_record.fail(Broken(f"timeline {self.ident} is broken: {reason}"))

    def stop_serving(self) -> None:
        """Refuse every present and future wait: this object will not move any more."""
        self.state.set(State.STOPPING)
        error = NotReady(f"timeline {self.ident} is {State.STOPPING}")
        for position in (self.last_record, self.disk_consistent, self.remote_consistent):
            position.fail(error)
        self.durable_cutoff.fail(error)

    async def close(self) -> None:
        """Wait for the readers and release the files; the timeline's tasks have ended."""
        assert self.state.state is State.STOPPING, f"{self.ident} is {self.state.state}"
        await self.gate.close()
        self.uploader.close()
        for layer in self.layers:
            await self.files.release(layer)

    # Persistence: called by flush, compaction and upload.

    def first_unflushed_lsn(self) -> Lsn:
        """Where the oldest layer that is only in memory begins."""
        return self.frozen[0].layer.start_lsn if self.frozen else self.open_layer.start_lsn

    def index(self) -> TimelineIndex:
        """What may be told to the object store now: everything in the layer map, or a tombstone."""
        return TimelineIndex(
            timeline_id=self.ident.timeline_id,
            generation=self.generation,
            pg_version=self.pg_version,
            initdb_lsn=self.initdb_lsn,
            disk_consistent_lsn=self.disk_consistent.value,
            latest_gc_cutoff_lsn=self.gc_cutoff.planned,
            prev_record_lsn=self.durable_prev_record_lsn,
            ancestor_timeline_id=self.ancestor.ident.timeline_id if self.ancestor else None,
            ancestor_lsn=self.ancestor_lsn,
            layers=() if self.deleting else self._listed(),
            branch_points=tuple(self.branch_points.lsns().items()),
            times=self.times.samples(),
            deleted=self.deleting,
        )

    def _listed(self) -> tuple[tuple[LayerName, int], ...]:
        return tuple((layer.name, layer.size) for layer in self.layers)

    def replace_layers(self, *, remove: list[Layer], add: list[Layer]) -> None:
        """Swap layers in one step, and let the object store follow in a safe order."""
        self.layers.replace(remove=remove, add=add)
        for layer in add:
            self.uploader.put_layer(layer)
        self.uploader.put_index(self.index())
        if remove:
            self.uploader.delete_layers(tuple(layer.name for layer in remove))

    def note_time(self) -> None:
        """Remember that all of the WAL ingested so far is from now or before."""
        self.times.add(self.environment.ports.clock.wall_us(), self.last_record_lsn)

    def flushed(self, frozen: FrozenLayer, layer: Layer | None) -> None:
        """The oldest frozen layer is durable (``None``: it held no versions). One step."""
        assert self.frozen[0] is frozen, "frozen layers are flushed oldest first"
        del self.frozen[0]
        if layer is not None:
            self.layers.replace(remove=(), add=[layer])
            self.uploader.put_layer(layer)
        self.durable_prev_record_lsn = frozen.prev_record_lsn
        self.disk_consistent.advance(self._consistent_lsn(frozen))
        self._emit("disk_consistent_lsn", self.disk_consistent.value)
        self.note_time()
        self.uploader.put_index(self.index())
        self.flush_done.set()
        self.on_positions()

    def _consistent_lsn(self, frozen: FrozenLayer) -> Lsn:
        """No LSN that any layer in memory may still hold, whatever was flushed."""
        return Lsn(min(frozen.end_lsn, self.first_unflushed_lsn()) - 1)

    def _index_uploaded(self, index: TimelineIndex) -> None:
        self.durable_cutoff.advance(index.latest_gc_cutoff_lsn)
        if index.deleted:
            self.tombstone_stored.set()
        if index.disk_consistent_lsn > self.remote_consistent.value:
            self.remote_consistent.advance(index.disk_consistent_lsn)
            self._emit("remote_consistent_lsn", index.disk_consistent_lsn)
            self.on_positions()

    def _superseded(self) -> None:
        self.files.keeps_all = True
        self.durable_cutoff.fail(Conflict(f"timeline {self.ident} was attached elsewhere since"))

    def report_cutoff(self) -> None:
        """Report the cutoff that is in force."""
        self._emit("latest_gc_cutoff_lsn", self.gc_cutoff.lsn)

    def _emit(self, name: str, value: Lsn) -> None:
        emit(
            "lsn",
            tenant=self.ident.tenant_id,
            timeline=self.ident.timeline_id,
            name=name,
            value=value,
        )

    # The reading side.

    def memory_layers(self) -> list[MemoryLayer]:
        """The layers that are only in memory, newest first."""
        return [self.open_layer, *(frozen.layer for frozen in reversed(self.frozen))]

    async def get(self, key: Key, lsn: Lsn) -> bytes | None:
        """Value of a key as of ``lsn``; ``None`` when it does not exist then.

        The caller has made sure that ``lsn`` is in reach (see ``read_view.py``). Raises
        ``CorruptData`` and ``PortError``.
        """
        pages = self.environment.pages
        cached = pages.get((self._number, key))
        above, base = INVALID_LSN, None
        if cached is not None and cached[0] <= lsn:
            above, base = cached
        versions: list[Version] = []
        complete = self._collect_memory(key, above, lsn, versions)
        cheap = complete and len(versions) == 1
        if not complete:
            complete = await self._collect_layers(key, above, lsn, versions)
        if not complete and base is None and self.ancestor is not None:
            base = await self._read_ancestor(self.ancestor, key, lsn)
        _check_order(key, versions)
        value = self.redo.reconstruct(base, reversed(versions))
        if value is not None and versions and not cheap and (cached is None or cached[0] < lsn):
            pages.put((self._number, key), (lsn, value), len(value))
        return value

    def _collect_memory(self, key: Key, above: Lsn, lsn: Lsn, into: list[Version]) -> bool:
        return any(layer.collect(key, above, lsn, into) for layer in self.memory_layers())

    async def _collect_layers(self, key: Key, above: Lsn, lsn: Lsn, into: list[Version]) -> bool:
        """Walk the persistent layers down; they are chosen and pinned before the first await."""
        deltas, image, floor = self.layers.search(key, lsn, above)
        if not deltas and image is None:
            return False
        with self.gate.hold(), pinned(deltas if image is None else [*deltas, image]):
            for layer in deltas:
                if await self.files.collect(layer, key, (floor, lsn), into):
                    return True
            if image is not None:
                await self.files.collect(image, key, (Lsn(floor - 1), floor), into)
                return True
        return False

    async def _read_ancestor(self, ancestor: Timeline, key: Key, lsn: Lsn) -> bytes | None:
        """The value inherited; limited by the branch point of *this* timeline at each hop."""
        lsn_there = min(lsn, self.ancestor_lsn)
        await ancestor.wait_readable(lsn_there)
        with ancestor.gc_cutoff.hold() as cutoff:
            if lsn_there != self.ancestor_lsn:
                # The branch point itself is retained; anything before it only by the cutoff.
                ancestor.gc_cutoff.check(lsn_there, cutoff)
            return await ancestor.get(key, lsn_there)

    async def wait_readable(self, lsn: Lsn) -> None:
        """Wait until this timeline is active and has ingested up to ``lsn``."""
        await self.state.wait_active()
        await self.last_record.wait_for(lsn)


class FrozenLayer:
    """A frozen in-memory layer with the start of the last record that it holds."""

    def __init__(self, layer: MemoryLayer, prev_record_lsn: Lsn) -> None:
        assert layer.end_lsn is not None, "the layer is still open"
        self.layer = layer
        self.end_lsn = layer.end_lsn
        self.prev_record_lsn = prev_record_lsn


def _check_order(key: Key, versions: list[Version]) -> None:
    """Two layers that both hold a version would make redo apply it twice."""
    for newer, older in pairwise(versions):
        if newer[0] <= older[0]:
            raise CorruptData(f"{key} has versions at {older[0]} and {newer[0]} out of order")
