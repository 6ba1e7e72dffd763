"""The pytest plugin and the command line, over a toy world that needs no loop of its own."""

import json

import pytest

from harness.tests.toy_suite import SCENARIOS, harness, run, suite

__all__ = ["suite"]


def test_ids_show_world_compute_and_seed(suite):
    plain = run(suite, "--collect-only", "-q", "-k", "passes").stdout
    seeds = run(suite, "--collect-only", "-q", "-k", "passes", "--runs", "2").stdout

    assert "test_toy.py::test_passes[sim-walgen]" in plain
    assert "test_toy.py::test_passes[real-postgres]" in plain
    assert "sim-postgres" not in plain
    assert "test_passes[sim-walgen-seed1]" in seeds
    assert "test_passes[real-walgen-seed1]" not in seeds


def test_a_marker_keeps_a_scenario_out_of_a_world(suite):
    listing = run(suite, "--collect-only", "-q", "-k", "only_in_sim").stdout

    assert "test_only_in_sim[sim-walgen]" in listing
    assert "real" not in listing


def test_a_failure_shows_its_replay_line_first(suite):
    shown = run(suite, "-k", "fails", "--world", "sim", "--seed", "3").stdout

    below_the_title = shown.partition("test_fails_at_seed_3[sim-walgen-seed3] _")[2]
    first = below_the_title.partition("\n")[2].lstrip().splitlines()[0]
    assert first.startswith("replay: python -m harness run test_toy.py::test_fails_at_seed_3")
    assert "key 1 is gone" in below_the_title
    assert "--world sim --compute walgen --seed 3" in shown


def test_unknown_options_get_one_sentence(suite):
    for words, sentence in [
        (["--world", "moon"], "--world 'moon' is unknown; choose sim, real or all"),
        (["--compute", "oracle"], "--compute 'oracle' is unknown; choose walgen, postgres or all"),
        (["--runs", "0"], "--runs 0: at least 1 is needed"),
        (["--seed", "-1"], "--seed -1: at least 0 is needed"),
        (["--world", "sim", "--compute", "postgres"], "--compute postgres runs real processes"),
        (["--artifacts", "conftest.py/x"], "--artifacts conftest.py/x: nothing can be written"),
        (["--records", "conftest.py/x"], "--records conftest.py/x: the file cannot be written"),
    ]:
        found = run(suite, *words)
        assert sentence in found.stdout + found.stderr
        assert found.returncode == 4


def test_run_ends_with_the_agreed_line(suite):
    passed = harness(suite, "run", "test_toy.py::test_passes", "--seed", "7")
    failed = harness(suite, "run", "test_toy.py::test_fails_at_seed_3", "--seed", "3")
    nothing = harness(suite, "run", "test_toy.py::test_proves_nothing")

    line = "verdict=passed digest=digest7 events=5 virtual_s=2.000 wall_s=0.100"
    assert passed.stdout.splitlines()[-1] == line
    assert passed.returncode == 0
    assert failed.stdout.splitlines()[-1].startswith("verdict=failed")
    assert failed.stdout.splitlines()[-3:-1] == [
        "safety: CheckFailed: ledger in test_toy.py test_fails_at_seed_3",
        "rare states: wal_cut ×1",
    ]
    assert failed.returncode == 1
    assert nothing.stdout.splitlines()[-1].startswith("verdict=inconclusive")
    assert nothing.returncode == 3


@pytest.mark.parametrize("way", ["long", "-1", "1", "sim-walgen"])
def test_run_finds_one_set_of_parameters(suite, way):
    nodeid = f"test_toy.py::test_with_parameters[{way}]"
    found = harness(suite, "run", nodeid, "--seed", "2")

    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1].startswith("verdict=passed digest=digest2")


def test_run_hands_the_plan_on_to_the_scenario(suite):
    found = harness(suite, "run", "test_toy.py::test_fails_with_a_plan", "--plan", "some.json")

    assert "assert not 'some.json'" in found.stdout
    assert found.returncode == 1


