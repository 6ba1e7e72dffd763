"""The safekeeper role: loads its timelines, then serves proposers, readers, HTTP and the broker."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

from storage.errors import NotReady
from storage.http.server import serve as serve_http
from storage.life import run_until_stopped
from storage.log import one_line
from storage.node import NodeContext
from storage.safekeeper.broker import BrokerStatus
from storage.safekeeper.callmemaybe import CallMeMaybe
from storage.safekeeper.environment import Environment
from storage.safekeeper.fuse import Fuse
from storage.safekeeper.http_api import SafekeeperApi
from storage.safekeeper.options import HTTP_PORT, WIRE_PORT, SafekeeperOptions
from storage.safekeeper.timelines import Timelines
from storage.safekeeper.wal_service import WalService
from storage.tasks import TaskKind, TaskRegistry, sleep_unless_shutdown
from storage.wire.replication import POSTGRES_EPOCH_US
from storage.wire.server import serve as serve_wire

logger = logging.getLogger(__name__)


async def main(context: NodeContext) -> None:
    """Run one incarnation of a safekeeper.

    Raises ``CorruptData`` or ``DiskError`` when what is on disk cannot be loaded, ``BadRequest``
    for wrong options, ``TaskFailed`` when a task it cannot do without ends, ``FuseBlown`` when
    work on a timeline was dropped half way.
    """
    options = SafekeeperOptions.parse(context.options)
    registry = TaskRegistry(context.name, context.die)
    fuse = Fuse()
    environment = Environment(context.ports.disk, registry, options, fuse)
    timelines = Timelines(environment)
    callmemaybe = CallMeMaybe(
        environment, timelines, f"{context.name}:{WIRE_PORT}", context.ports.entropy
    )
    try:
        await timelines.load_all()
        await callmemaybe.load()
        await _serve(context, environment, timelines, callmemaybe)
    finally:
        await registry.shutdown()


async def _serve(
    context: NodeContext, environment: Environment, timelines: Timelines, callmemaybe: CallMeMaybe
) -> None:
    """Serve until the node is asked to stop or something it needs fails."""
    options, registry, ports = environment.options, environment.registry, context.ports
    broker = BrokerStatus(ports.broker, context.name, timelines, options)
    environment.listen(callmemaybe.activity)
    environment.listen(broker.activity)
    service = WalService(
        timelines, environment, lambda: ports.clock.wall_us() - POSTGRES_EPOCH_US, callmemaybe
    )
    wire = await serve_wire(context.name, WIRE_PORT, service.handle, registry)
    api = SafekeeperApi(timelines, callmemaybe).api()
    http = await serve_http(api, context.name, HTTP_PORT, registry)
    background: list[tuple[TaskKind, str, Coroutine[Any, Any, None]]] = [
        (TaskKind.BROKER_PUBLISHER, "publish", broker.publish_always()),
        (TaskKind.BROKER_SUBSCRIBER, "peers", broker.listen_always()),
        (TaskKind.WAL_SENDER, "heartbeat", _tick_always(timelines, options.heartbeat_s)),
        (TaskKind.DISK, "control files", _save_always(timelines, options.control_file_save_s)),
    ]
    for kind, name, work in background:
        registry.spawn(kind, name, work, critical=True)
    context.ready.set()
    logger.info("safekeeper %s is ready", context.name)
    try:
        await run_until_stopped(context, environment.registry, environment.fuse.blown())
    finally:
        await wire.close()
        await http.close()
        await _close(timelines)


async def _close(timelines: Timelines) -> None:
    for timeline in timelines:
        try:
            await timeline.close()
        except NotReady as error:
            logger.info("closing: %s", one_line(error))


async def _tick_always(timelines: Timelines, period_s: float) -> None:
    while not await sleep_unless_shutdown(period_s):
        for timeline in timelines:
            timeline.connections.tick()


async def _save_always(timelines: Timelines, period_s: float) -> None:
    """Save LSNs now and then, so that a restart of an idle timeline knows them (SYSTEM.md F1)."""
    while not await sleep_unless_shutdown(period_s):
        for timeline in timelines:
            try:
                await timeline.save_control()
            except NotReady as error:
                logger.info("saving the control file: %s", one_line(error))
