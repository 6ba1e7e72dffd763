"""Faults of S3 and the broker in the real world: in the hub, in the S3 proxy, in etcd itself.

``outage`` and ``cut`` are the hub's. What strikes single requests to S3 is :mod:`real.s3_proxy`'s.
etcd's clients hold one HTTP/2 connection for everything, which the hub cannot tell apart: there a
lag or a silence is one of every byte that the broker says. Leases are ended by etcd, when asked.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import HarnessError, UnsupportedFault
from harness.fault_ports import NO_FAULTS, Note, ServiceFaults
from real.network import HubClient
from real.s3_proxy import S3Proxy

ETCD_S_MAX = 5.0


class _ServiceLinks:
    """``harness.fault_ports.Switch`` of a shared service: faults on every link to its name."""

    def __init__(self, hub: HubClient, target: str, note: Note, *, linked: bool = True) -> None:
        self._hub = hub
        self._target = target
        self._tell = note
        self._linked = linked
        self._final: Mapping[str, int] | None = None

    def _note(self, verb: str, **fields: str) -> None:
        self._tell(verb=verb, target=self._target, **fields)

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
        self._note("outage")

    def restore(self) -> None:
        """End the outage."""
        self._hub.ask("restore", target=self._target)
        self._note("restore")

    def cut(self, node: str) -> None:
        """A black hole between a node and the service, until :meth:`heal`."""
        self._hub.ask("fault", links=[[node, self._target], [self._target, node]], cut=True)
        self._note("cut", source=node)

    def heal(self, node: str) -> None:
        """Undo :meth:`cut`."""
        self._hub.ask("fault", links=[[node, self._target], [self._target, node]], cut=False)
        self._note("heal", source=node)

    def _unsupported(self, what: str) -> UnsupportedFault:
        return UnsupportedFault(f"the real world cannot {what} at {self._target}")

    def effects(self) -> Mapping[str, int]:
        """What the faults did so far."""
        return self._final if self._final is not None else self._count()

    def _count(self) -> dict[str, int]:
        return dict(self._hub.ask("effects", target=self._target))

    def seal(self) -> None:
        """Remember the effects; the hub is about to end."""
        self._final = self.effects()


class S3Switch(_ServiceLinks):
    """``harness.fault_ports.ObjectStoreSwitch``; an S3 behind TLS is not linked: it has no proxy
    and no link of the hub."""

    def __init__(
        self, hub: HubClient, note: Note, proxy: S3Proxy | None, *, linked: bool = True
    ) -> None:
        super().__init__(hub, "s3", note, linked=linked)
        self._proxy = proxy

    def _through(self, what: str) -> S3Proxy:
        if self._proxy is None:
            raise self._unsupported(what)
        return self._proxy

    def inject(self, faults: ServiceFaults) -> None:
        """Let requests of every node fail by chance; ``NO_FAULTS`` ends it."""
        self._through("fail single requests").faults = faults
        if faults == NO_FAULTS:
            self._note("end", fault="inject")
        else:
            self._note("inject", chances=str(faults))

    def slow_deletes(self, by_s: float) -> None:
        """Let every delete take so many seconds longer; 0 ends it."""
        self._through("slow down deletes").delete_delay_s = by_s
        if by_s:
            self._note("slow_deletes", by_s=str(by_s))
        else:
            self._note("end", fault="slow_deletes")

    def freeze_listings(self) -> None:
        """Let each listing be answered as it was first answered since."""
        self._through("make listings stale").listings = {}
        self._note("freeze_listings")

    def thaw_listings(self) -> None:
        """Let listings tell what there is again."""
        self._through("make listings stale").listings = None
        self._note("end", fault="freeze_listings")

    def deny(self, node: str) -> None:
        """A node has wrong credentials, until :meth:`allow`."""
        self._through("take one node's credentials away").denied[node] = None
        self._note("deny", source=node)

    def allow(self, node: str) -> None:
        """Undo :meth:`deny`."""
        self._through("give credentials back").denied.pop(node, None)
        self._note("end", fault="deny", source=node)

    def _count(self) -> dict[str, int]:
        counted = super()._count()
        for name, count in (self._proxy.effects if self._proxy is not None else {}).items():
            counted[name] = counted.get(name, 0) + count
        return counted


class EtcdSwitch(_ServiceLinks):
    """``harness.fault_ports.BrokerSwitch``; ``nodes`` tells those of the run, ``leases`` ends the
    run's own."""

    def __init__(
        self,
        hub: HubClient,
        note: Note,
        leases: EtcdLeases | None,
        nodes: Callable[[], list[str]],
    ) -> None:
        super().__init__(hub, "broker", note)
        self._leases = leases
        self._nodes = nodes
        self._expired = 0

    def inject(self, faults: ServiceFaults) -> None:
        """Not here: the hub does not know one request from another."""
        raise self._unsupported("fail single requests")

    def half_open(self, node: str) -> None:
        """What the broker says to a node on its present connections gets lost."""
        self._hub.ask("mute", source=self._target, target=node)
        self._note("half_open", source=node)

    def lag_watches(self, by_s: float) -> None:
        """Let all that the broker says come so much later; 0 ends it."""
        links = [[self._target, node] for node in self._nodes()]
        self._hub.ask("fault", links=links, delay_s=by_s)
        if by_s:
            self._note("lag_watches", by_s=str(by_s))
        else:
            self._note("end", fault="lag_watches")

    def expire_leases(self, prefix: str) -> None:
        """Let the lease of every key of this run with this prefix run out now."""
        if self._leases is None:
            raise self._unsupported("let leases run out")
        self._note("expire_leases", prefix=prefix)
        self._expired += self._leases.revoke(prefix)

    def _count(self) -> dict[str, int]:
        counted = super()._count()
        return {**counted, "leases_expired": self._expired} if self._expired else counted


class EtcdLeases:
    """Ends leases, over etcd's JSON gateway: a request blocks, so a fault holds when it returns.

    Source: etcd 3.5, ``api/etcdserverpb/rpc.proto`` and its grpc-gateway annotations.
    """

    def __init__(self, endpoint: str, key_prefix: str) -> None:
        self._endpoint = endpoint
        self._key_prefix = key_prefix

    def revoke(self, prefix: str) -> int:
        """End the lease of every key with a prefix; how many there were."""
        begin = (self._key_prefix + prefix).encode()
        assert begin and begin[-1] < 0xFF, f"{begin!r} has no simple end of range"
        end = begin[:-1] + bytes([begin[-1] + 1])
        span = {"key": _base64(begin), "range_end": _base64(end), "keys_only": True}
        found = self._ask("/v3/kv/range", span).get("kvs", [])
        leases = dict.fromkeys(each["lease"] for each in found if each.get("lease", "0") != "0")
        for lease in leases:
            self._ask("/v3/lease/revoke", {"ID": lease})
        return len(leases)

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._endpoint, timeout=ETCD_S_MAX)
        try:
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HarnessError(f"etcd at {self._endpoint} fails {path}: {error}") from error
        finally:
            connection.close()
        if response.status not in (200, 404):  # A lease may have ended by itself meanwhile.
            raise HarnessError(f"etcd at {self._endpoint} refuses {path}: {answer}")
        return answer


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
