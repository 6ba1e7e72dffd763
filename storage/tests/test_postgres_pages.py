"""Changes to commit log, multixact and visibility map pages, against models of plain lists."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.pageserver.keys import BLOCK_SIZE
from storage.pageserver.postgres import slru_pages, visibility_map
from storage.pageserver.postgres.slru_pages import (
    MEMBERS_PER_PAGE,
    OFFSETS_PER_PAGE,
    XIDS_PER_PAGE,
    Member,
)
from storage.pageserver.redo import RedoTable
from storage.pageserver.values import Delta

LSN = Lsn(0x100)


@pytest.fixture(scope="module")
def table() -> RedoTable:
    redo = RedoTable()
    slru_pages.register(redo)
    visibility_map.register(redo)
    return redo


def replay(redo: RedoTable, changes: list[tuple[int, Delta]]) -> dict[int, bytes]:
    """Pages after the changes, each page's run replayed together."""
    runs: dict[int, list[tuple[Lsn, Delta]]] = {}
    for page, delta in changes:
        runs.setdefault(page, []).append((LSN, delta))
    replayed = {page: redo.reconstruct(None, run) for page, run in runs.items()}
    return {page: content for page, content in replayed.items() if content is not None}


XIDS = st.sampled_from([3, 4, 5, 1000, XIDS_PER_PAGE - 1, XIDS_PER_PAGE, 5 * XIDS_PER_PAGE + 2])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.lists(XIDS, min_size=1, max_size=4), st.sampled_from([1, 2]))))
def test_commit_log_bits(outcomes: list[tuple[list[int], int]]) -> None:
    redo = RedoTable()
    slru_pages.register(redo)
    changes: list[tuple[int, Delta]] = []
    model: dict[int, int] = {}
    for xids, status in outcomes:
        changes += slru_pages.xid_status_deltas(xids, status)
        model |= dict.fromkeys(xids, status)
    pages = replay(redo, changes)
    for xid, status in model.items():
        page, index = divmod(xid, XIDS_PER_PAGE)
        assert pages[page][index // 4] >> index % 4 * 2 & 3 == status
    assert sum(byte.bit_count() for page in pages.values() for byte in page) == len(model)


def test_multixact_offsets_and_members(table: RedoTable) -> None:
    offset = MEMBERS_PER_PAGE - 2
    members = [Member(1000 + number, number % 6) for number in range(7)]
    pages = replay(table, slru_pages.multixact_member_deltas(offset, members))
    assert sorted(pages) == [0, 1]
    for number, member in enumerate(members):
        page, index = divmod(offset + number, MEMBERS_PER_PAGE)
        group = index // 4 * 20
        at = group + 4 + index % 4 * 4
        assert pages[page][group + index % 4] == member.status
        assert int.from_bytes(pages[page][at : at + 4], "little") == member.xid
    page, delta = slru_pages.multixact_offset_delta(OFFSETS_PER_PAGE + 3, 0xABCDEF01)
    assert page == 1
    assert replay(table, [(page, delta)])[1][12:16] == b"\x01\xef\xcd\xab"


def test_members_wrap_to_the_first_page() -> None:
    deltas = slru_pages.multixact_member_deltas(0xFFFFFFFF, [Member(5, 0), Member(6, 0)])
    assert [page for page, _ in deltas] == [0xFFFFFFFF // MEMBERS_PER_PAGE, 0]


def test_segments_between_two_on_the_circle() -> None:
    last = 0xFFFFFFFF // MEMBERS_PER_PAGE // 32
    assert [n for n in range(6) if slru_pages.is_between(n, 2, 4)] == [2, 3]
    assert not any(slru_pages.is_between(n, 2, 2) for n in range(6))
    wrapped = [last - 1, last, 0, 1, 2]
    assert [n for n in wrapped if slru_pages.is_between(n, last, 1)] == [last, 0]


def test_slru_page_of_wrong_length_is_noticed(table: RedoTable) -> None:
    (_, delta), *_ = slru_pages.xid_status_deltas([5], 1)
    with pytest.raises(CorruptData, match="7 bytes"):
        table.apply(b"x" * 7, delta, LSN)


def bits_of(page: bytes, heap_block: int) -> int:
    index = heap_block % visibility_map.HEAP_BLOCKS_PER_PAGE
    return page[24 + index // 4] >> index % 4 * 2 & 3


@pytest.mark.parametrize("heap_block", [0, 1, 3, 4, 32_671, 32_672, 40_000])
def test_clearing_touches_one_block_only(table: RedoTable, heap_block: int) -> None:
    full = bytes(24) + b"\xff" * (BLOCK_SIZE - 24)
    page, both = visibility_map.clear_delta(heap_block, visibility_map.BOTH)
    assert page == heap_block // 32_672
    cleared = table.apply(full, both, LSN)
    assert bits_of(cleared, heap_block) == 0
    assert sum(byte.bit_count() for byte in cleared) == (BLOCK_SIZE - 24) * 8 - 2
    _, frozen = visibility_map.clear_delta(heap_block, visibility_map.ALL_FROZEN)
    assert bits_of(table.apply(full, frozen, LSN), heap_block) == visibility_map.ALL_VISIBLE
    assert table.apply(cleared, both, LSN) == cleared


def test_page_that_was_never_written_has_no_bits(table: RedoTable) -> None:
    _, clear = visibility_map.clear_delta(5, visibility_map.BOTH)
    assert table.apply(None, clear, LSN) == bytes(BLOCK_SIZE)
    assert table.apply(None, visibility_map.truncate_delta(5), LSN) == bytes(BLOCK_SIZE)


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 5, 1000, 32_671])
def test_truncation_clears_the_tail(table: RedoTable, keep: int) -> None:
    page = random.Random(keep).randbytes(BLOCK_SIZE)
    cut = table.apply(page, visibility_map.truncate_delta(keep), LSN)
    assert cut[:24] == page[:24]
    for block in (0, keep - 1):
        assert bits_of(cut, block) == bits_of(page, block)
    assert all(bits_of(cut, block) == 0 for block in range(keep, 32_672))


@pytest.mark.parametrize(
    ("heap_blocks", "pages", "keep"),
    [(0, 0, None), (1, 1, 1), (32_671, 1, 32_671), (32_672, 1, None), (32_673, 2, 1)],
)
def test_what_a_cut_heap_leaves_of_its_map(heap_blocks: int, pages: int, keep: int | None) -> None:
    assert visibility_map.truncation(heap_blocks) == (pages, keep)


def test_no_page_at_all_is_noticed(table: RedoTable) -> None:
    for delta in (visibility_map.clear_delta(5, 3)[1], visibility_map.truncate_delta(5)):
        with pytest.raises(CorruptData, match="3 bytes"):
            table.apply(b"abc", delta, LSN)
