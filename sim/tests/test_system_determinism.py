"""The whole system under the simulation: same seed and code, same digest, in any process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.single import run_seeds
from harness.verdict import RunSettings, Verdict

ROOT = Path(__file__).resolve().parents[2]
SCENARIO = "scenarios/test_tenant_migration.py::test_tenant_migration_with_load[callmemaybe]"
POLICIES = ("fifo", "random", "pct")


def digest_in_fresh_process(policy: str, hash_seed: str) -> str:
    command = [sys.executable, "-m", "harness", "run", SCENARIO, "--seed", "5", "--policy", policy]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = done.stdout.splitlines()[-1]
    match = re.match(r"verdict=passed digest=([0-9a-f]{32}) ", last)
    assert match, done.stdout + done.stderr
    return match[1]


@pytest.mark.parametrize("policy", POLICIES)
def test_digest_is_the_same_in_fresh_and_used_processes(policy, monkeypatch):
    monkeypatch.chdir(ROOT)
    used = run_seeds(SCENARIO, RunSettings("sim", "walgen", 4, policy), runs=3)

    assert [record.verdict for record in used] == [Verdict.PASSED] * 3
    assert len({record.digest for record in used}) == 3
    assert digest_in_fresh_process(policy, "1") == used[1].digest
    assert digest_in_fresh_process(policy, "4242") == used[1].digest
