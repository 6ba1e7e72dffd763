"""The HTTP API of a pageserver (ARCHITECTURE.md, "HTTP APIs"): tenants, timelines, checkpoints."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from storage.errors import BadRequest, Conflict, NotReady
from storage.http.api import Api, Reply, Request
from storage.http.schema import INTEGER, LSN, TIMELINE_ID, object_of
from storage.lsn import Lsn
from storage.pageserver.creation import NewBranch, NewTimeline, create_timeline
from storage.pageserver.environment import Environment
from storage.pageserver.metrics import add_metrics
from storage.pageserver.options import PageserverOptions
from storage.pageserver.states import State
from storage.pageserver.tenant import Tenant
from storage.pageserver.tenants import Tenants
from storage.pageserver.timeline import Timeline
from storage.pageserver.timeline_api import add_timeline_routes

TITLE = "Seawall pageserver"

_NEW_TIMELINE = object_of(
    {"timeline_id": TIMELINE_ID},
    {
        "start_lsn": LSN,
        "pg_version": INTEGER,
        "ancestor_timeline_id": TIMELINE_ID,
        "ancestor_start_lsn": LSN,
    },
)


def pageserver_api(tenants: Tenants, environment: Environment) -> Api:
    """Every route of a pageserver."""
    api = Api(TITLE)
    options = environment.options
    handlers = _Handlers(tenants, options)
    add_metrics(api, environment, tenants)
    timeline = "/tenant/{tenant_id}/timeline/{timeline_id}"
    api.add("GET", "/tenant", handlers.list_tenants, summary="Every tenant attached here")
    api.add("GET", "/tenant/{tenant_id}", handlers.get_tenant, summary="A tenant's state")
    api.add("POST", "/tenant/{tenant_id}", handlers.create, summary="Create an empty tenant")
    api.add(
        "POST",
        "/tenant/{tenant_id}/attach",
        handlers.attach,
        summary="Serve a tenant whose data is in the object store; 202 while it is attaching",
    )
    api.add(
        "POST",
        "/tenant/{tenant_id}/warm",
        handlers.warm,
        summary="Download the layers of a tenant that lives elsewhere, before it is attached here",
    )
    api.add(
        "POST",
        "/tenant/{tenant_id}/detach",
        handlers.detach,
        summary="Stop serving a tenant; its data stays in the object store",
    )
    api.add(
        "POST",
        "/tenant/{tenant_id}/timeline",
        handlers.create_timeline,
        summary="Create an empty timeline (start_lsn, pg_version) or a branch (ancestor_…)",
        body=_NEW_TIMELINE,
    )
    api.add("GET", timeline, handlers.get_timeline, summary="A timeline's state and positions")
    api.add(
        "POST",
        f"{timeline}/checkpoint",
        handlers.checkpoint,
        summary="Flush and upload what is in memory; answers when the object store has it",
    )
    add_timeline_routes(api, tenants, options)
    return api


class _Handlers:
    """One method for each route."""

    def __init__(self, tenants: Tenants, options: PageserverOptions) -> None:
        self._tenants = tenants
        self._options = options

    async def list_tenants(self, _request: Request) -> list[dict[str, Any]]:
        return [describe_tenant(tenant) for tenant in self._tenants.all()]

    async def get_tenant(self, request: Request) -> dict[str, Any]:
        return describe_tenant(self._tenants.get(request.tenant_id()))

    async def create(self, request: Request) -> Reply:
        return _accepted(await self._tenants.create(request.tenant_id()))

    async def attach(self, request: Request) -> Reply:
        return _accepted(await self._tenants.attach(request.tenant_id()))

    async def warm(self, request: Request) -> dict[str, Any]:
        return asdict(await self._tenants.warm(request.tenant_id()))

    async def detach(self, request: Request) -> dict[str, Any]:
        tenant_id = request.tenant_id()
        await self._tenants.detach(tenant_id)
        return {"tenant_id": tenant_id, "state": "Detached"}

    async def create_timeline(self, request: Request) -> dict[str, Any]:
        wanted = _parse_new_timeline(request)
        timeline = await create_timeline(self._tenants, request.tenant_id(), wanted)
        return self._describe(timeline)

    async def get_timeline(self, request: Request) -> dict[str, Any]:
        return self._describe(self._timeline(request))

    async def checkpoint(self, request: Request) -> dict[str, Any]:
        timeline = self._timeline(request)
        timeline.state.check_active()
        lsn = timeline.last_record_lsn
        timeline.freeze()
        try:
            async with asyncio.timeout(self._options.checkpoint_wait_s):
                await timeline.disk_consistent.wait_for(lsn)
                if timeline.uploader.superseded:
                    raise Conflict(f"timeline {timeline.ident} was attached elsewhere since")
                await timeline.remote_consistent.wait_for(lsn)
        except TimeoutError as error:
            raise NotReady(
                f"checkpoint at {lsn} is not in the object store after "
                f"{self._options.checkpoint_wait_s} s; remote_consistent_lsn is "
                f"{timeline.remote_consistent.value}"
            ) from error
        return self._describe(timeline)

    def _timeline(self, request: Request) -> Timeline:
        return self._tenants.get(request.tenant_id()).timeline(request.timeline_id())

    def _describe(self, timeline: Timeline) -> dict[str, Any]:
        tenant = self._tenants.get(timeline.ident.tenant_id)
        ancestor = timeline.ancestor
        horizon = timeline.standbys.horizon(asyncio.get_running_loop().time())
        receiver = tenant.receivers.get(timeline.ident.timeline_id)
        return {
            "timeline_id": timeline.ident.timeline_id,
            "state": str(timeline.state.state),
            "reason": timeline.state.reason,
            "pg_version": timeline.pg_version,
            "last_record_lsn": str(timeline.last_record_lsn),
            "prev_record_lsn": str(timeline.prev_record_lsn),
            "disk_consistent_lsn": str(timeline.disk_consistent.value),
            "remote_consistent_lsn": str(timeline.remote_consistent.value),
            "initdb_lsn": str(timeline.initdb_lsn),
            "latest_gc_cutoff_lsn": str(timeline.gc_cutoff.lsn),
            "standby_horizon_lsn": None if horizon is None else str(horizon),
            "ancestor_timeline_id": None if ancestor is None else ancestor.ident.timeline_id,
            "ancestor_lsn": None if ancestor is None else str(timeline.ancestor_lsn),
            "layers": len(timeline.layers),
            "uploads_pending": timeline.uploader.pending,
            "superseded": timeline.uploader.superseded,
            "walreceiver": None if receiver is None else receiver.describe(),
        }


def describe_tenant(tenant: Tenant) -> dict[str, Any]:
    """A tenant as the API shows it."""
    return {
        "tenant_id": tenant.tenant_id,
        "state": str(tenant.state.state),
        "reason": tenant.state.reason,
        "generation": tenant.generation,
        "superseded": tenant.is_superseded(),
        "timelines": list(tenant.timelines),
    }


def _accepted(tenant: Tenant) -> Reply:
    status = 200 if tenant.state.state is State.ACTIVE else 202
    return Reply(status, describe_tenant(tenant))


def _parse_new_timeline(request: Request) -> NewTimeline | NewBranch:
    body: dict[str, Any] = request.body
    timeline_id = request.timeline_id()
    if "ancestor_timeline_id" in body:
        extra = sorted(set(body) & {"start_lsn", "pg_version"})
        if extra:
            raise BadRequest(f"{extra[0]!r} is not for a branch: it comes from the ancestor")
        lsn: Lsn | None = None
        if "ancestor_start_lsn" in body:
            lsn = request.lsn("ancestor_start_lsn")
        return NewBranch(timeline_id, request.timeline_id("ancestor_timeline_id"), lsn)
    if "ancestor_start_lsn" in body:
        raise BadRequest("'ancestor_start_lsn' needs 'ancestor_timeline_id'")
    for name in ("start_lsn", "pg_version"):
        if name not in body:
            raise BadRequest(f"{name!r} is missing, or 'ancestor_timeline_id' for a branch")
    return NewTimeline(timeline_id, request.lsn("start_lsn"), int(body["pg_version"]))
