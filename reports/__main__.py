"""``python -m reports``: draw ``reports/index.html`` again from ``reports/runs``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.verdict import read_records
from reports.page import write_report


def main() -> int:
    """Read the records, write the page, print its path; 2 when there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("reports/runs"))
    parser.add_argument("--output", type=Path, default=Path("reports/index.html"))
    arguments = parser.parse_args()
    records = read_records(arguments.runs / "records.jsonl")
    if not records:
        print(f"seawall: no records in {arguments.runs}; run 'make demo' first", file=sys.stderr)
        return 2
    write_report(records, arguments.runs, arguments.output)
    print(arguments.output.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
