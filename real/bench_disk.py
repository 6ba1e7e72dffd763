"""Disk I/O on the loop against disk I/O on a thread pool, below a safekeeper's write path.

``python -m harness bench disk-offload``. Rounds alternate between the two, so that a disk that is
slow for a while is so for both. ``loop_p99_ms`` is what everything else on the event loop waits
for: readers, heartbeats, answers of other timelines.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from real.disk import ThreadPoolDisk
from real.disk_pool import AfterCall, DiskPool
from storage.ports import Ports

TIMELINES = (1, 8, 64)
ROUNDS = 4
ROUND_S = 1.0


class Appends(Protocol):
    """What one round measured, in seconds."""

    took_s: float
    latencies_s: Sequence[float]
    loop_lags_s: Sequence[float]


AppendFor = Callable[[Ports, int, float], Awaitable[Appends]]
"""Appends to so many timelines on the disk of these ports for so many seconds."""


class InlinePool(DiskPool):
    """A pool without threads: the caller's loop makes the call, and waits for it."""

    def submit(
        self, call: Callable[..., Any], *args: Any, after: AfterCall | None = None
    ) -> asyncio.Future[Any]:
        """Make the call now."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        try:
            result, error = call(*args), None
        except OSError as raised:
            result, error = None, raised
        if after is not None:
            loop.call_soon(after, result, error)
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
        return future


def bench(append_for: AppendFor) -> Mapping[str, Any]:
    """Both ways at each number of timelines; times in milliseconds."""
    rounds: dict[str, list[Appends]] = {}
    syncs_s: list[float] = []
    with _awake():
        for _ in range(ROUNDS):
            for count in TIMELINES:
                for way in ("inline", "threads"):
                    syncs_s += _raw_syncs_s()
                    found = _round(append_for, way, count)
                    rounds.setdefault(f"{way} {count}", []).append(found)
    return {
        "bench": "disk-offload",
        "raw_append_p50_ms": _percentile_ms(syncs_s, 50),
        "raw_append_p99_ms": _percentile_ms(syncs_s, 99),
        **{name: _figures(appends) for name, appends in rounds.items()},
    }


@contextmanager
def _awake() -> Iterator[None]:
    """Keep a processor from falling asleep: a virtual machine may be slow to wake one for a disk.

    Measured without it on one such machine: 2.5 ms for a write and fdatasync instead of 0.3 ms, but
    only for those that wait for the disk with their one thread. That is not what is compared here.
    """
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.0002):
            pass

    ticking = threading.Thread(target=tick, name="awake", daemon=True)
    ticking.start()
    try:
        yield
    finally:
        over.set()
        ticking.join()


def _round(append_for: AppendFor, way: str, count: int) -> Appends:
    directory = Path(tempfile.mkdtemp(prefix="seawall-bench-"))
    disk = ThreadPoolDisk(directory, "bench-disk")
    threads = disk.pool
    if way == "inline":
        disk.pool = InlinePool("inline", 1)
    try:
        return asyncio.run(_measured(append_for(_ports(disk), count, ROUND_S)))
    finally:
        disk.close()
        threads.close()
        shutil.rmtree(directory)


def _ports(disk: ThreadPoolDisk) -> Ports:
    nothing = cast(Any, None)
    return Ports(disk, nothing, nothing, nothing, random.Random(0))


async def _measured(work: Awaitable[Appends]) -> Appends:
    return await work


def _figures(rounds: Sequence[Appends]) -> dict[str, float]:
    latencies_s = [each for found in rounds for each in found.latencies_s]
    lags_s = [each for found in rounds for each in found.loop_lags_s]
    return {
        "appends_per_s": round(len(latencies_s) / sum(found.took_s for found in rounds), 1),
        "p50_ms": _percentile_ms(latencies_s, 50),
        "p99_ms": _percentile_ms(latencies_s, 99),
        "loop_p99_ms": _percentile_ms(lags_s, 99),
    }


def _raw_syncs_s() -> list[float]:
    """What an append costs without any of our code: write and fdatasync of a baked file."""
    took_s = []
    with tempfile.NamedTemporaryFile() as file:
        os.write(file.fileno(), bytes(1 << 20))
        os.fsync(file.fileno())
        for number in range(50):
            started_s = time.perf_counter()
            os.pwrite(file.fileno(), bytes(8192), number * 8192)
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - started_s)
    return took_s


def _percentile_ms(values_s: Sequence[float], percent: float) -> float:
    assert values_s, "nothing was measured"
    ordered_s = sorted(values_s)
    return round(1000 * ordered_s[min(len(ordered_s) - 1, int(len(ordered_s) * percent / 100))], 2)
