"""The walproposer role: makes the WAL of an unmodified PostgreSQL durable on a quorum.

Phases: ``electing`` until the recovered tail is committed, ``elected`` until told over HTTP which
PostgreSQL to stream from, ``streaming``, and ``deposed``, which is final: a newer compute rules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from storage.errors import BadRequest, Conflict, NotReady, ProtocolError
from storage.http.api import Api, Request
from storage.http.schema import NATURAL, TEXT, object_of
from storage.http.server import serve as serve_http
from storage.ids import TenantId, TimelineId
from storage.life import run_until_stopped
from storage.log import one_line
from storage.lsn import INVALID_LSN
from storage.node import NodeContext
from storage.tasks import TaskKind, TaskRegistry, sleep_unless_shutdown
from storage.walproposer.options import Deposed, Elected, ProposerClosed, ProposerOptions
from storage.walproposer.postgres_stream import PostgresStream, Server
from storage.walproposer.proposer import WalProposer
from storage.walproposer.recovery import host_and_port
from storage.wire.errors import ServerError
from storage.wire.replication import POSTGRES_EPOCH_US

logger = logging.getLogger(__name__)

HTTP_PORT = 5480
CHECK_WITHIN_S = 10.0


@dataclass(frozen=True)
class SidecarOptions:
    """Options of the role. With ``callmemaybe`` safekeepers are asked to call ``pageserver``."""

    tenant_id: str
    timeline_id: str
    pageserver: str
    safekeepers: tuple[str, ...]
    proposer_id: int
    system_id: int
    pg_version: int
    wal_segment_size: int
    callmemaybe: bool = False

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> ProposerOptions:
        """The proposer's options; ``BadRequest`` names what is unknown, missing or malformed."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise BadRequest(f"unknown option {name!r}; known: {', '.join(known)}")
        for name in known[:-1]:
            if name not in options:
                raise BadRequest(f"option {name} is missing")
        _check_types(options)
        given = cls(**{**options, "safekeepers": tuple(options["safekeepers"])})
        try:
            for address in (given.pageserver, *given.safekeepers):
                host_and_port(address)
            return ProposerOptions(
                tenant_id=TenantId(given.tenant_id),
                timeline_id=TimelineId(given.timeline_id),
                safekeepers=given.safekeepers,
                proposer_id=given.proposer_id,
                system_id=given.system_id,
                pg_version=given.pg_version,
                wal_segment_size=given.wal_segment_size,
                pageserver=given.pageserver if given.callmemaybe else None,
            )
        except ValueError as error:
            raise BadRequest(str(error)) from None


def _check_types(options: Mapping[str, Any]) -> None:
    """``BadRequest`` names the first option of the wrong type."""
    for field in fields(SidecarOptions):
        value = options.get(field.name, field.default)
        fits = {
            "str": isinstance(value, str),
            "int": type(value) is int and value >= 0,
            "bool": isinstance(value, bool),
            "tuple[str, ...]": isinstance(value, (list, tuple))
            and all(isinstance(each, str) for each in value),
        }
        if not fits[str(field.type)]:
            raise BadRequest(f"option {field.name} is {value!r}; {field.type} expected")


