"""The safekeeper role: loads its timelines, then serves proposers, readers, HTTP and the broker.

Runtimes (SYSTEM.md E1): timelines and whatever touches them live on ``wal-service``; ``http``,
``broker`` and ``metrics`` ask it; the object store's client is on ``backup``. The main only
watches them (E4).
"""

from __future__ import annotations

import logging

from storage.errors import NotReady, PortError
from storage.failpoints import Failpoint, failpoint
from storage.http.failpoints import add_failpoints
from storage.http.server import HttpServer
from storage.http.server import serve as serve_http
from storage.log import one_line
from storage.metrics import Metrics
from storage.node import NodeContext
from storage.runtimes import RuntimeName
from storage.safekeeper.backup import WalBackup
from storage.safekeeper.broker import BrokerServices, BrokerStatus
from storage.safekeeper.callmemaybe import CallMeMaybe
from storage.safekeeper.catch_up import CatchUp
from storage.safekeeper.environment import Environment
from storage.safekeeper.fuse import Fuse, FuseBlown
from storage.safekeeper.http_api import SafekeeperApi
from storage.safekeeper.metrics import gather
from storage.safekeeper.options import HTTP_PORT, WIRE_PORT, SafekeeperOptions
from storage.safekeeper.pull import Puller
from storage.safekeeper.timelines import Timelines
from storage.safekeeper.wal_service import WalService
from storage.services import Services
from storage.tasks import TaskFailed, TaskKind, TaskRegistry, sleep_unless_shutdown
from storage.wire.replication import POSTGRES_EPOCH_US
from storage.wire.server import ServerOptions, WireServer
from storage.wire.server import serve as serve_wire

logger = logging.getLogger(__name__)


async def main(context: NodeContext) -> None:
    """Run one incarnation of a safekeeper.

    Raises ``CorruptData`` or ``DiskError`` when what is on disk cannot be loaded, ``BadRequest``
    for wrong options, ``TaskFailed`` when a task it cannot do without ends, ``RuntimeEnded`` when
    a runtime does, ``FuseBlown`` when work on a timeline was dropped half way.
    """
    options = SafekeeperOptions.parse(context.options)
    services = Services(context.ports.runtimes, TaskRegistry(context.name, context.die))
    try:
        await Safekeeper(context, options, services).run()
    finally:
        await services.close()


