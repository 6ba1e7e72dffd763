"""The layer file format: versions sorted by (key, LSN), found through a two-level index.

Header (one block at offset 0, written last), values, index blocks, root. Every value, index block,
the root and the header carry a CRC-32C. A key's versions lie next to each other, so reading them
costs one ``pread`` besides the index block. Delta and image layers share the format. Big endian.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import NamedTuple

import google_crc32c

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.pageserver import values
from storage.pageserver.keys import KEY_SIZE, Key
from storage.pageserver.layer_name import LayerName
from storage.pageserver.memory_layer import Version
from storage.pageserver.sized_cache import SizedCache
from storage.ports import Disk, File

FORMAT_VERSION = 2
HEADER_SIZE = 512
ENTRIES_PER_BLOCK = 190
_MAGIC = b"SWLAYER\n"
_HEADER = struct.Struct(">8sHIQQQQI")
_ENTRY = struct.Struct(">18sQBQII")
_VERSION_KEY_SIZE = KEY_SIZE + 8
_ROOT_ENTRY = struct.Struct(">26sQI")
_CRC = struct.Struct(">I")
_LSN = struct.Struct(">Q")
_CHUNK = 256 * 1024
_BASE = 1


BlockCache = SizedCache[tuple[str, int], bytes]
"""Index blocks by (path of the layer file, number of the block)."""


class Entry(NamedTuple):
    """One index entry: a version and where its value lies."""

    key: bytes
    lsn: int
    flags: int
    offset: int
    length: int
    crc: int


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says besides the name; sizes and offsets in bytes."""

    name: str
    entries: int
    index_offset: int
    root_offset: int
    root_length: int
    body_crc: int
    """CRC-32C of everything behind the header: what the writer meant to be there."""

    def encode(self) -> bytes:
        """The header block."""
        name = self.name.encode()
        body = _HEADER.pack(
            _MAGIC, FORMAT_VERSION, len(name), self.entries, self.index_offset,
            self.root_offset, self.root_length, self.body_crc,
        ) + name  # fmt: skip
        assert len(body) <= HEADER_SIZE - _CRC.size, f"layer name {self.name} is too long"
        body = body.ljust(HEADER_SIZE - _CRC.size, b"\0")
        return body + _CRC.pack(google_crc32c.value(body))

    @classmethod
    def decode(cls, data: bytes, path: str) -> Header:
        """Inverse of :meth:`encode`; ``CorruptData`` naming ``path``."""
        body = _checked(data, f"header of {path}")
        if len(data) != HEADER_SIZE:
            raise CorruptData(f"header of {path} has {len(data)} bytes instead of {HEADER_SIZE}")
        magic, version, length, entries, index, root, root_length, body_crc = _HEADER.unpack_from(
            body
        )
        if magic != _MAGIC or version != FORMAT_VERSION:
            raise CorruptData(f"{path} is no layer of format {FORMAT_VERSION}: {magic!r} {version}")
        name = body[_HEADER.size : _HEADER.size + length].decode()
        return cls(name, entries, index, root, root_length, body_crc)


def check_whole(data: bytes, path: str) -> None:
    """Check all bytes of a layer against its header; ``CorruptData`` names ``path``.

    A disk may have put other bytes there than were written; such a layer must not spread.
    """
    header = Header.decode(data[:HEADER_SIZE], path)
    found = google_crc32c.value(data[HEADER_SIZE:])
    if found != header.body_crc:
        raise CorruptData(
            f"{path} is not what was written: checksum {found:08X}, not {header.body_crc:08X}"
        )


def _checked(data: bytes, what: str) -> bytes:
    """The data without its trailing CRC, which must hold."""
    if len(data) < _CRC.size:
        raise CorruptData(f"{what} is cut short: {len(data)} bytes")
    body = data[: -_CRC.size]
    (stored,) = _CRC.unpack(data[-_CRC.size :])
    if google_crc32c.value(body) != stored:
        raise CorruptData(f"{what} fails its checksum: stored {stored:08X}")
    return body


