"""The lease that keeps a read-only compute's LSN from being garbage collected.

It is renewed long before it ends, and at once when the compute is told to move. While a pageserver
cannot be reached the lease runs out by itself; a refusal by LSN is final for that pageserver.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from storage.compute.options import PageServiceOptions, host_and_port
from storage.errors import LsnOutOfScope, ProtocolError, SeawallError
from storage.lsn import Lsn
from storage.tasks import ShutdownRequested, TaskKind, TaskRegistry, interruptible
from storage.wire.client import ConnectOptions, ServerError, connect

if TYPE_CHECKING:
    import random

logger = logging.getLogger(__name__)

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 1.0
RENEWALS_PER_LEASE = 3
"""So that two attempts may fail before the lease ends."""


class LeaseKeeper:
    """Holds the lease at one LSN of one timeline, at whatever pageserver ``address`` names."""

    def __init__(self, options: PageServiceOptions, lsn: Lsn, registry: TaskRegistry) -> None:
        self.address = options.pageserver
        self._options = options
        self._lsn = lsn
        self._registry = registry
        self._ends_at_s = 0.0
        self._moved = asyncio.Event()
        self._settled = asyncio.Event()
        self.refusal: LsnOutOfScope | None = None

    @property
    def is_live(self) -> bool:
        """Whether the LSN is promised to be readable now."""
        return asyncio.get_running_loop().time() < self._ends_at_s

    def start(self, entropy: random.Random) -> None:
        """Start the task that renews the lease."""
        self._registry.spawn(TaskKind.ENDPOINT, "lease", self._run(entropy), critical=True)

    async def settled(self) -> None:
        """Return once a pageserver has granted the lease, or has refused it for good."""
        await self._settled.wait()

    def move(self, address: str) -> None:
        """Lease from another pageserver from now on."""
        if address != self.address:
            self.address = address
            self._moved.set()

    async def _run(self, entropy: random.Random) -> None:
        retry_s = RETRY_FIRST_S
        async with interruptible():
            while True:
                self._moved.clear()
                delay_s = await self._try()
                if delay_s is None:
                    delay_s, retry_s = retry_s, min(2 * retry_s, RETRY_MAX_S)
                else:
                    retry_s = RETRY_FIRST_S
                await self._pause(delay_s * (0.5 + 0.5 * entropy.random()))

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._moved.wait()

    async def _try(self) -> float | None:
        """Ask once; when to ask again, in seconds, or ``None`` if nobody answered."""
        asked_at_s = asyncio.get_running_loop().time()
        try:
            valid_for_s = await self._ask()
        except ServerError as error:
            if error.sqlstate != LsnOutOfScope.sqlstate:
                logger.info("no lease at %s from %s: %s", self._lsn, self.address, error)
                return None
            self._refused(LsnOutOfScope(f"{self.address}: {error.message}"))
            return RETRY_MAX_S
        except (OSError, EOFError, SeawallError) as error:
            if isinstance(error, ShutdownRequested):
                raise
            logger.info("no lease at %s from %s: %s", self._lsn, self.address, error)
            return None
        self._ends_at_s = asked_at_s + valid_for_s
        self.refusal = None
        self._settled.set()
        return valid_for_s / RENEWALS_PER_LEASE

    def _refused(self, refusal: LsnOutOfScope) -> None:
        if self.refusal is None:
            logger.warning("the lease at %s is refused: %s", self._lsn, refusal)
        self.refusal = refusal
        self._settled.set()

    async def _ask(self) -> float:
        host, port = host_and_port(self.address)
        timeout_s = self._options.stall_s
        async with asyncio.timeout(timeout_s):
            client = await connect(host, port, options=ConnectOptions(timeout_s=timeout_s))
            try:
                tenant_id, timeline_id = self._options.timeline
                result = await client.query(f"lease {tenant_id} {timeline_id} {self._lsn}")
                return _seconds(result.rows[0][0] if result.rows else None)
            finally:
                await client.close()


def _seconds(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise ProtocolError(f"{text!r} is no length of a lease in seconds") from None
