"""``python -m harness regress``: run every seed that once failed, or add one to the list."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from harness.faulting.minimise import noted_plan, write_plan
from harness.regressions import (
    REGRESSIONS,
    Regression,
    append_regression,
    read_regressions,
    refuse_again,
)
from harness.single import run_once
from harness.temporary import scratch_directory
from harness.verdict import RunRecord, Verdict, exit_code
from harness.workers import results

PLANS = "plans"
"""Where plans are kept, beside the list."""


def run_all(jobs: int) -> int:
    """Run every entry in sim; prints what is not green and one closing line; the exit code."""
    known = read_regressions(REGRESSIONS)
    counts = dict.fromkeys(Verdict, 0)
    for regression, record in results(_run, known, jobs=jobs):
        counts[record.verdict] += 1
        if record.verdict is not Verdict.PASSED:
            print(f"replay: {record.replay}\n  once: {regression.cause}\n  {record.message}")
    print(" ".join([f"regressions={len(known)}", *(f"{v}={counts[v]}" for v in Verdict)]))
    return exit_code(counts)


def _run(regression: Regression) -> tuple[Regression, RunRecord]:
    record = run_once(regression.scenario, regression.settings(REGRESSIONS.parent))
    return regression, record


def add(regression: Regression, evidence: str = "") -> str:
    """Add a seed to the list, with the plan of its run; returns a sentence for people.

    ``evidence``: directory of the artifacts of the run that failed; without one the seed is run
    now to see what plan it draws.
    """
    with scratch_directory("seawall-regress-") as directory:
        settings = regression.settings(REGRESSIONS.parent)
        record = run_once(regression.scenario, settings, artifacts=str(directory))
        plan = noted_plan(Path(evidence) if evidence else directory / record.artifacts)
    known = read_regressions(REGRESSIONS)
    if plan is not None:
        regression = dataclasses.replace(regression, plan=f"{PLANS}/{_slug(regression)}.json")
        refuse_again(regression, known)
        write_plan(plan, REGRESSIONS.parent / regression.plan)
    append_regression(REGRESSIONS, regression)
    return f"added {regression.scenario} seed {regression.seed}, which ends so now: {record.line()}"


def _slug(regression: Regression) -> str:
    """A short name for a plan's file: what the scenario is called, and the seed."""
    words = re.findall(r"[A-Za-z0-9]+", regression.scenario.partition("::test_")[2])
    words += [str(regression.seed)]
    words += [regression.policy] if regression.policy != "random" else []
    return "_".join(words)
