"""A gate: whoever touches files of a tenant or timeline holds it; closing waits for all of them.

Source of the rule: file operations of a shut-down timeline that ran on and hit the files of its
next attachment (BUGBANK ``old-object-deletes-new-files``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import NotReady


class Gate:
    """Counts the holders. ``name`` appears in the refusal."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._holders = 0
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Stay inside while the block runs; ``NotReady`` once the gate is closed."""
        if self._closed:
            raise NotReady(f"{self._name} is stopping")
        self._holders += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._holders -= 1
            assert self._holders >= 0, "a gate is left as often as it is entered"
            if not self._holders:
                self._empty.set()

    async def close(self) -> None:
        """Let nobody in any more and wait until everybody has left; closing twice is harmless."""
        self._closed = True
        await self._empty.wait()
