"""How nodes end, by themselves or not in time, and what they must not leave behind."""

import asyncio
import gc
import logging

import pytest

import sim
from harness.backend import RETURNED_UNASKED, NodeSpec
from harness.errors import NodeDied, NotLive
from sim.backend import SimBackend
from sim.tests.toy_nodes import play, start


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
        with pytest.raises(NodeDied, match="'n' ended by itself"):
            await backend.kill("n")
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
