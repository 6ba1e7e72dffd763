"""The contract suite's lab on real files, moto's S3 server and etcd.

Every client of a server has a proxy of its own before it, through which the server is taken away.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from real.broker import EtcdBroker
from real.clock import SystemClock
from real.disk import ThreadPoolDisk
from real.etcd import EtcdOptions
from real.loop import NamedHostLoop
from real.object_store import S3ObjectStore
from real.servers import EtcdServer, S3Server
from scenarios.ports.lab import PortTest
from scenarios.ports.proxy import TcpProxy
from storage.ports import Broker, Clock, Disk, ObjectStore

_PATIENCE_S = 2.0
_KEEPALIVE_S = 1.0
_runs = itertools.count()


class Servers:
    """S3 and etcd for a whole session."""

    def __init__(self, directory: Path) -> None:
        self.s3 = S3Server(directory / "s3")
        self.etcd = EtcdServer(directory / "etcd")

    def start(self) -> None:
        """Start both, side by side."""
        self.etcd.start()
        self.s3.start()
        self.etcd.wait_ready()
        self.s3.wait_ready()

    def stop(self) -> None:
        """End both."""
        self.s3.stop()
        self.etcd.stop()


class RealLab:
    """One test's corner of the real world: a directory, a key prefix, proxies."""

    world = "real"

    def __init__(self, servers: Servers, directory: Path) -> None:
        self._servers = servers
        self._directory = directory
        self._prefix = f"run{next(_runs)}/"
        self._disks: list[ThreadPoolDisk] = []
        self._clients: list[S3ObjectStore | EtcdBroker] = []
        self._brokers: dict[str, EtcdBroker] = {}
        self._proxies: dict[tuple[str, str], TcpProxy] = {}

    def run(self, test: PortTest) -> None:
        """Run a test on the loop that real nodes run on."""
        with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
            runner.run(self._run(test))

    async def _run(self, test: PortTest) -> None:
        etcd_host, etcd_port = self._servers.etcd.endpoint.split(":")
        for node in ("a", "b", "c"):
            s3, etcd = ("127.0.0.1", self._servers.s3.port), (etcd_host, int(etcd_port))
            for service, target in (("s3", s3), ("etcd", etcd)):
                proxy = self._proxies[service, node] = TcpProxy(target)
                await proxy.open()
        try:
            async with asyncio.timeout(30.0):
                await test()
        finally:
            for client in self._clients:
                await client.close()
            for disk in self._disks:
                disk.close()
            for proxy in self._proxies.values():
                await proxy.down()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            # gRPC ends its calls a moment after their channel was closed, in tasks of its own.
            _, left_still = await asyncio.wait(left, timeout=1.0)
            assert not left_still, f"tasks leaked: {left_still}"

    def disk(self, node: str = "a") -> Disk:
        """The node's directory, with threads of its own."""
        disk = ThreadPoolDisk(self._directory / node, f"{node}-disk")
        self._disks.append(disk)
        return disk

    @contextmanager
    def full_disk(self, free_bytes: int) -> Iterator[None]:
        """The kernel's limit on the size of files: the one way to a full disk without mounting."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def objects(self, node: str = "a", *, credentials: bool = True) -> ObjectStore:
        """A client that has its own part of the bucket."""
        options = dataclasses.replace(
            self._servers.s3.options,
            endpoint=f"http://127.0.0.1:{self._proxies['s3', node].port}",
            key_prefix=self._prefix,
            connect_timeout_s=_PATIENCE_S,
            request_timeout_s=_PATIENCE_S,
            list_page_keys=7,
        )
        if not credentials:
            options = dataclasses.replace(options, secret_key="not the secret key")
        store = S3ObjectStore(options)
        self._clients.append(store)
        return store

    async def objects_outage(self) -> None:
        """Connections are refused."""
        await self._all("s3", down=True)

    async def objects_restore(self) -> None:
        """Connections are accepted, replies pass."""
        await self._all("s3", down=False)

    async def lose_replies(self) -> None:
        """Requests pass, replies do not."""
        for (service, _), proxy in self._proxies.items():
            if service == "s3":
                proxy.swallow_replies = True

    def broker(self, node: str = "a") -> Broker:
        """A client that has its own part of the keys."""
        broker = EtcdBroker(
            EtcdOptions(
                f"127.0.0.1:{self._proxies['etcd', node].port}",
                key_prefix=self._prefix,
                timeout_s=_PATIENCE_S,
                keepalive_s=_KEEPALIVE_S,
            )
        )
        self._brokers[node] = broker
        self._clients.append(broker)
        return broker

    async def crash_broker_client(self, node: str) -> None:
        """The client goes without a word to the server: its leases are left to run out."""
        await self._brokers[node].close()

    async def broker_outage(self) -> None:
        """Connections are refused."""
        await self._all("etcd", down=True)

    async def broker_restore(self) -> None:
        """Connections are accepted."""
        await self._all("etcd", down=False)

    async def cut_broker(self, node: str) -> None:
        """The node's proxy lets nothing pass."""
        self._proxies["etcd", node].cut()

    async def heal_broker(self, node: str) -> None:
        """It does again."""
        self._proxies["etcd", node].heal()

    def clock(self) -> Clock:
        """The system's clock."""
        return SystemClock()

    async def _all(self, service: str, *, down: bool) -> None:
        for (name, _), proxy in self._proxies.items():
            if name == service:
                await proxy.down()
                proxy.heal()
                if not down:
                    await proxy.open()
