"""The key space cut into pieces at the borders of image layers, and the newest image over each.

Cost: O(n log n) to cut, O(n log n) to find the newest images at an LSN, O(log n) for each key range
that is asked about; whatever the ranges, none is walked piece by piece.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.keys import Key
from storage.pageserver.layer_name import LayerName
from storage.pageserver.layer_tree import after


class Pictures:
    """Image layers over the key space, cut into pieces at every border of one."""

    def __init__(self, images: Sequence[LayerName]) -> None:
        bounds = {name.first for name in images} | {after(name.last) for name in images}
        self._cuts: list[Key] = sorted(bounds)
        self._images = sorted(images, key=lambda name: -name.start_lsn)

    def newest(self, point: Lsn) -> Floors:
        """For each piece the newest image at or below ``point``; 0 where there is none."""
        found = [INVALID_LSN] * len(self._cuts)
        # The newest image comes first, and each piece is painted once: ``onward`` leads from a
        # piece that was painted to where the next one may be that was not.
        onward = list(range(len(self._cuts) + 1))
        for name in self._images:
            if name.start_lsn > point:
                continue
            pieces = self.pieces(name)
            piece = _follow(onward, pieces.start)
            while piece < pieces.stop:
                found[piece] = name.start_lsn
                onward[piece] = piece + 1
                piece = _follow(onward, piece)
        return Floors(found)

    def lowest(self, floors: Floors, name: LayerName) -> Lsn:
        """The lowest of the pieces' images over a layer's range; 0 where some of it has none."""
        pieces = self.pieces(name)
        if not pieces or not self._covers(name):
            return INVALID_LSN
        return floors.lowest(pieces)

    def highest(self, floors: Floors, name: LayerName) -> Lsn:
        """The highest of the pieces' images over a layer's range; 0 where there is none."""
        return floors.highest(self.pieces(name))

    def _covers(self, name: LayerName) -> bool:
        return self._cuts[0] <= name.first and after(name.last) <= self._cuts[-1]

    def pieces(self, name: LayerName) -> range:
        """Numbers of the pieces that a layer's keys lie in."""
        if not self._cuts:
            return range(0)
        start = max(0, bisect_right(self._cuts, name.first) - 1)
        return range(start, bisect_left(self._cuts, after(name.last)))


class Floors:
    """An LSN for each piece; the lowest and the highest of a range in O(log n)."""

    def __init__(self, floors: Sequence[Lsn]) -> None:
        self._count = len(floors)
        self._low = [*floors, *floors]
        self._high = [*floors, *floors]
        for number in range(self._count - 1, 0, -1):
            left, right = 2 * number, 2 * number + 1
            self._low[number] = min(self._low[left], self._low[right])
            self._high[number] = max(self._high[left], self._high[right])

    def lowest(self, pieces: range) -> Lsn:
        """The lowest of some pieces; there must be any."""
        assert pieces, "no piece is asked about"
        return min(self._low[number] for number in self._parts(pieces))

    def highest(self, pieces: range) -> Lsn:
        """The highest of some pieces, 0 for none."""
        return max((self._high[number] for number in self._parts(pieces)), default=INVALID_LSN)

    def _parts(self, pieces: range) -> list[int]:
        """Numbers of the nodes of a segment tree that make up a range of pieces."""
        found = []
        low, high = pieces.start + self._count, pieces.stop + self._count
        while low < high:
            if low & 1:
                found.append(low)
                low += 1
            if high & 1:
                high -= 1
                found.append(high)
            low >>= 1
            high >>= 1
        return found


def _follow(onward: list[int], piece: int) -> int:
    """Where a chain ends; halves it on the way, so that nobody walks it again."""
    while onward[piece] != piece:
        onward[piece] = onward[onward[piece]]
        piece = onward[piece]
    return piece
