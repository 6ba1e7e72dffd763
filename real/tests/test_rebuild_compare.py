"""The comparison of data directories sees what differs, and nothing in what may differ."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from real.rebuild.directories import compare, compare_lean
from real.rebuild.page_masks import BLOCK, without_hints

TUPLE_AT, TUPLE_SIZE = 8000, 30


def heap_page(*, bits: int = 0x0802, body: bytes = b"value") -> bytes:
    """One tuple, with ``t_infomask`` and user data as given."""
    page = bytearray(BLOCK)
    struct.pack_into("<QHHHHHHI", page, 0, 77, 0, 0, 28, TUPLE_AT, BLOCK, BLOCK | 4, 0)
    struct.pack_into("<I", page, 24, TUPLE_AT | 1 << 15 | TUPLE_SIZE << 17)
    struct.pack_into("<IIIIHHHB", page, TUPLE_AT, 900, 0, 0, 0, 1, 1, bits, 24)
    page[TUPLE_AT + 24 : TUPLE_AT + 24 + len(body)] = body
    return bytes(page)


def btree_page(*, pointer_flags: int = 1, key: bytes = b"key") -> bytes:
    page = bytearray(BLOCK)
    struct.pack_into("<QHHHHHHI", page, 0, 77, 0, 0, 28, TUPLE_AT, BLOCK - 16, BLOCK | 4, 0)
    struct.pack_into("<I", page, 24, TUPLE_AT | pointer_flags << 15 | 16 << 17)
    page[TUPLE_AT + 8 : TUPLE_AT + 8 + len(key)] = key
    return bytes(page)


VISIBILITY_MAP = struct.pack("<QHHHHHHI", 5, 0, 0, 24, BLOCK, BLOCK, BLOCK | 4, 0).ljust(
    BLOCK, b"\0"
)


def changed(page: bytes, at: int, value: int) -> bytes:
    return page[:at] + bytes((value,)) + page[at + 1 :]


@pytest.mark.parametrize(
    ("page", "other"),
    [
        (heap_page(), heap_page(bits=0x0102 | 0x0020)),
        (heap_page(), changed(heap_page(), 0, 99)),
        (heap_page(), changed(heap_page(), 8, 99)),
        (heap_page(), changed(heap_page(), 10, 7)),
        (heap_page(), changed(heap_page(), 21, 99)),
        (heap_page(), changed(heap_page(), 4000, 99)),
        (heap_page(), changed(heap_page(), TUPLE_AT + 9, 99)),
        (heap_page(), changed(heap_page(), TUPLE_AT + TUPLE_SIZE, 99)),
        (btree_page(), btree_page(pointer_flags=3)),
        (btree_page(), changed(btree_page(), BLOCK - 1, 9)),
    ],
)
def test_hints_and_holes_may_differ(page: bytes, other: bytes) -> None:
    assert page != other
    assert without_hints(page, 0) == without_hints(other, 0)


@pytest.mark.parametrize(
    ("page", "other", "fork"),
    [
        (heap_page(), heap_page(body=b"valve"), 0),
        (heap_page(), heap_page(bits=0x1802), 0),
        (heap_page(), heap_page(bits=0x0842), 0),
        (heap_page(), changed(heap_page(), TUPLE_AT, 99), 0),
        (heap_page(), changed(heap_page(), TUPLE_AT + 4, 99), 0),
        (heap_page(), bytes(BLOCK), 0),
        (btree_page(), btree_page(key=b"kay"), 0),
        (btree_page(), changed(btree_page(), BLOCK - 16, 9), 0),
        (VISIBILITY_MAP, changed(VISIBILITY_MAP, 24, 1), 2),
        (VISIBILITY_MAP, changed(VISIBILITY_MAP, BLOCK - 1, 1), 2),
    ],
)
def test_nothing_else_may_differ(page: bytes, other: bytes, fork: int) -> None:
    assert without_hints(page, fork) != without_hints(other, fork)


def directory(root: Path) -> Path:
    """A small data directory with something of everything that is compared."""
    for name in ("global", "base/5", "pg_xact", "pg_multixact/offsets", "pg_multixact/members",
                 "pg_twophase", "pg_tblspc/9/PG_15_1/5"):  # fmt: skip
        (root / name).mkdir(parents=True)
    for name in ("base/5/100", "global/1260", "pg_tblspc/9/PG_15_1/5/200"):
        (root / name).write_bytes(heap_page() * 2)
    (root / "base/5/100_vm").write_bytes(VISIBILITY_MAP)
    (root / "base/5/300_init").write_bytes(heap_page())
    (root / "base/5/300").write_bytes(heap_page())
    (root / "base/5/pg_filenode.map").write_bytes(b"map")
    (root / "pg_xact/0000").write_bytes(b"\x55" * BLOCK)
    (root / "pg_twophase/00000010").write_bytes(b"state")
    return root


def test_equal_directories_are_counted(tmp_path: Path) -> None:
    left, right = directory(tmp_path / "a"), directory(tmp_path / "b")
    (left / "base/5/100_fsm").write_bytes(b"whatever")
    (right / "pg_xact/0000").write_bytes(b"\x55" * BLOCK + bytes(BLOCK))
    (right / "base/5/100").write_bytes(heap_page() + heap_page(bits=0x0902))
    (right / "base/5/300").write_bytes(b"")
    found = compare(left, right)
    assert found.differences == []
    assert (found.relations, found.pages, found.masked, found.slru_pages) == (5, 8, 1, 2)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "base/5/100 block 1 differs in 1 bytes from 8024": lambda root: (
        root / "base/5/100"
    ).write_bytes(heap_page() + heap_page(body=b"Value")),
    "base/5/100_vm block 0 differs": lambda root: (root / "base/5/100_vm").write_bytes(
        changed(VISIBILITY_MAP, 30, 1)
    ),
    "PG_15_1/5/200 has 1 pages instead of 2": lambda root: (
        root / "pg_tblspc/9/PG_15_1/5/200"
    ).write_bytes(heap_page()),
    "base/5/100 is missing": lambda root: (root / "base/5/100").unlink(),
    "base/5/101 is too much": lambda root: (root / "base/5/101").write_bytes(b""),
    "base/6 is too much": lambda root: (root / "base/6").mkdir(),
    "base/5/pg_filenode.map differs": lambda root: (root / "base/5/pg_filenode.map").unlink(),
    "pg_xact/0000 page 0 differs": lambda root: (root / "pg_xact/0000").unlink(),
    "prepared transactions": lambda root: (root / "pg_twophase/00000010").unlink(),
}


@pytest.mark.parametrize("difference", DAMAGES)
def test_differences_are_named(tmp_path: Path, difference: str) -> None:
    left, right = directory(tmp_path / "a"), directory(tmp_path / "b")
    DAMAGES[difference](left)
    assert [difference in line for line in compare(left, right).differences] == [True]


def test_base_backup_lacks_relations_and_nothing_else(tmp_path: Path) -> None:
    full, lean = directory(tmp_path / "full"), directory(tmp_path / "lean")
    for name in ("base/5/100", "base/5/100_vm", "base/5/300", "base/5/300_init", "global/1260"):
        (lean / name).unlink()
    assert compare_lean(lean, full) == []
    (lean / "pg_xact/0000").unlink()
    (lean / "extra").write_bytes(b"")
    (lean / "pg_twophase/00000010").write_bytes(b"other")
    assert compare_lean(lean, full) == [
        "base backup: extra is too much",
        "base backup: pg_xact/0000 is missing",
        "base backup: pg_twophase/00000010 differs",
    ]
