"""pytest plugin: an ``async def`` test with a ``world`` parameter is a scenario.

It is run once for each chosen world, compute and seed; ids show them
(``test_x[sim-walgen]``, ``test_x[sim-walgen-seed7]``). A failure shows its replay line first.
"""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from harness.artifacts import write_artifacts
from harness.composition import worlds
from harness.errors import HarnessError, UnsupportedFault
from harness.failure import failure_of
from harness.failures import describe, present
from harness.regressions import REGRESSIONS, Regression, of_scenario, read_regressions
from harness.reproducible import EVERY, run_and_sample
from harness.runner import RunResult, Scenario, WorldRunner
from harness.single import RECORDS
from harness.verdict import (
    NO_POSTGRES_IN_SIM,
    POLICIES,
    RunRecord,
    RunSettings,
    append_record,
    check_file,
    check_writable,
)

RUNNERS = pytest.StashKey[dict[str, WorldRunner]]()
REPLAY = pytest.StashKey[str]()
ONCE_FAILED = pytest.StashKey[Sequence[Regression]]()
COMPUTES = ("walgen", "postgres")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of ``docs/writing-scenarios.md``."""
    group = parser.getgroup("seawall", "Seawall scenarios")
    group.addoption("--world", default="all", help="sim, real or all (default)")
    group.addoption("--compute", default="all", help="walgen, postgres or all (default)")
    group.addoption("--seed", type=int, default=0, help="first seed (default 0)")
    group.addoption("--runs", type=int, default=1, help="how many seeds in sim (default 1)")
    group.addoption("--policy", default="random", choices=POLICIES, help="order of ready tasks")
    group.addoption("--only-scenario", default="", help="node id without world and compute")
    group.addoption("--plan", default="", help="carry this file's plan of faults out")
    group.addoption(
        "--twice-every",
        type=int,
        default=EVERY,
        help="run one seed in N of each scenario twice in sim (0: none)",
    )
    group.addoption("--records", default="", help="append a JSON line for each run to this file")
    group.addoption(
        "--artifacts", default="", help="directory for logs, events and pictures of each run"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse unknown values with one sentence before anything is collected."""
    config.addinivalue_line(
        "markers", "worlds(*names, reason): worlds this scenario can run in, and why not others"
    )
    config.addinivalue_line(
        "markers", "computes(*names, reason): computes this scenario can run on, and why no others"
    )
    config.stash[RUNNERS] = {}
    _chosen(config.getoption("--world"), ("sim", "real"), "--world")
    _chosen(config.getoption("--compute"), COMPUTES, "--compute")
    if (config.getoption("--world"), config.getoption("--compute")) == ("sim", "postgres"):
        raise pytest.UsageError(NO_POSTGRES_IN_SIM)
    for option, least in (("--runs", 1), ("--seed", 0)):
        if config.getoption(option) < least:
            value = config.getoption(option)
            raise pytest.UsageError(f"{option} {value}: at least {least} is needed")
    artifacts, records = config.getoption("--artifacts"), config.getoption("--records")
    try:
        if artifacts:
            check_writable(Path(artifacts), "--artifacts")
        if records:
            check_file(Path(records), "--records")
        config.stash[ONCE_FAILED] = _once_failed(config)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error


def _once_failed(config: pytest.Config) -> list[Regression]:
    """The seeds that a session runs besides seed 0; none if it was told what to run."""
    told = [config.getoption(name) for name in ("--only-scenario", "--plan", "--seed")]
    plain = config.getoption("--runs") == 1 and config.getoption("--policy") == "random"
    path = config.rootpath / REGRESSIONS
    return read_regressions(path) if plain and not any(told) and path.exists() else []


