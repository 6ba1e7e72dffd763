"""Order of a timeline's uploads, pure: what may run together, what must wait for what.

Operations take effect in the order they were scheduled. Layers scheduled next to each other are
uploaded together; an index waits for every layer before it, deletions wait for the index before
them, and whatever follows a deletion waits for that (BUGBANK ``upload-put-delete-reordered``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from storage.marks import Mark, reach
from storage.pageserver.index import TimelineIndex
from storage.pageserver.layer import Layer
from storage.pageserver.layer_name import LayerName

UPLOADS_AT_ONCE = 4
"""Layers of one timeline that are uploaded at the same time."""


@dataclass(frozen=True, slots=True)
class PutLayer:
    """Upload a layer's file."""

    layer: Layer


@dataclass(frozen=True, slots=True)
class PutIndex:
    """Upload the index; it names only layers scheduled before."""

    index: TimelineIndex


@dataclass(frozen=True, slots=True)
class DeleteLayers:
    """Delete layers that the index before names no more."""

    names: tuple[LayerName, ...]


Operation = PutLayer | PutIndex | DeleteLayers


class UploadQueue:
    """First in, first out, in batches."""

    def __init__(self) -> None:
        self._operations: deque[Operation] = deque()
        self._in_progress = 0

    def __len__(self) -> int:
        return len(self._operations)

    def schedule(self, operation: Operation) -> None:
        """Append an operation; an index directly after a waiting index takes its place."""
        waiting = len(self._operations) - self._in_progress
        if waiting and isinstance(operation, PutIndex):
            last = self._operations[-1]
            if isinstance(last, PutIndex):
                reach(Mark.INDEX_SKIPPED)
                self._operations.pop()
        self._operations.append(operation)

    def start_batch(self) -> list[Operation]:
        """The operations that may run now, together; call :meth:`finish_batch` afterwards."""
        assert not self._in_progress, "the batch before is not finished"
        batch: list[Operation] = []
        for operation in self._operations:
            if batch and not self._may_join(batch, operation):
                break
            batch.append(operation)
        self._in_progress = len(batch)
        return batch

    def _may_join(self, batch: list[Operation], operation: Operation) -> bool:
        return (
            isinstance(operation, PutLayer)
            and isinstance(batch[0], PutLayer)
            and len(batch) < UPLOADS_AT_ONCE
        )

    def finish_batch(self) -> None:
        """The batch has taken effect; forget it."""
        assert self._in_progress, "no batch is in progress"
        for _ in range(self._in_progress):
            self._operations.popleft()
        self._in_progress = 0

    def interrupt_batch(self) -> None:
        """The batch may or may not have taken effect; it stays first in line."""
        self._in_progress = 0
