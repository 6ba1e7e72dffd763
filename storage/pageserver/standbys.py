"""What the hot standbys of one timeline still read, as their safekeepers tell it. Pure.

A safekeeper publishes the oldest LSN that a standby connected to it reads at. It has forgotten
that after a restart, and a standby that was cut off comes back elsewhere; so every word counts for
``memory_s`` seconds from when it was heard, whatever is said later: the horizon is the lowest word
of that time. A standby that is gone holds nothing back any more when its last word has run out.
Who could not listen that long does not know (BUGBANK ``standby-horizon-forgotten``).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from storage.lsn import INVALID_LSN, Lsn


class Word(NamedTuple):
    """A horizon that counts until ``ends_at_s``, unless a lower one was heard since."""

    horizon: Lsn
    ends_at_s: float


class Standbys:
    """The words of one timeline's safekeepers; times are seconds of the loop's clock.

    A timeline that was just created has no standbys; one that was loaded begins :meth:`deaf`.
    """

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._words: deque[Word] = deque()
        self._known_from_s: float | None = 0.0

    def listening(self, now_s: float) -> None:
        """From now on every word is heard."""
        if self._known_from_s is None:
            self._known_from_s = now_s + self._memory_s

    def deaf(self) -> None:
        """Words may have been missed, or may be missed from now on."""
        self._known_from_s = None

    def heard(self, horizon: Lsn, now_s: float) -> None:
        """A safekeeper needs nothing below ``horizon`` for its standbys; 0: it has none."""
        if horizon == INVALID_LSN:
            return
        while self._words and self._words[-1].horizon >= horizon:
            self._words.pop()
        self._words.append(Word(horizon, now_s + self._memory_s))

    def horizon(self, now_s: float) -> Lsn | None:
        """The lowest LSN that a standby may read at; ``None`` if there is none."""
        while self._words and self._words[0].ends_at_s <= now_s:
            self._words.popleft()
        return self._words[0].horizon if self._words else None

    def is_known(self, now_s: float) -> bool:
        """Whether every standby that lives must have been heard of."""
        return self._known_from_s is not None and now_s >= self._known_from_s
