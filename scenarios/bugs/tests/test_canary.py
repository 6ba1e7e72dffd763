"""A known bug must be caught: a suite that has gone blind does not stay green."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "bug_id",
    [
        pytest.param("wp-quorum-over-wrong-member-list", id="safety"),
        pytest.param("sk-recovery-stream-limited-to-commit", id="liveness"),
    ],
)
def test_known_bug_is_caught(bug_id):
    done = subprocess.run(
        [sys.executable, "-m", "harness", "bugs", "--id", bug_id, "--roots", "1", "--seeds", "60",
         "--jobs", "1"],
        cwd=ROOT, env={**os.environ, "COLUMNS": "200"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("caught=1/1 "), done.stdout
