"""What a fault is: how it is caused and undone, whom it can strike, and how its effect is measured.

Each family of faults has a file; :mod:`harness.faulting.vocabulary` is the whole list. A fault is
caused through ``harness.backend`` and the handles of a cluster only, so it means the same in every
world; what a world cannot do is an :class:`harness.backend.Ability` that the fault needs.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.backend import Ability

if TYPE_CHECKING:
    from harness.faulting.stage import Stage

Option = int | float | str | bool
Undo = Callable[[], Awaitable[None]]
"""Ends a fault; safe to call once, whatever happened to the target meanwhile."""


class Scope(enum.StrEnum):
    """What a fault strikes."""

    NODE = "node"
    LINK = "link"
    DIRECTION = "direction"
    DISK = "disk"
    OBJECT_STORE = "object_store"
    BROKER = "broker"
    CLOCK = "clock"
    COMPUTE = "compute"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Strike:
    """Whom a fault strikes (names of nodes) and how; plain data."""

    targets: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)

    def number(self, name: str, default: float | None = None) -> float:
        """An option that is a number; plans from before the option was there get the default."""
        value = self.options[name] if default is None else self.options.get(name, default)
        assert isinstance(value, int | float), f"option {name} is {value!r}"
        return value


@dataclass(frozen=True, slots=True)
class Cast:
    """Whom a plan can strike: the names of a cluster's nodes."""

    safekeepers: tuple[str, ...]
    pageservers: tuple[str, ...]
    compute: str = "main"

    @property
    def storage(self) -> tuple[str, ...]:
        """Every storage node."""
        return (*self.safekeepers, *self.pageservers)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node."""
        return (*self.storage, self.compute)


Draw = Callable[[Cast, random.Random], Strike]
Cause = Callable[["Stage", Strike], Awaitable[Undo | None]]


class Damage(enum.Enum):
    """What a fault does to the copy of the data on the node's disk (see ``atlas``)."""

    NONE = "nothing that the protocol does not expect of a crash"
    LOST = "the copy is gone, and the node knows it"
    WRONG = "the copy lies: it is old or altered, and the node may not know"


@dataclass(frozen=True, slots=True)
class Fault:
    """One word of the vocabulary.

    ``effects``: counters (see ``Stage.effects``) of which one must rise for the fault to have had
    an effect; ``{}`` stands for each target. ``claims``: what no other fault may touch meanwhile.
    A fault without an ``inverse`` is a moment.
    """

    name: str
    scope: Scope
    what: str
    inverse: str
    effects: tuple[str, ...]
    draw: Draw
    cause: Cause
    claims: Callable[[Strike], tuple[str, ...]]
    needs: Ability | None = None
    damage: Damage = Damage.NONE
    unfair: str = ""
    """Which promise of the ports it breaks, if any; nothing need survive it, no profile has it."""

    @property
    def lasting(self) -> bool:
        """Whether it lasts until it is undone."""
        return bool(self.inverse)

    def counters(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """The names of its effect counters when it strikes these hosts."""
        return tuple(
            dict.fromkeys(name.format(host) for name in self.effects for host in hosts or ("",))
        )


def claim_nodes(strike: Strike) -> tuple[str, ...]:
    """A fault that decides over the life of each target."""
    return tuple(f"node:{target}" for target in strike.targets)


def claim_disks(strike: Strike) -> tuple[str, ...]:
    """A fault of each target's disk."""
    return tuple(f"disk:{target}" for target in strike.targets)


def claim_nothing(strike: Strike) -> tuple[str, ...]:
    """A moment that disturbs no other fault."""
    return ()
