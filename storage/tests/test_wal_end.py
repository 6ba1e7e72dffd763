"""The end of WAL is the end of the last complete record, whatever lies behind it."""

from __future__ import annotations

import asyncio
import random

import pytest

from storage.lsn import Lsn
from storage.wal.format import PAGE_SIZE
from storage.wal.record import RecordSpec
from storage.wal.validate import EndOfWal, WalRange, find_end_of_wal
from storage.wal.writer import WalWriter, WriterOptions

MIB = 1 << 20
START = Lsn(2 * MIB)


class Segments:
    """Segments in memory, zero-filled to their full size as safekeepers keep them."""

    def __init__(self, begin: Lsn, data: bytes) -> None:
        self.segments: dict[int, bytearray] = {}
        self.write(begin, data)

    def write(self, lsn: int, data: bytes) -> None:
        for at in range(len(data)):
            if at == 0 or (lsn + at) % MIB == 0:
                room = MIB - (lsn + at) % MIB
                segment = self.segments.setdefault((lsn + at) // MIB, bytearray(MIB))
                piece = data[at : at + room]
                segment[(lsn + at) % MIB : (lsn + at) % MIB + len(piece)] = piece

    async def read(self, segment: int, offset: int, length: int) -> bytes:
        return bytes(self.segments.get(segment, b"")[offset : offset + length])


def find(segments: Segments, start: Lsn = START, prev: Lsn | None = None) -> EndOfWal:
    wal = WalRange(start, 16, MIB, 77, prev)
    return asyncio.run(find_end_of_wal(segments.read, wal))


def writer_at(start: Lsn = START, prev: int = 8) -> WalWriter:
    return WalWriter(WriterOptions(16, MIB, 77), start, Lsn(prev))


def fill(writer: WalWriter, *lengths: int, seed: int = 0) -> Lsn:
    entropy = random.Random(seed)
    for length in lengths:
        writer.append(RecordSpec(203, 0, 1, entropy.randbytes(length)))
    return writer.position


def test_zeros_follow() -> None:
    writer = writer_at()
    end = fill(writer, 100, 20_000, 50)
    found = find(Segments(*writer.take()))
    assert found.end_lsn == end
    assert found.last_lsn == writer.prev_lsn
    assert "length 0" in found.reason


@pytest.mark.parametrize("offset", [0, 40, 4096, PAGE_SIZE, 5 * PAGE_SIZE])
def test_start_at_the_very_end_is_the_answer(offset: int) -> None:
    start = Lsn(START + offset)
    assert find(Segments(START, b"\0")).end_lsn == START
    assert find(Segments(START, b"\0"), start).end_lsn == start
    assert find(Segments(START, b"\0"), start).last_lsn is None
    assert find(Segments(START, b"\0"), start, Lsn(8)).last_lsn == 8


def test_no_segment_at_all() -> None:
    found = find(Segments(Lsn(0), b"\0"), Lsn(9 * MIB))
    assert found.end_lsn == 9 * MIB
    assert found.reason == "no more bytes"


def test_segment_that_begins_with_a_hole() -> None:
    start = Lsn(START + 100 * PAGE_SIZE + 328)
    writer = writer_at(start)
    end = fill(writer, 10, 9000, 10)
    assert find(Segments(*writer.take()), start).end_lsn == end


def test_last_record_crosses_a_segment_border() -> None:
    writer = writer_at()
    fill(writer, MIB - 9000)
    end = fill(writer, 30_000)
    begin, data = writer.take()
    assert begin // MIB != end // MIB
    segments = Segments(begin, data)
    assert find(segments).end_lsn == end
    del segments.segments[3]
    assert find(segments).end_lsn < START + MIB


def test_torn_tail_is_left_out() -> None:
    writer = writer_at()
    whole = fill(writer, 500, 500)
    _, data = writer.take()
    fill(writer, 30_000)
    _, tail = writer.take()
    for cut in (1, 4, 23, 24, 100, PAGE_SIZE, 20_000, len(tail) - 8):
        assert find(Segments(START, data + tail[:cut])).end_lsn == whole


def test_bytes_missing_in_the_middle() -> None:
    writer = writer_at()
    first = fill(writer, 500)
    fill(writer, 30_000, 500, 500)
    begin, data = writer.take()
    holed = bytearray(data)
    holed[2 * PAGE_SIZE + 100 : 2 * PAGE_SIZE + 200] = bytes(100)
    assert find(Segments(begin, bytes(holed))).end_lsn == first


@pytest.mark.parametrize("length", [100, 8000, 30_000])
def test_stale_records_after_the_end_are_refused_by_their_link(length: int) -> None:
    """Two logs of equal layout: the old one's records continue exactly where the new one ends."""
    old = writer_at()
    fill(old, 64, 100, length, 100, 100)
    stale = Segments(*old.take())
    new = writer_at()
    end = fill(new, 172, length, seed=5)
    assert end.offset(MIB) % PAGE_SIZE != 0
    stale.write(*new.take())
    assert find(stale).end_lsn == end


def test_stale_first_record_is_refused_when_the_one_before_is_known() -> None:
    old = writer_at(START, 8)
    fill(old, 64)
    stale = Segments(*old.take())
    assert find(stale, START, Lsn(16)).end_lsn == START
    assert find(stale, START, Lsn(8)).end_lsn == old.position


def test_recycled_segment_is_refused_by_its_page_address() -> None:
    writer = writer_at()
    end = fill(writer, MIB - 40 - 24 - 5 - 127 * 24)
    segments = Segments(*writer.take())
    assert end == START + MIB
    older = writer_at(Lsn(0), 0)
    fill(older, 300)
    segments.segments[3] = bytearray(older.take()[1])
    found = find(segments)
    assert found.end_lsn == end
    assert "0/300000" in found.reason


def test_stale_continuation_at_the_start_is_not_skipped() -> None:
    old = writer_at()
    fill(old, 10_000, 50)
    stale = Segments(*old.take())
    page = Lsn(START + PAGE_SIZE)
    assert find(stale, page).end_lsn == page


def test_switch_makes_the_end_the_next_segment() -> None:
    writer = writer_at()
    fill(writer, 100)
    writer.switch()
    segments = Segments(*writer.take())
    assert find(segments).end_lsn == START + MIB
    end = fill(writer, 100)
    segments.write(*writer.take())
    assert find(segments).end_lsn == end
