"""An S3 bucket through aiobotocore; implements ``storage.ports.ObjectStore``.

One client per node, made on first use. botocore's and aiohttp's own retries are off: a node decides
itself when to try again, and an error must reach it while it still means something.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
)
from botocore.handlers import add_expect_header

from storage.errors import ObjectMissing, ObjectStoreError, PreconditionFailed
from storage.ports import ObjectInfo

_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403", "Forbidden"}
)
_NEVER_SENT = (EndpointConnectionError, ConnectTimeoutError)
_FAILURES = (BotoCoreError, HTTPClientError, aiohttp.ClientError, OSError, asyncio.TimeoutError)


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where the bucket is. ``key_prefix`` is put before every key, so that runs can share a bucket.

    ``secret_key`` stays out of ``repr``. A whole request ends after ``request_timeout_s``.
    """

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    key_prefix: str = ""
    connect_timeout_s: float = 2.0
    request_timeout_s: float = 15.0
    connections_max: int = 32
    list_page_keys: int = 1000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> S3Options | None:
        """The endpoint that ``SEAWALL_S3_*`` name, ``None`` without ``SEAWALL_S3_ENDPOINT``.

        ``ValueError`` names what is missing: bucket, access key and secret key have no default.
        """
        endpoint = environment.get("SEAWALL_S3_ENDPOINT", "")
        if not endpoint:
            return None
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(
                f"SEAWALL_S3_ENDPOINT={endpoint!r} is no URL; write http://host:port or https://…"
            )
        required = ("BUCKET", "ACCESS_KEY", "SECRET_KEY")
        names = [f"SEAWALL_S3_{name}" for name in required]
        missing = ", ".join(name for name in names if not environment.get(name))
        if missing:
            raise ValueError(f"SEAWALL_S3_ENDPOINT is set but not {missing}; set them too")
        return cls(
            endpoint=endpoint,
            bucket=environment["SEAWALL_S3_BUCKET"],
            access_key=environment["SEAWALL_S3_ACCESS_KEY"],
            secret_key=environment["SEAWALL_S3_SECRET_KEY"],
            region=environment.get("SEAWALL_S3_REGION") or "us-east-1",
        )

    def __repr__(self) -> str:
        return f"S3Options({self.endpoint}/{self.bucket}, prefix {self.key_prefix!r})"


class _OnceOnly(AIOHTTPSession):  # type: ignore[misc]
    """Sends each request once. aiohttp repeats one whose connection broke before the answer came;
    a conditional put that had succeeded would then be told that it lost against itself."""

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        session._retry_connection = False
        return session


