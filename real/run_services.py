"""The shared services as one run sees them: its own names, behind links that can be faulted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import HarnessError
from real.network import HubClient
from real.session import Services
from storage.ports import Broker, ObjectStore

S3 = "s3"
BROKER = "broker"
_PORT = 1


class RunServices:
    """S3 and etcd of one run; ``name`` keeps runs that share them apart."""

    def __init__(self, services: Services | None, hub: HubClient, name: str) -> None:
        self._services = services
        self._hub = hub
        self._name = name

    def settings_for(self, node: str) -> Mapping[str, Any]:
        return {}

    def admin_objects(self) -> ObjectStore:
        raise HarnessError("this run has no object store")

    def admin_broker(self) -> Broker:
        raise HarnessError("this run has no broker")

    async def close(self) -> None:
        pass
