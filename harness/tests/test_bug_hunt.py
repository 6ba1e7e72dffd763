"""Hunts: which runs they make, what counts as a catch, and what the table says of them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.bug import Bug, Replacement, Standing
from harness.bug_catch import Catch, Notes, note_calls, note_catch
from harness.bug_hunt import CHUNKS, SEEDS_BETWEEN_ROOTS, Hunt, Quarry, chunks
from harness.bug_plugin import cpu_limit
from harness.bug_table import Result, closing_line, to_json
from harness.errors import CheckFailed, HarnessError, NotLive
from harness.runner import Inconclusive

ROOT = Path(__file__).resolve().parents[2]

CONFTEST = """
import asyncio
from harness.bug import Bug, Replacement, Standing
from harness.runner import Evidence, RunResult, verdict_of
import system

pytest_plugins = ("harness.pytest_plugin", "harness.bug_plugin")


class ToyRunner:
    world = "sim"
    computes = ("walgen",)

    def run(self, scenario, settings):
        error = None
        try:
            asyncio.run(scenario(settings))
        except Exception as raised:
            error = raised
        return RunResult(
            settings, verdict_of(error), error, f"digest{settings.seed}", 5, 1, 2.0, 0.1, Evidence()
        )

    def close(self):
        pass


def always_even(self, number):
    return True


WORLDS = {"sim": ToyRunner}
BENCHES = {}
HUNTING_GROUNDS = ("test_toy.py::test_parity", "test_toy.py::test_nothing")


def write_bug_page(found, target):
    target.write_text(f"{len(found['bugs'])} bugs")


def bank():
    put_back = (Replacement(system.Judge, "is_even", always_even),)
    harmless = (Replacement(system.Judge, "name", lambda self: "other"),)
    unused = (Replacement(system.Judge, "unused", lambda self: None),)
    return (
        Bug("unused", "toy", "easy", ("O1",), "none", replacements=unused),
        Bug("always-even", "toy", "easy", ("O1",), "none", replacements=put_back),
        Bug("harmless", "toy", "hard", ("O1",), "none", replacements=harmless),
        Bug("later", "toy", "hard", ("O1",), "none", Standing.WAITING, reason="not built"),
    )
"""

SYSTEM = """
class Judge:
    def is_even(self, number):
        return number % 2 == 0

    def name(self):
        return "judge"

    def unused(self):
        pass
"""

SCENARIOS = """
from harness.errors import CheckFailed, HarnessError
from system import Judge


async def test_parity(world):
    # Red without any bug at seed 1, and only later because of the bug.
    if world.seed == 1 or (world.seed >= 5 and world.seed % 2 and Judge().is_even(world.seed)):
        raise CheckFailed(f"{world.seed} is odd", checker="safekeepers_agree")


async def test_later(world):
    if world.seed % 100_000 == 4 and Judge().is_even(world.seed + 1):
        raise CheckFailed("odd is even", checker="safekeepers_agree")


async def test_misuse(world):
    if world.seed == 0 and Judge().is_even(1):
        raise HarnessError("wrong options")


async def test_nothing(world):
    assert Judge().name()
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "system.py").write_text(SYSTEM)
    (tmp_path / "test_toy.py").write_text(SCENARIOS)
    return tmp_path


