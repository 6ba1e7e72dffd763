"""Histories that are made, not run: correct ones of any size, for benchmarks and tests of oracles.

Clients of a correct store whose operations overlap: each takes effect at an instant of its own,
inside its interval, in order of its number.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from harness.checkers.steps import Step, redo
from harness.checkers.wal_model import WalModel
from harness.history import Conserved, History, Kind, Outcome, Source
from harness.transactions import Bank, Lists
from storage.lsn import Lsn

CLIENTS = 8
KEYS = 512
STEP_S = 0.001
TIMELINE = "made"
RECORD_BYTES = 64


class Clients:
    """Who asks when: whoever is free first. Times in seconds."""

    def __init__(self, entropy: random.Random) -> None:
        self._entropy = entropy
        self._sources = [Source(f"client{number}", TIMELINE) for number in range(CLIENTS)]
        self._free_at_s = [0.0] * CLIENTS

    def turn(self, number: int) -> tuple[Source, float, float]:
        """Of operation ``number`` the client, its beginning and its end."""
        entropy, now_s = self._entropy, (number + 1) * STEP_S
        client = min(range(CLIENTS), key=self._free_at_s.__getitem__)
        begin_s = max(self._free_at_s[client], now_s - entropy.random() * CLIENTS * STEP_S)
        end_s = now_s + entropy.random() * CLIENTS * STEP_S / 2
        self._free_at_s[client] = end_s
        return self._sources[client], min(begin_s, now_s), end_s


class MadeRegisters:
    """A history of ``operations`` operations on registers, with LSNs, deletes, transactions, scans
    and writes of unknown outcome; the final rows, and the model of its WAL. With ``values``, that
    many values are written again and again: keys must be searched."""

    def __init__(
        self, operations: int, entropy: random.Random, *, keys: int = KEYS, values: int = 0
    ) -> None:
        self._keys = keys
        self._values = values
        self.history = History()
        self.rows: dict[int, str] = {}
        self.model = WalModel(Lsn(0))
        self._entropy = entropy
        self._clients = Clients(entropy)
        self._lsn = 0
        for number in range(operations):
            self._operate(number)

    def _operate(self, number: int) -> None:
        entropy = self._entropy
        source, begin_s, end_s = self._clients.turn(number)
        kind, args = self._ask(number)
        index = self.history.invoke(source, kind, args, begin_s)
        if kind in (Kind.GET, Kind.SCAN):
            self.history.succeed(index, end_s, self._read(kind, args), Lsn(self._lsn))
            return
        is_unknown = entropy.random() < 0.01
        if not is_unknown or entropy.random() < 0.5:
            self._apply(self.history[index].changes())
        if is_unknown:
            self.history.fail(index, end_s, Outcome.UNKNOWN, "lost")
        else:
            self.history.succeed(index, end_s, None, Lsn(self._lsn))

    def _ask(self, number: int) -> tuple[Kind, tuple[Any, ...]]:
        entropy = self._entropy
        choice, key = entropy.random(), entropy.randrange(self._keys)
        if choice < 0.475:
            return Kind.GET, (key,)
        if choice < 0.5:
            return Kind.SCAN, (key, key + 8)
        if choice < 0.9:
            value = number % self._values if self._values else number
            return Kind.PUT, (key, f"v{value}")
        if choice < 0.95:
            return Kind.DELETE, (key,)
        return Kind.TXN, (
            {entropy.randrange(self._keys): f"v{number}.{part}" for part in range(3)},
        )

    def _read(self, kind: Kind, args: tuple[Any, ...]) -> Any:
        if kind is Kind.GET:
            return self.rows.get(args[0])
        return [(key, self.rows[key]) for key in range(*args) if key in self.rows]

    def _apply(self, changes: Mapping[int, str | None]) -> None:
        effective = {k: v for k, v in changes.items() if v is not None or k in self.rows}
        if not effective:
            return
        self._lsn += RECORD_BYTES
        self.model.put(Lsn(self._lsn), effective)
        for key, value in effective.items():
            if value is None:
                del self.rows[key]
            else:
                self.rows[key] = value


class MadeTransactions:
    """A history of ``operations`` operations on lists and a bank, most of them transactions of
    steps; one in a hundred has an unknown outcome."""

    def __init__(self, operations: int, entropy: random.Random) -> None:
        self.history = History()
        self.rows: dict[int, str | None] = {}
        self._entropy = entropy
        self._clients = Clients(entropy)
        self._lists = Lists()
        self._accounts = Bank().accounts
        self._lsn = RECORD_BYTES
        self.rows.update(dict.fromkeys(self._accounts, "100"))
        total = 100 * len(self._accounts)
        opened = Conserved(self._accounts.start, self._accounts.stop, total, 0.0, Lsn(self._lsn))
        self.history.conserve(TIMELINE, opened)
        for number in range(operations):
            self._operate(number)

    def _operate(self, number: int) -> None:
        source, begin_s, end_s = self._clients.turn(number)
        kind, args = self._ask()
        index = self.history.invoke(source, kind, args, begin_s)
        if kind is Kind.SCAN:
            rows = [(key, self.rows[key]) for key in range(*args) if key in self.rows]
            self.history.succeed(index, end_s, rows, Lsn(self._lsn))
            return
        is_unknown = self._entropy.random() < 0.01
        redone = redo(args[0], self.rows.get)
        if not is_unknown or self._entropy.random() < 0.5:
            self.rows.update(redone.changes)
            self._lsn += RECORD_BYTES
        if is_unknown:
            self.history.fail(index, end_s, Outcome.UNKNOWN, "lost")
        else:
            self.history.succeed(index, end_s, redone.values, Lsn(self._lsn))

    def _ask(self) -> tuple[Kind, tuple[Any, ...]]:
        entropy, keys = self._entropy, self._lists.keys()
        choice = entropy.random()
        if choice < 0.1:
            return Kind.SCAN, (self._accounts.start, self._accounts.stop)
        if choice < 0.3:
            return Kind.SCAN, (min(keys), max(keys) + 1)
        if choice < 0.5:
            source, target = entropy.sample(self._accounts, 2)
            return Kind.TRANSACT, ((("add", source, -7), ("add", target, 7)),)
        touched = [entropy.choice(keys) for _ in range(entropy.randint(1, 3))]
        steps: list[Step] = [("append", touched[0], self._lists.element_for(touched[0]))]
        steps += [("read", key) for key in touched[1:]]
        return Kind.TRANSACT, (tuple(steps),)
