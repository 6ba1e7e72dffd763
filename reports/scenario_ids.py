"""What the id of a scenario's test tells: the node id of replay lines, and the settings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_SETTINGS = re.compile(r"\b(sim|real)-(walgen|postgres)(?:-seed(\d+)(?:\.[\w.]+)?)?\b")


@dataclass(frozen=True, slots=True)
class ScenarioId:
    """One run of a scenario; ``nodeid`` has neither world nor compute nor seed."""

    nodeid: str
    world: str
    compute: str
    seed: int


def scenario_id(test_id: str) -> ScenarioId | None:
    """The parts of ``test_x[sim-walgen-seed7-broker]``; ``None`` for a test that is no scenario.

    ``harness/pytest_plugin.py`` makes these ids; an id without seed means seed 0. Behind the seed
    of a regression follow its policy and plan, after dots.
    """
    head, bracket, tail = test_id.partition("[")
    found = _SETTINGS.search(tail)
    if not bracket or found is None or not tail.endswith("]"):
        return None
    others = (tail[: found.start()] + tail[found.end() : -1]).split("-")
    rest = "-".join(part for part in others if part)
    nodeid = f"{head}[{rest}]" if rest else head
    return ScenarioId(nodeid, found[1], found[2], int(found[3] or 0))


def rerun_line(test_id: str) -> str:
    """The command that runs a test again which is no scenario."""
    return shlex.join(["python", "-m", "pytest", test_id])
