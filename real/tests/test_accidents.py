"""The world's own processes die, or its owner is interrupted: said clearly, and nothing is left."""

import asyncio
import os
import signal

import pytest

from harness.backend import HARNESS, NodeSpec
from harness.errors import HarnessError
from real import process
from real.backend import RealBackend
from real.loop import NamedHostLoop
from real.session import RealSession
from real.tests.conftest import TOYS, play_on
from real.tests.endings import gone


@pytest.fixture
def own_session():
    session = RealSession(["real.tests.toy_roles"], with_services=False)
    yield session
    session.close()
    assert not session.directory.exists()


def run(session, story):
    async def with_a_node(backend):
        await backend.spawn(NodeSpec("a", "echo"))
        await backend.wait_ready("a", within_s=10)
        await story(backend)

    return play_on(session, with_a_node)


def test_killed_fork_server_takes_its_children_along(own_session, caplog):
    async def story(backend):
        server = process.parents()[backend.hub_pid]
        pids = [backend.pid("a"), backend.hub_pid]
        os.kill(server, signal.SIGKILL)
        for pid in pids:
            assert gone(pid)
        with pytest.raises(HarnessError, match="the fork server ended"):
            await backend.spawn(NodeSpec("b", "echo"))

    backend = run(own_session, story)
    assert not backend.directory.exists()
    assert "the fork server" in caplog.text


def test_run_that_cannot_begin_leaves_no_directory(own_session, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def whole():
        monkeypatch.setattr(own_session.forks, "own", interrupt)
        with pytest.raises(KeyboardInterrupt):
            RealBackend(own_session, TOYS)

    with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
        runner.run(whole())
    assert list(tmp_path.iterdir()) == []


def test_dead_hub_is_named_and_closing_goes_on(own_session, caplog):
    async def story(backend):
        os.kill(backend.hub_pid, signal.SIGKILL)
        assert gone(backend.hub_pid)
        with pytest.raises(HarnessError, match="the hub"):
            backend.network.cut(HARNESS, "a")
        assert backend.running("a")

    backend = run(own_session, story)
    assert not backend.directory.exists()
    assert backend.died("a") is None


def test_answers_of_requests_that_were_cut_short_are_passed_over(own_session, monkeypatch):
    """Ctrl-C can strike between a request and its answer."""

    async def story(backend):
        forks = own_session.forks
        pid = backend.pid("a")
        for client, ask in (
            (forks, lambda: forks.signal(pid, 0)),
            (backend._hub, backend.network.effects),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(client, "_receive", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    ask()
        backend.network.cut(HARNESS, "b")
        assert backend.host_port("a", 1)[0] == "127.0.0.1"
        backend.network.effects()
        await backend.pause("a")
        await backend.kill("a")
        assert not backend.running("a")

    run(own_session, story)


def interrupt(*_):
    raise KeyboardInterrupt
