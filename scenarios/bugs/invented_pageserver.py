"""Slips of our own making in the pageserver: ways to break it that history lacks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TypeVar

from harness.bug import Bug
from scenarios.bugs.slip import slip
from storage import checked_json, durable
from storage.errors import ObjectStoreError
from storage.ids import TenantId
from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver import attached, creation, read_view
from storage.pageserver.attached import FORMAT_VERSION, PATH
from storage.pageserver.candidates import Candidates
from storage.pageserver.index import TimelineIndex
from storage.pageserver.keys import Key
from storage.pageserver.layer import Layer
from storage.pageserver.layer_map import LayerMap, Search
from storage.pageserver.memory_layer import MemoryLayer, Version
from storage.pageserver.read_view import ReadPoint
from storage.pageserver.remote import Attachment, RemoteTenant
from storage.pageserver.tenant import Tenant
from storage.pageserver.tenants import Tenants
from storage.pageserver.timeline import FrozenLayer, Timeline
from storage.pageserver.upload_queue import UPLOADS_AT_ONCE, Operation, PutIndex, UploadQueue
from storage.pageserver.uploader import Uploader
from storage.pageserver.walreceiver import WalReceiver
from storage.ports import Disk

T = TypeVar("T")

_flushed = Timeline.flushed
_search = LayerMap.search
_get = Timeline.get


def _index_joins(self: UploadQueue, batch: list[Operation], operation: Operation) -> bool:
    return len(batch) < UPLOADS_AT_ONCE and isinstance(operation, type(batch[0]) | PutIndex)


async def _put_once(self: RemoteTenant, key: str, data: bytes) -> None:
    with suppress(ObjectStoreError):
        await self._bounded(self._objects.put(key, data))


def _delete_first(self: Timeline, *, remove: list[Layer], add: list[Layer]) -> None:
    self.layers.replace(remove=remove, add=add)
    for layer in add:
        self.uploader.put_layer(layer)
    if remove:
        self.uploader.delete_layers(tuple(layer.name for layer in remove))
    self.uploader.put_index(self.index())


async def _always_newest(self: Uploader) -> bool:
    return True


async def _claim_blindly(self: RemoteTenant, node: str) -> int:
    """Two nodes that claim at once may get one generation."""
    newest = await self.newest_attachment()
    claim = Attachment(self.tenant_id, newest.generation + 1, node)
    await self.put(self._attachment_key, claim.encode())
    return claim.generation


async def _put_index_over_anything(
    self: RemoteTenant, index: TimelineIndex, *, previous_etag: str | None
) -> str:
    key = self.index_key(index.timeline_id, index.generation)
    return await self.persistently(
        f"upload of {key}", lambda: self._objects.put(key, index.encode())
    )


async def _save_in_place(disk: Disk, tenants: dict[TenantId, int]) -> None:
    file = await disk.open(PATH, create=True)
    try:
        await file.truncate(0)
        await file.pwrite(0, checked_json.encode({"tenants": tenants}, FORMAT_VERSION))
    finally:
        await file.close()


async def _write_unsynced(disk: Disk, path: str, data: bytes) -> None:
    file = await disk.open(path, create=True)
    try:
        await file.truncate(0)
        await file.pwrite(0, data)
    finally:
        await file.close()


async def _replace_without_directory(disk: Disk, path: str, data: bytes) -> None:
    temporary = path + durable.TEMPORARY_SUFFIX
    await durable._write_whole(disk, temporary, data)
    await disk.rename(temporary, path)


async def _detach_in_memory(self: Tenants, tenant: Tenant) -> None:
    tenant_id = tenant.tenant_id
    async with self.lock(tenant_id):
        if self._tenants.get(tenant_id) is not tenant:
            return
        await tenant.stop(flush_within_s=self._environment.options.detach_flush_timeout_s)
        await tenant.remove_files()
        del self._tenants[tenant_id]


async def _always_take_over(self: RemoteTenant, node: str) -> int | None:
    return await self.claim_generation(node)


async def _announce_before_it_counts(
    tenants: Tenants, tenant: Tenant, index: TimelineIndex
) -> Timeline:
    """The branch is served and acknowledged; its index follows when it is flushed."""
    assert tenants
    timeline = await tenant.add_timeline(index, "")
    timeline.uploader._index_etag = None
    timeline.uploader.put_index(index)
    return timeline


async def _publish_without_asking(
    tenants: Tenants, tenant: Tenant, index: TimelineIndex
) -> Timeline:
    """Nobody looks whether the tenant was attached elsewhere meanwhile."""
    what = f"creating timeline {index.timeline_id}"
    etag = await tenants.bounded(what, tenant.remote.put_index(index, previous_etag=None))
    return await tenant.add_timeline(index, etag)


def _newest_previous_record(self: Timeline, frozen: FrozenLayer, layer: Layer | None) -> None:
    frozen.prev_record_lsn = self.prev_record_lsn
    _flushed(self, frozen, layer)


def _freeze_at_the_last_record(self: Timeline) -> None:
    """The last record is in the layer, its LSN is not in the layer's range."""
    if not self.is_dirty():
        return
    self._announce()
    self.open_layer.freeze(self.last_record_lsn)
    self.frozen.append(FrozenLayer(self.open_layer, self.prev_record_lsn))
    self.open_layer = MemoryLayer(Lsn(self.last_record_lsn + 1))
    self.open_since_s = None
    self.flush_wanted.set()


