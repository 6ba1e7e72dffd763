"""Carries a timeline's upload queue out, and knows what the object store is known to hold.

After each index it asks whether this attachment is still the newest. Only then are remote
positions advanced and objects deleted: a newer attachment has read either this index or a later
one, so safekeepers may drop the WAL before it and nobody needs what it names no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from storage.durable import read_file
from storage.errors import Conflict, CorruptData, PortError
from storage.failpoints import Failpoint, failpoint
from storage.ids import TimelineId
from storage.marks import Mark, reach
from storage.pageserver.backoff import Backoff
from storage.pageserver.environment import Environment
from storage.pageserver.index import TimelineIndex
from storage.pageserver.layer import Layer
from storage.pageserver.layer_file import check_whole
from storage.pageserver.layer_name import LayerName
from storage.pageserver.remote import RemoteTenant, StoredObject
from storage.pageserver.upload_queue import (
    DeleteLayers,
    Operation,
    PutIndex,
    PutLayer,
    UploadQueue,
)
from storage.tasks import interruptible

logger = logging.getLogger(__name__)

Uploaded = Callable[[TimelineIndex], None]
"""Told of each index that the store holds while this attachment was still the newest."""

LOOKS_AT_DAMAGE = 3
"""A layer is read so often before it counts as spoilt: perhaps only the reading went wrong."""


class Uploader:
    """One timeline's uploads; :meth:`run` is its only worker."""

    def __init__(
        self,
        environment: Environment,
        remote: RemoteTenant,
        timeline_id: TimelineId,
        generation: int,
    ) -> None:
        self._disk = environment.ports.disk
        self._backoff = Backoff(environment.ports.entropy)
        self._remote = remote
        self._timeline_id = timeline_id
        self.generation = generation
        self._queue = UploadQueue()
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._owned = asyncio.Event()
        self._pinned: dict[str, Layer] = {}
        self._confirmed: TimelineIndex | None = None
        self._named: frozenset[LayerName] = frozenset()
        self._index_etag: str | None = None
        self.on_uploaded: Uploaded = lambda index: None
        self.on_superseded: Callable[[], None] = lambda: None
        self.on_spoilt: Callable[[], None] = lambda: None
        self._damage_seen = 0
        self.superseded = False

    @property
    def pending(self) -> int:
        """Operations scheduled and not carried out yet."""
        return len(self._queue)

    def put_layer(self, layer: Layer) -> None:
        """Schedule a layer; its file is kept until it is uploaded."""
        if self.superseded:
            return
        assert str(layer.name) not in self._pinned, f"{layer.name} is on its way already"
        layer.pin()
        self._pinned[str(layer.name)] = layer
        self._schedule(PutLayer(layer))

    def put_index(self, index: TimelineIndex) -> None:
        """Schedule an index; every layer it names was scheduled before, or uploaded."""
        assert index.generation == self.generation, f"{index.generation} is not our generation"
        if not self.superseded:
            self._named = frozenset(name for name, _ in index.layers)
            self._schedule(PutIndex(index))

    def delete_layers(self, names: tuple[LayerName, ...]) -> None:
        """Schedule the removal of layers that the last scheduled index does not name."""
        if not self.superseded:
            self._schedule(DeleteLayers(names))

    def _schedule(self, operation: Operation) -> None:
        self._queue.schedule(operation)
        self._idle.clear()
        self._wanted.set()

    async def wait_idle(self) -> None:
        """Return once everything scheduled has taken effect."""
        await self._idle.wait()

    def adopt_index(self, etag: str) -> None:
        """The store already holds this attachment's first index, with this etag."""
        assert self._index_etag is None, "an index was uploaded already"
        self._index_etag = etag
        self._owned.set()

    async def wait_owned(self) -> None:
        """Return once the store has an index of this attachment, so that whatever a former one
        still writes will never be read; ``Conflict`` when there is a newer attachment."""
        await self._owned.wait()
        if self.superseded:
            raise Conflict(f"timeline {self._timeline_id} was attached elsewhere since")

    async def run(self) -> None:
        """Carry operations out until the task is asked to stop."""
        async with interruptible():
            while True:
                await self._wanted.wait()
                if not self._queue:
                    self._wanted.clear()
                    continue
                try:
                    await self.step()
                except CorruptData as error:
                    await self._keep_back(error)

    async def _keep_back(self, damage: CorruptData) -> None:
        """A layer rotted before it was uploaded, or cannot be read now. Nothing behind it may pass;
        the WAL is still there, so whoever listens to ``on_spoilt`` has it made again."""
        self._damage_seen += 1
        if self._damage_seen == LOOKS_AT_DAMAGE:
            logger.warning("timeline %s cannot be uploaded: %s", self._timeline_id, damage)
            self.on_spoilt()
        await asyncio.sleep(self._backoff.next_delay_s())

    async def drain(self) -> None:
        """Carry out everything scheduled so far, before :meth:`run` is started; ``CorruptData``."""
        while self._queue:
            await self.step()

    async def step(self) -> None:
        """Carry out the next batch; when that fails it stays first in line. ``CorruptData`` when
        what is to be uploaded is not what was written."""
        batch = self._queue.start_batch()
        work: list[Awaitable[None]] = []
        for operation in batch:
            match operation:
                case PutLayer(layer):
                    work.append(self._upload_layer(layer))
                case PutIndex(index):
                    work.append(self._upload_index(index))
                case DeleteLayers(names):
                    work.append(self._delete_layers(names))
        try:
            await _all(work)
        except PortError as error:
            reach(Mark.UPLOAD_REPEATED)
            self._queue.interrupt_batch()
            logger.info("upload of timeline %s: %s", self._timeline_id, error)
            await asyncio.sleep(self._backoff.next_delay_s())
        except BaseException:
            self._queue.interrupt_batch()
            raise
        else:
            self._backoff.reset()
            self._damage_seen = 0
            self._queue.finish_batch()
            if not self._queue:
                self._idle.set()
            for operation in batch:
                if isinstance(operation, PutLayer):
                    operation.layer.is_remote = not self.superseded
                    self._unpin(operation.layer)

    def _unpin(self, layer: Layer) -> None:
        found = self._pinned.pop(str(layer.name), None)
        assert found is layer, f"{layer.name} was not pinned for its upload"
        layer.unpin()

    async def _upload_layer(self, layer: Layer) -> None:
        if not self.superseded:
            data = await read_file(self._disk, layer.path)
            self._check(data, layer)
            assert len(data) == layer.size, f"{layer.path}: {len(data)} of {layer.size} bytes"
            await self._remote.put(self._remote.layer_key(self._timeline_id, layer.name), data)
            await failpoint(Failpoint.PS_LAYER_UPLOADED)

    def _check(self, data: bytes, layer: Layer) -> None:
        try:
            check_whole(data, layer.path)
        except CorruptData:
            reach(Mark.SPOILT_LAYER_KEPT_BACK)
            raise

    async def _upload_index(self, index: TimelineIndex) -> None:
        if self.superseded:
            return
        try:
            self._index_etag = await self._remote.put_index(index, previous_etag=self._index_etag)
        except Conflict:
            # A newer attachment removes older indexes; nobody else has any business with ours.
            if await self.is_newest():
                raise
        await failpoint(Failpoint.PS_INDEX_UPLOADED)
        if not await self.is_newest():
            return
        is_first, self._confirmed = self._confirmed is None, index
        if is_first:
            await self._remote.remove_leftovers(
                index, await self._remote.objects(self._timeline_id)
            )
        self._owned.set()
        self.on_uploaded(index)

    async def scrub(self, found: Sequence[StoredObject]) -> None:
        """Remove what no index names of the timeline's objects ``found`` in the store.

        What earlier attachments left is judged by an index after which this one was still the
        newest: a newer one has read it or a later one, so it needs nothing of what goes.
        """
        index = self._confirmed
        if index is not None and await self.is_newest():
            await self._remote.remove_leftovers(index, found)
            self._delete_strays(found)

    def _delete_strays(self, found: Sequence[StoredObject]) -> None:
        """Layers of our own that came back: of a put that was repeated, the store may carry out the
        first attempt after the layer's deletion. They go by way of the queue, like any other."""
        strays = tuple(
            each.layer
            for each in found
            if each.layer is not None
            and each.generation == self.generation
            and not self._is_wanted(each.layer)
        )
        if strays and not self.superseded:
            reach(Mark.LAYER_CAME_BACK)
            logger.info("timeline %s: removing %d stray layers", self._timeline_id, len(strays))
            self.delete_layers(strays)

    def _is_wanted(self, name: LayerName) -> bool:
        """Whether a layer is on its way up, or in the last index scheduled."""
        return str(name) in self._pinned or name in self._named

    async def is_newest(self) -> bool:
        """Ask the store whether this attachment may still act; never again once it may not."""
        if self.superseded:
            return False
        if not await self._remote.is_newest(self.generation):
            logger.info(
                "timeline %s is attached elsewhere with a newer generation than %d: "
                "no more uploads",
                self._timeline_id,
                self.generation,
            )
            reach(Mark.SUPERSEDED)
            self.superseded = True
            self._owned.set()
            self.on_superseded()
        return not self.superseded

    async def _delete_layers(self, names: tuple[LayerName, ...]) -> None:
        if self.superseded or not await self.is_newest():
            return
        for name in names:
            await self._remote.delete(self._remote.layer_key(self._timeline_id, name))

    def close(self) -> None:
        """Let go of the files that were to be uploaded; the worker must have ended."""
        for layer in self._pinned.values():
            layer.unpin()
        self._pinned.clear()


async def _all(work: list[Awaitable[None]]) -> None:
    """Run together and wait for every one, also when one fails: nothing may trail behind."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
