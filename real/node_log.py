"""A node's log and events as files: written by the node, read by the backend.

``node.log``: ``<monotonic seconds> <LEVEL> <logger>: <message>``, one record per line; further
lines of a record (tracebacks) begin with ``CONTINUATION``; any other line came past ``logging``
(the interpreter's own stderr) and is read as an ERROR.
``events.jsonl``: ``[monotonic seconds, kind, {fields}]``, one event per line.
CLOCK_MONOTONIC is one for the machine, so files of several processes can be merged.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from harness.backend import Event, LogLine
from storage.events import Field

CONTINUATION = "  | "
EVENTS_IN_MEMORY_MAX = 512
_RECORD = re.compile(r"(\d+\.\d{6}) ([A-Z]+) (.*)\Z", re.DOTALL)
_UNFORMATTED_LEVEL = "ERROR"


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace("\n", "\n" + CONTINUATION)
        return f"{time.monotonic():.6f} {record.levelname} {record.name}: {text}"


def start_logging(level: int = logging.INFO) -> None:
    """Send every record of this process, warnings included, to its stderr (the log file)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)


class EventFile:
    """A sink of ``storage.events`` that buffers; :meth:`write` at intervals and at the end.

    Every runtime of a node may use it.
    """

    def __init__(self, path: Path) -> None:
        _cut_to_whole_lines(path)
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, kind: str, fields: dict[str, Field]) -> None:
        """Note one event."""
        with self._lock:
            self._lines.append(json.dumps([time.monotonic(), kind, fields], separators=(",", ":")))
        if len(self._lines) >= EVENTS_IN_MEMORY_MAX:
            self.write()

    def write(self) -> None:
        """Move what is in memory to the file."""
        with self._lock:
            if self._lines:
                lines, self._lines = self._lines, []
                self._file.write("\n".join(lines) + "\n")
                self._file.flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        self.write()
        self._file.close()


def _cut_to_whole_lines(path: Path) -> None:
    """Drop what a crash left of a last line, so that the next incarnation's first one is whole."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            os.truncate(path, whole)


def read_log(path: Path, node: str, start_s: float) -> Iterator[LogLine]:
    """Records of a node's log, times counted from ``start_s``; nothing if there is no file."""
    if not path.exists():
        return
    pending: LogLine | None = None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(CONTINUATION) and pending is not None:
            text = f"{pending.text}\n{line.removeprefix(CONTINUATION)}"
            pending = LogLine(pending.at_s, node, pending.level, text)
            continue
        if pending is not None:
            yield pending
        match = _RECORD.match(line)
        if match is not None:
            pending = LogLine(float(match[1]) - start_s, node, match[2], match[3])
        else:
            at_s = pending.at_s if pending is not None else 0.0
            pending = LogLine(at_s, node, _UNFORMATTED_LEVEL, line)
    if pending is not None:
        yield pending


def read_events(path: Path, node: str, start_s: float) -> Iterator[Event]:
    """Events of a node; a last line that a crash cut short is left out."""
    for at_s, kind, fields in read_json_lines(path):
        yield Event(at_s - start_s, node, kind, fields)


def read_new_events(path: Path, offset: int, node: str, start_s: float) -> tuple[list[Event], int]:
    """Complete events from a byte offset on, and the offset behind the last of them."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    rows = [json.loads(line) for line in whole.splitlines()]
    events = [Event(at_s - start_s, node, kind, fields) for at_s, kind, fields in rows]
    return events, offset + len(whole)


def read_messages(path: Path, start_s: float) -> Iterator[Event]:
    """The hub's log of messages as ``message`` events of their targets."""
    for at_s, source, target, size, lost in read_json_lines(path):
        fields: dict[str, Field] = {"src": source, "dst": target, "bytes": size}
        if lost:
            fields["lost"] = True
        yield Event(at_s - start_s, target, "message", fields)


def read_json_lines(path: Path) -> Iterator[list[Any]]:
    """Every complete line of a JSON lines file; nothing if there is no file."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
