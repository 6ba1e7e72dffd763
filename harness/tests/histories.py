"""Short ways to write histories down in tests."""

from __future__ import annotations

from typing import Any

from harness.history import History, Kind, Outcome, Source
from storage.lsn import Lsn

CLIENT = Source("c", "tl")
PINNED = Source("replica", "tl", pinned=True)


class Story:
    """Builds a history; each step has an interval (begin, end), end ``None`` if unanswered."""

    def __init__(self) -> None:
        self.history = History()

    def step(
        self,
        asked: tuple[Kind, tuple[Any, ...]],
        when: tuple[float, float | None],
        answer: tuple[Any, int | None] = (None, None),
        *,
        outcome: Outcome = Outcome.OK,
        source: Source = CLIENT,
    ) -> Story:
        begin_s, end_s = when
        number = self.history.invoke(source, *asked, begin_s)
        if end_s is None:
            return self
        if outcome is Outcome.OK:
            result, lsn = answer
            self.history.succeed(number, end_s, result, None if lsn is None else Lsn(lsn))
        else:
            self.history.fail(number, end_s, outcome, "lost")
        return self

    def put(
        self, key: int, value: str, begin: float, end: float | None, lsn: int | None = None
    ) -> Story:
        return self.step((Kind.PUT, (key, value)), (begin, end), (None, lsn))

    def unknown_put(self, key: int, value: str, begin: float, end: float) -> Story:
        return self.step((Kind.PUT, (key, value)), (begin, end), outcome=Outcome.UNKNOWN)

    def failed_put(self, key: int, value: str, begin: float, end: float) -> Story:
        return self.step((Kind.PUT, (key, value)), (begin, end), outcome=Outcome.FAILED)

    def delete(self, key: int, begin: float, end: float, lsn: int | None = None) -> Story:
        return self.step((Kind.DELETE, (key,)), (begin, end), (None, lsn))

    def get(
        self, key: int, value: str | None, begin: float, end: float, lsn: int | None = None
    ) -> Story:
        return self.step((Kind.GET, (key,)), (begin, end), (value, lsn))

    def scan(
        self, span: tuple[int, int], rows: list[tuple[int, str]], begin: float, end: float,
        lsn: int | None = None,
    ) -> Story:  # fmt: skip
        return self.step((Kind.SCAN, span), (begin, end), (rows, lsn))
