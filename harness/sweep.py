"""Many seeds of scenarios in sim, spread over processes, with live progress.

Results are kept as they come, failures are grouped, rare states that were reached are counted, and
a sample is run again elsewhere to see that the seed alone decides.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import median_low
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.coverage import MEANINGS, Coverage
from harness.errors import HarnessError
from harness.faulting.vocabulary import FAULTS
from harness.second_look import FIRST_HASH_SEED, look_again, sample
from harness.single import run_seeds
from harness.sweep_file import SweepFile, file_for
from harness.sweep_groups import Group, grouped
from harness.verdict import (
    EXIT_CODES,
    INTERRUPTED,
    Failure,
    FailureKind,
    RunRecord,
    RunSettings,
    Verdict,
    exit_code,
)
from harness.workers import Died, Done, Told, Workers, workers

CHUNK = 50
"""Seeds of one session of pytest at most; one takes 30–60 ms of its own, a short run as much."""
CHUNKS_PER_PROCESS = 4
"""At least so many for each process, so that all of them end at about the same time."""
SHARE_THAT_WROTE_MIN = 0.5
SHOWN_FAILURES = 10
SHOWN_GROUPS = 20


@dataclass(frozen=True)
class SweepOptions:
    """What to sweep. ``jobs`` 0 means one process a core.

    ``records``: the file for the results; empty: one below ``.seawall/sweeps``, made anew unless
    the sweep is resumed.
    """

    nodeids: tuple[str, ...]
    seeds: range
    jobs: int = 0
    policy: str = "random"
    records: str = ""
    resume: bool = False


@dataclass(frozen=True)
class Chunk:
    """Some seeds of one scenario for one process."""

    nodeid: str
    seeds: range
    policy: str

    def without(self, count: int) -> Chunk:
        """What is left after the first seeds."""
        return Chunk(self.nodeid, self.seeds[count:], self.policy)


def run_chunk(chunk: Chunk, tell: Callable[[RunRecord], object]) -> None:
    """Run its seeds in this process; the sample that runs twice is taken by the whole sweep."""
    settings = RunSettings("sim", "walgen", chunk.seeds.start, chunk.policy)
    extra = ("--twice-every", "0")
    try:
        run_seeds(chunk.nodeid, settings, runs=len(chunk.seeds), extra=extra, tell=tell)
    finally:
        gc.freeze()  # Modules live on; pytest collects many times at the end of each session.


def sweep(options: SweepOptions) -> int:
    """Run every seed; prints what was found and one closing line.

    Returns 0 if all passed, 1 if any failed, 2 for errors, 3 if some were inconclusive, 130 if it
    was interrupted: the closing line then counts what had ended.
    """
    path = Path(options.records or file_for(options.nodeids, options.seeds, options.policy))
    with contextlib.closing(SweepFile(path, _about(options))) as file:
        return _sweep_into(file, options)


def _sweep_into(file: SweepFile, options: SweepOptions) -> int:
    known = file.begin(resume=options.resume, fresh=not options.records)
    tally = Tally()
    for record in known:
        tally.add(record)
    started_s = time.monotonic()
    interrupted = False
    try:
        _run_all(options, tally, file)
        if file.code_is_the_same():
            for record in look_again(sample(tally.records, options.seeds), jobs=options.jobs):
                if tally.confirm(record):
                    file.append(record)
    except KeyboardInterrupt:
        interrupted = True
    wall_s = time.monotonic() - started_s
    file.write({**tally.to_json(), "wall_s": wall_s, "interrupted": interrupted})
    for line in tally.lines():
        print(line, file=sys.stderr)
    if not file.code_is_the_same():
        print("seawall: the code changed meanwhile, so runs may be of either", file=sys.stderr)
    if tally.red > SHOWN_FAILURES:
        print(f"{tally.red - SHOWN_FAILURES} more not green; {file.path} has all", file=sys.stderr)
    print(f"results: {file.path} and {file.summary_path.name} beside it", file=sys.stderr)
    if interrupted:
        print("seawall: interrupted; counted is what had ended; --resume goes on", file=sys.stderr)
    print(tally.closing_line(len(tally.records) - len(known), wall_s))
    return INTERRUPTED if interrupted else tally.exit_code()


def _about(options: SweepOptions) -> dict[str, Any]:
    seeds = f"{options.seeds.start}:{options.seeds.stop}"
    return {"scenarios": list(options.nodeids), "seeds": seeds, "policy": options.policy}


def _run_all(options: SweepOptions, tally: Tally, file: SweepFile) -> None:
    """Every seed that has no record yet; results are counted and kept as they come."""
    jobs = options.jobs or os.cpu_count() or 1
    total = len(options.seeds) * len(options.nodeids)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with (
        workers(run_chunk, jobs=jobs, hash_seed=FIRST_HASH_SEED) as pool,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        task = progress.add_task("sweep", total=total, completed=len(tally.records))
        for chunk in _chunks(options, tally.done(), jobs):
            pool.submit(chunk)
        for record in _records(pool):
            file.append(record)
            tally.add(record)
            if record.verdict is not Verdict.PASSED and tally.red <= SHOWN_FAILURES:
                _print_failure(console, record)
            progress.update(task, advance=1, description=f"red {tally.red}")


def _records(pool: Workers[Chunk, RunRecord]) -> Iterator[RunRecord]:
    """One record for each seed, also for one that took its process along."""
    told: Counter[Chunk] = Counter()
    for news in pool.news():
        match news:
            case Told(job, record):
                told[job] += 1
                yield record
            case Done(job, refusal):
                if refusal:
                    raise HarnessError(refusal)
            case Died(job, how):
                done = told[job]
                yield _killer(job, job.seeds[done], how)
                if len(job.seeds) > done + 1:
                    pool.submit(job.without(done + 1))


def _killer(job: Chunk, seed: int, how: str) -> RunRecord:
    settings = RunSettings("sim", "walgen", seed, job.policy)
    return RunRecord(
        nodeid=job.nodeid,
        settings=settings,
        verdict=Verdict.FAILED,
        message=f"the process of the run ended: {how}",
        digest="",
        events=0,
        commits=0,
        virtual_s=0.0,
        wall_s=0.0,
        failure=Failure(str(FailureKind.CRASH), f"process: {how}", ""),
    )


def _chunks(options: SweepOptions, done: set[tuple[str, int]], jobs: int) -> Iterator[Chunk]:
    """Pieces of every scenario in turn; seeds that are done are left out."""
    size = max(1, min(CHUNK, len(options.seeds) // (CHUNKS_PER_PROCESS * jobs)))
    by_scenario = [list(_pieces(options, nodeid, size, done)) for nodeid in options.nodeids]
    for turn in zip_longest(*by_scenario):
        yield from (chunk for chunk in turn if chunk is not None)


def _pieces(
    options: SweepOptions, nodeid: str, size: int, done: set[tuple[str, int]]
) -> Iterator[Chunk]:
    first = options.seeds.start
    for seed in options.seeds:
        if (nodeid, seed) in done:
            first = seed + 1
        elif seed + 1 - first == size or seed + 1 == options.seeds.stop:
            yield Chunk(nodeid, range(first, seed + 1), options.policy)
            first = seed + 1
        elif (nodeid, seed + 1) in done:
            yield Chunk(nodeid, range(first, seed + 1), options.policy)


class Tally:
    """What has ended so far."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], RunRecord] = {}
        self.verdicts: Counter[Verdict] = Counter()
        self.marks = Coverage(MEANINGS)
        self.faults = Coverage(dict.fromkeys(FAULTS, ""))
        self._campaigns: list[int] = []
        """Commits under faults of every run that was a campaign."""
        self.confirmed = 0
        """How many runs were made again in another process, to compare the digests."""

    @property
    def records(self) -> list[RunRecord]:
        """The run of each seed that has ended."""
        return list(self._found.values())

    @property
    def red(self) -> int:
        """How many are not green."""
        return self.verdicts.total() - self.verdicts[Verdict.PASSED]

    def done(self) -> set[tuple[str, int]]:
        """Scenario and seed of every run that has ended."""
        return set(self._found)

    def add(self, record: RunRecord) -> None:
        """Count a run; what an interrupted sweep kept of the same run counts no more."""
        key = (record.nodeid, record.settings.seed)
        if key in self._found:
            self._correct(record)
            return
        self._found[key] = record
        self.verdicts[record.verdict] += 1
        self.marks.add(record.marks)
        self.faults.add(record.faults)
        if record.commits_under_faults is not None:
            self._campaigns.append(record.commits_under_faults)

    def confirm(self, record: RunRecord) -> bool:
        """A run was made again; whether the record is another one than the first was."""
        self.confirmed += 1
        if self._found[(record.nodeid, record.settings.seed)] is record:
            return False
        self._correct(record)
        return True

    def _correct(self, record: RunRecord) -> None:
        key = (record.nodeid, record.settings.seed)
        self.verdicts[self._found[key].verdict] -= 1
        self.verdicts[record.verdict] += 1
        self._found[key] = record

    @property
    def share_that_wrote(self) -> float:
        """The share of campaigns that committed something while their faults lasted; 1 for none."""
        campaigns = self._campaigns
        return sum(each > 0 for each in campaigns) / len(campaigns) if campaigns else 1.0

    def exit_code(self) -> int:
        """That of the worst verdict; a green sweep whose faults left too few campaigns a chance to
        commit anything proves too little, and is inconclusive."""
        code = exit_code(self.verdicts)
        if code == 0 and self.share_that_wrote < SHARE_THAT_WROTE_MIN:
            return EXIT_CODES[Verdict.INCONCLUSIVE]
        return code

    def groups(self) -> list[Group]:
        """What is red, by what it has in common."""
        return grouped(self.records)

    def lines(self) -> list[str]:
        """For people: failures in groups, then marks."""
        groups = self.groups()
        lines = [line for group in groups[:SHOWN_GROUPS] for line in group.lines()]
        if len(groups) > SHOWN_GROUPS:
            lines.append(f"{len(groups) - SHOWN_GROUPS} more groups are in the summary")
        if self._found:
            lines += self.marks.lines("rare states reached")
        if self.faults.hits:
            lines += self.faults.lines("faults with an effect")
        if self._campaigns:
            lines.append(
                f"committed while faults lasted: {self.share_that_wrote:.1%} of "
                f"{len(self._campaigns)} campaigns (at least {SHARE_THAT_WROTE_MIN:.0%} must), "
                f"half of them {median_low(self._campaigns)} writes or more"
            )
        return [*lines, f"made again with another hash seed: {self.confirmed} runs"]

    def to_json(self) -> dict[str, Any]:
        """The summary."""
        return {
            "verdicts": {str(verdict): self.verdicts[verdict] for verdict in Verdict},
            "groups": [group.to_json() for group in self.groups()],
            "made_again": self.confirmed,
            "marks": self.marks.to_json(),
            "faults": self.faults.to_json(),
            "campaigns": len(self._campaigns),
            "share_that_wrote": self.share_that_wrote,
        }

    def closing_line(self, run_now: int, wall_s: float) -> str:
        """The last line of the command; ``run_now`` runs were made in ``wall_s`` seconds."""
        counts = " ".join(f"{verdict}={self.verdicts[verdict]}" for verdict in Verdict)
        total = self.verdicts.total()
        return f"seeds={total} {counts} seeds_per_s={run_now / wall_s:.2f}"


def _print_failure(console: Console, record: RunRecord) -> None:
    """As it is: wrapped, or with ``[broker]`` read as markup, a replay line replays nothing."""
    text = f"replay: {record.replay}\n  {record.message}"
    console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)
