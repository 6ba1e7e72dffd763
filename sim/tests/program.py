"""A program that uses everything that could differ between runs; prints the digest of a run.

``python -m sim.tests.program SEED POLICY`` is what the determinism tests start.
"""

import asyncio
import sys

import sim
from sim.disk import SimDisk
from storage.events import current_sink, emit

NODES = ("sk0", "sk1", "sk2")


class Gossip(asyncio.DatagramProtocol):
    def __init__(self):
        self.heard = {}

    def datagram_received(self, data, addr):
        self.heard[addr[0]] = int(data)


async def gossip(loop, name):
    transport, inbox = await loop.create_datagram_endpoint(Gossip, local_addr=(name, 2))
    for number in range(40):
        for peer in NODES:
            if peer != name:
                transport.sendto(b"%d" % number, (peer, 2))
        await asyncio.sleep(0.05)
        emit("gossip", heard=sum(inbox.heard.values()))


async def serve(disk, name):
    journal = await disk.open("journal", create=True)
    written = 0

    async def answer(reader, writer):
        nonlocal written
        try:
            while data := await reader.read(4096):
                await journal.pwrite(written, data)
                written += len(data)
                await journal.fsync()
                writer.write(b"%d\n" % written)
                await writer.drain()
        except OSError:
            emit("broken", node=name)
        writer.close()

    await asyncio.start_server(answer, name, 1)


async def client(name, number, answers):
    for attempt in range(5):
        try:
            async with asyncio.timeout(3):
                reader, writer = await asyncio.open_connection(name, 1)
                try:
                    for _ in range(10):
                        writer.write(b"entry %d;" % number)
                        answers.append((name, number, await reader.readline()))
                finally:
                    writer.close()
            return
        except (OSError, TimeoutError):
            await asyncio.sleep(0.1 * attempt)


async def losers(loop):
    """Set-ordered cancellation: the order in which a task group cancels must not depend on ids."""
    order = []

    async def loser(number):
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            order.append(number)
            raise

    async def fail():
        await asyncio.sleep(0.01)
        raise ValueError("the group must fail")

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(loser(number))
            group.create_task(fail())
    except* ValueError:
        pass
    waited = [loop.create_task(asyncio.sleep(0.001 * (number % 7))) for number in range(30)]
    done, pending = await asyncio.wait(waited, timeout=0.003)
    order += [int(task.get_name().split("-")[1]) for task in done]
    order += [1000 + int(task.get_name().split("-")[1]) for task in pending]
    loop.observe("harness", "order", {"order": repr(order)})


async def main(loop):
    loop.network.options = sim.LinkOptions(
        datagram_loss=0.1, datagram_duplication=0.1, fragmentation=0.2
    )
    disks = {name: SimDisk(loop, loop.seeds.child(f"disk/{name}")) for name in NODES}

    def start(name):
        with loop.nodes.acting_as(name) as incarnation:
            token = current_sink.set(lambda kind, fields: loop.observe(name, kind, fields))
            loop.create_task(serve(disks[name].view(incarnation), name))
            loop.create_task(gossip(loop, name))
            current_sink.reset(token)

    for name in NODES:
        start(name)
    await asyncio.sleep(0.01)
    answers = []
    clients = [loop.create_task(client(NODES[number % 3], number, answers)) for number in range(12)]
    await losers(loop)
    loop.nodes.crash("sk1", host=True)
    loop.network.cut("sk0", "sk2")
    await asyncio.sleep(0.3)
    loop.network.heal("sk0", "sk2")
    start("sk1")
    loop.nodes.pause("sk2")
    await asyncio.sleep(0.2)
    loop.nodes.resume("sk2")
    await asyncio.gather(*clients)
    loop.observe("harness", "answers", {"answers": repr(answers)})


def run(seed, policy, entries_max=None):
    options = sim.LoopOptions(policy=sim.POLICIES[policy], trace=sim.TraceOptions(entries_max))
    loop = sim.SimLoop(seed, options)
    sim.run_on(loop, lambda: main(loop))
    return loop.trace


if __name__ == "__main__":
    print(run(int(sys.argv[1]), sys.argv[2]).digest())
