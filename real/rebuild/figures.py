"""What a check of rebuilt directories is asked to do, and what it has done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RebuildOptions:
    """What to check: ``lsns`` commits of a workload of ``rounds`` rounds on a major version."""

    major: int
    seed: int
    lsns: int
    rounds: int = 1

    @property
    def checksums(self) -> bool:
        """Whether the source's pages carry checksums: with odd seeds."""
        return self.seed % 2 == 1

    @property
    def replay(self) -> str:
        """The command that does the same again."""
        return (
            f"python -m real rebuild --major {self.major} --seed {self.seed} --lsns {self.lsns} "
            f"--rounds {self.rounds}"
        )


@dataclass
class Figures:
    """What was done and compared; ``seconds`` by part."""

    lsns: int = 0
    relations: int = 0
    pages: int = 0
    pages_masked: int = 0
    slru_pages: int = 0
    tables: int = 0
    wal_bytes: int = 0
    records: int = 0
    commits: int = 0
    kinds: Counter[tuple[int, int]] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Adds what the block takes to a part's seconds."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            took_s = time.perf_counter() - started_s
            self.seconds[part] = self.seconds.get(part, 0.0) + took_s

    def summary(self) -> dict[str, Any]:
        """For a line of JSON."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        seconds = {f"{part}_s": round(value, 1) for part, value in self.seconds.items()}
        return {**plain, "record_kinds": len(self.kinds), **seconds}
