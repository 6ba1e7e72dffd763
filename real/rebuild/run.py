"""``python -m real rebuild``: check rebuilt data directories of one PostgreSQL version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from harness.runner import verdict_of
from harness.verdict import EXIT_CODES, RunSettings
from harness.world import World
from real.backend import RealBackend, RealOptions
from real.loop import NamedHostLoop
from real.postgres.compute import template_cache
from real.rebuild.check import RebuildCheck
from real.rebuild.figures import RebuildOptions
from real.rebuild.source import WornPostgres
from real.session import RealSession


def rebuild(options: RebuildOptions, say: Callable[[str], None]) -> int:
    """Run one check; prints what it did and its figures as JSON. Returns the exit code."""
    check = RebuildCheck(options, say)
    error: Exception | None = None
    try:
        play(check)
    except Exception as raised:
        error = raised
        say(f"{type(error).__name__}: {error}")
    verdict = verdict_of(error)
    line = {"rebuild": options.replay, "verdict": verdict.value, **check.figures.summary()}
    say(json.dumps(line, sort_keys=True))
    return EXIT_CODES[verdict]


def play(check: RebuildCheck) -> None:
    """Run a check in a session of its own; raises what it raises.

    The oracles of ordinary runs are left out: they would read all of the WAL once more.
    """
    session = RealSession()
    try:
        with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
            runner.run(_play(check, session))
    finally:
        session.close()


async def _play(check: RebuildCheck, session: RealSession) -> None:
    options = check.options
    compute = WornPostgres(
        template_cache(session.directory), options.major, checksums=options.checksums
    )
    backend = RealBackend(session, RealOptions(seed=options.seed))
    settings = RunSettings("real", "postgres", options.seed)
    world = World(backend, settings, {"postgres": compute})
    try:
        await check(world)
    finally:
        for cluster in world.clusters:
            for endpoint in cluster.endpoints.values():
                await endpoint.disconnect()
        await backend.close()
