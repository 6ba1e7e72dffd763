"""Handles of nodes: what a scenario can do to a process, and ask it over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from harness.admin_log import AdminLog
from harness.backend import Backend, NodeSpec
from harness.fault_ports import Loss
from storage.ids import TenantId, TenantTimelineId, TimelineId
from storage.lsn import Lsn

SAFEKEEPER_LIBPQ_PORT, SAFEKEEPER_HTTP_PORT = 5454, 7676
PAGESERVER_LIBPQ_PORT, PAGESERVER_HTTP_PORT = 6400, 9898
COMPUTE_LIBPQ_PORT, COMPUTE_HTTP_PORT = 5432, 5480


class NodeHandle:
    """One node of a cluster, through all its incarnations."""

    http_port: int

    def __init__(self, backend: Backend, spec: NodeSpec, admin: AdminLog | None = None) -> None:
        self._backend = backend
        self._admin = admin or AdminLog(backend.now_s)
        self.spec = spec
        self.known = False
        """Whether it was ever started."""
        self.machine_died = False
        """Whether its machine ever died, so that some peer may still wait for a word of it."""

    @property
    def name(self) -> str:
        """The node's name, which is also its host name."""
        return self.spec.name

    @property
    def running(self) -> bool:
        """Whether an incarnation runs now (a paused one does)."""
        return self.known and self._backend.running(self.name)

    async def start(self, *, within_s: float = 30.0) -> None:
        """Start the next incarnation and wait until it accepts connections."""
        await self._backend.spawn(self.spec)
        self.known = True
        await self._backend.wait_ready(self.name, within_s=within_s)

    async def stop(self, *, within_s: float = 20.0) -> None:
        """Ask the node to end and wait for it; ``NotLive`` if it does not."""
        await self._backend.stop(self.name, within_s=within_s)

    async def kill(self, *, host: bool = False, loss: Loss = Loss.RANDOM) -> None:
        """Crash the process, or with ``host`` the machine below it, which loses unsynced data."""
        await self._backend.kill(self.name, host=host, loss=loss)
        self.machine_died |= host

    async def pause(self) -> None:
        """Freeze the process; its connections stay open and say nothing."""
        await self._backend.pause(self.name)

    async def resume(self) -> None:
        """Let a paused process go on."""
        await self._backend.resume(self.name)

    async def restart(self) -> None:
        """Stop gracefully, then start again on the same disk."""
        await self.stop()
        await self.start()

    async def wipe(self) -> None:
        """Erase the disk of this node, which must not be running."""
        await self._backend.wipe(self.name)

    async def http(self, method: str, path: str, body: Any = None) -> Any:
        """One request to the node's own API; ``path`` without ``/v1``. Raises ``HttpError``."""
        return await self._admin.call(self.name, self.http_port, (method, path, body))

    async def arm(self, failpoint: str, action: str, **plan: Any) -> None:
        """Have a failpoint act from now on; ``plan`` as in :class:`storage.failpoints.Plan`."""
        await self.http("PUT", f"/failpoints/{failpoint}", {"action": action, **plan})

    async def disarm(self, failpoint: str) -> None:
        """Have a failpoint do nothing; who is paused at it goes on."""
        await self.http("DELETE", f"/failpoints/{failpoint}")

    async def failpoint(self, name: str) -> dict[str, Any]:
        """Plan, ``hits``, ``fired`` and ``waiting`` of a failpoint, since it was armed."""
        points = await self.http("GET", "/failpoints")
        return next(dict(point) for point in points if point["name"] == name)

    async def tasks(self) -> list[dict[str, Any]]:
        """The node's task registry."""
        found = await self.http("GET", "/tasks")
        return list(found["tasks"] if isinstance(found, dict) else found)


@dataclass(frozen=True)
class SafekeeperTimeline:
    """What a safekeeper says of a timeline."""

    term: int
    last_log_term: int
    flush_lsn: Lsn
    commit_lsn: Lsn
    truncate_lsn: Lsn
    backup_lsn: Lsn
    remote_consistent_lsn: Lsn
    timeline_start_lsn: Lsn
    local_start_lsn: Lsn
    oldest_segment: int | None
    active: bool

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """From the API's JSON."""
        return cls(**_typed(cls, data))


