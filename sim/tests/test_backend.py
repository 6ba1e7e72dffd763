"""The simulated backend: lives of nodes, their disks, logs and events."""

import asyncio
import gc
import logging

import pytest

import sim
from harness.backend import RETURNED_UNASKED, Ability, Backend, NodeSpec
from harness.errors import HarnessError, NodeDied, NotLive
from sim.backend import SimBackend
from storage.events import emit

log = logging.getLogger("storage.test")


async def counter(context):
    """Counts its starts on disk, answers with the count, and says goodbye when asked to stop."""
    file = await context.ports.disk.open("starts", create=True)
    starts = await file.size() + 1
    await file.pwrite(starts - 1, b"x")
    if context.options.get("durable", True):
        await file.fsync()
        await context.ports.disk.sync_dir("")

    async def answer(reader, writer):
        writer.write(b"%d" % starts)
        writer.close()

    server = await asyncio.start_server(answer, context.name, 1)
    emit("counted", starts=starts)
    log.info("start %d", starts)
    context.ready.set()
    await context.stopping.wait()
    server.close()
    log.info("goodbye")


async def crasher(context):
    await asyncio.sleep(1)
    raise ValueError("broken on purpose")


async def quitter(context):
    context.ready.set()


async def deaf(context):
    context.ready.set()
    await asyncio.sleep(1e9)


async def careless(context):
    """Its background task fails; nobody awaits it."""

    async def fail():
        raise ValueError("in the background")

    task = asyncio.create_task(fail())
    context.ready.set()
    await context.stopping.wait()
    assert task.done()


async def cyclic(context):
    """Its background task fails, and its last reference is a cycle."""

    class Owner:
        async def fail(self):
            raise ValueError("in a cycle")

        def __init__(self):
            self.task = asyncio.create_task(self.fail())

    Owner()
    context.ready.set()
    await context.stopping.wait()


async def leaky(context):
    """Forgets one task that never ends, one that ends just in time, and a listener."""
    await asyncio.start_server(lambda reader, writer: None, context.name, 1)
    forgotten = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
    closing = asyncio.create_task(asyncio.sleep(3.4), name="closing")
    context.ready.set()
    await context.stopping.wait()
    assert not forgotten.done() and not closing.done()


async def suicidal(context):
    context.ready.set()
    await asyncio.sleep(1)
    try:
        await context.options["kill"]()
    finally:
        log.error("ran after its death")


MAINS = {
    main.__name__: main
    for main in (counter, crasher, quitter, deaf, careless, cyclic, leaky, suicidal)
}


def play(story, seed=0):
    loop = sim.SimLoop(seed)
    backend = SimBackend(loop, MAINS)

    async def main():
        try:
            return await story(backend)
        finally:
            await backend.close()

    result = sim.run_on(loop, main)
    return result, backend


async def start(backend, name="n", role="counter", **options):
    await backend.spawn(NodeSpec(name, role, options))
    await backend.wait_ready(name, within_s=10)


async def ask(name="n"):
    reader, writer = await asyncio.open_connection(name, 1)
    answer = await reader.read()
    writer.close()
    return answer


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
        backend.disk("n").crash_host = lossy(backend.disk("n"))
        await backend.kill("n", host=host)
        assert not backend.running("n")
        await start(backend)
        return await ask()

    assert play(story)[0] == starts


def lossy(disk):
    from sim.inode import Loss

    crash_host = type(disk).crash_host
    return lambda: crash_host(disk, Loss.EVERYTHING)


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


def test_a_main_that_raises_has_crashed():
    async def story(backend):
        await backend.spawn(NodeSpec("n", "crasher"))
        with pytest.raises(NodeDied, match="ValueError: broken on purpose"):
            await backend.wait_ready("n", within_s=10)
        return backend.died("n")

    reason, backend = play(story)
    assert reason == "ValueError: broken on purpose"
    (line,) = [line for line in backend.logs() if line.level == "ERROR"]
    assert line.node == "n"
    assert "Traceback" in line.text


def test_a_main_that_returns_unasked_has_died():
    async def story(backend):
        await backend.spawn(NodeSpec("n", "quitter"))
        await asyncio.sleep(1)
        assert not backend.running("n")
        return backend.died("n")

    reason, backend = play(story)
    assert reason == RETURNED_UNASKED
    (line,) = [line for line in backend.logs() if line.level == "ERROR"]
    assert (line.node, line.text) == ("n", f"node n: {RETURNED_UNASKED}")


def test_a_node_that_does_not_stop_is_not_live():
    async def story(backend):
        await start(backend, role="deaf")
        with pytest.raises(NotLive, match=r"still runs 5 s after.*n#1: .*deaf"):
            await backend.stop("n", within_s=5)
        assert backend.running("n")
        await backend.kill("n")
        return backend.died("n")

    assert play(story)[0] is None


def test_a_node_that_does_not_become_ready_is_not_live():
    async def story(backend):
        await backend.spawn(NodeSpec("n", "counter"))
        await backend.pause("n")
        with pytest.raises(NotLive, match=r"not ready after 3 s; it is paused"):
            await backend.wait_ready("n", within_s=3)
        await backend.resume("n")
        await backend.wait_ready("n", within_s=3)

    play(story)


@pytest.mark.parametrize("role", ["careless", "cyclic"])
@pytest.mark.parametrize("end", ["stop", "kill", "nothing"])
def test_background_failures_of_a_node_are_error_lines_of_that_node(role, end):
    async def story(backend):
        await start(backend, role=role)
        await asyncio.sleep(5)
        if end == "stop":
            await backend.stop("n", within_s=5)
        elif end == "kill":
            await backend.kill("n")

    _, backend = play(story)
    errors = [line for line in backend.logs() if line.level == "ERROR"]
    expected = {"careless": "in the background", "cyclic": "in a cycle"}[role]
    if role == "careless" and end != "stop":
        assert errors == [], "its main still holds the task and may yet await it"
    else:
        assert [(line.node, expected in line.text) for line in errors] == [("n", True)]


def test_tasks_and_sockets_that_outlive_their_main_are_warnings():
    async def story(backend):
        await start(backend, role="leaky")
        await asyncio.sleep(3)
        await backend.stop("n", within_s=5)

    _, backend = play(story)
    lines = [line for line in backend.logs() if line.level != "INFO"]
    assert {(line.node, line.level) for line in lines} == {("n", "WARNING")}
    assert [line.text for line in lines] == [
        "task forgotten (Event.wait) still runs after its main returned",
        "a Listener is still open after its main returned",
    ]


def test_a_node_that_kills_itself_does_not_come_back_from_it():
    async def story(backend):
        options = {"kill": lambda: backend.kill("n")}
        await start(backend, role="suicidal", **options)
        await asyncio.sleep(100)
        gc.collect()
        assert not backend.running("n")

    _, backend = play(story)
    assert backend.logs() == []


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


def test_disposal_of_a_red_run_logs_nothing(caplog):
    async def main(context):
        context.ready.set()
        try:
            await context.stopping.wait()
        finally:
            logging.getLogger("storage.dying").error("never heard")
            raise ValueError("never seen")

    loop = sim.SimLoop(0)
    backend = SimBackend(loop, {"stubborn": main})

    async def story():
        await backend.spawn(NodeSpec("a", "stubborn"))
        await backend.wait_ready("a", within_s=1)
        raise KeyError("the scenario fails")

    with pytest.raises(KeyError):
        sim.run_on(loop, story)
    assert caplog.records == []
