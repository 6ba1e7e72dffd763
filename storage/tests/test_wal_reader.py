"""The reader delivers exactly the written records in any chunks, and refuses each wrong byte."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import BadRequest, CorruptData
from storage.lsn import Lsn
from storage.wal.format import LONG_PAGE_HEADER, PAGE_SIZE, RECORD_HEADER_SIZE, SHORT_PAGE_HEADER
from storage.wal.reader import RawRecord, WalReader
from storage.wal.record import RecordSpec
from storage.wal.writer import WalWriter, WriterOptions

MIB = 1 << 20
OPTIONS = WriterOptions(version=15, segment_size=MIB, system_id=0x1234)
START = Lsn(3 * MIB)


def write(lengths: list[int], start: Lsn = START, options: WriterOptions = OPTIONS) -> bytes:
    """WAL of one record per total length; -1 switches the segment."""
    writer = WalWriter(options, start, Lsn(0))
    for xid, length in enumerate(lengths):
        if length < 0:
            writer.switch()
        else:
            writer.append(spec(xid, length))
    return writer.take()[1]


def spec(xid: int, length: int) -> RecordSpec:
    header = 0 if length == RECORD_HEADER_SIZE else 2 if length <= RECORD_HEADER_SIZE + 257 else 5
    main = random.Random(xid).randbytes(length - RECORD_HEADER_SIZE - header)
    return RecordSpec(rmid=203, info=0x10, xid=xid, main_data=main)


def read(data: bytes, start: Lsn = START, **options: object) -> list[RawRecord]:
    reader = WalReader(start, 15, MIB, **options)  # type: ignore[arg-type]
    reader.feed(data)
    return list(reader.records())


LENGTHS = st.lists(
    st.sampled_from(
        [24, 27, 32, 200, 281, 286, 4000, PAGE_SIZE - 24, PAGE_SIZE, 3 * PAGE_SIZE, -1]
    ),
    max_size=30,
)


def chunks(data: bytes, parts: int, entropy: random.Random) -> list[bytes]:
    """Cut at random places, and at more of them close to page borders."""
    cuts = [entropy.randrange(len(data) + 1) for _ in range(parts)]
    for page in entropy.choices(range(len(data) // PAGE_SIZE + 1), k=parts):
        cuts.append(min(max(page * PAGE_SIZE + entropy.randint(-48, 48), 0), len(data)))
    return [data[begin:end] for begin, end in pairwise(sorted([0, *cuts, len(data)]))]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.sampled_from([15, 16, 18]), st.integers(0, 300), st.integers(0, 2**16))
def test_any_chunking_gives_the_written_records(
    lengths: list[int], version: int, parts: int, seed: int
) -> None:
    writer = WalWriter(WriterOptions(version, MIB, system_id=9), START, Lsn(0))
    written = []
    for xid, length in enumerate(lengths):
        before = writer.position
        bounds = writer.switch() if length < 0 else writer.append(spec(xid, length))
        if writer.position != before:
            written.append(bounds)
    _, data = writer.take()

    reader = WalReader(START, version, MIB, 9)
    records: list[RawRecord] = []
    for chunk in chunks(data, parts, random.Random(seed)):
        reader.feed(chunk)
        records.extend(reader.records())

    assert [(record.lsn, record.end_lsn) for record in records] == written
    assert reader.position == START + len(data)
    assert reader.last_end_lsn == writer.position


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(0, 2**32), st.integers(1, 40), st.binary(min_size=1, max_size=64))
def test_garbage_anywhere_is_refused_or_waited_for(
    lengths: list[int], place: int, parts: int, garbage: bytes
) -> None:
    """Whatever is overwritten, no record comes out that was not written."""
    data = write([*lengths, 100])
    written = set(read(data))
    at = place % len(data)
    broken = data[:at] + garbage + data[at + len(garbage) :]
    reader = WalReader(START, 15, MIB)
    records: list[RawRecord] = []
    try:
        for chunk in chunks(broken, parts, random.Random(place)):
            reader.feed(chunk)
            for record in reader.records():
                records.append(record)
    except CorruptData as error:
        assert "/" in str(error)
    assert set(records) <= written


def test_bytes_one_by_one() -> None:
    lengths = [24, 27, 8168, 40, 20_000, 24]
    data = write(lengths)
    reader = WalReader(START, 15, MIB)
    records: list[RawRecord] = []
    for at in range(len(data)):
        reader.feed(data[at : at + 1])
        records.extend(reader.records())
    assert [len(record.raw) for record in records] == lengths


@pytest.mark.parametrize("beyond", [-8, -1, 0, 1, 8])
def test_record_that_ends_at_a_page_boundary(beyond: int) -> None:
    length = PAGE_SIZE - LONG_PAGE_HEADER.size + beyond
    first, second = read(write([length, 32]))
    if -8 < beyond <= 0:
        assert first.end_lsn == START + PAGE_SIZE
        assert second.lsn == START + PAGE_SIZE + SHORT_PAGE_HEADER.size
    elif beyond == -8:
        assert first.end_lsn == second.lsn == START + PAGE_SIZE - 8
    else:
        assert first.end_lsn == second.lsn == START + PAGE_SIZE + SHORT_PAGE_HEADER.size + 8


def test_record_header_crosses_a_page() -> None:
    filler = PAGE_SIZE - LONG_PAGE_HEADER.size - 8
    first, second, third = read(write([filler, 32, 24]))
    assert second.lsn == START + PAGE_SIZE - 8
    assert third.lsn == second.end_lsn == START + PAGE_SIZE + SHORT_PAGE_HEADER.size + 24
    assert first.end_lsn == second.lsn


def test_record_crosses_a_segment() -> None:
    records = read(write([200, 3 * MIB, 200]))
    assert len(records[1].raw) == 3 * MIB
    for before, after in pairwise(records):
        assert after.lsn == before.end_lsn
    assert records[2].lsn > START + 3 * MIB


def test_switch_ends_with_the_segment() -> None:
    data = write([200, -1, 200])
    first, switch, last = read(data)
    assert switch.lsn == first.end_lsn
    assert switch.end_lsn == START + MIB
    assert last.lsn == START + MIB + LONG_PAGE_HEADER.size
    assert data[switch.lsn - START + 24 : MIB].count(0) == START + MIB - switch.lsn - 24


def test_switch_is_delivered_before_the_rest_of_its_segment_arrives() -> None:
    data = write([200, -1])
    reader = WalReader(START, 15, MIB)
    reader.feed(data[:400])
    assert [record.end_lsn for record in reader.records()][-1] == START + MIB
    reader.feed(data[400:])
    assert list(reader.records()) == []
    assert reader.position == START + MIB


def test_start_in_the_middle_of_a_page_needs_no_header() -> None:
    first, *others = read(write([100, 200, 300]))
    data = write([100, 200, 300])
    assert read(data[first.end_lsn - START :], first.end_lsn, check_prev=first.lsn) == others


def test_skips_the_record_begun_before_only_when_asked_to() -> None:
    records = read(write([100, 3 * PAGE_SIZE, 300]))
    data = write([100, 3 * PAGE_SIZE, 300])
    page = Lsn(START + PAGE_SIZE)
    skipping = WalReader.at_page(page, 15, MIB)
    skipping.feed(data[PAGE_SIZE:])
    assert list(skipping.records()) == records[2:]
    with pytest.raises(CorruptData, match="expected 0"):
        read(data[PAGE_SIZE:], page)


def test_abandoned_record_is_replaced_by_the_overwriting_page() -> None:
    data = bytearray(write([100, 3 * PAGE_SIZE]))
    first, _ = read(bytes(data))
    page = Lsn(START + PAGE_SIZE)
    writer = WalWriter(OPTIONS, page, first.lsn)
    writer.append(spec(7, 64))
    replacement = bytearray(writer.take()[1])
    replacement[2] |= 8  # XLP_FIRST_IS_OVERWRITE_CONTRECORD
    records = read(bytes(data[:PAGE_SIZE] + replacement))
    assert [record.lsn for record in records] == [first.lsn, page + SHORT_PAGE_HEADER.size]


def test_every_flipped_byte_of_a_record_is_noticed() -> None:
    data = write([100, 64, 100, 2 * PAGE_SIZE])
    first, second, *_ = read(data)
    for at in range(second.lsn - START, second.lsn - START + 64):
        broken = bytearray(data)
        broken[at] ^= 0x41
        reader = WalReader(START, 15, MIB)
        reader.feed(bytes(broken))
        got = []
        with pytest.raises(CorruptData):
            for record in reader.records():
                got.append(record)
        assert got == [first]
        assert reader.last_end_lsn == first.end_lsn


@pytest.mark.parametrize("field", [0, 2, 8, 16, 24, 32, 36])
def test_wrong_page_header_is_refused(field: int) -> None:
    data = bytearray(write([100]))
    data[field] ^= 0x20
    with pytest.raises(CorruptData, match=r"page at 0/300000"):
        read(bytes(data), system_id=0x1234)


def test_failure_stays() -> None:
    reader = WalReader(START, 15, MIB)
    reader.feed(b"\xff" * 100)
    for _ in range(2):
        with pytest.raises(CorruptData):
            list(reader.records())
    reader.feed(write([100]))
    with pytest.raises(CorruptData):
        list(reader.records())


def test_previous_link_must_be_the_record_before() -> None:
    data = write([100, 100])
    first, _ = read(data)
    assert len(read(data, check_prev=Lsn(0))) == 2
    with pytest.raises(CorruptData, match="previous record is 0/0, not 0/8"):
        read(data, check_prev=Lsn(8))
    other = WalWriter(OPTIONS, first.end_lsn, Lsn(START + 48))
    other.append(spec(1, 100))
    with pytest.raises(CorruptData, match="previous record is 0/300030"):
        read(data[: first.end_lsn - START] + other.take()[1])


def test_first_link_must_point_back() -> None:
    writer = WalWriter(OPTIONS, START, START)
    lsn, _ = writer.append(spec(1, 40))
    _, data = writer.take()
    assert len(read(data)) == 1
    late = WalWriter(OPTIONS, Lsn(START + MIB), Lsn(START + MIB))
    late.append(spec(1, 40))
    moved = late.take()[1][40:]
    with pytest.raises(CorruptData, match="is not before"):
        read(data[:40] + moved)
    assert lsn == START + 40


def test_zeros_are_not_a_record() -> None:
    data = write([100])
    reader = WalReader(START, 15, MIB)
    reader.feed(data + bytes(64))
    with pytest.raises(CorruptData, match="length 0 at"):
        list(reader.records())


def test_bad_parameters() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        WalReader(Lsn(4), 15, MIB)
    with pytest.raises(BadRequest, match="version 14"):
        WalReader(Lsn(0), 14, MIB)
    with pytest.raises(BadRequest, match="segment size 1000"):
        WalReader(Lsn(0), 15, 1000)
    with pytest.raises(ValueError, match="not the start of a WAL page"):
        WalReader.at_page(Lsn(8), 15, MIB)
