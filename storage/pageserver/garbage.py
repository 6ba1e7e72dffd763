"""Which layers nobody can need any more: a pure decision over names of layers and LSNs.

Every LSN from the cutoff on, and every retained LSN before it (a branch point), must stay readable.
At an LSN, a layer is needed where it begins at or before it and no image at or below that LSN has
taken its place, over the layer's whole key range (BUGBANK ``gc-child-needs-older-layers``). Images
are complete, so the newest one of a key stops every read: what lies below it is never looked at,
and what it omits does not exist (BUGBANK ``gc-removes-tombstone``).

Cost: O(n log n) for n layers, and again for every retained LSN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from storage.lsn import Lsn
from storage.pageserver.layer_name import LayerName
from storage.pageserver.layer_tree import Named
from storage.pageserver.pieces import Pictures

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
