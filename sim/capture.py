"""Log records of a simulated world, each attributed to the node whose code logged it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from harness.backend import LogLine
from sim.node import current_incarnation, current_node

if TYPE_CHECKING:
    from sim.loop import SimLoop


class LogCapture(logging.Handler):
    """Collects what is logged while the loop runs; the dead log nothing.

    Install with :meth:`install`, which also sets the root logger's level, and :meth:`remove`.
    """

    def __init__(self, loop: SimLoop, level: int) -> None:
        super().__init__(level)
        self.setFormatter(logging.Formatter("%(message)s"))
        self.lines: list[LogLine] = []
        self._loop = loop
        self._root_level = logging.WARNING
        self._installed = False

    def install(self) -> None:
        """Listen to every logger."""
        root = logging.getLogger()
        self._root_level = root.level
        root.setLevel(min(self.level, root.level or logging.WARNING))
        root.addHandler(self)
        self._installed = True

    def remove(self) -> None:
        """Stop listening; the lines stay. Harmless when it does not listen."""
        if self._installed:
            self._installed = False
            root = logging.getLogger()
            root.removeHandler(self)
            root.setLevel(self._root_level)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record, with its backtraces."""
        incarnation = current_incarnation.get()
        if not self._loop.is_running() or (incarnation is not None and not incarnation.alive):
            return
        at_s = self._loop.environment.now - self._loop.trace.start_s
        text = self.format(record)
        self.lines.append(LogLine(at_s, current_node(), record.levelname, text))
