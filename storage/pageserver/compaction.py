"""Compaction: level-0 layers become layers with narrow key ranges, and images shorten histories.

A merge rewrites the same versions, it never drops one. An image layer is complete: a key of its
range that it does not hold does not exist at its LSN, so reads stop there. Outputs are durable
before the layer map changes in one step, and the index that names them goes out before the inputs
are deleted. A layer that is spoilt for good is left alone; what it is not part of is compacted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing
from heapq import heapify, heappop, heapreplace

from storage.errors import CorruptData, PortError
from storage.failpoints import Failpoint, failpoint
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.pageserver.images import ImageMaker
from storage.pageserver.keys import Key
from storage.pageserver.layer import Layer, pinned
from storage.pageserver.layer_file import Entry
from storage.pageserver.layer_files import SpoiltLayer
from storage.pageserver.layer_name import LayerKind, LayerName
from storage.pageserver.timeline import Timeline
from storage.tasks import interruptible, sleep_unless_shutdown

logger = logging.getLogger(__name__)

Merged = tuple[Entry, bytes]


class Compactor:
    """The compaction of one timeline; :meth:`run` is its only worker."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._options = timeline.environment.options
        self._images = ImageMaker(timeline)
        self._complaint = ""

    async def run(self) -> None:
        """Compact now and then until the task is asked to stop."""
        while not await sleep_unless_shutdown(self._period_s()):
            try:
                async with interruptible():
                    await self.compact()
            except PortError as error:
                logger.info("compaction of timeline %s: %s", self._timeline.ident, error)
            except CorruptData as error:
                self._complain(str(error))

    def _complain(self, damage: str) -> None:
        """Say of each damage once that compaction goes around it."""
        if damage != self._complaint:
            self._complaint = damage
            logger.warning(
                "compaction of timeline %s leaves a layer alone: %s", self._timeline.ident, damage
            )

    def _period_s(self) -> float:
        """The period, spread a little so that timelines do not compact in step."""
        spread = 0.8 + 0.4 * self._timeline.environment.ports.entropy.random()
        return self._options.compaction_period_s * spread

    async def compact(self) -> None:
        """Merge level 0 if there is enough of it, then make the images that are due.

        ``CorruptData`` once everything is done that the damage does not concern; ``PortError``.
        """
        if self._timeline.uploader.superseded:
            return
        with self._timeline.gate.hold():
            async with self._timeline.layers_changing:
                await self._compact()

    async def _compact(self) -> None:
        damage = await self._merge_runs()
        damage += await self._images.make_due()
        if damage:
            reach(Mark.COMPACTED_AROUND_DAMAGE)
            raise damage[0]

    async def _merge_runs(self) -> list[CorruptData]:
        """Merge level 0, cut at the layers that turn out to be spoilt; returns their damage.

        Layers that come meanwhile are for the next pass: while WAL arrives faster than a merge
        takes, a pass would have no end, and nobody else could change layers.
        """
        spoilt: dict[LayerName, CorruptData] = {}
        begun_with = {layer.name for layer in self._timeline.layers.level0()}
        while True:
            level0 = (x for x in self._timeline.layers.level0() if x.name in begun_with)
            runs = whole_runs(level0, self._timeline.layers, spoilt)
            due = (run for run in runs if len(run) >= self._options.compaction_threshold)
            inputs = next(due, None)
            if inputs is None:
                return list(spoilt.values())
            try:
                await self._merge(inputs)
            except SpoiltLayer as error:
                assert error.layer not in spoilt, f"{error.layer} was to be left alone"
                spoilt[error.layer] = error

    async def _merge(self, inputs: list[Layer]) -> None:
        outputs: list[Layer] = []
        try:
            with pinned(inputs):
                await self._rewrite(inputs, outputs)
            await failpoint(Failpoint.PS_COMPACTION_WRITTEN)
        except (CorruptData, PortError):
            await self._timeline.files.discard(outputs)
            raise
        reach(Mark.MERGED)
        self._timeline.replace_layers(remove=inputs, add=outputs)
        await failpoint(Failpoint.PS_COMPACTION_REPLACED)
        for layer in inputs:
            await self._timeline.files.remove(layer)

    async def _rewrite(self, inputs: list[Layer], outputs: list[Layer]) -> None:
        """Write the versions of all inputs, in order, into layers of about the target size."""
        start_lsn = min(layer.name.start_lsn for layer in inputs)
        end_lsn = max(layer.name.end_lsn for layer in inputs)
        streams = [self._timeline.files.scan(layer) for layer in inputs]
        async with aclosing(merge(streams)) as merged:
            pending = await anext(merged, None)
            while pending is not None:
                first = pending[0].key
                last = first
                async with self._timeline.files.writing("merge") as writer:
                    while pending is not None:
                        entry, data = pending
                        if (
                            entry.key != last
                            and writer.size >= self._options.compaction_target_size
                        ):
                            break
                        last = entry.key
                        writer.add(last, entry.lsn, data)
                        await writer.drain()
                        pending = await anext(merged, None)
                    name = self._output_name(first, last, start_lsn, end_lsn)
                    size = await writer.finish(name)
                outputs.append(
                    await self._timeline.files.publish("merge", name, size, self._timeline.layers)
                )

    def _output_name(self, first: bytes, last: bytes, start_lsn: Lsn, end_lsn: Lsn) -> LayerName:
        return LayerName(
            LayerKind.DELTA_1, Key.decode(first), Key.decode(last), start_lsn, end_lsn,
            self._timeline.generation,
        )  # fmt: skip


def whole_runs(
    level0: Iterable[Layer], others: Iterable[Layer], spoilt: Collection[LayerName]
) -> Iterator[list[Layer]]:
    """Layers of level 0 that follow each other, oldest first, with nothing between them.

    A merge across a spoilt layer, or across what was merged while one was spoilt, would hold
    versions older and newer than those of the layer between, and hide these from readers.
    """
    run: list[Layer] = []
    for layer in level0:
        if run and (layer.name in spoilt or _are_parted(run[-1].name, layer.name, others)):
            yield run
            run = []
        if layer.name not in spoilt:
            run.append(layer)
    if run:
        yield run


def _are_parted(older: LayerName, newer: LayerName, others: Iterable[Layer]) -> bool:
    """Most layers begin where the one before ends; WAL without any version leaves a gap too."""
    begin, end = older.end_lsn, newer.start_lsn
    names = (layer.name for layer in others) if begin < end else ()
    return any(
        name.kind is LayerKind.DELTA_1 and name.start_lsn < end and begin < name.end_lsn
        for name in names
    )


async def merge(streams: list[AsyncGenerator[list[Merged], None]]) -> AsyncGenerator[Merged, None]:
    """The versions of several layers, each in batches, in order of (key, LSN)."""
    async with AsyncExitStack() as closing:
        for stream in streams:
            await closing.enter_async_context(aclosing(stream))
        batches: list[list[Merged]] = []
        heap: list[tuple[bytes, int, int, int]] = []
        for number, stream in enumerate(streams):
            batches.append(await anext(stream))
            entry = batches[number][0][0]
            heap.append((entry.key, entry.lsn, number, 0))
        heapify(heap)
        while heap:
            _, _, number, position = heap[0]
            yield batches[number][position]
            position += 1
            if position == len(batches[number]):
                batch = await anext(streams[number], None)
                if batch is None:
                    heappop(heap)
                    continue
                batches[number], position = batch, 0
                await asyncio.sleep(0)
            entry = batches[number][position][0]
            heapreplace(heap, (entry.key, entry.lsn, number, position))
