"""The simulated backend: lives of nodes, their disks, logs and events."""

import asyncio
import logging

import pytest

import sim
from harness.backend import Ability, Backend, NodeSpec
from harness.errors import HarnessError
from harness.fault_ports import Loss
from sim.backend import SimBackend
from sim.tests.toy_nodes import MAINS, ask, play, start


def test_it_is_a_backend():
    backend: Backend = SimBackend(sim.SimLoop(0), MAINS)
    assert backend.world == "sim"
    assert Ability.VIRTUAL_TIME in backend.abilities
    assert Ability.POSTGRES not in backend.abilities
    assert backend.host_port("n", 1) == ("n", 1)
    asyncio.run(backend.close())


def test_a_graceful_life():
    async def story(backend):
        await start(backend)
        assert backend.running("n")
        assert await ask() == b"1"
        await backend.stop("n", within_s=5)
        assert not backend.running("n")
        assert backend.died("n") is None
        with pytest.raises(ConnectionRefusedError):
            await ask()
        await start(backend)
        return await ask()

    answer, backend = play(story)
    assert answer == b"2"
    assert [line.text for line in backend.logs() if line.node == "n"] == [
        "start 1",
        "goodbye",
        "start 2",
    ]
    states = [e.fields["state"] for e in backend.events() if e.kind == "process"]
    assert states[:4] == ["started", "ready", "stopping", "stopped"]
    assert [e.fields["starts"] for e in backend.events() if e.kind == "counted"] == [1, 2]


@pytest.mark.parametrize(
    ("host", "durable", "starts"), [(False, False, b"2"), (True, True, b"2"), (True, False, b"1")]
)
def test_what_a_crash_costs(host, durable, starts):
    async def story(backend):
        await start(backend, durable=durable)
        await backend.kill("n", host=host, loss=Loss.EVERYTHING)
        assert not backend.running("n")
        await start(backend)
        return await ask()

    assert play(story)[0] == starts


def test_wiping_needs_a_node_at_rest():
    async def story(backend):
        await start(backend)
        with pytest.raises(HarnessError, match="'n' runs"):
            await backend.wipe("n")
        await backend.kill("n")
        await backend.wipe("n")
        await start(backend)
        return await ask()

    assert play(story)[0] == b"1"


def test_mistakes_are_named():
    async def story(backend):
        with pytest.raises(HarnessError, match=r"no role 'x'.*counter"):
            await backend.spawn(NodeSpec("n", "x"))
        with pytest.raises(HarnessError, match="no node 'm'; nodes spawned so far: none"):
            await backend.kill("m")
        await start(backend)
        with pytest.raises(HarnessError, match="'n' runs already"):
            await backend.spawn(NodeSpec("n", "counter"))
        await backend.kill("n")
        with pytest.raises(HarnessError, match="'n' is not running"):
            await backend.pause("n")

    play(story)


def test_views_of_a_dead_incarnation_are_inert():
    seen = {}

    async def hoarder(context):
        seen["ports"] = context.ports
        context.ready.set()
        await asyncio.sleep(1e9)

    async def story(backend):
        await start(backend, role="hoarder")
        await backend.kill("n")
        for operation in (
            seen["ports"].disk.open("file", create=True),
            seen["ports"].objects.put("key", b"value"),
            seen["ports"].broker.publish("key", b"value", ttl_s=1e6),
        ):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(operation, 60)
        assert await backend.admin_broker().get("") == {}
        assert await backend.admin_objects().list("") == []
        return backend.disk("n").snapshot().files

    MAINS["hoarder"] = hoarder
    try:
        assert play(story)[0] == {}
    finally:
        del MAINS["hoarder"]


def test_a_run_is_reproducible_and_effects_are_counted():
    async def story(backend):
        for name in ("a", "b"):
            await start(backend, name)
        backend.network.cut("a", "b")
        backend.clock("a").jump(1_000_000)
        await backend.kill("a", host=True)
        return dict(backend.effects())

    (effects, one), (again, other) = play(story, seed=5), play(story, seed=5)
    assert one.loop.trace.digest() == other.loop.trace.digest()
    assert effects == again
    assert effects["disk/a.host_crashes"] == 1
    assert effects["clock/a.clock_jumps"] == 1
    assert effects["disk/b.host_crashes"] == 0
    assert "network.bytes_cut" in effects


def test_incarnations_draw_fresh_entropy():
    drawn = []

    async def drawer(context):
        drawn.append(context.ports.entropy.getrandbits(64))
        context.ready.set()
        await context.stopping.wait()

    async def story(backend):
        for _ in range(2):
            await start(backend, role="drawer")
            await backend.kill("n")

    MAINS["drawer"] = drawer
    try:
        play(story)
        play(story)
    finally:
        del MAINS["drawer"]
    assert drawn[:2] == drawn[2:]
    assert drawn[0] != drawn[1]


def test_log_capture_leaves_the_root_logger_as_it_was():
    root = logging.getLogger()
    before = (root.level, list(root.handlers))

    async def story(backend):
        logging.getLogger("x").info("from the scenario")

    _, backend = play(story)
    assert (root.level, list(root.handlers)) == before
    assert [(line.node, line.text) for line in backend.logs()] == [("harness", "from the scenario")]
