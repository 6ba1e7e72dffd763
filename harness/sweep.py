"""Many seeds of one scenario in sim, spread over processes, with live progress."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.errors import HarnessError
from harness.single import run_seeds
from harness.verdict import RunRecord, RunSettings, Verdict, append_record

CHUNK = 20
SHOWN_FAILURES = 10


@dataclass(frozen=True)
class SweepOptions:
    """What to sweep. ``jobs`` 0 means one process a core."""

    nodeid: str
    seeds: range
    jobs: int = 0
    policy: str = "random"
    records: str = ""


@dataclass(frozen=True)
class _Chunk:
    nodeid: str
    first: int
    runs: int
    policy: str


def _run_chunk(chunk: _Chunk) -> list[RunRecord] | str:
    settings = RunSettings("sim", "walgen", chunk.first, chunk.policy)
    try:
        return run_seeds(chunk.nodeid, settings, runs=chunk.runs)
    except HarnessError as error:
        return str(error)


def _chunks(options: SweepOptions, size: int) -> Iterator[_Chunk]:
    for first in options.seeds[::size]:
        runs = min(size, options.seeds.stop - first)
        yield _Chunk(options.nodeid, first, runs, options.policy)


def sweep(options: SweepOptions) -> int:
    """Run every seed; prints failures with their replay line and one closing line.

    Returns 0 if all passed, 1 if any failed, 2 for errors, 3 if some were inconclusive.
    """
    jobs = options.jobs or os.cpu_count() or 1
    size = max(1, min(CHUNK, len(options.seeds) // jobs))
    verdicts: Counter[Verdict] = Counter()
    shown = 0
    console = Console(stderr=True)
    started_s = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=50) as pool,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        task = progress.add_task("sweep", total=len(options.seeds))
        for found in pool.imap_unordered(_run_chunk, list(_chunks(options, size))):
            if isinstance(found, str):
                raise HarnessError(found)
            for record in found:
                verdicts[record.verdict] += 1
                if options.records:
                    append_record(Path(options.records), record)
                if record.verdict is not Verdict.PASSED and shown < SHOWN_FAILURES:
                    shown += 1
                    _print_failure(progress.console, record)
            progress.update(
                task, advance=len(found), description=f"failed {verdicts[Verdict.FAILED]}"
            )
    wall_s = time.monotonic() - started_s
    if (more := verdicts.total() - verdicts[Verdict.PASSED] - shown) > 0:
        print(f"{more} more not green; --records FILE keeps every run", file=sys.stderr)
    print(_closing_line(verdicts, wall_s))
    return _exit_code(verdicts)


def _print_failure(console: Console, record: RunRecord) -> None:
    """As it is: wrapped, or with ``[broker]`` read as markup, a replay line replays nothing."""
    text = f"replay: {record.replay}\n  {record.message}"
    console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


def _closing_line(verdicts: Counter[Verdict], wall_s: float) -> str:
    total = sum(verdicts.values())
    counts = " ".join(f"{verdict}={verdicts[verdict]}" for verdict in Verdict)
    return f"seeds={total} {counts} seeds_per_s={total / wall_s:.2f}"


def _exit_code(verdicts: Counter[Verdict]) -> int:
    for verdict, code in ((Verdict.FAILED, 1), (Verdict.ERROR, 2), (Verdict.INCONCLUSIVE, 3)):
        if verdicts[verdict]:
            return code
    return 0
