"""Keys, values, redo and the layer names: encodings and their orders."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.pageserver import keys, values
from storage.pageserver.keys import FIRST_KEY, LAST_KEY, Key, Relation
from storage.pageserver.layer_name import LayerKind, LayerName
from storage.pageserver.redo import (
    OPCODE_DIRECTORY_ADD,
    OPCODE_DIRECTORY_REMOVE,
    OPCODE_SEQUENCE,
    RedoTable,
)
from storage.pageserver.values import Delta, Image, Removed, Value

small = st.integers(0, 255)
word = st.integers(0, 2**32 - 1)
any_key = st.builds(Key, small, word, word, word, small, word)


@given(any_key, any_key)
def test_encoded_keys_sort_as_keys_do(one: Key, other: Key) -> None:
    assert Key.decode(one.encode()) == one
    assert (one < other) == (one.encode() < other.encode())
    assert FIRST_KEY <= one <= LAST_KEY


def test_keys_of_different_things_differ() -> None:
    relation = Relation(1663, 5, 16384, 0)
    made = [
        keys.relation_block(relation, 0),
        keys.relation_size(relation),
        keys.relation_directory(1663, 5),
        keys.database_directory(),
        keys.slru_block(keys.Slru.CLOG, 1, 2),
        keys.slru_size(keys.Slru.CLOG, 1),
        keys.slru_directory(keys.Slru.CLOG),
        keys.relation_map(1663, 5),
        keys.twophase_file(1 << 40 | 7),
        keys.twophase_directory(),
        keys.control_file(),
        keys.checkpoint(),
        keys.named_file(1),
    ]
    assert len(set(made)) == len(made)
    assert keys.relation_block(relation, 3).owner == relation


def test_a_field_too_large_is_refused() -> None:
    with pytest.raises(struct.error):
        keys.relation_block(Relation(1, 1, 1, 0), 1 << 32).encode()


@pytest.mark.parametrize(
    "value",
    [Image(b""), Image(b"page"), Delta(0, b""), Delta(255, b"x", True), Delta(7, b"y"), Removed()],
)
def test_values_survive_their_encoding(value: Value) -> None:
    assert values.decode(values.encode(value)) == value


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x03x", b"\x04abc"])
def test_bytes_that_are_no_value_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptData):
        values.decode(data)


# Redo.

LSN = Lsn(80)


def append(base: bytes | None, data: bytes, lsn: Lsn) -> bytes:
    return (base or b"") + data


def appending_table() -> RedoTable:
    table = RedoTable()
    table.register(100, append)
    table.register(101, append, batch=lambda base, run: (base or b"") + b"".join(d for _, d in run))
    return table


changes = st.lists(
    st.one_of(
        st.builds(Image, st.binary(max_size=3)),
        st.builds(Delta, st.sampled_from([100, 101]), st.binary(max_size=3), st.booleans()),
        st.just(Removed()),
    ),
    min_size=1,
    max_size=8,
)


def plain(base: bytes | None, run: list[Value]) -> bytes | None:
    """What the values mean, one after the other."""
    for value in run:
        if isinstance(value, Image):
            base = value.data
        elif isinstance(value, Removed):
            base = None
        else:
            base = append(None if value.initial else base, value.data, LSN)
    return base


@given(st.none() | st.binary(max_size=3), changes)
def test_reconstruction_replays_in_order(base: bytes | None, run: list[Value]) -> None:
    replayed = [(Lsn(number), value) for number, value in enumerate(run)]
    assert appending_table().reconstruct(base, replayed) == plain(base, run)


@given(st.none() | st.binary(max_size=3), changes)
def test_a_folded_run_has_the_same_effect(base: bytes | None, run: list[Value]) -> None:
    table = appending_table()
    folded = table.fold(run, LSN)
    assert table.reconstruct(base, [(LSN, folded)]) == plain(base, run)
    assert values.decode(values.encode(folded)) == folded


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=2, max_size=2)), max_size=20))
def test_directories_are_sorted_sets(edits: list[tuple[bool, bytes]]) -> None:
    table = RedoTable()
    expected: set[bytes] = set()
    directory: bytes | None = None
    for is_added, entry in edits:
        opcode = OPCODE_DIRECTORY_ADD if is_added else OPCODE_DIRECTORY_REMOVE
        directory = table.apply(directory, Delta(opcode, entry), LSN)
        (expected.add if is_added else expected.discard)(entry)
    assert (directory or b"") == b"".join(sorted(expected))


def test_redo_refuses_what_it_does_not_know() -> None:
    table = RedoTable()
    with pytest.raises(CorruptData, match="opcode 200"):
        table.apply(b"", Delta(200, b""), LSN)
    with pytest.raises(CorruptData, match="entries of 2 bytes"):
        table.apply(b"odd", Delta(OPCODE_DIRECTORY_ADD, b"ab"), LSN)
    with pytest.raises(CorruptData, match="cut short"):
        table.apply(None, Delta(OPCODE_SEQUENCE, b""), LSN)
    with pytest.raises(AssertionError, match="registered twice"):
        table.register(OPCODE_DIRECTORY_ADD, append)


# Layer names.


def test_layer_names_are_read_back() -> None:
    for kind, end in ((LayerKind.DELTA_0, 99), (LayerKind.DELTA_1, 99), (LayerKind.IMAGE, 17)):
        name = LayerName(kind, FIRST_KEY, LAST_KEY, Lsn(16), Lsn(end), 3)
        assert LayerName.parse(str(name)) == name
        assert name.is_image == (kind is LayerKind.IMAGE)


@pytest.mark.parametrize("text", ["", "flush.tmp", "image-00-00", "delta2-" + "0" * 36])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(CorruptData, match="not the name of a layer"):
        LayerName.parse(text)


def test_a_layer_covers_something() -> None:
    with pytest.raises(CorruptData):
        LayerName(LayerKind.DELTA_0, FIRST_KEY, LAST_KEY, Lsn(16), Lsn(16), 1)
    with pytest.raises(CorruptData):
        LayerName(LayerKind.DELTA_0, LAST_KEY, FIRST_KEY, Lsn(16), Lsn(17), 1)
    with pytest.raises(CorruptData):
        LayerName(LayerKind.IMAGE, FIRST_KEY, LAST_KEY, Lsn(16), Lsn(18), 1)
