"""Tar archives as streams: read entry by entry as bytes arrive, write header by header.

Formats: ustar for writing; ustar, GNU long names and pax records for reading. ``tarfile`` does the
header arithmetic; it cannot do the streams, because it reads and writes synchronously.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from storage.errors import BadRequest

_RECORD: Final = tarfile.BLOCKSIZE
END_OF_ARCHIVE: Final = bytes(2 * _RECORD)
_SPECIAL_SIZE_MAX: Final = 1 << 20


def file_header(path: str, size: int) -> bytes:
    """What precedes a file's content: private to its owner, without times, so equal each time."""
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = size, 0o600
    return entry.tobuf(tarfile.USTAR_FORMAT)


def directory_header(path: str) -> bytes:
    """A directory, private to its owner as a server insists."""
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o700
    return entry.tobuf(tarfile.USTAR_FORMAT)


def padding(size: int) -> bytes:
    """What follows a file's content of ``size`` bytes."""
    return bytes(-size % _RECORD)


def whole_file(path: str, data: bytes) -> bytes:
    """Header, content and padding of a file."""
    return file_header(path, len(data)) + data + padding(len(data))


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry; ``path`` without ``./`` and trailing slash."""

    path: str
    size: int
    is_file: bool
    is_link: bool


class TarReader:
    """Reads an archive that arrives in chunks. Content of an entry is read before the next one."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = bytearray()
        self._left = 0  # bytes of the present entry's content not read yet
        self._padding = 0

    async def entries(self) -> AsyncIterator[TarEntry]:
        """Each entry in order; unread content is skipped. ``BadRequest`` for a broken archive."""
        overrides: dict[str, str] = {}
        while True:
            await self._skip_content()
            header = await self._take(_RECORD)
            if not header.strip(b"\0"):
                break
            info = self._parse(header)
            size = int(overrides.get("size", info.size))
            self._left, self._padding = size, -size % _RECORD
            if info.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
                overrides |= await self._special(info, size)
                continue
            if info.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                path = overrides.get("path", info.name).removeprefix("./").rstrip("/")
                yield TarEntry(path, size, info.isreg(), info.issym() or info.islnk())
            overrides = {}
        while await self._fill(1):  # Let the sender finish.
            self._buffer.clear()

    async def read(self, length: int) -> bytes:
        """Up to ``length`` bytes of the present entry; shorter only at its end."""
        length = min(length, self._left)
        self._left -= length
        return await self._take(length)

    async def _special(self, info: tarfile.TarInfo, size: int) -> dict[str, str]:
        """What an entry that describes the next one says about it."""
        if size > _SPECIAL_SIZE_MAX:
            raise BadRequest(f"tar: extended header of {size} bytes")
        data = await self.read(size)
        if info.type == tarfile.GNUTYPE_LONGNAME:
            return {"path": data.rstrip(b"\0").decode()}
        found = {}
        while data:
            length = int(data.split(b" ", 1)[0])
            name, _, value = data[:length].split(b" ", 1)[1].rstrip(b"\n").partition(b"=")
            found[name.decode()] = value.decode()
            data = data[length:]
        return found

    def _parse(self, header: bytes) -> tarfile.TarInfo:
        try:
            return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise BadRequest(f"tar: {error}; send an uncompressed tar archive") from error

    async def _skip_content(self) -> None:
        while self._left:
            await self.read(1 << 20)
        await self._take(self._padding)
        self._padding = 0

    async def _take(self, length: int) -> bytes:
        if not await self._fill(length):
            raise BadRequest(f"tar: archive ends {length - len(self._buffer)} bytes early")
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    async def _fill(self, length: int) -> bool:
        while len(self._buffer) < length:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                return False
            self._buffer += chunk
        return True
