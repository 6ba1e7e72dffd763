"""Commands that are interrupted, asked to end, or killed: they say so and leave nothing."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from harness.tests.toy_suite import ROOT, harness, suite

__all__ = ["suite"]


@pytest.fixture
def hanging(suite):
    """Starts a command that comes to hang in a session of its own; gives what waits for that."""
    (suite / "temporary").mkdir()
    command = [sys.executable, "-m", "harness"]
    with contextlib.ExitStack() as stack:

        def start(*words):
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, *words, "test_toy.py::test_hangs_at_seed_3"],
                    cwd=suite,
                    env={"PYTHONPATH": str(ROOT), "PATH": "/bin", "TMPDIR": f"{suite}/temporary"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
            stack.callback(process.kill)
            eventually(lambda: (suite / "began").exists() or process.poll() is not None)
            assert process.poll() is None
            return process

        yield start


def eventually(check):
    deadline_s = time.monotonic() + 30.0
    while not check():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_children_of_this_suite_hear_ctrl_c():
    """A suite started with ``&`` is deaf to it, and what is ignored stays so in every child."""
    check = "import signal; raise SystemExit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    assert subprocess.run([sys.executable, "-c", check], timeout=30.0, check=False).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["run", "--seed", "3"], ""),
        (["sweep", "--seeds", "3:4", "--jobs", "2"], "seeds=0 passed=0 failed=0"),
    ],
    ids=["run", "sweep"],
)
def test_an_interrupted_command_says_so_and_leaves_nothing(suite, hanging, words, last, number):
    process = hanging(*words)
    # A terminal's Ctrl-C goes to all of them; others name one.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=30.0)

    assert process.returncode == 130
    assert "seawall: interrupted" in err
    assert "Traceback" not in err
    assert out.startswith(last)
    assert list((suite / "temporary").iterdir()) == []
    # The tracker of semaphores ends a moment after its owner.
    eventually(lambda: not _group_lives(process.pid))


def test_an_interrupted_sweep_counts_what_had_ended_and_is_resumed(suite, hanging):
    process = hanging("sweep", "--seeds", "0:6", "--jobs", "1")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30.0)

    assert process.returncode == 130
    assert out.startswith("seeds=3 passed=3 failed=0 inconclusive=0 error=0 seeds_per_s=")
    assert "--resume goes on" in err
    (kept,) = (suite / ".seawall" / "sweeps").glob("*.jsonl")
    assert len(kept.read_text().splitlines()) == 3
    summary = json.loads(kept.with_suffix(".summary.json").read_text())
    assert summary["interrupted"] is True
    assert summary["verdicts"]["passed"] == 3

    words = ("sweep", "--seeds", "0:6", "--jobs", "1", "test_toy.py::test_hangs_at_seed_3")
    resumed = harness(suite, *words, "--resume")
    assert resumed.stdout.startswith("seeds=6 passed=6 failed=0")
    assert len(kept.read_text().splitlines()) == 6


def test_a_killed_sweep_takes_its_processes_along(suite, hanging):
    process = hanging("sweep", "--seeds", "3:5", "--jobs", "2")
    process.kill()
    process.wait()

    eventually(lambda: not _group_lives(process.pid))
    assert list((suite / "temporary").iterdir()) == []


def _group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
