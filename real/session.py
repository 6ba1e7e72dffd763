"""What several runs of one test session share: the fork server, S3, etcd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from real.forkclient import ForkClient

PRELOAD = ("storage.roles", "real.node_ports")


@dataclass(frozen=True)
class Services:
    """Addresses of the shared services."""


class RealSession:
    """Starts everything at once and early; close it in the end."""

    def __init__(self, preload: Sequence[str] = PRELOAD, services: Services | None = None) -> None:
        self.forks = ForkClient(preload)
        self.services = services
        self.has_postgres = False

    def roles_of(self, role: str, default: str) -> str:
        """Which mapping of roles a role is found in."""
        return default

    def close(self) -> None:
        """End every process of the session."""
        self.forks.close()