@dataclass(frozen=True)
class PageserverTimeline:
    """What a pageserver says of a timeline; ``walreceiver`` describes the WAL source;
    ``superseded``: attached elsewhere since; ``standby_horizon_lsn``: the oldest LSN that a hot
    standby reads at, as far as it was heard of."""

    state: str
    last_record_lsn: Lsn
    disk_consistent_lsn: Lsn
    remote_consistent_lsn: Lsn
    initdb_lsn: Lsn
    latest_gc_cutoff_lsn: Lsn
    standby_horizon_lsn: Lsn | None
    ancestor_timeline_id: str | None
    ancestor_lsn: Lsn | None
    walreceiver: Any
    superseded: bool

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """From the API's JSON."""
        return cls(**_typed(cls, data))


@dataclass(frozen=True)
class GarbageCollected:
    """What a pass did: the cutoff, and what held it back (``horizon``, ``lease`` …)."""

    cutoff: Lsn
    held_by: str
    layers_removed: int


def _typed(shape: type, data: dict[str, Any]) -> dict[str, Any]:
    """Pick the fields of a dataclass from JSON, LSNs parsed."""
    fields: dict[str, Any] = {}
    for name in shape.__dataclass_fields__:  # type: ignore[attr-defined]
        value = data.get(name)
        fields[name] = Lsn.parse(value) if name.endswith("_lsn") and value is not None else value
    return fields


@dataclass(frozen=True)
class TimelineSpec:
    """How a timeline starts: what pageserver and safekeepers must agree on."""

    start_lsn: Lsn
    system_id: int
    pg_version: int
    wal_segment_size: int


class SafekeeperHandle(NodeHandle):
    """A safekeeper."""

    http_port = SAFEKEEPER_HTTP_PORT

    @property
    def address(self) -> str:
        """``host:port`` of the WAL service."""
        return f"{self.name}:{SAFEKEEPER_LIBPQ_PORT}"

    async def create_timeline(
        self, timeline: TenantTimelineId, spec: TimelineSpec, members: list[str]
    ) -> None:
        """Create a timeline; ``members`` are the addresses of all its safekeepers."""
        body = {
            "start_lsn": str(spec.start_lsn),
            "system_id": spec.system_id,
            "pg_version": spec.pg_version,
            "wal_segment_size": spec.wal_segment_size,
            "safekeepers": members,
        }
        await self.http("POST", _timeline_path(timeline), body)

    async def timeline(self, timeline: TenantTimelineId) -> SafekeeperTimeline:
        """Terms and LSNs of a timeline."""
        return SafekeeperTimeline.of(await self.http("GET", _timeline_path(timeline)))

    async def streams(self, timeline: TenantTimelineId) -> dict[str, Any]:
        """Whom it serves: ``proposers``, a count, and ``readers``, descriptions."""
        status = await self.http("GET", _timeline_path(timeline))
        return {name: status[name] for name in ("proposers", "readers")}

    async def delete_timeline(self, timeline: TenantTimelineId, *, remote: bool = False) -> None:
        """Delete a timeline for good, with ``remote`` its WAL in S3 too."""
        query = "?remote=true" if remote else ""
        await self.http("DELETE", f"{_timeline_path(timeline)}{query}")

    async def pull_timeline(self, timeline: TenantTimelineId, donors: list[str]) -> None:
        """Copy a timeline that is not here from the best of some members (addresses)."""
        await self.http("POST", f"{_timeline_path(timeline)}/pull", {"donors": donors})

    async def patch_backup_lsn(self, timeline: TenantTimelineId, lsn: Lsn) -> None:
        """Have it believe that S3 has WAL up to ``lsn``."""
        await self.http("POST", f"{_timeline_path(timeline)}/patch", {"backup_lsn": str(lsn)})

    async def subscribe(self, timeline: TenantTimelineId, pageserver: str) -> None:
        """Have the safekeeper call ``pageserver`` (``host:port``) while it lacks WAL."""
        await self.http("PUT", f"{_timeline_path(timeline)}/subscription/{pageserver}")

    async def digest(self, timeline: TenantTimelineId, start: Lsn, end: Lsn) -> str:
        """SHA-256 of the WAL bytes in [start, end)."""
        path = f"{_timeline_path(timeline)}/digest?from_lsn={start}&until_lsn={end}"
        answer = await self.http("GET", path)
        return str(answer["sha256"])


