"""Where images are due: a pure decision over the names of layers.

The key space is partitioned by the newest images; a partition over which enough merged layers lie,
newer than its image, is to be pictured again at the end of the newest of them.

Cost: O(n log n) for n layers, and the layers found over each partition.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.keys import FIRST_KEY, LAST_KEY, Key
from storage.pageserver.layer_name import LayerKind, LayerName
from storage.pageserver.pieces import Pictures

Range = tuple[Key, Key]
"""First and last key, both inside."""

_TOP = Lsn(2**64 - 1)


class Partition(NamedTuple):
    """A key range, and the LSN of the image that it has; 0 before there is one."""

    first: Key
    last: Key
    image_lsn: Lsn


def due_images(names: Iterable[LayerName], threshold: int) -> list[tuple[Range, Lsn]]:
    """The partitions over which ``threshold`` merged layers lie, and where to picture each."""
    names = list(names)
    merged = [name for name in names if name.kind is LayerKind.DELTA_1]
    due = []
    for partition, over in _with_deltas(partitions(names), merged):
        if len({name.start_lsn for name in over}) >= max(1, threshold):
            lsn = Lsn(max(name.end_lsn for name in over) - 1)
            due.append(((partition.first, partition.last), lsn))
    return due


def partitions(names: Iterable[LayerName]) -> list[Partition]:
    """The key ranges of the images that no newer image overlaps, in order; the whole key space
    before there is one."""
    images = [name for name in names if name.is_image]
    pictures = Pictures(images)
    floors = pictures.newest(_TOP)
    newest = {
        Partition(name.first, name.last, name.start_lsn)
        for name in images
        if pictures.highest(floors, name) <= name.start_lsn
    }
    return sorted(newest) or [Partition(FIRST_KEY, LAST_KEY, INVALID_LSN)]


def _with_deltas(
    wanted: Sequence[Partition], merged: Sequence[LayerName]
) -> Iterator[tuple[Partition, list[LayerName]]]:
    """Each partition, in order of its first key, with the merged layers over it that are newer
    than its image: those that lie over it are kept in order of their start."""
    coming = sorted(merged, key=lambda name: name.first, reverse=True)
    ends: list[tuple[Key, int, LayerName]] = []
    over: list[tuple[Lsn, int, LayerName]] = []
    taken = 0
    for partition in wanted:
        while coming and coming[-1].first <= partition.last:
            name = coming.pop()
            heappush(ends, (name.last, taken, name))
            insort(over, (name.start_lsn, taken, name))
            taken += 1
        while ends and ends[0][0] < partition.first:
            _, number, name = heappop(ends)
            position = bisect_left(over, (name.start_lsn, number))
            assert over[position][2] is name, f"{name} is not where it was put"
            del over[position]
        newer = bisect_right(over, partition.image_lsn, key=lambda entry: entry[0])
        yield partition, [name for _, _, name in over[newer:] if name.first <= partition.last]
