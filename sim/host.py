"""Machines of the simulated network: their ports, and whether they have power."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.server import Listener

_FIRST_EPHEMERAL_PORT = 49152
_PORTS_END = 65536


class Host:
    """A machine: its ports, and whether it has power."""

    __slots__ = ("_next_port", "datagram_ports", "listeners", "name", "up")

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = True
        self.listeners: dict[int, Listener] = {}
        self.datagram_ports: dict[int, Any] = {}
        self._next_port = _FIRST_EPHEMERAL_PORT

    def free_port(self) -> int:
        """An ephemeral port nobody listens on; ports repeat after 16,384 connections."""
        for _ in range(_PORTS_END - _FIRST_EPHEMERAL_PORT):
            port = self._next_port
            self._next_port += 1
            if self._next_port == _PORTS_END:
                self._next_port = _FIRST_EPHEMERAL_PORT
            if port not in self.listeners and port not in self.datagram_ports:
                return port
        raise OSError(errno.EADDRINUSE, f"host {self.name} has no free port")
