"""Life and death of node processes, and what is left of them."""

import asyncio
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from harness.backend import RETURNED_UNASKED, NodeSpec
from harness.errors import HarnessError, NodeDied, NotLive
from real import process
from real.backend import RealBackend, RealOptions
from real.loop import NamedHostLoop
from real.session import RealSession
from real.tests.conftest import TOYS
from real.tests.endings import gone
from real.tests.toy_roles import PORT

ROOT = Path(__file__).resolve().parents[2]


async def start(backend, name, role="echo", **options):
    await backend.spawn(NodeSpec(name, role, options))
    await backend.wait_ready(name, within_s=10)


async def ended(backend, name):
    async with asyncio.timeout(5):
        while backend.running(name):  # noqa: ASYNC110 - it is another process that ends
            await asyncio.sleep(0.005)


def lines(backend, node, level):
    return [line.text for line in backend.logs() if line.node == node and line.level == level]


def states(backend, node):
    return [
        event.fields["state"]
        for event in backend.events()
        if event.node == node and event.kind == "process"
    ]


def test_stop_is_clean_and_restart_gets_a_new_incarnation(play):
    async def story(backend):
        await start(backend, "a")
        await backend.stop("a", within_s=5)
        assert not backend.running("a")
        assert backend.died("a") is None
        await start(backend, "a")

    backend = play(story)
    assert states(backend, "a")[:4] == ["started", "ready", "stopping", "stopped"]
    assert states(backend, "a")[4:] == ["started", "ready", "stopped"]
    assert lines(backend, "a", "INFO") == ["toy: serving", "toy: serving"]


def test_main_that_raises_before_ready_is_told_with_its_error(play):
    async def story(backend):
        await backend.spawn(NodeSpec("a", "crash", {"who": "Ada"}))
        with pytest.raises(NodeDied, match="ValueError: no such luck, Ada"):
            await backend.wait_ready("a", within_s=5)
        assert backend.died("a") == "ValueError: no such luck, Ada"

    backend = play(story)
    [crash] = lines(backend, "a", "ERROR")
    head, trace = crash.split("\n")[:2]
    assert head == "real.node_main: node a crashed: ValueError: no such luck, Ada"
    assert trace == "Traceback (most recent call last):"


def test_main_that_raises_later_has_died(play):
    async def story(backend):
        await start(backend, "a", "crash_later")
        await ended(backend, "a")
        assert backend.died("a") == "RuntimeError: lost its footing"

    backend = play(story)
    assert lines(backend, "a", "WARNING") == ["toy: it will not last\nlong"]


def test_main_that_returns_unasked_has_died(play):
    async def story(backend):
        await start(backend, "a", "leave")
        await ended(backend, "a")
        assert backend.died("a") == RETURNED_UNASKED

    [line] = lines(play(story), "a", "ERROR")
    assert line == f"real.node_main: node a: {RETURNED_UNASKED}"


def test_signal_from_elsewhere_is_a_death_and_our_own_kill_is_none(play):
    async def story(backend):
        for name in ("a", "b"):
            await start(backend, name)
        os.kill(backend.pid("a"), 11)
        await ended(backend, "a")
        assert backend.died("a") == "killed by SIGSEGV"
        await backend.kill("b")
        assert not backend.running("b")
        assert backend.died("b") is None

    backend = play(story)
    errors = lines(backend, "a", "ERROR")
    assert "Fatal Python error: Segmentation fault" in errors
    assert errors[-1] == "node a killed by SIGSEGV"
    assert lines(backend, "b", "ERROR") == []


def test_not_ready_in_time_and_not_stopped_in_time_are_liveness_failures(play):
    async def story(backend):
        await backend.spawn(NodeSpec("a", "never_ready"))
        with pytest.raises(NotLive, match=r"'a' is not ready after 0\.1 s"):
            await backend.wait_ready("a", within_s=0.1)
        await start(backend, "b", "stubborn")
        with pytest.raises(NotLive, match=r"'b' still runs 0\.1 s after SIGTERM"):
            await backend.stop("b", within_s=0.1)
        assert backend.running("b")
        await backend.kill("b")

    play(story)


def test_close_kills_what_does_not_stop_and_says_so(play, monkeypatch):
    monkeypatch.setattr("real.lives.STOP_AT_CLOSE_S", 0.1)

    async def story(backend):
        await start(backend, "a", "stubborn")
        await start(backend, "b")
        await backend.pause("b")

    backend = play(story)
    assert lines(backend, "a", "ERROR") == ["does not end within 0.1 s of SIGTERM, killed"]
    assert lines(backend, "b", "ERROR") == []


def test_kill_takes_the_children_of_a_node_along(play):
    pids = []

    async def story(backend):
        await start(backend, "a", "parent")
        pids.extend(process.tree(backend.pid("a")))
        assert len(pids) == 2
        await backend.kill("a")

    play(story)
    assert all(gone(pid) for pid in pids)


