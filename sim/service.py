"""Requests to a shared service (object store, broker) that nodes reach over an unreliable way.

A request travels, waits for a slot, takes effect at one instant, and its reply travels back. Each
step may fail by itself, so every outcome a real client meets can happen: refused, timed out before
or after the effect, and the effect that lands long after its client gave up. The service carries a
request, not the task that made it: a request of a node that died meanwhile may still take effect.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from harness.fault_ports import NO_FAULTS as NO_FAULTS
from harness.fault_ports import Fate
from harness.fault_ports import ServiceFaults as ServiceFaults
from sim.latency import Latency, LogNormal, Skewed
from sim.loop import SimLoop
from sim.station import Holder, Station, after, never, settle
from storage.errors import PortError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """Costs of a service: one-way travel, work in a slot, and when a client stops waiting."""

    travel: Latency = field(default=Skewed(0.0002, 0.001))
    work: Latency = field(default=LogNormal(0.001, 0.5, 0.5))
    slots: int = 64
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s {self.timeout_s} must be positive")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a node's name and the incarnation that must live to hear the answer."""

    node: str
    holder: Holder


class Service:
    """The way to one shared service, with the fault verbs of that way.

    ``error`` is the ``PortError`` its clients get. ``admin`` work goes past all this.
    """

    def __init__(
        self,
        loop: SimLoop,
        generator: random.Random,
        error: type[PortError],
        options: ServiceOptions,
    ) -> None:
        self.loop = loop
        self.generator = generator
        self.error = error
        self.options = options
        self.effects = dict.fromkeys(_EFFECTS, 0)
        self.down = False
        self.travel_s = options.travel.sampler(generator)
        self.work_s = options.work.sampler(generator)
        self.station = Station(loop.environment, options.slots)
        self._faults: dict[str | None, ServiceFaults] = {}
        self._cut: dict[str, None] = {}
        self._denied: dict[str, None] = {}

    # Fault verbs

    def outage(self) -> None:
        """Every request fails or hangs until :meth:`restore`; those under way are cut off."""
        self.down = True

    def restore(self) -> None:
        """End an outage."""
        self.down = False

    def cut(self, node: str) -> None:
        """A black hole between one node and the service."""
        self._cut[node] = None

    def heal(self, node: str) -> None:
        """Undo :meth:`cut`."""
        self._cut.pop(node, None)

    def deny(self, node: str) -> None:
        """One node has wrong credentials."""
        self._denied[node] = None

    def allow(self, node: str) -> None:
        """Undo :meth:`deny`."""
        self._denied.pop(node, None)

    def inject(self, faults: ServiceFaults, node: str | None = None) -> None:
        """Let requests of a node, or of all that have no faults of their own, fail by chance."""
        self._faults[node] = faults

    def fails_listing(self, node: str) -> bool:
        """Whether a node's listing gets an error answer, this time."""
        faults = self._faults.get(node) or self._faults.get(None, NO_FAULTS)
        if not faults.failing_list or self.generator.random() >= faults.failing_list:
            return False
        self.effects["listings_failed"] += 1
        return True

    def unreachable(self, node: str) -> bool:
        """Whether bytes between a node and the service get lost now."""
        return self.down or node in self._cut

    def denied(self, node: str) -> bool:
        """Whether a node's credentials are refused."""
        return node in self._denied

    # Requests

    async def request(
        self,
        caller: Caller,
        what: str,
        effect: Callable[[], T],
        *,
        changes: bool = False,
        extra_s: float = 0.0,
    ) -> T:
        """Have the service do ``effect``, which may raise ``PortError``, and return its result.

        ``changes`` says that a lost answer leaves the caller in doubt; ``extra_s`` is work beyond
        the usual.
        """
        if not caller.holder.alive:
            await never(self.loop)
        request = Request(self, caller, what, effect, changes=changes)
        request.send(extra_s)
        outcome = await request.reply
        if not caller.holder.alive:
            await never(self.loop)
        if isinstance(outcome, PortError):
            raise outcome
        result: T = outcome
        return result

    def draw_fate(self, node: str) -> tuple[Fate, float]:
        """What becomes of a node's next request, and how many seconds longer it takes."""
        faults = self._faults.get(node) or self._faults.get(None, NO_FAULTS)
        if faults is NO_FAULTS:
            return Fate.SERVED, 0.0
        drawn = faults.draw(self.generator)
        self.effects["calls_slowed"] += drawn.slow_s > 0
        self.effects["calls_postponed"] += drawn.fate is Fate.LATE
        return drawn.fate, drawn.slow_s + drawn.late_s


