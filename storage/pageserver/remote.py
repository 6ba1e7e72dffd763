"""A tenant in the object store: where things are, and requests that give up in time.

``pageserver/{tenant}/generation.json`` says which node holds the newest attachment; every
attachment writes its own ``index-{generation}.json`` for each timeline, so one that was superseded
cannot harm the newer one. A timeline exists exactly when it has an index.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from storage import checked_json
from storage.errors import (
    Conflict,
    CorruptData,
    NotFound,
    NotReady,
    ObjectMissing,
    ObjectStoreError,
    PreconditionFailed,
)
from storage.ids import TenantId, TimelineId
from storage.marks import Mark, reach
from storage.pageserver.backoff import Backoff
from storage.pageserver.index import TimelineIndex
from storage.pageserver.layer_name import LayerName
from storage.pageserver.options import PageserverOptions
from storage.ports import ObjectStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

ATTACHMENT_FORMAT = 1

_INDEX = re.compile(r"timelines/([0-9a-f]{32})/index-([0-9a-f]{8})\.json\Z")
_LAYER = re.compile(r"timelines/([0-9a-f]{32})/layers/([^/]+)\Z")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An index (``layer`` is ``None``) or a layer, and which attachment wrote it."""

    key: str
    timeline_id: TimelineId
    generation: int
    layer: LayerName | None

    @classmethod
    def of(cls, key: str) -> StoredObject | None:
        """What a key says; ``None`` for an object that no pageserver writes: it is not ours."""
        index = _INDEX.search(key)
        if index is not None:
            return cls(key, TimelineId(index[1]), int(index[2], 16), None)
        layer = _LAYER.search(key)
        if layer is None or not LayerName.is_name(layer[2]):
            return None
        name = LayerName.parse(layer[2])
        return cls(key, TimelineId(layer[1]), name.generation, name)


