"""A whole pytest session over toy worlds: Allure results, the session file, ``make demo``."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.verdict import RunSettings, append_record
from reports.allure_hooks import last_record
from reports.scenario_ids import ScenarioId, rerun_line, scenario_id
from reports.session import read_session
from reports.tests.runs_made_up import record

ROOT = Path(__file__).resolve().parents[2]

CONFTEST = """
import asyncio
from harness.backend import LogLine
from harness.runner import Evidence, RunResult, verdict_of

pytest_plugins = ("harness.pytest_plugin",)


class ToyRunner:
    computes = ("walgen",)

    def run(self, scenario, settings):
        error = None
        try:
            asyncio.run(scenario(settings))
        except Exception as raised:
            error = raised
        evidence = Evidence(logs=[LogLine(0.5, "sk0", "ERROR", "first line\\nsecond line")])
        verdict = verdict_of(error)
        return RunResult(settings, verdict, error, "d1", 5, 1, 2.0, 0.1, evidence)

    def close(self):
        pass


WORLDS = {"sim": ToyRunner, "real": ToyRunner}
BENCHES = {}
"""

SCENARIOS = '''
import pytest
from harness.errors import CheckFailed


@pytest.mark.parametrize("way", ["short", "long"])
async def test_loses_a_key(world, way):
    """Nothing may be lost."""
    if (world.world, world.seed, way) == ("sim", 1, "long"):
        raise CheckFailed("key <1> is gone", checker="ledger")


def test_port():
    assert FINE
'''

SLEEPER = """
import os, pathlib, subprocess, sys, time


async def test_passes(world):
    pass


