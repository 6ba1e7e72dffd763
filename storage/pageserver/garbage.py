"""Which layers nobody can need any more: a pure decision over names of layers and LSNs.

Every LSN from the cutoff on, and every retained LSN before it (a branch point), must stay readable.
At an LSN, a layer is needed where it begins at or before it and no image at or below that LSN has
taken its place, over the layer's whole key range (BUGBANK ``gc-child-needs-older-layers``). Images
are complete, so the newest one of a key stops every read: what lies below it is never looked at,
and what it omits does not exist (BUGBANK ``gc-removes-tombstone``).

Cost: O((layers + points) · pieces of the key space that a layer spans).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import TypeVar

from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.keys import Key
from storage.pageserver.layer_map import Named
from storage.pageserver.layer_name import LayerName

L = TypeVar("L", bound=Named)


def garbage(layers: Iterable[L], cutoff: Lsn, retained: Sequence[Lsn]) -> list[L]:
    """The layers that no read at ``cutoff`` or later, nor at a ``retained`` LSN, can need."""
    candidates = [layer for layer in layers if layer.name.end_lsn - 1 <= cutoff]
    pictures = Pictures([layer.name for layer in candidates if layer.name.is_image])
    floors = pictures.newest(cutoff)
    candidates = [
        layer
        for layer in candidates
        if not is_needed(layer.name, cutoff, pictures.lowest(floors, layer.name))
    ]
    for point in sorted({lsn for lsn in retained if lsn < cutoff}):
        floors = pictures.newest(point)
        candidates = [
            layer
            for layer in candidates
            if not is_needed_by_branch(layer.name, point, pictures.lowest(floors, layer.name))
        ]
    return candidates


def is_needed_by_branch(name: LayerName, point: Lsn, image_lsn: Lsn) -> bool:
    """Whether a branch at ``point`` can reach the layer, like any reader there."""
    return is_needed(name, point, image_lsn)


def is_needed(name: LayerName, point: Lsn, image_lsn: Lsn) -> bool:
    """Whether a read at ``point`` can reach the layer, whose whole range is pictured at
    ``image_lsn`` or later (0 where some of it is not)."""
    if name.start_lsn > point:
        return False
    return not is_superseded(name, image_lsn)


def is_superseded(name: LayerName, image_lsn: Lsn) -> bool:
    """Whether images have everything that the layer says: an image never takes its own place."""
    return image_lsn > name.start_lsn if name.is_image else image_lsn >= name.end_lsn - 1


class Pictures:
    """Image layers over the key space, cut into pieces at every boundary of one."""

    def __init__(self, images: Sequence[LayerName]) -> None:
        bounds = {name.first for name in images} | {_after(name.last) for name in images}
        self._cuts: list[Key] = sorted(bounds)
        self._images: list[list[Lsn]] = [[] for _ in self._cuts]
        for name in images:
            for piece in self._pieces(name):
                self._images[piece].append(name.start_lsn)
        for lsns in self._images:
            lsns.sort()

    def newest(self, point: Lsn) -> list[Lsn]:
        """For each piece the newest image at or below ``point``; 0 where there is none."""
        found = []
        for lsns in self._images:
            position = bisect_right(lsns, point)
            found.append(lsns[position - 1] if position else INVALID_LSN)
        return found

    def lowest(self, floors: Sequence[Lsn], name: LayerName) -> Lsn:
        """The lowest of the pieces' images over a layer's range; 0 where some of it has none."""
        pieces = self._pieces(name)
        if not pieces or not self._covers(name):
            return INVALID_LSN
        return min(floors[piece] for piece in pieces)

    def _covers(self, name: LayerName) -> bool:
        return self._cuts[0] <= name.first and _after(name.last) <= self._cuts[-1]

    def _pieces(self, name: LayerName) -> range:
        """Numbers of the pieces that a layer's keys lie in."""
        if not self._cuts:
            return range(0)
        start = max(0, bisect_right(self._cuts, name.first) - 1)
        return range(start, bisect_left(self._cuts, _after(name.last)))


def _after(key: Key) -> Key:
    """The key that follows; may exceed 32 bits in the last field, which only sorting sees."""
    return key._replace(block=key.block + 1)
