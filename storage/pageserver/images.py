"""Image layers: the complete picture of a key range at one LSN, made where histories grew long.

Where they are due is decided in ``image_plan.py``. What an image omits does not exist: pages beyond
the end of a relation, or of a dropped one, are left out.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right

from storage.errors import CorruptData, PortError
from storage.lsn import Lsn
from storage.pageserver import values
from storage.pageserver.datadir import decode_size
from storage.pageserver.garbage import is_superseded
from storage.pageserver.image_plan import Range, due_images
from storage.pageserver.keys import Key, KeyKind
from storage.pageserver.layer import Layer, pinned
from storage.pageserver.layer_file import LayerWriter
from storage.pageserver.layer_name import LayerKind, LayerName
from storage.pageserver.pieces import Pictures
from storage.pageserver.timeline import Timeline
from storage.pageserver.values import Image

KEYS_BETWEEN_YIELDS = 50
"""Making images gives the loop back after this many keys."""


class ImageMaker:
    """Makes the images of one timeline; used by its compaction only, under the gate."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._options = timeline.environment.options

    async def make_due(self) -> list[CorruptData]:
        """Picture every partition whose history has grown long, at the end of the merged part;
        returns why some cannot be pictured. ``PortError``."""
        damage: list[CorruptData] = []
        names = [layer.name for layer in self._timeline.layers]
        for partition, lsn in due_images(names, self._options.image_creation_threshold):
            try:
                self._publish(await self._picture(partition, lsn))
            except CorruptData as error:
                damage.append(error)
        return damage

    def _publish(self, images: list[Layer]) -> None:
        self._timeline.replace_layers(remove=[], add=images)

    async def _picture(self, partition: Range, lsn: Lsn) -> list[Layer]:
        """Write the images of a partition; together they cover it without a gap."""
        outputs: list[Layer] = []
        try:
            await self._write(partition, lsn, outputs)
        except (CorruptData, PortError):
            await self._timeline.files.discard(outputs)
            raise
        return outputs

    async def _write(self, partition: Range, lsn: Lsn, outputs: list[Layer]) -> None:
        wanted = sorted(await keys_of(self._timeline, partition, lsn))
        living = Living(self._timeline, lsn)
        first, last = partition
        position = 0
        while not outputs or position < len(wanted):
            async with self._timeline.files.writing("image") as writer:
                position = await self._fill(writer, wanted, position, living)
                end = last if position == len(wanted) else _before(wanted[position])
                name = LayerName(
                    LayerKind.IMAGE, first, end, lsn, Lsn(lsn + 1), self._timeline.generation
                )
                size = await writer.finish(name)
            outputs.append(
                await self._timeline.files.publish("image", name, size, self._timeline.layers)
            )
            if position < len(wanted):
                first = Key.decode(wanted[position])

    async def _fill(
        self, writer: LayerWriter, wanted: list[bytes], position: int, living: Living
    ) -> int:
        """Write values from a position on until the file is large; returns the next position."""
        while position < len(wanted) and writer.size < self._options.compaction_target_size:
            encoded = wanted[position]
            position += 1
            data = await living.value(Key.decode(encoded))
            if data is not None:
                writer.add(encoded, living.lsn, values.encode(Image(data)))
            if position % KEYS_BETWEEN_YIELDS == 0:
                await writer.drain()
                await asyncio.sleep(0)
        return position


class Living:
    """Values that an image must hold: of keys that exist, inside relations that exist."""

    def __init__(self, timeline: Timeline, lsn: Lsn) -> None:
        self._timeline = timeline
        self.lsn = lsn
        self._sizes: dict[Key, int] = {}

    async def value(self, key: Key) -> bytes | None:
        """The value, or ``None`` if the image must not hold the key."""
        if key.kind == KeyKind.RELATION_BLOCK and key.block >= await self._size(
            Key(KeyKind.RELATION_SIZE, *key.owner, 0)
        ):
            return None
        if key.kind == KeyKind.SLRU_BLOCK and key.block >= await self._size(
            key._replace(kind=KeyKind.SLRU_SIZE, block=0)
        ):
            return None
        return await self._timeline.get(key, self.lsn)

    async def _size(self, key: Key) -> int:
        if key not in self._sizes:
            data = await self._timeline.get(key, self.lsn)
            self._sizes[key] = 0 if data is None else decode_size(data)
        return self._sizes[key]


async def keys_of(timeline: Timeline, wanted: Range, lsn: Lsn) -> set[bytes]:
    """Encoded keys of a range that have a version at or before ``lsn``, ancestors included."""
    first, last = wanted[0].encode(), wanted[1].encode()
    # Memory and map are looked at in one step: a flush moves layers from one to the other.
    found = {
        key.encode()
        for layer in timeline.memory_layers()
        for key in layer
        if wanted[0] <= key <= wanted[1]
    }
    layers = _needed(timeline.layers.overlapping(*wanted), wanted, lsn)
    with pinned(layers):
        for layer in layers:
            async for batch in timeline.files.distinct_keys(layer):
                found.update(batch[bisect_left(batch, first) : bisect_right(batch, last)])
    if timeline.ancestor is not None:
        await timeline.ancestor.wait_readable(timeline.ancestor_lsn)
        found |= await keys_of(timeline.ancestor, wanted, min(lsn, timeline.ancestor_lsn))
    return found


def _needed(layers: list[Layer], wanted: Range, lsn: Lsn) -> list[Layer]:
    """Those at or before ``lsn`` that images have not taken the place of: keys that only older ones
    hold do not exist."""
    layers = [layer for layer in layers if layer.name.start_lsn <= lsn]
    pictures = Pictures([layer.name for layer in layers if layer.name.is_image])
    whole = LayerName(LayerKind.DELTA_1, *wanted, Lsn(0), Lsn(lsn + 1), 0)
    image_lsn = pictures.lowest(pictures.newest(lsn), whole)
    return [layer for layer in layers if not is_superseded(layer.name, image_lsn)]


def _before(key: bytes) -> Key:
    """The key right before an encoded one."""
    return Key.decode((int.from_bytes(key, "big") - 1).to_bytes(len(key), "big"))
