"""Errors of the harness; with ``storage.errors`` they say whose fault a red run is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from storage.errors import SeawallError


class CheckFailed(SeawallError):
    """The system under test broke a promise. ``checker`` names the oracle that saw it."""

    def __init__(self, message: str, *, checker: str) -> None:
        super().__init__(message)
        self.checker = checker


class NotLive(CheckFailed):
    """Something that had to happen within a bound did not; the message says what is stuck."""


class NodeDied(CheckFailed):
    """A node ended by itself while something waited for it; the message says why and where."""

    def __init__(self, message: str) -> None:
        super().__init__(message, checker="node died")


class HarnessError(SeawallError):
    """Our own tool, or the way it was called, is wrong; the message says what to change."""


class ScenarioFailed(HarnessError):
    """Something of the scenario failed in the background, or any code spoilt the run; the cause,
    if there is one, says whose fault that was."""

    @classmethod
    def of(cls, failures: Sequence[Mapping[str, Any]]) -> Self:
        """From what the loop's exception handler was told; the first one is the cause."""
        assert failures, "nothing failed"
        lines = [f"{each.get('message')}: {each.get('exception')!r}" for each in failures]
        what = "a background task or callback of the program failed:"
        error = cls("\n  ".join([what, *lines]))
        error.__cause__ = failures[0].get("exception")
        return error


class Inconclusive(HarnessError):
    """The run proved nothing: its faults had no effect, or nothing was committed or read back."""


class NotYet(SeawallError):
    """Raised by a check inside ``World.eventually``: look again later. Nothing else is retried."""


class UnsupportedFault(HarnessError):
    """The world cannot produce this fault; the scenario is skipped with this reason."""