class Sidecar:
    """One incarnation of the role."""

    def __init__(self, context: NodeContext) -> None:
        self.registry = TaskRegistry(context.name, context.die)
        self._context = context
        self._options = SidecarOptions.parse(context.options)
        self._pageserver = str(context.options["pageserver"])
        self._proposer = WalProposer(self._options, self.registry, context.ports.entropy)
        self._elected: Elected | None = None
        self._server: Server | None = None
        self._stream: PostgresStream | None = None

    def api(self) -> Api:
        """The routes, below ``/v1``."""
        api = Api("Seawall walproposer")
        api.add("GET", "/status", self.status, summary="Phase, term and LSNs")
        server = {"host": TEXT, "port": NATURAL, "user": TEXT, "slot": TEXT}
        api.add("POST", "/stream", self.stream, summary="Stream a PostgreSQL's WAL",
                body=object_of(server))  # fmt: skip
        api.add("PUT", "/pageserver", self.move, summary="Have another pageserver called",
                body=object_of({"pageserver": TEXT}))  # fmt: skip
        return api

    @property
    def phase(self) -> str:
        """One of those in the module's docstring."""
        if self._proposer.deposed:
            return "deposed"
        if self._elected is None:
            return "electing"
        connected = self._stream is not None and self._stream.connected
        return "streaming" if connected else "elected"

    async def status(self, _request: Request) -> Any:
        """Phase, term and LSNs."""
        elected = self._elected
        return {
            "phase": self.phase,
            "term": self._proposer.campaign.term,
            "start_lsn": str(INVALID_LSN if elected is None else elected.start_lsn),
            "flush_lsn": str(self._proposer.flush_lsn),
            "commit_lsn": str(self._proposer.commit_lsn),
            "remote_consistent_lsn": str(self._proposer.remote_consistent_lsn),
            "pageserver": self._pageserver,
        }

    async def stream(self, request: Request) -> Any:
        """Stream from a server; the same one again is harmless, another one a conflict."""
        body = request.body
        if '"' in body["slot"]:
            raise BadRequest(f"slot name {body['slot']!r} has a quote in it")
        server = Server(body["host"], body["port"], body["user"], body["slot"])
        if self._elected is None or self._proposer.deposed:
            raise NotReady(f"the sidecar is {self.phase}; it streams once it is elected")
        if self._server not in (None, server):
            raise Conflict(f"the sidecar streams from {self._server} already")
        if self._server is None:
            self._server = server
            try:
                await self._begin(server)
            except BaseException:
                self._server = None
                raise
        return await self.status(request)

    async def _begin(self, server: Server) -> None:
        clock = self._context.ports.clock
        stream = PostgresStream(
            self._proposer,
            server,
            lambda: clock.wall_us() - POSTGRES_EPOCH_US,
            self._context.ports.entropy,
        )
        try:
            async with asyncio.timeout(CHECK_WITHIN_S):
                await stream.check()
        except (OSError, TimeoutError, ProtocolError, ServerError) as error:
            raise NotReady(f"cannot stream from {server.host}: {one_line(error)}") from error
        self._stream = stream
        self.registry.spawn(TaskKind.WAL_RECEIVER, f"PostgreSQL {server.host}", stream.run())

    async def move(self, request: Request) -> Any:
        """Name another pageserver to the safekeepers, if any is named at all."""
        host_and_port(request.body["pageserver"])
        self._pageserver = request.body["pageserver"]
        if self._options.pageserver is not None:
            self._proposer.name_pageserver(self._pageserver)
        return {}

    async def run(self) -> None:
        """Elect, then serve until asked to stop; being deposed ends only the streaming."""
        self.registry.spawn(TaskKind.PROPOSER, "election", self._elect(), critical=False)
        while not await sleep_unless_shutdown(self._options.heartbeat_s):
            if self._stream is not None:
                self._stream.tick()

    async def _elect(self) -> None:
        try:
            self._elected = await self._proposer.elect()
        except (Deposed, ProposerClosed) as error:
            logger.info("not elected: %s", one_line(error))

    async def close(self) -> None:
        """End everything."""
        await self._proposer.close()
        await self.registry.shutdown()


async def main(context: NodeContext) -> None:
    """Run one incarnation of a sidecar; ``BadRequest`` for wrong options."""
    sidecar = Sidecar(context)
    http = await serve_http(sidecar.api(), context.name, HTTP_PORT, sidecar.registry)
    sidecar.registry.spawn(TaskKind.PROPOSER, "heartbeat", sidecar.run(), critical=True)
    context.ready.set()
    try:
        await run_until_stopped(context, sidecar.registry)
    finally:
        await http.close()
        await sidecar.close()
