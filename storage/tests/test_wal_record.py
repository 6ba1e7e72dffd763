"""A record decodes to what was encoded: block references, images in every form, extra headers."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import BadRequest, CorruptData
from storage.lsn import Lsn
from storage.wal import image, pglz
from storage.wal.encode import encode
from storage.wal.format import PAGE_SIZE, record_crc
from storage.wal.image import Compression
from storage.wal.record import BlockSpec, RecordSpec, WalRecord, decode

LSN, END = Lsn(0x2000), Lsn(0x3000)


def page(lower: int, upper: int, seed: int = 1) -> bytes:
    """A page with random content around a zero hole from ``lower`` to ``upper``."""
    content = bytearray(random.Random(seed).randbytes(PAGE_SIZE))
    content[12:16] = struct.pack("<HH", lower, upper)
    if 24 <= lower < upper <= PAGE_SIZE:
        content[lower:upper] = bytes(upper - lower)
    return bytes(content)


def round_trip(record: RecordSpec) -> WalRecord:
    return decode(encode(record, 0x1000), LSN, END, 15)


PAGES = st.builds(
    page, st.sampled_from([0, 24, 100, 4000]), st.sampled_from([0, 100, 4000, 8100, PAGE_SIZE])
)
BLOCKS = st.lists(
    st.builds(
        BlockSpec,
        block_id=st.integers(0, 32),
        space=st.integers(0, 2**32 - 1),
        database=st.integers(1, 2),
        relation=st.integers(1, 2),
        block=st.integers(0, 2**32 - 2),
        fork=st.integers(0, 3),
        will_init=st.booleans(),
        image=st.none() | PAGES,
        data=st.binary(max_size=300),
        compression=st.sampled_from([Compression.NONE, Compression.LZ4, Compression.ZSTD]),
    ),
    max_size=5,
    unique_by=lambda block: block.block_id,
).map(lambda blocks: sorted(blocks, key=lambda block: block.block_id))
RECORDS = st.builds(
    RecordSpec,
    rmid=st.sampled_from([0, 10, 21, 128, 203, 255]),
    info=st.integers(0, 255),
    xid=st.integers(0, 2**32 - 1),
    main_data=st.binary(max_size=600),
    blocks=BLOCKS,
    origin=st.sampled_from([0, 1, 65535]),
    toplevel_xid=st.sampled_from([0, 1, 2**32 - 1]),
)


@settings(max_examples=100, deadline=None)
@given(RECORDS)
def test_decoding_inverts_encoding(record: RecordSpec) -> None:
    decoded = round_trip(record)
    assert decoded.main_data == record.main_data
    assert (decoded.rmid, decoded.info, decoded.xid) == (record.rmid, record.info, record.xid)
    assert (decoded.origin, decoded.toplevel_xid) == (record.origin, record.toplevel_xid)
    assert (decoded.lsn, decoded.end_lsn, decoded.prev_lsn) == (LSN, END, 0x1000)
    assert len(decoded.blocks) == len(record.blocks)
    for got, wrote in zip(decoded.blocks, record.blocks, strict=True):
        assert (got.block_id, got.fork, got.block) == (wrote.block_id, wrote.fork, wrote.block)
        assert (got.space, got.database, got.relation) == (
            wrote.space, wrote.database, wrote.relation,
        )  # fmt: skip
        assert got.will_init == wrote.will_init
        assert got.data == wrote.data
        assert got.image == wrote.image


def test_equal_relation_is_written_once() -> None:
    def blocks(relation: int) -> Sequence[BlockSpec]:
        return (BlockSpec(0, 1663, 5, 100, 1), BlockSpec(1, 1663, 5, relation, 2))

    same = encode(RecordSpec(10, 0, 3, b"x", blocks(100)), 8)
    other = encode(RecordSpec(10, 0, 3, b"x", blocks(101)), 8)
    assert len(other) - len(same) == 12
    assert decode(same, LSN, END, 15).blocks[1].relation == 100


@pytest.mark.parametrize("length", [0, 1, 255, 256])
def test_main_data_header_grows_beyond_255_bytes(length: int) -> None:
    raw = encode(RecordSpec(203, 0, 1, bytes(length)), 8)
    assert len(raw) - 24 - length == (0 if length == 0 else 2 if length <= 255 else 5)


def test_hole_and_compression_make_the_image_smaller() -> None:
    def size(content: bytes, compression: Compression = Compression.NONE) -> int:
        block = BlockSpec(0, 1663, 5, 100, 1, image=content, compression=compression)
        return len(encode(RecordSpec(10, 0, 3, b"", (block,)), 8))

    full = size(page(0, 0))
    assert full - size(page(100, 5100)) == 5000
    compressible = page(24, 30)[:200].ljust(PAGE_SIZE, b"a")
    assert size(compressible, Compression.LZ4) < 500
    assert size(compressible, Compression.ZSTD) < 500
    assert size(page(0, 0), Compression.LZ4) == full  # Random bytes do not compress.


def test_a_block_without_image_shows_none() -> None:
    bare = BlockSpec(1, 1663, 5, 100, 7, data=b"delta")
    record = round_trip(
        RecordSpec(203, 0, 3, b"", (BlockSpec(0, 1663, 5, 100, 1, image=page(0, 0)), bare))
    )
    assert [(block.block, block.image is None) for block in record.blocks] == [
        (1, False),
        (7, True),
    ]


@settings(max_examples=200, deadline=None)
@given(RECORDS, st.integers(0, 10_000), st.integers(1, 255))
def test_a_broken_body_never_raises_anything_but_corrupt_data(
    record: RecordSpec, at: int, flip: int
) -> None:
    raw = bytearray(encode(record, 8))
    if len(raw) == 24:
        return
    raw[24 + at % (len(raw) - 24)] ^= flip
    assert int.from_bytes(raw[20:24], "little") != record_crc(bytes(raw))
    try:
        decode(bytes(raw), LSN, END, 15)
    except CorruptData as error:
        assert str(LSN) in str(error)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x80", "block id 128"),
        (b"\xff\x05abc", "parts take 31 bytes, the record has 29"),
        (b"\x00\x80\x00\x00" + bytes(4), "relation of a block before"),
        (b"\x00\x20\x00\x00" + bytes(16), "0 bytes of data"),
        (b"\x00\x10\x00\x00", "ends inside"),
        (b"\xff\x01ab", "parts take 27 bytes"),
    ],
)
def test_wrong_structure_is_named(body: bytes, message: str) -> None:
    raw = struct.pack("<IIQBB2xI", 24 + len(body), 0, 0, 0, 10, 0) + body
    with pytest.raises(CorruptData, match=message):
        decode(raw, LSN, END, 15)


def test_length_must_be_the_records_own() -> None:
    with pytest.raises(CorruptData, match="has length 24, got 25"):
        decode(struct.pack("<IIQBB2xI", 24, 0, 0, 0, 10, 0) + b"x", LSN, END, 15)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (RecordSpec(100, 0, 1), "resource manager id 100"),
        (RecordSpec(203, 0, 1, b"", (BlockSpec(33, 1, 1, 1, 1),)), "block id 33"),
        (RecordSpec(203, 0, 1, b"", (BlockSpec(1, 1, 1, 1, 1),) * 2), "block id 1 is outside 2"),
        (RecordSpec(203, 0, 1, b"", (BlockSpec(0, 1, 1, 1, 1, data=bytes(65536)),)), "65536"),
        (RecordSpec(203, 0, 1, b"", (BlockSpec(0, 1, 1, 1, 1, image=b"x"),)), "has 1 bytes"),
    ],
)
def test_what_the_format_cannot_express_is_refused(record: RecordSpec, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        encode(record, 8)


def test_page_lsn_is_set_unless_the_page_is_new() -> None:
    stamped = image.with_lsn(page(100, 200), 0x0000_0001_0000_00FF)
    assert stamped[:8] == struct.pack("<II", 1, 0xFF)
    assert stamped[8:] == page(100, 200)[8:]
    assert image.with_lsn(bytes(PAGE_SIZE), 77) == bytes(PAGE_SIZE)


def test_damaged_compressed_image_is_corrupt_data() -> None:
    for method in (Compression.LZ4, Compression.ZSTD, Compression.PGLZ):
        with pytest.raises(CorruptData):
            image.restore(b"\xff\xee\xdd", method.value, 0, 0)
    with pytest.raises(CorruptData, match="compression bits"):
        image.restore(b"\xff\xee\xdd", Compression.LZ4.value | Compression.ZSTD.value, 0, 0)
    short = image.compress(b"abc", Compression.LZ4)
    with pytest.raises(CorruptData):
        image.restore(short, Compression.LZ4.value, 0, 0)
    with pytest.raises(ValueError, match="PGLZ"):
        image.compress(bytes(PAGE_SIZE), Compression.PGLZ)


@pytest.mark.parametrize(
    ("compressed", "expected"),
    [
        (b"\x00abc", b"abc"),
        (b"\x02a\x00\x01", b"aaaa"),
        (b"\x04ab\x01\x02", b"abababa"[:6]),
        (b"\x02a\x0f\x01\x02", b"a" * 21),
        (b"\x00abcdefgh\x01\x05\x08", b"abcdefghabcdefgh"),
    ],
)
def test_pglz_items(compressed: bytes, expected: bytes) -> None:
    assert pglz.decompress(compressed, len(expected)) == expected


@pytest.mark.parametrize(
    ("compressed", "size", "message"),
    [
        (b"\x01\x00\x01", 3, "reaches 1 bytes back"),
        (b"\x02a\x00\x00", 4, "reaches 0 bytes back"),
        (b"\x02a\x00", 4, "ends inside"),
        (b"\x00abc", 4, "holds 3 bytes"),
        (b"\x00abcd", 3, "holds 3 bytes"),
    ],
)
def test_pglz_damage(compressed: bytes, size: int, message: str) -> None:
    with pytest.raises(CorruptData, match=message):
        pglz.decompress(compressed, size)
