"""The few etcd calls that the broker needs, on aetcd's gRPC stubs, with the port's errors.

The stubs are used directly: aetcd's own watcher shares one stream between subscriptions and cannot
tell each of them that it broke. gRPC opens its sockets itself, past the event loop, so an endpoint
is an IP address and a port. Source of the calls: etcd 3.5, ``api/etcdserverpb/rpc.proto``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aetcd import rpc
from grpc.aio import EOF, UsageError

from storage.errors import BrokerError

_PUT = 0


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """Where etcd is (``host:port``). ``key_prefix`` goes before every key, so that runs can share
    one etcd. A call fails after ``timeout_s``; a connection that is silent for ``keepalive_s`` is
    probed and given up ``timeout_s`` later (etcd refuses less than its grpc-keepalive-min-time)."""

    endpoint: str
    key_prefix: str = ""
    timeout_s: float = 3.0
    keepalive_s: float = 6.0


@dataclass(frozen=True, slots=True)
class Found:
    """One key of a range with the revision that created it."""

    key: str
    value: bytes
    created: int


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a watched key; ``None`` when it was deleted."""

    key: str
    value: bytes | None


class EtcdClient:
    """One gRPC channel, made on first use and kept; every method raises ``BrokerError``."""

    def __init__(self, options: EtcdOptions) -> None:
        self.options = options
        self._channel: Any = None
        self._closed = False

    async def range(self, prefix: str) -> tuple[list[Found], int]:
        """Live keys with a prefix in order of creation, and the revision of this snapshot."""
        begin, end = self._span(prefix)
        request = rpc.RangeRequest(
            key=begin, range_end=end, sort_order="ASCEND", sort_target="CREATE"
        )
        answer = await self._call(f"get of {prefix!r}", self._keys().Range, request)
        found = [Found(self._name(kv.key), kv.value, kv.create_revision) for kv in answer.kvs]
        return found, answer.header.revision

    async def put(self, key: str, value: bytes, lease: int) -> int:
        """Set a key on a lease; returns the revision of this change."""
        request = rpc.PutRequest(key=self._full(key), value=value, lease=lease)
        answer = await self._call(f"put of {key!r}", self._keys().Put, request, changes=True)
        revision: int = answer.header.revision
        return revision

    async def grant(self, ttl_s: float) -> int:
        """A new lease of so many seconds, rounded up to whole ones."""
        request = rpc.LeaseGrantRequest(TTL=math.ceil(ttl_s))
        answer = await self._call(
            "grant of a lease", self._leases().LeaseGrant, request, changes=True
        )
        lease: int = answer.ID
        return lease

    async def keep_alive(self, lease: int) -> bool:
        """Give a lease its whole time again; false if it has run out."""

        async def renew() -> Any:
            call = self._leases().LeaseKeepAlive(timeout=self.options.timeout_s)
            try:
                await call.write(rpc.LeaseKeepAliveRequest(ID=lease))
                return await call.read()
            finally:
                call.cancel()

        answer = await self._guard("renewal of a lease", renew())
        if answer is EOF:
            raise BrokerError(f"renewal of a lease at etcd {self.options.endpoint} was cut off")
        return bool(answer.TTL > 0)

    async def revoke(self, lease: int) -> None:
        """End a lease and delete its keys; harmless if it is over."""
        request = rpc.LeaseRevokeRequest(ID=lease)
        try:
            await self._call("revoke of a lease", self._leases().LeaseRevoke, request, changes=True)
        except LeaseGone:
            return

    async def watch(self, prefix: str, from_revision: int) -> EtcdWatch:
        """A stream of every change of keys with a prefix, from a revision on; close it."""
        call = rpc.WatchStub(self._connected()).Watch()
        watch = EtcdWatch(self, call, prefix)
        begin, end = self._span(prefix)
        create = rpc.WatchCreateRequest(key=begin, range_end=end, start_revision=from_revision)
        try:
            async with asyncio.timeout(self.options.timeout_s):
                await self._guard(
                    f"watch of {prefix!r}", call.write(rpc.WatchRequest(create_request=create))
                )
                await watch.wait_created()
        except TimeoutError as error:
            watch.close()
            raise BrokerError(
                f"watch of {prefix!r} at etcd {self.options.endpoint} was not confirmed "
                f"within {self.options.timeout_s} s"
            ) from error
        except BaseException:
            watch.close()
            raise
        return watch

    async def close(self) -> None:
        """Close the channel; calls under way and later ones raise ``BrokerError``."""
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _call(
        self, what: str, method: Callable[..., Any], request: Any, *, changes: bool = False
    ) -> Any:
        call = method(request, timeout=self.options.timeout_s)
        return await self._guard(what, call, changes=changes)

    async def _guard(self, what: str, work: Awaitable[Any], *, changes: bool = False) -> Any:
        """Await gRPC work and turn what it raises into the port's errors."""
        try:
            return await work
        except rpc.AioRpcError as error:
            reason = f"{error.code().name.lower()}, {error.details()}"
            kind = LeaseGone if error.code() is rpc.StatusCode.NOT_FOUND else BrokerError
            text = f"{what} at etcd {self.options.endpoint} failed: {reason}"
            raise kind(text, may_have_happened=changes and kind is BrokerError) from error
        except UsageError as error:
            raise BrokerError(f"{what}: this broker is closed") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                # gRPC cancels its calls when the channel closes, which nobody asked this task for.
                raise BrokerError(f"{what}: this broker is closed") from error
            raise

    def _connected(self) -> Any:
        if self._closed:
            raise BrokerError("this broker is closed")
        if self._channel is None:
            self._channel = rpc.insecure_channel(
                self.options.endpoint, options=tuple(self._channel_options())
            )
        return self._channel

    def _channel_options(self) -> Iterable[tuple[str, int]]:
        yield "grpc.keepalive_time_ms", round(self.options.keepalive_s * 1000)
        yield "grpc.keepalive_timeout_ms", round(self.options.timeout_s * 1000)
        # Measured with gRPC 1.85: without this one a silent connection lives for another minute.
        yield "grpc.http2.ping_timeout_ms", round(self.options.timeout_s * 1000)
        yield "grpc.http2.max_pings_without_data", 0
        # gRPC would wait up to two minutes before it dials again, and 20 s for an answer when it
        # does (that is what its "min" is about).
        yield "grpc.initial_reconnect_backoff_ms", 100
        yield "grpc.min_reconnect_backoff_ms", round(self.options.timeout_s * 1000)
        yield "grpc.max_reconnect_backoff_ms", 1000
        # Proxy variables of the environment must not lead loopback astray.
        yield "grpc.enable_http_proxy", 0
        # Clients of one process must not share a connection: each is a node of its own.
        yield "grpc.use_local_subchannel_pool", 1

    def _keys(self) -> Any:
        return rpc.KVStub(self._connected())

    def _leases(self) -> Any:
        return rpc.LeaseStub(self._connected())

    def _full(self, key: str) -> bytes:
        return (self.options.key_prefix + key).encode()

    def _name(self, key: bytes) -> str:
        return key.decode()[len(self.options.key_prefix) :]

    def _span(self, prefix: str) -> tuple[bytes, bytes]:
        """First key with a prefix, and the first key after all those."""
        begin = self._full(prefix)
        end = begin.rstrip(b"\xff")
        if not end:
            return begin or b"\0", b"\0"  # Everything from there on, in etcd's notation.
        return begin, end[:-1] + bytes([end[-1] + 1])


class LeaseGone(BrokerError):
    """etcd does not know the lease: it ran out or was revoked."""


class EtcdWatch:
    """An open stream of changes."""

    def __init__(self, client: EtcdClient, call: Any, prefix: str) -> None:
        self._client = client
        self._call = call
        self._prefix = prefix
        self._waiting: list[Change] = []

    async def wait_created(self) -> None:
        """Return when etcd confirmed the watch: no later change can be missed."""
        while not (await self._read()).created:
            pass

    async def next(self) -> Change:
        """The next change; ``BrokerError`` when the stream broke."""
        while not self._waiting:
            answer = await self._read()
            self._waiting += [
                Change(
                    self._client._name(event.kv.key),
                    event.kv.value if event.type == _PUT else None,
                )
                for event in answer.events
            ]
        return self._waiting.pop(0)

    def close(self) -> None:
        """End the stream; harmless twice."""
        self._call.cancel()

    async def _read(self) -> Any:
        answer = await self._client._guard(f"watch of {self._prefix!r}", self._call.read())
        if answer is EOF or answer.canceled:
            reason = "the stream ended" if answer is EOF else answer.cancel_reason
            raise BrokerError(f"the subscription to {self._prefix!r} broke: {reason}")
        return answer
