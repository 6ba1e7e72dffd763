"""A cache with a budget in bytes that forgets what was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_OVERHEAD = 200
"""Bytes that one entry costs besides its data."""


class SizedCache(Generic[K, V]):
    """Maps keys to values of known size. A budget of 0 keeps nothing."""

    def __init__(self, budget_bytes: int) -> None:
        assert budget_bytes >= 0, f"a cache cannot have {budget_bytes} bytes"
        self._budget = budget_bytes
        self._used = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value of a key, which counts as used now; ``None`` if it is not here."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Remember a value of ``size`` bytes, dropping what was used longest ago to make room."""
        self.forget(key)
        cost = size + ENTRY_OVERHEAD
        if cost > self._budget:
            return
        self._entries[key] = (value, cost)
        self._used += cost
        while self._used > self._budget:
            _, (_, dropped) = self._entries.popitem(last=False)
            self._used -= dropped
        assert self._used >= 0, "the cache's accounting is off"

    def forget(self, key: K) -> None:
        """Drop a key; harmless if it is not here."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._used -= entry[1]