def test_sleeps():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(300)
"""


def toy_suite(directory):
    """A repository with toy worlds; the one test that is no scenario fails."""
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "scenarios").mkdir()
    (directory / "scenarios" / "test_toy.py").write_text("FINE = False\n" + SCENARIOS)
    return directory


@pytest.fixture
def suite(tmp_path):
    return toy_suite(tmp_path)


def started(directory, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process, within_s=60):
    out, err = process.communicate(timeout=within_s)
    return process.returncode, out, err


def demo(directory, *words):
    return ended(started(directory, "reports.demo", "--output", "out", "--jobs", "1", *words))


@pytest.fixture(scope="module")
def allure(tmp_path_factory):
    """A directory with the Allure results of two workers."""
    suite = toy_suite(tmp_path_factory.mktemp("allure"))
    words = ["pytest", "scenarios", "-n", "2", "-p", "reports.allure_hooks", "--runs", "2"]
    words += ["--records", "runs/records.jsonl", "--artifacts", "runs", "--alluredir", "allure"]
    code, out, _ = ended(started(suite, *words, "-p", "no:cacheprovider"))
    assert code == 1, out
    return suite / "allure"


@pytest.fixture
def results(allure):
    """Allure results by name."""
    rows = [json.loads(path.read_text()) for path in allure.glob("*-result.json")]
    return {row["name"]: row for row in rows}


def test_allure_results_are_readable(results, allure):
    red = results["test_loses_a_key[long] · sim · walgen · seed 1"]
    parameters = {each["name"]: each["value"] for each in red["parameters"]}
    labels = {(each["name"], each["value"]) for each in red["labels"]}

    assert len(results) == 1 + 2 * 2 + 2 * 2
    assert red["status"] in ("failed", "broken")
    assert "key <1> is gone" in red["statusDetails"]["message"]
    assert parameters["world"] == "'sim'"
    assert parameters["compute"] == "'walgen'"
    assert parameters["seed"] == "1"
    assert parameters["policy"] == "'random'"
    assert parameters["way"] == "'long'"
    assert {("subSuite", "sim · walgen"), ("tag", "sim"), ("tag", "walgen")} <= labels
    assert red["description"].split("\n\n") == [
        "Nothing may be lost.",
        "Verdict: **failed** scenarios/test_toy.py:11: CheckFailed: key <1> is gone",
        "Replay: `python -m harness run 'scenarios/test_toy.py::test_loses_a_key[long]' "
        "--world sim --compute walgen --seed 1`",
        "Digest: `d1` over 5 events",
    ]
    attached = {each["name"]: each["source"] for each in red["attachments"]}
    assert {"log.txt", "events.jsonl", "effects.json"} <= set(attached)
    log = (allure / attached["log.txt"]).read_text().splitlines()
    assert log[0].split() == ["0.500000", "sk0", "ERROR", "first", "line"]
    assert log[1].strip() == "| second line"


def test_allure_results_of_green_runs_have_no_evidence_and_others_are_left_alone(results):
    green = results["test_loses_a_key[short] · sim · walgen · seed 1"]

    assert green["status"] == "passed"
    assert "Verdict: **passed**" in green["description"]
    assert not green.get("attachments")
    assert "description" not in results["test_port"]


def test_history_of_a_scenario_is_the_same_over_seeds_apart_only_by_parameters(results):
    ids = {row["historyId"] for row in results.values()}

    assert len(ids) == len(results)
    assert len({row["testCaseId"] for row in results.values()}) == 2


def test_last_record_is_that_of_the_same_settings(tmp_path):
    path = tmp_path / "records.jsonl"
    for seed in (1, 2, 1):
        append_record(path, record(seed))
    settings = RunSettings("sim", "walgen", 2)

    assert last_record(path, record().nodeid, settings) == record(2)
    assert last_record(path, "scenarios/other.py::test", settings) is None
    assert last_record(path, record().nodeid, RunSettings("sim", "walgen", 2, "fifo")) is None
    assert last_record(tmp_path / "none", record().nodeid, settings) is None


@pytest.mark.parametrize(
    ("test_id", "parts"),
    [
        ("a.py::test_x[sim-walgen]", ScenarioId("a.py::test_x", "sim", "walgen", 0)),
        ("a.py::test_x[real-postgres-seed7]", ScenarioId("a.py::test_x", "real", "postgres", 7)),
        ("a.py::test_x[sim-walgen-seed2-two]", ScenarioId("a.py::test_x[two]", "sim", "walgen", 2)),
        (
            "a.py::test_x[sim-walgen-seed2.pct.a_b-two]",
            ScenarioId("a.py::test_x[two]", "sim", "walgen", 2),
        ),
        ("a.py::test_x[two-sim-walgen]", ScenarioId("a.py::test_x[two]", "sim", "walgen", 0)),
        ("a.py::test_x[sim]", None),
        ("a.py::test_sim-walgen", None),
    ],
)
def test_ids_of_scenarios_are_taken_apart(test_id, parts):
    assert scenario_id(test_id) == parts


def test_a_rerun_line_can_be_pasted():
    assert rerun_line("a.py::test[x y]") == "python -m pytest 'a.py::test[x y]'"


def test_demo_with_failures_draws_the_page_prints_replay_lines_and_fails(suite):
    code, out, err = demo(suite, "--runs", "2")
    lines = out.splitlines()
    page = (suite / "out" / "index.html").read_text()

    assert code == 1, err
    assert lines[0] == "runs=8 passed=7 failed=1 inconclusive=0 error=0"
    assert (
        "replay: python -m harness run 'scenarios/test_toy.py::test_loses_a_key[long]' "
        "--world sim --compute walgen --seed 1" in lines
    )
    assert "replay: python -m pytest scenarios/test_toy.py::test_port" in lines
    assert lines[-1] == str((suite / "out" / "index.html").resolve())
    assert "CheckFailed: key &lt;1&gt; is gone" in page
    assert "<b>7</b>of 9 tests passed" in page
    session = read_session(suite / "out" / "runs" / "session.jsonl")
    assert session.exit_status == 1
    assert session.count("passed") == 7
    assert session.about["python"]


def test_demo_all_green_succeeds_and_replaces_everything_old(suite):
    (suite / "scenarios" / "test_toy.py").write_text("FINE = True\n" + SCENARIOS)
    (suite / "out" / "runs" / "old").mkdir(parents=True)
    code, out, err = demo(suite, "--runs", "1")

    assert code == 0, out + err
    assert not (suite / "out" / "runs" / "old").exists()
    assert out.splitlines()[-1].endswith("index.html")


def test_demo_of_what_cannot_be_collected_says_why_and_takes_nothing_away(suite):
    (suite / "out").mkdir()
    (suite / "out" / "index.html").write_text("of the last demo")
    (suite / "scenarios" / "test_toy.py").write_text("import no_such_module")
    code, out, err = demo(suite)

    assert code == 2
    assert err.startswith("seawall: the scenarios cannot be collected; pytest says:")
    assert "no_such_module" in err
    assert out == ""
    assert (suite / "out" / "index.html").read_text() == "of the last demo"


def test_demo_without_a_scenario_has_no_page(suite):
    (suite / "scenarios" / "test_toy.py").write_text("def test_port():\n    pass\n")
    code, _, err = demo(suite)

    assert code == 2
    assert "seawall: no scenario ran; pytest said" in err
    assert not (suite / "out" / "index.html").exists()


def test_demo_names_a_directory_it_cannot_write(suite):
    (suite / "out").write_text("a file")
    code, out, err = demo(suite)

    assert code == 2
    assert err.strip().splitlines() == [
        "seawall: cannot write out: File exists; choose another directory with --output"
    ]
    assert out == ""


def test_demo_refuses_no_runs(suite):
    code, _, err = demo(suite, "--runs", "0")

    assert code == 2
    assert "0 is too few; give 1 or more" in err


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_and_shows_what_had_ended(suite, number):
    (suite / "scenarios" / "test_toy.py").write_text(SLEEPER)
    process = started(suite, "reports.demo", "--output", "out", "--jobs", "1", "--runs", "1")
    pids = wait_for(suite / "pids")

    second = demo(suite)
    process.send_signal(number)
    code, out, err = ended(process)

    assert second[0] == 2
    assert "another demo writes to out" in second[2]
    assert code == 130
    assert not any(alive(pid) for pid in pids)
    assert "interrupted; the report shows what had ended" in err
    assert out.splitlines()[0].startswith("runs=3 passed=3 ")
    assert "did not end by itself" in (suite / "out" / "index.html").read_text()


def wait_for(path, within_s=40):
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if path.exists() and len(path.read_text().split()) == 2:
            return [int(word) for word in path.read_text().split()]
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written in {within_s} s")
