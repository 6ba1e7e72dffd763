"""Values: what a key holds at one LSN: a whole image, a change to the version before, or nothing.

Encoded form: one tag byte, for deltas one opcode byte, then the data.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.errors import CorruptData

TAG_IMAGE = 0
TAG_DELTA = 1
TAG_INITIAL_DELTA = 2
TAG_REMOVED = 3


class Image(NamedTuple):
    """The whole value; needs nothing older."""

    data: bytes


class Delta(NamedTuple):
    """A change: ``opcode`` names the redo function, ``data`` is its argument.

    An ``initial`` delta starts from nothing and hides every older version (WAL's "will init").
    """

    opcode: int
    data: bytes
    initial: bool = False


class Removed(NamedTuple):
    """The key does not exist from this LSN on; hides every older version."""


Value = Image | Delta | Removed


def encode(value: Value) -> bytes:
    """Bytes for a layer file."""
    if isinstance(value, Image):
        return b"\x00" + value.data
    if isinstance(value, Delta):
        tag = TAG_INITIAL_DELTA if value.initial else TAG_DELTA
        return bytes((tag, value.opcode)) + value.data
    return b"\x03"


def decode(data: bytes) -> Value:
    """Inverse of :func:`encode`; ``CorruptData`` for an unknown tag."""
    tag = data[0] if data else -1
    if tag == TAG_IMAGE:
        return Image(data[1:])
    if tag in (TAG_DELTA, TAG_INITIAL_DELTA) and len(data) >= 2:
        return Delta(data[1], data[2:], tag == TAG_INITIAL_DELTA)
    if tag == TAG_REMOVED and len(data) == 1:
        return Removed()
    raise CorruptData(f"stored value of {len(data)} bytes has the unknown tag {tag}")
