"""The WAL is the one history: it explains every operation, and operations explain all of it.

Each acknowledged write is the record at its LSN; each record was asked for by a write that was
acknowledged there or whose outcome is unknown, and no write is in it twice; steps of a transaction,
redone on the state before its record, see and set what was answered; each read that tells its LSN
equals the state there, exactly. This settles what real time alone leaves open: which writes of
unknown outcome happened, and what a read through a deposed primary or a replica had to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.checkers.steps import redo
from harness.checkers.wal_model import WalModel
from harness.errors import CheckFailed
from harness.history import History, Kind, Operation, Outcome
from storage.lsn import Lsn

CHECKER = "wal_explains_history"


def check_wal_explains(history: History, timeline: str, model: WalModel) -> int:
    """Compare a timeline's operations with its WAL; returns how many operations were compared.

    Operations above the model's end, and those that tell no LSN, are left to other oracles.
    """
    compared = 0
    unclaimed = dict(model.records)
    perhaps: list[Operation] = []
    for operation in history.of(timeline):
        if operation.is_write and operation.outcome in (Outcome.UNKNOWN, Outcome.PENDING):
            perhaps.append(operation)
        if operation.outcome is not Outcome.OK or operation.lsn is None:
            if operation.is_write and operation.outcome is Outcome.OK:
                perhaps.append(operation)
            continue
        if operation.lsn > model.end_lsn:
            continue
        compared += 1
        if operation.is_write:
            _check_write(operation, operation.lsn, model)
            _check_steps(operation, operation.lsn, model)
            if any(value is not None for value in operation.changes().values()) or (
                unclaimed.get(operation.lsn, {}).keys() <= operation.changes().keys()
            ):
                unclaimed.pop(operation.lsn, None)
        else:
            _check_read(operation, operation.lsn, model)
    _check_unclaimed(unclaimed, perhaps, model)
    return compared


def _check_write(write: Operation, lsn: Lsn, model: WalModel) -> None:
    changes = write.changes()
    record = model.records.get(lsn)
    if any(value is not None for value in changes.values()):
        strangers = [] if record is None else sorted(record.keys() - changes.keys())
        if strangers:
            raise CheckFailed(
                f"{write} is the record at {lsn}, which changes keys {strangers[:5]} as well",
                checker=CHECKER,
            )
    for key, value in changes.items():
        found = model.value(key, lsn)
        if found != value:
            raise CheckFailed(
                f"{write} was acknowledged, but by the WAL key {key} is {found!r} at {lsn}: "
                + ("no record ends there" if record is None else "another record ends there"),
                checker=CHECKER,
            )


def _check_steps(write: Operation, lsn: Lsn, model: WalModel) -> None:
    if write.kind is Kind.TRANSACT:
        redone = redo(write.args[0], lambda key: model.value(key, lsn - 1))
        if redone.values != write.result:
            raise CheckFailed(
                f"{write}: on the state before {lsn} its steps see {_short(redone.values)}",
                checker=CHECKER,
            )


def _check_read(read: Operation, lsn: Lsn, model: WalModel) -> None:
    expected: object
    found = read.result
    if read.kind is Kind.GET:
        expected = model.value(read.args[0], lsn)
    elif read.kind is Kind.SCAN:
        expected = sorted(model.rows(read.args[0], read.args[1], lsn).items())
        found = sorted((key, value) for key, value in read.result)
    else:
        expected = sum(int(value) for value in model.rows(0, 1 << 64, lsn).values())
    if found != expected:
        raise CheckFailed(f"{read}: by the WAL it is {_short(expected)}", checker=CHECKER)


def _check_unclaimed(
    unclaimed: Mapping[int, Mapping[int, str | None]],
    perhaps: Iterable[Operation],
    model: WalModel,
) -> None:
    """Each record that no acknowledged write claims is a write of unknown outcome, once."""
    askers = _Askers(perhaps, model)
    used: set[int] = set()
    for lsn, record in sorted(unclaimed.items()):
        fitting = askers.of(lsn, record)
        free = [operation for operation in fitting if operation.number not in used]
        if free:
            used.add(free[0].number)
        elif not fitting or len(fitting) == 1:
            why = "nobody wrote it" if not fitting else f"{fitting[0]} is in the WAL twice"
            raise CheckFailed(
                f"the record that ends at {Lsn(lsn)} sets {_short(record)}: {why}", checker=CHECKER
            )


class _Askers:
    """Finds the operations that may have asked for a record."""

    def __init__(self, operations: Iterable[Operation], model: WalModel) -> None:
        self._model = model
        self._by_row: dict[tuple[int, str | None], list[Operation]] = {}
        self._by_key: dict[int, list[Operation]] = {}
        for operation in operations:
            for row in operation.changes().items():
                self._by_row.setdefault(row, []).append(operation)
            if operation.kind is Kind.TRANSACT:
                for key in {step[1]: None for step in operation.args[0] if step[0] != "read"}:
                    self._by_key.setdefault(key, []).append(operation)

    def of(self, lsn: int, record: Mapping[int, str | None]) -> list[Operation]:
        """Operations that set these rows, or whose steps would on the state before ``lsn``."""
        rows = list(record.items())
        fitting = [
            operation
            for operation in self._by_row.get(rows[0], ())
            if all(operation.changes().get(key, _OTHER) == value for key, value in rows)
        ]
        return fitting + [
            operation
            for operation in self._by_key.get(rows[0][0], ())
            if self._would_set(operation, lsn) == record
        ]

    def _would_set(self, operation: Operation, lsn: int) -> Mapping[int, str | None] | None:
        """What its steps set on the state before ``lsn``; ``None`` where they could not."""
        try:
            return redo(operation.args[0], lambda key: self._model.value(key, lsn - 1)).changes
        except ValueError:
            return None  # What is no number was not added to.


_OTHER = object()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
