"""The owner's side of the hub: its control socket, and the fault verbs of a cluster's network."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import HarnessError, UnsupportedFault
from harness.fault_ports import LinkFaults, ServiceFaults

ANSWER_S_MAX = 10.0


class HubClient:
    """Asks the hub. A request blocks until it is carried out, so a fault holds when it returns.

    The hub is a process of its own and never waits for this one.
    """

    def __init__(self, control: socket.socket) -> None:
        control.settimeout(ANSWER_S_MAX)
        self._control = control
        self._lines = control.makefile("rb")
        self._number = 0
        self.address = ("127.0.0.1", int(self._receive("start")["port"]))

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Carry out one verb of :class:`real.proxy.Hub`; ``HarnessError`` when it fails."""
        self._number += 1
        request = {"number": self._number, "verb": verb, **arguments}
        try:
            self._control.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise HarnessError(f"the hub is gone, cannot do {verb!r}: {error}") from error
        answer = self._receive(verb)
        while answer["number"] != self._number:  # Of a request that a Ctrl-C cut short.
            answer = self._receive(verb)
        if "error" in answer:
            raise HarnessError(f"the hub refuses {answer['error']}")
        return answer["ok"]

    def _receive(self, verb: str) -> Any:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise HarnessError(f"the hub does not answer {verb!r} in {ANSWER_S_MAX} s") from error
        if not line:
            raise HarnessError(f"the hub ended before it answered {verb!r}")
        return json.loads(line)

    def close(self) -> None:
        """Hang up, which ends the hub."""
        self._lines.close()
        self._control.close()


class HubNetwork:
    """``harness.backend.Network`` over the hub; ``note`` is told of each fault as it is made."""

    def __init__(self, hub: HubClient, note: Callable[..., None]) -> None:
        self._hub = hub
        self._note = note
        self._final: Mapping[str, int] | None = None

    def _fault(self, verb: str, source: str, target: str, both: bool, **faults: Any) -> None:
        links = [[source, target]] + ([[target, source]] if both else [])
        self._hub.ask("fault", links=links, **faults)
        self._note(verb=verb, source=source, target=target, both=both)

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Black hole; connections established now stay silent for ever."""
        self._fault("cut", source, target, both, cut=True)

    def hold(self, source: str, target: str, *, both: bool = True) -> None:
        """Keep what is sent, in order, until healed."""
        self._fault("hold", source, target, both, held=True)

    def delay(self, source: str, target: str, seconds: float, *, both: bool = True) -> None:
        """Add ``seconds`` to everything sent from now on."""
        if seconds < 0:
            raise HarnessError(f"a delay of {seconds} s; give 0 or more")
        self._fault("delay", source, target, both, delay_s=seconds)

    def disturb(self, source: str, target: str, chances: LinkFaults, *, both: bool = True) -> None:
        """Not here: the hub forwards streams, and the kernel cuts them as it likes."""
        raise UnsupportedFault(f"the real world cannot break writes on {source} → {target}")

    def heal(self, source: str, target: str, *, both: bool = True) -> None:
        """Undo every fault of the link."""
        self._fault("heal", source, target, both, cut=False, held=False, delay_s=0.0)

    def reset(self, source: str, target: str) -> None:
        """Reset the established connections between two hosts."""
        self._hub.ask("reset", source=source, target=target)
        self._note(verb="reset", source=source, target=target)

    def effects(self) -> Mapping[str, int]:
        """What the faults did so far."""
        return self._final if self._final is not None else dict(self._hub.ask("effects"))

    def seal(self) -> None:
        """Remember the effects; the hub is about to end."""
        self._final = self.effects()


class ServiceSwitch:
    """``harness.backend.Switch`` of a shared service: faults on every link to its name."""

    def __init__(
        self, hub: HubClient, target: str, note: Callable[..., None], *, linked: bool = True
    ) -> None:
        self._hub = hub
        self._target = target
        self._note = note
        self._linked = linked
        self._final: Mapping[str, int] | None = None

    def outage(self) -> None:
        """Reset every connection to the service and refuse new ones.

        ``UnsupportedFault`` for a service that is reached by TLS, and so not through the hub.
        """
        if not self._linked:
            raise UnsupportedFault(
                f"{self._target} is reached by https, past the hub that makes outages; "
                "name it by http:// to have them"
            )
        self._hub.ask("outage", target=self._target)
        self._note(verb="outage", target=self._target)

    def restore(self) -> None:
        """End the outage."""
        self._hub.ask("restore", target=self._target)
        self._note(verb="restore", target=self._target)

    def cut(self, node: str) -> None:
        """A black hole between a node and the service, until :meth:`heal`."""
        self._hub.ask("fault", links=[[node, self._target], [self._target, node]], cut=True)
        self._note(verb="cut", source=node, target=self._target, both=True)

    def heal(self, node: str) -> None:
        """Undo :meth:`cut`."""
        self._hub.ask("fault", links=[[node, self._target], [self._target, node]], cut=False)
        self._note(verb="heal", source=node, target=self._target, both=True)

    def inject(self, faults: ServiceFaults) -> None:
        """Not here: the hub does not know one request from another."""
        raise self._unsupported("fail single requests")

    def slow_deletes(self, by_s: float) -> None:
        """Not here."""
        raise self._unsupported("slow down deletes")

    def deny(self, node: str) -> None:
        """Not here: every node of a run has the same credentials."""
        raise self._unsupported("take one node's credentials away")

    def allow(self, node: str) -> None:
        """Not here."""
        raise self._unsupported("give credentials back")

    def half_open(self, node: str) -> None:
        """Not here: streams and requests share a connection."""
        raise self._unsupported("silence streams alone")

    def lag_watches(self, by_s: float) -> None:
        """Not here."""
        raise self._unsupported("let watches lag")

    def expire_leases(self, prefix: str) -> None:
        """Not here: etcd's own leases belong to their owners."""
        raise self._unsupported("let leases run out")

    def _unsupported(self, what: str) -> UnsupportedFault:
        return UnsupportedFault(f"the real world cannot {what} at {self._target}")

    def effects(self) -> Mapping[str, int]:
        """What the outages did so far."""
        if self._final is not None:
            return self._final
        return dict(self._hub.ask("effects", target=self._target))

    def seal(self) -> None:
        """Remember the effects; the hub is about to end."""
        self._final = self.effects()
