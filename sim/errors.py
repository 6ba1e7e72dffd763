"""Errors of the simulation kernel: each says what the program did and what to write instead."""

from __future__ import annotations

from harness.errors import HarnessError


class SimulationError(HarnessError):
    """The simulated program, or the way the kernel was called, cannot continue."""


class Deadlock(SimulationError):
    """Nothing is scheduled and the main coroutine is unfinished; lists what every task awaits."""


class Livelock(SimulationError):
    """One instant of virtual time ran more callbacks than allowed: something spins."""


class Nondeterminism(SimulationError):
    """Simulated code asked the outside world for time, entropy, a thread or a socket."""


class UnsupportedApi(SimulationError, NotImplementedError):
    """The loop does not simulate this API; the message names the alternative."""


class WorldOver(SimulationError):
    """The loop is closed: nothing can be scheduled any more."""
