"""Transactions as WAL records: deltas, images, initialisation, and the limit of pages."""

from __future__ import annotations

import pytest

from storage.errors import BadRequest
from storage.kv import page as kv
from storage.kv import record as kv_record
from storage.kv.page import Page
from storage.kv.record import FULL_IMAGE_EVERY, ChangedPage
from storage.lsn import Lsn
from storage.wal.image import with_lsn
from storage.wal.reader import WalReader
from storage.wal.record import WalRecord, decode
from storage.wal.writer import WalWriter, WriterOptions

START = Lsn(0x100000)


def written(steps: list[dict[int, dict[int, bytes | None]]]) -> tuple[list[WalRecord], bytes]:
    """Records decoded from WAL made of changes per block, and the WAL."""
    writer = WalWriter(WriterOptions(15, 1 << 20, 7), START, Lsn(0))
    pages: dict[int, Page] = {}
    for step in steps:
        changed: list[ChangedPage] = []
        for block, changes in sorted(step.items()):
            page = pages.setdefault(block, Page())
            kv.change(page, changes)
            changed.append(ChangedPage(block, page, changes))
        writer.append(kv_record.transaction(changed))
    begin, data = writer.take()
    reader = WalReader(begin, 15, 1 << 20)
    reader.feed(data)
    return [decode(raw.raw, raw.lsn, raw.end_lsn, 15) for raw in reader.records()], data


def replay(records: list[WalRecord]) -> dict[int, bytes]:
    """Redo as a page store does it."""
    pages: dict[int, bytes] = {}
    for record in records:
        for block in record.blocks:
            if block.image is not None:
                pages[block.block] = with_lsn(block.image, record.end_lsn)
            else:
                before = None if block.will_init else pages[block.block]
                pages[block.block] = kv.apply(before, block.data, record.end_lsn)
    return pages


def test_redo_of_a_written_log_equals_the_pages_that_were_logged() -> None:
    steps: list[dict[int, dict[int, bytes | None]]] = [
        {0: {1: b"a%d" % n}, 5: {160 + n % 32: b"b" * n}} for n in range(2 * FULL_IMAGE_EVERY + 3)
    ]
    records, _ = written(steps)
    assert len(records) == len(steps)
    pages = replay(records)
    state = kv.decode(pages[5])
    assert state is not None
    assert (state.lsn, state.version) == (records[-1].end_lsn, len(steps))
    assert state.entries[160] == b"b" * 32
    assert state.entries[162] == b"b" * 34
    assert state.entries[191] == b"b" * 31


def test_first_version_initialises_and_every_nth_is_an_image() -> None:
    records, _ = written([{2: {64: b"x"}}] * (FULL_IMAGE_EVERY + 1))
    blocks = [record.blocks[0] for record in records]
    assert [block.will_init for block in blocks] == [True] + [False] * FULL_IMAGE_EVERY
    assert [block.image is not None for block in blocks] == [
        version == FULL_IMAGE_EVERY for version in range(1, FULL_IMAGE_EVERY + 2)
    ]
    assert {(b.space, b.database, b.relation, b.fork, b.block) for b in blocks} == {
        (1663, 16384, 16385, 0, 2)
    }
    assert {record.rmid for record in records} == {203}


def test_the_same_transactions_give_the_same_bytes() -> None:
    steps: list[dict[int, dict[int, bytes | None]]] = [
        {n % 3: {n % 3 * 32 + n: b"v%d" % n}} for n in range(30)
    ]
    assert written(steps)[1] == written(steps)[1]


def test_the_most_pages_one_record_names() -> None:
    kv_record.check_pages(32)
    with pytest.raises(BadRequest, match="changes 33 pages"):
        kv_record.check_pages(33)
    records, _ = written([{block: {block * 32: b"v"} for block in range(32)}])
    assert [block.block for block in records[0].blocks] == list(range(32))
