"""What the choice among layers costs as their number grows: layers that are only names. Pure.

The history is of the kind that makes it hard: merges cut the key space anew each time, so that
borders are as many as layers, and every layer spans many of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import pairwise

from storage.lsn import Lsn
from storage.pageserver.garbage import garbage
from storage.pageserver.image_plan import due_images
from storage.pageserver.keys import Key
from storage.pageserver.layer_map import LayerMap
from storage.pageserver.layer_name import LayerKind, LayerName

SLICES = 10
"""Layers that a merge makes."""

MERGES_PER_IMAGE = 4
_KEYS = 1 << 20
_STEP = 1 << 16
_SEARCHES = 2000


class NameOnly:
    """A layer that is only a name."""

    def __init__(self, name: LayerName) -> None:
        self.name = name


def history(count: int) -> list[NameOnly]:
    """About so many layers: merges of ten slices, and after every fourth images of ten slices."""
    chance = random.Random(count)
    found: list[NameOnly] = []
    start = 1
    while len(found) < count:
        end = start + _STEP
        found += _slices(chance, LayerKind.DELTA_1, start, end)
        if len(found) // SLICES % (MERGES_PER_IMAGE + 1) == MERGES_PER_IMAGE:
            found += _slices(chance, LayerKind.IMAGE, end - 1, end)
        start = end
    return found[:count]


def _slices(chance: random.Random, kind: LayerKind, start: int, end: int) -> list[NameOnly]:
    borders = [0, *sorted(chance.sample(range(1, _KEYS), SLICES - 1)), _KEYS]
    return [
        NameOnly(LayerName(kind, _key(first), _key(after - 1), Lsn(start), Lsn(end), 1))
        for first, after in pairwise(borders)
    ]


def _key(number: int) -> Key:
    return Key(0, 1663, 1, 1, 0, number)


def measure_layers(count: int, cpu_s: Callable[[], float]) -> Mapping[str, float]:
    """Microseconds of a search at the head and in the past, and of an addition; milliseconds of a
    pass over all: what is garbage (with three branch points), where images are due."""
    layers = history(count)
    top = layers[-1].name.end_lsn
    chance = random.Random(1)
    started_s = cpu_s()
    grown: LayerMap[NameOnly] = LayerMap()
    for layer in layers:
        grown.replace(remove=(), add=[layer])
    added_s = cpu_s() - started_s
    keys = [_key(chance.randrange(_KEYS)) for _ in range(_SEARCHES)]
    pasts = [Lsn(chance.randrange(1, top)) for _ in keys]
    started_s = cpu_s()
    for key in keys:
        grown.search(key, top)
    head_s = cpu_s() - started_s
    started_s = cpu_s()
    for key, lsn in zip(keys, pasts, strict=True):
        grown.search(key, lsn)
    past_s = cpu_s() - started_s
    started_s = cpu_s()
    gone = garbage(layers, top, [Lsn(top // 4), Lsn(top // 2), Lsn(3 * top // 4)])
    garbage_s = cpu_s() - started_s
    started_s = cpu_s()
    due = due_images((layer.name for layer in layers), MERGES_PER_IMAGE - 1)
    due_s = cpu_s() - started_s
    return {
        "layers": count,
        "search_head_us": head_s / len(keys) * 1e6,
        "search_past_us": past_s / len(keys) * 1e6,
        "add_us": added_s / count * 1e6,
        "garbage_ms": garbage_s * 1e3,
        "garbage_found": len(gone),
        "image_plan_ms": due_s * 1e3,
        "images_due": len(due),
    }
