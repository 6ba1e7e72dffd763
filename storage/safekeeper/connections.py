"""Who is connected to one timeline: proposers that push WAL, and readers that stream it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from storage.consensus.messages import AcceptorMessage
from storage.lsn import INVALID_LSN, Lsn


class Pusher(Protocol):
    """A proposer's connection."""

    def post(self, message: AcceptorMessage) -> None:
        """Send an answer without waiting for the peer to take it."""
        ...

    def hang_up(self, reason: str) -> None:
        """End the conversation; the proposer will come back."""
        ...

    def tick(self) -> None:
        """Time passes: hang up if the proposer has been silent for too long."""
        ...


class Reader(Protocol):
    """A stream of WAL that leaves; ``name`` is the client's application name."""

    @property
    def name(self) -> str:
        """Who it is."""
        ...

    @property
    def standby_horizon(self) -> Lsn | None:
        """The oldest LSN that a hot standby reads at; ``None`` for any other reader."""
        ...

    def tick(self) -> None:
        """Time passes: show and ask for a sign of life."""
        ...

    def describe(self) -> dict[str, str | int | bool | None]:
        """For people and tests."""
        ...


class Connections:
    """The connections of one timeline, in order; ``changed`` is called when one comes or goes."""

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self._pushers: dict[int, Pusher] = {}
        self._readers: dict[int, Reader] = {}
        self._added = 0

    @property
    def pushers(self) -> int:
        """Number of proposers connected."""
        return len(self._pushers)

    def add_pusher(self, pusher: Pusher) -> int:
        """A proposer has connected; the number is for :meth:`remove_pusher`."""
        self._added += 1
        self._pushers[self._added] = pusher
        self._changed()
        return self._added

    def remove_pusher(self, number: int) -> None:
        """The proposer's connection is gone."""
        removed = self._pushers.pop(number, None)
        assert removed is not None, f"pusher {number} is removed twice"
        self._changed()

    def hang_up(self, reason: str) -> None:
        """End the conversation with every proposer; those that live come back."""
        for pusher in list(self._pushers.values()):
            pusher.hang_up(reason)

    def add_reader(self, reader: Reader) -> int:
        """Somebody streams WAL from here; the number is for :meth:`remove_reader`."""
        self._added += 1
        self._readers[self._added] = reader
        self._changed()
        return self._added

    def remove_reader(self, number: int) -> None:
        """The stream has ended."""
        removed = self._readers.pop(number, None)
        assert removed is not None, f"reader {number} is removed twice"
        self._changed()

    def has_reader(self, name: str) -> bool:
        """Whether a client of this name streams WAL from here now."""
        return any(reader.name == name for reader in self._readers.values())

    def standby_horizon(self) -> Lsn:
        """The oldest LSN that a hot standby connected here reads at; 0: there is none."""
        horizons = [reader.standby_horizon for reader in self._readers.values()]
        return min([lsn for lsn in horizons if lsn is not None], default=INVALID_LSN)

    def standby_appeared(self) -> None:
        """A reader turned out to be a standby, which others should hear of."""
        self._changed()

    def readers(self) -> list[dict[str, str | int | bool | None]]:
        """Who streams now."""
        return [reader.describe() for reader in self._readers.values()]

    def tick(self) -> None:
        """Time passes, for every connection."""
        connections: list[Pusher | Reader] = [*self._pushers.values(), *self._readers.values()]
        for connection in connections:
            connection.tick()
