"""Named child generators: every component draws from its own, derived from (root seed, name).

A draw added to one component therefore moves nothing in any other, and a replayed seed gives each
component the stream it had. Names are paths such as ``"link/sk0>ps0"`` or ``"disk/sk0"``.
"""

from __future__ import annotations

import hashlib
import random


class Seeds:
    """The root of a run's entropy. ``root`` is any integer; equal roots give equal children."""

    __slots__ = ("_prefix", "root")

    def __init__(self, root: int) -> None:
        self.root = root
        self._prefix = f"{root}/".encode()

    def number(self, name: str) -> int:
        """The 64-bit seed of the child called ``name``."""
        digest = hashlib.blake2b(self._prefix + name.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big")

    def child(self, name: str) -> random.Random:
        """A fresh generator for ``name``; asking twice gives two that draw the same stream."""
        return random.Random(self.number(name))

    def below(self, name: str) -> Seeds:
        """The seeds of a sub-component, whose own children are named below ``name``."""
        return Seeds(self.number(name))
