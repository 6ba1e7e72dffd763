"""The identity of a run: every event in order, folded into a rolling digest.

Entries are tuples of plain values. Kernel entries (one per instant, one per delivery) arrive by
:attr:`Trace.append`, a bare list append; :meth:`Trace.fold` hashes them in chunks, so tracing is
cheap enough to be always on. Two runs are the same run when their digests are equal.
"""

from __future__ import annotations

import hashlib
import marshal
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from harness.backend import Event
from storage.events import Field

_DIGEST_DIGITS = 32
_MARSHAL_VERSION = 2  # The newest version whose bytes do not depend on interning and references.
_LIST_HEADER = 5  # Marshal's type and length: left out, so that chunking does not change digests.
_PLAIN = (int, str, bool, type(None))

Entry = tuple[Any, ...]
"""``(at_s, kind, …)``: built-in values only, of types that marshal."""

INSTANT = "instant"
"""Kind of the entry ``(at_s, INSTANT, callbacks run)`` of an instant that left no other entry."""
MESSAGE = "message"
"""Kind of the entry ``(at_s, MESSAGE, source, target, bytes, crc32c, sent_at_s)`` of a delivery."""


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """``entries_max``: how many of the newest raw entries, deliveries among them, stay readable.

    ``None`` keeps all, to find where two runs diverge. Typed events are kept whatever it is.
    """

    entries_max: int | None = 1_000_000


class Trace:
    """Collects entries; ``digest()`` identifies all of them, ``events()`` returns the kept ones."""

    def __init__(self, options: TraceOptions, start_s: float) -> None:
        self.options = options
        self.start_s = start_s
        self.pending: list[Entry] = []
        """Entries not hashed yet; the loop looks whether an instant left any."""
        self.append: Callable[[Entry], None] = self.pending.append
        self.callbacks = 0
        """How many callbacks the loop has run; part of the digest."""
        self._hash = hashlib.sha256()
        self._folded = 0
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._observations: list[tuple[int, Event]] = []
        self.listeners: list[Callable[[Event], None]] = []
        """Told of every typed event at once; none may act, only wake somebody."""

    def observe(self, at_s: float, node: str, kind: str, fields: Mapping[str, Field]) -> None:
        """Record a typed event of a node, the process table or a fault."""
        plain = {name: _plain(value) for name, value in fields.items()}
        event = Event(at_s - self.start_s, node, kind, plain)
        self._observations.append((len(self), event))
        self.append((at_s, kind, node, tuple(plain.items())))
        for listener in self.listeners:
            listener(event)

    def fold(self) -> None:
        """Hash the pending entries and keep them, marshalled, while they are among the newest.

        For the loop, between two instants; readers see the same whether it was called or not.
        """
        pending = self.pending
        packed = marshal.dumps(pending, _MARSHAL_VERSION)
        self._hash.update(memoryview(packed)[_LIST_HEADER:])
        self._chunks.append((self._folded, packed))
        self._folded += len(pending)
        pending.clear()
        kept_max = self.options.entries_max
        while (
            kept_max is not None and self._chunks and self._folded - self._chunks[0][0] > kept_max
        ):
            self._chunks.popleft()

    def digest(self) -> str:
        """32 hex digits that identify everything recorded so far."""
        whole = self._hash.copy()
        whole.update(marshal.dumps(self.pending, _MARSHAL_VERSION)[_LIST_HEADER:])
        whole.update(b"%d entries, %d callbacks" % (len(self), self.callbacks))
        return whole.hexdigest()[:_DIGEST_DIGITS]

    def __len__(self) -> int:
        """How many entries were recorded, kept or not."""
        return self._folded + len(self.pending)

    def entries(self) -> list[Entry]:
        """The kept raw entries, oldest first."""
        return [entry for _, entry in self._numbered()]

    def observations(self) -> list[Event]:
        """Typed events without deliveries, in order."""
        return [event for _, event in self._observations]

    def events(self) -> list[Event]:
        """Typed events and the kept deliveries, in order; times count from the run's start."""
        merged = list(self._observations)
        for number, entry in self._numbered():
            if entry[1] == MESSAGE:
                merged.append((number, self._message(entry)))
        merged.sort(key=itemgetter(0))
        return [event for _, event in merged]

    def _numbered(self) -> Iterator[tuple[int, Entry]]:
        for first, packed in self._chunks:
            yield from enumerate(marshal.loads(packed), first)
        yield from enumerate(self.pending, self._folded)

    def _message(self, entry: Entry) -> Event:
        at_s, _, source, target, size, _, sent_at_s = entry
        sent_us = round((sent_at_s - self.start_s) * 1e6)
        fields = {"src": source, "dst": target, "bytes": size, "sent_us": sent_us}
        return Event(at_s - self.start_s, target, MESSAGE, fields)


def _plain(value: Field) -> Field:
    """The value as an exact built-in, so that entries marshal alike everywhere."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, int):
        return int(value)
    return str(value)


def first_divergence(one: Trace, other: Trace) -> str | None:
    """Where two runs first differ, for people; ``None`` if they are the same run.

    Both traces need ``TraceOptions(entries_max=None)``.
    """
    left, right = one.entries(), other.entries()
    for index, (mine, theirs) in enumerate(zip(left, right, strict=False)):
        if mine != theirs:
            return f"entry {index}: {mine} against {theirs}"
    if len(left) != len(right):
        longer = left if len(left) > len(right) else right
        return f"entry {min(len(left), len(right))}: {longer[min(len(left), len(right))]} is extra"
    return None
