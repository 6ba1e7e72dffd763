"""The catalogue of oracles: complete, as its page says, and each of them at work in real runs."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from harness import bug_oracles
from harness.bug_oracles import oracle_of
from harness.checkers import catalogue
from harness.checkers.catalogue import ORACLES, idle, judged_by, page
from harness.errors import CheckFailed
from harness.runner import RunResult, Scenario
from harness.topology import TWO_PAGESERVERS
from harness.transactions import BankOptions, ListAppendOptions, Mixed
from harness.verdict import RunSettings, Verdict
from harness.workload import LoadOptions
from harness.world import World
from sim.runner import SimRunner
from storage.roles import ROLES

ROOT = Path(__file__).parents[2]
CHECKERS = ROOT / "harness" / "checkers"

VOICES_OF_OTHERS = {"wal_model": "wal_explains_history"}
"""Modules with a voice of their own that are part of an oracle."""


def checkers() -> set[str]:
    """Modules that raise under a name of their own."""
    found = set()
    for path in CHECKERS.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CHECKER":
                assert ast.literal_eval(node.value) == path.stem, path
                found.add(path.stem)
    return found


def test_every_oracle_is_listed() -> None:
    names = [oracle.name for oracle in ORACLES]
    assert len(set(names)) == len(names)
    assert checkers() - set(VOICES_OF_OTHERS) <= set(names)
    assert set(names) - checkers() == {"liveness", "evidence"}


def test_the_page_is_the_catalogue() -> None:
    """After a change: python -m harness.checkers.catalogue > docs/oracles.md"""
    assert (ROOT / "docs" / "oracles.md").read_text(encoding="utf-8") == page()


def test_voices_are_counted_for_what_the_catalogue_says() -> None:
    bank = {oracle.name: set(oracle.bank.split()) for oracle in ORACLES}
    for name in bank.keys() - {"evidence", "liveness"}:
        numbers = {oracle_of(CheckFailed("", checker=name))}
        numbers |= {number for _, number in bug_oracles._BY_WORDS.get(name, ())}
        assert numbers <= bank[name], name


def test_every_number_of_the_bank_has_an_oracle() -> None:
    spoken = {number for oracle in ORACLES for number in oracle.bank.split()}
    assert spoken == {f"O{number}" for number in range(1, 14)}


def test_a_silent_oracle_says_why() -> None:
    for oracle in ORACLES:
        assert bool(oracle.only) == (len(oracle.worlds) == 1 or len(oracle.computes) == 1)


def test_counts_begin_at_zero_where_an_oracle_applies() -> None:
    assert "quorum_order" in judged_by("sim", "walgen")
    assert "quorum_order" not in judged_by("real", "walgen")
    assert "pages_equal_wal" not in judged_by("real", "postgres")
    assert idle(judged_by("real", "postgres")) == list(judged_by("real", "postgres"))
    assert idle(Counter({"bucket": 3, "logs": 0})) == ["logs"]


async def ordinary(world: World) -> None:
    """Every workload, a replica, a restart: nothing goes wrong."""
    cluster = await world.start(TWO_PAGESERVERS)
    primary = await cluster.endpoint("main")
    parts = (LoadOptions(clients=6), ListAppendOptions(), BankOptions())
    async with world.load(primary, Mixed(parts, clients=6)) as load:
        await load.progress(60)
        lsn = world.history.acknowledged_lsn(str(primary.timeline))
        replica = await cluster.replica("replica", lsn, of=primary)
        await replica.scan(0, 10_000)
        await cluster.pageserver(0).restart()
        await load.progress(60)


def run(scenario: Scenario) -> RunResult:
    return SimRunner(ROLES).run(scenario, RunSettings("sim", "walgen", 3))


def test_every_oracle_compares_something_in_an_ordinary_run() -> None:
    result = run(ordinary)
    assert result.verdict is Verdict.PASSED, result.error
    assert idle(Counter(result.evidence.judged)) == []
    assert set(result.evidence.judged) == {*judged_by("sim", "walgen"), catalogue.UNDECIDED}


async def registers_only(world: World) -> None:
    """One client that writes one key."""
    cluster = await world.start(TWO_PAGESERVERS)
    await (await cluster.endpoint("main")).put(1, "a")


def test_an_oracle_without_anything_to_compare_is_seen() -> None:
    result = run(registers_only)
    assert result.verdict is Verdict.PASSED, result.error
    assert idle(Counter(result.evidence.judged)) == ["list_append", "conservation"]


@pytest.mark.parametrize("when", catalogue.When)
def test_some_oracle_speaks_at_every_time(when: catalogue.When) -> None:
    assert any(oracle.when is when for oracle in ORACLES)
