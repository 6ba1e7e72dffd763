"""Two data directories, byte by byte: the rebuilt one, and what stock recovery made of the WAL."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Final

from real.rebuild.page_masks import BLOCK, without_hints

_DATABASES: Final = ("global", "base/*", "pg_tblspc/*/PG_*/*")
_SLRUS: Final = ("pg_xact", "pg_multixact/offsets", "pg_multixact/members")
_RELATION: Final = re.compile(r"(\d+)(?:_(vm|init))?(?:\.\d+)?\Z")
_WHOLE_FILES: Final = ("pg_filenode.map",)
_MISSING_MAX: Final = 20
"""Differences named of each kind; more of the same say nothing new."""


@dataclass
class Comparison:
    """What was compared and what differed. ``masked``: pages equal but for hints."""

    relations: int = 0
    pages: int = 0
    masked: int = 0
    slru_pages: int = 0
    differences: list[str] = field(default_factory=list)

    def note(self, difference: str) -> None:
        """Remember a difference."""
        if len(self.differences) < _MISSING_MAX:
            self.differences.append(difference)


def compare(rebuilt: Path, stock: Path) -> Comparison:
    """Compare what lies in relations, relation maps, SLRUs and prepared transactions."""
    found = Comparison()
    directories = {
        str(path.relative_to(root))
        for root in (rebuilt, stock)
        for pattern in _DATABASES
        for path in root.glob(pattern)
        if path.is_dir() and path.name != "pgsql_tmp"
    }
    for directory in sorted(directories):
        _compare_database(found, rebuilt / directory, stock / directory)
    for slru in _SLRUS:
        _compare_slru(found, rebuilt / slru, stock / slru)
    left, right = (_contents(root / "pg_twophase") for root in (rebuilt, stock))
    if left != right:
        found.note(f"prepared transactions: {sorted(left)} instead of {sorted(right)}")
    return found


def compare_lean(lean: Path, full: Path) -> list[str]:
    """What is wrong with a base backup: it is the full one without the relations."""
    left, right = (_files(root) for root in (lean, full))
    found = [f"base backup: {name} is too much" for name in sorted(left - right)]
    for name in sorted(right - left):
        if not name.startswith(("base/", "global/", "pg_tblspc/")) or not _RELATION.match(
            Path(name).name
        ):
            found.append(f"base backup: {name} is missing")
    found += [
        f"base backup: {name} differs"
        for name in sorted(left & right)
        if (lean / name).read_bytes() != (full / name).read_bytes()
    ]
    return found


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def _compare_database(found: Comparison, rebuilt: Path, stock: Path) -> None:
    name = f"{rebuilt.parent.name}/{rebuilt.name}"
    if not rebuilt.is_dir() or not stock.is_dir():
        found.note(f"{name} is {'missing' if stock.is_dir() else 'too much'}")
        return
    left, right = _relations(rebuilt), _relations(stock)
    # Stock recovery resets an unlogged sequence before its init fork is on disk, and so to nothing.
    unlogged = {file.removesuffix("_init") for file in right if file.endswith("_init")}
    for file in sorted(left.keys() ^ right.keys()):
        found.note(f"{name}/{file} is {'missing' if file in right else 'too much'}")
    for file in sorted(left.keys() & right.keys()):
        if file in unlogged:
            continue
        found.relations += 1
        _compare_relation(found, f"{name}/{file}", left[file], right[file])
    for file in _WHOLE_FILES:
        if _read(rebuilt / file) != _read(stock / file):
            found.note(f"{name}/{file} differs")


def _relations(directory: Path) -> dict[str, Path]:
    return {path.name: path for path in directory.iterdir() if _RELATION.match(path.name)}


def _compare_relation(found: Comparison, name: str, rebuilt: Path, stock: Path) -> None:
    left, right = rebuilt.read_bytes(), stock.read_bytes()
    if len(left) != len(right):
        found.note(f"{name} has {len(left) // BLOCK} pages instead of {len(right) // BLOCK}")
    match = _RELATION.match(rebuilt.name)
    fork = 2 if match is not None and match[2] == "vm" else 0
    for at in range(0, min(len(left), len(right)), BLOCK):
        found.pages += 1
        page, expected = left[at : at + BLOCK], right[at : at + BLOCK]
        if page == expected:
            continue
        found.masked += 1
        page, expected = without_hints(page, fork), without_hints(expected, fork)
        if page != expected:
            bytes_ = [i for i in range(BLOCK) if page[i] != expected[i]]
            found.note(
                f"{name} block {at // BLOCK} differs in {len(bytes_)} bytes from {bytes_[0]} on: "
                f"{page[bytes_[0] :][:16].hex()} instead of {expected[bytes_[0] :][:16].hex()}"
            )


def _compare_slru(found: Comparison, rebuilt: Path, stock: Path) -> None:
    """Page by page; zeros at the end of an SLRU may be there or not."""
    left, right = _contents(rebuilt), _contents(stock)
    for name in sorted(left.keys() | right.keys()):
        pairs = zip_longest(_pages(left.get(name, b"")), _pages(right.get(name, b"")))
        for number, (page, expected) in enumerate(pairs):
            found.slru_pages += 1
            if (page or bytes(BLOCK)) != (expected or bytes(BLOCK)):
                found.note(f"{rebuilt.name}/{name} page {number} differs")


def _pages(content: bytes) -> list[bytes]:
    return [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