class PageserverHandle(NodeHandle):
    """A pageserver."""

    http_port = PAGESERVER_HTTP_PORT

    @property
    def address(self) -> str:
        """``host:port`` of the page service."""
        return f"{self.name}:{PAGESERVER_LIBPQ_PORT}"

    async def create_tenant(self, tenant_id: TenantId) -> None:
        """Create an empty tenant, attached here."""
        await self.http("POST", f"/tenant/{tenant_id}")

    async def attach(self, tenant_id: TenantId) -> None:
        """Attach a tenant whose data is in S3; returns when the request is accepted."""
        await self.http("POST", f"/tenant/{tenant_id}/attach")

    async def warm(self, tenant_id: TenantId) -> int:
        """Download the layers of a tenant that lives elsewhere; returns how many bytes it took."""
        return int((await self.http("POST", f"/tenant/{tenant_id}/warm"))["downloaded_bytes"])

    async def detach(self, tenant_id: TenantId) -> None:
        """Detach a tenant; its data stays in S3."""
        await self.http("POST", f"/tenant/{tenant_id}/detach")

    async def tenant_state(self, tenant_id: TenantId) -> str:
        """State of a tenant, such as ``Active``. Raises ``HttpError`` 404 if it is not here."""
        return str((await self.http("GET", f"/tenant/{tenant_id}"))["state"])

    async def create_timeline(self, timeline: TenantTimelineId, spec: TimelineSpec) -> None:
        """Create an empty timeline whose WAL begins at ``spec.start_lsn``."""
        body = {
            "timeline_id": timeline.timeline_id,
            "start_lsn": str(spec.start_lsn),
            "pg_version": spec.pg_version,
        }
        await self.http("POST", f"/tenant/{timeline.tenant_id}/timeline", body)

    async def branch(
        self, ancestor: TenantTimelineId, branch_id: TimelineId, at: Lsn | None = None
    ) -> None:
        """Create a branch of ``ancestor`` at an LSN, or at its head."""
        body: dict[str, Any] = {
            "timeline_id": branch_id,
            "ancestor_timeline_id": ancestor.timeline_id,
        }
        if at is not None:
            body["ancestor_start_lsn"] = str(at)
        await self.http("POST", f"/tenant/{ancestor.tenant_id}/timeline", body)

    async def timeline(self, timeline: TenantTimelineId) -> PageserverTimeline:
        """State and LSNs of a timeline."""
        return PageserverTimeline.of(await self.http("GET", _timeline_path(timeline)))

    async def collect_garbage(
        self, timeline: TenantTimelineId, *, gc_horizon: int = 0, pitr_interval_s: float = 0.0
    ) -> GarbageCollected:
        """One pass of garbage collection that keeps so many bytes and seconds of history."""
        body = {"gc_horizon": gc_horizon, "pitr_interval_s": pitr_interval_s}
        answer = await self.http("POST", f"{_timeline_path(timeline)}/gc", body)
        return GarbageCollected(
            Lsn.parse(answer["cutoff"]), answer["held_by"], int(answer["layers_removed"])
        )

    async def compact(self, timeline: TenantTimelineId) -> None:
        """Merge layers and make images, as far as it is due."""
        await self.http("POST", f"{_timeline_path(timeline)}/compact")

    async def lease(
        self, timeline: TenantTimelineId, lsn: Lsn, length_s: float | None = None
    ) -> float:
        """Keep an LSN readable; returns for how long, in seconds."""
        body: dict[str, Any] = {"lsn": str(lsn)}
        if length_s is not None:
            body["length_s"] = length_s
        answer = await self.http("POST", f"{_timeline_path(timeline)}/lease", body)
        return float(answer["valid_for_s"])

    async def delete_timeline(self, timeline: TenantTimelineId) -> None:
        """Delete a timeline for good."""
        await self.http("DELETE", _timeline_path(timeline))

    async def lsn_by_timestamp(
        self, timeline: TenantTimelineId, timestamp_us: int
    ) -> tuple[str, Lsn]:
        """How a time (microseconds since 1970) lies to the commits, and the LSN it belongs to."""
        path = f"{_timeline_path(timeline)}/lsn_by_timestamp?timestamp_us={timestamp_us}"
        answer = await self.http("GET", path)
        return str(answer["kind"]), Lsn.parse(answer["lsn"])

    async def checkpoint(self, timeline: TenantTimelineId) -> None:
        """Flush and upload what is in memory now; returns when S3 has it."""
        await self.http("POST", f"{_timeline_path(timeline)}/checkpoint")


def _timeline_path(timeline: TenantTimelineId) -> str:
    return f"/tenant/{timeline.tenant_id}/timeline/{timeline.timeline_id}"
