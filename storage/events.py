"""Observations: typed events that storage code reports and that each world records its own way.

An event never changes what the system does. The sim puts events into the trace (and so into the
digest), real processes write them to ``events.jsonl``; oracles and the report's pictures read both.
Well-known kinds and their fields are listed in ARCHITECTURE.md, "Events".
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

Field = int | str | bool | None
Sink = Callable[[str, dict[str, Field]], None]

current_sink: ContextVar[Sink | None] = ContextVar("current_sink", default=None)


def emit(kind: str, /, **fields: Field) -> None:
    """Report one event to this node's world; does nothing where no world listens."""
    sink = current_sink.get()
    if sink is not None:
        sink(kind, fields)
