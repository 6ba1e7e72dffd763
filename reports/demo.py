"""``make demo``: the scenario matrix in both worlds, then the report.

Several seeds of each scenario in sim, one run in real on each compute. Ends with the page's path.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from harness.verdict import Verdict
from reports.child import group_of
from reports.model import Records, failures_without_record, read_runs
from reports.page import write_report
from reports.scenario_ids import rerun_line
from reports.session import Session, read_session

POLL_S = 0.5
INTERRUPTED, CANNOT = 130, 2
PLUGINS = ("reports.session", "reports.allure_hooks")


@dataclass(frozen=True)
class Place:
    """Where a demo writes; everything below ``output``."""

    output: Path

    @property
    def runs(self) -> Path:
        """Records, evidence, session and pytest's own output."""
        return self.output / "runs"

    @property
    def allure(self) -> Path:
        """Allure's results."""
        return self.output / "allure-results"

    @property
    def page(self) -> Path:
        """The report."""
        return self.output / "index.html"

    @property
    def log(self) -> Path:
        """What pytest printed."""
        return self.runs / "pytest.log"


class CannotRun(Exception):
    """One sentence that tells why there is nothing to show."""


def main() -> int:
    """Run the matrix and write the page; returns 0 only if every test passed."""
    parser = argparse.ArgumentParser(prog="python -m reports.demo", description=__doc__)
    parser.add_argument("--jobs", type=_positive, default=2, help="workers (default 2)")
    parser.add_argument("--runs", type=_positive, default=3, help="seeds in sim (default 3)")
    parser.add_argument("--output", type=Path, default=Path("reports"))
    parser.add_argument("--scenarios", default="", help="file or folder (default: the matrix)")
    arguments = parser.parse_args()
    place = Place(arguments.output)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _alone(place.output):
            return _demo(place, arguments)
    except CannotRun as reason:
        print(f"seawall: {reason}", file=sys.stderr)
    except OSError as error:
        where = error.filename or place.output
        print(
            f"seawall: cannot write {where}: {error.strerror}; "
            "choose another directory with --output",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    return CANNOT


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too few; give 1 or more")
    return value


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """No other demo writes here meanwhile; the lock ends with the process."""
    output.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CannotRun(f"another demo writes to {output}; wait, or choose --output") from None
    finally:
        os.close(descriptor)


def _clear(place: Place) -> None:
    """Remove what an earlier demo left: a page must never show another run's results.

    The page, which needs nothing else, goes last: it stays when the rest cannot be removed.
    """
    for each in (place.output, place.runs, place.allure):
        if each.exists() and not os.access(each, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(each))
    for stale in (place.runs, place.allure):
        try:
            if stale.exists():
                shutil.rmtree(stale)
        except OSError as error:
            raise CannotRun(
                f"cannot remove {stale} of the last demo ({error.strerror}); remove it, or "
                "choose another directory with --output"
            ) from error
    place.page.unlink(missing_ok=True)
    place.runs.mkdir(parents=True)


def _demo(place: Place, arguments: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "pytest", *_chosen(arguments.scenarios)]
    command += ["--runs", str(arguments.runs)]
    for plugin in PLUGINS:
        command += ["-p", plugin]
    total = _count(command)
    _clear(place)
    command += ["-n", str(arguments.jobs), "--records", str(place.runs / "records.jsonl")]
    command += ["--artifacts", str(place.runs), "--alluredir", str(place.allure)]
    command += ["--session-file", str(place.runs / "session.jsonl")]
    code = _run_with_progress(command, place, total)
    records = read_runs(place.runs / "records.jsonl")
    session = read_session(place.runs / "session.jsonl") or Session()
    if not records.runs:
        return _nothing(place, code)
    write_report(records, place.runs, place.page, session)
    _summary(records, session, code, place.log)
    print(place.page.resolve())
    red = any(record.verdict is not Verdict.PASSED for record in records.runs)
    return code or int(red or bool(records.unreadable))


def _chosen(scenarios: str) -> Sequence[str]:
    """The matrix is every file of scenarios; its folders hold checks of ports, faults and bugs."""
    if scenarios:
        return [scenarios]
    return sorted(map(str, Path("scenarios").glob("test_*.py"))) or ["scenarios"]


def _nothing(place: Place, code: int) -> int:
    if code == INTERRUPTED:
        print("seawall: interrupted before a run ended; there is no report", file=sys.stderr)
        return code
    last = _last_lines(place.log.read_text(encoding="utf-8", errors="replace"))
    print(
        f"seawall: no scenario ran; pytest said (all of it: {place.log}):\n{last}", file=sys.stderr
    )
    return code or CANNOT


def _last_lines(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip())[-1500:]


def _count(command: list[str]) -> int:
    """How many tests pytest would run; ``CannotRun`` if it cannot collect them."""
    listing = [*command, "--collect-only", "-q", "--no-header"]
    found = subprocess.run(listing, capture_output=True, text=True, check=False)
    if found.returncode:
        said = _last_lines(found.stdout + found.stderr)
        raise CannotRun(f"the scenarios cannot be collected; pytest says:\n{said}")
    return sum("::" in line for line in found.stdout.splitlines())


def _run_with_progress(command: list[str], place: Place, total: int) -> int:
    """The exit code of pytest, or ``INTERRUPTED``; no process of it is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    try:
        with (
            Progress(*columns, TimeElapsedColumn(), console=console) as progress,
            group_of(command, place.log) as process,
        ):
            task = progress.add_task("tests", total=total)
            while process.poll() is None:
                _show(progress, task, place)
                time.sleep(POLL_S)
            _show(progress, task, place)
    except KeyboardInterrupt:
        return INTERRUPTED
    return process.returncode


def _show(progress: Progress, task: TaskID, place: Place) -> None:
    """How many tests ended, how many scenario runs are among them, how many are not green."""
    session = read_session(place.runs / "session.jsonl") or Session()
    runs = read_runs(place.runs / "records.jsonl").runs
    red = sum(record.verdict is not Verdict.PASSED for record in runs)
    failed = max(red, session.count("failed"))
    description = f"tests ({len(runs)} scenario runs, {failed} not green)"
    progress.update(task, completed=len(session.outcomes), description=description)


def _summary(records: Records, session: Session, code: int, log: Path) -> None:
    counts = " ".join(f"{v}={sum(r.verdict is v for r in records.runs)}" for v in Verdict)
    print(f"runs={len(records.runs)} {counts}")
    for record in records.runs:
        if record.verdict is not Verdict.PASSED:
            print(f"replay: {record.replay}\n  {record.message}")
    for one in failures_without_record(session, records.runs):
        print(f"replay: {rerun_line(one.test_id)}\n  {one.message}")
    if code == INTERRUPTED:
        print("seawall: interrupted; the report shows what had ended", file=sys.stderr)
    elif code:
        print(f"seawall: pytest ended with code {code}; its output: {log}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
