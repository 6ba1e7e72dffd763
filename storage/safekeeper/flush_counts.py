"""How often, how much and how fast one safekeeper has flushed WAL since it started."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace

BOUNDS_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Upper bounds of the buckets in seconds; what took longer is in one bucket more."""


@dataclass(slots=True)
class FlushCounts:
    """``counts`` has one number for each bucket, not cumulative."""

    bytes: int = 0
    sum_s: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    def note(self, size: int, duration_s: float) -> None:
        """A batch of ``size`` bytes is durable after ``duration_s`` seconds."""
        assert size > 0, "an empty batch is not flushed"
        assert duration_s >= 0, f"{duration_s} s: the loop's clock never goes back"
        self.bytes += size
        self.sum_s += duration_s
        self.counts[bisect_left(BOUNDS_S, duration_s)] += 1

    def copy(self) -> FlushCounts:
        """The numbers of now."""
        return replace(self, counts=list(self.counts))

    def cumulative(self) -> list[tuple[str, int]]:
        """Prometheus buckets: upper bound in seconds as text, and how many took at most that."""
        bounds = [*(str(bound_s) for bound_s in BOUNDS_S), "+Inf"]
        sums = [sum(self.counts[: index + 1]) for index in range(len(self.counts))]
        return list(zip(bounds, sums, strict=True))
