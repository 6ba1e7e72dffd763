"""Slips of our own that really happened here: in what is received, and in who is answered when.

Both were found by a bound on how long a migration may hold clients up; commits that are prompt
where nothing is wrong, and messages that arrive whole, are demanded everywhere now.
"""

from __future__ import annotations

from collections.abc import Sequence

from scenarios.bugs.slip import slip
from storage.safekeeper.connections import Pusher
from storage.safekeeper.state import WriteBatch
from storage.safekeeper.timeline import Timeline
from storage.wire.codec import Connection

_flushed = Timeline._flushed


def _feed_over_what_waits(self: Connection, data: bytes) -> None:
    """A message was taken whole while the beginning of the next one waited behind it: what comes
    now lies in front of that beginning (83a8357)."""
    if self._offset == len(self._data):
        self._data = data
        self._offset = 0
    else:
        self._later.append(data)
        self._later_size += len(data)


def _answer_everybody(self: Timeline, batch: WriteBatch, unanswered: Sequence[Pusher]) -> None:
    """Also who wrote during the flush is answered, and nobody when that is flushed (52be41c)."""
    late, self._unanswered = self._unanswered, []
    _flushed(self, batch, [*unanswered, *(each for each in late if each not in unanswered)])


BUGS = (
    slip("own-received-out-of-order", "O10 O12", "messages that arrive in pieces",
          (Connection, "feed", _feed_over_what_waits)),
    slip("own-flush-answers-everybody", "O10", "a write during a flush, then silence",
          (Timeline, "_flushed", _answer_everybody)),
)  # fmt: skip
