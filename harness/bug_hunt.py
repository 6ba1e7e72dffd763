"""Hunting the bugs of the bank: run general scenarios under each until an oracle fires.

A hunt goes from one root seed through the runs of every scenario on offer, a few seeds of each in
turn. A red run counts only if the code without the bug passes the same seed; and once all hunts
are over, the code without any bug must pass every seed that any of them used (:func:`control`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from harness.bug_catch import Catch, Notes
from harness.errors import HarnessError
from harness.single import run_seeds
from harness.temporary import scratch_directory
from harness.verdict import RunRecord, RunSettings, Verdict
from harness.workers import results

SEEDS_BETWEEN_ROOTS = 100_000
CHUNKS = (1, 2, 5, 10)
"""Seeds of one scenario before it is the next one's turn; the last number stays."""


@dataclass(frozen=True)
class Quarry:
    """One hunt to go on: a bug, a root seed (0, 1 …), what to run, and how much of it at most.

    After ``wall_s_max`` seconds no further runs begin.
    """

    bug_id: str
    root: int
    scenarios: tuple[str, ...]
    runs_max: int
    wall_s_max: float = math.inf


@dataclass(frozen=True)
class Hunt:
    """How a hunt ended: after ``runs`` runs, with ``catch`` in ``nodeid``, or none."""

    bug_id: str
    root: int
    runs: int
    wall_s: float
    nodeid: str = ""
    catch: Catch | None = None
    red_without_the_bug: tuple[str, ...] = ()
    """How to see again what was red with the bug and without it: no catch, another bug."""
    spoilt: tuple[str, ...] = ()
    """How to see again what ended in an error of our own: neither a catch nor a pass."""
    calls: Mapping[str, int] = field(default_factory=dict)
    """How often each replacement was called, in all runs."""
    live_runs: int = 0
    """Runs in which at least one replacement was called: in others there was no bug."""

    @property
    def caught(self) -> bool:
        """Whether an oracle fired on the bug."""
        return self.catch is not None

    @property
    def oracles(self) -> tuple[str, ...]:
        """``O1`` … that saw the bug in the run that caught it, the one that ended it first."""
        return () if self.catch is None else (self.catch.oracle, *self.catch.also)

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> Self:
        """What :func:`dataclasses.asdict` made of one, from a file; what else is there is left."""
        values = {each.name: data[each.name] for each in fields(cls)}
        catch = values["catch"]
        values["catch"] = None if catch is None else Catch.of_json(catch)
        values["red_without_the_bug"] = tuple(values["red_without_the_bug"])
        values["spoilt"] = tuple(values["spoilt"])
        return cls(**values)

    @property
    def replay(self) -> str:
        """The command that shows the catch again."""
        if self.catch is None:
            return ""
        return f"{replay_of(self.nodeid, self.catch.seed)} --bug {self.bug_id}"


def replay_of(nodeid: str, seed: int) -> str:
    """The command that makes one run of the code as it is."""
    return f"python -m harness run '{nodeid}' --seed {seed}"


def go(quarry: Quarry) -> Hunt:
    """Hunt until something is caught or ``runs_max`` runs were made."""
    started_s = time.monotonic()
    tally = _Tally(quarry)
    for nodeid, seeds in chunks(quarry):
        while seeds and time.monotonic() - started_s < quarry.wall_s_max:
            attempt = _run(quarry.bug_id, nodeid, seeds)
            tally.add(nodeid, seeds, attempt)
            seeds = seeds[attempt.runs :]
            catch = attempt.catch
            if catch is None:
                continue
            if not red_runs(nodeid, range(catch.seed, catch.seed + 1)):
                return tally.hunt(time.monotonic() - started_s, nodeid, catch)
            tally.red.append(replay_of(nodeid, catch.seed))
    return tally.hunt(time.monotonic() - started_s)


def chunks(quarry: Quarry) -> Iterator[tuple[str, range]]:
    """Scenarios in turn, each with its next seeds; ``runs_max`` runs in all."""
    if not quarry.scenarios:
        raise HarnessError("no scenarios to hunt with; conftest.py names them as HUNTING_GROUNDS")
    first, left, turn = quarry.root * SEEDS_BETWEEN_ROOTS, quarry.runs_max, 0
    while left:
        size = CHUNKS[min(turn, len(CHUNKS) - 1)]
        for nodeid in quarry.scenarios:
            count = min(size, left)
            if count:
                yield nodeid, range(first, first + count)
                left -= count
        first, turn = first + size, turn + 1


