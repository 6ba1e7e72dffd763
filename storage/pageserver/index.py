"""The index of a timeline: the one authoritative list of its layers, and its metadata.

It lives in the object store as JSON with a checksum, one object for each attachment generation.
Whatever it does not name does not exist: local files and objects beside it are leftovers.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage import checked_json
from storage.errors import CorruptData
from storage.ids import TimelineId
from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.layer_name import LayerName
from storage.pageserver.wal_times import Sample

FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True)
class TimelineIndex:
    """What the object store knows of a timeline. ``layers`` are (name, size in bytes) pairs.

    ``prev_record_lsn`` is the start of the last record up to ``disk_consistent_lsn`` (0: unknown);
    ``ancestor_lsn`` is 0 for a timeline without ancestor. ``branch_points`` are the children that
    garbage collection up to ``latest_gc_cutoff_lsn`` has spared; ``times`` say how old WAL is.
    A ``deleted`` one is a tombstone: the timeline is gone for good, whatever older indexes say.
    """

    timeline_id: TimelineId
    generation: int
    pg_version: int
    initdb_lsn: Lsn
    disk_consistent_lsn: Lsn
    latest_gc_cutoff_lsn: Lsn
    prev_record_lsn: Lsn = INVALID_LSN
    ancestor_timeline_id: TimelineId | None = None
    ancestor_lsn: Lsn = INVALID_LSN
    layers: tuple[tuple[LayerName, int], ...] = ()
    branch_points: tuple[tuple[TimelineId, Lsn], ...] = ()
    times: tuple[Sample, ...] = ()
    deleted: bool = False

    def encode(self) -> bytes:
        """JSON text with a checksum."""
        body = {
            "timeline_id": self.timeline_id,
            "generation": self.generation,
            "pg_version": self.pg_version,
            "initdb_lsn": str(self.initdb_lsn),
            "disk_consistent_lsn": str(self.disk_consistent_lsn),
            "latest_gc_cutoff_lsn": str(self.latest_gc_cutoff_lsn),
            "prev_record_lsn": str(self.prev_record_lsn),
            "ancestor_timeline_id": self.ancestor_timeline_id,
            "ancestor_lsn": str(self.ancestor_lsn),
            "layers": [{"name": str(name), "size": size} for name, size in self.layers],
            "branch_points": {child: str(lsn) for child, lsn in self.branch_points},
            "deleted": self.deleted,
            "times": [[wall_us, str(lsn)] for wall_us, lsn in self.times],
        }
        return checked_json.encode(body, FORMAT_VERSION)

    @classmethod
    def decode(cls, data: bytes, source: str) -> TimelineIndex:
        """Inverse of :meth:`encode`; ``CorruptData`` naming ``source``."""
        body = checked_json.decode(data, FORMAT_VERSION, source)
        try:
            ancestor = body["ancestor_timeline_id"]
            return cls(
                timeline_id=TimelineId(body["timeline_id"]),
                generation=int(body["generation"]),
                pg_version=int(body["pg_version"]),
                initdb_lsn=Lsn.parse(body["initdb_lsn"]),
                disk_consistent_lsn=Lsn.parse(body["disk_consistent_lsn"]),
                latest_gc_cutoff_lsn=Lsn.parse(body["latest_gc_cutoff_lsn"]),
                prev_record_lsn=Lsn.parse(body["prev_record_lsn"]),
                ancestor_timeline_id=None if ancestor is None else TimelineId(ancestor),
                ancestor_lsn=Lsn.parse(body["ancestor_lsn"]),
                layers=tuple((LayerName.parse(x["name"]), int(x["size"])) for x in body["layers"]),
                branch_points=tuple(
                    (TimelineId(child), Lsn.parse(lsn))
                    for child, lsn in body["branch_points"].items()
                ),
                deleted=bool(body["deleted"]),
                times=tuple(Sample(int(us), Lsn.parse(lsn)) for us, lsn in body["times"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptData(f"{source} is not a timeline index: {error!r}") from error
