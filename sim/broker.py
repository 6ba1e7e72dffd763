"""A simulated broker that nodes share: published values with a time to live, and elections.

:class:`SimBroker` is the service with its fault verbs, :mod:`sim.broker_store` its state,
:mod:`sim.broker_view` what a node holds of it (``storage.ports.Broker``).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.backend import HARNESS
from harness.fault_ports import NO_FAULTS
from sim.broker_store import BrokerStore
from sim.broker_view import BrokerView
from sim.broker_watch import Watch
from sim.latency import Constant, Latency, LogNormal
from sim.loop import SimLoop
from sim.service import Caller, Service, ServiceFaults, ServiceOptions
from sim.station import IMMORTAL, Holder, after, at
from storage.errors import BrokerError
from storage.ports import BrokerUpdate


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """Costs of the broker: the way to it, how far watches lag behind, and when a silent stream is
    noticed by its client (gRPC's keep-alive)."""

    service: ServiceOptions = field(default=ServiceOptions(slots=256, timeout_s=3.0))
    watch_lag: Latency = field(default=LogNormal(0.003, 1.0, 1.0))
    keepalive_s: float = 6.0
    skip_probability: float = 0.3
    """How often a value still unread is replaced by a newer one of its key."""


_DIRECT = ServiceOptions(travel=Constant(0.0), work=Constant(0.0))


class SimBroker:
    """The shared broker. ``service`` holds the fault verbs of the way; nodes get :meth:`view`."""

    def __init__(
        self, loop: SimLoop, generator: random.Random, options: BrokerOptions | None = None
    ) -> None:
        self.options = options or BrokerOptions()
        self.service = Service(loop, generator, BrokerError, self.options.service)
        self._direct = Service(loop, generator, BrokerError, _DIRECT)
        self.store = BrokerStore(loop.environment, generator, self._changed)
        self.loop = loop
        self._generator = generator
        self._lag_s = self.options.watch_lag.sampler(generator)
        self._watches: list[Watch] = []
        self._lagged_by_s = 0.0
        self._counts = {"changes_lagged": 0, "streams_broken": 0, "streams_muted": 0}

    def view(self, node: str, holder: Holder = IMMORTAL) -> BrokerView:
        """The broker as one incarnation of a node sees it."""
        return BrokerView(self, self.service, Caller(node, holder))

    def admin(self) -> BrokerView:
        """The broker itself, past every fault and in no time."""
        return BrokerView(self, self._direct, Caller(HARNESS, IMMORTAL))

    # Fault verbs

    def _note(self, verb: str, **fields: str) -> None:
        self.loop.observe(HARNESS, "fault", {"verb": verb, "target": "broker", **fields})

    def outage(self) -> None:
        """Requests fail or hang and streams break until :meth:`restore`; leases stand still."""
        self._note("outage")
        self.service.outage()
        self.store.freeze()
        for watch in self._alive():
            if watch.service is self.service:
                self._after(self._lag_s(), self._break, watch, "the broker went away")

    def restore(self) -> None:
        """End an outage; every lease has its whole time before it again."""
        self._note("restore")
        self.service.restore()
        self.store.thaw()

    def cut(self, node: str) -> None:
        """A black hole between one node and the broker; its leases run out if it lasts."""
        self._note("cut", source=node)
        self.service.cut(node)
        for watch in self._alive():
            if watch.caller.node == node:
                self._after(self.options.keepalive_s, self._break_if_cut, watch)

    def heal(self, node: str) -> None:
        """Undo :meth:`cut`; streams that were not given up meanwhile deliver what waited."""
        self._note("heal", source=node)
        self.service.heal(node)
        for watch in self._alive():
            if watch.caller.node == node:
                watch.flush()

    def half_open(self, node: str) -> None:
        """The node's streams fall silent, requests still work, until its keep-alive notices."""
        self._note("half_open", source=node)
        for watch in self._alive():
            if watch.caller.node == node and not watch.mute:
                watch.mute = True
                self._counts["streams_muted"] += 1
                self._after(self.options.keepalive_s, self._break, watch, "no keep-alive came back")

    def expire(self, key: str) -> None:
        """Let the lease of a key run out now, as if its owner had been silent for too long."""
        lease = next((one[1].lease for one in self.store.by_creation(key) if one[0] == key), None)
        if lease is None:
            raise ValueError(f"there is no key {key!r} whose lease could expire")
        self.store.leases_expired += 1
        self.store.revoke(lease)

    def inject(self, faults: ServiceFaults) -> None:
        """Let requests of every node fail by chance; ``NO_FAULTS`` ends it."""
        self.service.inject(faults)
        if faults == NO_FAULTS:
            self._note("end", fault="inject")
        else:
            self._note("inject", chances=str(faults))

    def lag_watches(self, by_s: float) -> None:
        """Let every change reach watchers so much later; 0 ends it."""
        assert by_s >= 0, f"changes cannot arrive {by_s} s later"
        self._lagged_by_s = by_s
        if by_s:
            self._note("lag_watches", by_s=str(by_s))
        else:
            self._note("end", fault="lag_watches")

    def expire_leases(self, prefix: str) -> None:
        """Let the lease of every key with this prefix run out now."""
        self._note("expire_leases", prefix=prefix)
        for key in self.store.range(prefix):
            if self.store.range(key):  # Several keys may be on one lease.
                self.expire(key)

    def effects(self) -> dict[str, int]:
        """Counters of what the faults did, and how many leases ran out."""
        leases = {"leases_expired": self.store.leases_expired}
        return {**self.service.effects, **self._counts, **leases}

    # For views

    def open_watch(self, watch: Watch) -> None:
        """Begin to stream: present values first, then every change from this instant on."""
        if watch.over:
            return
        self._watches.append(watch)
        for key, value in self.store.range(watch.prefix).items():
            self._send(watch, BrokerUpdate(key, value), 0.0)

    def skips(self) -> bool:
        """Whether a value that still waits is skipped for a newer one, this time."""
        return self._generator.random() < self.options.skip_probability

    def _changed(self, key: str, value: bytes | None) -> None:
        for watch in self._alive():
            if key.startswith(watch.prefix):
                self._counts["changes_lagged"] += self._lagged_by_s > 0
                self._send(watch, BrokerUpdate(key, value), self._lag_s() + self._lagged_by_s)

    def _send(self, watch: Watch, update: BrokerUpdate, lag_s: float) -> None:
        watch.arrives_s = max(watch.arrives_s, self.loop.time() + lag_s)
        at(self.loop.environment, watch.arrives_s, functools.partial(watch.arrive, update))

    def _alive(self) -> list[Watch]:
        self._watches = [watch for watch in self._watches if not watch.over]
        return self._watches

    def _break_if_cut(self, watch: Watch) -> None:
        if watch.service.unreachable(watch.caller.node):
            self._break(watch, "no keep-alive came back")

    def _after(self, seconds: float, call: Callable[..., None], *args: object) -> None:
        after(self.loop.environment, seconds, functools.partial(call, *args))

    def _break(self, watch: Watch, reason: str) -> None:
        if not watch.over:
            self._counts["streams_broken"] += 1
            watch.break_off(reason)
