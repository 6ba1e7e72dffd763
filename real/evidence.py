"""What a run leaves for oracles and reports: logs, events and messages, merged by time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from harness.backend import HARNESS, Event, LogLine
from harness.errors import HarnessError
from real import node_log
from real.network import HubClient
from real.run_directory import RunDirectory
from storage.events import Field

FOLLOW_S = 0.1
"""How often the event files of nodes are looked at for those who follow them."""


class Evidence:
    """Reads the files of a run's nodes; keeps everything in memory once sealed."""

    def __init__(self, directory: RunDirectory) -> None:
        self.start_s = time.monotonic()
        self._directory = directory
        self._nodes: list[str] = []
        self._noted_events: list[Event] = []
        self._noted_lines: list[LogLine] = []
        self._sealed: tuple[list[LogLine], Sequence[Event]] | None = None

    def now_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.start_s

    def add_node(self, name: str) -> None:
        """A node whose files are to be read."""
        if name not in self._nodes:
            self._nodes.append(name)

    def note(self, node: str, kind: str, **fields: Field) -> None:
        """An event that the backend itself saw."""
        self._noted_events.append(Event(self.now_s(), node, kind, fields))

    def note_fault(self, **fields: Field) -> None:
        """A fault that the harness made."""
        self.note(HARNESS, "fault", **fields)

    def complain(self, node: str, text: str, level: str = "ERROR") -> None:
        """A log line of the harness, about a node that cannot say it itself or about itself."""
        self._noted_lines.append(LogLine(self.now_s(), node, level, text))

    def logs_of(self, name: str) -> Iterator[LogLine]:
        """One node's log records so far."""
        return node_log.read_log(self._directory.of_node(name) / "node.log", name, self.start_s)

    def logs(self) -> Sequence[LogLine]:
        """Every log record so far, in order of time."""
        # What goes wrong while the run is closed is noted after the files are sealed.
        lines = self._lines_of_nodes() if self._sealed is None else self._sealed[0]
        return sorted(lines + self._noted_lines, key=lambda line: line.at_s)

    def _lines_of_nodes(self) -> list[LogLine]:
        return [line for name in self._nodes for line in self.logs_of(name)]

    def events(self, hub: HubClient) -> Sequence[Event]:
        """Every event so far, in order of time; those of nodes up to 0.2 s late."""
        if self._sealed is not None:
            return self._sealed[1]
        with contextlib.suppress(HarnessError):  # Without a hub there are its messages so far.
            hub.ask("flush")
        found = list(self._noted_events)
        for name in self._nodes:
            path = self._directory.of_node(name) / "events.jsonl"
            found += node_log.read_events(path, name, self.start_s)
        found += node_log.read_messages(self._directory.path / "messages.jsonl", self.start_s)
        return sorted(found, key=lambda event: event.at_s)

    async def follow(self, listener: Callable[[Event], None]) -> None:
        """Hand every event that nodes write from now on to ``listener``; never ends."""
        offsets: dict[str, int] = {}
        now_s = self.now_s()
        while True:
            for name in self._nodes:
                path = self._directory.of_node(name) / "events.jsonl"
                events, offsets[name] = node_log.read_new_events(
                    path, offsets.get(name, 0), name, self.start_s
                )
                for event in events:
                    if event.at_s >= now_s:
                        listener(event)
            await asyncio.sleep(FOLLOW_S)

    def seal(self, hub: HubClient) -> None:
        """Read everything for the last time; the files may go."""
        self._sealed = (self._lines_of_nodes(), self.events(hub))


class HarnessLog(logging.Handler):
    """Notes what the harness's own process logs at WARNING or above, while :meth:`listening`.

    ``note`` gets level and text. The simulation judges these lines too.
    """

    def __init__(self, note: Callable[[str, str], None]) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        """Note one record, with its backtraces."""
        self._note(record.levelname, self.format(record))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear every logger while the block runs."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)
