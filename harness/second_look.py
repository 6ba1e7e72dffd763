"""A sample of a sweep is run again elsewhere: in another process, with another hash seed.

Whatever the seed does not decide shows as another digest. Then both runs are made once more, with
their evidence, and the first event that differs is shown with its surroundings.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.backend import Event
from harness.errors import HarnessError
from harness.reproducible import first_difference, shown
from harness.single import run_seeds
from harness.sweep_groups import grouped
from harness.temporary import scratch_directory
from harness.verdict import Failure, RunRecord, Verdict
from harness.workers import Died, Done, Told, workers

EVERY = 100
"""One run of so many is looked at twice, and the first of each scenario in any case."""

FIRST_HASH_SEED, OTHER_HASH_SEED = 0, 1
NONDETERMINISM = "nondeterminism"


@dataclass(frozen=True)
class Look:
    """A run to make again; ``artifacts``: where its evidence goes, or empty."""

    record: RunRecord
    artifacts: str = ""


def look(job: Look, tell: Callable[[RunRecord], object]) -> None:
    """The work: run it again."""
    extra = ["--twice-every", "0"]
    extra += [f"--artifacts={job.artifacts}"] if job.artifacts else []
    run_seeds(job.record.nodeid, job.record.settings, runs=1, extra=extra, tell=tell)


def sample(records: Sequence[RunRecord], seeds: range, *, every: int = EVERY) -> list[RunRecord]:
    """The runs to look at again: the first seed of each scenario, every N-th after it, and the
    fastest reproducer of each failure, which somebody will want to replay."""
    replayed = [group.fastest for group in grouped(records)]
    return [
        record
        for record in records
        if record.digest
        and ((record.settings.seed - seeds.start) % every == 0 or record in replayed)
    ]


def look_again(records: Sequence[RunRecord], *, jobs: int) -> Iterator[RunRecord]:
    """Run these once more; a record of each: as it was, or an error that says what differs."""
    with workers(look, jobs=jobs, hash_seed=OTHER_HASH_SEED) as found:
        for record in records:
            found.submit(Look(record))
        for news in found.news():
            first = news.job.record
            match news:
                case Told(_, again) if again.digest == first.digest:
                    yield first
                case Told(job, again):
                    both = f"{first.digest} and {again.digest}"
                    yield _red(first, f"ran twice with different digests, {both}; {_why(job)}")
                case Died(_, how):
                    yield _red(first, f"ended in order once; again its process ended: {how}")
                case Done(_, refusal) if refusal:
                    raise HarnessError(refusal)


def _red(record: RunRecord, how: str) -> RunRecord:
    message = f"NotReproducible: seed {record.settings.seed} {how}"
    if record.verdict is Verdict.FAILED:
        # What the first run found was there, even if it cannot be found again.
        return dataclasses.replace(record, message=f"{record.message}\n{message}")
    failure = Failure(str(Verdict.ERROR), NONDETERMINISM, "")
    return dataclasses.replace(record, verdict=Verdict.ERROR, message=message, failure=failure)


def _why(job: Look) -> str:
    """Where the two part: run with both hash seeds, each in a process of its own, and compared."""
    with scratch_directory("seawall-look-") as directory:
        one, other = (
            _evidence(job, directory / str(seed), seed)
            for seed in (FIRST_HASH_SEED, OTHER_HASH_SEED)
        )
    if one.digest == other.digest:
        return (
            "but not when each has a process of its own: it depends on what was run before it, "
            f"or on chance\nreplay: PYTHONHASHSEED={OTHER_HASH_SEED} {job.record.replay}"
        )
    return (
        f"{first_difference(one.events, other.events)}\n"
        f"replay: once with PYTHONHASHSEED={FIRST_HASH_SEED}, once with "
        f"PYTHONHASHSEED={OTHER_HASH_SEED}: {job.record.replay}"
    )


@dataclass(frozen=True)
class _Evidence:
    digest: str
    events: Sequence[str]


def _evidence(job: Look, directory: Path, hash_seed: int) -> _Evidence:
    with workers(look, jobs=1, hash_seed=hash_seed) as found:
        found.submit(Look(job.record, str(directory)))
        for news in found.news():
            if isinstance(news, Told):
                events = _events(directory / news.found.artifacts / "events.jsonl")
                return _Evidence(news.found.digest, events)
    return _Evidence("", ["(the run could not be made again)"])


def _events(path: Path) -> list[str]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [shown(Event(row["at_s"], row["node"], row["kind"], row["fields"])) for row in lines]
