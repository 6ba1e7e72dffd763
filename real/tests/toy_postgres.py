"""Stand-ins for pageserver and sidecar, so that PostgreSQL's own node can be tested alone.

The sidecar keeps the stream in memory and acknowledges it unless told to hold back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from real.postgres.binaries import find
from real.postgres.template import Template, tar, template
from real.tests import toy_roles
from storage.http import server as http
from storage.http.api import Api, Request
from storage.node import NodeContext, NodeMain
from storage.tasks import TaskKind, TaskRegistry
from storage.wire import client, server
from storage.wire.replication import StandbyStatus, XLogData, parse_from_server, standby_status
from storage.wire.session import Session


def source_of(options: Mapping[str, Any]) -> Template:
    binaries = find(options["major"])
    return template(binaries, options["wal_segment_size"], Path(options["cache"]))


async def pageserver(context: NodeContext) -> None:
    """Answers every `fullbackup` with the template."""

    async def handle(session: Session, sql: str) -> None:
        assert sql.startswith("fullbackup "), sql
        copy = await session.copy_out()
        for piece in tar(source_of(context.options)):
            await copy.send(piece)
        await copy.done("COPY")

    registry = TaskRegistry(context.name)
    listener = await server.serve(context.name, 6400, handle, registry)
    context.ready.set()
    await context.stopping.wait()
    await listener.close()
    await registry.shutdown()


async def safekeeper(context: NodeContext) -> None:
    """Has the timeline, and of its WAL nothing before its start."""
    registry = TaskRegistry(context.name)
    source = source_of(context.options)

    async def timeline(_: Request) -> Any:
        return {"timeline_start_lsn": str(source.start_lsn)}

    api = Api("toy safekeeper")
    api.add("GET", "/tenant/{tenant_id}/timeline/{timeline_id}", timeline, summary="timeline")
    listener = await http.serve(api, context.name, 7676, registry)
    context.ready.set()
    await context.stopping.wait()
    await listener.close()
    await registry.shutdown()


class Sidecar:
    def __init__(self, context: NodeContext) -> None:
        self.registry = TaskRegistry(context.name)
        self.source = source_of(context.options)
        self.flush_lsn = int(self.source.start_lsn)
        self.holding = False
        self.phase = "elected"
        self.stream: Any = None

    def api(self) -> Api:
        api = Api("toy sidecar")
        api.add("GET", "/status", self.status, summary="status")
        body = {"type": "object"}
        api.add("POST", "/stream", self.start, summary="stream", body=body)
        api.add("PUT", "/phase", self.set_phase, summary="phase", body=body)
        api.add("PUT", "/hold", self.hold, summary="hold", body=body)
        return api

    async def status(self, _: Request) -> Any:
        return {
            "phase": self.phase,
            "term": 1,
            "start_lsn": str(self.source.start_lsn),
            "commit_lsn": str(self.source.start_lsn.__class__(self.flush_lsn)),
        }

    async def start(self, request: Request) -> Any:
        where = request.body
        options = client.ConnectOptions(
            user=where["user"], replication=True, application_name="walproposer"
        )
        session = await client.connect(where["host"], where["port"], options=options)
        command = f"START_REPLICATION SLOT {where['slot']} PHYSICAL {self.source.start_lsn}"
        self.stream = await session.copy_both(f"{command} TIMELINE 1")
        self.registry.spawn(TaskKind.PROPOSER, "stream", self.pull())
        return {}

    async def pull(self) -> None:
        with contextlib.suppress(ConnectionError):  # How a walsender goes when its server stops.
            await self.pull_until_end()

    async def pull_until_end(self) -> None:
        while (data := await self.stream.receive()) is not None:
            message = parse_from_server(data)
            if isinstance(message, XLogData):
                self.flush_lsn = message.start_lsn + len(message.data)
            if not self.holding:
                await self.acknowledge()

    async def acknowledge(self) -> None:
        status = StandbyStatus(self.flush_lsn, self.flush_lsn, 0, 0, False)
        await self.stream.send(standby_status(status))

    async def set_phase(self, request: Request) -> Any:
        self.phase = request.body["phase"]
        return {}

    async def hold(self, request: Request) -> Any:
        self.holding = request.body["hold"]
        if not self.holding:
            await self.acknowledge()
        return {}


async def sidecar(context: NodeContext) -> None:
    toy = Sidecar(context)
    listener = await http.serve(toy.api(), context.name, 5480, toy.registry)
    context.ready.set()
    await context.stopping.wait()
    await listener.close()
    await toy.registry.shutdown()


ROLES: Mapping[str, NodeMain] = {
    **toy_roles.ROLES,
    "toy_pageserver": pageserver,
    "toy_safekeeper": safekeeper,
    "toy_sidecar": sidecar,
}
