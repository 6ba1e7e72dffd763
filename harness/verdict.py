"""How a run ended, as data: what the command line prints and the report shows."""

from __future__ import annotations

import dataclasses
import enum
import errno
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from harness.errors import HarnessError


class Verdict(enum.StrEnum):
    """Four ways a run can end; only ``PASSED`` is green."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


class FailureKind(enum.StrEnum):
    """What sort of promise a failed run broke."""

    SAFETY = "safety"
    """Something wrong was done or told: an oracle or an assertion of the scenario says so."""
    LIVENESS = "liveness"
    """Something did not happen within its bound, or time could not go on."""
    CRASH = "crash"
    """A node ended by itself, complained unasked, or an exception came out of it."""


POLICIES = ("fifo", "random", "pct")
"""In which order ready tasks run in sim."""

NO_POSTGRES_IN_SIM = (
    "--compute postgres runs real processes: add --world real, or choose --compute walgen"
)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of shells."""

EXIT_CODES = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.INCONCLUSIVE: 3, Verdict.ERROR: 2}

WORST_FIRST = (Verdict.FAILED, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASSED)


def exit_code(verdicts: Mapping[Verdict, int]) -> int:
    """The exit code of many runs: that of the worst verdict among them."""
    found = (verdict for verdict in WORST_FIRST if verdicts.get(verdict))
    return EXIT_CODES[next(found, Verdict.PASSED)]


@dataclass(frozen=True)
class RunSettings:
    """What identifies a run of a scenario: same settings and code, same digest in sim."""

    world: str
    compute: str
    seed: int
    policy: str = "random"
    plan: str = ""
    """A file with the plan of faults to carry out, instead of the one that the seed draws."""

    def replay(self, nodeid: str) -> str:
        """The one command that runs this again."""
        words = ["python", "-m", "harness", "run", nodeid, "--world", self.world]
        words += ["--compute", self.compute, "--seed", str(self.seed)]
        if self.world == "sim" and self.policy != "random":
            words += ["--policy", self.policy]
        if self.plan:
            words += ["--plan", self.plan]
        return shlex.join(words)


@dataclass(frozen=True)
class Failure:
    """Why a run is red, in words that runs with the same cause share.

    ``oracle``: the error's class and, if it has one, its checker; ``place``: file and function it
    was raised in; ``faults``: the names of the plan's faults that had struck by then, in order.
    """

    kind: str
    oracle: str
    place: str
    faults: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """What is the same for all failures of one cause, as far as can be told."""
        return f"{self.kind}: {self.oracle} in {self.place or 'no place of ours'}"


@dataclass(frozen=True)
class RunRecord:
    """One finished run. Times in seconds; ``digest`` is empty where runs are not reproducible."""

    nodeid: str
    settings: RunSettings
    verdict: Verdict
    message: str
    digest: str
    events: int
    commits: int
    virtual_s: float
    wall_s: float
    artifacts: str = ""
    failure: Failure | None = None
    """Present unless the run passed."""
    marks: Mapping[str, int] = field(default_factory=dict)
    """Rare states of the system that were reached, and how often."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """Faults of the run's plan that had an effect, and how often."""
    commits_under_faults: int | None = None
    """Writes acknowledged while the faults of the run's plan lasted, if it had one."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the scenario measured, by name; the unit is the end of the name."""

    @property
    def replay(self) -> str:
        """The one command that runs this again."""
        return self.settings.replay(self.nodeid)

    def line(self) -> str:
        """The closing line of ``python -m harness run``."""
        return (
            f"verdict={self.verdict} digest={self.digest or '-'} events={self.events} "
            f"virtual_s={self.virtual_s:.3f} wall_s={self.wall_s:.3f}"
        )

    def to_json(self) -> str:
        """One line of JSON, read back by :meth:`from_json`."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote."""
        data: dict[str, Any] = json.loads(text)
        data["settings"] = RunSettings(**data["settings"])
        data["verdict"] = Verdict(data["verdict"])
        if failure := data.get("failure"):
            data["failure"] = Failure(**{**failure, "faults": tuple(failure["faults"])})
        return cls(**data)


def check_writable(directory: Path, option: str) -> None:
    """Make ``directory``; ``HarnessError`` naming ``option`` if nothing can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        why = f"nothing can be written there ({error.strerror}); name another directory"
        raise HarnessError(f"{option} {directory}: {why}") from error


def check_file(path: Path, option: str) -> None:
    """Make ``path`` if it is missing; ``HarnessError`` naming ``option`` if it cannot be written.

    What it holds stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        why = f"the file cannot be written ({error.strerror}); name another one"
        raise HarnessError(f"{option} {path}: {why}") from error


def append_record(path: Path, record: RunRecord) -> None:
    """Add a record to a JSON-lines file; one ``write`` so that xdist workers may share it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(record.to_json() + "\n")
