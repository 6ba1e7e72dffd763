"""The list of seeds that once failed: what may be on it, how it grows, that all of it runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.faulting.plan import Plan
from harness.regressions import (
    REGRESSIONS,
    Regression,
    append_regression,
    of_scenario,
    read_regressions,
)
from harness.tests.test_documents import ROOT, collect
from harness.tests.toy_suite import harness, run, suite

__all__ = ["suite"]

ENTRY = {
    "scenario": "test_toy.py::test_fails_at_seed_3",
    "seed": 3,
    "date": "2026-02-03",
    "cause": "Key 1 was lost.",
    "fix": "Key 1 is kept",
}


def written(tmp_path: Path, *entries: object) -> Path:
    path = tmp_path / "scenarios" / "regressions.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(entries))
    return path


def test_every_scenario_of_the_list_exists_and_runs_all_of_it() -> None:
    """A renamed scenario would take its seeds along in silence."""
    known = read_regressions(ROOT / REGRESSIONS)
    ids = collect("scenarios", "--world", "sim").splitlines()
    for each in known:
        head, _, parameters = each.scenario.partition("[")
        seeds = rf"-seed{each.seed}\b[\w.]*-{re.escape(parameters)}" if parameters else ""
        pattern = re.escape(head) + (rf"\[.*{seeds}" if seeds else rf"\[.*-seed{each.seed}\b")
        assert any(re.match(pattern, one) for one in ids), f"nothing runs {each}"

    assert known


def test_saved_plans_can_be_read_and_all_are_used() -> None:
    used = {each.plan for each in read_regressions(ROOT / REGRESSIONS)} - {""}
    kept = {f"plans/{path.name}" for path in (ROOT / "scenarios" / "plans").iterdir()}

    assert kept == used
    for name in sorted(used):
        assert Plan.read(ROOT / "scenarios" / name).steps


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seed": "3"}, r"seed '3': a whole number from 0 on"),
        ({"seed": -1}, r"seed -1: a whole number"),
        ({"seed": True}, r"seed True: a whole number"),
        ({"scenario": "test_toy.py"}, r"scenario 'test_toy.py': write a node id without world"),
        ({"date": "3.2.2026"}, r"date '3.2.2026': write the day it was found as YYYY-MM-DD"),
        ({"date": "20260203"}, r"date '20260203'"),
        ({"cause": " "}, r"cause ' ': say it in a sentence"),
        ({"fix": None}, r"fix None: say it"),
        ({"policy": "lifo"}, r"policy 'lifo': choose one of fifo, random, pct"),
        ({"plan": "/tmp/plan.json"}, r"plan '/tmp/plan.json': name a file below"),
        ({"plan": "plans/missing.json"}, r"plan 'plans/missing.json': there is no such file"),
        ({"sead": 3}, r"unknown field 'sead'; there are: cause, date"),
    ],
)
def test_an_entry_that_is_wrong_is_refused_by_number_and_field(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    path = written(tmp_path, {**ENTRY, "seed": 4}, {**ENTRY, **changes})

    with pytest.raises(HarnessError, match=rf"regressions.json, entry 1: .*{why}"):
        read_regressions(path)


@pytest.mark.parametrize("name", sorted(ENTRY))
def test_a_field_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, {key: value for key, value in ENTRY.items() if key != name})

    with pytest.raises(HarnessError, match=rf"entry 0: field '{name}' is missing"):
        read_regressions(path)


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(HarnessError, match="cannot be read: No such file"):
        read_regressions(tmp_path / "missing.json")
    for text, why in [
        ("[", "is no JSON"),
        ("{}", "holds no list, but dict"),
        ("[3]", "3 is no ob"),
    ]:
        path.write_text(text)
        with pytest.raises(HarnessError, match=why):
            read_regressions(path)


def test_a_seed_is_on_the_list_once(tmp_path: Path) -> None:
    path = written(tmp_path, ENTRY, {**ENTRY, "cause": "The same."})
    with pytest.raises(HarnessError, match=r"entry 1: .* seed 3 policy random is there already"):
        read_regressions(path)

    path = written(tmp_path)
    one = Regression.of_json(ENTRY)
    append_regression(path, one)
    append_regression(path, replace(one, policy="pct"))
    before = path.read_text()
    with pytest.raises(HarnessError, match="is there already, since 2026-02-03"):
        append_regression(path, replace(one, cause="Other."))
    assert path.read_text() == before
    assert read_regressions(path) == [one, replace(one, policy="pct")]
    assert of_scenario([one], "test_toy.py::test_fails_at_seed_3") == [one]
    assert of_scenario([one], "test_toy.py::test_fails") == []


def test_a_session_runs_its_regressions_beside_seed_0(suite: Path) -> None:
    """With the right parameters only, and not if the session was told what to run."""
    way = {**ENTRY, "scenario": "test_toy.py::test_with_parameters[short]", "seed": 8}
    written(suite, ENTRY, way, {**way, "policy": "pct"})

    ids = run(suite, "--collect-only", "-q").stdout.splitlines()
    assert "test_toy.py::test_fails_at_seed_3[sim-walgen-seed3]" in ids
    assert [one for one in ids if "seed8" in one] == [
        "test_toy.py::test_with_parameters[sim-walgen-seed8-short]",
        "test_toy.py::test_with_parameters[sim-walgen-seed8.pct-short]",
    ]
    assert not [one for one in ids if "[real" in one and "-seed" in one]
    for told in (["--seed", "1"], ["--policy", "fifo"], ["--world", "real"], ["--runs", "2"]):
        assert "seed3" not in run(suite, "--collect-only", "-q", *told).stdout

    red = run(suite, "-k", "seed3 and fails").stdout
    assert "replay: python -m harness run test_toy.py::test_fails_at_seed_3" in red
    assert "--seed 3" in red


def test_a_broken_list_stops_the_session_with_one_sentence(suite: Path) -> None:
    written(suite, {**ENTRY, "seed": "x"})
    found = run(suite)

    assert "entry 0: seed 'x'" in found.stdout + found.stderr
    assert found.returncode == 4


def test_regress_runs_all_and_adds_one(suite: Path) -> None:
    written(suite, {**ENTRY, "seed": 4})
    green = harness(suite, "regress", "--jobs", "1")
    words = ("--add", ENTRY["scenario"], "--seed", "3", "--cause", "Key 1 was lost.", "--fix", "F")
    added = harness(suite, "regress", *words, "--date", "2026-02-03")
    red = harness(suite, "regress", "--jobs", "1")
    again = harness(suite, "regress", *words)

    assert green.stdout.splitlines()[-1].startswith("regressions=1 passed=1 failed=0")
    assert green.returncode == 0
    assert "added test_toy.py::test_fails_at_seed_3 seed 3" in added.stdout
    assert red.stdout.splitlines()[-1].startswith("regressions=2 passed=1 failed=1")
    assert "once: Key 1 was lost." in red.stdout
    assert red.returncode == 1
    assert "is there already, since 2026-02-03" in again.stderr
    assert again.returncode == 2
    entries = read_regressions(suite / "scenarios" / "regressions.json")
    assert entries[-1] == replace(Regression.of_json(ENTRY), fix="F")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--add", "test_toy.py::test_gone", "--cause", "x", "--fix", "y"], "no scenario"),
        (["--add", "test_toy.py::test_passes", "--fix", "y"], "cause '': say it in a sentence"),
        (["--add", "test_toy.py", "--cause", "x", "--fix", "y"], "write a node id"),
    ],
)
def test_what_cannot_be_added_leaves_the_list_alone(
    suite: Path, words: list[str], sentence: str
) -> None:
    path = written(suite, ENTRY)
    before = path.read_text()
    found = harness(suite, "regress", *words)

    assert sentence in found.stderr
    assert "Traceback" not in found.stderr
    assert found.returncode == 2
    assert path.read_text() == before
