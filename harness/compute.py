"""Computes as a world offers them: how a timeline is born and how an endpoint is launched.

``walgen`` is :mod:`harness.walgen`, in every world; ``postgres`` comes from the real world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from harness.endpoint import Endpoint
from storage.ids import TenantTimelineId
from storage.lsn import Lsn

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.nodes import NodeHandle, PageserverHandle, TimelineSpec


@dataclass(frozen=True)
class Launch:
    """An endpoint to launch: ``name`` is its host name, ``pageserver`` has its pages. With ``lsn``
    it is a replica that reads as of that LSN, leased unless told otherwise, and changes nothing.
    With ``feedback``, on or off, it is a standby that follows and says, or not, what it reads."""

    name: str
    timeline: TenantTimelineId
    pageserver: PageserverHandle
    lsn: Lsn | None = None
    lease: bool = True
    feedback: bool | None = None

    @property
    def reads_only(self) -> bool:
        """Whether it changes nothing."""
        return self.lsn is not None or self.feedback is not None


class RunningCompute(Protocol):
    """A launched compute: the nodes it consists of and the endpoint clients talk to."""

    nodes: list[NodeHandle]
    endpoint: Endpoint

    async def start(self, launch: Launch) -> None:
        """Start every node and return when the endpoint serves."""
        ...

    async def stop(self) -> None:
        """Stop gracefully; the endpoint's connections end."""
        ...

    async def kill(self) -> None:
        """Crash every node."""
        ...


class Compute(Protocol):
    """A kind of compute."""

    name: str

    async def create_timeline(
        self, cluster: Cluster, timeline: TenantTimelineId, pageserver: PageserverHandle
    ) -> None:
        """Make a new timeline exist on ``pageserver`` and on every safekeeper."""
        ...

    async def branch_spec(
        self, cluster: Cluster, branch: TenantTimelineId, start_lsn: Lsn
    ) -> TimelineSpec:
        """How safekeepers begin a branch whose own WAL begins at ``start_lsn``."""
        ...

    def compute(self, cluster: Cluster, launch: Launch) -> RunningCompute:
        """A compute for an endpoint, not started yet; ``UnsupportedFault`` for a replica that this
        kind does not have."""
        ...