_EFFECTS = (
    "calls_cut",
    "calls_denied",
    "calls_failed",
    "calls_postponed",
    "calls_slowed",
    "deletes_slowed",
    "errors_answered",
    "late_effects",
    "listings_failed",
    "listings_stale",
    "orphans_applied",
    "orphans_dropped",
    "replies_lost",
    "requests_lost",
)


class Request:
    """One request on its way; each method is one station of it, called by the environment."""

    def __init__(
        self,
        service: Service,
        caller: Caller,
        what: str,
        effect: Callable[[], Any],
        *,
        changes: bool,
    ) -> None:
        self.reply: asyncio.Future[Any] = service.loop.create_future()
        self._service = service
        self._caller = caller
        self._what = what
        self._effect = effect
        self._changes = changes
        self._fate = Fate.SERVED
        self._sent_s = service.loop.time()

    def send(self, extra_s: float) -> None:
        """Begin the journey."""
        service = self._service
        self._fate, longer_s = service.draw_fate(self._caller.node)
        work_s = service.work_s() + extra_s + longer_s
        if service.down and service.generator.random() < 0.5:
            self._fate = Fate.REFUSED
        elif service.unreachable(self._caller.node):
            self._fate = Fate.LOST_REQUEST
        if self._fate is Fate.LOST_REQUEST:
            service.effects["requests_lost"] += 1
            self._time_out()
        elif self._fate is Fate.REFUSED or service.denied(self._caller.node):
            after(service.loop.environment, service.travel_s(), self._refuse)
        else:
            if self._fate is Fate.LATE:
                work_s += service.options.timeout_s
                self._time_out()
            after(
                service.loop.environment,
                service.travel_s(),
                lambda: service.station.serve(work_s, self._served),
            )

    def _served(self) -> None:
        service = self._service
        orphan = not self._caller.holder.alive or self.reply.cancelled()
        if orphan:
            applied = service.generator.random() < 0.5
            service.effects["orphans_applied" if applied else "orphans_dropped"] += 1
            if not applied:
                return
        elif service.unreachable(self._caller.node):
            service.effects["calls_cut"] += 1
            self._time_out()
            return
        if self._fate is Fate.FAILED:
            self._fail()
            return
        try:
            outcome = self._effect()
        except PortError as error:
            outcome = error
        if self._fate is Fate.LATE:
            service.effects["late_effects"] += 1
        elif self._fate is Fate.LOST_REPLY:
            service.effects["replies_lost"] += 1
            self._time_out()
        elif not orphan:
            after(service.loop.environment, service.travel_s(), lambda: self._arrive_back(outcome))

    def _fail(self) -> None:
        """The service breaks down on the request, half of the times after it took effect."""
        service = self._service
        service.effects["errors_answered"] += 1
        if service.generator.random() < 0.5:
            with suppress(PortError):
                self._effect()
        error = service.error(
            f"{self._what} failed: internal error", may_have_happened=self._changes
        )
        after(service.loop.environment, service.travel_s(), lambda: self._arrive_back(error))

    def _arrive_back(self, outcome: object) -> None:
        if self._service.unreachable(self._caller.node):
            self._service.effects["replies_lost"] += 1
            self._time_out()
        else:
            self._answer(outcome)

    def _refuse(self) -> None:
        effects = self._service.effects
        if self._service.denied(self._caller.node):
            effects["calls_denied"] += 1
            reason = f"was refused: the credentials of {self._caller.node!r} are not valid"
        else:
            reason = "failed: the service is unavailable, slow down"
        effects["calls_failed"] += 1
        self._answer(self._service.error(f"{self._what} {reason}"))

    def _time_out(self) -> None:
        """Let the client give up when its patience ends."""
        service = self._service
        waited_s = service.loop.time() - self._sent_s
        after(
            service.loop.environment, max(0.0, service.options.timeout_s - waited_s), self._give_up
        )

    def _give_up(self) -> None:
        service = self._service
        service.effects["calls_failed"] += 1
        self._answer(
            service.error(
                f"{self._what} got no answer within {service.options.timeout_s} s",
                may_have_happened=self._changes,
            )
        )

    def _answer(self, outcome: object) -> None:
        if self._caller.holder.alive:
            settle(self.reply, outcome)
