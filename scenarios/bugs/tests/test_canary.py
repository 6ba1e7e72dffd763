"""A known bug must be caught: a suite that has gone blind does not stay green."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def hunt(bug_id, *arguments):
    """One hunt, as anybody would start it."""
    command = ["bugs", "--id", bug_id, "--roots", "1", "--jobs", "1", *arguments]
    return subprocess.run(
        [sys.executable, "-m", "harness", *command],
        cwd=ROOT, env={**os.environ, "COLUMNS": "200"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "bug_id",
    [
        pytest.param("wp-quorum-over-wrong-member-list", id="safety"),
        pytest.param("sk-recovery-stream-limited-to-commit", id="liveness"),
    ],
)
def test_known_bug_is_caught(bug_id):
    done = hunt(bug_id, "--seeds", "60")

    assert done.returncode == 0, done.stdout + done.stderr
    *_, control, closing = done.stdout.splitlines()
    assert closing.startswith("caught=1/1 "), done.stdout
    assert " red=0 " in control, done.stdout


def test_blind_suite_is_red():
    """A scenario without a single election cannot see this bug: nobody may call that caught."""
    done = hunt("sk-recovery-stream-limited-to-commit", "--seeds", "2",
                "--scenario", "scenarios/test_smoke.py::test_what_is_put_is_read")  # fmt: skip

    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("caught=0/1 "), done.stdout
