"""``python -m harness bugs``: hunt the bank's bugs and show what caught each of them.

A whole hunt also writes the page of bugs and oracles, ``reports/bugs.html``, and its data beside.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from harness.bug import OWN_FAMILY, Bug, Standing
from harness.bug_hunt import Control, Hunt, Quarry, control, hunt_all
from harness.bug_table import Result, closing_line, table, to_json
from harness.composition import bank, bug_page, hunting_grounds
from harness.errors import HarnessError
from harness.verdict import check_file

PAGE = Path("reports/bugs.html")
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())


@dataclass(frozen=True)
class BugsOptions:
    """What to hunt: the historical bugs, our ``own``, or one (``bug_id``), from ``roots`` root
    seeds each. ``page`` empty: no page. ``minutes`` bounds each hunt. ``resume``:
    hunts that the page tells caught their bug are not made again."""

    bug_id: str = ""
    own: bool = False
    roots: int = 5
    runs_max: int = 2000
    jobs: int = 0
    page: str = ""
    scenarios: tuple[str, ...] = ()
    minutes: float = math.inf
    resume: bool = False


def add_bugs(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and what it does."""
    parser.add_argument("--id", default="", help="one bug instead of all")
    parser.add_argument("--own", action="store_true", help="bugs of our own making instead")
    parser.add_argument("--roots", type=_count, default=5, help="root seeds for each (default 5)")
    parser.add_argument(
        "--seeds", type=_count, default=2000, help="runs at most for each root (default 2000)"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no run after so long in one hunt"
    )
    parser.add_argument("--jobs", type=_count, default=0, help="processes (default: one a core)")
    parser.add_argument("--page", default="", help=f"where the page goes (whole bank: {PAGE})")
    parser.add_argument(
        "--resume", action="store_true", help="keep the catches that the page already tells of"
    )
    parser.add_argument(
        "--scenario", action="append", default=[], help="hunt with this node id (may be repeated)"
    )
    parser.set_defaults(command=_bugs)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on is needed")
    return int(text)


def _bugs(arguments: argparse.Namespace) -> int:
    whole = not (arguments.id or arguments.own or arguments.scenario)
    page = arguments.page or (str(PAGE) if whole else "")
    if page:
        check_file(Path(page), "--page")
    options = BugsOptions(
        arguments.id,
        arguments.own,
        arguments.roots,
        arguments.seeds,
        arguments.jobs,
        page,
        tuple(arguments.scenario),
        arguments.minutes,
        arguments.resume,
    )
    return hunt_bugs(options)


def hunt_bugs(options: BugsOptions) -> int:
    """Hunt, print the table and the closing line; 0 only if every expressible bug was caught, and
    the code without any bug passed the same seeds."""
    chosen = _chosen(options)
    scenarios = options.scenarios or tuple(hunting_grounds())
    hunts = _caught_before(Path(options.page)) if options.resume and options.page else []
    over = {(hunt.bug_id, hunt.root) for hunt in hunts}
    quarries = [
        Quarry(bug.id, root, scenarios, options.runs_max, 60 * options.minutes)
        for root in range(options.roots)
        for bug in chosen
        if bug.standing is Standing.EXPRESSED and (bug.id, root) not in over
    ]

    def note(hunt: Hunt) -> None:
        """Whatever ends us, the page tells what was found until then."""
        hunts.append(hunt)
        if options.page:
            _write(Path(options.page), _results(chosen, hunts), None)

    if quarries:
        _hunt(quarries, options.jobs, note)
    found = _control(hunts, scenarios, options.jobs) if hunts else None
    results = _results(chosen, hunts)
    Console().print(table(results))
    for result in results:
        for hunt in result.hunts[:1]:
            if hunt.caught:
                print(f"{result.bug.id}: {hunt.replay}")
    if options.page:
        _write(Path(options.page), results, found)
        print(Path(options.page).resolve())
    if found is not None:
        _tell(found)
    print(closing_line(results))
    return int(not all(result.is_settled for result in results) or bool(found and found.red))


def _chosen(options: BugsOptions) -> list[Bug]:
    known = bank()
    if options.bug_id:
        chosen = [bug for bug in known if bug.id == options.bug_id]
    else:
        chosen = [bug for bug in known if (bug.family == OWN_FAMILY) == options.own]
    if not chosen:
        ids = ", ".join(bug.id for bug in known)
        raise HarnessError(f"no bug {options.bug_id!r} in the bank; there are: {ids}")
    return chosen


def _hunt(quarries: list[Quarry], jobs: int, note: Callable[[Hunt], object]) -> None:
    with _progress() as progress:
        task = progress.add_task("hunting", total=len(quarries))

        def seen(hunt: Hunt) -> None:
            how = "NOT CAUGHT" if hunt.catch is None else f"{hunt.catch.oracle} {hunt.catch.error}"
            progress.console.print(
                f"{hunt.bug_id} root {hunt.root}: {how} after {hunt.runs} runs, {hunt.wall_s:.1f} s"
            )
            for replay in hunt.red_without_the_bug:
                progress.console.print(f"red without any bug: {replay}")
            for replay in hunt.spoilt:
                progress.console.print(f"ended in an error of our own: {replay}")
            progress.advance(task)
            note(hunt)

        hunt_all(quarries, jobs=jobs, seen=seen)


def _control(hunts: list[Hunt], scenarios: tuple[str, ...], jobs: int) -> Control:
    with _progress() as progress:
        task = progress.add_task("the same seeds without any bug", total=None)
        return control(
            hunts, scenarios, jobs=jobs, seen=lambda done: progress.update(task, completed=done)
        )


def _progress() -> Progress:
    return Progress(*COLUMNS, TimeElapsedColumn(), console=Console(stderr=True))


def _tell(found: Control) -> None:
    for record in found.red:
        print(f"red without any bug: {record.replay}\n  {record.message}")
    print(f"without any bug: runs={found.runs} red={len(found.red)} wall_s={found.wall_s:.0f}")


def _write(page: Path, results: list[Result], found: Control | None) -> None:
    """The data, then the page that is drawn from it."""
    data = to_json(results, found)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.with_suffix(".json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    bug_page()(data, page)


def _caught_before(page: Path) -> list[Hunt]:
    """The catches that a page's data tells of; none if there is no such page yet."""
    data = page.with_suffix(".json")
    if not data.exists():
        return []
    bugs = json.loads(data.read_text(encoding="utf-8"))["bugs"]
    hunts = [Hunt.of_json(hunt) for bug in bugs for hunt in bug["hunts"]]
    return [hunt for hunt in hunts if hunt.caught]


def _results(bugs: list[Bug], hunts: list[Hunt]) -> list[Result]:
    return [Result(bug, [hunt for hunt in hunts if hunt.bug_id == bug.id]) for bug in bugs]
