"""The shared services as one run sees them: its own prefix, behind links that can be faulted.

Every node reaches S3 and etcd through forwards of its own in the hub, so that its clients, which
know no cluster hosts, are cut off like any other link; S3 lies behind a proxy that mistreats single
requests. Oracles go past all that.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from harness.errors import HarnessError
from real.broker import EtcdBroker
from real.etcd import EtcdOptions
from real.network import HubClient
from real.object_store import S3ObjectStore, S3Options
from real.s3_proxy import S3Proxy
from real.service_switch import EtcdLeases
from real.session import Services
from storage.ports import Broker, ObjectStore

S3 = "s3"
BROKER = "broker"
_PORT = 1
_DELETES_AT_ONCE = 16


class RunServices:
    """S3 and etcd of one run; ``name`` keeps runs that share them apart."""

    def __init__(
        self,
        services: Services | None,
        hub: HubClient,
        name: str,
        generator: random.Random,
        *,
        keep: bool = False,
    ) -> None:
        self._services = services
        self._generator = generator
        self._keep = keep
        self._hub = hub
        self._prefix = f"{name}/"
        self._objects: S3ObjectStore | None = None
        self._broker: EtcdBroker | None = None
        self._settings: dict[str, Mapping[str, Any]] = {}
        self.proxy: S3Proxy | None = None
        self.s3_is_linked = True
        self.leases: EtcdLeases | None = None
        if services is not None:
            host, _, port = services.etcd.rpartition(":")
            self._assign(BROKER, _address(BROKER, host, int(port)))
            self.leases = EtcdLeases(services.etcd, self._prefix)
            self._put_proxy_before(services.s3)

    def _put_proxy_before(self, options: S3Options) -> None:
        url = urlsplit(options.endpoint)
        self.s3_is_linked = url.scheme == "http"
        if self.s3_is_linked:  # TLS would notice a man in the middle, so it goes direct.
            assert url.hostname is not None, options.endpoint
            server = _address(S3, url.hostname, url.port or 80)
            self.proxy = S3Proxy(server, self._generator)

    def _assign(self, name: str, address: tuple[str, int], port: int = _PORT) -> None:
        self._hub.ask("assign", name=name, port=port, address=list(address))

    @property
    def nodes(self) -> list[str]:
        """Every node that was given settings."""
        return list(self._settings)

    def settings_for(self, node: str) -> Mapping[str, Any]:
        """The ``settings`` of a node's ports (see :mod:`real.node_ports`), as JSON data."""
        if self._services is None:
            return {}
        if node not in self._settings:
            s3 = self._own(self._services.s3)
            if self.proxy is not None:
                port = _PORT + len(self._settings)
                self._assign(S3, self.proxy.listen(node), port)
                s3 = dataclasses.replace(s3, endpoint=f"http://{self._forward(node, S3, port)}")
            etcd = EtcdOptions(self._forward(node, BROKER), self._prefix)
            self._settings[node] = {
                "s3": dataclasses.asdict(s3),
                "etcd": dataclasses.asdict(etcd),
            }
        return self._settings[node]

    def _own(self, options: S3Options) -> S3Options:
        return dataclasses.replace(options, key_prefix=options.key_prefix + self._prefix)

    def _forward(self, node: str, service: str, port: int = _PORT) -> str:
        actual = self._hub.ask("forward", source=node, target=service, port=port)
        return f"127.0.0.1:{actual}"

    def _given(self) -> Services:
        if self._services is None:
            raise HarnessError("this session was started without services: no S3, no etcd")
        return self._services

    def admin_objects(self) -> ObjectStore:
        """The run's objects, past every fault."""
        if self._objects is None:
            self._objects = S3ObjectStore(self._own(self._given().s3))
        return self._objects

    def admin_broker(self) -> Broker:
        """The run's keys, past every fault."""
        if self._broker is None:
            self._broker = EtcdBroker(EtcdOptions(self._given().etcd, self._prefix))
        return self._broker

    async def close(self) -> None:
        """Remove the run's objects, unless they are kept; keys in etcd run out by themselves."""
        if self.proxy is not None:
            await self.proxy.close()
        if self._services is not None and not self._keep:
            await self._remove_objects(self.admin_objects())
        if self._objects is not None:
            await self._objects.close()
        if self._broker is not None:
            await self._broker.close()

    async def _remove_objects(self, objects: ObjectStore) -> None:
        keys = [found.key for found in await objects.list("")]
        for start in range(0, len(keys), _DELETES_AT_ONCE):
            batch = keys[start : start + _DELETES_AT_ONCE]
            await asyncio.gather(*(objects.delete(key) for key in batch))


def _address(name: str, host: str, port: int) -> tuple[str, int]:
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    except OSError as error:
        raise HarnessError(f"cannot find the {name} server {host}:{port}: {error}") from error
    return str(found[0]), int(found[1])
