"""A consistent view of many pages while transactions go on: copy on write, until collected.

A snapshot is the state at the instant it was taken. A page that is about to change is saved first;
the others are collected at leisure, for a page that was not saved has not changed.
"""

from __future__ import annotations

from storage.kv.page import Page
from storage.lsn import Lsn


class Snapshot:
    """Entries of the blocks in ``blocks`` as they were when the snapshot was taken.

    ``lsn`` is an LSN at which exactly these contents hold.
    """

    def __init__(self, blocks: range, commit_lsn: Lsn) -> None:
        self.blocks = blocks
        self._lsn: int = commit_lsn
        self._entries: dict[int, dict[int, bytes]] = {}

    @property
    def lsn(self) -> Lsn:
        """The last change seen, at least the commit_lsn of the instant it was taken."""
        return Lsn(self._lsn)

    def save(self, block: int, page: Page) -> None:
        """Take over a page, before its next change; only the first time counts."""
        if block in self.blocks and block not in self._entries:
            self._entries[block] = dict(page.entries)
            self._lsn = max(self._lsn, page.lsn)

    def missing(self, blocks: range) -> list[int]:
        """Those of ``blocks`` that are not saved yet."""
        return [block for block in blocks if block not in self._entries]

    def rows(self, first: int, end: int) -> list[tuple[int, bytes]]:
        """Keys ``first`` … ``end - 1`` and their values, in order of key; all must be saved."""
        assert not self.missing(self.blocks), "the snapshot is not complete"
        return [
            (key, value)
            for block in self.blocks
            for key, value in sorted(self._entries[block].items())
            if first <= key < end
        ]
