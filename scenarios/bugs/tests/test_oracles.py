"""Which oracle an error is the voice of, and what the others see in a run that broke off."""

import importlib
from pathlib import Path

import pytest

from conftest import sim_runner
from harness.bug_oracles import ORACLES, OTHER, oracle_of
from harness.bug_witness import witnesses
from harness.endpoint import OutcomeUnknown, Refused
from harness.errors import CheckFailed, NodeDied, NotLive
from harness.topology import Topology
from harness.verdict import RunSettings

CHECKERS = Path(__file__).resolve().parents[3] / "harness" / "checkers"


def names_of_checkers():
    modules = (importlib.import_module(f"harness.checkers.{p.stem}") for p in CHECKERS.glob("*.py"))
    return sorted({module.CHECKER for module in modules if hasattr(module, "CHECKER")})


@pytest.mark.parametrize("name", names_of_checkers())
def test_every_oracle_has_its_number(name):
    assert oracle_of(CheckFailed("what it says", checker=name)) in ORACLES


@pytest.mark.parametrize(
    ("error", "oracle"),
    [
        (CheckFailed("flush_lsn 0/8 is below commit_lsn 0/10", checker="lsn_order"), "O4"),
        (CheckFailed("commit_lsn falls from 0/10 to 0/8", checker="lsn_order"), "O3"),
        (CheckFailed("term 3 has two leaders", checker="lsn_order"), "O5"),
        (CheckFailed("proposer 1 is elected in term 2 by sk0", checker="quorum_order"), "O5"),
        (CheckFailed("commit_lsn takes a quorum", checker="quorum_order"), "O1"),
        (NotLive("no progress", checker="load progress"), "O10"),
        (NotLive("still runs", checker="stop"), "O11"),
        (NotLive("ps0 cleans the bucket of tenant x", checker="eventually"), "O7"),
        (NodeDied("node 'sk0' ended by itself"), "O12"),
        (Refused("page is corrupt", sqlstate="XX001"), "O12"),
        (Refused("not now", sqlstate="57P03"), "O13"),
        (OutcomeUnknown("'put 1': TimeoutError"), "O10"),
        (TimeoutError(), "O10"),
        (AssertionError("1 == 2"), OTHER),
    ],
)
def test_error_is_the_voice_of_an_oracle(error, oracle):
    assert oracle_of(error) == oracle


def broken_off(*reports):
    """The world of a run that its own scenario ended in the middle of writes, after ``reports`` of
    a position."""
    worlds = []

    async def scenario(world):
        worlds.append(world)
        cluster = await world.start(Topology())
        endpoint = await cluster.endpoint("main")
        async with world.load(endpoint) as load:
            await load.progress(30)
            for value in reports:
                told = {"tenant": "t", "timeline": "l", "name": "commit_lsn", "value": value}
                world.backend.note("lsn", told)
            raise CheckFailed("enough", checker="scenario")

    assert sim_runner().run(scenario, RunSettings("sim", "walgen", 1)).error is not None
    return worlds[0]


def test_nobody_saw_anything_in_a_sound_run_that_broke_off():
    assert witnesses(broken_off(8, 16)) == []


def test_others_are_asked_what_they_saw():
    assert witnesses(broken_off(16, 8)) == ["O3"]
