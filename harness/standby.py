"""A standby as a scenario holds it: an endpoint whose replay can be paused."""

from __future__ import annotations

from harness.endpoint import Refused
from harness.endpoint_handle import EndpointHandle
from harness.errors import CheckFailed, NotYet
from storage.lsn import Lsn

OUT_OF_SCOPE = "22003"


class StandbyHandle(EndpointHandle):
    """A compute that follows the WAL of another and reads where it has replayed to.

    Once its pageserver is known to have :meth:`heard` of it, no read may find its LSN gone.
    """

    is_promised = False

    async def scan(self, first: int, end: int) -> list[tuple[int, str]]:
        """See :meth:`harness.endpoint.Client.scan`."""
        try:
            return await super().scan(first, end)
        except Refused as error:
            if self.is_promised and error.sqlstate == OUT_OF_SCOPE:
                raise CheckFailed(
                    f"{self.name} said where it reads, and is refused: {error}", checker="refusals"
                ) from error
            raise

    async def heard(self) -> None:
        """Return once its pageserver holds garbage collection back for it; ``NotYet`` before."""
        shown = await self.pageserver.timeline(self.timeline)
        if shown.standby_horizon_lsn is None:
            raise NotYet(f"{self.pageserver.name} knows of no standby")
        self.is_promised = True

    async def pause(self) -> Lsn:
        """Let replay stand still, as a long query on a stock standby may; returns where."""
        return await self._replay(paused=True)

    async def resume(self) -> None:
        """Let replay go on."""
        await self._replay(paused=False)

    async def replayed(self) -> Lsn:
        """How far it has replayed."""
        return Lsn.parse((await self.endpoint.status())["replay_lsn"])

    async def _replay(self, *, paused: bool) -> Lsn:
        (node,) = self.nodes
        answer = await node.http("PUT", "/replay", {"paused": paused})
        return Lsn.parse(answer["replay_lsn"])
