"""The world of OS processes behind ``harness.backend.Backend``.

One backend is one run: a directory, a hub, a bucket prefix, an etcd prefix, and the node processes
forked for it. Shared services and the fork server belong to the :class:`real.session.RealSession`.
Layout: ``<directory>/<node>/{disk/,node.log,events.jsonl}``, ``<directory>/messages.jsonl``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.backend import HARNESS, Event, LogLine, Network, NodeSpec
from harness.errors import HarnessError
from harness.fault_ports import BrokerSwitch, Loss, ObjectStoreSwitch
from real.abilities import abilities
from real.evidence import Evidence
from real.fault_page import NodeFaults
from real.lives import Lives
from real.loop import NamedHostLoop
from real.network import HubClient, HubNetwork
from real.node_main import NodePlan
from real.run_directory import RunDirectory
from real.run_services import RunServices
from real.service_switch import EtcdSwitch, S3Switch
from real.session import RealSession
from storage.events import Field
from storage.ports import Broker, ObjectStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RealOptions:
    """How a run is set up. ``directory`` is made fresh below the temporary directory, and removed
    at the end, unless given; ``roles`` and ``ports`` are ``"module:NAME"`` (see ``node_main``).
    Under ``kept_name`` the objects in S3 outlive the run, for a later one of the same name."""

    seed: int = 0
    directory: Path | None = None
    roles: str = "storage.roles:ROLES"
    ports: str = "real.node_ports:node_ports"
    kept_name: str = ""


class RealBackend:
    """Implements ``harness.backend.Backend``; made inside the loop it is used in."""

    world = "real"
    clock_error_s = 0.25

    def __init__(self, session: RealSession, options: RealOptions | None = None) -> None:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, NamedHostLoop):
            raise HarnessError("a real cluster needs real.loop.NamedHostLoop as the running loop")
        self._options = options if options is not None else RealOptions()
        self._loop = loop
        self._session = session
        self._dark: set[str] = set()
        self._forwards: dict[tuple[str, int], tuple[str, int]] = {}
        self._faults: dict[str, NodeFaults] = {}
        self._closed = False
        self._directory = RunDirectory(self._options.directory, session.forks)
        self._evidence = Evidence(self._directory)
        self._lives = Lives(session.forks, self._evidence, self._directory, self._plan)
        try:
            self.hub_pid, self._hub = self._start_hub()
            loop.join(self._hub.address, HARNESS)
            generator = random.Random(f"{self._options.seed}/services")
            name = (kept := self._options.kept_name) or self._directory.name
            self._services = RunServices(
                session.services, self._hub, name, generator, keep=bool(kept)
            )
        except BaseException:
            self._abandon()
            raise
        note = self._evidence.note_fault
        self._network = HubNetwork(self._hub, note)
        services = self._services
        self._s3 = S3Switch(self._hub, note, services.proxy, linked=services.s3_is_linked)
        self._etcd = EtcdSwitch(self._hub, note, services.leases, lambda: services.nodes)
        self.network: Network = self._network
        self.object_store: ObjectStoreSwitch = self._s3
        self.broker: BrokerSwitch = self._etcd
        has_proxy = services.proxy is not None
        self.abilities = abilities(has_postgres=session.has_postgres, has_s3_proxy=has_proxy)

    def _start_hub(self) -> tuple[int, HubClient]:
        control, remote = socket.socketpair()
        try:
            with remote:
                pid = self._session.forks.hub(self._directory.path / "messages.jsonl", remote)
            return pid, HubClient(control)
        except BaseException:
            control.close()
            raise

    @property
    def directory(self) -> Path:
        """Where this run keeps everything."""
        return self._directory.path

    @property
    def short_directory(self) -> Path:
        """A fresh directory with a path short enough for Unix sockets, removed at the end."""
        return self._directory.short

    def assign(self, name: str, port: int, address: tuple[str, int] | Path) -> None:
        """Say where a service is that cannot tell the hub itself, such as PostgreSQL's socket."""
        where = str(address) if isinstance(address, Path) else list(address)
        self._hub.ask("assign", name=name, port=port, address=where)

    def now_s(self) -> float:
        """Seconds since the run began, monotonic."""
        return self._evidence.now_s()

    async def spawn(self, spec: NodeSpec) -> None:
        """Start a node's next incarnation on its disk; not yet ready."""
        self._lives.spawn(spec)

    def _plan(self, spec: NodeSpec, incarnation: int) -> NodePlan:
        """How an incarnation begins; its links work again if its machine had died."""
        if spec.name in self._dark:
            self._hub.ask("lighten", host=spec.name)
            self._dark.remove(spec.name)
        return NodePlan(
            name=spec.name,
            role=spec.role,
            incarnation=incarnation,
            options=spec.options,
            directory=str(self._directory.of_node(spec.name)),
            hub=self._hub.address,
            roles=self._session.roles_of(spec.role, self._options.roles),
            ports=self._options.ports,
            settings={
                "seed": self._options.seed,
                "short_directory": str(self._directory.short),
                **self._services.settings_for(spec.name),
            },
        )

    def pid(self, name: str) -> int:
        """Process id of a node that runs now."""
        return self._lives.live(name).pid

    async def wait_ready(self, name: str, *, within_s: float) -> None:
        """Return once the main set ``ready``; ``NodeDied`` if it ended, ``NotLive`` if too late."""
        await self._lives.wait_ready(name, within_s=within_s)

    async def stop(self, name: str, *, within_s: float) -> None:
        """SIGTERM; ``NotLive`` if the node still runs after ``within_s``."""
        await self._lives.stop(name, within_s=within_s)

    async def kill(self, name: str, *, host: bool = False, loss: Loss = Loss.RANDOM) -> None:
        """SIGKILL; with ``host`` its connections fall silent first, so that no peer is told.

        The operating system goes on, so only what was written while syncs were stalled is lost.
        """
        process = self._lives.live(name)
        if host:
            self._hub.ask("darken", host=name)
            self._dark.add(name)
        process.kill()
        if host and name in self._faults:
            self._faults[name].lose_power(loss)

    async def pause(self, name: str) -> None:
        """SIGSTOP."""
        self._lives.freeze(name)

    async def resume(self, name: str) -> None:
        """SIGCONT."""
        self._lives.thaw(name)

    async def wipe(self, name: str) -> None:
        """Erase the disk of a node that is not running; its log stays."""
        self._lives.wipe(name)

    def running(self, name: str) -> bool:
        """Whether an incarnation runs now (paused counts)."""
        return self._lives.running(name)

    def died(self, name: str) -> str | None:
        """Why the last incarnation ended by itself, or ``None``."""
        return self._lives.died(name)

    def disk(self, name: str) -> NodeFaults:
        """Faults of a node's disk."""
        self._lives.check_known(name)
        if name not in self._faults:
            generator = random.Random(f"{self._options.seed}/faults/{name}")
            self._faults[name] = NodeFaults(
                self._directory.of_node(name),
                generator,
                functools.partial(self._evidence.note_fault, target=name),
                functools.partial(self._held_still, name),
            )
        return self._faults[name]

    def _held_still(self, name: str) -> contextlib.AbstractContextManager[None]:
        process = self._lives.last(name)
        return contextlib.nullcontext() if process is None else process.held_still()

    def clock(self, name: str) -> NodeFaults:
        """Faults of a node's wall clock."""
        return self.disk(name)

    def host_port(self, name: str, port: int, at: int = 0) -> tuple[str, int]:
        """A loopback address (a first call may choose the port) to dial as host ``harness``."""
        self._lives.check_known(name)
        if (name, port) not in self._forwards:
            actual = self._hub.ask("forward", source=HARNESS, target=name, port=port, at=at)
            self._forwards[name, port] = ("127.0.0.1", int(actual))
        return self._forwards[name, port]

    def admin_objects(self) -> ObjectStore:
        """This run's part of the bucket, past every fault."""
        return self._services.admin_objects()

    def admin_broker(self) -> Broker:
        """This run's part of etcd, past every fault."""
        return self._services.admin_broker()

    def effects(self) -> Mapping[str, int]:
        """Counters of what every fault did so far, as ``"network.bytes_cut"``."""
        counters: dict[str, Mapping[str, int]] = {
            "network": self._network.effects(),
            "object_store": self._s3.effects(),
            "broker": self._etcd.effects(),
        }
        for node, faults in self._faults.items():
            counters[f"disk/{node}"] = faults.effects
            counters[f"clock/{node}"] = faults.effects
        return {
            f"{place}.{name}": count
            for place, effects in counters.items()
            for name, count in effects.items()
        }

    def note(self, kind: str, fields: Mapping[str, Field]) -> None:
        """Put an event of the harness itself among the run's events."""
        self._evidence.note(HARNESS, kind, **fields)

    def follow(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Tell ``listener`` of every event of a node, as its files show them."""
        follower = self._loop.create_task(self._evidence.follow(listener), name="follow events")

        def stop() -> None:
            follower.cancel()

        return stop

    def logs(self) -> Sequence[LogLine]:
        """Every log record of every node, and warnings of the harness, in order of time."""
        return self._evidence.logs()

    def complain(self, level: str, text: str) -> None:
        """Note a log line of the harness's own process; ``level`` is ``logging``'s name."""
        self._evidence.complain(HARNESS, text, level)

    def events(self) -> Sequence[Event]:
        """Events of the nodes (up to 0.2 s late), of the network and of this backend."""
        return self._evidence.events(self._hub)

    def observations(self) -> Sequence[Event]:
        """The same without deliveries."""
        return [event for event in self.events() if event.kind != "message"]

    async def close(self) -> None:
        """Stop what runs, kill what does not stop, remove what the run left; never raises."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._lives.stop_all()
            await self._services.close()
            self._evidence.seal(self._hub)
            self._network.seal()
            self._s3.seal()
            self._etcd.seal()
        except Exception:
            logger.exception("closing the run went wrong, killing instead")
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Leave nothing: processes killed, hub ended, directory gone."""
        steps = self._lives.kills()
        if hasattr(self, "_hub"):
            steps += [self._hub.close, lambda: self._session.forks.kill(self.hub_pid)]
        for step in (*steps, self._loop.leave, self._directory.remove):
            try:
                step()
            except Exception:
                logger.exception("closing the run, going on")
