"""Sweeps: what they count, keep, group, resume, and look at twice."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest

from harness.coverage import MEANINGS, Coverage
from harness.second_look import sample
from harness.sweep import Chunk, SweepOptions, Tally, _chunks
from harness.sweep_file import SweepFile
from harness.sweep_groups import grouped
from harness.tests.toy_suite import harness, suite
from harness.verdict import Failure, RunRecord, RunSettings, Verdict

__all__ = ["suite"]

LOST = Failure("safety", "CheckFailed: ledger", "harness/checkers/x.py check", ("kill", "pause"))


def record(seed: int, failure: Failure | None = None, *, events: int = 10) -> RunRecord:
    verdict = Verdict.PASSED if failure is None else Verdict.FAILED
    settings = RunSettings("sim", "walgen", seed)
    message = "" if failure is None else f"lost {seed}\nmore"
    return RunRecord(
        "a.py::test_x", settings, verdict, message, "d", events, 1, 1.0, 0.1, "", failure,
        {"wal_cut": 2} if seed % 2 else {},
    )  # fmt: skip


def pieces(options: SweepOptions, done: set[tuple[str, int]], jobs: int = 1) -> list[str]:
    found = list(_chunks(options, done, jobs))
    return [f"{c.nodeid} {c.seeds.start}-{c.seeds.stop}" for c in found]


def test_every_seed_that_is_not_done_is_in_one_chunk() -> None:
    options = SweepOptions(("a", "b"), range(5, 50))
    done = {("a", seed) for seed in (5, 6, 20, 21, 30, 49)}
    assert pieces(options, set()) == [
        "a 5-16", "b 5-16", "a 16-27", "b 16-27", "a 27-38", "b 27-38", "a 38-49", "b 38-49",
        "a 49-50", "b 49-50",
    ]  # fmt: skip
    for jobs in (1, 3, 100):
        chunks = list(_chunks(options, done, jobs))
        seeds = sorted((chunk.nodeid, seed) for chunk in chunks for seed in chunk.seeds)
        wanted = {(nodeid, seed) for nodeid in "ab" for seed in range(5, 50)} - done
        assert seeds == sorted(wanted)
        assert max(len(chunk.seeds) for chunk in chunks) == max(1, 45 // (4 * jobs))
    assert Chunk("a", range(3, 9), "pct").without(2) == Chunk("a", range(5, 9), "pct")


def test_failures_are_grouped_by_kind_oracle_and_place_and_share_faults() -> None:
    more = dataclasses.replace(LOST, faults=("drop", "kill", "wipe"))
    other = dataclasses.replace(LOST, place="harness/checkers/y.py check")
    groups = grouped(
        [record(1, LOST, events=30), record(2), record(3, more, events=20), record(4, other)]
    )

    assert [(group.name, group.seeds) for group in groups] == [
        ("safety: CheckFailed: ledger in harness/checkers/x.py check", [1, 3]),
        ("safety: CheckFailed: ledger in harness/checkers/y.py check", [4]),
    ]
    assert groups[0].shape == ("kill",)
    assert groups[0].fastest.settings.seed == 3
    told = "\n".join(groups[0].lines())
    assert "struck in all: kill (2 shapes of plans)" in told
    assert "--seed 3" in told
    assert groups[0].addition == (
        "python -m harness regress --add a.py::test_x --seed 3 --cause … --fix …"
    )
    assert groups[0].to_json()["faults_in_all"] == ["kill"]


def test_the_tally_counts_a_run_once_and_believes_the_second_look() -> None:
    tally = Tally()
    first, second = record(1), record(2)
    for each in (first, second, dataclasses.replace(first)):
        tally.add(each)
    assert tally.closing_line(2, 4.0).startswith("seeds=2 passed=2 failed=0")
    assert tally.closing_line(2, 4.0).endswith("seeds_per_s=0.50")

    assert not tally.confirm(tally.records[1])
    assert tally.confirm(dataclasses.replace(second, verdict=Verdict.ERROR))
    assert tally.closing_line(2, 4.0).startswith("seeds=2 passed=1 failed=0 inconclusive=0 error=1")
    assert tally.to_json()["made_again"] == 2


def test_campaigns_that_committed_nothing_while_faults_lasted_prove_too_little() -> None:
    tally = Tally()
    for seed in range(4):
        tally.add(dataclasses.replace(record(seed), commits_under_faults=seed // 2 * 7))
    assert tally.share_that_wrote == 0.5
    assert tally.exit_code() == 0
    assert any("50.0% of 4 campaigns" in line for line in tally.lines())

    tally.add(dataclasses.replace(record(4), commits_under_faults=0))
    tally.add(record(5))  # No campaign at all.
    assert tally.share_that_wrote == 0.4
    assert tally.exit_code() == 3
    tally.add(record(6, LOST))
    assert tally.exit_code() == 1


def test_marks_are_counted_and_those_never_reached_are_listed() -> None:
    coverage = Coverage(MEANINGS)
    for seed in range(5):
        coverage.add(record(seed).marks)

    assert coverage.hits["wal_cut"] == 4
    assert coverage.runs["wal_cut"] == 2
    assert set(coverage.never()) == set(MEANINGS) - {"wal_cut"}
    lines = coverage.lines("marks")
    assert lines[:2] == [f"marks: 1 of {len(MEANINGS)}", "  wal_cut: 4 times in 2 runs"]
    assert any(line.startswith("  deposed – walproposer: ") for line in lines)
    plain = Coverage({"kill": "", "wipe": "", "pause": ""})
    plain.add({"wipe": 1})
    assert plain.lines("faults")[-2:] == ["faults, never: 2", "  kill, pause"]


def test_a_sweep_keeps_results_and_tells_groups_and_marks(suite: Path) -> None:
    found = harness(suite, "sweep", "test_toy.py::test_kinds", "--seeds", "0:8", "--jobs", "2")

    wanted = "seeds=8 passed=3 failed=4 inconclusive=1 error=0"
    assert found.stdout.splitlines()[-1].startswith(wanted)
    assert "1 × safety: CheckFailed: ledger in test_toy.py test_kinds" in found.stderr
    assert "1 × liveness: NotLive: eventually in test_toy.py test_kinds" in found.stderr
    assert "1 × crash: NodeDied: node died in test_toy.py test_kinds" in found.stderr
    assert "1 × inconclusive: Inconclusive in test_toy.py test_kinds" in found.stderr
    assert "rare states reached: 1 of" in found.stderr
    assert "rare states reached, never:" in found.stderr
    assert "faults with an effect" not in found.stderr
    kept = suite / ".seawall" / "sweeps" / "test-kinds-0-8-random.jsonl"
    records = [RunRecord.from_json(line) for line in kept.read_text().splitlines()]
    assert sorted(each.settings.seed for each in records) == list(range(8))
    assert {each.failure.kind for each in records if each.failure} == {
        "safety", "liveness", "crash", "inconclusive",
    }  # fmt: skip
    summary = json.loads(kept.with_suffix(".summary.json").read_text())
    assert summary["verdicts"] == {"passed": 3, "failed": 4, "inconclusive": 1, "error": 0}
    assert len(summary["groups"]) == 5
    assert summary["about"]["seeds"] == "0:8"
    assert summary["marks"]["reached"] == {"wal_cut": {"runs": 8, "times": 8}}
    assert "deposed" in summary["marks"]["never"]


def test_a_run_that_takes_its_process_along_is_a_crash_and_the_others_go_on(suite: Path) -> None:
    words = ("test_toy.py::test_exits_at_seed_3", "--seeds", "0:9", "--jobs", "1")
    found = harness(suite, "sweep", *words)

    assert found.stdout.splitlines()[-1].startswith("seeds=9 passed=8 failed=1")
    assert "1 × crash: process: it exited with code 7" in found.stderr
    assert "--seed 3" in found.stderr
    assert found.returncode == 1


def test_a_sweep_is_resumed_where_it_ended(suite: Path) -> None:
    words = ("sweep", "test_toy.py::test_passes", "--seeds", "0:6", "--jobs", "1")
    kept = suite / ".seawall" / "sweeps" / "test-passes-0-6-random.jsonl"
    assert harness(suite, *words).returncode == 0
    lines = kept.read_text().splitlines()
    assert len(lines) == 6
    kept.write_text("\n".join(lines[:4]) + "\n" + lines[4][:50])

    found = harness(suite, *words, "--resume")
    assert found.stdout.splitlines()[-1].startswith("seeds=6 passed=6")
    again = [RunRecord.from_json(line) for line in kept.read_text().splitlines()]
    assert sorted(each.settings.seed for each in again) == list(range(6))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--seeds", "0:7"), "nothing to resume: .seawall/sweeps/test-passes-0-7"),
        (("--seeds", "0:3", "--records", "r.jsonl"), "r.jsonl has results of seeds '0:2', this"),
    ],
)
def test_what_is_not_the_same_sweep_is_not_resumed(
    suite: Path, words: tuple[str, ...], sentence: str
) -> None:
    harness(suite, "sweep", "test_toy.py::test_passes", "--seeds", "0:2", "--records", "r.jsonl")
    before = (suite / "r.jsonl").read_text()
    found = harness(suite, "sweep", "test_toy.py::test_passes", *words, "--resume")

    assert sentence in found.stderr
    assert found.returncode == 2
    assert (suite / "r.jsonl").read_text() == before


def test_two_sweeps_do_not_write_to_one_file(suite: Path) -> None:
    with contextlib.closing(SweepFile(suite / "r.jsonl", {})) as file:
        file.begin(resume=False, fresh=True)
        words = ("sweep", "test_toy.py::test_passes", "--seeds", "0:2", "--records", "r.jsonl")
        found = harness(suite, *words)
    assert "another sweep writes to r.jsonl; wait for it" in found.stderr
    assert found.returncode == 2
    assert harness(suite, *words).returncode == 0


def test_what_is_looked_at_again() -> None:
    red = [record(seed, LOST, events=seed) for seed in (350, 340)]
    green = [record(seed) for seed in range(7, 300)]
    chosen = [each.settings.seed for each in sample([*green, *red], range(7, 400))]
    assert chosen == [7, 107, 207, 340]
    unknown = dataclasses.replace(record(7), digest="")
    assert sample([unknown], range(7, 400)) == []


def test_several_scenarios_are_swept_as_one(suite: Path) -> None:
    words = ("test_toy.py::test_passes", "test_toy.py::test_fails_at_seed_3", "--seeds", "2:5")
    found = harness(suite, "sweep", *words, "--jobs", "2")

    assert found.stdout.splitlines()[-1].startswith("seeds=6 passed=5 failed=1")


@pytest.mark.parametrize(
    ("scenario", "why"),
    [
        ("test_asks_the_process", "event 1 is the first that differs:"),
        ("test_asks_the_hash_seed", "event 1 is the first that differs:"),
        ("test_remembers", "it depends on what was run before it, or on chance"),
    ],
)
def test_what_the_seed_does_not_decide_is_an_error(suite: Path, scenario: str, why: str) -> None:
    """Each of these runs alike if it is run twice in one process; so it must be another one."""
    words = (f"test_toy.py::{scenario}", "--seeds", "5:8", "--jobs", "1")
    found = harness(suite, "sweep", *words)

    last = found.stdout.splitlines()[-1]
    assert last.startswith("seeds=3 passed=2 failed=0 inconclusive=0 error=1"), found.stderr
    assert "NotReproducible: seed 5 ran twice with different digests" in found.stderr
    summary = json.loads(next((suite / ".seawall" / "sweeps").glob("*.summary.json")).read_text())
    (group,) = summary["groups"]
    assert group["group"].startswith("error: nondeterminism")
    assert why in group["message"]
    assert "PYTHONHASHSEED=1" in group["message"]
    assert found.returncode == 2


def test_a_failure_that_cannot_be_had_again_stays_one_and_says_so(suite: Path) -> None:
    words = ("test_toy.py::test_fails_its_own_way", "--seeds", "5:6", "--jobs", "1")
    found = harness(suite, "sweep", *words)

    assert found.stdout.splitlines()[-1].startswith("seeds=1 passed=0 failed=1")
    summary = json.loads(next((suite / ".seawall" / "sweeps").glob("*.summary.json")).read_text())
    (group,) = summary["groups"]
    assert group["group"].startswith("safety: CheckFailed: ledger")
    assert "key 1 is gone" in group["message"]
    assert "NotReproducible: seed 5 ran twice" in group["message"]


def test_a_sweep_whose_code_changes_says_so_and_compares_nothing(suite: Path) -> None:
    """A run again would be of other code; that would look like nondeterminism."""
    words = ("test_toy.py::test_changes_the_code", "--seeds", "5:6", "--jobs", "1")
    found = harness(suite, "sweep", *words)

    assert "the code changed meanwhile" in found.stderr
    assert "made again with another hash seed: 0 runs" in found.stderr
    assert found.stdout.splitlines()[-1].startswith("seeds=1 passed=1")
