"""The layer map: which persistent layers may hold versions of a key below an LSN. Pure.

Layers stand in trees of growing size, as in an LSM tree: what was added last lies loose, and is
scanned; what lies loose long enough becomes a tree, together with every tree that is not larger.
So a change costs O(log² n) in the long run, and a search O(log² n) and what it finds.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.keys import Key
from storage.pageserver.layer_name import LayerKind, LayerName
from storage.pageserver.layer_tree import LayerTree, Named

L = TypeVar("L", bound=Named)

LOOSE_MAX = 16
"""Layers that are scanned rather than found through a tree."""


class Search(NamedTuple, Generic[L]):
    """Where to look for a key: the delta layers newest first, then the image layer if any.

    Delta versions at or below ``floor`` (the image's LSN) must be ignored: the image has them.
    """

    deltas: list[L]
    image: L | None
    floor: Lsn


class LayerMap(Generic[L]):
    """The persistent layers of a timeline. Every change is one synchronous step."""

    def __init__(self, layers: Iterable[L] = ()) -> None:
        self._layers: dict[str, L] = {}
        self._level0: list[L] = []
        self._loose: dict[str, L] = {}
        self._trees: list[LayerTree[L]] = []
        self.replace(remove=(), add=layers)

    def __iter__(self) -> Iterator[L]:
        return iter(self._layers.values())

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, name: LayerName) -> bool:
        return str(name) in self._layers

    def level0(self) -> list[L]:
        """The flushed layers that compaction has not merged yet, oldest first."""
        return list(self._level0)

    def replace(self, *, remove: Iterable[L], add: Iterable[L]) -> None:
        """Swap layers in one step, so that no reader sees a version twice or not at all."""
        for layer in remove:
            self._remove(layer)
        for layer in add:
            text = str(layer.name)
            assert text not in self._layers, f"{text} is in the map already"
            self._layers[text] = self._loose[text] = layer
            if layer.name.kind is LayerKind.DELTA_0:
                insort(self._level0, layer, key=_end_lsn)
        self._trees = [tree for tree in self._trees if len(tree)]
        if len(self._loose) > LOOSE_MAX or any(_is_hollow(tree) for tree in self._trees):
            self._settle()

    def _remove(self, layer: L) -> None:
        text = str(layer.name)
        removed = self._layers.pop(text, None)
        assert removed is layer, f"{layer.name} is not in the map"
        if layer.name.kind is LayerKind.DELTA_0:
            self._level0.remove(layer)
        if self._loose.pop(text, None) is None:
            next(tree for tree in self._trees if text in tree.layers).remove(text)

    def _settle(self) -> None:
        """Make one tree of what is loose, of half empty trees, and of all that is not larger."""
        gathered, self._loose = self._loose, {}
        kept = []
        for tree in sorted(self._trees, key=len):
            if _is_hollow(tree) or len(tree) <= len(gathered):
                gathered = tree.layers | gathered
            else:
                kept.append(tree)
        self._trees = [*kept, LayerTree(gathered.items())]

    def search(self, key: Key, upto: Lsn, above: Lsn = INVALID_LSN) -> Search[L]:
        """Layers that can hold versions of ``key`` with ``above`` < LSN ≤ ``upto``."""
        nodes = [node for tree in self._trees for node in tree.over(key)]
        loose = [x for x in self._loose.values() if x.name.first <= key <= x.name.last]
        images = [layer for layer in loose if layer.name.is_image and layer.name.start_lsn <= upto]
        for node in nodes:
            newest = node.images.newest(upto)
            if newest is not None:
                images.append(newest)
        image = max(images, key=_end_lsn, default=None)
        if image is not None and image.name.start_lsn <= above:
            image = None
        floor = above if image is None else image.name.start_lsn
        deltas = [x for x in loose if not x.name.is_image and _overlaps(x.name, floor, upto)]
        for node in nodes:
            deltas += node.deltas.between(floor, upto)
        deltas.sort(key=_end_lsn, reverse=True)
        return Search(deltas, image, floor)

    def overlapping(self, first: Key, last: Key) -> list[L]:
        """Layers whose key range has keys in common with ``first`` … ``last`` (both inside)."""
        found = {
            text: layer
            for text, layer in self._loose.items()
            if layer.name.first <= last and first <= layer.name.last
        }
        for tree in self._trees:
            found |= tree.overlapping(first, last)
        return list(found.values())


def _is_hollow(tree: LayerTree[L]) -> bool:
    return 2 * len(tree) < tree.built_with


def _overlaps(name: LayerName, above: Lsn, upto: Lsn) -> bool:
    return name.start_lsn <= upto and name.end_lsn - 1 > above


def _end_lsn(layer: Named) -> Lsn:
    return layer.name.end_lsn
