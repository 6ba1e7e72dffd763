"""Toy worlds, scenarios and benchmarks in a directory, and commands that run there."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CONFTEST = """
import asyncio
import os
from harness.backend import Event
from harness.errors import CheckFailed, HarnessError, UnsupportedFault
from harness.runner import Evidence, Inconclusive, RunResult, verdict_of
from toy_told import TOLD

pytest_plugins = ("harness.pytest_plugin",)


class ToyRunner:
    computes = ("walgen",)

    def __init__(self, world):
        self.world = world

    def run(self, scenario, settings):
        error = None
        TOLD.clear()
        try:
            asyncio.run(scenario(settings))
        except Exception as raised:
            error = raised
        events = [Event(0.5, "toy", "told", {"what": each}) for each in ("same", *TOLD)]
        evidence = Evidence(events=events, marks={"wal_cut": 1})
        digest = f"digest{settings.seed}" + "".join(TOLD)
        return RunResult(
            settings, verdict_of(error), error, digest, 5, 1, 2.0, 0.1, evidence
        )

    def close(self):
        print("closed", self.world)


def no_real_world():
    raise HarnessError("no PostgreSQL here; install one")


WORLDS = {"sim": lambda: ToyRunner("sim"), "real": lambda: ToyRunner("real")}
if os.environ.get("WITHOUT_REAL"):
    WORLDS["real"] = no_real_world



def broken_bench():
    raise CheckFailed("key 1 is gone", checker="ledger")


BENCHES = {"toy": lambda: {"speed": 3}, "broken": broken_bench}
"""

SCENARIOS = """
import asyncio
import os
from pathlib import Path

import pytest
from harness.errors import CheckFailed, NodeDied, NotLive, UnsupportedFault
from harness.runner import Inconclusive
from toy_told import TOLD

async def test_passes(world):
    assert world.world in ("sim", "real")


async def test_fails_at_seed_3(world):
    if world.seed == 3:
        raise CheckFailed("key 1 is gone", checker="ledger")


@pytest.mark.parametrize("way", ["short", "long", "l-ong", "-1", "1", "sim-walgen"])
async def test_with_parameters(world, way):
    assert way != "l-ong"


async def test_fails_with_a_plan(world):
    assert not world.plan


async def test_kinds(world):
    reasons = {
        2: CheckFailed("key 1 is gone", checker="ledger"),
        3: NotLive("stuck", checker="eventually"),
        4: NodeDied("sk0 ended"),
        5: ConnectionResetError("it is gone"),
        6: Inconclusive("nothing happened"),
    }
    if world.seed in reasons:
        raise reasons[world.seed]


async def test_exits_at_seed_3(world):
    if world.seed == 3:
        os._exit(7)


async def test_asks_the_process(world):
    TOLD.append(str(os.getpid()))


async def test_fails_its_own_way(world):
    TOLD.append(str(os.getpid()))
    raise CheckFailed("key 1 is gone", checker="ledger")


async def test_changes_the_code(world):
    Path("more.py").write_text("X = 1")
    TOLD.append(str(os.getpid()))


async def test_asks_the_hash_seed(world):
    TOLD.append(str(hash("sk0")))


async def test_remembers(world):
    if not Path("ran").exists():
        Path("ran").touch()
        TOLD.append("first of all")


async def test_skips(world):
    raise UnsupportedFault("this world cannot lose data")


async def test_proves_nothing(world):
    raise Inconclusive("nothing committed")


@pytest.mark.worlds("sim", reason="needs virtual time")
async def test_only_in_sim(world):
    assert world.world == "sim"


async def test_hangs_at_seed_3(world):
    if world.seed == 3 and not Path("began").exists():
        Path("began").touch()
        await asyncio.get_running_loop().create_future()


def test_compares_worlds(run_in):
    async def scenario(world):
        if world.seed == 3:
            raise CheckFailed("they differ", checker="parity")

    run_in("sim", scenario)
    run_in("real", scenario)
"""


@pytest.fixture
def suite(tmp_path):
    """A directory with toy worlds and scenarios."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "toy_told.py").write_text("TOLD = []\n")
    (tmp_path / "test_toy.py").write_text(SCENARIOS)
    return tmp_path


def run(suite, *words, module="pytest", **environment):
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=suite,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def harness(suite, *words, **environment):
    return run(suite, *words, module="harness", **environment)
