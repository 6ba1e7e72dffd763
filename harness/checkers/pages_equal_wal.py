"""Every page version that a pageserver serves equals redo of the safekeepers' WAL at that LSN.

Compared are the newest version of each block and a spread of older ones, each at the LSN of its
change and just before the next one, as far as the pageserver says it has got.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from harness.checkers.wal_model import PageState, WalModel, read_page
from harness.errors import CheckFailed
from storage.lsn import Lsn

CHECKER = "pages_equal_wal"


class Wanted(NamedTuple):
    """A block as of an LSN."""

    block: int
    lsn: Lsn


class Pages(Protocol):
    """Reads blocks of the key-value relation from one pageserver."""

    @property
    def name(self) -> str:
        """The pageserver's name."""
        ...

    async def read(self, wanted: Sequence[Wanted]) -> list[bytes]:
        """The 8 KiB of each."""
        ...


async def check_pages(
    pages: Pages, model: WalModel, span: tuple[Lsn, Lsn], *, pages_max: int
) -> int:
    """Compare up to ``pages_max`` versions with LSNs inside ``span`` (lowest and highest that can
    be read); returns how many were compared."""
    lowest, highest = span
    wanted = choose(model, lowest, min(highest, model.end_lsn), pages_max)
    for (block, lsn), content in zip(wanted, await pages.read(wanted), strict=True):
        found, expected = read_page(content), model.page_state(block, lsn)
        if found != expected:
            raise CheckFailed(
                f"{pages.name} serves block {block} at {lsn} {_difference(found, expected)}",
                checker=CHECKER,
            )
    return len(wanted)


def choose(model: WalModel, lowest: int, highest: int, pages_max: int) -> list[Wanted]:
    """Which versions to compare: both ends of the life of each, the newest of each block first."""
    newest: list[Wanted] = []
    older: list[Wanted] = []
    for block, lsns in model.changes_of_blocks():
        inside = [lsn for lsn in lsns if lowest <= lsn <= highest]
        if inside:
            newest.append(Wanted(block, Lsn(highest)))
            for lsn, following in zip(inside, [*inside[1:], highest + 1], strict=True):
                older += [Wanted(block, Lsn(lsn)), Wanted(block, Lsn(following - 1))]
    room = max(0, pages_max - len(newest))
    step = max(1, -(-len(older) // room)) if room else len(older) + 1
    return newest[:pages_max] + older[::step][:room]


def _difference(found: PageState, expected: PageState) -> str:
    if found[:2] != expected[:2]:
        return (
            f"as of {Lsn(found.lsn)}, version {found.version}; by the WAL it is "
            f"{Lsn(expected.lsn)}, version {expected.version}"
        )
    keys = sorted(found.rows.keys() | expected.rows.keys())
    key = next(key for key in keys if found.rows.get(key) != expected.rows.get(key))
    return f"with key {key} {found.rows.get(key)!r}; by the WAL it is {expected.rows.get(key)!r}"
