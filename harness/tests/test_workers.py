"""Processes side by side: what they tell, how they end, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import workers as workers_module
from harness.errors import HarnessError
from harness.workers import Died, Done, Told, results, workers


def count_up(job: int, tell: Callable[[int], object]) -> None:
    for number in range(job):
        tell(number)
    if job == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 8:
        raise HarnessError("eight is too many")


def environment(job: int, tell: Callable[[tuple[int, int, str]], object]) -> None:
    tell((os.getpid(), hash("sk0"), tempfile.gettempdir()))


def hangs(job: int, tell: Callable[[int], object]) -> None:
    tell(job)
    signal.pause()


def half(job: int) -> int:
    if job % 2:
        raise HarnessError(f"{job} is odd")
    return job // 2


def test_each_job_tells_all_and_ends_once_also_beside_one_that_dies() -> None:
    told: dict[int, list[int]] = {}
    ends: dict[int, object] = {}
    with workers(count_up, jobs=2) as pool:
        for job in (3, 7, 8, 2):
            pool.submit(job)
        for news in pool.news():
            match news:
                case Told(job, found):
                    assert job not in ends
                    told.setdefault(job, []).append(found)
                case Done(job, refusal):
                    ends[job] = refusal
                case Died(job, how):
                    ends[job] = how
                    pool.submit(1)

    assert told == {job: list(range(job)) for job in (1, 2, 3, 7, 8)}
    assert ends == {1: "", 2: "", 3: "", 7: "signal 9 ended it", 8: "eight is too many"}


def test_processes_share_a_hash_seed_and_a_directory_that_goes(tmp_path: Path) -> None:
    before = os.environ.get("PYTHONHASHSEED")
    found = []
    for hash_seed in (0, 0, 1):
        with workers(environment, jobs=1, hash_seed=hash_seed) as pool:
            pool.submit(0)
            pool.submit(1)
            found += [news.found for news in pool.news() if isinstance(news, Told)]

    pids, hashes, directories = zip(*found, strict=True)
    assert pids[0] == pids[1] != pids[2]
    assert hashes[0] == hashes[2] != hashes[4]
    assert not any(Path(directory).exists() for directory in directories)
    assert os.environ.get("PYTHONHASHSEED") == before


def test_a_process_that_is_silent_for_too_long_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "SILENCE_S_MAX", 0.5)
    with workers(hangs, jobs=1) as pool:
        pool.submit(4)
        started_s = time.monotonic()
        news = list(pool.news())

    assert isinstance(news[-1], Died)
    assert "told nothing for 0.5 s" in news[-1].how
    assert time.monotonic() - started_s >= 0.5


def test_a_process_that_dies_idle_costs_no_job() -> None:
    pids = []
    with workers(environment, jobs=1) as pool:
        for job in (0, 1):
            pool.submit(job)
            for news in pool.news():
                assert not isinstance(news, Died)
                if isinstance(news, Told):
                    pids.append(news.found[0])
            if job == 0:
                os.kill(pids[0], signal.SIGKILL)
                pool._idle[0].process.join(10.0)

    assert len(set(pids)) == 2


def test_results_come_as_they_are_ready_and_errors_come_through() -> None:
    assert sorted(results(half, (2, 4, 6), jobs=2)) == [1, 2, 3]
    with pytest.raises(HarnessError, match="3 is odd"):
        list(results(half, (2, 3), jobs=1))
