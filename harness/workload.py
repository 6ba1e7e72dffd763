"""Background load: clients that read and write until told to stop.

What they do is a :class:`Workload`: registers (here), lists or a bank
(:mod:`harness.transactions`). Every value written to a register is unique, so a read names the
write it saw. Each client has registers of its own and all share some; own ones make order by
program visible, shared ones make races. A failed operation is part of the history, not of the
program: the client goes on with another one.
Plain asyncio, seeded by the generator it is given; works in every world.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import deque
from dataclasses import dataclass
from typing import Protocol, Self

from harness.endpoint import Client, OutcomeUnknown, Refused
from harness.errors import HarnessError, NotLive

STOP_GRACE_S = 30.0
VALUE_LENGTH = 32
"""Values are filled up to it: records of one length fit where an overwritten log had others, so
that what is left of it would be taken for WAL."""


class Worker(Protocol):
    """One client of a load: what it asks for next."""

    async def operate(self) -> bool:
        """Do one operation; whether it was a write. Raises ``Refused`` or ``OutcomeUnknown``."""
        ...


class Workload(Protocol):
    """What the clients of a load do: ``clients`` of them, each thinking ``think_s`` seconds on
    average between operations and waiting ``retry_s`` after a failed one."""

    @property
    def clients(self) -> int:
        """How many clients."""
        ...

    @property
    def think_s(self) -> float:
        """Seconds between operations."""
        ...

    @property
    def retry_s(self) -> float:
        """Seconds after a failed operation."""
        ...

    def worker(self, client: Client, number: int, entropy: random.Random) -> Worker:
        """Client ``number``, who draws from ``entropy``."""
        ...

    def writing_only(self) -> Workload:
        """The same without operations that only read."""
        ...


@dataclass(frozen=True)
class LoadOptions:
    """Registers: ``keys`` keys from ``first_key`` on, of which a quarter is shared;
    ``read_fraction`` of the operations read. The rest: :class:`Workload`."""

    clients: int = 4
    keys: int = 256
    first_key: int = 1000
    read_fraction: float = 0.5
    think_s: float = 0.01
    retry_s: float = 0.1

    def __post_init__(self) -> None:
        if self.clients < 1 or self.keys < 2 * self.clients:
            raise HarnessError(
                f"a load of {self.clients} clients on {self.keys} keys; "
                "at least 1 client and 2 keys per client are needed"
            )
        if not 0.0 <= self.read_fraction < 1.0:
            raise HarnessError(
                f"read_fraction {self.read_fraction} is outside 0 … 1 (exclusive): "
                "a load that writes nothing checks nothing"
            )

    def worker(self, client: Client, number: int, entropy: random.Random) -> Worker:
        """A client that puts, deletes, reads, and sets several keys at once."""
        return _RegisterWorker(self, client, number, entropy)

    def writing_only(self) -> LoadOptions:
        """The same registers, never read."""
        return dataclasses.replace(self, read_fraction=0.0)


@dataclass
class LoadCounts:
    """What a load did so far. ``longest_stall_s``: longest time without an acknowledged write
    while running; ``longest_wait_s``: longest time one client waited for one operation, whatever it
    did and however it ended. Both in seconds of the world's clock."""

    commits: int = 0
    reads: int = 0
    failed: int = 0
    unknown: int = 0
    longest_stall_s: float = 0.0
    longest_wait_s: float = 0.0


