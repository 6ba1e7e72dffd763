"""What runs under a bug noted in a file: what caught it, and how often the code that brings it
back was called; and bugs of the bank by their id."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from harness.bug_oracles import oracle_of
from harness.composition import bank
from harness.errors import CheckFailed, HarnessError
from harness.runner import verdict_of
from harness.verdict import Verdict


@dataclass(frozen=True)
class Catch:
    """A red run under a bug: ``error`` is its class and, if it has one, its checker; ``oracle``
    (``O1`` …) ended the run, ``also`` would have, had they been asked first."""

    seed: int
    error: str
    message: str
    oracle: str
    also: tuple[str, ...] = ()

    @classmethod
    def of(cls, seed: int, error: BaseException, also: Sequence[str] = ()) -> Self:
        """What ended a run."""
        name, oracle = type(error).__name__, oracle_of(error)
        checker = error.checker if isinstance(error, CheckFailed) else ""
        others = tuple(each for each in also if each != oracle)
        shown = f"{name}: {checker}" if checker else name
        return cls(seed, shown, str(error)[:2000], oracle, others)

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Self:
        """What :func:`note_catch` wrote."""
        return cls(**{**data, "also": tuple(data["also"])})


@dataclass(frozen=True)
class Notes:
    """What a file holds: every catch, and of each run how often each replacement was called."""

    catches: tuple[Catch, ...] = ()
    calls: tuple[Mapping[str, int], ...] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """What was noted in a file; nothing if there is no file."""
        if not path.exists():
            return cls()
        notes = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return cls(
            tuple(Catch.of_json(each["catch"]) for each in notes if "catch" in each),
            tuple(each["calls"] for each in notes if "calls" in each),
        )


@contextmanager
def bug_of(bug_id: str) -> Iterator[Counter[str]]:
    """Within the block the bug is back; yields what :meth:`Bug.put_back` counts.

    ``HarnessError`` if there is no such bug to put back.
    """
    known = {bug.id: bug for bug in bank()}
    if bug_id not in known:
        raise HarnessError(f"no bug {bug_id!r} in the bank; there are: {', '.join(known)}")
    with known[bug_id].put_back() as calls:
        yield calls


def note_catch(path: Path, seed: int, error: BaseException, also: Sequence[str] = ()) -> None:
    """Append to a file what ended a run, if that is the fault of the code under test."""
    if isinstance(error, Exception) and verdict_of(error) is Verdict.FAILED:
        _append(path, {"catch": asdict(Catch.of(seed, error, also))})


def note_calls(path: Path, calls: Mapping[str, int]) -> None:
    """Append to a file how often each replacement was called in a run."""
    _append(path, {"calls": dict(calls)})


def _append(path: Path, note: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(note) + "\n")
