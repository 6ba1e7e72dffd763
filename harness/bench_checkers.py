"""Benchmark of the oracles that read histories: operations per second and peak memory of each.

The history is made, not run: clients of a correct store whose operations overlap, with LSNs,
deletes, transactions, scans and writes of unknown outcome, and the WAL that explains it. Every
oracle must accept it.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Mapping
from time import perf_counter  # By name: the sim's guard gives `time.perf_counter` virtual time.
from typing import Any

from harness.checkers.acknowledged_commits import check_acknowledged_commits
from harness.checkers.commit_order import check_commit_order
from harness.checkers.dependency_cycles import check_dependency_cycles
from harness.checkers.linearizable import check_linearizable
from harness.checkers.reads_equal_model import check_reads
from harness.checkers.wal_explains_history import check_wal_explains
from harness.checkers.wal_model import WalModel
from harness.history import History, Kind, Outcome, Source
from storage.lsn import Lsn

SIZES = (10_000, 100_000)
CLIENTS = 8
KEYS = 512
STEP_S = 0.001
TIMELINE = "bench"
RECORD_BYTES = 64


class MadeHistory:
    """A history of ``operations`` operations, the final rows, and the model of its WAL."""

    def __init__(self, operations: int, entropy: random.Random, *, keys: int = KEYS) -> None:
        self._keys = keys
        self.history = History()
        self.rows: dict[int, str] = {}
        self.model = WalModel(Lsn(0))
        self._entropy = entropy
        self._sources = [Source(f"client{number}", TIMELINE) for number in range(CLIENTS)]
        self._free_at_s = [0.0] * CLIENTS
        self._lsn = 0
        for number in range(operations):
            self._operate(number)

    def _operate(self, number: int) -> None:
        """The next operation takes effect at ``now_s``, somewhere inside its interval."""
        entropy, now_s = self._entropy, (number + 1) * STEP_S
        client = min(range(CLIENTS), key=self._free_at_s.__getitem__)
        begin_s = max(self._free_at_s[client], now_s - entropy.random() * CLIENTS * STEP_S)
        end_s = now_s + entropy.random() * CLIENTS * STEP_S / 2
        self._free_at_s[client] = end_s
        kind, args = self._ask(number)
        index = self.history.invoke(self._sources[client], kind, args, min(begin_s, now_s))
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
            return Kind.PUT, (key, f"v{number}")
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


def checkers_of(made: MadeHistory) -> dict[str, Callable[[], object]]:
    """Every oracle of histories, by name, on this one."""
    history = made.history
    return {
        "reads_equal_model": lambda: check_reads(history),
        "acknowledged_commits": lambda: check_acknowledged_commits(history, TIMELINE, made.rows),
        "commit_order": lambda: check_commit_order(history),
        "linearizable": lambda: check_linearizable(history),
        "dependency_cycles": lambda: check_dependency_cycles(history),
        "wal_explains_history": lambda: check_wal_explains(history, TIMELINE, made.model),
    }


def _measure(check: Callable[[], object], operations: int) -> dict[str, float]:
    """Time without and memory with the allocator traced, for tracing is slow."""
    started_s = perf_counter()
    check()
    wall_s = perf_counter() - started_s
    tracemalloc.start()
    try:
        check()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return {
        "operations_per_s": round(operations / wall_s),
        "peak_mib": round(peak_bytes / 2**20, 1),
    }


def bench_checkers() -> Mapping[str, Any]:
    """Every oracle of histories on 10⁴ and 10⁵ operations; ``all`` is one after the other."""
    found: dict[str, Any] = {"bench": "checkers"}
    for operations in SIZES:
        made = MadeHistory(operations, random.Random(operations))
        undecided = check_linearizable(made.history).undecided
        assert undecided == 0, f"{undecided} keys undecided"
        rows = {name: _measure(check, operations) for name, check in checkers_of(made).items()}
        rows["all"] = {
            "operations_per_s": round(
                1 / sum(1 / row["operations_per_s"] for row in rows.values())
            ),
            "peak_mib": max(row["peak_mib"] for row in rows.values()),
        }
        found[str(operations)] = rows
    return found