class Load:
    """A load on one endpoint; ``async with`` starts and stops it.

    ``name`` tells it from other loads of the same endpoint: values are unique by process names.
    """

    def __init__(
        self, client: Client, options: Workload, entropy: random.Random, *, name: str = "load"
    ) -> None:
        self.options = options
        self._name = name
        self.counts = LoadCounts()
        self._client = client
        self._entropy = entropy
        self._running = asyncio.Event()
        self._stopping = False
        self._clients: list[asyncio.Task[None]] = []
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._last_commit_s = 0.0

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Start the clients."""
        assert not self._clients, "a load starts once"
        self._resume_clock()
        self._running.set()
        for number in range(self.options.clients):
            entropy = random.Random(self._entropy.getrandbits(64))
            client = self._client.named(f"{self._client.process}/{self._name}.{number}")
            worker = self.options.worker(client, number, entropy)
            running = self._run(worker, entropy)
            self._clients.append(asyncio.create_task(running, name=f"load {number}"))

    async def stop(self) -> None:
        """Let each client finish its operation; those that hang are cancelled, their operation is
        of unknown outcome. Raises what a client died of, if one did."""
        self._stopping = True
        self._running.set()
        if self._clients:
            await asyncio.wait(self._clients, timeout=STOP_GRACE_S)
        for task in self._clients:
            task.cancel()
        self._note_stall()
        ends = await asyncio.gather(*self._clients, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def pause(self) -> None:
        """Have clients wait before their next operation; time paused is no stall."""
        self._note_stall()
        self._running.clear()

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self._resume_clock()
        self._running.set()

    async def progress(self, commits: int, *, within_s: float = 60.0) -> None:
        """Return after ``commits`` more acknowledged writes; ``NotLive`` if they do not come.

        Raises what a client died of, if one did.
        """
        assert commits > 0, "no progress to wait for"
        for client in self._clients:
            if client.done() and not client.cancelled():
                client.result()
        before = self.counts.commits
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((before + commits, waiter))
        try:
            async with asyncio.timeout(within_s):
                await waiter
        except TimeoutError:
            raise NotLive(
                f"load made {self.counts.commits - before} of {commits} commits within "
                f"{within_s:g} s ({self.counts.failed} operations failed, "
                f"{self.counts.unknown} have an unknown outcome)",
                checker="load progress",
            ) from None
        finally:
            self._waiters = deque(entry for entry in self._waiters if entry[1] is not waiter)

    def _committed(self) -> None:
        self._note_stall()
        self.counts.commits += 1
        for target, waiter in self._waiters:
            if self.counts.commits >= target and not waiter.done():
                waiter.set_result(None)

    async def _run(self, worker: Worker, entropy: random.Random) -> None:
        try:
            await self._work(worker, entropy)
        except Exception as error:
            for _, waiter in self._waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            raise

    async def _work(self, worker: Worker, entropy: random.Random) -> None:
        """Operate until the load stops."""
        options, counts = self.options, self.counts
        while True:
            await self._running.wait()
            if self._stopping:
                return
            pause_s = options.think_s
            try:
                if await self._operate(worker):
                    self._committed()
                else:
                    counts.reads += 1
            except Refused:
                counts.failed += 1
                pause_s = options.retry_s
            except OutcomeUnknown:
                counts.unknown += 1
                pause_s = options.retry_s
            await asyncio.sleep(pause_s * entropy.uniform(0.5, 1.5))

    async def _operate(self, worker: Worker) -> bool:
        asked_s = self._client.now_s()
        try:
            return await worker.operate()
        finally:
            waited_s = self._client.now_s() - asked_s
            self.counts.longest_wait_s = max(self.counts.longest_wait_s, waited_s)

    def _resume_clock(self) -> None:
        self._last_commit_s = self._client.now_s()

    def _note_stall(self) -> None:
        now_s = self._client.now_s()
        if self._running.is_set():
            stall_s = now_s - self._last_commit_s
            self.counts.longest_stall_s = max(self.counts.longest_stall_s, stall_s)
        self._last_commit_s = now_s


class _RegisterWorker:
    """Picks operations from its own generator; some keys are its own, some everybody's."""

    def __init__(
        self, options: LoadOptions, client: Client, number: int, entropy: random.Random
    ) -> None:
        shared = options.keys // 4
        own = (options.keys - shared) // options.clients
        first_own = options.first_key + shared + number * own
        self._read_fraction = options.read_fraction
        self._client = client
        self._entropy = entropy
        self._shared = range(options.first_key, options.first_key + shared)
        self._own = range(first_own, first_own + own)
        self._written = 0

    async def operate(self) -> bool:
        """See :class:`Worker`."""
        if self._entropy.random() < self._read_fraction:
            await self._read()
            return False
        await self._write()
        return True

    async def _read(self) -> None:
        if self._entropy.random() < 0.05:
            first = self._key()
            await self._client.scan(first, first + 8)
        else:
            await self._client.get(self._key())

    async def _write(self) -> None:
        choice = self._entropy.random()
        if choice < 0.8:
            await self._client.put(self._key(), self._value())
        elif choice < 0.9:
            await self._client.delete(self._key())
        else:
            keys = {self._key(): None, self._key(): None, self._key(): None}
            await self._client.txn({key: self._value() for key in keys})

    def _key(self) -> int:
        pool = self._shared if self._entropy.random() < 0.3 else self._own
        return pool[self._entropy.randrange(len(pool))]

    def _value(self) -> str:
        self._written += 1
        return f"{self._client.process}:{self._written}".ljust(VALUE_LENGTH, ".")
