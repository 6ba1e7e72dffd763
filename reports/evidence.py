"""Reads what a run left on disk: typed events, effects of faults, an excerpt of its log.

A file that is missing, or a last line that a crash cut short, means less evidence, never an error:
the report is read most when something went wrong.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEAD_LINES, TAIL_LINES, ALARM_LINES_MAX = 300, 900, 300
LINE_CHARACTERS_MAX = 1200
ALARMS = ("WARNING", "ERROR", "CRITICAL")
_RECORD = re.compile(r"\s*[\d.]+\s+\S+\s+(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One typed event of a run; times in seconds from the run's start."""

    at_s: float
    node: str
    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogExcerpt:
    """Text of a log; ``left_out`` lines of it are replaced by sentences that say so."""

    text: str = ""
    lines: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a run left; ``directory`` is where the whole of it is."""

    directory: Path
    log: LogExcerpt = field(default_factory=LogExcerpt)
    events: list[TraceEvent] = field(default_factory=list)
    effects: dict[str, int] = field(default_factory=dict)


def read_evidence(directory: Path) -> Evidence:
    """The files of one run; what is missing is empty."""
    effects: dict[str, int] = next(_json_lines(directory / "effects.json"), {})
    events = [
        TraceEvent(row["at_s"], row["node"], row["kind"], row["fields"])
        for row in _json_lines(directory / "events.jsonl")
    ]
    return Evidence(directory, _log_excerpt(directory / "log.txt"), events, effects)


def _json_lines(path: Path) -> Iterator[Any]:
    """Each line's value, up to the first line that is not JSON."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return


def _log_excerpt(path: Path) -> LogExcerpt:
    """Beginning and end of a log, and the alarms between them; memory is bounded."""
    if not path.is_file():
        return LogExcerpt()
    kept: list[tuple[int, str]] = []
    tail: deque[tuple[int, str, bool]] = deque()
    count, alarming, alarms = 0, False, 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for count, line in enumerate(file, 1):
            record = _RECORD.match(line)
            alarming = record[1] in ALARMS if record else alarming
            if count <= HEAD_LINES:
                kept.append((count, _shortened(line)))
                continue
            tail.append((count, _shortened(line), alarming))
            if len(tail) > TAIL_LINES:
                number, text, alarm = tail.popleft()
                if alarm and alarms < ALARM_LINES_MAX:
                    kept.append((number, text))
                    alarms += 1
    kept += [(number, text) for number, text, _ in tail]
    return LogExcerpt("\n".join(_with_gaps(kept)), count, count - len(kept))


def _shortened(line: str) -> str:
    text = line.rstrip("\n")
    if len(text) <= LINE_CHARACTERS_MAX:
        return text
    return f"{text[:LINE_CHARACTERS_MAX]} … {len(text) - LINE_CHARACTERS_MAX} more characters"


def _with_gaps(kept: list[tuple[int, str]]) -> Iterator[str]:
    """The kept lines, and a sentence wherever lines between them are left out."""
    last = 0
    for number, text in kept:
        if number > last + 1:
            yield f"… {number - last - 1} lines left out …"
        yield text
        last = number
