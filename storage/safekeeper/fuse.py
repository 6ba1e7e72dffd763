"""The fuse: work on a timeline that is dropped half way must stop the node (SYSTEM.md E2).

A task cancelled, or failed by a defect, between two disk operations leaves memory and disk
disagreeing; nobody could tell what was promised. A crash and a reload from disk is the one state
we know how to continue from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import SeawallError


class FuseBlown(SeawallError):
    """Work on a timeline was dropped half way; the node must restart from its disk."""


class Fuse:
    """One per node; :meth:`blown` is watched by its main."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._blew = asyncio.Event()

    @contextmanager
    def guard(self, work: str) -> Iterator[None]:
        """Errors we raise on purpose may leave the block; anything else blows the fuse."""
        if self._reason is not None:
            raise FuseBlown(self._reason)
        try:
            yield
        except SeawallError:
            raise
        except BaseException as error:
            self._reason = f"{work} was dropped half way: {type(error).__name__}: {error}"
            self._blew.set()
            raise

    def last_word(self) -> FuseBlown | None:
        """What was dropped, if anything was; a task that died of it may be noticed sooner."""
        return None if self._reason is None else FuseBlown(self._reason)

    async def blown(self) -> None:
        """Wait for ever; raises ``FuseBlown`` when the fuse blows."""
        await self._blew.wait()
        raise FuseBlown(self._reason)