def test_run_of_a_failure_names_the_line_it_came_from(suite):
    found = harness(suite, "run", "test_toy.py::test_with_parameters[l-ong]", "--artifacts", "kept")

    line = SCENARIOS.splitlines().index('    assert way != "l-ong"') + 1
    assert found.stdout.startswith(f"test_toy.py:{line}: AssertionError: assert 'l-ong' != ")
    assert found.stdout.splitlines()[-2].startswith("artifacts: kept/")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "test_toy.py::test_missing"], "no scenario 'test_toy.py::test_missing'"),
        (["run", "test_toy.py"], "'test_toy.py' names no scenario; write one as"),
        (["run", "test_toy.py::test_passes", "--seed", "-1"], "a whole number from 0 on"),
        (["run", "missing.py::test_x"], "no scenario 'missing.py::test_x'"),
        (["run", "test_toy.py::test_passes", "--compute", "postgres"], "runs real processes"),
        (["run", "test_toy.py::test_only_in_sim", "--world", "real"], "does not run in world"),
        (["run", "test_toy.py::test_skips"], "does not run in world"),
        (["run", "test_toy.py::test_passes", "--artifacts", "conftest.py/x"], "--artifacts conf"),
        (["sweep", "test_toy.py::test_passes", "--seeds", "9"], "write A:B with A < B"),
        (["sweep", "test_toy.py::test_passes", "--seeds", "0:9", "--jobs", "-1"], "from 1 on"),
        (["sweep", "test_toy.py::x", "--seeds", "0:9", "--records", "conftest.py/x"], "--records"),
        (["run", "test_toy.py::test_passes[sim-walgen]"], "leave out world, compute and seed"),
        (["bench", "warp"], "no benchmark 'warp'; there are: broken, toy"),
    ],
)
def test_bad_input_gets_one_clear_sentence(suite, words, sentence):
    found = harness(suite, *words)

    assert sentence in found.stderr
    assert found.returncode == 2
    assert "Traceback" not in found.stderr


def test_sweep_counts_verdicts_and_shows_replay_lines(suite):
    found = harness(
        suite, "sweep", "test_toy.py::test_fails_at_seed_3", "--seeds", "0:6", "--jobs", "2"
    )

    last = found.stdout.splitlines()[-1]
    assert last.startswith("seeds=6 passed=5 failed=1 inconclusive=0 error=0 seeds_per_s=")
    assert found.returncode == 1
    assert "--seed 3" in found.stderr


def test_replay_lines_of_a_sweep_can_be_copied(suite):
    words = ("test_toy.py::test_with_parameters[l-ong]", "--seeds", "0:12", "--jobs", "1")
    found = harness(suite, "sweep", *words, COLUMNS="80")

    lines = [line for line in found.stderr.splitlines() if line.startswith("replay: ")]
    wanted = "replay: python -m harness run 'test_toy.py::test_with_parameters[l-ong]'"
    assert lines == [f"{wanted} --world sim --compute walgen --seed {seed}" for seed in range(10)]
    assert "2 more not green" in found.stderr


def test_a_world_that_cannot_be_made_is_an_error_with_one_sentence(suite):
    found = harness(suite, "run", "test_toy.py::test_passes", "--world", "real", WITHOUT_REAL="yes")

    assert found.stdout.splitlines()[0] == "HarnessError: no PostgreSQL here; install one"
    assert found.stdout.splitlines()[-1].startswith("verdict=error digest=- events=0")
    assert found.returncode == 2
    assert "Traceback" not in found.stdout + found.stderr


def test_what_is_missing_is_told_without_a_traceback(suite):
    scenario = run(suite, "-k", "passes", "--world", "real", WITHOUT_REAL="yes")
    comparison = run(suite, "-k", "compares", WITHOUT_REAL="yes")

    for found in (scenario, comparison):
        assert "HarnessError: no PostgreSQL here; install one\n" in found.stdout
        assert "Error)" not in found.stdout and "raise " not in found.stdout
        assert found.returncode == 1


def test_a_comparison_of_worlds_shows_its_replay_line_first(suite):
    shown = run(suite, "-k", "compares", "--seed", "3").stdout

    first = shown.index("replay: python -m pytest test_toy.py::test_compares_worlds --seed 3")
    assert first < shown.index("they differ", first)


def test_a_benchmark_whose_run_fails_is_red(suite):
    found = harness(suite, "bench", "broken")

    assert found.stderr.strip() == "seawall: ledger: key 1 is gone"
    assert found.returncode == 1


def test_bench_ends_with_one_json_line(suite):
    found = harness(suite, "bench", "toy")

    assert json.loads(found.stdout.splitlines()[-1]) == {"speed": 3}


def test_temporary_directory_that_is_none_is_named(suite):
    words = ("sweep", "test_toy.py::test_passes", "--seeds", "0:2", "--jobs", "1")
    found = harness(suite, *words, TMPDIR="/no/where")

    assert "TMPDIR='/no/where' is not a directory you can write to" in found.stderr
    assert "Traceback" not in found.stderr
    assert found.returncode == 2


def test_no_conftest_is_said_plainly(tmp_path):
    found = harness(tmp_path, "bench", "toy")

    assert "no conftest.py in" in found.stderr
    assert found.returncode == 2
