"""Random storms of faults: whatever happens, TCP's and the process model's promises hold."""

import asyncio
import random

import pytest

import sim
from sim.node import Life

NAMES = ("a", "b", "c")


class Storm:
    """Nodes that stream numbered bytes to each other while links and processes fail."""

    def __init__(self, loop):
        self.loop = loop
        self.entropy = loop.seeds.child("storm")
        self.sent = {}
        self.received = {}
        self.steps_of_the_dead = 0
        self.connections = 0
        self.finished = 0
        self.lives = {}

    def pattern(self, number, size):
        return random.Random(number).randbytes(size)

    def check_alive(self, incarnation):
        if incarnation.life is not Life.RUNNING:
            self.steps_of_the_dead += 1

    async def serve(self, name, incarnation):
        async def accept(reader, writer):
            try:
                number = int(await reader.readline())
                self.received[number] = b""
                while data := await reader.read(1 << 16):
                    self.check_alive(incarnation)
                    self.received[number] += data
                self.finished += 1
            except (OSError, ValueError):
                pass
            finally:
                self.check_alive(incarnation)
                writer.close()

        await asyncio.start_server(accept, name, 1)

    async def talk(self, name, incarnation, entropy):
        while True:
            await asyncio.sleep(entropy.random())
            self.check_alive(incarnation)
            peer = entropy.choice([each for each in NAMES if each != name])
            self.connections += 1
            number = self.connections
            try:
                async with asyncio.timeout(20):
                    _, writer = await asyncio.open_connection(peer, 1)
                    try:
                        await self.send(writer, number, entropy)
                    finally:
                        writer.close()
            except (OSError, TimeoutError):
                self.check_alive(incarnation)

    async def send(self, writer, number, entropy):
        whole = self.pattern(number, entropy.randrange(1, 600_000))
        self.sent[number] = b""
        writer.write(b"%d\n" % number)
        for start in range(0, len(whole), 50_000):
            piece = whole[start : start + 50_000]
            self.sent[number] += piece
            writer.write(piece)
            await writer.drain()
            if entropy.random() < 0.3:
                await asyncio.sleep(entropy.random() * 0.1)

    def start(self, name):
        self.lives[name] = self.lives.get(name, 0) + 1
        entropy = self.loop.seeds.child(f"node/{name}/{self.lives[name]}")
        with self.loop.nodes.acting_as(name) as incarnation:
            self.loop.create_task(self.serve(name, incarnation))
            self.loop.create_task(self.talk(name, incarnation, entropy))

    def strike(self):
        network, nodes, draw = self.loop.network, self.loop.nodes, self.entropy
        source, target = draw.sample(NAMES, 2)
        both = draw.random() < 0.5
        verb = draw.choice(["cut", "hold", "delay", "reset", "heal", "heal", "crash", "pause"])
        incarnation = nodes.latest(source)
        if verb in ("cut", "hold", "heal"):
            getattr(network, verb)(source, target, both=both)
        elif verb == "delay":
            network.delay(source, target, draw.random(), both=both)
        elif verb == "reset":
            network.reset(source, target)
        elif verb == "crash" and incarnation.alive:
            nodes.crash(source, host=both)
            self.loop.call_later(draw.random() * 3, self.start, source)
        elif verb == "pause" and incarnation.life is Life.RUNNING:
            nodes.pause(source)
            self.loop.call_later(draw.random() * 3, self.resume, incarnation)

    def resume(self, incarnation):
        if incarnation.life is Life.PAUSED:
            self.loop.nodes.resume(incarnation.name)

    async def run(self):
        self.loop.network.options = sim.LinkOptions(fragmentation=0.2, bandwidth=20e6)
        for name in NAMES:
            self.start(name)
        for _ in range(60):
            await asyncio.sleep(self.entropy.random() * 0.5)
            self.strike()
        for name, other in (("a", "b"), ("a", "c"), ("b", "c")):
            self.loop.network.heal(name, other)
        for name in NAMES:
            self.resume(self.loop.nodes.latest(name))
        self.finished = 0
        await asyncio.sleep(30)
        return self.steps_of_the_dead


def storm(seed, policy):
    loop = sim.SimLoop(seed, sim.LoopOptions(policy=policy))
    run = Storm(loop)
    steps_of_the_dead = sim.run_on(loop, run.run)
    assert steps_of_the_dead == 0
    return run, loop.trace.digest()


@pytest.mark.parametrize("seed", range(6))
def test_promises_hold_in_a_storm(seed):
    policy = list(sim.POLICIES.values())[seed % 3]
    run, digest = storm(seed, policy)
    assert run.connections > 20
    for number, received in run.received.items():
        sent = run.sent.get(number, b"")
        assert sent.startswith(received), f"connection {number} received what was not sent"
    assert any(run.received[number] == run.sent.get(number) for number in run.received)
    assert run.finished > 10, "after the storm nothing worked any more"
    assert storm(seed, policy)[1] == digest
