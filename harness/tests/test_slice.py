"""A slice of the nightly sweep, in every run of the tests: swarm campaigns over fresh seeds.

The seeds that once failed are not here: every plain session has each of them as a test.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from harness.tests.test_documents import ROOT

SEEDS = 30
FIRST = 1000
MARKS_MIN, FAULTS_MIN = 12, 20
"""Fewer would mean that marks or faults are switched off; see the summary of any large sweep."""


def test_a_slice_of_the_swarm_is_green_and_reaches_rare_states(tmp_path: Path) -> None:
    records = tmp_path / "swarm.jsonl"
    words = ["sweep", "scenarios/test_campaign.py::test_campaign[swarm]", "--jobs", "1"]
    words += ["--seeds", f"{FIRST}:{FIRST + SEEDS}", "--records", str(records)]
    found = subprocess.run(
        [sys.executable, "-m", "harness", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )

    last = found.stdout.splitlines()[-1] if found.stdout else ""
    counts = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)(?= )", last)}
    assert counts.get("seeds") == SEEDS, found.stderr
    assert counts["failed"] == counts["error"] == 0, found.stderr
    assert counts["inconclusive"] <= SEEDS // 10, found.stderr
    summary = json.loads(records.with_suffix(".summary.json").read_text())
    assert summary["made_again"] >= 1
    assert len(summary["marks"]["reached"]) >= MARKS_MIN, summary["marks"]
    assert len(summary["faults"]["reached"]) >= FAULTS_MIN, summary["faults"]
    assert len(records.read_text().splitlines()) == SEEDS
