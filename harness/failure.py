"""Why a run is red, as data that sweeps group by."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import PurePath
from types import TracebackType

from harness.backend import Event
from harness.checkers.logs import CHECKER as LOGS
from harness.errors import CheckFailed, NodeDied, NotLive, ScenarioFailed
from harness.runner import RunResult
from harness.verdict import Failure, FailureKind, Verdict

OURS = ("storage", "harness", "sim", "real", "scenarios")


def failure_of(result: RunResult) -> Failure | None:
    """The failure of a run that is not green; ``None`` for one that is."""
    if result.error is None:
        return None
    error = root_of(result.error)
    kind = str(kind_of(error)) if result.verdict is Verdict.FAILED else str(result.verdict)
    name = type(error).__name__
    checker = error.checker if isinstance(error, CheckFailed) else ""
    return Failure(
        kind=kind,
        oracle=f"{name}: {checker}" if checker else name,
        place=place_of(error.__traceback__),
        faults=struck(result.evidence.events),
    )


def root_of(error: BaseException) -> BaseException:
    """What went wrong in the background, if that is why a scenario failed; else the error."""
    while isinstance(error, ScenarioFailed) and error.__cause__ is not None:
        error = error.__cause__
    return error


def kind_of(error: BaseException) -> FailureKind:
    """Which sort of promise is broken by what ended a failed run."""
    if isinstance(error, NotLive):
        return FailureKind.LIVENESS
    if isinstance(error, NodeDied) or (isinstance(error, CheckFailed) and error.checker == LOGS):
        return FailureKind.CRASH
    if isinstance(error, CheckFailed):
        return FailureKind.SAFETY
    if isinstance(error, AssertionError) and not _is_of_storage(error.__traceback__):
        return FailureKind.SAFETY
    return FailureKind.CRASH


def place_of(trace: TracebackType | None) -> str:
    """File and function that the error came from, of ours if any; lines move with every edit."""
    frames = [(PurePath(frame.filename), frame.name) for frame in traceback.extract_tb(trace)]
    ours = [(path, name) for path, name in frames if _package_at(path) is not None]
    if not frames:
        return ""
    path, name = (ours or frames)[-1]
    return f"{'/'.join(path.parts[_package_at(path) or -1 :])} {name}"


def struck(events: Iterable[Event]) -> tuple[str, ...]:
    """The plan's faults that were caused, each name once, in alphabetical order."""
    verbs = {
        str(event.fields["verb"])
        for event in events
        if event.kind == "fault" and "step" in event.fields
    }
    return tuple(sorted(verbs - {"end"}))


def _is_of_storage(trace: TracebackType | None) -> bool:
    return place_of(trace).startswith("storage/")


def _package_at(path: PurePath) -> int | None:
    """Where among a path's parts our package is; ``None`` for what is not ours."""
    if "site-packages" in path.parts:
        return None
    found = [number for number, part in enumerate(path.parts[:-1]) if part in OURS]
    return found[-1] if found else None
