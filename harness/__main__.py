"""``python -m harness``: run one scenario, sweep seeds, hunt known bugs, run a benchmark.

Exit codes: 0 passed, 1 failed, 2 error or bad usage, 3 inconclusive.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from harness.bug_catch import bug_of
from harness.bug_command import add_bugs
from harness.composition import benches
from harness.errors import CheckFailed, HarnessError
from harness.faulting.minimise import minimise_run
from harness.regress import add, run_all
from harness.regressions import Regression
from harness.rows import add_rows
from harness.single import run_once
from harness.sweep import SweepOptions, sweep
from harness.verdict import (
    EXIT_CODES,
    INTERRUPTED,
    NO_POSTGRES_IN_SIM,
    POLICIES,
    RunSettings,
    Verdict,
    check_file,
    check_writable,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run it; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except CheckFailed as error:  # Of a benchmark, whose runs must pass.
        print(f"seawall: {error.checker}: {error}", file=sys.stderr)
        return EXIT_CODES[Verdict.FAILED]
    except HarnessError as error:
        print(f"seawall: {error}", file=sys.stderr)
        return EXIT_CODES[Verdict.ERROR]
    except KeyboardInterrupt:
        print("seawall: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run one scenario once")
    run.add_argument("nodeid", help="scenarios/file.py::test, as replay lines name it")
    run.add_argument("--world", choices=("sim", "real"), default="sim")
    run.add_argument("--compute", choices=("walgen", "postgres"), default="walgen")
    run.add_argument("--seed", type=_seed, default=0)
    run.add_argument("--policy", choices=POLICIES, default="random")
    run.add_argument("--artifacts", default="", help="directory for logs and events of the run")
    run.add_argument("--plan", default="", help="carry this file's plan of faults out")
    run.add_argument("--bug", default="", help="put a bug of the bank back first")
    run.set_defaults(command=_run)
    many = commands.add_parser("sweep", help="run one scenario in sim for a range of seeds")
    many.add_argument("nodeids", nargs="+", help="scenarios/file.py::test, as replay lines do")
    many.add_argument(
        "--seeds", type=_seed_range, required=True, metavar="A:B", help="A ≤ seed < B"
    )
    many.add_argument("--jobs", type=_count, default=0, help="processes (default: one a core)")
    many.add_argument("--policy", choices=POLICIES, default="random")
    many.add_argument(
        "--records", default="", help="append a JSON line for each run (default: .seawall/sweeps)"
    )
    many.add_argument("--resume", action="store_true", help="leave out what the records have")
    many.set_defaults(command=_sweep)
    smaller = commands.add_parser("minimise", help="leave out what a failing plan does not need")
    smaller.add_argument("nodeid", help="a campaign, as replay lines name it")
    smaller.add_argument("--seed", type=_seed, default=0)
    smaller.add_argument("--policy", choices=POLICIES, default="random")
    smaller.add_argument("--output", default="plan.json", help="where the smaller plan goes")
    smaller.set_defaults(command=_minimise)
    _add_regress(commands.add_parser("regress", help="run the seeds that once failed"))
    add_bugs(commands.add_parser("bugs", help="hunt the bugs of the bank in sim"))
    add_rows(commands.add_parser("rows", help="which test claims which row of the system"))
    bench = commands.add_parser("bench", help="run a benchmark; ends with one JSON line")
    bench.add_argument("name", help="one of BENCHES in conftest.py; a wrong name lists them")
    bench.set_defaults(command=_bench)
    return parser


def _add_regress(regress: argparse.ArgumentParser) -> None:
    regress.add_argument("--jobs", type=_count, default=0, help="processes (default: one a core)")
    regress.add_argument(
        "--add", default="", metavar="NODEID", help="put a seed on the list instead of running it"
    )
    regress.add_argument("--seed", type=_seed, default=0)
    regress.add_argument("--policy", choices=POLICIES, default="random")
    regress.add_argument("--date", default=date.today().isoformat(), help="default: today")
    regress.add_argument("--cause", default="", help="what was wrong, in a sentence")
    regress.add_argument("--fix", default="", help="subject of the commit that ended it")
    regress.add_argument("--evidence", default="", help="artifacts of the run, for its plan")
    regress.set_defaults(command=_regress)


def _seed_range(text: str) -> range:
    first, colon, last = text.partition(":")
    if not colon or not first.isdigit() or not last.isdigit() or int(first) >= int(last):
        raise argparse.ArgumentTypeError(f"{text!r}: write A:B with A < B, such as 0:1000")
    return range(int(first), int(last))


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 0 on is needed")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on is needed")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    if (arguments.world, arguments.compute) == ("sim", "postgres"):
        raise HarnessError(NO_POSTGRES_IN_SIM)
    settings = RunSettings(
        arguments.world, arguments.compute, arguments.seed, arguments.policy, arguments.plan
    )
    if arguments.artifacts:
        check_writable(Path(arguments.artifacts), "--artifacts")
    if arguments.bug:
        with bug_of(arguments.bug):  # One sentence now, if there is no such bug.
            pass
    record = run_once(arguments.nodeid, settings, artifacts=arguments.artifacts, bug=arguments.bug)
    if record.message:
        print(record.message)
    if record.failure:
        print(record.failure.group)
    if record.marks:
        print("rare states: " + ", ".join(f"{name} ×{n}" for name, n in record.marks.items()))
    if record.figures:
        print("measured: " + ", ".join(f"{name}={n:g}" for name, n in record.figures.items()))
    if record.artifacts:
        print(f"artifacts: {Path(arguments.artifacts, record.artifacts)}")
    print(record.line())
    return EXIT_CODES[record.verdict]


def _minimise(arguments: argparse.Namespace) -> int:
    check_file(Path(arguments.output), "--output")
    settings = RunSettings("sim", "walgen", arguments.seed, arguments.policy)
    print(minimise_run(arguments.nodeid, settings, Path(arguments.output)))
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    options = SweepOptions(
        tuple(dict.fromkeys(arguments.nodeids)),
        arguments.seeds,
        arguments.jobs,
        arguments.policy,
        arguments.records,
        arguments.resume,
    )
    return sweep(options)


def _regress(arguments: argparse.Namespace) -> int:
    if not arguments.add:
        return run_all(arguments.jobs)
    fields = {name: getattr(arguments, name) for name in ("seed", "date", "cause", "fix", "policy")}
    regression = Regression.of_json({"scenario": arguments.add, **fields})
    print(add(regression, arguments.evidence))
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    known = benches()
    if arguments.name not in known:
        raise HarnessError(
            f"no benchmark {arguments.name!r}; there are: {', '.join(sorted(known))}"
        )
    print(json.dumps(known[arguments.name](), sort_keys=True))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
