"""Which operations may have been answered by a primary that was deposed and had not heard of it.

Such a primary acknowledges no change, but it still answers reads, as of a state that its successor
has left behind. A primary is elected while it starts, so one that served before another began to
start was elected before it, and only the earlier of the two can be deposed by the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.history import ComputeLife, Operation

NEVER = float("inf")


class Deposed:
    """The primaries of one timeline, in order of their start."""

    def __init__(self, lives: Sequence[ComputeLife]) -> None:
        self._lives = sorted(lives, key=lambda life: life.began_at_s)
        self._rivals: dict[str, list[tuple[float, float]]] = {}

    @property
    def has_rivals(self) -> bool:
        """Whether there was more than one primary."""
        return len(self._lives) > 1

    def possible(self, operation: Operation) -> bool:
        """Whether another primary may have been elected before this operation was answered."""
        if not self.has_rivals:
            return False
        end_s = operation.completed_at_s
        process = operation.source.process.partition("/")[0]
        if process not in self._rivals:
            self._rivals[process] = self._rivals_of(process)
        deposed_at_s = NEVER
        for began_at_s, rival_at_s in self._rivals[process]:
            if began_at_s <= operation.invoked_at_s:
                deposed_at_s = rival_at_s
        return end_s is None or deposed_at_s < end_s

    def _rivals_of(self, process: str) -> list[tuple[float, float]]:
        """For each life of an endpoint: when it began, and when a possible successor did."""
        return [
            (life.began_at_s, self._successor_began_s(life))
            for life in self._lives
            if life.process == process
        ]

    def _successor_began_s(self, life: ComputeLife) -> float:
        """When the first other primary began that may have been elected after this one."""
        rivals = (
            other.began_at_s
            for other in self._lives
            if other is not life
            and (other.serving_at_s is None or other.serving_at_s > life.began_at_s)
        )
        return min(rivals, default=NEVER)
