"""Unpacking a tar stream as it arrives, into a directory of an unprivileged user."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from storage.errors import CorruptData

_HEADER_BYTES = 512


class Untar:
    """Push parser: :meth:`feed` pieces of any size, then :meth:`finish`.

    ``owner`` is (uid, gid) for all that is made, or ``None``. Only directories and plain files are
    taken, and only below ``target``; anything else raises ``CorruptData``.
    """

    def __init__(self, target: Path, owner: tuple[int, int] | None) -> None:
        self._target = target
        self._owner = owner
        self._buffer = bytearray()
        self._file: BinaryIO | None = None
        self._left = 0
        self._padding = 0
        self._ended = False
        self.files = 0
        target.mkdir(mode=0o700, exist_ok=True)
        self._own(target)

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._buffer += data
        while not self._ended and self._step():
            pass
        if self._ended:
            self._buffer.clear()

    def finish(self) -> None:
        """The stream is over; ``CorruptData`` if it was cut short."""
        self.close()
        if not self._ended:
            raise CorruptData(f"the tar stream ended after {self.files} files, without its end")

    def close(self) -> None:
        """Close the file under way, if any; for streams given up half way."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _step(self) -> bool:
        """Consume something; false when more bytes are needed."""
        if self._left:
            taken = min(self._left, len(self._buffer))
            assert self._file is not None
            self._file.write(self._buffer[:taken])
            del self._buffer[:taken]
            self._left -= taken
            if self._left:
                return False
        self.close()
        if len(self._buffer) < self._padding + _HEADER_BYTES:
            return False
        header = bytes(self._buffer[self._padding : self._padding + _HEADER_BYTES])
        del self._buffer[: self._padding + _HEADER_BYTES]
        self._padding = 0
        if header == bytes(_HEADER_BYTES):
            self._ended = True
            return False
        self._begin(header)
        return True

    def _begin(self, header: bytes) -> None:
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise CorruptData(f"bad tar header after {self.files} files: {error}") from error
        name = PurePosixPath(info.name)
        if name.is_absolute() or ".." in name.parts or not (info.isfile() or info.isdir()):
            raise CorruptData(f"tar entry {info.name!r} of type {info.type!r} is not taken")
        path = self._target / name
        if info.isdir():
            self._directory(path)
            return
        self._directory(path.parent)
        self._file = path.open("wb")
        self._left = info.size
        self._padding = -info.size % _HEADER_BYTES
        self.files += 1
        self._own(path)

    def _directory(self, path: Path) -> None:
        if path.exists():
            return
        self._directory(path.parent)
        path.mkdir(mode=0o700)
        self._own(path)

    def _own(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, *self._owner)