def test_tasks_left_by_a_main_are_a_warning(play):
    async def story(backend):
        await start(backend, "a", "leaker")

    backend = play(story)
    [warning] = lines(backend, "a", "WARNING")
    assert "task forgotten (Event.wait) still runs after its main returned" in warning


def test_nodes_that_are_unknown_running_or_not_are_named(play):
    async def story(backend):
        with pytest.raises(HarnessError, match="no node 'a' in this run; spawned so far: none yet"):
            await backend.stop("a", within_s=1)
        await start(backend, "a")
        with pytest.raises(HarnessError, match="'a' already runs"):
            await backend.spawn(NodeSpec("a", "echo"))
        with pytest.raises(HarnessError, match="'a' is running; stop or kill it before wiping"):
            await backend.wipe("a")
        await backend.kill("a")
        with pytest.raises(HarnessError, match="'a' is not running"):
            await backend.pause("a")

    play(story)


def test_wipe_erases_the_disk_and_keeps_the_log(play):
    async def story(backend):
        await start(backend, "a")
        disk = backend.directory / "a" / "disk"
        disk.mkdir()
        (disk / "file").write_text("data")
        await backend.kill("a")
        await backend.wipe("a")
        assert not disk.exists()
        assert lines(backend, "a", "INFO") == ["toy: serving"]

    play(story)


def read(path):
    return Path(path).read_text()


def test_process_and_log_carry_the_node_name(play):
    found = {}

    async def story(backend):
        await start(backend, "sk0")
        comm = f"/proc/{backend.pid('sk0')}/comm"
        found["comm"], found["log"] = map(read, (comm, backend.directory / "sk0" / "node.log"))
        found["title"] = read(f"/proc/{backend.pid('sk0')}/cmdline").rstrip("\0")

    play(story)
    assert found["comm"] == "sk0\n"
    assert found["title"] == "seawall echo sk0"
    assert re.fullmatch(r"\d+\.\d{6} INFO toy: serving\n", found["log"])


def test_close_leaves_no_directory_process_or_port(play):
    found = {}

    async def story(backend):
        await start(backend, "a")
        found["directory"] = backend.directory
        found["pids"] = [backend.pid("a"), backend.hub_pid]
        found["port"] = backend.host_port("a", PORT)

    play(story)
    assert not found["directory"].exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in found["pids"])
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(asyncio.wait_for(asyncio.open_connection(*found["port"]), 1))


def test_given_directory_stays_for_its_reader(toy_session, tmp_path):
    async def whole():
        options = RealOptions(directory=tmp_path / "run", roles=TOYS.roles, ports=TOYS.ports)
        backend = RealBackend(toy_session, options)
        try:
            await start(backend, "a")
        finally:
            await backend.close()

    with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
        runner.run(whole())
    assert (tmp_path / "run" / "a" / "node.log").exists()


def test_directory_that_cannot_be_written_is_named(toy_session, tmp_path):
    (tmp_path / "file").write_text("")

    async def whole():
        RealBackend(toy_session, RealOptions(directory=tmp_path / "file"))

    with (
        asyncio.Runner(loop_factory=NamedHostLoop) as runner,
        pytest.raises(HarnessError, match=r"cannot write to the run's directory .*/file'"),
    ):
        runner.run(whole())


def test_another_loop_is_refused(toy_session):
    async def whole():
        RealBackend(toy_session, TOYS)

    with pytest.raises(HarnessError, match="NamedHostLoop"):
        asyncio.run(whole())


OWNER = """
    import asyncio, os, signal, sys
    from harness.backend import RETURNED_UNASKED, NodeSpec
    from real import process
    from real.backend import RealBackend
    from real.loop import NamedHostLoop
    from real.session import RealSession
    from real.tests.conftest import TOYS

    async def main(session):
        backend = RealBackend(session, TOYS)
        for name, role in (("a", "echo"), ("b", "parent")):
            await backend.spawn(NodeSpec(name, role))
            await backend.wait_ready(name, within_s=10)
        print(backend.directory, session.directory, *process.tree(os.getpid())[1:], flush=True)
        {end}

    session = RealSession(["real.tests.toy_roles"], with_services=False)
    with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
        runner.run(main(session))
"""


@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGINT); await asyncio.sleep(60)",
        "raise ValueError('the test is wrong')",
        "os._exit(0)",
    ],
    ids=["SIGKILL", "Ctrl-C", "exception", "exit"],
)
def test_nothing_survives_an_owner_that_never_closes(end):
    script = textwrap.dedent(OWNER).format(end=end)
    owner = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    *directories, first, second, third, fourth, fifth = owner.stdout.split()
    pids = [first, second, third, fourth, fifth]
    deadline_s = time.monotonic() + 10
    alive = pids
    while time.monotonic() < deadline_s and alive:
        alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        time.sleep(0.01)
    assert alive == []
    while time.monotonic() < deadline_s and any(Path(path).exists() for path in directories):
        time.sleep(0.01)
    assert [path for path in directories if Path(path).exists()] == []


def test_session_without_a_place_to_write_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(HarnessError, match="set TMPDIR to a directory you can write to"):
        RealSession(["real.tests.toy_roles"], with_services=False)
