"""Many seeds of one scenario in sim, spread over processes, with live progress."""

from __future__ import annotations

import gc
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
from harness.job_pool import job_pool
from harness.single import run_seeds
from harness.verdict import INTERRUPTED, RunRecord, RunSettings, Verdict, append_record

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
    finally:
        gc.freeze()  # Modules live on; pytest collects many times at the end of each session.


def _chunks(options: SweepOptions, size: int) -> Iterator[_Chunk]:
    for first in options.seeds[::size]:
        runs = min(size, options.seeds.stop - first)
        yield _Chunk(options.nodeid, first, runs, options.policy)


def sweep(options: SweepOptions) -> int:
    """Run every seed; prints failures with their replay line and one closing line.

    Returns 0 if all passed, 1 if any failed, 2 for errors, 3 if some were inconclusive, 130 if it
    was interrupted: the closing line then counts what had ended.
    """
    jobs = options.jobs or os.cpu_count() or 1
    size = max(1, min(CHUNK, len(options.seeds) // jobs))
    tally = _Tally(options.records)
    started_s = time.monotonic()
    interrupted = False
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        job_pool(jobs) as pool,
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("sweep", total=len(options.seeds))
        try:
            for found in pool.imap_unordered(_run_chunk, list(_chunks(options, size))):
                if isinstance(found, str):
                    raise HarnessError(found)
                tally.add(found, progress.console)
                failed = tally.verdicts[Verdict.FAILED]
                progress.update(task, advance=len(found), description=f"failed {failed}")
        except KeyboardInterrupt:
            interrupted = True
    wall_s = time.monotonic() - started_s
    if tally.not_shown:
        print(f"{tally.not_shown} more not green; --records FILE keeps all", file=sys.stderr)
    if interrupted:
        print("seawall: interrupted; counted is what had ended", file=sys.stderr)
    print(_closing_line(tally.verdicts, wall_s))
    return INTERRUPTED if interrupted else _exit_code(tally.verdicts)


class _Tally:
    """What has ended so far; ``records`` is a file to append to, or empty."""

    def __init__(self, records: str) -> None:
        self._records = records
        self.verdicts: Counter[Verdict] = Counter()
        self.not_shown = 0

    def add(self, found: list[RunRecord], console: Console) -> None:
        """Count runs, keep them, and print the first few that are not green."""
        for record in found:
            self.verdicts[record.verdict] += 1
            if self._records:
                append_record(Path(self._records), record)
            if record.verdict is Verdict.PASSED:
                continue
            if self.verdicts.total() - self.verdicts[Verdict.PASSED] <= SHOWN_FAILURES:
                _print_failure(console, record)
            else:
                self.not_shown += 1


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
