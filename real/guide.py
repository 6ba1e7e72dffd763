"""How people reach a running cluster: with psql, with curl, with a browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.nodes import (
    COMPUTE_HTTP_PORT,
    COMPUTE_LIBPQ_PORT,
    PAGESERVER_HTTP_PORT,
    PAGESERVER_LIBPQ_PORT,
    SAFEKEEPER_HTTP_PORT,
    SAFEKEEPER_LIBPQ_PORT,
)
from storage.ids import TenantTimelineId

HostPort = Callable[[str, int], tuple[str, int]]
"""A loopback address of a node's port (``harness.backend.Backend.host_port``)."""

ENDPOINT = "main"
USERS = {"postgres": "postgres", "walgen": "seawall"}


@dataclass(frozen=True)
class Place:
    """A node's ports: ``libpq`` for psql, ``http`` for curl and browsers; 0 if it has none."""

    node: str
    libpq: int
    http: int


def places(compute: str, safekeepers: Sequence[str], pageservers: Sequence[str]) -> list[Place]:
    """Every node people may want to talk to, the endpoint first."""
    endpoint = [Place(ENDPOINT, COMPUTE_LIBPQ_PORT, 0)]
    if compute == "walgen":
        endpoint = [Place(ENDPOINT, COMPUTE_LIBPQ_PORT, COMPUTE_HTTP_PORT)]
    else:
        endpoint.append(Place(f"{ENDPOINT}-wp", 0, COMPUTE_HTTP_PORT))
    return [
        *endpoint,
        *(Place(name, SAFEKEEPER_LIBPQ_PORT, SAFEKEEPER_HTTP_PORT) for name in safekeepers),
        *(Place(name, PAGESERVER_LIBPQ_PORT, PAGESERVER_HTTP_PORT) for name in pageservers),
    ]


@dataclass(frozen=True)
class Guide:
    """Texts about one cluster."""

    compute: str
    timeline: TenantTimelineId
    places: Sequence[Place]
    host_port: HostPort
    page_url: str

    def conninfo(self, place: Place) -> str:
        """A libpq connection string; safekeepers get the timeline as start-up options."""
        host, port = self.host_port(place.node, place.libpq)
        user = USERS[self.compute] if place.node == ENDPOINT else "seawall"
        text = f"host={host} port={port} user={user} dbname={user}"
        if place.libpq == SAFEKEEPER_LIBPQ_PORT:
            tenant, timeline = self.timeline
            text += f" options='-c tenant_id={tenant} -c timeline_id={timeline}'"
        return text

    def url(self, place: Place, path: str = "/v1/status") -> str:
        """Where a browser or curl finds a node's HTTP API."""
        host, port = self.host_port(place.node, place.http)
        return f"http://{host}:{port}{path}"

    def text(self, data: Path | None) -> str:
        """What ``real up`` prints."""
        tenant, timeline = self.timeline
        first_safekeeper = next(p for p in self.places if p.libpq == SAFEKEEPER_LIBPQ_PORT)
        lines = [
            f"tenant   {tenant}",
            f"timeline {timeline}",
            "",
            *(
                f'psql "{self.conninfo(p)}" {_hint(self.compute, p)}'
                for p in self.places
                if p.libpq
            ),
            "",
            *(f"curl {self.url(p)}" for p in self.places if p.http),
            f"curl {self.url(first_safekeeper, '/v1/metrics')}",
            "",
            f"browser  {self.page_url}",
            f"data     {data if data is not None else 'removed at the end; --data DIR keeps it'}",
            "Ctrl-C stops the cluster.",
        ]
        return "\n".join(lines)


def _hint(compute: str, place: Place) -> str:
    if place.libpq == SAFEKEEPER_LIBPQ_PORT:
        return "-c TIMELINE_STATUS"
    if place.libpq == PAGESERVER_LIBPQ_PORT:
        return "-c status"
    return '-c "select version()"' if compute == "postgres" else '-c "put 1 hello"'
