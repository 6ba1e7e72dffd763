"""The layer map: which persistent layers may hold versions of a key below an LSN. Pure.

Wide layers (``delta0``) are few, because compaction eats them: they are scanned. The others have
narrow key ranges and are found through an interval table: the key space is cut at every range
boundary, and each piece lists its layers newest first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.keys import Key
from storage.pageserver.layer_name import LayerKind, LayerName


class Named(Protocol):
    """Anything that has a layer's name: the layer itself, or a stand-in of a test."""

    @property
    def name(self) -> LayerName:
        """What the layer covers."""
        ...


L = TypeVar("L", bound=Named)


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
        self._wide: list[L] = []
        self._cuts: list[Key] = []
        self._pieces: list[list[L]] = []
        self.replace(remove=(), add=layers)

    def __iter__(self) -> Iterator[L]:
        return iter(self._layers.values())

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, name: LayerName) -> bool:
        return str(name) in self._layers

    def names(self) -> Mapping[str, L]:
        """The layers by the text of their names, in order of insertion."""
        return self._layers

    def level0(self) -> list[L]:
        """The flushed layers that compaction has not merged yet, oldest first."""
        return self._wide[::-1]

    def replace(self, *, remove: Iterable[L], add: Iterable[L]) -> None:
        """Swap layers in one step, so that no reader sees a version twice or not at all."""
        for layer in remove:
            removed = self._layers.pop(str(layer.name), None)
            assert removed is layer, f"{layer.name} is not in the map"
        for layer in add:
            text = str(layer.name)
            assert text not in self._layers, f"{text} is in the map already"
            self._layers[text] = layer
        ordered = sorted(
            self._layers.values(), key=lambda layer: (-layer.name.end_lsn, str(layer.name))
        )
        self._wide = [layer for layer in ordered if layer.name.kind is LayerKind.DELTA_0]
        self._index([layer for layer in ordered if layer.name.kind is not LayerKind.DELTA_0])

    def search(self, key: Key, upto: Lsn, above: Lsn = INVALID_LSN) -> Search[L]:
        """Layers that can hold versions of ``key`` with ``above`` < LSN ≤ ``upto``."""
        narrow = self._piece(key)
        image = None
        floor = above
        for layer in narrow:
            if layer.name.is_image and above < layer.name.start_lsn <= upto:
                image = layer
                floor = layer.name.start_lsn
                break
        deltas = [
            layer
            for layer in narrow
            if not layer.name.is_image and _overlaps(layer.name, floor, upto)
        ]
        wide = [
            layer
            for layer in self._wide
            if _overlaps(layer.name, floor, upto) and layer.name.first <= key <= layer.name.last
        ]
        if wide and deltas:
            wide = sorted(wide + deltas, key=lambda layer: -layer.name.end_lsn)
        return Search(wide or deltas, image, floor)

    def _piece(self, key: Key) -> list[L]:
        index = bisect_right(self._cuts, key) - 1
        return self._pieces[index] if index >= 0 else []

    def _index(self, narrow: list[L]) -> None:
        """Cut the key space; ``narrow`` comes newest first and stays so in each piece."""
        cuts = {layer.name.first for layer in narrow} | {
            _after(layer.name.last) for layer in narrow
        }
        self._cuts = sorted(cuts)
        number = {key: index for index, key in enumerate(self._cuts)}
        self._pieces = [[] for _ in self._cuts]
        for layer in narrow:
            for index in range(number[layer.name.first], number[_after(layer.name.last)]):
                self._pieces[index].append(layer)


def _overlaps(name: LayerName, above: Lsn, upto: Lsn) -> bool:
    return name.start_lsn <= upto and name.end_lsn - 1 > above


def _after(key: Key) -> Key:
    """The key that follows; may exceed 32 bits in the last field, which only sorting sees."""
    return key._replace(block=key.block + 1)
