"""One direction between two hosts: how long bytes travel, and what is wrong with it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields

from sim.environment import SimEnvironment
from sim.handles import Parcel
from sim.host import Host
from sim.latency import LOCAL_NETWORK, Latency

_PROBABILITIES = ("fragmentation", "datagram_loss", "datagram_duplication", "datagram_reordering")


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What a healthy link is like.

    ``bandwidth`` is in bytes per second (``None``: infinite); bytes queue for it. The others are
    probabilities: that a write arrives in two pieces (``fragmentation``), and what happens to a
    datagram; a reordered one is held back for up to ten latencies.
    """

    latency: Latency = LOCAL_NETWORK
    bandwidth: float | None = None
    fragmentation: float = 0.0
    datagram_loss: float = 0.0
    datagram_duplication: float = 0.0
    datagram_reordering: float = 0.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in _PROBABILITIES and not 0.0 <= value <= 1.0:
                raise ValueError(f"{each.name}={value} is not a probability between 0 and 1")
        if self.bandwidth is not None and self.bandwidth <= 0:
            raise ValueError(f"bandwidth={self.bandwidth} must be positive, or None for infinite")


@dataclass(slots=True)
class Effects:
    """Counters of what faults did, over all links."""

    bytes_cut: int = 0
    bytes_held: int = 0
    connections_cut: int = 0
    connections_reset: int = 0
    datagrams_duplicated: int = 0
    datagrams_lost: int = 0
    datagrams_reordered: int = 0
    messages_delayed: int = 0
    packets_cut: int = 0
    writes_fragmented: int = 0


Carried = Callable[[float], None]
"""Takes something that was held on its way again, given the present time."""


class Link:
    """The direction ``source`` → ``target``. While ``plain``, only its latency matters."""

    __slots__ = (
        "_busy_until_s",
        "_environment",
        "_held",
        "cut",
        "doubled_below",
        "draw",
        "effects",
        "entropy",
        "extra_delay_s",
        "forever",
        "host",
        "latency",
        "lost_below",
        "options",
        "plain",
        "source",
        "target",
    )

    def __init__(
        self,
        environment: SimEnvironment,
        ends: tuple[str, Host],
        options: LinkOptions,
        entropy: random.Random,
        effects: Effects,
    ) -> None:
        self._environment = environment
        self.source, self.host = ends
        self.target = self.host.name
        self.lost_below = self.doubled_below = 0.0
        """One uniform draw decides a datagram's fate: lost, doubled, or neither."""
        self.entropy = entropy
        self.draw: Callable[[], float] = entropy.random
        self.effects = effects
        self.cut = False
        self.forever = False
        self.extra_delay_s = 0.0
        self._held: list[Carried] | None = None
        self._busy_until_s = 0.0
        self.configure(options)

    def configure(self, options: LinkOptions) -> None:
        """Change what the healthy link is like; messages on their way keep their arrival."""
        self.options = options
        self.latency = options.latency.sampler(self.entropy)
        self._judge()

        loss, duplication = options.datagram_loss, options.datagram_duplication
        self.lost_below = loss
        self.doubled_below = loss + (1.0 - loss) * duplication if duplication else loss

    def _judge(self) -> None:
        self.plain = (
            not self.cut
            and self._held is None
            and self.extra_delay_s == 0.0
            and self.options.bandwidth is None
            and self.options.fragmentation == 0.0
        )

    def arrival_s(self, now_s: float, size: int) -> float:
        """When ``size`` bytes sent now arrive: queueing for bandwidth, latency, extra delay."""
        depart_s = now_s
        if self.options.bandwidth is not None:
            depart_s = max(now_s, self._busy_until_s) + size / self.options.bandwidth
            self._busy_until_s = depart_s
        if self.extra_delay_s:
            self.effects.messages_delayed += 1
        return depart_s + self.latency() + self.extra_delay_s

    def holds(self, size: int, carry_on: Carried) -> bool:
        """Whether the link is on hold; if so it keeps ``carry_on`` for the release."""
        if self._held is None:
            return False
        self.effects.bytes_held += size
        self._held.append(carry_on)
        return True

    def post(self, size: int, arrive: Callable[[], None]) -> None:
        """Send a packet that belongs to no established connection; ``arrive`` runs at the target.

        It runs in the kernel, under no node; the packet may vanish, wait or be late.
        """
        self._post(size, arrive, self._environment.now)

    def _post(self, size: int, arrive: Callable[[], None], now_s: float) -> None:
        if self.cut:
            self.effects.packets_cut += 1
        elif not self.holds(size, lambda later_s: self._post(size, arrive, later_s)):
            parcel = Parcel(self._environment, arrive)
            self._environment.ring_at(self.arrival_s(now_s, size), parcel)

    def split_at(self, size: int) -> int:
        """Where this write breaks in two, or 0 if it arrives whole."""
        probability = self.options.fragmentation
        if size < 2 or probability == 0.0 or self.entropy.random() >= probability:
            return 0
        self.effects.writes_fragmented += 1
        return 1 + int(self.entropy.random() * (size - 1))

    def set_cut(self) -> None:
        """Everything sent from now on vanishes."""
        self.cut = True
        self._judge()

    def cut_forever(self) -> Link:
        """A copy for one connection that no healing reaches."""
        ends = (self.source, self.host)
        twin = Link(self._environment, ends, self.options, self.entropy, self.effects)
        twin.set_cut()
        twin.forever = True
        return twin

    def set_hold(self) -> None:
        """Keep what is sent from now on."""
        if self._held is None:
            self._held = []
        self._judge()

    def set_delay(self, seconds: float) -> None:
        """Add ``seconds`` to everything sent from now on."""
        if seconds < 0:
            raise ValueError(f"delay {seconds} s on {self.source}>{self.target} is negative")
        self.extra_delay_s = seconds
        self._judge()

    def heal(self, now_s: float) -> None:
        """Undo every fault and send on what was held, in order."""
        held, self._held = self._held, None
        self.cut = False
        self.extra_delay_s = 0.0
        self._judge()
        for carry_on in held or ():
            carry_on(now_s)

    def __repr__(self) -> str:
        return f"<Link {self.source}>{self.target}>"
