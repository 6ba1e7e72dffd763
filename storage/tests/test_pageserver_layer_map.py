"""The layer map: against a look at every layer, and what it costs."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.lsn import Lsn
from storage.pageserver.keys import FIRST_KEY, LAST_KEY, Key
from storage.pageserver.layer_map import LayerMap
from storage.pageserver.layer_name import LayerKind, LayerName

NAME = LayerName(LayerKind.DELTA_0, FIRST_KEY, LAST_KEY, Lsn(1), Lsn(1 << 40), 1)


def key(number: int) -> Key:
    return Key(0, 1663, 1, number // 100, 0, number % 100)


@dataclass(frozen=True)
class Stand:
    name: LayerName


def random_layer(generator: random.Random) -> LayerName:
    first, last = sorted((generator.randrange(40), generator.randrange(40)))
    start = generator.randrange(1, 60)
    kind = generator.choice(list(LayerKind))
    end = start + 1 if kind is LayerKind.IMAGE else start + generator.randrange(1, 20)
    return LayerName(kind, key(first), key(last), Lsn(start), Lsn(end), 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((10, 25, 80)))
def test_the_map_finds_exactly_the_layers_that_matter(seed: int, count: int) -> None:
    generator = random.Random(seed)
    names = {str(n): n for n in (random_layer(generator) for _ in range(count))}
    layers = [Stand(name) for name in names.values()]
    made: LayerMap[Stand] = LayerMap(layers[: generator.randrange(len(layers))])
    for come in layers[len(made) :]:
        made.replace(remove=(), add=[come])
    generator.shuffle(layers)
    for gone in layers[:: generator.choice((5, 2))]:
        made.replace(remove=[gone], add=())
        layers.remove(gone)
    assert sorted(map(id, made)) == sorted(map(id, layers))
    for number in range(41):
        for upto, above in ((Lsn(30), Lsn(0)), (Lsn(70), Lsn(0)), (Lsn(40), Lsn(20))):
            _compare(made, layers, key(number), upto, above)
        found = made.overlapping(key(number), key(number + 3))
        over = [x for x in layers if x.name.first <= key(number + 3) and key(number) <= x.name.last]
        assert sorted(map(id, found)) == sorted(map(id, over))


def test_a_search_does_not_look_at_what_is_older_or_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the history costs no more."""
    looked = 0

    class Watched(Stand):
        def __getattribute__(self, attribute: str) -> object:
            nonlocal looked
            looked += attribute == "name"
            return super().__getattribute__(attribute)

    def look(count: int) -> int:
        nonlocal looked
        names = [
            LayerName(LayerKind.DELTA_1, key(0), key(9), Lsn(n * 10 + 1), Lsn(n * 10 + 11), 1)
            for n in range(count)
        ]
        names += [
            LayerName(LayerKind.IMAGE, key(0), key(9), Lsn(n * 10), Lsn(n * 10 + 1), 1)
            for n in range(5, count, 5)
        ]
        made: LayerMap[Watched] = LayerMap(Watched(name) for name in names)
        looked = 0
        for n in range(0, count, count // 10):
            assert len(made.search(key(3), Lsn(n * 10 + 5)).deltas) <= 5
        return looked

    few, many = look(200), look(2000)
    assert many <= few * 1.2


def _compare(
    made: LayerMap[Stand], layers: list[Stand], wanted: Key, upto: Lsn, above: Lsn
) -> None:
    found = made.search(wanted, upto, above)
    here = [x for x in layers if x.name.first <= wanted <= x.name.last]
    images = [x for x in here if x.name.is_image and above < x.name.start_lsn <= upto]
    floor = max((x.name.start_lsn for x in images), default=above)
    assert found.floor == floor
    assert (found.image is None) == (not images)
    assert found.image is None or found.image.name.start_lsn == floor
    deltas = [
        x
        for x in here
        if not x.name.is_image and x.name.start_lsn <= upto and x.name.end_lsn > floor + 1
    ]
    assert sorted(map(id, found.deltas)) == sorted(map(id, deltas))
    ends = [x.name.end_lsn for x in found.deltas]
    assert ends == sorted(ends, reverse=True)


def test_the_map_refuses_what_it_has_and_what_it_has_not() -> None:
    layer = Stand(NAME)
    made: LayerMap[Stand] = LayerMap([layer])
    with pytest.raises(AssertionError, match="in the map already"):
        made.replace(remove=(), add=[Stand(NAME)])
    made.replace(remove=[layer], add=())
    with pytest.raises(AssertionError, match="not in the map"):
        made.replace(remove=[layer], add=())
