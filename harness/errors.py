"""Errors of the harness; with ``storage.errors`` they say whose fault a red run is."""

from __future__ import annotations

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


class Inconclusive(HarnessError):
    """The run proved nothing: its faults had no effect, or nothing was committed or read back."""


class NotYet(SeawallError):
    """Raised by a check inside ``World.eventually``: look again later. Nothing else is retried."""


class UnsupportedFault(HarnessError):
    """The world cannot produce this fault; the scenario is skipped with this reason."""