class LayerWriter:
    """Writes one layer into an open, empty file; entries must come in order of (key, LSN)."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._offset = HEADER_SIZE
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._index: list[bytes] = []
        self._last = b""
        self._crc = 0

    @property
    def size(self) -> int:
        """Bytes of header and values so far."""
        return self._offset

    @property
    def entries(self) -> int:
        """Versions added so far."""
        return len(self._index)

    def add(self, key: bytes, lsn: int, data: bytes) -> None:
        """Append one encoded value (``values.encode``) of an encoded key."""
        position = key + _LSN.pack(lsn)
        assert position > self._last, "versions must be added in order, each once"
        self._last = position
        flags = 0 if data[0] == values.TAG_DELTA else _BASE
        length = len(data)
        self._index.append(
            _ENTRY.pack(key, lsn, flags, self._offset, length, google_crc32c.value(data))
        )
        self._buffer.append(data)
        self._buffered += length
        self._offset += length

    async def drain(self) -> None:
        """Write out what is buffered if it is worth a write; call now and then."""
        if self._buffered >= _CHUNK:
            await self._flush()

    async def finish(self, name: LayerName) -> int:
        """Write the index and the header, make the file durable; returns its size in bytes."""
        assert self._index or name.is_image, f"layer {name} has no versions"
        await self._flush()
        index_offset = self._offset
        root: list[bytes] = []
        for start in range(0, len(self._index), ENTRIES_PER_BLOCK):
            block = b"".join(self._index[start : start + ENTRIES_PER_BLOCK])
            data = block + _CRC.pack(google_crc32c.value(block))
            root.append(_ROOT_ENTRY.pack(block[:_VERSION_KEY_SIZE], self._offset, len(data)))
            self._append(data)
        root_offset = self._offset
        body = b"".join(root)
        self._append(body + _CRC.pack(google_crc32c.value(body)))
        await self._flush()
        header = Header(
            str(name),
            len(self._index),
            index_offset,
            root_offset,
            self._offset - root_offset,
            self._crc,
        )
        await self._file.pwrite(0, header.encode())
        await self._file.fsync()
        return self._offset

    def _append(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffered += len(data)
        self._offset += len(data)

    async def _flush(self) -> None:
        if self._buffered:
            data = b"".join(self._buffer)
            start = self._offset - self._buffered
            self._buffer, self._buffered = [], 0
            self._crc = google_crc32c.extend(self._crc, data)
            await self._file.pwrite(start, data)


class LayerReader:
    """Reads one layer file. Index blocks go through the node's cache."""

    def __init__(self, file: File, path: str, cache: BlockCache) -> None:
        self._file = file
        self._path = path
        self._cache = cache
        self._firsts: list[bytes] = []
        self._blocks: list[tuple[int, int]] = []
        self.entries = 0

    @classmethod
    async def open(cls, disk: Disk, path: str, name: LayerName, cache: BlockCache) -> LayerReader:
        """Open and check a file; ``CorruptData`` if it is not the layer ``name``."""
        reader = cls(await disk.open(path), path, cache)
        try:
            await reader._load(name)
        except BaseException:
            await reader.close()
            raise
        return reader

    async def _load(self, name: LayerName) -> None:
        header = Header.decode(await self._file.pread(0, HEADER_SIZE), self._path)
        if header.name != str(name):
            raise CorruptData(f"{self._path} holds the layer {header.name}, not {name}")
        data = await self._file.pread(header.root_offset, header.root_length)
        for first, offset, length in _ROOT_ENTRY.iter_unpack(
            _checked(data, f"index root of {self._path}")
        ):
            self._firsts.append(first)
            self._blocks.append((offset, length))
        self.entries = header.entries

    async def close(self) -> None:
        """Release the file."""
        await self._file.close()

    async def collect(self, key: Key, above: Lsn, upto: Lsn, into: list[Version]) -> bool:
        """As ``MemoryLayer.collect``; raises ``CorruptData`` or ``DiskError``."""
        wanted = await self._select(key.encode(), above, upto)
        if not wanted:
            return False
        for entry, data in reversed(await self._values(wanted[::-1])):
            into.append((Lsn(entry.lsn), values.decode(data)))
        return bool(wanted[-1].flags & _BASE)

    async def _select(self, key: bytes, above: int, upto: int) -> list[Entry]:
        """Entries wanted, newest first, down to the first that hides the older ones."""
        chosen: list[Entry] = []
        number = bisect_right(self._firsts, key + _LSN.pack(upto)) - 1
        while number >= 0:
            block = await self._block(number)
            end = _position(block, key + _LSN.pack(upto))
            for index in range(end - 1, -1, -1):
                entry = Entry(*_ENTRY.unpack_from(block, index * _ENTRY.size))
                if entry.key != key or entry.lsn <= above:
                    return chosen
                chosen.append(entry)
                if entry.flags & _BASE:
                    return chosen
            number -= 1
        return chosen

    async def _block(self, number: int) -> bytes:
        cached = self._cache.get((self._path, number))
        if cached is not None:
            return cached
        offset, length = self._blocks[number]
        block = _checked(
            await self._file.pread(offset, length), f"index block {number} of {self._path}"
        )
        self._cache.put((self._path, number), block, len(block))
        return block

    async def _values(self, entries: list[Entry]) -> list[tuple[Entry, bytes]]:
        """Values of entries that follow each other in the file, with one read."""
        start = entries[0].offset
        last = entries[-1]
        data = await self._file.pread(start, last.offset + last.length - start)
        found = []
        for entry in entries:
            value = data[entry.offset - start : entry.offset - start + entry.length]
            if google_crc32c.value(value) != entry.crc:
                raise CorruptData(
                    f"value of {Key.decode(entry.key)} at {Lsn(entry.lsn)} in {self._path} "
                    f"fails its checksum: stored {entry.crc:08X}"
                )
            found.append((entry, value))
        return found

    async def scan(self, start: int = 0) -> AsyncGenerator[list[tuple[Entry, bytes]], None]:
        """Every version in order, in batches of one index block, from a number of block on."""
        for number in range(start, len(self._blocks)):
            block = await self._block(number)
            entries = [Entry(*fields) for fields in _ENTRY.iter_unpack(block)]
            yield await self._values(entries)

    async def distinct_keys(self, start: int = 0) -> AsyncGenerator[list[bytes], None]:
        """Every key once, encoded and in order, in batches of one index block, from a number of
        block on; reads the index only."""
        last = b""
        for number in range(start, len(self._blocks)):
            batch: list[bytes] = []
            for fields in _ENTRY.iter_unpack(await self._block(number)):
                if fields[0] != last:
                    last = fields[0]
                    batch.append(last)
            yield batch


def _position(block: bytes, wanted: bytes) -> int:
    """Number of entries of a block at or before ``wanted`` (encoded key and LSN)."""
    count = len(block) // _ENTRY.size
    return bisect_right(
        range(count),
        wanted,
        key=lambda i: block[i * _ENTRY.size : i * _ENTRY.size + _VERSION_KEY_SIZE],
    )
