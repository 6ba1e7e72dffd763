"""Runs every async test that takes a ``lab`` in each chosen world: the same test, word for word."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from scenarios.ports.lab import Lab
from scenarios.ports.real_lab import RealLab, Servers
from scenarios.ports.sim_lab import SimLab

SIM_SEEDS = 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``real`` once, ``sim`` for a few seeds."""
    if "lab" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--world")
    first = metafunc.config.getoption("--seed")
    cases = [f"sim-seed{seed}" for seed in range(first, first + SIM_SEEDS)] + ["real"]
    wanted = [case for case in cases if chosen in ("all", case.split("-")[0])]
    metafunc.parametrize("lab", wanted, indirect=True)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """S3 and etcd, for this session's real labs; started when the first one needs them."""
    both = Servers(tmp_path_factory.mktemp("servers"))
    try:
        both.start()
        yield both
    finally:
        both.stop()


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Lab:
    """A fresh world for one test."""
    world, _, seed = str(request.param).partition("-seed")
    if world == "sim":
        return SimLab(int(seed))
    directory = request.getfixturevalue("tmp_path")
    return RealLab(request.getfixturevalue("servers"), directory)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test of the suite inside its lab."""
    if "lab" not in pyfuncitem.funcargs or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    lab: Any = pyfuncitem.funcargs["lab"]
    lab.run(lambda: pyfuncitem.obj(**arguments))
    return True
