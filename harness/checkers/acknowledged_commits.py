"""Durability ledger: at the end, every acknowledged write is there or was overwritten.

The final value of a key must be that of a write which no acknowledged write certainly followed: by
real time, and by LSN where the compute tells it. A write of unknown outcome may be there or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from harness.checkers.reads_equal_model import LsnModel
from harness.checkers.registers import NEVER, Overwritten, Register, may_be_current, registers_of
from harness.errors import CheckFailed
from harness.history import History

CHECKER = "acknowledged_commits"


class Reader(Protocol):
    """Something that reads ranges of keys, like :class:`harness.endpoint.Client`."""

    async def scan(self, first: int, end: int) -> list[tuple[int, str]]:
        """Every key in ``first`` … ``end - 1`` with its value."""
        ...


async def read_back(reader: Reader, history: History, timeline: str) -> dict[int, str]:
    """The present value of every key a timeline inherited or wrote; absent keys are left out."""
    keys = {
        register.key
        for register in registers_of(history, timeline)
        if register.writes or register.initial.value is not None
    }
    found: dict[int, str] = {}
    for first, end in ranges_of(sorted(keys | history.transacted(timeline))):
        found.update(await reader.scan(first, end))
    return found


def ranges_of(keys: list[int], *, gap_max: int = 64) -> list[tuple[int, int]]:
    """Few half-open ranges that cover ascending keys, without crossing large gaps."""
    ranges: list[tuple[int, int]] = []
    for key in keys:
        if ranges and key - ranges[-1][1] < gap_max:
            ranges[-1] = (ranges[-1][0], key + 1)
        else:
            ranges.append((key, key + 1))
    return ranges


def check_acknowledged_commits(history: History, timeline: str, final: Mapping[int, str]) -> int:
    """Compare ``final``, read after the last write ended, with a timeline's history.

    Returns the number of acknowledged writes that were covered.
    """
    covered = 0
    registers = registers_of(history, timeline)
    for register in registers:
        check_final(register, final.get(register.key))
        covered += sum(write.acknowledged for write in register.writes)
    known = {register.key for register in registers} | history.transacted(timeline)
    strangers = sorted(set(final) - known)
    if strangers:
        raise CheckFailed(f"keys {strangers[:5]} exist but nobody wrote them", checker=CHECKER)
    return covered


def check_final(register: Register, value: str | None) -> None:
    """Check the final value of one key; ``None`` is absent."""
    allowed = may_be_current(register, Overwritten(register.writes), NEVER, NEVER)
    model = LsnModel.of(register)
    if model is not None:
        newest = model.last()
        allowed = [write for write in allowed if not write.acknowledged or write is newest]
    if any(write.value == value for write in allowed):
        return
    expected = " or ".join(
        f"{write.value!r} (#{write.number} at {write.lsn})" for write in allowed[-5:]
    )
    raise CheckFailed(
        f"key {register.key} holds {value!r} at the end, but must hold {expected}: "
        f"{'an acknowledged write is lost' if value is None else 'a write is lost or undone'}",
        checker=CHECKER,
    )
