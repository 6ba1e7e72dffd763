"""A story of faults over a simulated cluster: writers come and go, hosts die, links break.

What was acknowledged must be in the log in the end, once and in order, on every safekeeper.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from storage.errors import SeawallError
from storage.lsn import Lsn
from storage.tests.safekeeper_cluster import SEGMENT, START, VERSION, Cluster, Writer
from storage.wal.reader import WalReader
from storage.wal.record import decode
from storage.walproposer.proposer import Deposed, WalProposer


async def last_record(proposer: WalProposer) -> Lsn:
    """Start of the last record before the epoch, found as a compute without pages would."""
    until = proposer.campaign.start_lsn
    reader = WalReader(START, VERSION, SEGMENT)
    if until > START:
        reader.feed(await proposer.read_back(START, until))
    return reader.last_lsn or Lsn(0)


Fault = Callable[[str], Awaitable[None]]


class Chaos:
    """One run; ``acknowledged`` are the payloads whose commit was confirmed, in order."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.chance = random.Random(f"chaos {seed}")
        self.acknowledged: list[bytes] = []
        self.proposers = 0
        self.written = 0
        self.faults = 0
        self.paused: str | None = None

    async def run(self, duration_s: float) -> Lsn:
        """Faults for a while, then a healthy time with one writer; returns the end of the log."""
        writers = [asyncio.create_task(self.write_always()) for _ in range(2)]
        faults = [asyncio.create_task(self.break_always(kinds)) for kinds in self.kinds()]
        await asyncio.sleep(duration_s)
        for fault in faults:
            assert not fault.done(), fault
            fault.cancel()
        await asyncio.gather(*faults, return_exceptions=True)
        await self.mend()
        await asyncio.sleep(5)
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        return await self.finish()

    async def finish(self) -> Lsn:
        """A last writer commits in the healed cluster, and everybody levels."""
        async with asyncio.timeout(120):
            proposer = self.new_proposer()
            elected = await proposer.elect()
            writer = Writer(proposer, elected.start_lsn, await last_record(proposer))
            end = await writer.commit(b"the end")
            self.acknowledged.append(b"the end")
        await self.cluster.level(end)
        await self.check(proposer, end)
        await proposer.close()
        return end

    def new_proposer(self) -> WalProposer:
        self.proposers += 1
        return self.cluster.proposer(
            self.proposers, wal_retained_bytes_max=8192, reconnect_max_s=1.0
        )

    # ---- writers

    async def write_always(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(0.1, 3.0))
            proposer = self.new_proposer()
            try:
                async with asyncio.timeout(self.chance.uniform(1.0, 15.0)):
                    await self.write(proposer)
            except (TimeoutError, OSError, SeawallError):
                pass
            finally:
                await proposer.close()

    async def write(self, proposer: WalProposer) -> None:
        elected = await proposer.elect()
        writer = Writer(proposer, elected.start_lsn, await last_record(proposer))
        while True:
            batch = []
            for _ in range(self.chance.randint(1, 5)):
                self.written += 1
                filler = bytes(self.chance.choice((0, 10, 500, 9000)))
                batch.append(b"%d " % self.written + filler)
            try:
                end = writer.write(*batch)
                await proposer.wait_committed(end)
            except Deposed:
                return
            self.acknowledged.extend(batch)
            await asyncio.sleep(self.chance.choice((0, 0.01, 0.1)))

    # ---- faults

    def kinds(self) -> list[tuple[Fault, ...]]:
        """Each of these goes on by itself; one at a time stops or freezes a process."""
        return [(self.kill, self.kill, self.pause), (self.cut,), (self.cut, self.reset)]

    async def break_always(self, kinds: tuple[Fault, ...]) -> None:
        while True:
            await asyncio.sleep(self.chance.expovariate(1.0))
            self.faults += 1
            await self.chance.choice(kinds)(self.chance.choice(self.cluster.names))

    async def kill(self, name: str) -> None:
        backend = self.cluster.backend
        if backend.running(name):
            await backend.kill(name, host=self.chance.random() < 0.7)
        await asyncio.sleep(self.chance.uniform(0.0, 2.0))
        await self.cluster.start(name)

    async def cut(self, name: str) -> None:
        network = self.cluster.backend.network
        other = self.chance.choice(["harness", *self.cluster.names])
        if other == name:
            return
        network.cut(name, other, both=self.chance.random() < 0.5)
        await asyncio.sleep(self.chance.uniform(0.0, 4.0))
        network.heal(name, other)

    async def reset(self, name: str) -> None:
        self.cluster.backend.network.reset(name, "harness")

    async def pause(self, name: str) -> None:
        self.paused = name
        await self.cluster.backend.pause(name)
        await asyncio.sleep(self.chance.uniform(0.0, 4.0))
        await self.resume()

    async def resume(self) -> None:
        if self.paused is not None:
            await self.cluster.backend.resume(self.paused)
            self.paused = None

    async def mend(self) -> None:
        backend = self.cluster.backend
        await self.resume()
        for name in self.cluster.names:
            for other in ["harness", *self.cluster.names]:
                if name != other:
                    backend.network.heal(name, other)
            if not backend.running(name):
                await self.cluster.start(name)

    # ---- the verdict

    async def check(self, proposer: WalProposer, end: Lsn) -> None:
        bad = [line for line in self.cluster.backend.logs() if line.level in ("ERROR", "CRITICAL")]
        assert not bad, bad[:3]
        assert len(await self.cluster.digests(end)) == 1, "safekeepers differ"
        reader = WalReader(START, VERSION, SEGMENT)
        reader.feed(await proposer.read_back(START, end))
        found = [decode(r.raw, r.lsn, r.end_lsn, VERSION).main_data for r in reader.records()]
        assert reader.last_end_lsn == end
        assert len(set(found)) == len(found), "a record is in the log twice"
        place = {payload: index for index, payload in enumerate(found)}
        lost = [payload[:20] for payload in self.acknowledged if payload not in place]
        assert not lost, f"{len(lost)} acknowledged records are lost, first {lost[:3]}"
