"""What caught a bug in a run, as data in a file; and bugs of the bank by their id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from harness.composition import bank
from harness.errors import CheckFailed, HarnessError
from harness.runner import verdict_of
from harness.verdict import Verdict


@dataclass(frozen=True)
class Catch:
    """A red run under a bug: ``oracle`` is the error's class and, if it has one, its checker."""

    seed: int
    oracle: str
    message: str

    @classmethod
    def of(cls, seed: int, error: BaseException) -> Self:
        """What ended a run."""
        name = type(error).__name__
        checker = error.checker if isinstance(error, CheckFailed) else ""
        return cls(seed, f"{name}: {checker}" if checker else name, str(error)[:2000])


def read_catches(path: Path) -> list[Catch]:
    """Every catch noted in a file; none if there is no file."""
    if not path.exists():
        return []
    return [Catch(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


@contextmanager
def bug_of(bug_id: str) -> Iterator[None]:
    """Within the block the bug is back; ``HarnessError`` if there is no such bug to put back."""
    known = {bug.id: bug for bug in bank()}
    if bug_id not in known:
        raise HarnessError(f"no bug {bug_id!r} in the bank; there are: {', '.join(known)}")
    with known[bug_id].put_back():
        yield


def note_catch(path: Path, seed: int, error: BaseException) -> None:
    """Append to a file what ended a run, if that is the fault of the code under test."""
    if isinstance(error, Exception) and verdict_of(error) is Verdict.FAILED:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(Catch.of(seed, error))) + "\n")
