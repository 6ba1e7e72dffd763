"""Key-value pages: layout, limits, redo and what redo refuses."""

from __future__ import annotations

import random
import struct

import pytest

from storage.errors import BadRequest, CorruptData
from storage.kv import page as kv
from storage.lsn import Lsn


def random_page(entropy: random.Random, block: int = 3) -> kv.Page:
    keys = entropy.sample(range(block * 32, block * 32 + 32), entropy.randint(0, 32))
    entries = {key: entropy.randbytes(entropy.randint(0, 240)) for key in keys}
    return kv.Page(entropy.randint(1, 1 << 40), entropy.randint(1, 1000), entries)


@pytest.mark.parametrize("seed", range(20))
def test_encode_then_decode_gives_the_page_back(seed: int) -> None:
    page = random_page(random.Random(seed))
    assert kv.decode(kv.encode(page)) == page


def test_bytes_do_not_depend_on_the_order_of_insertion() -> None:
    page = random_page(random.Random(7))
    turned = kv.Page(page.lsn, page.version, dict(reversed(page.entries.items())))
    assert list(turned.entries) != list(page.entries)
    assert kv.encode(turned) == kv.encode(page)


def test_full_page_of_largest_values_fits() -> None:
    page = kv.Page(8, 1, {key: b"x" * kv.VALUE_BYTES_MAX for key in range(kv.KEYS_PER_PAGE)})
    assert kv.decode(kv.encode(page)) == page


def test_header_is_postgres_shaped() -> None:
    data = kv.encode(kv.Page(0x1_0000_0028, 5, {0: b"abc", 1: b""}))
    lsn_high, lsn_low, checksum, flags, lower, upper, special, size, prune = struct.unpack_from(
        "<IIHHHHHHI", data
    )
    assert (lsn_high, lsn_low) == (1, 0x28)
    assert (checksum, flags, prune) == (0, 0, 0)
    assert lower == 24 + 2 * 4
    assert upper == 8184 - 16 - 8
    assert (special, size) == (8184, 8192 | 4)
    (pointer,) = struct.unpack_from("<I", data, 24)
    assert pointer & 0x7FFF == 8184 - 16
    assert pointer >> 15 & 3 == 1
    assert pointer >> 17 == 8 + 3


def test_limits_of_keys_and_values() -> None:
    assert kv.block_of(0) == 0
    assert kv.block_of(31) == 0
    assert kv.block_of(32) == 1
    assert kv.block_of(kv.KEY_MAX) == kv.BLOCK_MAX
    for key in (-1, kv.KEY_MAX + 1):
        with pytest.raises(BadRequest, match=str(key)):
            kv.block_of(key)
    assert kv.check_value(b"x" * 240) == b"x" * 240
    with pytest.raises(BadRequest, match="241 bytes"):
        kv.check_value(b"x" * 241)


def test_a_page_never_written_is_none() -> None:
    assert kv.decode(bytes(8192)) is None


@pytest.mark.parametrize(
    ("offset", "damage"),
    [(12, b"\xff\xff"), (14, b"\x00\x00"), (16, b"\x00\x00"), (18, b"\x00\x00"), (24, b"\x00" * 4)],
)
def test_damaged_pages_are_refused(offset: int, damage: bytes) -> None:
    data = kv.encode(kv.Page(8, 1, {1: b"a", 2: b"b"}))
    with pytest.raises(CorruptData):
        kv.decode(data[:offset] + damage + data[offset + len(damage) :])


def test_page_of_wrong_size_is_refused() -> None:
    with pytest.raises(CorruptData, match="8191 bytes"):
        kv.decode(bytes(8191))


def test_redo_equals_the_model() -> None:
    entropy = random.Random(11)
    data: bytes | None = None
    model: dict[int, bytes] = {}
    for version in range(1, 200):
        keys = entropy.sample(range(32), entropy.randint(1, 5))
        changes = {key: entropy.choice([None, entropy.randbytes(9)]) for key in keys}
        data = kv.apply(data, kv.encode_changes(version, changes), Lsn(version * 64))
        for key, value in changes.items():
            model[key] = value if value is not None else b""
            if value is None:
                del model[key]
        assert kv.decode(data) == kv.Page(version * 64, version, model)


def test_many_deltas_at_once_equal_one_by_one() -> None:
    deltas = [(v * 8, kv.encode_changes(v, {v % 32: b"%d" % v})) for v in range(1, 50)]
    one_by_one: bytes | None = None
    for lsn, data in deltas:
        one_by_one = kv.apply(one_by_one, data, Lsn(lsn))
    assert kv.apply_all(None, deltas) == one_by_one


def test_redo_refuses_a_delta_out_of_order() -> None:
    first = kv.apply(None, kv.encode_changes(1, {1: b"a"}), Lsn(8))
    second = kv.encode_changes(2, {1: b"b"})
    third = kv.encode_changes(3, {1: b"c"})
    with pytest.raises(CorruptData, match=r"makes version 3 .* page before it is version 1"):
        kv.apply(first, third, Lsn(24))
    twice = kv.apply(first, second, Lsn(16))
    with pytest.raises(CorruptData, match="makes version 2"):
        kv.apply(twice, second, Lsn(24))
    with pytest.raises(CorruptData, match="version 2"):
        kv.apply(None, second, Lsn(16))
    with pytest.raises(CorruptData, match="at 0/8"):
        kv.apply(first, second, Lsn(8))


def test_changes_survive_encoding() -> None:
    changes = {5: b"x" * 240, 6: None, 7: b""}
    assert kv.decode_changes(kv.encode_changes(9, changes)) == (9, changes)


@pytest.mark.parametrize("cut", [0, 7, 12, 17, 20])
def test_cut_delta_is_refused(cut: int) -> None:
    data = kv.encode_changes(1, {5: b"abcdefgh"})
    with pytest.raises(CorruptData):
        kv.decode_changes(data[:cut])
