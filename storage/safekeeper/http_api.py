"""The safekeeper's HTTP API: create and inspect timelines, subscribe pageservers."""

from __future__ import annotations

from typing import Any

from storage.http.api import Api, Request
from storage.http.schema import BOOLEAN, LSN, NATURAL, TEXT, list_of, object_of
from storage.ids import TenantTimelineId
from storage.safekeeper.callmemaybe import CallMeMaybe
from storage.safekeeper.control_state import TimelineIdentity
from storage.safekeeper.environment import Environment
from storage.safekeeper.pull import Puller
from storage.safekeeper.remote_wal import remove_remote_wal
from storage.safekeeper.status import describe
from storage.safekeeper.timelines import Timelines

_TIMELINE = "/tenant/{tenant_id}/timeline/{timeline_id}"
_SUBSCRIPTION = _TIMELINE + "/subscription/{pageserver}"


class SafekeeperApi:
    """Handlers over the node's timelines and subscriptions."""

    def __init__(
        self,
        environment: Environment,
        timelines: Timelines,
        callmemaybe: CallMeMaybe,
        puller: Puller,
    ) -> None:
        self._environment = environment
        self._timelines = timelines
        self._callmemaybe = callmemaybe
        self._puller = puller

    def api(self) -> Api:
        """The routes, below ``/v1``."""
        api = Api("Seawall safekeeper")
        identity = {
            "start_lsn": LSN,
            "system_id": NATURAL,
            "pg_version": NATURAL,
            "wal_segment_size": NATURAL,
            "safekeepers": list_of(TEXT),
        }
        api.add("POST", _TIMELINE, self.create, summary="Create a timeline",
                body=object_of(identity))  # fmt: skip
        api.add("GET", _TIMELINE, self.status, summary="Terms, LSNs and connections")
        api.add("DELETE", _TIMELINE, self.delete, summary="Delete a timeline for good",
                query=object_of({}, {"remote": BOOLEAN}))  # fmt: skip
        api.add("POST", _TIMELINE + "/pull", self.pull, summary="Copy a timeline from a peer",
                body=object_of({"donors": list_of(TEXT)}))  # fmt: skip
        api.add("POST", _TIMELINE + "/patch", self.patch, summary="Change an LSN, for tests",
                body=object_of({"backup_lsn": LSN}))  # fmt: skip
        api.add("PUT", _SUBSCRIPTION, self.subscribe, summary="Call a pageserver for WAL")
        api.add("DELETE", _SUBSCRIPTION, self.unsubscribe, summary="Call it no more")
        api.add("GET", _TIMELINE + "/digest", self.digest, summary="SHA-256 of a range of WAL",
                query=object_of({"from_lsn": LSN, "until_lsn": LSN}))  # fmt: skip
        return api

    async def create(self, request: Request) -> Any:
        """Create a timeline, or confirm that it exists with the same parameters."""
        body = request.body
        identity = TimelineIdentity(
            tenant_id=request.tenant_id(),
            timeline_id=request.timeline_id(),
            start_lsn=request.lsn("start_lsn"),
            system_id=body["system_id"],
            pg_version=body["pg_version"],
            wal_segment_size=body["wal_segment_size"],
            safekeepers=tuple(body["safekeepers"]),
        )
        return describe(await self._timelines.create(identity))

    async def status(self, request: Request) -> Any:
        """Terms, LSNs, connections and subscriptions of a timeline."""
        timeline = self._timelines.get(_id(request))
        return {
            **describe(timeline),
            "subscriptions": self._callmemaybe.subscriptions(timeline.id),
        }

    async def delete(self, request: Request) -> Any:
        """Delete a timeline here; harmless if it is gone.

        With ``remote`` also its WAL in S3: only after every other member has deleted it.
        """
        timeline_id = _id(request)
        await self._timelines.delete(timeline_id)
        await self._callmemaybe.forget(timeline_id)
        if request.query.get("remote", False):
            await remove_remote_wal(self._environment.objects, timeline_id)
        return {}

    async def pull(self, request: Request) -> Any:
        """Copy a timeline that is not here from the most advanced donor."""
        timeline = await self._puller.pull(_id(request), request.body["donors"])
        return describe(timeline)

    async def patch(self, request: Request) -> Any:
        """Have the safekeeper believe that S3 has WAL up to an LSN, as tests of removal need."""
        timeline = self._timelines.get(_id(request))
        await timeline.patch_backup(request.lsn("backup_lsn"))
        return describe(timeline)

    async def subscribe(self, request: Request) -> Any:
        """Call a pageserver whenever it lacks WAL, durably."""
        timeline = self._timelines.get(_id(request))
        await self._callmemaybe.subscribe(timeline.id, request.path["pageserver"])
        return {}

    async def unsubscribe(self, request: Request) -> Any:
        """Forget a pageserver; harmless if it is not subscribed."""
        timeline = self._timelines.get(_id(request))
        await self._callmemaybe.unsubscribe(timeline.id, request.path["pageserver"])
        return {}

    async def digest(self, request: Request) -> Any:
        """SHA-256 of flushed WAL."""
        timeline = self._timelines.get(_id(request))
        until_lsn = request.lsn("until_lsn")
        return {"sha256": await timeline.reading.digest(request.lsn("from_lsn"), until_lsn)}


def _id(request: Request) -> TenantTimelineId:
    return TenantTimelineId(request.tenant_id(), request.timeline_id())