def bugs(directory, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=directory,
        env={"PYTHONPATH": f"{ROOT}:{directory}", "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_bug_is_caught_at_a_seed_that_passes_without_it(suite):
    done = bugs(suite, "bugs", "--id", "always-even", "--roots", "1", "--jobs", "1",
                "--page", "found/bugs.html")  # fmt: skip

    # One seed of each scenario, two of each, then seeds 3, 4, 5 of the first: 2 + 4 + 3.
    assert done.stdout.splitlines()[-1] == "caught=1/1 median_seeds=9 waiting=0 inexpressible=0"
    assert (suite / "found" / "bugs.html").read_text() == "1 bugs"
    (bug,) = json.loads((suite / "found" / "bugs.json").read_text())["bugs"]
    (hunt,) = bug["hunts"]
    assert hunt["catch"]["seed"] == 5
    assert hunt["catch"]["error"] == "CheckFailed: safekeepers_agree"
    assert hunt["red_without_the_bug"] == [
        "python -m harness run 'test_toy.py::test_parity' --seed 1"
    ]
    assert bug["oracles"] == bug["ended_by"] == {"O2": 1}
    # Neither the other scenario nor test_parity at seeds below 5 asks whether a number is even.
    assert bug["calls"] == {"system.Judge.is_even": 1}
    assert bug["live_share"] == 1 / 9


def test_code_that_fails_the_same_seeds_without_any_bug_is_no_success(suite):
    done = bugs(suite, "bugs", "--id", "always-even", "--roots", "1", "--jobs", "1")

    assert done.returncode == 1, done.stderr
    assert "red without any bug: python -m harness run test_toy.py::test_parity" in done.stdout
    *_, before_last, last = done.stdout.splitlines()
    assert before_last.startswith("without any bug: runs=9 red=1 ")
    assert last == "caught=1/1 median_seeds=9 waiting=0 inexpressible=0"


def test_hunt_that_never_met_a_red_seed_is_a_success(suite):
    done = bugs(suite, "bugs", "--id", "always-even", "--roots", "2", "--jobs", "1",
                "--scenario", "test_toy.py::test_later")  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "without any bug: runs=10 red=0 " in done.stdout


def test_run_that_our_own_error_spoils_is_no_catch_and_ends_no_hunt(suite):
    done = bugs(suite, "bugs", "--id", "always-even", "--roots", "1", "--jobs", "1",
                "--seeds", "20", "--scenario", "test_toy.py::test_misuse",
                "--scenario", "test_toy.py::test_later")  # fmt: skip

    replay = "python -m harness run 'test_toy.py::test_misuse' --seed 0 --bug always-even"
    assert f"ended in an error of our own: {replay}" in " ".join(done.stderr.split())
    assert done.stdout.splitlines()[-1].startswith("caught=1/1 median_seeds=13 "), done.stderr


def test_bug_that_nothing_catches_is_no_success(suite):
    done = bugs(suite, "bugs", "--id", "harmless", "--roots", "1", "--seeds", "8", "--jobs", "1")

    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "caught=0/1 median_seeds=- waiting=0 inexpressible=0"


def test_bug_whose_code_never_runs_is_told_apart(suite):
    done = bugs(suite, "bugs", "--id", "unused", "--roots", "1", "--seeds", "8", "--jobs", "1")

    assert done.returncode == 1, done.stderr
    assert "never ran 0/1" in " ".join(done.stdout.split())


def test_catches_that_the_page_tells_of_are_not_hunted_again(suite):
    hunt = ["bugs", "--id", "always-even", "--jobs", "1", "--page", "found/bugs.html",
            "--scenario", "test_toy.py::test_later"]  # fmt: skip
    assert bugs(suite, *hunt, "--roots", "1").returncode == 0
    again = bugs(suite, *hunt, "--roots", "2", "--resume")

    assert again.returncode == 0, again.stdout + again.stderr
    assert "always-even root 1" in again.stderr
    assert "always-even root 0" not in again.stderr
    assert again.stdout.splitlines()[-1].startswith("caught=1/1 median_seeds=5 "), again.stdout
    (bug,) = json.loads((suite / "found" / "bugs.json").read_text())["bugs"]
    assert [hunt["root"] for hunt in bug["hunts"]] == [0, 1]


def test_hunt_that_is_out_of_time_begins_no_run(suite):
    done = bugs(suite, "bugs", "--id", "harmless", "--roots", "1", "--jobs", "1",
                "--minutes", "0.02")  # fmt: skip

    assert done.returncode == 1, done.stderr
    assert "without any bug" in done.stdout


def test_waiting_bug_is_shown_and_not_hunted(suite):
    done = bugs(suite, "bugs", "--id", "later")

    assert done.returncode == 0, done.stderr
    assert "not built" in done.stdout
    assert done.stdout.splitlines()[-1] == "caught=0/0 median_seeds=- waiting=1 inexpressible=0"


def test_one_run_can_be_made_under_a_bug(suite):
    node = "test_toy.py::test_parity"

    assert bugs(suite, "run", node, "--seed", "7").returncode == 0
    under = bugs(suite, "run", node, "--seed", "7", "--bug", "always-even")
    assert under.returncode == 1
    assert "7 is odd" in under.stdout


@pytest.mark.parametrize(
    "command", [["bugs", "--id"], ["run", "test_toy.py::test_parity", "--bug"]]
)
def test_unknown_bug_is_refused_by_name(suite, command):
    done = bugs(suite, *command, "nonsense")

    assert done.returncode == 2
    assert "unused, always-even, harmless, later" in done.stderr


def test_scenarios_take_turns_with_growing_chunks():
    quarry = Quarry("bug", 2, ("a", "b"), runs_max=20)
    first = 2 * SEEDS_BETWEEN_ROOTS

    assert CHUNKS[:3] == (1, 2, 5)
    assert list(chunks(quarry)) == [
        ("a", range(first, first + 1)),
        ("b", range(first, first + 1)),
        ("a", range(first + 1, first + 3)),
        ("b", range(first + 1, first + 3)),
        ("a", range(first + 3, first + 8)),
        ("b", range(first + 3, first + 8)),
        ("a", range(first + 8, first + 12)),
    ]


def test_hunting_nowhere_is_a_mistake():
    with pytest.raises(HarnessError, match="no scenarios"):
        next(chunks(Quarry("bug", 0, (), 5)))


def test_only_the_systems_fault_is_a_catch(tmp_path):
    path = tmp_path / "catches.jsonl"

    note_catch(path, 1, Inconclusive("nothing happened"))
    note_catch(path, 2, HarnessError("wrong option"))
    assert Notes.read(path) == Notes()

    note_catch(path, 3, CheckFailed("gone", checker="ledger"))
    note_calls(path, {"storage.x": 2})
    note_catch(path, 4, AssertionError("no"))
    assert Notes.read(path) == Notes(
        (
            Catch(3, "CheckFailed: ledger", "gone", "other"),
            Catch(4, "AssertionError", "no", "other"),
        ),
        ({"storage.x": 2},),
    )


def test_run_that_spins_is_ended_and_not_live():
    started_s = time.monotonic()
    with pytest.raises(NotLive, match="more than"), cpu_limit(0.05):
        while True:
            try:
                time.monotonic()
            except Exception:  # As code under test may do.
                continue
    assert time.monotonic() - started_s < 5


def result(*hunts, standing=Standing.EXPRESSED):
    expressed = standing is Standing.EXPRESSED
    replacements = (Replacement(Bug, "put_back", None),) if expressed else ()
    reason = "" if expressed else "not built"
    bug = Bug("b", "f", "easy", ("O1",), "s", standing, replacements, reason=reason)
    return Result(bug, hunts)


def hunt(root, runs, oracle="O10", also=()):
    catch = Catch(7, "NotLive: load progress", "stuck", oracle, also) if oracle else None
    return Hunt("b", root, runs, 1.0, "n", catch)


def test_bug_is_caught_only_if_every_root_catches_it():
    assert result(hunt(0, 3), hunt(1, 9)).caught
    assert not result(hunt(0, 3), hunt(1, 9, oracle="")).caught
    assert not result().caught


def test_closing_line_counts_and_takes_the_median_of_medians():
    results = [
        result(hunt(0, 1), hunt(1, 2), hunt(2, 9)),
        result(hunt(0, 4), hunt(1, 4), hunt(2, 4)),
        result(hunt(0, 1), hunt(1, 1, oracle="")),
        result(standing=Standing.WAITING),
        result(standing=Standing.INEXPRESSIBLE),
    ]

    assert closing_line(results) == "caught=2/3 median_seeds=3 waiting=1 inexpressible=1"
    assert to_json(results, None)["bugs"][0]["oracles"] == {"O10": 3}


def test_oracles_that_saw_it_too_are_counted_and_a_surprise_is_told():
    seen = result(hunt(0, 1, "O10", ("O2", "O1")), hunt(1, 1, "O2"))

    assert seen.ended_by == {"O2": 1, "O10": 1}
    assert list(seen.oracles.items()) == [("O1", 1), ("O2", 2), ("O10", 1)]
    assert not seen.surprise
    assert result(hunt(0, 1, "O10", ("O2",))).surprise
    assert not result().surprise
