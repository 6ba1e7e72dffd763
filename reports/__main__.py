"""``python -m reports``: draw ``reports/index.html`` again from ``reports/runs``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.model import read_runs
from reports.page import write_report
from reports.session import read_session


def main() -> int:
    """Read the records, write the page, print its path; 2 when that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("reports/runs"))
    parser.add_argument("--output", type=Path, default=Path("reports/index.html"))
    arguments = parser.parse_args()
    runs: Path = arguments.runs
    records = read_runs(runs / "records.jsonl")
    if not records.runs:
        print(f"seawall: no records in {runs}; run 'make demo' first", file=sys.stderr)
        return 2
    session = read_session(runs / "session.jsonl")
    try:
        write_report(records, runs, arguments.output, session)
    except OSError as error:
        print(f"seawall: cannot write {arguments.output}: {error.strerror}", file=sys.stderr)
        return 2
    print(arguments.output.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
