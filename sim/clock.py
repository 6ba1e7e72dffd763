"""Wall clocks of simulated nodes: each with its own offset, drift and jumps.

The epoch lies decades away from the loop's time, so code that mixes the two fails at once.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from harness.fault_ports import Note

DEFAULT_EPOCH_US = 2_000_000_000_000_000
"""2033-05-18 03:33:20 UTC, in microseconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class ClockOptions:
    """How far a fresh clock may be off: offset in microseconds, drift in parts per million."""

    epoch_us: int = DEFAULT_EPOCH_US
    offset_us_max: int = 50_000
    drift_ppm_max: float = 50.0

    def __post_init__(self) -> None:
        if self.offset_us_max < 0 or self.drift_ppm_max < 0:
            raise ValueError(f"{self}: both bounds must be zero or more")


class SimClock:
    """One node's wall clock; implements ``storage.ports.Clock``. It outlives incarnations."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        generator: random.Random,
        options: ClockOptions = ClockOptions(),
        note: Note = lambda **_: None,
    ) -> None:
        self._loop = loop
        self._note = note
        self._ahead_us = 0
        self._wrong = False
        self._drift_ppm = generator.uniform(-options.drift_ppm_max, options.drift_ppm_max)
        self._since_s = loop.time()
        self._then_us = options.epoch_us + generator.randint(
            -options.offset_us_max, options.offset_us_max
        )
        self.effects = {"clock_jumps": 0, "drift_changes": 0, "times_told_wrong": 0}

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch, as this node believes."""
        self.effects["times_told_wrong"] += self._wrong
        return self._told_us()

    def _told_us(self) -> int:
        elapsed_us = (self._loop.time() - self._since_s) * 1e6
        return self._then_us + round(elapsed_us * (1.0 + self._drift_ppm / 1e6))

    def jump(self, by_us: int) -> None:
        """Set the clock forward or, with a negative number, back."""
        self._rebase()
        self._then_us += by_us
        self._ahead_us += by_us
        self._wrong = self._ahead_us != 0
        self.effects["clock_jumps"] += 1
        self._note(verb="clock_jump", by_us=by_us)

    def drift(self, ppm: float) -> None:
        """Make the clock run fast (positive) or slow from now on, without a jump."""
        if ppm <= -1e6:
            raise ValueError(f"a drift of {ppm} ppm stops the clock or runs it backwards")
        self._rebase()
        self._drift_ppm = ppm
        self._wrong = ppm != 0.0 or self._ahead_us != 0
        self.effects["drift_changes"] += 1
        if ppm:
            self._note(verb="clock_drift", ppm=str(ppm))
        else:
            self._note(verb="end", fault="clock_drift")

    def _rebase(self) -> None:
        self._then_us = self._told_us()
        self._since_s = self._loop.time()