@dataclass(frozen=True)
class _Attempt:
    """``runs`` seeds under a bug: what caught it in the last one, or that an error of ours ended
    that, and how often the replacements were called in each."""

    runs: int
    catch: Catch | None
    broken: bool
    calls: tuple[Mapping[str, int], ...]


class _Tally:
    """What a hunt has seen so far."""

    def __init__(self, quarry: Quarry) -> None:
        self._quarry = quarry
        self._runs = 0
        self._live_runs = 0
        self._calls: Counter[str] = Counter()
        self.red: list[str] = []
        self._spoilt: list[str] = []

    def add(self, nodeid: str, seeds: range, attempt: _Attempt) -> None:
        """Some more runs; they were the first of ``seeds``."""
        assert 0 < attempt.runs <= len(seeds), f"{attempt.runs} runs of {seeds}"
        self._runs += attempt.runs
        self._live_runs += sum(any(calls.values()) for calls in attempt.calls)
        for calls in attempt.calls:
            self._calls.update(calls)
        if attempt.broken:
            replay = replay_of(nodeid, seeds[attempt.runs - 1])
            self._spoilt.append(f"{replay} --bug {self._quarry.bug_id}")

    def hunt(self, wall_s: float, nodeid: str = "", catch: Catch | None = None) -> Hunt:
        """The hunt, ended."""
        return Hunt(
            self._quarry.bug_id,
            self._quarry.root,
            self._runs,
            wall_s,
            nodeid,
            catch,
            tuple(self.red),
            tuple(self._spoilt),
            dict(self._calls),
            self._live_runs,
        )


def _run(bug_id: str, nodeid: str, seeds: range) -> _Attempt:
    """Run seeds under a bug up to the first that is red."""
    with scratch_directory("seawall-notes-") as directory:
        path = directory / "notes.jsonl"
        extra = ["--bug", bug_id, "--notes", str(path), "-x"]
        why = ""
        try:
            records = run_seeds(nodeid, _settings(seeds), runs=len(seeds), extra=extra)
        except HarnessError as error:
            # A run that the clock ended leaves no record, only the catch.
            records, why = [], str(error)
        notes = Notes.read(path)
    if notes.catches:
        catch = notes.catches[0]
        return _Attempt(catch.seed - seeds.start + 1, catch, broken=False, calls=notes.calls)
    if not records:
        raise HarnessError(f"{nodeid} under bug {bug_id}, seeds {seeds}: {why}")
    broken = any(record.verdict is Verdict.ERROR for record in records)
    return _Attempt(len(records), None, broken, notes.calls)


def red_runs(nodeid: str, seeds: range) -> list[RunRecord]:
    """The runs of these seeds that the code as it is does not pass."""
    records = run_seeds(nodeid, _settings(seeds), runs=len(seeds))
    return [record for record in records if record.verdict is not Verdict.PASSED]


def _settings(seeds: range) -> RunSettings:
    return RunSettings("sim", "walgen", seeds.start)


@dataclass(frozen=True)
class Control:
    """The code without any bug over the seeds of all hunts: runs made, and those that were red."""

    runs: int
    wall_s: float
    red: tuple[RunRecord, ...]


def control(
    hunts: Sequence[Hunt], scenarios: tuple[str, ...], *, jobs: int, seen: Callable[[int], object]
) -> Control:
    """Run every seed that a hunt used without any bug; ``seen`` is told how many are done.

    Hunts from one root go through the same runs, so the longest has them all.
    """
    started_s = time.monotonic()
    longest = {root: max(h.runs for h in hunts if h.root == root) for root in _roots(hunts)}
    work = [
        chunk
        for root, runs in longest.items()
        for chunk in chunks(Quarry("", root, scenarios, runs))
    ]
    runs = 0
    red: list[RunRecord] = []
    for count, found in results(_control, work, jobs=jobs):
        runs += count
        red += found
        seen(runs)
    return Control(runs, time.monotonic() - started_s, tuple(red))


def _roots(hunts: Sequence[Hunt]) -> list[int]:
    return sorted({hunt.root for hunt in hunts})


def _control(chunk: tuple[str, range]) -> tuple[int, list[RunRecord]]:
    nodeid, seeds = chunk
    return len(seeds), red_runs(nodeid, seeds)


def hunt_all(
    quarries: Sequence[Quarry], *, jobs: int, seen: Callable[[Hunt], object]
) -> list[Hunt]:
    """Every hunt, spread over processes; ``seen`` is told of each as it ends."""
    hunts: list[Hunt] = []
    for hunt in results(go, quarries, jobs=jobs):
        hunts.append(hunt)
        seen(hunt)
    return hunts
