"""The outside world is out of reach while a simulation runs, and only then."""

import asyncio
import contextlib
import datetime
import logging
import os
import random
import secrets
import socket
import subprocess
import threading
import time
import types
import uuid

import pytest

import sim
from sim import guard

KNOCKS = {
    "time.time": "time.time()",
    "time.monotonic": "time.monotonic()",
    "time.perf_counter_ns": "time.perf_counter_ns()",
    "time.sleep": "time.sleep(0)",
    "random.random": "random.random()",
    "random.shuffle": "random.shuffle([1, 2])",
    "os.urandom": "os.urandom(8)",
    "uuid.uuid4": "uuid.uuid4()",
    "datetime.now": "datetime.datetime.now()",
    "datetime.utcnow": "datetime.datetime.utcnow()",
    "open": "open('/dev/null')",
    "Thread.start": "threading.Thread(target=print).start()",
    "socket.__init__": "socket.socket()",
    "Popen.__init__": "subprocess.Popen(['true'])",
}
OUTSIDE = {
    module.__name__: module
    for module in (datetime, os, random, secrets, socket, subprocess, threading, time, uuid)
}


def code_of(module_name, expression):
    """A function whose module is called ``module_name`` and that evaluates ``expression``."""
    module = types.ModuleType(module_name)
    vars(module).update(OUTSIDE)
    exec(f"def knock():\n    return {expression}", vars(module))
    return module.knock


def run(function):
    async def main():
        return function()

    return sim.run(main)


@pytest.mark.parametrize("name", KNOCKS)
def test_storage_code_is_refused_by_name_with_an_alternative(name):
    with pytest.raises(sim.Nondeterminism, match=rf"storage.x used .*{name}.*; \w+"):
        run(code_of("storage.x", KNOCKS[name]))


@pytest.mark.parametrize("package", ["sim.x", "scenarios.test_x"])
def test_our_other_packages_are_guarded_too(package):
    with pytest.raises(sim.Nondeterminism, match=f"{package} used time.time"):
        run(code_of(package, "time.time()"))


@pytest.mark.parametrize("package", ["sim.bench_kernel", "somelibrary", "__main__"])
def test_other_code_gets_virtual_answers(package):
    async def main():
        knock = code_of(package, "time.monotonic()")
        before = knock()
        await asyncio.sleep(1000)
        return knock() - before

    assert sim.run(main) == 1000


def test_a_refusal_that_is_swallowed_fails_the_run_all_the_same():
    knock = code_of("storage.x", "time.time()")

    async def main():
        with contextlib.suppress(Exception):
            knock()

    with pytest.raises(sim.ScenarioFailed, match=r"storage\.x used time\.time"):
        sim.run(main)


def test_library_entropy_is_seeded():
    draws = code_of(
        "somelibrary",
        "(uuid.uuid4(), os.urandom(8), random.random(), secrets.token_hex(8),"
        " random.SystemRandom().random(), tuple(random.sample(range(1000), 5)))",
    )

    async def main():
        return draws()

    assert sim.run(main, seed=1) == sim.run(main, seed=1)
    assert set(sim.run(main, seed=1)) & set(sim.run(main, seed=2)) == set()


def test_everything_is_as_before_after_a_run():
    originals = (time.time, random.random, os.urandom, datetime.datetime, socket.socket.__init__)
    run(lambda: None)
    now = (time.time, random.random, os.urandom, datetime.datetime, socket.socket.__init__)
    assert all(one is other for one, other in zip(originals, now, strict=True))
    assert abs(time.time() - time.time()) < 5


def test_doors_reopen_when_the_run_fails():
    original = time.time
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)
    assert time.time is original


def test_a_stand_in_caught_during_a_run_works_after_it():
    caught = run(lambda: (time.time, datetime.datetime.now))
    assert abs(caught[0]() - time.time()) < 5
    assert abs((caught[1]() - datetime.datetime.now()).total_seconds()) < 5


def test_functions_imported_by_name_are_guarded(monkeypatch):
    import sys

    module = types.ModuleType("storage.imports_by_name")
    exec("from time import time\ndef knock():\n    return time()", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(sim.Nondeterminism, match=r"by_name used time\.time"):
        run(module.knock)
    assert module.time is time.time


def test_other_threads_keep_the_real_world():
    answers = []
    begin, end = threading.Event(), threading.Event()

    def measure():
        begin.wait(10)
        answers.append(time.time())
        end.set()

    thread = threading.Thread(target=measure)
    thread.start()

    def let_it_measure():
        begin.set()
        end.wait(10)

    run(let_it_measure)
    thread.join()
    assert abs(answers[0] - time.time()) < 60


def test_logging_works_and_sees_virtual_time(caplog):
    run(lambda: logging.getLogger("storage.x").warning("hello"))
    assert caplog.records[0].created < time.time() + 1e9
    assert caplog.records[0].created == pytest.approx(2_000_000_000, abs=1)


def test_datetimes_stay_datetimes():
    moment = datetime.datetime(2020, 1, 1)
    year = code_of("somelibrary", "datetime.datetime.now().year")
    assert run(lambda: (isinstance(moment, datetime.datetime), year())) == (True, 2033)


def test_entering_twice_is_a_mistake():
    source = guard.Source(lambda: 1.0, lambda: random.Random(0))
    sites = guard.enter(source)
    try:
        with pytest.raises(AssertionError, match="runs already"):
            guard.enter(source)
    finally:
        guard.leave(sites)
