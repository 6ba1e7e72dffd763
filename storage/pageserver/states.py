"""States of tenants and timelines, and waiting for them: subscribe first, then look."""

from __future__ import annotations

import asyncio
import enum
from typing import Final

from storage.errors import NotReady, RequestError


class State(enum.StrEnum):
    """Where a tenant or timeline is in its life. The names are part of the HTTP API."""

    ATTACHING = "Attaching"
    ACTIVE = "Active"
    STOPPING = "Stopping"
    BROKEN = "Broken"


TRANSITIONS: Final = {
    State.ATTACHING: (State.ACTIVE, State.STOPPING, State.BROKEN),
    State.ACTIVE: (State.STOPPING, State.BROKEN),
    State.BROKEN: (State.STOPPING,),
    State.STOPPING: (),
}
"""From → allowed next states. Stopping is final: a new attachment is a new object."""


class Broken(RequestError):
    """The tenant or timeline met data it cannot trust and serves nothing any more."""

    kind = "broken"
    http_status = 500
    sqlstate = "XX001"


class StateCell:
    """A state with its reason and its waiters. ``name`` appears in refusals."""

    def __init__(self, name: str, state: State = State.ATTACHING) -> None:
        self._name = name
        self._state = state
        self._reason = ""
        self._changed = asyncio.Event()

    @property
    def state(self) -> State:
        """The present state."""
        return self._state

    @property
    def reason(self) -> str:
        """Why it is broken; empty otherwise."""
        return self._reason

    def set(self, state: State, reason: str = "") -> None:
        """Go on to a state that :data:`TRANSITIONS` allows, and wake the waiters."""
        assert state in TRANSITIONS[self._state], f"{self._name}: {self._state} to {state}"
        self._state = state
        self._reason = reason
        self._changed.set()
        self._changed = asyncio.Event()

    def check_active(self) -> None:
        """Return if active; else raise ``NotReady`` or :class:`Broken` naming the state."""
        if self._state is State.BROKEN:
            raise Broken(f"{self._name} is broken: {self._reason}")
        if self._state is not State.ACTIVE:
            raise NotReady(f"{self._name} is {self._state}")

    async def wait_active(self) -> None:
        """Wait until active; raises as :meth:`check_active` once that cannot come any more."""
        while self._state is State.ATTACHING:
            await self._changed.wait()
        self.check_active()