class S3ObjectStore:
    """One bucket, or the part of it below ``key_prefix``. ``close`` it when the node ends."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._making = asyncio.Lock()
        self._closed = False

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_etag: str | None = None
    ) -> str:
        """Store an object whole and return its etag."""
        condition: dict[str, str] = {}
        if if_absent:
            condition["IfNoneMatch"] = "*"
        if if_etag is not None:
            condition["IfMatch"] = _quoted(if_etag)
        client = await self._connected()
        answer = await self._ask(
            f"put of {key!r}",
            lambda: client.put_object(**self._at(key), Body=data, **condition),
            conditional=bool(condition),
            changes=True,
        )
        return _bare(answer["ETag"])

    async def get(self, key: str) -> bytes:
        """The whole object, or ``ObjectMissing``."""
        client = await self._connected()
        at = self._at(key)
        data: bytes = await self._ask(f"get of {key!r}", lambda: _read(client.get_object(**at)))
        return data

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, shorter only at the end, or ``ObjectMissing``."""
        if offset < 0 or length < 0:
            raise ValueError(f"a range of {length} bytes at {offset} is negative")
        if not length:
            await self.head(key)
            return b""
        client = await self._connected()
        span = f"bytes={offset}-{offset + length - 1}"
        try:
            data: bytes = await self._ask(
                f"get of {key!r} {span}",
                lambda: _read(client.get_object(**self._at(key), Range=span)),
            )
        except _RangeNotSatisfiable:
            data = b""  # S3 has no empty ranges: this one begins at the object's end or later.
        return data

    async def head(self, key: str) -> ObjectInfo:
        """Size and etag, or ``ObjectMissing``."""
        client = await self._connected()
        answer = await self._ask(f"head of {key!r}", lambda: client.head_object(**self._at(key)))
        return ObjectInfo(key, answer["ContentLength"], _bare(answer["ETag"]))

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object whose key starts with ``prefix``, in key order."""
        client = await self._connected()
        found: list[ObjectInfo] = []
        more: dict[str, str] = {}
        skip = len(self._options.key_prefix)
        where = {
            "Bucket": self._options.bucket,
            "Prefix": self._options.key_prefix + prefix,
            "MaxKeys": self._options.list_page_keys,
        }
        while True:
            page = await self._ask(
                f"list of {prefix!r}",
                functools.partial(client.list_objects_v2, **where, **more),
            )
            found += [
                ObjectInfo(row["Key"][skip:], row["Size"], _bare(row["ETag"]))
                for row in page.get("Contents", ())
            ]
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def delete(self, key: str) -> None:
        """Remove an object; harmless if it is missing."""
        client = await self._connected()
        await self._ask(
            f"delete of {key!r}", lambda: client.delete_object(**self._at(key)), changes=True
        )

    async def close(self) -> None:
        """Close the connections; later operations raise ``ObjectStoreError``."""
        self._closed = True
        self._client = None
        await self._stack.aclose()

    def _at(self, key: str) -> dict[str, str]:
        if not key:
            raise ValueError("an object needs a key of at least one character")
        return {"Bucket": self._options.bucket, "Key": self._options.key_prefix + key}

    async def _connected(self) -> Any:
        if self._closed:
            raise ObjectStoreError("this object store is closed")
        if self._client is None:
            async with self._making:
                if self._client is None:
                    client = await self._stack.enter_async_context(self._make_client())
                    # Waiting for "100 Continue" costs every put a round trip, and hangs when it
                    # gets lost.
                    client.meta.events.unregister("before-call.s3", add_expect_header)
                    self._client = client
        return self._client

    def _make_client(self) -> Any:
        options = self._options
        return _session().create_client(
            "s3",
            endpoint_url=options.endpoint,
            region_name=options.region,
            aws_access_key_id=options.access_key,
            aws_secret_access_key=options.secret_key,
            config=AioConfig(
                signature_version="s3v4",
                connect_timeout=options.connect_timeout_s,
                read_timeout=options.request_timeout_s,
                max_pool_connections=options.connections_max,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                parameter_validation=False,
                http_session_cls=_OnceOnly,
            ),
        )

    async def _ask(
        self,
        what: str,
        request: Callable[[], Awaitable[Any]],
        *,
        conditional: bool = False,
        changes: bool = False,
    ) -> Any:
        try:
            # aiohttp bounds neither the wait for a reply to begin nor a write that nobody reads.
            async with asyncio.timeout(self._options.request_timeout_s):
                return await request()
        except ClientError as error:
            raise self._refusal(what, error, conditional=conditional, changes=changes) from error
        except _FAILURES as error:
            reached = not isinstance(error, _NEVER_SENT)
            raise ObjectStoreError(
                f"{what} at {self._options.endpoint} got no answer: {_reason(error)}; "
                "is the S3 server running and reachable?",
                may_have_happened=changes and reached,
            ) from error

    def _refusal(
        self, what: str, error: ClientError, *, conditional: bool, changes: bool
    ) -> ObjectStoreError:
        """The port's error for an answer of the server that is not a success."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        where = f"{what} in bucket {self._options.bucket!r} at {self._options.endpoint}"
        if status == 412 or (conditional and code in _MISSING):
            return PreconditionFailed(f"{where}: the object is not in the state that was named")
        if code in _MISSING:
            return ObjectMissing(f"{where}: there is no such object")
        if status == 416:
            return _RangeNotSatisfiable(f"{where}: the range begins after the object's end")
        if code in _CREDENTIALS:
            return ObjectStoreError(
                f"{where} was refused ({code}) for access key {self._options.access_key!r}; "
                "check SEAWALL_S3_ACCESS_KEY and SEAWALL_S3_SECRET_KEY"
            )
        if code == "NoSuchBucket":
            return ObjectStoreError(f"{where}: there is no such bucket; make it or name another")
        # Only a refusal in the 400s says that nothing happened; 503 and 500 promise nothing.
        return ObjectStoreError(
            f"{where} failed: {status} {code}", may_have_happened=changes and status >= 500
        )


class _RangeNotSatisfiable(ObjectStoreError):
    """The server's 416, for :meth:`S3ObjectStore.get_range` alone."""


@functools.cache
def _session() -> AioSession:
    """One for the process: its loader keeps S3's description, which takes 100 ms to read."""
    return get_session()


def preload() -> None:
    """Read S3's description now, so that processes forked from this one have it."""
    loader = _session().get_component("data_loader")
    loader.load_service_model("s3", "service-2")
    loader.load_service_model("s3", "endpoint-rule-set-1")


async def _read(request: Awaitable[Any]) -> bytes:
    answer = await request
    async with answer["Body"] as body:
        data: bytes = await body.read()
    return data


def _bare(etag: str) -> str:
    return etag.strip('"')


def _quoted(etag: str) -> str:
    return f'"{etag}"'


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, TimeoutError) and not text:
        return "timed out"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
