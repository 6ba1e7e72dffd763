"""Which layers may go: against a read of every key at every LSN that must stay readable."""

from __future__ import annotations

import random

import pytest

from storage.lsn import Lsn
from storage.pageserver.garbage import garbage
from storage.pageserver.keys import Key
from storage.pageserver.layer_name import LayerKind, LayerName

KEYS = 6


class Named:
    def __init__(self, kind: LayerKind, first: int, last: int, start: int, end: int) -> None:
        self.name = LayerName(kind, key(first), key(last), Lsn(start), Lsn(end), 1)

    def __repr__(self) -> str:
        name = self.name
        return f"{name.kind} {name.first.block}-{name.last.block} @{name.start_lsn}-{name.end_lsn}"


def key(number: int) -> Key:
    return Key(0, 0, 0, 0, 0, number)


def delta(first: int, last: int, start: int, end: int) -> Named:
    return Named(LayerKind.DELTA_1, first, last, start, end)


def image(first: int, last: int, lsn: int) -> Named:
    return Named(LayerKind.IMAGE, first, last, lsn, lsn + 1)


def reached(layers: list[Named], wanted: Key, lsn: int) -> set[int]:
    """Layers that a read opens: the newest image at or below ``lsn``, and deltas above it."""
    over = [x for x in layers if x.name.first <= wanted <= x.name.last and x.name.start_lsn <= lsn]
    floor = max((x.name.start_lsn for x in over if x.name.is_image), default=-1)
    return {
        id(x)
        for x in over
        if (x.name.is_image and x.name.start_lsn == floor)
        or (not x.name.is_image and x.name.end_lsn - 1 > floor)
    }


def test_an_image_takes_the_place_of_what_ends_at_or_below_it():
    old, at_border, above = delta(0, 5, 1, 10), delta(0, 5, 10, 21), delta(0, 5, 10, 22)

    assert garbage([old, at_border, above, image(0, 5, 20)], Lsn(30), []) == [old, at_border]
    assert garbage([old, at_border, image(0, 5, 20)], Lsn(20), []) == [old, at_border]
    assert garbage([old, at_border, image(0, 5, 20)], Lsn(19), []) == []


def test_images_must_cover_the_whole_key_range_together():
    old = delta(0, 5, 1, 10)

    assert garbage([old, image(0, 2, 12), image(4, 5, 15)], Lsn(30), []) == []
    assert garbage([old, image(0, 2, 12), image(3, 5, 15)], Lsn(30), []) == [old]
    assert garbage([old, image(0, 2, 12), image(3, 5, 9)], Lsn(30), []) == [old]
    assert garbage([old, image(0, 2, 12), image(3, 5, 8)], Lsn(30), []) == []


def test_a_branch_point_needs_what_is_older_than_it_too():
    old, older, between = delta(0, 5, 5, 10), image(0, 5, 4), delta(0, 5, 10, 14)
    layers = [old, older, between, image(0, 5, 20)]

    assert garbage(layers, Lsn(30), [Lsn(12)]) == []
    assert garbage(layers, Lsn(30), [Lsn(7)]) == [between]
    assert garbage(layers, Lsn(30), [Lsn(4)]) == [old, between]
    assert garbage(layers, Lsn(30), []) == [old, older, between]
    assert garbage(layers, Lsn(30), [Lsn(20), Lsn(35)]) == [old, older, between]


def test_an_image_never_takes_its_own_place():
    only = image(0, 5, 10)

    assert garbage([only], Lsn(30), []) == []
    assert garbage([only, image(0, 5, 11)], Lsn(30), []) == [only]


def random_layers(generator: random.Random) -> list[Named]:
    """Slices of history, each merged into deltas by key range, with images here and there."""
    layers: list[Named] = []
    start = 1
    for _ in range(generator.randint(1, 6)):
        end = start + generator.randint(1, 5)
        cut = generator.randrange(KEYS)
        layers.append(delta(0, cut, start, end))
        if cut < KEYS - 1:
            layers.append(delta(cut + 1, KEYS - 1, start, end))
        if generator.random() < 0.6:
            first = generator.randrange(KEYS)
            layers.append(image(first, generator.randrange(first, KEYS), end - 1))
        if generator.random() < 0.3:
            layers.append(image(0, KEYS - 1, generator.randint(start, end - 1)))
        start = end
    unique = {str(layer.name): layer for layer in layers}
    return generator.sample(list(unique.values()), len(unique))


@pytest.mark.parametrize("seed", range(300))
def test_no_read_that_must_work_ever_reaches_garbage(seed):
    generator = random.Random(seed)
    layers = random_layers(generator)
    top = max(layer.name.end_lsn for layer in layers) + 1
    cutoff = generator.randint(0, top)
    retained = [Lsn(generator.randint(0, top)) for _ in range(generator.randint(0, 3))]

    gone = {id(layer) for layer in garbage(layers, Lsn(cutoff), retained)}

    needed: set[int] = set()
    for lsn in [*range(cutoff, top + 1), *retained]:
        for number in range(KEYS):
            needed |= reached(layers, key(number), lsn)
    assert not gone & needed
    # Nothing is kept for long without need: what stays is reached, or covers more than one piece.
    kept_in_vain = [
        layer
        for layer in layers
        if id(layer) not in gone | needed and layer.name.end_lsn - 1 <= cutoff
    ]
    assert not [layer for layer in kept_in_vain if layer.name.first == layer.name.last]
