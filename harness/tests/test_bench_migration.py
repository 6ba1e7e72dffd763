"""The benchmark of migrations: what it makes of the figures of many runs."""

from __future__ import annotations

import pytest

from harness.bench_migration import bench_migration
from harness.errors import NotLive
from harness.runner import Evidence, RunResult, Scenario
from harness.verdict import RunSettings, Verdict


class Runs:
    """A world whose runs take 1 ms more with every seed; seed 7 fails."""

    world = "sim"
    computes = ("walgen",)

    def run(self, scenario: Scenario, settings: RunSettings) -> RunResult:
        stall_s = 0.001 * settings.seed
        figures = {"longest_stall_s": stall_s, "longest_wait_s": 2 * stall_s}
        found = RunResult.without_run(settings, NotLive("no progress", checker="load progress"))
        if settings.seed != 7:
            found.verdict, found.error = Verdict.PASSED, None
            found.evidence = Evidence(figures=figures)
        return found

    def close(self) -> None:
        pass


def test_the_spread_of_each_way_is_told() -> None:
    found = bench_migration(Runs(), seeds=range(100, 201))

    ways = {f"{way}_{copy}" for way in ("broker", "callmemaybe") for copy in ("warm", "cold")}
    assert set(found) == {"bench", "seeds", *ways}
    row = found["broker_warm"]
    assert row["longest_stall"] == {"median_ms": 150.0, "p99_ms": 199.0, "max_ms": 200.0}
    assert row["longest_wait"] == {"median_ms": 300.0, "p99_ms": 398.0, "max_ms": 400.0}


def test_a_run_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(NotLive):
        bench_migration(Runs(), seeds=(1, 7))
