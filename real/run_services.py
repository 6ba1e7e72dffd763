"""The shared services as one run sees them: its own prefix, behind links that can be faulted.

Every node reaches S3 and etcd through forwards of its own in the hub, so that its clients, which
know no cluster hosts, are cut off like any other link. Oracles go past the hub.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from harness.errors import HarnessError
from real.broker import EtcdBroker
from real.etcd import EtcdOptions
from real.network import HubClient
from real.object_store import S3ObjectStore, S3Options
from real.session import Services
from storage.ports import Broker, ObjectStore

S3 = "s3"
BROKER = "broker"
_PORT = 1
_DELETES_AT_ONCE = 16


class RunServices:
    """S3 and etcd of one run; ``name`` keeps runs that share them apart."""

    def __init__(self, services: Services | None, hub: HubClient, name: str) -> None:
        self._services = services
        self._hub = hub
        self._prefix = f"{name}/"
        self._objects: S3ObjectStore | None = None
        self._broker: EtcdBroker | None = None
        self._settings: dict[str, Mapping[str, Any]] = {}
        self.s3_is_linked = True
        if services is not None:
            host, _, port = services.etcd.rpartition(":")
            self._assign(BROKER, host, int(port))
            self._assign_s3(services.s3)

    def _assign_s3(self, options: S3Options) -> None:
        url = urlsplit(options.endpoint)
        self.s3_is_linked = url.scheme == "http"
        if self.s3_is_linked:  # TLS would notice a man in the middle, so it goes direct.
            assert url.hostname is not None, options.endpoint
            self._assign(S3, url.hostname, url.port or 80)

    def _assign(self, name: str, host: str, port: int) -> None:
        try:
            address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
        except OSError as error:
            raise HarnessError(f"cannot find the {name} server {host}:{port}: {error}") from error
        self._hub.ask("assign", name=name, port=_PORT, address=list(address[:2]))

    def settings_for(self, node: str) -> Mapping[str, Any]:
        """The ``settings`` of a node's ports (see :mod:`real.node_ports`), as JSON data."""
        if self._services is None:
            return {}
        if node not in self._settings:
            s3 = self._own(self._services.s3)
            if self.s3_is_linked:
                endpoint = f"http://{self._forward(node, S3)}"
                s3 = dataclasses.replace(s3, endpoint=endpoint)
            etcd = EtcdOptions(self._forward(node, BROKER), self._prefix)
            self._settings[node] = {
                "s3": dataclasses.asdict(s3),
                "etcd": dataclasses.asdict(etcd),
            }
        return self._settings[node]

    def _own(self, options: S3Options) -> S3Options:
        return dataclasses.replace(options, key_prefix=options.key_prefix + self._prefix)

    def _forward(self, node: str, service: str) -> str:
        port = self._hub.ask("forward", source=node, target=service, port=_PORT)
        return f"127.0.0.1:{port}"

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
        """Remove the run's objects; its keys in etcd run out by themselves."""
        if self._services is not None:
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
