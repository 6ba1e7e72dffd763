"""``cluster.json``: what a kept data directory holds, so that a later start is the same cluster."""

from __future__ import annotations

import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from harness.errors import HarnessError
from harness.topology import Topology
from storage.ids import TenantId, TenantTimelineId, TimelineId

FILE = "cluster.json"


@dataclass(frozen=True)
class ClusterFile:
    """A cluster's shape, and the ids of its one timeline once that exists.

    ``name`` keeps its objects apart from those of others in a shared bucket.
    """

    name: str
    compute: str
    safekeepers: int
    pageservers: int
    discovery: str
    wal_segment_size: int
    tenant_id: str = ""
    timeline_id: str = ""

    @classmethod
    def fresh(cls, compute: str, topology: Topology) -> ClusterFile:
        """The file of a cluster that is yet to be started."""
        return cls(
            name=f"seawall-{secrets.token_hex(6)}",
            compute=compute,
            safekeepers=topology.safekeepers,
            pageservers=topology.pageservers,
            discovery=topology.discovery,
            wal_segment_size=topology.wal_segment_size,
        )

    @classmethod
    def load(cls, directory: Path) -> ClusterFile | None:
        """What a directory holds, ``None`` if it is empty; ``HarnessError`` if it is not ours."""
        path = directory / FILE
        if not path.exists():
            strange = sorted(each.name for each in directory.iterdir() if each.name != _LOCK)
            if strange:
                raise HarnessError(
                    f"{str(directory)!r} holds {strange[0]!r} but no {FILE}: not a cluster's data; "
                    "name an empty directory or one that `real up` has kept"
                )
            return None
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise HarnessError(f"{str(path)!r} makes no sense: {error}") from error

    def save(self, directory: Path) -> None:
        """Write it, whole or not at all."""
        unfinished = directory / f"{FILE}.tmp"
        unfinished.write_text(json.dumps(asdict(self), indent=1) + "\n")
        unfinished.replace(directory / FILE)

    def check_same(self, wanted: ClusterFile) -> None:
        """``HarnessError`` names an option that differs from what the directory was made with."""
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(wanted, field.name)
            if field.name not in ("name", "tenant_id", "timeline_id") and ours != theirs:
                raise HarnessError(
                    f"the kept cluster has {field.name} {ours}, not {theirs}; leave the option "
                    "out, or name another directory"
                )

    def with_timeline(self, timeline: TenantTimelineId) -> ClusterFile:
        """The same cluster, now with its timeline."""
        return replace(self, tenant_id=timeline.tenant_id, timeline_id=timeline.timeline_id)

    @property
    def timeline(self) -> TenantTimelineId | None:
        """The timeline, if it was created."""
        if not self.timeline_id:
            return None
        return TenantTimelineId(TenantId(self.tenant_id), TimelineId(self.timeline_id))

    @property
    def topology(self) -> Topology:
        """For ``World.start``."""
        assert self.discovery in ("broker", "callmemaybe"), self.discovery
        return Topology(
            safekeepers=self.safekeepers,
            pageservers=self.pageservers,
            discovery="broker" if self.discovery == "broker" else "callmemaybe",
            wal_segment_size=self.wal_segment_size,
        )


_LOCK = "lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Have a data directory for ourselves; ``HarnessError`` while another cluster runs on it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / _LOCK).open("w")
    except OSError as error:
        raise HarnessError(
            f"cannot use the data directory {str(directory)!r}: {error.strerror}; name another"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HarnessError(
                f"a cluster runs on {str(directory)!r} already; stop it, or name another directory"
            ) from None
        yield
