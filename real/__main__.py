"""``python -m real``: run a whole cluster on this machine, or check rebuilt data directories.

Exit codes: 0 stopped as asked or passed, 1 a node had died or a check failed, 2 could not be
started or wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from real.postgres.binaries import SUPPORTED
from real.rebuild.figures import RebuildOptions
from real.up import UpOptions, up

S3_OPTIONS = ("endpoint", "bucket", "access_key", "region")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run it; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except HarnessError as error:
        print(f"seawall: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seawall: interrupted", file=sys.stderr)
        return 130


def _up(arguments: argparse.Namespace) -> int:
    for name in S3_OPTIONS:
        value = getattr(arguments, f"s3_{name}")
        if value:
            os.environ[f"SEAWALL_S3_{name.upper()}"] = value
    options = UpOptions(
        data=Path(arguments.data) if arguments.data else None,
        compute=arguments.compute,
        safekeepers=arguments.safekeepers,
        pageservers=arguments.pageservers,
        discovery=arguments.discovery,
        first_port=arguments.first_port,
    )
    return up(options, _say)


def _rebuild(arguments: argparse.Namespace) -> int:
    from real.rebuild.run import rebuild  # Only this command needs it all.

    options = RebuildOptions(arguments.major, arguments.seed, arguments.lsns, arguments.rounds)
    return rebuild(options, _say)


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m real", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up_ = commands.add_parser("up", help="run a whole cluster on this machine until Ctrl-C")
    up_.add_argument("--data", default="", help="keep everything here, and start from it again")
    up_.add_argument("--compute", choices=("postgres", "walgen"), help="default: postgres")
    up_.add_argument("--safekeepers", type=int, choices=(1, 3, 5), help="default: 3")
    up_.add_argument("--pageservers", type=_count, help="default: 1")
    up_.add_argument("--discovery", choices=("broker", "callmemaybe"), help="default: broker")
    up_.add_argument(
        "--first-port", type=_port, default=0, help="loopback ports count up from it (default: any)"
    )
    for name in S3_OPTIONS:
        option = f"--s3-{name.replace('_', '-')}"
        up_.add_argument(option, default="", help=f"as SEAWALL_S3_{name.upper()}")
    up_.set_defaults(command=_up)
    check = commands.add_parser(
        "rebuild", help="compare data directories rebuilt at random commits with stock recovery"
    )
    check.add_argument("--major", type=int, choices=SUPPORTED, default=SUPPORTED[0])
    check.add_argument("--seed", type=int, default=0, help="odd: pages carry checksums")
    check.add_argument("--lsns", type=_count, default=20, help="how many (default: 20)")
    check.add_argument("--rounds", type=_count, default=1, help="rounds of the workload")
    check.set_defaults(command=_rebuild)
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on is needed")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or not int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r}: a port is a number below 65536")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
