"""The workloads of lists and of a bank, against a store in memory that may misbehave."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import sim
from harness.checkers.conservation import check_conservation
from harness.checkers.list_append import check_list_append
from harness.checkers.steps import redo
from harness.endpoint import Answer, Client, Recording
from harness.errors import CheckFailed, HarnessError
from harness.history import History, Kind
from harness.history_file import read_history, write_history
from harness.tests.test_workload import MemoryEndpoint
from harness.transactions import (
    Bank,
    BankOptions,
    ListAppendOptions,
    Lists,
    Mixed,
    in_base_36,
    workload_named,
)
from harness.workload import Load, LoadOptions, Workload
from storage.lsn import Lsn

Spoil = Callable[[dict[int, str | None]], dict[int, str | None]]


class StepsEndpoint(MemoryEndpoint):
    """Runs steps; ``spoil`` changes what the store keeps of every tenth transaction."""

    def __init__(self, spoil: Spoil | None) -> None:
        super().__init__()
        self._spoil = spoil
        self._count = 0

    async def run(self, kind: Kind, args: tuple[Any, ...]) -> Answer:
        if kind is not Kind.TRANSACT:
            return await super().run(kind, args)
        await asyncio.sleep(0.001)
        self._count += 1
        redone = redo(args[0], self.data.get)
        changes: dict[int, str | None] = dict(redone.changes)
        if self._spoil is not None and self._count % 10 == 0:
            changes = self._spoil(changes)
        self.data.update({key: value for key, value in changes.items() if value is not None})
        self.lsn += 8
        return Answer(redone.values, Lsn(self.lsn))


def play(options: Workload, commits: int = 300, spoil: Spoil | None = None) -> History:
    async def main() -> History:
        history = History()
        now_s = asyncio.get_running_loop().time
        client = Client(StepsEndpoint(spoil), Recording(history, now_s, "tl"), "main")
        async with Load(client, options, random.Random(4)) as load:
            await load.progress(commits)
        return history

    return sim.run(main, seed=2)


def half(changes: dict[int, str | None]) -> dict[int, str | None]:
    return dict(list(changes.items())[1:])


def test_lists_grow_to_their_length_and_make_room() -> None:
    lists = Lists(100, width=2, length=3)
    assert lists.keys() == [100, 101]
    found = [lists.element_for(100) for _ in range(3)]
    assert lists.keys() == [101, 102]
    found += [lists.element_for(100), lists.element_for(102)]
    assert len(set(found)) == 5
    assert [in_base_36(number) for number in (1, 35, 36, 36 * 36)] == ["1", "z", "10", "100"]


def test_transactions_on_lists_are_mixed_and_every_value_fits() -> None:
    history = play(ListAppendOptions(clients=3), commits=600)
    steps = [len(each.args[0]) for each in history if each.kind is Kind.TRANSACT]
    assert set(steps) == {1, 2, 3, 4}
    names = Counter(
        step[0] for each in history if each.kind is Kind.TRANSACT for step in each.args[0]
    )
    assert min(names["read"], names["append"]) > 200
    lists = [value for each in history for value in each.changes().values() if value]
    assert max(map(len, lists)) <= 240
    assert max(value.count(",") for value in lists) >= 20
    assert check_list_append(history) > 1500


def test_transfers_keep_the_total_and_audits_see_it() -> None:
    history = play(BankOptions(clients=3))
    assert len(history.conserved["tl"]) >= 1
    assert check_conservation(history) > 80


def test_a_store_that_applies_half_of_a_transaction_is_seen() -> None:
    with pytest.raises(CheckFailed, match="accounts"):
        check_conservation(play(BankOptions(), spoil=half))
    with pytest.raises(CheckFailed, match="list"):
        check_list_append(play(ListAppendOptions(), spoil=half))


def test_parts_of_a_mixed_load_take_turns() -> None:
    parts = (LoadOptions(clients=4), ListAppendOptions(), BankOptions())
    history = play(Mixed(parts, clients=4))
    asked = {
        kind: {each.source.process for each in history if each.kind is kind}
        for kind in (Kind.PUT, Kind.TRANSACT)
    }
    assert asked[Kind.PUT] == {"main/load.0", "main/load.3"}
    assert asked[Kind.TRANSACT] == {"main/load.1", "main/load.2"}
    assert check_conservation(history) > 10
    assert check_list_append(history) > 100


@pytest.mark.parametrize(
    "wrong", [lambda: Lists(width=1), lambda: Lists(length=0), lambda: Bank(accounts=1),
              lambda: Mixed(())]
)  # fmt: skip
def test_useless_workloads_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(HarnessError):
        wrong()


def test_steps_are_saved_and_loaded(tmp_path: Any) -> None:
    history = play(Mixed((ListAppendOptions(), BankOptions()), clients=2), commits=30)
    write_history(history, tmp_path / "history.jsonl")
    assert list(read_history(tmp_path / "history.jsonl")) == list(history)


def test_workloads_of_campaigns_by_name() -> None:
    assert workload_named("registers", clients=2, think_s=0.5) == LoadOptions(
        clients=2, think_s=0.5
    )
    mixed = workload_named("transactions", clients=4, think_s=0.5)
    assert (mixed.clients, mixed.think_s) == (4, 0.5)
    kinds = {each.kind for each in play(mixed.writing_only(), commits=200)}
    assert kinds == {Kind.TRANSACT, Kind.TXN, Kind.PUT, Kind.DELETE}
    with pytest.raises(HarnessError, match="no workload 'reads'; there are: registers"):
        workload_named("reads", clients=1, think_s=0.1)
