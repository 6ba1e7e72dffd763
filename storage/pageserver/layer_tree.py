"""Layers by key range and LSN: a segment tree over the borders of key ranges. Pure.

A layer stands at the O(log n) nodes that make up its key range, so all layers over a key are on
one path from a leaf to the root. At each node they are ordered by LSN: what a read of an LSN does
not need is not looked at, however long the history. Borders are fixed when the tree is built;
layers can be taken out but not added (``layer_map.py`` keeps several trees for that).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from storage.lsn import Lsn
from storage.pageserver.keys import Key
from storage.pageserver.layer_name import LayerName


class Named(Protocol):
    """Anything that has a layer's name: the layer itself, or a stand-in of a test."""

    @property
    def name(self) -> LayerName:
        """What the layer covers."""
        ...


L = TypeVar("L", bound=Named)


class Stack(Generic[L]):
    """Layers that lie over the same keys, the one that ends first in front."""

    __slots__ = ("_ends", "_layers", "_longest")

    def __init__(self) -> None:
        self._ends: list[int] = []
        self._layers: list[L] = []
        self._longest = 0

    def __iter__(self) -> Iterator[L]:
        return iter(self._layers)

    def add(self, layer: L) -> None:
        """Put a layer in its place; among those that end alike the last comes last."""
        name = layer.name
        position = bisect_right(self._ends, name.end_lsn)
        self._ends.insert(position, name.end_lsn)
        self._layers.insert(position, layer)
        self._longest = max(self._longest, name.end_lsn - name.start_lsn)

    def remove(self, layer: L) -> None:
        """Take a layer out, which must be here."""
        position = bisect_left(self._ends, layer.name.end_lsn)
        while self._layers[position] is not layer:
            position += 1
        del self._ends[position], self._layers[position]

    def between(self, above: Lsn, upto: Lsn) -> list[L]:
        """Layers that hold any LSN with ``above`` < LSN ≤ ``upto``."""
        first = bisect_right(self._ends, above + 1)
        # A layer that ends later than this begins after ``upto``, for none is longer.
        last = bisect_right(self._ends, upto + self._longest)
        return [layer for layer in self._layers[first:last] if layer.name.start_lsn <= upto]

    def newest(self, upto: Lsn) -> L | None:
        """Of image layers, the newest at or before ``upto``."""
        position = bisect_right(self._ends, upto + 1)
        return self._layers[position - 1] if position else None


class Node(Generic[L]):
    """What stands at one node of a tree."""

    __slots__ = ("deltas", "images")

    def __init__(self) -> None:
        self.deltas: Stack[L] = Stack()
        self.images: Stack[L] = Stack()

    @property
    def stacks(self) -> tuple[Stack[L], Stack[L]]:
        """Both."""
        return self.deltas, self.images


class LayerTree(Generic[L]):
    """Layers by the text of their names. A search costs O(log n) and what it finds."""

    def __init__(self, layers: Iterable[tuple[str, L]]) -> None:
        self.layers = dict(layers)
        self.built_with = len(self.layers)
        names = [layer.name for layer in self.layers.values()]
        borders = {name.first for name in names} | {after(name.last) for name in names}
        self._borders = sorted(borders)
        self._nodes: dict[int, Node[L]] = {}
        # In order, so that every layer is appended to its stacks.
        for layer in sorted(self.layers.values(), key=lambda layer: layer.name.end_lsn):
            is_image = layer.name.is_image
            for number in self._numbers(layer.name):
                node = self._nodes.get(number)
                if node is None:
                    node = self._nodes[number] = Node()
                (node.images if is_image else node.deltas).add(layer)

    def __len__(self) -> int:
        return len(self.layers)

    def remove(self, text: str) -> None:
        """Take out the layer of this name, which must be here."""
        layer = self.layers.pop(text)
        for number in self._numbers(layer.name):
            node = self._nodes[number]
            (node.images if layer.name.is_image else node.deltas).remove(layer)

    def over(self, key: Key) -> list[Node[L]]:
        """The nodes whose layers all lie over a key; no other layer does."""
        piece = bisect_right(self._borders, key) - 1
        if piece < 0:
            return []
        found = []
        number = piece + len(self._borders)
        while number:
            node = self._nodes.get(number)
            if node is not None:
                found.append(node)
            number >>= 1
        return found

    def overlapping(self, first: Key, last: Key) -> dict[str, L]:
        """Layers whose key range has keys in common with ``first`` … ``last`` (both inside)."""
        low = max(0, bisect_right(self._borders, first) - 1) + len(self._borders)
        high = bisect_right(self._borders, last) - 1 + len(self._borders)
        found: dict[str, L] = {}
        if high < len(self._borders):
            return found
        while low:
            for number in range(low, high + 1):
                node = self._nodes.get(number)
                if node is not None:
                    found |= {str(x.name): x for stack in node.stacks for x in stack}
            low >>= 1
            high >>= 1
        return found

    def _numbers(self, name: LayerName) -> Iterator[int]:
        """Numbers of the nodes that make up a key range; node 1 is the root, n's are 2n, 2n + 1."""
        low = bisect_left(self._borders, name.first) + len(self._borders)
        high = bisect_left(self._borders, after(name.last)) + len(self._borders)
        while low < high:
            if low & 1:
                yield low
                low += 1
            if high & 1:
                high -= 1
                yield high
            low >>= 1
            high >>= 1


def after(key: Key) -> Key:
    """The key that follows; may exceed 32 bits in the last field, which only sorting sees."""
    return Key(*key[:5], key.block + 1)
