"""An object store in this process' memory, for benchmarks of what is above it."""

from __future__ import annotations

from storage.errors import ObjectMissing, PreconditionFailed
from storage.ports import ObjectInfo


class KeptObjects:
    """Implements ``storage.ports.ObjectStore`` at once and without failures."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._puts = 0

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_etag: str | None = None
    ) -> str:
        """See the port."""
        there = self._objects.get(key)
        if if_absent and there is not None:
            raise PreconditionFailed(f"{key} is there")
        if if_etag is not None and (there is None or there[1] != if_etag):
            raise PreconditionFailed(f"{key} is not {if_etag}")
        self._puts += 1
        self._objects[key] = bytes(data), str(self._puts)
        return str(self._puts)

    async def get(self, key: str) -> bytes:
        """See the port."""
        return self._found(key)[0]

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """See the port."""
        return self._found(key)[0][offset : offset + length]

    async def head(self, key: str) -> ObjectInfo:
        """See the port."""
        data, etag = self._found(key)
        return ObjectInfo(key, len(data), etag)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """See the port."""
        return [await self.head(key) for key in sorted(self._objects) if key.startswith(prefix)]

    async def delete(self, key: str) -> None:
        """See the port."""
        self._objects.pop(key, None)

    def _found(self, key: str) -> tuple[bytes, str]:
        if key not in self._objects:
            raise ObjectMissing(f"there is no {key}")
        return self._objects[key]
