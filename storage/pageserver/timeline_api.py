"""Routes of a pageserver that keep timelines in shape: GC, compaction, leases, deletion."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from storage.http.api import Api, Request
from storage.http.schema import LSN, NATURAL, Schema, object_of
from storage.pageserver.commit_times import lsn_by_timestamp
from storage.pageserver.deletion import delete_timeline
from storage.pageserver.leasing import lease_lsn
from storage.pageserver.options import PageserverOptions
from storage.pageserver.retention import RetentionOptions
from storage.pageserver.tenant import Tenant
from storage.pageserver.tenants import Tenants
from storage.pageserver.timeline import Timeline
from storage.tasks import interruptible, serving
from storage.wire.replication import POSTGRES_EPOCH_US

_SECONDS: Schema = {"type": "number", "minimum": 0}
_TIMELINE = "/tenant/{tenant_id}/timeline/{timeline_id}"


def add_timeline_routes(api: Api, tenants: Tenants, options: PageserverOptions) -> None:
    """Declare the routes."""
    handlers = _Handlers(tenants, options)
    api.add("DELETE", _TIMELINE, handlers.delete, summary="Delete a timeline for good")
    api.add(
        "POST",
        f"{_TIMELINE}/gc",
        handlers.collect,
        summary="Collect garbage now, keeping this much history instead of what the options say",
        body=object_of(None, {"gc_horizon": NATURAL, "pitr_interval_s": _SECONDS}),
    )
    api.add("POST", f"{_TIMELINE}/compact", handlers.compact, summary="Compact now, if it is due")
    api.add(
        "POST",
        f"{_TIMELINE}/lease",
        handlers.lease,
        summary="Keep an LSN readable for a while; again to renew",
        body=object_of({"lsn": LSN}, {"length_s": _SECONDS}),
    )
    api.add(
        "GET",
        f"{_TIMELINE}/lsn_by_timestamp",
        handlers.lsn_by_timestamp,
        summary="The last commit of a time or before (microseconds since 1970), by its record",
        query=object_of({"timestamp_us": NATURAL}),
    )


class _Handlers:
    """One method for each route."""

    def __init__(self, tenants: Tenants, options: PageserverOptions) -> None:
        self._tenants = tenants
        self._options = options

    def _find(self, request: Request) -> tuple[Tenant, Timeline]:
        tenant = self._tenants.get(request.tenant_id())
        return tenant, tenant.timeline(request.timeline_id())

    async def delete(self, request: Request) -> dict[str, Any]:
        await delete_timeline(self._tenants, request.tenant_id(), request.timeline_id())
        return {"timeline_id": request.timeline_id(), "state": "Deleted"}

    async def collect(self, request: Request) -> dict[str, Any]:
        tenant, timeline = self._find(request)
        body = request.body or {}
        retention = RetentionOptions(
            body.get("gc_horizon", self._options.gc_horizon),
            float(body.get("pitr_interval_s", self._options.pitr_interval_s)),
        )
        timeline.state.check_active()
        collector = tenant.collectors[timeline.ident.timeline_id]
        with serving(*timeline.ident):
            async with interruptible():
                done = await collector.collect(retention)
        return {**asdict(done), "cutoff": str(done.cutoff), "held_by": str(done.held_by)}

    async def compact(self, request: Request) -> dict[str, Any]:
        tenant, timeline = self._find(request)
        timeline.state.check_active()
        with serving(*timeline.ident):
            async with interruptible():
                await tenant.compactors[timeline.ident.timeline_id].compact()
        return {"layers": len(timeline.layers)}

    async def lease(self, request: Request) -> dict[str, Any]:
        _, timeline = self._find(request)
        lsn = request.lsn()
        valid_for_s = await lease_lsn(timeline, lsn, request.body.get("length_s"))
        return {"lsn": str(lsn), "valid_for_s": valid_for_s}

    async def lsn_by_timestamp(self, request: Request) -> dict[str, Any]:
        _, timeline = self._find(request)
        timeline.state.check_active()
        time_us = int(request.query["timestamp_us"]) - POSTGRES_EPOCH_US
        with serving(*timeline.ident):
            async with interruptible():
                found = await lsn_by_timestamp(timeline, time_us)
        return {"lsn": str(found.lsn), "kind": found.kind.value}
