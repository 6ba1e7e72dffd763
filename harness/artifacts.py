"""What a run leaves on disk for the report: log, events, effects of faults, counts of oracles.

Files ``log.txt``, ``events.jsonl``, ``effects.json`` and ``judged.json``; the report (package
``reports``) draws its pictures from these alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from harness.runner import RunResult

CONTINUATION = " " * 14 + "| "
"""Begins every further line of a log record, so that no traceback can pass for a record."""


def run_directory(nodeid: str, result: RunResult) -> str:
    """Name of a run's directory: readable, unique for (node id, settings)."""
    settings = result.settings
    test = re.sub(r"[^A-Za-z0-9_]+", "-", nodeid.removeprefix("scenarios/")).strip("-")
    return f"{test}--{settings.world}-{settings.compute}-{settings.policy}-{settings.seed}"


def write_artifacts(directory: Path, nodeid: str, result: RunResult) -> str:
    """Write the evidence of a run; returns the directory's name below ``directory``."""
    name = run_directory(nodeid, result)
    target = directory / name
    target.mkdir(parents=True, exist_ok=True)
    with (target / "log.txt").open("w", encoding="utf-8") as log:
        for line in result.evidence.logs:
            text = line.text.replace("\n", "\n" + CONTINUATION)
            log.write(f"{line.at_s:12.6f}  {line.node:<10} {line.level:<8} {text}\n")
    with (target / "events.jsonl").open("w", encoding="utf-8") as events:
        for event in result.evidence.events:
            row = {"at_s": event.at_s, "node": event.node, "kind": event.kind}
            events.write(json.dumps({**row, "fields": dict(event.fields)}) + "\n")
    for name_of_file in ("effects", "judged"):
        counts = dict(getattr(result.evidence, name_of_file))
        (target / f"{name_of_file}.json").write_text(
            json.dumps(counts, sort_keys=True), encoding="utf-8"
        )
    return name
