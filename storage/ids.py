"""Identifiers of tenants and timelines: 128 bits, printed as 32 lower-case hex digits."""

from __future__ import annotations

import random
import re
from typing import NamedTuple, Self

_HEX = re.compile(r"[0-9a-f]{32}\Z")


class _HexId(str):
    """A 32-digit lower-case hex string; anything else raises ``ValueError`` naming the value."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if _HEX.match(text) is None:
            raise ValueError(f"{text!r} is not a {cls.__name__}: 32 lower-case hex digits expected")
        return super().__new__(cls, text)

    @classmethod
    def draw(cls, entropy: random.Random) -> Self:
        """Draw a fresh id from a component's own generator."""
        return cls(f"{entropy.getrandbits(128):032x}")


def is_id(text: str) -> bool:
    """Whether a text is written as an id is; what is not was never named by us."""
    return _HEX.match(text) is not None


class TenantId(_HexId):
    """Identifies a tenant: the unit of attachment and migration."""


class TimelineId(_HexId):
    """Identifies a timeline: one branch of a tenant's history."""


class TenantTimelineId(NamedTuple):
    """A timeline together with its tenant: the key of everything a storage node keeps."""

    tenant_id: TenantId
    timeline_id: TimelineId

    def __str__(self) -> str:
        return f"{self.tenant_id}/{self.timeline_id}"
