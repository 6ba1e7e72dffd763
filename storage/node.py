"""What a node main receives and promises: the contract between ``storage`` and its worlds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.ports import Ports


@dataclass
class NodeContext:
    """One incarnation of a node.

    ``name`` is the node's host name: it listens on ``(name, service port)`` and peers reach it
    there, in both worlds. ``options`` is plain JSON data that the role parses into its own
    dataclass. A main sets ``ready`` once it accepts connections, and returns soon after
    ``stopping`` is set; a main that raises has crashed. ``die`` ends the process at once, as
    ``kill -9`` would, for the reason given; in sim it returns, and the next wait never ends.
    """

    name: str
    ports: Ports
    options: Mapping[str, Any]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    die: Callable[[str], None] | None = None


NodeMain = Callable[[NodeContext], Awaitable[None]]
"""A role: runs one incarnation of a node from start to stop."""
