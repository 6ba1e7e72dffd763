"""Clients that work all the while: loads on whichever compute is the primary now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.backend import HARNESS
from harness.endpoint_handle import EndpointHandle
from harness.workload import Load, Workload

if TYPE_CHECKING:
    from harness.world import World


class Traffic:
    """Loads of a campaign, by endpoint; ``primary`` is where readers are sent."""

    def __init__(self, world: World, primary: EndpointHandle, options: Workload) -> None:
        self.world = world
        self.primary = primary
        self._options = options
        self._loads: dict[str, Load] = {}

    @property
    def load(self) -> Load:
        """The load on the primary."""
        return self._loads[self.primary.name]

    def start(self) -> None:
        """Begin on the primary."""
        self._begin(self.primary, self._options)

    def _begin(self, endpoint: EndpointHandle, options: Workload) -> None:
        assert endpoint.name not in self._loads, f"{endpoint.name} has a load already"
        load = self._loads[endpoint.name] = self.world.load(endpoint, options)
        load.start()

    async def demote(self, old: EndpointHandle) -> None:
        """Send no reader to ``old`` any more; writers that know no better stay.

        A deposed primary may answer reads from memory, as PostgreSQL's would: whoever reads must
        be told of the successor. Writes must fail by themselves.
        """
        await self._stop(old.name)
        self._begin(old, self._options.writing_only())

    async def hand_over(self, successor: EndpointHandle) -> None:
        """Send readers and writers to ``successor``, besides the writers left behind."""
        await self._stop(successor.name)
        self.primary = successor
        self._begin(successor, self._options)

    async def hand_back(self, primary: EndpointHandle) -> None:
        """Send everybody to ``primary``."""
        await self.stop()
        self.primary = primary
        self._begin(primary, self._options)

    async def _stop(self, name: str) -> None:
        load = self._loads.pop(name, None)
        if load is not None:
            self.break_off(name)
            await load.stop()

    async def stop(self) -> None:
        """End every load; what hangs is broken off, its outcome unknown."""
        for name in list(self._loads):
            await self._stop(name)

    def break_off(self, name: str) -> None:
        """Break the clients' connections: those that wait for an answer of the dead go on."""
        self.world.backend.network.reset(HARNESS, name)
