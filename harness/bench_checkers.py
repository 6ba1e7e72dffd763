"""Benchmark of the oracles that read histories: operations per second and peak memory of each.

The histories are made (:mod:`harness.made_histories`), and every oracle must accept them.
``linearizable_search`` is the search of keys whose values repeat; ``registers`` and
``transactions`` are all oracles of one history, one after the other as at the end of a run, sharing
what they derive from it.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import process_time  # By name: the sim's guard gives clocks of `time` virtual time.
from typing import Any

from harness.checkers.acknowledged_commits import check_acknowledged_commits
from harness.checkers.commit_order import check_commit_order
from harness.checkers.conservation import check_conservation
from harness.checkers.dependency_cycles import check_dependency_cycles
from harness.checkers.linearizable import check_linearizable
from harness.checkers.list_append import check_list_append
from harness.checkers.reads_equal_model import check_reads
from harness.checkers.wal_explains_history import check_wal_explains
from harness.history import History
from harness.made_histories import TIMELINE, MadeRegisters, MadeTransactions

SIZES = (10_000, 100_000)


def checkers_of(made: MadeRegisters) -> dict[str, Callable[[], object]]:
    """Every oracle of registers, by name, on this history."""
    history = made.history
    return {
        "reads_equal_model": lambda: check_reads(history),
        "acknowledged_commits": lambda: check_acknowledged_commits(history, TIMELINE, made.rows),
        "commit_order": lambda: check_commit_order(history),
        "linearizable": lambda: check_linearizable(history),
        "dependency_cycles": lambda: check_dependency_cycles(history),
        "wal_explains_history": lambda: check_wal_explains(history, TIMELINE, made.model),
    }


def checkers_of_steps(made: MadeTransactions) -> dict[str, Callable[[], object]]:
    """Every oracle of transactions with steps, by name, on this history."""
    history = made.history
    return {
        "list_append": lambda: check_list_append(history),
        "conservation": lambda: check_conservation(history),
    }


def _measure(history: History, checks: Sequence[Callable[[], object]]) -> dict[str, float]:
    """Time without and memory with the allocator traced, for tracing is slow. Nothing derived
    before is used; the collector sleeps, as it does in a simulation until its moment comes."""
    spent_s, peak_bytes = 0.0, 0
    for is_traced in (False, True):
        history.derived.clear()
        gc.collect()
        gc.disable()
        if is_traced:
            tracemalloc.start()
        try:
            started_s = process_time()
            for check in checks:
                check()
            if is_traced:
                _, peak_bytes = tracemalloc.get_traced_memory()
            else:
                spent_s = process_time() - started_s
        finally:
            gc.enable()
            tracemalloc.stop()
    return {
        "operations_per_s": round(len(history) / spent_s),
        "peak_mib": round(peak_bytes / 2**20, 1),
    }


def bench_checkers() -> Mapping[str, Any]:
    """Every oracle of histories on 10⁴ and 10⁵ operations; seconds are the processor's."""
    found: dict[str, Any] = {"bench": "checkers"}
    for operations in SIZES:
        rows: dict[str, dict[str, float]] = {}
        registers = MadeRegisters(operations, random.Random(operations))
        checks = checkers_of(registers)
        rows.update({n: _measure(registers.history, [check]) for n, check in checks.items()})
        rows["registers"] = _measure(registers.history, list(checks.values()))
        searched = MadeRegisters(operations, random.Random(operations), values=16)
        undecided = check_linearizable(searched.history).undecided
        search = partial(check_linearizable, searched.history)
        rows["linearizable_search"] = {
            **_measure(searched.history, [search]),
            "undecided": undecided,
        }
        steps = MadeTransactions(operations, random.Random(operations))
        checks = checkers_of_steps(steps)
        rows.update({n: _measure(steps.history, [check]) for n, check in checks.items()})
        rows["transactions"] = _measure(steps.history, list(checks.values()))
        found[str(operations)] = rows
    return found
