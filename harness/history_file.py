"""Histories in files: one line of JSON for each operation, for people and for oracles later on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.history import History, Kind, Operation, Outcome, Source
from storage.lsn import Lsn


def write_history(history: History, path: Path) -> None:
    """Save every operation; :func:`read_history` loads them."""
    with path.open("w", encoding="utf-8") as file:
        for operation in history:
            file.write(json.dumps(_to_json(operation)) + "\n")


def read_history(path: Path) -> History:
    """Load what :func:`write_history` saved; ``HarnessError`` names a line that is none of it."""
    history = History()
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                _append(history, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise HarnessError(f"{path} line {number} is no operation: {error}") from error
    return history


def _append(history: History, row: Mapping[str, Any]) -> None:
    kind, result = Kind(row["kind"]), row["result"]
    source = Source(row["process"], row["timeline"], row["pinned"])
    index = history.invoke(source, kind, _args_of(kind, row["args"]), row["invoked_at_s"])
    outcome = Outcome(row["outcome"])
    if outcome is Outcome.OK:
        lsn = None if row["lsn"] is None else Lsn.parse(row["lsn"])
        answer = [(key, value) for key, value in result] if kind is Kind.SCAN else result
        history.succeed(index, row["completed_at_s"], answer, lsn)
    elif outcome is not Outcome.PENDING:
        history.fail(index, row["completed_at_s"], outcome, result)


def _to_json(operation: Operation) -> dict[str, Any]:
    return {
        "process": operation.source.process,
        "timeline": operation.source.timeline,
        "pinned": operation.source.pinned,
        "kind": operation.kind,
        "args": operation.args,
        "invoked_at_s": operation.invoked_at_s,
        "completed_at_s": operation.completed_at_s,
        "outcome": operation.outcome,
        "result": operation.result,
        "lsn": None if operation.lsn is None else str(operation.lsn),
    }


def _args_of(kind: Kind, args: list[Any]) -> tuple[Any, ...]:
    """Undo JSON, whose object keys are text."""
    if kind is Kind.TXN:
        return ({int(key): value for key, value in args[0].items()},)
    if kind is Kind.TRANSACT:
        return (tuple(tuple(step) for step in args[0]),)
    return tuple(args)
