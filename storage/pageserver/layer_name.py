"""Names of layer files: what a layer covers, spelt so that no two layers of a timeline collide.

``delta0`` is a flushed in-memory layer (any keys of its LSN range), ``delta1`` the product of a
compaction (disjoint key ranges), ``image`` a complete picture of its key range at one LSN. The
attachment's generation is part of the name: two pageservers never write the same object.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.pageserver.keys import KEY_SIZE, Key


class LayerKind(enum.StrEnum):
    """Levels of layers, as they appear in file names."""

    DELTA_0 = "delta0"
    DELTA_1 = "delta1"
    IMAGE = "image"


_TEXT = re.compile(
    r"(delta0|delta1|image)-([0-9a-f]{36})-([0-9a-f]{36})-([0-9a-f]{16})-([0-9a-f]{16})"
    r"-([0-9a-f]{8})\Z"
)


@dataclass(frozen=True, slots=True)
class LayerName:
    """Keys ``first`` … ``last`` (both inside), LSNs ``start_lsn`` ≤ x < ``end_lsn``.

    An image layer at LSN x has the range x … x + 1.
    """

    kind: LayerKind
    first: Key
    last: Key
    start_lsn: Lsn
    end_lsn: Lsn
    generation: int

    def __post_init__(self) -> None:
        if self.first > self.last or self.start_lsn >= self.end_lsn:
            raise CorruptData(f"layer {self} covers nothing")
        if self.kind is LayerKind.IMAGE and self.end_lsn - self.start_lsn != 1:
            raise CorruptData(f"image layer {self} has more than one LSN")

    def __str__(self) -> str:
        return (
            f"{self.kind}-{self.first.encode().hex()}-{self.last.encode().hex()}"
            f"-{self.start_lsn:016x}-{self.end_lsn:016x}-{self.generation:08x}"
        )

    @classmethod
    def parse(cls, text: str) -> LayerName:
        """Inverse of ``str``; ``CorruptData`` for anything else."""
        match = _TEXT.match(text)
        if match is None:
            raise CorruptData(f"{text!r} is not the name of a layer")
        kind, first, last, start, end, generation = match.groups()
        assert len(first) == 2 * KEY_SIZE
        return cls(
            LayerKind(kind),
            Key.decode(bytes.fromhex(first)),
            Key.decode(bytes.fromhex(last)),
            Lsn(int(start, 16)),
            Lsn(int(end, 16)),
            int(generation, 16),
        )

    @staticmethod
    def is_name(text: str) -> bool:
        """Whether a text is written as the name of a layer is."""
        return _TEXT.match(text) is not None

    @property
    def is_image(self) -> bool:
        """Whether the layer holds one complete picture instead of a stretch of history."""
        return self.kind is LayerKind.IMAGE