@dataclass(frozen=True, slots=True)
class Attachment:
    """Content of ``generation.json``: whose it is, the newest attachment's number, its node."""

    tenant_id: TenantId
    generation: int
    node: str

    def encode(self) -> bytes:
        """JSON text with a checksum."""
        return checked_json.encode(dataclasses.asdict(self), ATTACHMENT_FORMAT)

    @classmethod
    def decode(cls, data: bytes, source: str) -> Attachment:
        """Inverse of :meth:`encode`; ``CorruptData`` naming ``source``."""
        body = checked_json.decode(data, ATTACHMENT_FORMAT, source)
        try:
            return cls(TenantId(body["tenant_id"]), int(body["generation"]), str(body["node"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptData(f"{source} is not an attachment record: {error!r}") from error


class IndexTaken(Conflict):
    """The store holds another index in that place: ``index``, with ``etag``."""

    def __init__(self, index: TimelineIndex, etag: str) -> None:
        super().__init__(
            f"timeline {index.timeline_id} has another index of generation {index.generation}: "
            f"etag {etag}"
        )
        self.index = index
        self.etag = etag


class RemoteTenant:
    """The tenant's part of the bucket. Every request is bounded by ``remote_timeout_s``."""

    def __init__(
        self,
        tenant_id: TenantId,
        objects: ObjectStore,
        options: PageserverOptions,
        entropy: random.Random,
    ) -> None:
        self.tenant_id = tenant_id
        self._objects = objects
        self._options = options
        self._entropy = entropy
        self._closed = False
        self._requests = 0
        self._fuses: dict[int, asyncio.Timeout] = {}
        self._prefix = f"pageserver/{tenant_id}/"
        self._attachment_key = f"{self._prefix}generation.json"

    def index_key(self, timeline_id: TimelineId, generation: int) -> str:
        """Where an attachment keeps a timeline's index."""
        return f"{self._prefix}timelines/{timeline_id}/index-{generation:08x}.json"

    def layer_key(self, timeline_id: TimelineId, name: LayerName) -> str:
        """Where a layer lies."""
        return f"{self._prefix}timelines/{timeline_id}/layers/{name}"

    async def persistently(self, what: str, request: Callable[[], Awaitable[T]]) -> T:
        """Repeat a request until the store answers; its authoritative refusals pass through."""
        backoff = Backoff(self._entropy, delay_s_max=self._options.retry_delay_s_max)
        while True:
            if self._closed:
                raise NotReady(f"tenant {self.tenant_id} is stopping")
            try:
                return await self._bounded(request())
            except (ObjectMissing, PreconditionFailed):
                raise
            except ObjectStoreError as error:
                reach(Mark.REQUEST_REPEATED)
                delay_s = backoff.next_delay_s()
                logger.info(
                    "%s of tenant %s: %s; again in %.2f s", what, self.tenant_id, error, delay_s
                )
                await asyncio.sleep(delay_s)

    async def _bounded(self, request: Awaitable[T]) -> T:
        self._requests += 1
        number = self._requests
        try:
            async with asyncio.timeout(self._options.remote_timeout_s) as fuse:
                self._fuses[number] = fuse
                return await request
        except TimeoutError as error:
            raise ObjectStoreError(
                f"no answer within {self._options.remote_timeout_s} s", may_have_happened=True
            ) from error
        finally:
            self._fuses.pop(number, None)

    def close(self) -> None:
        """End every request under way and refuse new ones, so that nobody waits for the store."""
        self._closed = True
        now_s = asyncio.get_running_loop().time()
        for fuse in self._fuses.values():
            fuse.reschedule(now_s)

    # Attachment generations.

    async def newest_attachment(self) -> Attachment:
        """Who attached last; ``NotFound`` when the store says that the tenant does not exist."""
        try:
            data = await self.persistently(
                "reading the generation", lambda: self._objects.get(self._attachment_key)
            )
        except ObjectMissing:
            raise NotFound(f"tenant {self.tenant_id} does not exist in the object store") from None
        newest = Attachment.decode(data, self._attachment_key)
        if newest.tenant_id != self.tenant_id:
            raise CorruptData(f"{self._attachment_key} is of tenant {newest.tenant_id}")
        return newest

    async def create(self, node: str) -> int:
        """Make a new tenant; returns its first generation. ``Conflict`` if it exists."""
        attachment = Attachment(self.tenant_id, 1, node)
        try:
            await self.persistently(
                "creation",
                lambda: self._objects.put(
                    self._attachment_key, attachment.encode(), if_absent=True
                ),
            )
        except PreconditionFailed:
            # Our own put may have been carried out although its answer was lost.
            newest = await self.newest_attachment()
            if newest != attachment:
                raise Conflict(f"tenant {self.tenant_id} exists already") from None
        return attachment.generation

    async def claim_generation(self, node: str) -> int:
        """Become the newest attachment; returns its generation, larger than any before."""
        claimed = await self._claim(node, lambda _newest: True)
        assert claimed is not None, "any attachment may be followed"
        return claimed

    async def renew_generation(self, node: str) -> int | None:
        """As :meth:`claim_generation` for who is the newest already; ``None`` if another node is,
        even if it came while the object store was asked."""
        return await self._claim(node, lambda newest: newest.node == node)

    async def _claim(self, node: str, may_follow: Callable[[Attachment], bool]) -> int | None:
        while True:
            before = await self.persistently(
                "reading the generation", lambda: self._head_or_missing()
            )
            newest = await self.newest_attachment()
            if not may_follow(newest):
                return None
            claim = Attachment(self.tenant_id, newest.generation + 1, node)
            try:
                await self._bounded(
                    self._objects.put(self._attachment_key, claim.encode(), if_etag=before)
                )
            except PreconditionFailed:
                reach(Mark.GENERATION_CONTENDED)
                continue
            except ObjectStoreError as error:
                # It may have been carried out; the next claim is then one higher, no harm done.
                logger.info("claiming a generation of tenant %s: %s", self.tenant_id, error)
                await asyncio.sleep(Backoff(self._entropy).next_delay_s())
                continue
            assert claim.generation > newest.generation
            return claim.generation

    async def _head_or_missing(self) -> str:
        try:
            return (await self._objects.head(self._attachment_key)).etag
        except ObjectMissing:
            raise NotFound(f"tenant {self.tenant_id} does not exist in the object store") from None

    async def is_newest(self, generation: int) -> bool:
        """Whether no attachment after this generation exists."""
        return (await self.newest_attachment()).generation <= generation

    # Timelines.

    async def index_keys(self) -> dict[TimelineId, dict[int, str]]:
        """Every index object: timeline → generation → key, in order of listing."""
        listing = await self.persistently(
            "listing timelines", lambda: self._objects.list(f"{self._prefix}timelines/")
        )
        found: dict[TimelineId, dict[int, str]] = {}
        for info in listing:
            match = _INDEX.search(info.key)
            if match is not None:
                found.setdefault(TimelineId(match[1]), {})[int(match[2], 16)] = info.key
        return found

    async def indexes(self) -> dict[TimelineId, TimelineIndex]:
        """The newest index of every timeline. All or nothing: no error counts as absence."""
        found: dict[TimelineId, TimelineIndex] = {}
        for timeline_id, generations in (await self.index_keys()).items():
            key = generations[max(generations)]
            data = await self.persistently(
                f"download of {key}",
                lambda key=key: self._objects.get(key),  # type: ignore[misc]
            )
            index = TimelineIndex.decode(data, key)
            if (index.timeline_id, index.generation) != (timeline_id, max(generations)):
                other = f"timeline {index.timeline_id}, generation {index.generation}"
                raise CorruptData(f"{key} is the index of {other}")
            found[timeline_id] = index
        return found

    async def put_index(self, index: TimelineIndex, *, previous_etag: str | None) -> str:
        """Upload an index under its own generation; returns its etag.

        It replaces exactly the index with ``previous_etag`` (``None``: there is none yet), so that
        an older upload which the store carries out late changes nothing. :class:`IndexTaken` when
        the object is neither that nor this one, ``Conflict`` when it was removed.
        """
        key = self.index_key(index.timeline_id, index.generation)
        data = index.encode()
        try:
            return await self.persistently(
                f"upload of {key}",
                lambda: self._objects.put(
                    key, data, if_absent=previous_etag is None, if_etag=previous_etag
                ),
            )
        except PreconditionFailed:
            # An earlier attempt of ours may have been carried out although its answer was lost.
            found, etag = await self._present_index(key)
            if found != data:
                raise IndexTaken(TimelineIndex.decode(found, key), etag) from None
            reach(Mark.ANSWER_LOST_INDEX_THERE)
            return etag

    async def _present_index(self, key: str) -> tuple[bytes, str]:
        try:
            info = await self.persistently(f"check of {key}", lambda: self._objects.head(key))
            return await self.get(key), info.etag
        except ObjectMissing:
            raise Conflict(f"{key} was removed by somebody else") from None

    async def objects(self, timeline_id: TimelineId | None = None) -> list[StoredObject]:
        """Indexes and layers of one timeline or (``None``) of all, in order of listing."""
        prefix = f"{self._prefix}timelines/" + (f"{timeline_id}/" if timeline_id else "")
        listing = await self.persistently(f"listing {prefix}", lambda: self._objects.list(prefix))
        found = [StoredObject.of(info.key) for info in listing]
        return [each for each in found if each is not None]

    async def remove_leftovers(self, index: TimelineIndex, found: Iterable[StoredObject]) -> None:
        """Remove what earlier attachments left of what was ``found`` of a timeline: their indexes,
        and layers that ``index`` lacks.

        Only for the newest attachment, and only once ``index`` is uploaded.
        """
        named = {self.layer_key(index.timeline_id, name) for name, _ in index.layers}
        for each in found:
            assert each.timeline_id == index.timeline_id, f"{each.key} is of another timeline"
            if each.generation < index.generation and each.key not in named:
                await self.delete(each.key)

    async def remove_dead(self, index: TimelineIndex, found: Iterable[StoredObject]) -> None:
        """Remove what was ``found`` of a timeline that is gone and that attachments up to the one
        of its last ``index`` wrote, layers before indexes; a tombstone stays."""
        spared = self.index_key(index.timeline_id, index.generation) if index.deleted else ""
        keys = []
        for each in found:
            assert each.timeline_id == index.timeline_id, f"{each.key} is of another timeline"
            if each.generation <= index.generation and each.key != spared:
                keys.append((each.layer is None, each.key))
        for _, key in sorted(keys):
            await self.delete(key)

    async def put(self, key: str, data: bytes) -> None:
        """Upload an object."""
        await self.persistently(f"upload of {key}", lambda: self._objects.put(key, data))

    async def get(self, key: str) -> bytes:
        """Download an object; ``ObjectMissing`` when the store has none."""
        return await self.persistently(f"download of {key}", lambda: self._objects.get(key))

    async def delete(self, key: str) -> None:
        """Delete an object."""
        await self.persistently(f"deletion of {key}", lambda: self._objects.delete(key))