def _chosen(value: str, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    if value == "all":
        return known
    if value not in known:
        raise pytest.UsageError(f"{option} {value!r} is unknown; choose {', '.join(known)} or all")
    return (value,)


def _is_scenario(function: object) -> bool:
    return (
        inspect.iscoroutinefunction(function) and "world" in inspect.signature(function).parameters
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item for each world × compute × seed."""
    if not _is_scenario(metafunc.function):
        return
    config = metafunc.config
    cases = [
        settings
        for world in _allowed(metafunc, "worlds", config.getoption("--world"), ("sim", "real"))
        for compute in _allowed(metafunc, "computes", config.getoption("--compute"), COMPUTES)
        for settings in _cases(config, world, compute)
    ]
    if any((case.world, case.compute) == ("sim", "walgen") for case in cases):
        again = of_scenario(config.stash[ONCE_FAILED], metafunc.definition.nodeid)
        found = dict.fromkeys(each.settings(REGRESSIONS.parent) for each in again)
        cases += [settings for settings in found if settings not in cases]
    metafunc.parametrize("world", cases, ids=[_case_id(config, case) for case in cases])


def _allowed(
    metafunc: pytest.Metafunc, marker: str, value: str, known: tuple[str, ...]
) -> tuple[str, ...]:
    chosen = _chosen(value, known, f"--{marker[:-1]}")
    for mark in metafunc.definition.iter_markers(marker):
        if not mark.kwargs.get("reason"):
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: marker {marker} has no reason")
        chosen = tuple(name for name in chosen if name in mark.args)
    return chosen


def _cases(config: pytest.Config, world: str, compute: str) -> Iterator[RunSettings]:
    if world == "sim" and compute == "postgres":
        return  # PostgreSQL is a real process; the sim runs walgen, which writes the same format.
    runs = config.getoption("--runs") if world == "sim" else 1
    first = config.getoption("--seed")
    for seed in range(first, first + runs):
        policy, plan = config.getoption("--policy"), config.getoption("--plan")
        yield RunSettings(world, compute, seed, policy, plan)


def _case_id(config: pytest.Config, case: RunSettings) -> str:
    once_failed = [case.policy] if case.policy != config.getoption("--policy") else []
    once_failed += [Path(case.plan).stem] if case.plan != config.getoption("--plan") else []
    if config.getoption("--runs") == 1 and case.seed == 0 and not once_failed:
        return f"{case.world}-{case.compute}"
    return ".".join([f"{case.world}-{case.compute}-seed{case.seed}", *once_failed])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a scenario through its world's runner."""
    if not _is_scenario(pyfuncitem.obj):
        return None
    settings = pyfuncitem.funcargs["world"]
    assert isinstance(settings, RunSettings)
    nodeid = base_nodeid(pyfuncitem)
    pyfuncitem.stash[REPLAY] = settings.replay(nodeid)
    arguments = {
        name: pyfuncitem.funcargs[name]
        for name in inspect.signature(pyfuncitem.obj).parameters
        if name != "world"
    }
    result = _run(pyfuncitem, lambda world: pyfuncitem.obj(world=world, **arguments), settings)
    record = _record(pyfuncitem, nodeid, result)
    if isinstance(result.error, UnsupportedFault):
        pytest.skip(str(result.error))
    if path := pyfuncitem.config.getoption("--records"):
        append_record(Path(path), record)
    if told := pyfuncitem.config.stash.get(RECORDS, None):
        told(record)
    if result.error is not None:
        raise result.error
    return True


def _run(item: pytest.Function, scenario: Scenario, settings: RunSettings) -> RunResult:
    """One run; a world that cannot even be made is a run that ended with that error."""
    try:
        runner = runner_for(item.config, settings.world)
    except HarnessError as error:
        return RunResult.without_run(settings, error)
    every = item.config.getoption("--twice-every")
    return run_and_sample(runner, scenario, settings, base_nodeid(item), every=every)


def base_nodeid(item: pytest.Function) -> str:
    """The node id without world, compute and seed: what replay lines name."""
    call = getattr(item, "callspec", None)
    if call is None or "world" not in call.params:
        return item.nodeid
    head, _, tail = item.nodeid.partition("[")
    case = _case_id(item.config, call.params["world"])
    others = f"-{tail[:-1]}-".replace(f"-{case}-", "-", 1)[1:-1]
    return f"{head}[{others}]" if others else head


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop scenarios that no chosen world runs, all but the one ``harness run`` names, and seeds
    that failed with other parameters of a scenario."""
    wanted = config.getoption("--only-scenario")
    once_failed = {
        (each.scenario, each.settings(REGRESSIONS.parent)) for each in config.stash[ONCE_FAILED]
    }
    items[:] = [
        item
        for item in items
        if not isinstance(item, pytest.Function)
        or not _is_scenario(item.obj)
        or (
            isinstance(item.callspec.params["world"], RunSettings)
            and wanted in ("", base_nodeid(item))
            and (
                _was_asked_for(config, item.callspec.params["world"])
                or (base_nodeid(item), item.callspec.params["world"]) in once_failed
            )
        )
    ]


def _was_asked_for(config: pytest.Config, case: RunSettings) -> bool:
    first, runs = config.getoption("--seed"), config.getoption("--runs")
    options = (config.getoption("--policy"), config.getoption("--plan"))
    return first <= case.seed < first + runs and (case.policy, case.plan) == options


def runner_for(config: pytest.Config, world: str) -> WorldRunner:
    """This session's runner of a world; made at first use, closed at the session's end."""
    runners = config.stash[RUNNERS]
    if world not in runners:
        runners[world] = worlds()[world]()
    return runners[world]


def _record(item: pytest.Function, nodeid: str, result: RunResult) -> RunRecord:
    artifacts = ""
    if directory := item.config.getoption("--artifacts"):
        artifacts = write_artifacts(Path(directory), nodeid, result)
    message = "" if result.error is None else describe(item, result.error)
    return RunRecord(
        nodeid=nodeid,
        settings=result.settings,
        verdict=result.verdict,
        message=message,
        digest=result.digest,
        events=result.events,
        commits=result.commits,
        virtual_s=result.virtual_s,
        wall_s=result.wall_s,
        artifacts=artifacts,
        failure=failure_of(result),
        marks=dict(result.evidence.marks),
        faults=dict(result.evidence.faults),
        commits_under_faults=result.evidence.commits_under_faults,
        figures=dict(result.evidence.figures),
    )


class RunIn(Protocol):
    """What the fixture :func:`run_in` gives."""

    def __call__(self, world: str, scenario: Scenario, compute: str = "walgen") -> RunResult:
        """Run a scenario in a named world and return how it ended; a red run raises."""
        ...


@pytest.fixture
def run_in(request: pytest.FixtureRequest) -> RunIn:
    """For tests that compare worlds or need one of them whole."""

    config = request.config
    seed = config.getoption("--seed")
    words = ["python", "-m", "pytest", request.node.nodeid, "--seed", str(seed)]
    request.node.stash[REPLAY] = shlex.join(words)

    def run(world: str, scenario: Scenario, compute: str = "walgen") -> RunResult:
        result = _run(request.node, scenario, RunSettings(world, compute, seed))
        if result.error is not None:
            raise result.error
        return result

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the replay line in front of a failure."""
    report = yield
    if report.failed and call.excinfo is not None:
        present(report, item, call.excinfo.value, item.stash.get(REPLAY, None))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop what the runners keep."""
    runners = session.config.stash.get(RUNNERS, {})
    while runners:
        runners.popitem()[1].close()


def pytest_report_header(config: pytest.Config) -> str:
    """Say what is run."""
    return (
        f"seawall: world={config.getoption('--world')} compute={config.getoption('--compute')} "
        f"seeds={config.getoption('--seed')}+{config.getoption('--runs')} "
        f"policy={config.getoption('--policy')} pid={os.getpid()}"
    )
