"""Where images are due: against a plan that looks at every pair of layers."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.lsn import Lsn
from storage.pageserver.image_plan import Range, due_images, partitions
from storage.pageserver.keys import FIRST_KEY, LAST_KEY, Key
from storage.pageserver.layer_name import LayerKind, LayerName
from storage.pageserver.pieces import Pictures

KEYS = 12


def key(number: int) -> Key:
    return Key(0, 0, 0, 0, 0, number)


def made(kind: LayerKind, first: int, last: int, start: int, end: int) -> LayerName:
    return LayerName(kind, key(first), key(last), Lsn(start), Lsn(end), 1)


def delta(first: int, last: int, start: int, end: int) -> LayerName:
    return made(LayerKind.DELTA_1, first, last, start, end)


def image(first: int, last: int, lsn: int) -> LayerName:
    return made(LayerKind.IMAGE, first, last, lsn, lsn + 1)


def overlap(one: LayerName, other: LayerName) -> bool:
    return one.first <= other.last and other.first <= one.last


def due_pair_by_pair(names: list[LayerName], threshold: int) -> list[tuple[Range, Lsn]]:
    found = []
    for name in (name for name in names if name.is_image):
        over = [other for other in names if overlap(name, other)]
        if any(other.is_image and other.start_lsn > name.start_lsn for other in over):
            continue
        newer = [
            other
            for other in over
            if other.kind is LayerKind.DELTA_1 and other.start_lsn > name.start_lsn
        ]
        if len({other.start_lsn for other in newer}) >= threshold:
            lsn = Lsn(max(other.end_lsn for other in newer) - 1)
            found.append(((name.first, name.last), lsn))
    return sorted(set(found))


def some_layers(generator: random.Random) -> list[LayerName]:
    names = []
    for _ in range(generator.randrange(1, 40)):
        first, last = sorted((generator.randrange(KEYS), generator.randrange(KEYS)))
        start = generator.randrange(1, 30)
        kind = generator.choice(list(LayerKind))
        end = start + 1 if kind is LayerKind.IMAGE else start + generator.randrange(1, 10)
        names.append(made(kind, first, last, start, end))
    return [image(3, 5, 2), *names]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_images_are_due_where_a_look_at_every_pair_finds_them(seed: int, threshold: int) -> None:
    names = some_layers(random.Random(seed))

    assert sorted(due_images(names, threshold)) == due_pair_by_pair(names, threshold)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 32))
def test_pieces_know_the_newest_image_over_each_key(seed: int, point: int) -> None:
    names = some_layers(random.Random(seed))
    images = [name for name in names if name.is_image]
    pictures = Pictures(images)
    floors = pictures.newest(Lsn(point))

    for name in names:
        lsns = [
            max(
                (x.start_lsn for x in images if x.start_lsn <= point and x.first <= at <= x.last),
                default=0,
            )
            for at in map(key, range(name.first.block, name.last.block + 1))
        ]
        assert pictures.lowest(floors, name) == min(lsns)
        assert pictures.highest(floors, name) == max(lsns)


def test_before_there_is_an_image_everything_is_one_partition():
    names = [delta(0, 3, 1, 5), delta(5, 9, 5, 9)]

    assert [one[:2] for one in partitions(names)] == [(FIRST_KEY, LAST_KEY)]
    assert due_images(names, 2) == [((FIRST_KEY, LAST_KEY), Lsn(8))]
    assert due_images(names, 3) == []


def test_a_delta_that_the_image_cuts_in_two_does_not_count():
    names = [image(0, 5, 10), delta(0, 5, 10, 20), delta(0, 5, 11, 21), delta(6, 6, 11, 21)]

    assert due_images(names, 1) == [((key(0), key(5)), Lsn(20))]
    assert due_images(names, 2) == []
