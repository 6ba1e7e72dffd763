"""Seeds that once failed, each with what was wrong: run in every session, so nothing comes back.

``scenarios/regressions.json`` is a list of objects ``{"scenario", "seed", "date", "cause", "fix"}``
and, where needed, ``"policy"`` and ``"plan"`` (a saved plan, beside that file). A seed means
another run once a draw is added before it; a campaign's plan keeps the faults that mattered.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from harness.durable_text import replace_text
from harness.errors import HarnessError
from harness.verdict import POLICIES, RunSettings

REGRESSIONS = Path("scenarios/regressions.json")
"""Where they are, from the top of the repository."""

_WHERE = re.compile(r"[\w./-]+\.py::\w+(\[[^\]]+\])?")
_NEEDED = ("scenario", "seed", "date", "cause", "fix")


@dataclass(frozen=True, slots=True)
class Regression:
    """One seed that failed: ``date`` it was found (ISO), ``cause`` in a sentence, ``fix``: the
    subject of the commit that ended it. ``plan`` is relative to the file of regressions."""

    scenario: str
    seed: int
    date: str
    cause: str
    fix: str
    policy: str = "random"
    plan: str = ""

    @classmethod
    def of_json(cls, entry: object) -> Self:
        """Validate one entry; ``HarnessError`` names the field, its value and what is wanted."""
        if not isinstance(entry, dict):
            raise HarnessError(f"{entry!r} is no object with {', '.join(_NEEDED)}")
        known = {each.name for each in dataclasses.fields(cls)}
        for name in entry:
            if name not in known:
                raise HarnessError(f"unknown field {name!r}; there are: {', '.join(sorted(known))}")
        for name in _NEEDED:
            if name not in entry:
                raise HarnessError(f"field {name!r} is missing")
        for name, wanted in _SHAPES.items():
            if name in entry and (why := wanted(entry[name])):
                raise HarnessError(f"{name} {entry[name]!r}: {why}")
        return cls(**entry)

    def to_json(self) -> dict[str, Any]:
        """What :meth:`of_json` reads; fields at their usual value are left out."""
        return {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if each.name in _NEEDED or getattr(self, each.name) != each.default
        }

    def settings(self, directory: Path) -> RunSettings:
        """How to run it again; ``directory`` holds the file of regressions."""
        plan = str(directory / self.plan) if self.plan else ""
        return RunSettings("sim", "walgen", self.seed, self.policy, plan)

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What may be in the file only once."""
        return (self.scenario, self.seed, self.policy, self.plan)


def _wrong_scenario(value: object) -> str:
    good = isinstance(value, str) and _WHERE.fullmatch(value)
    return "" if good else "write a node id without world and seed, scenarios/file.py::test"


def _wrong_seed(value: object) -> str:
    good = type(value) is int and value >= 0
    return "" if good else "a whole number from 0 on is needed"


def _wrong_date(value: object) -> str:
    try:
        good = datetime.date.fromisoformat(str(value)).isoformat() == value
    except ValueError:
        good = False
    return "" if good else "write the day it was found as YYYY-MM-DD"


def _wrong_text(value: object) -> str:
    good = isinstance(value, str) and value.strip()
    return "" if good else "say it in a sentence"


def _wrong_policy(value: object) -> str:
    return "" if value in POLICIES else f"choose one of {', '.join(POLICIES)}"


def _wrong_plan(value: object) -> str:
    good = isinstance(value, str) and not Path(value).is_absolute() and ".." not in value
    return "" if good else "name a file below the directory of this list"


_SHAPES = {
    "scenario": _wrong_scenario,
    "seed": _wrong_seed,
    "date": _wrong_date,
    "cause": _wrong_text,
    "fix": _wrong_text,
    "policy": _wrong_policy,
    "plan": _wrong_plan,
}


def read_regressions(path: Path) -> list[Regression]:
    """Every entry of the file; ``HarnessError`` names the entry and what is wrong with it."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HarnessError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise HarnessError(f"{path} is no JSON: {error}; mend it by hand") from error
    if not isinstance(entries, list):
        raise HarnessError(f"{path} holds no list, but {type(entries).__name__}")
    found: list[Regression] = []
    for number, entry in enumerate(entries):
        try:
            regression = Regression.of_json(entry)
            refuse_again(regression, found)
            if regression.plan and not (path.parent / regression.plan).is_file():
                raise HarnessError(f"plan {regression.plan!r}: there is no such file")
        except HarnessError as error:
            raise HarnessError(f"{path}, entry {number}: {error}") from error
        found.append(regression)
    return found


def append_regression(path: Path, regression: Regression) -> None:
    """Add an entry, validated like the others; a crash leaves the old list or the new one."""
    Regression.of_json(regression.to_json())
    known = read_regressions(path) if path.exists() else []
    refuse_again(regression, known)
    rows = [json.dumps(each.to_json(), ensure_ascii=False) for each in [*known, regression]]
    replace_text(path, "[\n" + ",\n".join(rows) + "\n]\n")


def refuse_again(regression: Regression, known: Iterable[Regression]) -> None:
    """``HarnessError`` if an entry is on the list already."""
    for each in known:
        if each.key == regression.key:
            raise HarnessError(
                f"{regression.scenario} seed {regression.seed} policy {regression.policy} is "
                f"there already, since {each.date}"
            )


def of_scenario(regressions: Sequence[Regression], function: str) -> list[Regression]:
    """The entries of a test function, whatever its parameters."""
    return [each for each in regressions if each.scenario.partition("[")[0] == function]
