"""Every read returned a value that it was allowed to see.

By real time: the value of a write that began before the read ended and was not certainly
overwritten before the read began. By LSN, where the compute tells it: the value of the newest
acknowledged write at or below the LSN of the read, or one of unknown outcome. Real time says
nothing about timeless reads (see :mod:`harness.checkers.registers`).
"""

from __future__ import annotations

from bisect import bisect_right

from harness.checkers.registers import (
    KeyRead,
    KeyWrite,
    Overwritten,
    PlacedWrites,
    Register,
    may_be_current,
    registers_of,
)
from harness.errors import CheckFailed
from harness.history import History, Kind, Operation, Outcome
from storage.lsn import Lsn

CHECKER = "reads_equal_model"
SHOWN = 5


def check_reads(history: History) -> int:
    """Check every answered read; returns how many values were compared."""
    compared = 0
    for timeline in history.timelines():
        registers = registers_of(history, timeline)
        for register in registers:
            compared += check_register(register)
        if not history.transacted(timeline):
            check_sums(history.of(timeline), registers)
    return compared


def check_register(register: Register) -> int:
    """Check the reads of one key; returns how many there are."""
    by_value: dict[str | None, list[KeyWrite]] = {register.initial.value: [register.initial]}
    for write in register.writes:
        by_value.setdefault(write.value, []).append(write)
    overwritten = Overwritten(register.writes)
    model = LsnModel.of(register)
    for read in register.reads:
        sources = by_value.get(read.value)
        if sources is None:
            raise _failure(register, read, "nobody wrote that value")
        if not read.timeless:
            _check_real_time(register, read, sources, overwritten)
        if model is not None and read.lsn is not None:
            _check_lsn(register, read, model)
    return len(register.reads)


def _check_real_time(
    register: Register, read: KeyRead, sources: list[KeyWrite], overwritten: Overwritten
) -> None:
    horizon_s = overwritten.before(read.invoked_at_s)
    for write in sources:
        if write.invoked_at_s <= read.completed_at_s and write.completed_at_s >= horizon_s:
            return
    allowed = may_be_current(register, overwritten, read.invoked_at_s, read.completed_at_s)
    raise _failure(register, read, f"it may have seen {_shown(allowed)}")


def _check_lsn(register: Register, read: KeyRead, model: LsnModel) -> None:
    assert read.lsn is not None
    newest = model.at(read.lsn)
    if read.value == newest.value:
        return
    for write in model.unknown.get(read.value, ()):
        if write.invoked_at_s <= read.completed_at_s:
            return
    raise _failure(
        register, read, f"at {read.lsn} the key holds {_shown([newest])}, committed at {newest.lsn}"
    )


class LsnModel:
    """The acknowledged writes of a key in order of LSN, and those of unknown outcome by value."""

    def __init__(self, placed: PlacedWrites) -> None:
        self.unknown = placed.unknown
        self._writes = sorted(placed.known, key=lambda write: write.position)
        self._lsns = [write.position for write in self._writes]

    @classmethod
    def of(cls, register: Register) -> LsnModel | None:
        """The model, or ``None`` when an acknowledged write does not tell its LSN."""
        placed = register.placed_writes()
        return None if placed is None else cls(placed)

    def last(self) -> KeyWrite:
        """The newest acknowledged write."""
        return self._writes[-1]

    def at(self, lsn: Lsn) -> KeyWrite:
        """The newest acknowledged write at or below ``lsn``."""
        return self._writes[bisect_right(self._lsns, int(lsn)) - 1]


def check_sums(operations: list[Operation], registers: list[Register]) -> None:
    """Check sums at an LSN, where no write of unknown outcome blurs what they must be."""
    models = [LsnModel.of(register) for register in registers]
    for operation in operations:
        if operation.kind is not Kind.SUM or operation.outcome is not Outcome.OK:
            continue
        if operation.lsn is None or any(model is None or model.unknown for model in models):
            continue
        values = [model.at(operation.lsn).value for model in models if model is not None]
        expected = sum(int(value) for value in values if value is not None)
        if operation.result != expected:
            raise CheckFailed(f"{operation}: the sum is {expected}", checker=CHECKER)


def _shown(writes: list[KeyWrite]) -> str:
    """The newest of the writes, for a message."""
    parts = [
        f"{write.value!r} ({'initial' if write.number < 0 else f'#{write.number}'})"
        for write in writes[-SHOWN:]
    ]
    return " or ".join(parts) + (f" or {len(writes) - SHOWN} older" if len(writes) > SHOWN else "")


def _failure(register: Register, read: KeyRead, why: str) -> CheckFailed:
    return CheckFailed(
        f"operation #{read.number} [{read.invoked_at_s:.6f}, {read.completed_at_s:.6f}] read "
        f"{read.value!r} from key {register.key}, but {why}",
        checker=CHECKER,
    )
