"""Hunting the bugs of the bank: run general scenarios under each until an oracle fires.

A hunt goes from one root seed through the runs of every scenario on offer, a few seeds of each in
turn. A red run counts only if the code without the bug passes the same seed; and once all hunts
are over, the code without any bug must pass every seed that any of them used (:func:`control`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.bug_catch import Catch, read_catches
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
    """One hunt to go on: a bug, a root seed (0, 1 …), what to run, and how much of it at most."""

    bug_id: str
    root: int
    scenarios: tuple[str, ...]
    runs_max: int


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

    @property
    def caught(self) -> bool:
        """Whether an oracle fired on the bug."""
        return self.catch is not None

    @property
    def oracles(self) -> tuple[str, ...]:
        """``O1`` … that saw the bug in the run that caught it, the one that ended it first."""
        return () if self.catch is None else (self.catch.oracle, *self.catch.also)

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
    runs = 0
    red: list[str] = []
    spoilt: list[str] = []

    def hunt(nodeid: str = "", catch: Catch | None = None) -> Hunt:
        wall_s = time.monotonic() - started_s
        return Hunt(
            quarry.bug_id, quarry.root, runs, wall_s, nodeid, catch, tuple(red), tuple(spoilt)
        )

    for nodeid, seeds in chunks(quarry):
        while seeds:
            done, catch, broken = _run(quarry.bug_id, nodeid, seeds)
            runs += done
            seeds = seeds[done:]
            if broken:
                spoilt.append(f"{replay_of(nodeid, seeds.start - 1)} --bug {quarry.bug_id}")
            if catch is None:
                continue
            if not red_runs(nodeid, range(catch.seed, catch.seed + 1)):
                return hunt(nodeid, catch)
            red.append(replay_of(nodeid, catch.seed))
    return hunt()


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


def _run(bug_id: str, nodeid: str, seeds: range) -> tuple[int, Catch | None, bool]:
    """Run seeds under a bug up to the first that is red: how many ran, what caught the bug there,
    and whether it was an error of ours instead."""
    with scratch_directory("seawall-catches-") as directory:
        path = directory / "catches.jsonl"
        extra = ["--bug", bug_id, "--catches", str(path), "-x"]
        why = ""
        try:
            records = run_seeds(nodeid, _settings(seeds), runs=len(seeds), extra=extra)
        except HarnessError as error:
            # A run that the clock ended leaves no record, only the catch.
            records, why = [], str(error)
        catches = read_catches(path)
    if catches:
        return catches[0].seed - seeds.start + 1, catches[0], False
    if not records:
        raise HarnessError(f"{nodeid} under bug {bug_id}, seeds {seeds}: {why}")
    return len(records), None, any(record.verdict is Verdict.ERROR for record in records)


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
