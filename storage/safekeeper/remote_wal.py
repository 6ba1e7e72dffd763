"""One timeline's WAL in the object store: whole segments, and a manifest that fences offloaders.

``safekeeper/{tenant}/{timeline}/{segment}`` holds a segment as PostgreSQL would have it on disk;
``…/manifest.json`` says up to where segments are whole, and carries the fencing token of the newest
offloader. Segments are written once and never replaced; the manifest only by whoever holds its
etag. So an offloader that lost its lease can neither change WAL nor claim that there is more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import TypeVar

from storage.consensus.term_history import TermHistory, TermSwitch
from storage.errors import (
    CorruptData,
    ObjectMissing,
    ObjectStoreError,
    PreconditionFailed,
    ProtocolError,
)
from storage.ids import TenantTimelineId
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.ports import ObjectStore
from storage.safekeeper.control_state import TimelineIdentity
from storage.safekeeper.segments import WAL_TIMELINE
from storage.wal.format import crc32c, segment_name

T = TypeVar("T")


class Superseded(ObjectStoreError):
    """A newer offloader has written the manifest: this one must stop."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in S3: every byte of WAL of ``[start_lsn, backup_lsn)``, which has this history.

    ``fencing_token`` grows with each offloader; ``node`` is the name of the newest one.
    """

    fencing_token: int
    node: str
    start_lsn: Lsn
    backup_lsn: Lsn
    wal_segment_size: int
    term_history: TermHistory

    @classmethod
    def created(cls, identity: TimelineIdentity) -> Manifest:
        """Of a timeline of which nothing is in S3, by nobody yet."""
        start = identity.start_lsn
        history = TermHistory.born_at(start)
        return cls(0, "", start, start, identity.wal_segment_size, history)

    def claimed(self, fencing_token: int, node: str) -> Manifest:
        """The same WAL under a newer offloader."""
        assert fencing_token > self.fencing_token, f"{fencing_token} after {self.fencing_token}"
        return replace(self, fencing_token=fencing_token, node=node)

    def advanced(self, backup_lsn: Lsn, history: TermHistory) -> Manifest:
        """More WAL by the same offloader."""
        assert backup_lsn > self.backup_lsn, f"{backup_lsn} after {self.backup_lsn}"
        return replace(self, backup_lsn=backup_lsn, term_history=history)

    def encode(self) -> bytes:
        """JSON with a CRC-32C over everything else."""
        body = {
            "fencing_token": self.fencing_token,
            "node": self.node,
            "start_lsn": str(self.start_lsn),
            "backup_lsn": str(self.backup_lsn),
            "wal_segment_size": self.wal_segment_size,
            "term_history": [[s.term, str(s.lsn)] for s in self.term_history.switches],
        }
        return json.dumps({**body, "crc32c": _checksum(body)}, sort_keys=True).encode()

    @classmethod
    def decode(cls, data: bytes, key: str) -> Manifest:
        """Inverse of :meth:`encode`; ``CorruptData`` names ``key``."""
        try:
            body = json.loads(data)
            stored = body.pop("crc32c")
            if stored != _checksum(body):
                raise CorruptData(f"{key}: CRC is {_checksum(body)}, stored {stored}")
            switches = (TermSwitch(term, Lsn.parse(lsn)) for term, lsn in body["term_history"])
            return cls(
                fencing_token=body["fencing_token"],
                node=body["node"],
                start_lsn=Lsn.parse(body["start_lsn"]),
                backup_lsn=Lsn.parse(body["backup_lsn"]),
                wal_segment_size=body["wal_segment_size"],
                term_history=TermHistory(tuple(switches)),
            )
        except (ValueError, KeyError, TypeError, AttributeError, ProtocolError) as error:
            raise CorruptData(f"{key} is no manifest of WAL: {error!r}") from error


def _checksum(body: dict[str, object]) -> str:
    return f"{crc32c(json.dumps(body, sort_keys=True).encode()):08x}"


class RemoteWal:
    """One timeline's part of the bucket; each request gets ``timeout_s`` seconds."""

    def __init__(
        self,
        objects: ObjectStore,
        timeline_id: TenantTimelineId,
        segment_size: int,
        timeout_s: float,
    ) -> None:
        self.segment_size = segment_size
        self._objects = objects
        self._timeout_s = timeout_s
        self._prefix = _prefix(timeline_id)
        self._manifest_key = f"{self._prefix}manifest.json"

    def segment_key(self, segment: int) -> str:
        """Where a segment lies."""
        return self._prefix + segment_name(WAL_TIMELINE, segment, self.segment_size)

    async def _bounded(self, request: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await request
        except TimeoutError:
            raise ObjectStoreError(
                f"no answer within {self._timeout_s} s", may_have_happened=True
            ) from None

    async def manifest(self) -> tuple[Manifest, str] | None:
        """The manifest and its etag, ``None`` if nothing was ever offloaded."""
        while True:
            try:
                info = await self._bounded(self._objects.head(self._manifest_key))
                data = await self._bounded(self._objects.get(self._manifest_key))
                again = await self._bounded(self._objects.head(self._manifest_key))
            except ObjectMissing:
                return None
            if info.etag == again.etag:
                return Manifest.decode(data, self._manifest_key), info.etag

    async def replace_manifest(self, manifest: Manifest, etag: str | None) -> str:
        """Write the manifest in place of the one with ``etag`` (``None``: there is none).

        Returns the new etag. ``Superseded`` when somebody else has written it since; an earlier
        try of ours whose answer got lost counts as done.
        """
        try:
            return await self._bounded(
                self._objects.put(
                    self._manifest_key, manifest.encode(), if_absent=etag is None, if_etag=etag
                )
            )
        except PreconditionFailed:
            found = await self.manifest()
            if found is not None and found[0] == manifest:
                return found[1]
            reach(Mark.OFFLOADER_FENCED)
            raise Superseded(f"{self._manifest_key} is {found}, not what was read before") from None

    async def put_segment(self, segment: int, data: bytes) -> None:
        """Store a whole segment, once. ``CorruptData`` if another content is there already."""
        assert len(data) == self.segment_size, f"{len(data)} bytes are no whole segment"
        key = self.segment_key(segment)
        try:
            await self._bounded(self._objects.put(key, data, if_absent=True))
        except PreconditionFailed:
            reach(Mark.SEGMENT_WAS_THERE)
            # Either our own earlier try, or that of the offloader before us.
            if await self._bounded(self._objects.get(key)) != data:
                raise CorruptData(f"{key} is in S3 with other content than ours") from None

    async def read(self, begin_lsn: Lsn, end_lsn: Lsn) -> bytes:
        """Bytes of one segment. ``CorruptData`` if it has fewer, ``ObjectStoreError``."""
        segment, offset = divmod(int(begin_lsn), self.segment_size)
        length = end_lsn - begin_lsn
        assert 0 < length <= self.segment_size - offset, f"{begin_lsn}..{end_lsn}"
        key = self.segment_key(segment)
        data = await self._bounded(self._objects.get_range(key, offset, length))
        if len(data) != length:
            raise CorruptData(f"{key} ends at byte {offset + len(data)} of {self.segment_size}")
        return data


def _prefix(timeline_id: TenantTimelineId) -> str:
    return f"safekeeper/{timeline_id.tenant_id}/{timeline_id.timeline_id}/"


async def remove_remote_wal(objects: ObjectStore, timeline_id: TenantTimelineId) -> None:
    """Remove every object of a timeline; only once no member offloads it any more."""
    for info in await objects.list(_prefix(timeline_id)):
        await objects.delete(info.key)