async def _newest_from_cache(self: Timeline, key: Key, lsn: Lsn) -> bytes | None:
    cached = self.environment.pages.get((self._number, key))
    return await _get(self, key, lsn) if cached is None else cached[1]


def _any_image(
    self: LayerMap[Layer], key: Key, upto: Lsn, above: Lsn = INVALID_LSN
) -> Search[Layer]:
    found = _search(self, key, upto, above)
    over = (x for x in self if x.name.is_image and x.name.first <= key <= x.name.last)
    newest = max(over, key=lambda layer: layer.name.start_lsn, default=None)
    if newest is None or newest.name.start_lsn <= above:
        return found
    return Search(found.deltas, newest, newest.name.start_lsn)


def _stop_at_first(self: MemoryLayer, key: Key, above: Lsn, upto: Lsn, into: list[Version]) -> bool:
    """The newest version is taken for complete, whatever it is."""
    for version in reversed(self._versions.get(key, ())):
        if version[0] <= upto:
            into.append(version)
            return True
    return False


def _wait_for_nothing(timeline: Timeline, point: ReadPoint) -> Lsn:
    return min(point.request_lsn, timeline.last_record_lsn)


def _stay_for_ever(self: Candidates, now_s: float) -> str | None:
    return None


def _disk_for_remote(self: WalReceiver, stream: object) -> None:
    timeline = self._timeline
    real = timeline.remote_consistent
    timeline.remote_consistent = timeline.disk_consistent
    try:
        _send_status(self, stream)  # type: ignore[arg-type]
    finally:
        timeline.remote_consistent = real


_send_status = WalReceiver._send_status


def _remote_when_flushed(self: Timeline, frozen: FrozenLayer, layer: Layer | None) -> None:
    _flushed(self, frozen, layer)
    self._index_uploaded(self.index())


async def _first_goes_last(self: Uploader) -> None:
    batch = self._queue.start_batch()
    self._queue.finish_batch()
    self._queue.schedule(batch[0])
    for each in batch[1:]:
        self._queue.schedule(each)
    await _step(self)


_step = Uploader.step


async def _do_not_close_readers(self: Timeline) -> None:
    self.uploader.close()
    for layer in self.layers:
        await layer.close()


BUGS: Sequence[Bug] = (
    slip("own-index-beside-layers", "O7", "a pageserver dies while it uploads",
          (UploadQueue, "_may_join", _index_joins)),
    slip("own-upload-error-swallowed", "O7 O8", "S3 answers with errors",
          (RemoteTenant, "put", _put_once)),
    slip("own-delete-before-index", "O7 O8", "a pageserver dies after a compaction",
          (Timeline, "replace_layers", _delete_first)),
    slip("own-never-superseded", "O7 O9", "a tenant moves",
          (Uploader, "is_newest", _always_newest)),
    slip("own-claim-blindly", "O7 O9", "attachments that overlap",
          (RemoteTenant, "claim_generation", _claim_blindly)),
    slip("own-index-over-anything", "O7 O8", "S3 carries uploads out late",
          (RemoteTenant, "put_index", _put_index_over_anything)),
    slip("own-replaced-unsynced", "O5 O9", "a host dies after a vote or an attachment",
          (durable, "_write_whole", _write_unsynced)),
    slip("own-replaced-without-directory", "O5 O9", "a host dies after a vote or an attachment",
          (durable, "replace_file", _replace_without_directory)),
    slip("own-attached-in-place", "O9", "a pageserver's host dies",
          (attached, "save", _save_in_place)),
    slip("own-detach-in-memory", "O9", "a pageserver restarts after a detach",
          (Tenants, "_detach", _detach_in_memory)),
    slip("own-steals-back", "O9", "a pageserver restarts after its tenant moved",
          (RemoteTenant, "renew_generation", _always_take_over)),
    slip("own-branch-before-index", "O9 O8", "a pageserver dies after a branch was made",
          (creation, "_publish", _announce_before_it_counts)),
    slip("own-branch-of-superseded", "O9", "a branch is made while the tenant moves",
          (creation, "_publish", _publish_without_asking)),
    slip("own-newest-previous-record", "O12 O10", "a pageserver restarts",
          (Timeline, "flushed", _newest_previous_record)),
    slip("own-freeze-at-last-record", "O6 O12", "every run that flushes",
          (Timeline, "freeze", _freeze_at_the_last_record)),
    slip("own-cache-at-any-lsn", "O6", "reads in the past",
          (Timeline, "get", _newest_from_cache)),
    slip("own-image-of-the-future", "O6", "reads in the past, after images were made",
          (LayerMap, "search", _any_image)),
    slip("own-newest-version-only", "O6", "every run",
          (MemoryLayer, "collect", _stop_at_first)),
    slip("own-read-does-not-wait", "O6", "reads of what was just written",
          (read_view, "_needed_lsn", _wait_for_nothing)),
    slip("own-stays-with-silent", "O10", "a safekeeper falls silent",
          (Candidates, "reason_to_leave", _stay_for_ever)),
    slip("own-disk-told-as-remote", "O4 O7 O8", "S3 is slow or away",
          (WalReceiver, "_send_status", _disk_for_remote)),
    slip("own-remote-when-flushed", "O4 O7 O8", "every run that flushes",
          (Timeline, "flushed", _remote_when_flushed)),
    slip("own-uploads-reordered", "O7", "every run that compacts",
          (Uploader, "step", _first_goes_last)),
    slip("own-closes-under-readers", "O6 O12", "a detach while pages are read",
          (Timeline, "close", _do_not_close_readers)),
)  # fmt: skip
