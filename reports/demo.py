"""``make demo``: the scenario matrix in both worlds, then the report.

Several seeds of each scenario in sim, one run in real on each compute. Ends with the page's path.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from harness.verdict import RunRecord, Verdict, read_records
from reports.page import write_report

POLL_S = 0.2
SCENARIO = re.compile(r"\[.*\b(sim|real)-(walgen|postgres)\b.*\]")


def main() -> int:
    """Run the matrix and write the page; returns 0 only if every run passed."""
    parser = argparse.ArgumentParser(prog="python -m reports.demo", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--runs", type=int, default=5, help="seeds of each scenario in sim")
    parser.add_argument("--output", type=Path, default=Path("reports"))
    arguments = parser.parse_args()
    output: Path = arguments.output
    runs = output / "runs"
    for stale in (runs, output / "allure-results"):
        shutil.rmtree(stale, ignore_errors=True)
    runs.mkdir(parents=True)
    command = [sys.executable, "-m", "pytest", "scenarios", "--runs", str(arguments.runs)]
    total = _count(command)
    command += ["-n", str(arguments.jobs), "--records", str(runs / "records.jsonl")]
    command += ["--artifacts", str(runs), "--alluredir", str(output / "allure-results")]
    code = _run_with_progress(command, runs, total)
    records = read_records(runs / "records.jsonl")
    write_report(records, runs, output / "index.html")
    _summary(records, code, runs / "pytest.log")
    print((output / "index.html").resolve())
    return code


def _count(command: list[str]) -> int:
    """How many scenario runs pytest would make."""
    listing = [*command, "--collect-only", "-q", "--no-header"]
    found = subprocess.run(listing, capture_output=True, text=True, check=False)
    return sum(bool(SCENARIO.search(line)) for line in found.stdout.splitlines())


def _run_with_progress(command: list[str], runs: Path, total: int) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with (
        (runs / "pytest.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
    ):
        task = progress.add_task("scenario runs", total=total)
        try:
            while process.poll() is None:
                progress.update(task, completed=_lines(runs / "records.jsonl"))
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            process.wait()
            raise
        progress.update(task, completed=_lines(runs / "records.jsonl"))
    return process.returncode


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _summary(records: list[RunRecord], code: int, log: Path) -> None:
    counts = " ".join(f"{v}={sum(r.verdict is v for r in records)}" for v in Verdict)
    print(f"runs={len(records)} {counts}")
    for record in records:
        if record.verdict is not Verdict.PASSED:
            print(f"replay: {record.replay}\n  {record.message}")
    if code:
        print(f"pytest ended with code {code}; its output: {log}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