class Safekeeper:
    """One incarnation of the role."""

    def __init__(
        self, context: NodeContext, options: SafekeeperOptions, services: Services
    ) -> None:
        self._context = context
        self._options = options
        self._services = services
        self._wal = services.open(RuntimeName.WAL_SERVICE)
        self._http = services.open(RuntimeName.HTTP)
        self._broker = services.open(RuntimeName.BROKER)
        services.open(RuntimeName.BACKUP)
        self._metrics = services.open(RuntimeName.METRICS)
        self._fuse = Fuse()
        self._environment = Environment(context.ports, self._wal.registry, options, self._fuse)
        self._timelines = Timelines(self._environment)
        self._callmemaybe = CallMeMaybe(
            self._environment, self._timelines, f"{context.name}:{WIRE_PORT}", context.ports.entropy
        )
        self._wire_server: WireServer | None = None
        self._http_server: HttpServer | None = None

    async def run(self) -> None:
        """Load everything, and only then serve, until asked to stop or something ends (E5)."""
        await self._wal.runtime.call(self._load)
        try:
            await self._wal.runtime.call(self._serve_wal)
            await self._http.runtime.call(self._serve_http)
            await self._serve_broker()
            self._context.ready.set()
            logger.info("safekeeper %s is ready", self._context.name)
            await self._services.run_until_stopped(
                self._context, lambda: self._wal.runtime.call(self._fuse.blown)
            )
        except (FuseBlown, TaskFailed) as error:
            if (blown := self._fuse.last_word()) is None:
                raise
            self._go_down(blown)
            raise blown from error
        finally:
            await self._http.finish(self._close_http)
            await self._wal.finish(self._close_wal)

    def _go_down(self, error: FuseBlown) -> None:
        """At once: whatever an orderly end would still write, nobody knows whether it is right."""
        logger.critical("safekeeper %s goes down: %s", self._context.name, error)
        if self._context.die is not None:
            self._context.die(f"FuseBlown: {error}")

    async def _load(self) -> None:
        await self._timelines.load_all()
        await self._callmemaybe.load()

    async def _serve_wal(self) -> None:
        clock = self._context.ports.clock
        service = WalService(
            self._timelines,
            self._environment,
            lambda: clock.wall_us() - POSTGRES_EPOCH_US,
            self._callmemaybe,
        )
        self._environment.listen(self._callmemaybe.activity)
        registry = self._wal.registry
        silence_max_s = self._options.silence_max_s
        self._wire_server = await serve_wire(
            self._context.name,
            WIRE_PORT,
            service.handle,
            registry,
            options=ServerOptions(
                startup_timeout_s=silence_max_s, replication_idle_s=silence_max_s
            ),
        )
        backup = WalBackup(
            self._context.name, self._context.ports, self._environment, self._timelines
        )
        self._environment.listen(backup.activity)
        backup.look_at_all()
        tick = _tick_always(self._timelines, self._options.heartbeat_s)
        registry.spawn(TaskKind.WAL_SENDER, "heartbeat", tick, critical=True)
        save = _save_always(self._timelines, self._options.control_file_save_s)
        registry.spawn(TaskKind.DISK, "control files", save, critical=True)
        remove = _remove_always(self._timelines, self._options.wal_removal_s)
        registry.spawn(TaskKind.WAL_REMOVER, "wal remover", remove, critical=True)

    async def _serve_http(self) -> None:
        puller = Puller(self._context.name, self._environment, self._timelines)
        api = SafekeeperApi(self._environment, self._timelines, self._callmemaybe, puller).api()
        add_failpoints(api, self._wal.registry.failpoints)
        api.carry_by(self._wal.call)
        timelines = self._timelines
        Metrics(self._metrics, self._wal, lambda: gather(timelines), self._services.opened).add_to(
            api
        )
        name, registry = self._context.name, self._http.registry
        self._http_server = await serve_http(api, name, HTTP_PORT, registry)

    async def _serve_broker(self) -> None:
        status = BrokerStatus(
            self._context.ports.broker,
            self._context.name,
            self._timelines,
            CatchUp(self._context.name, self._environment, self._context.ports.entropy),
            BrokerServices(self._broker, self._wal),
        )
        self._environment.listen(status.activity)
        await self._broker.spawn(TaskKind.BROKER_PUBLISHER, "publish", status.publish_always)
        await self._broker.spawn(TaskKind.BROKER_SUBSCRIBER, "peers", status.listen_always)

    async def _close_http(self) -> None:
        if self._http_server is not None:
            await self._http_server.close()

    async def _close_wal(self) -> None:
        if self._wire_server is not None:
            await self._wire_server.close()
        for timeline in self._timelines:
            try:
                await timeline.close()
            except (NotReady, FuseBlown) as error:
                logger.info("closing: %s", one_line(error))


async def _tick_always(timelines: Timelines, period_s: float) -> None:
    while not await sleep_unless_shutdown(period_s):
        for timeline in timelines:
            timeline.connections.tick()


async def _save_always(timelines: Timelines, period_s: float) -> None:
    """Save LSNs now and then, so that a restart of an idle timeline knows them (SYSTEM.md F1)."""
    while not await sleep_unless_shutdown(period_s):
        await failpoint(Failpoint.SK_CONTROL_FILES_ROUND)
        for timeline in timelines:
            try:
                await timeline.save_control()
            except NotReady as error:
                logger.info("saving the control file: %s", one_line(error))


async def _remove_always(timelines: Timelines, period_s: float) -> None:
    """Remove WAL that all its consumers have, again and again (SYSTEM.md H1)."""
    while not await sleep_unless_shutdown(period_s):
        for timeline in timelines:
            try:
                await timeline.remove_wal()
            except (NotReady, PortError) as error:
                logger.info("removing WAL: %s", one_line(error))
