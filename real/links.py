"""The directions of the hub's network: their faults, what those did, and a log of messages.

A direction is (source, target) by host name. A link does nothing itself; pipes ask it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import TextIO

MERGE_S = 0.001
"""Bytes of one direction that follow each other closer than this are one message of the log."""

MESSAGES_MAX = 200_000
_CHANCE = random.Random(0)


class MessageLog:
    """Who sent how many bytes to whom and when.

    Lines ``[monotonic seconds, source, target, bytes, lost]``.
    Bounded: past ``MESSAGES_MAX`` only ``skipped`` counts on.
    """

    def __init__(self, path: Path) -> None:
        self._lines: list[tuple[float, str, str, int, bool]] = []
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._count = 0
        self.skipped = 0

    def add(self, at_s: float, link: Link, size: int, lost: bool) -> None:
        """Note one finished message."""
        if self._count >= MESSAGES_MAX:
            self.skipped += 1
            return
        self._count += 1
        self._lines.append((at_s, link.source, link.target, size, lost))

    def write(self) -> None:
        """Move what is in memory to the file."""
        lines, self._lines = self._lines, []
        self._file.write("".join(json.dumps(line) + "\n" for line in lines))
        self._file.flush()


class Link:
    """One direction and its faults. ``clear`` means bytes may take the fast path."""

    __slots__ = (
        "_log",
        "_pending_bytes",
        "_pending_lost",
        "_pending_s",
        "_released",
        "clear",
        "cut",
        "delay_s",
        "effects",
        "fragmentation",
        "held",
        "source",
        "target",
    )

    def __init__(self, source: str, target: str, effects: Counter[str], log: MessageLog) -> None:
        self.source = source
        self.target = target
        self.effects = effects
        self.clear = True
        self.cut = False
        self.held = False
        self.delay_s = 0.0
        self.fragmentation = 0.0
        self._released = asyncio.Event()
        self._log = log
        self._pending_s = 0.0
        self._pending_bytes = 0
        self._pending_lost = False

    def set_faults(
        self,
        *,
        cut: bool | None = None,
        held: bool | None = None,
        delay_s: float | None = None,
        fragmentation: float | None = None,
    ) -> None:
        """Change some faults, keep the others."""
        self.cut = self.cut if cut is None else cut
        self.held = self.held if held is None else held
        self.delay_s = self.delay_s if delay_s is None else delay_s
        self.fragmentation = self.fragmentation if fragmentation is None else fragmentation
        assert self.delay_s >= 0, f"a delay of {self.delay_s} s"
        assert 0 <= self.fragmentation <= 1, f"a chance of {self.fragmentation}"
        self.clear = not (self.cut or self.held or self.delay_s or self.fragmentation)
        if self.cut or not self.held:
            self._released.set()
            self._released = asyncio.Event()

    def record(self, size: int, lost: bool = False) -> None:
        """Note ``size`` bytes for the message log; neighbours in time become one message."""
        now_s = time.monotonic()
        if now_s - self._pending_s < MERGE_S and lost == self._pending_lost:
            self._pending_bytes += size
            return
        self.flush()
        self._pending_s, self._pending_bytes, self._pending_lost = now_s, size, lost

    def flush(self) -> None:
        """Hand the message under way to the log."""
        if self._pending_bytes:
            self._log.add(self._pending_s, self, self._pending_bytes, self._pending_lost)
            self._pending_bytes = 0

    def split_at(self, size: int) -> int:
        """Where this write breaks in two, or 0 if it arrives whole."""
        if size < 2 or not self.fragmentation or _CHANCE.random() >= self.fragmentation:
            return 0
        self.effects["writes_broken"] += 1
        return _CHANCE.randrange(1, size)

    async def cross(self) -> bool:
        """Let one packet of a handshake cross; ``False`` when it vanished."""
        if self.held and not self.cut:
            self.effects["connections_held"] += 1
        while self.held and not self.cut:
            await self._released.wait()
        if self.delay_s and not self.cut:
            self.effects["connections_delayed"] += 1
            await asyncio.sleep(self.delay_s)
        return not self.cut
