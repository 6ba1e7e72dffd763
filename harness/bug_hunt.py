"""Hunting the bugs of the bank: run general scenarios under each until an oracle fires.

A hunt goes from one root seed through the runs of every scenario on offer, a few seeds of each in
turn. A red run counts only if the code without the bug passes the same seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.bug_catch import Catch, read_catches
from harness.errors import HarnessError
from harness.job_pool import job_pool
from harness.single import run_seeds
from harness.temporary import scratch_directory
from harness.verdict import RunSettings, Verdict

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
    """How a hunt ended: after ``runs`` runs, with ``oracle`` at ``seed`` of ``nodeid`` or empty."""

    bug_id: str
    root: int
    runs: int
    wall_s: float
    nodeid: str = ""
    seed: int = 0
    oracle: str = ""
    message: str = ""
    red_without_the_bug: int = 0

    @property
    def caught(self) -> bool:
        """Whether an oracle fired on the bug."""
        return bool(self.oracle)

    @property
    def replay(self) -> str:
        """The command that shows the catch again."""
        return f"python -m harness run '{self.nodeid}' --seed {self.seed} --bug {self.bug_id}"


def go(quarry: Quarry) -> Hunt:
    """Hunt until something is caught or ``runs_max`` runs were made."""
    started_s = time.monotonic()
    runs = red = 0
    for nodeid, seeds in chunks(quarry):
        while seeds:
            done, catch = _run(quarry.bug_id, nodeid, seeds)
            runs += done
            seeds = seeds[done:]
            if catch is None:
                continue
            if not passes(nodeid, range(catch.seed, catch.seed + 1)):
                red += 1
                continue
            wall_s = time.monotonic() - started_s
            return Hunt(quarry.bug_id, quarry.root, runs, wall_s, nodeid, catch.seed,
                        catch.oracle, catch.message, red)  # fmt: skip
    wall_s = time.monotonic() - started_s
    return Hunt(quarry.bug_id, quarry.root, runs, wall_s, red_without_the_bug=red)


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


def _run(bug_id: str, nodeid: str, seeds: range) -> tuple[int, Catch | None]:
    """Run seeds under a bug up to the first that is red; how many ran, and what caught it."""
    with scratch_directory("seawall-catches-") as directory:
        path = directory / "catches.jsonl"
        extra = ["--bug", bug_id, "--catches", str(path), "-x"]
        why = ""
        try:
            records = run_seeds(nodeid, _settings(seeds), runs=len(seeds), extra=extra)
        except HarnessError as error:
            # A run that the wall clock ended leaves no record, only the catch.
            records, why = [], str(error)
        catches = read_catches(path)
    if catches:
        return catches[0].seed - seeds.start + 1, catches[0]
    broken = [record for record in records if record.verdict is Verdict.ERROR]
    if broken or not records:
        why = broken[0].message if broken else why
        raise HarnessError(f"{nodeid} under bug {bug_id}, seeds {seeds}: {why}")
    return len(records), None


def passes(nodeid: str, seeds: range) -> bool:
    """Whether the code as it is passes these seeds."""
    records = run_seeds(nodeid, _settings(seeds), runs=len(seeds))
    return all(record.verdict is Verdict.PASSED for record in records)


def _settings(seeds: range) -> RunSettings:
    return RunSettings("sim", "walgen", seeds.start)


def hunt_all(
    quarries: Sequence[Quarry], *, jobs: int, seen: Callable[[Hunt], object]
) -> list[Hunt]:
    """Every hunt, spread over processes; ``seen`` is told of each as it ends."""
    hunts: list[Hunt] = []
    with job_pool(jobs) as pool:
        for hunt in pool.imap_unordered(go, quarries):
            hunts.append(hunt)
            seen(hunt)
    return hunts
