"""Smaller plans that still fail the same way: what is left is what matters.

Steps are left out in ever smaller groups (Zeller and Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input", TSE 2002), then what surrounds them is simplified.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.durable_text import replace_text
from harness.errors import HarnessError
from harness.faulting.plan import Plan
from harness.single import run_once
from harness.temporary import scratch_directory
from harness.verdict import RunRecord, RunSettings, Verdict

Fails = Callable[[Plan], bool]
"""Whether a plan still fails in the way that matters."""


def minimise(plan: Plan, fails: Fails) -> Plan:
    """The smallest plan found that ``fails``; ``HarnessError`` if the plan itself does not."""
    if not fails(plan):
        raise HarnessError("the plan does not fail, so there is nothing to make smaller")
    size = max(1, len(plan.steps) // 2)
    while True:
        smaller = _without_groups(plan, size, fails)
        if size == 1 and len(smaller.steps) == len(plan.steps):
            return _simpler(smaller, fails)
        plan, size = smaller, max(1, min(size // 2, len(smaller.steps) // 2))


def _without_groups(plan: Plan, size: int, fails: Fails) -> Plan:
    """Leave out groups of ``size`` neighbouring steps, as long as the rest fails."""
    first = 0
    while first < len(plan.steps):
        candidate = plan.without(*range(first, min(first + size, len(plan.steps))))
        if candidate.steps and fails(candidate):
            plan = candidate
        else:
            first += size
    return plan


def _simpler(plan: Plan, fails: Fails) -> Plan:
    for simplify in _SIMPLIFICATIONS:
        candidate = simplify(plan)
        if candidate != plan and fails(candidate):
            plan = candidate
    return plan


def _with_usual_options(plan: Plan) -> Plan:
    topology = dataclasses.replace(
        plan.topology,
        safekeeper_options={},
        pageserver_options={},
        compute_options={},
        proposer_options={},
    )
    return dataclasses.replace(plan, topology=topology)


_SIMPLIFICATIONS: tuple[Callable[[Plan], Plan], ...] = (
    lambda plan: dataclasses.replace(plan, kill_rest=False),
    lambda plan: dataclasses.replace(plan, clients=1),
    _with_usual_options,
)


def signature(record: RunRecord) -> str:
    """What a failure is about: its first line without numbers and hexadecimal names."""
    first = record.message.splitlines()[0] if record.message else ""
    return re.sub(r"[0-9A-Fa-f]{8,}|[0-9]+", "N", first)


def minimise_run(nodeid: str, settings: RunSettings, output: Path) -> str:
    """Make the plan of one failing run smaller and write it; returns a report for people."""
    with scratch_directory("seawall-minimise-") as directory:
        first = run_once(nodeid, settings, artifacts=str(directory))
        if first.verdict is not Verdict.FAILED:
            raise HarnessError(f"the run ends as {first.verdict}, so no plan fails")
        path = directory / "plan.json"
        tried = 0

        def fails(plan: Plan) -> bool:
            nonlocal tried
            tried += 1
            write_plan(plan, path)
            record = run_once(nodeid, dataclasses.replace(settings, plan=str(path)))
            same = signature(record) == signature(first)
            return record.verdict is Verdict.FAILED and same

        noted = noted_plan(directory / first.artifacts)
        if noted is None:
            raise HarnessError("the run carried no plan out; only campaigns do")
        plan = minimise(noted, fails)
    write_plan(plan, output)
    replay = dataclasses.replace(settings, plan=str(output)).replay(nodeid)
    return f"{plan}\n{tried} plans tried\n{first.message.splitlines()[0]}\nreplay: {replay}"


def write_plan(plan: Plan, path: Path) -> None:
    """Save a plan for ``--plan``."""
    replace_text(path, json.dumps(plan.to_json(), indent=1) + "\n")


def noted_plan(artifacts: Path) -> Plan | None:
    """The plan that a run noted among its events, if it carried one out."""
    for event in _events(artifacts / "events.jsonl"):
        if event["kind"] == "plan":
            return Plan.of_json(json.loads(event["fields"]["json"]))
    return None


def _events(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
