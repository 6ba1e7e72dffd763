"""Jittered exponential backoff for whatever the environment refuses for a while."""

from __future__ import annotations

import random


class Backoff:
    """Delays between attempts: doubling from ``first_s`` to ``delay_s_max``, half of it random."""

    def __init__(
        self, entropy: random.Random, *, first_s: float = 0.1, delay_s_max: float = 5.0
    ) -> None:
        assert 0 < first_s <= delay_s_max, f"first {first_s} s, largest {delay_s_max} s"
        self._entropy = entropy
        self._first_s = first_s
        self._delay_s_max = delay_s_max
        self._failures = 0

    @property
    def failures(self) -> int:
        """Delays handed out since the last success."""
        return self._failures

    def next_delay_s(self) -> float:
        """How long to wait after one more failure, in seconds."""
        ceiling: float = min(self._delay_s_max, self._first_s * 2 ** min(self._failures, 30))
        self._failures += 1
        return ceiling * (0.5 + 0.5 * self._entropy.random())

    def reset(self) -> None:
        """Progress was made: the next failure starts from the shortest delay."""
        self._failures = 0
