"""Bugs of layers on their way to disk and object store: what may be called consistent, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from harness.bug import Bug, Replacement
from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.pageserver.layer import Layer
from storage.pageserver.layer_file import LayerWriter
from storage.pageserver.layer_files import LayerFiles, make_directory
from storage.pageserver.layer_name import LayerName
from storage.pageserver.timeline import FrozenLayer, Timeline
from storage.pageserver.upload_queue import UPLOADS_AT_ONCE, Operation, UploadQueue
from storage.ports import File

FAMILY = "pageserver-upload"

_load = LayerFiles.load
_finish = LayerWriter.finish


def _consistent_with_open_layers(self: Timeline, frozen: FrozenLayer) -> Lsn:
    return self.last_record_lsn


def _all_at_once(self: UploadQueue, batch: list[Operation], operation: Operation) -> bool:
    return len(batch) < UPLOADS_AT_ONCE


async def _load_from_directory(
    self: LayerFiles, listed: Iterable[tuple[LayerName, int]]
) -> list[Layer]:
    """Every local file with a layer's name is a layer, whatever the index says."""
    found = {str(name): (name, size) for name, size in listed}
    await make_directory(self._disk, self._directory)
    for text in await self._disk.listdir(self._directory):
        try:
            name = LayerName.parse(text)
        except (CorruptData, ValueError):
            continue
        found.setdefault(text, (name, await self._size(self.path(name))))
    return await _load(self, found.values())


class _Unsynced:
    """A file whose fsync does nothing."""

    def __init__(self, file: File) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    async def fsync(self) -> None:
        """Return at once."""


async def _finish_unsynced(self: LayerWriter, name: LayerName) -> int:
    self._file = cast(File, _Unsynced(self._file))
    return await _finish(self, name)


def _consistent_at_the_exclusive_end(self: Timeline, frozen: FrozenLayer) -> Lsn:
    return Lsn(min(frozen.end_lsn, self.first_unflushed_lsn()))


BUGS = (
    Bug(
        "flush-overlapping-layers-partial", FAMILY, "hard", ("O8", "O6", "O4"),
        "f58a22d07e = PR #1182",
        replacements=(Replacement(Timeline, "_consistent_lsn", _consistent_with_open_layers),),
        applies="a pageserver dies between flushes; open layers do not overlap here, so the "
        "mutation ignores the younger ones instead",
    ),
    Bug(
        "upload-put-delete-reordered", FAMILY, "hard", ("O7", "O8"),
        "a0e61145c8 = PR #5890; issue #5878",
        replacements=(Replacement(UploadQueue, "_may_join", _all_at_once),),
        applies="a pageserver dies, or the object store fails, while compaction is uploaded",
    ),
    Bug(
        "crash-between-l1-and-l0-removal", FAMILY, "hard", ("O12", "O6"),
        "9e1449353d = PR #5198 (#5172); issues #4088, #5077; 17116f2ea9 = #7799 (#7790); "
        "bb69e0920c",
        replacements=(Replacement(LayerFiles, "load", _load_from_directory),),
        applies="a pageserver dies between a flush or compaction and the index that tells of it",
    ),
    Bug(
        "layer-file-visible-before-durable", FAMILY, "medium", ("O12", "O6"),
        "05f8e6a050; 3da4b3165e (issue #1744); f3e4f85e65 = #6991 part; 97241776aa = #8835",
        replacements=(Replacement(LayerWriter, "finish", _finish_unsynced),),
        applies="a pageserver's host dies soon after a flush",
    ),
    Bug(
        "future-layer-boundary-off-by-one", FAMILY, "easy", ("O8", "O6"),
        "5ecf0664cc, 7bc1274a03; issue #783",
        replacements=(Replacement(Timeline, "_consistent_lsn", _consistent_at_the_exclusive_end),),
        applies="every run that flushes",
    ),
)  # fmt: skip
